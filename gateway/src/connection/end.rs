//! Why connections end, and what clients are told of it.

use crate::limits::Exceeded;
use protocol::close;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client closed, or its network is gone.
    Client,
    Idle,
    SlowReader,
    TooBig,
    Protocol,
    Encoding,
    Draining,
    /// Changes may be lost.
    Lost,
    Disconnected,
    /// It asks for too much.
    TooMuch(Exceeded),
}

impl End {
    pub(super) fn label(self) -> &'static str {
        match self {
            End::Client => "client",
            End::Idle => "idle",
            End::SlowReader => "slow_reader",
            End::TooBig => "too_big",
            End::Protocol => "protocol",
            End::Encoding => "encoding",
            End::Draining => "draining",
            End::Lost => "lost",
            End::Disconnected => "disconnected",
            End::TooMuch(_) => "too_much",
        }
    }

    /// Whether what waits to be written is still the client's: it is told why it ends.
    pub(super) fn has_last_words(self) -> bool {
        matches!(self, End::Draining | End::TooMuch(_))
    }

    pub(super) fn close_frame(self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            End::Client => return None,
            End::Idle => (close::IDLE, "idle"),
            End::SlowReader => (close::SLOW_READER, "slow reader"),
            End::TooBig => (close::TOO_BIG, "message too big"),
            End::Protocol => (close::PROTOCOL_ERROR, "protocol error"),
            End::Encoding => (close::BAD_ENCODING, "text that is not UTF-8"),
            End::Draining => (close::RESTART, "the server restarts"),
            End::Lost => (close::RESTART, "changes may be lost"),
            End::Disconnected => (close::DISCONNECTED, "disconnected by an operator"),
            End::TooMuch(exceeded) => {
                let code = exceeded.closes_socket().unwrap_or(close::TOO_MUCH);
                return Some(CloseFrame {
                    code: CloseCode::from(code),
                    reason: exceeded.to_string().into(),
                });
            }
        };
        Some(CloseFrame {
            code: CloseCode::from(code),
            reason: reason.into(),
        })
    }
}
