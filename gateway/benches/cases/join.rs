//! A subscription that begins, in a hub that has many. What admission asks of the database is not here.

use std::hint::black_box;

use gateway::hub::{Subscription, SubscriptionId, columns::ColumnSet};

use super::{
    Amount, Prepared, Work,
    world::{self, Listener, World},
};

/// What admission makes of a table's columns, for each binding of each join.
pub(super) fn columns() -> Prepared {
    let table = world::table();
    let all: Vec<usize> = (0..table.columns.len()).collect();
    Prepared::new(Amount::Elements(1), move || {
        drop(black_box(ColumnSet::new(black_box(&table), &all, false)));
    })
}

/// Nobody else listens to what it asks for.
pub(super) fn first_of_session(others: usize) -> Prepared {
    Join::prepare(others, Listener::to(0))
}

/// Somebody has asked for the same before.
pub(super) fn another_of_session(others: usize) -> Prepared {
    Join::prepare(others, Listener::to(1))
}

struct Join {
    world: World,
    listener: Listener,
    next: Option<Subscription>,
    id: SubscriptionId,
}

impl Join {
    fn prepare(others: usize, listener: Listener) -> Prepared {
        let world = World::new();
        for place in 0..others {
            world.join(&Listener::to(1 + place));
        }
        let mut join = Join {
            world,
            listener,
            next: None,
            id: SubscriptionId::next(),
        };
        join.reset();
        join.run();
        assert_eq!(join.world.hub.subscriptions(), others + 1);
        join.reset();
        assert_eq!(join.world.hub.subscriptions(), others);
        Prepared::new(Amount::Elements(1), join)
    }
}

impl Work for Join {
    fn run(&mut self) {
        let next = self.next.take().expect("a reset after each run");
        self.world.subscribe(black_box(next));
    }

    fn reset(&mut self) {
        self.world.hub.unsubscribe(self.id);
        let next = self.world.subscription(&self.listener);
        self.id = next.id;
        self.next = Some(next);
    }
}
