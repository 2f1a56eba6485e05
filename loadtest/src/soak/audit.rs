//! What the soak does in the database itself: the audit, the chats, and the last change of all.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use futures::TryStreamExt;
use jsonwebtoken::EncodingKey;
use tokio::sync::watch;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::truth::{Audited, Key};
use super::world::{Phase, User, World};
use crate::channel::Kind;
use crate::database;
use crate::target::sign;

const AUDIT: &str = include_str!("audit.sql");

pub(super) async fn install(client: &Client) -> anyhow::Result<()> {
    client
        .batch_execute(AUDIT)
        .await
        .context("cannot make the audit")
}

pub(super) async fn add_users(
    client: &Client,
    secret: &str,
    users: usize,
    chats: usize,
) -> anyhow::Result<Vec<User>> {
    let key = EncodingKey::from_secret(secret.as_bytes());
    let mut added = Vec::new();
    for number in 0..users {
        let name = format!("user-{number}");
        let sessions: Vec<Uuid> = (0..chats).map(|_| Uuid::new_v4()).collect();
        client
            .execute(
                "insert into public.chat_sessions (id, user_id) select id, $2 from unnest($1::uuid[]) id",
                &[&sessions, &name],
            )
            .await
            .context("cannot make the chats")?;
        added.push(User {
            token: sign(&key, &name)?,
            sessions,
        });
    }
    Ok(added)
}

/// One last change in each chat, which begins when all others are committed. Whoever has it, has everything.
pub(super) async fn put_fence(world: &World, phase: &watch::Sender<Phase>) -> anyhow::Result<()> {
    let client = database::connect(&world.database).await?;
    client.batch_execute("begin").await?;
    let rows = client
        .query(
            "insert into public.chat_messages (session_id, content) select id, 'the last one' from unnest($1::uuid[]) id
             returning session_id, (metadata ->> 'n')::bigint",
            &[&world.sessions()],
        )
        .await?;
    let fence: HashMap<Uuid, Key> = rows
        .iter()
        .map(|row| {
            (
                row.get(0),
                Key::new(row.get::<_, i64>(1) as u64, Kind::Insert),
            )
        })
        .collect();
    // Before the commit: nobody may see it without knowing what it is.
    phase.send_modify(|phase| phase.fence = Some(Arc::new(fence)));
    client
        .batch_execute("commit")
        .await
        .context("cannot commit the last change")
}

pub(super) async fn read(world: &World) -> anyhow::Result<Vec<Audited>> {
    let client = database::connect(&world.database).await?;
    // The clocks of this machine and of its database are the same.
    let start = (SystemTime::now() - world.started.elapsed())
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?
        .as_secs_f64();
    let rows = client
        .query_raw(
            "select kind::text, number, message_id, session_id, xid::text, snapshot::text,
                    (extract(epoch from created_at) * 1000000)::bigint,
                    greatest(0, (extract(epoch from at)::float8 - $1) * 1000)::bigint
               from soak.audit order by id",
            [start],
        )
        .await
        .context("cannot read the audit")?;
    rows.err_into()
        .and_then(|row| std::future::ready(audited(&row)))
        .try_collect()
        .await
}

fn audited(row: &Row) -> anyhow::Result<Audited> {
    Ok(Audited {
        kind: match row.try_get(0)? {
            "I" => Kind::Insert,
            "U" => Kind::Update,
            "D" => Kind::Delete,
            other => bail!("the audit has a change of the kind {other}"),
        },
        number: row.try_get::<_, i64>(1)? as u64,
        message: row.try_get(2)?,
        session: row.try_get(3)?,
        transaction: row.try_get::<_, &str>(4)?.parse()?,
        snapshot: row.try_get(5)?,
        created: row.try_get(6)?,
        at: row.try_get::<_, i64>(7)? as u32,
    })
}
