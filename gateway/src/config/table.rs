//! The one list of settings.

/// One setting, as people see it.
pub struct Setting {
    /// The key in the TOML file; the variable and the flag are made of it.
    pub name: &'static str,
    pub default: Default,
    /// Its value is masked wherever settings are shown.
    pub secret: bool,
    pub meaning: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// There is no default, and the command that needs it does not start without.
    Required,
    /// There is no default, and none is needed.
    Unset,
    Value(&'static str),
}

impl Setting {
    pub fn variable(&self) -> String {
        match self.name {
            // The name that every other tool reads.
            "database_url" => "DATABASE_URL".to_owned(),
            name => format!("TIDINGS_{}", name.to_uppercase()),
        }
    }

    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }
}

pub fn find(name: &str) -> Option<&'static Setting> {
    TABLE.iter().find(|setting| setting.name == name)
}

const fn setting(name: &'static str, default: Default, meaning: &'static str) -> Setting {
    Setting {
        name,
        default,
        secret: false,
        meaning,
    }
}

const fn secret(name: &'static str, meaning: &'static str) -> Setting {
    Setting {
        name,
        default: Default::Required,
        secret: true,
        meaning,
    }
}

pub static TABLE: &[Setting] = &[
    secret(
        "database_url",
        "The database, as `postgres://user:password@host:5432/name`. `sslmode` (`disable`, `prefer`, `require`, `verify-ca`, `verify-full`) and `sslrootcert` are honoured. `tidings migrate` needs a login that may create schemas and roles; `tidings serve` one that may become `anon`, `authenticated` and `service_role`.",
    ),
    setting(
        "database_ssl_root_cert",
        Default::Unset,
        "A PEM file with the certificate authorities that may have signed the database's certificate. `sslrootcert` in the URL wins.",
    ),
    setting(
        "database_connections",
        Default::Value("8"),
        "At most this many database connections serve HTTP requests.",
    ),
    setting(
        "authorizer_connections",
        Default::Value("4"),
        "This many database connections answer who may see what.",
    ),
    setting(
        "statement_timeout",
        Default::Value("5s"),
        "No statement on behalf of a client runs longer.",
    ),
    setting(
        "listen",
        Default::Value("127.0.0.1:4000"),
        "The address and port to listen on. `0.0.0.0:4000` is reachable from other machines; port 0 takes a free one.",
    ),
    setting(
        "max_connections",
        Default::Value("20000"),
        "At most this many sockets are open; further ones are refused with 429.",
    ),
    setting(
        "max_channels",
        Default::Value("100"),
        "At most this many channels are joined over one socket.",
    ),
    setting(
        "max_message_bytes",
        Default::Value("5000000"),
        "A client that sends a longer message is closed with 1009; a longer HTTP body is refused with 413.",
    ),
    setting(
        "max_payload_bytes",
        Default::Value("3000500"),
        "The largest payload of one broadcast or of what presence tracks.",
    ),
    setting(
        "max_socket_messages_per_second",
        Default::Value("200"),
        "A socket over which more than this comes, for longer than a burst, is closed. `0` here and in the following: no limit.",
    ),
    setting(
        "max_socket_bytes_per_second",
        Default::Value("1000000"),
        "The same, in bytes.",
    ),
    setting(
        "max_socket_joins_per_second",
        Default::Value("20"),
        "The same, in joins of channels.",
    ),
    setting(
        "max_presence_calls",
        Default::Value("60"),
        "How often a channel may track or untrack its presence within 30 seconds.",
    ),
    setting(
        "max_presence_bytes",
        Default::Value("4MiB"),
        "How much may be tracked as presence on one topic, and over one socket.",
    ),
    setting(
        "max_joins_per_second",
        Default::Value("0"),
        "Joins of channels over all sockets of this gateway, on average of a minute.",
    ),
    setting(
        "max_events_per_second",
        Default::Value("0"),
        "The same for broadcasts sent and received: one to a hundred channels counts 101.",
    ),
    setting(
        "max_presence_events_per_second",
        Default::Value("0"),
        "The same for presence messages sent and received.",
    ),
    setting(
        "max_bytes_per_second",
        Default::Value("0"),
        "The same for bytes that come from clients.",
    ),
    setting(
        "allowed_origins",
        Default::Value("*"),
        "The websites whose scripts may use the gateway: `*` for all, or origins separated by commas, such as `https://chat.example.org` or `https://*.example.org`. Clients that are no browsers are not concerned.",
    ),
    setting(
        "outbox_bytes",
        Default::Value("8MiB"),
        "A client for which more than this waits to be written is too slow, and is closed.",
    ),
    setting(
        "outbox_frames",
        Default::Value("16384"),
        "The same, counted in messages.",
    ),
    setting(
        "recent_bytes",
        Default::Value("64MiB"),
        "How much of the latest changes is kept in memory for clients that come back. What is older is read from the log.",
    ),
    setting(
        "idle_timeout",
        Default::Value("60s"),
        "A client that sends nothing for so long, not even a heartbeat, is closed.",
    ),
    setting(
        "drain_delay",
        Default::Value("0s"),
        "When stopping, how long everything is served as before while `/readyz` already answers 503: time for load balancers to look elsewhere.",
    ),
    setting(
        "drain_spread",
        Default::Value("5s"),
        "After that, over how long the sockets are told to reconnect, each at a moment of its own.",
    ),
    setting(
        "drain",
        Default::Value("10s"),
        "When stopping, how long it may take in all; what is open then is cut. Longer than `drain_delay` and `drain_spread` together.",
    ),
    secret(
        "jwt_secret",
        "The secret that signs the clients' tokens (HS256, HS384, HS512). Less than 32 bytes is accepted with a warning. Not needed where `jwks`, `jwks_url` or an `[[issuer]]` is set.",
    ),
    setting(
        "jwt_aud",
        Default::Unset,
        "If set, a token's `aud` must be exactly this.",
    ),
    setting(
        "jwt_iss",
        Default::Unset,
        "If set, a token's `iss` must be exactly this.",
    ),
    setting(
        "jwt_leeway",
        Default::Value("0s"),
        "How long after its `exp` a token is still good, for issuers whose clocks differ. At most 10m.",
    ),
    Setting {
        name: "jwks",
        default: Default::Unset,
        secret: true,
        meaning: "Keys that sign the clients' tokens with RS, PS, ES (256 to 512), EdDSA, or HS: a JWKS document `{\"keys\":[…]}`, or the path of a file with one.",
    },
    setting(
        "jwks_url",
        Default::Unset,
        "The same, fetched from there (`https://…` or `http://…`): every ten minutes, and when a token names an unknown key. Symmetric keys in it are not used.",
    ),
    setting(
        "watch",
        Default::Value("public.chat_messages"),
        "Tables to watch once they exist, separated by commas, beside those that `tidings.watch()` and the publication `supabase_realtime` name. Without a schema, `public` is meant.",
    ),
    setting(
        "poll_interval",
        Default::Value("1s"),
        "How often the change log is read although nothing was announced.",
    ),
    setting(
        "doorbell",
        Default::Value("auto"),
        "Whether each commit announces itself by NOTIFY: `auto` silences that while changes come fast, `on` never does.",
    ),
    setting(
        "recheck_interval",
        Default::Value("30s"),
        "How old a subscription's permission may become before it is asked for again, where the catalog cannot show what it rests on.",
    ),
    setting(
        "old_record",
        Default::Value("full"),
        "What `old` holds in an UPDATE or DELETE: `full`, the whole row; `identity`, its primary key.",
    ),
    setting(
        "unauthorized_join",
        Default::Value("refuse"),
        "What becomes of a join that names rows which the user may not see: `refuse` answers it with an error; `system` lets it in and sends a `system` error.",
    ),
    setting(
        "presence_default",
        Default::Value("true"),
        "Whether presence is on in a channel whose client does not say. Older clients rely on `true`.",
    ),
    setting(
        "private_only",
        Default::Value("false"),
        "Whether only private channels may be joined, whose members the policies on `realtime.messages` name.",
    ),
    setting(
        "log",
        Default::Value("info"),
        "What is logged: a level, or directives such as `info,gateway=debug`.",
    ),
    setting(
        "log_format",
        Default::Value("text"),
        "`text` for people, `json` for machines.",
    ),
];

/// The table as it stands in `docs/configuration.md`.
pub fn markdown() -> String {
    let mut page =
        String::from("| Name | Variable | Flag | Default | Meaning |\n|---|---|---|---|---|\n");
    for setting in TABLE {
        let default = match setting.default {
            Default::Required => "required".to_owned(),
            Default::Unset => "none".to_owned(),
            Default::Value(value) => format!("`{value}`"),
        };
        page.push_str(&format!(
            "| `{}` | `{}` | `--{}` | {} | {} |\n",
            setting.name,
            setting.variable(),
            setting.flag(),
            default,
            setting.meaning
        ));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_docs_agrees() {
        let page = include_str!("../../../docs/configuration.md");
        let table = markdown();
        assert!(
            page.contains(&table),
            "docs/configuration.md should contain this table:\n{table}"
        );
    }
}
