//! Filters: no condition is lost or made up, and one that is written by the rules is read as it was meant.
#![no_main]

use fuzz::filter;
use libfuzzer_sys::fuzz_target;
use protocol::{Condition, FilterError, Operator, parse_filter};

fuzz_target!(|text: &str| {
    let separated = filter::split(text);
    assert_eq!(separated.join(","), text.trim());
    let expected: Option<Vec<_>> = separated
        .iter()
        .map(|condition| filter::read(condition))
        .collect();
    match parse_filter(text) {
        Ok(conditions) => {
            let read = conditions.iter().map(|condition| {
                let Condition {
                    column,
                    operator,
                    value,
                    negate,
                } = condition.clone();
                (column, operator.name().to_owned(), value, negate)
            });
            assert_eq!(Some(read.collect()), expected);
            for condition in conditions {
                written(&condition);
            }
        }
        Err(error) => {
            assert_eq!(expected, None, "{error}");
            let empty = separated
                .iter()
                .any(|condition| condition.trim().is_empty());
            assert!(empty || error != FilterError::EmptySegment);
            assert!(error.to_string().len() <= 8 * text.len() + 128);
        }
    }
});

/// Quoted, a value survives whatever is in it.
fn written(condition: &Condition) {
    let Condition {
        column,
        operator,
        value,
        negate,
    } = condition;
    // Quotes and parentheses in a column's name have no escape: they count for the rest of the filter.
    if column.contains(['"', '(', ')', ',']) {
        return;
    }
    let not = if *negate { "not." } else { "" };
    let value = match operator {
        Operator::In => format!("({})", &value[1..value.len() - 1]),
        _ => format!("\"{}\"", value.replace('\\', r"\\").replace('"', "\\\"")),
    };
    let text = format!("{column}={not}{}.{value}", operator.name());
    assert_eq!(parse_filter(&text), Ok(vec![condition.clone()]), "{text:?}");
    if *operator != Operator::In {
        let twice = parse_filter(&format!("{text},{text}"));
        assert_eq!(twice.map(|conditions| conditions.len()), Ok(2), "{text:?}");
    }
}
