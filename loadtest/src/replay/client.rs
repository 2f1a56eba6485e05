//! One who comes late, and is given what was there before.

use std::sync::Arc;
use std::time::Instant;

use protocol::Version;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::channel::End;
use crate::frame::Message;
use crate::scene::link::{Incoming, Link, Wish};
use crate::socket::Endpoint;

pub(super) struct Client {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) token: String,
    pub(super) wish: Wish,
    /// Messages 1 to this must come, in their order.
    pub(super) expected: u64,
}

pub(super) struct Caught {
    pub(super) link: Link,
    pub(super) began: Instant,
    pub(super) due: Instant,
    /// When it had everything, and knew it.
    pub(super) at: Instant,
}

/// The messages, as they come.
struct Taken {
    next: u64,
}

impl Client {
    pub(super) async fn come(self, due: Instant) -> Result<Caught, End> {
        let began = Instant::now();
        let mut taken = Taken { next: 1 };
        let take = |incoming: &Incoming| taken.take(incoming);
        let joined = Link::joined(&self.endpoint, &self.token, &self.wish, take);
        let (mut link, joined) = Box::pin(joined).await?;
        let mut at = joined.live;
        // A replay of broadcasts follows the reply, and nothing says where it ends.
        while self.is_broadcast() && taken.next <= self.expected {
            let next = tokio::time::timeout(super::LIMIT, link.next()).await;
            let next = next.map_err(|_| End::Broken("the replay does not come".to_owned()))?;
            taken.take(&next?)?;
            at = Instant::now();
        }
        if taken.next != self.expected + 1 {
            return Err(End::Wrong(format!(
                "{} of {} messages came",
                taken.next - 1,
                self.expected
            )));
        }
        Ok(Caught {
            link,
            began,
            due,
            at,
        })
    }

    fn is_broadcast(&self) -> bool {
        self.wish.private
    }
}

impl Taken {
    fn take(&mut self, incoming: &Incoming) -> Result<(), End> {
        let number = number_of(incoming).map_err(End::Wrong)?;
        let Some(number) = number else { return Ok(()) };
        if number != self.next {
            return Err(End::Wrong(format!(
                "message {number} came where {} was due",
                self.next
            )));
        }
        self.next += 1;
        Ok(())
    }
}

/// Which message it is, if it is one of those that were written before.
fn number_of(incoming: &Incoming) -> Result<Option<u64>, String> {
    let not_understood = |error: serde_json::Error| format!("not understood: {error}");
    match incoming {
        Incoming::Text(text) => {
            let message =
                Message::parse(Version::V2, text).map_err(|error| format!("{error:#}"))?;
            let payload = message.payload.get();
            match &*message.event {
                "postgres_changes" => {
                    let change: Change = serde_json::from_str(payload).map_err(not_understood)?;
                    Ok(Some(change.data.record.metadata.n))
                }
                "broadcast" => {
                    let body: Body<'_> = serde_json::from_str(payload).map_err(not_understood)?;
                    let label: Label =
                        serde_json::from_str(body.payload.get()).map_err(not_understood)?;
                    Ok(Some(label.n))
                }
                _ => Ok(None),
            }
        }
        Incoming::Binary(frame) => {
            let (&[_, topic, event, metadata, _], rest) =
                frame.split_first_chunk::<5>().ok_or("a short frame")?;
            let names = usize::from(topic) + usize::from(event) + usize::from(metadata);
            let payload = rest.get(names..).ok_or("a frame that is cut off")?;
            let label: Label = serde_json::from_slice(payload).map_err(not_understood)?;
            Ok(Some(label.n))
        }
    }
}

#[derive(Deserialize)]
struct Change {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    record: Record,
}

#[derive(Deserialize)]
struct Record {
    metadata: Label,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    payload: &'a RawValue,
}

#[derive(Deserialize)]
struct Label {
    n: u64,
}

#[cfg(test)]
mod tests {
    use protocol::{Encoding, encode_user_broadcast};

    use super::*;

    #[test]
    fn a_message_has_its_number_in_every_form() {
        let change = r#"[null,null,"realtime:a","postgres_changes",{"ids":[1],"data":{"type":"INSERT","record":{"content":"x","metadata":{"n":4}}}}]"#;
        let broadcast = r#"[null,null,"realtime:a","broadcast",{"event":"message","payload":{"n":5},"type":"broadcast"}]"#;
        let of = |text: &str| number_of(&Incoming::Text(text.into()));
        assert_eq!((of(change), of(broadcast)), (Ok(Some(4)), Ok(Some(5))));
        let frame =
            encode_user_broadcast("realtime:a", "m", Some("{}"), Encoding::Json, br#"{"n":6}"#);
        let frame = Incoming::Binary(frame.unwrap().into());
        assert_eq!(number_of(&frame), Ok(Some(6)));
        assert_eq!(
            of(r#"[null,null,"realtime:a","presence_state",{}]"#),
            Ok(None)
        );
    }

    #[test]
    fn a_gap_and_a_double_are_wrong() {
        let message = |n: u64| {
            Incoming::Text(
                format!(r#"[null,null,"t","broadcast",{{"payload":{{"n":{n}}}}}]"#).into(),
            )
        };
        let mut taken = Taken { next: 1 };
        assert!(taken.take(&message(1)).is_ok());
        assert!(taken.take(&message(1)).is_err());
        assert!(taken.take(&message(3)).is_err());
        assert!(taken.take(&message(2)).is_ok());
    }
}
