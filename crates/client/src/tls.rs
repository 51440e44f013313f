//! TLS to a daemon: whom we believe, and what we show.
//!
//! Nothing is read or built before the first connection that needs it: a command line on a unix socket pays nothing.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tls_verifier::Verifier;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::transport::Stream;

/// What is needed to speak TLS with a daemon; the contents of files, in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates of the authority that we believe; the system's if absent.
    pub ca: Option<Vec<u8>>,
    /// Our certificate.
    pub certificate: Option<Vec<u8>>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Whether the daemon may be anyone.
    pub skip_verify: bool,
}

/// Why TLS cannot be spoken. The words are those of Docker's client.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The authority's certificates cannot be read.
    #[error("failed to retrieve context tls info: ca.pem seems invalid")]
    Authority(#[source] PemError),
    /// The same, for there are none.
    #[error("failed to retrieve context tls info: ca.pem seems invalid")]
    NoAuthority,
    /// The system's bundle cannot be read.
    #[error("read certificates in {}", path.display())]
    Bundle {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: PemError,
    },
    /// Our certificate or its key cannot be read.
    #[error("failed to retrieve context tls info")]
    KeyPair(#[source] PemError),
    /// They do not fit.
    #[error("failed to retrieve context tls info")]
    Mismatch(#[source] rustls::Error),
    /// The address names no host.
    #[error("{0:?} is no name of a host")]
    Name(String),
    /// The library refuses its own defaults.
    #[error("set up TLS")]
    Setup(#[source] rustls::Error),
}

impl Tls {
    /// What a connection is made with.
    pub fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().map_err(TlsError::Setup)?;
        let verifier = match self.skip_verify {
            true => Verifier::of_anyone(provider),
            false => Verifier::of(self.roots()?, provider),
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        let config = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
                let key = PrivateKeyDer::from_pem_slice(key).map_err(TlsError::KeyPair)?;
                let chain = chain.map_err(TlsError::KeyPair)?;
                builder.with_client_auth_cert(chain, key).map_err(TlsError::Mismatch)?
            }
            _ => builder.with_no_client_auth(),
        };
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(ca) => {
                let certificates = CertificateDer::pem_slice_iter(ca).collect::<Result<Vec<_>, _>>();
                if roots.add_parsable_certificates(certificates.map_err(TlsError::Authority)?).0 == 0 {
                    return Err(TlsError::NoAuthority);
                }
            }
            None => {
                let Some(path) = tls_verifier::bundle() else { return Ok(roots) };
                let certificates =
                    CertificateDer::pem_file_iter(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
                // A bundle may hold old forms that nobody parses any more; the others count.
                roots.add_parsable_certificates(certificates.map_err(|source| TlsError::Bundle { path, source })?);
            }
        }
        Ok(roots)
    }

    /// Shakes hands over a connection to `address`, `host:port`.
    pub(crate) async fn connect(&self, address: &str, stream: TcpStream) -> io::Result<Box<dyn Stream>> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone());
        let name = name.map_err(|_| invalid(TlsError::Name(host)))?;
        let connector = TlsConnector::from(self.config().map_err(invalid)?);
        Ok(Box::new(connector.connect(name, stream).await?))
    }
}

fn invalid(err: TlsError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused() {
        let refused = |tls: Tls| tls.config().unwrap_err().to_string();
        let sentence = "failed to retrieve context tls info: ca.pem seems invalid";
        assert_eq!(refused(Tls { ca: Some(b"nonsense".to_vec()), ..Tls::default() }), sentence);
        let key_pair = Tls { certificate: Some(vec![]), key: Some(vec![]), skip_verify: true, ..Tls::default() };
        assert_eq!(refused(key_pair), "failed to retrieve context tls info");
        assert!(Tls { skip_verify: true, ..Tls::default() }.config().is_ok());
    }
}
