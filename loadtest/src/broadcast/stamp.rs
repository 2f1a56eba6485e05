//! What each message carries, so that whoever receives it can say which it is and how long it took; and how it is written in
//! each form and read from each frame.

use protocol::{Encoding, Version, event};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Form;
use crate::frame::Message;
use crate::scene::link::Incoming;

/// The application's event.
pub(super) const EVENT: &str = "message";

const KIND_PUSH: u8 = 3;
const KIND_BROADCAST: u8 = 4;

/// Times are microseconds since the start of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    #[serde(rename = "w")]
    pub(super) sender: usize,
    /// The how many-th of this sender, from 1.
    #[serde(rename = "n")]
    pub(super) number: u64,
    #[serde(rename = "d")]
    pub(super) due: u64,
    #[serde(rename = "s")]
    pub(super) sent: u64,
}

/// Of four numbers.
const STAMP_BYTES: usize = 32;

impl Stamp {
    /// An object, of about so many bytes.
    pub(super) fn json(&self, filler: &str) -> String {
        format!(
            r#"{{"w":{},"n":{},"d":{},"s":{},"text":"{filler}"}}"#,
            self.sender, self.number, self.due, self.sent
        )
    }

    pub(super) fn bytes(&self, filler: &str) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(STAMP_BYTES + filler.len());
        for number in [self.sender as u64, self.number, self.due, self.sent] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(filler.as_bytes());
        bytes
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, _) = bytes.as_chunks::<8>();
        let word = |index: usize| words.get(index).map(|word| u64::from_le_bytes(*word));
        Some(Self {
            sender: usize::try_from(word(0)?).ok()?,
            number: word(1)?,
            due: word(2)?,
            sent: word(3)?,
        })
    }

    fn of_json(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }

    pub(super) fn payload(&self, form: Form, filler: &str) -> Vec<u8> {
        match form {
            Form::Text | Form::Json => self.json(filler).into_bytes(),
            Form::Bytes => self.bytes(filler),
        }
    }

    /// The stamp of a broadcast; None for any other frame.
    pub(super) fn of(incoming: &Incoming) -> Result<Option<Self>, String> {
        match incoming {
            Incoming::Text(text) => {
                let message =
                    Message::parse(Version::V2, text).map_err(|error| format!("{error:#}"))?;
                if message.event != event::BROADCAST {
                    return Ok(None);
                }
                let body: Body<'_> = serde_json::from_str(message.payload.get())
                    .map_err(|error| format!("not understood: {error}"))?;
                let stamp = Self::of_json(body.payload.get().as_bytes());
                stamp
                    .map(Some)
                    .ok_or_else(|| "a broadcast of somebody else".to_owned())
            }
            Incoming::Binary(frame) => {
                let (encoding, payload) =
                    payload_of(frame).ok_or("a binary frame of another kind")?;
                let stamp = match encoding {
                    Encoding::Json => Self::of_json(payload),
                    Encoding::Binary => Self::of_bytes(payload),
                };
                stamp
                    .map(Some)
                    .ok_or_else(|| "a broadcast of somebody else".to_owned())
            }
        }
    }
}

/// What a client sends for a broadcast in a binary frame.
pub(super) fn push_frame(topic: &str, encoding: Encoding, payload: &[u8]) -> Option<Vec<u8>> {
    let header = [
        KIND_PUSH,
        // The join's reference is 1, and this message has none.
        1,
        0,
        u8::try_from(topic.len()).ok()?,
        u8::try_from(EVENT.len()).ok()?,
        0,
        match encoding {
            Encoding::Binary => 0,
            Encoding::Json => 1,
        },
    ];
    Some(
        [
            &header[..],
            b"1",
            topic.as_bytes(),
            EVENT.as_bytes(),
            payload,
        ]
        .concat(),
    )
}

fn payload_of(frame: &[u8]) -> Option<(Encoding, &[u8])> {
    let (&[kind, topic, event, metadata, encoding], rest) = frame.split_first_chunk::<5>()?;
    if kind != KIND_BROADCAST {
        return None;
    }
    let names = usize::from(topic) + usize::from(event) + usize::from(metadata);
    let encoding = match encoding {
        0 => Encoding::Binary,
        _ => Encoding::Json,
    };
    Some((encoding, rest.get(names..)?))
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    payload: &'a RawValue,
}

#[cfg(test)]
mod tests {
    use protocol::{ClientFrame, decode_binary, encode_user_broadcast};

    use super::*;

    const STAMP: Stamp = Stamp {
        sender: 3,
        number: 9,
        due: 1_000_000,
        sent: 1_000_007,
    };

    #[test]
    fn a_stamp_survives_every_frame() {
        let text = format!(
            r#"[null,null,"realtime:a","broadcast",{{"event":"message","payload":{},"type":"broadcast"}}]"#,
            STAMP.json("abc")
        );
        assert_eq!(Stamp::of(&Incoming::Text(text.into())), Ok(Some(STAMP)));
        for (form, encoding) in [
            (Form::Json, Encoding::Json),
            (Form::Bytes, Encoding::Binary),
        ] {
            let payload = STAMP.payload(form, "abc");
            let frame =
                encode_user_broadcast("realtime:a", EVENT, Some("{}"), encoding, &payload).unwrap();
            assert_eq!(Stamp::of(&Incoming::Binary(frame.into())), Ok(Some(STAMP)));
        }
    }

    #[test]
    fn what_is_no_broadcast_of_ours_is_told_apart() {
        let reply = r#"["1","2","realtime:a","phx_reply",{"status":"ok","response":{}}]"#;
        assert_eq!(Stamp::of(&Incoming::Text(reply.into())), Ok(None));
        let foreign = r#"[null,null,"realtime:a","broadcast",{"event":"x","payload":{"a":1},"type":"broadcast"}]"#;
        assert!(Stamp::of(&Incoming::Text(foreign.into())).is_err());
        assert!(Stamp::of(&Incoming::Binary(vec![4, 200, 0, 0, 0].into())).is_err());
    }

    #[test]
    fn the_server_understands_what_is_pushed() {
        let payload = STAMP.bytes("abc");
        let frame = push_frame("realtime:a", Encoding::Binary, &payload).unwrap();
        let ClientFrame::Broadcast(broadcast) = decode_binary(Version::V2, frame.into()).unwrap()
        else {
            panic!("not a broadcast");
        };
        assert_eq!(
            (&*broadcast.topic, &*broadcast.event),
            ("realtime:a", EVENT)
        );
        assert_eq!(broadcast.join_ref, protocol::Ref::from_text("1"));
        assert_eq!(&broadcast.payload[..], &payload[..]);
    }
}
