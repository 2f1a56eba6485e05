//! The form of the answer that a request accepts. Pure.

use axum::http::{HeaderMap, StatusCode, header};

use crate::edge::Refusal;

pub(super) const ONE_OBJECT: &str = "application/vnd.pgrst.object+json";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A JSON array of the stored rows.
    List,
    /// The one stored row itself.
    Object,
}

impl Form {
    /// The form of the greatest weight; among equals the first.
    pub(super) fn parse(headers: &HeaderMap) -> Result<Form, Refusal> {
        let lines: Vec<_> = headers
            .get_all(header::ACCEPT)
            .iter()
            .map(|line| String::from_utf8_lossy(line.as_bytes()))
            .collect();
        let accepted = lines.join(", ");
        let mut best: Option<(Form, f32)> = None;
        let mut asks = false;
        for range in accepted.split(',').map(str::trim) {
            if range.is_empty() {
                continue;
            }
            asks = true;
            if let Some((form, weight)) = parse_range(range)
                && weight > best.map_or(0.0, |(_, best)| best)
            {
                best = Some((form, weight));
            }
        }
        match best {
            Some((form, _)) => Ok(form),
            None if !asks => Ok(Form::List),
            None => Err(Refusal::new(
                StatusCode::NOT_ACCEPTABLE,
                "PGRST107",
                format!("None of these media types are available: {accepted}"),
            )
            .hint(format!("`application/json` and `{ONE_OBJECT}` are."))),
        }
    }
}

fn parse_range(range: &str) -> Option<(Form, f32)> {
    let mut parts = range.split(';').map(str::trim);
    let form = match &*parts.next()?.to_ascii_lowercase() {
        "application/json" | "application/*" | "*/*" => Form::List,
        ONE_OBJECT => Form::Object,
        _ => return None,
    };
    let mut weight = 1.0;
    for parameter in parts {
        match parameter.split_once('=') {
            Some(("q" | "Q", value)) => weight = value.parse().ok()?,
            // It would leave out keys; the rows come with all of them.
            Some(("nulls", "stripped")) => return None,
            _ => {}
        }
    }
    Some((form, weight))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_first_of_the_greatest_weight_is_taken() {
        let form = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::ACCEPT, HeaderValue::from_static(line));
            }
            Form::parse(&headers).map_err(|refusal| refusal.status().as_u16())
        };
        for list in [
            &[][..],
            &[""],
            &["*/*"],
            &["Application/JSON; charset=utf-8"],
            &["text/html, application/*;q=0.8"],
            &["text/html", "*/*;q=0.1"],
            &["application/vnd.pgrst.object+json;q=0.5, application/json"],
        ] {
            assert_eq!(form(list), Ok(Form::List), "{list:?}");
        }
        for object in [
            &["application/vnd.pgrst.object+json"][..],
            &["application/vnd.pgrst.object+json, application/json"],
            &["*/*;q=0.1", "application/vnd.pgrst.object+json"],
        ] {
            assert_eq!(form(object), Ok(Form::Object), "{object:?}");
        }
        for neither in [
            &["text/csv"][..],
            &["application/json;q=0"],
            &["application/json;q=nan"],
            &["application/vnd.pgrst.object+json;nulls=stripped"],
            &["application/vnd.pgrst.array+json;nulls=stripped"],
        ] {
            assert_eq!(form(neither), Err(406), "{neither:?}");
        }
    }
}
