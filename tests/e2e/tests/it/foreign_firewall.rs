//! A host whose own firewall drops what is forwarded, as ufw's and an installed Docker's do.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::thread::UnshareFlags;
use testkit::{Cli, Daemon};

use crate::support::{self, At};

/// The address of the machine on the link.
const MACHINE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub(crate) const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const OURS: &str = "comment \"longshore-";

/// Runs `test` on a thread whose network namespace has a firewall and a second host, at this namespace.
fn behind_a_firewall(options: &'static [&'static str], test: impl FnOnce(&mut Daemon, &Host) + Send + 'static) {
    if testkit::skip::without_root() {
        return;
    }
    let thread = std::thread::spawn(move || {
        sys::namespace::unshare(UnshareFlags::NEWNET).unwrap();
        let host = Host::new();
        nft("add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }");
        let mut daemon = Daemon::start_with(options).unwrap();
        if daemon.is_foreign() {
            testkit::skip::report("this is about a daemon of the test's own");
            return;
        }
        daemon.load(testkit::images::Archive::Busybox).unwrap();
        test(&mut daemon, &host);
        daemon.finish().unwrap();
        assert_eq!(guests(), 0, "{}", nft("list ruleset"));
    });
    thread.join().unwrap();
}

/// Another network namespace at the other end of a link.
pub(crate) struct Host {
    namespace: std::fs::File,
}

impl Host {
    pub(crate) fn new() -> Host {
        ip("link set lo up");
        let namespace = std::thread::spawn(|| {
            sys::namespace::unshare(UnshareFlags::NEWNET).unwrap();
            std::fs::File::open("/proc/thread-self/ns/net").unwrap()
        });
        let host = Host { namespace: namespace.join().unwrap() };
        // A thread's number stands for its namespace.
        let own = rustix::thread::gettid().as_raw_nonzero();
        host.inside(|| ip(&format!("link add eth0 type veth peer name up0 netns {own}")));
        ip(&format!("addr add {MACHINE}/24 dev up0"));
        ip("link set up0 up");
        host.inside(|| {
            ip(&format!("addr add {NEIGHBOUR}/24 dev eth0"));
            ip("link set eth0 up");
        });
        host
    }

    pub(crate) fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        support::inside(self.namespace.as_fd(), act)
    }

    /// What it is told at a port of the machine.
    pub(crate) fn hears(&self, port: u16, within: Duration) -> Option<String> {
        self.inside(|| hears(MACHINE, port, within))
    }
}

/// What is told to the calling thread's namespace.
fn hears(address: Ipv4Addr, port: u16, within: Duration) -> Option<String> {
    let address = SocketAddr::from((address, port));
    let mut heard = String::new();
    TcpStream::connect_timeout(&address, within).and_then(|mut stream| stream.read_to_string(&mut heard)).ok()?;
    Some(heard)
}

pub(crate) fn ip(line: &str) {
    assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success(), "ip {line}");
}

pub(crate) fn nft(line: &str) -> String {
    let output = Command::new("nft").arg(line).output().unwrap();
    assert!(output.status.success(), "nft {line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// How many rules of ours are in tables of others.
fn guests() -> usize {
    nft("list ruleset").lines().filter(|line| line.contains(OURS)).count()
}

fn soon(what: &str, is_so: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    testkit::process::until(what, Duration::from_secs(20), || is_so().then_some(())).unwrap();
    begun.elapsed()
}

fn warnings(at: &At<'_>) -> String {
    at.ok("info --format '{{json .Warnings}}'")
}

#[test]
fn privileged_ports_and_the_outside_are_reached_past_a_firewall_that_drops() {
    behind_a_firewall(&[], |daemon, host| {
        let at = At { daemon, cli: Cli::Longshore };
        at.ok("run -d --name web -p 8080:80 busybox nc -ll -p 80 -e echo hello");
        soon("an answer", || host.hears(8080, Duration::from_secs(5)).as_deref() == Some("hello\n"));
        let outside = host.inside(|| TcpListener::bind((NEIGHBOUR, 7)).unwrap());
        let answer =
            std::thread::spawn(move || std::io::Write::write_all(&mut outside.accept().unwrap().0, b"outside"));
        assert_eq!(at.ok(&format!("exec web nc {NEIGHBOUR} 7 -w 20")), "outside");
        answer.join().unwrap().unwrap();
        assert_eq!(guests(), 1);
        let shown = at.ok("info");
        assert!(shown.contains("\n Firewall Backend: nftables\n  Accept rule in: ip filter FORWARD"), "{shown}");
        // Somebody flushes the chain, then everything.
        nft("flush chain ip filter FORWARD");
        let took = soon("the rule is back", || guests() == 1);
        assert!(took < Duration::from_secs(1), "{took:?}");
        nft("flush ruleset");
        let took = soon("our rules are back", || nft("list ruleset").contains("8080"));
        assert!(took < Duration::from_secs(1), "{took:?}");
        nft("add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }");
        soon("a new chain has the rule", || guests() == 1);
        // A crash leaves it, and the next daemon has exactly this one.
        daemon.kill9().unwrap();
        assert_eq!(host.hears(8080, Duration::from_secs(20)).as_deref(), Some("hello\n"));
        nft("flush chain ip filter FORWARD");
        daemon.restart().unwrap();
        assert_eq!(guests(), 1);
        daemon.restart().unwrap();
        assert_eq!(guests(), 1);
        assert_eq!(host.hears(8080, Duration::from_secs(20)).as_deref(), Some("hello\n"));
        // A shutdown that leaves no container leaves no rule.
        let at = At { daemon, cli: Cli::Longshore };
        at.ok("rm -f web");
        daemon.stop().unwrap();
        assert_eq!(guests(), 0);
        daemon.restart().unwrap();
    });
}

#[test]
fn privileged_in_the_mode_host_firewall_no_rule_is_placed() {
    behind_a_firewall(&["--host-firewall"], |daemon, host| {
        let at = At { daemon, cli: Cli::Longshore };
        at.ok("run -d --name web -p 8080:80 busybox nc -ll -p 80 -e echo hello");
        // Its server is there: what the machine itself sends is not forwarded.
        soon("an answer", || hears(Ipv4Addr::LOCALHOST, 8080, Duration::from_secs(5)).as_deref() == Some("hello\n"));
        assert_eq!(host.hears(8080, Duration::from_millis(400)), None);
        assert_eq!(guests(), 0);
        let sentence = "nft chain ip filter FORWARD drops what containers send and get, unless it has rules for them";
        assert!(warnings(&at).contains(sentence), "{}", warnings(&at));
        nft("add rule ip filter FORWARD accept");
        soon("an answer", || host.hears(8080, Duration::from_secs(5)).as_deref() == Some("hello\n"));
    });
}
