// Runs scenarios against a gateway, one after the other: `node driver.mjs hook habits`. The Rust tests start this, answer
// its calls (see host.mjs) and expect exit code 0. Environment: TIDINGS_URL, SDK_LINE if it must not be the newest
// supabase-js, and what a scenario names.

import { once } from 'node:events';

import { Host } from './host.mjs';
import { SDK, assertLine } from './sdk.mjs';
import { closeClients } from './support.mjs';

const SCENARIOS = ['hook', 'habits', 'presence', 'broadcast', 'http_broadcast', 'types', 'token', 'reconnect', 'tour', 'old_style', 'post', 'page', 'picture', 'worker'];

const names = process.argv.slice(2);
if (names.length === 0 || !names.every((name) => SCENARIOS.includes(name))) {
  console.error(`usage: node driver.mjs ${SCENARIOS.join('|')}…`);
  process.exit(2);
}

const host = new Host(process.stdin, process.stdout);
let failure = null;
for (const name of names) {
  try {
    assertLine(process.env.SDK_LINE);
    const { default: scenario } = await import(`./scenarios/${name}.mjs`);
    await scenario({ host, url: process.env.TIDINGS_URL, environment: process.env });
  } catch (error) {
    failure = `${name}, supabase-js ${SDK.version}: ${error.stack ?? error}`;
  }
  await closeClients().catch((error) => {
    failure ??= error;
  });
  if (failure) break;
}
host.say(failure ? { failed: failure.stack ?? String(failure) } : { done: names.join(' ') });
// `process.exit` does not wait for a pipe to take what was written.
if (process.stdout.writableLength > 0) await once(process.stdout, 'drain');
process.exit(failure ? 1 : 0);
