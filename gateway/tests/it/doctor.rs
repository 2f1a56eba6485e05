//! `tidings doctor`: what it says of the five schemas, and of what is broken on purpose.

use serde_json::Value;

use crate::support::{
    TestDatabase, TestGateway,
    process::{Outcome, run},
};

async fn watched(schema: &str, tables: &[&str]) -> TestDatabase {
    let database = TestDatabase::new(Some(schema)).await;
    for table in tables {
        database
            .execute(&format!("select tidings.watch('{table}')"))
            .await;
    }
    database.execute("select tidings.sync_depended()").await;
    database
}

async fn doctor(database: &TestDatabase, arguments: &[&str]) -> Outcome {
    let arguments: Vec<&str> = [&["doctor"], arguments].concat();
    run(&arguments, &[("DATABASE_URL", &database.gateway_url)]).await
}

/// The report for a person, of a database without problems.
async fn page(database: &TestDatabase) -> String {
    let outcome = doctor(database, &[]).await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(outcome.stderr, "");
    outcome.stdout
}

async fn report(database: &TestDatabase, arguments: &[&str]) -> (Outcome, Value) {
    let outcome = doctor(database, &[&["--json"], arguments].concat()).await;
    let report = serde_json::from_str(&outcome.stdout)
        .unwrap_or_else(|error| panic!("{error} in {outcome:?}"));
    (outcome, report)
}

/// The finding about a table, or about none, whose text begins so.
fn finding<'a>(report: &'a Value, table: Option<&str>, begins: &str) -> &'a Value {
    report["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .find(|finding| {
            finding["table"].as_str() == table
                && finding["text"]
                    .as_str()
                    .is_some_and(|text| text.starts_with(begins))
        })
        .unwrap_or_else(|| panic!("no finding `{begins}` in {report:#}"))
}

fn has(page: &str, lines: &[&str]) {
    for line in lines {
        assert!(
            page.lines().any(|found| found.trim().starts_with(line)),
            "`{line}` is missing from:\n{page}"
        );
    }
}

#[tokio::test]
async fn a_chat_of_owners_is_session_scoped_and_rests_on_its_sessions() {
    let database = watched("chattwelve", &["public.chat_messages"]).await;
    has(
        &page(&database).await,
        &[
            "DDL          told at once",
            "change log   kept for 24:00:00",
            "re-check     every 30 s",
            "public.chat_messages  (watched: explicit; row-level security on)",
            "anon           decided once for each subscription: the policies read no column of the row",
            "authenticated  session-scoped on session_id: decided once where the filter is session_id=eq.…",
            "columns: all",
            "policies: messages of own sessions",
            "rests on public.chat_sessions (id, user_id): triggers present; an INSERT there takes no right away",
            "0 problems, 0 warnings",
        ],
    );
}

#[tokio::test]
async fn whispers_make_a_table_row_scoped() {
    let database = watched("tenantrooms", &["public.messages"]).await;
    has(
        &page(&database).await,
        &[
            "authenticated  row-scoped: the policies read author_id, tenant_id, whisper_to; decided once only",
            "a filter on room_id without any of them: refused unless",
            "policies: tenant sees its messages; whispers stay private (restrictive)",
            "0 problems, 0 warnings",
        ],
    );
}

#[tokio::test]
async fn functions_that_hide_what_they_read_are_named() {
    let database = watched("gptdesk", &["public.chat_messages", "public.gpts"]).await;
    has(
        &page(&database).await,
        &[
            "hidden: what public.is_super_admin(uuid) reads; only the re-check covers it, every 30 s",
            "rests on public.chat_sessions (id, user_id): triggers present",
            "hidden: what public.get_user_team_id(uuid) reads",
            "authenticated  row-scoped: the policies read is_public, team_id",
            "0 problems, 2 warnings",
        ],
    );

    // As the report says: a body that PostgreSQL parses hides nothing. The policies of what it reads may.
    database
        .execute(
            "create or replace function public.is_super_admin(user_uuid uuid) returns boolean
             language sql stable security definer set search_path = ''
             begin atomic
               select coalesce((select role = 'super_admin' from public.users where id = user_uuid), false);
             end;
             select tidings.sync_depended()",
        )
        .await;
    let (_, report) = report(&database, &[]).await;
    let messages = &report["tables"][0];
    let hidden = messages["hidden"].as_array().expect("functions");
    assert!(
        !hidden
            .iter()
            .any(|hidden| hidden["name"] == "public.is_super_admin(uuid)"),
        "{messages:#}"
    );
    let users = messages["rests_on"]
        .as_array()
        .expect("tables")
        .iter()
        .find(|table| table["table"] == "public.users")
        .expect("users");
    assert_eq!(users["inserts"], true);
    assert_eq!(users["triggers"], "present");
}

