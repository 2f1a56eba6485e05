//! Keys of bots: opaque text instead of a JWT, good until it is revoked.
//!
//! `tk_<id>_<secret>`. The database has the id and a hash of the secret; what is valid is held in memory and read again
//! every two seconds, so that a revoked key ends within that time. A secret is 256 random bits, so a plain hash will do.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::{constant_time, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::Instant;

use super::limit::PostLimit;
use super::refresh::{Refresh, Timing};
use super::{Principal, TokenError, Verified};
use crate::database::bot_keys::{BotKeys, StoredKey};
use crate::metrics::names;

const PREFIX: &str = "tk_";
/// 32 bytes in base64url.
const SECRET_CHARS: usize = 43;
const RELOAD_TIMEOUT: Duration = Duration::from_secs(5);
const TIMING: Timing = Timing {
    every: Duration::from_secs(2),
    after_failure: Duration::from_secs(2),
    gap: Duration::from_millis(500),
    wait: Duration::from_secs(3),
};

/// A new secret: what is shown once, and what is stored.
pub(crate) fn new_secret() -> Result<(String, Vec<u8>), aws_lc_rs::error::Unspecified> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes)?;
    let secret = URL_SAFE_NO_PAD.encode(bytes);
    let hash = hash(&secret);
    Ok((secret, hash))
}

/// The key as its bot sends it.
pub(crate) fn key_text(id: i64, secret: &str) -> String {
    format!("{PREFIX}{id}_{secret}")
}

pub(super) fn is_key(token: &str) -> bool {
    token.starts_with(PREFIX)
}

fn hash(secret: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, secret.as_bytes())
        .as_ref()
        .to_vec()
}

pub(super) struct Bots {
    table: RwLock<Arc<HashMap<i64, Bot>>>,
    refresh: Refresh,
    /// Whether the latest attempt failed: the log is told of the first one.
    failing: AtomicBool,
}

#[derive(Clone)]
struct Bot {
    key_hash: Vec<u8>,
    principal: Arc<Principal>,
    posts: Option<Arc<PostLimit>>,
}

impl Bots {
    pub(super) fn new() -> Bots {
        Bots {
            table: RwLock::default(),
            refresh: Refresh::new(TIMING),
            failing: AtomicBool::new(false),
        }
    }

    /// Whose key this is. An unknown id, a wrong secret and a revoked key are one to whoever asks.
    pub(super) fn verify(&self, key: &str) -> Result<Verified, TokenError> {
        let (id, secret) = parse(key).ok_or(TokenError::Malformed)?;
        let hash = hash(secret);
        match self.table().get(&id) {
            Some(bot) if equal(&bot.key_hash, &hash) => Ok(Verified {
                principal: bot.principal.clone(),
                expires_at: i64::MAX,
                posts: bot.posts.clone(),
            }),
            _ => Err(TokenError::Signature),
        }
    }

    /// Whether nothing is known of this key's id.
    pub(super) fn lacks(&self, key: &str) -> bool {
        parse(key).is_some_and(|(id, _)| !self.table().contains_key(&id))
    }

    pub(super) fn refresh(&self) -> &Refresh {
        &self.refresh
    }

    /// Reads the table again, for ever. `changed` is told when a key comes, goes or means something else.
    pub(super) async fn run(&self, stored: &BotKeys, changed: &watch::Sender<u64>) {
        self.refresh.run(|| self.attempt(stored, changed)).await;
    }

