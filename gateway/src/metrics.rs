//! The name of every metric, with what it counts and what it does not.
//!
//! `docs/metrics.md` holds the same list. Labels have few values: never a topic, a user or a session.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::lifecycle::Lifecycle;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static str,
    pub help: &'static str,
}

macro_rules! metrics {
    ($($kind:ident $constant:ident = $name:literal [$labels:literal] $help:literal;)*) => {
        pub mod names {
            $(#[doc = $help] pub const $constant: &str = $name;)*
        }

        pub static ALL: &[Metric] = &[
            $(Metric { name: $name, kind: Kind::$kind, labels: $labels, help: $help },)*
        ];
    };
}

metrics! {
    Gauge CONNECTIONS = "tidings_connections" [""]
        "Sockets that are open now.";
    Gauge STOPPING = "tidings_stopping" [""]
        "1 from the moment at which a stop begins.";
    Gauge CHANNELS = "tidings_channels" [""]
        "Channels that are joined now, over all sockets.";
    Counter CONNECTIONS_OPENED = "tidings_connections_opened_total" [""]
        "Sockets opened. Refused ones are not counted here.";
    Counter CONNECTIONS_REFUSED = "tidings_connections_refused_total" ["reason"]
        "Sockets refused at the handshake, by reason.";
    Counter CONNECTIONS_CLOSED = "tidings_connections_closed_total" ["reason"]
        "Sockets that ended, by who or what ended them.";
    Counter JOINS = "tidings_joins_total" ["result"]
        "Answers to phx_join, by result.";
    Counter LIMITS_HIT = "tidings_limits_hit_total" ["limit"]
        "Joins, messages, requests and sockets refused because a limit was hit, by the setting that has it.";
    Counter FRAMES_OUT = "tidings_frames_out_total" [""]
        "Frames written to sockets.";
    Counter BYTES_OUT = "tidings_bytes_out_total" [""]
        "Bytes of frames written to sockets, without the headers of the websocket protocol.";
    Counter MALFORMED = "tidings_malformed_messages_total" ["kind"]
        "Messages of clients that were dropped because they could not be understood, by what was wrong.";
    Counter FRAMES_DISCARDED = "tidings_frames_discarded_total" [""]
        "Frames that waited for a slow reader when it was closed, and were never written.";
    Counter SLOW_READERS = "tidings_slow_readers_total" [""]
        "Sockets closed because their client read too slowly: too much was waiting for it, or a write made no progress.";
    Counter CHANGES_READ = "tidings_changes_read_total" [""]
        "Changes read from the log.";
    Counter CHANGE_BATCHES = "tidings_change_batches_total" [""]
        "Reads of the log that brought at least one change.";
    Histogram FEED_LAG = "tidings_feed_lag_seconds" [""]
        "From the time that a change carries to its arrival in this process, once for each batch, for its newest change.";
    Counter FEED_LOSSES = "tidings_feed_losses_total" ["reason"]
        "How often changes may have been lost, by reason: another database than before (foreign), one that has gone back (rewound), a log that was emptied unread (truncated).";
    Counter FEED_RECONNECTS = "tidings_feed_reconnects_total" [""]
        "How often the feed had to connect to the database again.";
    Counter RESUMES = "tidings_resumes_total" ["from"]
        "Subscriptions that began in the past: what they missed was in memory, or partly in the log, or they began with rows of the table (history).";
    Counter RESUMES_REFUSED = "tidings_resumes_refused_total" ["reason"]
        "Joins refused because they could not go on from where they wanted to.";
    Counter REPLAYED = "tidings_replayed_changes_total" [""]
        "Changes given to subscriptions that had missed them.";
    Counter LOG_PASSES = "tidings_log_passes_total" [""]
        "How often the log was read again for those who had been away for longer than memory reaches. Clients that come back together share this.";
    Gauge LOG_BYTES = "tidings_log_bytes" [""]
        "Size of the change log on disk, with its indexes.";
    Gauge LOG_SLOTS = "tidings_log_slots" [""]
        "Slots of the change log that are in use, of ten.";
    Gauge LOG_OLDEST = "tidings_log_oldest_seconds" [""]
        "Age of the oldest change in the log, by the clock of the database; 0 if the log is empty.";
    Counter LOG_TRIMS = "tidings_log_trims_total" [""]
        "Slots of the change log that this process has emptied.";
    Counter FEED_POLLS = "tidings_feed_polls_total" [""]
        "Reads of the log that nothing had announced.";
    Gauge DOORBELL_QUIET = "tidings_doorbell_quiet" [""]
        "1 while the doorbell is silenced and the log is polled, 0 while commits announce themselves.";
    Counter DOORBELL_SWITCHES = "tidings_doorbell_switches_total" ["to"]
        "How often the feed went over to ringing, polling, quiet or lingering.";
    Counter DOORBELL_FAILURES = "tidings_doorbell_failures_total" [""]
        "How often the connection that silences the doorbell could not be made, or broke.";
    Gauge GROUPS = "tidings_groups" [""]
        "Groups of subscriptions that get the same frames.";
    Counter DELIVERIES = "tidings_deliveries_total" [""]
        "Changes handed to subscriptions: one change to a hundred subscriptions counts a hundred.";
    Counter DELIVERY_PAUSES = "tidings_delivery_pauses_total" [""]
        "How often delivery waited until this process had written what it had handed out. No client is ever waited for.";
    Counter VERDICT_QUERIES = "tidings_verdict_queries_total" [""]
        "Round trips to the database that asked who may see what.";
    Counter VERDICT_ERRORS = "tidings_verdict_errors_total" ["sqlstate"]
        "Verdicts that the database could not give, by PostgreSQL's error code; they count as no.";
    Counter VERDICT_RETRIES = "tidings_verdict_retries_total" [""]
        "How often the verdicts of a batch were asked again because the database could not be reached.";
    Counter BROADCASTS = "tidings_broadcasts_total" ["source"]
        "Broadcasts accepted, by where they came from.";
    Counter BROADCASTS_OUT = "tidings_broadcasts_out_total" [""]
        "Broadcasts handed to channels: one broadcast to a hundred channels counts a hundred.";
    Counter PRESENCE_OUT = "tidings_presence_out_total" [""]
        "Presence states and diffs handed to channels. Many changes in a short time come in one diff.";
    Counter REVOCATIONS = "tidings_revocations_total" [""]
        "Subscriptions ended because access was taken away; equal ones of one principal count once.";
    Counter REPLANS = "tidings_replans_total" [""]
        "How often policies, grants, functions or columns changed, and every subscription was admitted anew.";
    Counter POSTS = "tidings_posts_total" ["result"]
        "Inserts over HTTP, by result. One request counts once, however many rows it brings.";
    Counter JWKS_FETCHES = "tidings_jwks_fetches_total" ["result"]
        "Key sets fetched from issuers, or not, by result.";
    Counter BOT_KEY_FAILURES = "tidings_bot_key_failures_total" [""]
        "How often the keys of bots could not be read from the database. Those that are known stay good.";
    Counter HTTP_REQUESTS = "tidings_http_requests_total" ["route, status"]
        "HTTP requests answered, by route and status. A handshake that became a socket has status 101.";
}

/// Makes this process keep metrics, and gives what renders them. All gateways of one process share the recorder, because
/// the counting macros know of only one.
pub fn install() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new();
        let recorder = builder
            .set_buckets_for_metric(
                Matcher::Full(names::FEED_LAG.to_owned()),
                // From half a millisecond, where a good day is, to where somebody is woken up.
                &[
                    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
                    60.0,
                ],
            )
            // Only an empty list of buckets is refused.
            .unwrap_or_default()
            .build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!(
                "another part of this process keeps the metrics: /metrics will be empty"
            );
        }
        for metric in ALL {
            match metric.kind {
                Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
                Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
                Kind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
            }
        }
        handle
    })
}

