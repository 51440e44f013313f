//! Ports that no rule leads to their container: on [::1], and of the family of addresses that the container does not have.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use testkit::process::{DEADLINE, until};
use testkit::{Cli, Daemon};

use crate::support::{At, datagram_server, exchange_datagrams, on_both, ours};

/// How long an answer may take on a loaded machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Sends everything back.
const ECHO: &str = "nc -ll -p 80 -e cat";

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    Ok(stream)
}

/// Waits until nobody answers there. Daemons of other tests begin with the lowest free port, too, and may have got one that was
/// given back at this very moment; they end, and what would stay of ours does not. That a port is free at once is shown in
/// network namespaces (`network::reach`).
fn refused(address: SocketAddr) {
    let free = || connect(address).is_err().then_some(());
    until("nobody has the port", DEADLINE, free).unwrap();
}

/// Whether what is sent comes back.
fn echoes(stream: &mut TcpStream, word: &str) -> bool {
    let mut heard = vec![0; word.len()];
    stream.write_all(word.as_bytes()).and_then(|()| stream.read_exact(&mut heard)).is_ok() && heard == word.as_bytes()
}

/// Whether its end is told. A timeout is none.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(length) => length == 0,
        Err(err) => err.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

/// A connection to a server that may be about to begin.
fn talk(address: SocketAddr) -> TcpStream {
    let talks = || connect(address).ok().and_then(|mut stream| echoes(&mut stream, "hello").then_some(stream));
    testkit::process::until("an echo", ANSWER_WITHIN, talks).unwrap()
}

fn published(at: &At<'_>, name: &str, port: &str) -> SocketAddr {
    at.ok(&format!("port {name} {port}")).parse().unwrap()
}

/// The relays of a daemon: processes with its directory in their arguments.
fn relays(daemon: &Daemon) -> Vec<i32> {
    let dir = daemon.scratch().exec_root().join("network/relay");
    let is_relay = |pid: &i32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = command.split(|byte| *byte == 0);
        words.next() == Some(b"longshore-relay") && words.nth(1) == Some(dir.as_os_str().as_encoded_bytes())
    };
    let names = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    names.filter(is_relay).collect()
}

fn end_relay(pid: i32) -> bool {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok()
}

fn until_relays(daemon: &Daemon, count: usize) {
    let are = || (relays(daemon).len() == count).then_some(());
    testkit::process::until(&format!("{count} relays"), ANSWER_WITHIN, are).unwrap();
}

