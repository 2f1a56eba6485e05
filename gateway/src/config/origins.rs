//! Which websites' scripts may use the gateway.

/// The origins that `allowed_origins` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    Any,
    Listed(Vec<Pattern>),
}

/// One of them. `https://*.example.org` means every host with exactly one more label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// What comes before the label that may be anything; the whole origin, if there is none.
    before: String,
    after: Option<String>,
}

impl Origins {
    /// `*`, or origins separated by commas.
    pub(super) fn parse(text: &str) -> Result<Origins, String> {
        let items: Vec<&str> = text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .collect();
        if items == ["*"] {
            return Ok(Origins::Any);
        }
        if items.contains(&"*") {
            return Err("`*` stands for all origins, and for itself alone".to_owned());
        }
        items
            .into_iter()
            .map(Pattern::parse)
            .collect::<Result<_, _>>()
            .map(Origins::Listed)
    }

    /// Whether scripts of this origin, as a browser sends it, may come.
    pub fn allow(&self, origin: &[u8]) -> bool {
        match self {
            Origins::Any => true,
            Origins::Listed(patterns) => std::str::from_utf8(origin)
                .ok()
                .and_then(normal)
                .is_some_and(|origin| patterns.iter().any(|pattern| pattern.fits(&origin))),
        }
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Pattern, String> {
        let wanted = || {
            format!(
                "`{text}` is no origin: `https://chat.example.org`, `http://localhost:3000` or `https://*.example.org` is wanted, without a path"
            )
        };
        let origin = normal(text).ok_or_else(wanted)?;
        let Some((before, after)) = origin.split_once('*') else {
            return Ok(Pattern {
                before: origin,
                after: None,
            });
        };
        // A whole label, and not that of a top-level domain: everybody can have a name below one of these.
        let whole = before.ends_with("://") && after.starts_with('.');
        let labels = after.matches('.').count();
        if !whole || after.contains('*') || labels < 2 {
            return Err(wanted());
        }
        Ok(Pattern {
            before: before.to_owned(),
            after: Some(after.to_owned()),
        })
    }

    fn fits(&self, origin: &str) -> bool {
        let Some(after) = &self.after else {
            return self.before == origin;
        };
        origin
            .strip_prefix(&*self.before)
            .and_then(|rest| rest.strip_suffix(&**after))
            .is_some_and(|label| !label.is_empty() && !label.contains(|c: char| !is_of_label(c)))
    }
}

fn is_of_label(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// Scheme and host in lower case, without the port that the scheme has anyway. None if this is no origin; `null`, which
/// browsers send for pages that have none, is one.
fn normal(text: &str) -> Option<String> {
    if text == "null" {
        return Some(text.to_owned());
    }
    let text = text.to_ascii_lowercase();
    let (scheme, authority) = text.split_once("://")?;
    let is_of_host = |c: char| is_of_label(c) || matches!(c, '.' | '*');
    let (host, port) = match authority.rsplit_once(']') {
        // An address of IPv6 is in brackets.
        Some((address, rest)) => {
            let digits = address.strip_prefix('[')?;
            if digits.is_empty()
                || digits.contains(|c: char| !c.is_ascii_hexdigit() && !":.".contains(c))
            {
                return None;
            }
            let port = match rest {
                "" => None,
                _ => Some(rest.strip_prefix(':')?),
            };
            (&authority[..=address.len()], port)
        }
        None => {
            let (host, port) = match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            };
            if host.is_empty() || host.contains(|c| !is_of_host(c)) {
                return None;
            }
            (host, port)
        }
    };
    let is_of_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    if scheme.is_empty() || scheme.contains(|c| !is_of_scheme(c)) {
        return None;
    }
    match port {
        None => Some(format!("{scheme}://{host}")),
        Some(port) => {
            let port: u16 = port.parse().ok()?;
            match (scheme, port) {
                ("http", 80) | ("https", 443) => Some(format!("{scheme}://{host}")),
                _ => Some(format!("{scheme}://{host}:{port}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(setting: &str, origin: &str) -> bool {
        Origins::parse(setting)
            .expect("a list of origins")
            .allow(origin.as_bytes())
    }

    #[test]
    fn everybody_may_come_or_those_of_the_list() {
        assert!(allowed("*", "https://anywhere.example"));
        let list = "https://chat.example.org, http://localhost:3000,capacitor://localhost,http://[::1]:3000";
        for origin in [
            "https://chat.example.org",
            "HTTPS://Chat.Example.org:443",
            "http://localhost:3000",
            "capacitor://localhost",
            "http://[::1]:3000",
        ] {
            assert!(allowed(list, origin), "{origin}");
        }
        for origin in [
            "http://chat.example.org",
            "https://chat.example.org:8443",
            "https://chat.example.org.evil.example",
            "https://evil.example/https://chat.example.org",
            "https://evil.example#https://chat.example.org",
            "https://chat.example.org@evil.example",
            "https://example.org",
            "https://a.chat.example.org",
            "http://localhost",
            "http://[::1]",
            "null",
            "",
        ] {
            assert!(!allowed(list, origin), "{origin}");
        }
        assert!(
            !allowed("", "https://chat.example.org"),
            "an empty list allows none"
        );
        assert!(allowed("null", "null") && !allowed("https://a.example", "null"));
        assert!(
            !Origins::parse("https://a.example")
                .unwrap()
                .allow(b"https://\xff")
        );
    }

    #[test]
    fn a_star_stands_for_one_label() {
        let list = "https://*.example.org,http://*.test.localhost:3000";
        for origin in [
            "https://chat.example.org",
            "https://A-1.example.org",
            "http://a.test.localhost:3000",
        ] {
            assert!(allowed(list, origin), "{origin}");
        }
        for origin in [
            "https://example.org",
            "https://.example.org",
            "https://a.b.example.org",
            "http://chat.example.org",
            "https://chat.example.org:8443",
            "https://evil.example/.example.org",
            "https://evil.example?.example.org",
            "https://*.example.org",
            "https://notexample.org",
            "http://a.test.localhost",
        ] {
            assert!(!allowed(list, origin), "{origin}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused_and_named() {
        for wrong in [
            "chat.example.org",
            "https://",
            "https://chat.example.org/",
            "https://chat.example.org/app",
            "https://chat.example.org:port",
            "https://*",
            "https://*.org",
            "https://chat*.example.org",
            "https://a.*.example.org",
            "https://*.*.example.org",
            "*://chat.example.org",
            "https://user@chat.example.org",
        ] {
            let problem = Origins::parse(wrong).expect_err(wrong);
            assert!(problem.contains(wrong), "{problem}");
        }
        assert!(Origins::parse("*,https://chat.example.org").is_err());
    }
}
