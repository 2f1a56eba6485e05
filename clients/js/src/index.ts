// Channels of supabase-js that go on where they were: after a lost connection, a sleep, a restart of the server, a reload.

export { resumable, Resumable } from './resumable.js'
export { memoryStorage } from './storage.js'
export type { Binding, CursorStorage, ErrorSource, Options, Reason, Status } from './types.js'
