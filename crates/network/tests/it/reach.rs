//! Who reaches what.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use network::{Config, DEFAULT, EndpointRequest, Networks, PortRequest, Protocol};

use crate::lab::*;

/// Whether frames on bridges pass the packet filter changes the way of packets that return to their bridge.
pub(crate) fn on_machines_with_and_without_bridge_filter(test: fn(Lab)) {
    for filter in ["0", "1"] {
        on_a_machine(move |lab| {
            let path = "/proc/sys/net/bridge/bridge-nf-call-iptables";
            if std::path::Path::new(path).exists() {
                std::fs::write(path, filter).unwrap();
            }
            test(lab);
        });
    }
}

#[test]
fn privileged_a_published_port_is_reached_from_everywhere() {
    on_machines_with_and_without_bridge_filter(|lab| {
        let networks = lab.networks();
        let one = networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
        let two = networks.join(&request("two", &[])).unwrap();
        let server = listen(&one, 80);
        let client = inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
        assert_eq!(client.ip(), NEIGHBOUR, "the server sees the client's address");
        for address in
            [HOME, Ipv4Addr::new(127, 0, 0, 9), MACHINE, one.place.endpoints[0].ipv4.unwrap().gateway.unwrap()]
        {
            reach(&server, address, 8080).unwrap_or_else(|err| panic!("from the machine to {address}: {err}"));
        }
        for (who, endpoint) in [("itself", &one), ("a neighbour", &two)] {
            for address in [MACHINE, one.place.endpoints[0].ipv4.unwrap().gateway.unwrap()] {
                inside(endpoint.namespace.as_fd(), || reach(&server, address, 8080))
                    .unwrap_or_else(|err| panic!("from {who} to {address}: {err}"));
            }
        }
        inside(two.namespace.as_fd(), || reach(&server, one.place.endpoints[0].ipv4.unwrap().address, 80)).unwrap();
        reach(&server, one.place.endpoints[0].ipv4.unwrap().address, 80).unwrap();
    });
}

#[test]
fn privileged_what_is_not_published_is_not_reached_from_the_link() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let ports = [publish(Some(HOME), 8081, 81), publish(None, 8080, 80)];
        let one = networks.join(&request("one", &ports)).unwrap();
        let (server, private) = (listen(&one, 80), listen(&one, 81));
        reach(&private, HOME, 8081).unwrap();
        setting("conf/up0/route_localnet", "1");
        let reached: Vec<_> = inside(lab.second.as_fd(), || {
            // A host that sends to 127.0.0.1 over the link: it has no loopback interface in the way.
            run(&["ip", "route", "add", "127.0.0.0/8", "via", "10.9.0.1"]);
            setting("conf/eth0/route_localnet", "1");
            let tried = [
                (one.place.endpoints[0].ipv4.unwrap().address, 80),
                (one.place.endpoints[0].ipv4.unwrap().address, 81),
                (MACHINE, 8081),
                (HOME, 8081),
                (HOME, 8080),
            ];
            tried.into_iter().filter(|(address, port)| !is_unreachable(*address, *port)).collect()
        });
        assert!(reached.is_empty(), "{reached:?}");
        // What is published still is, so the lab does connect.
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
    });
}

/// Another program's translation makes a connection look like one to a published port, which may be forwarded.
#[test]
fn privileged_what_comes_from_the_link_to_a_container_is_dropped_before_anybody_translates_it() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let one = networks.join(&request("one", &[])).unwrap();
        let server = listen(&one, 80);
        run(&["nft", "add table ip theirs; add chain ip theirs c { type nat hook prerouting priority -100; }"]);
        run(&[
            "nft",
            &format!(
                "add rule ip theirs c tcp dport {{ 79, 81 }} dnat to {}:80",
                one.place.endpoints[0].ipv4.unwrap().address
            ),
        ]);
        assert!(inside(lab.second.as_fd(), || is_unreachable(one.place.endpoints[0].ipv4.unwrap().address, 81)));
        // To the machine's own address the translation works, so it would have there.
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 79)).unwrap();
    });
}

