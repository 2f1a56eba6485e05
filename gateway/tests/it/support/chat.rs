//! The ChatTwelve schema with a gateway, for tests that need a chat and care for something else.

use serde_json::{Value, json};

use super::{TestDatabase, TestGateway, binding};

pub(crate) const ADA: &str = "usr_Ada0000000000000000001";
pub(crate) const BOB: &str = "usr_Bob0000000000000000002";
/// Ada's session.
pub(crate) const A1: &str = "00000000-0000-4000-8000-0000000000a1";
/// Bob's.
pub(crate) const B1: &str = "00000000-0000-4000-8000-0000000000b1";

pub(crate) async fn chat() -> (TestDatabase, TestGateway) {
    chat_with(&[]).await
}

pub(crate) async fn chat_with(settings: &[(&str, &str)]) -> (TestDatabase, TestGateway) {
    let database = TestDatabase::new(Some("chattwelve")).await;
    let gateway = TestGateway::start_with(&database, settings).await;
    (database, gateway)
}

/// The bindings of one who listens to a session.
pub(crate) fn messages_of(event: &str, session: &str) -> Value {
    let filter = format!("session_id=eq.{session}");
    json!([binding(event, "chat_messages", Some(&filter))])
}

pub(crate) async fn say(database: &TestDatabase, session: &str, content: &str) {
    let statement =
        "insert into chat_messages (session_id, role, content) values ($1::text::uuid, 'user', $2)";
    let inserted = database
        .client
        .execute(statement, &[&session, &content])
        .await;
    assert_eq!(inserted.expect("an insert"), 1);
}
