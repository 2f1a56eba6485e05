//! `tidings health`: asks `/readyz` of the gateway that listens where the settings say. For containers, whose images hold
//! no other program that could.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::config::{Flags, Sources};

const PATIENCE: Duration = Duration::from_secs(5);
const MAX_ANSWER_BYTES: u64 = 16 * 1024;

#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("no gateway answers at {address}")]
    NoAnswer {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("the gateway is not ready: {answer}")]
    NotReady { answer: String },
}

pub(super) fn run(arguments: Arguments) -> Result<(), super::Error> {
    let settings = Sources::from_process(arguments.flags)?.load(&[])?;
    let address = reachable(settings.listen);
    let answer = ask(address).map_err(|source| Error::NoAnswer { address, source })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split(' ').nth(1) == Some("200") {
        println!("ready");
        Ok(())
    } else {
        let answer = body.trim().to_owned();
        Err(Error::NotReady { answer }.into())
    }
}

/// Who listens on all addresses is reached on the nearest.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}
