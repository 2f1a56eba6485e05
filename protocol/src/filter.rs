//! The filter of a binding: `column=op.value`, several joined by commas, all of which must hold.
//!
//! ```text
//! filter    = "" | condition *( "," condition )
//! condition = column "=" [ "not." ] operator "." value
//! ```
//!
//! Only the text is understood here. What a condition means for a row is decided by the column's type, in PostgreSQL.

use std::fmt::{self, Write as _};

use crate::binding::EventKind;

/// Reads a filter. No conditions means that every row passes.
pub fn parse_filter(text: &str) -> Result<Vec<Condition>, FilterError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    split(text).into_iter().map(parse_condition).collect()
}

/// One condition of a filter.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Condition {
    pub column: String,
    pub operator: Operator,
    /// Without its quotes. For [`Operator::In`] a PostgreSQL array literal, `{…}`.
    pub value: String,
    /// `not.` was in front. A NULL fails a negated condition as well.
    pub negate: bool,
}

/// How a column is compared with the value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operator {
    Eq,
    Neq,
    Lt,
    Lte,
    Gt,
    Gte,
    In,
    Like,
    Ilike,
    Is,
    Match,
    Imatch,
    IsDistinct,
}

impl Operator {
    pub const ALL: [Operator; 13] = [
        Operator::Eq,
        Operator::Neq,
        Operator::Lt,
        Operator::Lte,
        Operator::Gt,
        Operator::Gte,
        Operator::In,
        Operator::Like,
        Operator::Ilike,
        Operator::Is,
        Operator::Match,
        Operator::Imatch,
        Operator::IsDistinct,
    ];

    /// As it is written in a filter.
    pub fn name(self) -> &'static str {
        match self {
            Operator::Eq => "eq",
            Operator::Neq => "neq",
            Operator::Lt => "lt",
            Operator::Lte => "lte",
            Operator::Gt => "gt",
            Operator::Gte => "gte",
            Operator::In => "in",
            Operator::Like => "like",
            Operator::Ilike => "ilike",
            Operator::Is => "is",
            Operator::Match => "match",
            Operator::Imatch => "imatch",
            Operator::IsDistinct => "isdistinct",
        }
    }

    fn parse(name: &str) -> Option<Operator> {
        Operator::ALL
            .into_iter()
            .find(|operator| operator.name() == name)
    }
}

/// What is wrong with a filter; `Display` is what the client is told.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FilterError {
    /// The parts at which reading stopped: the whole condition when it has no `=`, what follows the `=` when that has no
    /// `.`, else the unknown operator and its value.
    #[error("Error parsing `filter` params: {}", Inspected(.parts))]
    Syntax { parts: Vec<String> },
    #[error("Error parsing `filter` params: `in` filter value must be wrapped by parentheses")]
    InWithoutParentheses,
    #[error(
        "Error parsing `filter` params: filter must not contain empty segments (check for extra commas)"
    )]
    EmptySegment,
}

/// The parameters of a binding as the messages about it show them, `event: …, schema: …, table: …, filters: …, select: …`.
pub fn describe_params(
    event: EventKind,
    schema: Option<&str>,
    table: Option<&str>,
    filters: &[Condition],
    select: Option<&[String]>,
) -> String {
    let mut out = format!(
        "event: {}, schema: {}, table: {}, filters: [",
        event.name(),
        schema.unwrap_or("public"),
        table.unwrap_or("*"),
    );
    for (position, condition) in filters.iter().enumerate() {
        if position > 0 {
            out.push_str(", ");
        }
        out.push('{');
        inspect(&mut out, &condition.column);
        out.push_str(", \"");
        out.push_str(condition.operator.name());
        out.push_str("\", ");
        inspect(&mut out, &condition.value);
        out.push_str(if condition.negate {
            ", true}"
        } else {
            ", false}"
        });
    }
    out.push_str("], select: ");
    match select {
        Some(columns) => inspect_list(&mut out, columns),
        None => out.push_str("nil"),
    }
    out
}

/// Cuts a filter at the commas that are outside of quotes and parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut segments = Vec::new();
    let mut start = 0;
    let mut depth = 0usize;
    let mut quoted = false;
    // The character before, within this condition. A quote opens only after one that can precede a value, so that the
    // inches in `size=eq.5" tall` stay ordinary.
    let mut before = None;
    let mut chars = text.char_indices();
    while let Some((position, char)) = chars.next() {
        if quoted {
            match char {
                '\\' => {
                    chars.next();
                }
                '"' => quoted = false,
                _ => {}
            }
        } else {
            match char {
                '"' => quoted = matches!(before, Some('.' | '(' | ',')),
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => {
                    segments.push(&text[start..position]);
                    start = position + 1;
                    before = None;
                    continue;
                }
                _ => {}
            }
        }
        before = Some(char);
    }
    segments.push(&text[start..]);
    segments
}

