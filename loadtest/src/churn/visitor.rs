//! One who comes, stays a little, and goes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{Instant as Deadline, timeout_at};

use crate::channel::End;
use crate::scene::link::{Link, Wish};
use crate::scene::people::Place;
use crate::socket::Endpoint;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    Close,
    Reset,
}

impl Leave {
    /// Spread evenly, so that any part of the visitors has this share of resets.
    pub(super) fn of(index: u64, resets: f64) -> Self {
        let before = |index: u64| (index as f64 * resets).floor();
        if before(index + 1) > before(index) {
            Self::Reset
        } else {
            Self::Close
        }
    }
}

pub(super) struct Visitor {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) place: Place,
    pub(super) stay: Duration,
    pub(super) leave: Leave,
}

impl Visitor {
    /// When it was due, when it began, and when it was live.
    pub(super) async fn visit(self, due: Instant) -> Result<(Instant, Instant, Instant), End> {
        let began = Instant::now();
        let wish = Wish::messages_of(self.place.session);
        let joined = Link::joined(&self.endpoint, &self.place.token, &wish, |_| Ok(()));
        let (mut link, joined) = Box::pin(joined).await?;
        let until = Deadline::now() + self.stay;
        // It reads what comes, and looks at nothing.
        while let Ok(incoming) = timeout_at(until, link.next()).await {
            incoming?;
        }
        match self.leave {
            Leave::Close => link.close().await,
            Leave::Reset => link.reset(),
        }
        Ok((due, began, joined.live))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_are_spread_evenly() {
        let resets = |share: f64, range: std::ops::Range<u64>| {
            range
                .filter(|index| Leave::of(*index, share) == Leave::Reset)
                .count()
        };
        assert_eq!(resets(0.5, 0..100), 50);
        assert_eq!(resets(0.3, 0..10), 3);
        assert_eq!(resets(0.3, 10..20), 3);
        assert_eq!((resets(0.0, 0..50), resets(1.0, 0..50)), (0, 50));
    }
}
