//! Deliveries a second over the time of the run, and the bar that shows them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

use crate::writer::Plan;

const PROGRESS: Duration = Duration::from_millis(100);

/// Of these one point is made.
const TICKS_PER_POINT: u32 = 5;

/// Two hours; a run that drains longer keeps its first part.
const MOST: usize = 14_400;

pub(super) struct Pulse {
    task: JoinHandle<()>,
    bar: ProgressBar,
    points: Arc<Mutex<Vec<(f64, f64)>>>,
}

impl Pulse {
    pub(super) fn start(plan: Arc<Plan>, expected: u64, started: Instant) -> Self {
        let bar = progress(expected, "delivered");
        let points = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(watch(plan, bar.clone(), started, points.clone()));
        Self { task, bar, points }
    }

    /// Seconds since the first message was due, and deliveries a second.
    pub(super) fn stop(self) -> Vec<(f64, f64)> {
        self.task.abort();
        self.bar.finish_and_clear();
        std::mem::take(&mut *self.points.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn watch(
    plan: Arc<Plan>,
    bar: ProgressBar,
    started: Instant,
    points: Arc<Mutex<Vec<(f64, f64)>>>,
) {
    tokio::time::sleep_until(started.into()).await;
    let mut tick = tokio::time::interval(PROGRESS);
    let (mut before, mut at) = (plan.meter.count(), Instant::now());
    for number in 1_u32.. {
        tick.tick().await;
        let count = plan.meter.count();
        bar.set_position(count);
        let step = at.elapsed().as_secs_f64();
        if number.is_multiple_of(TICKS_PER_POINT) && step > 0.0 {
            let mut points = points.lock().unwrap_or_else(PoisonError::into_inner);
            if points.len() < MOST {
                let rate = count.saturating_sub(before) as f64 / step;
                points.push((started.elapsed().as_secs_f64(), rate));
            }
            (before, at) = (count, Instant::now());
        }
    }
}

pub(super) fn progress(length: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    // The template is a constant; if it were wrong the default would do.
    let template =
        format!("{{elapsed_precise}} {{bar:40}} {{human_pos}}/{{human_len}} {what} ({{per_sec}})");
    bar.with_style(
        ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()),
    )
}
