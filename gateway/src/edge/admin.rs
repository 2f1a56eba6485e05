//! What only an operator may do: the bearer of a token whose role is `service_role`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use crate::app::App;
use crate::auth::Whom;

use super::Refusal;

const OPERATOR: &str = "service_role";

/// `POST /admin/v1/disconnect` with `{"sub":…}`, `{"role":…}` or `{"claims":{…}}`: closes every socket on which such a principal
/// uses a channel. It may come back for as long as its token is good: take the right or the token away first.
pub(super) async fn disconnect(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let operator = super::authenticate(&app, &headers).await?;
    if &*operator.principal.role != OPERATOR {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "42501",
            "This needs a token with the role service_role",
        ));
    }
    let whom: Whom = serde_json::from_slice(&body).map_err(|_| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            "PGRST102",
            "The body must be a JSON object with `sub`, `role` (texts) or `claims` (an object), and nothing else",
        )
    })?;
    if whom.is_everybody() {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "PGRST102",
            "Say who is to be disconnected: `sub`, `role` or `claims`",
        ));
    }
    tracing::info!(
        sub = whom.sub.is_some(),
        role = whom.role,
        claims = whom.claims.len(),
        "an operator disconnects a principal"
    );
    let asked = app.sockets.disconnect(whom);
    Ok(super::json(
        StatusCode::ACCEPTED,
        format!(r#"{{"asked":{asked}}}"#),
    ))
}
