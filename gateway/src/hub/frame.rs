//! A frame as it goes over the wire. What a server sends is not masked, so one frame has the same bytes for everybody: they
//! are made once, header and all, and shared.

use bytes::Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Data, OpCode},
};

/// What is sent to a client. Cheap to clone: the bytes are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    wire: Bytes,
    /// Where the header ends.
    payload: u8,
    text: bool,
}

/// The longest header of a frame that is not masked.
const LONGEST_HEADER: usize = 10;

impl Frame {
    pub fn text(text: impl AsRef<str>) -> Frame {
        Frame::new(Data::Text, text.as_ref().as_bytes())
    }

    pub fn binary(bytes: &[u8]) -> Frame {
        Frame::new(Data::Binary, bytes)
    }

    fn new(kind: Data, payload: &[u8]) -> Frame {
        let header = FrameHeader {
            opcode: OpCode::Data(kind),
            ..FrameHeader::default()
        };
        let length = payload.len() as u64;
        let mut wire = Vec::with_capacity(LONGEST_HEADER + payload.len());
        // Writing to a vector does not fail.
        let _ = header.format(length, &mut wire);
        let begin = wire.len() as u8;
        wire.extend_from_slice(payload);
        Frame {
            wire: wire.into(),
            payload: begin,
            text: matches!(kind, Data::Text),
        }
    }

    /// What has a header already: an answer of the websocket protocol itself.
    pub fn whole(wire: Bytes) -> Frame {
        Frame {
            wire,
            payload: 0,
            text: false,
        }
    }

    /// The frame, header and all.
    pub fn wire(&self) -> &Bytes {
        &self.wire
    }

    pub fn payload(&self) -> &[u8] {
        &self.wire[usize::from(self.payload)..]
    }

    /// The payload, if this is a text frame.
    pub fn as_text(&self) -> Option<&str> {
        self.text
            .then(|| std::str::from_utf8(self.payload()).ok())
            .flatten()
    }

    /// Of the payload.
    pub fn len(&self) -> usize {
        self.wire.len() - usize::from(self.payload)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_those_of_the_rfc_at_each_length() {
        for (length, header) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 0xff, 0xff]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let text = "x".repeat(length);
            let frame = Frame::text(&text);
            assert_eq!(frame.wire()[..header.len()], header);
            assert_eq!((frame.len(), frame.as_text()), (length, Some(&*text)));
            assert_eq!(frame.wire().len(), header.len() + length);
        }
    }

    #[test]
    fn bytes_are_no_text() {
        let frame = Frame::binary(b"abc");
        assert_eq!(&frame.wire()[..], b"\x82\x03abc");
        assert_eq!((frame.payload(), frame.as_text()), (&b"abc"[..], None));
    }
}
