//! Unmodified supabase-js drives the gateway: the newest, and older lines that are still in use. The scenarios and their
//! assertions are in `tests/sdk/js/scenarios`.

use std::path::Path;

use tokio::process::Command;

use crate::{
    driver::{drive, host::Host, install, recorder},
    support::{TestDatabase, TestGateway, token::SECRET},
};

/// A table that nobody may read as a whole: `anon` nothing, `authenticated` no row, `service_role` one column.
const DROP_BOX: &str = "
    create table public.drop_box (id integer generated always as identity primary key, content text not null, secret text);
    alter table public.drop_box enable row level security;
    create policy anybody_drops on public.drop_box for insert to anon, authenticated with check (true);
    revoke all on public.drop_box from anon, authenticated, service_role;
    grant insert on public.drop_box to anon, authenticated, service_role;
    grant select on public.drop_box to authenticated;
    grant select (id, content) on public.drop_box to service_role;
    select tidings.watch('public.drop_box')";

/// A row with a value of every type that the SDK does something with, and some that it leaves alone.
const KINDS: &str = r#"
    create extension hstore;
    create extension citext;
    create type mood as enum ('ok', 'sad');
    create type pair as (a integer, b text);
    create domain positive as integer check (value > 0);
    create table public.kinds (
      id integer primary key, i8 bigint, n numeric, large numeric, nan double precision, f4 real, b boolean, t text, c char(4), bits bit(3),
      raw bytea, u uuid, j json, jb jsonb, jt jsonb, ts timestamp, tz timestamptz, d date, tm time, iv interval, ia integer[], ta text[],
      matrix integer[], raws bytea[], ir int4range, money money, ip inet, p point, mood mood, dom positive, pair pair, o oid, h hstore, ci citext,
      gen integer generated always as (dom * 2) stored, none integer);
    set lc_monetary = 'C';
    insert into public.kinds values (
      1, 9007199254740993, 12.50, 123456789012345678901234567890.1234500, 'NaN', 0.1, true, 'text', 'ab', '101',
      '\x00ff5c', '5b85e9b1-985a-4827-8339-5cb0ee433ebf', '{"b":1,"a":[1, 2.50, null]}', '{"a":1}', '"123"', '2024-01-02 03:04:05.678',
      '2024-01-02 03:04:05.678+02', '2024-02-29', '13:14:15.123456', '1 day 02:03:04.5', '{1,2,null}', '{"a b","c,d",null}',
      '{{1,2},{3,4}}', '{"\\x01","\\xff"}', '[1,5)', '12.34', '10.0.0.1/8', '(1,2)', 'ok', 7, '(1,"x,y")', 12345, 'a=>1, b=>NULL', 'MiXed');
    grant select on public.kinds to service_role;
    select tidings.watch('public.kinds')"#;

async fn scenario(name: &str, environment: &[(&str, &str)]) {
    run(install::node(name).await, environment).await;
}

/// What each line is asked to do, in one process: most of the time of one scenario is that of its gateway and its database.
const ALL: [&str; 6] = [
    "hook",
    "habits",
    "presence",
    "broadcast",
    "token",
    "reconnect",
];

/// The same scenarios with another line, the pinned packages of which are in `tests/sdk/js-<line>`.
async fn line(line: &str, scenarios: &[&str], environment: &[(&str, &str)]) {
    let node = install::node_with(line, scenarios).await;
    run(node, environment).await;
}

async fn run(mut node: Command, environment: &[(&str, &str)]) {
    let mut host = Host::with_gateway().await;
    node.env(
        "TIDINGS_URL",
        host.url().expect("the address of the gateway"),
    );
    node.envs(environment.iter().copied());
    drive(node, &mut host).await;
}

/// Spring 2025: the last that came with a serializer, sockets and channels of its own, and with version 1.0.0 only.
#[tokio::test]
async fn line_2_49() {
    line("2.49", &ALL, &[]).await;
}

/// Winter 2026: sockets and channels of its own still, and version 2.0.0.
#[tokio::test]
async fn line_2_95() {
    line("2.95", &ALL, &[]).await;
}

#[tokio::test]
async fn line_2_95_with_serializer_1() {
    line("2.95", &["hook"], &[("VSN", "1.0.0")]).await;
}

/// One gateway for all: each comes alone.
#[tokio::test]
async fn the_tour_with_each_line_and_serializer() {
    let mut host = Host::with_gateway().await;
    for (line, version) in [
        ("2.119", 2),
        ("2.119", 1),
        ("2.95", 2),
        ("2.95", 1),
        ("2.49", 1),
    ] {
        let mut node = match line {
            "2.119" => install::node("tour").await,
            older => install::node_with(older, &["tour"]).await,
        };
        node.env("VSN", format!("{version}.0.0"));
        let name = format!("supabase-js-{line}/serializer-{version}");
        recorder::tour(node, &mut host, &name).await;
    }
}

#[tokio::test]
async fn the_chat_hook_with_the_default_serializer() {
    scenario("hook", &[]).await;
}

#[tokio::test]
async fn the_chat_hook_with_serializer_1() {
    scenario("hook", &[("VSN", "1.0.0")]).await;
}

#[tokio::test]
async fn what_applications_do() {
    scenario("habits", &[]).await;
}

#[tokio::test]
async fn presence() {
    scenario("presence", &[]).await;
}

#[tokio::test]
async fn broadcast() {
    scenario("broadcast", &[]).await;
}

#[tokio::test]
async fn tokens_are_replaced_and_expire() {
    scenario("token", &[]).await;
}

#[tokio::test]
async fn a_client_comes_back_by_itself() {
    scenario("reconnect", &[]).await;
}

/// The newest, as the demo page has it.
#[tokio::test]
async fn a_worker_paces_the_heartbeats_of_a_browser() {
    let chromium = install::chromium();
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/vendor");
    let environment = [
        ("CHROMIUM", chromium.to_str().expect("a path in UTF-8")),
        ("FILES", files.to_str().expect("a path in UTF-8")),
    ];
    scenario("worker", &environment).await;
}

#[tokio::test]
async fn posting_under_row_level_security() {
    let database = TestDatabase::new(Some("chattwelve")).await;
    database.execute(DROP_BOX).await;
    let gateway = TestGateway::start(&database).await;
    let mut host = Host::beside(&database.url, SECRET).await;
    let mut node = install::node("post").await;
    node.env("TIDINGS_URL", gateway.url(""));
    drive(node, &mut host).await;
}

#[tokio::test]
async fn what_the_sdk_makes_of_each_type() {
    let database = TestDatabase::new(Some("chattwelve")).await;
    database.execute(KINDS).await;
    let gateway = TestGateway::start(&database).await;
    let mut host = Host::beside(&database.url, SECRET).await;
    let mut node = install::node("types").await;
    node.env("TIDINGS_URL", gateway.url(""));
    drive(node, &mut host).await;
}
