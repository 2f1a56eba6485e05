//! Which tables are watched: by the publication while the gateway runs, partitioned ones by their root.

use serde_json::json;

use crate::support::{Client, TestDatabase, TestGateway, binding, token::anon};

async fn table(database: &TestDatabase, name: &str) {
    database
        .execute(&format!(
            "create table {name} (id int primary key, t text); grant select on {name} to anon"
        ))
        .await;
}

#[tokio::test]
async fn a_table_that_is_published_while_the_gateway_runs_is_delivered_until_it_is_taken_off() {
    let database = TestDatabase::new(None).await;
    let gateway = TestGateway::start(&database).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    table(&database, "late").await;
    table(&database, "other").await;
    database
        .execute("alter publication supabase_realtime add table late, other")
        .await;
    // A join asks for it at once.
    let channel = client
        .subscribe("late", json!([binding("*", "late", None)]))
        .await;
    database.execute("insert into late values (1, 'a')").await;
    assert_eq!(client.change(&channel).await["record"]["id"], 1);

    database
        .execute("alter publication supabase_realtime drop table late")
        .await;
    let unwatched = || async {
        match &*database
            .text("select count(*) from tidings.watched where relation = 'late'::regclass")
            .await
        {
            "0" => Ok(()),
            count => Err(format!("{count} watched")),
        }
    };
    crate::support::wait::wait_for("the table to be unwatched", unwatched).await;
    assert_eq!(
        database
            .text("select count(*) from pg_trigger where tgrelid = 'late'::regclass")
            .await,
        "0"
    );
    let other = client
        .subscribe("other", json!([binding("*", "other", None)]))
        .await;
    database
        .execute("insert into late values (2, 'b'); insert into other values (1, 'end')")
        .await;
    assert_eq!(client.change(&other).await["record"]["t"], "end");
    // Its subscriber is told that it gets nothing any more.
    let told = client.event(&channel, "system").await;
    assert_eq!(told.payload["status"], "error");

    // And once more: the subscription that was made before is about the table of that name, and comes back by itself.
    database
        .execute("alter publication supabase_realtime add table late")
        .await;
    let again = client
        .subscribe("again", json!([binding("*", "late", None)]))
        .await;
    client.live(&channel).await;
    database.execute("insert into late values (3, 'c')").await;
    assert_eq!(client.change(&again).await["record"]["id"], 3);
    assert_eq!(client.change(&channel).await["record"]["id"], 3);
}

#[tokio::test]
async fn a_partition_reports_its_root_and_rows_that_move_are_deleted_and_inserted() {
    let database = TestDatabase::new(None).await;
    database
        .execute(
            "create table parts (id int, t text, primary key (id)) partition by range (id);
             create table parts_low partition of parts for values from (0) to (100);
             create table parts_high partition of parts for values from (100) to (200) partition by list (id);
             create table parts_rest partition of parts_high default;
             grant select on parts to anon;
             alter publication supabase_realtime add table parts",
        )
        .await;
    let gateway = TestGateway::start(&database).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let channel = client
        .subscribe("parts", json!([binding("*", "parts", None)]))
        .await;
    database
        .execute(
            "insert into parts values (1, 'low'), (150, 'high');
             insert into parts_low values (2, 'into the partition itself');
             create table parts_new partition of parts for values from (200) to (300);
             insert into parts values (250, 'new');
             update parts set t = 'changed' where id = 1;
             update parts set id = 151 where id = 2;
             delete from parts where id = 150;
             insert into parts values (3, 'end')",
        )
        .await;
    let mut seen = Vec::new();
    for change in client.changes_until(&channel, "t", "end").await {
        assert_eq!(
            (&change["schema"], &change["table"]),
            (&json!("public"), &json!("parts"))
        );
        let row = change.get("record").unwrap_or(&change["old_record"]);
        seen.push(format!(
            "{} {}",
            change["type"].as_str().expect("a type"),
            row["id"]
        ));
    }
    assert_eq!(
        seen,
        [
            "INSERT 1",
            "INSERT 150",
            "INSERT 2",
            "INSERT 250",
            "UPDATE 1",
            "DELETE 2",
            "INSERT 151",
            "DELETE 150"
        ]
    );
}

#[tokio::test]
async fn a_truncate_is_not_delivered_and_harms_nothing() {
    let database = TestDatabase::new(None).await;
    table(&database, "short").await;
    database.execute("select tidings.watch('short')").await;
    let gateway = TestGateway::start(&database).await;
    let mut client = Client::v1(&gateway, &anon()).await;
    let channel = client
        .subscribe("short", json!([binding("*", "short", None)]))
        .await;
    database
        .execute(
            "insert into short values (1, 'a'); truncate short; insert into short values (1, 'b')",
        )
        .await;
    for t in ["a", "b"] {
        let change = client.change(&channel).await;
        assert_eq!(
            (&change["type"], &change["record"]["t"]),
            (&json!("INSERT"), &json!(t))
        );
    }
    assert_eq!(client.until_heartbeat().await, []);
}

#[tokio::test]
async fn a_table_that_is_altered_renamed_or_dropped_does_not_stop_the_feed() {
    let database = TestDatabase::new(None).await;
    for name in ["one", "two"] {
        table(&database, name).await;
        database
            .execute(&format!("select tidings.watch('{name}')"))
            .await;
    }
    let gateway = TestGateway::start(&database).await;
    let mut client = Client::v2(&gateway, &anon()).await;
    let one = client
        .subscribe("one", json!([binding("*", "one", None)]))
        .await;
    let two = client
        .subscribe("two", json!([binding("*", "two", None)]))
        .await;
    database
        .execute("alter table one add column more int default 7; insert into one values (1, 'a')")
        .await;
    assert_eq!(client.change(&one).await["record"]["id"], 1);
    database
        .execute("alter table one drop column t; insert into one values (2); drop table one; insert into two values (1, 'still')")
        .await;
    assert_eq!(client.change(&two).await["record"]["t"], "still");
    // Who joins after a column has come gets it.
    database
        .execute("alter table two add column more int default 7")
        .await;
    let with_more = || async {
        let mut late = Client::v2(&gateway, &anon()).await;
        let channel = late
            .subscribe("two", json!([binding("*", "two", None)]))
            .await;
        database.execute("update two set t = t || '!'").await;
        match late.change(&channel).await["record"].get("more") {
            Some(more) if *more == 7 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    crate::support::wait::wait_for("the new column", with_more).await;
}
