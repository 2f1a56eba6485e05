//! The codes of websocket close frames that the server sends, and what clients do with them.
//!
//! realtime-js reconnects after every code. Python 2.7 stays away for good after 1000 and 1001, so a client that should
//! come back is closed with [`RESTART`].

/// Nothing came from the client within the idle timeout.
pub const IDLE: u16 = 1000;
/// The join-rate limit was hit on this socket, right after the error reply.
pub const JOIN_RATE: u16 = 1001;
/// The client broke the websocket protocol.
pub const PROTOCOL_ERROR: u16 = 1002;
/// A text message was not UTF-8.
pub const BAD_ENCODING: u16 = 1007;
/// The client sent far more than it may. It may come back, and should send less then.
pub const TOO_MUCH: u16 = 1008;
/// An inbound message was larger than [`MAX_MESSAGE_BYTES`].
pub const TOO_BIG: u16 = 1009;
/// The server failed.
pub const INTERNAL: u16 = 1011;
/// The server asks the client to connect again: shutdown, drain, or changed settings.
pub const RESTART: u16 = 1012;
/// The client did not read as fast as messages came for it. Nothing was skipped in what it got before; it should connect
/// again and resume from its last cursor. The number is our own, from the range for private use.
pub const SLOW_READER: u16 = 4008;
/// An operator has disconnected this user. From the range for private use.
pub const DISCONNECTED: u16 = 4009;

/// The largest message a client may send.
pub const MAX_MESSAGE_BYTES: usize = 5_000_000;
