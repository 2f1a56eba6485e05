//! Refusals of rows that are posted.

use super::*;
use crate::support::{
    chat::{A1, ADA, B1, chat},
    token::{authenticated, service_role},
};

#[tokio::test]
async fn every_refused_row_is_on_the_page() {
    let (database, world) = chat().await;
    database
        .execute(
            // What PostgreSQL may meet while it stores a row, by the row's content.
            "create function meet() returns trigger language plpgsql as $$
             begin
               if new.content like 'sqlstate-%' then
                 raise exception using message = split_part(new.content, '-', 3), errcode = split_part(new.content, '-', 2);
               end if;
               return new;
             end $$;
             create trigger meet before insert on chat_messages for each row execute function meet()",
        )
        .await;
    walk("Posting a row", [0, 1, 2], async |row| {
        let request = match row[2] {
            "The body did not arrive" => None,
            _ => Some(Box::pin(refused(&database, &world, row)).await),
        };
        let (status, body) = match request {
            Some(request) => answer(request).await,
            None => broken(&world).await,
        };
        let told: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{row:?}: {body}"));
        let keys: Vec<_> = told.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["code", "details", "hint", "message"]);
        let text = |key: &str| told[key].as_str().expect("a text").to_owned();
        [status, text("code"), text("message")]
    })
    .await;
}

fn post(gateway: &TestGateway, path: &str, token: &str, body: impl Into<String>) -> RequestBuilder {
    reqwest::Client::new()
        .post(gateway.url(&format!("/rest/v1/{path}")))
        .bearer_auth(token)
        .body(body.into())
}

async fn broken(gateway: &TestGateway) -> (String, String) {
    let request = format!(
        "POST /rest/v1/chat_messages HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        service_role()
    );
    raw(gateway, &request).await
}

