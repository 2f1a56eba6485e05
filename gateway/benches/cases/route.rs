//! Which subscriptions a change may concern: the survey of a batch of one, before anything is asked or delivered.

use std::hint::black_box;

use gateway::{
    authorizer::Scope,
    hub::filter::{Check, Order},
};

use super::{
    Amount, Prepared, matching,
    world::{self, Listener, World},
};

/// Sessions of two; the change is in one of them.
pub(super) fn sessions(subscriptions: usize) -> Prepared {
    let world = World::new();
    for place in 0..subscriptions {
        world.join(&Listener::to(1 + place / 2));
    }
    surveyed(world, 0)
}

/// Conditions by which nothing can be looked up: every row has to be held against each of them.
pub(super) fn unkeyed(subscriptions: usize) -> Prepared {
    let world = World::new();
    for place in 0..subscriptions {
        world.join(&Listener {
            tests: vec![matching::test(
                "position",
                Check::Order(Order::Greater, 40 + place as i64),
            )],
            ..Listener::to(1)
        });
    }
    surveyed(world, 0)
}

/// One session whose members are all asked about, for each row.
pub(super) fn judged(members: usize) -> Prepared {
    let world = World::new();
    for place in 0..members {
        world.join(&Listener {
            scope: Scope::PerRow,
            principal: world::principal(&format!("user-{place}")),
            ..Listener::to(1)
        });
    }
    surveyed(world, members)
}

fn surveyed(world: World, questions: usize) -> Prepared {
    let batch = [world::insert(1)];
    assert_eq!(world.survey(&batch).questions.len(), questions);
    Prepared::new(Amount::Elements(1), move || {
        drop(black_box(world.survey(black_box(&batch))));
    })
}
