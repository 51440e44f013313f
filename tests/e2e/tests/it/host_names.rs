//! Names that the host's own name server knows.

use std::net::UdpSocket;

use rustix::thread::UnshareFlags;
use testkit::images::Archive;
use testkit::{Cli, Daemon};

use crate::egress::{PUBLIC, ask, lead_all_names};
use crate::foreign_firewall::{Host, NEIGHBOUR, ip};
use crate::support::At;

fn mount(words: &str) {
    assert!(std::process::Command::new("mount").args(words.split(' ')).status().unwrap().success(), "mount {words}");
}

/// Runs `test` with a daemon on a machine of its own, whose /etc/resolv.conf says this and whose systemd-resolved, if there is one, that;
/// beside it is a second host with a name server.
fn on_a_host_with(file: &str, resolved: Option<&str>, test: impl FnOnce(&At<'_>) + Send + 'static) {
    if testkit::skip::without_root() {
        return;
    }
    let (file, resolved) = (file.to_owned(), resolved.map(str::to_owned));
    let thread = std::thread::spawn(move || {
        let own = tempfile::tempdir().unwrap();
        let path = own.path().join("resolv.conf");
        std::fs::write(&path, file).unwrap();
        sys::namespace::unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS).unwrap();
        mount("--make-rprivate /");
        mount(&format!("--bind {} /etc/resolv.conf", path.display()));
        mount("-t tmpfs none /run/systemd");
        if let Some(resolved) = resolved {
            std::fs::create_dir("/run/systemd/resolve").unwrap();
            std::fs::write("/run/systemd/resolve/resolv.conf", resolved).unwrap();
        }
        let host = Host::new();
        // By which it is told to end.
        host.inside(|| ip("link set lo up"));
        let names = host.inside(|| UdpSocket::bind((NEIGHBOUR, 53)).unwrap());
        let asked = names.try_clone().unwrap();
        let server = std::thread::spawn(move || lead_all_names(&asked));
        let daemon = Daemon::start().unwrap();
        if daemon.is_foreign() {
            testkit::skip::report("this is about a daemon on a machine of the test's own");
        } else {
            daemon.load(Archive::Busybox).unwrap();
            test(&At { daemon: &daemon, cli: Cli::Longshore });
            daemon.finish().unwrap();
        }
        host.inside(|| UdpSocket::bind((NEIGHBOUR, 0)).unwrap().send_to(b"", (NEIGHBOUR, 53)).unwrap());
        server.join().unwrap();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn asks(at: &At<'_>) {
    at.ok("network create front");
    at.ok("run -d --name agent --network front busybox sleep 1000");
    assert_eq!(ask(at, "agent", "web.example.org"), (0, PUBLIC));
    at.ok("rm -f agent");
    at.ok("network rm front");
}

#[test]
fn privileged_the_hosts_own_name_server_is_asked() {
    on_a_host_with(&format!("nameserver {NEIGHBOUR}\nsearch of.host\n"), None, |at| {
        asks(at);
        let file = at.ok("run --rm busybox cat /etc/resolv.conf");
        assert!(file.contains(&format!("nameserver {NEIGHBOUR}\nsearch of.host\n")), "{file}");
    });
}

#[test]
fn privileged_where_systemd_resolved_answers_the_host_its_own_servers_are_asked() {
    let stub = "nameserver 127.0.0.53\noptions edns0\n";
    on_a_host_with(stub, Some(&format!("nameserver {NEIGHBOUR}\nsearch of.host\n")), |at| {
        asks(at);
        let from = "# Based on host file: '/run/systemd/resolve/resolv.conf' (legacy)\n";
        let file = at.ok("run --rm busybox cat /etc/resolv.conf");
        assert!(file.contains(&format!("nameserver {NEIGHBOUR}\nsearch of.host\n")) && file.contains(from), "{file}");
        let of_host = at.ok("run --rm --network host busybox cat /etc/resolv.conf");
        assert!(of_host.contains("nameserver 127.0.0.53\n"), "{of_host}");
    });
}
