// A page in Chromium: frozen like a tab in the background, and loaded again. CHROMIUM names the browser, FILES the directory of
// supabase-js for browsers.

import { strict as assert } from 'node:assert'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'

import { chromium } from 'playwright-core'

import { ADA, ADAS_SESSION } from '../support.mjs'

const LIMIT_MS = 15_000
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']
const LARGE = 'x'.repeat(400_000)
const HERE = new URL('../../', import.meta.url)
const PAGE = '<!doctype html><meta charset="utf-8"><title>chat</title><script src="/supabase.js"></script><script type="module" src="/test/page/chat.mjs"></script>'

export default async function page({ host, url, environment }) {
  const server = createServer((request, response) => serve(request.url, environment.FILES, response)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const browser = await chromium.launch({ executablePath: environment.CHROMIUM, args: FLAGS, timeout: 60_000 })
  try {
    const context = await browser.newContext()
    await context.addInitScript((settings) => Object.assign(globalThis, settings), {
      gateway: url,
      session: ADAS_SESSION,
      token: await host.token({ seconds: 3600, ...ADA }),
    })
    await followed(host, context, `http://127.0.0.1:${server.address().port}/`)
  } finally {
    await browser.close()
    server.close()
  }
}

async function followed(host, context, address) {
  const complaints = []
  const open = async () => {
    const tab = await context.newPage()
    tab.setDefaultTimeout(LIMIT_MS)
    tab.on('pageerror', (error) => complaints.push(error.stack))
    await tab.goto(address)
    await tab.waitForFunction(() => globalThis.chat?.status === 'live')
    return tab
  }
  const written = []
  const write = async (...contents) => {
    for (const { content } of await host.insert(ADAS_SESSION, ...contents)) written.push(content.slice(0, 20))
  }

  const first = await open()
  await write('before')
  await shows(first, written)

  const devtools = await context.newCDPSession(first)
  await devtools.send('Page.setWebLifecycleState', { state: 'frozen' })
  await write(...Array.from({ length: 60 }, (_, n) => `${n} while frozen ${LARGE}`))
  await host.closed('slow_reader')
  await write('after it was closed')
  await devtools.send('Page.setWebLifecycleState', { state: 'active' })
  await shows(first, written)

  await first.close()
  await write('between the pages')
  const second = await open()
  await write('second page')
  await shows(second, written)
  assert.deepEqual(await second.evaluate(() => globalThis.chat.reasons), [])
  assert.deepEqual(complaints, [])
}

/** These, each once, in this order. The last one is awaited. */
async function shows(tab, written) {
  const rows = () => tab.evaluate(() => globalThis.chat?.rows ?? [])
  await tab.waitForFunction((last) => globalThis.chat?.rows.at(-1) === last, written.at(-1)).catch(async (error) => {
    throw new Error(`waited for ${written.at(-1)}. Seen: ${JSON.stringify(await rows())}`, { cause: error })
  })
  assert.deepEqual(await rows(), written)
}

/** The page, the SDK, and what is below this package's directory. */
async function serve(path, files, response) {
  try {
    const body = path === '/' ? PAGE : await readFile(path === '/supabase.js' ? `${files}${path}` : new URL(`.${path}`, HERE))
    response.writeHead(200, { 'content-type': path === '/' ? 'text/html' : 'text/javascript' }).end(body)
  } catch {
    response.writeHead(404).end()
  }
}
