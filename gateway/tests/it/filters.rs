//! What filters match: as PostgreSQL would say, live and in the history, whoever evaluates them.

mod published;
mod refused;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{Channel, Client, TestDatabase, TestGateway, binding, token::anon};

/// Filters, and the rows that match.
type Cases = &'static [(&'static str, &'static [i64])];

/// A table in which row 9 is the end, and is not counted.
async fn table(database: &TestDatabase, columns: &str) {
    database
        .execute(&format!(
            "create table things (id int primary key, {columns}); grant select on things to anon, authenticated; select tidings.watch('things')"
        ))
        .await;
}

/// All filters as bindings of one channel, each with its id, and one for row 9.
async fn listen(client: &mut Client, cases: Cases) -> (Channel, Vec<u64>) {
    let filters = cases.iter().map(|(filter, _)| *filter).chain(["id=eq.9"]);
    let bindings: Vec<_> = filters
        .map(|filter| binding("*", "things", Some(filter)))
        .collect();
    let config = json!({"postgres_changes": bindings, "presence": {"enabled": false}});
    let (channel, reply) = client.join("all", json!({"config": config})).await;
    client.live(&channel).await;
    let bound = reply["response"]["postgres_changes"].as_array();
    let ids = bound.expect("bindings").iter();
    let ids = ids.map(|binding| binding["id"].as_u64().expect("an id"));
    (channel, ids.collect())
}

/// Which rows reached which filter, up to row 9.
async fn matched(
    client: &mut Client,
    (channel, ids): &(Channel, Vec<u64>),
    cases: Cases,
) -> BTreeMap<&'static str, Vec<i64>> {
    let mut matched: BTreeMap<_, Vec<i64>> =
        cases.iter().map(|(filter, _)| (*filter, vec![])).collect();
    loop {
        let message = client.event(channel, "postgres_changes").await;
        let data = &message.payload["data"];
        let row = data.get("record").unwrap_or(&data["old_record"]);
        let id = row["id"].as_i64().expect("an id");
        if id == 9 {
            return matched;
        }
        let told: Vec<u64> = serde_json::from_value(message.payload["ids"].clone()).expect("ids");
        for ((filter, _), own) in cases.iter().zip(ids) {
            if told.contains(own) {
                matched.get_mut(filter).expect("a filter").push(id);
            }
        }
    }
}

/// Live, as history, and when the rows are deleted.
async fn check(database: &TestDatabase, rows: &str, cases: Cases) {
    let gateway = TestGateway::start(database).await;
    let expected: BTreeMap<_, Vec<i64>> = cases
        .iter()
        .map(|(filter, ids)| (*filter, ids.to_vec()))
        .collect();
    let mut client = Client::v2(&gateway, &anon()).await;
    let channel = listen(&mut client, cases).await;
    database
        .execute(&format!(
            "insert into things values {rows}; insert into things (id) values (9)"
        ))
        .await;
    assert_eq!(
        matched(&mut client, &channel, cases).await,
        expected,
        "live"
    );

    for (filter, expected) in cases {
        let mut wanted = binding("INSERT", "things", Some(filter));
        wanted["history"] = 50.into();
        wanted["order"] = "id".into();
        let config = json!({"postgres_changes": [wanted], "presence": {"enabled": false}});
        let channel = client.joined("history", config).await;
        let mut found = Vec::new();
        loop {
            let message = client
                .expect("a row or the end of them", |message| {
                    message.topic == channel.topic
                        && ["postgres_changes", "system"].contains(&&*message.event)
                })
                .await;
            if message.event == "system" {
                assert_eq!(message.payload["status"], "ok", "{filter}: {message:?}");
                break;
            }
            let id = message.payload["data"]["record"]["id"].as_i64();
            found.extend(id.filter(|id| *id != 9));
        }
        assert_eq!(found, *expected, "history of {filter}");
    }

    database
        .execute("delete from things where id <> 9; delete from things")
        .await;
    let deleted = matched(&mut client, &channel, cases).await;
    assert_eq!(deleted, expected, "deleted");
}

