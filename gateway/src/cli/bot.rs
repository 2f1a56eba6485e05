//! `tidings bot`: keys for senders that have no JWT. A key is printed once, on standard output and alone there.

use std::time::Duration;

use clap::Subcommand;
use serde_json::Map;
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection};

use crate::auth::{key_text, new_secret};
use crate::config::{Flags, Settings, Sources};
use crate::database::{self, bot_keys};

use super::token::add_claims;

/// For everything that is asked of the database.
const TIMEOUT: Duration = Duration::from_secs(15);

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a key and print it: this once, since only a hash of it is kept
    Create {
        /// The bot's name: letters, digits and `._:-`
        name: String,
        /// The database role that it acts as
        #[arg(long)]
        role: String,
        /// A claim that policies may read; the value is JSON if it parses as such, and text otherwise
        #[arg(long = "claim", value_name = "NAME=VALUE")]
        claims: Vec<String>,
        /// It may post so many messages a second over HTTP, and no more
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        messages_per_second: Option<u32>,
        #[command(flatten)]
        flags: Flags,
    },
    /// List the keys, revoked ones too
    List {
        #[command(flatten)]
        flags: Flags,
    },
    /// Revoke the key of a bot: running gateways refuse it within two seconds
    Revoke {
        name: String,
        #[command(flatten)]
        flags: Flags,
    },
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Keys(#[from] bot_keys::Error),
    #[error(
        "the database cannot be reached or refuses the login: is it running, and is DATABASE_URL right?"
    )]
    Connect(#[source] sqlx::Error),
    #[error("the database did not answer within {} seconds", TIMEOUT.as_secs())]
    Timeout,
    #[error("there is no random number to be had from this system")]
    Random,
    #[error("there is no key of that name, or it is revoked already: `tidings bot list` shows all")]
    NoSuchKey,
}

pub(super) fn run(arguments: Arguments) -> Result<(), super::Error> {
    match arguments.command {
        Command::Create {
            name,
            role,
            claims: given,
            messages_per_second,
            flags,
        } => {
            let mut claims = Map::new();
            add_claims(&mut claims, &given).map_err(super::Error::Usage)?;
            let settings = settings(flags)?;
            let (secret, key_hash) = new_secret().map_err(|_| Error::Random)?;
            let key = bot_keys::NewKey {
                name: &name,
                role: &role,
                claims,
                key_hash: &key_hash,
                messages_per_second,
            };
            super::block_on(async {
                let (id, without) = in_time(create(&settings, key)).await?;
                for login in without {
                    eprintln!(
                        "the gateway's login {login} may not become {role} yet: grant {role} to {login}"
                    );
                }
                println!("{}", key_text(id, &secret));
                Ok(())
            })
        }
        Command::List { flags } => {
            let settings = settings(flags)?;
            super::block_on(async {
                let keys = in_time(list(&settings)).await?;
                print!("{}", table(&keys));
                Ok(())
            })
        }
        Command::Revoke { name, flags } => {
            let settings = settings(flags)?;
            super::block_on(async {
                in_time(revoke(&settings, &name)).await?;
                println!("revoked");
                Ok(())
            })
        }
    }
}

fn settings(flags: Flags) -> Result<Settings, super::Error> {
    Ok(Sources::from_process(flags)?.load(&["database_url"])?)
}

async fn in_time<T>(
    work: impl Future<Output = Result<T, super::Error>>,
) -> Result<T, super::Error> {
    tokio::time::timeout(TIMEOUT, work)
        .await
        .unwrap_or_else(|_| Err(Error::Timeout.into()))
}

async fn connect(settings: &Settings) -> Result<PgConnection, super::Error> {
    let root_cert = settings.database_ssl_root_cert.as_deref();
    let options = database::pool_options(settings.database_url.expose(), root_cert)?;
    Ok(options.connect().await.map_err(Error::Connect)?)
}

/// The new key's id, and the gateways' logins that lack its role.
async fn create(
    settings: &Settings,
    key: bot_keys::NewKey<'_>,
) -> Result<(i64, Vec<String>), super::Error> {
    let role = key.role;
    let mut connection = connect(settings).await?;
    let id = bot_keys::create(&mut connection, key)
        .await
        .map_err(Error::Keys)?;
    let without = bot_keys::gateways_without(&mut connection, role)
        .await
        .map_err(Error::Keys)?;
    drop(connection.close().await);
    Ok((id, without))
}

async fn list(settings: &Settings) -> Result<Vec<bot_keys::Listed>, super::Error> {
    let mut connection = connect(settings).await?;
    let keys = bot_keys::list(&mut connection).await.map_err(Error::Keys)?;
    drop(connection.close().await);
    Ok(keys)
}

async fn revoke(settings: &Settings, name: &str) -> Result<(), super::Error> {
    let mut connection = connect(settings).await?;
    let revoked = bot_keys::revoke(&mut connection, name)
        .await
        .map_err(Error::Keys)?;
    drop(connection.close().await);
    match revoked {
        true => Ok(()),
        false => Err(Error::NoSuchKey.into()),
    }
}

fn table(keys: &[bot_keys::Listed]) -> String {
    let mut rows = vec![
        [
            "ID",
            "NAME",
            "ROLE",
            "PER SECOND",
            "CREATED (UTC)",
            "REVOKED (UTC)",
        ]
        .map(str::to_owned),
    ];
    rows.extend(keys.iter().map(|key| {
        [
            key.id.to_string(),
            key.name.clone(),
            key.role.clone(),
            key.messages_per_second
                .map_or("-".to_owned(), |rate| rate.to_string()),
            key.created.clone(),
            key.revoked.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }));
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut page = String::new();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        page.push_str(cells.join("  ").trim_end());
        page.push('\n');
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_a_line_for_each_key() {
        let listed = |id, name: &str, revoked: Option<&str>| bot_keys::Listed {
            id,
            name: name.to_owned(),
            role: "relay".to_owned(),
            messages_per_second: None,
            created: "2026-01-02 03:04".to_owned(),
            revoked: revoked.map(str::to_owned),
        };
        assert_eq!(table(&[]).lines().count(), 1);
        let page = table(&[
            listed(1, "sms", None),
            listed(12, "a-longer-name", Some("2026-02-01 00:00")),
        ]);
        let lines: Vec<_> = page.lines().collect();
        assert_eq!(
            lines[1],
            "1   sms            relay  -           2026-01-02 03:04  -"
        );
        assert!(lines[2].ends_with("2026-02-01 00:00"), "{page}");
    }
}
