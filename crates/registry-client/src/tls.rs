//! Whom we believe, and who we are: the system's certificate authorities, and of `certs.d/<host[:port]>/` the authorities
//! `*.crt` and the certificates of ours `*.cert`, each with its `*.key`.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use tls_verifier::Verifier;

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A directory or a file of one cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no certificates, or not what its name says.
    #[error("read certificates in {}", path.display())]
    Certificates {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// A certificate of ours is of no use alone. The sentence is dockerd's.
    #[error("missing key {key} for client certificate {certificate}. CA certificates must use the extension .crt")]
    MissingKey {
        /// The file that is not there.
        key: String,
        /// The file that is.
        certificate: String,
    },
    /// Nor is a key. The sentence is dockerd's.
    #[error("missing client certificate {certificate} for key {key}")]
    MissingCertificate {
        /// The file that is not there.
        certificate: String,
        /// The file that is.
        key: String,
    },
    /// A certificate of ours and its key do not do.
    #[error("use {} as client certificate", path.display())]
    Identity {
        /// The certificate.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The library refuses its own defaults.
    #[error("set up TLS")]
    Setup {
        /// Why.
        source: rustls::Error,
    },
}

/// What is kept for a host.
#[derive(Default)]
pub(crate) struct HostFiles {
    authorities: Vec<(PathBuf, Vec<u8>)>,
    /// Certificates, each with its key.
    identities: Vec<(PathBuf, Vec<u8>, Vec<u8>)>,
    /// Tells these files from any others.
    pub(crate) fingerprint: [u8; 32],
}

impl HostFiles {
    /// Reads the authorities of the host in each of `directories`, and the certificates of ours that are kept for `identity`;
    /// that there are none is usual.
    pub(crate) fn read(directories: &[PathBuf], host: &str, identity: Option<&str>) -> Result<HostFiles, TlsError> {
        let mut found = HostFiles::of(directories, host)?;
        match identity {
            Some(identity) if identity == host => {}
            Some(identity) => found.identities = HostFiles::of(directories, identity)?.identities,
            None => found.identities.clear(),
        }
        let mut hash = Sha256::new();
        let authorities = found.authorities.iter().map(|(_, bytes)| bytes);
        for bytes in authorities.chain(found.identities.iter().flat_map(|(_, one, other)| [one, other])) {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        found.fingerprint = hash.finalize().into();
        Ok(found)
    }

    fn of(directories: &[PathBuf], host: &str) -> Result<HostFiles, TlsError> {
        let mut found = HostFiles::default();
        // A redirect may name any host.
        let inside = !matches!(host, "" | "." | "..") && !host.contains('/');
        for directory in directories.iter().filter(|_| inside) {
            found.add(&directory.join(host))?;
        }
        Ok(found)
    }

    fn add(&mut self, directory: &Path) -> Result<(), TlsError> {
        let names = match std::fs::read_dir(directory) {
            Ok(entries) => entries.collect::<Result<Vec<_>, _>>().map(|entries| {
                let mut names: Vec<String> =
                    entries.iter().filter_map(|entry| entry.file_name().into_string().ok()).collect();
                names.sort();
                names
            }),
            Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
            Err(err) => Err(err),
        };
        let names = names.map_err(|source| TlsError::Read { path: directory.to_owned(), source })?;
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read(&path).map(|bytes| (path.clone(), bytes)).map_err(|source| TlsError::Read { path, source })
        };
        for name in &names {
            match Path::new(name).extension().and_then(OsStr::to_str) {
                Some("crt") => self.authorities.push(read(name)?),
                Some("cert") => {
                    let key = format!("{}.key", name.trim_end_matches(".cert"));
                    if !names.contains(&key) {
                        return Err(TlsError::MissingKey { key, certificate: name.clone() });
                    }
                    let (path, certificate) = read(name)?;
                    self.identities.push((path, certificate, read(&key)?.1));
                }
                Some("key") => {
                    let certificate = format!("{}.cert", name.trim_end_matches(".key"));
                    if !names.contains(&certificate) {
                        return Err(TlsError::MissingCertificate { certificate, key: name.clone() });
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What a connection to the host believes and shows. With `verify` unset everybody is believed, as for registries that
    /// are configured as insecure.
    pub(crate) fn config(&self, roots: &RootCertStore, verify: bool) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Setup { source })?;
        let verifier = match verify {
            false => Verifier::of_anyone(provider.clone()),
            true => {
                let mut roots = roots.clone();
                for (path, bytes) in &self.authorities {
                    let certificates = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
                    add(&mut roots, path, certificates)?;
                }
                Verifier::of(roots, provider.clone())
            }
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        let identities: Result<Vec<_>, _> = self
            .identities
            .iter()
            .map(|(path, certificate, key)| identity(&provider, path, certificate, key))
            .collect();
        Ok(Arc::new(match identities? {
            none if none.is_empty() => builder.with_no_client_auth(),
            some => builder.with_client_cert_resolver(Arc::new(Identities(some))),
        }))
    }
}

/// The authorities that everybody here believes. Blocks.
pub(crate) fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = tls_verifier::bundle() {
        let read = CertificateDer::pem_file_iter(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        add(&mut roots, &path, read)?;
    }
    Ok(roots)
}

fn add(
    roots: &mut RootCertStore,
    path: &Path,
    certificates: Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error>,
) -> Result<(), TlsError> {
    let certificates = certificates.map_err(|source| TlsError::Certificates { path: path.to_owned(), source })?;
    // A bundle may hold old forms that nobody parses any more; the others count.
    roots.add_parsable_certificates(certificates);
    Ok(())
}

fn identity(
    provider: &CryptoProvider,
    path: &Path,
    certificate: &[u8],
    key: &[u8],
) -> Result<Arc<CertifiedKey>, TlsError> {
    let unread = |source| TlsError::Certificates { path: path.to_owned(), source };
    let unusable = |source| TlsError::Identity { path: path.to_owned(), source };
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>().map_err(unread)?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|source| TlsError::Certificates { path: path.with_extension("key"), source })?;
    CertifiedKey::from_der(chain, key, provider).map(Arc::new).map_err(unusable)
}

/// Certificates of ours: a server is shown the first one that one of its authorities has vouched for, as by Go.
#[derive(Debug)]
struct Identities(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for Identities {
    fn resolve(&self, authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // A certificate holds its issuer's name as the server writes it (RFC 8446, 4.2.4); those behind it name theirs.
        let vouched = |identity: &CertifiedKey| {
            let names =
                |name: &[u8]| identity.cert.iter().any(|cert| cert.windows(name.len()).any(|part| part == name));
            authorities.is_empty() || authorities.iter().any(|name| !name.is_empty() && names(name))
        };
        let fits = |identity: &&Arc<CertifiedKey>| identity.key.choose_scheme(schemes).is_some() && vouched(identity);
        self.0.iter().find(fits).cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}
