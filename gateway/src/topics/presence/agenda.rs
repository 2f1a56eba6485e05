//! When which topic's members are to be told.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, time::Instant};

use crate::topics::TopicKey;

/// The topics whose members are to be told something soon: one entry for each pause.
#[derive(Default)]
pub(in crate::topics) struct Agenda {
    entries: Mutex<BTreeSet<(Instant, TopicKey)>>,
    earlier: Notify,
}

impl Agenda {
    pub(in crate::topics) fn add(&self, at: Instant, key: &TopicKey) {
        let mut entries = self.entries();
        entries.insert((at, key.clone()));
        let is_first = entries.first().is_some_and(|(first, _)| *first == at);
        drop(entries);
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// The next whose time has come.
    pub(in crate::topics) fn take(&self, now: Instant) -> Option<TopicKey> {
        let mut entries = self.entries();
        let (at, _) = entries.first()?;
        match *at <= now {
            true => entries.pop_first().map(|(_, key)| key),
            false => None,
        }
    }

    /// Waits until it may be somebody's time.
    pub(in crate::topics) async fn next(&self) {
        let first = self.entries().first().map(|(at, _)| *at);
        let time = async {
            match first {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = time => {}
            () = self.earlier.notified() => {}
        }
    }

    fn entries(&self) -> MutexGuard<'_, BTreeSet<(Instant, TopicKey)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
