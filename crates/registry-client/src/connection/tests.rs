use std::io::{Read, Write};
use std::path::Path;

use http::StatusCode;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{WantsServerCert, WebPkiClientVerifier};
use rustls::{ConfigBuilder, ServerConfig, ServerConnection};
use testkit::Certificates;
use testkit::registry::{Answer, Server};

use super::*;

/// For `localhost` and 127.0.0.1, signed by itself, valid for a hundred years, and known to the whole world.
const CERTIFICATE: &[u8] = include_bytes!("tests/certificate.pem");
const KEY: &[u8] = include_bytes!("tests/key.pem");

/// The same, but of an authority, as `openssl req -x509` makes it and Docker's manual says to.
const AUTHORITY: &[u8] = include_bytes!("tests/authority.pem");
const AUTHORITY_KEY: &[u8] = include_bytes!("tests/authority-key.pem");

/// Answers one request per connection, over TLS, until the last one that is expected.
fn serve(connections: usize) -> SocketAddr {
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    serve_with(connections, builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth())
}

/// The same for whoever shows a certificate of this authority.
fn serve_known(connections: usize, authority: &Path) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    serve_with(connections, builder.with_client_cert_verifier(clients))
}

fn serve_with(connections: usize, builder: ConfigBuilder<ServerConfig, WantsServerCert>) -> SocketAddr {
    serve_as(connections, builder, CERTIFICATE, KEY)
}

fn serve_as(
    connections: usize,
    builder: ConfigBuilder<ServerConfig, WantsServerCert>,
    certificate: &[u8],
    key: &[u8],
) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let certificate = CertificateDer::from_pem_slice(certificate).unwrap();
    let config = builder.with_single_cert(vec![certificate], PrivateKeyDer::from_pem_slice(key).unwrap());
    let config = Arc::new(config.unwrap());
    std::thread::spawn(move || {
        for _ in 0..connections {
            let (mut stream, _) = listener.accept().unwrap();
            let mut connection = ServerConnection::new(config.clone()).unwrap();
            let mut tls = rustls::Stream::new(&mut connection, &mut stream);
            // A client that does not believe us hangs up.
            if matches!(tls.read(&mut [0; 4096]), Ok(1..)) {
                tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
            }
        }
    });
    address
}

fn known(host: &str) -> Terms<'_> {
    Terms { verify: true, identity: Some(host) }
}

async fn ask(certificates: &Path, address: SocketAddr, verify: bool) -> Result<StatusCode, ExchangeError> {
    let connector = Connector::new(vec![certificates.to_owned()], Proxies::default(), Timing::default());
    let url = Url::parse(&format!("https://{address}/v2/")).unwrap();
    let terms = Terms { verify, identity: Some(&url.authority) };
    let response = connector.send(&url, terms, || Request::new(Outgoing::Whole(Bytes::new()))).await?;
    Ok(response.status())
}

#[tokio::test]
async fn certificates_are_verified_unless_the_host_needs_none() {
    let (empty, filled) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let address = serve(4);
    let directory = filled.path().join(address.to_string());
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("ca.crt"), CERTIFICATE).unwrap();
    assert_eq!(ask(empty.path(), address, false).await.unwrap(), StatusCode::OK);
    let err = ask(empty.path(), address, true).await.unwrap_err();
    assert!(errdefs::chain(&err).contains("UnknownIssuer"), "{err:?}");
    assert_eq!(ask(filled.path(), address, true).await.unwrap(), StatusCode::OK);
    for host in ["..", ".", "", "a/b"] {
        assert!(
            HostFiles::read(&[directory.join("x")], host, None).unwrap().config(&RootCertStore::empty(), true).is_ok()
        );
    }
    std::fs::write(directory.join("ca.crt"), "-----BEGIN CERTIFICATE-----\nnone").unwrap();
    let err = ask(filled.path(), address, true).await.unwrap_err();
    assert!(matches!(err, ExchangeError::Tls(_)), "{err:?}");
}

#[tokio::test]
async fn a_registry_that_shows_its_own_authority_is_believed_where_that_is_known() {
    let (empty, filled) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let address = serve_as(2, builder, AUTHORITY, AUTHORITY_KEY);
    let directory = filled.path().join(address.to_string());
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("ca.crt"), AUTHORITY).unwrap();
    assert!(ask(empty.path(), address, true).await.is_err());
    assert_eq!(ask(filled.path(), address, true).await.unwrap(), StatusCode::OK);
}

