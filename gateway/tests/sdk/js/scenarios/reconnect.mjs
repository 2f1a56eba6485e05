// The network breaks, then the gateway is restarted. The client comes back by itself, on all its channels,
// and gets what is written from then on, each row once.

import { strict as assert } from 'node:assert';

import { ADA, ADAS_SESSION, Log, Room, connectAs, openSession, texts } from '../support.mjs';

export default async function reconnect(test) {
  const { host } = test;
  const client = await connectAs(test, ADA);
  const chat = openSession(client, ADAS_SESSION);
  const heard = new Log('broadcasts');
  const lobby = new Room(client, 'lobby', {
    config: { broadcast: { self: true } },
    prepare: (channel) => channel.on('broadcast', { event: 'hello' }, ({ payload }) => heard.push(payload)),
  });
  await Promise.all([chat.live(), lobby.joined()]);
  await arrives(host, chat, 'before');

  await host.cut();
  await Promise.all([chat.status('CHANNEL_ERROR'), lobby.status('CHANNEL_ERROR')]);
  await host.insert(ADAS_SESSION, 'while away');
  await host.mend();
  await Promise.all([chat.live(2), lobby.joined(2)]);
  await arrives(host, chat, 'after the cut');

  await host.restart();
  await Promise.all([chat.live(3), lobby.joined(3)]);
  await arrives(host, chat, 'after the restart');

  await lobby.channel.send({ type: 'broadcast', event: 'hello', payload: { n: 1 } });
  await heard.until((all) => all.length > 0, 'the broadcast');
  assert.deepEqual(heard.all, [{ n: 1 }]);
  // The server keeps no place for a client that asks for none: what was missed is fetched from the table.
  assert.deepEqual(texts(chat), ['before', 'after the cut', 'after the restart']);
}

async function arrives(host, room, content) {
  const [row] = await host.insert(ADAS_SESSION, content);
  await room.change(row.id);
}
