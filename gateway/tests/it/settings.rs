//! The program itself: what it refuses before it starts, the tokens that it prints, the migrations, signals.

use gateway::{
    auth::{Verifier, now_unix},
    config::Settings,
};
use protocol::Version;
use serde_json::json;

use crate::support::{
    Client, TestDatabase,
    process::{GatewayProcess, run},
    token::{SECRET, anon},
    wait::wait_for,
};

const URL: (&str, &str) = ("DATABASE_URL", "postgres://nobody:hunter2@127.0.0.1:1/none");
const KEY: (&str, &str) = ("TIDINGS_JWT_SECRET", SECRET);

#[tokio::test]
async fn what_is_unknown_or_invalid_is_refused_by_name_and_all_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("tidings.toml");
    std::fs::write(
        &file,
        "listn = \"127.0.0.1:4000\"\nmax_channels = 0\npoll_interval = 7\n",
    )
    .expect("a file");
    let file = file.to_str().expect("text");
    let environment = [
        URL,
        KEY,
        ("TIDINGS_LISTN", "127.0.0.1:4001"),
        ("TIDINGS_DRAIN", "soon"),
        ("TIDINGS_OLD_RECORD", "half"),
        ("TIDINGS_OUTBOX_BYTES", "1 MB"),
        // Not ours.
        ("LISTEN", "x"),
    ];
    for command in ["serve", "migrate"] {
        let outcome = run(&[command, "--config", file], &environment).await;
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert_eq!(outcome.stdout, "");
        for part in [
            "TIDINGS_LISTN",
            "TIDINGS_LISTEN",
            "listn",
            "max_channels",
            "poll_interval",
            "drain",
            "old_record",
            "full, identity",
            "outbox_bytes",
        ] {
            assert!(
                outcome.stderr.contains(part),
                "{part} is missing in: {}",
                outcome.stderr
            );
        }
        assert!(
            !outcome.stderr.contains("hunter2") && !outcome.stderr.contains(SECRET),
            "{}",
            outcome.stderr
        );
    }
    let unknown_flag = run(&["serve", "--listn", "x"], &[URL, KEY]).await;
    assert_eq!(unknown_flag.code, Some(2));
    assert!(
        unknown_flag.stderr.contains("--listn"),
        "{}",
        unknown_flag.stderr
    );
    let missing = run(&["serve"], &[]).await;
    assert_eq!(missing.code, Some(2));
    assert!(
        missing.stderr.contains("DATABASE_URL") && missing.stderr.contains("TIDINGS_JWT_SECRET"),
        "{}",
        missing.stderr
    );
}

#[tokio::test]
async fn flags_win_over_the_environment_and_that_over_the_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("tidings.toml");
    std::fs::write(
        &file,
        "max_channels = 1\nmax_connections = 1\ndrain = \"9s\"\n",
    )
    .expect("a file");
    let file = file.to_str().expect("text");
    let environment = [
        URL,
        KEY,
        ("TIDINGS_CONFIG", file),
        ("TIDINGS_MAX_CHANNELS", "2"),
        ("TIDINGS_MAX_CONNECTIONS", "2"),
    ];
    let outcome = run(
        &["serve", "--print-config", "--max-channels", "3"],
        &environment,
    )
    .await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let line = |name: &str| {
        let line = outcome.stdout.lines().find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("{name} in {}", outcome.stdout))
            .to_owned()
    };
    assert!(line("max_channels").contains('3'));
    assert!(line("max_connections").contains('2'));
    assert!(line("drain =").contains("9s"));
    assert!(line("idle_timeout").contains("60s"));
    assert!(
        !outcome.stdout.contains("hunter2") && !outcome.stdout.contains(SECRET),
        "{}",
        outcome.stdout
    );
}

