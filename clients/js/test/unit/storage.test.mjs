// Cursors in a storage: what is kept there, and a storage that fails.

import { strict as assert } from 'node:assert'
import { test } from 'node:test'

import { memoryStorage } from 'tidings-client'

import { ADDED, gate, room, settled } from './fake.mjs'

const KEY = 'tidings:realtime:room'
const SHAPE = JSON.stringify(['INSERT', 'public', 'messages', null, null])

test('what is kept is what the application has been given, and no more', async () => {
  const storage = memoryStorage()
  const kept = () => Object.values(JSON.parse(storage.getItem(KEY) ?? '{"cursors":{}}').cursors)
  const slow = gate()
  const { channel, live } = room({ storage }, [])
  live.on(ADDED, ({ new: { id } }) => (id === 1 ? slow.promise : undefined))
  live.subscribe()
  channel.join('c0')
  assert.deepEqual(kept(), ['c0'])
  channel.insert(1, 'c1')
  channel.insert(2, 'c2')
  assert.equal(channel.sent()[0].since, 'c2')
  assert.deepEqual(kept(), ['c0'])
  slow.open()
  await settled()
  assert.deepEqual(kept(), ['c2'])
  // While the state has to be read anew, a page that is loaded again must not believe that it has one.
  channel.status('CHANNEL_ERROR', 'cursor_expired: x')
  assert.equal(storage.getItem(KEY), null)
  channel.status('SUBSCRIBED')
  channel.insert(5, 'c5')
  assert.equal(storage.getItem(KEY), null)
  channel.caughtUp('c6')
  await settled()
  assert.deepEqual(kept(), ['c6'])
})

test('a callback that ends after its cursor was refused does not bring that back', async () => {
  const storage = memoryStorage()
  const slow = gate()
  const { channel, live } = room({ storage }, [])
  live.on(ADDED, () => slow.promise)
  live.subscribe()
  channel.join('c0')
  channel.insert(1, 'c1')
  channel.status('CHANNEL_ERROR', 'cursor_foreign: x')
  slow.open()
  await settled()
  assert.equal(storage.getItem(KEY), null)
})

test('a storage that answers later delays the join, and gets the newest state only', async () => {
  const reading = gate()
  const writes = []
  const storage = {
    getItem: () => reading.promise,
    setItem: (_, text) => {
      const write = gate()
      writes.push({ ...write, cursor: JSON.parse(text).cursors[SHAPE] })
      return write.promise
    },
    removeItem: () => {},
  }
  const { channel, live, seen } = room({ storage })
  live.subscribe()
  assert.ok(!channel.subscribed)
  reading.open(JSON.stringify({ v: 1, cursors: { [SHAPE]: 'c0' } }))
  await settled()
  assert.equal(channel.sent()[0].since, 'c0')
  channel.join('c0')
  for (const id of [1, 2, 3]) channel.insert(id, `c${id}`)
  assert.deepEqual(writes.map(({ cursor }) => cursor), ['c1'])
  writes[0].fail(new Error('full'))
  await settled()
  assert.deepEqual(writes.map(({ cursor }) => cursor), ['c1', 'c3'])
  assert.deepEqual(seen.errors, ['storage: full'])
  assert.deepEqual(seen.rows, [1, 2, 3])
})

test('a channel that is removed while its storage is read is not subscribed', async () => {
  const reading = gate()
  const { channel, live } = room({ storage: { ...memoryStorage(), getItem: () => reading.promise } })
  live.subscribe()
  channel.removed = true
  reading.open(null)
  await settled()
  assert.ok(!channel.subscribed)
  assert.equal(live.status, 'closed')
})

test('a storage that cannot be read means that the place is not known', async () => {
  for (const getItem of [() => { throw new Error('denied') }, () => Promise.reject(new Error('denied'))]) {
    const { channel, live, seen } = room({ storage: { ...memoryStorage(), getItem } })
    live.subscribe()
    await settled()
    channel.join('c0')
    await settled()
    assert.deepEqual(seen.reasons, ['no_cursor'])
    assert.deepEqual(seen.errors, ['storage: denied'])
  }
})

test('a storage that never answers is not waited for', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { channel, live, seen } = room({ storage: { ...memoryStorage(), getItem: () => gate().promise } })
  live.subscribe()
  t.mock.timers.tick(5_000)
  await settled()
  assert.ok(channel.subscribed)
  assert.deepEqual(seen.errors, ['storage: the storage did not answer within 5000 ms'])
})

test('a storage that cannot be written costs no change', () => {
  const storage = { ...memoryStorage(), setItem: () => { throw new Error('quota') } }
  const { channel, live, seen } = room({ storage })
  live.subscribe()
  channel.join('c0')
  channel.insert(1, 'c1')
  assert.deepEqual(seen.rows, [1])
  assert.deepEqual(seen.errors, ['storage: quota', 'storage: quota'])
})

test('what is none of ours says that the place is not known', async () => {
  const other = JSON.stringify(['DELETE', 'public', 'messages', null, null])
  const texts = [
    '', 'null', '[]', '{"v":1}', '{"v":1,"cursors":null}', `{"v":1,"cursors":{${JSON.stringify(SHAPE)}:7}}`,
    `{"v":2,"cursors":{${JSON.stringify(SHAPE)}:"c"}}`,
    `{"v":1,"cursors":{${JSON.stringify(SHAPE)}:"c",${JSON.stringify(other)}:"c"}}`,
  ]
  for (const text of texts) {
    const { channel, live, seen } = room({ storage: { ...memoryStorage(), getItem: () => text } })
    live.subscribe()
    assert.equal(channel.sent()[0].since, undefined, text)
    channel.join('c0')
    await settled()
    assert.deepEqual([seen.errors, seen.reasons], [[], ['no_cursor']], text)
    assert.equal(channel.sent()[0].since, 'c0')
  }
})

test('a change for two bindings is kept when both have been given it', async () => {
  const storage = memoryStorage()
  const slow = [gate(), gate()]
  const { channel, live } = room({ storage }, [])
  live.on(ADDED, () => slow[0].promise)
  live.on({ ...ADDED, event: '*' }, () => slow[1].promise)
  live.subscribe()
  channel.join('c0')
  channel.insert(1, 'c1', 0, 1)
  slow[0].open()
  await settled()
  assert.match(storage.getItem(KEY), /c0/)
  assert.doesNotMatch(storage.getItem(KEY), /c1/)
  slow[1].open()
  await settled()
  assert.doesNotMatch(storage.getItem(KEY), /c0/)
})
