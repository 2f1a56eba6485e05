//! Elements that are always closed, and text that is always escaped: nothing that a file says can become markup.

use std::fmt::{Display, Write as _};

/// Finished markup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Markup(String);

/// An element that is still being filled.
pub(super) struct Element {
    name: &'static str,
    head: String,
    body: String,
    void: bool,
}

pub(super) fn element(name: &'static str) -> Element {
    Element {
        name,
        head: format!("<{name}"),
        body: String::new(),
        void: false,
    }
}

/// One that has no end in HTML.
pub(super) fn void(name: &'static str) -> Element {
    Element {
        void: true,
        ..element(name)
    }
}

impl Element {
    pub(super) fn attribute(mut self, name: &'static str, value: impl Display) -> Self {
        // Writing to a string does not fail.
        let _ = write!(self.head, " {name}=\"{}\"", escaped(&value.to_string()));
        self
    }

    pub(super) fn class(self, class: impl Display) -> Self {
        self.attribute("class", class)
    }

    pub(super) fn text(mut self, text: impl Display) -> Self {
        self.body.push_str(&escaped(&text.to_string()));
        self
    }

    pub(super) fn child(mut self, child: impl Into<Markup>) -> Self {
        self.body.push_str(&child.into().0);
        self
    }

    pub(super) fn children<T: Into<Markup>>(self, children: impl IntoIterator<Item = T>) -> Self {
        children.into_iter().fold(self, Self::child)
    }

    /// Only what stands in this program: in a style sheet, text is not escaped.
    pub(super) fn style_sheet(mut self, text: &'static str) -> Self {
        self.body.push_str(text);
        self
    }
}

impl From<Element> for Markup {
    fn from(element: Element) -> Self {
        let Element {
            name,
            mut head,
            body,
            void,
        } = element;
        head.push('>');
        if !void {
            head.push_str(&body);
            // Writing to a string does not fail.
            let _ = write!(head, "</{name}>");
        }
        // Lines of bearable length for those who look at the source.
        if matches!(
            name,
            "section" | "article" | "svg" | "tr" | "header" | "nav" | "path" | "style"
        ) {
            head.push('\n');
        }
        Self(head)
    }
}

impl Markup {
    pub(super) fn into_document(self) -> String {
        format!("<!doctype html>\n{}\n", self.0)
    }

    pub(super) fn join(parts: impl IntoIterator<Item = Self>) -> Self {
        Self(parts.into_iter().map(|part| part.0).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Not allowed in HTML, whatever the way in which they are written.
            '\0'..='\x08' | '\x0b'..='\x1f' | '\x7f' => escaped.push('\u{fffd}'),
            _ => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        let one: Markup = element("p")
            .attribute("title", "\"><script>alert('x')</script>")
            .text("<b>&\0")
            .child(element("b").text(1))
            .into();
        assert_eq!(
            one.as_str(),
            "<p title=\"&quot;&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;\">&lt;b&gt;&amp;\u{fffd}<b>1</b></p>"
        );
        assert_eq!(Markup::from(void("br")).as_str(), "<br>");
    }
}
