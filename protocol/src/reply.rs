//! Payloads of `phx_reply` and `phx_error`, and every reason for which a join is refused.

use crate::json;
use crate::system::ends;

/// The payload of a plain ok reply.
pub fn ok_reply() -> &'static str {
    r#"{"status":"ok","response":{}}"#
}

/// The payload of an error reply.
pub fn error_reply(reason: &str) -> String {
    let mut out = String::with_capacity(reason.len() + 48);
    out.push_str("{\"status\":\"error\",\"response\":{");
    json::push_member(&mut out, "reason", reason);
    out.push_str("}}");
    out
}

/// The payload of the reply to a broadcast that could not be stored: its text is handed to the application.
pub fn error_text_reply(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 48);
    out.push_str("{\"status\":\"error\",\"response\":{");
    json::push_member(&mut out, "error", text);
    out.push_str("}}");
    out
}

/// Why a broadcast on a private channel goes nowhere. The peer says nothing at all then.
pub fn no_write_right(sub_topic: &str) -> String {
    format!("Unauthorized: You do not have permissions to write to this Channel topic: {sub_topic}")
}

/// The answer to what is sent while much else waits for the answer to a question about rights, or for a message to be stored.
pub const TOO_MUCH_WAITS: &str = "too many messages wait to be sent on this channel";

/// The payload of an error reply that gives no reason, as for a presence push of an unknown event.
pub fn empty_error_reply() -> &'static str {
    r#"{"status":"error","response":{}}"#
}

/// The payload of `phx_error`, after which clients join again.
pub const CHANNEL_CRASH: &str = r#"{"reason":"channel_crash"}"#;

/// Why a join is refused. `Display` is the exact reason that the client gets; Python 2.34 chooses its pause by the
/// prefix, so prefixes are part of the contract.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    #[error("TopicNameRequired: You must provide a topic name")]
    TopicNameRequired,
    /// Also the answer to any push on a topic that is not joined.
    #[error("unmatched topic")]
    UnmatchedTopic,
    #[error("PrivateOnly: This project only allows private channels")]
    PrivateOnly,
    #[error("ConnectionRateLimitReached: Too many connected users")]
    TooManyConnections,
    /// The socket is then closed with [`crate::close::JOIN_RATE`].
    #[error("ClientJoinRateLimitReached: Too many joins per second")]
    TooManyJoins,
    #[error("ChannelRateLimitReached: Too many channels")]
    TooManyChannels,
    #[error("InvalidJWTToken: {}", ends::token_expired(*.seconds_ago))]
    TokenExpired { seconds_ago: i64 },
    #[error("InvalidJWTToken: {}", ends::MISSING_CLAIMS)]
    MissingClaims,
    #[error("MalformedJWT: {}", ends::MALFORMED_JWT)]
    MalformedJwt,
    #[error("JwtSignatureError: Failed to validate JWT signature")]
    JwtSignature,
    #[error("JwtSignerError: {}", ends::jwt_signer(.kid.as_deref()))]
    JwtSigner { kid: Option<String> },
    /// `topic` is the sub-topic.
    #[error("Unauthorized: {}", ends::no_read_right(.topic))]
    Unauthorized { topic: String },
    #[error("UnableToReplayMessages: Replay is not allowed for public channels")]
    ReplayOnPublicChannel,
    #[error("UnableToReplayMessages: Replay params are not valid")]
    ReplayParams,
    #[error("UnableToReplayMessages: Realtime was unable to replay messages")]
    ReplayFailed,
    #[error("UnableToConnectToProject: {}", ends::DATABASE_UNAVAILABLE)]
    DatabaseUnavailable,
    /// The policies could not be asked; the peer gives no prefix here.
    #[error("{}", ends::DATABASE_UNAVAILABLE)]
    PoliciesUnavailable,
    #[error("IncreaseConnectionPool: Please increase your connection pool size")]
    IncreaseConnectionPool,
    #[error(
        "DatabaseLackOfConnections: Database can't accept more connections, Realtime won't connect"
    )]
    DatabaseLackOfConnections,
    #[error(
        "DatabaseConnectionRateLimitReached: Too many database connections attempts per second"
    )]
    DatabaseConnectionRate,
    #[error(
        "InitializingProjectConnection: Realtime is initializing the project connection, please try again"
    )]
    Initializing,
    #[error("QueryCanceled: {}", ends::QUERY_CANCELLED)]
    QueryCanceled,
    #[error("MissingPartition: Realtime was unable to find the expected messages partition")]
    MissingPartition,
    #[error("RealtimeRestarting: Realtime is restarting, please standby")]
    Restarting,
    #[error("RealtimeDisabledForTenant: Realtime was disabled for this tenant")]
    Disabled,
    /// The socket is then closed with [`crate::close::JOIN_RATE`], the peer's code for both.
    #[error("TenantNotFound: Tenant with the given ID does not exist")]
    TenantNotFound,
    /// The bindings were not live within the time that `postgres_changes_options.wait` allows.
    #[error(
        "PostgresChangesSubscribeTimeout: Subscribing to PostgreSQL took longer than the timeout of the join"
    )]
    SubscribeTimeout,
    /// A binding is wrong and the client asked to wait for them; `message` as in the `system` message.
    #[error("RealtimeDisabledForConfiguration: {message}")]
    BadBindings { message: String },
    /// A key of our own asks for what cannot be had; the texts are [`crate::resume::ResumeError`]'s.
    #[error("{0}")]
    Resume(crate::resume::ResumeError),
    /// Other claim errors, and anything unforeseen.
    #[error("Unknown Error on Channel")]
    Unknown,
    /// A fault of the server, with a text that is safe to show.
    #[error("UnknownErrorOnChannel: {message}")]
    Fault { message: String },
    #[error("join crashed")]
    JoinCrashed,
}

