//! One connection through the proxy, until it ends or is cut.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::{Cut, Flow, Line};

/// Bytes that wait in the proxy in one direction of a connection.
const ROOM: usize = 256 * 1024;

/// Bytes that are read at once. A throttled flow takes less, so that it trickles.
const PIECE: usize = 16 * 1024;

/// After a `Cut::Close`, how long the other side may take to close as well.
const LINGER: Duration = Duration::from_secs(2);

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy)]
enum Way {
    ToServer,
    ToClient,
}

impl Line {
    fn flow(&self, way: Way) -> Flow {
        match way {
            Way::ToServer => self.to_server,
            Way::ToClient => self.to_client,
        }
    }
}

pub(crate) async fn carry(mut client: TcpStream, mut line: watch::Receiver<Line>) {
    let made = *line.borrow();
    if let Some(how) = made.closed {
        return end(vec![client], how).await;
    }
    let mut cuts = line.clone();
    let mut server = None;
    let cut = tokio::select! {
        biased;
        line = cuts.wait_for(|line| line.cuts != made.cuts) => line.ok().map(|line| line.last_cut),
        failed = through(&mut client, &mut server, &mut line) => failed.is_err().then_some(Cut::Reset),
    };
    if let Some(how) = cut {
        end(std::iter::once(client).chain(server).collect(), how).await;
    }
}

async fn end(streams: Vec<TcpStream>, how: Cut) {
    let mut closing = JoinSet::new();
    for mut stream in streams {
        match how {
            // Closing with a linger of zero sends the RST.
            Cut::Reset => drop(stream.set_zero_linger()),
            // Bytes that nobody has read would turn the FIN into an RST; they are read until the other side closes, too.
            Cut::Close => {
                closing.spawn(async move {
                    if stream.shutdown().await.is_ok() {
                        let mut nowhere = tokio::io::sink();
                        let _ = timeout(LINGER, tokio::io::copy(&mut stream, &mut nowhere)).await;
                    }
                });
            }
        }
    }
    closing.join_all().await;
}

/// Ends when both directions have ended, or with the first error.
async fn through(
    client: &mut TcpStream,
    server: &mut Option<TcpStream>,
    line: &mut watch::Receiver<Line>,
) -> io::Result<()> {
    // The way to the server is away: the client's attempt hangs as its bytes would.
    let swallowed = line.borrow().to_server == Flow::Swallowed;
    let free = line
        .wait_for(|line| !matches!(line.to_server, Flow::Hung | Flow::Swallowed))
        .await;
    let target = free.map_err(|_| gone())?.target;
    if swallowed {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    let connected = timeout(CONNECT_LIMIT, TcpStream::connect(target)).await??;
    let server = server.insert(connected);
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::try_join!(
        pump(from_client, to_server, line.clone(), Way::ToServer),
        pump(from_server, to_client, line.clone(), Way::ToClient),
    )?;
    Ok(())
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the proxy has ended")
}

struct Piece {
    bytes: Vec<u8>,
    written: usize,
    due: Instant,
}

/// What is on its way in one direction.
struct Pipe {
    flow: Flow,
    pieces: VecDeque<Piece>,
    waiting: usize,
    /// When the newest piece is due; none is due earlier than the one before it.
    last_due: Instant,
    /// The sender has said that nothing follows.
    ended: bool,
    /// Bytes are missing: this connection must not go on.
    torn: bool,
}

async fn pump(
    from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut line: watch::Receiver<Line>,
    way: Way,
) -> io::Result<()> {
    let mut pipe = Pipe::new(line.borrow_and_update().flow(way));
    loop {
        if pipe.is_done() {
            return to.shutdown().await;
        }
        tokio::select! {
            changed = line.changed() => {
                changed.map_err(|_| gone())?;
                let flow = line.borrow_and_update().flow(way);
                pipe.change(flow)?;
            }
            readable = from.readable(), if pipe.takes() => {
                readable?;
                // An idle connection holds no buffer; there may be thousands.
                let mut buffer = vec![0; pipe.piece()];
                match from.try_read(&mut buffer) {
                    Ok(read) => {
                        buffer.truncate(read);
                        pipe.push(buffer, Instant::now());
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            written = pipe.write(&to), if pipe.gives() => written?,
        }
    }
}

impl Pipe {
    fn new(flow: Flow) -> Self {
        Self {
            flow,
            pieces: VecDeque::new(),
            waiting: 0,
            last_due: Instant::now(),
            ended: false,
            torn: false,
        }
    }

    fn takes(&self) -> bool {
        self.flow != Flow::Hung && !self.ended && self.waiting < ROOM
    }

    fn gives(&self) -> bool {
        !matches!(self.flow, Flow::Hung | Flow::Swallowed) && !self.pieces.is_empty()
    }

    /// While the flow is away, the other side does not hear of the end either.
    fn is_done(&self) -> bool {
        self.ended && self.pieces.is_empty() && !matches!(self.flow, Flow::Hung | Flow::Swallowed)
    }

    fn piece(&self) -> usize {
        match self.flow {
            Flow::Throttled { bytes_per_second } => {
                (bytes_per_second as usize / 20).clamp(1, PIECE)
            }
            _ => PIECE,
        }
    }

    fn change(&mut self, flow: Flow) -> io::Result<()> {
        if flow == self.flow {
            return Ok(());
        }
        self.flow = flow;
        if flow == Flow::Swallowed {
            self.torn |= !self.pieces.is_empty();
            self.pieces.clear();
            self.waiting = 0;
        } else if self.torn {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let now = Instant::now();
        self.last_due = now;
        for piece in &mut self.pieces {
            piece.due = now;
        }
        Ok(())
    }

    fn push(&mut self, bytes: Vec<u8>, now: Instant) {
        if bytes.is_empty() {
            self.ended = true;
            return;
        }
        let due = match self.flow {
            Flow::Free | Flow::Hung => now,
            Flow::Swallowed => {
                self.torn = true;
                return;
            }
            Flow::Delayed { by, jitter } => {
                (now + by + jitter.mul_f64(rand::random())).max(self.last_due)
            }
            Flow::Throttled { bytes_per_second } => {
                let takes = bytes.len() as f64 / f64::from(bytes_per_second.max(1));
                self.last_due.max(now) + Duration::from_secs_f64(takes)
            }
        };
        self.last_due = due;
        self.waiting += bytes.len();
        self.pieces.push_back(Piece {
            bytes,
            written: 0,
            due,
        });
    }

    /// Writes of the first piece what fits, once it is due. Nothing is lost when this is cancelled.
    async fn write(&mut self, to: &WriteHalf<'_>) -> io::Result<()> {
        let Some(piece) = self.pieces.front_mut() else {
            return Ok(());
        };
        sleep_until(piece.due).await;
        to.writable().await?;
        match to.try_write(&piece.bytes[piece.written..]) {
            Ok(written) => {
                piece.written += written;
                self.waiting -= written;
                if piece.written == piece.bytes.len() {
                    self.pieces.pop_front();
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}
