// What is handed over, when, and what happens if the application is slow, fails, or leaves.

import { strict as assert } from 'node:assert'
import { test } from 'node:test'

import { ADDED, gate, room, settled } from './fake.mjs'

test('a change is handed over as soon as it comes, and the status tells how things are', () => {
  const { channel, live, seen } = room()
  const statuses = []
  assert.equal(live.subscribe((status) => statuses.push(status)), channel)
  channel.status('SUBSCRIBED')
  channel.insert(1, 'c1')
  assert.deepEqual(seen.rows, [1])
  channel.caughtUp('c2')
  channel.status('CHANNEL_ERROR', 'socket closed: 1012')
  channel.join('c3')
  channel.status('CLOSED')
  assert.deepEqual(statuses, ['SUBSCRIBED', 'CHANNEL_ERROR', 'SUBSCRIBED', 'CLOSED'])
  assert.deepEqual(seen.statuses, ['catching_up', 'live', 'offline', 'catching_up', 'live', 'closed'])
  assert.equal(live.status, 'closed')
  assert.deepEqual(seen.errors, [])
})

test('a callback that throws is told of, and what comes after it comes', () => {
  const { channel, live, seen } = room({}, [])
  live.on(ADDED, ({ new: { id } }) => {
    seen.rows.push(id)
    if (id === 1) throw new Error('no')
  })
  live.subscribe()
  channel.join('c0')
  channel.insert(1, 'c1')
  channel.insert(2, 'c2')
  assert.deepEqual(seen.rows, [1, 2])
  assert.deepEqual(seen.errors, ['change: no'])
  assert.equal(channel.sent()[0].since, 'c2')
})

test('the next change waits for the promise of the last one, and a rejection is told of', async () => {
  const { channel, live, seen } = room({}, [])
  const gates = new Map([1, 2, 3].map((id) => [id, gate()]))
  live.on(ADDED, ({ new: { id } }) => {
    seen.rows.push(id)
    return gates.get(id).promise
  })
  live.subscribe()
  channel.join('c0')
  for (const id of [1, 2, 3]) channel.insert(id, `c${id}`)
  await settled()
  assert.deepEqual(seen.rows, [1])
  gates.get(1).fail(new Error('later'))
  await settled()
  assert.deepEqual(seen.rows, [1, 2])
  gates.get(2).open()
  await settled()
  assert.deepEqual(seen.rows, [1, 2, 3])
  assert.deepEqual(seen.errors, ['change: later'])
})

for (const reason of ['cursor_expired', 'cursor_foreign', 'cursor_invalid']) {
  test(`${reason}: joins without, refetches once, and hands over what came meanwhile`, async () => {
    const reading = gate()
    const { channel, live, seen } = room({ refetch: (why) => (seen.reasons.push(why), reading.promise) })
    live.subscribe()
    channel.join('c0')
    channel.insert(1, 'c1')
    channel.status('CHANNEL_ERROR', 'socket closed: 1006')
    assert.equal(channel.sent()[0].since, 'c1')
    channel.status('CHANNEL_ERROR', `${reason}: fetch the rows anew`)
    assert.equal(channel.sent()[0].since, undefined)
    channel.status('SUBSCRIBED')
    channel.insert(5, 'c5')
    await settled()
    // Not yet: until the channel is live, a row could be neither in the answer nor come as a change.
    assert.deepEqual(seen.reasons, [])
    channel.caughtUp('c6')
    channel.insert(7, 'c7')
    await settled()
    assert.deepEqual(seen.reasons, [reason])
    assert.deepEqual(seen.rows, [1])
    assert.equal(live.status, 'catching_up')
    reading.open()
    await settled()
    assert.deepEqual(seen.rows, [1, 5, 7])
    assert.equal(live.status, 'live')
    channel.insert(8, 'c8')
    assert.deepEqual(seen.rows, [1, 5, 7, 8])
    assert.deepEqual(seen.reasons, [reason])
  })
}

test('older SDKs put the reason into quotes', async () => {
  const { channel, live, seen } = room()
  live.subscribe()
  channel.join('c0')
  channel.status('CHANNEL_ERROR', '"cursor_expired: changes since this cursor are not kept any more"')
  channel.join('c1')
  await settled()
  assert.deepEqual(seen.reasons, ['cursor_expired'])
})

test('a refusal for another reason is the application’s affair', async () => {
  const { channel, live, seen } = room()
  live.subscribe()
  channel.join('c0')
  channel.status('CHANNEL_ERROR', 'Unauthorized: You do not have permissions to read from this Channel topic: room')
  assert.equal(channel.sent()[0].since, 'c0')
  channel.join('c1')
  await settled()
  assert.deepEqual(seen.reasons, [])
})

test('a refetch that fails is tried again after pauses that grow', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  let failures = 3
  const { channel, live, seen } = room({
    refetch: (reason) => {
      seen.reasons.push(reason)
      if (failures-- > 0) throw new Error('no network')
    },
  })
  live.subscribe()
  channel.status('CHANNEL_ERROR', 'cursor_expired: x')
  channel.join('c0')
  channel.insert(1, 'c1')
  for (const pause of [1_000, 2_000, 4_000]) {
    await settled()
    const tried = seen.reasons.length
    t.mock.timers.tick(pause - 1)
    await settled()
    assert.equal(seen.reasons.length, tried)
    assert.deepEqual(seen.rows, [])
    t.mock.timers.tick(1)
  }
  await settled()
  assert.equal(seen.reasons.length, 4)
  assert.deepEqual(seen.rows, [1])
  assert.deepEqual(seen.errors, Array(3).fill('refetch: no network'))
})

