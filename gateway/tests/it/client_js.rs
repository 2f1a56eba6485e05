//! The helper of `clients/js` with unmodified supabase-js against the gateway. The scenarios and their assertions are in
//! `clients/js/test`.

use std::path::Path;

use futures::{FutureExt, future::join_all};

use crate::{
    driver::{drive, host::Host, install},
    support::process::run_quietly,
};

/// So that a reader is soon too slow.
const SMALL_QUEUES: [(&str, &str); 2] = [
    ("TIDINGS_OUTBOX_FRAMES", "64"),
    ("TIDINGS_OUTBOX_BYTES", "1MiB"),
];

async fn scenario(name: &str, settings: &[(&str, &str)], environment: &[(&str, &str)]) {
    let mut host = Host::with_process(settings).await;
    let mut node = install::client_js(&["test/driver.mjs", name]).await;
    node.env(
        "TIDINGS_URL",
        host.url().expect("the address of the gateway"),
    );
    node.envs(environment.iter().copied());
    drive(node, &mut host).await;
}

#[tokio::test]
async fn by_itself() {
    run_quietly(install::client_js(&["test/unit/index.mjs"]).await).await;
}

/// The newest, the last but one that works in another way, and the oldest. All at once: each mostly waits.
#[tokio::test]
async fn resumes_on_every_sdk() {
    let on = |sdk| async move { scenario("resume", &[], &[("SDK", sdk)]).await };
    join_all(["current", "2.111", "2.85"].map(|sdk| on(sdk).boxed())).await;
}

#[tokio::test]
async fn resumes_after_a_sleep_in_which_it_was_too_slow_or_idle() {
    let too_slow = scenario("asleep", &SMALL_QUEUES, &[("END", "slow_reader")]).boxed();
    let settings = [("TIDINGS_IDLE_TIMEOUT", "3s")];
    let idle = scenario("asleep", &settings, &[("END", "idle")]).boxed();
    join_all([too_slow, idle]).await;
}

#[tokio::test]
async fn reads_anew_when_a_cursor_is_refused_with_the_helper_and_without() {
    join_all(["refused", "plain"].map(|name| scenario(name, &[], &[]).boxed())).await;
}

#[tokio::test]
async fn a_page_that_is_frozen_and_loaded_again() {
    let chromium = install::chromium();
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/vendor");
    let environment = [
        ("CHROMIUM", chromium.to_str().expect("a path in UTF-8")),
        ("FILES", files.to_str().expect("a path in UTF-8")),
    ];
    scenario("page", &SMALL_QUEUES, &environment).await;
}

/// What the documentation shows is what is tested.
#[test]
fn the_recipe_is_in_the_documentation() {
    let scenario = std::fs::read_to_string(install::client("js").join("test/scenarios/plain.mjs"))
        .expect("the scenario");
    let (_, rest) = scenario
        .split_once("// docs/resume.md: begin\n")
        .expect("a beginning");
    let (recipe, _) = rest.split_once("  // docs/resume.md: end").expect("an end");
    let recipe: Vec<&str> = recipe
        .lines()
        .map(|line| line.strip_prefix("  ").unwrap_or(line))
        .collect();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/resume.md");
    let page = std::fs::read_to_string(page).expect("the page");
    assert!(
        page.contains(&recipe.join("\n")),
        "docs/resume.md lacks:\n{}",
        recipe.join("\n")
    );
}
