// Which supabase-js was installed here, and in what the older lines differ. A scenario that cannot be the same on all of them
// asks for the difference by its name.

import { strict as assert } from 'node:assert';
import { existsSync, readFileSync } from 'node:fs';

export const SDK = { version: versionOf('@supabase/supabase-js') };

/** Whether this is supabase-js `major.minor` or newer. */
function since(major, minor) {
  const [ownMajor, ownMinor] = SDK.version.split('.').map(Number);
  return ownMajor > major || (ownMajor === major && ownMinor >= minor);
}

/** What the lines that are tested do; which of the versions between two lines was the first to do it is not looked for. */
export const DOES = {
  /** Speaks serializer 2.0.0 unless told otherwise, and bytes with it. Before, 1.0.0 is all it speaks. */
  serializer2: since(2, 95),
  /** Works with a WebSocket that it is given. Before, it looks for one itself, and finds the package `ws`. */
  takesTransport: since(2, 95),
  /** Tells how heartbeats go. Before, every answer to one can be listened to. */
  tellsOfHeartbeats: since(2, 95),
  /**
   * Can be given a channel right after its last one was removed. In 2.95 the channel waits for a connection that nobody
   * makes, because the old one is still being closed.
   */
  survivesItsLastChannel: !since(2, 95) || since(2, 119),
  /** Is built on `@supabase/phoenix`. Before, it has sockets and channels of its own. */
  phoenix: since(2, 119),
  /** Gives the reason of a refusal as it is. Before, quoted as JSON. */
  plainReasons: since(2, 119),
  /** Can ask for a SUBSCRIBED that comes when changes flow. */
  waitsForChanges: since(2, 119),
};

/** That the right packages were found. */
export function assertLine(line = '2.119') {
  assert.ok(SDK.version.startsWith(`${line}.`), `this is supabase-js ${SDK.version}, and ${line} was wanted`);
}

function versionOf(name) {
  let directory = new URL('.', import.meta.resolve(name));
  for (;;) {
    const file = new URL('package.json', directory);
    // Builds for one kind of module have a package.json of their own, without a name.
    const found = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {};
    if (found.name === name) return found.version;
    directory = new URL('..', directory);
    assert.notEqual(directory.pathname, '/', `${name} has no package.json`);
  }
}
