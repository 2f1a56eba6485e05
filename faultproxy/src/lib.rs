//! A TCP proxy that misbehaves on request, for tests of what happens when the network does.
//!
//! [`Proxy::start`] listens on a free port of this machine and leads to a target, which can be changed
//! ([`Proxy::lead_to`]). It can be told to end all connections ([`Proxy::cut`]), and to treat what goes one way or both
//! ways badly ([`Proxy::set`]): late, slowly, not at all, or into nothing. [`Proxy::mend`] ends all of it. The proxy
//! ends with the value, and its connections with it.
//!
//! What goes through keeps its order and its bytes, or its connection ends. About 256 KiB wait at most in the proxy for each
//! direction of a connection; then it stops reading, and the sender feels it.

mod carry;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::carry::carry;

/// How long the proxy waits before it accepts again when the machine is out of file descriptors.
const BREATH: Duration = Duration::from_millis(20);

pub struct Proxy {
    address: SocketAddr,
    line: watch::Sender<Line>,
    accepting: JoinHandle<()>,
}

/// The directions of a connection. The client is who connected to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToClient,
    Both,
}

/// How bytes travel in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    #[default]
    Free,
    /// Each piece arrives `by` after it was sent, and up to `jitter` later, in order.
    Delayed { by: Duration, jitter: Duration },
    /// So many bytes a second, for each connection by itself.
    Throttled { bytes_per_second: u32 },
    /// Nothing moves and nothing is closed; a new connection to the server hangs, too. Whatever was sent meanwhile
    /// arrives when the flow changes: a network that is away and comes back.
    Hung,
    /// Everything is taken and nothing arrives; nothing is closed. A connection that has lost bytes in this way is reset
    /// when the flow changes: a router that has forgotten its connections.
    Swallowed,
}

/// How connections end when the line is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// At once (RST): both sides see an error, and what was on its way is gone.
    Reset,
    /// In good order (FIN): both sides see the end of the stream.
    Close,
}

/// What the connections follow.
#[derive(Clone, Copy)]
struct Line {
    target: SocketAddr,
    /// New connections end at once in this way.
    closed: Option<Cut>,
    /// Connections end when this changes, in the way of `last_cut`.
    cuts: u64,
    last_cut: Cut,
    to_server: Flow,
    to_client: Flow,
}

impl Proxy {
    /// # Errors
    /// When there is no port to listen on.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (line, _) = watch::channel(Line {
            target,
            closed: None,
            cuts: 0,
            last_cut: Cut::Reset,
            to_server: Flow::Free,
            to_client: Flow::Free,
        });
        let accepting = tokio::spawn(accept(listener, line.subscribe()));
        Ok(Self {
            address,
            line,
            accepting,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// New connections go there. Those that are open stay where they are.
    pub fn lead_to(&self, target: SocketAddr) {
        self.line.send_modify(|line| line.target = target);
    }

    /// Ends every connection in the middle of what it does, and every new one at once, until the line is mended.
    pub fn cut(&self, how: Cut) {
        self.line.send_modify(|line| {
            line.closed = Some(how);
            line.last_cut = how;
            line.cuts += 1;
        });
    }

    /// Also for the connections that are open. What waits in the proxy because of the flow before goes on at once.
    pub fn set(&self, way: Way, flow: Flow) {
        self.line.send_modify(|line| {
            if way != Way::ToClient {
                line.to_server = flow;
            }
            if way != Way::ToServer {
                line.to_client = flow;
            }
        });
    }

    /// Everything goes through as if there were no proxy.
    pub fn mend(&self) {
        self.line.send_modify(|line| {
            line.closed = None;
            line.to_server = Flow::Free;
            line.to_client = Flow::Free;
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Its connections are in its set, and end with it.
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, line: watch::Receiver<Line>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                connections.spawn(carry(client, line.clone()));
            }
            Err(_) => tokio::time::sleep(BREATH).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

#[cfg(test)]
mod tests;
