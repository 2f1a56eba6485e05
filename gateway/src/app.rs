//! The composition root: builds every room, connects them, and starts what runs by itself.

use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use sqlx::{PgPool, Row};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, watch},
};

use crate::{
    admission::{Admission, Checks},
    auth::Verifier,
    authorizer::Authorizer,
    catalog::{self, Catalog},
    config::Settings,
    connection::Sockets,
    database,
    dispatch::Dispatch,
    feed::{Feed, Health},
    hub::{Before, Hub, columns::ColumnSets, flusher::Flushers},
    lifecycle::{Drain, Lifecycle},
    limits::Limits,
    metrics::names,
    private::Private,
    resume::Resume,
    revocation::Revocation,
    topics::Topics,
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Database(#[from] database::Error),
    #[error("the database cannot be asked for the rights of its login")]
    Rights(#[source] sqlx::Error),
    #[error("the database is not ready for this login:{}", listed(.0))]
    MissingRights(Vec<MissingRight>),
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    #[error("the change log could not be read within {} seconds: the log above says why", FIRST_READ.as_secs())]
    NoFeed,
}

#[derive(Debug)]
pub struct MissingRight {
    pub problem: String,
    /// The SQL or the command that mends it.
    pub mend: String,
}

fn listed(missing: &[MissingRight]) -> String {
    missing
        .iter()
        .map(|right| format!("\n  - {}; mend it with: {}", right.problem, right.mend))
        .collect()
}

pub struct App {
    pub settings: Settings,
    pub verifier: Verifier,
    pub pool: PgPool,
    pub catalog: Arc<Catalog>,
    pub authorizer: Arc<Authorizer>,
    pub admission: Arc<Admission>,
    pub hub: Arc<Hub>,
    pub resume: Arc<Resume>,
    pub(crate) private: Arc<Private>,
    pub topics: Arc<Topics>,
    pub lifecycle: Lifecycle,
    pub feed: Health,
    /// Sockets that are open now.
    pub connections: AtomicUsize,
    pub sockets: Arc<Sockets>,
    pub flushers: Flushers,
    pub limits: Arc<Limits>,
}

/// Batches that may wait between the feed and the hub. What does not fit stays in the log.
const WAITING_BATCHES: usize = 4;
/// How often what is watched is compared with the publication, unless a client asks for it.
const SYNC_INTERVAL: Duration = Duration::from_secs(2);
/// How often quiet subscriptions get a fresh cursor, but at least four times while a change is kept.
const CURSOR_INTERVAL: Duration = Duration::from_secs(600);
const TELL_INTERVAL: Duration = Duration::from_secs(10);
const TRIM_INTERVAL: Duration = Duration::from_secs(5);
/// How often the partitions of `realtime.messages` are looked after. They are made days ahead.
const KEEP_INTERVAL: Duration = Duration::from_secs(600);
const FIRST_READ: Duration = Duration::from_secs(30);
/// A change that is larger is sent without its long values.
const MAX_CHANGE_BYTES: usize = 16 << 20;

impl App {
    /// Connects to the database and starts everything but the HTTP server. Fails if the database lacks what is needed.
    pub async fn start(settings: Settings) -> Result<Arc<App>, Error> {
        let target = database::Target::new(&settings)?;
        let pool = database::pool(&settings)?;
        let catalog_pool = database::catalog_pool(&settings)?;
        // The pool would try until its time is over, and then not say why.
        drop(target.connect().await?);
        check_rights(&pool).await?;
        let lifecycle = Lifecycle::new(Drain {
            delay: settings.drain_delay,
            spread: settings.drain_spread,
            limit: settings.drain,
        });
        crate::metrics::install();
        crate::metrics::spawn_upkeep(&lifecycle);

        let catalog = Arc::new(Catalog::new(catalog_pool.clone(), settings.watch.clone()));
        catalog.sync().await?;
        let authorizer = Arc::new(Authorizer::new(
            catalog_pool.clone(),
            target.clone(),
            settings.authorizer_connections as usize,
            settings.statement_timeout,
            &lifecycle,
        ));
        let hub = Arc::new(Hub::new(
            settings.old_record,
            MAX_CHANGE_BYTES,
            settings.recent_bytes,
        ));
        let flushers = Flushers::new(Handle::current().metrics().num_workers());
        for round in flushers.rounds() {
            // Sockets hear of a stop, so it goes on until the very end.
            let hard = lifecycle.hard().clone();
            lifecycle.spawn_critical("flusher", async move {
                tokio::select! {
                    () = round.run() => {}
                    () = hard.cancelled() => {}
                }
            });
        }
        let health = Health::default();

        let nudge = Arc::new(Notify::new());
        let (batches, dispatched) = mpsc::channel(WAITING_BATCHES);
        // The feed goes on while connections drain: what is committed meanwhile still reaches them.
        let feed = Feed {
            database: target.clone(),
            poll_interval: settings.poll_interval,
            doorbell: settings.doorbell,
            nudge: nudge.clone(),
            health: health.clone(),
            stop: lifecycle.hard().clone(),
        };
        lifecycle.spawn_critical("feed", async move {
            if let Err(error) = feed.run(batches).await {
                tracing::error!(error = &error as &dyn std::error::Error, "the feed ended");
            }
        });
        let hard = lifecycle.hard().clone();
        let admission = Arc::new(Admission {
            catalog: catalog.clone(),
            authorizer: authorizer.clone(),
            pool: catalog_pool.clone(),
            checks: Checks::new(),
            columns: ColumnSets::default(),
        });
        let doubts = Arc::new(Notify::new());
        let replan = Arc::new(Notify::new());
        let revocation = || Revocation {
            admission: admission.clone(),
            hub: hub.clone(),
            doubts: doubts.clone(),
            recheck: settings.recheck_interval,
        };
        let recheck = revocation();
        let no_more = lifecycle.hard().clone();
        lifecycle.spawn_critical("revocation", async move {
            tokio::select! {
                () = recheck.run() => {}
                () = no_more.cancelled() => {}
            }
        });
        let private = Arc::new(Private::new(
            authorizer.clone(),
            hub.clone(),
            pool.clone(),
            settings.statement_timeout,
            settings.outbox_bytes / 2,
        ));
        let limits = Limits::new(&settings, tokio::time::Instant::now());
        let topics = Arc::new(Topics::new(limits.clone()));
        let telling = topics.clone();
        lifecycle.spawn_critical("presence", async move { telling.run().await });
        let dispatch = Dispatch {
            private: private.clone(),
            topics: topics.clone(),
            limits: limits.clone(),
            catalog: catalog.clone(),
            authorizer: authorizer.clone(),
            hub: hub.clone(),
            revocation: revocation(),
            replan: replan.clone(),
            before: Before::new(),
        };
        let dispatch = dispatch.run(dispatched);
        lifecycle.spawn_critical("dispatcher", async move {
            tokio::select! {
                () = dispatch => {}
                () = hard.cancelled() => {}
            }
        });
        let resume = Arc::new(Resume::new(
            catalog.clone(),
            authorizer.clone(),
            hub.clone(),
            nudge,
            pool.clone(),
            target,
            &lifecycle,
        ));
        let maintenance = maintain(
            catalog.clone(),
            authorizer.clone(),
            hub.clone(),
            replan,
            catalog_pool.clone(),
        );
        lifecycle.spawn_critical("maintenance", maintenance);

        // A change that is committed before the feed has its first snapshot would go to nobody, so nobody may join before.
        if tokio::time::timeout(FIRST_READ, health.first_read())
            .await
            .is_err()
        {
            lifecycle.stop_now();
            return Err(Error::NoFeed);
        }

        let verifier = Verifier::new(&settings);
        verifier
            .start(&lifecycle, database::bot_keys::BotKeys::new(pool.clone()))
            .await;

        let sockets = Arc::<Sockets>::default();
        let telling = sockets.clone().tell(
            verifier.changes(),
            catalog.changes(),
            lifecycle.soft().clone(),
        );
        lifecycle.spawn_critical("sockets", telling);

        Ok(Arc::new(App {
            verifier,
            settings,
            pool,
            catalog,
            authorizer,
            admission,
            hub,
            resume,
            private,
            topics,
            lifecycle,
            feed: health,
            connections: AtomicUsize::new(0),
            sockets,
            flushers,
            limits,
        }))
    }
}

async fn check_rights(pool: &PgPool) -> Result<(), Error> {
    let missing = sqlx::raw_sql(include_str!(
        "../../migrations/statements/missing_rights.sql"
    ))
    .fetch_all(pool)
    .await
    .map_err(Error::Rights)?;
    if missing.is_empty() {
        return Ok(());
    }
    let right = |row: &sqlx::postgres::PgRow| MissingRight {
        problem: row.get("problem"),
        mend: row.get("mend"),
    };
    Err(Error::MissingRights(missing.iter().map(right).collect()))
}

/// Keeps what is watched in step with the publication, and the log short.
async fn maintain(
    catalog: Arc<Catalog>,
    authorizer: Arc<Authorizer>,
    hub: Arc<Hub>,
    replan: Arc<Notify>,
    pool: PgPool,
) {
    let mut sync = tokio::time::interval(SYNC_INTERVAL);
    let mut trim = tokio::time::interval(TRIM_INTERVAL);
    let mut keep = tokio::time::interval(KEEP_INTERVAL);
    let mut tell = tokio::time::interval(TELL_INTERVAL);
    let mut told = Instant::now();
    let mut changes = catalog.changes();
    loop {
        tokio::select! {
            _ = sync.tick() => {
                match compare(&catalog, &authorizer, &mut changes).await {
                    Ok(false) => {}
                    Ok(true) => replan.notify_one(),
                    Err(error) => tracing::debug!(
                        error = &*error as &dyn std::error::Error,
                        "the catalog cannot be compared now"
                    ),
                }
                let lighten = sqlx::query("select tidings.lighten_capture()").execute(&pool);
                if let Err(error) = lighten.await {
                    tracing::debug!(error = &error as &dyn std::error::Error, "triggers cannot be replaced by lighter ones now");
                }
            }
            _ = tell.tick() => {
                let kept = sqlx::query_scalar("select extract(epoch from tidings.retention())::double precision");
                let kept = kept.fetch_one(&pool).await.unwrap_or(0.0_f64);
                let interval = CURSOR_INTERVAL.min(Duration::from_secs_f64(kept.max(0.0) / 4.0));
                if told.elapsed() >= interval {
                    hub.tell_cursors();
                    told = Instant::now();
                }
            }
            _ = keep.tick() => {
                let keep = sqlx::query("select tidings.keep_messages()");
                if let Err(error) = keep.execute(&pool).await {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "PartitionCreationFailed: partitions of realtime.messages cannot be made or dropped now"
                    );
                }
            }
            _ = trim.tick() => if let Err(error) = keep_short(&pool).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "the change log cannot be trimmed now");
            },
        }
    }
}