#[test]
fn addresses_are_parsed_and_followed() {
    let base = Url::parse("https://a.b:5000/v2/?x").unwrap();
    assert_eq!((base.host(), base.port().unwrap(), &base.path[..]), ("a.b", 5000, "/v2/?x"));
    assert_eq!(Url::parse("http://[::1]:80/").unwrap().host(), "::1");
    assert_eq!(Url::parse("http://[::1]/").unwrap().port().unwrap(), 80);
    for port in ["99999", "x", "-1"] {
        let url = Url { scheme: Scheme::Https, authority: format!("h:{port}"), path: "/".to_owned() };
        assert_eq!(url.port().unwrap_err().to_string(), format!("dial tcp: address {port}: invalid port"));
    }
    for (location, expected) in [
        ("/c?d=e", Some("https://a.b:5000/c?d=e")),
        ("http://x/y", Some("http://x/y")),
        ("//evil/", None),
        ("ftp://x/", None),
        ("http://user:password@x/", None),
        ("file:///etc/passwd", None),
        ("c", None),
        ("", None),
    ] {
        let joined = base.join(location).ok().map(|url| url.to_string());
        assert_eq!(joined.as_deref(), expected, "{location}");
    }
}

#[tokio::test]
async fn a_server_that_asks_who_we_are_is_shown_the_certificate_that_it_knows() {
    let made = Certificates::make().unwrap();
    let address = serve_known(4, &made.path().join("ca.pem"));
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join(address.to_string());
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("ca.crt"), CERTIFICATE).unwrap();
    let put = |name: &str, from: &Path| {
        std::fs::copy(from.join("cert.pem"), directory.join(format!("{name}.cert"))).unwrap();
        std::fs::copy(from.join("key.pem"), directory.join(format!("{name}.key"))).unwrap();
    };
    // In TLS 1.3 a client hears with the answer that it is not known.
    let unknown = ask(dir.path(), address, true).await.unwrap_err();
    assert!(errdefs::chain(&unknown).contains("CertificateRequired"), "{unknown:?}");
    put("client", &made.client());
    assert_eq!(ask(dir.path(), address, true).await.unwrap(), StatusCode::OK);
    assert_eq!(ask(dir.path(), address, false).await.unwrap(), StatusCode::OK);
    put("a-stranger", &made.stranger());
    std::fs::remove_file(directory.join("client.cert")).unwrap();
    std::fs::remove_file(directory.join("client.key")).unwrap();
    // Another authority of the same name has vouched for him: he is shown, and not believed.
    assert!(ask(dir.path(), address, true).await.is_err());
}

/// A registry that names a token server, and what it sends on to.
fn registry(realm: String) -> Server {
    Server::start(move |request| match request.path.starts_with("/web") {
        true => Answer::new(302, "").with("Location", realm.clone()),
        false => Answer::new(401, "").with("WWW-Authenticate", format!("Bearer realm=\"{realm}\"")),
    })
}

#[tokio::test]
async fn only_the_registry_that_is_asked_and_who_speaks_for_it_are_shown_its_certificate() {
    let made = Certificates::make().unwrap();
    let address = serve_known(3, &made.path().join("ca.pem"));
    let server = registry(format!("https://{address}/token"));
    let dir = tempfile::tempdir().unwrap();
    let put = |host: &str| {
        let directory = dir.path().join(host);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::copy(made.client().join("cert.pem"), directory.join("client.cert")).unwrap();
        std::fs::copy(made.client().join("key.pem"), directory.join("client.key")).unwrap();
    };
    put(&address.to_string());
    std::fs::write(dir.path().join(address.to_string()).join("ca.crt"), CERTIFICATE).unwrap();
    let registry = crate::Registry::new(crate::Settings {
        certificates: vec![dir.path().to_owned()],
        ..crate::Settings::default()
    });
    let me = crate::Credentials::Basic { username: "u".into(), password: "p".into() };
    // Whoever has a certificate for the host that is named is not to be had by naming it.
    let refused = registry.login(Some(&server.host()), me.clone()).await.unwrap_err();
    assert!(errdefs::chain(&refused).contains("CertificateRequired"), "{refused:?}");
    let fetched = registry.fetch(&crate::WebAddress::parse(&format!("http://{}/web", server.host())).unwrap()).await;
    assert!(errdefs::chain(&fetched.unwrap_err()).contains("CertificateRequired"));
    // dockerd shows its token server what is kept for the registry.
    put(&server.host());
    let refused = registry.login(Some(&server.host()), me).await.unwrap_err();
    assert!(errdefs::chain(&refused).ends_with("did not include a token in the response"), "{refused:?}");
}