/// Folds recorded samples into their buckets from time to time; they would pile up where nobody asks for `/metrics`.
pub fn spawn_upkeep(lifecycle: &Lifecycle) {
    lifecycle.spawn_background(async {
        let mut tick = tokio::time::interval(Duration::from_secs(5));
        loop {
            tick.tick().await;
            install().run_upkeep();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_docs_agrees() {
        let page = include_str!("../../docs/metrics.md");
        let table = markdown();
        assert!(
            page.contains(&table),
            "docs/metrics.md should contain this table:\n{table}"
        );
    }

    fn markdown() -> String {
        let mut table = String::from("| Metric | Kind | Labels | Meaning |\n|---|---|---|---|\n");
        for metric in ALL {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let labels = match metric.labels.is_empty() {
                true => "none".to_owned(),
                false => metric
                    .labels
                    .split(", ")
                    .map(|label| format!("`{label}`"))
                    .collect::<Vec<_>>()
                    .join(", "),
            };
            table.push_str(&format!(
                "| `{}` | {kind} | {labels} | {} |\n",
                metric.name, metric.help
            ));
        }
        table
    }

    #[test]
    fn it_can_be_installed_twice_and_renders() {
        install();
        metrics::counter!(names::POSTS, "result" => "stored").increment(1);
        metrics::histogram!(names::FEED_LAG).record(0.003);
        let page = install().render();
        assert!(
            page.contains("tidings_posts_total{result=\"stored\"}"),
            "{page}"
        );
        assert!(
            page.contains("tidings_feed_lag_seconds_bucket{le=\"0.005\"}"),
            "{page}"
        );
    }
}
