//! A gateway that stops: when it says so, whom it sends away when, and what they still get.

mod rolling;

use std::time::Duration;

use protocol::Version;
use serde_json::json;
use tokio::{net::TcpStream, sync::oneshot, time::Instant};

use crate::support::{
    Client, TestDatabase, TestGateway,
    chat::{A1, ADA, chat_with, messages_of, say},
    client::Incoming,
    process::{GatewayProcess, run},
    token::{SECRET, authenticated},
    wait::wait_for,
};

async fn status(url: &str) -> Result<u16, String> {
    let response = reqwest::get(url).await.map_err(|error| error.to_string())?;
    Ok(response.status().as_u16())
}

async fn until_status(what: &str, url: &str, wanted: u16) {
    wait_for(what, || async {
        match status(url).await {
            Ok(status) if status == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// Where a handshake goes.
fn socket_url(gateway: &TestGateway) -> String {
    let token = authenticated(ADA);
    gateway.url(&format!("/realtime/v1/websocket?vsn=2.0.0&apikey={token}"))
}

#[tokio::test]
async fn until_the_delay_is_over_only_readyz_tells_of_the_stop() {
    let (database, gateway) = chat_with(&[("drain_delay", "1h"), ("drain", "2h")]).await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    let channel = ada.subscribe("a1", messages_of("INSERT", A1)).await;
    gateway.app.lifecycle.stop();
    let lifecycle = gateway.app.lifecycle.clone();
    let finished = tokio::spawn(async move { lifecycle.finished().await });

    let response = reqwest::get(gateway.url("/readyz"))
        .await
        .expect("an answer");
    assert_eq!(response.status(), 503);
    let body: serde_json::Value = response.json().await.expect("JSON");
    assert!(body["problems"]["gateway"].is_string(), "{body}");
    assert_eq!(status(&gateway.url("/livez")).await, Ok(200));
    say(&database, A1, "to one who was there").await;
    let change = ada.change(&channel).await;
    assert_eq!(change["record"]["content"], "to one who was there");
    let mut late = Client::v2(&gateway, &authenticated(ADA)).await;
    let channel = late.subscribe("a1", messages_of("INSERT", A1)).await;
    say(&database, A1, "to one who came late").await;
    let change = late.change(&channel).await;
    assert_eq!(change["record"]["content"], "to one who came late");

    gateway.app.lifecycle.stop_now();
    assert_eq!(late.closed().await, None);
    assert_eq!(finished.await.expect("no panic"), Ok(()));
}

#[tokio::test]
async fn after_the_delay_who_uses_no_channel_goes_first_and_nobody_new_is_let_in() {
    let (_database, gateway) = chat_with(&[
        ("drain_delay", "100ms"),
        ("drain_spread", "1h"),
        ("drain", "2h"),
    ])
    .await;
    let mut idle = Client::v2(&gateway, &authenticated(ADA)).await;
    let mut ada = Client::v2(&gateway, &authenticated(ADA)).await;
    let channel = ada.subscribe("a1", messages_of("INSERT", A1)).await;
    let lifecycle = gateway.app.lifecycle.clone();
    let finished = tokio::spawn(async move { lifecycle.finished().await });
    gateway.app.lifecycle.stop();

    assert_eq!(idle.closed().await, Some(1012));
    assert_eq!(status(&socket_url(&gateway)).await, Ok(503));
    assert_eq!(status(&gateway.url("/readyz")).await, Ok(503));
    assert_eq!(status(&gateway.url("/livez")).await, Ok(200));
    assert_eq!(ada.until_heartbeat().await, []);
    // Its turn would be later; without a channel there is nothing to wait for.
    let left = ada.push(&channel, "phx_leave", json!({})).await;
    ada.reply(&left).await;
    assert_eq!(ada.closed().await, Some(1012));
    // That was the last one.
    assert_eq!(finished.await.expect("no panic"), Ok(()));
    assert!(TcpStream::connect(gateway.address).await.is_err());
}

/// Reads numbers until it is closed: the last of them, and when that was.
async fn follow(mut client: Client, begun: Instant) -> (Duration, u32) {
    let mut last = 0;
    loop {
        match client.next().await {
            Incoming::Message(message) if message.event == "postgres_changes" => {
                let content = &message.payload["data"]["record"]["content"];
                let number = content.as_str().and_then(|content| content.parse().ok());
                assert_eq!(number, Some(last + 1), "{message:?}");
                last += 1;
            }
            Incoming::Closed(Some(1012)) => return (begun.elapsed(), last),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_go_one_by_one_and_are_served_until_then() {
    const SOCKETS: usize = 100;
    const SPREAD: Duration = Duration::from_secs(4);
    let (database, gateway) = chat_with(&[("drain_spread", "4s"), ("drain", "60s")]).await;
    let mut clients = Vec::new();
    for _ in 0..SOCKETS {
        let mut client = Client::v2(&gateway, &authenticated(ADA)).await;
        client.subscribe("a1", messages_of("INSERT", A1)).await;
        clients.push(client);
    }
    let (stop, mut stopped) = oneshot::channel();
    let writer = tokio::spawn(async move {
        let mut number = 0;
        while stopped.try_recv().is_err() {
            number += 1;
            say(&database, A1, &number.to_string()).await;
        }
    });
    let begun = Instant::now();
    let readers: Vec<_> = clients
        .into_iter()
        .map(|client| tokio::spawn(follow(client, begun)))
        .collect();
    gateway.stop().await;
    let took = begun.elapsed();
    stop.send(()).expect("the writer writes");
    writer.await.expect("the writer");
    let mut ends = Vec::new();
    for reader in readers {
        ends.push(reader.await.expect("a reader"));
    }
    ends.sort_unstable();

    for quarter in 0..4 {
        let from = SPREAD / 4 * quarter;
        let some = ends
            .iter()
            .filter(|(at, _)| (from..from + SPREAD / 4).contains(at))
            .count();
        assert!(
            (SOCKETS / 12..=SOCKETS / 2).contains(&some),
            "{some} in {quarter}: {ends:?}"
        );
    }
    // Whoever was there for a second longer has got more.
    let mut later = ends.iter();
    for (at, last) in &ends {
        let other = later.find(|(later, _)| *later > *at + Duration::from_secs(1));
        assert!(other.is_none_or(|(_, more)| more > last), "{ends:?}");
    }
    let last = ends[SOCKETS - 1].0;
    assert!(
        took < last + Duration::from_secs(2),
        "{took:?}, and the last one left at {last:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_socket_is_written_before_it_is_closed() {
    const ROWS: usize = 100;
    let (database, gateway) = chat_with(&[]).await;
    let mut slow = Client::narrow(gateway.address, &authenticated(ADA)).await;
    let channel = slow.subscribe("a1", messages_of("INSERT", A1)).await;
    let mut quick = Client::v2(&gateway, &authenticated(ADA)).await;
    let quick_channel = quick.subscribe("a1", messages_of("INSERT", A1)).await;
    for number in 0..ROWS {
        say(&database, A1, &format!("{number:020000}")).await;
    }
    // Both have them then: this one read, that one in its outbox.
    for _ in 0..ROWS {
        quick.change(&quick_channel).await;
    }
    let stopping = tokio::spawn(async move { gateway.stop().await });
    assert_eq!(quick.closed().await, Some(1012));
    for number in 0..ROWS {
        let content = slow.change(&channel).await["record"]["content"].take();
        assert_eq!(content, format!("{number:020000}"));
    }
    assert_eq!(slow.closed().await, Some(1012));
    stopping.await.expect("an orderly end");
}

#[tokio::test]
async fn one_line_tells_of_the_begin_and_one_of_the_end() {
    let database = TestDatabase::new(Some("chattwelve")).await;
    let environment = [
        ("DATABASE_URL", database.gateway_url.as_str()),
        ("TIDINGS_JWT_SECRET", SECRET),
        ("TIDINGS_DRAIN_SPREAD", "200ms"),
        ("TIDINGS_DRAIN", "3s"),
    ];
    for reads in [true, false] {
        let mut gateway = GatewayProcess::start(&environment).await;
        let mut clients = Vec::new();
        for _ in 0..3 {
            let mut client =
                Client::connect_to(gateway.address, Version::V2, &authenticated(ADA)).await;
            client.subscribe("a1", messages_of("INSERT", A1)).await;
            clients.push(client);
        }
        let signalled = Instant::now();
        gateway.signal("TERM").await;
        if reads {
            for client in &mut clients {
                assert_eq!(client.closed().await, Some(1012));
                // Until its end it is not the gateway's any more.
                assert_eq!(client.closed().await, None);
            }
        }
        assert_eq!(gateway.ended().await, Some(0));
        let took = signalled.elapsed();
        let begin = gateway
            .logged("stopping; another signal stops at once")
            .await;
        assert_eq!((begin.len(), &begin[0]["sockets"]), (1, &json!(3)));
        let end = gateway.logged("stopped").await;
        let cut = if reads { 0 } else { 3 };
        assert_eq!(end.len(), 1);
        assert_eq!(
            (&end[0]["told"], &end[0]["cut"]),
            (&json!(3), &json!(cut)),
            "{end:?}"
        );
        // Who does not answer is not waited for longer than `drain` says.
        assert_eq!(took < Duration::from_millis(2900), reads, "{took:?}");
    }
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let database = TestDatabase::new(Some("chattwelve")).await;
    let environment = [
        ("DATABASE_URL", database.gateway_url.as_str()),
        ("TIDINGS_JWT_SECRET", SECRET),
        ("TIDINGS_DRAIN_DELAY", "1h"),
        ("TIDINGS_DRAIN", "2h"),
    ];
    let mut gateway = GatewayProcess::start(&environment).await;
    let mut client = Client::connect_to(gateway.address, Version::V2, &authenticated(ADA)).await;
    client.subscribe("a1", messages_of("INSERT", A1)).await;
    gateway.signal("TERM").await;
    until_status("a gateway that is not ready", &gateway.url("/readyz"), 503).await;
    assert_eq!(gateway.metric("tidings_stopping").await, 1.0);
    assert_eq!(client.until_heartbeat().await, []);
    gateway.signal("INT").await;
    assert_eq!(client.closed().await, None);
    assert_eq!(gateway.ended().await, Some(0));
    let end = gateway.logged("stopped").await;
    assert_eq!((&end[0]["told"], &end[0]["cut"]), (&json!(0), &json!(1)));
}

#[tokio::test]
async fn a_stop_that_would_end_before_everybody_was_told_is_refused() {
    let environment = [
        ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none"),
        ("TIDINGS_JWT_SECRET", SECRET),
        ("TIDINGS_DRAIN_DELAY", "5s"),
    ];
    let outcome = run(&["serve"], &environment).await;
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    for part in ["drain is 10s", "drain_delay (5s)", "drain_spread (5s)"] {
        assert!(outcome.stderr.contains(part), "{}", outcome.stderr);
    }
}
