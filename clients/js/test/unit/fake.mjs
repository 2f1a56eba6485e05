// A channel that does what the SDK does, as far as this package can see, when the test says so.

import { resumable } from 'tidings-client'

export const ADDED = { event: 'INSERT', schema: 'public', table: 'messages' }
export const REMOVED = { event: 'DELETE', schema: 'public', table: 'messages' }

export class FakeChannel {
  topic = 'realtime:room'
  bindings = { postgres_changes: [] }
  socket = { getChannels: () => (this.removed ? [] : [this]) }
  removed = false
  #systems = []
  #status = null

  on(type, filter, callback) {
    if (type === 'system') this.#systems.push(callback)
    else if (!this.drops) this.bindings[type].push({ filter, callback })
    return this
  }

  subscribe(callback) {
    this.#status = callback
    return this
  }

  get subscribed() {
    return this.#status !== null
  }

  status(status, message) {
    this.#status(status, message === undefined ? undefined : new Error(message))
  }

  /** What the server would be sent now. */
  sent() {
    return structuredClone(this.bindings.postgres_changes.map(({ filter }) => filter))
  }

  /** A change for the bindings of these places, as one frame. */
  insert(id, cursor, ...places) {
    this.#emit({ eventType: 'INSERT', new: { id, ...(cursor ? { tidings_cursor: cursor } : {}) }, old: {} }, places)
  }

  delete(id, cursor, ...places) {
    this.#emit({ eventType: 'DELETE', new: {}, old: { id, ...(cursor ? { tidings_cursor: cursor } : {}) } }, places)
  }

  caughtUp(cursor) {
    this.#system('Subscribed to PostgreSQL', cursor)
  }

  fresh(cursor) {
    this.#system('Cursor', cursor)
  }

  join(cursor) {
    this.status('SUBSCRIBED')
    this.caughtUp(cursor)
  }

  #emit(change, places) {
    for (const place of places.length > 0 ? places : [0]) this.bindings.postgres_changes[place].callback(change)
  }

  #system(message, cursor) {
    const payload = { extension: 'postgres_changes', status: 'ok', message, channel: 'room' }
    for (const callback of this.#systems) callback(cursor === undefined ? payload : { ...payload, cursor })
  }
}

/** A channel with one binding, and what the application got to know. */
export function room(options = {}, bindings = [ADDED]) {
  const seen = { rows: [], reasons: [], statuses: [], errors: [], calls: [] }
  const channel = new FakeChannel()
  const live = resumable(channel, {
    refetch: (reason) => void seen.reasons.push(reason),
    onStatus: (status) => seen.statuses.push(status),
    onError: (error, source) => seen.errors.push(`${source}: ${error.message}`),
    ...options,
  })
  for (const binding of bindings) live.on(binding, ({ new: row, old }) => seen.rows.push(row.id ?? `-${old.id}`))
  return { channel, live, seen }
}

/** Everything that can be done without a timer has been done. */
export function settled() {
  return new Promise((resolve) => setImmediate(resolve))
}

/** A promise that the test settles. */
export function gate() {
  let open, fail
  const promise = new Promise((resolve, reject) => ([open, fail] = [resolve, reject]))
  return { promise, open, fail }
}
