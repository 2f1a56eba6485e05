//! What the sources can say has a row, and exactly one; what has a row that says never is never said.

use std::path::Path;

use gateway::limits::Exceeded;
use protocol::{BindingRefusal, FilterError, Refusal, resume::ResumeError};

use super::page::{PAGE, fits};
use super::*;

/// The Rust sources of the gateway without their tests and comments, by their paths.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut directories = vec![root];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("tests") {
                directories.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs")
                && !path.ends_with("tests.rs")
            {
                let text = std::fs::read_to_string(&path).expect("a text");
                let (code, _) = text.split_once("#[cfg(test)]\nmod").unwrap_or((&text, ""));
                let lines = code
                    .lines()
                    .filter(|line| !line.trim_start().starts_with("//"));
                let code = lines.collect::<Vec<_>>().join("\n");
                found.push((path.display().to_string(), code));
            }
        }
    }
    assert!(found.len() > 50);
    found
}

/// The names that follow this in a source, such as those of the variants of an enum.
fn named<'a>(code: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    code.split(before).skip(1).map(|after| {
        let end = after.find(|char: char| !char.is_alphanumeric() && char != '_');
        &after[..end.unwrap_or(after.len())]
    })
}

/// In how many rows of a table this stands.
fn count(heading: &str, column: usize, text: &str) -> usize {
    let rows = rows(heading);
    rows.iter().filter(|row| row.fits(column, text)).count()
}

#[test]
fn every_reason_for_which_a_join_may_be_refused_has_one_row() {
    let mut named_here = Vec::new();
    let sources = sources();
    for (path, code) in &sources {
        // HTTP has refusals of its own. The name of a limit knows what a join would be told, though no join meets it.
        if !["/edge/", "/demo/", "/limits/"]
            .iter()
            .any(|other| path.contains(other))
        {
            named_here.extend(named(code, "Refusal::"));
        }
    }
    // Of topics the protocol itself knows.
    let topics = include_str!("../../../../protocol/src/topic.rs");
    named_here.extend(named(topics, "Refusal::"));
    let limits: Vec<_> = limits()
        .into_iter()
        .filter_map(Exceeded::refuses_join)
        .collect();
    let resumed = ResumeError::examples().into_iter().map(Refusal::Resume);
    for refusal in Refusal::examples().into_iter().chain(resumed) {
        let (name, text) = (format!("{refusal:?}"), refusal.to_string());
        let name = name.split([' ', '(']).next().unwrap_or_default();
        let told = named_here.contains(&name) || limits.contains(&refusal);
        let rows = (
            count("Reply to a join", 0, &text),
            count("Never sent here", 0, &text),
        );
        assert_eq!(rows, if told { (1, 0) } else { (0, 1) }, "{text}");
    }
}

#[test]
fn every_complaint_about_a_binding_has_one_row() {
    let filters = FilterError::examples()
        .into_iter()
        .map(BindingRefusal::from);
    for refusal in BindingRefusal::examples().into_iter().chain(filters) {
        let text = refusal.to_string();
        let never = refusal == BindingRefusal::DatabaseTimeouts;
        let rows = (
            count("`system` errors of bindings", 0, &text),
            count("Never sent here", 0, &text),
        );
        assert_eq!(rows, if never { (0, 1) } else { (1, 0) }, "{text}");
    }
    for (path, code) in sources() {
        assert!(!code.contains("BindingRefusal::DatabaseTimeouts"), "{path}");
    }
}

