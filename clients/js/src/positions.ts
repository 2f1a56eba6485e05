// How far each binding of a channel has come.

/** What is sent to the server: the very object that supabase-js sends again at each rejoin. */
export interface SentBinding {
  event: string
  schema: string
  table?: string
  filter?: string
  select?: string[]
  history?: number
  order?: string
  cursor: true
  since?: string
}

export class Positions<Key> {
  #cursors = new Map<Key, string | undefined>()
  #latest: string | undefined
  #moved: (key: Key, cursor: string | undefined) => void

  /** `moved` is told of each binding that comes further, or that loses its place. */
  constructor(moved: (key: Key, cursor: string | undefined) => void = () => {}) {
    this.#moved = moved
  }

  add(key: Key, cursor?: string): void {
    this.#set(key, cursor)
  }

  keys(): Key[] {
    return [...this.#cursors.keys()]
  }

  /**
   * A change of one binding. While all bindings are live, their changes arrive in the order of the log: a new cursor says
   * that everybody has all that came before it. Only the change itself may still be under way to other bindings.
   */
  change(key: Key, cursor: string, live: boolean): void {
    if (live && cursor !== this.#latest) {
      if (this.#latest !== undefined) this.#setAll(this.#latest)
      this.#latest = cursor
    }
    this.#set(key, cursor)
  }

  /** The server says that nothing of what came before is missing, for any binding. */
  everything(cursor: string): void {
    this.#setAll(cursor)
    this.#latest = cursor
  }

  forget(): void {
    this.#setAll(undefined)
    this.#latest = undefined
  }

  entries(): [Key, string][] {
    return [...this.#cursors].filter((entry): entry is [Key, string] => entry[1] !== undefined)
  }

  /** Whether there is a binding whose place is not known. */
  incomplete(): boolean {
    return [...this.#cursors.values()].includes(undefined)
  }

  #setAll(cursor: string | undefined): void {
    for (const key of this.#cursors.keys()) this.#set(key, cursor)
  }

  #set(key: Key, cursor: string | undefined): void {
    if (this.#cursors.has(key) && this.#cursors.get(key) === cursor) return
    this.#cursors.set(key, cursor)
    this.#moved(key, cursor)
  }
}
