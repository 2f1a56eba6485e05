//! Who may sign tokens, and what its tokens must say: keys, expected claims, and what they mean here.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::jwks::Remote;
use super::keys::{KeySet, SharedSecret};
use super::token::Token;
use super::{Principal, TokenError, Verified};
use crate::config::{self, Settings};

pub(super) struct Issuer {
    secret: Option<SharedSecret>,
    inline: Option<Arc<KeySet>>,
    remote: Option<Arc<Remote>>,
    iss: Option<String>,
    aud: Option<Audience>,
    leeway: i64,
    /// What the server whose protocol we speak does not look at.
    not_before: bool,
    role_claim: String,
    role_map: Option<BTreeMap<String, String>>,
    default_role: Option<String>,
    subject_claim: String,
}

enum Audience {
    /// The claim must be this text.
    Exactly(String),
    /// It must be this text, or a list with it.
    Among(String),
}

impl Issuer {
    /// The issuer of `jwt_secret`, `jwks` and `jwks_url`: Supabase, or whoever calls the tokens by its rules.
    pub(super) fn own(settings: &Settings) -> Issuer {
        let secret = settings.jwt_secret.expose();
        if !secret.is_empty() && secret.len() < 32 {
            tracing::warn!(
                "jwt_secret is shorter than 32 bytes and can be guessed from any token: use a longer one"
            );
        }
        let url = settings.jwks_url.as_deref();
        Issuer {
            secret: SharedSecret::new(secret.as_bytes()),
            inline: settings.jwks.clone(),
            remote: url.map(|url| Arc::new(Remote::new("of the settings", url))),
            iss: settings.jwt_iss.clone(),
            aud: settings.jwt_aud.clone().map(Audience::Exactly),
            leeway: seconds(settings),
            not_before: false,
            role_claim: "role".to_owned(),
            role_map: None,
            default_role: None,
            subject_claim: "sub".to_owned(),
        }
    }

    /// One of the list `[[issuer]]`.
    pub(super) fn other(issuer: &config::Issuer, settings: &Settings) -> Issuer {
        let secret = issuer
            .secret
            .as_ref()
            .map(|secret| secret.expose().as_bytes());
        let url = issuer.jwks_url.as_deref();
        Issuer {
            secret: secret.and_then(SharedSecret::new),
            inline: issuer.jwks.clone(),
            remote: url.map(|url| Arc::new(Remote::new(&issuer.iss, url))),
            iss: Some(issuer.iss.clone()),
            aud: issuer.aud.clone().map(Audience::Among),
            leeway: seconds(settings),
            not_before: true,
            role_claim: issuer.role_claim.clone(),
            role_map: issuer.role_map.clone(),
            default_role: issuer.default_role.clone(),
            subject_claim: issuer.subject_claim.clone(),
        }
    }

    pub(super) fn remote(&self) -> Option<&Arc<Remote>> {
        self.remote.as_ref()
    }

    #[cfg(test)]
    pub(super) fn with_remote(mut self, remote: Remote) -> Issuer {
        self.remote = Some(Arc::new(remote));
        self
    }

    /// Whether this issuer has signed the token, as far as is known now.
    pub(super) fn check_signature(&self, token: &Token) -> Result<(), TokenError> {
        let by_kid = |keys: &KeySet| keys.check(token);
        let checked = self
            .inline
            .as_deref()
            .and_then(by_kid)
            .or_else(|| by_kid(&self.remote.as_ref()?.keys()))
            .or_else(|| self.secret.as_ref()?.check(token));
        match checked {
            Some(true) => Ok(()),
            Some(false) => Err(TokenError::Signature),
            None => Err(TokenError::Signer {
                kid: token.kid().map(str::to_owned),
            }),
        }
    }

