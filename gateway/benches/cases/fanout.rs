//! One change to all that listen: from the hub's lookup to the outboxes, which are emptied between runs.

use std::{collections::HashMap, hint::black_box, sync::Arc};

use gateway::{
    authorizer::{Answers, Scope},
    feed::change::Change,
    hub::Verdicts,
};

use super::{
    Amount, Prepared, Work,
    network::AT_ONCE,
    world::{self, Listener, World},
};

pub(super) struct Fanout {
    world: World,
    changes: Vec<Arc<Change>>,
    verdicts: Verdicts,
}

impl Fanout {
    pub(super) fn new(world: World, changes: Vec<Arc<Change>>) -> Self {
        Fanout {
            world,
            changes,
            verdicts: Verdicts::default(),
        }
    }

    /// How many frames one run hands out, and of how many bytes.
    pub(super) fn once(&mut self) -> (usize, usize) {
        self.run();
        self.world.network.flush()
    }

    fn of(mut self, deliveries: usize) -> Prepared {
        assert_eq!(self.once().0, deliveries);
        Prepared::new(Amount::Elements(deliveries.max(1)), self)
    }
}

impl Work for Fanout {
    fn run(&mut self) {
        for change in &self.changes {
            self.world.deliver(black_box(change), &self.verdicts);
        }
    }

    fn reset(&mut self) {
        self.world.network.flush();
    }

    fn at_once(&self) -> u64 {
        AT_ONCE
    }
}

/// Nobody listens to this session; somebody does to another.
pub(super) fn nobody() -> Prepared {
    let world = World::new();
    world.join(&Listener::to(2));
    Fanout::new(world, vec![world::insert(1)]).of(0)
}

/// All members get the same bytes.
pub(super) fn group(members: usize) -> Prepared {
    let world = World::new();
    (0..members).for_each(|_| world.join(&Listener::to(1)));
    Fanout::new(world, vec![world::insert(1)]).of(members)
}

/// The shape of a chat: many sessions with two readers each, and a change in each of them.
pub(super) fn sessions(sessions: usize) -> Prepared {
    let world = World::new();
    for place in 0..2 * sessions {
        world.join(&Listener::to(1 + place / 2));
    }
    let changes = (0..sessions)
        .map(|place| world::insert(1 + place))
        .collect();
    Fanout::new(world, changes).of(2 * sessions)
}

/// One session, and each of its readers has named its channel as it likes.
pub(super) fn topics(topics: usize) -> Prepared {
    let world = World::new();
    for place in 0..topics {
        world.join(&Listener {
            topic: format!("realtime:mine-{place}"),
            ..Listener::to(1)
        });
    }
    Fanout::new(world, vec![world::insert(1)]).of(topics)
}

/// The policies read more than the filter fixes: each member is another principal, for whom the row has been judged.
pub(super) fn judged(members: usize) -> Prepared {
    let world = World::new();
    let mut answers = Answers::new();
    for place in 0..members {
        let principal = world::principal(&format!("user-{place}"));
        answers.insert((world::MESSAGES, principal.clone()), vec![0]);
        world.join(&Listener {
            scope: Scope::PerRow,
            principal,
            ..Listener::to(1)
        });
    }
    let mut fanout = Fanout::new(world, vec![world::insert(1)]);
    fanout.verdicts = Verdicts::new(answers, HashMap::new());
    fanout.of(members)
}