#[tokio::test]
async fn half_a_certificate_is_refused_in_dockerds_words_and_files_are_read_anew() {
    let made = Certificates::make().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("h:1");
    std::fs::create_dir(&directory).unwrap();
    let connector = Connector::new(vec![dir.path().to_owned()], Proxies::default(), Timing::default());
    let first = connector.learn("h:1", known("h:1")).await.unwrap();
    assert!(Arc::ptr_eq(&first, &connector.learn("h:1", known("h:1")).await.unwrap()));
    let put = |name: &str, file: &str| std::fs::copy(made.client().join(file), directory.join(name)).unwrap();
    put("client.cert", "cert.pem");
    let refused = connector.learn("h:1", known("h:1")).await.unwrap_err().to_string();
    let sentence =
        "missing key client.key for client certificate client.cert. CA certificates must use the extension .crt";
    assert_eq!(refused, sentence);
    put("client.key", "key.pem");
    assert!(!Arc::ptr_eq(&first, &connector.learn("h:1", known("h:1")).await.unwrap()));
    std::fs::remove_file(directory.join("client.cert")).unwrap();
    let refused = connector.learn("h:1", known("h:1")).await.unwrap_err().to_string();
    assert_eq!(refused, "missing client certificate client.cert for key client.key");
    std::fs::copy(made.stranger().join("cert.pem"), directory.join("client.cert")).unwrap();
    let refused = connector.learn("h:1", known("h:1")).await.unwrap_err();
    assert!(matches!(refused, TlsError::Identity { .. }), "{refused:?}");
    std::fs::write(directory.join("client.cert"), "").unwrap();
    assert!(connector.learn("h:1", known("h:1")).await.is_err());
}

/// A proxy that lets through who is known to it, whatever host he asks for, and counts what it was asked.
fn proxy(target: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let seen = asked.clone();
    std::thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && matches!(client.read(&mut byte), Ok(1)) {
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            seen.lock().unwrap().push(head.lines().next().unwrap_or_default().to_owned());
            if !head.contains("Proxy-Authorization: Basic dTpw\r\n") {
                client.write_all(b"HTTP/1.1 407 Who are you?\r\nContent-Length: 0\r\n\r\n").unwrap();
                continue;
            }
            let mut server = std::net::TcpStream::connect(target).unwrap();
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut server, &mut client);
            });
        }
    });
    (address, asked)
}

async fn ask_through(proxies: Proxies, url: &str) -> Result<StatusCode, ExchangeError> {
    let connector = Connector::new(Vec::new(), proxies, Timing::default());
    let url = Url::parse(url).unwrap();
    let response = connector
        .send(&url, Terms { verify: false, identity: None }, || Request::new(Outgoing::Whole(Bytes::new())))
        .await?;
    Ok(response.status())
}

#[tokio::test]
async fn tls_goes_through_a_tunnel_that_a_proxy_gives_to_who_is_known_to_it() {
    let (address, asked) = proxy(serve(1));
    let through = |user: &str| Proxies { https: format!("http://{user}{address}"), ..Proxies::default() };
    let answered = ask_through(through("u:p@"), "https://registry.invalid:5000/v2/").await;
    assert_eq!(answered.unwrap(), StatusCode::OK);
    let refused = ask_through(through(""), "https://registry.invalid/v2/").await.unwrap_err();
    assert_eq!(errdefs::chain(&refused), "Proxy Authentication Required");
    let lines = ["CONNECT registry.invalid:5000 HTTP/1.1", "CONNECT registry.invalid:443 HTTP/1.1"];
    assert_eq!(*asked.lock().unwrap(), lines);
    // Nobody listens where somebody has just stopped to.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxies = Proxies { https: nobody.to_string(), ..Proxies::default() };
    let refused = ask_through(proxies, "https://registry.invalid/v2/").await.unwrap_err();
    let sentence = format!("proxyconnect tcp: dial tcp {nobody}: connect: connection refused");
    assert_eq!(errdefs::chain(&refused), sentence);
    let wrong = Proxies { https: "socks5://x".into(), ..Proxies::default() };
    let refused = ask_through(wrong, "https://registry.invalid/v2/").await.unwrap_err();
    assert!(matches!(refused, ExchangeError::ProxyAddress(_)), "{refused:?}");
}
