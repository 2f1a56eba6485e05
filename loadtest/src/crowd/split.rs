//! Cuts the bytes that a server sends into websocket frames, without copying those that are whole.

use anyhow::{bail, ensure};

/// A server of this load test sends nothing near this.
const LONGEST: usize = 16 << 20;

/// A rest that was larger than this is not worth keeping for the next one.
const KEPT: usize = 4 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text or binary.
    Data,
    Close,
    Ping,
    Pong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    pub(crate) kind: Kind,
    pub(crate) payload: &'a [u8],
}

/// What a socket keeps between two reads: the beginning of a frame whose end has not come yet.
#[derive(Default)]
pub(crate) struct Splitter {
    rest: Vec<u8>,
}

struct Header {
    kind: Kind,
    /// Of the header itself.
    length: usize,
    payload: usize,
}

impl Splitter {
    /// Hands out each frame that these bytes complete.
    pub(crate) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut take: impl FnMut(Part<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        while !self.rest.is_empty() {
            let header = Header::parse(&self.rest)?;
            let wanted = match &header {
                Ok(header) => header.length + header.payload,
                Err(wanted) => *wanted,
            };
            let missing = wanted - self.rest.len();
            let (more, others) = bytes.split_at(missing.min(bytes.len()));
            self.rest.extend_from_slice(more);
            bytes = others;
            if more.len() < missing {
                return Ok(());
            }
            if let Ok(header) = header {
                take(Part {
                    kind: header.kind,
                    payload: &self.rest[header.length..],
                })?;
                self.rest.clear();
                if self.rest.capacity() > KEPT {
                    self.rest = Vec::new();
                }
            }
        }
        while !bytes.is_empty() {
            let Ok(header) = Header::parse(bytes)? else {
                break;
            };
            let end = header.length + header.payload;
            if bytes.len() < end {
                break;
            }
            take(Part {
                kind: header.kind,
                payload: &bytes[header.length..end],
            })?;
            bytes = &bytes[end..];
        }
        self.rest.extend_from_slice(bytes);
        Ok(())
    }
}

impl Header {
    /// `Err` within is how many bytes are needed to know more.
    fn parse(bytes: &[u8]) -> anyhow::Result<Result<Self, usize>> {
        let [first, second, more @ ..] = bytes else {
            return Ok(Err(2));
        };
        ensure!(first & 0x80 != 0, "a frame in fragments arrived");
        ensure!(first & 0x70 == 0, "a frame with an extension arrived");
        ensure!(second & 0x80 == 0, "a masked frame arrived from a server");
        let kind = match first & 0x0f {
            1 | 2 => Kind::Data,
            8 => Kind::Close,
            9 => Kind::Ping,
            10 => Kind::Pong,
            opcode => bail!("a frame of the unknown kind {opcode} arrived"),
        };
        let (length, payload) = match second & 0x7f {
            126 => match more {
                [a, b, ..] => (4, u64::from(u16::from_be_bytes([*a, *b]))),
                _ => return Ok(Err(4)),
            },
            127 => match more.first_chunk() {
                Some(size) => (10, u64::from_be_bytes(*size)),
                None => return Ok(Err(10)),
            },
            size => (2, u64::from(size)),
        };
        let payload = usize::try_from(payload).unwrap_or(usize::MAX);
        ensure!(
            payload <= LONGEST,
            "a frame longer than {LONGEST} bytes arrived"
        );
        Ok(Ok(Self {
            kind,
            length,
            payload,
        }))
    }
}

/// The header of an unmasked text frame: what a server sends.
pub(crate) fn text_header(length: usize) -> Vec<u8> {
    let mut header = vec![0x81];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => header.push(short),
        (_, Ok(medium)) => {
            header.push(126);
            header.extend(medium.to_be_bytes());
        }
        _ => {
            header.push(127);
            header.extend((length as u64).to_be_bytes());
        }
    }
    header
}

/// A whole frame of a client. `opcode` is 1 for text, 8 to close, 10 for a pong; the payload is short enough for a
/// length of two bytes.
pub(crate) fn client_frame(opcode: u8, payload: &[u8]) -> anyhow::Result<Vec<u8>> {
    const MASKED: u8 = 0x80;
    let mask: [u8; 4] = rand::random();
    let mut frame = vec![0x80 | opcode];
    match u8::try_from(payload.len()) {
        Ok(short) if short < 126 => frame.push(MASKED | short),
        _ => {
            let Ok(medium) = u16::try_from(payload.len()) else {
                bail!("a client of the load test sends no frame this long");
            };
            frame.push(MASKED | 126);
            frame.extend(medium.to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize, fill: u8) -> Vec<u8> {
        let mut frame = text_header(length);
        frame.resize(frame.len() + length, fill);
        frame
    }

    fn split(chunks: &[&[u8]]) -> anyhow::Result<Vec<(Kind, Vec<u8>)>> {
        let mut splitter = Splitter::default();
        let mut parts = Vec::new();
        for chunk in chunks {
            splitter.feed(chunk, |part| {
                parts.push((part.kind, part.payload.to_vec()));
                Ok(())
            })?;
        }
        assert!(
            splitter.rest.is_empty(),
            "{} bytes are left",
            splitter.rest.len()
        );
        Ok(parts)
    }

    #[test]
    fn frames_may_be_cut_at_any_byte() {
        let stream = [
            frame(0, 0),
            frame(5, b'a'),
            frame(125, b'b'),
            frame(126, b'c'),
            frame(700, b'd'),
            vec![0x89, 1, b'p'],
            frame(70_000, b'e'),
            vec![0x88, 0],
        ]
        .concat();
        let whole = split(&[&stream]).unwrap();
        let lengths: Vec<usize> = whole.iter().map(|(_, payload)| payload.len()).collect();
        assert_eq!(lengths, [0, 5, 125, 126, 700, 1, 70_000, 0]);
        assert_eq!((whole[5].0, whole[7].0), (Kind::Ping, Kind::Close));
        // Within the small ones, every byte; within the large one, its header and its end.
        let cuts = (0..1200).chain(stream.len() - 20..=stream.len());
        for cut in cuts {
            let (first, second) = stream.split_at(cut);
            assert_eq!(split(&[first, second]).unwrap(), whole, "cut at {cut}");
        }
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(split(&single).unwrap(), whole);
        let three: Vec<&[u8]> = stream.chunks(3).collect();
        assert_eq!(split(&three).unwrap(), whole);
    }

    #[test]
    fn what_no_server_sends_is_an_error() {
        for bytes in [
            [0x01, 0, 0, 0],
            [0xc1, 0, 0, 0],
            [0x81, 0x80, 0, 0],
            [0x83, 0, 0, 0],
        ] {
            assert!(split(&[&bytes]).is_err(), "{bytes:x?}");
        }
        assert!(split(&[&[0x81, 127, 1, 0, 0, 0, 0, 0, 0, 0]]).is_err());
    }

    #[test]
    fn what_a_client_sends_is_masked() {
        for length in [0, 125, 126, 3000] {
            let payload = vec![7; length];
            let frame = client_frame(1, &payload).unwrap();
            let header = if length < 126 { 2 } else { 4 };
            assert_eq!((frame[0], frame.len()), (0x81, header + 4 + length));
            let (mask, masked) = frame[header..].split_at(4);
            let unmasked: Vec<u8> = masked
                .iter()
                .zip(mask.iter().cycle())
                .map(|(byte, mask)| byte ^ mask)
                .collect();
            assert_eq!(unmasked, payload);
        }
        assert!(client_frame(1, &vec![0; 70_000]).is_err());
    }
}
