//! A websocket to a server that speaks the protocol, as far as every kind of client needs it.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use protocol::Version;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Where the SDKs expect the server's socket.
const PATH: &str = "/realtime/v1/websocket";

/// Where the server is and how to speak to it.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    authority: String,
    host: String,
    port: u16,
    path: String,
    pub(crate) version: Version,
    /// What the kernel keeps of what the client has not read yet. Its own choice is large, and grows.
    pub(crate) receive_buffer: Option<u32>,
}

impl Endpoint {
    /// A URL without a path gets the one that the SDKs use.
    pub(crate) fn parse(url: &str, version: Version) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
        let default_port = match uri.scheme_str() {
            Some("ws" | "http") => 80,
            _ => bail!("{url} must begin with ws:// (the load test speaks no TLS)"),
        };
        let host = uri.host().with_context(|| format!("{url} names no host"))?;
        let port = uri.port_u16().unwrap_or(default_port);
        let path = match uri.path().trim_end_matches('/') {
            "" => PATH,
            path => path,
        };
        Ok(Self {
            authority: format!("{host}:{port}"),
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            path: path.to_owned(),
            version,
            receive_buffer: None,
        })
    }

    /// A server at this address, at the path that the SDKs use.
    pub(crate) fn at(address: SocketAddr, version: Version, receive_buffer: Option<u32>) -> Self {
        Self {
            authority: address.to_string(),
            host: address.ip().to_string(),
            port: address.port(),
            path: PATH.to_owned(),
            version,
            receive_buffer,
        }
    }

    /// `host:port`.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    fn url(&self, token: &str) -> String {
        let vsn = match self.version {
            Version::V1 => "1.0.0",
            Version::V2 => "2.0.0",
        };
        format!(
            "ws://{}{}?apikey={token}&vsn={vsn}",
            self.authority, self.path
        )
    }
}

pub(crate) async fn open(
    endpoint: &Endpoint,
    token: &str,
) -> anyhow::Result<WebSocketStream<TcpStream>> {
    let stream = connect(endpoint)
        .await
        .with_context(|| format!("cannot connect to {}", endpoint.authority))?;
    stream.set_nodelay(true)?;
    // The default of 128 KiB a socket would make thousands of subscribers expensive.
    let config = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .write_buffer_size(0);
    let request = endpoint
        .url(token)
        .into_client_request()
        .context("the token does not fit into a URL")?;
    match tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => {
            let body = response
                .body()
                .as_deref()
                .map(String::from_utf8_lossy)
                .unwrap_or_default();
            bail!(
                "the server refused the connection: {} {body}",
                response.status()
            )
        }
        Err(error) => Err(error).context("the websocket handshake failed"),
    }
}

async fn connect(endpoint: &Endpoint) -> std::io::Result<TcpStream> {
    let host = (endpoint.host.as_str(), endpoint.port);
    let Some(size) = endpoint.receive_buffer else {
        return TcpStream::connect(host).await;
    };
    let address = lookup_host(host).await?.next();
    let address = address.ok_or(std::io::ErrorKind::NotFound)?;
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // It must be known before the connection is made: the window is agreed on then.
    socket.set_recv_buffer_size(size)?;
    socket.connect(address).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_leniently_and_tls_is_refused() {
        let url = |text| Endpoint::parse(text, Version::V2).map(|endpoint| endpoint.url("t"));
        assert_eq!(
            url("ws://localhost:4000").unwrap(),
            "ws://localhost:4000/realtime/v1/websocket?apikey=t&vsn=2.0.0"
        );
        assert_eq!(
            url("http://[::1]/socket/websocket/").unwrap(),
            "ws://[::1]:80/socket/websocket?apikey=t&vsn=2.0.0"
        );
        assert!(url("wss://localhost").is_err());
        assert!(url("localhost").is_err());
    }
}
