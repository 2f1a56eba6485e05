//! The grammar of filters by a second hand, word for word as the wire contract has it.

/// The conditions of a filter, as they were separated; none if there is no filter.
pub fn split(filter: &str) -> Vec<String> {
    let text: Vec<char> = filter.trim().chars().collect();
    if text.is_empty() {
        return Vec::new();
    }
    let mut conditions = vec![String::new()];
    let (mut depth, mut quoted, mut at) = (0_u64, false, 0);
    while at < text.len() {
        let condition = conditions.last_mut().expect("there is always one");
        let char = text[at];
        at += 1;
        if quoted {
            condition.push(char);
            if char == '\\' && at < text.len() {
                condition.push(text[at]);
                at += 1;
            }
            quoted = char != '"';
            continue;
        }
        match char {
            ',' if depth == 0 => {
                conditions.push(String::new());
                continue;
            }
            '"' => quoted = condition.ends_with(['.', '(', ',']),
            '(' => depth += 1,
            ')' if depth > 0 => depth -= 1,
            _ => {}
        }
        condition.push(char);
    }
    conditions
}

/// Column, operator, value and whether it is negated; none if that is no condition.
pub fn read(condition: &str) -> Option<(String, String, String, bool)> {
    let condition = condition.trim();
    let equals = condition.find('=')?;
    let (column, rest) = (&condition[..equals], &condition[equals + 1..]);
    let negated = rest.starts_with("not.");
    let rest = if negated { &rest[4..] } else { rest };
    let dot = rest.find('.')?;
    let (operator, value) = (&rest[..dot], &rest[dot + 1..]);
    let known = "eq neq lt lte gt gte in like ilike is match imatch isdistinct";
    known.split(' ').find(|known| *known == operator)?;
    let value = match operator {
        "in" if value.len() >= 2 && value.starts_with('(') && value.ends_with(')') => {
            format!("{{{}}}", &value[1..value.len() - 1])
        }
        "in" => return None,
        _ => content(value).unwrap_or_else(|| value.to_owned()),
    };
    Some((column.to_owned(), operator.to_owned(), value, negated))
}

/// What is between the quotes, if the quote that opens the value closes at its very end.
fn content(value: &str) -> Option<String> {
    let mut text: Vec<char> = value.chars().collect();
    text.reverse();
    if text.pop() != Some('"') {
        return None;
    }
    let mut content = String::new();
    while let Some(char) = text.pop() {
        match char {
            '"' if text.is_empty() => return Some(content),
            '"' => return None,
            '\\' => content.push(text.pop()?),
            other => content.push(other),
        }
    }
    None
}
