//! One socket, from its two sides: the websocket protocol reads it, and what has to be written goes through the outbox.
//!
//! tungstenite writes by itself only when it answers pings and closes. Those answers join the queue like everything else, whole,
//! so that no frame is torn by another.

use std::{
    io::{self, IoSlice},
    net::Shutdown,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::protocol::{Role, WebSocketConfig},
};

use crate::hub::outbox::{Outbox, Wire};

/// The default of 128 KiB would be most of what an idle client costs. Room for what clients usually send; for larger messages it
/// grows.
const READ_BUFFER_BYTES: usize = 1024;

/// The server's side of a socket whose handshake is done. From now on the outbox writes to it.
pub(super) async fn open(
    tcp: Arc<TcpStream>,
    begun: Vec<u8>,
    outbox: Arc<Outbox>,
    max_message_bytes: usize,
) -> WebSocketStream<Stream> {
    outbox.attach(Arc::new(Line(tcp.clone())));
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(max_message_bytes))
        .max_frame_size(Some(max_message_bytes));
    let stream = Stream { tcp, outbox };
    WebSocketStream::from_partially_read(stream, begun, Role::Server, Some(config)).await
}

/// What tungstenite reads from, and writes its answers to.
pub(super) struct Stream {
    tcp: Arc<TcpStream>,
    outbox: Arc<Outbox>,
}

struct Line(Arc<TcpStream>);

impl Wire for Line {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match slices {
            [slice] => self.0.try_write(slice),
            slices => self.0.try_write_vectored(slices),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.tcp.poll_read_ready(context))?;
            match self.tcp.try_read(buffer.initialize_unfilled()) {
                Ok(read) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// Never waits: the outbox has its limits, and whoever exceeds them ends.
impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.outbox.push_control(Bytes::copy_from_slice(buffer));
        Poll::Ready(Ok(buffer.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbox.flush_all();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(socket2::SockRef::from(&*self.tcp).shutdown(Shutdown::Write))
    }
}
