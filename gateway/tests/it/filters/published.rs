//! Tables without a key, keys that are not for everybody, and what the publication says of columns and rows.

use super::{refused::told, *};
use crate::support::{token::authenticated, wait::PATIENCE};

#[tokio::test]
async fn rows_without_a_key_or_with_one_that_is_not_for_everybody_are_delivered() {
    let database = TestDatabase::new(None).await;
    database
        .execute(
            "create table keyless (a int, b text); create table secret (id int primary key, a int);
             grant select on keyless, secret to anon; grant select (a) on secret to authenticated; revoke select on secret from anon;
             select tidings.watch('keyless'), tidings.watch('secret')",
        )
        .await;
    let gateway = TestGateway::start(&database).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let keyless = client
        .subscribe(
            "keyless",
            json!([binding("*", "keyless", Some("b=like.x%"))]),
        )
        .await;
    let mut other = Client::v2(&gateway, &authenticated("usr_1")).await;
    let secret = other
        .subscribe("secret", json!([binding("*", "secret", Some("a=gt.0"))]))
        .await;
    client
        .refused("secret", json!([binding("*", "secret", None)]))
        .await;
    database
        .execute(
            "insert into keyless values (1, 'x'); update keyless set a = 2; delete from keyless;
             insert into secret values (1, 1); update secret set id = 2; delete from secret",
        )
        .await;
    for kind in ["INSERT", "UPDATE", "DELETE"] {
        let change = client.change(&keyless).await;
        assert_eq!(
            (&change["type"], &change["errors"]),
            (&json!(kind), &Value::Null)
        );
        let row = change.get("record").unwrap_or(&change["old_record"]);
        assert_eq!(row["b"], "x");
        let change = other.change(&secret).await;
        assert_eq!(
            (&change["type"], &change["errors"]),
            (&json!(kind), &Value::Null)
        );
        let row = change.get("record").unwrap_or(&change["old_record"]);
        assert_eq!(*row, json!({"a": 1}));
    }
}

#[tokio::test]
async fn the_publications_lists_of_columns_hold() {
    let database = TestDatabase::new(None).await;
    database
        .execute(
            "create table things (id int primary key, a text, b int, c text);
             grant select on things to anon;
             alter publication supabase_realtime add table things (id, a, b)",
        )
        .await;
    let gateway = TestGateway::start(&database).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let mut selecting = binding("*", "things", None);
    selecting["select"] = json!(["c"]);
    for wrong in [binding("*", "things", Some("c=eq.x")), selecting] {
        let error = told(&mut client, wrong).await;
        assert!(
            error.contains("invalid column for ") && error.ends_with(" c"),
            "{error}"
        );
    }
    let channel = client
        .subscribe("all", json!([binding("*", "things", None)]))
        .await;
    database
        .execute(
            "insert into things values (1, 'x', 1, 'c'); update things set b = 2; delete from things",
        )
        .await;
    for kind in ["INSERT", "UPDATE", "DELETE"] {
        let change = client.change(&channel).await;
        assert_eq!(change["type"], kind);
        for row in ["record", "old_record"]
            .into_iter()
            .filter_map(|row| change.get(row))
        {
            let names: Vec<_> = row.as_object().expect("a row").keys().collect();
            assert_eq!(names, ["a", "b", "id"]);
        }
        let columns = json!([{"name": "id", "type": "int4"}, {"name": "a", "type": "text"}, {"name": "b", "type": "int4"}]);
        assert_eq!(change["columns"], columns);
    }
    assert_eq!(history(&gateway).await, json!([]));
    database
        .execute("insert into things values (5, 'x', 9, 'c')")
        .await;
    client.change(&channel).await;
    assert_eq!(
        history(&gateway).await,
        json!([{"id": 5, "a": "x", "b": 9}])
    );

    // The subscription follows the publication.
    database
        .execute("alter publication supabase_realtime set table things (id, c)")
        .await;
    let followed = async {
        loop {
            database
                .execute("insert into things (id, c) select max(id) + 1, 'new' from things")
                .await;
            let record = client.change(&channel).await["record"].take();
            if record["c"] == "new" && record.get("a").is_none() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, followed)
        .await
        .expect("the new list");
}

/// The rows of a history of `things`, by their ids.
async fn history(gateway: &TestGateway) -> Value {
    let mut client = Client::v2(gateway, &anon()).await;
    let mut wanted = binding("*", "things", None);
    wanted["history"] = 9.into();
    wanted["order"] = "id".into();
    wanted["cursor"] = false.into();
    let config = json!({"postgres_changes": [wanted], "presence": {"enabled": false}});
    let channel = client.joined("history", config).await;
    let mut rows = Vec::new();
    loop {
        let message = client
            .expect("a row or the end of them", |message| {
                message.topic == channel.topic
                    && ["postgres_changes", "system"].contains(&&*message.event)
            })
            .await;
        if message.event == "system" {
            assert_eq!(message.payload["status"], "ok", "{message:?}");
            return Value::from(rows);
        }
        rows.push(message.payload["data"]["record"].clone());
    }
}

#[tokio::test]
async fn only_rows_that_pass_the_publications_filter_are_sent() {
    let database = TestDatabase::new(None).await;
    database
        .execute(
            "create table things (id int primary key, b int, \"odd \"\" name\" text);
             alter table things replica identity full;
             grant select on things to anon;
             alter publication supabase_realtime add table things where (b > 1 and \"odd \"\" name\" is not null)",
        )
        .await;
    let gateway = TestGateway::start(&database).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let channels = [
        client
            .subscribe("all", json!([binding("*", "things", None)]))
            .await,
        client
            .subscribe(
                "key",
                json!([binding("*", "things", Some("id=not.in.(0,7)"))]),
            )
            .await,
        client
            .subscribe(
                "rest",
                json!([binding("*", "things", Some("b=gt.0,odd \" name=like.%"))]),
            )
            .await,
    ];
    database
        .execute(
            "insert into things values (1, 1, 'c'), (2, 2, null), (3, 3, 'c'), (4, null, 'c');
             update things set b = 5 where id = 4; update things set b = 0 where id = 3; update things set b = 3 where id = 3; delete from things;
             insert into things values (5, 9, 'c'), (6, 0, 'c')",
        )
        .await;
    for channel in &channels {
        for (kind, id) in [
            ("INSERT", 3),
            ("UPDATE", 4),
            ("UPDATE", 3),
            ("DELETE", 4),
            ("DELETE", 3),
            ("INSERT", 5),
        ] {
            let change = client.change(channel).await;
            let row = change.get("record").unwrap_or(&change["old_record"]);
            assert_eq!(
                (&change["type"], &row["id"]),
                (&json!(kind), &json!(id)),
                "{}",
                channel.topic
            );
        }
    }
    let rows = history(&gateway).await;
    assert_eq!(rows, json!([{"id": 5, "b": 9, "odd \" name": "c"}]));

    database
        .execute("alter publication supabase_realtime set table things where (b < 1)")
        .await;
    let followed = async {
        loop {
            database
                .execute("insert into things select max(id) + 1, -1, 'new' from things; insert into things select max(id) + 1, 9, 'old' from things")
                .await;
            if client.change(&channels[0]).await["record"]["b"] == -1 {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, followed)
        .await
        .expect("the new filter");
}
