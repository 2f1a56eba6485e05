// What the scenarios share: an application that shows a chat, on the SDK that SDK names.

import { strict as assert } from 'node:assert'
import { setTimeout as sleep } from 'node:timers/promises'

import WebSocket from 'ws'
import { resumable } from 'tidings-client'

import { ADA, ADAS_SESSION, Log } from './sdk/support.mjs'

export { ADA, ADAS_SESSION, Log }

/** The packages by the version that they are pinned to. */
const SDKS = { current: '@supabase/supabase-js', 2.111: 'supabase-js-2.111', 2.85: 'supabase-js-2.85' }
// SDKs pause for up to 10 s before they try again, and a gateway that was killed needs its time.
const LIVE_LIMIT_MS = 40_000
/** As fast as it goes, a client that is away for seconds would miss more than there is to learn from. */
const PACE_MS = 4
const clients = new Set()

/** A client of Ada, whose token may be replaced: `client.user.token = …; await client.realtime.setAuth()`. */
export async function connect({ host, url, environment }, options = {}) {
  const { createClient } = await import(SDKS[environment.SDK ?? 'current'])
  const key = await host.token({ role: 'anon', seconds: 3600 })
  const user = { token: await host.token({ seconds: 3600, ...ADA }) }
  const client = createClient(url, key, { accessToken: async () => user.token, realtime: { transport: WebSocket, ...options } })
  client.user = user
  clients.add(client)
  await client.realtime.setAuth()
  return client
}

export async function closeClients() {
  await Promise.all([...clients].map((client) => client.removeAllChannels()))
  for (const client of clients) client.realtime.disconnect()
  clients.clear()
}

/** One session's messages: what was shown, what the SDK and the helper said, and what had to be read anew. */
export class Chat {
  rows = new Log('rows')
  channelStatuses = new Log('statuses of the channel')
  statuses = new Log('statuses')
  reasons = new Log('reasons to refetch')
  errors = []

  constructor(client, { history, ...options } = {}) {
    this.client = client
    this.channel = client.channel(`messages:${ADAS_SESSION}`)
    this.live = resumable(this.channel, {
      refetch: (reason) => this.reasons.push(reason),
      onStatus: (status) => this.statuses.push(status),
      onError: (error, source) => this.errors.push(`${source}: ${error.message}`),
      ...options,
    })
    const table = { schema: 'public', table: 'chat_messages', filter: `session_id=eq.${ADAS_SESSION}` }
    const show = ({ new: row, old }) => {
      assert.ok(!('tidings_cursor' in row) && !('tidings_cursor' in old))
      this.rows.push(row.content ?? `gone: ${old.content}`)
    }
    this.live.on({ event: 'INSERT', ...table, ...(history ? { history } : {}) }, show)
    this.live.on({ event: 'DELETE', ...table }, show)
    this.live.subscribe((status, error) => this.channelStatuses.push(`${status} ${error?.message ?? ''}`))
  }

  /** Live for the `times`-th time. */
  async isLive(times = 1) {
    const count = (all) => all.filter((status) => status === 'live').length
    await this.statuses.until((all) => count(all) >= times, `live, ${times} times`, LIVE_LIMIT_MS)
    return this
  }

  async isOffline() {
    await this.statuses.until((all) => all.at(-1) === 'offline', 'offline')
  }

  /** These, each once, in this order, and nothing else. The last one is awaited. */
  async shows(texts) {
    await this.rows.until((all) => all.includes(texts.at(-1)), texts.at(-1))
    assert.deepEqual(this.rows.all, texts)
  }

  assertUndisturbed() {
    assert.deepEqual(this.reasons.all, [])
    assert.deepEqual(this.errors, [])
  }
}

/** Somebody who writes all the time. `written` is what a chat has to show, in the order in which it was committed. */
export class Writer {
  written = new Log('written')
  #host
  #stopped = false
  #writing

  constructor(host, prefix) {
    this.#host = host
    this.#writing = this.#write(prefix)
  }

  /** Waits until so many more changes are stored. */
  async more(count) {
    const wanted = this.written.all.length + count
    await this.written.until((all) => all.length >= wanted, `${wanted} rows`)
  }

  async insert(content) {
    const [row] = await this.#host.insert(ADAS_SESSION, content)
    this.written.push(row.content)
    return row
  }

  async insertAndDelete(content) {
    const { id } = await this.insert(content)
    await this.#host.delete(id)
    this.written.push(`gone: ${content}`)
  }

  async stop() {
    this.#stopped = true
    await this.#writing
  }

  async #write(prefix) {
    for (let n = 1; !this.#stopped; n += 1) {
      await this.insert(`${prefix} ${n}`)
      await sleep(PACE_MS)
    }
  }
}
