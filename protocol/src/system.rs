//! `system` messages, and the texts with which the server ends a channel.

use crate::json;

/// All bindings are live.
pub const SUBSCRIBED: &str = "Subscribed to PostgreSQL";
/// Messages sent from the database now arrive; for channels that asked with `replication_ready`.
pub const REPLICATION_READY: &str = "Replication connection established";
/// The payload that announces a planned close with 1012. It has no channel.
pub const SERVER_DISCONNECT: &str =
    r#"{"message":"Server requested disconnect","status":"ok","extension":"system"}"#;

/// The values of `extension`.
pub mod extension {
    pub const POSTGRES_CHANGES: &str = "postgres_changes";
    pub const SYSTEM: &str = "system";
}

/// The payload of a `system` message. `sub_topic` is the topic without `realtime:`.
pub fn system(status_ok: bool, extension: &str, message: &str, sub_topic: &str) -> String {
    system_with_cursor(status_ok, extension, message, sub_topic, None)
}

/// The same, for channels that asked for cursors.
pub fn system_with_cursor(
    status_ok: bool,
    extension: &str,
    message: &str,
    sub_topic: &str,
    cursor: Option<&str>,
) -> String {
    let more = cursor.map_or(0, str::len);
    let mut out =
        String::with_capacity(message.len() + extension.len() + sub_topic.len() + more + 84);
    out.push('{');
    json::push_member(&mut out, "message", message);
    out.push(',');
    json::push_member(&mut out, "status", if status_ok { "ok" } else { "error" });
    out.push(',');
    json::push_member(&mut out, "extension", extension);
    out.push(',');
    json::push_member(&mut out, "channel", sub_topic);
    if let Some(cursor) = cursor {
        out.push(',');
        json::push_member(&mut out, "cursor", cursor);
    }
    out.push('}');
    out
}

/// What the `system` error says before the `phx_close` that ends a channel for good.
pub mod ends {
    pub const MISSING_CLAIMS: &str = "Fields `role` and `exp` are required in JWT";
    pub const MALFORMED_JWT: &str = "The token provided is not a valid JWT";
    /// So spelled by the peer, and matched by suites.
    pub const JWT_SIGNATURE: &str = ":signature_error";
    pub const DATABASE_UNAVAILABLE: &str = "Realtime was unable to connect to the project database";
    pub const QUERY_CANCELLED: &str = "Query was cancelled, please try again";
    pub const NODE_TIMEOUT: &str = "Node request timeout";
    pub const TOO_MANY_MESSAGES: &str = "Too many messages per second";
    pub const CLIENT_PRESENCE_RATE: &str = "Client presence rate limit exceeded";
    pub const TOO_MANY_PRESENCE_MESSAGES: &str = "Too many presence messages per second";
    pub const TRACK_TOO_LARGE: &str = "Track message size exceeded";
    pub const REPLICATION_TIMEOUT: &str = "Replication connection was not established in time";

    pub fn token_expired(seconds_ago: i64) -> String {
        format!("Token has expired {seconds_ago} seconds ago")
    }

    pub fn jwt_signer(kid: Option<&str>) -> String {
        match kid {
            Some(kid) => format!(
                "Failed to generate JWT signer for key ID (kid) \"{kid}\", check your JWT secret or JWKS configuration"
            ),
            None => "Failed to generate JWT signer, check your JWT secret or JWKS configuration"
                .to_owned(),
        }
    }

    /// A new token has no read right at all on this private channel.
    pub fn no_read_right(sub_topic: &str) -> String {
        format!("You do not have permissions to read from this Channel topic: {sub_topic}")
    }

    /// A new token keeps one read right and loses another that was held.
    pub fn lost_read_right(sub_topic: &str) -> String {
        format!("You no longer have permission to read from this Channel topic: {sub_topic}")
    }
}
