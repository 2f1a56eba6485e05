//! The floor's process: one thread that accepts its sockets and then writes each frame to each of them when it is due. A
//! socket that takes no more is left alone until the system says that it does.

use std::io::{BufRead, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use mio::{Events, Interest, Poll, Token};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Order;
use super::schedule::Schedule;
use crate::crowd::split::text_header;

const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// The headers of a client of the load test are short.
const HEADERS: usize = 8 << 10;

const EVENTS: usize = 1024;

/// A socket that takes nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads its order and its start from the input, and ends when that ends.
pub(crate) fn serve() -> anyhow::Result<()> {
    let mut input = std::io::stdin().lock();
    let mut line = String::new();
    input.read_line(&mut line)?;
    let order: Order = serde_json::from_str(&line).context("unreadable order")?;
    let frames = order.frames()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?);
    let mut pump = Pump::new()?;
    for _ in 0..order.sockets {
        pump.add(accept(&listener)?)?;
    }
    line.clear();
    input.read_line(&mut line)?;
    let start = instant(line.trim().parse().context("unreadable start")?)?;
    pump.run(&frames, &Schedule::new(start, order.rate))?;
    // Until the load test has read everything.
    std::io::copy(&mut input, &mut std::io::sink())?;
    Ok(())
}

/// The moment of a time that another process has read from the clock on the wall.
fn instant(micros: u64) -> anyhow::Result<Instant> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?;
    Ok(Instant::now() + Duration::from_micros(micros).saturating_sub(now))
}

/// Answers the handshake of a client, and says hello.
fn accept(listener: &TcpListener) -> anyhow::Result<TcpStream> {
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(HANDSHAKE_LIMIT))?;
    let mut request = Vec::new();
    let mut chunk = [0; 2048];
    while !request.ends_with(b"\r\n\r\n") {
        let length = stream.read(&mut chunk)?;
        ensure!(
            length > 0 && request.len() < HEADERS,
            "a client asks for no websocket"
        );
        request.extend_from_slice(&chunk[..length]);
    }
    let request = String::from_utf8(request)?;
    let key = request
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        .context("a client asks for no websocket")?
        .1;
    let accept = derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    let hello = [text_header(2), b"{}".to_vec()].concat();
    stream.write_all(&[answer.into_bytes(), hello].concat())?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

struct Pump {
    poll: Poll,
    events: Events,
    sockets: Vec<Outlet>,
    /// Sockets that take no more for now.
    full: usize,
}

struct Outlet {
    stream: mio::net::TcpStream,
    state: State,
    /// The frame that is next, and how much of it is written already.
    frame: usize,
    offset: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Full,
    Gone,
}

impl Pump {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            poll: Poll::new().context("cannot wait for sockets")?,
            events: Events::with_capacity(EVENTS),
            sockets: Vec::new(),
            full: 0,
        })
    }

    fn add(&mut self, stream: TcpStream) -> anyhow::Result<()> {
        let mut stream = mio::net::TcpStream::from_std(stream);
        let token = Token(self.sockets.len());
        self.poll
            .registry()
            .register(&mut stream, token, Interest::WRITABLE)?;
        self.sockets.push(Outlet {
            stream,
            state: State::Open,
            frame: 0,
            offset: 0,
        });
        Ok(())
    }

    fn run(&mut self, frames: &[Vec<u8>], schedule: &Schedule) -> anyhow::Result<()> {
        for due in 0..frames.len() {
            while let Some(wait) = schedule.wait(due as u64, Instant::now()) {
                if self.full > 0 {
                    self.relieve(&frames[..due], wait)?;
                } else {
                    std::thread::sleep(wait);
                }
            }
            for index in 0..self.sockets.len() {
                self.write(index, &frames[..=due]);
            }
            if self.full > 0 {
                self.relieve(&frames[..=due], Duration::ZERO)?;
            }
        }
        let mut moved = Instant::now();
        while self.full > 0 {
            if self.relieve(frames, Duration::from_secs(1))? {
                moved = Instant::now();
            }
            if moved.elapsed() > PATIENCE {
                bail!("{} sockets take no more", self.full);
            }
        }
        Ok(())
    }

    /// Goes on with the sockets that take something again. Returns whether there were any.
    fn relieve(&mut self, frames: &[Vec<u8>], wait: Duration) -> anyhow::Result<bool> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(false),
            other => other.context("cannot wait for sockets")?,
        }
        let ready: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        for index in &ready {
            if self.sockets[*index].state == State::Full {
                self.sockets[*index].state = State::Open;
                self.full -= 1;
                self.write(*index, frames);
            }
        }
        Ok(!ready.is_empty())
    }

    /// All that a socket has not got yet, one call for each frame.
    fn write(&mut self, index: usize, frames: &[Vec<u8>]) {
        let socket = &mut self.sockets[index];
        while socket.state == State::Open && socket.frame < frames.len() {
            let rest = &frames[socket.frame][socket.offset..];
            match socket.stream.write(rest) {
                Ok(written) if written == rest.len() => {
                    socket.frame += 1;
                    socket.offset = 0;
                }
                Ok(written) => socket.offset += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    socket.state = State::Full;
                    self.full += 1;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The client counts what it has not got.
                Err(_) => socket.state = State::Gone,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sockets of which one is not read until the other has everything.
    #[test]
    fn a_full_socket_holds_up_nobody_and_gets_everything() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut pump = Pump::new().unwrap();
        let mut clients = Vec::new();
        for _ in 0..2 {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            pump.add(stream).unwrap();
            clients.push(client);
        }
        // More than the system keeps for a socket that is not read.
        let frames: Vec<Vec<u8>> = (0..400_u32)
            .map(|index| vec![(index % 251) as u8; 50_000])
            .collect();
        let expected = frames.concat();
        let (slow, fast) = (clients.remove(0), clients.remove(0));
        let read = |mut stream: TcpStream, length: usize| {
            let mut got = vec![0; length];
            stream.read_exact(&mut got).map(|()| got)
        };
        let length = expected.len();
        let reading = std::thread::spawn(move || {
            let first = read(fast, length).unwrap();
            (first, read(slow, length).unwrap())
        });
        pump.run(&frames, &Schedule::new(Instant::now(), None))
            .unwrap();
        let (first, second) = reading.join().unwrap();
        assert!(first == expected && second == expected);
        assert_eq!(pump.full, 0);
    }
}
