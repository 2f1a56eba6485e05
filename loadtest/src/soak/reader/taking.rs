//! What a reader does with what it is told.

use uuid::Uuid;

use super::{CURSORS, Listening, Reader};
use crate::channel::{Change, End, Event, Kind};
use crate::soak::story::{Beginning, Entry, History, Life};
use crate::soak::truth::Key;

impl Reader {
    pub(super) fn take(&mut self, event: Event, listening: &mut Listening) -> Result<(), End> {
        match event {
            Event::Joined => {
                listening.joined = true;
                self.begin_life(listening);
                Ok(())
            }
            Event::Change(change) => self.take_change(change, listening),
            Event::Position { cursor, subscribed } => {
                match cursor {
                    Some(cursor) => self.remember(cursor),
                    None if self.story.habit.has_cursors() => {
                        return Err(End::Wrong("a system message without a cursor".to_owned()));
                    }
                    None => {}
                }
                if subscribed && !listening.subscribed {
                    self.confirmed(listening);
                }
                Ok(())
            }
        }
    }

    /// The first join of a life in the middle of the run is accepted.
    fn begin_life(&mut self, listening: &mut Listening) {
        let Some(before) = listening.before.take() else {
            return;
        };
        listening.history = self.history.is_some();
        self.life = Some(Life {
            beginning: Beginning::Between {
                before,
                after: None,
                history: self.history.map(|asked| History {
                    asked,
                    rows: Vec::new(),
                }),
            },
            entries: Vec::new(),
            complete: false,
        });
    }

    /// What was missed has come, or the history.
    fn confirmed(&mut self, listening: &mut Listening) {
        listening.subscribed = true;
        listening.history = false;
        if listening.resumed {
            *self.resumes.entry("ok".to_owned()).or_default() += 1;
        }
        let is_between = |life: &Life| matches!(life.beginning, Beginning::Between { .. });
        if self.after.is_none() && self.life.as_ref().is_some_and(is_between) {
            let world = self.world.clone();
            self.after = Some(tokio::spawn(async move { world.mark().await.ok() }));
        }
    }

    fn take_change(&mut self, change: Change, listening: &mut Listening) -> Result<(), End> {
        let wrong = |what: &str| {
            Err(End::Wrong(format!(
                "{what}: number {}",
                change.label.number
            )))
        };
        if !listening.joined {
            return wrong("a change came before the reply to the join");
        }
        if change.length != change.label.size {
            return wrong("a change with another text than was written");
        }
        let key = Key::new(change.label.number, change.kind);
        self.notice_fence(change.session, key);
        if listening.history {
            // The last row of the history is the first with a cursor.
            listening.history = change.cursor.is_none();
            if change.kind != Kind::Insert {
                return wrong("a row of the history that is no INSERT");
            }
            if let Some(cursor) = change.cursor {
                self.remember(cursor);
            }
            self.record_history(key);
            return Ok(());
        }
        self.length += 1;
        match change.cursor {
            Some(cursor) => self.remember(cursor),
            None if self.story.habit.has_cursors() => {
                return wrong("a change without a cursor");
            }
            None => {}
        }
        self.record(Entry::Got {
            key,
            at: self.world.now(),
            connection: listening.connection,
        });
        Ok(())
    }

    fn record_history(&mut self, row: Key) {
        if let Some(Life {
            beginning:
                Beginning::Between {
                    history: Some(history),
                    ..
                },
            ..
        }) = &mut self.life
        {
            history.rows.push(row);
        }
    }

    fn notice_fence(&mut self, session: Uuid, key: Key) {
        let phase = self.phase.borrow();
        let fence = phase.fence.as_ref();
        if fence.is_some_and(|fence| fence.get(&session) == Some(&key)) {
            self.reached.insert(session);
        }
    }

    fn remember(&mut self, cursor: String) {
        if self.cursors.len() == CURSORS {
            self.cursors.pop_front();
        }
        self.cursors.push_back((self.length, cursor));
    }

    pub(super) fn record(&mut self, entry: Entry) {
        if let Some(life) = &mut self.life {
            life.entries.push(entry);
        }
    }
}
