// What the server is asked for at a rejoin.

import { strict as assert } from 'node:assert'
import { test } from 'node:test'

import { memoryStorage } from 'tidings-client'

import { ADDED, REMOVED, room, settled } from './fake.mjs'

const since = (channel) => channel.sent().map(({ since }) => since)

test('every binding asks for cursors, and keeps all that the application wants', () => {
  const { channel, live } = room({}, [])
  const filter = { build: () => 'id=gt.1' }
  const mine = { ...ADDED, filter, select: ['id'], history: 5, order: 'id' }
  live.on(mine, () => {})
  live.subscribe()
  assert.deepEqual(channel.sent(), [{ ...ADDED, filter: 'id=gt.1', select: ['id'], history: 5, order: 'id', cursor: true }])
  assert.equal(mine.filter, filter)
})

test('a rejoin asks for what came after the newest change, in the object that the SDK keeps', () => {
  const { channel, live } = room()
  live.subscribe()
  const kept = channel.bindings.postgres_changes[0].filter
  assert.deepEqual(since(channel), [undefined])
  channel.join('c0')
  channel.insert(1, 'c1')
  channel.insert(2, 'c2')
  assert.equal(kept.since, 'c2')
  channel.fresh('c9')
  assert.equal(kept.since, 'c9')
})

test('a cursor stands for all that came before it on the channel', () => {
  const { channel, live } = room({}, [ADDED, REMOVED])
  live.subscribe()
  channel.join('c0')
  channel.insert(1, 'c1')
  assert.deepEqual(since(channel), ['c1', 'c1'])
  channel.delete(1, 'c2', 1)
  assert.deepEqual(since(channel), ['c2', 'c2'])
})

test('a binding with other columns of the same table gets messages of its own, and stays one change behind', () => {
  const { channel, live } = room({}, [ADDED, { ...REMOVED, select: ['id'] }, { ...REMOVED, table: 'rooms', select: ['id'] }])
  live.subscribe()
  channel.join('c0')
  channel.insert(1, 'c1')
  assert.deepEqual(since(channel), ['c1', 'c0', 'c1'])
  channel.insert(2, 'c2')
  assert.deepEqual(since(channel), ['c2', 'c1', 'c2'])
  // The same change, in its second message.
  channel.delete(2, 'c2', 1)
  assert.deepEqual(since(channel), ['c2', 'c2', 'c2'])
  channel.delete(1, 'c3', 1)
  assert.deepEqual(since(channel), ['c2', 'c3', 'c3'])
})

test('what comes without cursors waits until all of it has come, in the order of the channel', () => {
  const { channel, live, seen } = room({}, [ADDED, REMOVED])
  live.subscribe()
  channel.join('c0')
  channel.status('CHANNEL_ERROR')
  channel.status('SUBSCRIBED')
  channel.insert(5)
  channel.delete(5, undefined, 1)
  channel.status('CHANNEL_ERROR')
  assert.deepEqual([since(channel), seen.rows], [['c0', 'c0'], []])
  channel.status('SUBSCRIBED')
  channel.insert(5)
  channel.delete(5, undefined, 1)
  channel.insert(6)
  channel.fresh('c7')
  assert.deepEqual([since(channel), seen.rows], [['c0', 'c0'], []])
  channel.caughtUp('c8')
  assert.deepEqual([since(channel), seen.rows], [['c8', 'c8'], [5, '-5', 6]])
})

test('more than may wait is read anew', async () => {
  const { channel, live, seen } = room({ maxQueued: 3 })
  live.subscribe()
  channel.join('c0')
  channel.status('CHANNEL_ERROR')
  channel.status('SUBSCRIBED')
  for (let id = 1; id <= 5; id += 1) channel.insert(id)
  assert.deepEqual(since(channel), [undefined])
  channel.caughtUp('c6')
  await settled()
  assert.deepEqual(seen.reasons, ['overflow'])
  // The fourth was one too many; what came after it comes after the reading.
  assert.deepEqual(seen.rows, [5])
})

