//! The files of the page, inside the binary.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use uuid::Uuid;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// Nothing inline, nothing from elsewhere.
const POLICY: &str = "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

macro_rules! asset {
    ($path:literal, $content_type:expr, $file:literal) => {
        (
            $path,
            $content_type,
            include_bytes!(concat!("../../demo/", $file)).as_slice(),
        )
    };
}

static ASSETS: &[(&str, &str, &[u8])] = &[
    asset!("/", HTML, "index.html"),
    asset!("/demo/demo.css", CSS, "demo.css"),
    asset!("/demo/demo.js", JS, "demo.js"),
    asset!("/demo/api.js", JS, "api.js"),
    asset!("/demo/dom.js", JS, "dom.js"),
    asset!("/demo/messages.js", JS, "messages.js"),
    asset!("/demo/room.js", JS, "room.js"),
    asset!("/demo/theme.js", JS, "theme.js"),
    asset!("/demo/supabase.js", JS, "vendor/supabase.js"),
];

pub(super) fn routes() -> Router {
    ASSETS
        .iter()
        .fold(Router::new(), |router, (path, content_type, bytes)| {
            let etag: Arc<str> =
                format!("\"{}\"", Uuid::new_v5(&Uuid::NAMESPACE_URL, bytes)).into();
            let asset = move |headers: HeaderMap| async move {
                respond(&headers, &etag, content_type, bytes)
            };
            router.route(path, get(asset))
        })
}

fn respond(
    headers: &HeaderMap,
    etag: &str,
    content_type: &'static str,
    bytes: &'static [u8],
) -> Response {
    let known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|tags| tags.to_str().ok())
        .flat_map(|tags| tags.split(','))
        .any(|tag| tag.trim().trim_start_matches("W/") == etag);
    let described = [
        (header::ETAG, etag),
        // Ask each time: a new build has new files under the same names.
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
    ]
    .map(|(name, value)| (name, value.to_owned()));
    match known {
        true => (StatusCode::NOT_MODIFIED, described).into_response(),
        false => (described, [(header::CONTENT_TYPE, content_type)], bytes).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn fetch(path: &str, etag: &str) -> Response {
        let request = Request::get(path).header(header::IF_NONE_MATCH, etag);
        let request = request.body(Body::empty()).unwrap();
        routes().oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn every_file_is_there_once_and_fetched_again_only_when_it_changed() {
        for (path, content_type, _) in ASSETS {
            let first = fetch(path, "\"other\"").await;
            assert_eq!(first.status(), StatusCode::OK, "{path}");
            assert_eq!(first.headers()[header::CONTENT_TYPE], *content_type);
            let etag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
            let again = fetch(path, &format!("\"x\", W/{etag}")).await;
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{path}");
        }
    }

    #[test]
    fn the_page_asks_for_nothing_that_is_not_served() {
        let text = |bytes: &&[u8]| String::from_utf8_lossy(bytes).into_owned();
        let own = ASSETS
            .iter()
            .filter(|(path, ..)| *path != "/demo/supabase.js");
        for (path, _, bytes) in own {
            for quoted in text(bytes).split(['"', '\'']) {
                let wanted = match quoted.strip_prefix("./") {
                    Some(module) => format!("/demo/{module}"),
                    None => quoted.to_owned(),
                };
                if wanted.starts_with("/demo/")
                    && (wanted.ends_with(".js") || wanted.ends_with(".css"))
                {
                    assert!(
                        ASSETS.iter().any(|(path, ..)| *path == wanted),
                        "{path} asks for {wanted}"
                    );
                }
            }
        }
    }
}
