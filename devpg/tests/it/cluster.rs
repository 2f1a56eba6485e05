//! Starting, stopping, crashing, and data directories of every kind.

use std::{fs, net::TcpListener, time::Duration};

use devpg::{Cluster, Error};

use crate::support::{
    installation, open_directory, options, private_directory, query, try_query, wait_for,
};

#[test]
fn stop_and_start_again_keeps_data_and_port() {
    let mut cluster = Cluster::start_temporary(&installation(), Vec::new()).expect("started");
    query(
        &cluster,
        "create table kept (n int); insert into kept values (7)",
    );
    let (port, pid) = (cluster.port(), cluster.pid().expect("a process"));
    cluster.stop().expect("stopped");
    assert!(!runs(pid) && try_query(&cluster.url("postgres"), "select 1").is_err());
    cluster.stop().expect("stopping twice is harmless");
    cluster.start_again().expect("started again");
    cluster.start_again().expect("starting twice is harmless");
    assert_eq!(cluster.port(), port);
    assert_eq!(query(&cluster, "select n from kept").as_deref(), Some("7"));
}

#[test]
fn a_killed_server_recovers() {
    let mut cluster = Cluster::start_temporary(&installation(), Vec::new()).expect("started");
    query(
        &cluster,
        "create table kept as select n from generate_series(1, 1000) n",
    );
    cluster.kill().expect("killed");
    assert!(
        cluster.data_dir().join("postmaster.pid").exists(),
        "a crash removes nothing"
    );
    cluster.start_again().expect("started again");
    assert_eq!(
        query(&cluster, "select count(*) from kept").as_deref(),
        Some("1000")
    );
    let log = fs::read_to_string(cluster.log_path()).expect("a log");
    assert!(log.contains("automatic recovery in progress"), "{log}");
}

#[test]
fn a_server_that_ended_by_itself_is_started_again() {
    let mut cluster = Cluster::start_temporary(&installation(), Vec::new()).expect("started");
    let pid = cluster.pid().expect("a process");
    let killed = std::process::Command::new("kill")
        .args(["-INT", &pid.to_string()])
        .status()
        .expect("kill");
    assert!(killed.success());
    wait_for("the end of the server", || !runs(pid));
    wait_for("the end to be noticed", || {
        cluster.start_again().is_ok() && cluster.pid() != Some(pid)
    });
    assert_eq!(query(&cluster, "select 1").as_deref(), Some("1"));
}

#[test]
fn nothing_of_a_temporary_cluster_is_left() {
    let mut cluster = Cluster::start_temporary(&installation(), Vec::new()).expect("started");
    let (dir, pid) = (
        cluster.data_dir().parent().expect("a parent").to_owned(),
        cluster.pid().expect("a process"),
    );
    drop(cluster);
    assert!(!dir.exists() && !runs(pid));

    cluster = Cluster::start_temporary(&installation(), Vec::new()).expect("started");
    let dir = cluster.data_dir().parent().expect("a parent").to_owned();
    cluster.stop().expect("stopped");
    assert!(dir.exists(), "it can be started again");
    drop(cluster);
    assert!(!dir.exists());
}

#[test]
fn data_is_found_again_and_one_cluster_at_a_time_has_it() {
    let dir = open_directory();
    let data = dir.path().join("data");
    let cluster = Cluster::start(&installation(), options(&data)).expect("started");
    assert_eq!(cluster.data_dir(), data);
    query(&cluster, "create table kept (n int)");
    let (url, port) = (cluster.url("postgres"), cluster.port());
    drop(cluster);

    let mut again = options(&data);
    again.port = Some(port);
    again.durable = true;
    again.settings.push(("max_connections".into(), "33".into()));
    let cluster = Cluster::start(&installation(), again).expect("started on its data");
    assert_eq!(cluster.url("postgres"), url, "the password stays");
    assert_eq!(
        query(&cluster, "select count(*) from kept").as_deref(),
        Some("0")
    );
    assert_eq!(
        query(&cluster, "show max_connections").as_deref(),
        Some("33")
    );
    assert_eq!(query(&cluster, "show fsync").as_deref(), Some("on"));

    let error = Cluster::start(&installation(), options(&data)).expect_err("two on one directory");
    assert!(
        matches!(&error, Error::InUse { holder, .. } if *holder == std::process::id().to_string()),
        "{error}"
    );
}

