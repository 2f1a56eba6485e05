//! The database has lost something, and the gateway says so: in its log, in a metric, and to every client, who is told to come
//! back, and whose cursor from before is refused.

mod crash;
mod failover;

use faultproxy::{Cut, Proxy};
use protocol::Version;
use serde_json::json;

use super::server::{Server, gateway_url};
use crate::support::{
    Channel, Client, Incoming,
    chat::{A1, ADA, messages_of},
    process::GatewayProcess,
    token::{SECRET, authenticated},
    wait::wait_for,
};

/// A gateway of its own, so that its metrics and its log are about this test; and somebody who listens with a cursor.
struct Scene {
    proxy: Proxy,
    gateway: GatewayProcess,
    ada: Listener,
}

struct Listener {
    client: Client,
    channel: Channel,
    /// The newest.
    cursor: String,
}

impl Scene {
    async fn on(server: &Server) -> Scene {
        let proxy = Proxy::start(server.address()).await.expect("a proxy");
        let url = gateway_url(proxy.address());
        let environment = [
            ("DATABASE_URL", url.as_str()),
            ("TIDINGS_JWT_SECRET", SECRET),
            ("TIDINGS_POLL_INTERVAL", "100ms"),
        ];
        let gateway = GatewayProcess::start(&environment).await;
        let ada = Listener::join(&gateway, None)
            .await
            .expect("a subscription");
        Scene {
            proxy,
            gateway,
            ada,
        }
    }

    /// The gateway has lost its connections and reaches this server from now on.
    fn lead_to(&self, server: &Server) {
        self.proxy.lead_to(server.address());
        self.proxy.cut(Cut::Reset);
        self.proxy.mend();
    }

    /// The loss is in the log and in the metric, and whoever listened was told to come back.
    async fn is_loud(&mut self, reason: &str) {
        assert_eq!(self.ada.client.closed().await, Some(1012));
        self.is_counted(reason).await;
    }

    async fn is_counted(&self, reason: &str) {
        let series = format!("tidings_feed_losses_total{{reason=\"{reason}\"}}");
        wait_for("the loss to be counted", || async {
            match self.gateway.metric(&series).await {
                0.0 => Err("it is not"),
                _ => Ok(()),
            }
        })
        .await;
    }

    async fn is_silent(&self) {
        for reason in ["truncated", "rewound", "foreign"] {
            let series = format!("tidings_feed_losses_total{{reason=\"{reason}\"}}");
            assert_eq!(self.gateway.metric(&series).await, 0.0, "{reason}");
        }
    }

    /// What somebody gets who comes back with this cursor, or the word that refuses it.
    async fn comes_back(&self, server: &Server, since: &str) -> Result<Vec<String>, String> {
        let mut listener = Listener::join(&self.gateway, Some(since)).await?;
        say(server, "end").await;
        let missed = listener.until("end").await;
        Ok(missed.expect("an open socket"))
    }

    /// Waits until the feed has looked at the log once more.
    async fn has_read(&self, server: &Server) {
        let now = server.text("clock_timestamp()").await;
        let question = format!(
            "(select count(*) from pg_stat_activity
              where application_name = 'tidings' and query like '%tidings.read(%' and state = 'idle' and query_start > '{now}')"
        );
        wait_for("a read", || async {
            match server.text(&question).await.as_str() {
                "0" => Err("none"),
                _ => Ok(()),
            }
        })
        .await;
    }

    /// What the listener gets up to a message, unless it is told to come back; then the loss must be loud in every way.
    async fn arrives_or_is_loud(&mut self, last: &str) -> Option<Vec<String>> {
        match self.ada.until(last).await {
            Ok(messages) => {
                self.is_silent().await;
                Some(messages)
            }
            Err(code) => {
                assert_eq!(code, Some(1012));
                self.is_counted("rewound").await;
                None
            }
        }
    }

    /// Whoever joins now gets what is committed from now on.
    async fn goes_on(&self, server: &Server) {
        let mut late = Listener::join(&self.gateway, None)
            .await
            .expect("a subscription");
        say(server, "goes on").await;
        assert_eq!(late.next().await, "goes on");
    }
}

