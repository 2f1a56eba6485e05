//! The clock of the database's machine is set, and gateways are away: neither makes a change older.

use super::*;

#[tokio::test]
async fn a_clock_that_is_set_forward_empties_nothing() {
    let database = logged().await;
    write_into(&database.client, 4).await;
    pass(&database, "1 second").await;
    // All at once everything was long ago.
    database
        .execute("update tidings.log_marks set noted_at = noted_at - interval '1000 days'")
        .await;
    assert_eq!(trim(&database.client).await, 0);
    pass(&database, "330 days").await;
    assert_eq!(trim(&database.client).await, 0);
    // Two marks' distance at the most was counted.
    pass(&database, "36 days").await;
    assert_eq!(trim(&database.client).await, 1);
}

#[tokio::test]
async fn a_clock_that_is_set_back_begins_to_count_again() {
    let database = logged().await;
    write_into(&database.client, 4).await;
    pass(&database, "300 days").await;
    database
        .execute("update tidings.log_marks set noted_at = noted_at + interval '1000 days'")
        .await;
    assert_eq!(trim(&database.client).await, 0);
    let future = "select count(*) filter (where noted_at > clock_timestamp()) || ' ' || count(*) from tidings.log_marks";
    assert_eq!(database.text(future).await, "0 1");
    pass(&database, "365 days").await;
    assert_eq!(trim(&database.client).await, 0);
    pass(&database, "2 days").await;
    assert_eq!(trim(&database.client).await, 1);
}

/// As after a restore: its transactions have yet to come.
#[tokio::test]
async fn marks_of_another_database_count_for_nothing() {
    let database = logged().await;
    write_into(&database.client, 4).await;
    pass(&database, "400 days").await;
    database
        .execute("update tidings.log_marks set seen = '900000000:900000000:'")
        .await;
    assert_eq!(trim(&database.client).await, 0);
    assert_eq!(kept(&database).await, "4");
}

#[tokio::test]
async fn a_shorter_retention_frees_what_is_older_at_once() {
    let database = logged().await;
    for ahead in 4..9 {
        write_into(&database.client, ahead).await;
    }
    pass(&database, "2 hours").await;
    write_into(&database.client, 4).await;
    database
        .execute("select tidings.set_retention('1 hour')")
        .await;
    // The ring has another pace now: the slot that is being written, and the next one, may be two of the four.
    let emptied = trim_all(&database.client).await;
    assert!((2..=4).contains(&emptied), "{emptied}");
    assert!(kept(&database).await.ends_with('4'));
}
