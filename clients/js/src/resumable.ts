// Sits between a channel of supabase-js and the application: keeps the newest cursor in what the SDK sends at a rejoin, and
// nothing else of the SDK is changed or hidden.

import type {
  RealtimeChannel,
  RealtimePostgresChangesFilter,
  RealtimePostgresChangesPayload,
  RealtimePostgresDeletePayload,
  RealtimePostgresInsertPayload,
  RealtimePostgresUpdatePayload,
} from '@supabase/supabase-js'

import { Delivery, type Job } from './delivery.js'
import { Positions, type SentBinding } from './positions.js'
import { Saved, isPromise, type Cursors } from './storage.js'
import type { Binding, ErrorSource, Options, Reason, Status } from './types.js'

const CURSOR_KEY = 'tidings_cursor'
const MAX_QUEUED = 10_000
/** The server lets no more of a channel start in the past: the first join would do, and the first rejoin be refused. */
const MAX_BINDINGS = 32
const STORAGE_LIMIT_MS = 5_000
const REFUSED = /\b(cursor_expired|cursor_foreign|cursor_invalid): /

type Row = { [key: string]: any }
type Change = RealtimePostgresChangesPayload<Row>
type SubscribeCallback = NonNullable<Parameters<RealtimeChannel['subscribe']>[0]>

/** A channel that has not been subscribed yet, as `supabase.channel(…)` returns it. */
export function resumable(channel: RealtimeChannel, options: Options): Resumable {
  return new Resumable(channel, options)
}

