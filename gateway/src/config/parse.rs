//! The values of settings, from text. An error says what would have been valid.

use std::time::Duration;

/// A whole number and its unit: `500ms`, `5s`, `10m`, `24h`, `7d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let number: u64 = digits
        .parse()
        .map_err(|_| "a duration such as `500ms`, `5s`, `10m` or `24h` is wanted".to_owned())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err(format!("the unit is missing: say `{number}s` for seconds")),
        _ => return Err(format!("`{unit}` is no unit: ms, s, m, h and d are")),
    };
    number
        .checked_mul(millis)
        .filter(|millis| *millis <= 366 * 86_400_000)
        .map(Duration::from_millis)
        .ok_or_else(|| "a duration is at most 366 days".to_owned())
}

/// Whether a stop can go as these say.
pub(super) fn drain(limit: Duration, delay: Duration, spread: Duration) -> Result<(), String> {
    match limit > delay + spread {
        true => Ok(()),
        false => Err(format!(
            "drain is {limit:?}: it must be longer than drain_delay ({delay:?}) and drain_spread ({spread:?}) together; make it longer, or those shorter"
        )),
    }
}

/// Bytes, or with the unit `KiB` or `MiB`.
pub(super) fn size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text[digits.len()..].trim() {
        "" | "B" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        unit => return Err(format!("`{unit}` is no unit: KiB and MiB are")),
    };
    digits
        .trim_end()
        .parse::<usize>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| "a size in bytes, or such as `64KiB` or `1MiB`, is wanted".to_owned())
}

/// A number, or such as `64KiB`, that may not be exceeded; `0` or `none` if there is no limit.
pub(super) fn limit(text: &str) -> Result<Option<u64>, String> {
    match text {
        "none" => Ok(None),
        _ => match size(text) {
            Ok(0) => Ok(None),
            Ok(number) if number <= 1_000_000_000 => Ok(Some(number as u64)),
            Ok(_) => Err("at most 1000000000 is wanted, or `0` for no limit".to_owned()),
            Err(_) => Err("a whole number is wanted, or `0` for no limit".to_owned()),
        },
    }
}

/// A whole number within bounds.
pub(super) fn count(text: &str, least: usize, most: usize) -> Result<usize, String> {
    text.parse::<usize>()
        .ok()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("a whole number from {least} to {most} is wanted"))
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    choice(text, &[("true", true), ("false", false)])
}

pub(super) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    match choices.iter().find(|(name, _)| *name == text) {
        Some((_, value)) => Ok(*value),
        None => {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            Err(format!("one of {} is wanted", names.join(", ")))
        }
    }
}

/// Table names separated by commas, each completed with its schema. Quoted names may hold dots and commas.
pub(super) fn tables(text: &str) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for name in split_outside_quotes(text, ',')? {
        let name = name.trim();
        if name.is_empty() {
            continue;
        }
        let parts = split_outside_quotes(name, '.')?;
        if parts.iter().any(|part| part.trim().is_empty()) {
            return Err(format!(
                "`{name}` is no table's name: `schema.table` is wanted"
            ));
        }
        names.push(match parts.len() {
            1 => format!("public.{name}"),
            2 => name.to_owned(),
            _ => {
                return Err(format!(
                    "`{name}` is no table's name: `schema.table` is wanted"
                ));
            }
        });
    }
    Ok(names)
}

fn split_outside_quotes(text: &str, separator: char) -> Result<Vec<&str>, String> {
    let mut parts = Vec::new();
    let mut quoted = false;
    let mut start = 0;
    for (at, c) in text.char_indices() {
        if c == '"' {
            quoted = !quoted;
        } else if c == separator && !quoted {
            parts.push(&text[start..at]);
            start = at + c.len_utf8();
        }
    }
    if quoted {
        return Err("a quotation mark is not closed".to_owned());
    }
    parts.push(&text[start..]);
    Ok(parts)
}

