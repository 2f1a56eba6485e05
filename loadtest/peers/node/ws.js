// Bare `ws`: a set of sockets for each session, and one buffer that is sent to each of them.
import { WebSocket, WebSocketServer } from 'ws'
import { follow, host, port } from './feed.js'

const rooms = new Map()

await follow((text, change) => {
  const data = Buffer.from(text)
  for (const socket of rooms.get(change.record.session_id) ?? []) {
    if (socket.readyState === WebSocket.OPEN) socket.send(data, { binary: false })
  }
})

// perMessageDeflate is off by default, as its documentation advises.
const server = new WebSocketServer({ host, port, clientTracking: false })

server.on('connection', (socket, request) => {
  const session = new URL(request.url, 'ws://localhost').searchParams.get('session')
  const room = rooms.get(session) ?? new Set()
  rooms.set(session, room.add(socket))
  socket.on('error', console.error)
  socket.on('close', () => {
    room.delete(socket)
    if (room.size === 0 && rooms.get(session) === room) rooms.delete(session)
  })
  socket.send(JSON.stringify({ subscribed: session }))
})
server.once('listening', () => console.log('ready'))
