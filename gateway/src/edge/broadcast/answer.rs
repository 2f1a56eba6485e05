//! What is answered to a request that broadcasts: the statuses and texts that clients of Supabase Realtime know.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::app::App;
use crate::limits::{Exceeded, TOO_MANY_REQUESTS};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const BLANK: &str = "can't be blank";
pub(super) const INVALID: &str = "is invalid";
pub(super) const TOO_LARGE: &str = "Payload size exceeds tenant limit";
pub(super) const TOO_DEEP: &str = "is nested too deeply";

#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    body: Value,
}

impl Refused {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Refused {
        Refused {
            status,
            body: json!({ "message": message.into() }),
        }
    }

    pub(super) fn unauthorized() -> Refused {
        Refused::new(StatusCode::UNAUTHORIZED, "Unauthorized")
    }

    pub(super) fn may_not_write() -> Refused {
        Refused::new(StatusCode::FORBIDDEN, "Unauthorized")
    }

    pub(super) fn content_type() -> Refused {
        let error = "Unsupported Media Type. Use application/json or application/octet-stream";
        Refused {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            body: json!({ "error": error }),
        }
    }

    pub(super) fn not_json() -> Refused {
        Refused::new(StatusCode::BAD_REQUEST, "The body is not JSON")
    }

    /// `what` is wrong with the fields.
    pub(super) fn fields(what: Value) -> Refused {
        Refused {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            body: json!({ "errors": what }),
        }
    }

    pub(super) fn unprocessable(message: impl Into<String>) -> Refused {
        Refused::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    }

    pub(super) fn too_many_requests() -> Refused {
        Refused::new(StatusCode::TOO_MANY_REQUESTS, TOO_MANY_REQUESTS)
    }

    pub(super) fn limited(exceeded: Exceeded) -> Refused {
        let message = exceeded.refuses_request().unwrap_or(TOO_MANY_REQUESTS);
        Refused::new(StatusCode::TOO_MANY_REQUESTS, message)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        crate::edge::json(self.status, self.body.to_string())
    }
}

/// Adds the headers that every answer has, whatever became of the request.
pub(super) async fn add_headers(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Response {
    let id = request_id(request.headers());
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    // Without a limit nobody counts, and there is nothing to tell.
    if let Some(now) = app.limits.events_now(Instant::now()) {
        for (name, value) in [
            ("x-rate-rolling", now.rolling),
            ("x-rate-limit", now.limit),
            ("x-rate-limit-remaining", now.remaining()),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
        }
    }
    response
}

/// The request's own, if a proxy gave it one; the lengths are the peer's.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    headers
        .get(REQUEST_ID)
        .filter(|id| (20..=200).contains(&id.len()))
        .cloned()
        .or_else(|| HeaderValue::try_from(Uuid::new_v4().simple().to_string()).ok())
        .unwrap_or(HeaderValue::from_static("none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_the_id_that_a_proxy_gave_it() {
        let id = |value: &str| {
            let value = HeaderValue::try_from(value).expect("a header's value");
            request_id(&HeaderMap::from_iter([(REQUEST_ID, value)]))
        };
        assert_eq!(id("0123456789abcdef0123"), "0123456789abcdef0123");
        assert_ne!(id("short"), "short");
        assert_ne!(id(&"x".repeat(201)), "x".repeat(201));
        assert_eq!(request_id(&HeaderMap::new()).len(), 32);
    }
}
