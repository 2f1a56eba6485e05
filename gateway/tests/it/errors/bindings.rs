//! What a channel is told of bindings that cannot be live, and of a change that is too long for it.

use super::*;
use crate::support::{binding, chat, token::authenticated};

async fn world() -> (TestDatabase, TestGateway) {
    let database = TestDatabase::new(None).await;
    database
        .execute(
            "create table things (id int primary key, name text, j json);
             grant select on things to anon; select tidings.watch('things')",
        )
        .await;
    let gateway = TestGateway::start(&database).await;
    (database, gateway)
}

/// The `system` error that follows a join with this binding.
async fn told(gateway: &TestGateway, token: &str, binding: Value) -> String {
    let mut client = Client::v2(gateway, token).await;
    let mut config = quiet();
    config["postgres_changes"] = json!([binding]);
    let channel = client.joined("room", config).await;
    let told = client.event(&channel, "system").await.payload;
    let message = told["message"].as_str().expect("a message").to_owned();
    let whole = json!({"message": message, "status": "error", "extension": "postgres_changes", "channel": "room"});
    assert_eq!(told, whole);
    message
}

fn filtered(filter: &str) -> Value {
    binding("*", "things", Some(filter))
}

fn selecting(table: &str, select: Value) -> Value {
    let mut binding = binding("*", table, None);
    binding["select"] = select;
    binding
}

#[tokio::test]
async fn every_complaint_about_a_binding_is_on_the_page() {
    let (_database, gateway) = world().await;
    walk("`system` errors of bindings", [0], async |[message]| {
        let wrong = match message {
            "Error parsing `filter` params: […]" => filtered("wrong"),
            "Error parsing `filter` params: `in` filter value must be wrapped by parentheses" => {
                filtered("id=in.1,2")
            }
            "Error parsing `filter` params: filter must not contain empty segments (check for extra commas)" => {
                filtered("id=eq.1,,id=eq.2")
            }
            r#"Error parsing `select` params: expected a list of column name strings, e.g. select: ["col1", "col2"]"# => {
                selecting("things", json!("id"))
            }
            "Column selection is not supported for wildcard subscriptions. Provide an explicit schema and table name." => {
                selecting("*", json!(["id"]))
            }
            "No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: …" => {
                json!({"event": "*"})
            }
            "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given connect parameters: […]" => {
                binding("*", "nothing", None)
            }
            "Unable to subscribe to changes with given parameters. An exception happened so please check your connect parameters: […]. Exception: …" => {
                filtered("id=eq.x")
            }
            "You do not have permissions to read from this Channel topic: …" => {
                let settings = [("unauthorized_join", "system")];
                let (_database, gateway) = Box::pin(chat::chat_with(&settings)).await;
                let wanted = chat::messages_of("*", chat::A1)[0].clone();
                return [Box::pin(told(&gateway, &authenticated("nobody"), wanted)).await];
            }
            other => panic!("no provoker for {other}"),
        };
        [Box::pin(told(&gateway, &anon(), wrong)).await]
    })
    .await;
}

#[tokio::test]
async fn every_complaint_of_the_database_about_a_binding_is_on_the_page() {
    let (_database, gateway) = world().await;
    walk("After `Exception:`", [0], async |[text]| {
        let nobody = token(json!({"role": "nobody_has_this_role"}));
        let (token, wrong) = match text {
            "ERROR P0001 (raise_exception) invalid column for filter …" => {
                (anon(), filtered("nothing=eq.1"))
            }
            "ERROR P0001 (raise_exception) invalid column for select …" => {
                (anon(), selecting("things", json!(["nothing"])))
            }
            "ERROR P0001 (raise_exception) invalid value for is filter: must be null, true, false, or unknown" => {
                (anon(), filtered("id=is.1"))
            }
            "ERROR P0001 (raise_exception) is … filter requires a boolean column, got …" => {
                (anon(), filtered("id=is.true"))
            }
            "ERROR P0001 (raise_exception) operator … requires a text-compatible column type, got …" => {
                (anon(), filtered("id=like.1"))
            }
            "ERROR P0001 (raise_exception) invalid regular expression for … filter: …" => {
                (anon(), filtered("name=match.("))
            }
            "ERROR P0001 (raise_exception) too many values for `in` filter. Maximum 100" => {
                let many: Vec<_> = (0..=100).map(|n| n.to_string()).collect();
                (anon(), filtered(&format!("id=in.({})", many.join(","))))
            }
            "ERROR 42883 (undefined_function) operator does not exist: …" => {
                (anon(), filtered("j=eq.{}"))
            }
            "ERROR 42704 (undefined_object) role \"…\" does not exist" => {
                (nobody, filtered("id=eq.1"))
            }
            "ERROR … (…) …" => (anon(), filtered("id=eq.x")),
            other => panic!("no provoker for {other}"),
        };
        let told = Box::pin(told(&gateway, &token, wrong)).await;
        let (_, exception) = told.split_once(". Exception: ").expect("an exception");
        [exception.to_owned()]
    })
    .await;
}

#[tokio::test]
async fn every_error_in_a_change_is_on_the_page() {
    let (database, gateway) = world().await;
    walk("In a change", [0], async |[text]| {
        assert_eq!(text, "Error 413: Payload Too Large", "no provoker");
        let mut client = Client::v1(&gateway, &anon()).await;
        let bindings = json!([binding("*", "things", None)]);
        let channel = client.subscribe("room", bindings).await;
        database
            .execute("insert into things values (1, repeat('x', 2000000))")
            .await;
        let change = client.change(&channel).await;
        assert_eq!(change["record"], json!({"id": 1}));
        let errors = change["errors"].as_array().expect("a list");
        assert_eq!(errors.len(), 1);
        [errors[0].as_str().expect("a text").to_owned()]
    })
    .await;
}
