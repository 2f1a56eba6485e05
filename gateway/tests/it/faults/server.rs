//! A PostgreSQL of a test's own, to be stopped, killed and replaced: a copy of one that was migrated once, which is a matter
//! of a second.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use devpg::Cluster;
use tokio_postgres::Client;

use crate::support::{cluster::connect, process::signal};

const DATABASE: &str = "chat";
const LOGIN: &str = "tidings_server";

/// Everybody's model, for as long as somebody uses a copy of it: nothing is left when the last test is over.
static MODEL: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

pub(super) struct Server {
    cluster: Arc<Mutex<Cluster>>,
    url: String,
    address: SocketAddr,
    _model: Arc<Cluster>,
}

impl Server {
    pub(super) async fn start() -> Server {
        Server::start_with(&[]).await
    }

    /// With settings of PostgreSQL.
    pub(super) async fn start_with(settings: &[(&str, &str)]) -> Server {
        let settings = owned(settings);
        blocking(move || {
            let model = model();
            let cluster = model.copy(settings).expect("a copy");
            Server::of(cluster, model)
        })
        .await
    }

    fn of(cluster: Cluster, model: Arc<Cluster>) -> Server {
        Server {
            url: cluster.url(DATABASE),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, cluster.port())),
            cluster: Arc::new(Mutex::new(cluster)),
            _model: model,
        }
    }

    /// A standby that follows this server. This one is stopped and started for it.
    pub(super) async fn standby(&self, settings: &[(&str, &str)]) -> Server {
        let (settings, model) = (owned(settings), self._model.clone());
        self.with(move |cluster| {
            cluster.stop().expect("the server stops");
            let standby = cluster.standby(settings).expect("a standby");
            cluster.start_again().expect("the server starts");
            Server::of(standby, model)
        })
        .await
    }

    /// As a superuser.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// For the gateway, whose login may do no more than it needs.
    pub(super) fn gateway_url(&self) -> String {
        gateway_url(self.address)
    }

    /// A session of the superuser.
    pub(super) async fn session(&self) -> Client {
        connect(&self.url).await
    }

    /// Statements in a session of their own.
    pub(super) async fn run(&self, statements: &str) {
        let ran = self.session().await.batch_execute(statements).await;
        ran.unwrap_or_else(|error| panic!("{error:?} in: {statements}"));
    }

    /// Puts a copy of the database into its place: what a restored dump is to the gateway. Nobody may be connected.
    pub(super) async fn replace_by_copy(&self) {
        let admin = self.with(|cluster| cluster.url("postgres")).await;
        let admin = connect(&admin).await;
        for statement in [
            format!(
                "select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = '{DATABASE}'"
            ),
            format!("alter database {DATABASE} rename to original"),
            format!("create database {DATABASE} template original"),
        ] {
            admin.batch_execute(&statement).await.expect(&statement);
        }
    }

    /// The first column of the first row, as text.
    pub(super) async fn text(&self, statement: &str) -> String {
        let statement = format!("select ({statement})::text");
        let row = self.session().await.query_one(&statement, &[]).await;
        let text: Option<String> = row.expect("a row").get(0);
        text.unwrap_or_default()
    }

    /// Changes a setting while it runs.
    pub(super) async fn set(&self, name: &str, value: &str) {
        self.run(&format!("alter system set {name} = '{value}'"))
            .await;
        self.run("select pg_reload_conf()").await;
    }

    /// A standby becomes a server of its own.
    pub(super) async fn promote(&self) {
        assert_eq!(self.text("pg_promote()").await, "true");
    }

    /// Makes the rows of every database independent of the numbers of the transactions that wrote them.
    pub(super) async fn freeze(&self) {
        let admin = self.with(|cluster| cluster.url("postgres")).await;
        let allow = "update pg_database set datallowconn = true";
        connect(&admin)
            .await
            .batch_execute(allow)
            .await
            .expect("the permission");
        for database in ["template0", "template1", "postgres", DATABASE] {
            let url = self.with(move |cluster| cluster.url(database)).await;
            connect(&url)
                .await
                .batch_execute("vacuum freeze")
                .await
                .expect("a vacuum");
        }
    }

    /// Sessions end, the data is written.
    pub(super) async fn stop(&self) {
        self.with(|cluster| cluster.stop().expect("the server stops"))
            .await;
    }

    pub(super) async fn stop_immediately(&self) {
        self.with(|cluster| cluster.stop_immediately().expect("the server stops"))
            .await;
    }

    /// `kill -9` for all its processes.
    pub(super) async fn kill(&self) {
        self.with(|cluster| cluster.kill().expect("the server is gone"))
            .await;
    }

    /// `kill -9` for one of its processes, which is enough to end all sessions.
    pub(super) async fn kill_a_session(&self) {
        let session = self.session().await;
        let row = session.query_one("select pg_backend_pid()", &[]).await;
        let pid = row.expect("a process").get::<_, i32>(0).unsigned_abs();
        signal(pid, "KILL").await;
    }

    pub(super) async fn start_again(&self) {
        self.with(|cluster| cluster.start_again().expect("the server starts"))
            .await;
    }

    /// Work on the cluster itself.
    pub(super) async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Cluster) -> T + Send + 'static,
    ) -> T {
        let cluster = self.cluster.clone();
        blocking(move || work(&mut locked(&cluster))).await
    }
}

