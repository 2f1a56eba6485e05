//! `tidings serve`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::net::{TcpListener, TcpSocket};

use crate::app::App;
use crate::config::{Flags, Settings, Sources};
use crate::{edge, telemetry};

use super::Error;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Print the settings in effect, without secrets, and stop
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    flags: Flags,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Error> {
    let sources = Sources::from_process(arguments.flags)?;
    let settings = sources.load(&["database_url", "jwt_secret"])?;
    if arguments.print_config {
        print!("{}", sources.print());
        return Ok(());
    }
    telemetry::start(&settings.log, settings.log_format);
    super::block_on(Box::pin(serve(settings)))
}

async fn serve(settings: Settings) -> Result<(), Error> {
    let listener = listen(settings.listen)?;
    let app = App::start(settings).await?;
    let address = local_address(&listener);
    start(&app, listener, edge::router(app.clone()))?;
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "listening");
    app.lifecycle.finished().await?;
    Ok(())
}

/// Connections whose handshake the kernel has done and that have not been accepted yet. The default of 128 is full when clients
/// come back together, and whoever finds it full tries again after a whole second.
const BACKLOG: u32 = 4096;

pub(super) fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    bind(address).map_err(|source| Error::Listen { address, source })
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // As the standard library does: a gateway that is started anew takes the address of the one before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves requests and hears signals from now on, until the lifecycle ends.
pub(super) fn start(app: &Arc<App>, listener: TcpListener, router: Router) -> Result<(), Error> {
    app.lifecycle.listen_for_signals().map_err(Error::Signals)?;
    let server = edge::server::serve(app.clone(), listener, router);
    app.lifecycle.spawn_critical("listener", server);
    Ok(())
}

pub(super) fn local_address(listener: &TcpListener) -> SocketAddr {
    // Of a socket that is bound, the kernel knows the address.
    listener
        .local_addr()
        .unwrap_or_else(|_| ([0, 0, 0, 0], 0).into())
}
