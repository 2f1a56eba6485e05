//! What the audience costs the database: the statements that PostgreSQL itself logs.

use std::{path::PathBuf, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{
    Channel, Client, OwnCluster, TestDatabase, TestGateway, binding,
    chat::{A1, ADA, messages_of, say},
    token::{authenticated, token},
};

/// On one socket.
const CHANNELS: usize = 50;

/// The log of a server that logs every statement, from some moment on.
struct Log {
    path: PathBuf,
    from: usize,
}

/// Statements of gateways.
#[derive(Debug, Default, PartialEq, Eq)]
struct Statements {
    /// Reads of the change log.
    feed: usize,
    /// Questions about what a principal may see.
    questions: usize,
    /// What is asked of the catalog when somebody joins, and about the roles in use every two seconds: `tidings.access`.
    catalog: usize,
    /// Whatever else is not done from time to time.
    other: Vec<String>,
}

impl Log {
    async fn of(database: &TestDatabase) -> Log {
        for setting in ["log_statement = 'all'", "log_line_prefix = '%u '"] {
            database
                .execute(&format!("alter system set {setting}"))
                .await;
        }
        database.execute("select pg_reload_conf()").await;
        let data = database.text("current_setting('data_directory')").await;
        let log = Log {
            path: PathBuf::from(format!("{data}.log")),
            from: 0,
        };
        // The backends take the new settings between two statements.
        crate::support::wait::wait_for("a log of all statements", || async {
            database.text("'logged from now on'").await;
            match log.text().contains("postgres LOG:  execute") {
                true => Ok(()),
                false => Err("none"),
            }
        })
        .await;
        log
    }

    fn text(&self) -> String {
        let bytes = std::fs::read(&self.path).expect("the server's log");
        String::from_utf8_lossy(&bytes[self.from..]).into_owned()
    }

    fn begin(&mut self) {
        self.from = std::fs::metadata(&self.path).expect("the log").len() as usize;
    }

    /// What gateways have asked since the beginning.
    fn statements(&self) -> Statements {
        let mut counted = Statements::default();
        let text = self.text();
        for entry in text.split("tidings_server LOG:  ").skip(1) {
            let Some((kind, statement)) = entry.split_once(": ") else {
                continue;
            };
            if kind != "statement" && !kind.starts_with("execute") {
                continue;
            }
            let statement = statement
                .split("\npostgres LOG:  ")
                .next()
                .unwrap_or_default()
                .trim_start();
            let names = |names: &[&str]| names.iter().any(|name| statement.contains(name));
            if names(&["tidings.read("]) {
                counted.feed += 1;
            } else if statement.starts_with("select array(") {
                counted.questions += 1;
            } else if names(&["tidings.access("]) {
                counted.catalog += 1;
            } else if !statement.is_empty()
                && !names(&[
                    // Every few seconds, whoever listens; and what leads up to a question, which is counted.
                    "tidings.sync_",
                    "tidings.catalog(",
                    "tidings.depending(",
                    "tidings.trim_changes(",
                    "tidings.lighten_capture(",
                    "tidings.log_state(",
                    "tidings.retention(",
                    "tidings.keep_messages(",
                    "pg_try_advisory",
                    "pg_advisory",
                    "pg_current_snapshot",
                    "-- Makes the session a principal",
                    "reset role",
                    "set statement_timeout",
                    "bot_keys",
                ])
            {
                counted
                    .other
                    .push(statement.chars().take(80).collect::<String>());
            }
        }
        counted
    }
}

/// So many subscriptions, each on a topic of its own; the tokens take turns.
async fn audience(
    gateway: &TestGateway,
    tokens: &[String],
    bindings: &Value,
    size: usize,
) -> Vec<(Client, Vec<Channel>)> {
    let config = json!({"config": {"postgres_changes": bindings, "presence": {"enabled": false}}});
    let mut sockets = Vec::new();
    let mut left = size;
    while left > 0 {
        let count = left.min(CHANNELS).min(size.div_ceil(tokens.len()));
        left -= count;
        let token = &tokens[sockets.len() % tokens.len()];
        let mut client = Client::v2(gateway, token).await;
        let mut channels = Vec::new();
        for number in 0..count {
            let (channel, _) = client
                .begin_join(&format!("c{number}"), config.clone())
                .await;
            channels.push(channel);
        }
        sockets.push((client, channels));
    }
    for (client, channels) in &mut sockets {
        for channel in channels {
            client.live(channel).await;
        }
    }
    sockets
}

/// Everybody gets this many changes.
async fn all_get(sockets: &mut [(Client, Vec<Channel>)], changes: usize) {
    for (client, channels) in sockets {
        for channel in channels {
            for _ in 0..changes {
                client.change(channel).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_a_session_costs_no_statement_whatever_the_audience() {
    const MESSAGES: usize = 20;
    let cluster = OwnCluster::start().await;
    let database = cluster.database("chattwelve").await;
    let gateway = TestGateway::start(&database).await;
    let mut log = Log::of(&database).await;
    let mut sockets = Vec::new();
    let mut subscribers = 0;
    for size in [10, 100, 1_000] {
        let more = audience(
            &gateway,
            &[authenticated(ADA)],
            &messages_of("INSERT", A1),
            size - subscribers,
        )
        .await;
        sockets.extend(more);
        subscribers = size;
        log.begin();
        for number in 0..MESSAGES {
            say(&database, A1, &number.to_string()).await;
        }
        all_get(&mut sockets, MESSAGES).await;
        let statements = log.statements();
        println!("{MESSAGES} messages to {size} subscribers of a session: {statements:?}");
        assert_eq!(
            (statements.questions, &statements.other),
            (0, &Vec::new()),
            "{statements:?}"
        );
        assert!(statements.catalog < MESSAGES / 2, "{statements:?}");
        // Once for each commit at the most, and once in a while.
        assert!(statements.feed <= 3 * MESSAGES + 20, "{statements:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_judged_cost_one_question_for_each_principal_and_batch() {
    const BATCHES: usize = 5;
    const ROWS: usize = 20;
    let cluster = OwnCluster::start().await;
    let database = cluster.database("tenantrooms").await;
    database.execute("select tidings.watch('messages')").await;
    let gateway = TestGateway::start(&database).await;
    let mut log = Log::of(&database).await;
    let tenant = "aaaaaaaa-0000-4000-8000-000000000000";
    let room = "40000000-0000-4000-8000-0000000000a1";
    let tokens = [1, 2, 3].map(|number| {
        let sub = format!("10000000-0000-4000-8000-{number:012}");
        token(json!({"role": "authenticated", "sub": sub, "tenant_id": tenant}))
    });
    let filter = format!("room_id=eq.{room}");
    let bindings = json!([binding("INSERT", "messages", Some(&filter))]);
    for size in [9, 90, 300] {
        let mut sockets = audience(&gateway, &tokens, &bindings, size).await;
        log.begin();
        for _ in 0..BATCHES {
            database
                .execute(&format!(
                    "insert into messages (room_id, tenant_id, author_id, body)
                     select '{room}', '{tenant}', gen_random_uuid(), n::text from generate_series(1, {ROWS}) n"
                ))
                .await;
            all_get(&mut sockets, ROWS).await;
        }
        let statements = log.statements();
        println!(
            "{BATCHES} batches of {ROWS} rows to {size} subscribers of 3 principals: {statements:?}"
        );
        assert_eq!(statements.questions, 3 * BATCHES, "{statements:?}");
        assert_eq!(statements.other, Vec::<String>::new());
        for (mut client, channels) in sockets {
            for channel in channels {
                client.push(&channel, "phx_leave", json!({})).await;
                client.event(&channel, "phx_close").await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_joins_asks_equal_questions_together() {
    const JOINS: usize = if cfg!(debug_assertions) {
        2_000
    } else {
        10_000
    };
    const PEOPLE: usize = 4;
    let cluster = OwnCluster::start().await;
    let database = cluster.database("chattwelve").await;
    let mut tokens = Vec::new();
    for person in 0..PEOPLE {
        tokens.push(authenticated(&format!("usr_{person}")));
    }
    database
        .execute("create table memberships (session_id uuid, user_id text, primary key (session_id, user_id));
                  grant select on memberships to authenticated;
                  insert into memberships select s.id, 'usr_' || n from chat_sessions s, generate_series(0, 9) n;
                  alter policy \"messages of own sessions\" on chat_messages
                    using (exists (select from memberships m where m.session_id = chat_messages.session_id and m.user_id = auth.jwt() ->> 'sub'))")
        .await;
    let gateway = TestGateway::start(&database).await;
    let mut log = Log::of(&database).await;
    log.begin();
    let began = Instant::now();
    let sockets = audience(&gateway, &tokens, &messages_of("INSERT", A1), JOINS).await;
    let took = began.elapsed();
    let statements = log.statements();
    println!(
        "{JOINS} joins over {} sockets by {PEOPLE} principals: {took:.1?}, {:.0} a second; {statements:?}",
        sockets.len(),
        JOINS as f64 / took.as_secs_f64()
    );
    assert!(statements.questions < JOINS / 4, "{statements:?}");
    assert!(statements.catalog < JOINS / 4, "{statements:?}");
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_is_evaluated_once_for_all_who_have_it_and_the_simple_ones_not_at_all() {
    const BATCHES: usize = 5;
    const ROWS: usize = 20;
    const FILTERS: usize = 10;
    let cluster = OwnCluster::start().await;
    let database = cluster.database("chattwelve").await;
    database
        .execute("create table things (id int generated always as identity primary key, room int, kind text, body text); grant select on things to authenticated; select tidings.watch('things')")
        .await;
    let gateway = TestGateway::start(&database).await;
    let mut log = Log::of(&database).await;
    let insert = format!(
        "insert into things (room, kind, body) select 7, 'user', 'abcdefghij' from generate_series(1, {ROWS})"
    );
    let mut sockets = Vec::new();
    for each in [1, 100] {
        for letter in "abcdefghij".chars() {
            // The first condition decides without PostgreSQL that most rows need no look.
            let filter = format!("room=eq.7,body=like.%{letter}%");
            let bindings = json!([binding("INSERT", "things", Some(&filter))]);
            let have = if each == 1 { 0 } else { 1 };
            let more = audience(&gateway, &[authenticated(ADA)], &bindings, each - have).await;
            sockets.extend(more);
        }
        log.begin();
        for _ in 0..BATCHES {
            database
                .execute("insert into things (room, body) values (8, 'abcdefghij')")
                .await;
            database.execute(&insert).await;
            all_get(&mut sockets, ROWS).await;
        }
        let statements = log.statements();
        println!(
            "{BATCHES} batches to {each} subscribers of each of {FILTERS} filters: {statements:?}"
        );
        assert_eq!(
            (statements.questions, &statements.other),
            (BATCHES * FILTERS, &Vec::new()),
            "{statements:?}"
        );
    }
    drop(sockets);

    let mut sockets = Vec::new();
    for filter in [
        "room=in.(6,7)",
        "room=gt.6,room=lte.7",
        "kind=neq.bot,room=not.in.(1,2)",
        "kind=isdistinct.bot,body=not.is.null",
    ] {
        let bindings = json!([binding("INSERT", "things", Some(filter))]);
        sockets.extend(audience(&gateway, &[authenticated(ADA)], &bindings, 50).await);
    }
    log.begin();
    for _ in 0..BATCHES {
        database.execute(&insert).await;
        all_get(&mut sockets, ROWS).await;
    }
    let statements = log.statements();
    assert_eq!(
        (statements.questions, &statements.other),
        (0, &Vec::new()),
        "{statements:?}"
    );
}
