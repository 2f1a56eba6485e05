//! PostgreSQL for the tests: one cluster for the whole run, one database for each test.
//!
//! Databases are copies of a template that was migrated once. The cluster is in a static, which is never dropped; the
//! supervisor of `devpg` stops the server and removes its directory when this process ends, however it ends.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

use devpg::Cluster;
use tokio_postgres::{Client, NoTls};

const TEMPLATE: &str = "migrated";

/// The gateways' login: no superuser, and with just the grants that the documentation asks for.
const LOGIN: &str = "tidings_server";

static SHARED: OnceLock<Cluster> = OnceLock::new();

/// A database of this test alone. Whoever connects through it is a superuser: row-level security does not hold for it.
pub(crate) struct TestDatabase {
    pub(crate) url: String,
    /// For the gateway, whose login may do no more than it needs.
    pub(crate) gateway_url: String,
    /// Open for as long as the test.
    pub(crate) client: Client,
}

impl TestDatabase {
    /// A migrated database, with one of the schemas in `tests/schemas` if it is named.
    pub(crate) async fn new(schema: Option<&str>) -> TestDatabase {
        let cluster = tokio::task::spawn_blocking(shared)
            .await
            .expect("a cluster");
        let database =
            TestDatabase::create(cluster.url("postgres"), |name| cluster.url(name)).await;
        if let Some(schema) = schema {
            database.load(schema).await;
        }
        database
    }

    /// One that has never been migrated.
    pub(crate) async fn empty() -> TestDatabase {
        let cluster = tokio::task::spawn_blocking(shared)
            .await
            .expect("a cluster");
        let name = unique("empty");
        execute(
            &cluster.url("postgres"),
            &format!("create database {name} template template0"),
        )
        .await;
        TestDatabase::open(cluster.url(&name)).await
    }

    /// A copy, for which the original has to go.
    pub(crate) async fn copy_of(original: TestDatabase) -> TestDatabase {
        let cluster = tokio::task::spawn_blocking(shared)
            .await
            .expect("a cluster");
        let (_, source) = original.url.rsplit_once('/').expect("a database");
        let name = unique("copy");
        let admin = cluster.url("postgres");
        // A database with sessions is not copied.
        execute(
            &admin,
            &format!("alter database {source} allow_connections false"),
        )
        .await;
        execute(
            &admin,
            &format!("select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '{source}'"),
        )
        .await;
        execute(&admin, &format!("create database {name} template {source}")).await;
        TestDatabase::open(cluster.url(&name)).await
    }

    async fn create(admin: String, url: impl Fn(&str) -> String) -> TestDatabase {
        let name = unique("test");
        execute(
            &admin,
            &format!("create database {name} template {TEMPLATE}"),
        )
        .await;
        TestDatabase::open(url(&name)).await
    }

    async fn open(url: String) -> TestDatabase {
        let client = connect(&url).await;
        let gateway_url = url_as(&url, LOGIN, LOGIN);
        TestDatabase {
            url,
            gateway_url,
            client,
        }
    }

    async fn load(&self, schema: &str) {
        let path = format!("{}/tests/schemas/{schema}.sql", env!("CARGO_MANIFEST_DIR"));
        let sql = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        self.execute(&sql).await;
    }

    /// Another session of the superuser.
    pub(crate) async fn connect(&self) -> Client {
        connect(&self.url).await
    }

    /// The URL for another login.
    pub(crate) fn url_as(&self, login: &str, password: &str) -> String {
        url_as(&self.url, login, password)
    }

    pub(crate) async fn execute(&self, sql: &str) {
        self.client
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{error:?} in: {sql:.200}"));
    }

    /// The first column of the first row, as text.
    pub(crate) async fn text(&self, sql: &str) -> String {
        let row = self
            .client
            .query_one(&format!("select ({sql})::text"), &[])
            .await
            .unwrap_or_else(|error| panic!("{error:?} in: {sql:.200}"));
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }
}

/// A cluster of one test, whose figures others must not touch.
pub(crate) struct OwnCluster {
    url: String,
    _cluster: Cluster,
}

impl OwnCluster {
    pub(crate) async fn start() -> OwnCluster {
        let cluster = tokio::task::spawn_blocking(start).await.expect("a cluster");
        OwnCluster {
            url: cluster.url(TEMPLATE),
            _cluster: cluster,
        }
    }

    /// Its only database, with a schema of `tests/schemas`.
    pub(crate) async fn database(&self, schema: &str) -> TestDatabase {
        let database = TestDatabase::open(self.url.clone()).await;
        database.load(schema).await;
        database
    }
}

pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .unwrap_or_else(|error| panic!("a connection to the test's database: {error:?}"));
    // It ends with the client, or with the server that a test stops: whoever uses the client hears of that.
    tokio::spawn(connection);
    client
}

fn url_as(url: &str, login: &str, password: &str) -> String {
    let (_, host) = url.split_once('@').expect("a URL with a login");
    format!("postgres://{login}:{password}@{host}")
}

async fn execute(url: &str, sql: &str) {
    let client = connect(url).await;
    client
        .batch_execute(sql)
        .await
        .unwrap_or_else(|error| panic!("{error:?} in: {sql}"));
}

fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{prefix}_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn shared() -> &'static Cluster {
    SHARED.get_or_init(start)
}

/// A cluster with a migrated database.
fn start() -> Cluster {
    let cache = std::env::temp_dir().join("tidings-devpg-tests");
    let installation = devpg::find_or_fetch(None, &cache, &mut |_| {}).expect("PostgreSQL");
    let settings = vec![("max_connections".to_owned(), "400".to_owned())];
    let cluster = Cluster::start_temporary(&installation, settings).expect("a cluster");
    let (admin, url) = (cluster.url("postgres"), cluster.url(TEMPLATE));
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async {
            execute(&admin, &format!("create database {TEMPLATE}")).await;
            gateway::cli::migrate::run(&url)
                .await
                .expect("the migrations");
            let roles = "anon, authenticated, service_role, tidings_gateway";
            let login =
                format!("create role {LOGIN} login password '{LOGIN}'; grant {roles} to {LOGIN}");
            execute(&admin, &login).await;
        });
    cluster
}
