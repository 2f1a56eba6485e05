//! Supabase Realtime, both versions of its wire format: one channel with one binding, the new messages of one session.

use anyhow::{Context, bail, ensure};
use protocol::{Ref, Version, event};
use serde::Deserialize;
use serde_json::json;

use super::{Dialect, Request, Taken};
use crate::frame::Message;

pub(crate) struct Supabase {
    version: Version,
    path: String,
    topic: String,
    session: String,
    token: String,
    replied: bool,
    heartbeats: u64,
    answered: u64,
}

impl Supabase {
    /// `path` is where the server's socket is.
    pub(crate) fn new(version: Version, path: &str, session: &str, token: &str) -> Self {
        let vsn = match version {
            Version::V1 => "1.0.0",
            Version::V2 => "2.0.0",
        };
        Self {
            version,
            path: format!("{path}?apikey={token}&vsn={vsn}"),
            topic: format!("realtime:chat:{session}"),
            session: session.to_owned(),
            token: token.to_owned(),
            replied: false,
            heartbeats: 0,
            answered: 0,
        }
    }

    fn understand(&mut self, text: &[u8]) -> anyhow::Result<Taken> {
        let text = std::str::from_utf8(text).context("a text frame is not UTF-8")?;
        let message = Message::parse(self.version, text)?;
        match &*message.event {
            event::REPLY if message.topic == protocol::HEARTBEAT_TOPIC => self.answered += 1,
            event::REPLY => {
                let reply: Reply =
                    serde_json::from_str(message.payload.get()).context("unreadable join reply")?;
                ensure!(
                    reply.status == "ok",
                    "join refused: {}",
                    reply.response.reason
                );
                self.replied = true;
            }
            event::SYSTEM => {
                let system: System = serde_json::from_str(message.payload.get())
                    .context("unreadable system message")?;
                ensure!(
                    system.status == "ok",
                    "the server reports: {}",
                    system.message
                );
                if system.extension == "postgres_changes" {
                    ensure!(
                        self.replied,
                        "the system message came before the join reply"
                    );
                    return Ok(Taken::Joined);
                }
            }
            event::CLOSE | event::ERROR => bail!("the server ended the channel"),
            event::POSTGRES_CHANGES => bail!("a change arrived that the load test did not make"),
            _ => {}
        }
        Ok(Taken::Nothing)
    }
}

impl Dialect for Supabase {
    fn request(&self) -> Request {
        Request::of(self.path.as_str())
    }

    fn greet(&mut self) -> Vec<String> {
        let payload = json!({
            "config": {
                "broadcast": {"ack": false, "self": false},
                "presence": {"key": "", "enabled": false},
                "postgres_changes": [{
                    "event": "INSERT",
                    "schema": "public",
                    "table": "chat_messages",
                    "filter": format!("session_id=eq.{}", self.session),
                }],
                "private": false,
            },
            "access_token": self.token,
        });
        let reference = Ref::from_text("1");
        vec![protocol::encode(
            self.version,
            &reference,
            &reference,
            &self.topic,
            event::JOIN,
            &payload.to_string(),
        )]
    }

    fn take(&mut self, text: &[u8]) -> Taken {
        self.understand(text)
            .unwrap_or_else(|error| Taken::Ended(format!("{error:#}")))
    }

    fn beat(&mut self) -> Taken {
        if self.answered < self.heartbeats {
            return Taken::Ended("a heartbeat was not answered".to_owned());
        }
        self.heartbeats += 1;
        Taken::Send(protocol::encode(
            self.version,
            &Ref::NULL,
            &Ref::from_text(&format!("h{}", self.heartbeats)),
            protocol::HEARTBEAT_TOPIC,
            event::HEARTBEAT,
            "{}",
        ))
    }
}

#[derive(Deserialize)]
struct Reply {
    status: String,
    response: Response,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
struct System {
    status: String,
    extension: String,
    message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &str = r#"["1","1","realtime:chat:s","phx_reply",{"status":"ok","response":{"postgres_changes":[{"id":7}]}}]"#;
    const LIVE: &str = r#"[null,null,"realtime:chat:s","system",{"status":"ok","extension":"postgres_changes","channel":"chat:s","message":"Subscribed to PostgreSQL"}]"#;

    fn reader() -> Supabase {
        Supabase::new(Version::V2, "/socket/websocket", "s", "t")
    }

    #[test]
    fn is_in_when_the_server_says_that_the_binding_is_live() {
        let mut reader = reader();
        assert_eq!(
            reader.request().path,
            "/socket/websocket?apikey=t&vsn=2.0.0"
        );
        let [join] = &reader.greet()[..] else {
            panic!("one join");
        };
        assert!(join.contains("session_id=eq.s") && join.contains("phx_join"));
        assert_eq!(reader.take(REPLY.as_bytes()), Taken::Nothing);
        assert_eq!(reader.take(LIVE.as_bytes()), Taken::Joined);
    }

    #[test]
    fn bad_news_ends_the_reader() {
        for text in [
            LIVE,
            r#"["1","1","realtime:chat:s","phx_reply",{"status":"error","response":{"reason":"no"}}]"#,
            r#"[null,null,"realtime:chat:s","phx_close",{}]"#,
            r#"[null,null,"realtime:chat:s","postgres_changes",{"data":{}}]"#,
            "nothing that is JSON",
        ] {
            let taken = reader().take(text.as_bytes());
            assert!(matches!(taken, Taken::Ended(_)), "{text}: {taken:?}");
        }
    }

    #[test]
    fn a_heartbeat_without_answer_ends_the_reader() {
        let mut reader = reader();
        assert!(matches!(reader.beat(), Taken::Send(text) if text.contains("h1")));
        let answer =
            r#"[null,"h1","phoenix","phx_reply",{"status":"ok","response":{}}]"#.as_bytes();
        assert_eq!(reader.take(answer), Taken::Nothing);
        assert!(matches!(reader.beat(), Taken::Send(_)));
        assert!(matches!(reader.beat(), Taken::Ended(_)));
    }
}