/// Empties what has been in the log for long enough, and tells how large it is.
async fn keep_short(pool: &PgPool) -> Result<(), sqlx::Error> {
    // First, so that an operator sees the log grow when it cannot be trimmed.
    let state = sqlx::query("select * from tidings.log_state()")
        .fetch_one(pool)
        .await?;
    metrics::gauge!(names::LOG_BYTES).set(state.try_get::<i64, _>("bytes")? as f64);
    metrics::gauge!(names::LOG_SLOTS).set(f64::from(state.try_get::<i32, _>("slots")?));
    let oldest: Option<f64> = state.try_get("oldest")?;
    metrics::gauge!(names::LOG_OLDEST).set(oldest.unwrap_or(0.0));

    let slots: i32 = sqlx::query_scalar("select tidings.trim_changes()")
        .fetch_one(pool)
        .await?;
    if slots > 0 {
        metrics::counter!(names::LOG_TRIMS).increment(slots.unsigned_abs().into());
        tracing::debug!(slots, "emptied slots of the change log");
    }
    Ok(())
}

/// Whether tables, columns, policies or rights have changed since the last look. Event triggers tell of most of this at once,
/// where they may be made; of roles and their memberships nothing tells.
async fn compare(
    catalog: &Catalog,
    authorizer: &Authorizer,
    changes: &mut watch::Receiver<()>,
) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    catalog.sync().await?;
    let rights = authorizer.refresh(&catalog.tables()).await?;
    // Also what somebody else has found meanwhile.
    let tables = changes.has_changed().unwrap_or(false);
    changes.mark_unchanged();
    Ok(tables || rights)
}
