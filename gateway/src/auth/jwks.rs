//! A key set that an issuer publishes: fetched by a task of its own, kept while the issuer is away.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use reqwest::{Client, Response, StatusCode, redirect};
use tokio::sync::watch;

use super::keys::{KeySet, KeySetError, Origin};
use super::refresh::{Refresh, Timing};
use crate::metrics::names;

/// A set of a hundred RSA keys is a fifth of it.
const MAX_BYTES: usize = 256 * 1024;
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const TIMING: Timing = Timing {
    every: Duration::from_secs(600),
    after_failure: Duration::from_secs(30),
    gap: Duration::from_secs(5),
    wait: Duration::from_secs(3),
};

pub(super) struct Remote {
    /// For the log.
    issuer: String,
    url: String,
    fetch_timeout: Duration,
    keys: RwLock<Arc<KeySet>>,
    refresh: Refresh,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the issuer cannot be reached")]
    Request(#[source] reqwest::Error),
    #[error("the issuer answered with status {0}")]
    Status(StatusCode),
    #[error("the answer is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("the issuer did not answer in time")]
    Timeout,
    #[error(transparent)]
    Keys(#[from] KeySetError),
}

impl Remote {
    pub(super) fn new(issuer: &str, url: &str) -> Remote {
        Remote::with_timing(issuer, url, TIMING, FETCH_TIMEOUT)
    }

    pub(super) fn with_timing(
        issuer: &str,
        url: &str,
        timing: Timing,
        fetch_timeout: Duration,
    ) -> Remote {
        Remote {
            issuer: issuer.to_owned(),
            url: url.to_owned(),
            fetch_timeout,
            keys: RwLock::default(),
            refresh: Refresh::new(timing),
        }
    }

    pub(super) fn keys(&self) -> Arc<KeySet> {
        self.keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn refresh(&self) -> &Refresh {
        &self.refresh
    }

    /// Fetches, for ever. `changed` is told of every other set than the one before.
    pub(super) async fn run(&self, changed: &watch::Sender<u64>) {
        let client = Client::builder()
            // Keys come from where the settings say and from nowhere else.
            .redirect(redirect::Policy::none())
            .build();
        let client = match client {
            Ok(client) => client,
            Err(error) => {
                tracing::error!(
                    issuer = self.issuer,
                    error = &error as &dyn std::error::Error,
                    "there will be no keys: HTTP requests cannot be made here"
                );
                return;
            }
        };
        self.refresh.run(|| self.attempt(&client, changed)).await;
    }

    async fn attempt(&self, client: &Client, changed: &watch::Sender<u64>) -> bool {
        let fetched = tokio::time::timeout(self.fetch_timeout, self.fetch(client)).await;
        let result = fetched.unwrap_or(Err(Error::Timeout));
        let label = if result.is_ok() { "ok" } else { "failed" };
        metrics::counter!(names::JWKS_FETCHES, "result" => label).increment(1);
        match result {
            Ok(keys) => {
                self.replace(keys, changed);
                true
            }
            Err(error) => {
                tracing::warn!(
                    issuer = self.issuer,
                    error = &error as &dyn std::error::Error,
                    keys = self.keys().len(),
                    "the key set cannot be fetched: the keys that are known stay good"
                );
                false
            }
        }
    }

    async fn fetch(&self, client: &Client) -> Result<KeySet, Error> {
        // The URL is in the settings, and may hold a password: it does not belong into the log.
        let request = |error: reqwest::Error| Error::Request(error.without_url());
        let answer = client.get(&self.url).send().await.map_err(request)?;
        if answer.status() != StatusCode::OK {
            return Err(Error::Status(answer.status()));
        }
        let document = read(answer).await?;
        Ok(KeySet::parse(&document, Origin::Public)?)
    }

    fn replace(&self, keys: KeySet, changed: &watch::Sender<u64>) {
        if keys == *self.keys() {
            return;
        }
        tracing::info!(
            issuer = self.issuer,
            keys = keys.len(),
            "fetched a new key set"
        );
        for reason in keys.skipped() {
            tracing::warn!(issuer = self.issuer, reason, "a key cannot be used");
        }
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        changed.send_modify(|changes| *changes += 1);
    }
}

async fn read(mut answer: Response) -> Result<Vec<u8>, Error> {
    let mut document = Vec::new();
    while let Some(chunk) = answer
        .chunk()
        .await
        .map_err(|error| Error::Request(error.without_url()))?
    {
        if document.len() + chunk.len() > MAX_BYTES {
            return Err(Error::TooLarge);
        }
        document.extend_from_slice(&chunk);
    }
    Ok(document)
}
