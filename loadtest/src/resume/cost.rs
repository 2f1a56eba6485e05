//! What it costs that everybody comes back: statements of the database, the gateway's own counters, CPU and memory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::own;

const METRICS_LIMIT: Duration = Duration::from_secs(10);

/// Statements that are listed.
const TOP: i64 = 8;

#[derive(Debug, Serialize)]
pub(crate) struct Statement {
    calls: i64,
    milliseconds: f64,
    rows: i64,
    text: String,
}

/// Statements that the database has carried out.
#[derive(Debug, Serialize)]
pub(crate) struct Statements {
    pub(crate) total: i64,
    /// Empty if the database has no pg_stat_statements; the total then counts transactions.
    pub(crate) top: Vec<Statement>,
}

/// Counts what the database does from now on.
pub(crate) struct Counter<'a> {
    client: &'a Client,
    has_statements: bool,
    transactions_before: i64,
}

impl<'a> Counter<'a> {
    pub(crate) async fn start(client: &'a Client) -> anyhow::Result<Self> {
        let has_statements = client
            .batch_execute("create extension if not exists pg_stat_statements")
            .await
            .is_ok();
        let transactions_before = transactions(client).await?;
        if has_statements {
            client
                .query("select pg_stat_statements_reset()", &[])
                .await?;
        }
        Ok(Self {
            client,
            has_statements,
            transactions_before,
        })
    }

    pub(crate) async fn read(self) -> anyhow::Result<Statements> {
        if !self.has_statements {
            return Ok(Statements {
                total: transactions(self.client).await? - self.transactions_before,
                top: Vec::new(),
            });
        }
        let rows = self
            .client
            .query(
                "select calls, total_exec_time, rows, regexp_replace(query, '\\s+', ' ', 'g'), sum(calls) over ()::bigint
                   from pg_stat_statements s join pg_database d on d.oid = s.dbid
                  where d.datname = current_database() and query not ilike '%pg_stat_statements%'
                  order by calls desc limit $1",
                &[&TOP],
            )
            .await
            .context("cannot read pg_stat_statements")?;
        Ok(Statements {
            total: rows.first().map_or(0, |row| row.get(4)),
            top: rows
                .iter()
                .map(|row| Statement {
                    calls: row.get(0),
                    milliseconds: row.get(1),
                    rows: row.get(2),
                    text: row.get::<_, &str>(3).chars().take(90).collect(),
                })
                .collect(),
        })
    }
}

impl Statements {
    /// What is counted, for a heading.
    pub(crate) fn unit_per(&self, thing: &str) -> String {
        let unit = if self.top.is_empty() {
            "transactions"
        } else {
            "statements"
        };
        format!("{unit} for {thing}")
    }

    pub(crate) fn print(&self) {
        if self.top.is_empty() {
            println!(
                "database: {} transactions (pg_stat_statements is not there)",
                self.total
            );
            return;
        }
        println!("database: {} statements; most often:", self.total);
        for statement in &self.top {
            println!(
                "  {:>8} times {:>10.1} ms  {}",
                statement.calls, statement.milliseconds, statement.text
            );
        }
    }
}

async fn transactions(client: &Client) -> anyhow::Result<i64> {
    let row = client
        .query_one(
            "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()",
            &[],
        )
        .await?;
    Ok(row.get(0))
}

/// The gateway's counters, each summed over its labels.
pub(crate) async fn counters(server: SocketAddr) -> anyhow::Result<BTreeMap<String, f64>> {
    let answer = timeout(METRICS_LIMIT, own::get(server, "/metrics"));
    let answer = answer.await.context("/metrics does not answer")??;
    Ok(parse(&String::from_utf8_lossy(&answer)))
}

fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut counters = BTreeMap::new();
    for line in text.lines() {
        let Some((name, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let name = name.split('{').next().unwrap_or(name);
        if let Ok(value) = value.parse::<f64>()
            && name.ends_with("_total")
        {
            *counters.entry(name.to_owned()).or_default() += value;
        }
    }
    counters
}

/// Those that have counted something between the two readings.
pub(crate) fn between(
    before: &BTreeMap<String, f64>,
    after: &BTreeMap<String, f64>,
) -> BTreeMap<String, f64> {
    let difference = |(name, value): (&String, &f64)| {
        let more = value - before.get(name).copied().unwrap_or_default();
        (more > 0.0).then(|| (name.clone(), more))
    };
    after.iter().filter_map(difference).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_their_labels() {
        let before = parse(
            "HTTP/1.1 200 OK\r\n\r\n# HELP a_total x\na_total{x=\"1\"} 2\na_total{x=\"2 3\"} 3\nb_total 1\ngauge 7\n",
        );
        assert_eq!(before.len(), 2);
        let after = parse("a_total{x=\"1\"} 9\nb_total 1\nc_total 4\n");
        let difference = between(&before, &after);
        assert_eq!(difference.get("a_total"), Some(&4.0));
        assert_eq!(difference.get("b_total"), None);
        assert_eq!(difference.get("c_total"), Some(&4.0));
    }
}
