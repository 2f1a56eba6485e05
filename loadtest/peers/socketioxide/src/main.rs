//! socketioxide: sessions are rooms, and the new rows come by LISTEN.

use std::env;
use std::future::poll_fn;

use anyhow::Context;
use serde::Deserialize;
use serde_json::value::RawValue;
use socketioxide::extract::{Data, SocketRef};
use socketioxide::{SocketIo, TransportType};
use tokio::net::TcpListener;
use tokio_postgres::{AsyncMessage, NoTls};

/// Packets that may wait for one socket. Its default of 128 loses those of a burst.
const WAITING: usize = 16_384;

#[derive(Deserialize)]
struct Auth {
    session: String,
}

#[derive(Deserialize)]
struct Change<'a> {
    #[serde(borrow)]
    record: Record<'a>,
}

#[derive(Deserialize)]
struct Record<'a> {
    session_id: &'a str,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listen = env::var("LISTEN").context("LISTEN is not set")?;
    let database = env::var("DATABASE_URL").context("DATABASE_URL is not set")?;

    let (layer, io) = SocketIo::builder()
        .transports([TransportType::Websocket])
        .max_buffer_size(WAITING)
        .build_layer();
    io.ns("/", async |socket: SocketRef, Data(auth): Data<Auth>| {
        let session = auth.session;
        socket.join(session.clone());
        // A socket that is gone already needs no answer.
        let _ = socket.emit("subscribed", &session);
    });
    let app = axum::Router::new().layer(layer);
    let listener = TcpListener::bind(&listen).await?;

    let (client, mut connection) = tokio_postgres::connect(&database, NoTls).await?;
    let feed = tokio::spawn(async move {
        loop {
            let message = poll_fn(|context| connection.poll_message(context)).await;
            let message = message.context("the database has ended the connection")??;
            if let AsyncMessage::Notification(notification) = message {
                emit(&io, notification.payload()).await?;
            }
        }
    });
    client.batch_execute("listen chat_messages").await?;
    println!("ready");
    tokio::select! {
        served = axum::serve(listener, app) => Ok(served?),
        // What was sent while nobody listened would be lost.
        ended = feed => ended?,
    }
}

async fn emit(io: &SocketIo, payload: &str) -> anyhow::Result<()> {
    let change: Change = serde_json::from_str(payload)?;
    let room = change.record.session_id.to_owned();
    // It is written as it is, once for all sockets.
    let raw: &RawValue = serde_json::from_str(payload)?;
    if let Err(error) = io.to(room).emit("postgres_changes", raw).await {
        eprintln!("{error}");
    }
    Ok(())
}
