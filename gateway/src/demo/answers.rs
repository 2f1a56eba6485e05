//! Users, sessions and messages, as the page asks for them.

use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::value::RawValue;
use sqlx::types::Json;
use uuid::Uuid;

use crate::auth::Verified;
use crate::edge::{self, Refusal};
use crate::posting;

use super::Demo;

/// Short, so that the page shows how a token is renewed on an open socket.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

pub(super) async fn users(State(demo): State<Demo>) -> Result<Response, Refusal> {
    let failed = || {
        Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "PGRSTX00",
            "Tokens cannot be signed: is jwt_secret set?",
        )
    };
    let users = demo.users(TOKEN_LIFETIME).map_err(|_| failed())?;
    let body = serde_json::to_string(&users).map_err(|_| failed())?;
    Ok(edge::json(StatusCode::OK, body))
}

/// All of them, also those that the user may not open: the refusal is part of the demo.
pub(super) async fn sessions(
    State(demo): State<Demo>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let verified = edge::authenticate(&demo.app, &headers).await?;
    let sessions = sqlx::query_scalar(include_str!("../../demo/sessions.sql"))
        .bind(&*verified.principal.subject)
        .fetch_one(&demo.app.pool)
        .await;
    answer(sessions.map_err(posting::Error::from), &verified)
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    session_id: Uuid,
    after: Option<String>,
}

/// Row-level security chooses which of them.
pub(super) async fn messages(
    State(demo): State<Demo>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let verified = edge::authenticate(&demo.app, &headers).await?;
    let read = async {
        let mut transaction = posting::begin_as(&demo.app.pool, &verified.principal).await?;
        let messages = match &wanted.after {
            None => sqlx::query_scalar(include_str!("../../demo/latest_messages.sql")),
            Some(_) => sqlx::query_scalar(include_str!("../../demo/messages_after.sql")),
        };
        let messages = messages.bind(wanted.session_id);
        let messages = match wanted.after {
            None => messages,
            Some(after) => messages.bind(after),
        };
        let messages = messages.fetch_one(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(messages)
    };
    answer(read.await, &verified)
}

fn answer(
    result: Result<Json<Box<RawValue>>, posting::Error>,
    verified: &Verified,
) -> Result<Response, Refusal> {
    match result {
        Ok(Json(body)) => Ok(edge::json(StatusCode::OK, body.get().to_owned())),
        Err(error) => Err(Refusal::database(error, &verified.principal)),
    }
}
