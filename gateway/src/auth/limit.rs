//! How many messages a bot may post: a bucket that holds those of one second, and fills evenly.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

pub struct PostLimit {
    per_second: u32,
    bucket: Mutex<Bucket>,
}

struct Bucket {
    messages: f64,
    at: Instant,
}

impl PostLimit {
    pub(super) fn new(per_second: u32, now: Instant) -> PostLimit {
        PostLimit {
            per_second,
            bucket: Mutex::new(Bucket {
                messages: f64::from(per_second),
                at: now,
            }),
        }
    }

    pub fn per_second(&self) -> u32 {
        self.per_second
    }

    /// Takes so many messages at once, or none.
    pub fn take(&self, messages: usize, now: Instant) -> bool {
        let most = f64::from(self.per_second);
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.messages = (bucket.messages + since * most).min(most);
        bucket.at = bucket.at.max(now);
        let enough = bucket.messages >= messages as f64;
        if enough {
            bucket.messages -= messages as f64;
        }
        enough
    }
}

impl fmt::Debug for PostLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostLimit({} per second)", self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_second_s_worth_may_come_at_once_and_more_as_time_goes_by() {
        let begun = Instant::now();
        let limit = PostLimit::new(10, begun);
        assert!(!limit.take(11, begun), "never, whatever waits");
        assert!(limit.take(4, begun) && limit.take(6, begun));
        assert!(!limit.take(1, begun));
        let later = begun + Duration::from_millis(250);
        assert!(limit.take(2, later) && !limit.take(1, later));
        // Time that went by before is not taken twice, and does not pile up.
        assert!(!limit.take(1, begun));
        let much_later = begun + Duration::from_secs(60);
        assert!(limit.take(10, much_later) && !limit.take(1, much_later));
    }
}
