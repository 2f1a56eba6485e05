//! The demo chat of `tidings dev`: its page, and the few answers that the page asks for beside the gateway's own.
//!
//! Nothing of this is part of `tidings serve`: it hands out tokens to whoever asks.

mod answers;
mod assets;
mod bot;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use crate::app::App;
use crate::auth::{self, SignError};

/// Who can be chosen on the page. `gateway/demo/schema.sql` and `people.sql` know the same ones.
const PEOPLE: [(&str, Option<&str>); 4] = [
    ("Ada", Some("usr_Ada0000000000000000001")),
    ("Bob", Some("usr_Bob0000000000000000002")),
    ("Eve", Some("usr_Eve0000000000000000003")),
    ("Anon (read only)", None),
];

/// Answers that the bot may be giving at once.
const MAX_BOTS: usize = 8;

#[derive(Clone)]
pub(crate) struct Demo {
    app: Arc<App>,
    bots: Arc<Semaphore>,
}

#[derive(Serialize)]
pub(crate) struct User {
    pub(crate) sub: Option<&'static str>,
    pub(crate) name: &'static str,
    pub(crate) role: &'static str,
    pub(crate) token: String,
}

impl User {
    /// The name as a link has it.
    pub(crate) fn short(&self) -> &'static str {
        self.name.split(' ').next().unwrap_or(self.name)
    }
}

impl Demo {
    pub(crate) fn new(app: Arc<App>) -> Demo {
        Demo {
            app,
            bots: Arc::new(Semaphore::new(MAX_BOTS)),
        }
    }

    pub(crate) fn routes(&self) -> Router {
        Router::new()
            .route("/demo/users", get(answers::users))
            .route("/demo/sessions", get(answers::sessions))
            .route("/demo/messages", get(answers::messages))
            .route("/demo/bot", post(bot::handle))
            .with_state(self.clone())
            .merge(assets::routes())
    }

    /// Everybody, each with a new token.
    pub(crate) fn users(&self, lifetime: Duration) -> Result<Vec<User>, SignError> {
        let now = auth::now_unix();
        let expires = now.saturating_add_unsigned(lifetime.as_secs());
        PEOPLE
            .into_iter()
            .map(|(name, sub)| {
                let role = match sub {
                    Some(_) => "authenticated",
                    None => "anon",
                };
                let mut claims = Map::from_iter([
                    ("role".to_owned(), Value::from(role)),
                    ("iat".to_owned(), Value::from(now)),
                    ("exp".to_owned(), Value::from(expires)),
                ]);
                if let Some(sub) = sub {
                    claims.insert("sub".to_owned(), Value::from(sub));
                }
                let settings = &self.app.settings;
                for (name, value) in [("aud", &settings.jwt_aud), ("iss", &settings.jwt_iss)] {
                    if let Some(value) = value {
                        claims.insert(name.to_owned(), Value::from(value.as_str()));
                    }
                }
                let token = auth::sign(&claims, &settings.jwt_secret)?;
                Ok(User {
                    sub,
                    name,
                    role,
                    token,
                })
            })
            .collect()
    }
}
