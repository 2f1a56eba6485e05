//! The modes one by one, and then all of them in a small world of transactions.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const ALONE: Seen = Seen {
    company: false,
    ours: false,
    others: false,
    drawn: None,
};
const OURS: Seen = Seen {
    ours: true,
    ..ALONE
};
const COMPANY: Seen = Seen {
    company: true,
    ..ALONE
};

fn drawn(number: u64) -> Seen {
    Seen {
        drawn: Some(number),
        ..ALONE
    }
}

/// A pace and its time.
struct Run {
    pace: Pace,
    now: Instant,
}

impl Run {
    fn new(doorbell: Doorbell) -> Run {
        let now = Instant::now();
        Run {
            pace: Pace::new(now, doorbell),
            now,
        }
    }

    /// One that waits for the bell.
    fn ringing(doorbell: Doorbell) -> Run {
        let mut run = Run::new(doorbell);
        run.read(0, 10);
        run.saw(drawn(10));
        run.read(0, 11);
        assert_eq!(run.pace.mode(), Mode::Ringing);
        run
    }

    fn quiet() -> Run {
        let mut run = Run::ringing(Doorbell::Auto);
        run.read(BURST, 100);
        run.saw(ALONE);
        run.saw(OURS);
        run.pace.granted(run.now);
        run.saw(OURS);
        assert_eq!(run.pace.mode(), Mode::Quiet);
        run
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn read(&mut self, transactions: u64, xmin: u64) {
        self.pace.read(self.now, transactions, xmin);
    }

    fn saw(&mut self, seen: Seen) {
        assert!(self.pace.look(self.now).is_some(), "nobody looks");
        self.pace.saw(self.now, seen);
    }

    fn looks(&self) -> Option<Look> {
        self.pace.look(self.now)
    }
}

#[test]
fn it_begins_as_if_a_silence_had_just_ended() {
    let mut run = Run::new(Doorbell::Auto);
    assert_eq!(
        run.looks(),
        Some(Look {
            draw: true,
            announce: false
        })
    );
    assert!(run.pace.hears() && run.pace.pause().is_some());
    run.read(0, 900);
    // The lock of a gateway that is gone is still there.
    run.saw(Seen {
        others: true,
        ..ALONE
    });
    assert_eq!(run.looks(), None);
    run.pass(LOOK_SOON);
    run.read(0, 950);
    run.saw(drawn(1000));
    for xmin in [900, 999] {
        run.read(0, xmin);
        assert_eq!(run.pace.mode(), Mode::Lingering { upto: Some(1000) });
        assert!(run.pace.hears() && run.pace.pause().is_some());
    }
    run.read(0, 1000);
    assert_eq!(run.pace.mode(), Mode::Ringing);
    assert_eq!(run.pace.pause(), None);
}

#[test]
fn a_burst_is_polled_from_the_moment_that_the_lock_is_asked_for() {
    let mut run = Run::ringing(Doorbell::Auto);
    run.read(BURST - 1, 20);
    assert_eq!(run.looks(), None);
    run.pass(BURST_WINDOW);
    run.read(BURST - 1, 20);
    assert_eq!(run.looks(), None);
    run.pass(BURST_WINDOW / 2);
    run.read(1, 21);
    assert_eq!(
        run.looks(),
        Some(Look {
            draw: false,
            announce: false
        })
    );
    assert!(!run.pace.silences());
    run.saw(ALONE);
    assert!(run.pace.silences() && !run.pace.hears());
    assert_eq!(run.pace.pause(), Some(POLLING.0));
    run.pace.granted(run.now);
    assert_eq!(run.pace.mode(), Mode::Quiet);
    assert_eq!(run.pace.pause(), Some(POLLING.0));
}

#[test]
fn a_database_that_answers_slowly_is_asked_seldom() {
    let mut run = Run::quiet();
    for (took, least) in [(100, 1000), (1500, 1500), (7000, 7000), (90_000, 10_000)] {
        run.pace.took(Duration::from_micros(took));
        run.read(1, 100);
        assert_eq!(run.pace.pause(), Some(Duration::from_micros(least)));
    }
}

#[test]
fn the_more_comes_the_more_is_read_at_a_time() {
    for (transactions, times) in [(30, 1), (375, 1), (750, 2), (10_000, 4)] {
        let mut run = Run::quiet();
        run.pass(BURST_WINDOW * 2);
        run.pace.took(Duration::from_millis(2));
        run.read(transactions, 100);
        let rest = Duration::from_millis(2 * times);
        assert_eq!(run.pace.pause(), Some(rest), "{transactions}");
    }
}

#[test]
fn polls_become_rarer_while_they_bring_nothing() {
    let mut run = Run::quiet();
    let mut pauses = Vec::new();
    for _ in 0..6 {
        run.read(0, 100);
        pauses.push(run.pace.pause().unwrap().as_micros());
    }
    assert_eq!(pauses, [1_500, 2_250, 3_375, 5_062, 7_593, 10_000]);
    run.read(1, 100);
    assert_eq!(run.pace.pause(), Some(POLLING.0));
    run.pace.ended(run.now);
    for _ in 0..9 {
        run.read(0, 100);
    }
    assert_eq!(run.pace.pause(), Some(LINGERING.1));
}

#[test]
fn the_bell_is_not_silenced_where_others_listen() {
    let mut run = Run::ringing(Doorbell::Auto);
    run.read(BURST, 20);
    run.saw(COMPANY);
    assert_eq!(run.pace.mode(), Mode::Ringing);
    run.read(BURST, 20);
    assert_eq!(run.looks(), None);
    run.pass(AFTER_COMPANY);
    run.read(BURST, 20);
    run.saw(ALONE);
    assert!(run.pace.silences());
}

#[test]
fn who_begins_to_listen_ends_the_silence_and_is_told() {
    let mut run = Run::quiet();
    assert_eq!(run.looks(), None);
    run.pass(LOOK_AGAIN);
    run.read(BURST, 200);
    run.saw(Seen {
        company: true,
        ..OURS
    });
    assert!(!run.pace.silences());
    let tell = Some(Look {
        draw: true,
        announce: true,
    });
    assert_eq!(run.looks(), tell);
    // Our own lock is still seen.
    run.saw(Seen {
        others: true,
        ..COMPANY
    });
    run.pass(LOOK_SOON);
    assert_eq!(run.looks(), tell);
    run.saw(Seen {
        company: true,
        ..drawn(300)
    });
    run.read(BURST, 299);
    assert_eq!(run.pace.mode(), Mode::Lingering { upto: Some(300) });
    run.read(BURST, 300);
    assert_eq!(run.pace.mode(), Mode::Ringing);
    // And hears what was told, itself.
    run.pace.overheard(run.now);
    assert_eq!(
        run.looks(),
        Some(Look {
            draw: true,
            announce: false
        })
    );
}

#[test]
fn thin_flow_ends_the_silence_whether_it_had_begun_or_not() {
    for granted in [false, true] {
        let mut run = Run::ringing(Doorbell::Auto);
        run.read(BURST, 100);
        run.saw(ALONE);
        if granted {
            run.pace.granted(run.now);
        }
        run.saw(OURS);
        for _ in 0..50 {
            run.pass(ms(19));
            run.read(1, 100);
            assert!(run.pace.silences());
        }
        let thinner = run.now;
        while run.pace.silences() {
            run.pass(ms(30));
            run.read(1, 100);
            assert!(run.now < thinner + 2 * THIN_WINDOW);
        }
        assert_eq!(run.pace.mode(), Mode::Lingering { upto: None });
        // What is read before a number is drawn proves nothing.
        run.read(0, 5000);
        run.saw(drawn(400));
        assert_eq!(run.pace.mode(), Mode::Lingering { upto: Some(400) });
        run.read(0, 399);
        // A burst goes straight back.
        run.read(BURST, 399);
        run.saw(ALONE);
        assert_eq!(run.pace.mode(), Mode::Polling);
    }
}

#[test]
fn whatever_ends_the_lock_is_the_end_of_a_silence() {
    let gone = |run: &mut Run| {
        run.saw(OURS);
        run.pass(LOOK_AGAIN);
        run.saw(ALONE);
    };
    let ended = |run: &mut Run| run.pace.ended(run.now);
    let ways: [&dyn Fn(&mut Run); 2] = [&gone, &ended];
    for way in ways {
        let mut run = Run::quiet();
        run.read(BURST, 100);
        run.pace.next_look = run.now;
        way(&mut run);
        assert_eq!(run.pace.mode(), Mode::Lingering { upto: None });
        // Not at once again.
        run.read(BURST, 100);
        run.saw(drawn(500));
        assert_eq!(run.pace.mode(), Mode::Lingering { upto: Some(500) });
        run.pass(AFTER_LOSS);
        run.read(BURST, 100);
        run.saw(ALONE);
        assert_eq!(run.pace.mode(), Mode::Polling);
    }
}

#[test]
fn a_connection_that_cannot_be_made_is_not_tried_all_the_time() {
    let mut run = Run::ringing(Doorbell::Auto);
    run.read(BURST, 100);
    run.saw(ALONE);
    run.pace.ended(run.now);
    run.saw(drawn(200));
    run.read(BURST, 200);
    assert_eq!(run.pace.mode(), Mode::Ringing);
    run.pass(AFTER_FAILURE - ms(1));
    run.read(BURST, 300);
    assert_eq!(run.looks(), None);
    run.pass(ms(1));
    run.read(1, 300);
    assert!(run.looks().is_some());
}

#[test]
fn a_doorbell_that_stays_on_is_never_silenced() {
    let mut run = Run::ringing(Doorbell::On);
    for _ in 0..100 {
        run.pass(ms(1));
        run.read(BURST, 100);
        assert_eq!(run.looks(), None);
    }
}

/// A transaction of the small world.
struct Transaction {
    number: u64,
    rings: bool,
    silenced: bool,
    looks_at_bell: Instant,
    commits: Instant,
}

/// Writers come in bursts and pauses and take their time; the lock is granted, lost and shared at random. While the feed waits
/// for the bell alone, nobody may be about to commit who was silenced.
#[test]
fn whoever_was_silenced_is_read_without_a_ring() {
    for seed in 0..60 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut run = Run::ringing(Doorbell::Auto);
        let mut running: Vec<Transaction> = Vec::new();
        let mut next_number = 1000;
        let mut next_read = run.now;
        let (mut quiet, mut silenced, mut ringing) = (0, 0, 0);
        let mut unread = 0;
        for step in 0..6000_u64 {
            run.pass(ms(1));
            // Two seconds of traffic, two seconds of next to nothing.
            let begin = match step / 2000 % 2 {
                0 => random.random_bool(0.6),
                _ => random.random_bool(0.01),
            };
            if begin {
                let looks_at_bell = run.now + ms(random.random_range(0..3));
                let commits = match random.random_bool(0.05) {
                    true => looks_at_bell + ms(random.random_range(0..700)),
                    false => looks_at_bell + ms(random.random_range(0..5)),
                };
                running.push(Transaction {
                    number: next_number,
                    rings: false,
                    silenced: false,
                    looks_at_bell,
                    commits,
                });
                next_number += 1;
            }
            for transaction in &mut running {
                if transaction.looks_at_bell == run.now {
                    transaction.silenced = run.pace.silences();
                    transaction.rings = !transaction.silenced;
                    silenced += u32::from(transaction.silenced);
                }
            }
            let ended: Vec<_> = running.extract_if(.., |t| t.commits <= run.now).collect();
            unread += ended.len() as u64;
            let rung = ended.iter().any(|transaction| transaction.rings);
            if run.pace.mode() == Mode::Ringing {
                ringing += 1;
                let late = ended.iter().find(|transaction| transaction.silenced);
                assert!(
                    late.is_none(),
                    "seed {seed}: nobody reads {}",
                    late.map_or(0, |late| late.number)
                );
            }
            if run.now >= next_read || (rung && run.pace.hears()) {
                let xmin = running
                    .iter()
                    .map(|transaction| transaction.number)
                    .min()
                    .unwrap_or(next_number);
                run.read(std::mem::take(&mut unread), xmin);
                if let Some(look) = run.looks() {
                    let ours = run.pace.silences();
                    let number = (look.draw && !ours).then(|| {
                        next_number += 1;
                        next_number - 1
                    });
                    let lost = random.random_bool(0.02);
                    run.saw(Seen {
                        company: random.random_bool(0.02),
                        ours: ours && !lost,
                        others: false,
                        drawn: number,
                    });
                }
                if run.pace.silences() && random.random_bool(0.1) {
                    run.pace.granted(run.now);
                }
                if run.pace.mode() == Mode::Quiet && random.random_bool(0.001) {
                    run.pace.ended(run.now);
                }
                next_read = run.now + run.pace.pause().unwrap_or(ms(1_000_000));
            }
            quiet += u32::from(run.pace.mode() == Mode::Quiet);
        }
        assert!(
            quiet > 100 && silenced > 100 && ringing > 100,
            "seed {seed} proves nothing: {quiet} {silenced} {ringing}"
        );
    }
}
