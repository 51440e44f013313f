//! Ranges of ports, in a network namespace of the test's own.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;

use relay::{AskError, Client, Rule, Source};
use rustix::thread::UnshareFlags;

use super::{DEADLINE, is_closed, rule, start};

const ELSEWHERE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7);

/// Runs in a thread with a network namespace of its own, which has an address beside ::1.
fn apart(test: impl FnOnce() + Send) {
    if testkit::skip::without_root() {
        return;
    }
    let test = || {
        sys::namespace::unshare(UnshareFlags::NEWNET).unwrap();
        sys::network::loopback_up().unwrap();
        let added =
            Command::new("ip").args(["addr", "add", &format!("{ELSEWHERE}/128"), "dev", "lo", "nodad"]).status();
        assert!(added.unwrap().success());
        test();
    };
    std::thread::scope(|scope| scope.spawn(test).join().unwrap());
}

/// A container's servers at the ports from 8000 on, of which a range leads there.
fn servers() -> Vec<TcpListener> {
    (8000..8100).map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap()).collect()
}

fn any(port: u16) -> TcpListener {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap()
}

/// What leads from these to as many ports from 8000 + `behind` on.
fn range(first: u16, last: u16, behind: u16) -> Rule {
    let target = (Ipv4Addr::LOCALHOST, 8000 + behind).into();
    Rule { range: Some((first, last)), ..rule(&format!("{first}-{last}"), target) }
}

fn connect(address: impl Into<IpAddr>, port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&(address.into(), port).into(), DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// Both ends of a connection to a port of [::1], which is to lead to a server.
fn led(port: u16, server: &TcpListener) -> (TcpStream, TcpStream) {
    let client = connect(Ipv6Addr::LOCALHOST, port).unwrap();
    let served = server.accept().unwrap().0;
    served.set_read_timeout(Some(DEADLINE)).unwrap();
    (client, served)
}

fn goes_on((client, served): &mut (TcpStream, TcpStream)) {
    client.write_all(b"x").unwrap();
    served.read_exact(&mut [0; 1]).unwrap();
}

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

fn of(id: &str) -> Source<'static> {
    Source::Heir(id.to_owned())
}

#[test]
fn privileged_a_range_is_served_by_one_socket() {
    apart(|| {
        let dir = tempfile::tempdir().unwrap();
        let (mut daemon, relay) = start(dir.path());
        assert!(daemon.steers().unwrap());
        let (servers, socket, wanted) = (servers(), any(20_000), range(20_000, 20_099, 0));
        daemon.put(&wanted, Some(socket.as_fd())).unwrap();
        drop(socket);
        for (address, port) in [(Ipv6Addr::LOCALHOST, 20_000), (ELSEWHERE, 20_050), (Ipv6Addr::LOCALHOST, 20_099)] {
            let _client = connect(address, port).unwrap();
            servers[usize::from(port - 20_000)].accept().unwrap();
        }
        connect(Ipv6Addr::LOCALHOST, 20_100).unwrap_err();
        // A later daemon is told of it, and what it puts again keeps its socket.
        drop(daemon);
        let mut daemon = Client::find(dir.path()).unwrap().unwrap();
        assert_eq!(daemon.list().unwrap(), std::slice::from_ref(&wanted));
        let elsewhere = Rule { target: range(0, 0, 1).target, range: Some((20_000, 20_098)), ..wanted };
        let mut before = led(20_050, &servers[50]);
        daemon.put(&elsewhere, None).unwrap();
        assert!(is_closed(&mut before.0), "it leads elsewhere");
        goes_on(&mut led(20_050, &servers[51]));
        connect(Ipv6Addr::LOCALHOST, 20_099).unwrap_err();
        assert!(daemon.remove(&elsewhere.id).unwrap());
        relay.join().unwrap().unwrap();
        connect(Ipv6Addr::LOCALHOST, 20_050).unwrap_err();
        any(20_000);
    });
}

