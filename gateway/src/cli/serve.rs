//! `tidings serve`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;

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
    let listener = listen(settings.listen).await?;
    let app = App::start(settings).await?;
    let address = local_address(&listener);
    start(&app, listener, edge::router(app.clone()))?;
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "listening");
    app.lifecycle.finished().await?;
    Ok(())
}

pub(super) async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address, source })
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
