// Cursors that lead nowhere, histories, and pages that are loaded again.

import { strict as assert } from 'node:assert'

import { memoryStorage } from 'tidings-client'

import { ADAS_SESSION, Chat, Log, connect } from '../support.mjs'

export default async function refused(test) {
  await expired(test)
  await history(test)
  await loadedAgain(test)
  await damaged(test)
}

async function expired(test) {
  const { host } = test
  const reading = new Log('readings')
  let chat
  const refetch = async (reason) => {
    reading.push(reason)
    // What is written now comes after this has ended.
    await host.insert(ADAS_SESSION, 'during the refetch')
    assert.ok(!chat.rows.all.includes('during the refetch'))
  }
  chat = await new Chat(await connect(test), { refetch }).isLive()
  const witness = await new Chat(await connect(test)).isLive()
  await host.insert(ADAS_SESSION, 'before')
  await chat.shows(['before'])
  await host.cut()
  await chat.isOffline()
  await host.insert(ADAS_SESSION, 'forgotten')
  await host.forget()
  await host.mend()
  await chat.isLive(2)
  await host.insert(ADAS_SESSION, 'after')
  await chat.shows(['before', 'during the refetch', 'after'])
  assert.deepEqual(reading.all, ['cursor_expired'])
  assert.deepEqual(chat.errors, [])
  const refusals = chat.channelStatuses.all.filter((status) => status.includes('cursor_expired'))
  assert.equal(refusals.length, 1, 'the SDK says so, too')
  // Both were away, and both know.
  await witness.isLive(2)
  assert.deepEqual(witness.reasons.all, ['cursor_expired'])
  await chat.client.removeAllChannels()
  await witness.client.removeAllChannels()
}

async function history(test) {
  const { host } = test
  // One by one: rows of the same time have no order.
  const [one] = await host.insert(ADAS_SESSION, 'one')
  const [two] = await host.insert(ADAS_SESSION, 'two')
  const [three] = await host.insert(ADAS_SESSION, 'three')
  await host.delete(two.id)
  const client = await connect(test)
  const chat = await new Chat(client, { history: 2 }).isLive()
  const texts = [one.content, three.content]
  await chat.shows(texts)
  await host.cut()
  await chat.isOffline()
  const rows = await host.insert(ADAS_SESSION, 'four', 'five', 'six')
  await host.mend()
  await chat.isLive(2)
  // All that was missed, and not the last two.
  await chat.shows([...texts, ...rows.map(({ content }) => content)])
  chat.assertUndisturbed()
  await client.removeAllChannels()
}

async function loadedAgain(test) {
  const { host } = test
  const storage = memoryStorage()
  const before = await new Chat(await connect(test), { storage }).isLive()
  await host.insert(ADAS_SESSION, 'first page')
  await before.shows(['first page'])
  await before.client.removeAllChannels()
  await host.insert(ADAS_SESSION, 'between the pages')
  const after = await new Chat(await connect(test), { storage }).isLive()
  await host.insert(ADAS_SESSION, 'second page')
  await after.shows(['between the pages', 'second page'])
  after.assertUndisturbed()
  await after.client.removeAllChannels()
}

async function damaged(test) {
  const storage = memoryStorage()
  const chat = await new Chat(await connect(test), { storage }).isLive()
  const key = `tidings:${chat.channel.topic}`
  await chat.client.removeAllChannels()
  const saved = storage.getItem(key)
  storage.setItem(key, saved.replace(/:"([^"]{9})/g, ':"123456789'))
  assert.notEqual(storage.getItem(key), saved)
  const after = await new Chat(await connect(test), { storage }).isLive()
  assert.deepEqual(after.reasons.all, ['cursor_invalid'])
  await test.host.insert(ADAS_SESSION, 'and live')
  await after.shows(['and live'])
}