/// The gateway's way to the database at an address, which may be a proxy's.
pub(super) fn gateway_url(address: SocketAddr) -> String {
    format!("postgres://{LOGIN}:{LOGIN}@{address}/{DATABASE}")
}

fn owned(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    settings.iter().map(owned).collect()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work)
        .await
        .expect("the work on a cluster")
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn model() -> Arc<Cluster> {
    // Whoever comes meanwhile waits for it.
    let mut known = locked(&MODEL);
    if let Some(model) = known.upgrade() {
        return model;
    }
    let model = Arc::new(make_model());
    *known = Arc::downgrade(&model);
    model
}

/// A stopped cluster with the schema of a chat, and the truth beside it.
fn make_model() -> Cluster {
    let cache = std::env::temp_dir().join("tidings-devpg-tests");
    let installation = devpg::find_or_fetch(None, &cache, &mut |_| {}).expect("PostgreSQL");
    let settings = owned(&[
        ("max_connections", "100"),
        ("max_prepared_transactions", "10"),
        ("shared_buffers", "32MB"),
        ("wal_keep_size", "1GB"),
    ]);
    let mut cluster = Cluster::start_temporary(&installation, settings).expect("a cluster");
    let (admin, url) = (cluster.url("postgres"), cluster.url(DATABASE));
    let chat = format!(
        "{}/tests/schemas/chattwelve.sql",
        env!("CARGO_MANIFEST_DIR")
    );
    let chat = std::fs::read_to_string(&chat).expect("the schema");
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async {
            let run = async |url: &str, sql: &str| {
                let client = connect(url).await;
                client.batch_execute(sql).await.expect("the statements");
            };
            run(&admin, &format!("create database {DATABASE}")).await;
            gateway::cli::migrate::run(&url)
                .await
                .expect("the migrations");
            run(&url, &chat).await;
            // A gateway would do it when it first comes, but not while somebody writes.
            run(&url, "select tidings.watch('public.chat_messages')").await;
            // What was committed is told by a table that is nobody's but the test's.
            run(&url, "create table truth (writer integer, number integer, session uuid, primary key (writer, number))").await;
            let roles = "anon, authenticated, service_role, tidings_gateway";
            let login = format!("create role {LOGIN} login password '{LOGIN}'; grant {roles} to {LOGIN}");
            run(&url, &login).await;
        });
    cluster.stop().expect("the model stops");
    cluster
}