#[test]
fn privileged_ports_of_ipv6_lead_to_containers_of_ipv4() {
    on_both(|at| {
        let name = at.name("home");
        at.ok(&format!("run -d --name {name} -p [::1]::80 -p [::1]::81/udp busybox {ECHO}"));
        let address = published(at, &name, "80");
        assert_eq!(address.ip(), Ipv6Addr::LOCALHOST);
        let shown = at.inspect(&name, "{{json .NetworkSettings.Ports}}");
        assert!(shown.contains("\"HostIp\":\"::1\""), "{shown}");
        // Much, both ways at once, and the end of one direction leaves the other one open.
        let mut stream = talk(address);
        let mut writer = stream.try_clone().unwrap();
        let much = std::thread::spawn(move || {
            writer.write_all(&[b'x'; 3 << 20]).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        much.join().unwrap();
        assert_eq!(heard.len(), 3 << 20);
        let server = datagram_server(at, &name, 81);
        let datagrams = published(at, &name, "81/udp");
        let client = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        client.connect(datagrams).unwrap();
        exchange_datagrams(&client, &server, ANSWER_WITHIN);
        at.remove(&name);
        refused(address);
    });
}

#[test]
fn privileged_a_relayed_port_that_is_taken_is_refused_before_anything_starts() {
    on_both(|at| {
        let name = at.name("late");
        let taken = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let refused = at.line(&format!("run -d --name {name} -p [::1]:{port}:80 busybox {ECHO}"));
        assert_eq!(refused.code, 125);
        assert!(refused.stderr.contains("address already in use"), "{}", refused.stderr);
        assert_eq!(at.inspect(&name, "{{.State.Status}}"), "created");
        at.remove(&name);
    });
}

#[test]
fn privileged_one_relay_outlives_the_daemon_and_goes_with_the_last_port() {
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        at.ok(&format!("run -d --name plain -p 127.0.0.1::80 busybox {ECHO}"));
        assert_eq!(relays(daemon), [0; 0], "nobody needs one");
        at.ok(&format!("run -d --name one -p [::1]::80 busybox {ECHO}"));
        at.ok(&format!("run -d --name two -p [::]::80 busybox {ECHO}"));
        let (first, second) = (published(&at, "one", "80"), published(&at, "two", "80"));
        let everywhere = SocketAddr::from((Ipv6Addr::LOCALHOST, second.port()));
        let pids = relays(daemon);
        assert_eq!(pids.len(), 1, "{pids:?}");
        let (mut stream, mut other) = (talk(first), talk(everywhere));
        daemon.kill9().unwrap();
        assert!(echoes(&mut stream, "alone") && echoes(&mut other, "alone"));
        drop(talk(first));
        daemon.restart().unwrap();
        assert!(echoes(&mut stream, "again"));
        assert_eq!(relays(daemon), pids, "the same one");
        let at = At { daemon, cli: Cli::Longshore };
        at.ok("rm -f one");
        assert!(is_closed(&mut stream));
        refused(first);
        assert!(echoes(&mut other, "still"));
        // One that somebody kills is replaced, and its successor serves all, also what comes later.
        assert!(relays(daemon) == pids && end_relay(pids[0]));
        assert!(is_closed(&mut other));
        drop(talk(everywhere));
        at.ok(&format!("run -d --name three -p [::1]::80 busybox {ECHO}"));
        drop((talk(published(&at, "three", "80")), talk(everywhere)));
        let successors = relays(daemon);
        assert!(successors.len() == 1 && successors != pids, "{successors:?}");
        // And again, beside a daemon that is being killed.
        daemon.kill9().unwrap();
        assert!(end_relay(successors[0]));
        daemon.restart().unwrap();
        drop(talk(everywhere));
        let at = At { daemon, cli: Cli::Longshore };
        at.ok("rm -f two three");
        until_relays(daemon, 0);
    });
}

/// Starts a container with a hundred ports from 80 on, and answers the first one of the machine's.
fn start_with_range(at: &At<'_>, name: &str) -> u16 {
    let seed = std::process::id() as u16;
    let bases = (0..100).map(|attempt| 10_000 + seed.wrapping_mul(100).wrapping_add(attempt * 300) % 20_000);
    let mut refused = String::new();
    for base in bases {
        let ports = format!("{base}-{}:80-179", base + 99);
        let servers = "nc -ll -p 130 -e cat & nc -ll -p 150 -e cat & nc -ll -p 80 -e cat";
        let started = at.line(&format!("run -d --name {name} -p {ports} busybox sh -c '{servers}'"));
        if started.code == 0 {
            return base;
        }
        refused = started.stderr;
        at.remove(name);
    }
    panic!("no range is free: {refused}");
}

#[test]
fn privileged_a_long_range_is_served_whoever_is_killed() {
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        let base = start_with_range(&at, "many");
        let [first, middle, later] = [0, 50, 70].map(|behind| SocketAddr::from((Ipv6Addr::LOCALHOST, base + behind)));
        let (mut stream, mut gone, mut stays) = (talk(first), talk(middle), talk(later));
        let pids = relays(daemon);
        assert_eq!(pids.len(), 1, "{pids:?}");
        daemon.kill9().unwrap();
        assert!(echoes(&mut stream, "alone") && echoes(&mut stays, "alone"));
        drop(talk(middle));
        daemon.restart().unwrap();
        assert_eq!(relays(daemon), pids, "the same one");
        let at = At { daemon, cli: Cli::Longshore };
        // A part of it goes, and comes back.
        at.ok("update --publish-rm 130 many");
        assert!(is_closed(&mut gone) && connect(middle).is_err());
        assert!(echoes(&mut stream, "before") && echoes(&mut stays, "behind"));
        at.ok(&format!("update --publish-add {}:130 many", base + 50));
        drop(talk(middle));
        assert!(echoes(&mut stream, "before") && echoes(&mut stays, "behind"));
        assert!(end_relay(pids[0]) && is_closed(&mut stream));
        drop((talk(first), talk(middle), talk(later)));
        let successors = relays(daemon);
        assert!(successors.len() == 1 && successors != pids, "{successors:?}");
        daemon.kill9().unwrap();
        assert!(end_relay(successors[0]));
        daemon.restart().unwrap();
        drop((talk(first), talk(middle)));
        let at = At { daemon, cli: Cli::Longshore };
        at.ok("rm -f many");
        until_relays(daemon, 0);
        refused(middle);
    });
}

