//! Real sockets on both sides of a proxy, and every kind of weather between them.

use std::io::ErrorKind;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;

const LIMIT: Duration = Duration::from_secs(10);

/// A wait for what must not come. Too short, it lets a fault go unseen; it never reports one that is not there.
const ABSENT: Duration = Duration::from_millis(150);

const SLOW: Flow = Flow::Delayed {
    by: Duration::from_millis(60),
    jitter: Duration::from_millis(20),
};

struct Stand {
    proxy: Proxy,
    listener: TcpListener,
}

impl Stand {
    async fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap()).await.unwrap();
        Self { proxy, listener }
    }

    async fn knock(&self) -> TcpStream {
        TcpStream::connect(self.proxy.address()).await.unwrap()
    }

    /// Both ends of a connection through the proxy.
    async fn connection(&self) -> (TcpStream, TcpStream) {
        let mut client = self.knock().await;
        let (mut server, _) = timeout(LIMIT, self.listener.accept())
            .await
            .unwrap()
            .unwrap();
        // The server may know of it before the proxy does.
        server.write_u8(0).await.unwrap();
        assert_eq!(receive(&mut client, 1).await, [0]);
        (client, server)
    }
}

async fn receive(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    timeout(LIMIT, stream.read_exact(&mut bytes))
        .await
        .expect("in time")
        .expect("bytes");
    bytes
}

/// How the stream ends: with everything read, or with an error.
async fn ending(stream: &mut TcpStream) -> Result<(), ErrorKind> {
    let mut rest = Vec::new();
    timeout(LIMIT, stream.read_to_end(&mut rest))
        .await
        .expect("an end")
        .map(drop)
        .map_err(|error| error.kind())
}

async fn is_silent(stream: &mut TcpStream) -> bool {
    timeout(ABSENT, stream.read_u8()).await.is_err()
}

#[tokio::test]
async fn carries_both_ways_and_each_end_by_itself() {
    let stand = Stand::new().await;
    let (mut client, mut server) = stand.connection().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(receive(&mut server, 8).await, b"question");
    assert_eq!(ending(&mut server).await, Ok(()));
    server.write_all(b"answer").await.unwrap();
    assert_eq!(receive(&mut client, 6).await, b"answer");
    drop(server);
    assert_eq!(ending(&mut client).await, Ok(()));
}

#[tokio::test]
async fn nothing_changes_its_order_under_changing_weather() {
    let stand = Stand::new().await;
    let (mut client, mut server) = stand.connection().await;
    let sent: Vec<u8> = (0..4_u32 << 20)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let weather = async {
        let (jitter, by) = (Duration::from_millis(2), Duration::from_millis(1));
        for flow in [
            Flow::Delayed { by, jitter },
            Flow::Hung,
            Flow::Throttled {
                bytes_per_second: 1 << 20,
            },
            Flow::Free,
        ]
        .into_iter()
        .cycle()
        {
            stand.proxy.set(Way::Both, flow);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let length = sent.len();
    let carried = async {
        tokio::join!(
            async { client.write_all(&sent).await.unwrap() },
            receive(&mut server, length)
        )
        .1
    };
    tokio::select! {
        () = weather => {}
        received = carried => assert!(received == sent),
    }
}

#[tokio::test]
async fn a_cut_ends_both_sides_until_the_line_is_mended() {
    for (how, expected) in [
        (Cut::Reset, Err(ErrorKind::ConnectionReset)),
        (Cut::Close, Ok(())),
    ] {
        let stand = Stand::new().await;
        let (mut client, mut server) = stand.connection().await;
        stand.proxy.cut(how);
        assert_eq!(ending(&mut client).await, expected);
        assert_eq!(ending(&mut server).await, expected);
        assert_eq!(ending(&mut stand.knock().await).await, expected);

        stand.proxy.mend();
        let (mut client, mut server) = stand.connection().await;
        client.write_u8(7).await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), 7);
    }
}

#[tokio::test]
async fn a_cut_that_is_mended_at_once_still_ends_what_was_open() {
    let stand = Stand::new().await;
    let (mut client, mut server) = stand.connection().await;
    stand.proxy.cut(Cut::Reset);
    stand.proxy.mend();
    assert!(ending(&mut client).await.is_err());
    assert!(ending(&mut server).await.is_err());
    stand.connection().await;
}

