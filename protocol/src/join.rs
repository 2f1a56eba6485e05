//! The payload of `phx_join`, read leniently: nothing in its types refuses a join.

use std::fmt;

use serde_json::value::RawValue;

use crate::binding::{Binding, MAX_BINDINGS};
use crate::json;

/// What a client asks for when it joins a channel.
#[derive(Clone, Default)]
pub struct Join {
    pub access_token: Option<String>,
    /// The older name of the same.
    pub user_token: Option<String>,
    pub config: Config,
    /// The members that had a wrong type and got their default, for the log.
    pub invalid: Vec<&'static str>,
}

/// The settings of a channel, fixed for its life.
#[derive(Clone, Default, Debug)]
pub struct Config {
    pub private: bool,
    pub broadcast: BroadcastConfig,
    pub presence: PresenceConfig,
    pub bindings: Vec<Binding>,
    /// Hold the reply back until all bindings are live, at most so many milliseconds (as asked for; the server may
    /// allow less).
    pub wait: Option<u64>,
    /// The client is from before 2022: its changes are written by [`crate::encode_bare_change`], without ids.
    pub bare: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct BroadcastConfig {
    /// Broadcasts get a reply.
    pub ack: bool,
    /// The sender gets its own broadcasts, too; `self` on the wire.
    pub self_send: bool,
    /// A second `system` message is wanted when messages sent from the database arrive.
    pub replication_ready: bool,
    /// None if the key is absent.
    pub replay: Option<Replay>,
}

/// What to replay. Any form of it is refused on a public channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replay {
    /// `limit` is between 1 and 25.
    Valid { since_ms: i64, limit: i64 },
    /// Read strictly: the join is refused.
    Invalid,
}

#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct PresenceConfig {
    /// None if the client does not say; old SDKs never do.
    pub enabled: Option<bool>,
    /// None if the server is to make one up.
    pub key: Option<String>,
}

impl Join {
    /// The token the channel gets, given that of the connect. A text that starts with `sb_` is an API key, not a token.
    pub fn token<'a>(&'a self, connect: &'a str) -> &'a str {
        let user_token = self.user_token.as_deref();
        match self.access_token.as_deref().or(user_token) {
            Some(token) if !token.starts_with(API_KEY_PREFIX) => user_token.unwrap_or(token),
            _ => connect,
        }
    }
}

/// Reads the payload of a join. It takes anything: what is missing or wrong gets its default.
pub fn parse_join(payload: &RawValue) -> Join {
    let mut reader = Reader::default();
    let [access_token, user_token, config] = reader.object(
        Some(payload),
        "payload",
        ["access_token", "user_token", "config"],
    );
    let [private, broadcast, presence, bindings, options] = reader.object(
        config,
        "config",
        [
            "private",
            "broadcast",
            "presence",
            "postgres_changes",
            "postgres_changes_options",
        ],
    );
    let [ack, self_send, replication_ready, replay] = reader.object(
        broadcast,
        "config.broadcast",
        ["ack", "self", "replication_ready", "replay"],
    );
    let [enabled, key] = reader.object(presence, "config.presence", ["enabled", "key"]);
    let [wait, timeout] = reader.object(
        options,
        "config.postgres_changes_options",
        ["wait", "timeout"],
    );
    let config = Config {
        private: reader.flag_or_false(private, "config.private"),
        broadcast: BroadcastConfig {
            ack: reader.flag_or_false(ack, "config.broadcast.ack"),
            self_send: reader.flag_or_false(self_send, "config.broadcast.self"),
            replication_ready: reader
                .flag_or_false(replication_ready, "config.broadcast.replication_ready"),
            replay: replay.map(parse_replay),
        },
        presence: PresenceConfig {
            enabled: reader.flag(enabled, "config.presence.enabled"),
            key: reader.presence_key(key),
        },
        bindings: reader.bindings(bindings),
        wait: reader.wait(wait, timeout),
        bare: false,
    };
    Join {
        access_token: reader.text(access_token, "access_token"),
        user_token: reader.text(user_token, "user_token"),
        config,
        invalid: reader.invalid,
    }
}

/// Reads the payload of a join to this sub-topic. Clients from before 2022 send no `config`, and name what they want to
/// hear of in the topic; for all others it is [`parse_join`].
pub fn parse_join_to(sub_topic: &str, payload: &RawValue) -> Join {
    let mut join = parse_join(payload);
    if let Ok([None]) = json::pick(payload.get(), ["config"])
        && let Some(binding) = binding_of(sub_topic)
    {
        join.config.bindings.push(binding);
        join.config.bare = true;
    }
    join
}

/// What a sub-topic of the form `schema:table`, `schema:table:filter`, `public` or `*` stands for. The peer takes any other
/// text for the name of a schema, too, and complains that there is none; here it is the name of a room.
fn binding_of(sub_topic: &str) -> Option<Binding> {
    // The filter may have colons of its own, as times do.
    let mut parts = sub_topic.splitn(3, ':');
    let schema = parts.next()?;
    let table = parts.next();
    let named = match table {
        None => matches!(schema, "public" | "*"),
        Some(table) => !schema.is_empty() && !table.is_empty(),
    };
    if !named {
        return None;
    }
    let mut object = String::with_capacity(sub_topic.len() + 40);
    object.push('{');
    json::push_member(&mut object, "schema", schema);
    for (name, part) in [("table", table), ("filter", parts.next())] {
        if let Some(part) = part {
            object.push(',');
            json::push_member(&mut object, name, part);
        }
    }
    object.push('}');
    Binding::parse(&RawValue::from_string(object).ok()?, |_| {})
}

