// Cursors that outlive the page.

import type { CursorStorage } from './types.js'

const VERSION = 1

/** A storage that hasn't: it carries cursors from a removed channel to the next one of the same page. */
export function memoryStorage(): CursorStorage {
  const items = new Map<string, string>()
  return {
    getItem: (key) => items.get(key) ?? null,
    setItem: (key, value) => void items.set(key, value),
    removeItem: (key) => void items.delete(key),
  }
}

/** The cursors of one channel, by what each binding asks for. */
export type Cursors = Record<string, string>

export class Saved {
  #storage: CursorStorage
  #key: string
  #onError: (error: unknown) => void
  #written: string | null = null
  #wanted: string | null = null
  #writing = false

  constructor(storage: CursorStorage, key: string, onError: (error: unknown) => void) {
    this.#storage = storage
    this.#key = key
    this.#onError = onError
  }

  /** Null if there are none; without any entry if what is there is not ours. Throws or rejects if the storage does. */
  load(): Cursors | null | Promise<Cursors | null> {
    const text = this.#storage.getItem(this.#key)
    return isPromise(text) ? text.then((text) => this.#read(text)) : this.#read(text)
  }

  save(cursors: [string, string][]): void {
    this.#want(cursors.length > 0 ? JSON.stringify({ v: VERSION, cursors: Object.fromEntries(cursors) }) : null)
  }

  #read(text: string | null | undefined): Cursors | null {
    // What is there may be anything, and must be replaced before it can count as written.
    this.#written = text ?? null
    this.#wanted = this.#written
    if (text === null || text === undefined) return null
    try {
      const { v, cursors } = JSON.parse(text)
      if (v !== VERSION) return {}
      return Object.fromEntries(Object.entries(cursors).filter((entry): entry is [string, string] => typeof entry[1] === 'string'))
    } catch {
      return {}
    }
  }

  #want(text: string | null): void {
    this.#wanted = text
    if (this.#writing) return
    // A storage that answers later gets one request at a time, and then the newest.
    while (this.#wanted !== this.#written) {
      const text = this.#wanted
      this.#written = text
      try {
        const done = text === null ? this.#storage.removeItem(this.#key) : this.#storage.setItem(this.#key, text)
        if (!isPromise(done)) continue
        this.#writing = true
        const next = () => {
          this.#writing = false
          this.#want(this.#wanted)
        }
        done.then(next, (error: unknown) => {
          this.#onError(error)
          next()
        })
        return
      } catch (error) {
        this.#onError(error)
      }
    }
  }
}

export function isPromise<Value>(value: Value | Promise<Value>): value is Promise<Value>
export function isPromise(value: unknown): value is Promise<unknown>
export function isPromise(value: unknown): boolean {
  return typeof (value as { then?: unknown } | null | undefined)?.then === 'function'
}
