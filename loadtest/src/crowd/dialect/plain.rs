//! A websocket and nothing else: whoever opens it is told something once and then gets the messages.

use super::{Dialect, Request, Taken};

pub(crate) struct Plain {
    path: String,
}

impl Plain {
    pub(crate) fn new(path: impl Into<String>) -> Self {
        Self { path: path.into() }
    }
}

impl Dialect for Plain {
    fn request(&self) -> Request {
        Request::of(self.path.as_str())
    }

    fn take(&mut self, _: &[u8]) -> Taken {
        Taken::Joined
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_in_with_the_first_word() {
        let mut plain = Plain::new("/?session=7");
        assert_eq!(plain.request(), Request::of("/?session=7"));
        assert!(plain.greet().is_empty());
        assert_eq!(plain.take(br#"{"subscribed":"7"}"#), Taken::Joined);
    }
}