/// The token of an `access_token` push; none if the push is to be ignored. There is never a reply.
pub fn parse_access_token(payload: &RawValue) -> Option<String> {
    let [token] = json::pick(payload.get(), ["access_token"]).ok()?;
    token
        .and_then(json::text)
        .filter(|token| !token.starts_with(API_KEY_PREFIX))
}

/// The payload of the reply to a successful join: each binding as it was sent, in the same order, with its id.
pub fn join_reply(bindings: &[(&Binding, u64)]) -> String {
    let size: usize = bindings
        .iter()
        .map(|(binding, _)| binding.raw.get().len() + 20)
        .sum();
    let mut out = String::with_capacity(size + 64);
    out.push_str("{\"status\":\"ok\",\"response\":{\"postgres_changes\":[");
    for (position, (binding, id)) in bindings.iter().enumerate() {
        if position > 0 {
            out.push(',');
        }
        out.push_str(&binding.echo(*id));
    }
    out.push_str("]}}");
    out
}

const API_KEY_PREFIX: &str = "sb_";

/// How long a client that asks to wait waits when it names no time, in milliseconds.
const DEFAULT_WAIT: u64 = 15_000;

const MAX_REPLAY: i64 = 25;

/// From the year 1 to the end of the year 9999, in milliseconds since 1970: what both sides can write as a date.
const REPLAY_SINCE: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

fn parse_replay(value: &RawValue) -> Replay {
    let integer = |value: &RawValue| value.get().parse::<i64>().ok();
    let Ok([Some(since), limit]) = json::pick(value.get(), ["since", "limit"]) else {
        return Replay::Invalid;
    };
    let limit = limit.map_or(Some(MAX_REPLAY), integer);
    match (integer(since), limit) {
        (Some(since_ms), Some(limit)) if REPLAY_SINCE.contains(&since_ms) => Replay::Valid {
            since_ms,
            limit: limit.clamp(1, MAX_REPLAY),
        },
        _ => Replay::Invalid,
    }
}

/// Reads members of a join and remembers those that had a wrong type.
#[derive(Default)]
struct Reader {
    invalid: Vec<&'static str>,
}

impl Reader {
    fn wrong(&mut self, name: &'static str) {
        // A list of a thousand wrong bindings is worth one line.
        if !self.invalid.contains(&name) {
            self.invalid.push(name);
        }
    }

    /// The members of an object; none of them if it is absent, null or no object.
    fn object<'a, const N: usize>(
        &mut self,
        value: Option<&'a RawValue>,
        name: &'static str,
        members: [&str; N],
    ) -> [Option<&'a RawValue>; N] {
        let Some(value) = value.filter(|value| !json::is_null(value)) else {
            return [None; N];
        };
        json::pick(value.get(), members).unwrap_or_else(|_| {
            self.wrong(name);
            [None; N]
        })
    }

    fn text(&mut self, value: Option<&RawValue>, name: &'static str) -> Option<String> {
        let value = value.filter(|value| !json::is_null(value))?;
        let text = json::text(value);
        if text.is_none() {
            self.wrong(name);
        }
        text
    }

    /// A flexible boolean: true, false, or these words as text in any case; null is false.
    fn flag(&mut self, value: Option<&RawValue>, name: &'static str) -> Option<bool> {
        let value = value?;
        match value.get() {
            "true" => return Some(true),
            "false" | "null" => return Some(false),
            _ => {}
        }
        match json::text(value) {
            Some(word) if word.eq_ignore_ascii_case("true") => Some(true),
            Some(word) if word.eq_ignore_ascii_case("false") => Some(false),
            _ => {
                self.wrong(name);
                None
            }
        }
    }

    fn flag_or_false(&mut self, value: Option<&RawValue>, name: &'static str) -> bool {
        self.flag(value, name).unwrap_or(false)
    }

    fn presence_key(&mut self, value: Option<&RawValue>) -> Option<String> {
        let json = value?.get();
        if json.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            return Some(json.to_owned());
        }
        self.text(value, "config.presence.key")
            .filter(|key| !key.is_empty())
    }

    fn bindings(&mut self, value: Option<&RawValue>) -> Vec<Binding> {
        const NAME: &str = "config.postgres_changes";
        let Some(value) = value.filter(|value| !json::is_null(value)) else {
            return Vec::new();
        };
        let Some(items) = json::items(value.get(), MAX_BINDINGS) else {
            self.wrong(NAME);
            return Vec::new();
        };
        let mut bindings = Vec::with_capacity(items.len());
        for item in items.into_iter().filter(|item| !json::is_null(item)) {
            match Binding::parse(item, |name| self.wrong(name)) {
                Some(binding) => bindings.push(binding),
                None => self.wrong(NAME),
            }
        }
        bindings
    }

    fn wait(&mut self, wait: Option<&RawValue>, timeout: Option<&RawValue>) -> Option<u64> {
        if !self.flag_or_false(wait, "config.postgres_changes_options.wait") {
            return None;
        }
        let Some(timeout) = timeout.filter(|timeout| !json::is_null(timeout)) else {
            return Some(DEFAULT_WAIT);
        };
        Some(timeout.get().parse().unwrap_or_else(|_| {
            self.wrong("config.postgres_changes_options.timeout");
            DEFAULT_WAIT
        }))
    }
}

/// Tokens are not shown.
impl fmt::Debug for Join {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Join")
            .field("access_token", &self.access_token.as_ref().map(|_| "…"))
            .field("user_token", &self.user_token.as_ref().map(|_| "…"))
            .field("config", &self.config)
            .field("invalid", &self.invalid)
            .finish()
    }
}
