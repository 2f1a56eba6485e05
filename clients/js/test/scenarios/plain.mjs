// Resuming without this package: the lines of docs/resume.md, as they are there.

import { ADAS_SESSION, Log, connect } from '../support.mjs'

export default async function plain(test) {
  const { host } = test
  const supabase = await connect(test)
  const rows = new Log('rows')
  const statuses = new Log('statuses')
  const reasons = new Log('reasons')
  const session = ADAS_SESSION
  const show = ({ content }) => rows.push(content)
  const showStatus = (status) => statuses.push(status)
  const reload = async (reason) => reasons.push(reason)

  // docs/resume.md: begin
  const binding = {
    event: 'INSERT', schema: 'public', table: 'chat_messages', filter: `session_id=eq.${session}`, cursor: true,
  }
  let lost = null
  supabase
    .channel(`messages:${session}`)
    .on('postgres_changes', binding, ({ new: { tidings_cursor, ...row } }) => {
      if (tidings_cursor) binding.since = tidings_cursor   // the SDK sends this very object again at each rejoin
      show(row)
    })
    .on('system', {}, async ({ extension, status, cursor }) => {
      if (extension !== 'postgres_changes' || status !== 'ok') return
      if (cursor) binding.since = cursor
      if (lost) await reload(lost)
      lost = null
    })
    .subscribe((status, error) => {
      lost = /cursor_(expired|foreign|invalid)/.exec(error?.message)?.[0] ?? lost
      if (lost) delete binding.since                       // the SDK joins again by itself, now without
      showStatus(status)
    })
  // docs/resume.md: end

  const joined = (times) => statuses.until((all) => all.filter((each) => each === 'SUBSCRIBED').length >= times, `joined ${times} times`)
  await joined(1)
  await host.insert(session, 'one')
  await rows.until((all) => all.includes('one'), 'one')
  await host.cut()
  await statuses.until((all) => all.includes('CHANNEL_ERROR'), 'an error')
  await host.insert(session, 'two', 'three')
  await host.mend()
  await rows.until((all) => all.includes('three'), 'three')

  const errors = statuses.all.length
  await host.cut()
  await statuses.until((all) => all.slice(errors).includes('CHANNEL_ERROR'), 'an error')
  await host.insert(session, 'forgotten')
  await host.forget()
  await host.mend()
  await reasons.until((all) => all.length > 0, 'a reason')
  await host.insert(session, 'four')
  await rows.until((all) => all.includes('four'), 'four')
  const wanted = ['one', 'two', 'three', 'four']
  if (JSON.stringify([rows.all, reasons.all]) !== JSON.stringify([wanted, ['cursor_expired']])) {
    throw new Error(`${JSON.stringify([rows.all, reasons.all])}`)
  }
}
