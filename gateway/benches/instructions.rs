//! Does one case so many times, for a profiler that counts instructions.
//!
//! - `instructions --list` prints the cases, one a line.
//! - `instructions CASE N` sets CASE up and runs it N times. What is measured of each run happens in the function `cases::timed`:
//!   `valgrind --tool=callgrind --toggle-collect='*::timed' …` counts that alone. Without it, the difference between two values of
//!   N tells as well, with what is put back between runs.
//! - Anything else, as `cargo bench` and `cargo test --benches` call it: each case is tried out, with few people.

mod cases;

use std::process::ExitCode;

use self::cases::{ALL, Case, Prepared, Size, timed};

fn main() -> ExitCode {
    // With the real recorder: what counting costs belongs to each part.
    gateway::metrics::install();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--list", ..] => {
            for case in ALL {
                println!("{}", case.name);
            }
            ExitCode::SUCCESS
        }
        [name, runs] if !name.starts_with('-') => match (find(name), runs.parse()) {
            (Some(case), Ok(runs)) => {
                repeat(case.prepare(Size::Full), runs);
                ExitCode::SUCCESS
            }
            (None, _) => {
                eprintln!("there is no case {name}: --list prints those that there are");
                ExitCode::FAILURE
            }
            (_, Err(_)) => {
                eprintln!("{runs} is no number of runs");
                ExitCode::FAILURE
            }
        },
        _ => {
            ALL.iter().for_each(Case::try_out);
            ExitCode::SUCCESS
        }
    }
}

fn find(name: &str) -> Option<&'static Case> {
    ALL.iter().find(|case| case.name == name)
}

fn repeat(mut prepared: Prepared, runs: u64) {
    for _ in 0..runs {
        timed(&mut *prepared.work);
        prepared.work.reset();
    }
}
