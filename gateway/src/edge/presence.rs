//! Who is online on a topic, for those who do not hold a socket.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::app::App;
use crate::auth::Principal;
use crate::authorizer::{Asker, ChannelError, Right};

use super::{Refusal, broadcast};

#[derive(Serialize)]
struct Online<'a> {
    topic: &'a str,
    presences: &'a RawValue,
}

/// `{"topic":…,"presences":{key:{"metas":[…]}}}`, as `presence_state` has it. Any valid token may ask about a public channel, as
/// any may join it; with `private=true` the policies on `realtime.messages` decide, as for a join.
pub(super) async fn handle(
    State(app): State<Arc<App>>,
    Path(topic): Path<Arc<str>>,
    Query(parameters): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let verified = super::authenticate(&app, &headers).await?;
    let private = parameters
        .iter()
        .rfind(|(name, _)| name == "private")
        .is_some_and(|(_, value)| value == "true");
    if private {
        authorize(&app, verified.principal, &topic, &headers).await?;
    }
    let presences = app.topics.presences(private, &topic);
    let body = RawValue::from_string(presences)
        .and_then(|presences| {
            serde_json::to_string(&Online {
                topic: &topic,
                presences: &presences,
            })
        })
        .map_err(|error| {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "presences are not JSON"
            );
            Refusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "PGRSTX00",
                "Presences cannot be told",
            )
        })?;
    Ok(super::json(StatusCode::OK, body))
}

/// Fails if the principal may not see who is on this private channel.
async fn authorize(
    app: &App,
    principal: Arc<Principal>,
    topic: &Arc<str>,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    let asker = Asker {
        principal,
        topic: topic.clone(),
        headers: broadcast::shown(headers),
    };
    let refused = match app.private.rights(&asker, Right::Read).await {
        Ok(grant) if grant.presence => return Ok(()),
        // An error in a policy means no, as at a join.
        Ok(_) | Err(ChannelError::Policy { .. }) => (
            StatusCode::FORBIDDEN,
            "42501",
            "You may not see who is on this private channel",
        ),
        Err(ChannelError::Canceled) => (
            StatusCode::GATEWAY_TIMEOUT,
            "57014",
            "The database took too long",
        ),
        Err(ChannelError::Unavailable) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "PGRST001",
            "The database cannot be reached: try again in a moment",
        ),
    };
    let (status, code, message) = refused;
    Err(Refusal::new(status, code, message))
}
