//! `tidings token`: a signed token on standard output, and nothing else there.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::auth::{now_unix, sign};
use crate::config::{Flags, Sources, parse_duration};

use super::Error;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Whose token it is: the claim `sub`
    #[arg(long)]
    sub: Option<String>,
    /// The database role: the claim `role`
    #[arg(long, default_value = "authenticated")]
    role: String,
    /// Another claim; the value is JSON if it parses as such, and text otherwise
    #[arg(long = "claim", value_name = "NAME=VALUE")]
    claims: Vec<String>,
    /// For how long it is good
    #[arg(long, default_value = "1h", value_parser = parse_duration)]
    expires_in: Duration,
    #[command(flatten)]
    flags: Flags,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Error> {
    let claims = claims(&arguments, now_unix()).map_err(Error::Usage)?;
    let settings = Sources::from_process(arguments.flags)?.load(&["jwt_secret"])?;
    println!("{}", sign(&claims, &settings.jwt_secret)?);
    Ok(())
}

fn claims(arguments: &Arguments, now: i64) -> Result<Map<String, Value>, String> {
    let lifetime = i64::try_from(arguments.expires_in.as_secs()).unwrap_or(i64::MAX);
    let mut claims = Map::from_iter([
        ("role".to_owned(), Value::from(arguments.role.as_str())),
        ("iat".to_owned(), Value::from(now)),
        ("exp".to_owned(), Value::from(now.saturating_add(lifetime))),
    ]);
    if let Some(sub) = &arguments.sub {
        claims.insert("sub".to_owned(), Value::from(sub.as_str()));
    }
    add_claims(&mut claims, &arguments.claims)?;
    Ok(claims)
}

/// Adds what was given as `--claim NAME=VALUE`.
pub(super) fn add_claims(claims: &mut Map<String, Value>, given: &[String]) -> Result<(), String> {
    for claim in given {
        let (name, value) = claim.split_once('=').ok_or_else(|| {
            format!("--claim {claim}: a name and a value are wanted, as in --claim team=7")
        })?;
        if claims.contains_key(name) {
            return Err(format!(
                "--claim {name}: this claim is there already, given twice or by a flag of its own"
            ));
        }
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        claims.insert(name.to_owned(), value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made(given: &[&str]) -> Result<Value, String> {
        claims(
            &Arguments {
                sub: Some("usr_1".to_owned()),
                role: "authenticated".to_owned(),
                claims: given.iter().map(|claim| (*claim).to_owned()).collect(),
                expires_in: Duration::from_secs(60),
                flags: Flags::default(),
            },
            1000,
        )
        .map(Value::Object)
    }

    #[test]
    fn values_are_json_if_they_can_be() {
        assert_eq!(
            made(&["team=7", "name=Ada L", "a={\"b\":[true]}", "eq=a=b"]).unwrap(),
            json!({
                "sub": "usr_1", "role": "authenticated", "iat": 1000, "exp": 1060,
                "team": 7, "name": "Ada L", "a": {"b": [true]}, "eq": "a=b",
            })
        );
    }

    #[test]
    fn a_claim_is_given_once_and_with_a_value() {
        for wrong in [vec!["x"], vec!["role=anon"], vec!["x=1", "x=2"]] {
            assert!(made(&wrong).is_err(), "{wrong:?}");
        }
    }
}
