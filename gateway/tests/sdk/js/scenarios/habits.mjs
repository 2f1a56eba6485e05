// What applications do without thinking about it: leave before they have joined, open the same chat again,
// bind several listeners to one channel, ask for a SUBSCRIBED that means it, and keep the line alive.

import { strict as assert } from 'node:assert';

import { DOES } from '../sdk.mjs';
import { ADA, ADAS_SESSION, ANON, BOBS_SESSION, Log, Room, connectAs, openSession, texts } from '../support.mjs';

export default async function habits(test) {
  const { host } = test;
  const ada = await connectAs(test, ADA);
  if (!DOES.survivesItsLastChannel) await new Room(ada, 'one that stays').joined();
  await mountedTwice(host, ada);
  await severalBindings(test);
  if (DOES.waitsForChanges) await subscribedMeansLive(host, ada);
  await heartbeat(ada);
}

/** React's strict mode: every effect is run, taken back at once, and run again. */
async function mountedTwice(host, ada) {
  const first = openSession(ada, ADAS_SESSION);
  assert.equal(await ada.removeChannel(first.channel), 'ok');
  const second = await openSession(ada, ADAS_SESSION).live();
  const [row] = await host.insert(ADAS_SESSION, 'to the second mount');
  await second.change(row.id);
  assert.equal(await ada.removeChannel(second.channel), 'ok');
  await second.status('CLOSED');

  const third = await openSession(ada, ADAS_SESSION).live();
  const [last] = await host.insert(ADAS_SESSION, 'to the third mount');
  await third.change(last.id);
  assert.deepEqual(texts(first), []);
  assert.deepEqual(texts(second), ['to the second mount']);
  assert.deepEqual(texts(third), ['to the third mount']);
  await ada.removeChannel(third.channel);
}

/** Each listener hears what it asked for, once, although all share a channel. */
async function severalBindings(test) {
  const anon = await connectAs(test, ANON);
  const logs = new Map();
  const table = { schema: 'public', table: 'chat_messages' };
  const bindings = {
    everything: { event: '*', ...table },
    adas: { event: 'INSERT', ...table, filter: `session_id=eq.${ADAS_SESSION}` },
    bobs: { event: '*', ...table, filter: `session_id=eq.${BOBS_SESSION}` },
    updates: { event: 'UPDATE', ...table },
    deletes: { event: 'DELETE', ...table, filter: `session_id=eq.${ADAS_SESSION}` },
    thin: { event: 'INSERT', ...table, select: ['content'] },
  };
  const room = new Room(anon, 'any name', {
    prepare: (channel) => {
      for (const [name, binding] of Object.entries(bindings)) {
        const log = new Log(name);
        logs.set(name, log);
        channel.on('postgres_changes', binding, (change) => log.push(change));
      }
    },
  });
  await room.live();

  const [a] = await test.host.insert(ADAS_SESSION, 'a');
  const [b] = await test.host.insert(BOBS_SESSION, 'b');
  const edited = await test.host.update(a.id, 'a, edited');
  await test.host.delete(a.id, b.id);
  const [end] = await test.host.insert(ADAS_SESSION, 'end');
  await logs.get('thin').until((all) => all.find((change) => change.new.id === end.id), 'the last row');

  const heard = (name) => logs.get(name).all.map(({ eventType, new: row, old }) => `${eventType} ${row.content ?? old.content}`);
  const deletes = heard('everything').filter((each) => each.startsWith('DELETE')).sort();
  assert.deepEqual(deletes, ['DELETE a, edited', 'DELETE b']);
  const rest = heard('everything').filter((each) => !each.startsWith('DELETE'));
  assert.deepEqual(rest, ['INSERT a', 'INSERT b', 'UPDATE a, edited', 'INSERT end']);
  assert.deepEqual(heard('adas'), ['INSERT a', 'INSERT end']);
  assert.deepEqual(heard('bobs'), ['INSERT b', 'DELETE b']);
  assert.deepEqual(heard('updates'), ['UPDATE a, edited']);
  assert.deepEqual(heard('deletes'), ['DELETE a, edited']);
  assert.deepEqual(logs.get('thin').all.map((change) => change.new), [a, b, end].map(({ id, content }) => ({ id, content })));
  const [update] = logs.get('updates').all;
  assert.deepEqual([update.new, update.old], [edited, a]);
}

/** With this option the SDK wants the reply held back until every change from then on is delivered. */
async function subscribedMeansLive(host, ada) {
  for (let n = 0; n < 10; n += 1) {
    const room = openSession(ada, ADAS_SESSION, { config: { postgres_changes_options: { wait: true } } });
    await room.joined();
    const [row] = await host.insert(ADAS_SESSION, `row ${n}`);
    await room.change(row.id);
    await ada.removeChannel(room.channel);
  }
}

async function heartbeat(ada) {
  const beats = new Log('heartbeats');
  const room = await new Room(ada, 'idle').joined();
  if (DOES.tellsOfHeartbeats) {
    ada.realtime.onHeartbeat((status) => beats.push(status));
  } else {
    ada.realtime.stateChangeCallbacks.message.push(({ topic, payload }) => topic === 'phoenix' && beats.push(payload.status));
  }
  await ada.realtime.sendHeartbeat();
  await beats.until((all) => all.includes('ok'), 'the answer to a heartbeat');
  await ada.removeChannel(room.channel);
}