test('a cursor that is refused while the state is being read makes that reading worthless', async () => {
  const readings = []
  const { channel, live, seen } = room({
    refetch: (reason) => {
      const reading = gate()
      readings.push(reading)
      seen.reasons.push(reason)
      return reading.promise
    },
  })
  live.subscribe()
  channel.status('CHANNEL_ERROR', 'cursor_expired: x')
  channel.join('c0')
  channel.insert(1, 'c1')
  channel.status('CHANNEL_ERROR', 'socket closed: 1006')
  channel.status('CHANNEL_ERROR', 'cursor_foreign: x')
  readings[0].open()
  await settled()
  assert.deepEqual(seen.reasons, ['cursor_expired'])
  channel.join('d0')
  channel.insert(2, 'd1')
  await settled()
  readings[1].open()
  await settled()
  assert.deepEqual(seen.reasons, ['cursor_expired', 'cursor_foreign'])
  // The first row may have changed since: what the second reading found must not be overwritten by it.
  assert.deepEqual(seen.rows, [2])
})

test('a lost connection while the state is being read costs nothing', async () => {
  const reading = gate()
  const { channel, live, seen } = room({ refetch: (reason) => (seen.reasons.push(reason), reading.promise) })
  live.subscribe()
  channel.status('CHANNEL_ERROR', 'cursor_expired: x')
  channel.join('c0')
  channel.insert(1, 'c1')
  channel.status('CHANNEL_ERROR', 'socket closed: 1006')
  assert.equal(channel.sent()[0].since, 'c1')
  reading.open()
  await settled()
  channel.status('SUBSCRIBED')
  channel.insert(2, 'c2')
  channel.caughtUp('c2')
  await settled()
  assert.deepEqual(seen.rows, [1, 2])
  assert.deepEqual(seen.reasons, ['cursor_expired'])
})

test('too many changes behind a slow callback end in a refetch, and not in memory', async () => {
  const slow = gate()
  const { channel, live, seen } = room({ maxQueued: 3 }, [])
  live.on(ADDED, ({ new: { id } }) => {
    seen.rows.push(id)
    return id === 1 ? slow.promise : undefined
  })
  live.subscribe()
  channel.join('c0')
  for (let id = 1; id <= 9; id += 1) channel.insert(id, `c${id}`)
  slow.open()
  await settled()
  channel.insert(10, 'c10')
  assert.deepEqual(seen.rows, [1, 10])
  assert.deepEqual(seen.reasons, ['overflow'])
  assert.equal(live.status, 'live')
})

test('too many changes during a refetch make it be done once more', async () => {
  const readings = [gate(), gate()]
  const { channel, live, seen } = room({
    maxQueued: 3,
    refetch: (reason) => readings[seen.reasons.push(reason) - 1].promise,
  })
  live.subscribe()
  channel.status('CHANNEL_ERROR', 'cursor_expired: x')
  channel.join('c0')
  await settled()
  for (let id = 1; id <= 9; id += 1) channel.insert(id, `c${id}`)
  readings[0].open()
  await settled()
  assert.deepEqual(seen.reasons, ['cursor_expired', 'overflow'])
  channel.insert(10, 'c10')
  readings[1].open()
  await settled()
  assert.deepEqual(seen.rows, [10])
})

test('nothing comes after the channel was closed, and a refetch is told', async () => {
  let signal
  const { channel, live, seen } = room({
    refetch: (reason, given) => {
      seen.reasons.push(reason)
      signal = given
      throw new Error('no network')
    },
  })
  live.subscribe()
  channel.status('CHANNEL_ERROR', 'cursor_expired: x')
  channel.join('c0')
  channel.insert(1, 'c1')
  await settled()
  channel.status('CLOSED')
  assert.ok(signal.aborted)
  await settled()
  assert.ok(!process.getActiveResourcesInfo().includes('Timeout'), 'it does not wait for another try')
  assert.deepEqual(seen.reasons, ['cursor_expired'])
  assert.deepEqual(seen.rows, [])
})

test('the first state is read when no row can be missed between it and the changes', async () => {
  const { channel, live, seen } = room({ initial: true })
  live.subscribe()
  channel.status('SUBSCRIBED')
  channel.insert(1, 'c1')
  await settled()
  assert.deepEqual([seen.reasons, seen.rows], [[], []])
  channel.caughtUp('c2')
  await settled()
  assert.deepEqual([seen.reasons, seen.rows], [['initial'], [1]])

  const history = room({ initial: true }, [{ ...ADDED, history: 10 }])
  history.live.subscribe()
  history.channel.join('c0')
  await settled()
  assert.deepEqual(history.seen.reasons, [])
})

test('a server without cursors: read anew after each gap', async () => {
  const { channel, live, seen } = room()
  live.subscribe()
  channel.join()
  channel.insert(1)
  assert.deepEqual(seen.rows, [1])
  channel.status('CHANNEL_ERROR', 'socket closed: 1006')
  channel.join()
  await settled()
  channel.insert(2)
  assert.deepEqual(seen.rows, [1, 2])
  assert.deepEqual(seen.reasons, ['no_cursor'])
})
