//! A TCP proxy that can cut the line.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

pub(crate) struct Proxy {
    address: SocketAddr,
    line: watch::Sender<Line>,
    accepting: JoinHandle<()>,
}

#[derive(Clone, Copy)]
struct Line {
    target: SocketAddr,
    open: bool,
    /// Connections belong to the line as it was when they were made, and end with it.
    cuts: u32,
}

impl Proxy {
    pub(crate) async fn start(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let (line, _) = watch::channel(Line {
            target,
            open: true,
            cuts: 0,
        });
        let accepting = tokio::spawn(accept(listener, line.subscribe()));
        Proxy {
            address,
            line,
            accepting,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection in the middle of what it does, and every new one at once.
    pub(crate) fn cut(&self) {
        self.line.send_modify(|line| {
            line.open = false;
            line.cuts += 1;
        });
    }

    pub(crate) fn mend(&self) {
        self.line.send_modify(|line| line.open = true);
    }

    /// New connections go there. Those that are open stay where they are.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.line.send_modify(|line| line.target = target);
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
    while let Ok((client, _)) = listener.accept().await {
        let now = *line.borrow();
        if now.open {
            connections.spawn(carry(client, now, line.clone()));
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn carry(mut client: TcpStream, made: Line, mut line: watch::Receiver<Line>) {
    // When nobody listens there, the client finds its connection closed.
    let Ok(mut server) = TcpStream::connect(made.target).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = line.wait_for(|line| line.cuts != made.cuts) => {}
    }
}
