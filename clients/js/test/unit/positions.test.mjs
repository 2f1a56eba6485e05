// What the server is asked for at a rejoin.

import { strict as assert } from 'node:assert'
import { test } from 'node:test'

import { memoryStorage } from 'tidings-client'

import { ADDED, REMOVED, room } from './fake.mjs'

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

test('a quiet binding follows a busy one of its channel, one change behind', () => {
  const { channel, live } = room({}, [ADDED, REMOVED])
  live.subscribe()
  channel.join('c0')
  channel.insert(1, 'c1')
  // The same change may still be on its way to the other binding.
  assert.deepEqual(since(channel), ['c1', 'c0'])
  channel.insert(2, 'c2')
  channel.insert(3, 'c3')
  assert.deepEqual(since(channel), ['c3', 'c2'])
  channel.delete(3, 'c4', 1)
  assert.deepEqual(since(channel), ['c3', 'c4'])
})

test('one change for two bindings counts for both', () => {
  const { channel, live } = room({}, [ADDED, { ...ADDED, event: '*' }])
  live.subscribe()
  channel.join('c0')
  channel.insert(1, 'c1', 0, 1)
  assert.deepEqual(since(channel), ['c1', 'c1'])
})

test('while it catches up, no binding skips what another one has', () => {
  const { channel, live } = room({}, [ADDED, REMOVED])
  live.subscribe()
  channel.join('c0')
  channel.insert(1, 'c1')
  channel.insert(2, 'c2')
  channel.status('CHANNEL_ERROR')
  channel.status('SUBSCRIBED')
  channel.insert(5, 'c5')
  channel.insert(6, 'c6')
  channel.status('CHANNEL_ERROR')
  assert.deepEqual(since(channel), ['c6', 'c1'])
  channel.status('SUBSCRIBED')
  channel.delete(1, 'c4', 1)
  channel.fresh('c8')
  assert.deepEqual(since(channel), ['c6', 'c4'])
  channel.caughtUp('c7')
  assert.deepEqual(since(channel), ['c7', 'c7'])
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

  const next = room({ storage }, [ADDED, REMOVED])
  next.live.subscribe()
  // What was not asked for before has no place yet.
  assert.deepEqual(since(next.channel), ['c1', undefined])
  const other = room({ storage, key: 'another user' })
  other.live.subscribe()
  assert.deepEqual(since(other.channel), [undefined])
})
