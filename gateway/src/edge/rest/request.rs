//! What an insert asks for: its query, its `Prefer` header, its rows. Pure.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, StatusCode};
use serde_json::value::RawValue;

use crate::edge::Refusal;
use crate::posting::NewRow;

/// More than that is an import, not a message.
const MAX_ROWS: usize = 1000;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parameters {
    /// The columns to write; none means those that the rows name.
    pub(super) columns: Option<Vec<String>>,
    /// The columns to answer with; none means all.
    pub(super) select: Option<Vec<String>>,
}

impl Parameters {
    /// A parameter that we would have to ignore is refused: an upsert that inserts would surprise.
    pub(super) fn parse(query: &[(String, String)]) -> Result<Parameters, Refusal> {
        let mut columns = None;
        let mut select = None;
        for (name, value) in query {
            match name.as_str() {
                "select" if value.trim() == "*" => select = None,
                "select" => {
                    let names = column_names(value, is_plain).ok_or_else(|| {
                        refused(
                            "PGRST100",
                            format!("`select` takes `*` or names of columns, separated by commas: not `{value}`"),
                        )
                    })?;
                    select = Some(names);
                }
                "columns" => {
                    let names = column_names(value, |_| true).ok_or_else(|| {
                        refused(
                            "PGRST100",
                            "`columns` is not a list of names separated by commas",
                        )
                    })?;
                    columns = Some(names);
                }
                "apikey" => {}
                other => {
                    return Err(refused(
                        "PGRST100",
                        format!(
                            "the query parameter `{other}` is not supported: `select` and `columns` are"
                        ),
                    ));
                }
            }
        }
        Ok(Parameters { columns, select })
    }
}

/// `"a", "b c",d`: quoted or not, separated by commas, with spaces around them. `unquoted` says which may go without quotes.
fn column_names(list: &str, unquoted: impl Fn(&str) -> bool) -> Option<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    let mut rest = list;
    loop {
        let name;
        rest = rest.trim_start();
        if let Some(quoted) = rest.strip_prefix('"') {
            (name, rest) = quoted.split_once('"')?;
            rest = rest.trim_start();
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            name = rest[..end].trim_end();
            rest = &rest[end..];
            if !unquoted(name) {
                return None;
            }
        }
        if name.is_empty() {
            return None;
        }
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None if rest.is_empty() => return Some(names),
            None => return None,
        }
    }
}

/// Not one of PostgREST's aliases, casts, paths into JSON, aggregates or embedded tables.
fn is_plain(name: &str) -> bool {
    !name.contains([':', '(', ')', '.', '*', '!', '"']) && !name.contains("->")
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Preferences {
    pub(super) returning: bool,
    /// What a column gets that `columns` names and the row lacks: its default, or null.
    pub(super) defaults: bool,
}

impl Preferences {
    pub(super) fn parse(headers: &HeaderMap) -> Result<Preferences, Refusal> {
        let mut returning = None;
        let mut defaults = false;
        let lines = headers.get_all("prefer").iter();
        for preference in lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
        {
            match preference.trim() {
                "return=representation" => returning = Some(true),
                "return=minimal" | "return=headers-only" => returning = Some(false),
                "missing=default" => defaults = true,
                "missing=null" => defaults = false,
                other if other.starts_with("resolution=") => {
                    return Err(refused(
                        "PGRST122",
                        "upserts are not supported: leave out `Prefer: resolution=…`",
                    ));
                }
                // RFC 7240: what is not understood is ignored.
                _ => {}
            }
        }
        Ok(Preferences {
            // An SDK says so when it wants the rows, and otherwise promises its caller none. Whoever writes the request by
            // hand wants to see what was stored.
            returning: returning.unwrap_or_else(|| !headers.contains_key("x-client-info")),
            defaults,
        })
    }
}

/// The rows of a body: an object, or an array of objects with the same keys.
pub(super) fn rows<'a>(
    body: &'a [u8],
    columns: Option<&[String]>,
    defaults: bool,
) -> Result<Vec<NewRow<'a>>, Refusal> {
    let body: &RawValue = serde_json::from_slice(body).map_err(|_| Refusal::not_json())?;
    let objects: Vec<&RawValue> = match body.get().as_bytes().first() {
        Some(b'[') => serde_json::from_str(body.get()).map_err(|_| Refusal::not_json())?,
        _ => vec![body],
    };
    if objects.len() > MAX_ROWS {
        return Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "54000",
            format!("at most {MAX_ROWS} rows can be inserted at once"),
        ));
    }
    let mut rows: Vec<NewRow<'a>> = Vec::with_capacity(objects.len());
    for object in objects {
        let keys = keys_of(object)?;
        let named: Vec<String> = match columns {
            None => keys.into_keys().collect(),
            Some(columns) if defaults => columns
                .iter()
                .filter(|name| keys.contains_key(*name))
                .cloned()
                .collect(),
            Some(columns) => columns.to_vec(),
        };
        if columns.is_none()
            && let Some(first) = rows.first()
            && first.columns != named
        {
            return Err(refused("PGRST102", "All object keys must match"));
        }
        rows.push(NewRow {
            columns: named,
            json: object,
        });
    }
    Ok(rows)
}

