// Who is there: several clients and keys, a client with two metas, one that leaves and one that dies.

import { strict as assert } from 'node:assert';

import { ADA, ANON, BOB, Log, Room, connectAs, drop } from '../support.mjs';

export default async function presence(test) {
  const [ada, second, bob, watcher] = await Promise.all([ADA, ADA, BOB, ANON].map((user) => connectAs(test, user)));
  const here = new PresenceRoom(ada, 'ada');
  await here.room.joined();
  // An empty state is news, too: without it no presence event would ever come.
  await here.events.until((all) => all.find(({ event }) => event === 'sync'), 'the first sync');
  assert.deepEqual(here.state(), {});

  assert.equal(await here.channel.track({ name: 'Ada', mood: { kind: 'calm', since: [1, null] } }), 'ok');
  await here.shows({ ada: [{ name: 'Ada', mood: { kind: 'calm', since: [1, null] } }] });

  // Who comes later sees who is there, before anything else happens.
  const there = new PresenceRoom(bob, 'bob', here.channel.topic.replace('realtime:', ''));
  await there.room.joined();
  await there.shows({ ada: [{ name: 'Ada', mood: { kind: 'calm', since: [1, null] } }] });
  assert.equal(await there.channel.track({ name: 'Bob' }), 'ok');
  const came = await here.event('join', 'bob');
  assert.deepEqual(came.newPresences.map(bare), [{ name: 'Bob' }]);
  assert.deepEqual(came.currentPresences, []);

  // Tracking again replaces: one meta, not two.
  await here.channel.track({ name: 'Ada', typing: true });
  await there.shows({ ada: [{ name: 'Ada', typing: true }], bob: [{ name: 'Bob' }] });

  // A second tab of Ada, then its network is gone without a word: only that meta goes.
  const tab = new PresenceRoom(second, 'ada');
  await tab.room.joined();
  await tab.channel.track({ name: 'Ada', tab: 2 });
  const both = { ada: [{ name: 'Ada', typing: true }, { name: 'Ada', tab: 2 }], bob: [{ name: 'Bob' }] };
  await Promise.all([here, there, tab].map((each) => each.shows(both)));
  await drop(second);
  await there.shows({ ada: [{ name: 'Ada', typing: true }], bob: [{ name: 'Bob' }] });
  const died = await there.event('leave', 'ada', ({ leftPresences }) => leftPresences.some(({ tab }) => tab === 2));
  assert.deepEqual(died.currentPresences.map(bare), [{ name: 'Ada', typing: true }]);

  // One who only watches is not shown; one without a key gets a key.
  const keyless = new PresenceRoom(watcher, '');
  await keyless.room.joined();
  await keyless.shows({ ada: [{ name: 'Ada', typing: true }], bob: [{ name: 'Bob' }] });
  await keyless.channel.track({ name: 'Anon' });
  const shown = await here.events.until(() => Object.keys(here.state()).find((key) => !['ada', 'bob'].includes(key)), 'Anon');
  assert.match(shown, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);

  // Untrack leaves the channel joined; leaving ends both.
  assert.equal(await there.channel.untrack(), 'ok');
  const left = await here.event('leave', 'bob');
  assert.deepEqual(left.leftPresences.map(bare), [{ name: 'Bob' }]);
  await there.events.until(() => !('bob' in there.state()), 'Bob to be gone for himself');
  await there.channel.track({ name: 'Bob again' });
  await here.events.until(() => here.state().bob?.[0].name === 'Bob again', 'Bob again');
  await bob.removeChannel(there.channel);
  await here.events.until(() => !('bob' in here.state()), 'Bob to be gone');
  assert.deepEqual(here.room.statuses.all, [{ status: 'SUBSCRIBED', reason: undefined }]);

  // Keys that this SDK takes for something else do no harm to those who come later.
  const topic = 'odd keys';
  for (const key of ['ids', 'constructor', '__proto__']) {
    const odd = new PresenceRoom(await connectAs(test, ANON), key, topic);
    await odd.room.joined();
    assert.equal(await odd.channel.track({ key }), 'ok');
  }
  const late = new PresenceRoom(await connectAs(test, BOB), 'late', topic);
  await late.room.joined();
  await late.events.until(() => Object.keys(late.state()).length === 3, 'all three');
  const tracked = Object.values(late.state()).flatMap((metas) => metas.map(({ key }) => key));
  assert.deepEqual(tracked.sort(), ['__proto__', 'constructor', 'ids']);
  assert.deepEqual(late.state().ids.map(bare), [{ key: 'ids' }]);
}

class PresenceRoom {
  constructor(client, key, topic = 'lobby: Ümlaut') {
    this.events = new Log(`presence seen by "${key}"`);
    this.room = new Room(client, topic, {
      config: { presence: { key } },
      prepare: (channel) => {
        for (const event of ['sync', 'join', 'leave']) {
          channel.on('presence', { event }, (seen) => this.events.push({ event, ...seen }));
        }
      },
    });
    this.channel = this.room.channel;
  }

  state() {
    return this.channel.presenceState();
  }

  /** Waits until exactly these are there, whatever the server calls their metas. */
  shows(wanted) {
    const same = () => {
      const seen = Object.fromEntries(Object.entries(this.state()).map(([key, metas]) => [key, metas.map(bare)]));
      try {
        assert.deepEqual(seen, wanted);
        return true;
      } catch {
        return false;
      }
    };
    return this.events.until(same, `the state ${JSON.stringify(wanted)}`);
  }

  event(event, key, fits = () => true) {
    const wanted = (seen) => seen.event === event && seen.key === key && fits(seen);
    return this.events.until((all) => all.find(wanted), `${event} of ${key}`);
  }
}

function bare({ presence_ref, ...meta }) {
  assert.equal(typeof presence_ref, 'string');
  return meta;
}