impl Refusal {
    /// The cause in one word, for a metric.
    pub fn label(&self) -> &'static str {
        match self {
            Refusal::TopicNameRequired => "topic_name_required",
            Refusal::UnmatchedTopic => "unmatched_topic",
            Refusal::PrivateOnly => "private_only",
            Refusal::TooManyConnections => "too_many_connections",
            Refusal::TooManyJoins => "too_many_joins",
            Refusal::TooManyChannels => "too_many_channels",
            Refusal::TokenExpired { .. } => "token_expired",
            Refusal::MissingClaims => "missing_claims",
            Refusal::MalformedJwt => "malformed_jwt",
            Refusal::JwtSignature => "jwt_signature",
            Refusal::JwtSigner { .. } => "jwt_signer",
            Refusal::Unauthorized { .. } => "unauthorized",
            Refusal::ReplayOnPublicChannel => "replay_on_public_channel",
            Refusal::ReplayParams => "replay_params",
            Refusal::ReplayFailed => "replay_failed",
            Refusal::DatabaseUnavailable => "database_unavailable",
            Refusal::PoliciesUnavailable => "policies_unavailable",
            Refusal::IncreaseConnectionPool => "increase_connection_pool",
            Refusal::DatabaseLackOfConnections => "database_lack_of_connections",
            Refusal::DatabaseConnectionRate => "database_connection_rate",
            Refusal::Initializing => "initializing",
            Refusal::QueryCanceled => "query_canceled",
            Refusal::MissingPartition => "missing_partition",
            Refusal::Restarting => "restarting",
            Refusal::Disabled => "disabled",
            Refusal::TenantNotFound => "tenant_not_found",
            Refusal::SubscribeTimeout => "subscribe_timeout",
            Refusal::BadBindings { .. } => "bad_bindings",
            Refusal::Resume(error) => error.code(),
            Refusal::Unknown => "unknown",
            Refusal::Fault { .. } => "fault",
            Refusal::JoinCrashed => "join_crashed",
        }
    }

    /// The payload of the reply.
    pub fn reply(&self) -> String {
        error_reply(&self.to_string())
    }
}