/// The request that is refused so.
async fn refused(database: &TestDatabase, world: &TestGateway, row: [&str; 3]) -> RequestBuilder {
    const TABLE: &str = "chat_messages";
    let message = |session: &str, content: &str| {
        json!({"session_id": session, "role": "user", "content": content}).to_string()
    };
    let service = |path: &str, body: String| post(world, path, &service_role(), body);
    let good = || message(A1, "x");
    let meets = |sqlstate: &str, text: &str| {
        service(TABLE, message(A1, &format!("sqlstate-{sqlstate}-{text}")))
    };
    let wrong = |what: &str| post(world, TABLE, &wrong_token(what), good());
    match row {
        [
            "400",
            "PGRST100",
            "`select` takes `*` or names of columns, separated by commas: not `…`",
        ] => service("chat_messages?select=id::text", good()),
        [
            "400",
            "PGRST100",
            "`columns` is not a list of names separated by commas",
        ] => service("chat_messages?columns=,", good()),
        [
            "400",
            "PGRST100",
            "the query parameter `…` is not supported: `select` and `columns` are",
        ] => service("chat_messages?on_conflict=id", good()),
        ["400", "PGRST102", "Empty or invalid json"] => service(TABLE, "{".to_owned()),
        ["400", "PGRST102", "All object keys must match"] => {
            service(TABLE, r#"[{"content":"a"},{"role":"user"}]"#.to_owned())
        }
        [
            "400",
            "PGRST102",
            "a row is a JSON object whose keys are names of columns",
        ] => service(TABLE, "[7]".to_owned()),
        [
            "400",
            "PGRST122",
            "upserts are not supported: leave out `Prefer: resolution=…`",
        ] => service(TABLE, good()).header("prefer", "resolution=merge-duplicates"),
        ["400", "42703", "column ….… does not exist"] => {
            service("chat_messages?select=nothing", good())
        }
        [
            "400",
            "42703",
            "column \"…\" of relation \"…\" does not exist",
        ] => service(TABLE, r#"{"nothing":1}"#.to_owned()),
        ["400", "…", "…"] => service(TABLE, message("not a uuid", "x")),
        [
            "401",
            "PGRST301",
            "Expected 3 parts in JWT; got something else",
        ] => wrong("malformed"),
        ["401", "PGRST301", "JWSError JWSInvalidSignature"] => wrong("forged"),
        ["401", "PGRST301", "No suitable key or wrong key type"] => wrong("unknown key"),
        ["401", "PGRST301", "JWT expired"] => wrong("expired"),
        [
            "401",
            "PGRST301",
            "The claims role and exp are required in a JWT",
        ] => wrong("incomplete"),
        ["401", "PGRST301", "JWT claims are not accepted"] => wrong("other claim"),
        ["401", "PGRST302", "Anonymous access is disabled"] => reqwest::Client::new()
            .post(world.url("/rest/v1/chat_messages"))
            .body(good()),
        ["401", "42501", "permission denied for table …"] => post(world, TABLE, &anon(), good()),
        [
            "403",
            "42501",
            "new row violates row-level security policy for table \"…\"",
        ] => post(world, TABLE, &authenticated(ADA), message(B1, "x")),
        ["403", "42501", "The role of the token cannot be used here"] => {
            let superuser = post(world, TABLE, &token(json!({"role": "postgres"})), good());
            assert_eq!(answer(superuser).await.0, "403");
            let nobody = token(json!({"role": "nobody_has_this_role"}));
            post(world, TABLE, &nobody, good())
        }
        ["404", "PGRST125", "Invalid path specified in request URL"] => {
            service("rpc/something", good())
        }
        [
            "404",
            "PGRST205",
            "Could not find the table '….…' in the schema cache",
        ] => service("nothing", good()),
        ["404", "42P01", "relation \"…\" does not exist"] => {
            meets("42P01", "relation \"audit\" does not exist")
        }
        ["405", "PGRST117", "only POST (insert) is served here"] => {
            reqwest::Client::new().get(world.url("/rest/v1/chat_messages"))
        }
        [
            "406",
            "PGRST107",
            "None of these media types are available: …",
        ] => service(TABLE, good()).header("accept", "text/csv"),
        [
            "406",
            "PGRST116",
            "Cannot coerce the result to a single JSON object",
        ] => service(TABLE, "[]".to_owned()).header("accept", "application/vnd.pgrst.object+json"),
        [
            "409",
            "23503",
            "insert or update on table \"…\" violates foreign key constraint \"…\"",
        ] => service(TABLE, message("00000000-0000-4000-8000-00000000dead", "x")),
        [
            "409",
            "23505",
            "duplicate key value violates unique constraint \"…\"",
        ] => {
            let id = database.text("select id from chat_messages limit 1").await;
            let again = json!({"id": id, "session_id": A1, "role": "user", "content": "x"});
            service(TABLE, again.to_string())
        }
        ["413", "54000", "The body is larger than … bytes"] => {
            service(TABLE, " ".repeat(5_000_001))
        }
        ["413", "54000", "at most 1000 rows can be inserted at once"] => {
            service(TABLE, format!("[{}]", vec!["{}"; 1001].join(",")))
        }
        ["413", "54001", "stack depth limit exceeded"] => {
            meets("54001", "stack depth limit exceeded")
        }
        ["429", "PT429", "Too many requests"] => {
            let key = slow_bot(database).await;
            let rows = vec![good(); 100].join(",");
            post(world, TABLE, &key, format!("[{rows}]"))
        }
        [
            "500",
            "PGRSTX00",
            "The database failed: the gateway's log says with which code",
        ] => meets("XX000", "of the inside"),
        [
            "503",
            "PGRST001",
            "The database cannot be reached: try again in a moment",
        ] => meets("53300", "of the inside"),
        [
            "503",
            "PGRST003",
            "The database is busy: try again in a moment",
        ] => meets("40001", "of the inside"),
        ["504", "57014", "The database took too long"] => meets("57014", "of the inside"),
        other => panic!("no provoker for {other:?}"),
    }
}
