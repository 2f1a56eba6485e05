//! The list `[[issuer]]` of the configuration file: others whose tokens are taken, each by its own rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Secret, parse};
use crate::auth::{KeySet, Origin};

/// The key of the list.
pub(super) const KEY: &str = "issuer";

const NAMES: &[&str] = &[
    "iss",
    "secret",
    "jwks",
    "jwks_url",
    "aud",
    "role_claim",
    "role_map",
    "default_role",
    "subject_claim",
];

/// Whose tokens are taken, and what they mean.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// Tokens with this `iss` are checked by what stands here, and by nothing else.
    pub iss: String,
    pub secret: Option<Secret>,
    pub jwks: Option<Arc<KeySet>>,
    pub jwks_url: Option<String>,
    /// The token's `aud` must be this, or a list with it.
    pub aud: Option<String>,
    /// Which claim names the role.
    pub role_claim: String,
    /// From the issuer's roles to the database's. A role that is not in it counts as none.
    pub role_map: Option<BTreeMap<String, String>>,
    /// For tokens that name no role.
    pub default_role: Option<String>,
    /// Which claim says who it is.
    pub subject_claim: String,
}

impl Issuer {
    /// As a piece of the file, without secrets.
    pub(super) fn print(&self) -> String {
        let mut piece = format!("\n[[{KEY}]]\n");
        let mut line = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                piece.push_str(&format!("{name} = {}\n", toml::Value::from(value)));
            }
        };
        line("iss", Some(&self.iss));
        line("secret", self.secret.as_ref().map(|_| "***"));
        line("jwks", self.jwks.as_ref().map(|_| "***"));
        line("jwks_url", self.jwks_url.as_deref());
        line("aud", self.aud.as_deref());
        line("role_claim", Some(&self.role_claim));
        line("default_role", self.default_role.as_deref());
        line("subject_claim", Some(&self.subject_claim));
        if let Some(map) = &self.role_map {
            let map: toml::Table = map
                .iter()
                .map(|(from, to)| (from.clone(), toml::Value::from(to.as_str())))
                .collect();
            piece.push_str(&format!("role_map = {}\n", toml::Value::Table(map)));
        }
        piece
    }
}

/// All issuers that are right. What is wrong with others is noted, without their values.
pub(super) fn read(value: &toml::Value, path: &str, problems: &mut Vec<String>) -> Vec<Issuer> {
    let tables = value
        .as_array()
        .map(|list| list.iter().map(toml::Value::as_table));
    let Some(tables) = tables.and_then(Iterator::collect::<Option<Vec<_>>>) else {
        problems.push(format!(
            "{path}: issuer wants a list of tables: write `[[issuer]]`"
        ));
        return Vec::new();
    };
    let mut issuers: Vec<Issuer> = Vec::new();
    for (place, table) in tables.into_iter().enumerate() {
        let mut found = Vec::new();
        let issuer = issuer(table, &mut found);
        if issuers.iter().any(|other| other.iss == issuer.iss) {
            found.push(
                "iss is that of another issuer: tokens would not know whose they are".to_owned(),
            );
        }
        let place = place + 1;
        problems.extend(
            found
                .iter()
                .map(|problem| format!("{path}: issuer {place}: {problem}")),
        );
        issuers.push(issuer);
    }
    issuers
}

fn issuer(table: &toml::Table, problems: &mut Vec<String>) -> Issuer {
    for name in table.keys().filter(|name| !NAMES.contains(&name.as_str())) {
        problems.push(match parse::closest(name, NAMES.iter().copied()) {
            Some(meant) => format!("unknown key `{name}`: did you mean `{meant}`?"),
            None => format!("unknown key `{name}`: known are {}", NAMES.join(", ")),
        });
    }
    let mut text = |name: &str| match table.get(name)? {
        toml::Value::String(text) if !text.is_empty() => Some(text.clone()),
        _ => {
            problems.push(format!("{name} wants text"));
            None
        }
    };
    let iss = text("iss");
    let secret = text("secret");
    let jwks = text("jwks");
    let jwks_url = text("jwks_url");
    let aud = text("aud");
    let role_claim = text("role_claim").unwrap_or_else(|| "role".to_owned());
    let default_role = text("default_role");
    let subject_claim = text("subject_claim").unwrap_or_else(|| "sub".to_owned());
    let role_map = table.get("role_map").and_then(|map| {
        let map = map.as_table().and_then(|map| {
            map.iter()
                .map(|(from, to)| Some((from.clone(), to.as_str()?.to_owned())))
                .collect::<Option<BTreeMap<_, _>>>()
        });
        if map.is_none() {
            problems.push(
                "role_map wants a table of texts, such as { admin = \"authenticated\" }".to_owned(),
            );
        }
        map
    });

    if iss.is_none() && !table.contains_key("iss") {
        problems.push("iss is missing: it says whose tokens this is about".to_owned());
    }
    if !["secret", "jwks", "jwks_url"]
        .iter()
        .any(|name| table.contains_key(*name))
    {
        problems.push("there is no key: give secret, jwks or jwks_url".to_owned());
    }
    let mut roles = role_map
        .iter()
        .flat_map(BTreeMap::values)
        .chain(&default_role);
    if roles.any(|role| role == "none" || role.is_empty()) {
        problems.push("`none` is no role that a token may have".to_owned());
    }
    let mut checked = |name: &str, problem: String| problems.push(format!("{name}: {problem}"));
    if let Some(Err(problem)) = secret.as_deref().map(parse::shared_secret) {
        checked("secret", problem);
    }
    let jwks = jwks.and_then(|text| {
        key_set(&text)
            .map_err(|problem| checked("jwks", problem))
            .ok()
    });
    let jwks_url = jwks_url.and_then(|text| {
        key_set_url(&text)
            .map_err(|problem| checked("jwks_url", problem))
            .ok()
    });
    Issuer {
        iss: iss.unwrap_or_default(),
        secret: secret.map(Secret::new),
        jwks,
        jwks_url,
        aud,
        role_claim,
        role_map,
        default_role,
        subject_claim,
    }
}

