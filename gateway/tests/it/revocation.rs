//! Access that is taken away: by whom, how soon, and what is delivered meanwhile.

mod admin;
mod catalog;
mod races;
mod schemas;

use serde_json::Value;

use crate::support::{
    Channel, Client, Incoming, TestDatabase,
    chat::{ADA, BOB},
};

/// Waits until the channel is ended for want of a right. Returns the changes that came before.
async fn ended(client: &mut Client, channel: &Channel) -> Vec<Value> {
    let mut changes = Vec::new();
    let mut told = false;
    loop {
        match client.next().await {
            Incoming::Message(mut message) if message.topic == channel.topic => {
                match &*message.event {
                    "postgres_changes" => changes.push(message.payload["data"].take()),
                    "system" => {
                        let text = message.payload["message"].as_str().unwrap_or_default();
                        told |= text.starts_with("You no longer have permission to read");
                        assert_eq!(message.payload["status"], "error", "{text}");
                    }
                    "phx_close" => {
                        assert!(told, "a channel ends without a word");
                        return changes;
                    }
                    other => panic!("{other} on {}: {}", message.topic, message.payload),
                }
            }
            Incoming::Message(_) => {}
            other => panic!("{other:?} before the end of {}", channel.topic),
        }
    }
}

/// Gives a session of the chat schema to somebody.
async fn give(database: &TestDatabase, session: &str, to: &str) {
    database
        .execute(&format!(
            "update chat_sessions set user_id = '{to}' where id = '{session}'"
        ))
        .await;
}

async fn to_ada(database: &TestDatabase, session: &str) {
    give(database, session, ADA).await;
}

async fn to_bob(database: &TestDatabase, session: &str) {
    give(database, session, BOB).await;
}
