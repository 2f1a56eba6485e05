// `supabase.from('chat_messages').insert(…)` through the gateway, as the token's owner: row-level security
// decides, `.select()` gets the stored row, and the subscribers get that same row.

import { strict as assert } from 'node:assert';

import { ADA, ADAS_SESSION, ANON, BOBS_SESSION, assertChange, connectAs, openSession, texts } from '../support.mjs';

export default async function post(test) {
  const { host } = test;
  const ada = await connectAs(test, ADA);
  const anon = await connectAs(test, ANON);
  const chat = await openSession(ada, ADAS_SESSION).live();
  const bobs = await openSession(anon, BOBS_SESSION).live();
  const message = (content, session_id = ADAS_SESSION) => ({ session_id, role: 'user', content });
  const table = (client) => client.from('chat_messages');

  const stored = await table(ada).insert({ ...message('one "row"'), metadata: { author: 'Ada' } }).select();
  assert.equal(stored.error, null);
  assert.equal(stored.status, 201);
  const [row] = stored.data;
  assert.equal(row.content, 'one "row"');
  assert.deepEqual(row.metadata, { author: 'Ada' });
  assert.match(row.id, /^[0-9a-f-]{36}$/);
  assertChange(await chat.change(row.id), { type: 'INSERT', row });

  const single = await table(ada).insert(message('an object')).select().single();
  assert.equal(single.error, null);
  assertChange(await chat.change(single.data.id), { type: 'INSERT', row: single.data });

  const several = await table(ada).insert([message('first'), { ...message('second'), model: 'm' }]).select();
  assert.deepEqual(several.data?.map(({ content, model }) => [content, model]), [['first', null], ['second', 'm']]);

  // Without `.select()` there is nothing to return, whatever else the SDK says.
  stores(await table(ada).insert(message('unasked')), null);
  stores(await table(ada).insert([message('unasked, several')], { defaultToNull: false }), null);

  const picked = await table(ada).insert(message('picked')).select('content, "role"').single();
  stores(picked, { content: 'picked', role: 'user' });
  assert.deepEqual(Object.keys(picked.data), ['content', 'role']);
  const pickedList = await table(ada).insert([message('p1'), { ...message('p2'), model: 'm' }]).select('model,content');
  stores(pickedList, [{ model: null, content: 'p1' }, { model: 'm', content: 'p2' }]);

  await refused(table(ada).insert(message('into a foreign session', BOBS_SESSION)).select(), 403, '42501');
  await refused(table(anon).insert(message('by one who may only listen')).select(), 401, '42501');
  await refused(table(ada).insert([message('half'), message('half', BOBS_SESSION)]).select(), 403, '42501');
  await refused(table(ada).insert({ ...message('check'), role: 'nobody' }), 400, '23514');
  await refused(table(ada).insert({ ...message('no such column'), colour: 'red' }), 400);
  await refused(table(ada).insert({ ...message('not a uuid'), session_id: 'x' }), 400, '22P02');
  await refused(table(ada).insert({ ...message('same id'), id: row.id }), 409, '23505');
  await refused(ada.from('chat_sessions').insert({ user_id: ADA.sub }), 404);
  await refused(table(ada).insert(message('renamed')).select('text:content'), 400, 'PGRST100', /text:content/);
  await refused(table(ada).insert(message('embedded')).select('id,chat_sessions(id)'), 400, 'PGRST100', /chat_sessions\(id\)/);
  await refused(table(ada).insert(message('no such')).select('id,colour'), 400, '42703', /colour/);
  await refused(table(ada).insert(message('as a table')).select().csv(), 406, 'PGRST107', /text\/csv/);
  await dropBox(ada, anon, await connectAs(test, { role: 'service_role' }));
  await otherRequests(test.url, ada);

  const end = await table(ada).insert(message('end')).select().single();
  await chat.change(end.data.id);
  assert.deepEqual(texts(chat), [
    'one "row"', 'an object', 'first', 'second', 'unasked', 'unasked, several', 'picked', 'p1', 'p2', 'end',
  ]);
  const [marker] = await host.insert(BOBS_SESSION, 'marker');
  await bobs.change(marker.id);
  assert.deepEqual(texts(bobs), ['marker']);
  for (const content of [
    'into a foreign session', 'by one who may only listen', 'half', 'check', 'same id',
    'renamed', 'embedded', 'no such', 'as a table',
  ]) {
    assert.equal(await host.count(content), 0, `"${content}" is not stored`);
  }
}

/** Whoever may INSERT needs no right to SELECT, unless rows are asked for; and then only to what is asked for. */
async function dropBox(ada, anon, service) {
  const drop = (client) => client.from('drop_box').insert({ content: 'a note' });
  for (const client of [ada, anon, service]) stores(await drop(client), null);
  await refused(drop(anon).select(), 401, '42501');
  await refused(drop(anon).select('id'), 401, '42501');
  // The policies show her no row.
  await refused(drop(ada).select(), 403, '42501');
  await refused(drop(ada).select('id'), 403, '42501');
  // No policy holds for it, but it may read some columns only.
  await refused(drop(service).select(), 403, '42501');
  await refused(drop(service).select('id,secret'), 403, '42501');
  const [{ id }] = stores(await drop(service).select('id')).data;
  stores(await drop(service).select('content,id'), [{ content: 'a note', id: id + 1 }]);
}

/** What the SDK can ask for, and the gateway does not do. */
async function otherRequests(url, client) {
  const only = /only POST \(insert\) is served here/;
  for (const request of [
    client.from('chat_messages').select(),
    client.from('chat_messages').update({ content: 'x' }).eq('role', 'user'),
    client.from('chat_messages').delete().eq('role', 'user'),
  ]) {
    await refused(request, 405, 'PGRST117', only);
  }
  await refused(client.rpc('anything', { at: 'all' }), 404, 'PGRST125');

  const get = await fetch(`${url}/rest/v1/chat_messages`);
  assert.deepEqual([get.status, get.headers.get('allow')], [405, 'POST, OPTIONS']);
  const body = await get.json();
  assert.deepEqual(body, { code: 'PGRST117', message: 'only POST (insert) is served here', details: null, hint: null });
  for (const path of ['', '/', '/rpc/x', '/a/b/c']) {
    const response = await fetch(`${url}/rest/v1${path}`);
    assert.equal(response.status, 404, `404 for ${path}`);
    assert.match(response.headers.get('content-type'), /^application\/json/, `JSON for ${path}`);
    assert.equal((await response.json()).code, 'PGRST125', path);
  }
}

function stores(answer, data) {
  assert.deepEqual([answer.error, answer.status], [null, 201]);
  if (data !== undefined) assert.deepEqual(answer.data, data);
  return answer;
}

async function refused(request, status, code, message = /./) {
  const answer = await request;
  const said = JSON.stringify(answer.error);
  assert.equal(answer.data, null);
  assert.equal(answer.status, status, said);
  if (code) assert.equal(answer.error.code, code, said);
  assert.match(answer.error.message, message);
}
