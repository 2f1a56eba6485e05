// Runs in the page: a chat that keeps its rows and its cursors, so that a reload goes on where it was.

import { resumable } from '/dist/index.js'

const ROWS = 'rows'
const rows = JSON.parse(localStorage.getItem(ROWS) ?? '[]')
const reasons = []
const client = supabase.createClient(gateway, token, { accessToken: async () => token })
await client.realtime.setAuth()
const live = resumable(client.channel(`messages:${session}`), {
  refetch: (reason) => reasons.push(reason),
  storage: localStorage,
}).on(
  { event: 'INSERT', schema: 'public', table: 'chat_messages', filter: `session_id=eq.${session}` },
  ({ new: row }) => {
    rows.push(row.content.slice(0, 20))
    localStorage.setItem(ROWS, JSON.stringify(rows))
  },
)
live.subscribe()
globalThis.chat = {
  rows,
  reasons,
  get status() {
    return live.status
  },
}
