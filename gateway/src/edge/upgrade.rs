//! From an HTTP request to a websocket. A refusal is a plain HTTP answer with the status and the text that clients know.
//!
//! After a failure thousands of clients come back at once, and are refused at once where a limit says so. So what costs
//! nothing to look at comes first, before the token, and whoever is refused is let go: the connection is closed with the
//! answer. The peer waits for two seconds before it refuses, to slow such storms down; here that would keep thousands of
//! connections and their memory for just as long, and slow nobody down, since the clients wait longer each time by
//! themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Extension;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use protocol::Version;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::app::App;
use crate::auth::TokenError;
use crate::connection::{self, Opened};
use crate::limits::Exceeded;
use crate::metrics::names;

use super::server::Place;
use super::{Remote, browsers};

/// From our 101 until hyper hands the socket over: it only has to write the answer.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn handle(
    State(app): State<Arc<App>>,
    Extension(Remote(remote)): Extension<Remote>,
    Extension(place): Extension<Place>,
    mut request: Request,
) -> Response {
    let checked = check(&app, request.uri(), request.headers())
        .await
        .and_then(|(version, token)| {
            let slot = Slot::take(&app)?;
            Ok((version, token, slot, accept_key(&request)?))
        });
    let (version, token, slot, accept) = match checked {
        Ok(checked) => checked,
        Err(refused) => return refused.into_response(),
    };
    let opened = Opened {
        version,
        token,
        headers: forwarded_headers(request.headers()),
        remote,
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let lifecycle = app.lifecycle.clone();
    lifecycle.spawn_socket(async move {
        let Ok(Ok(upgraded)) = tokio::time::timeout(HANDOVER_TIMEOUT, upgrade).await else {
            return;
        };
        let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else {
            tracing::error!("the upgraded connection is no TCP stream: it cannot be served");
            return;
        };
        let tcp = parts.io.into_inner();
        // A copy, since there is next to nothing in it: the 8 KiB that hyper read into would stay as long as the socket.
        let begun = parts.read_buf.to_vec();
        drop(parts.read_buf);
        metrics::counter!(names::CONNECTIONS_OPENED).increment(1);
        // A task of its own: it lives long, and this one is large enough for the handshake.
        let lifecycle = app.lifecycle.clone();
        lifecycle.spawn_socket(connection::serve(app, tcp, begun, opened, (slot, place)));
    });

    let headers = [
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// A place among the sockets, given back however the connection ends. Counted here and not at the connection, so that of
/// two that come at once for the last place one is refused.
struct Slot(Arc<App>);

impl Slot {
    fn take(app: &Arc<App>) -> Result<Slot, Refused> {
        let open: &AtomicUsize = &app.connections;
        open.fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| {
            (open < app.settings.max_connections).then_some(open + 1)
        })
        .map_err(|_| Refused::limited(Exceeded::Connections.counted()))?;
        metrics::gauge!(names::CONNECTIONS).increment(1);
        Ok(Slot(app.clone()))
    }

    /// Fails if there is none now. One that is there may be taken by somebody else before it is taken here.
    fn look(app: &App) -> Result<(), Refused> {
        match app.connections.load(Ordering::Acquire) < app.settings.max_connections {
            true => Ok(()),
            false => Err(Refused::limited(Exceeded::Connections.counted())),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
        metrics::gauge!(names::CONNECTIONS).decrement(1);
    }
}

async fn check(app: &App, uri: &Uri, headers: &HeaderMap) -> Result<(Version, String), Refused> {
    let query = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map(|Query(pairs)| pairs)
        .unwrap_or_default();
    let parameter = |name: &str| {
        let last = query.iter().rev().find(|(key, _)| key == name);
        last.map(|(_, value)| value.as_str())
    };
    let version = Version::parse(parameter("vsn").unwrap_or("1.0.0")).ok_or(Refused {
        reason: "vsn",
        status: StatusCode::FORBIDDEN,
        body: Body::Empty,
    })?;
    if app.lifecycle.soft().is_cancelled() {
        return Err(Refused::with_message(
            "stopping",
            StatusCode::SERVICE_UNAVAILABLE,
            "Server is stopping",
        ));
    }
    if !browsers::may_connect(&app.settings.allowed_origins, headers) {
        return Err(Refused::with_message(
            "origin",
            StatusCode::FORBIDDEN,
            "This website may not connect: its origin is not in the gateway's setting allowed_origins",
        ));
    }
    Slot::look(app)?;
    app.limits
        .handshake(Instant::now())
        .map_err(Refused::limited)?;
    let token = match headers.get("x-api-key") {
        Some(key) => key.to_str().ok(),
        None => parameter("apikey"),
    };
    let token = token.filter(|token| !token.is_empty()).ok_or_else(|| {
        Refused::with_message("no token", StatusCode::UNAUTHORIZED, "API key is missing")
    })?;
    app.verifier
        .verify_or_learn(token)
        .await
        .map_err(|error| Refused::token(&error))?;
    Ok((version, token.to_owned()))
}

/// The answer to `Sec-WebSocket-Key`, if this is the opening handshake of RFC 6455.
fn accept_key(request: &Request) -> Result<HeaderValue, Refused> {
    let not_an_upgrade = |text: &'static str| Refused {
        reason: "no upgrade",
        status: StatusCode::BAD_REQUEST,
        body: Body::Text(text),
    };
    let headers = request.headers();
    let lists = |name, wanted: &str| {
        headers.get_all(name).iter().any(|value| {
            value.to_str().is_ok_and(|value| {
                value
                    .split(',')
                    .any(|item| item.trim().eq_ignore_ascii_case(wanted))
            })
        })
    };
    if !lists(header::CONNECTION, "upgrade") || !lists(header::UPGRADE, "websocket") {
        return Err(not_an_upgrade(
            "this is a websocket: `Connection: Upgrade` and `Upgrade: websocket` are wanted\n",
        ));
    }
    if !lists(header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(not_an_upgrade("`Sec-WebSocket-Version: 13` is wanted\n"));
    }
    headers
        .get(header::SEC_WEBSOCKET_KEY)
        .filter(|key| !key.is_empty())
        .and_then(|key| HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok())
        .ok_or_else(|| not_an_upgrade("`Sec-WebSocket-Key` is wanted\n"))
}

/// What policies may read of the request later.
fn forwarded_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        // The key with which a bot connects is nobody's affair.
        .filter(|(name, _)| name.as_str().starts_with("x-") && name.as_str() != "x-api-key")
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        })
        .collect()
}

