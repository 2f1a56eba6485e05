//! Private channels: what the policies on `realtime.messages` say is what happens.

mod order;
mod rights;
mod sql;
mod stored;

use protocol::Version;
use serde_json::{Value, json};

use crate::support::{
    Channel, Client, TestDatabase, TestGateway,
    token::{authenticated, token},
};

/// Rooms with members, as applications have them: who is a member may do everything in the room, who is muted may not send. Beside
/// them topics for one right each, and policies that fail.
const ROOMS: &str = "
    create table public.members (room text, person text, muted boolean not null default false);
    grant select on public.members to authenticated;
    create policy members_read on realtime.messages for select to authenticated using (
      exists (select from public.members where room = realtime.topic() and person = auth.uid()::text));
    create policy members_write on realtime.messages for insert to authenticated with check (
      exists (select from public.members where room = realtime.topic() and person = auth.uid()::text and not muted));
    create policy only_broadcasts on realtime.messages for select to authenticated using (
      realtime.topic() like 'hear-broadcast%' and extension = 'broadcast');
    create policy only_presence on realtime.messages for select to authenticated using (
      realtime.topic() like 'hear-presence%' and messages.extension = 'presence');
    create policy say_broadcast on realtime.messages for insert to authenticated with check (
      realtime.topic() like '%say-broadcast' and extension = 'broadcast');
    create policy say_presence on realtime.messages for insert to authenticated with check (
      realtime.topic() like '%say-presence' and extension = 'presence');
    create policy fails on realtime.messages for select to authenticated using (
      case when topic = 'fails' then 1 / (length(topic) - 5) = 1 else false end);
    create policy fails_to_write on realtime.messages for insert to authenticated with check (
      case when topic like '%fails-to-write' then 1 / (length(extension) - length(extension)) = 1 else false end);
    create policy by_header on realtime.messages for select to authenticated using (
      realtime.topic() = 'by-header' and current_setting('request.headers')::json ->> 'x-room-key' = 'open')";

const ADA: &str = "aaaaaaaa-0000-4000-8000-000000000001";
const BOB: &str = "bbbbbbbb-0000-4000-8000-000000000002";

async fn rooms() -> (TestDatabase, TestGateway) {
    rooms_with(&[]).await
}

async fn rooms_with(settings: &[(&str, &str)]) -> (TestDatabase, TestGateway) {
    let database = TestDatabase::new(None).await;
    database.execute(ROOMS).await;
    let members = format!("insert into members values ('room', '{ADA}'), ('room', '{BOB}')");
    database.execute(&members).await;
    let gateway = TestGateway::start_with(&database, settings).await;
    (database, gateway)
}

fn config(to_self: bool, presence: bool) -> Value {
    json!({"private": true, "broadcast": {"self": to_self, "ack": true}, "presence": {"enabled": presence}})
}

fn unauthorized(topic: &str) -> Value {
    let reason = format!(
        "Unauthorized: You do not have permissions to read from this Channel topic: {topic}"
    );
    json!({"status": "error", "response": {"reason": reason}})
}

fn ok() -> Value {
    json!({"status": "ok", "response": {}})
}

/// Sends a broadcast and returns the answer.
async fn broadcast(client: &mut Client, channel: &Channel, text: &str) -> Value {
    let payload = json!({"type": "broadcast", "event": "e", "payload": {"text": text}});
    let reference = client.push(channel, "broadcast", payload).await;
    client.reply(&reference).await.payload
}

/// Tracks and returns the answer.
async fn track(client: &mut Client, channel: &Channel, name: &str) -> Value {
    let payload = json!({"type": "presence", "event": "track", "payload": {"name": name}});
    let reference = client.push(channel, "presence", payload).await;
    client.reply(&reference).await.payload
}

/// The next broadcast: its text.
async fn heard(client: &mut Client, channel: &Channel) -> Value {
    let mut message = client.event(channel, "broadcast").await;
    message.payload["payload"]["text"].take()
}
