//! Connections to a daemon.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::Endpoint;
use crate::tls::Tls;

pub mod unix;

/// A connection; shutting it down closes our direction only.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Connects; with `tls`, TCP carries TLS.
pub async fn connect(endpoint: &Endpoint, tls: Option<&Tls>) -> io::Result<Box<dyn Stream>> {
    match endpoint {
        Endpoint::Unix(path) => unix::connect(path).await,
        Endpoint::Tcp(address) => {
            let stream = TcpStream::connect(&look_up(address).await?[..]).await?;
            stream.set_nodelay(true)?;
            match tls {
                Some(tls) => tls.connect(address, stream).await,
                None => Ok(Box::new(stream)),
            }
        }
        Endpoint::Ssh(host) => host.connect(),
    }
}

/// The addresses of `host:port`; errors begin as Go's do.
async fn look_up(address: &str) -> io::Result<Vec<SocketAddr>> {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    if port.parse::<u16>().is_err() {
        let sentence = format!("dial tcp: address {port}: invalid port");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, sentence));
    }
    let unknown = |err| io::Error::new(io::ErrorKind::HostUnreachable, format!("dial tcp: lookup {host}: {err}"));
    Ok(tokio::net::lookup_host(address).await.map_err(unknown)?.collect())
}
