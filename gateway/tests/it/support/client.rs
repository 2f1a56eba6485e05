//! A client that speaks the protocol by hand, in both versions.
//!
//! Its `join_ref` starts at 11 and its `ref` at 1, so that a server that mixes them up fails. Messages that a test does
//! not ask for yet are kept in their order.

use std::{collections::VecDeque, net::SocketAddr};

use futures::{SinkExt, StreamExt};
use protocol::Version;
use serde_json::{Value, json};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, client::IntoClientRequest, http::HeaderValue},
};

use super::{gateway::TestGateway, wait::PATIENCE};

pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<TcpStream>,
    version: Version,
    next_ref: u32,
    next_join_ref: u32,
    kept: VecDeque<Incoming>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Incoming {
    Message(Message),
    Binary(Vec<u8>),
    /// The end, with the close code if there was one.
    Closed(Option<u16>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    /// Never there in version 1.
    pub(crate) join_ref: Value,
    pub(crate) reference: Value,
    pub(crate) topic: String,
    pub(crate) event: String,
    pub(crate) payload: Value,
}

/// A channel that was asked for, and its `join_ref`.
#[derive(Debug, Clone)]
pub(crate) struct Channel {
    pub(crate) topic: String,
    pub(crate) join_ref: String,
}

impl Channel {
    /// The `phx_close` that ends it: its `join_ref` in both places.
    pub(crate) fn closed(&self, version: Version) -> Message {
        let join_ref = Value::from(self.join_ref.clone());
        Message {
            join_ref: match version {
                Version::V1 => Value::Null,
                Version::V2 => join_ref.clone(),
            },
            reference: join_ref,
            topic: self.topic.clone(),
            event: "phx_close".into(),
            payload: json!({}),
        }
    }
}

/// One item of `postgres_changes`.
pub(crate) fn binding(event: &str, table: &str, filter: Option<&str>) -> Value {
    let mut binding = json!({"event": event, "schema": "public", "table": table});
    if let Some(filter) = filter {
        binding["filter"] = filter.into();
    }
    binding
}

impl Client {
    pub(crate) async fn connect(gateway: &TestGateway, version: Version, token: &str) -> Client {
        Client::connect_to(gateway.address, version, token).await
    }

    /// Version 2, as current SDKs.
    pub(crate) async fn v2(gateway: &TestGateway, token: &str) -> Client {
        Client::connect(gateway, Version::V2, token).await
    }

    pub(crate) async fn v1(gateway: &TestGateway, token: &str) -> Client {
        Client::connect(gateway, Version::V1, token).await
    }

    pub(crate) async fn connect_to(address: SocketAddr, version: Version, token: &str) -> Client {
        let stream = TcpStream::connect(address).await.expect("a connection");
        Client::over(stream, version, token)
            .await
            .expect("a websocket")
    }

    /// For whom the kernel keeps little as long as it does not read. Version 2.
    pub(crate) async fn narrow(address: SocketAddr, token: &str) -> Client {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let stream = socket.connect(address).await.expect("a connection");
        Client::over(stream, Version::V2, token)
            .await
            .expect("a websocket")
    }

    /// Version 2, with these headers in its request.
    pub(crate) async fn with_headers(
        gateway: &TestGateway,
        token: &str,
        headers: &[(&'static str, Option<&'static str>)],
    ) -> Client {
        let stream = TcpStream::connect(gateway.address).await;
        let stream = stream.expect("a connection");
        Client::over_with(stream, Version::V2, token, headers)
            .await
            .expect("a websocket")
    }

    /// Over a connection of the caller's making, if the gateway takes it.
    pub(crate) async fn over(
        stream: TcpStream,
        version: Version,
        token: &str,
    ) -> Result<Client, tungstenite::Error> {
        Client::over_with(stream, version, token, &[]).await
    }

    async fn over_with(
        stream: TcpStream,
        version: Version,
        token: &str,
        headers: &[(&'static str, Option<&'static str>)],
    ) -> Result<Client, tungstenite::Error> {
        let vsn = match version {
            Version::V1 => "1.0.0",
            Version::V2 => "2.0.0",
        };
        let address = stream.peer_addr()?;
        let url = format!("ws://{address}/realtime/v1/websocket?vsn={vsn}&apikey={token}");
        let mut request = url.into_client_request()?;
        for (name, value) in headers {
            if let Some(value) = value {
                let value = HeaderValue::from_static(value);
                request.headers_mut().insert(*name, value);
            }
        }
        stream.set_nodelay(true)?;
        let (socket, _) = timeout(PATIENCE, Box::pin(client_async(request, stream)))
            .await
            .expect("an answer to the handshake")?;
        Ok(Client {
            socket,
            version,
            next_ref: 1,
            next_join_ref: 11,
            kept: VecDeque::new(),
        })
    }

    pub(crate) async fn send_text(&mut self, text: impl Into<String>) {
        let message = tungstenite::Message::text(text.into());
        self.socket.send(message).await.expect("the frame is sent");
    }

    /// The same, for a client that may be closed at any moment.
    pub(crate) async fn try_send_text(&mut self, text: &str) -> Result<(), tungstenite::Error> {
        self.socket.send(tungstenite::Message::text(text)).await
    }

    pub(crate) async fn send_binary(&mut self, bytes: impl Into<Vec<u8>>) {
        let message = tungstenite::Message::binary(bytes.into());
        self.socket.send(message).await.expect("the frame is sent");
    }

    /// Pushes a message with any refs.
    pub(crate) async fn send(
        &mut self,
        join_ref: Value,
        reference: Value,
        topic: &str,
        event: &str,
        payload: Value,
    ) {
        let frame = match self.version {
            Version::V1 => {
                json!({"topic": topic, "event": event, "payload": payload, "ref": reference, "join_ref": join_ref})
            }
            Version::V2 => json!([join_ref, reference, topic, event, payload]),
        };
        self.send_text(frame.to_string()).await;
    }

    /// Pushes on a channel; returns the `ref`.
    pub(crate) async fn push(&mut self, channel: &Channel, event: &str, payload: Value) -> String {
        let reference = self.take_ref();
        let join_ref = channel.join_ref.clone().into();
        self.send(
            join_ref,
            reference.clone().into(),
            &channel.topic,
            event,
            payload,
        )
        .await;
        reference
    }

    /// Asks to join `realtime:<sub_topic>` with this payload; returns the `ref`.
    pub(crate) async fn begin_join(
        &mut self,
        sub_topic: &str,
        payload: Value,
    ) -> (Channel, String) {
        let channel = Channel {
            topic: format!("realtime:{sub_topic}"),
            join_ref: self.next_join_ref.to_string(),
        };
        self.next_join_ref += 1;
        let reference = self.push(&channel, "phx_join", payload).await;
        (channel, reference)
    }

    /// Joins and returns the payload of the reply.
    pub(crate) async fn join(&mut self, sub_topic: &str, payload: Value) -> (Channel, Value) {
        let (channel, reference) = self.begin_join(sub_topic, payload).await;
        let reply = self.reply(&reference).await;
        assert_eq!(reply.topic, channel.topic);
        if self.version == Version::V2 {
            assert_eq!(reply.join_ref, *channel.join_ref);
        }
        (channel, reply.payload)
    }

    /// Joins with this `config`, which must succeed.
    pub(crate) async fn joined(&mut self, sub_topic: &str, config: Value) -> Channel {
        let (channel, payload) = self.join(sub_topic, json!({"config": config})).await;
        assert_eq!(payload["status"], "ok", "join of {sub_topic}: {payload}");
        channel
    }

    /// Joins with bindings and waits until they are live.
    pub(crate) async fn subscribe(&mut self, sub_topic: &str, bindings: Value) -> Channel {
        // Without presence nothing comes but what the bindings bring.
        let config = json!({"postgres_changes": bindings, "presence": {"enabled": false}});
        let channel = self.joined(sub_topic, config).await;
        self.live(&channel).await;
        channel
    }

    /// Waits for "Subscribed to PostgreSQL".
    pub(crate) async fn live(&mut self, channel: &Channel) {
        let told = self.event(channel, "system").await;
        let expected = json!({
            "message": "Subscribed to PostgreSQL",
            "status": "ok",
            "extension": "postgres_changes",
            "channel": channel.topic.strip_prefix("realtime:"),
        });
        assert_eq!(told.payload, expected);
    }

    /// Joins with bindings, is refused, and returns the reason.
    pub(crate) async fn refused(&mut self, sub_topic: &str, bindings: Value) -> String {
        let config = json!({"postgres_changes": bindings});
        let (_, payload) = self.join(sub_topic, json!({"config": config})).await;
        assert_eq!(payload["status"], "error", "join of {sub_topic}: {payload}");
        let response = payload["response"].as_object().expect("an object");
        assert_eq!(response.len(), 1, "{payload}");
        response["reason"].as_str().expect("a reason").to_owned()
    }

    /// The reply to a push.
    pub(crate) async fn reply(&mut self, reference: &str) -> Message {
        self.expect("a reply", |message| {
            message.event == "phx_reply" && message.reference == reference
        })
        .await
    }

    /// The next message of this event on a channel.
    pub(crate) async fn event(&mut self, channel: &Channel, event: &str) -> Message {
        self.expect(event, |message| {
            message.event == event && message.topic == channel.topic
        })
        .await
    }

    /// The next change on a channel: its `data`.
    pub(crate) async fn change(&mut self, channel: &Channel) -> Value {
        let mut message = self.event(channel, "postgres_changes").await;
        message.payload["data"].take()
    }

    /// Changes on a channel up to the marker, which is the row whose column has this value. The marker is not among them.
    pub(crate) async fn changes_until(
        &mut self,
        channel: &Channel,
        column: &str,
        marker: &str,
    ) -> Vec<Value> {
        let mut changes = Vec::new();
        loop {
            let change = self.change(channel).await;
            if change["record"][column] == marker {
                return changes;
            }
            changes.push(change);
        }
    }

    /// Everything that came before the answer to a heartbeat that is sent now.
    pub(crate) async fn until_heartbeat(&mut self) -> Vec<Incoming> {
        let reference = self.take_ref();
        self.send(
            Value::Null,
            reference.clone().into(),
            "phoenix",
            "heartbeat",
            json!({}),
        )
        .await;
        let answer = Incoming::Message(Message {
            join_ref: Value::Null,
            reference: reference.into(),
            topic: "phoenix".into(),
            event: "phx_reply".into(),
            payload: json!({"status": "ok", "response": {}}),
        });
        let mut before = Vec::new();
        loop {
            match self.next().await {
                incoming if incoming == answer => return before,
                Incoming::Closed(code) => {
                    panic!("closed ({code:?}) before the heartbeat was answered")
                }
                other => before.push(other),
            }
        }
    }

    /// The next message for which this holds; others are kept.
    pub(crate) async fn expect(
        &mut self,
        what: &str,
        wanted: impl Fn(&Message) -> bool,
    ) -> Message {
        let is_wanted =
            |incoming: &Incoming| matches!(incoming, Incoming::Message(message) if wanted(message));
        if let Some(place) = self.kept.iter().position(is_wanted)
            && let Some(Incoming::Message(message)) = self.kept.remove(place)
        {
            return message;
        }
        let waiting = async {
            loop {
                match self.receive().await {
                    Incoming::Message(message) if wanted(&message) => return Ok(message),
                    Incoming::Closed(code) => return Err(code),
                    other => self.kept.push_back(other),
                }
            }
        };
        match timeout(PATIENCE, waiting).await {
            Ok(Ok(message)) => message,
            Ok(Err(code)) => panic!(
                "closed ({code:?}) while waiting for {what}; kept: {:?}",
                self.kept
            ),
            Err(_) => panic!("waited in vain for {what}; kept: {:?}", self.kept),
        }
    }

    /// Whatever comes next, kept or new.
    pub(crate) async fn next(&mut self) -> Incoming {
        match self.kept.pop_front() {
            Some(incoming) => incoming,
            None => timeout(PATIENCE, self.receive())
                .await
                .expect("a frame in time"),
        }
    }

    /// The code with which the server closes; what comes before is dropped.
    pub(crate) async fn closed(&mut self) -> Option<u16> {
        loop {
            if let Incoming::Closed(code) = self.next().await {
                return code;
            }
        }
    }

    async fn receive(&mut self) -> Incoming {
        loop {
            match self.socket.next().await {
                Some(Ok(tungstenite::Message::Text(text))) => {
                    return Incoming::Message(self.decode(text.as_str()));
                }
                Some(Ok(tungstenite::Message::Binary(bytes))) => {
                    return Incoming::Binary(bytes.to_vec());
                }
                Some(Ok(tungstenite::Message::Close(frame))) => {
                    return Incoming::Closed(frame.map(|frame| frame.code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Incoming::Closed(None),
            }
        }
    }

    fn decode(&self, text: &str) -> Message {
        let value: Value =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in: {text:.200}"));
        let text_of = |value: &Value| value.as_str().expect("text").to_owned();
        let message = match self.version {
            Version::V1 => {
                let object = value.as_object().expect("an object");
                assert_eq!(
                    object.len(),
                    4,
                    "exactly the four keys of version 1: {object:?}"
                );
                Message {
                    join_ref: Value::Null,
                    reference: object["ref"].clone(),
                    topic: text_of(&object["topic"]),
                    event: text_of(&object["event"]),
                    payload: object["payload"].clone(),
                }
            }
            Version::V2 => {
                let array = value.as_array().expect("an array");
                assert_eq!(array.len(), 5, "exactly the five items of version 2");
                Message {
                    join_ref: array[0].clone(),
                    reference: array[1].clone(),
                    topic: text_of(&array[2]),
                    event: text_of(&array[3]),
                    payload: array[4].clone(),
                }
            }
        };
        assert!(
            message.payload.is_object(),
            "clients break on other payloads: {text:.200}"
        );
        message
    }

    fn take_ref(&mut self) -> String {
        let reference = self.next_ref.to_string();
        self.next_ref += 1;
        reference
    }
}
