// What the scenarios share: clients, channels that remember everything that happened to them, and waits
// that end when what is wanted is there, or fail and tell what was there instead.

import { strict as assert } from 'node:assert';
import { inspect } from 'node:util';

import { createClient } from '@supabase/supabase-js';
import WebSocket from 'ws';

import { DOES } from './sdk.mjs';

export const ADA = { role: 'authenticated', sub: 'usr_Ada0000000000000000001' };
export const BOB = { role: 'authenticated', sub: 'usr_Bob0000000000000000002' };
export const ANON = { role: 'anon' };
export const ADAS_SESSION = '00000000-0000-4000-8000-0000000000a1';
export const BOBS_SESSION = '00000000-0000-4000-8000-0000000000b1';

const WAIT_LIMIT_MS = 15_000;
const clients = new Set();

/** As in browsers, where an error that nobody listens to ends nothing. Some lines stop listening before they close. */
class Socket extends WebSocket {
  constructor(...args) {
    super(...args);
    this.on('error', () => {});
  }
}

/** Things that happened, in order, and whoever waits for one of them. */
export class Log {
  #name;
  #waiting = new Set();
  all = [];

  constructor(name) {
    this.#name = name;
  }

  push(entry) {
    this.all.push(entry);
    for (const look of [...this.#waiting]) look();
  }

  /** Resolves to what `find(all)` returns as soon as that is true. */
  until(find, what, limit = WAIT_LIMIT_MS) {
    const found = find(this.all);
    if (found) return Promise.resolve(found);
    return new Promise((resolve, reject) => {
      const look = () => {
        const found = find(this.all);
        if (!found) return;
        end();
        resolve(found);
      };
      const end = () => {
        clearTimeout(timer);
        this.#waiting.delete(look);
      };
      const timer = setTimeout(() => {
        end();
        const seen = inspect(this.all, { depth: 6, maxStringLength: 200, maxArrayLength: 50 });
        reject(new Error(`${this.#name}: waited ${limit} ms for ${what}. Seen: ${seen}`));
      }, limit);
      this.#waiting.add(look);
    });
  }
}

/**
 * A stock client that speaks for `token`, or for whatever `accessToken` returns at the time. As with Supabase, the
 * socket is opened with a public key, and the channels carry the user's token.
 */
export async function connect({ host, url }, token, { vsn, accessToken = async () => token } = {}) {
  const key = await host.token({ role: 'anon', seconds: 3600 });
  const client = createClient(url, key, {
    accessToken,
    // Node 20 has no WebSocket of its own. Without `vsn` the SDK takes its default.
    realtime: { ...(DOES.takesTransport ? { transport: Socket } : {}), ...(vsn ? { vsn } : {}) },
  });
  clients.add(client);
  // A channel that joins before the SDK has asked for the token would carry the key only.
  await client.realtime.setAuth();
  return client;
}

/** A client that speaks for a user, with a token for an hour. */
export async function connectAs(test, claims, options) {
  return connect(test, await test.host.token({ seconds: 3600, ...claims }), options);
}

/** Ends a connection without a word, as a crash of the browser would. */
export async function drop(client) {
  clients.delete(client);
  const { realtime } = client;
  const socket = DOES.phoenix ? realtime.socketAdapter.getSocket().conn : realtime.conn;
  realtime.disconnect();
  socket.terminate();
}

export async function closeClients() {
  await Promise.all([...clients].map((client) => client.removeAllChannels()));
  for (const client of clients) client.realtime.disconnect();
  clients.clear();
}

/** A channel with its history: `statuses`, `changes`, `systems`. `prepare` adds further listeners. */
export class Room {
  constructor(client, topic, { config, bindings = [], prepare } = {}) {
    this.client = client;
    this.statuses = new Log(`status of ${topic}`);
    this.changes = new Log(`changes on ${topic}`);
    this.systems = new Log(`system messages on ${topic}`);
    this.channel = client.channel(topic, config ? { config } : undefined);
    for (const binding of bindings) {
      this.channel.on('postgres_changes', binding, (change) => this.changes.push(change));
    }
    this.channel.on('system', {}, (message) => this.systems.push(message));
    prepare?.(this.channel);
    this.channel.subscribe((status, error) => this.statuses.push({ status, reason: error?.message }));
  }

  /** Joined for the `times`-th time, and every change committed from now on arrives. */
  async live(times = 1) {
    await this.joined(times);
    const ok = (all) => all.filter(({ extension, status }) => extension === 'postgres_changes' && status === 'ok');
    await this.systems.until((all) => ok(all).length >= times, `"Subscribed to PostgreSQL", ${times} times`);
    return this;
  }

  async joined(times = 1) {
    const joins = (all) => all.filter(({ status }) => status === 'SUBSCRIBED');
    await this.statuses.until((all) => joins(all).length >= times, `SUBSCRIBED, ${times} times`);
    return this;
  }

  status(wanted, after = 0) {
    return this.statuses.until((all) => all.slice(after).find(({ status }) => status === wanted), wanted);
  }

  change(id, type = 'INSERT') {
    const record = ({ eventType, new: now, old }) => (eventType === 'DELETE' ? old : now);
    return this.changes.until(
      (all) => all.find((change) => change.eventType === type && record(change).id === id),
      `the ${type} of ${id}`,
    );
  }
}

/** The ChatTwelve hook: what its React code subscribes for one session. */
export function openSession(client, session, more = {}) {
  const table = { schema: 'public', table: 'chat_messages', filter: `session_id=eq.${session}` };
  const bindings = [
    { event: 'INSERT', ...table },
    { event: 'DELETE', ...table },
  ];
  return new Room(client, `messages:${session}`, { bindings, ...more });
}

/** The texts of the rows that were inserted, in the order of arrival. */
export function texts(room) {
  return room.changes.all.filter(({ eventType }) => eventType === 'INSERT').map((change) => change.new.content);
}

/** A change of the shape that applications rely on. */
export function assertChange(change, { type, row, old = {} }) {
  const { commit_timestamp, ...rest } = change;
  assert.deepEqual(rest, {
    schema: 'public',
    table: 'chat_messages',
    eventType: type,
    new: row ?? {},
    old,
    errors: null,
  });
  assert.match(commit_timestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
}
