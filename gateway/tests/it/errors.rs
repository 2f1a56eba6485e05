//! The catalogue of errors: docs/errors.md names everything that can be told, and nothing else.
//!
//! Each table is walked twice: what the sources can say must have a row, and each row is provoked in a running gateway and
//! compared with what comes.

mod bindings;
mod broadcast;
mod closes;
mod complete;
mod ends;
mod handshake;
mod join;
mod page;
mod paths;
mod push;
mod rest;
mod sql;

use std::net::SocketAddr;

use faultproxy::{Cut, Proxy};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use self::page::{rows, walk};
use crate::support::{
    Channel, Client, TestDatabase, TestGateway,
    token::{anon, signed_with, token},
};

const ADA: &str = "aaaaaaaa-0000-4000-8000-000000000001";

/// Whatever somebody may do on a private channel: by its topic, and by the token.
const POLICIES: &str = "
    create function canceled() returns boolean language plpgsql as $$ begin raise query_canceled; end $$;
    create policy hear on realtime.messages for select to authenticated using (
      case realtime.topic() when 'closed' then false
                            when 'canceled' then canceled()
                            when 'tokens' then auth.jwt() ->> 'hears' like '%' || extension || '%'
                            else true end);
    create policy say on realtime.messages for insert to authenticated with check (
      case realtime.topic() when 'mute' then false
                            when 'slow' then pg_sleep(2) is not null
                            when 'canceled' then canceled()
                            when 'fails' then 1 / (length(extension) - length(extension)) = 1
                            else true end);
    -- What PostgreSQL may meet while it stores a message, by the message's event.
    create function meet() returns trigger language plpgsql as $$
    begin
      if new.event like 'sqlstate-%' then
        raise exception 'no' using errcode = substr(new.event, 10);
      end if;
      return new;
    end $$;
    create trigger meet before insert on realtime.messages for each row execute function meet()";

/// Tokens that are wrong in each of the ways, with the word by which this module calls them.
fn wrong_token(what: &str) -> String {
    match what {
        "malformed" => "nonsense".to_owned(),
        "expired" => token(json!({"role": "anon", "exp": gateway::auth::now_unix() - 60})),
        "incomplete" => token(json!({"sub": "x"})),
        "forged" => signed_with(
            json!({"role": "anon"}),
            "another secret, which is not the gateway's",
        ),
        "unknown key" => "eyJhbGciOiJFUzI1NiIsImtpZCI6IksifQ.e30.c2ln".to_owned(),
        "no key" => "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.e30.c2ln".to_owned(),
        "other claim" => token(json!({"role": "anon", "exp": "soon"})),
        other => panic!("{other}?"),
    }
}

fn ada() -> String {
    crate::support::token::authenticated(ADA)
}

fn quiet() -> Value {
    json!({"presence": {"enabled": false}})
}

async fn gateway(settings: &[(&str, &str)]) -> TestGateway {
    TestGateway::start_with(&TestDatabase::new(None).await, settings).await
}

/// A gateway with private channels.
async fn private() -> (TestDatabase, TestGateway) {
    let database = TestDatabase::new(None).await;
    database.execute(POLICIES).await;
    let gateway = TestGateway::start(&database).await;
    (database, gateway)
}

/// A gateway whose database can be taken [away].
async fn remote(database: &TestDatabase, settings: &[(&str, &str)]) -> (TestGateway, Proxy) {
    let (login, rest) = database.gateway_url.split_once('@').expect("a login");
    let (address, name) = rest.split_once('/').expect("a database");
    let address: SocketAddr = address
        .replace("localhost", "127.0.0.1")
        .parse()
        .expect("an address");
    let proxy = Proxy::start(address).await.expect("a proxy");
    let url = format!("{login}@{}/{name}", proxy.address());
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    let gateway = TestGateway::start_at(here, &url, settings).await;
    (gateway, proxy)
}

/// Ends all connections to the database, and lets no other be made.
async fn away(proxy: &Proxy) {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let nowhere = nobody.local_addr().expect("an address");
    drop(nobody);
    proxy.lead_to(nowhere);
    proxy.cut(Cut::Reset);
}

/// Lets a gateway stop in good order, and does not wait for it.
fn stop(gateway: &TestGateway) {
    gateway.app.lifecycle.stop();
    let app = gateway.app.clone();
    tokio::spawn(async move { app.lifecycle.finished().await });
}

/// Status and body.
async fn answer(request: RequestBuilder) -> (String, String) {
    let response = request.send().await.expect("a response");
    let status = response.status().as_u16().to_string();
    (status, response.text().await.expect("a body"))
}

/// Sends bytes of the caller's choice as a request, and returns status and body.
async fn raw(gateway: &TestGateway, request: &str) -> (String, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(gateway.address)
        .await
        .expect("a connection");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("the request is sent");
    let mut answer = String::new();
    tokio::time::timeout(
        crate::support::wait::PATIENCE,
        stream.read_to_string(&mut answer),
    )
    .await
    .expect("an end")
    .expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head[9..12].to_owned(), body.to_owned())
}

/// A key of a bot that may post one message a second.
async fn slow_bot(database: &TestDatabase) -> String {
    let arguments = [
        "bot",
        "create",
        "slow",
        "--role",
        "service_role",
        "--messages-per-second",
        "1",
    ];
    let made = crate::support::process::run(&arguments, &[("DATABASE_URL", &database.url)]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    made.stdout.trim().to_owned()
}

/// A broadcast with this text.
fn saying(text: &str) -> Value {
    json!({"type": "broadcast", "event": "e", "payload": {"text": text}})
}