#[test]
fn every_text_that_ends_a_channel_has_one_row() {
    let system = include_str!("../../../../protocol/src/system.rs");
    let (_, ends) = system.split_once("pub mod ends").expect("the texts");
    let known: Vec<_> = named(ends, "pub const ")
        .chain(named(ends, "pub fn "))
        .collect();
    let mut said = 0;
    let sources = sources();
    for name in known {
        let texts = match name {
            "MISSING_CLAIMS" => vec![protocol::ends::MISSING_CLAIMS.to_owned()],
            "MALFORMED_JWT" => vec![protocol::ends::MALFORMED_JWT.to_owned()],
            "JWT_SIGNATURE" => vec![protocol::ends::JWT_SIGNATURE.to_owned()],
            // Those two are the ends of reasons for joins, too.
            "DATABASE_UNAVAILABLE" => vec![],
            "QUERY_CANCELLED" => vec![protocol::ends::QUERY_CANCELLED.to_owned()],
            "NODE_TIMEOUT" => vec![protocol::ends::NODE_TIMEOUT.to_owned()],
            "TOO_MANY_MESSAGES" => vec![protocol::ends::TOO_MANY_MESSAGES.to_owned()],
            "CLIENT_PRESENCE_RATE" => vec![protocol::ends::CLIENT_PRESENCE_RATE.to_owned()],
            "TOO_MANY_PRESENCE_MESSAGES" => {
                vec![protocol::ends::TOO_MANY_PRESENCE_MESSAGES.to_owned()]
            }
            "TRACK_TOO_LARGE" => vec![protocol::ends::TRACK_TOO_LARGE.to_owned()],
            "REPLICATION_TIMEOUT" => vec![protocol::ends::REPLICATION_TIMEOUT.to_owned()],
            "token_expired" => vec![protocol::ends::token_expired(7)],
            "jwt_signer" => vec![
                protocol::ends::jwt_signer(Some("K")),
                protocol::ends::jwt_signer(None),
            ],
            "no_read_right" => vec![protocol::ends::no_read_right("room")],
            "lost_read_right" => vec![protocol::ends::lost_read_right("room")],
            new => {
                panic!("ends::{new} is new: say here what it says, and on the page what it means")
            }
        };
        let used = sources
            .iter()
            .any(|(_, code)| named(code, "ends::").any(|used| used == name));
        for text in texts {
            let rows = (
                count("`system` errors that end a channel", 0, &text),
                count("Never sent here", 0, &text),
            );
            assert_eq!(rows, if used { (1, 0) } else { (0, 1) }, "{text}");
            said += usize::from(used);
        }
    }
    assert_eq!(said, rows("`system` errors that end a channel").len());
}

#[test]
fn every_close_code_has_its_rows() {
    let codes = include_str!("../../../../protocol/src/close.rs");
    let sources = sources();
    for line in codes
        .lines()
        .filter_map(|line| line.strip_prefix("pub const "))
    {
        let Some((name, code)) = line.split_once(": u16 = ") else {
            continue;
        };
        let code = code.trim_end_matches(';');
        let used = sources
            .iter()
            .any(|(_, source)| named(source, "close::").any(|used| used == name));
        let never = count("Never sent here", 0, &format!("close {code}"));
        assert_eq!(count("Close codes", 0, code) > 0, used, "{name}");
        assert_eq!(never == 0, used, "{name}");
    }
    // The reasons of the codes that have one of their own.
    let (_, end) = sources
        .iter()
        .find(|(path, _)| path.ends_with("connection/end.rs"))
        .expect("the ends of connections");
    let mut reasons: Vec<_> = end
        .split("(close::")
        .skip(1)
        .filter_map(|after| after.split('"').nth(1))
        .map(str::to_owned)
        .collect();
    for exceeded in limits() {
        if exceeded.closes_socket().is_some() {
            reasons.push(exceeded.to_string());
        }
    }
    let mut listed: Vec<_> = rows("Close codes")
        .into_iter()
        .map(|mut row| row.cells.swap_remove(1))
        .collect();
    listed.sort();
    reasons.sort();
    assert_eq!(listed, reasons);
}

macro_rules! each {
    ($($limit:ident),* $(,)?) => {{
        // The compiler says when one is missing.
        let _complete = |one: Exceeded| match one {
            $(Exceeded::$limit => {})*
        };
        vec![$(Exceeded::$limit),*]
    }};
}

fn limits() -> Vec<Exceeded> {
    each!(
        Connections,
        Joins,
        Channels,
        Events,
        Batch,
        PresenceEvents,
        PresenceBytes,
        Bytes,
        PresenceCalls,
        Payload,
        SocketJoins,
        SocketMessages,
        SocketBytes,
    )
}

