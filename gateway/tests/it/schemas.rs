//! Five real chat schemas, loaded unchanged: who may join, who receives what, and who does not.
//!
//! Each file is a copy of the schema as its product has it; the `expect:` lines at its end are the facts tested here.
//! Absence is shown by a row that must arrive later.

mod archety;
mod chattwelve;
mod gptdesk;
mod tenantrooms;
mod wbot;

use crate::support::TestDatabase;

/// The reason with which a join is refused that names rows which the principal may not see.
fn unauthorized(sub_topic: &str) -> String {
    format!(
        "Unauthorized: You do not have permissions to read from this Channel topic: {sub_topic}"
    )
}

async fn watched(schema: &str, tables: &[&str]) -> TestDatabase {
    let database = TestDatabase::new(Some(schema)).await;
    for table in tables {
        database
            .execute(&format!("select tidings.watch('{table}')"))
            .await;
    }
    database
}