#[test]
fn privileged_a_container_does_not_reach_the_machines_loopback() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let one = networks.join(&request("one", &[])).unwrap();
        let secret = TcpListener::bind((HOME, 9999)).unwrap();
        let reached = inside(one.namespace.as_fd(), || {
            setting("conf/eth0/route_localnet", "1");
            run(&["ip", "addr", "del", "127.0.0.1/8", "dev", "lo"]);
            run(&["ip", "route", "add", "127.0.0.1/32", "via", "172.17.0.1"]);
            !is_unreachable(HOME, 9999)
        });
        assert!(!reached);
        reach(&secret, HOME, 9999).unwrap();
    });
}

#[test]
fn privileged_containers_leave_with_the_machines_address() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let one = networks.join(&request("one", &[])).unwrap();
        let outside = inside(lab.second.as_fd(), || TcpListener::bind((NEIGHBOUR, 7)).unwrap());
        let client = inside(one.namespace.as_fd(), || reach(&outside, NEIGHBOUR, 7)).unwrap();
        assert_eq!(client.ip(), MACHINE);
    });
}

#[test]
fn privileged_forwarding_for_others_stays_off_where_it_was() {
    for (before, reached) in [("0", false), ("1", true)] {
        on_a_machine(move |lab| {
            setting("ip_forward", before);
            let networks = lab.networks();
            let one = networks.join(&request("one", &[])).unwrap();
            let third = Ipv4Addr::new(10, 8, 0, 2);
            let behind = host_behind("other", Ipv4Addr::new(10, 8, 0, 1), third);
            let far = inside(behind.as_fd(), || TcpListener::bind((third, 80)).unwrap());
            inside(lab.second.as_fd(), || match reached {
                true => assert_eq!(reach(&far, third, 80).unwrap().ip(), NEIGHBOUR),
                false => assert!(is_unreachable(third, 80)),
            });
            // The container reaches both either way.
            inside(one.namespace.as_fd(), || reach(&far, third, 80)).unwrap();
        });
    }
}

#[test]
fn privileged_a_machine_that_we_made_a_router_stays_guarded_behind_us() {
    on_a_machine(|lab| {
        setting("ip_forward", "0");
        let third = Ipv4Addr::new(10, 8, 0, 2);
        let behind = host_behind("other", Ipv4Addr::new(10, 8, 0, 1), third);
        let far = inside(behind.as_fd(), || TcpListener::bind((third, 80)).unwrap());
        let is_guarded = || inside(lab.second.as_fd(), || is_unreachable(third, 80));
        let in_and_out = |networks: &Networks| {
            let one = networks.join(&request("one", &[])).unwrap();
            inside(one.namespace.as_fd(), || reach(&far, third, 80)).unwrap();
            assert!(is_guarded());
            networks.leave("one").unwrap();
        };
        let networks = lab.networks();
        in_and_out(&networks);
        networks.close().unwrap();
        wait_until_links(0);
        assert!(is_guarded(), "behind the daemon");
        // Of all the rest nothing is left.
        assert_eq!(chains_left("ip"), ["arrive", "guard", "unmark"]);
        assert_eq!(run(&["nft", "list", "tables"]), "table ip longshore-0123abcd\n");
        assert!(!lab.directory.path().join("network/bridge.json").exists());
        // The record outlives a flush while nobody is there, the table the loss of the record.
        run(&["nft", "flush", "ruleset"]);
        inside(lab.second.as_fd(), || reach(&far, third, 80)).unwrap();
        let networks = lab.networks();
        assert!(is_guarded(), "the next daemon, of which nobody wants anything");
        assert!(!run(&["ip", "-o", "link"]).contains("ls0123abcd"));
        networks.close().unwrap();
        assert!(is_guarded());
        std::fs::write(lab.directory.path().join("network/forwarding.json"), "{").unwrap();
        let networks = lab.networks();
        in_and_out(&networks);
        networks.close().unwrap();
        assert!(is_guarded());
        in_and_out(&lab.networks());
    });
}

