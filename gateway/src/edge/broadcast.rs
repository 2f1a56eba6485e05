//! Broadcast over HTTP: several messages in one request, or one, whose body is its payload (protocol §6.4, §6.5).
//!
//! What costs nothing to look at comes first, then the token, and the body only for those who have one.

mod answer;
mod batch;
mod body;
mod single;
mod writers;

use std::collections::HashSet;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::value::RawValue;
use tokio::time::Instant;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Verified;
use crate::limits::Exceeded;
use crate::metrics::names;
use crate::private::ToStore;
use crate::topics::{Broadcast, TopicKey};

use super::credentials;
use answer::Refused;
use single::Parameters;
use writers::Writer;
pub(super) use writers::shown;

pub(super) fn routes(app: &Arc<App>) -> Router<Arc<App>> {
    let mut routes = Router::new();
    for api in ["/realtime/v1/api", "/api"] {
        let path = format!("{api}/broadcast");
        routes = routes.route(&path, post(batch).fallback(only_posts)).route(
            &format!("{path}/{{topic}}/events/{{event}}"),
            post(single).fallback(only_posts),
        );
    }
    routes.route_layer(middleware::from_fn_with_state(
        app.clone(),
        answer::add_headers,
    ))
}

async fn batch(State(app): State<Arc<App>>, request: Request) -> Result<StatusCode, Refused> {
    let (head, mut body) = request.into_parts();
    let answer = send_batch(&app, &head.headers, &mut body).await;
    if answer.is_err() {
        body::discard(&head.headers, body).await;
    }
    answer
}

async fn single(
    State(app): State<Arc<App>>,
    names: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<StatusCode, Refused> {
    let (head, mut body) = request.into_parts();
    let answer = send_single(&app, names, &head, &mut body).await;
    if answer.is_err() {
        body::discard(&head.headers, body).await;
    }
    answer
}

async fn send_batch(
    app: &App,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<StatusCode, Refused> {
    let verified = authenticate(app, headers).await?;
    let body = body::read(body).await?;
    let messages = batch::messages(&body, |bytes| app.limits.payload(bytes).is_ok())?;
    take(app, &verified, messages.len())?;
    let private = messages.iter().filter(|message| message.private);
    let private: HashSet<Arc<str>> = private
        .map(|message| message.topic.as_str().into())
        .collect();
    let writer = Writer::new(verified.principal, headers);
    // All of them before anything is sent, so that messages leave in their order.
    let writable = writer.authorized(app, private).await?;
    for message in messages {
        if message.private && writable.get(message.topic.as_str()) != Some(&true) {
            // Supabase answers the same, and clients do not look further.
            tracing::debug!(
                "a private message over HTTP was dropped: its sender may not write there"
            );
            continue;
        }
        let meta = message
            .id
            .as_deref()
            .map(|id| protocol::broadcast::meta(id, false));
        let payload = message.payload.get();
        let payload = protocol::broadcast::payload_first(&message.event, payload, meta.as_deref());
        match RawValue::from_string(payload) {
            Ok(payload) => {
                let key = key(message.private, &message.topic.into());
                send(app, &key, Broadcast::Message(&payload));
            }
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "a message over HTTP is not JSON, and is dropped"
            ),
        }
        // A full batch to a full room is work for seconds; others have a turn in between.
        tokio::task::yield_now().await;
    }
    Ok(StatusCode::ACCEPTED)
}

async fn send_single(
    app: &App,
    names: Result<Path<(String, String)>, PathRejection>,
    head: &Parts,
    body: &mut Body,
) -> Result<StatusCode, Refused> {
    let encoding = single::encoding(&head.headers)?;
    let verified = authenticate(app, &head.headers).await?;
    let Ok(Path((topic, event))) = names else {
        return Err(Refused::new(
            StatusCode::BAD_REQUEST,
            "Topic and event are not percent-encoded UTF-8",
        ));
    };
    let query = Query::<Vec<(String, String)>>::try_from_uri(&head.uri);
    let parameters = Parameters::parse(&query.map(|Query(pairs)| pairs).unwrap_or_default());
    let body = body::read(body).await?;
    let fits = |bytes| app.limits.payload(bytes).is_ok();
    let payload = single::payload(&topic, &event, encoding, body, fits)?;
    take(app, &verified, 1)?;
    let topic: Arc<str> = topic.into();
    let writer = Writer::new(verified.principal, &head.headers);
    if parameters.private {
        writer.authorize(app, &topic).await?;
    }
    match parameters.persist {
        None => send(
            app,
            &key(parameters.private, &topic),
            Broadcast::User {
                event: &event,
                encoding,
                payload: &payload,
                id: None,
            },
        ),
        Some(persist) => {
            let message = ToStore {
                id: Uuid::new_v4(),
                event: &event,
                encoding,
                payload: &payload,
                keep: persist.keep,
            };
            // The change log brings it back, to be sent to everybody.
            writer.store(app, &topic, &message).await?;
            metrics::counter!(names::BROADCASTS, "source" => "http").increment(1);
        }
    }
    Ok(StatusCode::ACCEPTED)
}

/// Who sends this request, unless nobody may send now. Other requests take a token from `x-api-key`, too; clients of these
/// never send it.
async fn authenticate(app: &App, headers: &HeaderMap) -> Result<Verified, Refused> {
    app.limits
        .request(Instant::now())
        .map_err(|_| Refused::too_many_requests())?;
    let token = credentials::bearer(headers)
        .or_else(|| headers.get("apikey")?.to_str().ok())
        .filter(|token| !token.is_empty())
        .ok_or_else(Refused::unauthorized)?;
    app.verifier
        .verify_or_learn(token)
        .await
        .map_err(|_| Refused::unauthorized())
}

/// All messages of a request, or none. A bot has a limit of its own.
fn take(app: &App, verified: &Verified, messages: usize) -> Result<(), Refused> {
    let now = Instant::now();
    if let Some(posts) = &verified.posts
        && !posts.take(messages, now)
    {
        return Err(Refused::limited(Exceeded::Events));
    }
    app.limits.batch(messages, now).map_err(Refused::limited)
}

fn key(private: bool, sub_topic: &Arc<str>) -> TopicKey {
    TopicKey {
        private,
        sub_topic: sub_topic.clone(),
    }
}

fn send(app: &App, key: &TopicKey, broadcast: Broadcast<'_>) {
    metrics::counter!(names::BROADCASTS, "source" => "http").increment(1);
    app.topics.broadcast(key, None, broadcast);
}

async fn only_posts() -> Response {
    let refused = Refused::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "Only POST broadcasts a message",
    );
    ([(header::ALLOW, "POST, OPTIONS")], refused).into_response()
}
