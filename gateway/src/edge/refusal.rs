//! Refusals of HTTP requests, in PostgREST's shape: `{"code","message","details","hint"}`. Every kind of failure gets its
//! status here and nowhere else.

use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::auth::{Principal, TokenError};
use crate::posting;

use super::credentials;

#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    code: String,
    message: String,
    details: Option<String>,
    hint: Option<String>,
}

impl Refusal {
    pub(crate) fn new(
        status: StatusCode,
        code: impl Into<String>,
        message: impl Into<String>,
    ) -> Refusal {
        Refusal {
            status,
            code: code.into(),
            message: message.into(),
            details: None,
            hint: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Refusal {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn no_token() -> Refusal {
        Refusal::new(
            StatusCode::UNAUTHORIZED,
            "PGRST302",
            "Anonymous access is disabled",
        )
        .hint("Send a token as `Authorization: Bearer …` or in the header `apikey`.")
    }

    pub(crate) fn token(error: &TokenError) -> Refusal {
        Refusal::new(
            StatusCode::UNAUTHORIZED,
            "PGRST301",
            credentials::describe(error),
        )
    }

    pub(crate) fn body_too_large(limit: usize) -> Refusal {
        Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "54000",
            format!("The body is larger than {limit} bytes"),
        )
    }

    pub(crate) fn body_not_read() -> Refusal {
        Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            "PGRST102",
            "The body did not arrive",
        )
    }

    /// A bot has a limit of its own, by messages and not by requests.
    pub(crate) fn too_many(per_second: u32) -> Refusal {
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, "PT429", "Too many requests").hint(format!(
            "This key may post {per_second} messages per second."
        ))
    }

    pub(crate) fn not_json() -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, "PGRST102", "Empty or invalid json")
    }

    /// What the database said to `principal`. What is not the caller's affair is logged here, without anything of a row.
    pub(crate) fn database(error: posting::Error, principal: &Principal) -> Refusal {
        let unavailable = |code: &str, message: &str| {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
        };
        match error {
            posting::Error::Refused {
                code,
                message,
                details,
                hint,
            } => Refusal {
                status: status_of(&code, &principal.role),
                code,
                message,
                details,
                hint,
            },
            posting::Error::Role(error) => {
                tracing::warn!(
                    role = &*principal.role,
                    error = &error as &dyn std::error::Error,
                    "a token names a role that cannot be used"
                );
                Refusal::new(
                    StatusCode::FORBIDDEN,
                    "42501",
                    "The role of the token cannot be used here",
                )
            }
            posting::Error::Superuser => Refusal::new(
                StatusCode::FORBIDDEN,
                "42501",
                "The role of the token cannot be used here",
            ),
            posting::Error::Busy => {
                unavailable("PGRST003", "The database is busy: try again in a moment")
            }
            posting::Error::Slow => Refusal::new(
                StatusCode::GATEWAY_TIMEOUT,
                "57014",
                "The database took too long",
            ),
            posting::Error::Unreachable(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a request failed: the database cannot be reached"
                );
                unavailable(
                    "PGRST001",
                    "The database cannot be reached: try again in a moment",
                )
            }
            posting::Error::Internal(error) => {
                let sqlstate = error
                    .as_database_error()
                    .and_then(|error| error.code())
                    .unwrap_or_default()
                    .into_owned();
                // The message itself may quote a row.
                tracing::error!(sqlstate, "a request failed in the database");
                Refusal::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "PGRSTX00",
                    "The database failed: the gateway's log says with which code",
                )
            }
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }
}

/// PostgREST's table of statuses, as far as an insert can meet it.
fn status_of(code: &str, role: &str) -> StatusCode {
    match code {
        // Logging in might help the anonymous; nobody else.
        "42501" if role == "anon" => StatusCode::UNAUTHORIZED,
        "42501" => StatusCode::FORBIDDEN,
        "23503" | "23505" => StatusCode::CONFLICT,
        "42P01" => StatusCode::NOT_FOUND,
        "54000" | "54001" => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let or_null = |text: Option<String>| text.map_or(Value::Null, Value::String);
        let body = json!({
            "code": self.code,
            "message": self.message,
            "details": or_null(self.details),
            "hint": or_null(self.hint),
        });
        let mut response = super::json(self.status, body.to_string());
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        } else if [
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::TOO_MANY_REQUESTS,
        ]
        .contains(&self.status)
        {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_postgrest() {
        for (code, role, status) in [
            ("42501", "anon", 401),
            ("42501", "authenticated", 403),
            ("23505", "authenticated", 409),
            ("23503", "authenticated", 409),
            ("22P02", "authenticated", 400),
            ("23502", "authenticated", 400),
            ("23514", "authenticated", 400),
            ("42703", "anon", 400),
            ("P0001", "anon", 400),
        ] {
            assert_eq!(status_of(code, role).as_u16(), status, "{code} {role}");
        }
    }
}
