// A process that is stopped reads nothing, sends nothing, and no timer of it fires. The server closes its socket for the reason that
// END names. Awake again, it goes on: with what still was in the line, and then with what it missed.

import { ADAS_SESSION, Chat, connect } from '../support.mjs'

const LARGE = 'x'.repeat(400_000)
// With 20 MB, the buffers of the system between the two are full.
const CONTENTS = {
  slow_reader: Array.from({ length: 60 }, (_, n) => `${n} ${LARGE}`),
  idle: ['one', 'two', 'three'],
}

export default async function asleep(test) {
  const { host, environment } = test
  // Awake, it beats often enough not to count as idle. More often, and a busy machine makes the SDK give up its connection.
  const client = await connect(test, environment.END === 'idle' ? { heartbeatIntervalMs: 1_000 } : {})
  const chat = await new Chat(client).isLive()
  await host.insert(ADAS_SESSION, 'before')
  await chat.shows(['before'])

  const contents = CONTENTS[environment.END]
  const asleep = ['after it was closed', 'still asleep']
  await host.asleep(ADAS_SESSION, { contents, reason: environment.END, later: asleep })
  await chat.isLive(2)
  await host.insert(ADAS_SESSION, 'awake')
  await chat.shows(['before', ...contents, ...asleep, 'awake'])
  chat.assertUndisturbed()
}
