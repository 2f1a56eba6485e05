//! The listener: accepts, speaks HTTP/1.1, and stops when told to.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::ServiceExt;

use crate::app::App;
use crate::lifecycle::Lifecycle;

use super::Remote;

/// The head of a request must be complete by then. A connection that is kept alive and idle ends by it, too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Room for the longest token that is accepted, twice, and all that browsers add.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// No connection serves requests for longer, so that none is held open by a reader that does not read. Sockets have left
/// HTTP by then.
const MAX_AGE: Duration = Duration::from_secs(300);
/// How long the answers that are under way may take when a connection has to end.
const LAST_ANSWERS: Duration = Duration::from_secs(10);
/// How long the other end may leave what we send unacknowledged, or its window shut, before the kernel gives it up: also after
/// we have, since the kernel would keep for ever what a client that is there does not read. Longer than we wait ourselves, so
/// that such a client is told why.
#[cfg(target_os = "linux")]
const SILENCE: Duration = Duration::from_secs(60);
/// The kernel takes no more than this for a client that does not read. The rest waits in its outbox, where it is counted, and
/// shared with others that get the same; the kernel's own limit is megabytes for each.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 128 * 1024;
/// Connections for requests, beside those that are or become sockets.
const REQUEST_CONNECTIONS: usize = 1024;

/// Serves the gateway's routes until a stop closes the listener.
pub async fn run(app: Arc<App>, listener: TcpListener) {
    let router = super::router(app.clone());
    serve(app, listener, router).await;
}

/// The same with a router of the caller's making.
pub(crate) async fn serve(app: Arc<App>, listener: TcpListener, router: Router) {
    let lifecycle = app.lifecycle.clone();
    let permits = Arc::new(Semaphore::new(
        app.settings
            .max_connections
            .saturating_add(REQUEST_CONNECTIONS)
            .min(Semaphore::MAX_PERMITS),
    ));
    let mut pause = Backoff::default();
    loop {
        // Whoever comes when all are taken waits in the kernel's queue.
        let permit = tokio::select! {
            () = lifecycle.closing().cancelled() => return,
            permit = permits.clone().acquire_owned() => match permit {
                Ok(permit) => permit,
                Err(_) => return,
            },
        };
        let accepted = tokio::select! {
            () = lifecycle.closing().cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                pause = Backoff::default();
                if prepare(&stream).is_err() {
                    continue;
                }
                let connection =
                    connection(stream, Remote(address), router.clone(), &lifecycle, permit);
                lifecycle.spawn(connection);
            }
            // The client went away between the kernel's handshake and ours.
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                let pause = pause.next();
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    pause = ?pause,
                    "cannot accept connections: is the limit of open files high enough?"
                );
                tokio::select! {
                    () = lifecycle.closing().cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    // Frames are small and written whole: waiting to fill a packet only delays them.
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    {
        let socket = socket2::SockRef::from(stream);
        socket.set_tcp_user_timeout(Some(SILENCE))?;
        socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    }
    Ok(())
}

fn connection(
    stream: TcpStream,
    remote: Remote,
    router: Router,
    lifecycle: &Lifecycle,
    permit: OwnedSemaphorePermit,
) -> impl Future<Output = ()> + Send + 'static {
    // Who comes during a stop gets one answer, and connections that are kept alive end: whoever balances is to look anew.
    let keep_alive = !lifecycle.soft().is_cancelled();
    let ending = match keep_alive {
        true => lifecycle.soft().clone(),
        false => lifecycle.closing().clone(),
    };
    let held = Arc::new(permit);
    let held_by_requests = held.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let router = router.clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(remote);
        // A socket takes this along, and keeps the place of the connection that it came from.
        request
            .extensions_mut()
            .insert(Place(held_by_requests.clone()));
        async move {
            Ok::<_, Infallible>(
                router
                    .oneshot(request)
                    .await
                    .unwrap_or_else(|never| match never {}),
            )
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(keep_alive)
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    async move {
        let _held = held;
        let mut connection = pin!(connection);
        // Errors are those of the client or its network; what we answered is counted elsewhere.
        tokio::select! {
            _ = connection.as_mut() => return,
            () = ending.cancelled() => {}
            () = tokio::time::sleep(MAX_AGE) => {}
        }
        connection.as_mut().graceful_shutdown();
        drop(tokio::time::timeout(LAST_ANSWERS, connection).await);
    }
}

/// A place among the connections that are allowed; given back when the last holder is gone.
#[derive(Clone)]
pub(crate) struct Place(#[expect(dead_code, reason = "it is only held")] Arc<OwnedSemaphorePermit>);

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Doubling pauses up to a second, for errors that concern the whole process, such as no free file descriptor.
struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff(Duration::from_millis(5))
    }
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(Duration::from_secs(1));
        pause
    }
}
