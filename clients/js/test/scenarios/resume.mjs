// Rows are written all the time while the line is cut, while the gateway is killed, and while tokens change: each is shown once,
// in order, and nothing has to be read anew.

import { strict as assert } from 'node:assert'

import { ADA, Chat, Writer, connect } from '../support.mjs'

const SHORT_SECONDS = 2

export default async function resume(test) {
  const { host } = test
  // The same for all SDKs; the oldest would wait for up to 8 s after the second try.
  const client = await connect(test, { reconnectAfterMs: () => 1_000 })
  const chat = await new Chat(client).isLive()
  const writer = new Writer(host, 'row')

  await cut(host, chat, writer)
  await killed(host, chat, writer)
  await tokens(host, client, chat, writer)

  await writer.stop()
  await writer.insertAndDelete('the end')
  await chat.shows(writer.written.all)
  chat.assertUndisturbed()
  assert.equal(await client.removeChannel(chat.channel), 'ok')
  await chat.statuses.until((all) => all.at(-1) === 'closed', 'closed')
}

async function cut(host, chat, writer) {
  await writer.more(20)
  await host.cut()
  await chat.isOffline()
  await writer.more(20)
  // Of two bindings, one has had nothing to say so far.
  await writer.insertAndDelete('short-lived')
  await writer.more(20)
  await host.mend()
  await chat.isLive(2)
}

async function killed(host, chat, writer) {
  await writer.more(20)
  await host.kill()
  await chat.isOffline()
  await writer.more(20)
  await host.revive()
  await chat.isLive(3)
}

async function tokens(host, client, chat, writer) {
  const statuses = chat.channelStatuses.all.length
  await setToken(client, await host.token({ ...ADA, seconds: 3600 }))
  await writer.more(20)
  assert.equal(chat.channelStatuses.all.length, statuses, 'a new token on an open channel is no new join')

  const end = Date.now() + SHORT_SECONDS * 1000
  await setToken(client, await host.token({ ...ADA, seconds: SHORT_SECONDS }))
  await host.cut()
  await chat.isOffline()
  while (Date.now() <= end + 1000) await writer.more(1)
  // The channel would be refused with the token that it had.
  await setToken(client, await host.token({ ...ADA, seconds: 3600 }))
  await host.mend()
  await chat.isLive(4)
  await writer.more(20)
}

async function setToken(client, token) {
  client.user.token = token
  await client.realtime.setAuth()
}
