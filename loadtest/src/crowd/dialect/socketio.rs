//! Socket.IO, in the version that its servers speak since 2020, straight over a websocket: one namespace, and the session as what
//! the client presents itself with.

use serde_json::json;

use super::{Dialect, Request, Taken};

pub(crate) struct SocketIo {
    session: String,
}

impl SocketIo {
    pub(crate) fn new(session: &str) -> Self {
        Self {
            session: session.to_owned(),
        }
    }
}

impl Dialect for SocketIo {
    fn request(&self) -> Request {
        Request::of("/socket.io/?EIO=4&transport=websocket")
    }

    fn take(&mut self, text: &[u8]) -> Taken {
        match text {
            // Open; what follows asks for the default namespace.
            [b'0', ..] => Taken::Send(format!("40{}", json!({ "session": self.session }))),
            // A ping, and its pong. The client sends none by itself.
            b"2" => Taken::Send("3".to_owned()),
            [b'4', b'2', event @ ..] if event.starts_with(br#"["subscribed""#) => Taken::Joined,
            [b'4', b'0', ..] | b"6" => Taken::Nothing,
            _ => Taken::Ended(format!(
                "the server says: {}",
                String::from_utf8_lossy(text)
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crowd::label::Labels;

    // Recorded from Socket.IO 4.8.4. socketioxide 0.18.9 differs in the ids, and sends a ping at once.
    const OPEN: &str = r#"0{"sid":"OD_PZNhELI-se9E5AAAA","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;
    const CONNECTED: &str = r#"40{"sid":"LyfXGgL0_S0zH-rgAAAA"}"#;
    const SUBSCRIBED: &str = r#"42["subscribed","00000000-0000-4000-8000-0000000000a1"]"#;
    const CHANGE: &str = r#"42["postgres_changes",{"schema":"public","table":"chat_messages","type":"INSERT","commit_timestamp":"2026-11-28T16:47:31.360Z","columns":[{"name":"id","type":"uuid"},{"name":"session_id","type":"uuid"},{"name":"role","type":"text"},{"name":"content","type":"text"},{"name":"model","type":"text"},{"name":"metadata","type":"jsonb"},{"name":"created_at","type":"timestamptz"}],"record":{"id":"4a476a41-99c3-418f-abe1-1f7ad407994b","session_id":"00000000-0000-4000-8000-0000000000a1","role":"user","content":"hi \"x\"","model":null,"metadata":{"j":40,"n":3,"w":2,"run":9},"created_at":"2026-11-28T16:47:31.351583+00:00"},"errors":null}]"#;

    #[test]
    fn presents_itself_when_the_server_has_opened() {
        let mut reader = SocketIo::new("s");
        assert_eq!(
            reader.take(OPEN.as_bytes()),
            Taken::Send(r#"40{"session":"s"}"#.to_owned())
        );
        assert_eq!(reader.take(b"2"), Taken::Send("3".to_owned()));
        assert_eq!(reader.take(CONNECTED.as_bytes()), Taken::Nothing);
        assert_eq!(reader.take(SUBSCRIBED.as_bytes()), Taken::Joined);
    }

    #[test]
    fn changes_have_their_label() {
        let mut jobs = Vec::new();
        Labels::new().each(CHANGE.as_bytes(), |label| jobs.push(label.job));
        assert_eq!(jobs, [40]);
        for text in [OPEN, CONNECTED, SUBSCRIBED] {
            assert_eq!(Labels::new().each(text.as_bytes(), |_| ()), 0);
        }
    }

    #[test]
    fn a_refusal_and_an_end_are_told() {
        for text in [r#"44{"message":"no"}"#, "41", "1", r#"42["other"]"#] {
            let taken = SocketIo::new("s").take(text.as_bytes());
            assert!(matches!(taken, Taken::Ended(_)), "{text}: {taken:?}");
        }
    }
}
