//! The least that a server of websockets could do: write frames that are ready to sockets that are open, with one system call
//! each, and nothing else. It is a process of its own, so that its cost can be read as that of any server.

mod pump;
mod schedule;

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use uuid::Uuid;

pub(crate) use self::pump::serve;
use crate::crowd::dialect::Dialect;
use crate::crowd::dialect::plain::Plain;
use crate::crowd::label::Labels;
use crate::crowd::split::text_header;
use crate::crowd::{Crowd, Terms};
use crate::fanout::feed::Load;
use crate::fanout::host::Readings;
use crate::fanout::turn::{RUN_UP, Shape, Turn, drain};
use crate::frame::Label;
use crate::usage;

const START_LIMIT: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// What the process is told in its first line of input. The second is the time at which it begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    sockets: usize,
    messages: u64,
    /// Messages a second. Without it all are due at once.
    rate: Option<f64>,
    run: u32,
    /// A frame as the server sends it, with a label.
    sample: String,
}

impl Order {
    /// Frames that differ in their labels only.
    fn frames(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let (_, place) = Labels::new()
            .next(self.sample.as_bytes(), 0)
            .context("the sample has no label")?;
        let (before, after) = (&self.sample[..place.start], &self.sample[place.end..]);
        let frame = |job| {
            let label = Label {
                run: self.run,
                writer: 0,
                job,
                number: job + 1,
            };
            let text = format!("{before}{}{after}", serde_json::to_string(&label)?);
            Ok([text_header(text.len()), text.into_bytes()].concat())
        };
        (0..self.messages).map(frame).collect()
    }
}

/// One turn of the floor. The sample is a frame of the server that it is the floor of.
pub(crate) async fn measure(shape: &Shape, sample: &[u8]) -> anyhow::Result<Turn> {
    let order = Order {
        sockets: shape.all_readers(),
        messages: shape.load.messages(),
        rate: match shape.load {
            Load::Paced { rate, .. } => Some(rate),
            Load::Burst { .. } | Load::Flood { .. } => None,
        },
        run: Uuid::new_v4().as_fields().0,
        sample: String::from_utf8(sample.to_vec()).context("the server's frames are no text")?,
    };
    let (mut process, authority) = Process::start(&order).await?;
    let meter = Arc::new(shape.load.meter());
    let terms = Terms {
        authority,
        run: order.run,
        writers: 1,
        meter: meter.clone(),
        connecting: shape.connecting,
    };
    let dialects = (0..order.sockets).map(|_| {
        let plain: Box<dyn Dialect> = Box::new(Plain::new("/"));
        Ok(plain)
    });
    let joining = Instant::now();
    let crowd = Crowd::gather(terms, dialects).await?;
    let join_seconds = joining.elapsed().as_secs_f64();

    let start = Instant::now() + RUN_UP;
    meter.start_at(start);
    process.begin_at(start).await?;
    tokio::time::sleep_until(start.into()).await;
    let before = process.readings();
    let expected = order.messages * order.sockets as u64;
    drain(&crowd, expected, shape.quiet).await;
    let costs = before.until(process.readings());
    let seen = crowd.disperse().await?;
    process.stop().await;
    Ok(Turn {
        load: shape.load,
        seen,
        expected,
        costs,
        fed: None,
        join_seconds,
    })
}

struct Process {
    child: Child,
}

impl Process {
    /// Returns where it listens, too.
    async fn start(order: &Order) -> anyhow::Result<(Self, String)> {
        let this = std::env::current_exe().context("cannot tell where this program is")?;
        let mut child = Command::new(this)
            .arg("floor-server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the floor")?;
        let output = child.stdout.take().context("the floor has no output")?;
        let mut process = Self { child };
        process.tell(&serde_json::to_string(order)?).await?;
        let mut authority = String::new();
        timeout(
            START_LIMIT,
            BufReader::new(output).read_line(&mut authority),
        )
        .await
        .context("the floor does not start")??;
        ensure!(
            authority.ends_with('\n'),
            "the floor ended before it listened"
        );
        Ok((process, authority.trim().to_owned()))
    }

    async fn begin_at(&mut self, start: Instant) -> anyhow::Result<()> {
        // The clock on the wall is one that both processes can read.
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .context("the clock is before 1970")?;
        let at = now + start.saturating_duration_since(Instant::now());
        self.tell(&at.as_micros().to_string()).await
    }

    async fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        let input = self
            .child
            .stdin
            .as_mut()
            .context("the floor has no input")?;
        input.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(input.flush().await?)
    }

    fn readings(&self) -> Readings {
        Readings::take(self.child.id().and_then(usage::of_process), None)
    }

    async fn stop(mut self) {
        // It waits for the end of its input.
        drop(self.child.stdin.take());
        if timeout(STOP_LIMIT, self.child.wait()).await.is_err() {
            // What cannot be killed is gone.
            let _ = self.child.kill().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_the_sample_with_other_labels() {
        let order = Order {
            sockets: 1,
            messages: 3,
            rate: None,
            run: 77,
            sample: r#"[null,{"metadata":{"j":100,"n":101,"w":0,"run":12},"a":"é"}]"#.to_owned(),
        };
        let frames = order.frames().unwrap();
        assert_eq!(frames.len(), 3);
        let text = std::str::from_utf8(&frames[2][2..]).unwrap();
        assert_eq!(usize::from(frames[2][1]), text.len());
        assert!(text.ends_with(r#","a":"é"}]"#) && text.starts_with("[null,"));
        let mut labels = Vec::new();
        Labels::new().each(text.as_bytes(), |label| labels.push(label));
        let label = Label {
            run: 77,
            writer: 0,
            job: 2,
            number: 3,
        };
        assert_eq!(labels, [label]);
        let unlabelled = Order {
            sample: "[]".to_owned(),
            ..order
        };
        assert!(unlabelled.frames().is_err());
    }
}
