//! A subscriber against a server that answers by a script.

use std::sync::{Arc, Mutex};

use protocol::Version;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;

type Script = fn(Version, &str) -> Vec<String>;

/// A server that accepts one socket, answers its join with the frames of `script` (given the topic), and ends.
async fn serve(version: Version, script: Script) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        let Some(Ok(Message::Text(text))) = socket.next().await else {
            panic!("no join arrived");
        };
        let join = protocol::decode_text(version, &text).unwrap();
        assert_eq!(join.event, event::JOIN);
        for frame in script(version, &join.topic) {
            socket.send(Message::text(frame)).await.unwrap();
        }
        let _ = socket.close(None).await;
    });
    Endpoint::parse(&url, version).unwrap()
}

fn subscription() -> Subscription {
    Subscription {
        session_id: "s-1".to_owned(),
        token: "a.b.c".to_owned(),
    }
}

fn frame(version: Version, reference: &Ref, topic: &str, event: &str, payload: &str) -> String {
    protocol::encode(version, &Ref::NULL, reference, topic, event, payload)
}

fn accept(version: Version, topic: &str) -> Vec<String> {
    let reply = r#"{"status":"ok","response":{"postgres_changes":[{"event":"INSERT","id":7}]}}"#;
    let system = protocol::system(true, "postgres_changes", protocol::SUBSCRIBED, "r");
    vec![
        frame(version, &Ref::from_text("1"), topic, event::REPLY, reply),
        frame(version, &Ref::NULL, topic, event::SYSTEM, &system),
    ]
}

fn change(version: Version, topic: &str, session: &str, number: u64) -> String {
    let payload = format!(
        r#"{{"ids":[7],"data":{{"type":"INSERT","record":{{"session_id":"{session}","metadata":{{"run":1,"w":0,"j":{number},"n":{number}}}}},"errors":null}}}}"#
    );
    frame(
        version,
        &Ref::NULL,
        topic,
        event::POSTGRES_CHANGES,
        &payload,
    )
}

/// Subscribes to a server with this script; the numbers that arrived, and why it ended.
async fn outcome(version: Version, script: Script) -> (Vec<u64>, String) {
    let endpoint = serve(version, script).await;
    let mut subscriber = match Subscriber::connect(&endpoint, &subscription()).await {
        Ok(subscriber) => subscriber,
        Err(error) => return (Vec::new(), format!("{error:#}")),
    };
    let numbers = Arc::new(Mutex::new(Vec::new()));
    let end = subscriber
        .run(|change| {
            numbers
                .lock()
                .unwrap()
                .push(change.data.record.metadata.number)
        })
        .await;
    let numbers = numbers.lock().unwrap().clone();
    (numbers, format!("{end:#}"))
}

#[tokio::test]
async fn receives_changes_in_both_versions() {
    for version in [Version::V1, Version::V2] {
        let (numbers, end) = outcome(version, |version, topic| {
            let mut frames = accept(version, topic);
            frames.extend((1..=3).map(|number| change(version, topic, "s-1", number)));
            frames
        })
        .await;
        assert_eq!(numbers, [1, 2, 3]);
        assert!(end.contains("closed the connection"), "{end}");
    }
}

#[tokio::test]
async fn a_refused_join_says_why() {
    let (_, end) = outcome(Version::V2, |version, topic| {
        let reply = protocol::error_reply("Unauthorized: no");
        vec![frame(
            version,
            &Ref::from_text("1"),
            topic,
            event::REPLY,
            &reply,
        )]
    })
    .await;
    assert!(end.contains("join refused: Unauthorized: no"), "{end}");
}

#[tokio::test]
async fn a_refused_binding_says_why() {
    let (_, end) = outcome(Version::V2, |version, topic| {
        let mut frames = accept(version, topic);
        let system = protocol::system(false, "postgres_changes", "invalid column", "r");
        frames[1] = frame(version, &Ref::NULL, topic, event::SYSTEM, &system);
        frames
    })
    .await;
    assert!(
        end.contains("the binding was refused: invalid column"),
        "{end}"
    );
}

#[tokio::test]
async fn a_row_of_another_session_is_an_error() {
    let (numbers, end) = outcome(Version::V2, |version, topic| {
        let mut frames = accept(version, topic);
        frames.extend([
            change(version, topic, "s-1", 1),
            change(version, topic, "s-2", 1),
        ]);
        frames
    })
    .await;
    assert_eq!(numbers, [1]);
    assert!(end.contains("another session"), "{end}");
}

#[tokio::test]
async fn a_server_that_answers_no_heartbeat_is_given_up() {
    let (sender, mut receiver) = mpsc::channel(8);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(Message::Text(text))) = socket.next().await {
            let message = protocol::decode_text(Version::V2, &text).unwrap();
            if message.event == event::JOIN {
                for frame in accept(Version::V2, &message.topic) {
                    socket.send(Message::text(frame)).await.unwrap();
                }
            }
            sender.send(message.event).await.unwrap();
        }
    });
    let endpoint = Endpoint::parse(&url, Version::V2).unwrap();
    let mut subscriber = Subscriber::connect(&endpoint, &subscription())
        .await
        .unwrap();
    subscriber.heartbeat = interval_at(Instant::now(), Duration::from_millis(20));
    let end = subscriber.run(|_| {}).await;
    assert!(end.to_string().contains("heartbeat"), "{end:#}");
    assert_eq!(receiver.recv().await.as_deref(), Some(event::JOIN));
    assert_eq!(receiver.recv().await.as_deref(), Some(event::HEARTBEAT));
}
