// Socket.IO with its PostgreSQL adapter: sessions are rooms.
import { createServer } from 'node:http'
import { createAdapter } from '@socket.io/postgres-adapter'
import pg from 'pg'
import { Server } from 'socket.io'
import { follow, host, port } from './feed.js'

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 4 })
pool.on('error', console.error)
await pool.query(`create table if not exists socket_io_attachments (
  id bigserial unique, created_at timestamptz default now(), payload bytea)`)

const http = createServer()
const io = new Server(http, {
  transports: ['websocket'],
  adapter: createAdapter(pool),
})
// From the page "Memory usage": the first HTTP request is not kept.
io.engine.on('connection', (socket) => {
  socket.request = null
})

io.on('connection', (socket) => {
  socket.join(socket.handshake.auth.session)
  socket.emit('subscribed', socket.handshake.auth.session)
})

// Each node hears of each row by itself, so what it emits need not go to the others.
await follow((_, change) => io.local.to(change.record.session_id).emit('postgres_changes', change))
http.listen(port, host, () => console.log('ready'))