pub(super) fn database_url(text: &str) -> Result<(), String> {
    if !(text.starts_with("postgres://") || text.starts_with("postgresql://")) {
        return Err("a URL such as `postgres://user:password@host:5432/name` is wanted".to_owned());
    }
    // The parser's own message may quote the URL, and with it the password.
    crate::database::Target::parse(text, None)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

/// A public key is known to everybody, and so would be what it signs.
pub(super) fn shared_secret(text: &str) -> Result<&str, String> {
    match text.trim_start().starts_with("-----BEGIN ") {
        true => Err("this is a key pair's half and no secret: its public half, as a JWK, belongs into `jwks`".to_owned()),
        false => Ok(text),
    }
}

/// Whoever reads the result learns where the database is, and not the password.
pub(super) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return "***".to_owned();
    };
    let (address, query) = match rest.split_once('?') {
        Some((address, query)) => (address, Some(query)),
        None => (rest, None),
    };
    let address = match address.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{user}:***@{host}")
        }
        None => address.to_owned(),
    };
    match query {
        Some(query) if query.contains("password") => format!("{scheme}://{address}?***"),
        Some(query) => format!("{scheme}://{address}?{query}"),
        None => format!("{scheme}://{address}"),
    }
}

/// The known name that differs least from a mistyped one, if it is near enough to be meant.
pub(super) fn closest<'a>(
    typed: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (distance(typed, name), name))
        .filter(|(distance, name)| *distance * 3 <= name.len())
        .min()
        .map(|(_, name)| name)
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        for wrong in ["5", "", "s", "-1s", "1.5s", "5 parsecs", "99999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_stop_may_not_end_before_everybody_was_told() {
        let seconds = Duration::from_secs;
        assert_eq!(drain(seconds(10), seconds(4), seconds(5)), Ok(()));
        for (delay, spread) in [(5, 5), (0, 10), (11, 0)] {
            let problem = drain(seconds(10), seconds(delay), seconds(spread)).unwrap_err();
            let named = ["drain is 10s", "drain_delay", "drain_spread"];
            assert!(named.iter().all(|name| problem.contains(name)), "{problem}");
        }
    }

    #[test]
    fn sizes_are_bytes_unless_they_say_otherwise() {
        assert_eq!(size("5000000"), Ok(5_000_000));
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("1 MiB"), Ok(1_048_576));
        for wrong in ["", "1MB", "-1", "99999999999999999MiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_limit_may_be_none() {
        assert_eq!((limit("0"), limit("none")), (Ok(None), Ok(None)));
        assert_eq!(limit("100"), Ok(Some(100)));
        assert_eq!(limit("1MiB"), Ok(Some(1_048_576)));
        for wrong in ["", "-1", "1.5", "many", "1000000001"] {
            assert!(limit(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn table_names_get_their_schema() {
        assert_eq!(
            tables("chat_messages, app.rooms,\"My.Schema\".\"a,b\","),
            Ok(vec![
                "public.chat_messages".to_owned(),
                "app.rooms".to_owned(),
                "\"My.Schema\".\"a,b\"".to_owned()
            ])
        );
        assert_eq!(tables(""), Ok(vec![]));
        for wrong in ["a.b.c", ".a", "a.", "\"a"] {
            assert!(tables(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_shown_url_has_no_password() {
        assert_eq!(
            without_password("postgres://ada:p@ss:word@db:5432/chat?sslmode=require"),
            "postgres://ada:***@db:5432/chat?sslmode=require"
        );
        assert_eq!(
            without_password("postgres://db/chat?password=x"),
            "postgres://db/chat?***"
        );
        assert_eq!(without_password("nonsense"), "***");
    }

    #[test]
    fn a_typing_error_finds_its_name() {
        let known = ["listen", "jwt_secret", "log"];
        assert_eq!(closest("lsten", known), Some("listen"));
        assert_eq!(closest("jwtsecret", known), Some("jwt_secret"));
        assert_eq!(closest("zebra", known), None);
    }
}