#[test]
fn privileged_what_stays_of_a_range_is_served_at_every_moment() {
    apart(|| {
        let dir = tempfile::tempdir().unwrap();
        let (mut daemon, relay) = start(dir.path());
        assert!(daemon.steers().unwrap());
        let servers = servers();
        let (first, second) = (any(20_000), any(20_051));
        daemon.put(&range(20_000, 20_099, 0), Some(first.as_fd())).unwrap();
        drop(first);
        let mut links: Vec<_> = [0, 50, 51, 99].map(|at| led(20_000 + at, &servers[usize::from(at)])).into();
        // The part before the gap keeps the socket, the one behind it has one of its own.
        let parts = [
            (range(20_000, 20_049, 0), of("20000-20099")),
            (range(20_051, 20_099, 51), Source::Socket(second.as_fd())),
        ];
        daemon.replace(&ids(&["20000-20099"]), &parts).unwrap();
        drop(second);
        assert!(is_closed(&mut links[1].0), "its port is published no longer");
        links.remove(1);
        links.iter_mut().for_each(goes_on);
        connect(Ipv6Addr::LOCALHOST, 20_050).unwrap_err();
        goes_on(&mut led(20_049, &servers[49]));
        goes_on(&mut led(20_051, &servers[51]));
        // And it is one again, and after that single ports beside a range.
        let single = |port: u16| rule(&port.to_string(), (Ipv4Addr::LOCALHOST, port - 12_000).into());
        daemon
            .replace(&ids(&["20000-20049", "20051-20099"]), &[(range(20_000, 20_099, 0), of("20000-20049"))])
            .unwrap();
        let last = any(20_099);
        let parts = [(single(20_099), Source::Socket(last.as_fd())), (range(20_000, 20_098, 0), of("20000-20099"))];
        daemon.replace(&ids(&["20000-20099"]), &parts).unwrap();
        drop(last);
        links.iter_mut().for_each(goes_on);
        goes_on(&mut led(20_099, &servers[99]));
        daemon.replace(&ids(&["20000-20098", "20099"]), &[(range(20_000, 20_099, 0), of("20000-20098"))]).unwrap();
        links.iter_mut().for_each(goes_on);
        assert_eq!(daemon.list().unwrap().len(), 1);
        // Into more pieces than a message has room for, and back.
        let sockets: Vec<_> = (20_001..20_100).map(any).collect();
        let pieces =
            (20_001..20_100).zip(&sockets).map(|(port, socket)| (single(port), Source::Socket(socket.as_fd())));
        let pieces: Vec<_> = std::iter::once((single(20_000), of("20000-20099"))).chain(pieces).collect();
        daemon.replace(&ids(&["20000-20099"]), &pieces).unwrap();
        drop(pieces);
        drop(sockets);
        links.iter_mut().for_each(goes_on);
        goes_on(&mut led(20_099, &servers[99]));
        let singles: Vec<_> = (20_000..20_100).map(|port| port.to_string()).collect();
        daemon.replace(&singles, &[(range(20_000, 20_099, 0), of("20000"))]).unwrap();
        links.iter_mut().for_each(goes_on);
        assert!(daemon.remove("20000-20099").unwrap());
        assert!(is_closed(&mut links[0].0));
        relay.join().unwrap().unwrap();
    });
}

#[test]
fn privileged_ranges_that_make_no_sense_are_refused() {
    apart(|| {
        let dir = tempfile::tempdir().unwrap();
        let (mut daemon, relay) = start(dir.path());
        let (_servers, socket) = (servers(), any(20_000));
        let kept = range(20_000, 20_099, 0);
        daemon.put(&kept, Some(socket.as_fd())).unwrap();
        let ipv4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let file = tempfile::tempfile().unwrap();
        let wide = Rule { target: (Ipv4Addr::LOCALHOST, 65_500).into(), ..range(30_000, 30_099, 0) };
        for (rule, socket) in [
            (range(20_200, 20_199, 0), Some(socket.as_fd())),
            (range(20_200, 20_200, 0), Some(socket.as_fd())),
            (range(0, 10, 0), Some(socket.as_fd())),
            (range(20_099, 20_199, 0), Some(socket.as_fd())),
            (range(19_900, 65_535, 0), Some(socket.as_fd())),
            (Rule { udp: true, ..range(20_200, 20_299, 0) }, Some(socket.as_fd())),
            (wide, Some(socket.as_fd())),
            (range(20_200, 20_299, 0), None),
            (range(20_200, 20_299, 0), Some(ipv4.as_fd())),
            (range(20_200, 20_299, 0), Some(file.as_fd())),
        ] {
            let refused = daemon.put(&rule, socket);
            assert!(matches!(refused, Err(AskError::Refused(_))), "{rule:?}: {refused:?}");
        }
        let both = [range(20_200, 20_299, 0), range(20_250, 20_399, 0)];
        let twice = both.map(|rule| (rule, Source::Socket(socket.as_fd())));
        assert!(matches!(daemon.replace(&[], &twice), Err(AskError::Refused(_))));
        // Nor is a socket inherited of one that stays.
        let heir = [(range(20_200, 20_299, 0), of(&kept.id))];
        assert!(matches!(daemon.replace(&[], &heir), Err(AskError::Refused(_))));
        assert_eq!(daemon.list().unwrap(), std::slice::from_ref(&kept));
        drop(connect(Ipv6Addr::LOCALHOST, 20_099).unwrap());
        assert!(daemon.remove(&kept.id).unwrap());
        relay.join().unwrap().unwrap();
    });
}

#[test]
fn privileged_a_relay_that_may_not_steer_says_so() {
    apart(|| {
        let dir = tempfile::tempdir().unwrap();
        sys::capability::set(Default::default(), Default::default(), Default::default()).unwrap();
        let (mut daemon, relay) = start(dir.path());
        assert!(!daemon.steers().unwrap());
        let refused = daemon.put(&range(20_000, 20_099, 0), Some(any(20_000).as_fd())).unwrap_err();
        assert!(matches!(&refused, AskError::Refused(reason) if reason.contains("not permitted")), "{refused}");
        drop(daemon);
        relay.join().unwrap().unwrap();
    });
}
