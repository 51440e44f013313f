//! Connections to a daemon.

use std::io;

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
            let stream = TcpStream::connect(address.as_str()).await?;
            stream.set_nodelay(true)?;
            match tls {
                Some(tls) => tls.connect(address, stream).await,
                None => Ok(Box::new(stream)),
            }
        }
        Endpoint::Ssh(host) => host.connect(),
    }
}
