//! Which database is being read, and the cursors that are good for it.
//!
//! A cursor is a [`Mark`] as text, signed: it can be carried by clients, and by no other means than a gateway of this database
//! can it come to be. It also says by which place of the write-ahead log all that it covers had been written. After a failover
//! to a standby that had not come as far, or a recovery to an earlier time, it is refused.

use std::sync::Arc;

use aws_lc_rs::{digest, hmac};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use protocol::resume::ResumeError;
use serde::Deserialize;

use super::{
    mark::{ALL, Mark, Part},
    snapshot::Snapshot,
};

pub struct Source {
    identity: Box<str>,
    /// A digest of the identity, for cursors.
    database: [u8; DATABASE_BYTES],
    key: hmac::Key,
    timeline: u32,
    timelines: Vec<Timeline>,
    crashes: Vec<Crash>,
}

/// A crash of the server, and the first transaction number that may have been given out twice because of it; null if nobody knows.
#[derive(Debug, Clone, Deserialize)]
pub struct Crash {
    crash: u32,
    reused: Option<u64>,
}

/// A timeline of the write-ahead log, and where it began; null if nobody knows.
#[derive(Debug, Clone, Deserialize)]
pub struct Timeline {
    timeline: u32,
    began: Option<u64>,
}

const FORMAT: u8 = 1;
const DATABASE_BYTES: usize = 8;
const TAG_BYTES: usize = 10;
/// A read under way adds a part, and so does each read that broke off before it.
const MOST_PARTS: u64 = 64;

impl Source {
    pub fn new(
        identity: &str,
        key: &[u8],
        timeline: u32,
        timelines: Vec<Timeline>,
        crashes: Vec<Crash>,
    ) -> Source {
        let mut database = [0; DATABASE_BYTES];
        let digest = digest::digest(&digest::SHA256, identity.as_bytes());
        database.copy_from_slice(&digest.as_ref()[..DATABASE_BYTES]);
        Source {
            identity: identity.into(),
            database,
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            timeline,
            timelines,
            crashes,
        }
    }

    /// The last crash that is known of; 0 if there was none.
    pub fn crash(&self) -> u32 {
        self.crashes.last().map_or(0, |last| last.crash)
    }

    /// The first transaction number that may have been given out twice since a crash; `u64::MAX` if there is none, None if nobody
    /// knows.
    pub fn reused_since(&self, crash: u32) -> Option<u64> {
        self.crashes
            .iter()
            .filter(|later| later.crash > crash)
            .try_fold(u64::MAX, |least, later| Some(least.min(later.reused?)))
    }

    pub fn identity(&self) -> &str {
        &self.identity
    }

    pub fn timeline(&self) -> u32 {
        self.timeline
    }

    /// Whether all that had been written by this place of a timeline is here.
    pub fn has(&self, timeline: u32, written: u64) -> bool {
        let known = |later: u32| {
            self.timelines.iter().any(|known| {
                known.timeline == later && known.began.is_some_and(|began| written <= began)
            })
        };
        timeline <= self.timeline && (timeline.saturating_add(1)..=self.timeline).all(known)
    }

    /// `written`: the place of the write-ahead log by which all that the mark covers had been written.
    pub fn cursor(&self, mark: &Mark, written: u64) -> String {
        let parts = mark.parts();
        let last = parts.last().map_or(ALL, |part| part.reached);
        self.stem(parts, written).cursor(last)
    }

    /// For cursors that differ only in how far the last part has reached.
    pub fn stem(&self, parts: &[Part], written: u64) -> Stem {
        let mut bytes = Vec::with_capacity(64);
        bytes.push(FORMAT);
        bytes.extend_from_slice(&self.database);
        put(&mut bytes, u64::from(self.timeline));
        put(&mut bytes, u64::from(self.crash()));
        put(&mut bytes, written);
        put(&mut bytes, parts.len() as u64);
        for (place, part) in parts.iter().enumerate() {
            let snapshot = &part.snapshot;
            put(&mut bytes, snapshot.xmin());
            put(&mut bytes, snapshot.xmax() - snapshot.xmin());
            put(&mut bytes, snapshot.running().len() as u64);
            let mut before = snapshot.xmin();
            for xid in snapshot.running() {
                put(&mut bytes, xid - before);
                before = *xid;
            }
            if place + 1 < parts.len() {
                put_reached(&mut bytes, part.reached);
            }
        }
        let mut signing = hmac::Context::with_key(&self.key);
        signing.update(&bytes);
        Stem { bytes, signing }
    }

