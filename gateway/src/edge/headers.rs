//! How long a header may be. The head as a whole has a limit, too: the server's.

use axum::extract::Request;
use axum::http::{HeaderName, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::json;

/// The peer's limit for one header. A socket keeps those that begin with `x-` for as long as it lives.
const MAX_VALUE_BYTES: usize = 4096;

/// Tokens may be longer, and a browser adds cookies that are not meant for us: we never look at them.
fn may_be_long(name: &HeaderName) -> bool {
    [header::AUTHORIZATION, header::COOKIE].contains(name)
        || ["apikey", "x-api-key"].contains(&name.as_str())
}

pub(super) async fn refuse_long(request: Request, next: Next) -> Response {
    let long = request
        .headers()
        .iter()
        .find(|(name, value)| value.len() > MAX_VALUE_BYTES && !may_be_long(name));
    match long {
        None => next.run(request).await,
        Some((name, _)) => {
            let error = format!("The header {name} is longer than {MAX_VALUE_BYTES} bytes");
            super::json(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                json!({ "error": error }).to_string(),
            )
        }
    }
}
