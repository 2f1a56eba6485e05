// supabase-js 1.x: the topic names the table, a join has no `config`, and the type of a change is its event. Rows that a third
// program writes reach those who may see them, also after the network broke.

import { strict as assert } from 'node:assert';

import { createClient } from '@supabase/supabase-js';
import WebSocket from 'ws';

import { ADA, ADAS_SESSION, ANON, BOB, BOBS_SESSION, Log, assertChange } from '../support.mjs';

export default async function oldStyle(test) {
  const { host } = test;
  const [ada, bob, anon] = await Promise.all([ADA, BOB, ANON].map((user) => connectAs(test, user)));
  const adas = new Table(ada, `chat_messages:session_id=eq.${ADAS_SESSION}`);
  const bobs = new Table(bob, `chat_messages:session_id=eq.${BOBS_SESSION}`);
  const open = new Table(anon, 'chat_messages');
  const schema = new Table(anon, '*');
  const tables = [adas, bobs, open, schema];
  await Promise.all(tables.map((table) => table.live()));
  const curious = new Table(bob, `chat_messages:session_id=eq.${ADAS_SESSION}`);
  const { error } = await curious.status('SUBSCRIPTION_ERROR');
  assert.match(error.reason, /^Unauthorized: You do not have permissions to read from this Channel topic: public:chat_messages:/);

  const [row] = await host.insert(ADAS_SESSION, 'Grüße "x"');
  const [other] = await host.insert(BOBS_SESSION, 'for Bob');
  const edited = await host.update(row.id, 'edited');
  await host.delete(row.id);
  for (const table of [adas, open, schema]) {
    assertChange(await table.change(row.id, 'INSERT'), { type: 'INSERT', row });
    assertChange(await table.change(row.id, 'UPDATE'), { type: 'UPDATE', row: edited, old: row });
    assertChange(await table.change(row.id, 'DELETE'), { type: 'DELETE', old: edited });
  }
  assertChange(await bobs.change(other.id, 'INSERT'), { type: 'INSERT', row: other });
  assert.deepEqual(adas.inserts(), ['Grüße "x"']);
  assert.deepEqual(bobs.inserts(), ['for Bob']);
  assert.deepEqual(open.inserts(), ['Grüße "x"', 'for Bob']);

  await renewed(test, ada, adas);
  await cut(host, tables, adas);
  assert.deepEqual(curious.changes.all, []);
  assert.deepEqual((await ada.removeSubscription(adas.subscription)).error, null);
  await adas.status('CLOSED');
  await Promise.all([bob, anon].map((client) => client.removeAllSubscriptions()));
}

/** The SDK pushes a token that was renewed to its channels. */
async function renewed({ host }, client, table) {
  const before = table.systems.all.length;
  client.auth.setAuth(await host.token({ ...ADA, seconds: 3600 }));
  await table.systems.until((all) => all.length > before, 'the answer to the new token');
  assert.ok(table.systems.all.every(({ status }) => status === 'ok'));
}

async function cut(host, tables, adas) {
  const before = tables.map((table) => table.systems.all.length);
  await host.cut();
  await host.insert(ADAS_SESSION, 'while away');
  await host.mend();
  await Promise.all(tables.map((table, index) => table.systems.until((all) => all.length > before[index], 'the way back')));
  const [back] = await host.insert(ADAS_SESSION, 'back');
  await adas.change(back.id, 'INSERT');
  assert.deepEqual(adas.inserts(), ['Grüße "x"', 'back']);
}

async function connectAs({ host, url }, user) {
  const key = await host.token({ role: 'anon', seconds: 3600 });
  const client = createClient(url, key, { autoRefreshToken: false, persistSession: false, realtime: { transport: Socket } });
  client.auth.setAuth(await host.token({ seconds: 3600, ...user }));
  return client;
}

/** The SDK gives it arguments that another package for sockets takes, and the last of them means something else here. */
class Socket extends WebSocket {
  constructor(url) {
    super(url);
    this.on('error', () => {});
  }
}

/** A subscription to a table, with its history. */
class Table {
  constructor(client, name) {
    this.statuses = new Log(`status of ${name}`);
    this.changes = new Log(`changes of ${name}`);
    this.systems = new Log(`system messages of ${name}`);
    const builder = client.from(name).on('*', (change) => this.changes.push(change));
    this.subscription = builder.subscribe((status, error) => this.statuses.push({ status, error }));
    this.subscription.on('system', (message) => this.systems.push(message));
  }

  async live() {
    await this.status('SUBSCRIBED');
    await this.systems.until((all) => all.find(({ status }) => status === 'ok'), '"Subscribed to PostgreSQL"');
  }

  status(wanted) {
    return this.statuses.until((all) => all.find(({ status }) => status === wanted), wanted);
  }

  change(id, type) {
    const wanted = ({ eventType, new: now, old }) => eventType === type && (now.id ?? old.id) === id;
    return this.changes.until((all) => all.find(wanted), `the ${type} of ${id}`);
  }

  inserts() {
    return this.changes.all.filter(({ eventType }) => eventType === 'INSERT').map((change) => change.new.content);
  }
}
