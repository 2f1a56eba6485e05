//! The server's CPU and memory over the time of a run.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::tally::lock;
use crate::usage;

const INTERVAL: Duration = Duration::from_millis(500);

/// A run that is longer keeps its first part.
const MOST: usize = 7200;

#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    /// Cores in use: CPU seconds a second, by time in seconds.
    pub(crate) cores: Vec<(f64, f64)>,
    /// MiB.
    pub(crate) memory: Vec<(f64, f64)>,
}

/// Reads until it is stopped or dropped.
pub(crate) struct Sampler {
    task: JoinHandle<()>,
    samples: Arc<Mutex<Samples>>,
}

impl Sampler {
    /// None of a server that runs elsewhere.
    pub(crate) fn start(pid: Option<u32>) -> Self {
        let samples = Arc::new(Mutex::new(Samples::default()));
        let writing = samples.clone();
        let task = tokio::spawn(async move {
            let Some(pid) = pid else { return };
            let start = Instant::now();
            let mut before = (usage::of_process(pid), start);
            let mut tick = tokio::time::interval(INTERVAL);
            tick.tick().await;
            for _ in 0..MOST {
                tick.tick().await;
                let now = (usage::of_process(pid), Instant::now());
                let Some(used) = usage::between(before.0, now.0) else {
                    return;
                };
                let seconds = (now.1 - start).as_secs_f64();
                let step = (now.1 - before.1).as_secs_f64();
                let mut samples = lock(&writing);
                samples
                    .cores
                    .push((seconds, used.cpu_seconds / step.max(1e-3)));
                let memory = used.memory_bytes as f64 / f64::from(1 << 20);
                samples.memory.push((seconds, memory));
                before = now;
            }
        });
        Self { task, samples }
    }

    pub(crate) fn so_far(&self) -> Samples {
        lock(&self.samples).clone()
    }

    pub(crate) fn stop(self) -> Samples {
        self.task.abort();
        self.so_far()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}