    pub(super) fn check_claims(
        &self,
        mut claims: Map<String, Value>,
        now_unix: i64,
    ) -> Result<Verified, TokenError> {
        let other = |text: &str| TokenError::Other(text.to_owned());
        let expires_at = match claims.get("exp") {
            None | Some(Value::Null) => None,
            Some(exp) => {
                Some(whole_seconds(exp).ok_or_else(|| other("claim exp must be a number"))?)
            }
        };
        // The end of time stays where it is.
        let until = expires_at.map(|exp| exp.saturating_add(self.leeway));
        if let Some(expires_at) = expires_at
            && until.is_some_and(|until| until <= now_unix)
        {
            return Err(TokenError::Expired {
                seconds_ago: now_unix.saturating_sub(expires_at),
            });
        }
        if claims.get("iat").is_some_and(|iat| !iat.is_number()) {
            return Err(other("claim iat must be a number"));
        }
        if self.not_before
            && let Some(nbf) = claims.get("nbf")
        {
            let nbf = whole_seconds(nbf).ok_or_else(|| other("claim nbf must be a number"))?;
            if nbf > now_unix.saturating_add(self.leeway) {
                return Err(other("the token is not good yet"));
            }
        }
        self.check_expected(&claims)?;
        let role = self.role(&claims)?;
        let (Some(role), Some(expires_at)) = (role, until) else {
            return Err(TokenError::MissingClaims);
        };
        // What policies read is what the gateway acts on.
        if claims.get("role").and_then(Value::as_str) != Some(&*role) {
            claims.insert("role".to_owned(), Value::from(role.as_str()));
        }
        if self.subject_claim != "sub" {
            match claims.get(&self.subject_claim).cloned() {
                Some(subject) => claims.insert("sub".to_owned(), subject),
                None => claims.remove("sub"),
            };
        }
        Ok(Verified {
            principal: Arc::new(Principal::new(&role, &claims)),
            expires_at,
            posts: None,
        })
    }

    fn check_expected(&self, claims: &Map<String, Value>) -> Result<(), TokenError> {
        let aud = claims.get("aud");
        let aud_fits = match &self.aud {
            None => true,
            Some(Audience::Exactly(wanted)) => aud.and_then(Value::as_str) == Some(wanted),
            Some(Audience::Among(wanted)) => match aud {
                Some(Value::Array(all)) => all.iter().any(|aud| aud == wanted.as_str()),
                aud => aud.and_then(Value::as_str) == Some(wanted),
            },
        };
        let iss_fits =
            self.iss.is_none() || claims.get("iss").and_then(Value::as_str) == self.iss.as_deref();
        match (aud_fits, iss_fits) {
            (true, true) => Ok(()),
            (false, _) => Err(TokenError::Other(
                "claim aud is not accepted here".to_owned(),
            )),
            (_, false) => Err(TokenError::Other(
                "claim iss is not accepted here".to_owned(),
            )),
        }
    }

    /// The database role, if the token or the settings name one.
    fn role(&self, claims: &Map<String, Value>) -> Result<Option<String>, TokenError> {
        let claimed = match claims.get(&self.role_claim) {
            None | Some(Value::Null) => None,
            Some(Value::String(role)) => match &self.role_map {
                None => Some(role),
                // What the map does not name is no role of ours, whatever the issuer means by it.
                Some(map) => map.get(role),
            },
            Some(_) => return Err(TokenError::Other("claim role must be text".to_owned())),
        };
        match claimed.or(self.default_role.as_ref()) {
            // PostgreSQL takes `none` for whoever logged in, which is the gateway itself.
            Some(role) if role == "none" => {
                Err(TokenError::Other("claim role is `none`".to_owned()))
            }
            role => Ok(role.cloned()),
        }
    }
}

fn seconds(settings: &Settings) -> i64 {
    i64::try_from(settings.jwt_leeway.as_secs()).unwrap_or(i64::MAX)
}

/// A number of seconds; decimals are rounded, and what is beyond all time is the end of it.
fn whole_seconds(value: &Value) -> Option<i64> {
    let number = value.as_number()?;
    number
        .as_i64()
        .or_else(|| number.as_u64().map(|_| i64::MAX))
        .or_else(|| number.as_f64().map(|seconds| seconds.round() as i64))
}
