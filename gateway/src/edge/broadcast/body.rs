//! Reads the body of a request, and what is left of it when the request is refused.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

use super::answer::Refused;

/// The peer's: a batch is larger than any message of a socket.
const MAX_BYTES: usize = 8_000_000;
/// A body that trickles in holds a connection for no longer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Of a body that nobody wants.
const MOST_DISCARDED: usize = 4 * MAX_BYTES;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn read(body: &mut Body) -> Result<Bytes, Refused> {
    match timeout(TIMEOUT, Limited::new(body, MAX_BYTES).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refused::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("The body is larger than {MAX_BYTES} bytes"),
        )),
        Ok(Err(_)) | Err(_) => Err(Refused::new(
            StatusCode::REQUEST_TIMEOUT,
            "The body did not arrive",
        )),
    }
}

/// Many clients write all of a body before they read the answer. If the connection were closed on the way, they would not hear
/// why they are refused.
pub(super) async fn discard(headers: &HeaderMap, mut body: Body) {
    // This one waits to be told whether to send it at all.
    if headers.contains_key(header::EXPECT) {
        return;
    }
    let discarding = async {
        let mut discarded = 0;
        while discarded < MOST_DISCARDED
            && let Some(Ok(frame)) = body.frame().await
        {
            discarded += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // Whoever is slower than that has to do without.
    drop(timeout(DISCARD_TIMEOUT, discarding).await);
}
