//! What a binding may not ask for, and what it gets of the columns that it selects.

use super::*;

/// What a client is told of a binding that is wrong, without the parameters that it names.
pub(super) async fn told(client: &mut Client, wanted: Value) -> String {
    let config = json!({"postgres_changes": [wanted], "presence": {"enabled": false}});
    let channel = client.joined("wrong", config).await;
    let told = client.event(&channel, "system").await.payload;
    assert_eq!(
        (&told["status"], &told["extension"]),
        (&json!("error"), &json!("postgres_changes"))
    );
    let message = told["message"].as_str().expect("a message");
    let (_, error) = message.split_once("Exception: ").unwrap_or(("", message));
    error.to_owned()
}

#[tokio::test]
async fn what_the_database_refuses_is_told_by_the_texts_of_the_protocol() {
    let database = TestDatabase::new(None).await;
    database
        .execute(
            "create type mood as enum ('fine'); create domain small as int check (value < 10);
             create collation loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
             create table hidden (id int primary key, open text, closed text); grant select (id, open) on hidden to anon; select tidings.watch('hidden')",
        )
        .await;
    table(&database, "name text, m mood, s small, at timestamptz, j json, l text collate loose, u uuid, a json[], p point").await;
    let gateway = TestGateway::start(&database).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let many: Vec<_> = (0..=100).map(|n| n.to_string()).collect();
    let many = format!("id=in.({})", many.join(","));
    for (filter, error) in [
        (
            "nothing=eq.1",
            "ERROR P0001 (raise_exception) invalid column for filter nothing",
        ),
        (
            " =eq.1",
            "ERROR P0001 (raise_exception) invalid column for filter ",
        ),
        (
            "id=eq.hey",
            "ERROR 22P02 (invalid_text_representation) invalid input syntax for type integer: \"hey\"",
        ),
        (
            "id=eq.9999999999",
            "ERROR 22003 (numeric_value_out_of_range) value \"9999999999\" is out of range for type integer",
        ),
        (
            "id=in.(1,x)",
            "ERROR 22P02 (invalid_text_representation) invalid input syntax for type integer: \"x\"",
        ),
        (
            "name=in.({)",
            "ERROR 22P02 (invalid_text_representation) malformed array literal: \"{{}\"",
        ),
        (
            "m=neq.sad",
            "ERROR 22P02 (invalid_text_representation) invalid input value for enum public.mood: \"sad\"",
        ),
        (
            "u=eq.1",
            "ERROR 22P02 (invalid_text_representation) invalid input syntax for type uuid: \"1\"",
        ),
        (
            "at=gt.soon",
            "ERROR 22007 (invalid_datetime_format) invalid input syntax for type timestamp with time zone: \"soon\"",
        ),
        (
            "s=eq.10",
            "ERROR 23514 (check_violation) value for domain public.small violates check constraint \"small_check\"",
        ),
        (
            "j=eq.{}",
            "ERROR 42883 (undefined_function) operator does not exist: json = json",
        ),
        (
            "p=lt.(1,2)",
            "ERROR 42883 (undefined_function) operator does not exist: point < point",
        ),
        (
            "a=eq.{}",
            "ERROR 42883 (undefined_function) could not identify an equality operator for type json",
        ),
        (
            "id=is.nothing",
            "ERROR P0001 (raise_exception) invalid value for is filter: must be null, true, false, or unknown",
        ),
        (
            "name=is.true",
            "ERROR P0001 (raise_exception) is true filter requires a boolean column, got text",
        ),
        (
            "id=like.1",
            "ERROR P0001 (raise_exception) operator like requires a text-compatible column type, got integer",
        ),
        (
            "id=not.imatch.1",
            "ERROR P0001 (raise_exception) operator imatch requires a text-compatible column type, got integer",
        ),
        (
            "name=match.(",
            "ERROR P0001 (raise_exception) invalid regular expression for match filter: invalid regular expression: parentheses () not balanced",
        ),
        (
            &many,
            "ERROR P0001 (raise_exception) too many values for `in` filter. Maximum 100",
        ),
        // What would fail for every row is told at once.
        (
            "name=like.a\\",
            "ERROR 22025 (invalid_escape_sequence) LIKE pattern must not end with escape character",
        ),
    ] {
        assert_eq!(
            told(&mut client, binding("*", "things", Some(filter))).await,
            error,
            "{filter}"
        );
    }
    // Columns that the role may not SELECT are none.
    for (filter, column) in [
        ("closed=eq.x", "closed"),
        ("closed=is.null", "closed"),
        ("open=like.a,closed=like.b", "closed"),
    ] {
        assert_eq!(
            told(&mut client, binding("*", "hidden", Some(filter))).await,
            format!("ERROR P0001 (raise_exception) invalid column for filter {column}")
        );
    }
    for (select, column) in [
        (json!(["closed"]), "closed"),
        (json!(["open", "none"]), "none"),
    ] {
        let mut wanted = binding("*", "hidden", None);
        wanted["select"] = select;
        assert_eq!(
            told(&mut client, wanted).await,
            format!("ERROR P0001 (raise_exception) invalid column for select {column}")
        );
    }
    // A hundred are not too many; a collation without an order of letters has no patterns in this version.
    let some = many.replace("(0,", "(");
    client
        .subscribe("many", json!([binding("*", "things", Some(&some))]))
        .await;
    let version: i32 = database
        .text("current_setting('server_version_num')")
        .await
        .parse()
        .expect("a number");
    if version < 180_000 {
        assert_eq!(
            told(&mut client, binding("*", "things", Some("l=like.a"))).await,
            "ERROR 0A000 (feature_not_supported) nondeterministic collations are not supported for LIKE"
        );
    }
}

