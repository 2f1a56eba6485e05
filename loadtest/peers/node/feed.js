// What both servers of this directory share: where they listen, and the new rows by LISTEN.
import pg from 'pg'

const listen = process.env.LISTEN ?? '127.0.0.1:0'
export const [host, port] = [listen.slice(0, listen.lastIndexOf(':')), Number(listen.slice(listen.lastIndexOf(':') + 1))]

/** Calls `take(text, change)` with each change. A lost connection ends the program: what was sent meanwhile would be lost. */
export async function follow(take) {
  const client = new pg.Client({ connectionString: process.env.DATABASE_URL })
  client.on('error', (error) => {
    console.error(error)
    process.exit(1)
  })
  client.on('notification', ({ payload }) => take(payload, JSON.parse(payload)))
  await client.connect()
  await client.query('listen chat_messages')
}
