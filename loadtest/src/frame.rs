//! Reading what the server sends, without copying it: at a hundred thousand frames a second the client must not be what is
//! measured. Frames that clients send are written by the crate `protocol`.

use std::borrow::Cow;

use anyhow::Context;
use protocol::Version;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What the writers put into `chat_messages.metadata`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Label {
    /// Which run of the load test.
    pub(crate) run: u32,
    /// Which writer.
    #[serde(rename = "w")]
    pub(crate) writer: usize,
    /// Which message of the whole run: it says when this one was due.
    #[serde(rename = "j")]
    pub(crate) job: u64,
    /// The how many-th of this writer to this session, from 1.
    #[serde(rename = "n")]
    pub(crate) number: u64,
}

/// What a message says, in so many letters.
pub(crate) fn text(length: usize) -> String {
    "Lorem ipsum dolor sit amet. "
        .chars()
        .cycle()
        .take(length)
        .collect()
}

/// A frame, as far as the load test looks into it.
#[derive(Debug)]
pub(crate) enum Frame<'a> {
    Change(ChangePayload<'a>),
    Other(Message<'a>),
}

#[derive(Debug)]
pub(crate) struct Message<'a> {
    pub(crate) topic: Cow<'a, str>,
    pub(crate) event: Cow<'a, str>,
    /// JSON text; `null` when there is none.
    pub(crate) reference: &'a str,
    pub(crate) payload: &'a RawValue,
}

/// The payload of a `postgres_changes` message about a row that a writer of the load test made.
#[derive(Debug, Deserialize)]
pub(crate) struct ChangePayload<'a> {
    pub(crate) ids: Vec<u64>,
    #[serde(borrow)]
    pub(crate) data: ChangeData<'a>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ChangeData<'a> {
    #[serde(rename = "type")]
    pub(crate) kind: &'a str,
    #[serde(borrow)]
    pub(crate) record: Record<'a>,
    /// The protocol has it in every change, and null in a good one.
    pub(crate) errors: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Record<'a> {
    pub(crate) session_id: &'a str,
    pub(crate) metadata: Label,
}

#[derive(Deserialize)]
struct ObjectForm<'a, P> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    event: Cow<'a, str>,
    payload: P,
    #[serde(rename = "ref", borrow)]
    reference: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ArrayForm<'a, P>(
    IgnoredAny,
    #[serde(borrow)] Option<&'a RawValue>,
    #[serde(borrow)] Cow<'a, str>,
    #[serde(borrow)] Cow<'a, str>,
    P,
);

impl<'a> Message<'a> {
    pub(crate) fn parse(version: Version, text: &'a str) -> anyhow::Result<Self> {
        let (reference, topic, event, payload) = match version {
            Version::V1 => {
                let frame: ObjectForm<'a, &'a RawValue> =
                    serde_json::from_str(text).context("not a 1.0.0 frame")?;
                (frame.reference, frame.topic, frame.event, frame.payload)
            }
            Version::V2 => {
                let frame: ArrayForm<'a, &'a RawValue> =
                    serde_json::from_str(text).context("not a 2.0.0 frame")?;
                (frame.1, frame.2, frame.3, frame.4)
            }
        };
        Ok(Self {
            topic,
            event,
            reference: reference.map_or("null", RawValue::get),
            payload,
        })
    }
}

impl<'a> Frame<'a> {
    /// A change that is not as it should be comes back as [`Frame::Other`] with the event `postgres_changes`.
    pub(crate) fn parse(version: Version, text: &'a str) -> anyhow::Result<Self> {
        // Nearly every frame is a change, so that shape is tried first, in one pass.
        if let Ok(change) = Self::parse_change(version, text) {
            return Ok(Self::Change(change));
        }
        Message::parse(version, text).map(Self::Other)
    }

    fn parse_change(version: Version, text: &'a str) -> serde_json::Result<ChangePayload<'a>> {
        Ok(match version {
            Version::V1 => serde_json::from_str::<ObjectForm<'a, ChangePayload<'a>>>(text)?.payload,
            Version::V2 => serde_json::from_str::<ArrayForm<'a, ChangePayload<'a>>>(text)?.4,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD: &str = r#"{"ids":[7],"data":{"schema":"public","table":"chat_messages","type":"INSERT","commit_timestamp":"2026-11-20T11:57:21.240Z","columns":[{"name":"id","type":"uuid"}],"record":{"id":"x","session_id":"s-1","content":"say \"hi\"","metadata":{"j":40,"n":3,"w":2,"run":9}},"errors":null}}"#;

    #[track_caller]
    fn check(version: Version, text: &str) {
        let Frame::Change(change) = Frame::parse(version, text).unwrap() else {
            panic!("not read as a change");
        };
        assert_eq!((change.ids, change.data.kind), (vec![7], "INSERT"));
        assert_eq!(change.data.record.session_id, "s-1");
        assert!(change.data.errors.is_none());
        assert_eq!(
            change.data.record.metadata,
            Label {
                run: 9,
                writer: 2,
                job: 40,
                number: 3
            }
        );
    }

    #[test]
    fn reads_a_change_in_both_versions() {
        check(
            Version::V2,
            &format!(r#"[null,null,"realtime:r","postgres_changes",{PAYLOAD}]"#),
        );
        check(
            Version::V1,
            &format!(
                r#"{{"topic":"realtime:r","event":"postgres_changes","payload":{PAYLOAD},"ref":null}}"#
            ),
        );
    }

    #[test]
    fn reads_replies_with_their_reference() {
        for (version, text) in [
            (
                Version::V2,
                r#"["1","2","realtime:\u0072","phx_reply",{"status":"ok"}]"#,
            ),
            (
                Version::V1,
                r#"{"event":"phx_reply","payload":{"status":"ok"},"ref":"2","topic":"realtime:\u0072"}"#,
            ),
        ] {
            let Frame::Other(message) = Frame::parse(version, text).unwrap() else {
                panic!("not read as a message");
            };
            assert_eq!(
                (&*message.topic, &*message.event),
                ("realtime:r", "phx_reply")
            );
            assert_eq!(
                (message.reference, message.payload.get()),
                (r#""2""#, r#"{"status":"ok"}"#)
            );
        }
    }

    #[test]
    fn a_change_of_somebody_elses_row_is_no_change_of_ours() {
        let text = r#"[null,null,"t","postgres_changes",{"ids":[1],"data":{"type":"INSERT","record":{"metadata":{}},"errors":null}}]"#;
        assert!(
            matches!(Frame::parse(Version::V2, text), Ok(Frame::Other(message)) if message.event == "postgres_changes")
        );
        assert!(Frame::parse(Version::V2, "{}").is_err());
        assert!(Frame::parse(Version::V1, "[1").is_err());
    }
}
