//! A reader who does not read, or not fast enough; and at last reads on, to learn how it ended.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::channel::End;
use crate::scene::link::{Link, Wish};
use crate::scene::over;
use crate::scene::people::Place;
use crate::socket::Endpoint;

/// What the client's kernel keeps of what is not read: little, so that the server notices soon.
const RECEIVE_BUFFER: u32 = 8 << 10;

/// Who gets nothing for so long while it reads as fast as it can has all there is.
const SILENCE: Duration = Duration::from_secs(3);

/// The code of a connection that ended without one.
const NO_CODE: u16 = 1006;

/// A slow reader that reads on has at most this many frames before it.
const MOST: usize = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    Stuck,
    Crawling { pause: Duration },
}

pub(super) struct Sluggard {
    pub(super) habit: Habit,
    /// True when it may read as fast as it can.
    pub(super) read_on: watch::Receiver<bool>,
}

pub(super) struct Ended {
    pub(super) habit: Habit,
    /// None if it is still open.
    end: Option<End>,
}

impl Ended {
    /// Whether it knows that it was too slow.
    pub(super) fn is_told(&self) -> bool {
        self.end == Some(End::Closed(protocol::close::SLOW_READER))
    }

    /// Whether the server has ended it for being slow: one that does not even read the word of that is cut off.
    pub(super) fn is_ended(&self) -> bool {
        self.is_told() || matches!(self.end, Some(End::Broken(_) | End::Closed(NO_CODE)))
    }

    pub(super) fn how(&self) -> String {
        match &self.end {
            Some(end) => end.to_string(),
            None => "it is still open".to_owned(),
        }
    }

    /// Something that must not happen to a slow reader, whatever became of it.
    pub(super) fn fault(&self) -> Option<String> {
        matches!(self.end, Some(End::Wrong(_) | End::Ended(_)))
            .then(|| format!("a slow reader: {}", self.how()))
    }
}

impl Sluggard {
    pub(super) async fn begin(
        self,
        endpoint: &Endpoint,
        place: &Place,
    ) -> Result<JoinHandle<Ended>, End> {
        let mut endpoint = endpoint.clone();
        endpoint.receive_buffer = Some(RECEIVE_BUFFER);
        let wish = Wish::messages_of(place.session);
        let joined = Link::joined(&endpoint, &place.token, &wish, |_| Ok(()));
        let (link, _) = Box::pin(joined).await?;
        Ok(tokio::spawn(self.live(link)))
    }

    async fn live(mut self, mut link: Link) -> Ended {
        let end = match self.habit {
            Habit::Stuck => {
                over(&mut self.read_on).await;
                None
            }
            Habit::Crawling { pause } => self.crawl(&mut link, pause).await,
        };
        let end = match end {
            Some(end) => Some(end),
            None => read_to_the_end(&mut link).await,
        };
        Ended {
            habit: self.habit,
            end,
        }
    }

    async fn crawl(&mut self, link: &mut Link, pause: Duration) -> Option<End> {
        loop {
            tokio::select! {
                incoming = link.next() => {
                    if let Err(end) = incoming {
                        return Some(end);
                    }
                }
                () = over(&mut self.read_on) => return None,
            }
            sleep(pause).await;
        }
    }
}

async fn read_to_the_end(link: &mut Link) -> Option<End> {
    for _ in 0..MOST {
        match timeout(SILENCE, link.next()).await {
            Ok(Ok(_)) => {}
            Ok(Err(end)) => return Some(end),
            Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_4008_tells_a_reader_that_it_was_too_slow() {
        let ended = |end| Ended {
            habit: Habit::Stuck,
            end,
        };
        assert!(ended(Some(End::Closed(4008))).is_told());
        for end in [
            None,
            Some(End::Closed(1006)),
            Some(End::Broken("x".to_owned())),
        ] {
            let ended = ended(end);
            assert!(!ended.is_told() && ended.fault().is_none());
            assert_eq!(ended.is_ended(), ended.end.is_some());
        }
        assert!(ended(Some(End::Wrong("x".to_owned()))).fault().is_some());
    }
}
