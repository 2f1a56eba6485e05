//! Who subscribes: roles with every relation to a table that PostgreSQL knows, and claims of every form.

use serde_json::{Value, json};

use crate::support::{TestDatabase, token};

pub(super) const IDS: [&str; 4] = [
    "10000000-0000-4000-8000-000000000000",
    "10000000-0000-4000-8000-000000000001",
    "10000000-0000-4000-8000-000000000002",
    "10000000-0000-4000-8000-000000000003",
];

/// Roles belong to the cluster, which other tests share: their names carry the database's.
pub(super) struct Roles {
    pub(super) parent: String,
    pub(super) child: String,
    pub(super) aloof: String,
    pub(super) bypass: String,
    pub(super) owner: String,
    pub(super) stranger: String,
}

pub(super) struct Person {
    pub(super) role: String,
    pub(super) claims: Value,
}

impl Roles {
    pub(super) async fn create(database: &TestDatabase) -> Roles {
        let prefix = database.text("select current_database()").await;
        let roles = Roles {
            parent: format!("{prefix}_parent"),
            child: format!("{prefix}_child"),
            aloof: format!("{prefix}_aloof"),
            bypass: format!("{prefix}_bypass"),
            owner: format!("{prefix}_owner"),
            stranger: format!("{prefix}_stranger"),
        };
        let Roles {
            parent,
            child,
            aloof,
            bypass,
            owner,
            stranger,
        } = &roles;
        database
            .execute(&format!(
                "create role {parent}; create role {child} inherit; create role {aloof} noinherit;
                 create role {bypass} bypassrls; create role {owner}; create role {stranger};
                 grant {parent} to {child}; grant {parent} to {aloof};
                 grant {parent}, {child}, {aloof}, {bypass}, {owner}, {stranger} to tidings_server"
            ))
            .await;
        roles
    }

    /// All that may be granted something.
    pub(super) fn granted(&self) -> Vec<String> {
        let built_in = ["anon", "authenticated"].map(str::to_owned);
        let own = [
            &self.parent,
            &self.child,
            &self.aloof,
            &self.bypass,
            &self.owner,
        ];
        built_in
            .into_iter()
            .chain(own.into_iter().cloned())
            .collect()
    }

    pub(super) fn people(&self) -> Vec<Person> {
        let person = |role: &str, mut claims: Value| {
            claims["role"] = role.into();
            Person {
                role: role.to_owned(),
                claims,
            }
        };
        vec![
            person(
                "authenticated",
                json!({"sub": IDS[0], "tier": "gold", "team": 1, "org": {"id": 2, "admin": true}}),
            ),
            person(
                "authenticated",
                json!({"sub": IDS[1], "tier": "free", "team": "2"}),
            ),
            // A subject that is no uuid: `auth.uid()` raises an error.
            person(
                "authenticated",
                json!({"sub": "usr_ada", "tier": "gold", "team": "none", "org": "none"}),
            ),
            person("anon", json!({})),
            person(
                &self.child,
                json!({"sub": IDS[2], "tier": null, "team": 3, "org": {"id": "4"}}),
            ),
            person(&self.aloof, json!({"sub": IDS[0], "team": 1})),
            person(&self.parent, json!({"sub": IDS[3], "tier": "a\"'b"})),
            person(&self.bypass, json!({"sub": IDS[3]})),
            person(
                &self.owner,
                json!({"sub": IDS[1], "team": 2, "org": {"id": 3}}),
            ),
            person(&self.stranger, json!({"sub": IDS[0], "tier": "gold"})),
        ]
    }
}

impl Person {
    pub(super) fn token(&self) -> String {
        token::token(self.claims.clone())
    }

    /// For the judge.
    pub(super) fn as_json(&self) -> Value {
        json!({"role": self.role, "claims": self.claims.to_string(), "sub": self.claims["sub"].as_str().unwrap_or_default()})
    }
}