export class Resumable {
  readonly channel: RealtimeChannel
  #options: Options
  #delivery: Delivery
  #maxQueued: number
  /** What the server is asked to go on from. */
  #received = new Positions((binding, cursor) => {
    if (cursor === undefined) delete binding.since
    else binding.since = cursor
  })
  /** What the application has been given; behind the other while changes wait. */
  #handed = new Positions()
  #saved: Saved | null = null
  /** What came without a cursor, as the rows of a history do. Cut off before the next cursor, it comes again as a whole. */
  #held: Job[] = []
  #subscribed = false
  #joined = false
  #caughtUp = false
  /** It was up to date once: what it misses from then on is missed. */
  #continues = false
  #live = false
  #closed = false
  #status: Status = 'offline'

  constructor(channel: RealtimeChannel, options: Options) {
    this.channel = channel
    this.#options = options
    this.#maxQueued = options.maxQueued ?? MAX_QUEUED
    this.#delivery = new Delivery({
      refetch: (reason, signal) => options.refetch(reason, signal),
      onError: (error, source) => this.#report(error, source),
      onRest: () => this.#tell(),
      maxQueued: this.#maxQueued,
    })
    if (options.storage) {
      const key = options.key ?? `tidings:${channel.topic}`
      this.#saved = new Saved(options.storage, key, (error) => this.#report(error, 'storage'))
    }
    channel.on('system', {}, (message: unknown) => this.#system(message))
  }

  get status(): Status {
    return this.#status
  }

  /** Like `channel.on('postgres_changes', binding, onChange)`. If `onChange` returns a promise, the next change waits for it. */
  on<T extends Row = Row>(binding: Binding<'INSERT'>, onChange: (change: RealtimePostgresInsertPayload<T>) => unknown): this
  on<T extends Row = Row>(binding: Binding<'UPDATE'>, onChange: (change: RealtimePostgresUpdatePayload<T>) => unknown): this
  on<T extends Row = Row>(binding: Binding<'DELETE'>, onChange: (change: RealtimePostgresDeletePayload<T>) => unknown): this
  on<T extends Row = Row>(binding: Binding, onChange: (change: RealtimePostgresChangesPayload<T>) => unknown): this
  on(binding: Binding, onChange: (change: any) => unknown): this {
    if (this.#subscribed) throw new Error('add all bindings before subscribe()')
    if (this.#received.bindings().length >= MAX_BINDINGS) throw new Error(`at most ${MAX_BINDINGS} bindings of a channel can resume`)
    const { filter, ...rest } = binding
    const sent: SentBinding = { ...rest, cursor: true }
    // The SDK would send a copy of a binding whose filter is not a text, and no copy learns of newer cursors.
    if (filter !== undefined) sent.filter = typeof filter === 'string' ? filter : filter.build()
    this.channel.on('postgres_changes', sent as RealtimePostgresChangesFilter<'*'>, (change: Change) => {
      this.#change(sent, change, onChange)
    })
    // From 2.112.2 on the SDK drops a second binding for the same changes, and older ones mix the two up.
    const known = this.#received.bindings().some((other) => shape(other) === shape(sent))
    if (known || !isBound(this.channel, sent)) {
      throw new Error(`the channel ${this.channel.topic} has a binding for these changes already: ${shape(sent)}`)
    }
    this.#received.add(sent)
    this.#handed.add(sent)
    return this
  }

  /** Like `channel.subscribe(callback, timeout)`; the callback gets what the SDK says, unchanged. */
  subscribe(callback?: SubscribeCallback, timeout?: number): RealtimeChannel {
    if (this.#subscribed) throw new Error('subscribe() was called before on this channel: make a new one')
    this.#subscribed = true
    const begin = (cursors: Cursors | null): void => {
      this.#begin(cursors)
      this.channel.subscribe((status, error) => {
        this.#channelStatus(status, error)
        callback?.(status, error)
      }, timeout)
    }
    const failed = (error: unknown): void => {
      this.#report(error, 'storage')
      this.#delivery.startOver('no_cursor')
      begin(null)
    }
    let loaded: Cursors | null | Promise<Cursors | null>
    try {
      loaded = this.#saved?.load() ?? null
    } catch (error) {
      failed(error)
      return this.channel
    }
    if (!isPromise(loaded)) {
      begin(loaded)
      return this.channel
    }
    // The channel may be removed while the storage is being read.
    const unlessRemoved = <Value>(go: (value: Value) => void) => (value: Value) =>
      this.channel.socket.getChannels().includes(this.channel) ? go(value) : this.#close()
    void inTime(loaded).then(unlessRemoved(begin), unlessRemoved(failed))
    return this.channel
  }

  #begin(cursors: Cursors | null): void {
    const bindings = this.#received.bindings()
    // Made for other bindings, they would let these ones skip what they have never had.
    const fits = Object.keys(cursors ?? {}).length === bindings.length && bindings.every((binding) => cursors?.[shape(binding)])
    for (const binding of fits ? bindings : []) {
      this.#received.add(binding, cursors?.[shape(binding)])
      this.#handed.add(binding, cursors?.[shape(binding)])
    }
    if (fits || this.#delivery.due) return
    if (cursors) this.#delivery.startOver('no_cursor')
    else if (this.#options.initial && bindings.some(({ history }) => history === undefined)) this.#delivery.startOver('initial')
  }

  #channelStatus(status: string, error: unknown): void {
    if (status === 'SUBSCRIBED') return this.#join()
    this.#joined = false
    this.#caughtUp = false
    this.#delivery.live = false
    this.#held = []
    const refused = status === 'CHANNEL_ERROR' && REFUSED.exec(String((error as Error | undefined)?.message))
    if (refused) this.#startOver(refused[1] as Reason)
    if (status === 'CLOSED') this.#close()
    this.#tell()
  }

  #join(): void {
    this.#joined = true
    this.#caughtUp = false
    if (this.#continues && this.#received.incomplete() && !this.#delivery.due) this.#startOver('no_cursor')
    this.#tell()
  }

  #startOver(reason: Reason): void {
    this.#received.forget()
    this.#handed.forget()
    this.#save()
    this.#delivery.startOver(reason)
  }

  #close(): void {
    this.#closed = true
    this.#delivery.close()
    this.#tell()
  }

  /** What comes while the channel is not joined is left over from an earlier join, and will come again. */
  #change(binding: SentBinding, change: Change, onChange: (change: Change) => unknown): void {
    if (!this.#joined) return
    const cursor = cursorOf(change.new) ?? cursorOf(change.old)
    const given = { ...change, new: without(change.new), old: without(change.old) } as Change
    const job: Job = {
      cursor,
      run: () => onChange(given),
      done: () => {
        if (cursor === undefined) return
        this.#handed.change(binding, cursor)
        this.#save()
      },
    }
    if (cursor === undefined && !this.#caughtUp) return this.#hold(job)
    this.#release()
    if (cursor !== undefined) this.#received.change(binding, cursor)
    this.#delivery.push(job)
  }

  #system(message: unknown): void {
    const { extension, status, message: text, cursor } = (message ?? {}) as Row
    if (!this.#joined || extension !== 'postgres_changes' || status !== 'ok') return
    const fresh = text === 'Cursor'
    if (fresh && !this.#caughtUp) return
    this.#release()
    if (typeof cursor === 'string') {
      this.#received.everything(cursor)
      const done = () => {
        this.#handed.everything(cursor)
        this.#save()
      }
      this.#delivery.push({ done })
    }
    if (!fresh) {
      this.#caughtUp = true
      this.#continues = true
      this.#delivery.live = true
    }
    this.#tell()
  }

  #hold(job: Job): void {
    this.#held.push(job)
    if (this.#held.length <= this.#maxQueued) return
    this.#held = []
    this.#startOver('overflow')
  }

  #release(): void {
    const held = this.#held
    this.#held = []
    for (const job of held) this.#delivery.push(job)
  }

  #save(): void {
    this.#saved?.save(this.#handed.entries().map(([binding, cursor]) => [shape(binding), cursor]))
  }

  /** Tells the application when its view of things changes; `live` lasts until the channel is lost. */
  #tell(): void {
    this.#live = this.#caughtUp && !this.#delivery.due && (this.#live || this.#delivery.idle)
    const status = this.#closed ? 'closed' : !this.#joined ? 'offline' : this.#live ? 'live' : 'catching_up'
    if (status === this.#status) return
    this.#status = status
    try {
      this.#options.onStatus?.(status)
    } catch (error) {
      this.#report(error, 'change')
    }
  }

  #report(error: unknown, source: ErrorSource): void {
    if (this.#options.onError) this.#options.onError(error, source)
    else if (typeof reportError === 'function') reportError(error)
    else console.error(error)
  }
}

/** What makes two bindings the same to the SDK, and to whoever keeps a cursor for one. */
function shape({ event, schema, table, filter, select }: SentBinding): string {
  return JSON.stringify([event, schema, table ?? null, filter ?? null, select ?? null])
}

function isBound(channel: RealtimeChannel, sent: SentBinding): boolean {
  const bound = (channel as { bindings?: Record<string, { filter?: unknown }[]> }).bindings?.['postgres_changes']
  return bound === undefined || bound.some(({ filter }) => filter === sent)
}

function cursorOf(record: Row): string | undefined {
  const cursor = record?.[CURSOR_KEY]
  return typeof cursor === 'string' ? cursor : undefined
}

/** Other listeners of the channel are given the same object, so a copy is taken. */
function without(record: Row): Row {
  if (!record || !(CURSOR_KEY in record)) return record
  const { [CURSOR_KEY]: _, ...rest } = record
  return rest
}

function inTime<Value>(promise: Promise<Value>): Promise<Value> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`the storage did not answer within ${STORAGE_LIMIT_MS} ms`)), STORAGE_LIMIT_MS)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}
