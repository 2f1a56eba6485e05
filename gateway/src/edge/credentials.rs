//! Where a request carries its token.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use crate::app::App;
use crate::auth::{TokenError, Verified};

use super::Refusal;

/// Who sends this request: the token of `Authorization: Bearer`, else of the header `apikey`, else of `x-api-key`.
pub(crate) async fn authenticate(app: &App, headers: &HeaderMap) -> Result<Verified, Refusal> {
    let header = |name| headers.get(name)?.to_str().ok();
    let token = bearer(headers)
        .or_else(|| header("apikey"))
        .or_else(|| header("x-api-key"))
        .filter(|token| !token.is_empty())
        .ok_or_else(Refusal::no_token)?;
    app.verifier
        .verify_or_learn(token)
        .await
        .map_err(|error| Refusal::token(&error))
}

pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The words of PostgREST for a token that is refused.
pub(super) fn describe(error: &TokenError) -> &'static str {
    match error {
        TokenError::Malformed => "Expected 3 parts in JWT; got something else",
        TokenError::Signature => "JWSError JWSInvalidSignature",
        TokenError::Signer { .. } => "No suitable key or wrong key type",
        TokenError::Expired { .. } => "JWT expired",
        TokenError::MissingClaims => "The claims role and exp are required in a JWT",
        TokenError::Other(_) => "JWT claims are not accepted",
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_bearer_is_found_whatever_its_case() {
        for (value, expected) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc", Some("abc")),
            ("Basic abc", None),
            ("abc", None),
        ] {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]);
            assert_eq!(bearer(&headers), expected, "{value}");
        }
    }
}