#[tokio::test]
async fn the_target_can_change_and_be_away() {
    let stand = Stand::new().await;
    let (mut client, mut server) = stand.connection().await;
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    stand.proxy.lead_to(other.local_addr().unwrap());
    let mut second = stand.knock().await;
    let (mut there, _) = timeout(LIMIT, other.accept()).await.unwrap().unwrap();
    there.write_u8(2).await.unwrap();
    assert_eq!(second.read_u8().await.unwrap(), 2);
    // What was open stays where it was.
    server.write_u8(1).await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), 1);

    drop(other);
    assert!(ending(&mut stand.knock().await).await.is_err());
}

#[tokio::test]
async fn what_is_delayed_comes_later_in_one_direction_only() {
    let stand = Stand::new().await;
    let (mut client, mut server) = stand.connection().await;
    stand.proxy.set(Way::ToClient, SLOW);
    // The other direction is free: what it carries shows that the proxy is under way, and sets the clock.
    client.write_u8(1).await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), 1);
    let sent = Instant::now();
    server.write_all(&[1, 2]).await.unwrap();
    assert_eq!(receive(&mut client, 2).await, [1, 2]);
    assert!(sent.elapsed() >= Duration::from_millis(60));
}

#[tokio::test]
async fn what_is_throttled_trickles() {
    let stand = Stand::new().await;
    let (mut client, mut server) = stand.connection().await;
    stand.proxy.set(
        Way::Both,
        Flow::Throttled {
            bytes_per_second: 50_000,
        },
    );
    let sent = Instant::now();
    client.write_all(&[7; 10_000]).await.unwrap();
    receive(&mut server, 1_000).await;
    receive(&mut server, 9_000).await;
    assert!(sent.elapsed() >= Duration::from_millis(190));
}

#[tokio::test]
async fn what_hangs_comes_when_the_network_is_back() {
    let stand = Stand::new().await;
    let (mut client, mut server) = stand.connection().await;
    stand.proxy.set(Way::Both, Flow::Hung);
    client.write_u8(1).await.unwrap();
    server.write_u8(2).await.unwrap();
    let mut late = stand.knock().await;
    late.write_u8(3).await.unwrap();
    assert!(is_silent(&mut server).await);
    assert!(is_silent(&mut client).await);
    assert!(is_silent(&mut late).await);

    stand.proxy.mend();
    assert_eq!(server.read_u8().await.unwrap(), 1);
    assert_eq!(client.read_u8().await.unwrap(), 2);
    let (mut server, _) = timeout(LIMIT, stand.listener.accept())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(server.read_u8().await.unwrap(), 3);
}

#[tokio::test]
async fn a_hung_flow_holds_its_sender_back() {
    let stand = Stand::new().await;
    let (mut client, _server) = stand.connection().await;
    stand.proxy.set(Way::ToServer, Flow::Hung);
    // More than the buffers of the kernel hold.
    let much = vec![0; 64 << 20];
    assert!(timeout(ABSENT, client.write_all(&much)).await.is_err());
}

#[tokio::test]
async fn a_black_hole_takes_everything_and_forgets_its_connections() {
    let stand = Stand::new().await;
    let (mut client, mut server) = stand.connection().await;
    stand.proxy.set(Way::Both, Flow::Swallowed);
    let much = vec![0; 64 << 20];
    timeout(LIMIT, client.write_all(&much))
        .await
        .expect("taken")
        .unwrap();
    assert!(is_silent(&mut server).await);
    let mut late = stand.knock().await;
    late.write_u8(1).await.unwrap();
    assert!(is_silent(&mut late).await);

    stand.proxy.mend();
    for mut stream in [client, server, late] {
        assert!(ending(&mut stream).await.is_err());
    }
    let (mut client, mut server) = stand.connection().await;
    client.write_u8(1).await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), 1);
}

#[tokio::test]
async fn nobody_hears_of_an_end_behind_a_black_hole() {
    let stand = Stand::new().await;
    let (client, mut server) = stand.connection().await;
    stand.proxy.set(Way::Both, Flow::Swallowed);
    drop(client);
    assert!(is_silent(&mut server).await);
    stand.proxy.mend();
    assert_eq!(ending(&mut server).await, Ok(()));
}

#[tokio::test]
async fn ends_with_the_value() {
    let stand = Stand::new().await;
    let (mut client, mut server) = stand.connection().await;
    let address = stand.proxy.address();
    drop(stand.proxy);
    assert_eq!(ending(&mut client).await, Ok(()));
    assert_eq!(ending(&mut server).await, Ok(()));
    let listens = async { while TcpStream::connect(address).await.is_ok() {} };
    timeout(LIMIT, listens).await.expect("a closed port");
}
