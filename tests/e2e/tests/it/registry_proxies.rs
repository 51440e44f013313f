//! What stands between the daemon and registries.

use testkit::Daemon;
use testkit::registry::{Answer, Request, Served, Server};

use crate::support::each;

#[test]
fn privileged_registries_are_reached_through_a_proxy() {
    if testkit::skip::without_root() {
        return;
    }
    let served = Served::new(&[100, 7]);
    let proxy = Server::start(move |request| match request.path.split_once("http://registry.test:5000") {
        Some(("", path)) => served.answer(&Request { path: path.to_owned(), ..request.clone() }),
        _ => Answer::new(405, ""),
    });
    let address = format!("http://u:p@{}", proxy.host());
    let flags = ["--http-proxy", &address, "--https-proxy", &address, "--no-proxy", "near.test"];
    let flags = flags.into_iter().chain(["--insecure-registry", "registry.test:5000"]).collect::<Vec<_>>();
    let daemon = Daemon::start_with(&flags).unwrap();
    if daemon.is_foreign() {
        return testkit::skip::report("this is about a daemon of the test's own");
    }
    each(&daemon, |at| {
        at.ok("pull registry.test:5000/r:1");
        at.ok("rmi registry.test:5000/r:1");
        let asked = proxy.requests("");
        assert!(asked.iter().any(|request| request.path.ends_with("/v2/r/manifests/1")), "{asked:?}");
        assert!(asked.iter().all(|request| request.header("proxy-authorization") == Some("Basic dTpw")));
        let covered = format!("http://xxxxx:xxxxx@{}", proxy.host());
        let info = daemon.get("/v1.47/info").unwrap().text();
        let shown = format!(r#""HttpProxy":"{covered}","HttpsProxy":"{covered}","NoProxy":"near.test""#);
        assert!(info.contains(&shown), "{info}");
        assert!(at.ok("info").contains(&format!(" HTTP Proxy: {covered}\n")));
    });
}
