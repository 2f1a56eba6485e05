// The bridge to a server of the Pusher protocol: each new row becomes an event of its session's channel, by the signed HTTP API.
// Rows that come while a request is under way go out together with the next.
import { createHash, createHmac } from 'node:crypto'
import { Agent, request } from 'node:http'
import { follow, host, port } from './feed.js'

const { PUSHER_APP: app, PUSHER_KEY: key, PUSHER_SECRET: secret } = process.env
const BATCH = 100
const agent = new Agent({ keepAlive: true, maxSockets: 1 })
const waiting = []
let busy = false

function post(path, body) {
  const query = [
    `auth_key=${key}`,
    `auth_timestamp=${Math.floor(Date.now() / 1000)}`,
    'auth_version=1.0',
    `body_md5=${createHash('md5').update(body).digest('hex')}`,
  ].join('&')
  const signature = createHmac('sha256', secret).update(`POST\n${path}\n${query}`).digest('hex')
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }
  return new Promise((resolve, reject) => {
    const sent = request({ agent, host, port, method: 'POST', path: `${path}?${query}&auth_signature=${signature}`, headers }, (answer) => {
      let text = ''
      answer.setEncoding('utf8').on('data', (part) => (text += part))
      answer.on('end', () => (answer.statusCode === 200 ? resolve() : reject(new Error(`${answer.statusCode} ${text}`))))
    })
    sent.on('error', reject).end(body)
  })
}

async function flush() {
  if (busy) return
  busy = true
  while (waiting.length > 0) {
    const batch = waiting.splice(0, BATCH)
    await post(`/apps/${app}/batch_events`, JSON.stringify({ batch }))
  }
  busy = false
}

await follow((text, change) => {
  waiting.push({ name: 'postgres_changes', channel: change.record.session_id, data: text })
  flush().catch((error) => {
    console.error(error)
    process.exit(1)
  })
})
console.log('ready')
