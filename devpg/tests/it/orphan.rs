//! When the owner is killed, the server goes. The owner is this very test binary, run again with one ignored test.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use devpg::Cluster;

use crate::{
    cluster::runs,
    support::{installation, open_directory, options, query, wait_for},
};

const DATA_DIR: &str = "DEVPG_TEST_OWNER_DATA_DIR";

/// The owner: starts a cluster, tells about it, and waits until it is killed or its input ends.
#[test]
#[ignore = "run by the other tests of this file"]
fn owner() {
    let Some(data) = env::var_os(DATA_DIR) else {
        return;
    };
    let cluster = if data.is_empty() {
        Cluster::start_temporary(&installation(), Vec::new())
    } else {
        Cluster::start(&installation(), options(Path::new(&data)))
    };
    let cluster = cluster.expect("started");
    println!(
        "\nrunning\t{}\t{}",
        cluster.pid().expect("a process"),
        cluster.data_dir().display()
    );
    let _ = std::io::stdin().read(&mut [0]);
}

/// Runs an owner; answers with it, the server's process and the data directory.
fn run_owner(data: &str) -> (Child, i32, PathBuf) {
    let mut owner = Command::new(env::current_exe().expect("this binary"))
        .args(["--exact", "orphan::owner", "--ignored", "--nocapture"])
        .env(DATA_DIR, data)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("an owner");
    let lines = BufReader::new(owner.stdout.take().expect("its output")).lines();
    let line = lines
        .map_while(Result::ok)
        .find(|line| line.starts_with("running\t"))
        .expect("a running cluster");
    let mut fields = line.split('\t').skip(1);
    let pid = fields
        .next()
        .and_then(|pid| pid.parse().ok())
        .expect("a process");
    (owner, pid, fields.next().expect("a directory").into())
}

#[test]
fn the_server_of_a_killed_owner_stops_and_its_data_is_whole() {
    let dir = open_directory();
    let data = dir.path().join("data");
    let (mut owner, pid, _) = run_owner(data.to_str().expect("a path in UTF-8"));
    assert!(runs(pid));
    owner.kill().expect("killed");
    owner.wait().expect("reaped");
    // At once, while the old server may still be stopping: the new one waits for that.
    let cluster = Cluster::start(&installation(), options(&data)).expect("taken over");
    assert!(!runs(pid));
    assert_eq!(query(&cluster, "select 1").as_deref(), Some("1"));
    let log = fs::read_to_string(cluster.log_path()).expect("a log");
    assert!(!log.contains("not properly shut down"), "{log}");
}

#[test]
fn a_killed_owner_leaves_nothing_temporary() {
    let (mut owner, pid, data) = run_owner("");
    owner.kill().expect("killed");
    owner.wait().expect("reaped");
    wait_for("the server's end", || !runs(pid));
    wait_for("its directory's end", || {
        !data.parent().expect("a parent").exists()
    });
}

#[test]
fn a_server_without_a_supervisor_is_named() {
    let dir = open_directory();
    let data = dir.path().join("data");
    let (mut owner, pid, _) = run_owner(data.to_str().expect("a path in UTF-8"));
    // The whole supervisor is killed before its owner: nobody is left who would stop the server.
    let parent = Command::new("ps")
        .args(["-o", "ppid=", "-p", &pid.to_string()])
        .output()
        .expect("ps");
    let supervisor = String::from_utf8_lossy(&parent.stdout).trim().to_owned();
    let listed = Command::new("ps")
        .args(["-e", "-o", "pid=,ppid="])
        .output()
        .expect("ps");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let reader = listed.lines().find_map(|line| {
        let (child, parent) = line.trim().split_once(' ')?;
        (parent.trim() == supervisor && child != pid.to_string()).then(|| child.to_owned())
    });
    kill(&[supervisor, reader.expect("the reader")]);
    owner.kill().expect("killed");
    owner.wait().expect("reaped");

    let error = Cluster::start(&installation(), options(&data))
        .expect_err("still running")
        .to_string();
    kill(&[pid.to_string()]);
    assert!(error.contains(&pid.to_string()), "{error}");
    wait_for("the server's end", || !runs(pid));
    let cluster = Cluster::start(&installation(), options(&data)).expect("after a crash");
    assert_eq!(query(&cluster, "select 1").as_deref(), Some("1"));
}

fn kill(pids: &[String]) {
    assert!(
        Command::new("kill")
            .arg("-KILL")
            .args(pids)
            .status()
            .expect("kill")
            .success()
    );
}