fn parse_condition(segment: &str) -> Result<Condition, FilterError> {
    let segment = segment.trim();
    if segment.is_empty() {
        return Err(FilterError::EmptySegment);
    }
    let syntax = |parts: &[&str]| FilterError::Syntax {
        parts: parts.iter().map(|&part| part.to_owned()).collect(),
    };
    let (column, rest) = segment.split_once('=').ok_or_else(|| syntax(&[segment]))?;
    let (negate, rest) = match rest.strip_prefix("not.") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let (name, value) = rest.split_once('.').ok_or_else(|| syntax(&[rest]))?;
    let operator = Operator::parse(name).ok_or_else(|| syntax(&[name, value]))?;
    let value = match operator {
        Operator::In => value
            .strip_prefix('(')
            .and_then(|value| value.strip_suffix(')'))
            .map(|elements| format!("{{{elements}}}"))
            .ok_or(FilterError::InWithoutParentheses)?,
        _ => unquote(value).unwrap_or_else(|| value.to_owned()),
    };
    Ok(Condition {
        column: column.to_owned(),
        operator,
        value,
        negate,
    })
}

/// The content of a value that is quoted as a whole; none for any other, which is taken literally, quotes included.
fn unquote(value: &str) -> Option<String> {
    let mut content = String::with_capacity(value.len());
    let mut chars = value.strip_prefix('"')?.chars();
    loop {
        match chars.next()? {
            '\\' => content.push(chars.next()?),
            '"' => return chars.as_str().is_empty().then_some(content),
            char => content.push(char),
        }
    }
}

struct Inspected<'a>(&'a [String]);

impl fmt::Display for Inspected<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        inspect_list(&mut out, self.0);
        formatter.write_str(&out)
    }
}

fn inspect_list(out: &mut String, items: &[String]) {
    out.push('[');
    for (position, item) in items.iter().enumerate() {
        if position > 0 {
            out.push_str(", ");
        }
        inspect(out, item);
    }
    out.push(']');
}

