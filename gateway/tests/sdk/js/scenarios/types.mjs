// What an application gets of each type of PostgreSQL: the record on the wire, as the SDK's transformer converts it.
// The row is there before: `history` brings it as an INSERT.

import { strict as assert } from 'node:assert';

import { connect } from '../support.mjs';

const EXPECTED = {
  id: 1,
  // JavaScript's own parser has no more digits.
  i8: 9007199254740992,
  n: 12.5,
  large: 1.2345678901234568e29,
  nan: null,
  f4: 0.1,
  b: true,
  t: 'text',
  c: 'ab  ',
  bits: '101',
  raw: '00ff5c',
  u: '5b85e9b1-985a-4827-8339-5cb0ee433ebf',
  j: { b: 1, a: [1, 2.5, null] },
  jb: { a: 1 },
  // Text that can be parsed is.
  jt: 123,
  ts: '2024-01-02T03:04:05.678',
  tz: '2024-01-02T01:04:05.678+00:00',
  d: '2024-02-29',
  tm: '13:14:15.123456',
  iv: '1 day 02:03:04.5',
  ia: [1, 2, null],
  ta: ['a b', 'c,d', null],
  matrix: [[1, 2], [3, 4]],
  raws: ['\\x01', '\\xff'],
  ir: '[1,5)',
  money: '$12.34',
  ip: '10.0.0.1/8',
  p: '(1,2)',
  mood: 'ok',
  dom: 7,
  pair: { a: 1, b: 'x,y' },
  o: 12345,
  h: { a: '1', b: null },
  ci: 'MiXed',
  gen: 14,
  none: null,
};

export default async function types(test) {
  const token = await test.host.token({ role: 'service_role', seconds: 3600 });
  const client = await connect(test, token);
  await client.realtime.setAuth();
  const change = await new Promise((resolve, reject) => {
    client
      .channel('types')
      .on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'kinds', history: 1, order: 'id' }, resolve)
      .subscribe((status, error) => error && reject(error));
  });
  assert.equal(change.eventType, 'INSERT');
  assert.equal(change.errors, null);
  const { tidings_cursor: cursor, ...row } = change.new;
  assert.equal(typeof cursor, 'string');
  assert.deepEqual(Object.keys(row).sort(), Object.keys(EXPECTED).sort());
  for (const [column, value] of Object.entries(EXPECTED)) assert.deepEqual(row[column], value, column);
}
