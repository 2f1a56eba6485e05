//! Waiting for a state, never for a time.

use std::{fmt::Display, future::Future, time::Duration};

use tokio::time::{Instant, sleep};

/// What takes longer has failed. Generous: two tests and their databases share what processors there are.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(10);

/// Asks until the answer is `Ok`. In vain, the last answer is what the test fails with.
pub(crate) async fn wait_for<T, E, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, E>>,
    E: Display,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(status) if Instant::now() > deadline => {
                panic!("waited in vain for {what}; last it was: {status}")
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}
