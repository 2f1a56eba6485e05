//! Every type of PostgreSQL, from the row to the client and from the client's filter to the row.

use std::collections::HashMap;

use futures::StreamExt;
use protocol::Version;
use serde_json::{Value, json, value::RawValue};
use tokio_tungstenite::tungstenite;

use crate::support::{
    Client, Incoming, TestDatabase, TestGateway, binding, token::anon, wait::PATIENCE,
};

const SETUP: &str = r#"
create type mood as enum ('fine', 'sad');
create type pair as (a int, b text);
create type span as range (subtype = float8);
create domain small as int check (value < 10);
create domain smaller as small check (value < 8);
create domain ints as int[];
create domain secret as bytea;
create domain feeling as mood;
create domain present as text not null;
create collation loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
"#;

/// Type, a literal as a session in UTC reads it, and the JSON text. Spaces do not count.
const VALUES: &[(&str, &str, &str)] = &[
    ("int2", "-32768", "-32768"),
    ("int4", "2147483647", "2147483647"),
    ("int8", "9223372036854775807", "9223372036854775807"),
    ("int8", "9007199254740993", "9007199254740993"),
    ("numeric", "12.50", "12.50"),
    (
        "numeric",
        "123456789012345678901234567890.1234500",
        "123456789012345678901234567890.1234500",
    ),
    ("numeric(6,3)", "1.5", "1.500"),
    ("numeric", "'NaN'", "null"),
    ("numeric", "'Infinity'", "null"),
    ("float4", "0.1", "0.1"),
    ("float4", "'NaN'", "null"),
    ("float8", "0.1::float8 + 0.2::float8", "0.30000000000000004"),
    ("float8", "1e22", "1e+22"),
    ("float8", "'-Infinity'", "null"),
    (
        "float8[]",
        "'{NaN,1.5,NULL,-Infinity}'",
        "[null,1.5,null,null]",
    ),
    ("numeric[]", "'{{1.50,NaN},{2,3}}'", "[[1.50,null],[2,3]]"),
    ("money", "1234.50", r#""$1,234.50""#),
    ("bool", "false", "false"),
    (
        "text",
        "E'a\"b\\\\c\\n\u{1f600}'",
        "\"a\\\"b\\\\c\\n\u{1f600}\"",
    ),
    ("text", "''", r#""""#),
    ("text", "null", "null"),
    ("text collate loose", "'Ärger'", r#""Ärger""#),
    ("varchar(9)", "'varch'", r#""varch""#),
    ("char(3)", "'ab'", r#""ab ""#),
    ("char(3)[]", "'{ab}'", r#"["ab "]"#),
    ("name", "'a name'", r#""a name""#),
    (r#""char""#, "'x'", r#""x""#),
    ("citext", "'MiXed'", r#""MiXed""#),
    ("citext[]", "'{A,b}'", r#"["A","b"]"#),
    ("bytea", r"'\x00ff5c'", r#""00ff5c""#),
    ("bytea[]", r#"'{"\\x01","\\xff"}'"#, r#"["\\x01","\\xff"]"#),
    ("secret", r"'\x0102'", r#""0102""#),
    (
        "uuid",
        "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
        r#""a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11""#,
    ),
    (
        "jsonb",
        r#"'{"b":1,"a":[1,2.50,null]}'"#,
        r#"{"a":[1,2.50,null],"b":1}"#,
    ),
    ("jsonb", "'\"123\"'", r#""123""#),
    // As it was written: what is equal for every reader of JSON is not written anew.
    (
        "json",
        r#"'{"b":1e2, "a":"\u0000", "a":2}'"#,
        r#"{"b":1e2,"a":"\u0000","a":2}"#,
    ),
    ("json[]", r#"'{"{\"a\": 1}",NULL}'"#, r#"[{"a":1},null]"#),
    ("mood", "'fine'", r#""fine""#),
    (
        "mood[]",
        "'{{fine,sad},{sad,NULL}}'",
        r#"[["fine","sad"],["sad",null]]"#,
    ),
    ("feeling", "'sad'", r#""sad""#),
    ("small", "9", "9"),
    ("smaller", "7", "7"),
    ("smaller[]", "'{1,2}'", "[1,2]"),
    ("ints", "'{1,NULL}'", "[1,null]"),
    ("present", "'here'", r#""here""#),
    ("pair", "row(1, 'x,y')", r#"{"a":1,"b":"x,y"}"#),
    ("pair", "row(null, null)", r#"{"a":null,"b":null}"#),
    (
        "pair[]",
        "array[row(1, 'x')::pair, null]",
        r#"[{"a":1,"b":"x"},null]"#,
    ),
    ("date", "'2024-02-29'", r#""2024-02-29""#),
    ("date", "'0044-03-15 BC'", r#""0044-03-15 BC""#),
    ("date", "'-infinity'", r#""-infinity""#),
    ("date", "'12345-01-01'", r#""12345-01-01""#),
    ("time", "'13:14:15.123456'", r#""13:14:15.123456""#),
    ("timetz", "'13:14:15.5+02'", r#""13:14:15.5+02""#),
    (
        "timestamp",
        "'2024-01-02 03:04:05.678'",
        r#""2024-01-02T03:04:05.678""#,
    ),
    ("timestamp", "'infinity'", r#""infinity""#),
    (
        "timestamptz",
        "'2024-01-02 03:04:05.678+02'",
        r#""2024-01-02T01:04:05.678+00:00""#,
    ),
    (
        "timestamptz",
        "'0044-03-15 00:00:00+00 BC'",
        r#""0044-03-15T00:00:00+00:00 BC""#,
    ),
    ("timestamptz", "'-infinity'", r#""-infinity""#),
    (
        "timestamptz[]",
        "'{2024-02-01 00:00:00+00}'",
        r#"["2024-02-01T00:00:00+00:00"]"#,
    ),
    ("interval", "'1 day 02:03:04.5'", r#""1 day 02:03:04.5""#),
    (
        "interval",
        "'1 year 2 mons -3 days +04:05:06.789'",
        r#""1 year 2 mons -3 days +04:05:06.789""#,
    ),
    ("int[]", "'{{1,2},{3,NULL}}'", "[[1,2],[3,null]]"),
    ("int[]", "'{}'", "[]"),
    (
        "text[]",
        r#"'{"a b","c,d",NULL,"NULL"}'"#,
        r#"["a b","c,d",null,"NULL"]"#,
    ),
    ("int4range", "'[1,4]'", r#""[1,5)""#),
    ("int8range", "'empty'", r#""empty""#),
    ("numrange", "'(1.5,]'", r#""(1.5,)""#),
    (
        "daterange",
        "'[2024-02-01,2024-02-03)'",
        r#""[2024-02-01,2024-02-03)""#,
    ),
    (
        "tsrange",
        "'[2024-01-01 00:00,2024-01-02 00:00]'",
        r#""[\"2024-01-01 00:00:00\",\"2024-01-02 00:00:00\"]""#,
    ),
    (
        "tstzrange",
        "'[2024-01-01 00:00+00,)'",
        r#""[\"2024-01-01 00:00:00+00\",)""#,
    ),
    ("span", "'[0.1,2)'", r#""[0.1,2)""#),
    ("int4range[]", r#"'{"[1,2)"}'"#, r#"["[1,2)"]"#),
    ("int4multirange", "'{[5,9),[1,3)}'", r#""{[1,3),[5,9)}""#),
    ("datemultirange", "'{}'", r#""{}""#),
    (
        "tstzmultirange",
        "'{[2024-01-01 00:00+00,)}'",
        r#""{[\"2024-01-01 00:00:00+00\",)}""#,
    ),
    ("inet", "'10.0.0.1/8'", r#""10.0.0.1/8""#),
    ("inet", "'10.0.0.1/32'", r#""10.0.0.1""#),
    ("cidr", "'10.1.0.0/16'", r#""10.1.0.0/16""#),
    ("macaddr", "'08-00-2B-01-02-03'", r#""08:00:2b:01:02:03""#),
    (
        "macaddr8",
        "'08:00:2b:01:02:03:04:05'",
        r#""08:00:2b:01:02:03:04:05""#,
    ),
    ("bit(3)", "B'101'", r#""101""#),
    ("varbit", "B'1011'", r#""1011""#),
    ("xml", "'<a b=\"c\"/>'", r#""<a b=\"c\"/>""#),
    ("tsvector", "'fat:1A cat:2'", r#""'cat':2 'fat':1A""#),
    ("tsquery", "'fat & !cat:*'", r#""'fat' & !'cat':*""#),
    ("point", "'(1,2)'", r#""(1,2)""#),
    ("line", "'{1,-1,0}'", r#""{1,-1,0}""#),
    ("lseg", "'[(0,0),(1,1)]'", r#""[(0,0),(1,1)]""#),
    ("box", "'(1,1),(0,0)'", r#""(1,1),(0,0)""#),
    ("path", "'[(0,0),(1,1)]'", r#""[(0,0),(1,1)]""#),
    (
        "polygon",
        "'((0,0),(1,1),(1,0))'",
        r#""((0,0),(1,1),(1,0))""#,
    ),
    ("circle", "'<(0,0),2>'", r#""<(0,0),2>""#),
    ("hstore", "'a=>1,b=>NULL'", r#"{"a":"1","b":null}"#),
    ("hstore", "''", "{}"),
    ("pg_lsn", "'16/B374D848'", r#""16/B374D848""#),
    (
        "jsonpath",
        "'$.a[*]?(@.b>1)'",
        r#""$.\"a\"[*]?(@.\"b\" > 1)""#,
    ),
    ("oid", "12345", r#""12345""#),
    ("xid", "'5'", r#""5""#),
    ("regclass", "'pg_class'", r#""pg_class""#),
    ("regclass", "'things'", r#""public.things""#),
    ("regtype", "'int4'", r#""integer""#),
    ("txid_snapshot", "'10:20:10,14'", r#""10:20:10,14""#),
    ("pg_snapshot", "'10:20:10,14'", r#""10:20:10,14""#),
    ("int generated always as (id * 2) stored", "", "14"),
    ("int generated always as identity", "", "1"),
];

/// Types that PostgreSQL cannot compare.
const WITHOUT_EQUALITY: &[&str] = &[
    "json",
    "json[]",
    "xml",
    "point",
    "polygon",
    "jsonpath",
    "txid_snapshot",
    "pg_snapshot",
];

async fn everything() -> (TestDatabase, TestGateway) {
    let database = TestDatabase::new(None).await;
    for extension in ["citext", "hstore"] {
        let created = database
            .client
            .batch_execute(&format!("create extension {extension}"))
            .await;
        created.unwrap_or_else(|error| {
            panic!("extension {extension} is part of PostgreSQL's contrib, which has to be installed (Debian: it is in the package postgresql-<version>, elsewhere postgresql-contrib): {error:?}")
        });
    }
    database.execute(SETUP).await;
    let columns: Vec<_> = VALUES
        .iter()
        .enumerate()
        .map(|(n, (kind, ..))| format!("c{n} {kind}, gone{n} int"))
        .collect();
    let dropped: Vec<_> = (0..VALUES.len())
        .map(|n| format!("drop column gone{n}"))
        .collect();
    database
        .execute(&format!(
            "create table things (id int primary key, {}, t text);
             alter table things {};
             grant select on things to anon;
             alter publication supabase_realtime add table things",
            columns.join(", "),
            dropped.join(", ")
        ))
        .await;
    let gateway = TestGateway::start(&database).await;
    (database, gateway)
}

async fn insert(database: &TestDatabase) {
    let given = || {
        VALUES
            .iter()
            .enumerate()
            .filter(|(_, (_, literal, _))| !literal.is_empty())
    };
    let names: Vec<_> = given().map(|(n, _)| format!("c{n}")).collect();
    let literals: Vec<_> = given().map(|(_, (_, literal, _))| *literal).collect();
    database
        .execute(&format!(
            "set timezone = 'UTC'; insert into things (id, {}) values (7, {})",
            names.join(", "),
            literals.join(", ")
        ))
        .await;
}

/// JSON without the spaces between its tokens.
fn squeezed(json: &str) -> String {
    let (mut quoted, mut escaped) = (false, false);
    json.chars()
        .filter(|char| {
            match char {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => quoted = !quoted,
                _ => {}
            }
            quoted || !char.is_ascii_whitespace()
        })
        .collect()
}

/// The next change as it was sent: numbers with all their digits.
async fn raw_change(client: &mut Client) -> HashMap<String, Box<RawValue>> {
    type Raw = HashMap<String, Box<RawValue>>;
    loop {
        let frame = tokio::time::timeout(PATIENCE, client.socket.next())
            .await
            .expect("a frame in time")
            .expect("an open socket")
            .expect("a frame");
        let tungstenite::Message::Text(text) = frame else {
            continue;
        };
        let message: Vec<Box<RawValue>> = serde_json::from_str(&text).expect("a message");
        if message[3].get() == "\"postgres_changes\"" {
            let payload: Raw = serde_json::from_str(message[4].get()).expect("a payload");
            return serde_json::from_str(payload["data"].get()).expect("the data");
        }
    }
}

#[tokio::test]
async fn every_type_arrives_as_the_protocol_writes_it_in_all_three_events() {
    let (database, gateway) = everything().await;
    let mut client = Client::v2(&gateway, &anon()).await;
    client
        .subscribe("things", json!([binding("*", "things", None)]))
        .await;
    insert(&database).await;
    database
        .execute("update things set t = 'x'; delete from things")
        .await;
    let types = database
        .text("select json_agg(json_build_object('name', attname, 'type', typname) order by attnum) from pg_attribute a join pg_type t on t.oid = atttypid where attrelid = 'things'::regclass and attnum > 0 and not attisdropped")
        .await;
    let types: Vec<Value> = serde_json::from_str(&types).expect("columns");
    for (column, kind) in [
        ("float8[]", "_float8"),
        ("char(3)", "bpchar"),
        ("smaller", "smaller"),
        ("feeling", "feeling"),
        ("pair", "pair"),
        ("hstore", "hstore"),
    ] {
        let n = VALUES
            .iter()
            .position(|(kind, ..)| *kind == column)
            .expect("a column");
        assert!(types.contains(&json!({"name": format!("c{n}"), "type": kind})));
    }
    for (kind, rows) in [
        ("INSERT", &["record"][..]),
        ("UPDATE", &["record", "old_record"]),
        ("DELETE", &["old_record"]),
    ] {
        let change = raw_change(&mut client).await;
        assert_eq!(change["type"].get(), format!("\"{kind}\""));
        assert_eq!(change["errors"].get(), "null");
        let columns: Vec<Value> = serde_json::from_str(change["columns"].get()).expect("columns");
        assert_eq!(columns, types, "{kind}");
        for image in ["record", "old_record"] {
            let row = change.get(image);
            assert_eq!(row.is_some(), rows.contains(&image), "{image} of {kind}");
            let Some(row) = row else { continue };
            let row: HashMap<String, Box<RawValue>> =
                serde_json::from_str(row.get()).expect("a row");
            assert_eq!(row.len(), VALUES.len() + 2, "dropped columns leave nothing");
            for (n, (kind, literal, expected)) in VALUES.iter().enumerate() {
                assert_eq!(
                    squeezed(row[&format!("c{n}")].get()),
                    squeezed(expected),
                    "{kind}: {literal}, {image}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_value_matches_the_filter_that_has_its_text_and_no_other() {
    let (database, gateway) = everything().await;
    insert(&database).await;
    // Names of tables are written with their schema, as the log has them.
    database.execute("set search_path = ''").await;
    let (mut wanted, mut unwanted, mut nulls) = (Vec::new(), Vec::new(), Vec::new());
    for (n, (kind, ..)) in VALUES.iter().enumerate() {
        let text = database
            .client
            .query_one(
                &format!("select format('%s', c{n}), c{n} is null from public.things"),
                &[],
            )
            .await
            .expect("the text");
        if text.get(1) {
            let condition = if *kind == "pair" {
                "isdistinct.(1,2)"
            } else {
                "is.null"
            };
            nulls.push(format!("c{n}={condition}"));
            continue;
        }
        let text: String = text.get(0);
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        let filter = |operator: &str| format!("c{n}={operator}.\"{quoted}\"");
        if WITHOUT_EQUALITY.contains(kind) {
            let mut client = Client::v2(&gateway, &anon()).await;
            let config = json!({"postgres_changes": [binding("*", "things", Some(&filter("eq")))]});
            let channel = client.joined("refused", config).await;
            let told = client.event(&channel, "system").await.payload;
            assert_eq!(told["status"], "error");
            let message = told["message"].as_str().expect("a message");
            assert!(
                message.contains("Exception: ERROR 42883 (undefined_function) "),
                "{kind}: {message}"
            );
            continue;
        }
        let element = text.replace('\\', "\\\\").replace('"', "\\\"");
        wanted.push(filter("eq"));
        wanted.push(filter("not.neq"));
        wanted.push(filter("not.isdistinct"));
        wanted.push(format!("c{n}=in.(\"{element}\")"));
        wanted.push(format!("c{n}=not.is.null"));
        unwanted.push(filter("neq"));
        unwanted.push(filter("isdistinct"));
        unwanted.push(filter("not.eq"));
        unwanted.push(format!("c{n}=not.in.(\"{element}\")"));
        unwanted.push(format!("c{n}=is.null"));
    }
    wanted.extend(nulls);
    let mut client = Client::connect(&gateway, Version::V2, &anon()).await;
    let filters = [wanted.as_slice(), unwanted.as_slice()].concat();
    let mut channels = Vec::new();
    for (number, filters) in filters.chunks(400).enumerate() {
        let bindings: Vec<_> = filters
            .iter()
            .map(|filter| binding("UPDATE", "things", Some(filter)))
            .chain([binding("UPDATE", "things", Some("id=eq.7"))])
            .collect();
        let config = json!({"postgres_changes": bindings, "presence": {"enabled": false}});
        let (channel, reply) = client
            .join(&format!("filters {number}"), json!({"config": config}))
            .await;
        client.live(&channel).await;
        let ids: Vec<u64> = reply["response"]["postgres_changes"]
            .as_array()
            .expect("bindings")
            .iter()
            .map(|binding| binding["id"].as_u64().expect("an id"))
            .collect();
        channels.push((channel, ids, filters));
    }
    database.execute("update public.things set t = 'x'").await;
    for (channel, ids, filters) in channels {
        let told = client.event(&channel, "postgres_changes").await;
        let matched: Vec<u64> = serde_json::from_value(told.payload["ids"].clone()).expect("ids");
        for (filter, id) in filters.iter().zip(ids) {
            assert_eq!(matched.contains(&id), wanted.contains(filter), "{filter}");
        }
    }
    // Each binding once, in one message.
    let rest = client.until_heartbeat().await;
    assert!(rest.iter().all(|incoming| !matches!(incoming, Incoming::Message(message) if message.event == "postgres_changes")));
}
