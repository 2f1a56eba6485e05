//! `log`: does the change log stay small for as long as it is written? Writers at full speed, a retention of one minute, a
//! gateway that reads and trims, and nobody who waits for that.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::types::{Json, ToSql};
use tokio_postgres::{Client, Config};
use uuid::Uuid;

use crate::database;
use crate::frame::{Label, text};
use crate::own::{OwnCluster, OwnServer, get};
use crate::report::Report;

#[derive(Args, Debug)]
pub(crate) struct LogArgs {
    #[arg(long, default_value_t = 5)]
    minutes: u64,

    /// Connections that insert at once.
    #[arg(long, default_value_t = 8)]
    connections: usize,

    /// Length of a message's text.
    #[arg(long, default_value_t = 300)]
    size: usize,

    /// The directory of PostgreSQL's programs, if it is not found by itself.
    #[arg(long, env = "TIDINGS_POSTGRES_BIN")]
    postgres: Option<PathBuf>,

    /// Also write the report to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

const DATABASE: &str = "log";
const SESSIONS: usize = 64;
const INTERVAL: Duration = Duration::from_secs(10);
/// Between two reads like those of the gateway.
const READ_PAUSE: Duration = Duration::from_millis(20);
/// The table must not fill the disk. Its growth is not what is measured.
const CLEAR: &str = "truncate public.chat_messages";
const CLEAR_EVERY: u32 = 6;
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// When the log has its full length: the retention and the slot that it ends in, and the pauses of whoever trims.
const FILLED: Duration = Duration::from_secs(90);
/// The retention of 60 s, the slot of 10 s that it ends in, two marks or attempts at trimming, which are 5 s apart; and as much
/// again as a slot, for one that was in use.
const KEPT_SECONDS: f64 = 60.0 + 10.0 + 10.0 + 10.0;

const STATE: &str = "
    select s.bytes, s.slots, coalesce(s.oldest, 0), h.emptied::text,
           (select sum(pg_indexes_size(p.relid))::bigint from pg_partition_tree('tidings.changes') p where p.isleaf),
           (select sum(t.n_dead_tup)::bigint from pg_stat_all_tables t
             where t.schemaname = 'tidings' and t.relname like 'changes%'),
           (select sum(t.autovacuum_count)::bigint from pg_stat_all_tables t
             where t.schemaname = 'tidings' and t.relname like 'changes%'),
           pg_relation_size('pg_class') + pg_indexes_size('pg_class')
      from tidings.log_state() s, tidings.horizon h";

/// Every ten seconds.
#[derive(Clone, Debug, Serialize)]
struct Sample {
    seconds: u64,
    inserts_per_second: f64,
    log_bytes: i64,
    index_bytes: i64,
    slots: i32,
    oldest_seconds: f64,
    dead_rows: i64,
    autovacuums: i64,
    pg_class_bytes: i64,
    trims: u64,
    slowest_insert_ms: f64,
    slowest_read_ms: f64,
    /// Of the gateway, since its start: batches, and how many of them were older than 250 ms.
    batches: u64,
    late_batches: u64,
}

#[derive(Default)]
struct Meters {
    inserts: AtomicU64,
    slowest_insert_us: AtomicU64,
    slowest_read_us: AtomicU64,
}

pub(crate) async fn run(args: LogArgs) -> anyhow::Result<bool> {
    ensure!(
        args.minutes >= 2,
        "--minutes must be at least 2: it takes 90 seconds until the log has its full length"
    );
    ensure!(
        (1..=80).contains(&args.connections),
        "--connections must be from 1 to 80"
    );
    let cluster = OwnCluster::start(args.postgres.clone()).await?;
    let result = Box::pin(measure(&args, &cluster)).await;
    let stopped = cluster.stop().await;
    let passed = result?;
    stopped?;
    Ok(passed)
}

async fn measure(args: &LogArgs, cluster: &OwnCluster) -> anyhow::Result<bool> {
    cluster.prepare(DATABASE).await?;
    let config = database::config(&cluster.url(DATABASE))?;
    let admin = database::connect(&config).await?;
    // What has been noted until now is in a slot of another ring, where it would stay for longer.
    admin
        .batch_execute("select tidings.set_retention('1 minute'); truncate tidings.changes")
        .await?;
    let sessions: Arc<[Uuid]> = database::add_sessions(&admin, 0, SESSIONS).await?.into();
    let mut server = cluster.serve(DATABASE).await?;

    let meters = Arc::new(Meters::default());
    let content: Arc<str> = text(args.size).into();
    // They end with this set.
    let mut workers = JoinSet::new();
    for worker in 0..args.connections {
        let client = database::connect(&config).await?;
        workers.spawn(write(
            client,
            worker,
            sessions.clone(),
            content.clone(),
            meters.clone(),
        ));
    }
    workers.spawn(read(config.clone(), meters.clone()));

    let mut report = Report::new(
        "log",
        json!({
            "postgres": cluster.version(), "minutes": args.minutes, "connections": args.connections, "size": args.size,
        }),
    );
    print!("{}", report.heading());
    println!("{}", heading());
    let begun = Instant::now();
    let mut samples: Vec<Sample> = Vec::new();
    let mut last = begun;
    let mut rounds = 0;
    while begun.elapsed() < Duration::from_secs(args.minutes * 60) {
        tokio::select! {
            () = sleep(INTERVAL) => {}
            Some(ended) = workers.join_next() => {
                ended??;
            }
        }
        rounds += 1;
        let taken = sample(&admin, &server, &meters, begun, last).await?;
        last = Instant::now();
        println!("{}", line(&taken));
        samples.push(taken);
        if rounds % CLEAR_EVERY == 0 {
            admin.batch_execute(CLEAR).await?;
        }
    }
    workers.shutdown().await;
    server.stop().await;

    let complaints = judge(&samples);
    for complaint in &complaints {
        println!("FAILED: {complaint}");
    }
    report.results = json!({"samples": samples, "complaints": complaints});
    report.passed = complaints.is_empty();
    if let Some(path) = &args.json {
        report.write(path)?;
    }
    Ok(report.passed)
}

async fn write(
    client: Client,
    worker: usize,
    sessions: Arc<[Uuid]>,
    content: Arc<str>,
    meters: Arc<Meters>,
) -> anyhow::Result<()> {
    let statement = client
        .prepare(
            "insert into public.chat_messages (session_id, content, metadata) values ($1, $2, $3)",
        )
        .await?;
    let mut number = 0;
    loop {
        let session = (number as usize + worker * 7) % sessions.len();
        number += 1;
        let label = Label {
            run: 0,
            writer: worker,
            job: number,
            number,
        };
        let values: [&(dyn ToSql + Sync); 3] = [&sessions[session], &&*content, &Json(label)];
        let begun = Instant::now();
        timeout(ANSWER_LIMIT, client.execute(&statement, &values))
            .await
            .context("an insert got no answer")??;
        meters
            .slowest_insert_us
            .fetch_max(micros(begun), Ordering::Relaxed);
        meters.inserts.fetch_add(1, Ordering::Relaxed);
    }
}

/// Reads what is new, as a gateway does that is always up to date.
async fn read(config: Config, meters: Arc<Meters>) -> anyhow::Result<()> {
    let client = database::connect(&config).await?;
    client
        .batch_execute(
            "set enable_seqscan = off; set jit = off; set plan_cache_mode = force_generic_plan",
        )
        .await?;
    let present = client.prepare("select pg_current_snapshot()::text").await?;
    let news = client
        .prepare("select count(*) from tidings.read($1::text::pg_snapshot)")
        .await?;
    loop {
        let since: String = client.query_one(&present, &[]).await?.get(0);
        sleep(READ_PAUSE).await;
        let begun = Instant::now();
        timeout(ANSWER_LIMIT, client.query_one(&news, &[&since]))
            .await
            .context("a read of the log got no answer")??;
        meters
            .slowest_read_us
            .fetch_max(micros(begun), Ordering::Relaxed);
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

async fn sample(
    admin: &Client,
    server: &OwnServer,
    meters: &Meters,
    begun: Instant,
    last: Instant,
) -> anyhow::Result<Sample> {
    let inserts = meters.inserts.swap(0, Ordering::Relaxed);
    let seconds = last.elapsed().as_secs_f64();
    let slowest = |meter: &AtomicU64| meter.swap(0, Ordering::Relaxed) as f64 / 1e3;
    let (slowest_insert_ms, slowest_read_ms) = (
        slowest(&meters.slowest_insert_us),
        slowest(&meters.slowest_read_us),
    );
    let page = get(server.address(), "/metrics").await?;
    let page = String::from_utf8_lossy(&page);
    let series = |name: &str| -> u64 {
        let value = page.lines().find_map(|line| line.strip_prefix(name));
        value
            .and_then(|value| value.trim().parse().ok())
            .unwrap_or(0)
    };
    let batches = series("tidings_feed_lag_seconds_count ");
    let in_time = series("tidings_feed_lag_seconds_bucket{le=\"0.25\"} ");
    let row = timeout(ANSWER_LIMIT, admin.query_one(STATE, &[]))
        .await
        .context("the log's state is not known in time")??;
    Ok(Sample {
        seconds: begun.elapsed().as_secs(),
        inserts_per_second: inserts as f64 / seconds,
        log_bytes: row.get(0),
        index_bytes: row.get(4),
        slots: row.get(1),
        oldest_seconds: row.get(2),
        dead_rows: row.get(5),
        autovacuums: row.get(6),
        pg_class_bytes: row.get(7),
        trims: series("tidings_log_trims_total "),
        slowest_insert_ms,
        slowest_read_ms,
        batches,
        late_batches: batches.saturating_sub(in_time),
    })
}

/// What is wrong with the log.
fn judge(samples: &[Sample]) -> Vec<String> {
    let full: Vec<&Sample> = samples
        .iter()
        .filter(|sample| sample.seconds >= FILLED.as_secs())
        .collect();
    let mut complaints = Vec::new();
    for sample in &full {
        if sample.oldest_seconds > KEPT_SECONDS {
            complaints.push(format!(
                "after {} s the log goes back {:.0} s",
                sample.seconds, sample.oldest_seconds
            ));
        }
    }
    let (early, late) = full.split_at(full.len() / 2);
    let most = |samples: &[&Sample]| samples.iter().map(|sample| sample.log_bytes).max();
    // The writers' speed changes with the machine's load, and the log's size with it.
    if most(late).unwrap_or(0) > 2 * most(early).unwrap_or(0) {
        complaints.push("the log grows".to_owned());
    }
    if full.last().is_none_or(|sample| sample.trims == 0) {
        complaints.push("no slot was emptied".to_owned());
    }
    complaints
}

fn heading() -> String {
    let mut line = String::new();
    for (title, width) in COLUMNS {
        // Writing to a string does not fail.
        let _ = write!(line, "{title:>width$}");
    }
    line
}

const COLUMNS: [(&str, usize); 13] = [
    ("s", 5),
    ("inserts/s", 11),
    ("log MB", 8),
    ("index MB", 10),
    ("slots", 7),
    ("oldest s", 10),
    ("dead", 7),
    ("vacuums", 9),
    ("pg_class kB", 13),
    ("trims", 7),
    ("insert ms", 11),
    ("read ms", 9),
    ("late", 9),
];

fn line(sample: &Sample) -> String {
    let megabytes = |bytes: i64| format!("{:.1}", bytes as f64 / 1e6);
    let values = [
        sample.seconds.to_string(),
        format!("{:.0}", sample.inserts_per_second),
        megabytes(sample.log_bytes),
        megabytes(sample.index_bytes),
        sample.slots.to_string(),
        format!("{:.0}", sample.oldest_seconds),
        sample.dead_rows.to_string(),
        sample.autovacuums.to_string(),
        (sample.pg_class_bytes / 1000).to_string(),
        sample.trims.to_string(),
        format!("{:.0}", sample.slowest_insert_ms),
        format!("{:.0}", sample.slowest_read_ms),
        format!("{}/{}", sample.late_batches, sample.batches),
    ];
    let mut line = String::new();
    for (value, (_, width)) in values.iter().zip(COLUMNS) {
        let _ = write!(line, "{value:>width$}");
    }
    line
}
