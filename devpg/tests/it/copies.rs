//! Copies, standbys, ends without a checkpoint, and transaction numbers near their end.

use std::fs;

use devpg::{Cluster, Error};

use crate::support::{installation, query, try_query, wait_for};

fn set(name: &str, value: &str) -> Vec<(String, String)> {
    vec![(name.to_owned(), value.to_owned())]
}

#[test]
fn a_copy_has_the_data_and_the_password_and_goes_its_own_way() {
    let mut cluster =
        Cluster::start_temporary(&installation(), set("max_connections", "33")).expect("started");
    query(&cluster, "create table kept as select 7 as n");
    let error = cluster.copy(Vec::new()).expect_err("it runs");
    assert!(matches!(error, Error::StillRunning { .. }), "{error}");
    cluster.stop().expect("stopped");

    let copy = cluster.copy(set("work_mem", "8MB")).expect("a copy");
    assert_eq!(query(&copy, "select n from kept").as_deref(), Some("7"));
    for (setting, value) in [("max_connections", "33"), ("work_mem", "8MB")] {
        let shown = query(&copy, &format!("show {setting}"));
        assert_eq!(shown.as_deref(), Some(value));
    }
    cluster.start_again().expect("started again");
    query(&copy, "update kept set n = 8");
    assert_eq!(query(&cluster, "select n from kept").as_deref(), Some("7"));
    let dir = copy.data_dir().parent().expect("a parent").to_owned();
    drop(copy);
    assert!(!dir.exists());
}

#[test]
fn a_standby_follows_and_is_promoted() {
    let mut primary = Cluster::start_temporary(&installation(), Vec::new()).expect("started");
    primary.stop().expect("stopped");
    let standby = primary.standby(Vec::new()).expect("a standby");
    primary.start_again().expect("started again");
    query(&primary, "create table kept as select 7 as n");
    let kept = || {
        try_query(&standby.url("postgres"), "select n from kept")
            .ok()
            .flatten()
    };
    wait_for("the row on the standby", || kept().as_deref() == Some("7"));
    assert!(try_query(&standby.url("postgres"), "update kept set n = 8").is_err());

    primary.kill().expect("killed");
    assert_eq!(query(&standby, "select pg_promote()").as_deref(), Some("t"));
    query(&standby, "update kept set n = 8");
    let identity = "select system_identifier from pg_control_system()";
    primary.start_again().expect("started again");
    assert_eq!(query(&primary, identity), query(&standby, identity));
}

#[test]
fn an_immediate_stop_leaves_the_rest_to_recovery() {
    let mut cluster = Cluster::start_temporary(&installation(), Vec::new()).expect("started");
    query(&cluster, "create table kept as select 7 as n");
    cluster.stop_immediately().expect("stopped");
    cluster.set("work_mem", "8MB");
    cluster.start_again().expect("started again");
    assert_eq!(query(&cluster, "select n from kept").as_deref(), Some("7"));
    assert_eq!(query(&cluster, "show work_mem").as_deref(), Some("8MB"));
    let log = fs::read_to_string(cluster.log_path()).expect("a log");
    assert!(log.contains("automatic recovery in progress"), "{log}");
}

#[test]
fn transaction_numbers_go_on_where_they_are_told_to() {
    let installation = installation();
    if installation.program("pg_resetwal").is_none() {
        eprintln!("left out: this PostgreSQL comes without pg_resetwal");
        return;
    }
    let mut cluster = Cluster::start_temporary(&installation, Vec::new()).expect("started");
    query(&cluster, "create table kept as select 7 as n");
    let number = (3 << 32) + 1_000_000_000;
    let error = cluster.set_next_transaction(number).expect_err("it runs");
    assert!(matches!(error, Error::StillRunning { .. }), "{error}");
    cluster.stop().expect("stopped");
    cluster.set_next_transaction(number).expect("moved");
    cluster.start_again().expect("started again");
    let given = query(
        &cluster,
        "insert into kept values (8); select pg_current_xact_id()",
    )
    .and_then(|given| given.parse::<u64>().ok());
    assert!(
        given.is_some_and(|given| (number..number + 100).contains(&given)),
        "{given:?}"
    );
    assert_eq!(
        query(&cluster, "select sum(n) from kept").as_deref(),
        Some("15")
    );
}
