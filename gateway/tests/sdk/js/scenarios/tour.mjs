// Each kind of message once, in a fixed order: what is recorded of it are the fixtures of `protocol/tests/fixtures`, so the
// other way round: change this, and record again. VSN chooses the serializer, where there is a choice.

import { strict as assert } from 'node:assert';

import { DOES } from '../sdk.mjs';
import { ADA, ADAS_SESSION, BOBS_SESSION, Log, Room, connect, openSession } from '../support.mjs';

export default async function tour(test) {
  const { host, environment } = test;
  const user = { token: await host.token({ ...ADA, seconds: 3600 }) };
  const client = await connect(test, user.token, { vsn: environment.VSN, accessToken: async () => user.token });
  const table = { schema: 'public', table: 'chat_messages', filter: `session_id=eq.${ADAS_SESSION}` };
  const heard = new Log('broadcasts');
  const present = new Log('presence');
  const room = new Room(client, 'tour', {
    config: { broadcast: { ack: true, self: true }, presence: { key: 'ada' } },
    bindings: [
      { event: '*', ...table },
      { event: 'INSERT', schema: 'public', table: 'chat_messages', select: ['content'] },
    ],
    prepare: (channel) => {
      channel.on('broadcast', { event: '*' }, (message) => heard.push(message));
      channel.on('presence', { event: 'sync' }, () => present.push(Object.keys(channel.presenceState())));
    },
  });
  await room.live();
  await present.until((all) => all.length > 0, 'the first state');

  const [row] = await host.insert(ADAS_SESSION, 'Grüße "x" \\ 👋🏽');
  await room.changes.until((all) => all.length >= 2, 'the row, for either binding');
  const edited = await host.update(row.id, 'edited');
  assert.deepEqual((await room.change(row.id, 'UPDATE')).new, edited);
  await host.delete(row.id);
  await room.change(row.id, 'DELETE');

  assert.equal(await room.channel.track({ name: 'Ada', mood: { since: [1, null] } }), 'ok');
  await present.until((all) => all.at(-1).includes('ada'), 'Ada');
  assert.equal(await room.channel.untrack(), 'ok');
  await present.until((all) => all.at(-1).length === 0, 'nobody');

  const send = (event, payload) => room.channel.send({ type: 'broadcast', event, payload });
  assert.equal(await send('cursor', { at: [1.5, null], text: 'é"\\' }), 'ok');
  const isBinary = DOES.serializer2 && environment.VSN !== '1.0.0';
  if (isBinary) assert.equal(await send('bytes', Uint8Array.of(0, 127, 128, 255).buffer), 'ok');
  await heard.until((all) => all.length === (isBinary ? 2 : 1), 'what was sent');

  await renewed(host, client, user, room);
  await client.realtime.sendHeartbeat();
  const refused = openSession(client, BOBS_SESSION);
  await refused.status('CHANNEL_ERROR');
  assert.equal(await client.removeChannel(refused.channel), 'ok');
  assert.equal(await client.removeChannel(room.channel), 'ok');
}

async function renewed(host, client, user, room) {
  const before = room.systems.all.length;
  user.token = await host.token({ ...ADA, seconds: 3600 });
  await client.realtime.setAuth();
  await room.systems.until((all) => all.length > before, 'the answer to the new token');
}
