//! A token in, a principal or a named refusal out.
//!
//! The rules are those of the server whose clients we serve: the token may be percent-encoded and may hold white space,
//! `exp` has no leeway, `role` and `exp` must be there, and no other claim is looked at unless the settings name it. Other
//! issuers have rules of their own, and bots have keys instead of tokens. Tokens are never logged; [`Principal`] hides its
//! claims from `Debug`.
//!
//! [`Verifier::verify`] never waits: it knows what tasks of its own have fetched. What it does not know yet, it may
//! [`learn`](Verifier::learn).

mod bots;
mod issuer;
mod jwks;
mod keys;
mod limit;
mod refresh;
mod sign;
mod token;

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::config::Settings;
use crate::database::bot_keys::BotKeys;
use crate::lifecycle::Lifecycle;

use bots::Bots;
use issuer::Issuer;
use token::Token;

pub(crate) use bots::{key_text, new_secret};
pub use keys::{KeySet, KeySetError, Origin};
pub use limit::PostLimit;
pub use sign::{SignError, sign};
pub(crate) use token::percent_decoded;

/// Checks tokens against the keys and the expectations of the settings, and keys of bots.
pub struct Verifier {
    /// For tokens that name none of the others.
    own: Issuer,
    others: Vec<(String, Issuer)>,
    bots: Arc<Bots>,
    changes: watch::Sender<u64>,
}

/// What a token is, before anything of it is believed.
enum Credential {
    BotKey(String),
    Token(Box<Token>),
}

impl Verifier {
    /// Knows what the settings hold. What is elsewhere, it knows once it is [started](Verifier::start).
    pub fn new(settings: &Settings) -> Verifier {
        let other =
            |issuer: &crate::config::Issuer| (issuer.iss.clone(), Issuer::other(issuer, settings));
        Verifier {
            own: Issuer::own(settings),
            others: settings.issuers.iter().map(other).collect(),
            bots: Arc::new(Bots::new()),
            changes: watch::Sender::default(),
        }
    }

    /// Begins to fetch key sets and to read the keys of bots, and waits a moment for the first of them. An issuer that is
    /// away does not keep the gateway from starting.
    pub(crate) async fn start(&self, lifecycle: &Lifecycle, bot_keys: BotKeys) {
        let (bots, changes) = (self.bots.clone(), self.changes.clone());
        lifecycle.spawn_background(async move { bots.run(&bot_keys, &changes).await });
        futures::future::join(self.bots.refresh().first(), self.start_fetching(lifecycle)).await;
    }

    async fn start_fetching(&self, lifecycle: &Lifecycle) {
        for remote in self.remotes() {
            let (remote, changes) = (remote.clone(), self.changes.clone());
            lifecycle.spawn_background(async move { remote.run(&changes).await });
        }
        let issuers = self.remotes().map(|remote| remote.refresh().first());
        futures::future::join_all(issuers).await;
    }

    /// Who presents this token, and until when. `now_unix` is in seconds.
    pub fn verify(&self, token: &str, now_unix: i64) -> Result<Verified, TokenError> {
        match credential(token)? {
            Credential::BotKey(key) => self.bots.verify(&key),
            Credential::Token(token) => {
                let issuer = self.issuer(&token);
                issuer.check_signature(&token)?;
                issuer.check_claims(token.claims, now_unix)
            }
        }
    }

    /// Whether a token that was refused might be good after [`learn`](Verifier::learn): its key is not known, and it is
    /// not so long since somebody was asked about keys that asking again is refused.
    pub fn may_learn(&self, token: &str) -> bool {
        match credential(token) {
            Ok(Credential::BotKey(key)) => self.bots.lacks(&key) && self.bots.refresh().may_ask(),
            Ok(Credential::Token(token)) => {
                let issuer = self.issuer(&token);
                let remote = issuer.remote().filter(|remote| remote.refresh().may_ask());
                remote.is_some()
                    && keys::is_asymmetric(&token)
                    && matches!(
                        issuer.check_signature(&token),
                        Err(TokenError::Signer { kid: Some(_) })
                    )
            }
            Err(_) => false,
        }
    }

    /// Asks for the key of this token, if that [may](Verifier::may_learn) be. Takes three seconds at most.
    pub async fn learn(&self, token: &str) {
        if !self.may_learn(token) {
            return;
        }
        match credential(token) {
            Ok(Credential::BotKey(_)) => self.bots.refresh().ask().await,
            Ok(Credential::Token(token)) => {
                if let Some(remote) = self.issuer(&token).remote() {
                    remote.refresh().ask().await;
                }
            }
            Err(_) => {}
        }
    }

