//! Whom a client of TLS believes, be it of a daemon or of a registry.
//!
//! ```text
//! bundle() --> the system's authorities --+
//! ca.pem, certs.d/<host>/*.crt -----------+--> RootCertStore --> Verifier::of --> believed, or not
//!                                              skip it --------> Verifier::of_anyone
//! ```
//!
//! It reads no file and opens no connection: who asks does, and says its own words when a file is wrong.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Where distributions keep their bundle; the first one that exists counts (Go crypto/x509/root_linux.go).
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The file with the authorities that everybody here believes: `SSL_CERT_FILE`, else the distribution's, if there is one.
pub fn bundle() -> Option<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    named.or_else(|| BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()))
}

/// Judges the certificates of servers.
///
/// Other than the library's own, it believes an authority that stands for a server itself. `openssl req -x509` makes the
/// certificate of an authority unless told otherwise, and people give such a one to a server and to its clients. Go takes
/// what is among the roots (crypto/x509, `Certificate.Verify`), and so do Docker's programs.
#[derive(Debug)]
pub struct Verifier {
    /// Nothing for who believes everybody.
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// Believes what these authorities have signed, and themselves.
    pub fn of(roots: RootCertStore, provider: Arc<CryptoProvider>) -> Verifier {
        Verifier { roots: Some(roots), provider }
    }

    /// Believes every certificate, and checks only that the connection belongs to it.
    pub fn of_anyone(provider: Arc<CryptoProvider>) -> Verifier {
        Verifier { roots: None, provider }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(roots) = &self.roots else { return Ok(ServerCertVerified::assertion()) };
        let shown = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        match verify_server_cert_signed_by_trust_anchor(&shown, roots, intermediates, now, algorithms) {
            // That an authority stands for a server is among the other errors. What is out of date was refused before.
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::Other(_)))
                if is_among(roots, certificate) => {}
            judged => judged?,
        }
        verify_server_name(&shown, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether a certificate's name and key are those of a root.
fn is_among(roots: &RootCertStore, certificate: &CertificateDer<'_>) -> bool {
    let mut own = RootCertStore::empty();
    own.add(certificate.clone().into_owned()).is_ok() && own.roots.iter().all(|own| roots.roots.contains(own))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::crypto::ring;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    /// Of 127.0.0.1 and `localhost`, signed by itself as `openssl req -x509` does, from November 2026 on for a hundred years.
    const SELF_SIGNED: &[u8] = include_bytes!("self-signed.pem");

    /// The same with another key.
    const STRANGER: &[u8] = include_bytes!("stranger.pem");

    fn judged(verifier: &Verifier, certificate: &[u8], name: &'static str, now: u64) -> &'static str {
        let shown = CertificateDer::from_pem_slice(certificate).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let name = ServerName::try_from(name).unwrap();
        match verifier.verify_server_cert(&shown, &[], &name, &[], now) {
            Ok(_) => "believed",
            Err(Error::InvalidCertificate(refused)) => match refused {
                CertificateError::NotValidForNameContext { .. } | CertificateError::NotValidForName => "another name",
                CertificateError::ExpiredContext { .. } | CertificateError::Expired => "expired",
                _ => "refused",
            },
            Err(err) => panic!("{err}"),
        }
    }

    #[test]
    fn a_certificate_that_is_its_own_authority_is_believed_as_by_docker() {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        let nobody = Verifier::of(roots.clone(), provider.clone());
        roots.add(CertificateDer::from_pem_slice(SELF_SIGNED).unwrap()).unwrap();
        let known = Verifier::of(roots, provider.clone());
        let anyone = Verifier::of_anyone(provider);
        let (in_2027, in_2226) = (1_800_000_000, 8_100_000_000);
        for (verifier, certificate, name, now, wanted) in [
            (&known, SELF_SIGNED, "localhost", in_2027, "believed"),
            (&known, SELF_SIGNED, "127.0.0.1", in_2027, "believed"),
            (&known, SELF_SIGNED, "elsewhere", in_2027, "another name"),
            (&known, SELF_SIGNED, "localhost", in_2226, "expired"),
            (&known, STRANGER, "localhost", in_2027, "refused"),
            (&nobody, SELF_SIGNED, "localhost", in_2027, "refused"),
            (&anyone, STRANGER, "elsewhere", in_2226, "believed"),
        ] {
            assert_eq!(judged(verifier, certificate, name, now), wanted, "{verifier:?} {name}");
        }
    }
}
