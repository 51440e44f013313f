//! Registries that ask who we are.

use std::fs;
use std::path::Path;

use testkit::Certificates;
use testkit::registry::Debian;

use crate::support::{each, ours};

#[test]
fn privileged_a_registry_that_asks_who_we_are_is_shown_it() {
    ours(|daemon| {
        let made = Certificates::make().unwrap();
        let registry = Debian::demanding(&made).unwrap();
        let directory = daemon.scratch().path().join("certs.d").join(registry.host());
        fs::create_dir_all(&directory).unwrap();
        let put = |from: &Path, file: &str, name: &str| fs::copy(from.join(file), directory.join(name)).unwrap();
        let name = format!("{}/secret:1", registry.host());
        each(daemon, |at| {
            at.ok(&format!("tag busybox {name}"));
            assert_ne!(at.line(&format!("push {name}")).code, 0, "nobody is let in");
            put(&made.client(), "cert.pem", "client.cert");
            let half = "missing key client.key for client certificate client.cert. CA certificates must use the \
                        extension .crt";
            at.fails(&format!("push {name}"), 1, half);
            at.fails(&format!("pull {name}"), 1, half);
            put(&made.client(), "key.pem", "client.key");
            at.ok(&format!("push {name}"));
            at.ok(&format!("rmi {name}"));
            at.ok(&format!("pull {name}"));
            put(&made.stranger(), "cert.pem", "client.cert");
            put(&made.stranger(), "key.pem", "client.key");
            assert_ne!(at.line(&format!("pull {name}")).code, 0, "somebody else is let in");
            fs::remove_file(directory.join("client.cert")).unwrap();
            at.fails(&format!("pull {name}"), 1, "missing client certificate client.cert for key client.key");
            fs::remove_file(directory.join("client.key")).unwrap();
            at.ok(&format!("rmi {name}"));
        });
    });
}
