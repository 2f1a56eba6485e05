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
