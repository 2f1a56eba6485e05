//! What the hub does while verdicts are doubtful, and when they are taken again.

use super::{super::outbox::Signal, *};

#[test]
fn a_doubtful_verdict_lets_nothing_through_until_it_is_confirmed() {
    let bench = Bench::new(OldRecord::Full);
    let binding = bench.binding(1, Some("a"), Scope::Decided);
    let (_, outbox) = bench.subscribe("realtime:a", vec![binding.clone()], "x");
    let batch = [insert("a")];
    assert!(bench.hub.survey(&batch, &Before::default()).is_empty());

    bench.hub.doubt(&[MESSAGES], std::iter::empty());
    assert!(
        bench.hub.stale(10).is_empty(),
        "its transaction is still being delivered"
    );
    bench.hub.release();
    let survey = bench.hub.survey(&batch, &Before::default());
    assert_eq!(survey.questions.len(), 1);
    bench.deliver(&batch[0], &Verdicts::default());
    assert_eq!(received(&outbox).len(), 0);
    let answers = Answers::from([((MESSAGES, Arc::new(Principal::of_role("x"))), vec![0])]);
    bench.deliver(&batch[0], &Verdicts::new(answers, HashMap::new()));
    assert_eq!(received(&outbox).len(), 1);

    let units = bench.hub.stale(10);
    assert_eq!(units.len(), 1);
    bench.hub.confirm(&units[0], &[binding], bench.hub.moment());
    assert!(bench.hub.stale(10).is_empty());
    assert!(bench.hub.survey(&batch, &Before::default()).is_empty());
    bench.deliver(&batch[0], &Verdicts::default());
    assert_eq!(received(&outbox).len(), 1);
}

#[test]
fn a_verdict_that_was_asked_for_before_the_doubt_stays_doubtful() {
    let bench = Bench::new(OldRecord::Full);
    let binding = bench.binding(1, Some("a"), Scope::Decided);
    bench.subscribe("realtime:a", vec![binding.clone()], "x");
    let before = bench.hub.moment();
    bench.hub.doubt(&[MESSAGES], std::iter::empty());
    assert!(
        bench.hub.stale(10).is_empty(),
        "its transaction is still being delivered"
    );
    bench.hub.release();
    let units = bench.hub.stale(10);
    bench.hub.confirm(&units[0], &[binding], before);
    assert_eq!(bench.hub.stale(10).len(), 1);
}

#[test]
fn those_whom_a_change_names_are_asked_about_first() {
    let bench = Bench::new(OldRecord::Full);
    for room in ["a", "b", "c", "d", "e"] {
        bench.subscribe(
            "realtime:x",
            vec![bench.binding(1, Some(room), Scope::Decided)],
            room,
        );
    }
    bench.hub.doubt(&[MESSAGES], ["\"d\"", "17"].into_iter());
    bench.hub.release();
    assert_eq!(&*bench.hub.stale(1)[0].principal.role, "d");
    assert_eq!(bench.hub.stale(10).len(), 5);
}

#[test]
fn a_revoked_subscription_gets_nothing_more_and_its_connection_is_told() {
    let bench = Bench::new(OldRecord::Full);
    let (id, outbox) = bench.subscribe(
        "realtime:a",
        vec![bench.binding(1, Some("a"), Scope::Decided)],
        "x",
    );
    bench.hub.doubt(&[MESSAGES], std::iter::empty());
    assert!(
        bench.hub.stale(10).is_empty(),
        "its transaction is still being delivered"
    );
    bench.hub.release();
    bench.hub.revoke(&bench.hub.stale(1)[0]);
    bench.deliver(&insert("a"), &Verdicts::default());
    assert!(matches!(outbox.take()[..], [Item::Signal(Signal::Revoked(told))] if told == id));
}

#[test]
fn what_was_bound_before_the_catalog_changed_is_not_taken() {
    let bench = Bench::new(OldRecord::Full);
    let before = bench.hub.moment();
    bench.hub.replan([MESSAGES].into_iter());
    let outdated = Subscription {
        id: SubscriptionId::next(),
        topic: "realtime:a".into(),
        version: Version::V2,
        bindings: vec![bench.binding(1, Some("a"), Scope::Decided)],
        principal: Arc::new(Principal::of_role("x")),
        outbox: Outbox::new(
            Limits {
                frames: 1,
                bytes: 1,
            },
            None,
        ),
        wanted: wanted(),
        verified: before,
    };
    assert!(
        bench
            .hub
            .subscribe(outdated, None, &Greeting::default(), None)
            .is_err()
    );
}

#[test]
fn a_subscription_that_is_bound_anew_moves_to_the_group_of_its_new_bindings() {
    let bench = Bench::new(OldRecord::Full);
    let (_, outbox) = bench.subscribe(
        "realtime:a",
        vec![bench.binding(1, Some("a"), Scope::Decided)],
        "x",
    );
    bench.hub.replan([MESSAGES].into_iter());
    let units = bench.hub.stale(10);
    bench.hub.confirm(
        &units[0],
        &[bench.binding(1, Some("b"), Scope::Decided)],
        bench.hub.moment(),
    );
    bench.deliver(&insert("a"), &Verdicts::default());
    bench.deliver(&insert("b"), &Verdicts::default());
    assert_eq!(received(&outbox)[0]["data"]["record"]["room"], "b");
    assert_eq!(bench.hub.state().groups.len(), 1);
}

#[test]
fn a_delete_in_the_transaction_that_takes_the_right_away_still_arrives() {
    let bench = Bench::new(OldRecord::Full);
    let (_, outbox) = bench.subscribe(
        "realtime:a",
        vec![bench.binding(1, Some("a"), Scope::Decided)],
        "x",
    );
    let before = Before::from([(1, bench.hub.doubt(&[MESSAGES], std::iter::empty()))]);
    let row = r#"{"id":1,"room":"a","body":"x"}"#;
    for (change, arrives) in [
        (change(Operation::Delete, Some(row), None), true),
        (
            Arc::new(Change {
                xid: 2,
                ..Arc::into_inner(change(Operation::Delete, Some(row), None)).unwrap()
            }),
            false,
        ),
        (insert("a"), false),
    ] {
        let verdicts = Verdicts::default();
        bench
            .hub
            .deliver(&bench.tables, &read(), &change, 0, &verdicts, &before);
        assert_eq!(received(&outbox).len(), usize::from(arrives), "{change:?}");
    }
}

#[test]
fn a_change_that_was_surveyed_before_a_token_was_replaced_is_not_lost() {
    let bench = Bench::new(OldRecord::Full);
    let binding = bench.binding(1, Some("a"), Scope::PerRow);
    let (old, outbox) = bench.subscribe("realtime:a", vec![binding.clone()], "before");
    let batch = [insert("a")];
    bench.hub.survey(&batch, &Before::default());
    let renewed = Subscription {
        id: SubscriptionId::next(),
        topic: "realtime:a".into(),
        version: Version::V2,
        bindings: vec![binding],
        principal: Arc::new(Principal::of_role("after")),
        outbox: outbox.clone(),
        wanted: wanted(),
        verified: bench.hub.moment(),
    };
    assert!(
        bench
            .hub
            .subscribe(renewed, Some(old), &Greeting::default(), None)
            .is_ok()
    );
    let answers = Answers::from([((MESSAGES, Arc::new(Principal::of_role("before"))), vec![0])]);
    bench.deliver(&batch[0], &Verdicts::new(answers, HashMap::new()));
    assert_eq!(received(&outbox).len(), 1);
}
