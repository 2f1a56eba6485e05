//! A thread that reads many sockets. It asks the system which of them have something, reads each as far as it goes into one
//! buffer, and keeps of each only the beginning of a frame whose end has not come.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use mio::event::Event;
use mio::{Events, Interest, Poll, Token, Waker};
use tokio::sync::oneshot;

use super::dialect::{Dialect, Taken};
use super::label::Labels;
use super::seen::Seen;
use super::split::{Kind, Part, Splitter, client_frame};
use super::{BEAT, Progress, Terms};
use crate::meter::Meter;

/// As much as stays in a core's cache.
const BUFFER: usize = 128 << 10;

const EVENTS: usize = 1024;

/// Readers on their way to their thread.
const ARRIVALS: usize = 1024;

/// How soon a thread notices that it is to stop or that a heartbeat is due.
const TICK: Duration = Duration::from_millis(100);

/// After a round in which few sockets had something, a thread leaves them alone for this long. Else it would be woken for each
/// frame, which costs itself and the server, which has to wake it, more than the frame does. Times are too long by at most
/// this and what the system adds to it.
const NAP: Duration = Duration::from_micros(200);

/// A round with more than this goes on at once.
const FEW: usize = 256;

const RING: Token = Token(usize::MAX);

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PONG: u8 = 10;

/// A websocket that is open and has not joined.
pub(super) struct Arrival {
    pub(super) stream: TcpStream,
    pub(super) dialect: Box<dyn Dialect>,
    /// What the server has sent already.
    pub(super) rest: Vec<u8>,
    pub(super) joined: oneshot::Sender<Result<(), String>>,
}

/// How arrivals come to a thread.
#[derive(Clone)]
pub(super) struct Door {
    arrivals: SyncSender<Arrival>,
    waker: Arc<Waker>,
}

impl Door {
    pub(super) fn enter(&self, arrival: Arrival) -> anyhow::Result<()> {
        self.arrivals
            .try_send(arrival)
            .map_err(|_| anyhow!("the reading thread takes nobody more; lower --connecting"))?;
        self.ring();
        Ok(())
    }

    pub(super) fn ring(&self) {
        // If it cannot be woken it wakes by itself a tick later.
        let _ = self.waker.wake();
    }
}

/// All that a thread has.
pub(super) struct Desk {
    poll: Poll,
    arrivals: Receiver<Arrival>,
    readers: Vec<Option<Reader>>,
    /// When each reader says that it is still there. All have the same interval, so the first is always the next.
    beats: VecDeque<(Instant, usize)>,
    book: Book,
    buffer: Vec<u8>,
    progress: Arc<Progress>,
}

struct Reader {
    stream: mio::net::TcpStream,
    splitter: Splitter,
    dialect: Box<dyn Dialect>,
    /// The number that is to come next, of each writer.
    next: Box<[u64]>,
    joined: Option<oneshot::Sender<Result<(), String>>>,
}

/// What a thread needs to understand what it reads, and where it writes down what its readers see.
struct Book {
    terms: Terms,
    labels: Labels,
    page: Page,
}

#[derive(Default)]
struct Page {
    seen: Seen,
    /// Frames that the reader at hand has to send.
    answers: Vec<Vec<u8>>,
    has_joined: bool,
}

/// One look at what has come.
struct Look<'a> {
    labels: &'a Labels,
    meter: &'a Meter,
    run: u32,
    now: u64,
    page: &'a mut Page,
}

impl Desk {
    pub(super) fn new(terms: &Terms, progress: Arc<Progress>) -> anyhow::Result<(Self, Door)> {
        let poll = Poll::new().context("cannot wait for sockets")?;
        let waker = Arc::new(Waker::new(poll.registry(), RING)?);
        let (sender, arrivals) = sync_channel(ARRIVALS);
        let book = Book {
            terms: terms.clone(),
            labels: Labels::new(),
            page: Page::default(),
        };
        let desk = Self {
            poll,
            arrivals,
            readers: Vec::new(),
            beats: VecDeque::new(),
            book,
            buffer: vec![0; BUFFER],
            progress,
        };
        let door = Door {
            arrivals: sender,
            waker,
        };
        Ok((desk, door))
    }

