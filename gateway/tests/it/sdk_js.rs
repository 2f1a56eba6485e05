//! Unmodified supabase-js drives the gateway. The scenarios and their assertions are in `tests/sdk/js/scenarios`.

use crate::{
    driver::{drive, host::Host, install},
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
    let mut host = Host::with_gateway().await;
    let mut node = install::node(name).await;
    node.env(
        "TIDINGS_URL",
        host.url().expect("the address of the gateway"),
    );
    node.envs(environment.iter().copied());
    drive(node, &mut host).await;
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