#[tokio::test]
async fn null_counts_as_no_whoever_evaluates_the_filter() {
    let database = TestDatabase::new(None).await;
    // Of the first two the gateway tells by itself, of the others PostgreSQL.
    table(&database, "i int, t text, n numeric, v varchar(3), b bool").await;
    check(
        &database,
        "(1, 1, 'a', 1, 'a', true), (2, 2, 'b', 2.0, 'b', false), (3, null, null, null, null, null)",
        &[
            ("i=eq.1", &[1]),
            ("n=eq.1.0", &[1]),
            ("t=neq.a", &[2]),
            ("n=neq.1", &[2]),
            ("i=not.eq.1", &[2]),
            ("n=not.eq.1", &[2]),
            ("i=not.neq.1", &[1]),
            ("n=not.neq.1", &[1]),
            ("i=lt.2", &[1]),
            ("n=lt.2", &[1]),
            ("i=not.lt.2", &[2]),
            ("n=not.lt.2", &[2]),
            ("i=lte.2", &[1, 2]),
            ("i=gt.1", &[2]),
            ("i=gte.1", &[1, 2]),
            ("i=not.gte.2", &[1]),
            ("t=lt.b", &[1]),
            ("t=gte.b", &[2]),
            ("i=in.(1,3)", &[1]),
            ("i=in.(2,1,2)", &[1, 2]),
            ("n=in.(1,3)", &[1]),
            ("i=not.in.(1,3)", &[2]),
            ("n=not.in.(1,3)", &[2]),
            ("i=in.(1,NULL)", &[1]),
            ("n=in.(1,null)", &[1]),
            ("i=not.in.(1,NULL)", &[]),
            ("n=not.in.(1,NULL)", &[]),
            ("i=in.()", &[]),
            ("n=in.()", &[]),
            ("i=is.null", &[3]),
            ("n=is.null", &[3]),
            ("i=not.is.null", &[1, 2]),
            ("n=not.is.null", &[1, 2]),
            ("i=isdistinct.1", &[2, 3]),
            ("n=isdistinct.1", &[2, 3]),
            ("i=not.isdistinct.1", &[1]),
            ("n=not.isdistinct.1", &[1]),
            // The text, not NULL.
            ("t=isdistinct.null", &[1, 2, 3]),
            ("t=eq.null", &[]),
            ("t=not.like.a", &[2]),
            ("t=like.%", &[1, 2]),
            ("t=ilike.A", &[1]),
            ("t=match.^[ab]$", &[1, 2]),
            ("t=not.match.^a", &[2]),
            ("t=imatch.^A", &[1]),
            ("v=eq.a", &[1]),
            // Longer than the column allows, and so equal to nothing.
            ("v=eq.abcd", &[]),
            ("v=like.a%", &[1]),
            ("b=eq.true", &[1]),
            ("b=eq.t", &[1]),
            ("b=is.true", &[1]),
            ("b=is.false", &[2]),
            ("b=is.unknown", &[3]),
            ("b=not.is.true", &[2, 3]),
            ("b=not.is.unknown", &[1, 2]),
            ("b=lt.true", &[2]),
            ("i=gt.0,n=lt.2", &[1]),
            ("i=in.(1,2),t=in.(b,c),n=gte.2", &[2]),
            ("i=eq.1,i=eq.2", &[]),
            ("n=gt.0,t=like.b%,b=is.false", &[2]),
        ],
    )
    .await;
}

