//! HTTP: everything that is asked of the gateway before, or instead of, a websocket.
//!
//! Requests become calls of the other rooms; what those answer becomes a status and a body, and nowhere else. The paths come
//! twice where clients know them twice: as a Supabase API gateway shows them, and as the server behind it does.

mod admin;
mod broadcast;
mod browsers;
mod credentials;
mod headers;
mod health;
mod presence;
mod refusal;
mod rest;
pub mod server;
mod upgrade;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::app::App;
use crate::metrics::names;

pub(crate) use credentials::authenticate;
pub(crate) use refusal::Refusal;

/// The other end of the connection that a request came over.
#[derive(Clone, Copy)]
pub(crate) struct Remote(pub(crate) SocketAddr);

/// All routes of the gateway, complete but for the demo's.
pub fn router(app: Arc<App>) -> Router {
    finish(routes(app.clone()), &app)
}

/// The routes alone, for a router that has more of them; [`finish`] makes it complete.
pub(crate) fn routes(app: Arc<App>) -> Router {
    Router::new()
        .route("/realtime/v1/websocket", get(upgrade::handle))
        .route("/socket/websocket", get(upgrade::handle))
        .route("/realtime/v1/api/ping", get(health::ping))
        .route("/api/ping", get(health::ping))
        .route("/realtime/v1/api/presence/{topic}", get(presence::handle))
        .route("/api/presence/{topic}", get(presence::handle))
        .merge(broadcast::routes(&app))
        .merge(rest::routes())
        .route("/admin/v1/disconnect", post(admin::disconnect))
        .route("/livez", get(health::live))
        .route("/healthcheck", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .with_state(app)
}

/// What is the same for every route: CORS, counting, headers that are too long, and an answer for what is not there.
pub(crate) fn finish(routes: Router, app: &App) -> Router {
    routes
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is nothing here\n") })
        .layer(middleware::from_fn(headers::refuse_long))
        .layer(browsers::cors(&app.settings.allowed_origins))
        // Outermost, so that preflights are counted, too.
        .layer(middleware::from_fn(count))
}

async fn count(request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let response = next.run(request).await;
    let status = response.status().as_str().to_owned();
    metrics::counter!(names::HTTP_REQUESTS, "route" => route, "status" => status).increment(1);
    response
}

/// A JSON body that is text already.
pub(crate) fn json(status: StatusCode, body: String) -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
    (status, content_type, body).into_response()
}
