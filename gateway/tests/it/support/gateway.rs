//! A gateway in this process, on a free port.

use std::{net::SocketAddr, sync::Arc};

use gateway::{app::App, config::Settings, edge};
use tokio::net::TcpListener;

use super::{TestDatabase, token::SECRET, wait::wait_for};

pub(crate) struct TestGateway {
    pub(crate) app: Arc<App>,
    pub(crate) address: SocketAddr,
}

impl TestGateway {
    pub(crate) async fn start(database: &TestDatabase) -> TestGateway {
        TestGateway::start_with(database, &[]).await
    }

    /// With settings that differ from the defaults, by their names in the TOML file.
    pub(crate) async fn start_with(
        database: &TestDatabase,
        settings: &[(&str, &str)],
    ) -> TestGateway {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        TestGateway::start_at(address, &database.gateway_url, settings).await
    }

    pub(crate) async fn start_at(
        address: SocketAddr,
        url: &str,
        settings: &[(&str, &str)],
    ) -> TestGateway {
        let own = [
            ("database_url", url),
            ("jwt_secret", SECRET),
            // Most tests stop a gateway to see what comes after.
            ("drain_spread", "0s"),
        ];
        let pairs = own.into_iter().chain(settings.iter().copied());
        let settings = Settings::from_pairs(pairs).expect("valid settings");
        let app = Box::pin(App::start(settings)).await.expect("a gateway");
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(edge::server::run(app.clone(), listener));
        let gateway = TestGateway { app, address };
        // What is committed before the first read is not delivered: no test means to test that by accident.
        wait_for("the feed", || async { gateway.app.feed.ready() }).await;
        gateway
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Stops in good order, as a signal would.
    pub(crate) async fn stop(&self) {
        self.app.lifecycle.stop();
        self.app.lifecycle.finished().await.expect("an orderly end");
    }
}