test('what an earlier join left over is not handed over, and comes again', () => {
  const { channel, live, seen } = room()
  live.subscribe()
  channel.insert(0, 'c0')
  channel.join('c1')
  channel.insert(2, 'c2')
  channel.status('TIMED_OUT')
  channel.insert(3, 'c3')
  channel.caughtUp('c4')
  assert.deepEqual(since(channel), ['c2'])
  channel.status('SUBSCRIBED')
  channel.insert(3, 'c3')
  assert.deepEqual(seen.rows, [2, 3])
})

test('a history that was cut off comes again as a whole, and is handed over once', () => {
  const { channel, live, seen } = room({}, [{ ...ADDED, history: 3 }])
  live.subscribe()
  channel.status('SUBSCRIBED')
  channel.insert(1)
  channel.insert(2)
  channel.status('CHANNEL_ERROR')
  assert.deepEqual(since(channel), [undefined])
  assert.deepEqual(seen.rows, [])
  channel.status('SUBSCRIBED')
  for (const id of [1, 2]) channel.insert(id)
  channel.insert(3, 'c3')
  channel.caughtUp('c4')
  channel.insert(4, 'c5')
  assert.deepEqual(seen.rows, [1, 2, 3, 4])
  assert.deepEqual(seen.reasons, [])
})

test('rows without any cursor are handed over when the server says that these were all', () => {
  const { channel, live, seen } = room({}, [{ ...ADDED, history: 3 }])
  live.subscribe()
  channel.status('SUBSCRIBED')
  channel.insert(1)
  assert.deepEqual(seen.rows, [])
  channel.caughtUp('c4')
  assert.deepEqual(seen.rows, [1])
  assert.deepEqual(since(channel), ['c4'])
})

test('the application does not see cursors, and other listeners of the channel keep theirs', () => {
  const { channel, live } = room({}, [])
  const rows = []
  live.on({ ...ADDED, event: '*' }, (change) => rows.push(change))
  live.subscribe()
  channel.join('c0')
  const change = { eventType: 'UPDATE', new: { id: 1, tidings_cursor: 'c1' }, old: { id: 1 }, errors: null }
  channel.bindings.postgres_changes[0].callback(change)
  assert.deepEqual(rows, [{ eventType: 'UPDATE', new: { id: 1 }, old: { id: 1 }, errors: null }])
  assert.equal(change.new.tidings_cursor, 'c1')
})

test('two bindings for the same changes are refused, also where the SDK drops the second', () => {
  const { channel, live } = room()
  assert.throws(() => live.on({ ...ADDED, history: 3 }, () => {}), /has a binding for these changes already/)
  channel.drops = true
  assert.throws(() => live.on(REMOVED, () => {}), /has a binding for these changes already/)
})

test('no more bindings than the server lets resume', () => {
  const { live } = room({}, Array.from({ length: 32 }, (_, n) => ({ ...ADDED, table: `table_${n}` })))
  assert.throws(() => live.on(REMOVED, () => {}), /at most 32 bindings/)
})

test('a binding that comes too late, and a second subscribe, are refused', () => {
  const { live } = room()
  live.subscribe()
  assert.throws(() => live.on(REMOVED, () => {}), /before subscribe/)
  assert.throws(() => live.subscribe(), /make a new one/)
})

test('the next channel goes on where the last one was, if a storage has kept that', async () => {
  const storage = memoryStorage()
  const first = room({ storage })
  first.live.subscribe()
  first.channel.join('c0')
  first.channel.insert(1, 'c1')
  first.channel.status('CLOSED')

  const next = room({ storage })
  next.live.subscribe()
  assert.deepEqual(since(next.channel), ['c1'])
  const other = room({ storage, key: 'another user' })
  other.live.subscribe()
  assert.deepEqual(since(other.channel), [undefined])

  // What was not asked for before has no place: the others' would hide what it has never had.
  const more = room({ storage }, [ADDED, REMOVED])
  more.live.subscribe()
  assert.deepEqual(since(more.channel), [undefined, undefined])
  more.channel.join('c2')
  await settled()
  assert.deepEqual(more.seen.reasons, ['no_cursor'])
})
