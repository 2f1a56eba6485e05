//! Warnings and errors in sessions of SQL.

use std::future::poll_fn;

use tokio_postgres::{AsyncMessage, NoTls};

use super::*;

/// What PostgreSQL says to these statements: the first warning or error, by its level and text.
async fn said(database: &TestDatabase, sql: &str) -> [String; 2] {
    let (client, mut connection) = tokio_postgres::connect(&database.url, NoTls)
        .await
        .expect("a connection");
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notice(notice) = message
                && notice.severity() == "WARNING"
            {
                let _ = tell.send(["WARNING".to_owned(), notice.message().to_owned()]);
            }
        }
    });
    let run = client.batch_execute(sql).await;
    drop(client);
    let warned = told.recv().await;
    match run {
        Ok(()) => warned.unwrap_or_else(|| panic!("nothing is wrong with {sql}")),
        Err(error) => {
            let error = error.as_db_error().expect("an error of the database");
            [error.severity().to_owned(), error.message().to_owned()]
        }
    }
}

#[tokio::test]
async fn every_text_of_the_functions_is_on_the_page() {
    let database = TestDatabase::new(None).await;
    database
        .execute(
            "create table whole (id int) partition by list (id); create table part partition of whole default;
             create table plain (id int); create view seen as select 1 as one",
        )
        .await;
    let name = database.text("current_database()").await;
    walk("In SQL", [0, 1], async |[level, message]| {
        let key = |role: &str, claims: &str| {
            format!("select tidings.create_bot_key('same', '{role}', '{claims}', sha256(random()::text::bytea), null)")
        };
        let weak = format!(
            "create role weak_{name}; grant usage, create on schema tidings, public to weak_{name};
             grant all on all tables in schema tidings to weak_{name}; grant execute on all functions in schema tidings to weak_{name};"
        );
        let of_message = |operation: &str, level: &str| {
            format!("select realtime.broadcast_changes('t', 'e', '{operation}', 'whole', 'public', null, null, '{level}')")
        };
        let sql = match message {
            "WarnSendingBroadcastMessage: …" => {
                let no_object = "select realtime.send('[]', 'e', 'room')";
                let [_, told] = Box::pin(said(&database, no_object)).await;
                let (_, told) = told.split_once(": ").expect("a text");
                let text = "the payload must be a JSON object, this is a JSON …";
                assert!(page::fits(text, told) && page::PAGE.contains(text), "{told}");
                "set role anon; select realtime.send('{}', 'e', 'room')".to_owned()
            }
            "Failed to process the row: function can only be triggered for each row, not for each statement" => {
                of_message("INSERT", "STATEMENT")
            }
            "Failed to process the row: Unexpected operation type: …" => of_message("TRUNCATE", "ROW"),
            "… cannot be watched: it belongs to the machinery" => {
                "select tidings.watch('tidings.watched')".to_owned()
            }
            "… cannot be watched: it is not a table" => "select tidings.watch('seen')".to_owned(),
            "… cannot be watched: it is a partition" => "select tidings.watch('part')".to_owned(),
            "role … may not create a trigger on …" => {
                format!("begin; {weak} alter function tidings.attach owner to weak_{name}; select tidings.watch('plain')")
            }
            "role … may not drop the trigger on …: only the table's owner may" => format!(
                "begin; {weak} select tidings.watch('plain'); alter function tidings.detach owner to weak_{name}; select tidings.unwatch('plain')"
            ),
            "retention … is out of range: from 1 minute to 366 days" => {
                "select tidings.set_retention('1 second')".to_owned()
            }
            "the change log may be emptied in a transaction of level read committed only" => {
                "begin isolation level repeatable read; truncate tidings.changes".to_owned()
            }
            "tidings could not note this command: …" => {
                "begin; alter table tidings.changes rename to gone; rollback".to_owned()
            }
            "messages that are inserted into realtime.messages will not be broadcast: role … may not create a trigger on it" => {
                // As `tidings migrate` does it at the end of that migration.
                let migration = include_str!("../../../../migrations/20261120001100_create_messages.sql");
                let place = migration.rfind("do $$\nbegin\n  if not tidings.follow_messages()");
                let block = &migration[place.expect("the block")..];
                let (block, _) = block.split_once("\n$$;").expect("its end");
                format!(
                    "begin; {weak} drop trigger tidings_message on realtime.messages;
                     grant usage on schema realtime to weak_{name};
                     alter function tidings.follow_messages owner to weak_{name}; set role weak_{name}; {block}\n$$; rollback"
                )
            }
            "there is no role \"…\"" => key("nobody_has_this_role", "{}"),
            "role \"…\" is a superuser or the gateway's own, and may do too much for a bot" => {
                key("tidings_gateway", "{}")
            }
            "login \"…\" may not become role \"…\"" => {
                format!("begin; {weak} set role weak_{name}; {}", key("anon", "{}"))
            }
            "there is a key of that name already" => {
                database.execute(&key("anon", "{}")).await;
                key("anon", "{}")
            }
            "the claim role is the key's role and cannot be another" => {
                key("anon", r#"{"role": "x"}"#).replace("'same'", "'other'")
            }
            other => panic!("no provoker for {level} {other}"),
        };
        Box::pin(said(&database, &sql)).await
    })
    .await;
}
