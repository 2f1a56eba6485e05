//! The ways in which a broadcast gets into the server: over the sender's own socket, over HTTP, or by a function in the database.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use protocol::Encoding;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::stamp::{EVENT, Stamp, push_frame};
use super::{Form, Plan};
use crate::channel::End;
use crate::scene::link::Link;

/// How long a request or a statement may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A longer answer is not one to a broadcast.
const ANSWER_BYTES: usize = 64 << 10;

/// Numbers what one sender sends.
pub(super) struct Counter {
    pub(super) sender: usize,
    /// Without `realtime:`.
    pub(super) topic: String,
    pub(super) sent: u64,
}

impl Counter {
    fn stamp(&mut self, plan: &Plan, job: u64) -> Stamp {
        self.sent += 1;
        let now = Instant::now();
        let due = plan.pace().due(job);
        if plan.is_warm(due) {
            plan.late.record(due, due, now);
        }
        Stamp {
            sender: self.sender,
            number: self.sent,
            due: plan.since_start(due),
            sent: plan.since_start(now),
        }
    }
}

/// Over a socket that is on the topic.
pub(super) async fn push(
    link: &mut Link,
    counter: &mut Counter,
    plan: &Plan,
    job: u64,
) -> Result<(), End> {
    let stamp = counter.stamp(plan, job);
    let topic = format!("realtime:{}", counter.topic);
    let encoding = match plan.form {
        Form::Text => {
            let payload = stamp.json(&plan.filler);
            let payload =
                format!(r#"{{"type":"broadcast","event":"{EVENT}","payload":{payload}}}"#);
            return link.push(&topic, "broadcast", &payload).await;
        }
        Form::Json => Encoding::Json,
        Form::Bytes => Encoding::Binary,
    };
    let frame = push_frame(&topic, encoding, &stamp.payload(plan.form, &plan.filler));
    let frame = frame.ok_or_else(|| End::Wrong("the topic is too long".to_owned()))?;
    link.push_binary(frame).await
}

/// One connection that stays open, and one request at a time.
pub(super) async fn post_all(
    address: SocketAddr,
    token: String,
    mut counter: Counter,
    plan: Arc<Plan>,
    mut due: mpsc::Receiver<u64>,
) -> anyhow::Result<u64> {
    let mut stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    let query = if plan.private { "?private=true" } else { "" };
    let kind = match plan.form {
        Form::Text | Form::Json => "application/json",
        Form::Bytes => "application/octet-stream",
    };
    let head = format!(
        "POST /realtime/v1/api/broadcast/{}/events/{EVENT}{query} HTTP/1.1\r\nhost: {address}\r\n\
         authorization: Bearer {token}\r\ncontent-type: {kind}\r\ncontent-length: ",
        counter.topic.replace(':', "%3A"),
    );
    while let Some(job) = due.recv().await {
        let stamp = counter.stamp(&plan, job);
        let body = stamp.payload(plan.form, &plan.filler);
        let mut request = format!("{head}{}\r\n\r\n", body.len()).into_bytes();
        request.extend(body);
        let exchange = async {
            stream.write_all(&request).await?;
            status(&mut stream).await
        };
        let status = timeout(LIMIT, exchange)
            .await
            .context("the server does not answer")??;
        ensure!(
            status == 202,
            "a broadcast over HTTP was answered with {status}"
        );
    }
    Ok(counter.sent)
}

/// Reads one answer to its end.
async fn status(stream: &mut TcpStream) -> anyhow::Result<u16> {
    let mut answer = Vec::new();
    loop {
        if let Some((status, length)) = parse_answer(&answer)?
            && answer.len() >= length
        {
            return Ok(status);
        }
        ensure!(answer.len() < ANSWER_BYTES, "the answer is too long");
        ensure!(
            stream.read_buf(&mut answer).await? > 0,
            "the server closed the connection"
        );
    }
}

/// The status, and how long the whole answer is. None if its headers have not all come.
fn parse_answer(answer: &[u8]) -> anyhow::Result<Option<(u16, usize)>> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&answer[..end]).context("not HTTP")?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let status = status.context("no HTTP status line")?.parse()?;
    let mut length = 0;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            bail!("not an HTTP header: {line}");
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    Ok(Some((status, end + 4 + length)))
}

/// One connection to the database, and one statement at a time.
pub(super) async fn call_all(
    client: Client,
    mut counter: Counter,
    plan: Arc<Plan>,
    mut due: mpsc::Receiver<u64>,
) -> anyhow::Result<u64> {
    let statement = match plan.form {
        Form::Text | Form::Json => "select realtime.send($1::text::jsonb, $2, $3, $4)",
        Form::Bytes => "select realtime.send_binary($1::bytea, $2, $3, $4)",
    };
    let statement = client
        .prepare(statement)
        .await
        .context("the database has no realtime.send")?;
    while let Some(job) = due.recv().await {
        let stamp = counter.stamp(&plan, job);
        let (json, bytes);
        let payload: &(dyn tokio_postgres::types::ToSql + Sync) = match plan.form {
            Form::Text | Form::Json => {
                json = stamp.json(&plan.filler);
                &json
            }
            Form::Bytes => {
                bytes = stamp.bytes(&plan.filler);
                &bytes
            }
        };
        let parameters = [payload, &EVENT, &counter.topic, &plan.private];
        timeout(LIMIT, client.execute(&statement, &parameters))
            .await
            .context("the database does not answer")??;
    }
    Ok(counter.sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_to_its_end() {
        let answer = b"HTTP/1.1 202 Accepted\r\nContent-Length: 3\r\nx: y\r\n\r\nabc";
        assert_eq!(parse_answer(answer).unwrap(), Some((202, answer.len())));
        assert_eq!(parse_answer(&answer[..30]).unwrap(), None);
        assert!(parse_answer(b"nonsense\r\n\r\n").is_err());
    }
}