/// Writes text as the peer's language shows it, which is what suites compare with.
fn inspect(out: &mut String, text: &str) {
    out.push('"');
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '#' if chars.peek() == Some(&'{') => out.push_str("\\#"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            char if char.is_control() => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\x{{{:X}}}", u32::from(char));
            }
            char => out.push(char),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `column operator value`, with `!` in front when negated, joined by `; `.
    fn check(filter: &str, expected: &str) {
        let conditions = parse_filter(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
        let shown: Vec<String> = conditions
            .iter()
            .map(|condition| {
                let not = if condition.negate { "!" } else { "" };
                let Condition {
                    column,
                    operator,
                    value,
                    ..
                } = condition;
                format!("{not}{column} {} {value}", operator.name())
            })
            .collect();
        assert_eq!(shown.join("; "), expected, "{filter}");
    }

    fn check_error(filter: &str, expected: &str) {
        let error = parse_filter(filter).expect_err(filter).to_string();
        let expected = format!("Error parsing `filter` params: {expected}");
        assert_eq!(error, expected, "{filter}");
    }

    #[test]
    fn the_table_of_examples() {
        check("id=gt.0,id=lt.100", "id gt 0; id lt 100");
        check(
            "name=in.(red,blue),qty=gt.0",
            "name in {red,blue}; qty gt 0",
        );
        check("a=eq.x),b=eq.y", "a eq x); b eq y");
        check(r#"name=eq.O'Brien "x""#, r#"name eq O'Brien "x""#);
        check(r#"name=eq."a,b",id=gt.0"#, "name eq a,b; id gt 0");
        check(r#"name=eq."she said \"hi\"""#, r#"name eq she said "hi""#);
        check(r#"path=eq."C:\new""#, "path eq C:new");
        check(r#"name=eq."unterminated"#, r#"name eq "unterminated"#);
        check(r#"name=eq."ab"cd"#, r#"name eq "ab"cd"#);
        check(r#"d=eq.5" tall,id=gt.0"#, r#"d eq 5" tall; id gt 0"#);
        check(r#"t=in.("a,b","c,d")"#, r#"t in {"a,b","c,d"}"#);
        check(r#"name=not.neq."a,b""#, "!name neq a,b");
    }

    #[test]
    fn every_operator_in_both_senses() {
        for operator in Operator::ALL {
            let name = operator.name();
            let (value, kept) = match operator {
                Operator::In => ("(a,b)", "{a,b}"),
                _ => ("v", "v"),
            };
            check(&format!("c={name}.{value}"), &format!("c {name} {kept}"));
            check(
                &format!("c=not.{name}.{value}"),
                &format!("!c {name} {kept}"),
            );
        }
    }

    #[test]
    fn values_are_free_text() {
        check("", "");
        check("  \n", "");
        check(" a=eq.1 , b=eq.2 ", "a eq 1; b eq 2");
        check("a=eq.", "a eq ");
        check(r#"a=eq."""#, "a eq ");
        check(r#"a=eq.""#, r#"a eq ""#);
        check(r#"a=eq."x\"#, r#"a eq "x\"#);
        check(r#"a=eq."x\""#, r#"a eq "x\""#);
        check("a=eq.b=c.d:e", "a eq b=c.d:e");
        check(
            "t=gte.2024-01-02T03:04:05.678+00:00",
            "t gte 2024-01-02T03:04:05.678+00:00",
        );
        check("a=eq.(x,y),b=eq.1", "a eq (x,y); b eq 1");
        check("a=eq.(x,b=eq.1", "a eq (x,b=eq.1");
        check(r#"a=eq."x,b=eq.1"#, r#"a eq "x,b=eq.1"#);
        check("a=in.()", "a in {}");
        check(r#"a=in.("x)",y),b=eq.1"#, r#"a in {"x)",y}; b eq 1"#);
        check(
            r#"a=in.(x,"y,)\"z"),b=eq.1"#,
            r#"a in {x,"y,)\"z"}; b eq 1"#,
        );
        check("naïve=eq.é,🦀=eq.\"ü,ü\"", "naïve eq é; 🦀 eq ü,ü");
        check("a =eq.1", "a  eq 1");
        check("=eq.1", " eq 1");
        // A quote at the very start of a condition has nothing before it, so it opens nothing.
        check(r#"b=eq.1,"a=eq.2,c=eq.3"#, r#"b eq 1; "a eq 2; c eq 3"#);
    }

    #[test]
    fn errors_say_where_reading_stopped() {
        check_error("wrong", r#"["wrong"]"#);
        check_error("id=foo.hey", r#"["foo", "hey"]"#);
        check_error("id=eq", r#"["eq"]"#);
        check_error("id=not.eq", r#"["eq"]"#);
        check_error("id=EQ.1", r#"["EQ", "1"]"#);
        check_error("id=not.not.eq.1", r#"["not", "eq.1"]"#);
        check_error("id=eq.1,wr\"o\\ng\t#{", r##"["wr\"o\\ng\t\#{"]"##);
        let parentheses = "`in` filter value must be wrapped by parentheses";
        for filter in [
            "a=in.x",
            "a=in.(x",
            "a=in.x)",
            "a=in.",
            "a=in.(",
            "a=not.in.{x}",
        ] {
            check_error(filter, parentheses);
        }
        let empty = "filter must not contain empty segments (check for extra commas)";
        for filter in [
            ",",
            "a=eq.1,",
            ",a=eq.1",
            "a=eq.1,,b=eq.2",
            "a=eq.1, ,b=eq.2",
        ] {
            check_error(filter, empty);
        }
    }

    #[test]
    fn parameters_are_described_as_the_peer_does() {
        let filters = parse_filter("col=eq.123,name=not.in.(a,b)").unwrap();
        assert_eq!(
            describe_params(EventKind::Insert, None, None, &filters[..1], None),
            r#"event: INSERT, schema: public, table: *, filters: [{"col", "eq", "123", false}], select: nil"#
        );
        let select = ["a".to_owned(), "b".to_owned()];
        assert_eq!(
            describe_params(
                EventKind::All,
                Some("s"),
                Some("t"),
                &filters,
                Some(&select)
            ),
            r#"event: *, schema: s, table: t, filters: [{"col", "eq", "123", false}, {"name", "in", "{a,b}", true}], select: ["a", "b"]"#
        );
        assert_eq!(
            describe_params(EventKind::Delete, Some("*"), None, &[], None),
            "event: DELETE, schema: *, table: *, filters: [], select: nil"
        );
    }
}