/// A JWKS document, or the path of a file with one.
pub(super) fn key_set(text: &str) -> Result<Arc<KeySet>, String> {
    let document = match text.trim_start().starts_with('{') {
        true => text.as_bytes().to_vec(),
        false => std::fs::read(text).map_err(|error| {
            format!("a JWKS document or the path of a file with one is wanted, and the file cannot be read ({})", error.kind())
        })?,
    };
    KeySet::parse(&document, Origin::Settings)
        .map(Arc::new)
        .map_err(|error| error.to_string())
}

pub(super) fn key_set_url(text: &str) -> Result<String, String> {
    let url = reqwest::Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "https" | "http")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
    });
    match url {
        Some(_) => Ok(text.to_owned()),
        None => Err("a URL such as `https://auth.example.com/.well-known/jwks.json`, without a login, is wanted".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> (Vec<Issuer>, String) {
        let table: toml::Table = text.parse().unwrap();
        let mut problems = Vec::new();
        let issuers = read(&table["issuer"], "f", &mut problems);
        (issuers, problems.join("\n"))
    }

    #[test]
    fn an_issuer_needs_a_name_and_a_key_and_the_rest_has_defaults() {
        let (issuers, problems) = read_text(
            "[[issuer]]\niss = \"https://a\"\njwks_url = \"https://a/jwks\"\n\n[[issuer]]\niss = \"b\"\nsecret = \"hunter2\"\n\
             role_map = { admin = \"service_role\" }\ndefault_role = \"authenticated\"\nsubject_claim = \"id\"\naud = \"chat\"",
        );
        assert_eq!(problems, "");
        assert_eq!(
            (&*issuers[0].role_claim, &*issuers[0].subject_claim),
            ("role", "sub")
        );
        assert_eq!(issuers[0].default_role, None);
        assert_eq!(
            issuers[1].role_map.as_ref().unwrap()["admin"],
            "service_role"
        );
        let printed: String = issuers.iter().map(Issuer::print).collect();
        assert!(!printed.contains("hunter2") && !format!("{issuers:?}").contains("hunter2"));
        assert_eq!(read_text(&printed).1, "", "{printed}");
    }

    #[test]
    fn everything_that_is_wrong_is_named_and_no_secret_is_quoted() {
        let (_, problems) = read_text(
            "[[issuer]]\nsecret = \"-----BEGIN PUBLIC KEY----- hunter2\"\n\n[[issuer]]\niss = \"a\"\njwks_ur = \"x\"\n\n\
             [[issuer]]\niss = \"a\"\njwks = \"{\\\"hunter2\\\":1}\"\njwks_url = \"ftp://u:hunter2@h\"\nrole_map = \"x\"\n\
             default_role = \"none\"\naud = [\"x\"]",
        );
        for part in [
            "issuer 1: iss is missing",
            "issuer 1: secret: this is a key pair's half",
            "issuer 2: unknown key `jwks_ur`: did you mean `jwks_url`?",
            "issuer 2: there is no key",
            "issuer 3: iss is that of another",
            "issuer 3: jwks: this is no key set",
            "issuer 3: jwks_url: a URL",
            "issuer 3: role_map wants",
            "issuer 3: `none` is no role",
            "issuer 3: aud wants text",
        ] {
            assert!(problems.contains(part), "{part} is missing in\n{problems}");
        }
        assert!(!problems.contains("hunter2"), "{problems}");
        assert!(read_text("issuer = 1").1.contains("[[issuer]]"));
    }

    #[test]
    fn a_key_set_is_a_document_or_a_file() {
        assert!(key_set("{\"keys\":[]}").is_ok());
        assert!(key_set("{}").is_err());
        assert!(key_set("/there/is/no/such.json").is_err());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"keys\":[]}").unwrap();
        assert!(key_set(file.path().to_str().unwrap()).is_ok());
    }
}
