// From client to client: JSON and bytes, with and without one's own copy, acknowledged, and in order.

import { strict as assert } from 'node:assert';

import { DOES } from '../sdk.mjs';
import { ADA, ANON, BOB, Log, Room, connectAs } from '../support.mjs';

const MANY = 300;

export default async function broadcast(test) {
  const ada = new BroadcastRoom(await connectAs(test, ADA), { self: true, ack: true });
  const bob = new BroadcastRoom(await connectAs(test, BOB), {});
  const old = new BroadcastRoom(await connectAs(test, ANON, { vsn: '1.0.0' }), { ack: true });
  const elsewhere = new BroadcastRoom(await connectAs(test, ANON), {}, 'another room');
  const rooms = [ada, bob, old, elsewhere];
  await Promise.all(rooms.map(({ room }) => room.joined()));

  const payload = { text: 'Grüße 👋🏽 "x" \\ \u0000', list: [1, -2.5, null, { deep: [] }], big: 'x'.repeat(40_000) };
  assert.equal(await ada.send('cursor', payload), 'ok');
  for (const each of [ada, bob, old]) {
    assert.deepEqual(await each.received('cursor'), { type: 'broadcast', event: 'cursor', payload });
  }

  // Every direction between the two serializers; without `self` nobody hears their own.
  assert.equal(await bob.send('from-bob', { n: 1 }), 'ok');
  assert.equal(await old.send('from-old', { n: 2 }), 'ok');
  assert.deepEqual((await old.received('from-bob')).payload, { n: 1 });
  for (const each of [ada, bob]) assert.deepEqual((await each.received('from-old')).payload, { n: 2 });

  if (DOES.serializer2) await bytesArrive(ada, bob);

  for (let n = 0; n < MANY; n += 1) bob.send('count', { n });
  for (const each of [ada, old]) {
    const counted = (all) => all.filter(({ event }) => event === 'count').map(({ payload: { n } }) => n);
    const got = await each.messages.until((all) => counted(all).length >= MANY && counted(all), `${MANY} in a row`);
    assert.deepEqual(got, Array.from({ length: MANY }, (_, n) => n));
  }
  // A message of the last sender to each of them comes after all that should not have come.
  assert.equal(await ada.send('end', {}), 'ok');
  await Promise.all([bob.received('end'), old.received('end')]);
  const events = (each) => [...new Set(each.messages.all.map(({ event }) => event))];
  const bytes = (...names) => (DOES.serializer2 ? names : []);
  assert.deepEqual(events(ada), ['cursor', 'from-bob', 'from-old', ...bytes('bytes', 'empty bytes'), 'count', 'end']);
  assert.deepEqual(events(bob), ['cursor', 'from-old', ...bytes('bytes'), 'end']);
  assert.deepEqual(events(old), ['cursor', 'from-bob', 'count', 'end']);
  assert.deepEqual(elsewhere.messages.all, []);
}

/** Version 1.0.0 cannot say them: nothing comes there, and what follows does. */
async function bytesArrive(ada, bob) {
  const bytes = Uint8Array.from({ length: 256 }, (_, index) => index).buffer;
  assert.equal(await ada.send('bytes', bytes), 'ok');
  for (const each of [ada, bob]) {
    const { payload: got } = await each.received('bytes');
    assert.ok(got instanceof ArrayBuffer, `bytes arrive as ${Object.prototype.toString.call(got)}`);
    assert.deepEqual(new Uint8Array(got), new Uint8Array(bytes));
  }
  assert.equal(await bob.send('empty bytes', new ArrayBuffer(0)), 'ok');
  assert.equal((await ada.received('empty bytes')).payload.byteLength, 0);
}

class BroadcastRoom {
  constructor(client, config, topic = 'room') {
    this.messages = new Log('broadcasts');
    this.room = new Room(client, topic, {
      config: { broadcast: config },
      prepare: (channel) => channel.on('broadcast', { event: '*' }, (message) => this.messages.push(message)),
    });
  }

  send(event, payload) {
    return this.room.channel.send({ type: 'broadcast', event, payload });
  }

  received(event) {
    return this.messages.until((all) => all.find((message) => message.event === event), `the broadcast "${event}"`);
  }
}
