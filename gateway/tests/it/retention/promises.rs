//! What is emptied and what is not, and what is told of it.

use serde_json::json;

use super::*;
use crate::support::wait::wait_for;
use crate::support::{
    Channel, Client as Socket, OwnCluster, TestGateway, binding,
    chat::{A1, ADA, say},
    token::authenticated,
};

#[tokio::test]
async fn what_is_old_goes_and_what_is_young_stays() {
    let database = logged().await;
    for ahead in 0..10 {
        write_into(&database.client, ahead).await;
    }
    assert_eq!(trim_all(&database.client).await, 0);
    pass(&database, "365 days").await;
    assert_eq!(trim_all(&database.client).await, 0);
    // Two slots get something new.
    write_into(&database.client, 4).await;
    write_into(&database.client, 7).await;
    pass(&database, "2 days").await;
    assert_eq!(trim_all(&database.client).await, 6);
    // The slot that is being written and the next one are left alone, however old their changes are.
    assert_eq!(kept(&database).await, "0 1 4 7 4 7");
    pass(&database, "365 days").await;
    assert_eq!(trim_all(&database.client).await, 2);
    assert_eq!(kept(&database).await, "0 1");
    let horizon = database.text("select emptied from tidings.horizon").await;
    let newest = "select xmin::text = $1 from notes where body = '7' order by id desc limit 1";
    let row = database.client.query_one(newest, &[&horizon]).await;
    assert!(row.expect("the note").get::<_, bool>(0), "{horizon}");
}

/// The change is as old as its statement, and nobody has been able to read it.
#[tokio::test]
async fn a_change_that_was_held_back_is_kept_from_its_commit_on() {
    for looks in [false, true] {
        let database = logged().await;
        write_into(&database.client, 4).await;
        let writer = database.connect().await;
        writer.batch_execute("begin").await.expect("a transaction");
        // As write_into does, which would lock every slot.
        writer
            .batch_execute(
                "insert into tidings.changes (watch_id, slot, op, new_record)
                 values (1, (tidings.slot_at(clock_timestamp()) + 5) % 10, 'I', '{\"body\": \"5\"}')",
            )
            .await
            .expect("a change");
        pass(&database, "400 days").await;
        trim_beside(&database.client, 1).await;
        assert_eq!(kept(&database).await, "");
        writer.batch_execute("commit").await.expect("the commit");
        if looks {
            pass(&database, "1 second").await;
        }
        assert_eq!(trim_all(&database.client).await, 0);
        pass(&database, "365 days").await;
        assert_eq!(trim_all(&database.client).await, 0);
        assert_eq!(kept(&database).await, "5");
        pass(&database, "2 days").await;
        assert_eq!(trim_all(&database.client).await, 1);
    }
}

#[tokio::test]
async fn several_who_trim_at_once_do_it_once() {
    let database = logged().await;
    for ahead in 2..10 {
        write_into(&database.client, ahead).await;
    }
    pass(&database, "400 days").await;
    let other = database.connect().await;
    database
        .execute("begin; select tidings.trim_changes()")
        .await;
    // The first one has not ended yet.
    assert_eq!(trim(&other).await, 0);
    database.execute("commit").await;
    let mut sessions = vec![other];
    for _ in 0..3 {
        sessions.push(database.connect().await);
    }
    let mut emptied = 0;
    for _ in 0..7 {
        let tries = sessions.iter().map(trim);
        emptied += futures::future::join_all(tries).await.iter().sum::<i32>();
    }
    assert_eq!(kept(&database).await, "");
    assert_eq!(emptied, 7);
}

/// A client that was away for longer hears of it, also if the gateway does not know the log from before.
#[tokio::test]
async fn a_cursor_from_before_has_expired_and_a_later_one_has_not() {
    // What runs anywhere in the cluster counts, so this one has no other tests.
    let cluster = OwnCluster::start().await;
    let database = cluster.database("chattwelve").await;
    let gateway = TestGateway::start(&database).await;
    database
        .execute("select tidings.set_retention('366 days')")
        .await;
    let mut early = binding("*", "chat_messages", Some(&format!("session_id=eq.{A1}")));
    early["cursor"] = true.into();
    let mut socket = Socket::v2(&gateway, &authenticated(ADA)).await;
    let (channel, first) = cursor(&mut socket, json!([early])).await;
    say(&database, A1, "old").await;
    // The next cursor comes after it, and after the read that brought it (one from the middle of a read expires with what was
    // before that): the change is delivered before the place moves on. It also expires with what it knows to be running that
    // has a lower number.
    socket.change(&channel).await;
    let written = "select xmin::text::int8 from chat_messages where content = 'old'";
    let written = database
        .client
        .query_one(written, &[])
        .await
        .expect("the message");
    let xid = u64::try_from(written.get::<_, i64>(0)).expect("a transaction's number");
    wait_for("a place after all that", || async {
        let mark = gateway.app.hub.place().ok_or("no place")?.mark();
        let [part] = mark.parts() else {
            return Err("in the middle");
        };
        let seen = &part.snapshot;
        let after = seen.sees(xid) && seen.running().iter().all(|running| *running > xid);
        after.then_some(()).ok_or("something still runs")
    })
    .await;
    let mut socket = Socket::v2(&gateway, &authenticated(ADA)).await;
    let (_, second) = cursor(&mut socket, json!([early])).await;
    gateway.app.lifecycle.stop_now();
    database
        .execute("update tidings.changes set slot = (tidings.slot_at(clock_timestamp()) + 4) % 10")
        .await;
    pass(&database, "400 days").await;
    say(&database, A1, "new").await;
    assert!(trim_all(&database.client).await > 0);

    let gateway = TestGateway::start(&database).await;
    let mut since = early.clone();
    since["since"] = first.into();
    let mut socket = Socket::v2(&gateway, &authenticated(ADA)).await;
    let refused = socket.refused("a", json!([since])).await;
    assert!(refused.starts_with("cursor_expired"), "{refused}");
    since["since"] = second.into();
    let mut socket = Socket::v2(&gateway, &authenticated(ADA)).await;
    let config = json!({"postgres_changes": [since], "presence": {"enabled": false}});
    let channel = socket.joined("a", config).await;
    let change = socket.change(&channel).await;
    assert_eq!(change["record"]["content"], "new");
}

async fn cursor(socket: &mut Socket, bindings: serde_json::Value) -> (Channel, String) {
    let config = json!({"postgres_changes": bindings, "presence": {"enabled": false}});
    let channel = socket.joined("a", config).await;
    let told = socket.event(&channel, "system").await;
    let cursor = told.payload["cursor"].as_str();
    let cursor = cursor.expect("a cursor").to_owned();
    (channel, cursor)
}

/// Such a publication forbids to update tables that have no key.
#[tokio::test]
async fn a_publication_of_all_tables_keeps_nobody_from_trimming() {
    let database = logged().await;
    write_into(&database.client, 4).await;
    database
        .execute("create publication everything for all tables")
        .await;
    pass(&database, "400 days").await;
    assert_eq!(trim(&database.client).await, 1);
    // A copy of a database begins anew, which changes more than trimming does.
    database
        .execute("update tidings.installation set cluster = 'another'")
        .await;
    let identity = "select identity from tidings.begin_reading()";
    assert_ne!(database.text(identity).await, "");
    assert_eq!(
        database
            .text("select count(*) from tidings.log_marks")
            .await,
        "0"
    );
}