#[tokio::test]
async fn selected_columns_come_with_the_primary_key_and_filters_may_use_others() {
    let database = TestDatabase::new(None).await;
    table(&database, "name text, qty numeric, note text").await;
    let gateway = TestGateway::start(&database).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let with = |select: Value, filter: &str| {
        let mut wanted = binding("*", "things", Some(filter));
        wanted["select"] = select;
        wanted
    };
    let mut channels = Vec::new();
    for (select, filter, expected) in [
        (json!(["name"]), "qty=gt.1", vec!["id", "name"]),
        (
            json!(["name", 7, null, "name"]),
            "name=eq.a",
            vec!["id", "name"],
        ),
        // The order is that of the table.
        (
            json!(["note", "name"]),
            "qty=gt.1,id=eq.1",
            vec!["id", "name", "note"],
        ),
        (json!(["id"]), "note=is.null", vec!["id"]),
        (json!([]), "qty=gt.1", vec!["id", "name", "qty", "note"]),
        (
            json!([1, {}]),
            "qty=gt.1",
            vec!["id", "name", "qty", "note"],
        ),
        (Value::Null, "qty=gt.1", vec!["id", "name", "qty", "note"]),
    ] {
        let topic = format!("{select} {filter}");
        let channel = client
            .subscribe(&topic, json!([with(select, filter)]))
            .await;
        channels.push((channel, expected));
    }
    database
        .execute(
            "insert into things values (1, 'a', 2, null); update things set qty = 3; delete from things",
        )
        .await;
    for (channel, expected) in channels {
        for kind in ["INSERT", "UPDATE", "DELETE"] {
            let change = client.change(&channel).await;
            assert_eq!(change["type"], kind);
            let columns = change["columns"].as_array().expect("columns").iter();
            let names: Vec<_> = columns
                .map(|column| column["name"].as_str().expect("a name"))
                .collect();
            assert_eq!(names, expected, "{}", channel.topic);
            for row in ["record", "old_record"]
                .into_iter()
                .filter_map(|row| change.get(row))
            {
                let row = row.as_object().expect("a row");
                assert_eq!(row.len(), expected.len(), "{}: {row:?}", channel.topic);
                assert!(
                    expected.iter().all(|name| row.contains_key(*name)),
                    "{row:?}"
                );
            }
        }
    }
}