#[tokio::test]
async fn each_type_is_compared_by_its_own_rules_whatever_the_settings_of_the_database() {
    let database = TestDatabase::new(None).await;
    let name = database.text("current_database()").await;
    for setting in [
        "timezone = 'Asia/Kathmandu'",
        "datestyle = 'SQL, DMY'",
        "intervalstyle = 'sql_standard'",
        "bytea_output = 'escape'",
        "extra_float_digits = -5",
        "search_path = 'elsewhere'",
    ] {
        database
            .execute(&format!("alter database {name} set {setting}"))
            .await;
    }
    database
        .execute(
            "create schema extensions; grant usage on schema extensions to public;
             create extension citext schema extensions; create extension hstore;
             create type mood as enum ('sad', 'fine');
             create domain code as text check (value ~ '^[a-z]+$');
             create domain price as numeric not null;
             create collation loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        )
        .await;
    table(
        &database,
        "at timestamptz, local timestamp, took interval, c extensions.citext, l text collate loose, x text collate \"C\", y text collate \"en-x-icu\",
         m mood, d code, p price default 0, f char(3), a int[], h hstore, r tstzrange, j jsonb, bytes bytea, fl float8, raw json",
    )
    .await;
    check(
        &database,
        r#"(1, '2026-01-01 10:00+00', '2026-01-01 10:00', '1 day', 'Ada', 'Ada', 'B', 'B', 'sad', 'one', 1.50, 'ab', '{1,2}', 'a=>1', '[2026-01-01 00:00+00,)', '{"a":1.0}', '\x00ff', 0.1::float8 + 0.2::float8, '{"a":"\u0000"}'),
           (2, '2026-01-02 10:00+00', '2026-01-02 10:00', '-1 day -02:00', 'BOB', 'bob', 'a', 'a', 'fine', 'two', 2, 'abc', '{2}', 'b=>NULL', 'empty', '{"a":2}', '\x01', 'NaN', '{"a": 1}')"#,
        &[
            // Without a zone it is UTC, wherever it is evaluated.
            ("at=eq.2026-01-01 10:00", &[1]),
            ("at=eq.2026-01-01T15:45:00+05:45", &[1]),
            ("at=gt.2026-01-01T10:00:00.001Z", &[2]),
            // Month first.
            ("at=eq.01/02/2026 10:00", &[2]),
            ("local=gte.2026-01-02", &[2]),
            ("took=eq.24:00:00", &[1]),
            ("took=eq.-26:00:00", &[2]),
            ("took=lt.0", &[2]),
            ("c=eq.ADA", &[1]),
            ("c=in.(ada,bob)", &[1, 2]),
            ("c=like.a%", &[1]),
            ("c=match.^bob$", &[2]),
            ("c=neq.ada", &[2]),
            ("c=isdistinct.ADA", &[2]),
            ("l=eq.ada", &[1]),
            ("l=in.(BOB,x)", &[2]),
            ("l=not.eq.ADA", &[2]),
            ("x=lt.a", &[1]),
            ("y=lt.B", &[2]),
            ("m=eq.fine", &[2]),
            ("m=lt.fine", &[1]),
            ("m=in.(sad)", &[1]),
            ("m=like.f%", &[2]),
            ("d=eq.one", &[1]),
            ("d=in.(one,two)", &[1, 2]),
            ("d=ilike.T%", &[2]),
            ("p=gt.1.5", &[2]),
            ("p=eq.1.5", &[1]),
            ("f=eq.ab", &[1]),
            ("f=like.\"ab \"", &[1]),
            ("f=in.(ab,abc)", &[1, 2]),
            ("a=eq.\"{1,2}\"", &[1]),
            ("a=in.(\"{2}\",\"{3}\")", &[2]),
            ("h=eq.a=>1", &[1]),
            ("h=neq.a=>1", &[2]),
            ("r=eq.\"[2026-01-01 00:00,)\"", &[1]),
            ("r=eq.empty", &[2]),
            ("j=eq.{\"a\":1}", &[1]),
            ("bytes=eq.\"\\\\x00ff\"", &[1]),
            ("fl=eq.0.30000000000000004", &[1]),
            ("fl=eq.NaN", &[2]),
            ("fl=gt.1", &[2]),
            ("raw=not.is.null", &[1, 2]),
            // PostgreSQL cannot read the other column of the first row.
            ("p=lt.2,raw=not.is.null", &[1]),
        ],
    )
    .await;
}

#[tokio::test]
async fn nobody_elses_operators_and_casts_see_a_filter() {
    let database = TestDatabase::new(None).await;
    database
        .execute(
            "create domain code as text; create type mood as enum ('fine', 'sad');
             create table seen (what text);
             create function spy(text, text) returns boolean language plpgsql as $$ begin insert into public.seen values ($1); return true; end $$;
             create function spy(code, code) returns boolean language plpgsql as $$ begin insert into public.seen values ($1); return true; end $$;
             create function spy(mood, mood) returns boolean language plpgsql as $$ begin insert into public.seen values ($1::text); return true; end $$;
             create function spy(varchar, varchar) returns boolean language plpgsql as $$ begin insert into public.seen values ($1::text); return true; end $$;
             create function spy(mood) returns text language plpgsql as $$ begin insert into public.seen values ('cast'); return 'fine'; end $$;
             create operator = (leftarg = code, rightarg = code, function = spy);
             create operator = (leftarg = varchar, rightarg = varchar, function = spy);
             create operator = (leftarg = mood, rightarg = mood, function = spy);
             create operator ~~ (leftarg = code, rightarg = code, function = spy);
             create operator ~~ (leftarg = text, rightarg = text, function = spy);
             create operator ~~ (leftarg = varchar, rightarg = varchar, function = spy);
             create operator < (leftarg = varchar, rightarg = varchar, function = spy)",
        )
        .await;
    table(&database, "v varchar, d code, m mood").await;
    check(
        &database,
        "(1, 'a', 'a', 'fine'), (2, 'b', 'b', 'sad')",
        &[
            ("v=eq.a,d=like.%", &[1]),
            ("v=lt.b", &[1]),
            ("d=eq.a", &[1]),
            ("d=in.(b,c)", &[2]),
            ("d=like.b", &[2]),
            ("v=like.b", &[2]),
            ("m=eq.fine,v=like.%", &[1]),
            ("m=in.(sad),v=like.%", &[2]),
            ("m=like.sad", &[2]),
        ],
    )
    .await;
    assert_eq!(database.text("select count(*) from seen").await, "0");
}
