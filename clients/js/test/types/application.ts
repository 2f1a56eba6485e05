// How TypeScript sees the package, compiled against the newest and the oldest SDK. Never run.

import { createClient, type RealtimeChannel } from '@supabase/supabase-js'
import { memoryStorage, resumable, type Reason, type Status } from 'tidings-client'

type Message = { id: string; content: string }

const client = createClient('http://127.0.0.1:4000', 'key')
const table = { schema: 'public', table: 'messages', filter: 'session_id=eq.1' }
const shown: string[] = []
const statuses: Status[] = []

const live = resumable(client.channel('room'), {
  refetch: async (reason: Reason, signal: AbortSignal) => void (await fetch(`/messages?${reason}`, { signal })),
  storage: memoryStorage(),
  onStatus: (status) => statuses.push(status),
})
  .on<Message>({ event: 'INSERT', ...table, history: 50 }, (change) => shown.push(change.new.content))
  .on<Message>({ event: 'DELETE', ...table }, (change) => shown.push(change.old.id ?? ''))
  .on({ event: '*', schema: 'public', table: 'rooms' }, async (change) => {
    if (change.eventType === 'UPDATE') shown.push(change.new['name'])
  })
const channel: RealtimeChannel = live.subscribe((status, error) => console.log(status, error?.message))
channel.on('broadcast', { event: 'typing' }, () => {})

for (const storage of [localStorage, sessionStorage]) resumable(client.channel('other'), { refetch: () => {}, storage })

// @ts-expect-error without it, a refused cursor would be a silent gap
resumable(client.channel('room'), {})
// @ts-expect-error no such event
live.on({ event: 'UPSERT', ...table }, () => {})
