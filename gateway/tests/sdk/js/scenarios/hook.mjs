// The ChatTwelve hook: rows that a third program writes reach those who may see them, and nobody else.
// VSN chooses the serializer, where there is a choice; without it the SDK's default is used.

import { strict as assert } from 'node:assert';

import { DOES } from '../sdk.mjs';
import { ADA, ADAS_SESSION, ANON, BOB, BOBS_SESSION, assertChange, connectAs, openSession, texts } from '../support.mjs';

export default async function hook(test) {
  const { host, environment } = test;
  const options = { vsn: environment.VSN };
  const ada = await connectAs(test, ADA, options);
  const bob = await connectAs(test, BOB, options);
  const anon = await connectAs(test, ANON, options);
  assert.match(ada.realtime.endpointURL(), new RegExp(`vsn=${environment.VSN ?? (DOES.serializer2 ? '2.0.0' : '1.0.0')}`));

  const adas = openSession(ada, ADAS_SESSION);
  const bobs = openSession(bob, BOBS_SESSION);
  // The product's own policy lets an anonymous browser listen to every session: two channels on one socket.
  const open = [openSession(anon, ADAS_SESSION), openSession(anon, BOBS_SESSION)];
  await Promise.all([adas, bobs, ...open].map((room) => room.live()));

  await inserted(host, adas, bobs, open);
  await changed(host, adas);
  await refused(test, ada, options);

  // The refusals did nothing to the channels beside them.
  const [last] = await host.insert(ADAS_SESSION, 'after the refusals');
  await Promise.all([adas.change(last.id), open[0].change(last.id)]);
  assert.deepEqual(adas.statuses.all, [{ status: 'SUBSCRIBED', reason: undefined }]);
  assert.deepEqual(adas.systems.all.map(({ status }) => status), ['ok']);
}

async function inserted(host, adas, bobs, open) {
  const odd = 'Grüße 👋🏽, "quoted", back\\slash,\nnew line, \u2028, ' + 'long '.repeat(3000);
  const [one, two] = await host.insert(ADAS_SESSION, 'Hello?', odd);
  const [secret] = await host.insert(BOBS_SESSION, 'for Bob only');
  // What is awaited here was written after everything that must not arrive.
  const [marker] = await host.insert(ADAS_SESSION, 'marker');
  const [bobsMarker] = await host.insert(BOBS_SESSION, 'marker');

  assertChange(await adas.change(one.id), { type: 'INSERT', row: one });
  assertChange(await adas.change(two.id), { type: 'INSERT', row: two });
  assertChange(await bobs.change(secret.id), { type: 'INSERT', row: secret });
  await Promise.all([adas.change(marker.id), bobs.change(bobsMarker.id)]);
  await Promise.all([open[0].change(marker.id), open[1].change(bobsMarker.id)]);

  for (const room of [adas, open[0]]) assert.deepEqual(texts(room), ['Hello?', odd, 'marker']);
  for (const room of [bobs, open[1]]) assert.deepEqual(texts(room), ['for Bob only', 'marker']);
}

async function changed(host, adas) {
  const [kept, gone] = await host.insert(ADAS_SESSION, 'kept', 'gone');
  // Nobody asked for UPDATE, so this must not be heard of.
  const now = await host.update(gone.id, 'edited');
  await host.delete(gone.id);
  const [marker] = await host.insert(ADAS_SESSION, 'marker after the delete');
  assertChange(await adas.change(gone.id, 'DELETE'), { type: 'DELETE', old: now });
  await adas.change(marker.id);
  const types = adas.changes.all.filter((change) => [change.new.id, change.old.id].includes(gone.id));
  assert.deepEqual(types.map(({ eventType }) => eventType), ['INSERT', 'DELETE']);
  assert.equal(kept.content, 'kept');
}

async function refused(test, ada, options) {
  const nameless = await connectAs(test, { role: 'authenticated' }, options);
  for (const [client, session] of [[ada, BOBS_SESSION], [nameless, ADAS_SESSION]]) {
    const room = openSession(client, session);
    const { reason } = await room.status('CHANNEL_ERROR');
    // Exactly: also that nothing but the reason is in the reply.
    const wanted = `Unauthorized: You do not have permissions to read from this Channel topic: messages:${session}`;
    assert.equal(reason, DOES.plainReasons ? wanted : JSON.stringify(wanted));
    assert.equal(await client.removeChannel(room.channel), 'ok');
    assert.deepEqual(room.changes.all, []);
  }
}
