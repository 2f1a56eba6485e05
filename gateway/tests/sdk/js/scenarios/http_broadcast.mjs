// Over HTTP, by clients that are on no channel: one message with `httpSend()`, a batch with `send()`, and messages that are kept.

import { strict as assert } from 'node:assert';

import { ADA, ANON, BOB, Log, Room, connectAs } from '../support.mjs';

const SERVICE = { role: 'service_role' };
/** What has to be percent-encoded in a path. */
const TOPIC = 'room/1: é?';

export default async function httpBroadcast(test) {
  const ada = new Member(await connectAs(test, ADA), TOPIC);
  const old = new Member(await connectAs(test, ANON, { vsn: '1.0.0' }), TOPIC);
  await Promise.all([ada, old].map(({ room }) => room.joined()));
  const bob = await connectAs(test, BOB);

  const payload = { text: 'Grüße 👋🏽', n: 1.5 };
  assert.deepEqual(await bob.channel(TOPIC).httpSend('a/b é', payload), { success: true });
  for (const each of [ada, old]) {
    assert.deepEqual(await each.received('a/b é'), { type: 'broadcast', event: 'a/b é', payload });
  }
  const bytes = Uint8Array.from([0, 255, 10]);
  assert.deepEqual(await bob.channel(TOPIC).httpSend('bytes', bytes.buffer), { success: true });
  assert.deepEqual(new Uint8Array((await ada.received('bytes')).payload), bytes);
  // A channel that has not joined sends a batch of one.
  const send = (channel) => channel.send({ type: 'broadcast', event: 'batch', payload });
  assert.equal(await send(bob.channel(TOPIC)), 'ok');
  for (const each of [ada, old]) assert.deepEqual((await each.received('batch')).payload, payload);

  // Who is refused before all of a body was read hears why.
  for (let n = 0; n < 5; n += 1) {
    const body = new Uint8Array(5_000_000);
    const headers = { 'content-type': 'application/octet-stream' };
    const refused = await fetch(`${test.url}/realtime/v1/api/broadcast/room/events/e`, { method: 'POST', headers, body });
    assert.deepEqual([refused.status, await refused.json()], [401, { message: 'Unauthorized' }]);
  }

  // Without policies only those may send to whom none applies.
  const isPrivate = { config: { private: true } };
  await assert.rejects(bob.channel('private room', isPrivate).httpSend('e', payload), { message: 'Unauthorized' });
  const service = await connectAs(test, SERVICE);
  const member = new Member(service, 'private room', { private: true });
  await member.room.joined();
  const other = (await connectAs(test, SERVICE)).channel('private room', isPrivate);
  for (const [event, persist] of [['kept', true], ['kept for a minute', { ttl: 60 }]]) {
    assert.deepEqual(await other.httpSend(event, payload, { persist }), { success: true });
    assert.ok((await member.received(event)).meta.id);
  }
  const config = { private: true, broadcast: { replay: { since: Date.now() - 60_000, limit: 10 } } };
  const late = new Member(await connectAs(test, SERVICE), 'private room', config);
  await late.room.joined();
  for (const event of ['kept', 'kept for a minute']) {
    const { payload: got, meta } = await late.received(event);
    assert.deepEqual([got, meta.replayed], [payload, true]);
  }
  assert.deepEqual(
    old.messages.all.map(({ event }) => event),
    ['a/b é', 'batch'],
  );
}

class Member {
  constructor(client, topic, config = {}) {
    this.messages = new Log(`broadcasts on ${topic}`);
    this.room = new Room(client, topic, {
      config,
      prepare: (channel) => channel.on('broadcast', { event: '*' }, (message) => this.messages.push(message)),
    });
  }

  received(event) {
    return this.messages.until((all) => all.find((message) => message.event === event), `the broadcast "${event}"`);
  }
}
