//! Who the clients are: people, each with a token, who are members of chats.

use anyhow::Context;
use uuid::Uuid;

use super::Scene;
use crate::database;

const MEMBERS: &str = include_str!("members.sql");

/// Where a client belongs.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) token: String,
    pub(crate) user: String,
    /// Which of the sessions.
    pub(crate) number: usize,
    pub(crate) session: Uuid,
}

pub(crate) struct People {
    pub(crate) sessions: Vec<Uuid>,
    /// One for each client.
    pub(crate) places: Vec<Place>,
}

/// How many there are of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) clients: usize,
    pub(crate) users: usize,
    pub(crate) sessions: usize,
}

impl People {
    /// Client i is user i modulo their number, in session i modulo theirs.
    pub(crate) async fn add(scene: &Scene, run: u32, numbers: Numbers) -> anyhow::Result<Self> {
        let admin = &scene.admin;
        admin
            .batch_execute(MEMBERS)
            .await
            .context("cannot make the table of members")?;
        let sessions = database::add_sessions(admin, run, numbers.sessions).await?;
        let users = (0..numbers.users).map(|user| {
            let name = format!("user-{run}-{user}");
            Ok((scene.target.sign(&name)?, name))
        });
        let users: Vec<(String, String)> = users.collect::<anyhow::Result<_>>()?;
        let places: Vec<Place> = (0..numbers.clients)
            .map(|client| {
                let (token, user) = users[client % users.len()].clone();
                let number = client % sessions.len();
                Place {
                    token,
                    user,
                    number,
                    session: sessions[number],
                }
            })
            .collect();
        let (names, chats): (Vec<&str>, Vec<Uuid>) = places
            .iter()
            .map(|place| (place.user.as_str(), place.session))
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
        Ok(Self { sessions, places })
    }

    /// A database that goes with the run needs no tidying.
    pub(crate) async fn remove(&self, scene: &Scene) -> anyhow::Result<()> {
        if scene.target.is_own() {
            return Ok(());
        }
        database::remove_sessions(&scene.admin, &self.sessions).await
    }
}
