//! The demo page of `tidings dev` in a real browser. What is looked for is in `tests/sdk/js/scenarios/page.mjs`.
//!
//! `TIDINGS_SCREENSHOT=<file>` also takes the README's picture.

use std::path::{Path, PathBuf};

use crate::{
    dev::DevDirectory,
    driver::{drive, host::Host, install},
};

#[tokio::test]
async fn two_people_chat_in_two_browsers() {
    let chromium = install::chromium();
    let directory = DevDirectory::new();
    let dev = directory.start(&[]).await;
    let mut host = Host::beside(&dev.database_url, &directory.secret()).await;

    if let Some(picture) = std::env::var_os("TIDINGS_SCREENSHOT") {
        let mut node = install::node("picture").await;
        node.env("TIDINGS_URL", &dev.url)
            .env("CHROMIUM", &chromium)
            .env("PICTURE", absolute(Path::new(&picture)));
        drive(node, &mut host).await;
    }

    let mut node = install::node("page").await;
    let screenshot = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo.png");
    node.env("TIDINGS_URL", &dev.url)
        .env("CHROMIUM", &chromium)
        .env("SCREENSHOT", &screenshot);
    drive(node, &mut host).await;
    dev.stop().await;
}

/// A relative path is meant from the workspace, where `cargo` is started.
fn absolute(path: &Path) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
