// What an application gives to this package, and what it gets back.

/** As for `.on('postgres_changes', …)` of supabase-js, and what the server adds. */
export interface Binding<Event extends string = 'INSERT' | 'UPDATE' | 'DELETE' | '*'> {
  event: Event
  schema: string
  table?: string
  /** A text, or what `postgresChangesFilter()` of supabase-js builds. */
  filter?: string | { build(): string }
  select?: string[]
  /** Without a cursor, first the last so many rows (1 to 1000), oldest first, each as an INSERT. */
  history?: number
  /** The column by which those rows are the last. */
  order?: string
}

/**
 * Why the state of the application must be read anew.
 *
 * - `initial`: the first join without a cursor (only with the option `initial`).
 * - `cursor_expired`: away for longer than the server keeps changes.
 * - `cursor_foreign`: the cursor is another database's, or the database lost changes in a failover.
 * - `cursor_invalid`: the cursor is none that the server made; storage was damaged.
 * - `no_cursor`: it is not known where to resume: the server gives no cursors, or what is stored cannot be read, or was kept for
 *   other bindings.
 * - `overflow`: more changes came than `maxQueued` while the application was busy, or had to wait for the rest.
 */
export type Reason = 'initial' | 'cursor_expired' | 'cursor_foreign' | 'cursor_invalid' | 'no_cursor' | 'overflow'

/**
 * `offline` (not joined), `catching_up` (what was missed arrives, or `refetch` runs), `live` (everything up to now was handed
 * over), `closed` (for good: the channel was removed, or the server ended it).
 */
export type Status = 'offline' | 'catching_up' | 'live' | 'closed'

/** Where an error came from: the application's own callback, its `refetch`, or its storage. */
export type ErrorSource = 'change' | 'refetch' | 'storage'

/** `localStorage`, `sessionStorage`, React Native's AsyncStorage, or anything of this shape. */
export interface CursorStorage {
  getItem(key: string): string | null | undefined | Promise<string | null | undefined>
  setItem(key: string, value: string): unknown
  removeItem(key: string): unknown
}

export interface Options {
  /**
   * Reads the state anew, because changes may have been missed. It is called when the channel is live again; changes that come
   * meanwhile wait until it has ended, and are then handed over in order. Those that it has already read come again, so
   * apply changes by primary key. If it throws or rejects, it is called again: after 1, 2, 4, … 30 s.
   */
  refetch(reason: Reason, signal: AbortSignal): unknown
  /** Also calls `refetch('initial')` at the first join, if a binding has neither a stored cursor nor `history`. */
  initial?: boolean
  /** Keeps the cursors, so that a reload resumes. Only of use if the application keeps its state as well. */
  storage?: CursorStorage
  /** The key in the storage; by default `tidings:` and the channel's topic. Put the user into it, if there may be several. */
  key?: string
  onStatus?(status: Status): void
  /** By default `reportError` where there is one (as for an exception that nobody caught), and `console.error` elsewhere. */
  onError?(error: unknown, source: ErrorSource): void
  /** Changes that wait while `refetch`, or a callback that returned a promise, has not ended: 10,000 by default. */
  maxQueued?: number
}