#[tokio::test]
async fn a_printed_token_is_one_that_the_gateway_takes() {
    let arguments = [
        "token",
        "--sub",
        "usr_1",
        "--claim",
        "tenant_id=7",
        "--claim",
        "name=Ada L",
        "--expires-in",
        "2h",
    ];
    let outcome = run(&arguments, &[KEY]).await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let settings =
        Settings::from_pairs([("database_url", URL.1), ("jwt_secret", SECRET)]).expect("settings");
    let verified = Verifier::new(&settings)
        .verify(outcome.stdout.trim_end(), now_unix())
        .unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(
        (&*verified.principal.role, &*verified.principal.subject),
        ("authenticated", "usr_1")
    );
    let claims: serde_json::Value = serde_json::from_str(&verified.principal.claims).expect("JSON");
    assert_eq!(
        (&claims["tenant_id"], &claims["name"]),
        (&json!(7), &json!("Ada L"))
    );
    assert!((7190..=7200).contains(&(verified.expires_at - now_unix())));
}

/// Runs the SQL that an error names, as a superuser.
async fn mend(database: &TestDatabase, stderr: &str) {
    let mends: Vec<_> = stderr
        .lines()
        .filter_map(|line| line.split_once("; mend it with: "))
        .map(|(_, sql)| sql)
        .collect();
    assert!(!mends.is_empty(), "nothing to mend in: {stderr}");
    for sql in mends {
        database.execute(sql).await;
    }
}

async fn login(database: &TestDatabase, name: &str) -> String {
    // Roles belong to the cluster, which other tests share; this name is of this test alone.
    database
        .execute(&format!(
            "create role \"{name}\" login password 'let me in'"
        ))
        .await;
    database.url_as(name, "let%20me%20in")
}

#[tokio::test]
async fn migrate_names_the_grants_that_a_login_lacks_and_works_with_them() {
    let database = TestDatabase::empty().await;
    let url = login(&database, "Odd migrator")
        .await
        .replace("Odd migrator", "Odd%20migrator");
    let environment = [("DATABASE_URL", url.as_str())];
    let refused = run(&["migrate"], &environment).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("grant create on database"),
        "{}",
        refused.stderr
    );
    assert_eq!(
        database
            .text("select count(*) from pg_namespace where nspname like 'tidings%'")
            .await,
        "0"
    );

    // Whatever it asks for step by step; in few steps it must be done.
    let mut last = refused;
    for _ in 0..4 {
        mend(&database, &last.stderr).await;
        last = run(&["migrate"], &environment).await;
        if last.code == Some(0) {
            break;
        }
    }
    assert_eq!(last.code, Some(0), "{last:?}");
    let again = run(&["migrate"], &environment).await;
    assert_eq!(
        (again.code, again.stdout.contains("up to date")),
        (Some(0), true),
        "{again:?}"
    );
}

#[tokio::test]
async fn serve_names_the_grants_that_a_login_lacks_and_works_with_them() {
    let database = TestDatabase::new(Some("chattwelve")).await;
    let url = login(&database, "plain_server").await;
    let environment = [("DATABASE_URL", url.as_str()), KEY];
    let refused = run(&["serve", "--listen", "127.0.0.1:0"], &environment).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for role in ["anon", "authenticated", "service_role", "tidings_gateway"] {
        assert!(
            refused
                .stderr
                .contains(&format!("grant {role} to plain_server")),
            "{}",
            refused.stderr
        );
    }
    mend(&database, &refused.stderr).await;
    let mut gateway = GatewayProcess::start(&environment).await;
    let mut client = Client::connect_to(gateway.address, Version::V2, &anon()).await;
    let bindings = json!([crate::support::binding("INSERT", "chat_messages", None)]);
    let channel = client.subscribe("all", bindings).await;
    database
        .execute("insert into chat_messages (session_id, role, content) select id, 'user', 'seen' from chat_sessions limit 1")
        .await;
    assert_eq!(client.change(&channel).await["record"]["content"], "seen");
    gateway.signal("TERM").await;
    assert_eq!(client.closed().await, Some(1012));
    assert_eq!(gateway.ended().await, Some(0));

    let empty = TestDatabase::empty().await;
    let unmigrated = run(
        &["serve", "--listen", "127.0.0.1:0"],
        &[("DATABASE_URL", &empty.url), KEY],
    )
    .await;
    assert_eq!(unmigrated.code, Some(1));
    assert!(
        unmigrated.stderr.contains("tidings migrate"),
        "{}",
        unmigrated.stderr
    );
}