#[test]
fn only_the_password_opens_it_and_debugging_does_not_show_it() {
    let cluster = Cluster::start_temporary(&installation(), Vec::new()).expect("started");
    let url = cluster.url("postgres");
    let password = url.split([':', '@']).nth(2).expect("a password");
    assert!(!format!("{cluster:?}").contains(password));
    assert!(try_query(&url.replace(password, "postgres"), "select 1").is_err());
    query(&cluster, "create database \"a b/ä\"");
    assert_eq!(
        try_query(&cluster.url("a b/ä"), "select current_database()")
            .expect("a name to escape")
            .as_deref(),
        Some("a b/ä")
    );
    assert_eq!(
        query(&cluster, "show server_encoding").as_deref(),
        Some("UTF8")
    );
}

#[test]
fn a_directory_that_only_we_can_enter_works_too() {
    let private = private_directory();
    let wanted = private.path().join("data");
    let cluster = Cluster::start(&installation(), options(&wanted)).expect("started");
    let real = cluster.data_dir().to_owned();
    assert_eq!(query(&cluster, "select 1").as_deref(), Some("1"));
    drop(cluster);
    let cluster = Cluster::start(&installation(), options(&wanted)).expect("found again");
    assert_eq!(cluster.data_dir(), real);
    drop(cluster);
    if real != wanted {
        assert!(real.starts_with("/var/tmp"));
        fs::remove_dir_all(real.parent().expect("a parent")).expect("removed");
    }
}

#[test]
fn data_of_another_major_version_is_refused_by_name() {
    let dir = open_directory();
    let data = dir.path().join("data");
    fs::create_dir(&data).expect("a directory");
    fs::write(data.join("PG_VERSION"), "12\n").expect("written");
    let error = Cluster::start(&installation(), options(&data))
        .expect_err("another major version")
        .to_string();
    for part in [
        "PostgreSQL 12",
        &format!("PostgreSQL {}", installation().major),
        &data.display().to_string(),
        "move the data",
    ] {
        assert!(error.contains(part), "{part} in: {error}");
    }
}

#[test]
fn a_directory_with_other_things_in_it_is_not_touched() {
    let dir = open_directory();
    let data = dir.path().join("data");
    fs::create_dir(&data).expect("a directory");
    fs::write(data.join("thesis.txt"), "years of work").expect("written");
    let error = Cluster::start(&installation(), options(&data)).expect_err("not data");
    assert!(matches!(error, Error::NotData { .. }), "{error}");
    assert!(data.join("thesis.txt").exists());
}

#[test]
fn a_taken_port_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let dir = open_directory();
    let mut options = options(&dir.path().join("data"));
    let port = listener.local_addr().expect("an address").port();
    options.port = Some(port);
    let error = Cluster::start(&installation(), options)
        .expect_err("taken")
        .to_string();
    assert!(error.contains(&port.to_string()), "{error}");
}

#[test]
fn a_setting_that_postgres_rejects_is_shown() {
    let settings = vec![("no_such_setting".to_owned(), "1".to_owned())];
    let started = std::time::Instant::now();
    let error = Cluster::start_temporary(&installation(), settings)
        .expect_err("rejected")
        .to_string();
    assert!(error.contains("no_such_setting"), "{error}");
    assert!(
        started.elapsed() < Duration::from_secs(30),
        "the end of the server is noticed, not waited out"
    );
}

/// Whether a process is there (one that nobody has reaped is not).
pub(crate) fn runs(pid: i32) -> bool {
    let state = std::process::Command::new("ps")
        .args(["-o", "stat=", "-p", &pid.to_string()])
        .output()
        .expect("ps");
    let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}
