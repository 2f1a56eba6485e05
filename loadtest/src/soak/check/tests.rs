//! Each rule of the comparison, kept and broken.

use uuid::Uuid;

use super::*;
use crate::soak::truth::Audited;

const CHAT: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);

/// A change in the chat: number, kind, row, transaction and what it saw.
fn change(number: u64, kind: Kind, row: u128, transaction: u64, snapshot: &str) -> Audited {
    Audited {
        kind,
        number,
        message: Uuid::from_u128(row),
        session: CHAT,
        transaction,
        snapshot: snapshot.to_owned(),
        created: row as i64,
        at: number as u32,
    }
}

/// 10 inserts rows 1 and 2; 11 and 12 run side by side; 13 comes after all of them and deletes row 2; 14 is another chat's.
fn truth() -> Truth {
    let mut audited = vec![
        change(1, Kind::Insert, 1, 10, "10:10:"),
        change(2, Kind::Insert, 2, 10, "10:10:"),
        change(3, Kind::Update, 1, 11, "11:11:"),
        change(4, Kind::Update, 2, 12, "11:12:11"),
        change(4, Kind::Delete, 2, 13, "13:13:"),
        change(6, Kind::Insert, 6, 14, "14:14:"),
    ];
    audited[5].session = OTHER;
    Truth::new(audited, ["11:11:", "13:13:", "15:15:"].into_iter()).unwrap()
}

fn interest() -> Interest {
    Interest {
        sessions: vec![CHAT],
        only: None,
    }
}

fn got(number: u64, kind: Kind) -> Entry {
    Entry::Got {
        key: Key::new(number, kind),
        at: number as u32,
        connection: 1,
    }
}

const ALL: [(u64, Kind); 5] = [
    (1, Kind::Insert),
    (2, Kind::Insert),
    (3, Kind::Update),
    (4, Kind::Update),
    (4, Kind::Delete),
];

fn all() -> Vec<Entry> {
    ALL.into_iter()
        .map(|(number, kind)| got(number, kind))
        .collect()
}

fn differences(beginning: Beginning, entries: Vec<Entry>, complete: bool) -> Vec<String> {
    let life = Life {
        beginning,
        entries,
        complete,
    };
    let verdict = check(&truth(), &interest(), &life).unwrap();
    let what = verdict.differences.into_iter().map(|one| one.what);
    what.collect()
}

#[track_caller]
fn check_from_start(entries: Vec<Entry>, complete: bool, expected: &[&str]) {
    let found = differences(Beginning::Start, entries, complete);
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{found} is not {expected}");
    }
}

#[test]
fn everything_once_and_in_order_is_right() {
    check_from_start(all(), true, &[]);
    // Neither of 11 and 12 saw the other.
    let mut swapped = all();
    swapped.swap(2, 3);
    check_from_start(swapped, true, &[]);
    check_from_start(all()[..3].to_vec(), false, &[]);
}

#[test]
fn what_is_missing_is_found_also_if_the_reader_left() {
    let mut entries = all();
    entries.remove(2);
    check_from_start(entries.clone(), true, &["passed over"]);
    check_from_start(entries, false, &["passed over"]);
    check_from_start(all()[..4].to_vec(), true, &["is missing"]);
    check_from_start(Vec::new(), false, &[]);
}

#[test]
fn what_comes_twice_or_was_not_committed_or_not_asked_for_is_found() {
    let mut entries = all();
    entries.push(got(3, Kind::Update));
    entries.push(got(9, Kind::Insert));
    entries.push(got(6, Kind::Insert));
    check_from_start(
        entries,
        true,
        &["twice", "not asked for", "never committed"],
    );
}

#[test]
fn every_order_that_must_hold_is_checked() {
    let with = |from: usize, to: usize| {
        let mut entries = all();
        let moved = entries.remove(from);
        entries.insert(to, moved);
        entries
    };
    check_from_start(with(1, 0), true, &["of its transaction"]);
    check_from_start(with(3, 4), true, &["of its row"]);
    // 13 saw what 11 had done, to another row.
    check_from_start(with(2, 4), true, &["committed already"]);
    // 12 began after 10 had committed.
    check_from_start(with(0, 3), true, &["later change of its row"]);
}

#[test]
fn who_goes_back_gets_it_again() {
    let mut entries = all();
    entries.push(Entry::Back { keep: 2 });
    entries.extend(all()[2..].iter().copied());
    check_from_start(entries.clone(), true, &[]);
    entries.push(Entry::Back { keep: 2 });
    entries.push(got(4, Kind::Delete));
    check_from_start(entries, false, &["passed over", "passed over"]);
}

#[test]
fn a_gap_is_not_mended_by_going_back() {
    let mut entries = all();
    entries.remove(2);
    entries.push(Entry::Back { keep: 2 });
    entries.extend(all()[2..].iter().copied());
    check_from_start(entries, true, &["passed over"]);
}

/// The join was sent after 10, and confirmed after 12.
fn between(history: Option<&[(u64, Kind)]>) -> Beginning {
    Beginning::Between {
        before: "11:11:".to_owned(),
        after: Some("13:13:".to_owned()),
        history: history.map(|rows| History {
            asked: 2,
            rows: rows
                .iter()
                .map(|(number, kind)| Key::new(*number, *kind))
                .collect(),
        }),
    }
}

#[test]
fn a_reader_that_comes_later_need_not_get_what_was_before() {
    let right = [&all()[4..], &all()[3..], &all()[2..]];
    for entries in right {
        assert_eq!(differences(between(None), entries.to_vec(), true), [""; 0]);
    }
    // It may, where no history says what the past was.
    assert_eq!(differences(between(None), all(), true), [""; 0]);
    let found = differences(between(Some(&[])), all(), true);
    assert!(found[0].contains("before the join"), "{found:?}");
    let found = differences(between(None), Vec::new(), true);
    assert!(found[0].contains("is missing"), "{found:?}");
}

#[test]
fn a_history_and_what_follows_make_a_whole() {
    use Kind::Insert;
    let right: [(&[(u64, Kind)], usize); 3] = [
        (&[(1, Insert), (2, Insert)], 2),
        (&[(3, Insert), (2, Insert)], 3),
        (&[(3, Insert), (4, Insert)], 4),
    ];
    for (rows, from) in right {
        let found = differences(between(Some(rows)), all()[from..].to_vec(), true);
        assert_eq!(found, [""; 0]);
        let found = differences(between(Some(rows)), all()[from..].to_vec(), false);
        assert_eq!(found, [""; 0]);
    }
    // A gap, a double, another order, a row too few.
    let wrong: [(&[(u64, Kind)], usize); 4] = [
        (&[(1, Insert), (2, Insert)], 3),
        (&[(3, Insert), (2, Insert)], 2),
        (&[(4, Insert), (3, Insert)], 4),
        (&[(4, Insert)], 4),
    ];
    for (rows, from) in wrong {
        let found = differences(between(Some(rows)), all()[from..].to_vec(), true);
        assert!(found[0].contains("history"), "{rows:?}: {found:?}");
    }
}
