//! What stands between us and registries.

use registry_client::{Proxies, Wanted};
use testkit::registry::{Answer, Request, Served, Server};

use crate::{Credentials, Registry, Settings, reference, settings};

#[tokio::test]
async fn without_tls_a_proxy_is_told_the_whole_address() {
    let served = Served::new(&[100]);
    let proxy = Server::start(move |request| match request.path.split_once("http://registry.test:5000") {
        Some(("", path)) => served.answer(&Request { path: path.to_owned(), ..request.clone() }),
        // It has heard of no tunnels.
        _ => Answer::new(405, ""),
    });
    let insecure = vec!["registry.test:5000".to_owned()];
    let both = format!("http://u:p@{}", proxy.host());
    let proxies = Proxies { http: both.clone(), https: both, none: "elsewhere".into() };
    let registry = Registry::new(Settings { insecure, proxies, ..settings() });
    let name = reference("registry.test:5000", "r:1");
    let session = registry.session(&name, Credentials::Anonymous).await.unwrap();
    let resolved = session.resolve(&name, &Wanted::parse("linux/amd64").unwrap()).await.unwrap();
    session.config(&resolved.manifest).await.unwrap();
    let asked = proxy.requests("");
    assert_eq!((asked[0].method.as_str(), asked[0].path.as_str()), ("CONNECT", "registry.test:5000"));
    assert!(asked.iter().all(|request| request.header("proxy-authorization") == Some("Basic dTpw")));
    assert!(asked[1..].iter().all(|request| request.header("host") == Some("registry.test:5000")));
    // What is on this machine needs none.
    let served = Served::new(&[100]);
    let near = Server::start(move |request| served.answer(request));
    let before = proxy.requests("").len();
    registry.session(&reference(&near.host(), "r:1"), Credentials::Anonymous).await.unwrap();
    assert_eq!(proxy.requests("").len(), before);
}
