//! Who may write on private channels, asked at each request, and messages that are stored.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::timeout;

use crate::app::App;
use crate::auth::Principal;
use crate::authorizer::{Asker, ChannelError, Right};
use crate::posting;
use crate::private::ToStore;

use super::answer::Refused;

/// Questions of one request that are asked at a time: they share the authorizer's connections with all sockets.
const AT_ONCE: usize = 8;
/// All questions of one request.
const RIGHTS_TIMEOUT: Duration = Duration::from_secs(30);
/// Policies have no use for these, and they would be all that somebody needs who reads them in a log of the database.
const SECRET_HEADERS: [&str; 5] = [
    "authorization",
    "apikey",
    "cookie",
    "proxy-authorization",
    "x-api-key",
];

/// A request's headers, as policies see them: a JSON object.
pub(in crate::edge) fn shown(headers: &HeaderMap) -> Arc<str> {
    let shown: BTreeMap<&str, _> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())))
        .filter(|(name, _)| !SECRET_HEADERS.contains(name))
        .collect();
    serde_json::json!(shown).to_string().into()
}

/// Who sends a request.
pub(super) struct Writer {
    principal: Arc<Principal>,
    /// As policies see them.
    headers: Arc<str>,
}

impl Writer {
    pub(super) fn new(principal: Arc<Principal>, headers: &HeaderMap) -> Writer {
        Writer {
            principal,
            headers: shown(headers),
        }
    }

    /// Fails if the principal may not write on this channel.
    pub(super) async fn authorize(&self, app: &App, topic: &Arc<str>) -> Result<(), Refused> {
        match app.private.rights(&self.asker(topic), Right::Write).await {
            Ok(grant) if grant.broadcast => Ok(()),
            Ok(_) => Err(self.denied(app).await),
            Err(error) => Err(failed(&error)),
        }
    }

    /// On which of these channels the principal may write. Fails if that cannot be known now: then nothing was sent, and the
    /// request can be made again.
    pub(super) async fn authorized(
        &self,
        app: &App,
        topics: HashSet<Arc<str>>,
    ) -> Result<HashMap<Arc<str>, bool>, Refused> {
        let asking = stream::iter(topics).map(|topic| async move {
            match app.private.rights(&self.asker(&topic), Right::Write).await {
                Ok(grant) => Ok((topic, grant.broadcast)),
                // An error in a policy means no, as on a socket.
                Err(ChannelError::Policy { .. }) => Ok((topic, false)),
                Err(error) => Err(failed(&error)),
            }
        });
        timeout(
            RIGHTS_TIMEOUT,
            asking.buffer_unordered(AT_ONCE).try_collect(),
        )
        .await
        .unwrap_or_else(|_| Err(failed(&ChannelError::Canceled)))
    }

    pub(super) async fn store(
        &self,
        app: &App,
        topic: &Arc<str>,
        message: &ToStore<'_>,
    ) -> Result<(), Refused> {
        let stored = app.private.store(&self.asker(topic), message).await;
        stored.map_err(|error| not_stored(&error))
    }

    fn asker(&self, topic: &Arc<str>) -> Asker {
        Asker {
            principal: self.principal.clone(),
            topic: topic.clone(),
            headers: self.headers.clone(),
        }
    }

    /// A role that does not exist has no right either, but clients are told something else.
    async fn denied(&self, app: &App) -> Refused {
        let patience = app.settings.statement_timeout;
        let became = timeout(patience, posting::begin_as(&app.pool, &self.principal)).await;
        match became {
            Ok(Err(posting::Error::Role(_) | posting::Error::Superuser)) => policy_error(),
            _ => Refused::may_not_write(),
        }
    }
}

fn policy_error() -> Refused {
    Refused::unprocessable("RLS policy error")
}

fn failed(error: &ChannelError) -> Refused {
    match error {
        ChannelError::Policy { .. } => policy_error(),
        ChannelError::Canceled => Refused::unprocessable("Query canceled"),
        ChannelError::Unavailable => Refused::unprocessable("Tenant database unavailable"),
    }
}

fn not_stored(error: &posting::Error) -> Refused {
    match error {
        posting::Error::Refused { code, .. } if code == "42501" => Refused::may_not_write(),
        // No partition for the row.
        posting::Error::Refused { code, .. } if code == "23514" => {
            Refused::unprocessable("Missing messages partition")
        }
        posting::Error::Refused { .. } => Refused::unprocessable(error.to_string()),
        posting::Error::Role(_) | posting::Error::Superuser => policy_error(),
        posting::Error::Busy => {
            Refused::new(StatusCode::TOO_MANY_REQUESTS, "Connection pool exhausted")
        }
        posting::Error::Slow => failed(&ChannelError::Canceled),
        posting::Error::Unreachable(_) => failed(&ChannelError::Unavailable),
        posting::Error::Internal(source) => {
            let sqlstate = source
                .as_database_error()
                .and_then(|error| error.code())
                .unwrap_or_default()
                .into_owned();
            // The message itself may quote a row.
            tracing::error!(sqlstate, "a message could not be stored");
            Refused::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "Unable to authorize broadcast",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn policies_see_all_headers_but_those_that_are_secret() {
        let headers = HeaderMap::from_iter(
            [
                ("x-room-key", "open"),
                ("user-agent", "test"),
                ("authorization", "Bearer secret"),
                ("apikey", "secret"),
                ("cookie", "secret"),
                ("x-api-key", "secret"),
            ]
            .map(|(name, value)| {
                (
                    axum::http::HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            }),
        );
        let writer = Writer::new(Arc::new(Principal::of_role("anon")), &headers);
        assert_eq!(
            &*writer.headers,
            r#"{"user-agent":"test","x-room-key":"open"}"#
        );
    }
}
