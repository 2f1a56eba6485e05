// Runs one scenario against a gateway: `node test/driver.mjs resume`. The Rust tests start this, answer its calls
// (see sdk/host.mjs) and expect exit code 0. Environment: TIDINGS_URL, SDK, and what a scenario names.

import { once } from 'node:events'

import { Host } from './sdk/host.mjs'
import { closeClients } from './support.mjs'

const SCENARIOS = ['resume', 'asleep', 'refused', 'page', 'plain']

const [name] = process.argv.slice(2)
if (!SCENARIOS.includes(name)) {
  console.error(`usage: node test/driver.mjs ${SCENARIOS.join('|')}`)
  process.exit(2)
}

const host = new Host(process.stdin, process.stdout)
let failure = null
try {
  const { default: scenario } = await import(`./scenarios/${name}.mjs`)
  await scenario({ host, url: process.env.TIDINGS_URL, environment: process.env })
} catch (error) {
  failure = error
}
await closeClients().catch((error) => {
  failure ??= error
})
host.say(failure ? { failed: failure.stack ?? String(failure) } : { done: name })
// `process.exit` does not wait for a pipe to take what was written.
if (process.stdout.writableLength > 0) await once(process.stdout, 'drain')
process.exit(failure ? 1 : 0)