    async fn attempt(&self, stored: &BotKeys, changed: &watch::Sender<u64>) -> bool {
        let loaded = tokio::time::timeout(RELOAD_TIMEOUT, stored.load()).await;
        let error = match loaded {
            Ok(Ok(keys)) => {
                if self.replace(keys, Instant::now()) {
                    changed.send_modify(|changes| *changes += 1);
                }
                self.failing.store(false, Ordering::Relaxed);
                return true;
            }
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        metrics::counter!(names::BOT_KEY_FAILURES).increment(1);
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                error = error.as_ref().map(|error| error as &dyn std::error::Error),
                "the bot keys cannot be read: those that are known stay good"
            );
        }
        false
    }

    /// Returns whether anything is different now.
    fn replace(&self, keys: Vec<StoredKey>, now: Instant) -> bool {
        let before = self.table();
        let mut changed = before.len() != keys.len();
        let mut after = HashMap::with_capacity(keys.len());
        for key in keys {
            let id = key.id;
            let (bot, same) = Bot::after(before.get(&id), key, now);
            changed |= !same;
            after.insert(id, bot);
        }
        if changed {
            tracing::debug!(keys = after.len(), "the bot keys have changed");
            *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(after);
        }
        changed
    }

    fn table(&self) -> Arc<HashMap<i64, Bot>> {
        self.table
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Bot {
    /// The bot as it is stored now, and whether that is the same as before. A limit that stays keeps its count.
    fn after(before: Option<&Bot>, key: StoredKey, now: Instant) -> (Bot, bool) {
        let mut claims: Map<String, Value> = key.claims;
        claims.insert("role".to_owned(), Value::from(key.role.as_str()));
        claims
            .entry("sub")
            .or_insert_with(|| Value::from(format!("bot:{}", key.name)));
        let principal = Principal::new(&key.role, &claims);
        let rate = key.messages_per_second;
        if let Some(before) = before
            && before.key_hash == key.key_hash
            && *before.principal == principal
            && before.posts.as_ref().map(|posts| posts.per_second()) == rate
        {
            return (before.clone(), true);
        }
        let bot = Bot {
            key_hash: key.key_hash,
            principal: Arc::new(principal),
            posts: rate.map(|rate| Arc::new(PostLimit::new(rate, now))),
        };
        (bot, false)
    }
}

fn parse(key: &str) -> Option<(i64, &str)> {
    let (id, secret) = key.strip_prefix(PREFIX)?.split_once('_')?;
    // `+7` and `007` would be other names for 7.
    let plain = id.bytes().all(|digit| digit.is_ascii_digit()) && !id.starts_with('0');
    let id = id.parse().ok().filter(|_| plain)?;
    (secret.len() == SECRET_CHARS).then_some((id, secret))
}

fn equal(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stored(id: i64, key_hash: &[u8], rate: Option<u32>) -> StoredKey {
        let Value::Object(claims) = json!({"tenant": 7, "role": "service_role"}) else {
            unreachable!()
        };
        StoredKey {
            id,
            name: "relay".to_owned(),
            role: "authenticated".to_owned(),
            claims,
            key_hash: key_hash.to_vec(),
            messages_per_second: rate,
        }
    }

    #[test]
    fn a_key_is_good_from_the_time_it_is_read_until_it_is_gone() {
        let bots = Bots::new();
        let (secret, hash) = new_secret().unwrap();
        let key = key_text(7, &secret);
        assert_eq!(bots.verify(&key).unwrap_err(), TokenError::Signature);
        assert!(bots.lacks(&key));

        assert!(bots.replace(vec![stored(7, &hash, Some(2))], Instant::now()));
        let verified = bots.verify(&key).unwrap();
        assert_eq!(verified.expires_at, i64::MAX);
        assert_eq!(&*verified.principal.role, "authenticated");
        assert_eq!(&*verified.principal.subject, "bot:relay");
        assert_eq!(
            serde_json::from_str::<Value>(&verified.principal.claims).unwrap(),
            json!({"tenant": 7, "role": "authenticated", "sub": "bot:relay"})
        );
        assert!(!bots.lacks(&key));

        // Read again, nothing is new, and the limit still knows what was posted.
        assert!(verified.posts.unwrap().take(2, Instant::now()));
        assert!(!bots.replace(vec![stored(7, &hash, Some(2))], Instant::now()));
        assert!(
            !bots
                .verify(&key)
                .unwrap()
                .posts
                .unwrap()
                .take(2, Instant::now())
        );
        assert!(bots.replace(vec![stored(7, &hash, None)], Instant::now()));
        assert!(bots.verify(&key).unwrap().posts.is_none());

        assert!(bots.replace(vec![], Instant::now()));
        assert_eq!(bots.verify(&key).unwrap_err(), TokenError::Signature);
    }

    #[test]
    fn what_is_almost_a_key_is_none() {
        let bots = Bots::new();
        let (secret, hash) = new_secret().unwrap();
        bots.replace(vec![stored(7, &hash, None)], Instant::now());
        let other = format!("{}A", &secret[..42]);
        let other = if other == secret {
            secret.replace('A', "B")
        } else {
            other
        };
        for (key, error) in [
            (key_text(8, &secret), TokenError::Signature),
            (key_text(7, &"x".repeat(43)), TokenError::Signature),
            (key_text(7, &other), TokenError::Signature),
            (key_text(7, &secret[1..]), TokenError::Malformed),
            (key_text(7, &format!("{secret}x")), TokenError::Malformed),
            (format!("tk_07_{secret}"), TokenError::Malformed),
            (format!("tk_+7_{secret}"), TokenError::Malformed),
            (format!("tk__{secret}"), TokenError::Malformed),
            (
                format!("tk_99999999999999999999_{secret}"),
                TokenError::Malformed,
            ),
            ("tk_".to_owned(), TokenError::Malformed),
        ] {
            assert_eq!(bots.verify(&key).unwrap_err(), error, "{key}");
        }
    }

    #[test]
    fn secrets_differ_and_have_their_length() {
        let (first, _) = new_secret().unwrap();
        let (second, hash) = new_secret().unwrap();
        assert_ne!(first, second);
        assert_eq!((first.len(), hash.len()), (SECRET_CHARS, 32));
    }
}
