//! The private PostgreSQL of `tidings dev`, and what has to be in it.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use devpg::{Cluster, Options, Origin};
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection};

use crate::config::Secret;
use crate::database;

use super::Error;
use super::page::say;

const DATABASE: &str = "tidings";

pub(super) struct DevCluster {
    /// Taken out while a thread that may block works on it.
    cluster: Option<Cluster>,
    url: String,
    maintenance_url: String,
}

impl DevCluster {
    /// Finds or fetches PostgreSQL, and starts it on the data directory.
    pub(super) async fn start(
        data: &Path,
        preferred: Option<PathBuf>,
    ) -> Result<DevCluster, Error> {
        let data = data.to_owned();
        let cluster =
            tokio::task::spawn_blocking(move || start(&data, preferred.as_deref())).await??;
        Ok(DevCluster {
            url: cluster.url(DATABASE),
            maintenance_url: cluster.url("postgres"),
            cluster: Some(cluster),
        })
    }

    pub(super) fn url(&self) -> String {
        self.url.clone()
    }

    /// Makes the database if there is none, and anew if `reset`. Says whether it is new.
    pub(super) async fn create_database(&self, reset: bool) -> Result<bool, super::super::Error> {
        let mut connection = connect(&self.maintenance_url).await?;
        if reset {
            sqlx::raw_sql("drop database if exists tidings with (force)")
                .execute(&mut connection)
                .await
                .map_err(Error::Prepare)?;
        }
        let exists: bool =
            sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
                .bind(DATABASE)
                .fetch_one(&mut connection)
                .await
                .map_err(Error::Prepare)?;
        if !exists {
            sqlx::raw_sql("create database tidings")
                .execute(&mut connection)
                .await
                .map_err(Error::Prepare)?;
        }
        drop(connection.close().await);
        Ok(!exists)
    }

    /// Loads the demo's schema and people, unless chats are there already. All of it or nothing.
    pub(super) async fn load_demo(&self) -> Result<bool, super::super::Error> {
        let mut connection = connect(&self.url).await?;
        let loaded: bool =
            sqlx::query_scalar("select to_regclass('public.chat_sessions') is not null")
                .fetch_one(&mut connection)
                .await
                .map_err(Error::Prepare)?;
        if !loaded {
            let mut transaction = connection.begin().await.map_err(Error::Prepare)?;
            for statements in [
                include_str!("../../../demo/schema.sql"),
                include_str!("../../../demo/people.sql"),
            ] {
                sqlx::raw_sql(statements)
                    .execute(&mut *transaction)
                    .await
                    .map_err(Error::Prepare)?;
            }
            transaction.commit().await.map_err(Error::Prepare)?;
        }
        drop(connection.close().await);
        Ok(!loaded)
    }

    pub(super) async fn stop(&mut self) -> Result<(), Error> {
        let Some(mut cluster) = self.cluster.take() else {
            return Ok(());
        };
        Ok(tokio::task::spawn_blocking(move || cluster.stop()).await??)
    }
}

async fn connect(url: &str) -> Result<PgConnection, super::super::Error> {
    let options = database::pool_options(url, None)?;
    Ok(options.connect().await.map_err(Error::Prepare)?)
}

fn start(data: &Path, preferred: Option<&Path>) -> Result<Cluster, Error> {
    let as_file = |source| Error::File {
        path: data.to_owned(),
        source,
    };
    std::fs::create_dir_all(data).map_err(as_file)?;
    let data = data.canonicalize().map_err(as_file)?;

    let found = devpg::find_or_fetch(preferred, &data.join("cache"), &mut |line| say(line))?;
    let origin = match found.origin {
        Origin::Fetched => "fetched",
        _ => "found",
    };
    say(&format!(
        "{origin} PostgreSQL {} in {}",
        found.version,
        found.bin_dir.display()
    ));
    let cluster = Cluster::start(
        &found,
        Options {
            data_dir: data.join("postgres"),
            port: None,
            settings: Vec::new(),
            durable: true,
        },
    )?;
    say(&format!(
        "started it on port {}, with its data in {}",
        cluster.port(),
        cluster.data_dir().display()
    ));
    Ok(cluster)
}

/// The secret that signs the demo's tokens: kept, so that tokens outlive a restart, and for this user's eyes only.
pub(super) fn secret(path: &Path) -> Result<Secret, Error> {
    let as_file = |source| Error::File {
        path: path.to_owned(),
        source,
    };
    match std::fs::read_to_string(path) {
        Ok(secret) if secret.trim().len() >= 32 => return Ok(Secret::new(secret.trim())),
        // Cut short by a full disk, say.
        Ok(_) => std::fs::remove_file(path).map_err(as_file)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(as_file(error)),
    }
    let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(secret.as_bytes()))
        .map_err(as_file)?;
    Ok(Secret::new(secret))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_secret_is_kept_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jwt_secret");
        let first = secret(&path).unwrap();
        assert!(first == secret(&path).unwrap());
        assert!(first.expose().len() >= 32);
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );

        std::fs::write(&path, "short").unwrap();
        assert!(secret(&path).unwrap() != first);
    }
}
