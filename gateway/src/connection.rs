//! One socket: [`machine`] decides, [`task`] reads, writes and waits, [`asking`] puts questions to others.

mod asking;
mod awaited;
mod channel;
mod clock;
mod effects;
mod end;
mod machine;
mod sockets;
mod stream;
mod task;

use std::net::SocketAddr;

use protocol::Version;

pub use self::{sockets::Sockets, task::serve};

/// How the socket was opened.
pub struct Opened {
    pub version: Version,
    /// The token of the connect, for channels that bring none of their own.
    pub token: String,
    /// The `x-…` headers, for policies that read `request.headers`.
    pub headers: Vec<(String, String)>,
    pub remote: SocketAddr,
}
