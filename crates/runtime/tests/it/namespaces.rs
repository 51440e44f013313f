//! Namespaces that are there already.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::fixture::Bundle;

/// Type in the specification, name in /proc/PID/ns.
const KINDS: [(&str, &str); 8] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
    ("time", "time"),
    ("user", "user"),
];

fn namespace(pid: i64, name: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap().to_str().unwrap().to_owned()
}

/// A running container with these namespaces of its own.
fn running(kinds: &[&str]) -> (Bundle, i64) {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    bundle.config["linux"]["namespaces"] = kinds.iter().map(|kind| json!({"type": kind})).collect();
    if kinds.contains(&"user") {
        map_ids(&mut bundle);
    }
    bundle.ok(&["run", "-d"]);
    let pid = bundle.state()["pid"].as_i64().unwrap();
    (bundle, pid)
}

fn map_ids(bundle: &mut Bundle) {
    let ids = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    bundle.config["linux"]["uidMappings"] = ids.clone();
    bundle.config["linux"]["gidMappings"] = ids;
    std::os::unix::fs::chown(bundle.path("rootfs"), Some(100_000), Some(100_000)).unwrap();
}

#[test]
fn privileged_every_namespace_is_joined_by_its_path() {
    for user in [false, true] {
        let kinds: Vec<_> = KINDS.iter().map(|(kind, _)| *kind).filter(|kind| user || *kind != "user").collect();
        let (first, pid) = running(&kinds);
        for (kind, name) in KINDS {
            // With a user namespace the others are that one's, and nobody else's to join.
            if user != (kind == "user") {
                continue;
            }
            let mut second = Bundle::new(&["sleep", "1000"]);
            second.config["hostname"] = json!("");
            let list = second.config["linux"]["namespaces"].as_array_mut().unwrap();
            list.retain(|namespace| namespace["type"] != kind);
            list.push(json!({"type": kind, "path": format!("/proc/{pid}/ns/{name}")}));
            if user {
                std::os::unix::fs::chown(second.path("rootfs"), Some(100_000), Some(100_000)).unwrap();
            }
            second.ok(&["run", "-d"]);
            let own = second.state()["pid"].as_i64().unwrap();
            assert_eq!(namespace(own, name), namespace(pid, name), "{kind}");
            let added = second.run(&["exec", &second.id, "readlink", &format!("/proc/self/ns/{name}")]);
            assert_eq!(added.stdout.trim(), namespace(pid, name), "{kind}: {added:?}");
            second.ok(&["delete", "-f"]);
            second.assert_gone();
        }
        first.ok(&["delete", "-f"]);
        first.assert_gone();
    }
}

#[test]
fn privileged_what_is_no_namespace_is_refused() {
    let mut bundle = Bundle::new(&["true"]);
    let fifo = bundle.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut refused = |path: &Path, text: &str| {
        let list = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
        list.iter_mut().filter(|one| one["type"] == "ipc").for_each(|one| one["path"] = json!(path));
        let err = bundle.err(&["create"]);
        assert!(err.contains(path.to_str().unwrap()) && err.contains(text), "{err}");
        bundle.assert_gone();
    };
    refused(Path::new("/nosuch/namespace"), "no such file or directory");
    refused(Path::new("/proc/self/status"), "linux.namespaces[2].path: /proc/self/status is no namespace");
    // Nobody waits for somebody to write to it.
    refused(&fifo, "is no namespace");
}

#[test]
fn privileged_the_hosts_network_is_the_hosts_by_any_name() {
    let mut bundle = Bundle::new(&["true"]);
    let names = |path: &str, bundle: &mut Bundle| {
        let list = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
        let network: Vec<&mut Value> = list.iter_mut().filter(|one| one["type"] == "network").collect();
        network.into_iter().for_each(|one| one["path"] = json!(path));
    };
    let own = format!("/proc/{}/ns/net", std::process::id());
    names(&own, &mut bundle);
    bundle.ok(&["create"]);
    bundle.ok(&["delete", "-f"]);
    bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "0"});
    let text = "longshore-runtime create failed: unable to start container process: plan container: \
                linux.sysctl[\"net.ipv4.ip_forward\"]: sysctl \"net.ipv4.ip_forward\" is not in a separate kernel namespace";
    assert_eq!(bundle.err(&["create"]), text);
    bundle.assert_gone();
}
