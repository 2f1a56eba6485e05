//! The lock that silences the doorbell, on a connection of its own.
//!
//! Asking blocks while transactions run that have rung, which is as good as the lock itself: a waiting request already makes
//! writers pass by the bell. Whatever ends the connection ends the silence.

use std::{pin::pin, time::Duration};

use tokio::sync::watch;
use tokio_postgres::Client;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::database;

/// Ends when dropped.
pub(super) struct Silence {
    state: watch::Receiver<State>,
    _end: DropGuard,
}

#[derive(Debug)]
pub(super) enum State {
    Connecting,
    /// The session of this process id asks for the lock.
    Asking(i32),
    Held(i32),
    Ended(Error),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the connection that silences the doorbell cannot be made")]
    Connect(#[source] database::Error),
    #[error("the lock that silences the doorbell cannot be asked for")]
    Ask(#[source] tokio_postgres::Error),
    #[error("the database did not answer within {} seconds", ANSWER_TIMEOUT.as_secs())]
    TimedOut,
    #[error("the connection that silences the doorbell was closed")]
    Closed(#[source] Option<tokio_postgres::Error>),
}

const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// No time limit of the login or the database may end the wait or the hold. And a gateway that vanished without a word must not
/// silence the bell for longer than ten seconds.
const SETTINGS: &str = "
    select set_config(s.name, wanted.value, false)
      from (values ('statement_timeout', '0'), ('lock_timeout', '0'), ('transaction_timeout', '0'), ('idle_session_timeout', '0'),
                   ('tcp_keepalives_idle', '3'), ('tcp_keepalives_interval', '2'), ('tcp_keepalives_count', '3'),
                   ('tcp_user_timeout', '9000')) as wanted (name, value)
      join pg_catalog.pg_settings s using (name)";
/// A server that waits for a lock does not listen to its client, unless it is told to. Not every platform can.
const NOTICE_THE_END: &str = "set client_connection_check_interval = '1s'";
const LOCK: &str = "select pg_advisory_lock(1953064037, 1)";

impl Silence {
    /// Asks for it in the background.
    pub(super) fn ask(database: database::Target) -> Silence {
        let (sender, state) = watch::channel(State::Connecting);
        let end = CancellationToken::new();
        let ended = end.clone();
        tokio::spawn(async move {
            if let Err(error) = hold(&database, &sender, &ended).await {
                sender.send_replace(State::Ended(error));
            }
        });
        Silence {
            state,
            _end: end.drop_guard(),
        }
    }

    pub(super) fn state(&self) -> watch::Ref<'_, State> {
        self.state.borrow()
    }
}

async fn hold(
    database: &database::Target,
    state: &watch::Sender<State>,
    end: &CancellationToken,
) -> Result<(), Error> {
    let connected = tokio::select! {
        connected = database.connect() => connected.map_err(Error::Connect)?,
        () = end.cancelled() => return Ok(()),
    };
    let (client, connection) = connected;
    let mut connection = pin!(connection);
    let pid = tokio::select! {
        granted = ask(&client, state) => granted?,
        closed = &mut connection => return Err(Error::Closed(closed.err())),
        // The server notices within a second that nobody waits for its answer.
        () = end.cancelled() => return Ok(()),
    };
    state.send_replace(State::Held(pid));
    tokio::select! {
        closed = &mut connection => return Err(Error::Closed(closed.err())),
        () = end.cancelled() => {}
    }
    drop(client);
    // The lock goes with the session in any case; this way the server's log does not complain.
    let _ = tokio::time::timeout(GOODBYE, connection).await;
    Ok(())
}

async fn ask(client: &Client, state: &watch::Sender<State>) -> Result<i32, Error> {
    let prepare = async {
        client.batch_execute(SETTINGS).await?;
        if let Err(error) = client.batch_execute(NOTICE_THE_END).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "the database cannot notice a client that is gone while it waits for a lock"
            );
        }
        client.query_one("select pg_backend_pid()", &[]).await
    };
    let row = tokio::time::timeout(ANSWER_TIMEOUT, prepare)
        .await
        .map_err(|_| Error::TimedOut)?
        .map_err(Error::Ask)?;
    let pid = row.get(0);
    state.send_replace(State::Asking(pid));
    // No time limit: others look meanwhile whether it is still worth waiting for.
    client.batch_execute(LOCK).await.map_err(Error::Ask)?;
    Ok(pid)
}
