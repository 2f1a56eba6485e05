//! The JSON protocol of Centrifugo and of servers that are built with its library: commands with ids, one a line, and the session
//! as a channel.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::{Dialect, Request, Taken};

const CONNECT: u32 = 1;
const SUBSCRIBE: u32 = 2;

pub(crate) struct Centrifuge {
    session: String,
}

impl Centrifuge {
    pub(crate) fn new(session: &str) -> Self {
        Self {
            session: session.to_owned(),
        }
    }
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    id: u32,
    error: Option<Refusal>,
    push: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Refusal {
    code: u32,
    message: String,
}

impl Dialect for Centrifuge {
    fn request(&self) -> Request {
        Request::of("/connection/websocket")
    }

    fn greet(&mut self) -> Vec<String> {
        let connect = json!({"id": CONNECT, "connect": {}});
        let subscribe = json!({"id": SUBSCRIBE, "subscribe": {"channel": self.session}});
        vec![format!("{connect}\n{subscribe}")]
    }

    fn take(&mut self, text: &[u8]) -> Taken {
        // A ping, and its pong.
        if text == b"{}" {
            return Taken::Send("{}".to_owned());
        }
        match serde_json::from_slice(text) {
            Ok(Reply {
                error: Some(Refusal { code, message }),
                ..
            }) => Taken::Ended(format!("refused: {code} {message}")),
            Ok(Reply { id: CONNECT, .. }) => Taken::Nothing,
            Ok(Reply { id: SUBSCRIBE, .. }) => Taken::Joined,
            // Whatever is pushed, beside messages, is that something ends.
            Ok(Reply { push: Some(_), .. }) | Ok(_) | Err(_) => Taken::Ended(format!(
                "the server says: {}",
                String::from_utf8_lossy(text)
            )),
        }
    }

    fn has_lines(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crowd::label::Labels;

    // Recorded from Centrifugo 6.9.1.
    const CONNECTED: &str = r#"{"id":1,"connect":{"client":"239984dd-a493-40df-8403-d6e345747c17","version":"6.9.1 OSS","ping":25,"pong":true}}"#;
    const SUBSCRIBED: &str = r#"{"id":2,"subscribe":{}}"#;
    const CHANGE: &str = r#"{"push":{"channel":"00000000-0000-4000-8000-0000000000a1","pub":{"data":{"schema":"public","table":"chat_messages","type":"INSERT","commit_timestamp":"2026-11-28T16:50:29.049Z","columns":[{"name":"id","type":"uuid"},{"name":"session_id","type":"uuid"},{"name":"role","type":"text"},{"name":"content","type":"text"},{"name":"model","type":"text"},{"name":"metadata","type":"jsonb"},{"name":"created_at","type":"timestamptz"}],"record":{"id":"906512f8-c432-4edf-8e2c-8c880ef05374","session_id":"00000000-0000-4000-8000-0000000000a1","role":"user","content":"hi \"x\"","model":null,"metadata":{"j": 40, "n": 3, "w": 2, "run": 9},"created_at":"2026-11-28T16:50:29.042039+00:00"},"errors":null}}}}"#;

    #[test]
    fn connects_and_subscribes_in_one_go() {
        let mut reader = Centrifuge::new("s");
        assert_eq!(
            reader.greet(),
            ["{\"connect\":{},\"id\":1}\n{\"id\":2,\"subscribe\":{\"channel\":\"s\"}}"]
        );
        assert!(reader.has_lines());
        assert_eq!(reader.take(CONNECTED.as_bytes()), Taken::Nothing);
        assert_eq!(reader.take(SUBSCRIBED.as_bytes()), Taken::Joined);
        assert_eq!(reader.take(b"{}"), Taken::Send("{}".to_owned()));
    }

    #[test]
    fn changes_have_their_label() {
        let frame = format!("{CHANGE}\n{CHANGE}");
        let mut jobs = Vec::new();
        Labels::new().each(frame.as_bytes(), |label| jobs.push(label.job));
        assert_eq!(jobs, [40, 40]);
    }

    #[test]
    fn a_refusal_and_an_end_are_told() {
        for text in [
            r#"{"id":2,"error":{"code":103,"message":"permission denied"}}"#,
            r#"{"push":{"channel":"s","unsubscribe":{"code":2000}}}"#,
            "nothing that is JSON",
        ] {
            let taken = Centrifuge::new("s").take(text.as_bytes());
            assert!(matches!(taken, Taken::Ended(_)), "{text}: {taken:?}");
        }
    }
}
