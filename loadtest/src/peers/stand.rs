//! One contestant, started: its database, its server, and what a reader says to it.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, bail};
use jsonwebtoken::EncodingKey;
use protocol::Version;
use tokio::net::TcpListener;
use tokio_postgres::Config;
use uuid::Uuid;

use super::catalog::{Peer, Speaks};
use super::program::Program;
use crate::crowd::dialect::Dialect;
use crate::crowd::dialect::centrifuge::Centrifuge;
use crate::crowd::dialect::plain::Plain;
use crate::crowd::dialect::socketio::SocketIo;
use crate::crowd::dialect::supabase::Supabase;
use crate::database;
use crate::fanout::host::Host;
use crate::own::{OwnCluster, OwnServer};
use crate::target::sign;
use crate::usage::{self, Reading};

/// Where the SDKs expect the socket of Tidings.
const PATH: &str = "/realtime/v1/websocket";

pub(super) struct Stand {
    name: &'static str,
    authority: String,
    database: Config,
    postgres: Option<u32>,
    server: Server,
}

enum Server {
    Tidings { server: OwnServer, key: EncodingKey },
    Peer { program: Program, speaks: Speaks },
}

impl Stand {
    pub(super) async fn tidings(cluster: &OwnCluster) -> anyhow::Result<Self> {
        let name = "tidings";
        cluster.prepare(name).await?;
        let server = cluster.serve(name).await?;
        let key = EncodingKey::from_secret(server.secret().as_bytes());
        Ok(Self {
            name,
            authority: server.address().to_string(),
            database: database::config(&cluster.url(name))?,
            postgres: cluster.pid(),
            server: Server::Tidings { server, key },
        })
    }

    pub(super) async fn peer(peer: &Peer, cluster: &OwnCluster) -> anyhow::Result<Self> {
        let name = peer.database();
        cluster.prepare(&name).await?;
        let url = cluster.url(&name);
        let database = database::config(&url)?;
        let admin = database::connect(&database).await?;
        for script in peer.scripts {
            admin
                .batch_execute(script)
                .await
                .with_context(|| format!("cannot prepare the database of {}", peer.name))?;
        }
        let address = free_address().await?;
        let mut program = Program::start(peer.name, address, &url, cluster.dir())?;
        program.wait_until_ready(peer.ready).await?;
        Ok(Self {
            name: peer.name,
            authority: address.to_string(),
            database,
            postgres: cluster.pid(),
            server: Server::Peer {
                program,
                speaks: peer.speaks,
            },
        })
    }

    /// An error if its process has ended by itself.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        match &mut self.server {
            Server::Tidings { server, .. } => match server.ended()? {
                Some(status) => bail!("it has ended with {status}"),
                None => Ok(()),
            },
            Server::Peer { program, .. } => program.check(),
        }
    }

    pub(super) async fn stop(self) {
        match self.server {
            Server::Tidings { mut server, .. } => server.stop().await,
            Server::Peer { program, .. } => program.stop().await,
        }
    }
}

impl Host for Stand {
    fn name(&self) -> &str {
        self.name
    }

    fn authority(&self) -> &str {
        &self.authority
    }

    fn dialect(&self, session: Uuid) -> anyhow::Result<Box<dyn Dialect>> {
        let name = session.to_string();
        Ok(match &self.server {
            Server::Tidings { key, .. } => {
                let token = sign(key, &database::owner(session))?;
                Box::new(Supabase::new(Version::V2, PATH, &name, &token))
            }
            Server::Peer { speaks, .. } => match speaks {
                Speaks::Plain => Box::new(Plain::new(format!("/?session={name}"))),
                Speaks::SocketIo => Box::new(SocketIo::new(&name)),
                Speaks::Centrifuge => Box::new(Centrifuge::new(&name)),
            },
        })
    }

    fn database(&self) -> &Config {
        &self.database
    }

    fn server_usage(&self) -> Option<Reading> {
        usage::of_process(match &self.server {
            Server::Tidings { server, .. } => server.pid()?,
            Server::Peer { program, .. } => program.pid()?,
        })
    }

    fn postgres_usage(&self) -> Option<Reading> {
        usage::of_tree(self.postgres?)
    }
}

/// Free at this moment. That another process takes it before the server does is not likely.
async fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    Ok(listener.local_addr()?)
}
