//! The API over TLS: who is let in, and what the others are told.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use testkit::Certificates;

use crate::daemon::{Daemon, Scratch, ping};

/// A daemon with these certificates on a port of the kernel's choice, and the address.
fn start(scratch: &Scratch, certificates: &Certificates, more: &[&str]) -> (Daemon, String) {
    let flags = certificates.daemon_flags();
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    flags.extend(["-H", "tcp://127.0.0.1:0"]);
    flags.extend(more);
    let daemon = scratch.start(&flags);
    (daemon, scratch.listens("API listen on 127"))
}

/// Connects with the certificate in this directory, or with none.
fn connect(address: &str, ca: &Path, identity: Option<&Path>) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(dir) => {
            let chain = vec![CertificateDer::from_pem_file(dir.join("cert.pem")).unwrap()];
            let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let connection = ClientConnection::new(Arc::new(config), "127.0.0.1".try_into().unwrap()).unwrap();
    StreamOwned::new(connection, TcpStream::connect(address).unwrap())
}

/// Whether somebody with this certificate gets an answer. With TLS 1.3 a client learns of its refusal when it reads.
fn is_served(mut stream: StreamOwned<ClientConnection, TcpStream>) -> bool {
    let request = b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n";
    let mut answer = [0; 15];
    stream.write_all(request).is_ok() && stream.read_exact(&mut answer).is_ok() && &answer == b"HTTP/1.1 200 OK"
}

#[test]
fn privileged_only_clients_with_a_certificate_are_served() {
    let (scratch, certificates) = (Scratch::new(), Certificates::make().unwrap());
    let (_daemon, address) = start(&scratch, &certificates, &[]);
    let ca = certificates.path().join("ca.pem");
    assert!(ping(connect(&address, &ca, Some(&certificates.client()))));
    assert!(!is_served(connect(&address, &ca, None)));
    assert!(!is_served(connect(&address, &ca, Some(&certificates.stranger()))));
    // And the socket is as it was.
    assert!(scratch.ping());
    assert!(!scratch.get("/info").contains("API is accessible"));
}

#[test]
fn privileged_clients_need_none_where_the_administrator_says_so() {
    let (scratch, certificates) = (Scratch::new(), Certificates::make().unwrap());
    let (_daemon, address) = start(&scratch, &certificates, &["--tlsverify=false"]);
    assert!(ping(connect(&address, &certificates.path().join("ca.pem"), None)));
    assert!(scratch.get("/info").contains("without TLS client verification"));
}

#[test]
fn privileged_who_does_not_speak_tls_is_told_so() {
    let (scratch, certificates) = (Scratch::new(), Certificates::make().unwrap());
    let (_daemon, address) = start(&scratch, &certificates, &[]);
    let mut plain = TcpStream::connect(&address).unwrap();
    plain.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n");
    // A client that says nothing keeps nobody waiting.
    let _silent = TcpStream::connect(&address).unwrap();
    assert!(ping(connect(&address, &certificates.path().join("ca.pem"), Some(&certificates.client()))));
}
