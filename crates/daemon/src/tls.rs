//! TLS on TCP: whose certificate we show, whom we believe, and what becomes of a connection that a container gets.
//!
//! ```text
//! accept -- handshake, in a task of its own --> Secured -- HTTP --> api-server
//!                                                  | into_fd (attach, exec)
//!                                                  v
//! client <== TLS ==> relay, a task of the daemon <== socket pair ==> shim
//! ```
//!
//! A shim cannot take over the keys of a connection: so the daemon deciphers for it, and clients that came over TLS lose
//! their stream with the daemon. Those of unix sockets do not.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use api_server::Client;
use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

/// How long a client may take to shake hands: longer than any needs, short enough that silent ones do not pile up.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(30);

/// How long a client may keep a connection after the container's last byte.
const LINGER: Duration = Duration::from_secs(10);

/// What Go's server says to somebody who does not speak TLS.
const PLAIN_REFUSAL: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// What TCP clients have to show, and what they are shown. Files that are absent here have their usual place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tls {
    /// Clients must show a certificate.
    pub(crate) verify: bool,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

/// Why TLS cannot be offered. The words are dockerd's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("could not load X509 key pair (cert: {certificate:?}, key: {key:?})")]
    Missing { certificate: PathBuf, key: PathBuf, source: io::Error },
    #[error("error reading X509 key pair - make sure the key is not encrypted (cert: {certificate:?}, key: {key:?})")]
    KeyPair { certificate: PathBuf, key: PathBuf, source: KeyPairError },
    #[error("could not read CA certificate {ca:?}")]
    Authority { ca: PathBuf, source: PemError },
    #[error("failed to append certificates from PEM file: {ca:?}")]
    Authorities { ca: PathBuf, source: VerifierBuilderError },
    #[error("set up TLS")]
    Setup { source: rustls::Error },
}

/// What is wrong with a certificate or its key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyPairError {
    #[error(transparent)]
    Pem(#[from] PemError),
    #[error("tls: failed to find certificate PEM data in certificate input")]
    NoCertificate,
    #[error(transparent)]
    Mismatch(#[from] rustls::Error),
}

/// A connection over which TLS is spoken.
pub(crate) struct Secured(TlsStream<TcpStream>);

/// Reads what is needed to speak TLS. Blocks briefly.
pub(crate) fn load(tls: &Tls) -> Result<TlsAcceptor, TlsError> {
    let usual = usual_directory();
    let place = |given: &Option<PathBuf>, name: &str| given.clone().unwrap_or_else(|| usual.join(name));
    let (certificate, key) = (place(&tls.certificate, "cert.pem"), place(&tls.key, "key.pem"));
    let missing = [&certificate, &key].into_iter().find_map(|path| std::fs::metadata(path).err());
    if let Some(source) = missing {
        return Err(TlsError::Missing { certificate, key, source });
    }
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Setup { source })?;
    let builder = if tls.verify {
        let ca = place(&tls.ca, "ca.pem");
        let roots = Arc::new(authorities(&ca)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
        builder.with_client_cert_verifier(verifier.map_err(|source| TlsError::Authorities { ca, source })?)
    } else {
        builder.with_no_client_auth()
    };
    let failed = |source| TlsError::KeyPair { certificate: certificate.clone(), key: key.clone(), source };
    let (chain, private) = key_pair(&certificate, &key).map_err(failed)?;
    let mut config = builder.with_single_cert(chain, private).map_err(|err| failed(err.into()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Where dockerd looks for files that nobody names.
fn usual_directory() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || variable("HOME").unwrap_or_else(|| "/root".into()).join(".docker");
    variable("DOCKER_CERT_PATH").or_else(|| variable("DOCKER_CONFIG")).unwrap_or_else(home)
}

fn authorities(ca: &Path) -> Result<RootCertStore, TlsError> {
    let failed = |source| TlsError::Authority { ca: ca.to_owned(), source };
    let certificates = CertificateDer::pem_file_iter(ca).map_err(failed)?.collect::<Result<Vec<_>, _>>();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.map_err(failed)?);
    Ok(roots)
}

type KeyPair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn key_pair(certificate: &Path, key: &Path) -> Result<KeyPair, KeyPairError> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    if chain.is_empty() {
        return Err(KeyPairError::NoCertificate);
    }
    Ok((chain, PrivateKeyDer::from_pem_file(key)?))
}

/// Shakes hands; `None` if nothing comes of it.
pub(crate) async fn shake_hands(acceptor: &TlsAcceptor, client: TcpStream) -> Option<Secured> {
    let handshake = async {
        if speaks_http(&client).await? {
            refuse(client).await?;
            return Ok(None);
        }
        acceptor.accept(client).await.map(|stream| Some(Secured(stream)))
    };
    match tokio::time::timeout(HANDSHAKE_DEADLINE, handshake).await {
        Ok(Ok(secured)) => secured,
        Ok(Err(err)) => {
            // A scanner, or a client without a certificate: it has been told, and the log is not theirs to fill.
            debug!("TLS handshake: {err}");
            None
        }
        Err(_) => None,
    }
}

/// Whether the client's first bytes are those of an HTTP request; those of TLS are numbers.
async fn speaks_http(client: &TcpStream) -> io::Result<bool> {
    let mut first = [0; 5];
    let length = client.peek(&mut first).await?;
    let starts = [&b"GET /"[..], b"HEAD ", b"POST ", b"PUT /", b"OPTIO"];
    Ok(starts.contains(&&first[..length]))
}

async fn refuse(mut client: TcpStream) -> io::Result<()> {
    client.write_all(PLAIN_REFUSAL).await?;
    client.shutdown().await?;
    // Bytes that nobody has read would reset the connection before the client has its answer.
    let (mut rest, mut nowhere) = (client.take(1 << 16), tokio::io::sink());
    tokio::time::timeout(LINGER, tokio::io::copy(&mut rest, &mut nowhere)).await??;
    Ok(())
}

impl Client for Secured {
    fn into_fd(self) -> io::Result<OwnedFd> {
        let (ours, theirs) = UnixStream::pair()?;
        let theirs = theirs.into_std()?.into();
        tokio::spawn(async move {
            if let Err(err) = relay(self.0, ours).await {
                debug!("relayed connection: {err}");
            }
        });
        Ok(theirs)
    }
}

/// Carries bytes between a client and a shim until both have ended, or one is gone.
async fn relay(client: impl AsyncRead + AsyncWrite, shim: UnixStream) -> io::Result<()> {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_shim, mut to_shim) = tokio::io::split(shim);
    let input = async {
        tokio::io::copy(&mut from_client, &mut to_shim).await?;
        to_shim.shutdown().await
    };
    let output = async {
        copy_flushed(&mut from_shim, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::pin!(input, output);
    tokio::select! {
        ended = &mut output => {
            ended?;
            // The stream is over: the client has seen its end, and closes the connection or has it closed.
            tokio::time::timeout(LINGER, input).await.unwrap_or(Ok(()))
        }
        ended = &mut input => {
            ended?;
            output.await
        }
    }
}

/// Copies; what has come is not kept back to wait for more.
async fn copy_flushed(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(()),
            length => to.write_all(&buffer[..length]).await?,
        }
        to.flush().await?;
    }
}

impl AsyncRead for Secured {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
