// supabase-js in a browser with `worker: true`: heartbeats are paced by a worker, which goes on when the page is in the
// background, and each of them looks for a new token. CHROMIUM names the browser, FILES the directory of supabase-js for browsers.

import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';

import { Browser } from '../browser.mjs';
import { ADA, ADAS_SESSION } from '../support.mjs';

const LIMIT_MS = 15_000;
const PAGE = '<!doctype html><meta charset="utf-8"><title>worker</title><script src="/supabase.js"></script>';

export default async function worker({ host, url, environment }) {
  const script = await readFile(`${environment.FILES}/supabase.js`);
  const server = createServer((request, response) => {
    const isScript = request.url === '/supabase.js';
    response.writeHead(200, { 'content-type': isScript ? 'text/javascript' : 'text/html' });
    response.end(isScript ? script : PAGE);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const browser = await Browser.launch(environment.CHROMIUM, url);
  try {
    const page = await browser.blank();
    page.setDefaultTimeout(LIMIT_MS);
    const complaints = [];
    page.on('pageerror', (error) => complaints.push(error.stack));
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    const token = () => host.token({ ...ADA, seconds: 3600 });
    await page.evaluate(subscribe, { url, session: ADAS_SESSION, key: await host.token({ role: 'anon', seconds: 3600 }), token: await token() });
    const seen = (what, wanted) => page.waitForFunction(([what, wanted]) => globalThis.seen[what] >= wanted, [what, wanted]);
    await seen('live', 1);
    assert.equal(page.workers().length, 1);
    await seen('beats', 3);

    // Nobody calls `setAuth`: a heartbeat finds the new token, and the gateway says that changes flow under it.
    await page.evaluate((token) => { globalThis.token = token; }, await token());
    await seen('live', 2);
    const [row] = await host.insert(ADAS_SESSION, 'under the new token');
    await page.waitForFunction((id) => globalThis.seen.rows.includes(id), row.id);
    assert.deepEqual(await page.evaluate(() => globalThis.seen.statuses), ['SUBSCRIBED']);
    assert.deepEqual(complaints, []);
  } finally {
    await browser.close();
    server.close();
  }
}

/** Runs in the page. */
function subscribe({ url, session, key, token }) {
  globalThis.token = token;
  const seen = (globalThis.seen = { beats: 0, live: 0, rows: [], statuses: [] });
  const client = supabase.createClient(url, key, {
    accessToken: async () => globalThis.token,
    realtime: {
      worker: true,
      heartbeatIntervalMs: 250,
      heartbeatCallback: (status) => {
        if (status === 'ok') seen.beats += 1;
      },
    },
  });
  const filter = `session_id=eq.${session}`;
  return client.realtime.setAuth().then(() => {
    client
      .channel('worker')
      .on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'chat_messages', filter }, (change) => seen.rows.push(change.new.id))
      .on('system', {}, ({ extension, status }) => {
        if (extension === 'postgres_changes' && status === 'ok') seen.live += 1;
      })
      .subscribe((status) => seen.statuses.push(status));
  });
}