#[test]
fn every_answer_of_a_limit_has_its_row() {
    for exceeded in limits() {
        for (heading, column, text) in [
            ("At the handshake", 1, exceeded.refuses_handshake()),
            (
                "`system` errors that end a channel",
                0,
                exceeded.ends_channel(),
            ),
            ("Broadcast over HTTP", 1, exceeded.refuses_request()),
            ("Reply to a push", 1, exceeded.refuses_track()),
        ] {
            let Some(text) = text else { continue };
            let text = match heading {
                "Broadcast over HTTP" => json!({ "message": text }).to_string(),
                "Reply to a push" => json!({ "reason": text }).to_string(),
                _ => text.to_owned(),
            };
            assert_eq!(count(heading, column, &text), 1, "{exceeded:?}: {text}");
        }
    }
}

#[test]
fn every_error_of_a_push_has_its_row() {
    let presence = include_str!("../../../../protocol/src/presence.rs");
    let texts = presence
        .split("pub const ")
        .skip(1)
        .filter_map(|after| after.split_once(": &str = \"")?.1.split('"').next());
    let mut rows = 0;
    for text in texts.filter(|text| text.contains(' ')) {
        let reason = json!({ "reason": text }).to_string();
        assert_eq!(count("Reply to a push", 1, &reason), 1, "{reason}");
        rows += 1;
    }
    assert!(rows >= 2);
    let write = json!({"reason": protocol::no_write_right("room")}).to_string();
    assert_eq!(count("Reply to a push", 1, &write), 1);
    // A message that is to be stored is refused by the texts of the errors of posting.
    let sources = sources();
    let (_, posting) = sources
        .iter()
        .find(|(path, _)| path.ends_with("src/posting.rs"))
        .expect("posting");
    for text in posting.split("#[error(\"").skip(1) {
        let text = text.split('"').next().unwrap_or_default();
        let error = json!({"error": text.replace("{message}", "no")}).to_string();
        // Who may write has a role that can be used: that is asked first.
        let never = text.starts_with("the role of the token");
        let rows = count("Reply to a push", 1, &error);
        assert_eq!(rows, usize::from(!never), "{error}");
    }
}

/// Texts in the sources of HTTP that are no answers, or answers that nobody can get.
const NO_ANSWERS: [&str; 13] = [
    "select 1",
    "application/json; charset=utf-8",
    "text/plain; version=0.0.4",
    "POST, OPTIONS",
    // Reasons in metrics.
    "malformed token",
    "missing claims",
    "no token",
    "no upgrade",
    // Parts of what /readyz says is wrong.
    "it is stopping: its clients are going elsewhere",
    "it refuses the connection or cannot be reached",
    "it does not answer",
    "not ready",
    // Presences are written by ourselves.
    "Presences cannot be told",
];

#[test]
fn every_text_of_http_is_on_the_page() {
    let (mut texts, mut missing) = (0, Vec::new());
    for (path, code) in sources() {
        if !path.contains("/src/edge") {
            continue;
        }
        for text in literals(&code) {
            // One word says nothing to people: names of headers, codes, keys.
            if !text.contains(' ') || NO_ANSWERS.contains(&&*text) {
                continue;
            }
            texts += 1;
            if !is_said(tables_of(&path), text.trim_end()) {
                missing.push(format!("{path}: {text}"));
            }
        }
        for code in named(&code, "\"PGRST") {
            assert!(PAGE.contains(&format!("`PGRST{code}`")), "PGRST{code}");
        }
    }
    assert!(missing.is_empty(), "not in docs/errors.md: {missing:#?}");
    assert!(texts > 40, "{texts}");
}