    pub(super) fn run(mut self) -> anyhow::Result<Seen> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.progress.stop.load(Ordering::Relaxed) {
            match self.poll.poll(&mut events, Some(TICK)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other.context("cannot wait for sockets")?,
            }
            for event in &events {
                match event.token() {
                    RING => self.admit(),
                    Token(index) => self.listen(index, event),
                }
            }
            let deliveries = self.book.page.seen.deliveries;
            let before = self.progress.deliveries.swap(deliveries, Ordering::Relaxed);
            self.beat(Instant::now());
            if deliveries > before && events.iter().count() < FEW {
                std::thread::sleep(NAP);
            }
        }
        for reader in self.readers.iter_mut().flatten() {
            // That the server is gone already is of no interest any more.
            let _ = reader.send(&[client_frame(CLOSE, &1000_u16.to_be_bytes())?]);
        }
        Ok(self.book.page.seen)
    }

    fn admit(&mut self) {
        while let Ok(arrival) = self.arrivals.try_recv() {
            let index = self.readers.len();
            let mut reader = Reader {
                stream: mio::net::TcpStream::from_std(arrival.stream),
                splitter: Splitter::default(),
                dialect: arrival.dialect,
                // Writers count from 1.
                next: vec![1; self.book.terms.writers].into(),
                joined: Some(arrival.joined),
            };
            let registered =
                self.poll
                    .registry()
                    .register(&mut reader.stream, Token(index), Interest::READABLE);
            let greeted = registered
                .map_err(anyhow::Error::from)
                .and_then(|()| reader.greet())
                .and_then(|()| self.book.take(&mut reader, &arrival.rest));
            self.readers.push(Some(reader));
            self.beats.push_back((Instant::now() + BEAT, index));
            if let Err(error) = greeted {
                self.end(index, &error);
            }
        }
    }

    fn listen(&mut self, index: usize, event: &Event) {
        let Some(Some(reader)) = self.readers.get_mut(index) else {
            return;
        };
        // A read that does not fill the buffer has taken all there was, unless the end of the stream is behind it.
        let to_the_end = event.is_read_closed() || event.is_error();
        let result = loop {
            match reader.stream.read(&mut self.buffer) {
                Ok(0) => break Err(anyhow!("the connection ended")),
                Ok(length) => {
                    if let Err(error) = self.book.take(reader, &self.buffer[..length]) {
                        break Err(error);
                    }
                    if length < BUFFER && !to_the_end {
                        break Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break Err(anyhow!("the connection broke: {error}")),
            }
        };
        if let Err(error) = result {
            self.end(index, &error);
        }
    }

    fn beat(&mut self, now: Instant) {
        while let Some((due, index)) = self.beats.front().copied() {
            if due > now {
                return;
            }
            self.beats.pop_front();
            let Some(Some(reader)) = self.readers.get_mut(index) else {
                continue;
            };
            self.beats.push_back((now + BEAT, index));
            let taken = reader.dialect.beat();
            let done = self.book.page.obey(taken).and_then(|()| {
                let answers = std::mem::take(&mut self.book.page.answers);
                reader.send(&answers)
            });
            if let Err(error) = done {
                self.end(index, &error);
            }
        }
    }

    fn end(&mut self, index: usize, error: &anyhow::Error) {
        let Some(mut reader) = self.readers[index].take() else {
            return;
        };
        let reason = format!("{error:#}");
        match reader.joined.take() {
            // Nobody waits for the answer if the run has been given up.
            Some(joined) => drop(joined.send(Err(reason))),
            None => self.book.page.seen.end(reason),
        }
        self.progress.ended.fetch_add(1, Ordering::Relaxed);
    }
}

impl Book {
    fn take(&mut self, reader: &mut Reader, bytes: &[u8]) -> anyhow::Result<()> {
        let meter: &Meter = (*self.terms.meter).as_ref();
        let mut look = Look {
            labels: &self.labels,
            meter,
            run: self.terms.run,
            now: meter.since_start(Instant::now()),
            page: &mut self.page,
        };
        let Reader {
            splitter,
            dialect,
            next,
            ..
        } = reader;
        splitter.feed(bytes, |part| look.part(part, &mut **dialect, next))?;
        if std::mem::take(&mut self.page.has_joined)
            && let Some(joined) = reader.joined.take()
        {
            drop(joined.send(Ok(())));
        }
        if !self.page.answers.is_empty() {
            reader.send(&std::mem::take(&mut self.page.answers))?;
        }
        Ok(())
    }
}

impl Look<'_> {
    fn part(
        &mut self,
        part: Part<'_>,
        dialect: &mut dyn Dialect,
        next: &mut [u64],
    ) -> anyhow::Result<()> {
        match part.kind {
            Kind::Data if dialect.has_lines() => part
                .payload
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
                .try_for_each(|line| self.text(line, dialect, next)),
            Kind::Data => self.text(part.payload, dialect, next),
            Kind::Ping => {
                let pong = client_frame(PONG, part.payload)?;
                self.page.answers.push(pong);
                Ok(())
            }
            Kind::Pong => Ok(()),
            Kind::Close => bail!("the server closed the connection: {}", close_reason(part)),
        }
    }

    fn text(
        &mut self,
        text: &[u8],
        dialect: &mut dyn Dialect,
        next: &mut [u64],
    ) -> anyhow::Result<()> {
        let seen = &mut self.page.seen;
        let found = self.labels.each(text, |label| {
            seen.note(self.meter, self.run, next, label, self.now);
        });
        if found == 0 {
            return self.page.obey(dialect.take(text));
        }
        seen.keep_sample(text);
        Ok(())
    }
}

impl Page {
    fn obey(&mut self, taken: Taken) -> anyhow::Result<()> {
        match taken {
            Taken::Nothing => {}
            Taken::Joined => self.has_joined = true,
            Taken::Send(text) => self.answers.push(client_frame(TEXT, text.as_bytes())?),
            Taken::Ended(reason) => bail!(reason),
        }
        Ok(())
    }
}

impl Reader {
    fn greet(&mut self) -> anyhow::Result<()> {
        let texts = self.dialect.greet();
        let frames: anyhow::Result<Vec<_>> = texts
            .iter()
            .map(|text| client_frame(TEXT, text.as_bytes()))
            .collect();
        self.send(&frames?)
    }

    /// What is sent is small and rare. A socket that does not take it belongs to a server that does not read.
    fn send(&mut self, frames: &[Vec<u8>]) -> anyhow::Result<()> {
        for frame in frames {
            match self.stream.write(frame) {
                Ok(written) if written == frame.len() => {}
                Ok(_) => bail!("the server does not read"),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    bail!("the server does not read")
                }
                Err(error) => bail!("the connection broke: {error}"),
            }
        }
        Ok(())
    }
}

fn close_reason(part: Part<'_>) -> String {
    match part.payload {
        [high, low, reason @ ..] => format!(
            "{} {}",
            u16::from_be_bytes([*high, *low]),
            String::from_utf8_lossy(reason)
        ),
        _ => "without a code".to_owned(),
    }
}
