//! What browsers ask before they let a website's scripts talk to us, and the websites that may.
//!
//! A page of any website can make its visitors' browsers send requests. Here none of these carries a right by itself: there are no
//! cookies, and a token must be known to the script. So all websites may come unless the operator lists those that may.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::config::Origins;

/// How long a browser may remember the answer to a preflight.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// Answers preflights, and says in every answer which website's scripts may read it.
pub(super) fn cors(origins: &Origins) -> CorsLayer {
    let allowed = match origins.clone() {
        Origins::Any => AllowOrigin::any(),
        listed => AllowOrigin::predicate(move |origin: &HeaderValue, _: &_| {
            listed.allow(origin.as_bytes())
        }),
    };
    CorsLayer::new()
        .allow_origin(allowed)
        // Also those that nothing here takes: a browser then shows the answer that says so.
        .allow_methods([
            Method::GET,
            Method::POST,
            Method::PATCH,
            Method::PUT,
            Method::DELETE,
            Method::OPTIONS,
        ])
        // `*` would leave out `authorization`; no cookie is ever looked at, so any header may come.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([
            HeaderName::from_static("preference-applied"),
            HeaderName::from_static("x-rate-rolling"),
            HeaderName::from_static("x-rate-limit"),
            HeaderName::from_static("x-rate-limit-remaining"),
            HeaderName::from_static("x-request-id"),
            header::RETRY_AFTER,
        ])
        .max_age(REMEMBERED)
}

/// Whether this handshake may become a socket. Browsers do not ask before they open one, and name the website in `Origin`;
/// what sends no such header is no browser, and could send any.
pub(super) fn may_connect(origins: &Origins, headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ORIGIN)
        .iter()
        .all(|origin| origins.allow(origin.as_bytes()))
}
