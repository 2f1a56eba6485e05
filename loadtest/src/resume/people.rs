//! Who comes back, and the messages that they missed.

use std::time::Duration;

use anyhow::Context;
use futures::future::try_join_all;
use jsonwebtoken::EncodingKey;
use tokio::time::timeout;
use tokio_postgres::{Client, Config};
use uuid::Uuid;

use super::ResumeArgs;
use super::client::Place;
use crate::database;
use crate::target::sign;

const MEMBERS: &str = include_str!("../scene/members.sql");

/// Connections over which the messages are written.
const WRITERS: usize = 4;
const WRITE_LIMIT: Duration = Duration::from_secs(120);

/// Chats and their members. The first clients are in different chats, so that each chat is among them.
pub(super) async fn add_people(
    admin: &Client,
    secret: &str,
    args: &ResumeArgs,
) -> anyhow::Result<Vec<Place>> {
    admin
        .batch_execute(MEMBERS)
        .await
        .context("cannot make the table of members")?;
    let sessions = database::add_sessions(admin, 0, args.sessions).await?;
    let key = EncodingKey::from_secret(secret.as_bytes());
    let users = (0..args.users()).map(|user| {
        let name = format!("user-{user}");
        Ok((sign(&key, &name)?, name))
    });
    let users: Vec<(String, String)> = users.collect::<anyhow::Result<_>>()?;
    let place = |client: usize| {
        (
            &users[client % users.len()],
            sessions[client % sessions.len()],
        )
    };
    let (names, chats): (Vec<&str>, Vec<Uuid>) = (0..args.clients)
        .map(|client| (place(client).0.1.as_str(), place(client).1))
        .unzip();
    admin
        .execute(
            "insert into public.chat_members (user_id, session_id)
             select * from unnest($1::text[], $2::uuid[]) on conflict do nothing",
            &[&names, &chats],
        )
        .await
        .context("cannot add the members")?;
    admin
        .batch_execute("analyze public.chat_members; analyze public.chat_sessions")
        .await?;
    Ok((0..args.clients)
        .map(|client| Place {
            token: place(client).0.0.clone(),
            session: place(client).1,
        })
        .collect())
}

/// Each message is a transaction of its own; those of one chat are committed in order.
pub(super) async fn write(
    database: &Config,
    sessions: &[Uuid],
    numbers: std::ops::RangeInclusive<u64>,
    size: usize,
) -> anyhow::Result<()> {
    let content = crate::frame::text(size);
    let writer = |mine: Vec<Uuid>| {
        let (content, numbers) = (&content, numbers.clone());
        async move {
            let client = database::connect(database).await?;
            let insert = client
                .prepare(
                    "insert into public.chat_messages (session_id, content, metadata)
                     values ($1, $2, jsonb_build_object('n', $3::bigint, 's', length($2)))",
                )
                .await?;
            for number in numbers {
                let number = number as i64;
                let (client, insert, number) = (&client, &insert, &number);
                let round = mine.iter().map(|session| async move {
                    client.execute(insert, &[session, content, number]).await
                });
                timeout(WRITE_LIMIT, try_join_all(round))
                    .await
                    .context("the database takes no messages")??;
            }
            anyhow::Ok(())
        }
    };
    let share = sessions.len().div_ceil(WRITERS);
    let writers = sessions.chunks(share).map(|mine| writer(mine.to_vec()));
    try_join_all(writers).await?;
    Ok(())
}
