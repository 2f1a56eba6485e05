//! Who is online on a topic, for those who do not hold a socket.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::app::App;

use super::Refusal;

#[derive(Serialize)]
struct Online<'a> {
    topic: &'a str,
    presences: &'a RawValue,
}

/// `{"topic":…,"presences":{key:{"metas":[…]}}}`, as `presence_state` has it. Any valid token may ask, as any may join a
/// public channel; private channels are not told here.
pub(super) async fn handle(
    State(app): State<Arc<App>>,
    Path(topic): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    super::authenticate(&app, &headers).await?;
    let presences = app.topics.presences(false, &topic);
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
