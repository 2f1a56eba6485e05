//! Where values come from, which one wins, and the one pass that turns them into [`Settings`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::issuers::{self, Issuer};
use super::table::{self, Default, Setting, TABLE};
use super::{Doorbell, Error, LimitSettings, LogFormat, OldRecord, Origins};
use super::{Secret, Settings, UnauthorizedJoin, parse};

/// Durations that may be nothing.
const MAY_BE_ZERO: &[&str] = &["drain_delay", "drain_spread"];

/// Variables with our prefix that are not settings: which file to read, and what `tidings dev` alone looks at.
const OTHER_VARIABLES: &[&str] = &["TIDINGS_CONFIG", "TIDINGS_POSTGRES_BIN"];

/// What was typed after the command.
#[derive(Clone, Debug, std::default::Default)]
pub struct Flags {
    config: Option<PathBuf>,
    values: BTreeMap<&'static str, String>,
}

impl clap::Args for Flags {
    fn augment_args(command: clap::Command) -> clap::Command {
        let command = command.arg(
            clap::Arg::new("config")
                .long("config")
                .value_name("FILE")
                .env("TIDINGS_CONFIG")
                .value_parser(clap::value_parser!(PathBuf))
                .help("A TOML file with settings"),
        );
        TABLE.iter().fold(command, |command, setting| {
            let help = match setting.default {
                Default::Value(value) => format!("{} [default: {value}]", setting.meaning),
                Default::Required | Default::Unset => setting.meaning.to_owned(),
            };
            command.arg(
                clap::Arg::new(setting.name)
                    .long(setting.flag())
                    .value_name("VALUE")
                    .help_heading("Settings")
                    .hide_short_help(true)
                    .help(help),
            )
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Flags, clap::Error> {
        Ok(Flags {
            config: matches.get_one::<PathBuf>("config").cloned(),
            values: TABLE
                .iter()
                .filter_map(|setting| {
                    let value = matches.get_one::<String>(setting.name)?;
                    Some((setting.name, value.clone()))
                })
                .collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Flags::from_arg_matches(matches)?;
        Ok(())
    }
}

/// All values as text, in the order in which they win.
#[derive(std::default::Default)]
pub struct Sources {
    layers: Vec<Layer>,
    issuers: Vec<Issuer>,
    problems: Vec<String>,
}

struct Layer {
    origin: String,
    values: BTreeMap<&'static str, String>,
}

impl Sources {
    /// The flags given, this process's environment, and the file that one of them names.
    pub fn from_process(flags: Flags) -> Result<Sources, Error> {
        let mut sources = Sources::default();
        sources.layers.push(Layer {
            origin: "flag".to_owned(),
            values: flags.values,
        });
        sources.add_environment(std::env::vars_os().filter_map(|(name, value)| {
            // A variable that is not text is only our concern if it is ours, and then its value is refused below.
            Some((
                name.into_string().ok()?,
                value.to_string_lossy().into_owned(),
            ))
        }));
        if let Some(path) = flags.config {
            let text = std::fs::read_to_string(&path).map_err(|source| Error::File {
                path: path.clone(),
                source,
            })?;
            sources.add_file(&path.display().to_string(), &text);
        }
        Ok(sources)
    }

    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Sources {
        let mut sources = Sources::default();
        let mut layer = Layer {
            origin: "given".to_owned(),
            values: BTreeMap::new(),
        };
        for (name, value) in pairs {
            match table::find(name) {
                Some(setting) => {
                    layer.values.insert(setting.name, value.to_owned());
                }
                None => {
                    let known = TABLE.iter().map(|setting| setting.name);
                    sources.problems.push(unknown("setting", name, known));
                }
            }
        }
        sources.layers.push(layer);
        sources
    }

    /// A value that wins over all others: `tidings dev` brings its own database and secret.
    pub fn force(&mut self, name: &'static str, value: String) {
        let values = BTreeMap::from([(name, value)]);
        self.layers.insert(
            0,
            Layer {
                origin: "tidings dev".to_owned(),
                values,
            },
        );
    }

    pub fn is_set(&self, name: &str) -> bool {
        self.resolve(name).is_some()
    }

    fn add_environment(&mut self, variables: impl Iterator<Item = (String, String)>) {
        let names: Vec<(String, &'static Setting)> = TABLE
            .iter()
            .map(|setting| (setting.variable(), setting))
            .collect();
        let mut values = BTreeMap::new();
        for (variable, value) in variables {
            match names.iter().find(|(name, _)| *name == variable) {
                // Compose files and shells pass an unset variable on as an empty one.
                Some(_) if value.is_empty() => {}
                Some((_, setting)) => {
                    values.insert(setting.name, value);
                }
                None if variable.starts_with("TIDINGS_")
                    && !OTHER_VARIABLES.contains(&variable.as_str()) =>
                {
                    let known = names.iter().map(|(name, _)| name.as_str());
                    self.problems
                        .push(unknown("environment variable", &variable, known));
                }
                None => {}
            }
        }
        self.layers.push(Layer {
            origin: "environment".to_owned(),
            values,
        });
    }

    fn add_file(&mut self, path: &str, text: &str) {
        let parsed: toml::Table = match text.parse() {
            Ok(parsed) => parsed,
            Err(error) => {
                // Its Display shows the line, which may hold a secret.
                self.problems
                    .push(format!("{path} is not TOML: {}", error.message()));
                return;
            }
        };
        let mut values = BTreeMap::new();
        for (key, value) in parsed {
            if key == issuers::KEY {
                self.issuers = issuers::read(&value, path, &mut self.problems);
                continue;
            }
            let Some(setting) = table::find(&key) else {
                let known = TABLE.iter().map(|setting| setting.name);
                self.problems
                    .push(format!("{path}: {}", unknown("key", &key, known)));
                continue;
            };
            match plain(&value) {
                Some(value) => {
                    values.insert(setting.name, value);
                }
                None => self
                    .problems
                    .push(format!("{path}: {key} wants text, a number, true or false")),
            }
        }
        self.layers.push(Layer {
            origin: path.to_owned(),
            values,
        });
    }

    fn resolve(&self, name: &str) -> Option<(&str, &str)> {
        self.layers
            .iter()
            .find_map(|layer| Some((layer.values.get(name)?.as_str(), layer.origin.as_str())))
    }

    /// The settings, or all that is wrong with them. `required` names those without which the command cannot work.
    pub fn load(&self, required: &[&str]) -> Result<Settings, Error> {
        let other_keys = ["jwks", "jwks_url"].iter().any(|name| self.is_set(name));
        let needs_no_secret = other_keys || !self.issuers.is_empty();
        let required: Vec<&str> = required
            .iter()
            .copied()
            .filter(|name| *name != "jwt_secret" || !needs_no_secret)
            .collect();
        let mut reader = Reader {
            sources: self,
            required: &required,
            problems: self.problems.clone(),
        };
        let settings = reader.read();
        let drain = parse::drain(settings.drain, settings.drain_delay, settings.drain_spread);
        // One that is no duration at all is noted already.
        if let (Err(problem), false) = (drain, settings.drain.is_zero()) {
            reader.problems.push(problem);
        }
        if reader.problems.is_empty() {
            Ok(settings)
        } else {
            Err(Error::Invalid {
                problems: reader.problems,
            })
        }
    }

    /// The values in effect and where each comes from, as a TOML file without its secrets.
    pub fn print(&self) -> String {
        let mut page = String::new();
        for setting in TABLE {
            let (value, origin) = match (self.resolve(setting.name), setting.default) {
                (Some((value, origin)), _) => (value, origin),
                (None, Default::Value(value)) => (value, "default"),
                (None, Default::Required | Default::Unset) => {
                    page.push_str(&format!("# {} is not set\n", setting.name));
                    continue;
                }
            };
            let shown = match setting.name {
                "database_url" => parse::without_password(value),
                _ if setting.secret => "***".to_owned(),
                _ => value.to_owned(),
            };
            page.push_str(&format!(
                "{} = {} # {origin}\n",
                setting.name,
                toml::Value::String(shown)
            ));
        }
        page.extend(self.issuers.iter().map(Issuer::print));
        page
    }
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    match parse::closest(name, known.iter().copied()) {
        Some(meant) => format!("unknown {what} `{name}`: did you mean `{meant}`?"),
        None => format!("unknown {what} `{name}`: known are {}", known.join(", ")),
    }
}

fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(yes) => Some(yes.to_string()),
        toml::Value::Array(items) => {
            let items: Option<Vec<String>> = items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect();
            Some(items?.join(","))
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

/// Reads value after value, and goes on after a wrong one so that all are reported.
pub(super) struct Reader<'a> {
    sources: &'a Sources,
    required: &'a [&'a str],
    problems: Vec<String>,
}

impl Reader<'_> {
    fn read(&mut self) -> Settings {
        Settings {
            database_url: Secret::new(
                self.value("database_url", |text| {
                    parse::database_url(text).map(|()| text.to_owned())
                })
                .unwrap_or_default(),
            ),
            database_ssl_root_cert: self.value("database_ssl_root_cert", |text| {
                let path = PathBuf::from(text);
                match path.is_file() {
                    true => Ok(path),
                    false => Err("there is no such file".to_owned()),
                }
            }),
            database_connections: self.count("database_connections", 1, 1_000) as u32,
            authorizer_connections: self.count("authorizer_connections", 1, 1_000) as u32,
            statement_timeout: self.duration("statement_timeout"),
            listen: self
                .value("listen", |text| {
                    text.parse().map_err(|_| {
                        "an address with its port, such as `127.0.0.1:4000`, is wanted".to_owned()
                    })
                })
                .unwrap_or_else(|| ([127, 0, 0, 1], 0).into()),
            max_connections: self.count("max_connections", 1, 10_000_000),
            max_channels: self.count("max_channels", 1, 1_000_000),
            max_message_bytes: self.size("max_message_bytes"),
            outbox_bytes: self.size("outbox_bytes"),
            recent_bytes: self.size("recent_bytes"),
            outbox_frames: self.count("outbox_frames", 16, 10_000_000),
            idle_timeout: self.duration("idle_timeout"),
            limits: LimitSettings::read(self),
            allowed_origins: self.value("allowed_origins", Origins::parse).unwrap_or(Origins::Any),
            drain_delay: self.duration("drain_delay"),
            drain_spread: self.duration("drain_spread"),
            drain: self.duration("drain"),
            jwt_secret: Secret::new(
                self.value("jwt_secret", |text| parse::shared_secret(text).map(str::to_owned))
                    .unwrap_or_default(),
            ),
            jwt_aud: self.value("jwt_aud", |text| Ok(text.to_owned())),
            jwt_iss: self.value("jwt_iss", |text| Ok(text.to_owned())),
            jwt_leeway: self
                .value("jwt_leeway", |text| match parse::duration(text)? {
                    leeway if leeway.as_secs() > 600 => Err("at most `10m` is wanted".to_owned()),
                    leeway => Ok(leeway),
                })
                .unwrap_or_default(),
            jwks: self.value("jwks", issuers::key_set),
            jwks_url: self.value("jwks_url", issuers::key_set_url),
            issuers: self.sources.issuers.clone(),
            watch: self.value("watch", parse::tables).unwrap_or_default(),
            poll_interval: self.duration("poll_interval"),
            doorbell: self
                .value("doorbell", |text| {
                    parse::choice(text, &[("auto", Doorbell::Auto), ("on", Doorbell::On)])
                })
                .unwrap_or(Doorbell::On),
            recheck_interval: self.duration("recheck_interval"),
            old_record: self
                .value("old_record", |text| {
                    parse::choice(
                        text,
                        &[("full", OldRecord::Full), ("identity", OldRecord::Identity)],
                    )
                })
                .unwrap_or(OldRecord::Identity),
            unauthorized_join: self
                .value("unauthorized_join", |text| {
                    parse::choice(
                        text,
                        &[
                            ("refuse", UnauthorizedJoin::Refuse),
                            ("system", UnauthorizedJoin::System),
                        ],
                    )
                })
                .unwrap_or(UnauthorizedJoin::Refuse),
            presence_default: self
                .value("presence_default", parse::boolean)
                .unwrap_or(true),
            private_only: self
                .value("private_only", parse::boolean)
                .unwrap_or(true),
            log: self
                .value("log", |text| {
                    tracing_subscriber::EnvFilter::try_new(text)
                        .map(|_| text.to_owned())
                        .map_err(|error| {
                            format!("{error}; a level such as `info`, or `info,gateway=debug`, is wanted")
                        })
                })
                .unwrap_or_default(),
            log_format: self
                .value("log_format", |text| {
                    parse::choice(text, &[("text", LogFormat::Text), ("json", LogFormat::Json)])
                })
                .unwrap_or(LogFormat::Text),
        }
    }

    /// The value of a setting, or nothing if it is not set or wrong; what is wrong is noted.
    pub(super) fn value<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let setting = table::find(name)?;
        let text = match (self.sources.resolve(name), setting.default) {
            (Some((text, _)), _) => text,
            (None, Default::Value(text)) => text,
            (None, Default::Required | Default::Unset) => {
                if self.required.contains(&name) {
                    self.problems.push(format!(
                        "{name} is not set: give {}, --{} or the key in the configuration file",
                        setting.variable(),
                        setting.flag()
                    ));
                }
                return None;
            }
        };
        if text.is_empty() && setting.default == Default::Required {
            self.problems.push(format!("{name} is empty"));
            return None;
        }
        match parse(text) {
            Ok(value) => Some(value),
            Err(wanted) => {
                let shown = match setting.secret {
                    true => String::new(),
                    false => format!(" is `{text}`"),
                };
                self.problems.push(format!("{name}{shown}: {wanted}"));
                None
            }
        }
    }

    fn duration(&mut self, name: &'static str) -> std::time::Duration {
        self.value(name, |text| {
            let duration = parse::duration(text)?;
            match duration.is_zero() && !MAY_BE_ZERO.contains(&name) {
                true => Err("more than nothing is wanted".to_owned()),
                false => Ok(duration),
            }
        })
        .unwrap_or_default()
    }

    fn count(&mut self, name: &'static str, least: usize, most: usize) -> usize {
        self.value(name, |text| parse::count(text, least, most))
            .unwrap_or_default()
    }

    pub(super) fn size(&mut self, name: &'static str) -> usize {
        self.value(name, |text| match parse::size(text)? {
            size if size < 1024 => Err("at least 1KiB is wanted".to_owned()),
            size => Ok(size),
        })
        .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(flags: &[(&'static str, &str)], env: &[(&str, &str)], file: &str) -> Sources {
        let mut sources = Sources::default();
        sources.layers.push(Layer {
            origin: "flag".to_owned(),
            values: flags
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect(),
        });
        sources.add_environment(
            env.iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        sources.add_file("tidings.toml", file);
        sources
    }

    fn problems(sources: &Sources) -> String {
        sources.load(&[]).unwrap_err().to_string()
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let file = "max_channels = 1\nmax_connections = 1\ndrain = \"9s\"\nwatch = [\"a.b\", \"c\"]\npresence_default = false";
        let env = [
            ("TIDINGS_MAX_CHANNELS", "2"),
            ("TIDINGS_MAX_CONNECTIONS", "2"),
            ("TIDINGS_JWT_AUD", ""),
        ];
        let settings = sources(&[("max_channels", "3")], &env, file)
            .load(&[])
            .unwrap();
        assert_eq!(settings.max_channels, 3);
        assert_eq!(settings.max_connections, 2);
        assert_eq!(settings.drain.as_secs(), 9);
        assert_eq!(settings.watch, ["a.b", "public.c"]);
        assert!(!settings.presence_default);
        assert_eq!(settings.jwt_aud, None);
    }

    #[test]
    fn unknown_names_are_refused_wherever_they_stand() {
        let wrong = problems(&sources(
            &[],
            &[
                ("TIDINGS_LISTN", "x"),
                ("TIDINGS_CONFIG", "f"),
                ("PATH", "p"),
            ],
            "poll = 1",
        ));
        assert!(
            wrong.contains("TIDINGS_LISTN") && wrong.contains("`TIDINGS_LISTEN`"),
            "{wrong}"
        );
        assert!(
            wrong.contains("tidings.toml: unknown key `poll`"),
            "{wrong}"
        );
        assert!(!wrong.contains("TIDINGS_CONFIG`"), "{wrong}");
        assert!(!wrong.contains("PATH"), "{wrong}");
    }

    #[test]
    fn a_wrong_secret_is_not_quoted() {
        let wrong = problems(&sources(
            &[("database_url", "mysql://u:hunter2@h/d")],
            &[],
            "",
        ));
        assert!(
            wrong.contains("database_url: ") && !wrong.contains("hunter2"),
            "{wrong}"
        );
        let wrong = problems(&sources(&[], &[], "jwt_secret = hunter2"));
        assert!(!wrong.contains("hunter2"), "{wrong}");
    }

    #[test]
    fn printing_shows_origins_and_masks_secrets() {
        let page = sources(
            &[("database_url", "postgres://u:hunter2@h/d")],
            &[("TIDINGS_JWT_SECRET", "hunter3")],
            "drain = \"9s\"",
        )
        .print();
        assert!(
            page.contains("database_url = \"postgres://u:***@h/d\" # flag"),
            "{page}"
        );
        assert!(
            page.contains("jwt_secret = \"***\" # environment"),
            "{page}"
        );
        assert!(page.contains("drain = \"9s\" # tidings.toml"), "{page}");
        assert!(
            page.contains("listen = \"127.0.0.1:4000\" # default"),
            "{page}"
        );
        assert!(page.contains("# jwt_aud is not set"), "{page}");
        assert!(page.parse::<toml::Table>().is_ok());
    }
}