#[tokio::test]
async fn who_may_not_read_is_told_why() {
    let database = watched("wbot", &["public.messages"]).await;
    let page = page(&database).await;
    has(
        &page,
        &[
            "anon           may not read it: no right to SELECT",
            "authenticated  session-scoped on conversation_id",
            "rests on public.conversations (id, user_id): triggers present",
        ],
    );

    let (outcome, report) = report(
        &database,
        &[
            "--role",
            "service_role",
            "--role",
            "no_such",
            "--role",
            "postgres",
        ],
    )
    .await;
    assert_eq!(outcome.code, Some(1));
    let missing = finding(&report, None, "there is no role no_such");
    assert_eq!(missing["severity"], "problem");
    let roles = report["tables"][0]["roles"].as_array().expect("roles");
    assert_eq!(roles[2]["why"], "sees every row: it has BYPASSRLS");
    assert_eq!(roles[3]["why"], "there is no such role");
    assert_eq!(
        roles[4]["why"],
        "it is a superuser, which no token may name"
    );
    assert_eq!(roles[4]["scope"], "refused");
}

#[tokio::test]
async fn a_policy_that_walks_over_two_tables_rests_on_both() {
    let database = watched("archety", &["public.messages", "public.oauth_tokens"]).await;
    has(
        &page(&database).await,
        &[
            "authenticated  session-scoped on conversation_id",
            "rests on public.conversations (id, user_id)",
            "rests on public.users (id, supabase_user_id)",
            "authenticated  session-scoped on user_id",
        ],
    );
}

#[tokio::test]
async fn what_is_broken_is_a_problem_and_the_sql_mends_it() {
    let database = watched("wbot", &["public.messages"]).await;
    database
        .execute(
            "alter table messages disable trigger tidings_capture;
             drop trigger tidings_dependency on conversations;
             alter table messages disable row level security",
        )
        .await;
    let tags = "select evttags from pg_event_trigger where evtname = 'tidings_ddl'";
    let tags_before = database.text(tags).await;
    database.execute("drop event trigger tidings_ddl").await;

    let (outcome, found) = report(&database, &[]).await;
    assert_eq!(outcome.code, Some(1));
    assert_eq!(
        outcome.stderr.trim(),
        "tidings: 1 problem found, see the report"
    );
    let open = finding(
        &found,
        Some("public.messages"),
        "row-level security is off: every row goes to authenticated",
    );
    database.execute(mend(open)).await;
    // The policies did not count while row-level security was off.
    let (outcome, found) = report(&database, &[]).await;
    assert_eq!(outcome.code, Some(1));
    for (table, begins) in [
        (Some("public.messages"), "its trigger is disabled"),
        (
            Some("public.conversations"),
            "verdicts rest on it, and its triggers are missing",
        ),
        (None, "nothing tells of DDL"),
    ] {
        database.execute(mend(finding(&found, table, begins))).await;
    }
    assert_eq!(database.text(tags).await, tags_before);
    let (outcome, found) = report(&database, &[]).await;
    assert_eq!(outcome.code, Some(0), "{found:#}");
    assert_eq!(found["findings"], serde_json::json!([]));
}

fn mend(finding: &Value) -> &str {
    finding["mend"].as_str().expect("SQL that mends it")
}

#[tokio::test]
async fn a_database_that_was_never_migrated_is_told_what_to_do() {
    let database = TestDatabase::empty().await;
    let outcome = doctor(&database, &[]).await;
    assert_eq!(outcome.code, Some(1));
    has(
        &outcome.stdout,
        &[
            "problem: the schema tidings is missing",
            "mend it with: tidings migrate",
        ],
    );
}

#[tokio::test]
async fn a_gateway_mends_the_triggers_by_itself() {
    let database = TestDatabase::new(Some("chattwelve")).await;
    database
        .execute("select tidings.watch('public.chat_messages')")
        .await;
    let (outcome, before) = report(&database, &[]).await;
    assert_eq!(outcome.code, Some(0));
    finding(
        &before,
        Some("public.chat_sessions"),
        "verdicts rest on it, and its triggers are missing",
    );
    let _gateway = TestGateway::start(&database).await;
    let (_, after) = report(&database, &[]).await;
    assert_eq!(after["findings"], serde_json::json!([]));
    assert!(after["server"]["sessions"].as_i64() > Some(0));
}

#[tokio::test]
async fn what_keeps_messages_from_arriving_is_named() {
    let database = TestDatabase::new(Some("chattwelve")).await;
    database
        .execute(
            "drop trigger tidings_message on realtime.messages;
             alter table realtime.messages disable row level security;
             do $$ begin
               execute format('drop table realtime.messages_%s', to_char((now() at time zone 'utc')::date + 1, 'YYYY_MM_DD'));
             end $$",
        )
        .await;
    let (_, found) = report(&database, &[]).await;
    for begins in [
        "broadcasts from SQL do not arrive",
        "realtime.messages has no partition for tomorrow",
        "row-level security of realtime.messages is off",
    ] {
        database.execute(mend(finding(&found, None, begins))).await;
    }
    let (_, found) = report(&database, &[]).await;
    let about_messages = |finding: &&Value| finding.to_string().contains("realtime.messages");
    let findings = found["findings"].as_array().expect("findings");
    assert_eq!(findings.iter().find(about_messages), None);
}
