// Hands changes to the application: one at a time, in order, each once; and has it read its state anew where that is due.

import { isPromise } from './storage.js'
import type { ErrorSource, Reason } from './types.js'

const FIRST_PAUSE_MS = 1_000
const LONGEST_PAUSE_MS = 30_000

export interface Job {
  /** Jobs of one cursor are done together: they are one change, for several bindings. */
  cursor?: string | undefined
  /** Calls the application. */
  run?(): unknown
  /** It has been called: what comes after this job is next. */
  done(): void
}

export interface DeliveryOptions {
  refetch(reason: Reason, signal: AbortSignal): unknown
  onError(error: unknown, source: ErrorSource): void
  /** Nothing more can be done for now: everything was handed over, or the connection is awaited. */
  onRest(): void
  maxQueued: number
}

export class Delivery {
  #options: DeliveryOptions
  #queue: Job[] = []
  #running = false
  #live = false
  #closing = new AbortController()
  /** A refetch that has not succeeded yet. A later cause makes another object of it. */
  #due: { reason: Reason } | null = null
  #refetching = false
  /** The changes that come now will be covered by the refetch that is due. */
  #covered = false

  constructor(options: DeliveryOptions) {
    this.#options = options
  }

  /** Everything that came was handed over, and no refetch is due. */
  get idle(): boolean {
    return !this.#running && this.#due === null && this.#queue.length === 0
  }

  get due(): boolean {
    return this.#due !== null
  }

  /** Whether the channel is live: only then does a refetch see all that will not come as a change. */
  set live(live: boolean) {
    this.#live = live
    if (live) this.#start()
  }

  push(job: Job): void {
    if (this.#covered || this.#closing.signal.aborted) return
    this.#queue.push(job)
    if (this.#queue.length > this.#options.maxQueued) {
      this.#queue = []
      this.#covered = true
      if (!this.#due || this.#refetching) this.#due = { reason: 'overflow' }
    }
    this.#start()
  }

  /** What is known so far is not to be continued: it goes on after a refetch. */
  startOver(reason: Reason): void {
    this.#queue = []
    this.#covered = false
    this.#due = { reason }
  }

  close(): void {
    this.#queue = []
    this.#closing.abort()
  }

  #start(): void {
    if (this.#running) return
    this.#running = true
    void this.#work().then(() => {}, (error: unknown) => this.#options.onError(error, 'change'))
  }

  /** Without a wait in between if the application does not ask for one: then a change is handed over as soon as it comes. */
  async #work(): Promise<void> {
    for (;;) {
      if (this.#closing.signal.aborted) break
      if (this.#due) {
        if (!this.#live) break
        await this.#refetch(this.#due)
        continue
      }
      const job = this.#queue.shift()
      if (!job) break
      try {
        const result = job.run?.()
        if (isPromise(result)) await result
      } catch (error) {
        this.#options.onError(error, 'change')
      }
      const next = this.#queue[0]
      const continues = next !== undefined && next.cursor !== undefined && next.cursor === job.cursor
      // Whoever started over while the application was busy does not count this one.
      if (!this.#due && !continues) job.done()
    }
    this.#running = false
    this.#options.onRest()
  }

  async #refetch(due: { reason: Reason }): Promise<void> {
    let pause = FIRST_PAUSE_MS
    while (this.#due === due && !this.#closing.signal.aborted) {
      this.#covered = false
      this.#refetching = true
      try {
        await this.#options.refetch(due.reason, this.#closing.signal)
        if (this.#due === due) this.#due = null
        return
      } catch (error) {
        if (this.#closing.signal.aborted) return
        this.#options.onError(error, 'refetch')
      } finally {
        this.#refetching = false
      }
      await this.#sleep(pause)
      pause = Math.min(pause * 2, LONGEST_PAUSE_MS)
    }
  }

  #sleep(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const signal = this.#closing.signal
      const end = () => {
        clearTimeout(timer)
        signal.removeEventListener('abort', end)
        resolve()
      }
      const timer = setTimeout(end, milliseconds)
      signal.addEventListener('abort', end)
    })
  }
}