impl Listener {
    /// Tries again while the gateway cannot reach its database. An error is the word that refuses a cursor.
    async fn join(gateway: &GatewayProcess, since: Option<&str>) -> Result<Listener, String> {
        let mut bindings = messages_of("*", A1);
        bindings[0]["cursor"] = true.into();
        if let Some(since) = since {
            bindings[0]["since"] = since.into();
        }
        let config =
            json!({"config": {"postgres_changes": bindings, "presence": {"enabled": false}}});
        wait_for("an answer about the cursor", || async {
            let mut client =
                Client::connect_to(gateway.address, Version::V2, &authenticated(ADA)).await;
            let (channel, reply) = client.join("lost", config.clone()).await;
            let reason = reply["response"]["reason"].as_str().unwrap_or_default();
            if let Some((word, _)) = reason.split_once(": ")
                && word.starts_with("cursor_")
            {
                return Ok(Err(word.to_owned()));
            }
            if reply["status"] != "ok" {
                return Err(reply.to_string());
            }
            let told = client.event(&channel, "system").await.payload;
            let cursor = told["cursor"].as_str().ok_or(told.to_string())?.to_owned();
            Ok(Ok(Listener {
                client,
                channel,
                cursor,
            }))
        })
        .await
    }

    /// The next message.
    async fn next(&mut self) -> String {
        let change = self.client.change(&self.channel).await;
        let record = &change["record"];
        self.cursor = record["tidings_cursor"]
            .as_str()
            .expect("a cursor")
            .to_owned();
        record["content"].as_str().expect("a message").to_owned()
    }

    /// The messages up to one, or the code with which the socket is closed first.
    async fn until(&mut self, last: &str) -> Result<Vec<String>, Option<u16>> {
        let mut messages = Vec::new();
        loop {
            match self.client.next().await {
                Incoming::Message(message) if message.event == "postgres_changes" => {
                    let content = &message.payload["data"]["record"]["content"];
                    let content = content.as_str().expect("a message").to_owned();
                    if content == last {
                        return Ok(messages);
                    }
                    messages.push(content);
                }
                Incoming::Closed(code) => return Err(code),
                _ => {}
            }
        }
    }
}

fn message(content: &str) -> String {
    format!(
        "insert into chat_messages (session_id, role, content) values ('{A1}', 'user', '{content}')"
    )
}

async fn say(server: &Server, content: &str) {
    server.run(&message(content)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_emptied_unread_is_a_loss() {
    let server = Server::start().await;
    let mut scene = Scene::on(&server).await;
    say(&server, "read").await;
    assert_eq!(scene.ada.next().await, "read");
    let before = scene.ada.cursor.clone();
    scene.proxy.cut(Cut::Reset);
    say(&server, "never read").await;
    server.run("truncate tidings.changes").await;
    scene.proxy.mend();
    scene.is_loud("truncated").await;
    let missed = scene.comes_back(&server, &before).await;
    assert_eq!(missed, Err("cursor_expired".to_owned()));
    scene.goes_on(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_emptied_after_all_had_been_read_is_none() {
    let server = Server::start().await;
    let mut scene = Scene::on(&server).await;
    let before = scene.ada.cursor.clone();
    for content in ["1", "2"] {
        say(&server, content).await;
        assert_eq!(scene.ada.next().await, content);
    }
    let newest = scene.ada.cursor.clone();
    // Only the read after the next one knows that nothing went away under it.
    scene.has_read(&server).await;
    scene.has_read(&server).await;
    server.run("truncate tidings.changes").await;
    say(&server, "3").await;
    assert_eq!(scene.ada.next().await, "3");
    scene.is_silent().await;
    // Who was there for all of it may come back; another gateway has no memory of it.
    scene.gateway = {
        let url = server.gateway_url();
        GatewayProcess::start(&[
            ("DATABASE_URL", url.as_str()),
            ("TIDINGS_JWT_SECRET", SECRET),
        ])
        .await
    };
    let missed = scene.comes_back(&server, &before).await;
    assert_eq!(missed, Err("cursor_expired".to_owned()));
    // The newest covers all that is gone. It may be taken for one that does not, but then it says so.
    match scene.comes_back(&server, &newest).await {
        Ok(missed) => assert_eq!(missed, ["3"]),
        Err(refused) => assert_eq!(refused, "cursor_expired"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_database_at_the_same_address_is_a_loss() {
    let server = Server::start().await;
    let mut scene = Scene::on(&server).await;
    say(&server, "read").await;
    assert_eq!(scene.ada.next().await, "read");
    let before = scene.ada.cursor.clone();
    // A copy in the same cluster: restored from a dump, say.
    scene.proxy.cut(Cut::Reset);
    server.replace_by_copy().await;
    scene.proxy.mend();
    scene.is_loud("foreign").await;
    let missed = scene.comes_back(&server, &before).await;
    assert_eq!(missed, Err("cursor_foreign".to_owned()));
    scene.goes_on(&server).await;
}