    /// The mark of a cursor, and the place of the write-ahead log by which all that it covers had been written: 0 if that was on
    /// an earlier timeline.
    pub fn parse(&self, cursor: &str) -> Result<(Mark, u64), ResumeError> {
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(cursor)
            .map_err(|_| ResumeError::Invalid)?;
        let split = bytes.len().checked_sub(TAG_BYTES);
        let (body, tag) = bytes.split_at(split.ok_or(ResumeError::Invalid)?);
        let [FORMAT, rest @ ..] = body else {
            return Err(ResumeError::Invalid);
        };
        let (database, mut rest) = rest
            .split_at_checked(DATABASE_BYTES)
            .ok_or(ResumeError::Invalid)?;
        if database != self.database {
            return Err(ResumeError::Foreign);
        }
        let expected = hmac::sign(&self.key, body);
        aws_lc_rs::constant_time::verify_slices_are_equal(&expected.as_ref()[..TAG_BYTES], tag)
            .map_err(|_| ResumeError::Invalid)?;
        // Signed by ourselves; still, nothing below may panic.
        let (timeline, crash, written, mark) = parse(&mut rest).ok_or(ResumeError::Invalid)?;
        let crash = u32::try_from(crash).map_err(|_| ResumeError::Invalid)?;
        let mark = match self.reused_since(crash) {
            Some(u64::MAX) => mark,
            // What it says of numbers from there on it says of transactions that are forgotten.
            Some(reused) => mark.before(reused),
            None => return Err(ResumeError::Foreign),
        };
        match u32::try_from(timeline) {
            Ok(timeline) if timeline == self.timeline => Ok((mark, written)),
            Ok(timeline) if self.has(timeline, written) => Ok((mark, 0)),
            _ => Err(ResumeError::Foreign),
        }
    }
}

/// A cursor without its last number.
pub struct Stem {
    bytes: Vec<u8>,
    signing: hmac::Context,
}

impl Stem {
    pub fn cursor(&self, reached: i64) -> String {
        let mut bytes = Vec::with_capacity(self.bytes.len() + 10 + TAG_BYTES);
        bytes.extend_from_slice(&self.bytes);
        put_reached(&mut bytes, reached);
        let mut signing = self.signing.clone();
        signing.update(&bytes[self.bytes.len()..]);
        bytes.extend_from_slice(&signing.sign().as_ref()[..TAG_BYTES]);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }
}

fn parse(rest: &mut &[u8]) -> Option<(u64, u64, u64, Mark)> {
    let (timeline, crash, written, count) = (take(rest)?, take(rest)?, take(rest)?, take(rest)?);
    if count > MOST_PARTS {
        return None;
    }
    let mut parts = Vec::new();
    for _ in 0..count {
        let xmin = take(rest)?;
        let xmax = xmin.checked_add(take(rest)?)?;
        let count = take(rest)?;
        if count > rest.len() as u64 {
            return None;
        }
        let mut running = Vec::with_capacity(count as usize);
        let mut before = xmin;
        for _ in 0..count {
            before = before.checked_add(take(rest)?)?;
            running.push(before);
        }
        let reached = match take(rest)? {
            0 => ALL,
            above => i64::try_from(above - 1).ok()?,
        };
        parts.push(Part {
            snapshot: Arc::new(Snapshot::new(xmin, xmax, running)?),
            reached,
        });
    }
    rest.is_empty().then_some(())?;
    Some((timeline, crash, written, Mark::of(parts)?))
}

