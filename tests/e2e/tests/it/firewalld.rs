//! A host whose firewall is firewalld.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::thread::UnshareFlags;
use testkit::images::Archive;
use testkit::{Cli, Daemon, Firewalld};

use crate::foreign_firewall::{Host, NEIGHBOUR};
use crate::support::At;

/// Runs `test` on a thread whose network namespace has a firewalld that drops, and a second host.
fn behind_firewalld(
    options: &'static [&'static str],
    test: impl FnOnce(&mut Daemon, &mut Firewalld, &Host) + Send + 'static,
) {
    if testkit::skip::without_root() {
        return;
    }
    if std::env::var_os(testkit::daemon::HOST_VARIABLE).is_some() {
        return testkit::skip::report("this is about a daemon of the test's own");
    }
    let thread = std::thread::spawn(move || {
        sys::namespace::unshare(UnshareFlags::NEWNET).unwrap();
        let host = Host::new();
        let mut firewalld = Firewalld::start("drop").unwrap();
        let address = firewalld.bus().address();
        let mut daemon = testkit::daemon::start_under("DBUS_SYSTEM_BUS_ADDRESS", address, options).unwrap();
        daemon.load(Archive::Busybox).unwrap();
        test(&mut daemon, &mut firewalld, &host);
        daemon.finish().unwrap();
        assert!(firewalld.interfaces("docker").unwrap().is_empty());
    });
    thread.join().unwrap();
}

fn soon(what: &str, is_so: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    testkit::process::until(what, Duration::from_secs(20), || is_so().then_some(())).unwrap();
    begun.elapsed()
}

/// What a container is told by the second host.
fn told(at: &At<'_>, host: &Host) -> String {
    let outside = host.inside(|| TcpListener::bind((NEIGHBOUR, 7)).unwrap());
    let answer = std::thread::spawn(move || std::io::Write::write_all(&mut outside.accept().unwrap().0, b"outside"));
    let heard = at.ok(&format!("exec web nc {NEIGHBOUR} 7 -w 20"));
    answer.join().unwrap().unwrap();
    heard
}

#[test]
fn privileged_ports_and_the_outside_are_reached_past_firewalld_also_after_its_reload_and_restart() {
    behind_firewalld(&[], |daemon, firewalld, host| {
        let at = At { daemon, cli: Cli::Longshore };
        at.ok("network create front");
        assert_eq!(firewalld.interfaces("docker").unwrap().len(), 2);
        at.ok("run -d --name web --network front -p 8080:80 busybox nc -ll -p 80 -e echo hello");
        let passes = || {
            soon("an answer", || host.hears(8080, Duration::from_secs(5)).as_deref() == Some("hello\n"));
            assert_eq!(told(&at, host), "outside");
        };
        passes();
        // Docker's client of 28.2 has no line for it, and prints what is asked for by name.
        for cli in daemon.clis() {
            let shown = At { daemon, cli }.ok("info --format '{{json .FirewallBackend}}'");
            assert_eq!(shown, "{\"Driver\":\"nftables+firewalld\"}", "{cli:?}");
        }
        firewalld.command(&["--reload"]).unwrap();
        let took = soon("the bridges are back", || firewalld.interfaces("docker").unwrap().len() == 2);
        assert!(took < Duration::from_secs(1), "{took:?}");
        passes();
        let shown = at.ok("info");
        assert!(shown.contains("\n Firewall Backend: nftables+firewalld\n  ReloadedAt: "), "{shown}");
        firewalld.end(Signal::KILL).unwrap();
        firewalld.run().unwrap();
        let took = soon("the bridges are back", || firewalld.interfaces("docker").unwrap().len() == 2);
        assert!(took < Duration::from_secs(1), "{took:?}");
        passes();
        at.ok("rm -f web");
        at.ok("network rm front");
        assert_eq!(firewalld.interfaces("docker").unwrap().len(), 1);
        // What the one that was killed has left in the kernel keeps the next one from giving up a zone.
        firewalld.command(&["--reload"]).unwrap();
        soon("the bridge is back", || firewalld.interfaces("docker").unwrap().len() == 1);
    });
}

#[test]
fn privileged_what_firewalld_was_told_of_a_bridge_is_respected_and_named() {
    behind_firewalld(&[], |daemon, firewalld, _| {
        let status = Command::new("ip").args(["link", "add", "theirs", "type", "bridge"]).status().unwrap();
        assert!(status.success());
        firewalld.command(&["--permanent", "--zone=trusted", "--add-interface=theirs"]).unwrap();
        let at = At { daemon, cli: Cli::Longshore };
        at.ok("network create -o com.docker.network.bridge.name=theirs adopted");
        let warnings = at.ok("info --format '{{json .Warnings}}'");
        assert!(warnings.contains("firewalld has bridge theirs in the zone trusted"), "{warnings}");
        assert_eq!(firewalld.interfaces("trusted").unwrap(), ["theirs"]);
        at.ok("network rm adopted");
        assert_eq!(firewalld.interfaces("trusted").unwrap(), ["theirs"]);
        // The machine's namespace goes with the test, and the bridge with it.
    });
}

#[test]
fn privileged_in_the_mode_host_firewall_firewalld_is_left_alone() {
    behind_firewalld(&["--host-firewall"], |daemon, firewalld, host| {
        let at = At { daemon, cli: Cli::Longshore };
        at.ok("run -d --name web -p 8080:80 busybox nc -ll -p 80 -e echo hello");
        // firewalld lets pass by itself what was redirected.
        soon("an answer", || host.hears(8080, Duration::from_secs(5)).as_deref() == Some("hello\n"));
        let refused = host.inside(|| TcpListener::bind((NEIGHBOUR, 7)).unwrap());
        assert_ne!(at.line(&format!("exec web nc {NEIGHBOUR} 7 -w 2")).code, 0);
        drop(refused);
        assert!(!firewalld.zones().unwrap().iter().any(|zone| zone == "docker"));
        assert_eq!(at.ok("info --format '{{.FirewallBackend.Driver}}'"), "nftables");
    });
}