/// The tables for what a source of HTTP says.
fn tables_of(path: &str) -> &'static [&'static str] {
    let is = |part: &str| path.contains(part);
    match () {
        () if is("/edge/upgrade") => &["At the handshake"],
        () if is("/edge/broadcast") => &["Broadcast over HTTP"],
        () if is("/edge/rest") || is("/edge/refusal") || is("/edge/credentials") => {
            &["Posting a row"]
        }
        () => &["Other paths", "Posting a row"],
    }
}

/// Whether a row of these tables says this; where it varies, the row may be more exact.
fn is_said(tables: &[&str], text: &str) -> bool {
    let pattern = format!("…{text}…");
    let mut rows = tables.iter().flat_map(|heading| rows(heading));
    rows.any(|row| row.cells.iter().any(|cell| fits(&pattern, cell)))
}

/// The texts in a source, but for those of the log and hints. Parts that vary are `…`.
fn literals(code: &str) -> Vec<String> {
    let mut rest = code;
    let mut found = Vec::new();
    while let Some(place) = rest.find('"') {
        // A mark by itself, as a character.
        if rest[..place].ends_with('\'') && rest[place + 1..].starts_with('\'') {
            rest = &rest[place + 1..];
            continue;
        }
        let before = rest[..place].trim_end();
        let mut text = String::new();
        let mut chars = rest[place + 1..].char_indices();
        let end = loop {
            match chars.next() {
                Some((_, '\\')) => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, char)) => text.push(char),
                    None => break rest.len(),
                },
                Some((at, '"')) => break place + 1 + at + 1,
                Some((_, '{')) if !rest[place..].starts_with("\"{\"") => {
                    for (_, char) in chars.by_ref() {
                        if char == '}' {
                            break;
                        }
                    }
                    text.push('…');
                }
                Some((_, char)) => text.push(char),
                None => break rest.len(),
            }
        };
        // Within the parentheses of a line for the log.
        let so_far = &code[..code.len() - rest.len() + place];
        let in_log = so_far.rfind("tracing::").is_some_and(|at| {
            let mut depth = 0;
            let ends = so_far[at..].chars().any(|char| {
                depth += i32::from(char == '(') - i32::from(char == ')');
                char == ')' && depth == 0
            });
            !ends
        });
        let is_hint = before.ends_with(".hint(") || before.ends_with(".hint(format!(");
        // A reason for the compiler, and what stands in for an answer that is always there.
        let is_aside = before.ends_with("reason =") || before.ends_with("unwrap_or(");
        let is_raw = before.ends_with("r#") || before.ends_with('b');
        if !in_log && !is_hint && !is_aside && !is_raw {
            found.push(text);
        }
        rest = &rest[end.min(rest.len())..];
    }
    found
}

#[test]
fn every_text_of_the_functions_in_the_database_is_on_the_page() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
    let mut texts = 0;
    for entry in std::fs::read_dir(folder).expect("the migrations") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|ending| ending != "sql") {
            continue;
        }
        let sql = std::fs::read_to_string(&path).expect("a text");
        let raised = ["raise exception '", "raise warning '"]
            .into_iter()
            .flat_map(|raise| sql.split(raise).skip(1));
        for after in raised {
            let text = after.replace("''", "\u{1}");
            let text = text.split('\'').next().unwrap_or_default();
            let text = text.replace('\u{1}', "'").replace('%', "…");
            texts += 1;
            assert!(PAGE.contains(&*text), "{}: {text}", path.display());
        }
    }
    assert!(texts > 30, "{texts}");
}

#[test]
fn what_is_never_sent_is_in_no_source() {
    let all = sources();
    for row in rows("Never sent here") {
        let text = &row.cells[0];
        // These are known to `protocol`, and the other tests look for their names.
        let known = Refusal::examples()
            .iter()
            .any(|one| fits(text, &one.to_string()))
            || fits(text, &BindingRefusal::DatabaseTimeouts.to_string())
            || text.starts_with("close ");
        let said = all.iter().find(|(_, code)| code.contains(&**text));
        assert!(known || said.is_none(), "{text}: {said:?}");
    }
    assert!(
        all.iter()
            .all(|(_, code)| !code.contains("SERVER_DISCONNECT"))
    );
}
