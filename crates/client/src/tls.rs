//! TLS to a daemon: whom we believe, and what we show.
//!
//! Nothing is read or built before the first connection that needs it: a command line on a unix socket pays nothing.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::transport::Stream;

/// Where distributions keep their bundle; the first one that exists counts (Go crypto/x509/root_linux.go).
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

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
    /// There is nobody to believe.
    #[error("set up TLS")]
    Roots(#[source] VerifierBuilderError),
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
        let verifier: Arc<dyn ServerCertVerifier> = match self.skip_verify {
            true => Arc::new(Anyone { provider }),
            false => Arc::new(Known::new(self.roots()?, provider).map_err(TlsError::Roots)?),
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
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
                let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
                let bundle = named.or_else(|| BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()));
                let Some(path) = bundle else { return Ok(roots) };
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

/// Believes what authorities have signed, and the authorities themselves.
///
/// `openssl req -x509` makes a certificate of an authority unless told otherwise, and people give such a one to a server and to its
/// clients. The library refuses it from a server; Go takes what is among the roots (crypto/x509, `Certificate.Verify`).
#[derive(Debug)]
struct Known {
    roots: Arc<RootCertStore>,
    signed: Arc<WebPkiServerVerifier>,
}

impl Known {
    fn new(roots: RootCertStore, provider: Arc<CryptoProvider>) -> Result<Known, VerifierBuilderError> {
        let roots = Arc::new(roots);
        let signed = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider).build()?;
        Ok(Known { roots, signed })
    }

    /// Whether a certificate is an authority's own: its name and key are among the roots.
    fn is_root(&self, certificate: &CertificateDer<'_>) -> bool {
        let mut own = RootCertStore::empty();
        own.add(certificate.clone().into_owned()).is_ok() && own.roots.iter().any(|own| self.roots.roots.contains(own))
    }
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let refused = match self.signed.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(refused)) => refused,
            verified => return verified,
        };
        // That an authority stands for a server is among the other ones. What is out of date was refused as such before.
        if !matches!(refused, CertificateError::UnknownIssuer | CertificateError::Other(_))
            || !self.is_root(certificate)
        {
            return Err(refused.into());
        }
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

/// Believes every certificate, and checks only that the connection belongs to it.
#[derive(Debug)]
struct Anyone {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Of 127.0.0.1 and `localhost`, signed by itself as `openssl req -x509` does, from November 2026 on for a hundred years.
    const SELF_SIGNED: &[u8] = include_bytes!("tls/self-signed.pem");

    /// The same with another key.
    const STRANGER: &[u8] = include_bytes!("tls/stranger.pem");

    #[test]
    fn a_certificate_that_is_its_own_authority_is_believed_as_by_docker() {
        let tls = Tls { ca: Some(SELF_SIGNED.to_vec()), ..Tls::default() };
        let known = Known::new(tls.roots().unwrap(), Arc::new(ring::default_provider())).unwrap();
        let (in_2027, in_2226) = (1_800_000_000, 8_100_000_000);
        for (certificate, name, now, wanted) in [
            (SELF_SIGNED, "localhost", in_2027, "believed"),
            (SELF_SIGNED, "127.0.0.1", in_2027, "believed"),
            (SELF_SIGNED, "elsewhere", in_2027, "another name"),
            (SELF_SIGNED, "localhost", in_2226, "expired"),
            (STRANGER, "localhost", in_2027, "refused"),
        ] {
            let shown = CertificateDer::from_pem_slice(certificate).unwrap();
            let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
            let name = ServerName::try_from(name).unwrap();
            let outcome = match known.verify_server_cert(&shown, &[], &name, &[], now) {
                Ok(_) => "believed",
                Err(rustls::Error::InvalidCertificate(refused)) => match refused {
                    CertificateError::NotValidForNameContext { .. } | CertificateError::NotValidForName => {
                        "another name"
                    }
                    CertificateError::ExpiredContext { .. } | CertificateError::Expired => "expired",
                    _ => "refused",
                },
                Err(err) => panic!("{err}"),
            };
            assert_eq!(outcome, wanted, "{name:?}");
        }
    }

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
