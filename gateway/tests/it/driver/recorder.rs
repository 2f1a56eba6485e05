//! Writes down what real clients and the gateway say to each other, for the tests of `protocol`.
//!
//! `TIDINGS_RECORD_FRAMES=<directory>` puts a recorder between the driver and the gateway in the tests that take the tour
//! (`tests/sdk/js/scenarios/tour.mjs`, `tests/sdk/python/scenarios/tour.py`); without the variable there is none. See
//! `protocol/tests/fixtures/README.md`.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::Command,
};

use super::{drive, host::Host};

/// Stands for every token: a reader needs its shape only, and no file of the project should hold one that was once good.
const TOKEN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJyb2xlIjoiYXV0aGVudGljYXRlZCIsImV4cCI6MX0.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Continues the message before it.
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;

type Lines = Arc<Mutex<Vec<Value>>>;

/// Runs a driver that takes the tour, and records it if that was asked for.
pub(crate) async fn tour(mut driver: Command, host: &mut Host, name: &str) {
    let url = host.url().expect("the address of the gateway");
    let recorder = Recorder::before(&url, name).await;
    driver.env("TIDINGS_URL", recorder.as_ref().map_or(url, Recorder::url));
    drive(driver, host).await;
    if let Some(recorder) = recorder {
        recorder.save();
    }
}

struct Recorder {
    address: SocketAddr,
    file: PathBuf,
    lines: Lines,
}

impl Recorder {
    /// Stands in front of the gateway at `url`, if recording was asked for. `name` is that of the file, without its ending.
    async fn before(url: &str, name: &str) -> Option<Recorder> {
        let directory = std::env::var_os("TIDINGS_RECORD_FRAMES")?;
        // A relative path is meant from the workspace, where `cargo` is started.
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let file = workspace.join(directory).join(format!("{name}.jsonl"));
        let target = url.strip_prefix("http://").expect("a plain address");
        let target: SocketAddr = target.parse().expect("the address of the gateway");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let lines = Lines::default();
        let written = lines.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, target, written.clone()));
            }
        });
        Some(Recorder {
            address,
            file,
            lines,
        })
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Writes the file. Whatever the driver wanted to see is in it.
    fn save(self) {
        let lines = self.lines.lock().expect("what was recorded");
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let directory = self.file.parent().expect("a directory");
        fs::create_dir_all(directory).expect("a directory for what was recorded");
        fs::write(&self.file, text).expect("a file of what was recorded");
    }
}

async fn carry(client: TcpStream, target: SocketAddr, lines: Lines) {
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = pass(from_client, to_server, Reader::new("client"), &lines);
    let back = pass(from_server, to_client, Reader::new("server"), &lines);
    tokio::join!(there, back);
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut reader: Reader,
    lines: &Lines,
) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(size @ 1..) = from.read(&mut piece).await {
        // Before it is passed on: an answer must not stand above what it answers.
        let said = reader.read(&piece[..size]);
        lines.lock().expect("what was recorded").extend(said);
        if to.write_all(&piece[..size]).await.is_err() {
            break;
        }
    }
    drop(to.shutdown().await);
}

/// One direction of one connection.
struct Reader {
    who: &'static str,
    bytes: Vec<u8>,
    /// The head of the request or of its answer is over.
    upgraded: bool,
    /// The message whose frames have not all come.
    begun: Vec<u8>,
    kind: u8,
}

impl Reader {
    fn new(who: &'static str) -> Reader {
        Reader {
            who,
            bytes: Vec::new(),
            upgraded: false,
            begun: Vec::new(),
            kind: CONTINUATION,
        }
    }

    fn read(&mut self, piece: &[u8]) -> Vec<Value> {
        self.bytes.extend_from_slice(piece);
        let mut said = Vec::new();
        if !self.upgraded {
            let Some(end) = find(&self.bytes, b"\r\n\r\n") else {
                return said;
            };
            let head: Vec<u8> = self.bytes.drain(..end + 4).collect();
            let head = String::from_utf8_lossy(&head);
            let first = head.lines().next().unwrap_or_default();
            if let Some(path) = first.strip_prefix("GET ") {
                let path = path.split(' ').next().unwrap_or_default();
                said.push(json!({"request": without_tokens(path)}));
            }
            self.upgraded = true;
        }
        while let Some((is_last, kind, payload)) = self.frame() {
            // Pings, pongs and closing are none of the protocol's.
            if kind > BINARY {
                continue;
            }
            if kind != CONTINUATION {
                self.kind = kind;
            }
            self.begun.extend(payload);
            if is_last {
                let message = std::mem::take(&mut self.begun);
                said.push(self.line(&message));
            }
        }
        said
    }

    fn line(&self, message: &[u8]) -> Value {
        if self.kind == TEXT {
            let text = std::str::from_utf8(message).expect("text");
            json!({"from": self.who, "text": without_tokens(text)})
        } else {
            let mut hex = String::with_capacity(message.len() * 2);
            for byte in message {
                write!(hex, "{byte:02x}").expect("a text can be written to");
            }
            json!({"from": self.who, "hex": hex})
        }
    }

    /// The next whole frame: whether it ends its message, its kind, its payload.
    fn frame(&mut self) -> Option<(bool, u8, Vec<u8>)> {
        let &[first, second, ..] = self.bytes.as_slice() else {
            return None;
        };
        let (size, mut at) = match second & 0x7f {
            126 => (usize::from(u16::from_be_bytes(self.array(2)?)), 4),
            127 => (
                usize::try_from(u64::from_be_bytes(self.array(2)?)).ok()?,
                10,
            ),
            small => (usize::from(small), 2),
        };
        let is_masked = second & 0x80 != 0;
        let mask = if is_masked {
            let mask = self.array(at)?;
            at += 4;
            mask
        } else {
            [0; 4]
        };
        if self.bytes.len() < at + size {
            return None;
        }
        let payload = self.bytes.drain(..at + size).skip(at);
        let payload = payload.zip(mask.into_iter().cycle());
        let payload = payload.map(|(byte, mask)| byte ^ mask).collect();
        Some((first & 0x80 != 0, first & 0x0f, payload))
    }

    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.bytes.get(at..at + N)?.try_into().ok()
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

/// The text with [`TOKEN`] in the place of all tokens.
fn without_tokens(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // Every token begins so: it is a brace and a quotation mark.
    while let Some(start) = rest.find("eyJ") {
        let (before, token) = rest.split_at(start);
        let in_token = |each: char| each.is_ascii_alphanumeric() || "._-".contains(each);
        let end = token.find(|each| !in_token(each)).unwrap_or(token.len());
        out.push_str(before);
        out.push_str(TOKEN);
        rest = &token[end..];
    }
    out.push_str(rest);
    out
}