#[test]
fn privileged_what_a_killed_daemon_published_is_served_until_its_container_is_gone() {
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        at.ok("run -d --name short -p [::1]::80 busybox sh -c 'trap exit TERM; sleep 1000 & wait'");
        let pid = at.inspect("short", "{{.State.Pid}}").parse().unwrap();
        assert_eq!(relays(daemon).len(), 1);
        daemon.kill9().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
        testkit::process::until("its end", ANSWER_WITHIN, || {
            (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
        })
        .unwrap();
        daemon.restart().unwrap();
        until_relays(daemon, 0);
    });
}

#[test]
fn privileged_containers_of_ipv4_alone_are_published_on_all_of_ipv6() {
    on_both(|at| {
        let name = at.name("everywhere");
        at.ok(&format!("run -d --name {name} -p 80 -p 81/udp -p 127.0.0.1::82 busybox {ECHO}"));
        let shown = at.ok(&format!("port {name} 80"));
        let number: u16 = shown.rsplit(':').next().unwrap().parse().unwrap();
        assert_eq!(shown, format!("0.0.0.0:{number}\n[::]:{number}"));
        let bindings = at.inspect(&name, "{{json (index .NetworkSettings.Ports \"80/tcp\")}}");
        let binding = |address: &str| format!("{{\"HostIp\":\"{address}\",\"HostPort\":\"{number}\"}}");
        assert_eq!(bindings, format!("[{},{}]", binding("0.0.0.0"), binding("::")));
        let listed = at.ok(&format!("ps --filter name={name} --format '{{{{.Ports}}}}'"));
        assert!(listed.starts_with(&format!("0.0.0.0:{number}->80/tcp, [::]:{number}->80/tcp, ")), "{listed}");
        assert_eq!(at.ok(&format!("port {name} 82")).lines().count(), 1, "one address was named");
        for address in [SocketAddr::from((Ipv6Addr::LOCALHOST, number)), ([127, 0, 0, 1], number).into()] {
            drop(talk(address));
        }
        let server = datagram_server(at, &name, 81);
        let port = at.ok(&format!("port {name} 81/udp"));
        let port: u16 = port.rsplit(':').next().unwrap().parse().unwrap();
        let client = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        client.connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        exchange_datagrams(&client, &server, ANSWER_WITHIN);
        at.remove(&name);
        refused((Ipv6Addr::LOCALHOST, number).into());
        // Who has the port on IPv6 alone is in the way, and that is told.
        let taken = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        let number = taken.local_addr().unwrap().port();
        let refused = at.line(&format!("run -d --name {name} -p {number}:80 busybox {ECHO}"));
        let sentence = format!("failed to bind host port for [::]:{number}:");
        assert!(refused.code == 125 && refused.stderr.contains(&sentence), "{}", refused.stderr);
        assert!(refused.stderr.contains(":80/tcp: address already in use"), "{}", refused.stderr);
        at.remove(&name);
    });
}

#[test]
fn privileged_without_a_userland_proxy_there_is_no_relay() {
    ours(|daemon| {
        daemon.scratch().write("daemon.json", r#"{"userland-proxy": false}"#).unwrap();
        daemon.restart().unwrap();
        let at = At { daemon, cli: Cli::Longshore };
        at.ok(&format!("run -d --name one -p 80 -p [::]::81 busybox {ECHO}"));
        assert_eq!(at.ok("port one 80").lines().count(), 1);
        let exposed = at.inspect("one", "{{json (index .NetworkSettings.Ports \"81/tcp\")}}");
        assert_eq!(exposed, "null", "no family of its own");
        assert_eq!(relays(daemon), [0; 0]);
    });
}
