//! What is measured: each case by its name, once for all that measure.
//!
//! A case is set up, then its [`Work`] is done again and again. Everything is made from fixed values; only the seeds of hash maps
//! differ from run to run. What a case needs it asserts while it is set up, so a case that no longer does what its name says fails.

mod auth;
mod cursor;
mod decode;
mod encode;
mod fanout;
mod feed;
mod fixtures;
mod join;
mod matching;
mod network;
mod outbox;
mod presence;
mod route;
mod world;

/// What a case does, again and again.
pub(crate) trait Work {
    /// What is measured.
    fn run(&mut self);

    /// Puts back what runs have used up. Not measured.
    fn reset(&mut self) {}

    /// How many runs there may be before a reset. Those that take some nanoseconds need many for a clock.
    fn at_once(&self) -> u64 {
        1
    }
}

impl<F: FnMut()> Work for F {
    fn run(&mut self) {
        self();
    }

    fn at_once(&self) -> u64 {
        u64::MAX
    }
}

/// How much one run does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Amount {
    Bytes(usize),
    /// Deliveries, or whatever the case does several of.
    Elements(usize),
}

pub(crate) struct Prepared {
    pub(crate) work: Box<dyn Work>,
    pub(crate) amount: Amount,
}

impl Prepared {
    fn new(amount: Amount, work: impl Work + 'static) -> Prepared {
        Prepared {
            work: Box::new(work),
            amount,
        }
    }
}

/// How many people a case is set up with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Size {
    /// As its name says.
    Full,
    /// A few, to see that it works.
    Sketch,
}

impl Size {
    fn of(self, people: usize) -> usize {
        match self {
            Size::Full => people,
            Size::Sketch => people.min(20),
        }
    }
}

pub(crate) struct Case {
    pub(crate) name: &'static str,
    prepare: fn(Size) -> Prepared,
}

impl Case {
    pub(crate) fn prepare(&self, size: Size) -> Prepared {
        (self.prepare)(size)
    }

    /// Does it a few times, with few people: to see that it works.
    pub(crate) fn try_out(&self) {
        let Prepared { mut work, amount } = self.prepare(Size::Sketch);
        for runs in [1, work.at_once().min(MOST_TRIED)] {
            for _ in 0..runs {
                timed(&mut *work);
            }
            work.reset();
        }
        assert!(matches!(amount, Amount::Bytes(1..) | Amount::Elements(1..)));
        println!("{}: {amount:?} each time", self.name);
    }
}

const MOST_TRIED: u64 = 100;

const fn case(name: &'static str, prepare: fn(Size) -> Prepared) -> Case {
    Case { name, prepare }
}

/// All that is measured of one run, and nothing else: a profiler that counts instructions is told to collect in this function.
#[inline(never)]
pub(crate) fn timed(work: &mut dyn Work) {
    work.run();
    // Or the call would become a jump, of which a profiler cannot see the end.
    std::hint::black_box(());
}

pub(crate) static ALL: &[Case] = &[
    case("decode/heartbeat_v1", |_| decode::heartbeat_v1()),
    case("decode/heartbeat_v2", |_| decode::heartbeat_v2()),
    case("decode/broadcast_v1", |_| decode::broadcast_v1()),
    case("decode/broadcast_binary", |_| decode::broadcast_binary()),
    case("decode/join_v1", |_| decode::join_v1()),
    case("decode/join_v2", |_| decode::join_v2()),
    case("decode/filter", |_| decode::filter()),
    case("feed/row", |_| feed::row(200)),
    case("feed/row_4k", |_| feed::row(4096)),
    case("feed/snapshot", |_| feed::snapshot()),
    case("match/eq", |_| matching::eq()),
    case("match/timestamp", |_| matching::timestamp()),
    case("match/in_100", |_| matching::one_of_100()),
    case("match/less", |_| matching::less()),
    case("match/is_null", |_| matching::is_null()),
    case("match/three", |_| matching::three()),
    case("route/10", |size| route::sessions(size.of(10))),
    case("route/1000", |size| route::sessions(size.of(1_000))),
    case("route/100000", |size| route::sessions(size.of(100_000))),
    case("route/unkeyed_1000", |size| route::unkeyed(size.of(1_000))),
    case("route/judged_1000", |size| route::judged(size.of(1_000))),
    case("encode/data", |_| encode::data()),
    case("encode/frame_v1", |_| encode::frame_v1()),
    case("encode/frame_v2", |_| encode::frame_v2()),
    case("encode/insert_v1", |_| encode::insert_v1()),
    case("encode/insert_v2", |_| encode::insert_v2()),
    case("encode/insert_v2_cursor", |_| encode::insert_v2_cursor()),
    case("encode/insert_v2_columns", |_| encode::insert_v2_columns()),
    case("encode/update_v2", |_| encode::update_v2()),
    case("fanout/nobody", |_| fanout::nobody()),
    case("fanout/1", |_| fanout::group(1)),
    case("fanout/100", |size| fanout::group(size.of(100))),
    case("fanout/10000", |size| fanout::group(size.of(10_000))),
    case("fanout/1000_sessions_of_2", |size| {
        fanout::sessions(size.of(1_000))
    }),
    case("fanout/100_topics", |size| fanout::topics(size.of(100))),
    case("fanout/1000_judged", |size| fanout::judged(size.of(1_000))),
    case("outbox/frame", |_| outbox::frame()),
    case("outbox/push_1", |_| outbox::push(1, 1)),
    case("outbox/push_16", |_| outbox::push(1, 16)),
    case("outbox/push_1000", |size| outbox::push(size.of(1_000), 1)),
    case("outbox/flush_1", |_| outbox::flush(1, 1)),
    case("outbox/flush_16", |_| outbox::flush(1, 16)),
    case("outbox/flush_1000", |size| outbox::flush(size.of(1_000), 1)),
    case("outbox/flush_1000_of_16", |size| {
        outbox::flush(size.of(1_000), 16)
    }),
    case("join/columns", |_| join::columns()),
    case("join/first_of_session", |size| {
        join::first_of_session(size.of(10_000))
    }),
    case("join/another_of_session", |size| {
        join::another_of_session(size.of(10_000))
    }),
    case("auth/hs256", |_| auth::hs256()),
    case("auth/hs256_forged", |_| auth::forged()),
    case("auth/es256", |_| auth::es256()),
    case("auth/rs256", |_| auth::rs256()),
    case("cursor/encode_first", |_| cursor::encode_first()),
    case("cursor/encode_next", |_| cursor::encode_next()),
    case("cursor/decode", |_| cursor::decode()),
    case("broadcast/text_1000", |size| {
        presence::broadcast_text(size.of(1_000))
    }),
    case("broadcast/binary_1000", |size| {
        presence::broadcast_binary(size.of(1_000))
    }),
    case("presence/state_1000", |size| {
        presence::state(size.of(1_000))
    }),
    case("presence/diff_1000", |size| presence::diff(size.of(1_000))),
    case("presence/join_1000", |size| presence::join(size.of(1_000))),
    case("presence/track_1000", |size| {
        presence::track(size.of(1_000))
    }),
];