#[tokio::test]
async fn migrations_leave_what_a_supabase_database_has_as_it_is() {
    let database = TestDatabase::empty().await;
    // As Supabase makes them; the roles are in the cluster already.
    database
        .execute(
            "create schema auth;
             grant usage on schema auth to anon, authenticated, service_role;
             create table auth.users (id uuid primary key, email text);
             create function auth.uid() returns uuid language sql stable as $$
               select coalesce(nullif(current_setting('request.jwt.claim.sub', true), ''),
                 (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'))::uuid $$;
             create function auth.role() returns text language sql stable as $$ select 'theirs'::text $$;
             create function auth.jwt() returns jsonb language sql stable as $$ select '{\"theirs\": true}'::jsonb $$;
             create function auth.email() returns text language sql stable as $$ select 'theirs'::text $$;
             comment on function auth.uid() is 'Deprecated. Use auth.jwt() instead.';
             create table public.todos (id bigint primary key, details text);
             create publication supabase_realtime for table public.todos with (publish = 'insert, update')",
        )
        .await;
    let state = "select json_build_object(
        'functions', (select json_agg(pg_get_functiondef(p.oid) || coalesce(obj_description(p.oid), '') || coalesce(p.proacl::text, '') order by p.proname)
                        from pg_proc p where p.pronamespace = 'auth'::regnamespace),
        'schema', (select nspacl::text from pg_namespace where nspname = 'auth'),
        'roles', (select json_agg(r order by r.rolname) from pg_roles r where r.rolname in ('anon', 'authenticated', 'service_role')),
        'publication', (select json_agg(p) from pg_publication p where p.pubname = 'supabase_realtime'),
        'tables', (select json_agg(t order by t.tablename) from pg_publication_tables t where t.pubname = 'supabase_realtime'))";
    let before = database.text(state).await;
    let outcome = run(&["migrate"], &[("DATABASE_URL", &database.url)]).await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(database.text(state).await, before);

    // And what was published is watched, by the publication's own flags.
    let gateway = crate::support::TestGateway::start(&database).await;
    database
        .execute("grant select on public.todos to anon")
        .await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let channel = client
        .subscribe(
            "todos",
            json!([crate::support::binding("*", "todos", None)]),
        )
        .await;
    database
        .execute("insert into todos values (1, 'a'); delete from todos; insert into todos values (2, 'b'); update todos set details = 'c'")
        .await;
    for (kind, id) in [("INSERT", 1), ("INSERT", 2), ("UPDATE", 2)] {
        let change = client.change(&channel).await;
        assert_eq!(
            (&change["type"], &change["record"]["id"]),
            (&json!(kind), &json!(id))
        );
    }
}

#[tokio::test]
async fn a_gateway_that_is_killed_leaves_no_session_behind_and_the_next_one_serves() {
    let database = TestDatabase::new(Some("chattwelve")).await;
    let environment = [("DATABASE_URL", database.url.as_str()), KEY];
    let sessions = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'tidings'";
    for signal in ["KILL", "INT"] {
        let mut gateway = GatewayProcess::start(&environment).await;
        let mut client = Client::connect_to(gateway.address, Version::V1, &anon()).await;
        let channel = client
            .subscribe(
                "all",
                json!([crate::support::binding("INSERT", "chat_messages", None)]),
            )
            .await;
        assert_ne!(database.text(sessions).await, "0");
        database
            .execute("insert into chat_messages (session_id, role, content) select id, 'user', 'x' from chat_sessions limit 1")
            .await;
        client.change(&channel).await;
        gateway.signal(signal).await;
        let (close, code) = if signal == "KILL" {
            (None, None)
        } else {
            (Some(1012), Some(0))
        };
        assert_eq!(client.closed().await, close);
        assert_eq!(gateway.ended().await, code);
        wait_for("the end of its database sessions", || async {
            match &*database.text(sessions).await {
                "0" => Ok(()),
                open => Err(format!("{open} are open")),
            }
        })
        .await;
    }
}
