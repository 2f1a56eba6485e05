//! How long each part takes: `cargo bench -p gateway --bench parts`. Without `--bench`, which cargo adds, each case is only tried out.

mod cases;

use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};

use self::cases::{ALL, Amount, Case, Prepared, Size, Work, timed};

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return ALL.iter().for_each(Case::try_out);
    }
    // With the real recorder: what counting costs belongs to each part.
    gateway::metrics::install();
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for cases in ALL.chunk_by(|a, b| split(a).0 == split(b).0) {
        let mut group = criterion.benchmark_group(split(&cases[0]).0);
        for case in cases {
            measure(&mut group, case);
        }
        group.finish();
    }
    criterion.final_summary();
}

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, case: &Case) {
    let Prepared { mut work, amount } = case.prepare(Size::Full);
    group.throughput(match amount {
        Amount::Bytes(bytes) => Throughput::Bytes(bytes as u64),
        Amount::Elements(elements) => Throughput::Elements(elements as u64),
    });
    group.bench_function(split(case).1, |bencher| {
        bencher.iter_custom(|runs| repeat(&mut *work, runs));
    });
}

/// How long so many runs take, without what lies in between.
fn repeat(work: &mut dyn Work, runs: u64) -> Duration {
    let mut took = Duration::ZERO;
    let mut left = runs;
    while left > 0 {
        let now = left.min(work.at_once());
        let start = Instant::now();
        for _ in 0..now {
            timed(work);
        }
        took += start.elapsed();
        work.reset();
        left -= now;
    }
    took
}

/// The group of a case, and what it is called in it.
fn split(case: &Case) -> (&'static str, &'static str) {
    case.name.split_once('/').unwrap_or((case.name, case.name))
}