#[test]
fn privileged_without_icc_containers_are_strangers() {
    on_machines_with_and_without_bridge_filter(|lab| {
        let networks = Networks::open(Config { icc: false, ..lab.config() }).unwrap();
        let one = networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
        let two = networks.join(&request("two", &[])).unwrap();
        let server = listen(&one, 80);
        assert!(inside(two.namespace.as_fd(), || is_unreachable(one.place.endpoints[0].ipv4.unwrap().address, 80)));
        reach(&server, HOME, 8080).unwrap();
        inside(two.namespace.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
    });
}

#[test]
fn privileged_address_and_port_are_free_when_leave_returns() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let witness = networks.join(&request("witness", &[])).unwrap();
        let mut last = None;
        for round in 0..40 {
            let container = format!("c{round}");
            let endpoint = networks.join(&request(&container, &[publish(None, 8080, 80)])).unwrap();
            assert_eq!(endpoint.place.endpoints[0].ipv4.unwrap().address, Ipv4Addr::new(172, 17, 0, 3));
            let server = listen(&endpoint, 80);
            // The last one's namespace still lives here, with the same address.
            reach(&server, HOME, 8080).unwrap_or_else(|err| panic!("round {round}, from the machine: {err}"));
            inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
            inside(witness.namespace.as_fd(), || reach(&server, endpoint.place.endpoints[0].ipv4.unwrap().address, 80))
                .unwrap_or_else(|err| panic!("round {round}, from a neighbour: {err}"));
            networks.leave(&container).unwrap();
            last = Some((endpoint, server));
        }
        drop(last);
    });
}

#[test]
fn privileged_a_udp_port_gets_the_packets_of_its_owner_only() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let port = PortRequest { protocol: Protocol::Udp, ..publish(None, 5353, 53) };
        let client = inside(lab.second.as_fd(), || UdpSocket::bind((NEIGHBOUR, 4000)).unwrap());
        let mut old = Vec::new();
        // One sender, which does not notice that the container behind the port changes.
        for round in 0..4 {
            let container = format!("c{round}");
            let address = Some(Ipv4Addr::new(172, 17, 0, 10 + round));
            let wanted = EndpointRequest { ipv4: address, ..EndpointRequest::on(DEFAULT) };
            let wish = request_on(&container, &[port], vec![wanted]);
            let endpoint = networks.join(&wish).unwrap();
            let server = bind_udp(&endpoint, 53);
            client.send_to(&[round], (MACHINE, 5353)).unwrap();
            let mut byte = [99];
            let (_, sender) = server.recv_from(&mut byte).unwrap();
            assert_eq!((byte, sender.ip()), ([round], NEIGHBOUR.into()));
            networks.leave(&container).unwrap();
            old.push((endpoint, server));
        }
    });
}

#[test]
fn privileged_a_flushed_packet_filter_comes_back() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let one = networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
        let server = listen(&one, 80);
        run(&["nft", "flush", "ruleset"]);
        let _two = networks.join(&request("two", &[publish(None, 8081, 80)])).unwrap();
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
        run(&["nft", "flush", "ruleset"]);
        networks.leave("two").unwrap();
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
        assert!(inside(lab.second.as_fd(), || is_unreachable(MACHINE, 8081)));
    });
}

/// Where packets of 127.0.0.0/8 may pass.
fn loopback_is_routed_on() -> Vec<String> {
    let names = std::fs::read_dir("/proc/sys/net/ipv4/conf").unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let is_routed = |name: &String| {
        let value = std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/route_localnet")).unwrap();
        value.trim() == "1"
    };
    names.filter(is_routed).collect()
}

#[test]
fn privileged_loopback_is_routed_on_our_bridge_alone_and_never_without_its_guard() {
    on_a_machine(|lab| {
        setting("ip_forward", "0");
        // A table of our name that another program owns: ours, with the guard, cannot be written.
        let mut owner = Command::new("nft").arg("-i").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        writeln!(owner.stdin.as_mut().unwrap(), "add table ip longshore-0123abcd {{ flags owner; }}").unwrap();
        // It answers the next line when it has done the first.
        let mut answers = BufReader::new(owner.stdout.take().unwrap()).lines();
        writeln!(owner.stdin.as_mut().unwrap(), "list tables").unwrap();
        answers.find(|line| line.as_ref().unwrap().contains("longshore-0123abcd")).unwrap().unwrap();
        let networks = Networks::open(lab.config()).unwrap();
        assert!(networks.join(&request("one", &[])).is_err());
        assert_eq!(loopback_is_routed_on(), [""; 0]);
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), "0\n");
        drop(owner.stdin.take());
        owner.wait().unwrap();
        networks.join(&request("one", &[])).unwrap();
        assert_eq!(loopback_is_routed_on(), ["ls0123abcd"]);
        let guard = run(&["nft", "list", "chain", "ip", "longshore-0123abcd", "raw"]);
        assert!(guard.contains("127.0.0.0/8"), "{guard}");
    });
}
