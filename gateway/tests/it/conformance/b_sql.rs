//! What a database has for applications that were written for Supabase Realtime (protocol §11).

use serde_json::{Value, json};

use crate::support::{
    Client, Incoming, TestDatabase, TestGateway, binding,
    token::{anon, authenticated, service_role},
};

/// What a query says as JSON.
async fn said(database: &TestDatabase, query: &str) -> Value {
    let text = database
        .text(&format!("select json_agg(r) from ({query}) r"))
        .await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The code with which PostgreSQL refuses a statement in a session of its own; empty if it does not.
async fn refused(database: &TestDatabase, sql: &str) -> String {
    let session = database.connect().await;
    match session.batch_execute(sql).await {
        Ok(()) => String::new(),
        Err(error) => error.code().expect("a code").code().to_owned(),
    }
}

#[tokio::test]
async fn the_roles_of_tokens_are_there() {
    let database = TestDatabase::new(None).await;
    let roles = said(
        &database,
        "select rolname, rolcanlogin, rolinherit, rolbypassrls, rolsuper from pg_roles
          where rolname in ('anon', 'authenticated', 'service_role', 'supabase_realtime_admin') order by rolname",
    )
    .await;
    let role = |name: &str, bypasses: bool| json!({"rolname": name, "rolcanlogin": false, "rolinherit": false, "rolbypassrls": bypasses, "rolsuper": false});
    assert_eq!(
        roles,
        json!([
            role("anon", false),
            role("authenticated", false),
            role("service_role", true),
            role("supabase_realtime_admin", false)
        ])
    );
    let rights = said(
        &database,
        "select role, has_schema_privilege(role, 'public', 'USAGE') as public, has_schema_privilege(role, 'auth', 'USAGE') as auth,
                has_schema_privilege(role, 'realtime', 'USAGE') as realtime,
                has_table_privilege(role, 'realtime.messages', 'SELECT') and has_table_privilege(role, 'realtime.messages', 'INSERT')
                  and (select bool_and(has_column_privilege(role, attrelid, attnum, 'UPDATE')) from pg_attribute
                        where attrelid = 'realtime.messages'::regclass and attnum > 0 and attname <> 'inserted_at') as messages
           from unnest(array['anon', 'authenticated', 'service_role']) role",
    )
    .await;
    for of_role in rights.as_array().expect("rows") {
        for right in ["public", "auth", "realtime", "messages"] {
            assert_eq!(of_role[right], true, "{of_role}");
        }
    }
}

#[tokio::test]
async fn the_table_of_messages_is_as_applications_know_it() {
    let database = TestDatabase::new(None).await;
    let columns = said(
        &database,
        "select attname as name, format_type(atttypid, atttypmod) as type, attnotnull as needed, pg_get_expr(d.adbin, d.adrelid) as usual
           from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
          where attrelid = 'realtime.messages'::regclass and attnum > 0 and not attisdropped order by attnum",
    )
    .await;
    let column = |name: &str, kind: &str, needed: bool, usual: Value| json!({"name": name, "type": kind, "needed": needed, "usual": usual});
    let now = json!("(now() AT TIME ZONE 'utc'::text)");
    assert_eq!(
        columns,
        json!([
            column("topic", "text", true, json!(null)),
            column("extension", "text", true, json!(null)),
            column("payload", "jsonb", false, json!(null)),
            column("event", "text", false, json!(null)),
            column("private", "boolean", false, json!("false")),
            column(
                "updated_at",
                "timestamp without time zone",
                true,
                now.clone()
            ),
            column("inserted_at", "timestamp without time zone", true, now),
            column("id", "uuid", true, json!("gen_random_uuid()")),
            column("binary_payload", "bytea", false, json!(null)),
        ])
    );
    // The template was migrated a while ago: perhaps before midnight.
    database.execute("select tidings.keep_messages()").await;
    let shape = said(
        &database,
        "select (select pg_get_constraintdef(oid) from pg_constraint where conrelid = c.oid and contype = 'p') as key,
                pg_get_partkeydef(c.oid) as partitioned, c.relrowsecurity as secured,
                (select count(*) from pg_policy where polrelid = c.oid) as policies,
                (select pg_get_indexdef(i.indexrelid) from pg_index i where i.indrelid = c.oid and not i.indisprimary) as index,
                (select array_agg(i.inhrelid::regclass::text) from pg_inherits i where i.inhparent = c.oid)
                @> (select array_agg('realtime.messages_' || to_char((now() at time zone 'utc')::date + ahead, 'YYYY_MM_DD'))
                     from generate_series(-1, 3) ahead) as days
           from pg_class c where c.oid = 'realtime.messages'::regclass",
    )
    .await;
    let index = shape[0]["index"].as_str().expect("an index");
    assert!(
        index.ends_with("USING btree (inserted_at DESC, topic) WHERE ((extension = 'broadcast'::text) AND private)"),
        "{index}"
    );
    for (what, expected) in [
        ("key", json!("PRIMARY KEY (id, inserted_at)")),
        ("partitioned", json!("RANGE (inserted_at)")),
        ("secured", json!(true)),
        ("policies", json!(0)),
        ("days", json!(true)),
    ] {
        assert_eq!(shape[0][what], expected, "{what}");
    }
    let both = "insert into realtime.messages (topic, extension, payload, binary_payload) values ('t', 'broadcast', '{}', '')";
    let error = database.connect().await.batch_execute(both).await;
    let error = error.expect_err("one payload at most");
    let error = error.as_db_error().expect("PostgreSQL's");
    assert_eq!(error.constraint(), Some("messages_payload_exclusive"));
    // By the clock of UTC, whatever the session's time zone is.
    let ahead = database
        .text("set_config('timezone', 'Asia/Kathmandu', false)")
        .await;
    assert_eq!(ahead, "Asia/Kathmandu");
    database
        .execute("insert into realtime.messages (topic, extension) values ('t', 'broadcast')")
        .await;
    let off = "select max(abs(extract(epoch from inserted_at - (now() at time zone 'utc')))) < 60 and
                      max(abs(extract(epoch from updated_at - (now() at time zone 'utc')))) < 60 from realtime.messages";
    assert_eq!(database.text(off).await, "true");
}

#[tokio::test]
async fn without_policies_nobody_may_do_anything_with_messages_but_roles_that_bypass_them() {
    let database = TestDatabase::new(None).await;
    database
        .execute("insert into realtime.messages (topic, extension) values ('t', 'broadcast')")
        .await;
    let seen = "select count(*) from realtime.messages";
    for (role, count) in [("anon", "0"), ("authenticated", "0"), ("service_role", "1")] {
        database.execute(&format!("set role {role}")).await;
        assert_eq!(database.text(seen).await, count, "{role}");
        database.execute("reset role").await;
        let insert =
            "insert into realtime.messages (topic, extension) values ('t', 'broadcast'); rollback";
        let code = refused(&database, &format!("begin; set role {role}; {insert}")).await;
        let expected = if role == "service_role" { "" } else { "42501" };
        assert_eq!(code, expected, "{role}");
    }
    // Whoever may make policies there opens it.
    database
        .execute("create policy r on realtime.messages for select to anon using (realtime.topic() = topic); set role anon")
        .await;
    assert_eq!(database.text(seen).await, "0");
    database.execute("set realtime.topic = 't'").await;
    assert_eq!(database.text(seen).await, "1");
}

#[tokio::test]
async fn the_topic_is_a_setting() {
    let database = TestDatabase::new(None).await;
    let topic = "select realtime.topic()";
    assert_eq!(
        database.text("select realtime.topic() is null").await,
        "true"
    );
    database.execute("set realtime.topic = 'room:7'").await;
    assert_eq!(database.text(topic).await, "room:7");
    database.execute("set realtime.topic = ''").await;
    assert_eq!(
        database.text("select realtime.topic() is null").await,
        "true"
    );
    let volatility = "select provolatile::text || ' ' || prorettype::regtype from pg_proc where oid = 'realtime.topic()'::regprocedure";
    assert_eq!(database.text(volatility).await, "s text");
}

#[tokio::test]
async fn the_functions_that_send_have_the_names_and_defaults_of_the_contract() {
    let database = TestDatabase::new(None).await;
    let functions = said(
        &database,
        "select proname as name, pg_get_function_arguments(oid) as takes, prorettype::regtype as gives, prosecdef as definer,
                has_function_privilege('anon', oid, 'EXECUTE') and has_function_privilege('authenticated', oid, 'EXECUTE') as open,
                (select lanname from pg_language where oid = prolang) as language
           from pg_proc where pronamespace = 'realtime'::regnamespace and proname <> 'topic' order by proname",
    )
    .await;
    let function = |name: &str, takes: &str| json!({"name": name, "takes": takes, "gives": "void", "definer": false, "open": true, "language": "plpgsql"});
    assert_eq!(
        functions,
        json!([
            function(
                "broadcast_changes",
                "topic_name text, event_name text, operation text, table_name text, table_schema text, new record, old record, level text DEFAULT 'ROW'::text"
            ),
            function(
                "send",
                "payload jsonb, event text, topic text, private boolean DEFAULT true"
            ),
            function(
                "send_binary",
                "payload bytea, event text, topic text, private boolean DEFAULT true"
            ),
        ])
    );
    // In named notation. The topic stays set for the rest of the transaction.
    database
        .execute(
            "select realtime.send(payload => '{\"a\": 1}', event => 'e', topic => 'one', private => false);
             select realtime.send_binary(topic => 'two', event => 'e', payload => '\\x00ff');
             begin; select realtime.send('{}', 'e', 'three');
             insert into realtime.messages (topic, extension, event) values (coalesce(realtime.topic(), 'none'), 'broadcast', 'direct'); commit",
        )
        .await;
    let rows = said(
        &database,
        "select topic, extension, event, private, payload, encode(binary_payload, 'hex') as bytes,
                payload ->> 'id' = id::text as has_id from realtime.messages order by topic, event desc",
    )
    .await;
    let rows = rows.as_array().expect("rows");
    assert_eq!(rows.len(), 4, "{rows:?}");
    for (row, topic, private, bytes) in [
        (&rows[0], "one", false, json!(null)),
        (&rows[3], "two", true, json!("00ff")),
        (&rows[1], "three", true, json!(null)),
    ] {
        assert_eq!(
            (
                &row["topic"],
                &row["extension"],
                &row["event"],
                &row["private"],
                &row["bytes"]
            ),
            (
                &json!(topic),
                &json!("broadcast"),
                &json!("e"),
                &json!(private),
                &bytes
            )
        );
    }
    assert_eq!(
        (&rows[0]["has_id"], &rows[0]["payload"]["a"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(rows[3]["payload"], json!(null), "nothing is added to bytes");
    assert_eq!(
        (&rows[2]["topic"], &rows[2]["event"]),
        (&json!("three"), &json!("direct"))
    );
}

#[tokio::test]
async fn a_payload_that_is_null_is_stored_and_not_broadcast() {
    let database = TestDatabase::new(None).await;
    let gateway = TestGateway::start(&database).await;
    let mut service = Client::v1(&gateway, &service_role()).await;
    let config = json!({"private": true, "presence": {"enabled": false}});
    let channel = service.joined("room", config).await;
    database
        .execute("select realtime.send(null, 'nothing', 'room'), realtime.send_binary(null, 'nothing', 'room'), realtime.send('{}', 'end', 'room')")
        .await;
    let got = service.event(&channel, "broadcast").await.payload;
    assert_eq!(got["event"], "end");
    let stored = "select count(*) from realtime.messages where event = 'nothing' and payload is null and binary_payload is null";
    assert_eq!(database.text(stored).await, "2");
}

#[tokio::test]
async fn a_trigger_that_broadcasts_wrongly_aborts_the_statement() {
    let database = TestDatabase::new(None).await;
    database
        .execute(
            "create table notes (id int);
             create function tell() returns trigger language plpgsql as $$
             begin
               perform realtime.broadcast_changes(topic_name => 't', event_name => 'e', operation => tg_argv[0], table_name => tg_table_name,
                                                  table_schema => tg_table_schema, new => new, old => null, level => tg_argv[1]);
               return new;
             end $$",
        )
        .await;
    for (operation, level, stored) in [
        ("INSERT", "ROW", "1"),
        ("INSERT", "STATEMENT", "0"),
        ("TRUNCATE", "ROW", "0"),
        ("insert", "ROW", "0"),
    ] {
        database
            .execute(&format!(
                "truncate notes; create or replace trigger tell after insert on notes for each row execute function tell('{operation}', '{level}')"
            ))
            .await;
        let code = refused(&database, "insert into notes values (1)").await;
        assert_eq!(
            code.is_empty(),
            stored == "1",
            "{operation} {level}: {code}"
        );
        assert_eq!(
            database.text("select count(*) from notes").await,
            stored,
            "{operation} {level}"
        );
    }
}

#[tokio::test]
async fn claims_are_found_in_settings_of_their_own_then_among_all_claims() {
    let database = TestDatabase::new(None).await;
    let uuid = |n: u8| format!("00000000-0000-4000-8000-00000000000{n}");
    let volatility = said(
        &database,
        "select proname as name, prorettype::regtype as gives, provolatile as volatility, pronargs as takes
           from pg_proc where pronamespace = 'auth'::regnamespace order by proname",
    )
    .await;
    let function = |name: &str, gives: &str| json!({"name": name, "gives": gives, "volatility": "s", "takes": 0});
    assert_eq!(
        volatility,
        json!([
            function("email", "text"),
            function("jwt", "jsonb"),
            function("role", "text"),
            function("uid", "uuid")
        ])
    );
    let claims = async || {
        said(
            &database,
            "select auth.uid() as uid, auth.role() as role, auth.email() as email, auth.jwt() as jwt",
        )
        .await[0]
            .take()
    };
    let nothing = json!({"uid": null, "role": null, "email": null, "jwt": null});
    assert_eq!(claims().await, nothing);
    let all = json!({"sub": uuid(1), "role": "r1", "email": "e1"});
    database
        .execute(&format!("set request.jwt.claims = '{all}'"))
        .await;
    assert_eq!(
        claims().await,
        json!({"uid": uuid(1), "role": "r1", "email": "e1", "jwt": all})
    );
    // Their own settings come first; empty ones do not count.
    database
        .execute(&format!(
            "set request.jwt.claim.sub = '{}'; set request.jwt.claim.role = 'r2'; set request.jwt.claim.email = 'e2'; set request.jwt.claim = '{{\"x\": 1}}'",
            uuid(2)
        ))
        .await;
    assert_eq!(
        claims().await,
        json!({"uid": uuid(2), "role": "r2", "email": "e2", "jwt": {"x": 1}})
    );
    database
        .execute("set request.jwt.claim.sub = ''; set request.jwt.claim.role = ''; set request.jwt.claim.email = ''; set request.jwt.claim = ''")
        .await;
    assert_eq!(claims().await["uid"], *uuid(1));
    assert_eq!(claims().await["jwt"], all);
    database.execute("set request.jwt.claims = ''").await;
    assert_eq!(claims().await, nothing);
    let no_uuid = r#"set request.jwt.claims = '{"sub": "usr_1"}'; select auth.uid()"#;
    assert_eq!(refused(&database, no_uuid).await, "22P02");
}

/// A policy that calls `auth.uid()` fails for a subject that is no UUID, and that means no.
#[tokio::test]
async fn a_subject_that_is_no_uuid_fails_in_policies_that_ask_for_one() {
    let database = TestDatabase::new(None).await;
    database
        .execute(
            "create table notes (id int primary key, owner uuid); alter table notes enable row level security;
             create policy own on notes for select to authenticated using (owner = auth.uid());
             grant select on notes to authenticated, service_role; select tidings.watch('notes')",
        )
        .await;
    let gateway = TestGateway::start(&database).await;
    let owner = "00000000-0000-4000-8000-000000000001";
    let all = || json!([binding("*", "notes", None)]);
    let mut clients = Vec::new();
    for sub in [owner, "usr_1"] {
        let mut client = Client::v2(&gateway, &authenticated(sub)).await;
        let config = json!({"postgres_changes": all(), "presence": {"enabled": false}});
        let (channel, _) = client.join("notes", json!({"config": config})).await;
        clients.push((client, channel));
    }
    let mut service = Client::v2(&gateway, &service_role()).await;
    let s = service.subscribe("notes", all()).await;
    let [(mine, m), (stranger, _)] = &mut clients[..] else {
        panic!("two clients");
    };
    mine.live(m).await;
    database
        .execute(&format!("insert into notes values (1, '{owner}')"))
        .await;
    assert_eq!(mine.change(m).await["record"]["id"], 1);
    service.change(&s).await;
    let seen = stranger.until_heartbeat().await;
    assert!(
        seen.iter().all(|incoming| !matches!(incoming, Incoming::Message(message) if message.event == "postgres_changes")),
        "{seen:?}"
    );
}

#[tokio::test]
async fn the_publication_is_there_and_empty_and_tables_come_and_go() {
    let database = TestDatabase::new(None).await;
    let publication = said(
        &database,
        "select puballtables, pubinsert, pubupdate, pubdelete, (select count(*) from pg_publication_tables where pubname = 'supabase_realtime') as tables
           from pg_publication where pubname = 'supabase_realtime'",
    )
    .await;
    assert_eq!(
        publication,
        json!([{"puballtables": false, "pubinsert": true, "pubupdate": true, "pubdelete": true, "tables": 0}])
    );
    database
        .execute(
            "create table one (id int primary key); create table two (id int primary key); grant select on one, two to anon",
        )
        .await;
    let gateway = TestGateway::start(&database).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    for (command, table) in [
        ("add table one", "one"),
        ("set table two", "two"),
        ("add table one", "one"),
    ] {
        database
            .execute(&format!("alter publication supabase_realtime {command}"))
            .await;
        let config = json!({"postgres_changes": [binding("*", table, None)], "presence": {"enabled": false}});
        let channel = client.joined(table, config).await;
        // A table that is busy is watched a moment later, and then the channel hears of it.
        while client.event(&channel, "system").await.payload["status"] != "ok" {}
        database
            .execute(&format!(
                "insert into {table} select coalesce(max(id), 0) + 1 from {table}"
            ))
            .await;
        assert_eq!(client.change(&channel).await["table"], table);
    }
}