/// The values are skipped, however deep they are.
fn keys_of(object: &RawValue) -> Result<BTreeMap<String, &RawValue>, Refusal> {
    serde_json::from_str(object.get()).map_err(|_| {
        refused(
            "PGRST102",
            "a row is a JSON object whose keys are names of columns",
        )
    })
}

fn refused(code: &str, message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, code, message)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn columns_of(body: &str, columns: Option<&[&str]>, defaults: bool) -> Vec<Vec<String>> {
        let columns: Option<Vec<String>> =
            columns.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        rows(body.as_bytes(), columns.as_deref(), defaults)
            .unwrap()
            .iter()
            .map(|row| row.columns.clone())
            .collect()
    }

    #[test]
    fn an_object_is_a_row_and_an_array_several() {
        assert_eq!(columns_of(r#" {"b":1,"a":2} "#, None, false), [["a", "b"]]);
        assert_eq!(
            columns_of(r#"[{"a":1},{"a":2}]"#, None, false),
            [["a"], ["a"]]
        );
        assert_eq!(columns_of(r#"{"caf\u00e9":1}"#, None, false), [["café"]]);
        assert_eq!(columns_of("[]", None, false), Vec::<Vec<String>>::new());
        assert_eq!(columns_of("{}", None, false), [Vec::<String>::new()]);
    }

    #[test]
    fn named_columns_choose_among_the_keys() {
        let body = r#"[{"a":1,"x":0},{"b":2}]"#;
        assert_eq!(
            columns_of(body, Some(&["a", "b"]), false),
            [["a", "b"], ["a", "b"]]
        );
        assert_eq!(columns_of(body, Some(&["a", "b"]), true), [["a"], ["b"]]);
    }

    #[test]
    fn what_is_no_row_is_refused() {
        for body in [
            "",
            "{",
            "1",
            "null",
            "[1]",
            "[[]]",
            "[{}]x",
            r#"[{"a":1},{"b":1}]"#,
            "\u{fffd}",
        ] {
            assert!(rows(body.as_bytes(), None, false).is_err(), "{body}");
        }
        let many = format!("[{}]", vec!["{}"; MAX_ROWS + 1].join(","));
        assert_eq!(
            rows(many.as_bytes(), None, false).err().unwrap().status(),
            StatusCode::PAYLOAD_TOO_LARGE
        );
        let deep = "[".repeat(100_000);
        assert!(rows(deep.as_bytes(), None, false).is_err());
    }

    #[test]
    fn parameters_are_known_or_refused() {
        let parse = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            Parameters::parse(&pairs)
        };
        let named = parse(&[("columns", r#""session_id","a,b",role"#), ("select", "*")]).unwrap();
        assert_eq!(named.columns.unwrap(), ["session_id", "a,b", "role"]);
        assert_eq!(named.select, None);
        let selected = parse(&[("select", r#" id, content ,"a:b", id,my col"#)]).unwrap();
        assert_eq!(selected.select.unwrap(), ["id", "content", "a:b", "my col"]);
        for wrong in [
            ("select", ""),
            ("select", "id,"),
            ("select", "*,id"),
            ("select", "author:role"),
            ("select", "id::text"),
            ("select", "metadata->author"),
            ("select", "chat_sessions(id,user_id)"),
            ("select", "chat_sessions!inner"),
            ("select", "id.count()"),
            ("on_conflict", "id"),
            ("columns", ""),
            ("columns", "a,"),
            ("columns", "\"a"),
            ("columns", "\"a\"b"),
        ] {
            assert!(parse(&[wrong]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_sdk_gets_rows_only_if_it_asks() {
        let returning = |prefer: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            let name = HeaderValue::from_static("supabase-js-web/2.0.0");
            headers.insert("x-client-info", name);
            headers.extend(prefer.map(|prefer| {
                let name = axum::http::HeaderName::from_static("prefer");
                (name, HeaderValue::from_static(prefer))
            }));
            Preferences::parse(&headers).unwrap().returning
        };
        assert!(!returning(None));
        assert!(!returning(Some("missing=default")));
        assert!(returning(Some("missing=default, return=representation")));
    }

    #[test]
    fn preferences_are_read_from_every_line() {
        let parse = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("prefer", HeaderValue::from_static(line));
            }
            Preferences::parse(&headers)
        };
        assert!(parse(&[]).unwrap().returning);
        let both = parse(&["return=minimal, missing=default", "tx=commit"]).unwrap();
        assert!(!both.returning && both.defaults);
        assert!(parse(&["resolution=merge-duplicates"]).is_err());
    }
}