    /// [`verify`](Verifier::verify), and again if there was something to learn.
    pub async fn verify_or_learn(&self, token: &str) -> Result<Verified, TokenError> {
        // Twice: what is learned first may have been asked for before the key was made.
        for _ in 0..2 {
            let verified = self.verify(token, now_unix());
            if verified.is_ok() || !self.may_learn(token) {
                return verified;
            }
            self.learn(token).await;
        }
        self.verify(token, now_unix())
    }

    /// Whether a token that was good is still trusted: its key has not gone, or been revoked. Says nothing of its expiry.
    pub fn still_valid(&self, token: &str) -> bool {
        self.trust(token).is_ok()
    }

    /// The same, with the reason if it is not.
    pub fn trust(&self, token: &str) -> Result<(), TokenError> {
        match credential(token)? {
            Credential::BotKey(key) => self.bots.verify(&key).map(drop),
            Credential::Token(token) => self.issuer(&token).check_signature(&token),
        }
    }

    /// Changes whenever [`still_valid`](Verifier::still_valid) may have another answer than before.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn remotes(&self) -> impl Iterator<Item = &Arc<jwks::Remote>> {
        let others = self.others.iter().map(|(_, issuer)| issuer);
        others.chain([&self.own]).filter_map(Issuer::remote)
    }

    /// Who must have signed this token. One that names an issuer is checked by that issuer's keys alone.
    fn issuer(&self, token: &Token) -> &Issuer {
        let iss = token.claims.get("iss").and_then(Value::as_str);
        let named = self.others.iter().find(|(name, _)| Some(&**name) == iss);
        named.map_or(&self.own, |(_, issuer)| issuer)
    }
}

fn credential(token: &str) -> Result<Credential, TokenError> {
    let token = token::cleaned(token).ok_or(TokenError::Malformed)?;
    if bots::is_key(&token) {
        return Ok(Credential::BotKey(token));
    }
    let token = Token::parse(token).ok_or(TokenError::Malformed)?;
    Ok(Credential::Token(Box::new(token)))
}

/// On whose behalf the database is asked.
#[derive(PartialEq, Eq, Hash)]
pub struct Principal {
    pub role: Box<str>,
    /// All claims, as compact JSON.
    pub claims: Box<str>,
    /// The claim `sub`, or nothing.
    pub subject: Box<str>,
}

impl Principal {
    fn new(role: &str, claims: &Map<String, Value>) -> Principal {
        let subject = match claims.get("sub") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(sub)) => sub.clone(),
            Some(other) => other.to_string(),
        };
        Principal {
            role: role.into(),
            claims: Value::Object(claims.clone()).to_string().into(),
            subject: subject.into(),
        }
    }

    /// A role of our own choosing with no claims but that: what the server itself does, it does as somebody.
    pub fn of_role(role: &str) -> Principal {
        let claims = Map::from_iter([("role".to_owned(), Value::from(role))]);
        Principal::new(role, &claims)
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal")
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
pub struct Verified {
    pub principal: Arc<Principal>,
    /// Seconds since 1970; the greatest number for a bot's key, which is good until it is revoked.
    pub expires_at: i64,
    /// How many messages may be posted with it; nothing if nobody said so.
    pub posts: Option<Arc<PostLimit>>,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the token is neither a JWT nor a bot's key")]
    Malformed,
    #[error(
        "the token's signature is wrong, or the bot's key is unknown or revoked: is it meant for this gateway?"
    )]
    Signature,
    #[error("there is no key for the token's algorithm and key id")]
    Signer { kid: Option<String> },
    #[error("the token expired {seconds_ago} seconds ago")]
    Expired { seconds_ago: i64 },
    #[error("the token lacks the claim `role` or `exp`")]
    MissingClaims,
    #[error("{0}")]
    Other(String),
}

/// Seconds since 1970, as [`Verifier::verify`] wants them.
pub fn now_unix() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs().try_into().unwrap_or(i64::MAX))
}

/// Whom an operator means: all that is given must fit.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whom {
    /// The claim `sub`.
    pub sub: Option<String>,
    pub role: Option<String>,
    /// Claims that must have just these values.
    #[serde(default)]
    pub claims: serde_json::Map<String, serde_json::Value>,
}

impl Whom {
    /// Nobody in particular, which an operator hardly means.
    pub fn is_everybody(&self) -> bool {
        self.sub.is_none() && self.role.is_none() && self.claims.is_empty()
    }

    pub fn fits(&self, principal: &Principal) -> bool {
        self.sub
            .as_deref()
            .is_none_or(|sub| sub == &*principal.subject)
            && self
                .role
                .as_deref()
                .is_none_or(|role| role == &*principal.role)
            && (self.claims.is_empty() || {
                let claims: serde_json::Map<String, serde_json::Value> =
                    serde_json::from_str(&principal.claims).unwrap_or_default();
                self.claims
                    .iter()
                    .all(|(name, value)| claims.get(name) == Some(value))
            })
    }
}

#[cfg(test)]
mod tests;
