// A token that is replaced on an open channel, one that runs out, and one of somebody else.

import { strict as assert } from 'node:assert';
import { setTimeout as sleep } from 'node:timers/promises';

import { ADA, ADAS_SESSION, BOB, connect, openSession, texts } from '../support.mjs';

const SHORT_SECONDS = 4;

export default async function token(test) {
  const { host } = test;
  const short = await host.token({ ...ADA, seconds: SHORT_SECONDS });
  let current = short;
  const renewing = await connect(test, short, { accessToken: async () => current });
  const forgetful = await connect(test, short);
  const renewed = openSession(renewing, ADAS_SESSION);
  const expiring = openSession(forgetful, ADAS_SESSION);
  await Promise.all([renewed.live(), expiring.live()]);
  const [before] = await host.insert(ADAS_SESSION, 'before');
  await Promise.all([renewed.change(before.id), expiring.change(before.id)]);

  // The server tells a second time that changes flow: now under the new token.
  current = await host.token({ ...ADA, seconds: 3600 });
  await renewing.realtime.setAuth();
  const ok = (all) => all.filter(({ status }) => status === 'ok').length >= 2;
  await renewed.systems.until(ok, 'the answer to the new token');

  const told = await expiring.systems.until((all) => all.find(({ status }) => status === 'error'), 'the end of the token');
  assert.match(told.message, /^Token has expired \d+ seconds ago$/);
  assert.equal(told.extension, 'system');
  assert.equal(told.channel, `messages:${ADAS_SESSION}`);
  await expiring.status('CLOSED');
  assert.ok(Date.now() / 1000 >= claims(short).exp, 'not before its time');

  const [after] = await host.insert(ADAS_SESSION, 'after');
  await renewed.change(after.id);
  assert.deepEqual(texts(renewed), ['before', 'after']);
  assert.deepEqual(texts(expiring), ['before']);
  assert.deepEqual(renewed.statuses.all.map(({ status }) => status), ['SUBSCRIBED']);

  // A channel that was closed for good is not joined again: no status follows within the SDK's first pauses.
  await sleep(1500);
  assert.deepEqual(expiring.statuses.all.map(({ status }) => status), ['SUBSCRIBED', 'CLOSED']);

  await handedOver(test, renewing, renewed, (next) => (current = next));
}

/** Bob's token on the channel of Ada's session: it ends, and tells why. */
async function handedOver({ host }, client, room, setToken) {
  setToken(await host.token({ ...BOB, seconds: 3600 }));
  await client.realtime.setAuth();
  const told = await room.systems.until((all) => all.find(({ status }) => status === 'error'), 'the loss of the right');
  assert.match(told.message, new RegExp(`permissions? to read from this Channel topic: messages:${ADAS_SESSION}$`));
  await room.status('CLOSED');
  await host.insert(ADAS_SESSION, 'not for Bob');

  setToken(await host.token({ ...ADA, seconds: 3600 }));
  await client.realtime.setAuth();
  const again = await openSession(client, ADAS_SESSION).live();
  const [marker] = await host.insert(ADAS_SESSION, 'Ada is back');
  await again.change(marker.id);
  assert.deepEqual(texts(room), ['before', 'after']);
}

function claims(token) {
  return JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));
}