struct Refused {
    /// For the metric.
    reason: &'static str,
    status: StatusCode,
    body: Body,
}

enum Body {
    Empty,
    Text(&'static str),
    Error(String),
}

impl Refused {
    fn with_message(
        reason: &'static str,
        status: StatusCode,
        message: impl Into<String>,
    ) -> Refused {
        Refused {
            reason,
            status,
            body: Body::Error(message.into()),
        }
    }

    fn limited(exceeded: Exceeded) -> Refused {
        let message = exceeded.refuses_handshake().unwrap_or("Too many requests");
        let reason = match exceeded {
            Exceeded::Connections => "full",
            _ => "joins",
        };
        Refused::with_message(reason, StatusCode::TOO_MANY_REQUESTS, message)
    }

    fn token(error: &TokenError) -> Refused {
        let unauthorized = |reason, message: &str| {
            Refused::with_message(reason, StatusCode::UNAUTHORIZED, message)
        };
        match error {
            TokenError::Malformed => {
                unauthorized("malformed token", "The token provided is not a valid JWT")
            }
            TokenError::Signature => unauthorized("signature", "Failed to validate JWT signature"),
            TokenError::Signer { kid: Some(kid) } => unauthorized(
                "signer",
                &format!(
                    "Failed to generate JWT signer for key ID (kid) \"{kid}\", check your JWT secret or JWKS configuration"
                ),
            ),
            TokenError::Signer { kid: None } => unauthorized(
                "signer",
                "Failed to generate JWT signer, check your JWT secret or JWKS configuration",
            ),
            TokenError::Expired { .. } => unauthorized("expired", "Token has expired"),
            TokenError::MissingClaims => unauthorized(
                "missing claims",
                "Fields `role` and `exp` are required in JWT",
            ),
            TokenError::Other(_) => Refused::with_message(
                "claims",
                StatusCode::INTERNAL_SERVER_ERROR,
                "Error connecting to Realtime",
            ),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        metrics::counter!(names::CONNECTIONS_REFUSED, "reason" => self.reason).increment(1);
        let mut response = match self.body {
            Body::Empty => self.status.into_response(),
            Body::Text(text) => (self.status, text).into_response(),
            Body::Error(message) => super::json(self.status, json!({"error": message}).to_string()),
        };
        // A client that wanted a socket has no use for this connection, and others may be waiting for its place.
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().uri("/socket/websocket");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(axum::body::Body::empty()).unwrap()
    }

    #[test]
    fn the_handshake_of_the_rfc_is_answered() {
        let accept = accept_key(&request(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ]));
        assert_eq!(accept.ok().unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn anything_less_is_refused() {
        let whole = [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        for missing in 0..whole.len() {
            let headers: Vec<_> = (0..whole.len())
                .filter(|at| *at != missing)
                .map(|at| whole[at])
                .collect();
            let refused = accept_key(&request(&headers)).err().unwrap();
            assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        }
    }

    #[test]
    fn only_headers_with_an_x_are_kept() {
        let kept = forwarded_headers(
            request(&[("x-trace", "1"), ("cookie", "secret"), ("X-Other", "é")]).headers(),
        );
        assert_eq!(kept.len(), 2);
        assert_eq!(kept[0], ("x-trace".to_owned(), "1".to_owned()));
    }
}
