//! Frames by a second hand: binary ones both ways, and what a client takes a text frame to be.

use protocol::{Encoding, UserBroadcast, Version};

use crate::json;

/// A kind 4 frame, as clients read it.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind4<'a> {
    pub topic: &'a str,
    pub event: &'a str,
    pub metadata: &'a str,
    pub json: bool,
    pub payload: &'a [u8],
}

pub fn read_kind_4(frame: &[u8]) -> Option<Kind4<'_>> {
    let (header, rest) = frame.split_at_checked(5)?;
    let &[4, topic, event, metadata, encoding] = header else {
        return None;
    };
    let (topic, rest) = rest.split_at_checked(topic.into())?;
    let (event, rest) = rest.split_at_checked(event.into())?;
    let (metadata, payload) = rest.split_at_checked(metadata.into())?;
    Some(Kind4 {
        topic: str::from_utf8(topic).ok()?,
        event: str::from_utf8(event).ok()?,
        metadata: str::from_utf8(metadata).ok()?,
        json: encoding == 1,
        payload,
    })
}

/// The kind 3 frame that says this, as clients write it.
pub fn write_kind_3(broadcast: &UserBroadcast) -> Vec<u8> {
    let reference = |reference: &protocol::Ref| match reference.is_null() {
        true => String::new(),
        false => {
            serde_json::from_str(reference.as_json()).expect("references of binary frames are text")
        }
    };
    let (join_ref, reference) = (
        reference(&broadcast.join_ref),
        reference(&broadcast.reference),
    );
    let metadata = broadcast.metadata.as_ref().map_or("", |json| json.get());
    let parts = [
        &*join_ref,
        &*reference,
        &*broadcast.topic,
        &*broadcast.event,
        metadata,
    ];
    let mut frame = vec![3];
    frame.extend(parts.map(|part| u8::try_from(part.len()).expect("it came in a binary frame")));
    frame.push(u8::from(broadcast.encoding == Encoding::Json));
    frame.extend(parts.concat().bytes());
    frame.extend_from_slice(&broadcast.payload);
    frame
}

/// The payload of a frame, which must be of the one form that clients of this version read.
pub fn payload(version: Version, frame: &str) -> &str {
    match version {
        Version::V1 => {
            let members = json::members(frame).unwrap_or_else(|| panic!("no object: {frame:?}"));
            let names: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
            assert_eq!(
                names,
                [r#""topic""#, r#""event""#, r#""payload""#, r#""ref""#],
                "{frame:?}"
            );
            members[2].1
        }
        Version::V2 => {
            let items = json::items(frame).unwrap_or_else(|| panic!("no list: {frame:?}"));
            assert_eq!(items.len(), 5, "{frame:?}");
            items[4]
        }
    }
}
