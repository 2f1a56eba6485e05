//! What `tidings dev` shows on the terminal.

use std::net::SocketAddr;
use std::time::Duration;

use crate::demo::Demo;

/// The tokens that are printed are for trying things out during a day.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// A line of progress.
pub(super) fn say(line: &str) {
    println!("  · {line}");
}

/// Where everything is, once it is there.
pub(super) fn welcome(
    demo: &Demo,
    address: SocketAddr,
    database_url: &str,
    took: Duration,
) -> Result<(), super::super::Error> {
    let home = format!("http://{address}/");
    println!();
    println!(
        "  Tidings is ready after {:.1} s: {home}",
        took.as_secs_f64()
    );
    println!();
    println!("  Open two of these side by side:");
    let users = demo.users(TOKEN_LIFETIME)?;
    for user in &users {
        println!("    {:<17} {home}?user={}", user.name, user.short());
    }
    println!();
    println!("  Then let a third program write a message:");
    println!(
        "    psql '{database_url}' -c \"insert into chat_messages (session_id, role, content) values ('00000000-0000-4000-8000-0000000000a1', 'user', 'Hello from psql')\""
    );
    println!();
    println!("  Tokens for your own clients, good for a day:");
    for user in &users {
        println!("    {:<17} {}", user.name, user.token);
    }
    println!();
    println!("  Ctrl-C stops the gateway and PostgreSQL.");
    println!();
    Ok(())
}