fn put_reached(bytes: &mut Vec<u8>, reached: i64) {
    put(
        bytes,
        match reached {
            ALL => 0,
            reached => reached.max(0) as u64 + 1,
        },
    );
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for place in 0..10 {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        number |= bits
            .checked_shl(7 * place)
            .filter(|shifted| shifted >> (7 * place) == bits)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(identity: &str) -> Source {
        Source::new(identity, b"a key", 1, Vec::new(), Vec::new())
    }

    fn mark() -> Mark {
        let snapshot = |text: &str| Arc::new(Snapshot::parse(text).unwrap());
        Mark::at(snapshot("1000:1500:1000,1007,1499"))
            .and_of(&snapshot("1007:18446744073709551615:1007"), 12345)
    }

    #[test]
    fn a_cursor_says_what_its_mark_said() {
        let source = source("a");
        for mark in [mark(), mark().up_to(7), mark().up_to(0)] {
            assert_eq!(source.parse(&source.cursor(&mark, 9)), Ok((mark, 9)));
        }
    }

    #[test]
    fn only_its_own_database_takes_it() {
        let cursor = source("a").cursor(&mark(), 9);
        assert_eq!(source("b").parse(&cursor), Err(ResumeError::Foreign));
        let other_key = Source::new("a", b"another key", 1, Vec::new(), Vec::new());
        assert_eq!(other_key.parse(&cursor), Err(ResumeError::Invalid));
    }

    #[test]
    fn no_bit_of_it_may_change() {
        let source = source("a");
        let cursor = BASE64_URL_SAFE_NO_PAD
            .decode(source.cursor(&mark(), 9))
            .unwrap();
        for bit in 0..cursor.len() * 8 {
            let mut forged = cursor.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            let forged = BASE64_URL_SAFE_NO_PAD.encode(forged);
            assert!(source.parse(&forged).is_err(), "bit {bit}");
        }
        for length in 0..cursor.len() {
            let cut = BASE64_URL_SAFE_NO_PAD.encode(&cursor[..length]);
            assert!(source.parse(&cut).is_err(), "{length} bytes");
        }
        for text in ["", "x", "!", "null"] {
            assert_eq!(source.parse(text), Err(ResumeError::Invalid), "{text}");
        }
    }

    #[test]
    fn after_a_failover_it_is_good_as_far_as_the_standby_had_come() {
        let cursor = source("a").cursor(&mark(), 900);
        let after = |timelines: &str| {
            let timelines: Vec<Timeline> = serde_json::from_str(timelines).unwrap();
            let timeline = timelines.last().map_or(1, |last| last.timeline);
            Source::new("a", b"a key", timeline, timelines, Vec::new()).parse(&cursor)
        };
        assert!(after(r#"[{"timeline":1,"began":null},{"timeline":2,"began":900}]"#).is_ok());
        assert!(after(r#"[{"timeline":2,"began":950},{"timeline":3,"began":1950}]"#).is_ok());
        for lost in [
            r#"[{"timeline":2,"began":899}]"#,
            r#"[{"timeline":2,"began":null}]"#,
            r#"[{"timeline":3,"began":950}]"#,
            r#"[{"timeline":2,"began":899},{"timeline":3,"began":950}]"#,
        ] {
            assert_eq!(after(lost), Err(ResumeError::Foreign), "{lost}");
        }
    }

    #[test]
    fn after_a_crash_it_says_nothing_of_numbers_that_are_given_out_again() {
        let cursor = source("a").cursor(&mark(), 9);
        let after = |crashes: &str| {
            let crashes = serde_json::from_str(crashes).unwrap();
            let source = Source::new("a", b"a key", 1, Vec::new(), crashes);
            // One that is made after it knows of it.
            let later = source.cursor(&mark(), 9);
            assert_eq!(source.parse(&later), Ok((mark(), 9)));
            source.parse(&cursor)
        };
        let (kept, _) = after(r#"[{"crash":1,"reused":1450}]"#).unwrap();
        assert!(mark().covers(1449, 1) && kept.covers(1449, 1));
        assert!(mark().covers(1450, 1) && !kept.covers(1450, 1));
        assert_eq!(
            after(r#"[{"crash":1,"reused":1450},{"crash":2,"reused":null}]"#),
            Err(ResumeError::Foreign)
        );
    }
}
