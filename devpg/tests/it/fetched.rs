//! A real download. Without a network it can be left out by setting `DEVPG_TEST_OFFLINE`.

use devpg::{Cluster, Origin};

use crate::support::{private_directory, query};

#[test]
fn a_fetched_server_runs() {
    if std::env::var_os("DEVPG_TEST_OFFLINE").is_some() {
        eprintln!("left out: DEVPG_TEST_OFFLINE is set");
        return;
    }
    // Private on purpose: under root, the binaries have to go where the user that runs them can get.
    let cache = private_directory();
    let mut announced = Vec::new();
    let first =
        devpg::fetch(cache.path(), &mut |line| announced.push(line.to_owned())).expect("fetched");
    assert_eq!((first.origin, first.major), (Origin::Fetched, 18));
    assert!(
        announced.iter().any(|line| line.contains("npm")),
        "{announced:?}"
    );
    let second =
        devpg::fetch(cache.path(), &mut |line| panic!("fetched twice: {line}")).expect("found");
    assert_eq!(first, second);

    let cluster = Cluster::start_temporary(&first, Vec::new()).expect("started");
    assert_eq!(
        query(&cluster, "show server_version").as_deref(),
        Some("18.4")
    );
    assert_eq!(
        query(&cluster, "create extension pgcrypto; select lower('Ä')").as_deref(),
        Some("ä")
    );
    drop(cluster);
    if !first.bin_dir.starts_with(cache.path()) {
        assert!(first.bin_dir.starts_with("/var/tmp"));
        let place = first
            .bin_dir
            .ancestors()
            .nth(3)
            .expect("a directory of ours");
        std::fs::remove_dir_all(place).expect("removed");
    }
}
