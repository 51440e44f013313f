//! Networks whose containers have their own addresses for everybody, and networks that this machine is not on.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;

use network::{EndpointRequest, Joined, PortRequest, Protocol, UserNetworkRequest};

use crate::ipv6::{FORWARDING_6, MACHINE_6, NEIGHBOUR_6, on, on_a_machine_of_both, wish};
use crate::lab::*;

fn modes(ipv4: &str, ipv6: &str) -> BTreeMap<String, String> {
    let option =
        |family: &str, mode: &str| (format!("com.docker.network.bridge.gateway_mode_{family}"), mode.to_owned());
    [option("ipv4", ipv4), option("ipv6", ipv6)].into()
}

fn routed(name: &str, subnet: &str, of_ipv6: &str) -> UserNetworkRequest {
    UserNetworkRequest { options: modes("routed", "routed"), ..wish(name, subnet, of_ipv6) }
}

fn addresses(joined: &Joined) -> [IpAddr; 2] {
    let endpoint = &joined.place.endpoints[0];
    [endpoint.ipv4.unwrap().address.into(), endpoint.ipv6.unwrap().address.into()]
}

fn shown(place: &network::Place) -> Vec<String> {
    place.ports.iter().map(|one| format!("{} {} {}", one.host_address, one.host_port, one.container_port)).collect()
}

/// Asks an address of the calling thread's network for an echo.
fn answers_echo(address: IpAddr) -> bool {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recv, sendto, sockopt};
    // Type, code, checksum, number: the kernel computes the checksum of ICMPv6, and leaves the IP header of the other one.
    let (family, protocol, question, answer, header) = match address {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, [8, 0, 0xf7, 0xff, 0, 0, 0, 0], 0, 20),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, [128, 0, 0, 0, 0, 0, 0, 0], 129, 0),
    };
    let socket = rustix::net::socket(family, SocketType::RAW, Some(protocol)).unwrap();
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(DEADLINE)).unwrap();
    sendto(&socket, &question, SendFlags::empty(), &std::net::SocketAddr::new(address, 0)).unwrap();
    let mut packet = [0; 1500];
    // What else comes, neighbours' questions for one, is passed over.
    while let Ok((length, _)) = recv(&socket, &mut packet, RecvFlags::empty()) {
        if length > header && packet[header] == answer {
            return true;
        }
    }
    false
}

/// The second host knows the way to the networks of the containers: the machine.
fn route_to(lab: &Lab, subnets: &[&str]) {
    inside(lab.second.as_fd(), || {
        for subnet in subnets {
            let via = if subnet.contains(':') { MACHINE_6.to_string() } else { MACHINE.to_string() };
            run(&["ip", "route", "replace", subnet, "via", &via]);
        }
    });
}

#[test]
fn privileged_published_ports_of_a_routed_network_are_open_at_the_containers_addresses() {
    on_a_machine_of_both(|lab| {
        let networks = lab.networks();
        route_to(&lab, &["10.7.0.0/24", "fd07::/64"]);
        let network = networks.create(routed("r", "10.7.0.0/24", "fd07::/64")).unwrap();
        let other = networks.create(wish("o", "10.8.0.0/24", "fd08::/64")).unwrap();
        let inner = UserNetworkRequest { internal: true, ..wish("i", "10.6.0.0/24", "fd06::/64") };
        let inner = networks.create(inner).unwrap();
        let ports = [publish(None, 8080, 80), publish(None, 0, 82), publish(Some(HOME), 8083, 83)];
        let one = networks.join(&request_on("one", &ports, on(&[&network.id]))).unwrap();
        let all = ["0.0.0.0 0 80", ":: 0 80", "0.0.0.0 0 83", "0.0.0.0 0 82", ":: 0 82"];
        assert_eq!(shown(&one.place), all, "no port of the host");
        assert!(one.holds.is_empty());
        drop(std::net::TcpListener::bind((MACHINE, 8080)).unwrap());
        let targets = addresses(&one);
        let servers = [listen(&one, 80), listen_on_ipv6(&one, 80)];
        let shut = [listen(&one, 81), listen_on_ipv6(&one, 81)];
        let neighbour = networks.join(&request_on("two", &[], on(&[&network.id]))).unwrap();
        let stranger = networks.join(&request_on("three", &[], on(&[&other.id]))).unwrap();
        let prisoner = networks.join(&request_on("four", &[], on(&[&inner.id]))).unwrap();
        for at in 0..2 {
            let seen = inside(lab.second.as_fd(), || reach(&servers[at], targets[at], 80)).unwrap();
            assert_eq!(seen.ip(), [IpAddr::from(NEIGHBOUR), NEIGHBOUR_6.into()][at], "the client is seen");
            inside(stranger.namespace.as_fd(), || reach(&servers[at], targets[at], 80)).unwrap();
            for (port, server) in [(80, &servers[at]), (81, &shut[at])] {
                reach(server, targets[at], port).unwrap();
                inside(neighbour.namespace.as_fd(), || reach(server, targets[at], port)).unwrap();
            }
            for namespace in [lab.second.as_fd(), stranger.namespace.as_fd()] {
                assert!(inside(namespace, || is_unreachable(targets[at], 81)), "{at}: it is not published");
                assert!(inside(namespace, || answers_echo(targets[at])), "{at}");
            }
            assert!(inside(prisoner.namespace.as_fd(), || is_unreachable(targets[at], 80)), "{at}: internal");
            // The port of the host is nobody's.
            assert!(inside(lab.second.as_fd(), || is_unreachable([IpAddr::from(MACHINE), MACHINE_6.into()][at], 8080)));
        }
        // Outside a container has its own address, and others are as far as ever.
        let theirs = [addresses(&stranger)[0], addresses(&stranger)[1]];
        let strange = [listen(&stranger, 80), listen_on_ipv6(&stranger, 80)];
        for (at, address) in [IpAddr::from(NEIGHBOUR), NEIGHBOUR_6.into()].into_iter().enumerate() {
            let outside = inside(lab.second.as_fd(), || std::net::TcpListener::bind((address, 7)).unwrap());
            let client = inside(one.namespace.as_fd(), || reach(&outside, address, 7)).unwrap();
            assert_eq!(client.ip(), targets[at], "no masquerading");
            assert!(inside(one.namespace.as_fd(), || is_unreachable(theirs[at], 80)));
            reach(&strange[at], theirs[at], 80).unwrap();
        }
        // Who has the address next has it to himself.
        networks.leave("one").unwrap();
        drop((one, servers, shut));
        let wanted = EndpointRequest {
            ipv4: "10.7.0.2".parse().ok(),
            ipv6: "fd07::2".parse().ok(),
            ..EndpointRequest::on(&network.id)
        };
        let next = networks.join(&request_on("five", &[], vec![wanted])).unwrap();
        let _servers = [listen(&next, 80), listen_on_ipv6(&next, 80)];
        for target in addresses(&next) {
            assert!(inside(lab.second.as_fd(), || is_unreachable(target, 80)));
        }
    });
}

#[test]
fn privileged_families_have_modes_of_their_own() {
    on_a_machine_of_both(|lab| {
        let networks = lab.networks();
        route_to(&lab, &["10.7.0.0/24", "fd07::/64"]);
        let network = UserNetworkRequest { options: modes("nat", "routed"), ..wish("r", "10.7.0.0/24", "fd07::/64") };
        let network = networks.create(network).unwrap();
        let one = networks.join(&request_on("one", &[publish(None, 8080, 80)], on(&[&network.id]))).unwrap();
        assert_eq!(shown(&one.place), ["0.0.0.0 8080 80", ":: 0 80"]);
        let [ipv4, ipv6] = addresses(&one);
        let servers = [listen(&one, 80), listen_on_ipv6(&one, 80)];
        let from_outside = |server, address: IpAddr, port| inside(lab.second.as_fd(), || reach(server, address, port));
        from_outside(&servers[0], MACHINE.into(), 8080).unwrap();
        from_outside(&servers[1], ipv6, 80).unwrap();
        assert!(inside(lab.second.as_fd(), || is_unreachable(ipv4, 80)));
        assert!(inside(lab.second.as_fd(), || is_unreachable(MACHINE_6, 8080)));
    });
}

#[test]
fn privileged_datagrams_to_a_routed_address_are_those_of_its_owner_only() {
    on_a_machine_of_both(|lab| {
        let networks = lab.networks();
        route_to(&lab, &["10.7.0.0/24"]);
        let network = networks.create(routed("r", "10.7.0.0/24", "fd07::/64")).unwrap();
        let port = PortRequest { protocol: Protocol::Udp, ..publish(None, 0, 53) };
        let client = inside(lab.second.as_fd(), || UdpSocket::bind((NEIGHBOUR, 4000)).unwrap());
        let wanted = || vec![EndpointRequest { ipv4: "10.7.0.9".parse().ok(), ..EndpointRequest::on(&network.id) }];
        let target = (Ipv4Addr::new(10, 7, 0, 9), 53);
        let one = networks.join(&request_on("one", &[port], wanted())).unwrap();
        let server = bind_udp(&one, 53);
        client.send_to(b"one", target).unwrap();
        let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
        // An answer, so that the kernel takes it for a connection.
        server.send_to(b"heard", from).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client.recv_from(&mut [0; 8]).unwrap();
        networks.leave("one").unwrap();
        drop((one, server));
        // The next one has published nothing: what the client goes on sending is not for it.
        let two = networks.join(&request_on("two", &[], wanted())).unwrap();
        let server = bind_udp(&two, 53);
        client.send_to(b"two", target).unwrap();
        inside(lab.second.as_fd(), || assert!(answers_echo(target.0.into()), "packets arrive"));
        server.set_nonblocking(true).unwrap();
        server.recv_from(&mut [0; 8]).unwrap_err();
    });
}

#[test]
fn privileged_ports_follow_a_container_between_modes() {
    on_a_machine_of_both(|lab| {
        let networks = lab.networks();
        route_to(&lab, &["10.7.0.0/24", "fd07::/64"]);
        // The first name leads.
        let network = networks.create(routed("r", "10.7.0.0/24", "fd07::/64")).unwrap();
        let plain = networks.create(wish("a", "10.8.0.0/24", "fd08::/64")).unwrap();
        let ports = [publish(None, 8080, 80), publish(Some(HOME), 8081, 80)];
        let one = networks.join(&request_on("one", &ports, on(&[&network.id]))).unwrap();
        let here = one.namespace.as_fd();
        let server = listen(&one, 80);
        // What comes later is behind what was there, IPv4 first.
        let open = ["0.0.0.0 0 80", "0.0.0.0 0 80", ":: 0 80"];
        let published = ["0.0.0.0 8080 80", "127.0.0.1 8081 80", ":: 8080 80"];
        let target = Ipv4Addr::new(10, 7, 0, 2);
        assert_eq!(shown(&one.place), ["0.0.0.0 0 80", ":: 0 80", "0.0.0.0 0 80"]);
        let place = networks.connect(&request_on("one", &ports, on(&[&plain.id])), here).unwrap();
        assert_eq!(shown(&place), published);
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
        assert!(inside(lab.second.as_fd(), || is_unreachable(target, 80)));
        let place = networks.disconnect("one", &plain.id, Some(here)).unwrap().unwrap();
        assert_eq!(shown(&place), open);
        inside(lab.second.as_fd(), || reach(&server, target, 80)).unwrap();
        drop(std::net::TcpListener::bind((MACHINE, 8080)).unwrap());
        networks.connect(&request_on("one", &ports, on(&[&plain.id])), here).unwrap();
        let place = networks.disconnect("one", &network.id, Some(here)).unwrap().unwrap();
        assert_eq!(shown(&place), published);
        networks.connect(&request_on("one", &ports, on(&[&network.id])), here).unwrap();
        // The successor of a daemon that is killed knows as much.
        kill(networks, 2);
        let networks = lab.networks_with(&["one"]);
        let place = networks.disconnect("one", &plain.id, Some(here)).unwrap().unwrap();
        assert_eq!(shown(&place), open);
        let target = place.endpoints[0].ipv4.unwrap().address;
        inside(lab.second.as_fd(), || reach(&server, target, 80)).unwrap();
    });
}

#[test]
fn privileged_open_ports_outlive_the_daemon_and_leave_nothing() {
    on_a_machine_of_both(|lab| {
        std::fs::write(FORWARDING_6, "1").unwrap();
        let networks = lab.networks();
        route_to(&lab, &["10.7.0.0/24", "fd07::/64"]);
        let network = networks.create(routed("r", "10.7.0.0/24", "fd07::/64")).unwrap();
        let ports = [publish(None, 8080, 80), publish(None, 8081, 80)];
        let one = networks.join(&request_on("one", &ports, on(&[&network.id]))).unwrap();
        let two = networks.join(&request_on("two", &ports, on(&[&network.id]))).unwrap();
        let (target, gone) = (addresses(&one)[1], addresses(&two)[1]);
        let (server, _other) = (listen_on_ipv6(&one, 80), listen_on_ipv6(&two, 80));
        kill(networks, 2);
        run(&["nft", "flush", "ruleset"]);
        let networks = lab.networks_with(&["one"]);
        inside(lab.second.as_fd(), || reach(&server, target, 80)).unwrap();
        assert!(inside(lab.second.as_fd(), || is_unreachable(gone, 80)));
        assert_eq!(networks.place("one").unwrap(), one.place);
        networks.leave("one").unwrap();
        assert!(!run(&["nft", "list", "ruleset"]).contains("elements"));
        networks.remove(&network.id).unwrap();
        drop((one, two, server, _other));
        networks.close().unwrap();
        wait_until_links(0);
        assert!(!run(&["nft", "list", "tables"]).contains("longshore"));
    });
}

#[test]
fn privileged_where_a_firewall_drops_open_ports_pass_it() {
    on_a_machine_of_both(|lab| {
        run(&["nft", "add table ip filter"]);
        run(&["nft", "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }"]);
        let networks = lab.networks();
        route_to(&lab, &["10.7.0.0/24"]);
        let network = networks.create(routed("r", "10.7.0.0/24", "fd07::/64")).unwrap();
        let one = networks.join(&request_on("one", &[publish(None, 8080, 80)], on(&[&network.id]))).unwrap();
        let server = listen(&one, 80);
        inside(lab.second.as_fd(), || reach(&server, addresses(&one)[0], 80)).unwrap();
    });
}

#[test]
fn privileged_this_machine_is_not_on_an_isolated_network() {
    on_a_machine_of_both(|lab| {
        let networks = lab.networks();
        let isolated = |name: &str, internal: bool| UserNetworkRequest {
            internal,
            options: modes("isolated", "isolated"),
            ..wish(name, "10.7.0.0/24", "fd07::/64")
        };
        let refused = networks.create(isolated("i", false)).unwrap_err();
        assert_eq!(refused.to_string(), "gateway mode 'isolated' can only be used for an internal network");
        assert_eq!(refused.kind(), errdefs::ErrorKind::Internal, "dockerd answers 500");
        let network = networks.create(isolated("i", true)).unwrap();
        assert!(network.ranges().all(|range| range.gateway.is_none()));
        let bridge = &network.driver.bridge().unwrap().bridge;
        assert!(!run(&["ip", "addr", "show", "dev", bridge]).contains("inet"));
        let one = networks.join(&request_on("one", &[publish(None, 8080, 80)], on(&[&network.id]))).unwrap();
        let two = networks.join(&request_on("two", &[], on(&[&network.id]))).unwrap();
        assert_eq!(addresses(&one), [IpAddr::from([10, 7, 0, 1]), "fd07::1".parse().unwrap()], "there is no gateway");
        assert_eq!(shown(&one.place), [""; 0]);
        let servers = [listen(&one, 80), listen_on_ipv6(&one, 80)];
        for (server, target) in servers.iter().zip(addresses(&one)) {
            inside(two.namespace.as_fd(), || reach(server, target, 80)).unwrap();
            assert!(is_unreachable(target, 80), "{target}");
        }
        // Nor does who knows the way reach it, not even with what needs no answer.
        let here = [IpAddr::from(MACHINE), MACHINE_6.into()].map(|address| (address, 53));
        let heard = here.map(|address| UdpSocket::bind(address).unwrap());
        let mac = std::fs::read_to_string(format!("/sys/class/net/{bridge}/address"));
        let mac = mac.unwrap_or_else(|_| {
            let link = run(&["ip", "-o", "link", "show", bridge]);
            link.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap().to_owned()
        });
        inside(two.namespace.as_fd(), || {
            for (family, address) in [("-4", MACHINE.to_string()), ("-6", MACHINE_6.to_string())] {
                run(&["ip", family, "route", "add", &address, "dev", "eth0"]);
                run(&["ip", family, "neigh", "replace", &address, "lladdr", mac.trim(), "dev", "eth0"]);
            }
            let sockets = ["0.0.0.0:0", "[::]:0"].map(|any| UdpSocket::bind(any).unwrap());
            for (socket, address) in sockets.iter().zip(here) {
                socket.send_to(b"inside", address).unwrap();
            }
        });
        inside(lab.second.as_fd(), || {
            let sockets = ["0.0.0.0:0", "[::]:0"].map(|any| UdpSocket::bind(any).unwrap());
            for (socket, address) in sockets.iter().zip(here) {
                socket.send_to(b"outside", address).unwrap();
            }
        });
        for socket in heard {
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            let mut first = [0; 16];
            let length = socket.recv(&mut first).unwrap();
            assert_eq!(&first[..length], b"outside");
        }
        // Nor does the next daemon give it an address.
        kill(networks, 2);
        let networks = lab.networks_with(&["one", "two"]);
        assert!(!run(&["ip", "addr", "show", "dev", bridge]).contains("inet"));
        inside(two.namespace.as_fd(), || reach(&servers[0], addresses(&one)[0], 80)).unwrap();
        networks.leave("one").unwrap();
        networks.leave("two").unwrap();
        networks.remove(&network.id).unwrap();
    });
}

#[test]
fn privileged_a_gateway_of_somebody_elses_is_not_the_bridges() {
    on_a_machine_of_both(|lab| {
        let networks = lab.networks();
        let inhibit = ("com.docker.network.bridge.inhibit_ipv4".to_owned(), "true".to_owned());
        let network = UserNetworkRequest { options: [inhibit].into(), ..wish("a", "10.7.0.0/24", "fd07::/64") };
        let internal = UserNetworkRequest { internal: true, name: "b".to_owned(), ..network.clone() };
        let network = networks.create(network).unwrap();
        let shown = run(&["ip", "addr", "show", "dev", &network.driver.bridge().unwrap().bridge]);
        assert!(!shown.contains("inet ") && shown.contains("fd07::1/64"), "{shown}");
        let one = networks.join(&request_on("one", &[], on(&[&network.id]))).unwrap();
        let route = inside(one.namespace.as_fd(), || run(&["ip", "-4", "route", "show", "default"]));
        assert!(route.contains("via 10.7.0.1"), "{route}");
        let router = EndpointRequest { ipv4: "10.7.0.1".parse().ok(), ..EndpointRequest::on(&network.id) };
        networks.join(&request_on("two", &[], vec![router])).unwrap_err();
        networks.leave("one").unwrap();
        networks.remove(&network.id).unwrap();
        let internal = networks.create(internal).unwrap();
        assert_eq!(internal.ipv4.as_ref().unwrap().gateway, None, "nobody leads anywhere");
        assert!(internal.ipv6.as_ref().unwrap().gateway.is_some());
    });
}

#[test]
fn privileged_trusted_links_lead_to_published_ports_of_containers() {
    on_a_machine_of_both(|lab| {
        let networks = lab.networks();
        let option = ("com.docker.network.bridge.trusted_host_interfaces".to_owned(), "nosuch:up0".to_owned());
        let trusting = UserNetworkRequest { options: [option].into(), ..wish("a", "10.7.0.0/24", "fd07::/64") };
        let (a, b) =
            (networks.create(trusting).unwrap(), networks.create(wish("b", "10.8.0.0/24", "fd08::/64")).unwrap());
        let ports = [publish(Some(HOME), 8080, 80), publish(Some(HOME), 8081, 80)];
        let one = networks.join(&request_on("one", &ports, on(&[&a.id]))).unwrap();
        let two = networks.join(&request_on("two", &[publish(None, 8090, 80)], on(&[&b.id]))).unwrap();
        let servers = [listen(&one, 80), listen(&one, 81), listen(&two, 80)];
        let [own, other] = [&one, &two].map(|joined| joined.place.endpoints[0].ipv4.unwrap().address);
        let from_outside = |port: u16| inside(lab.second.as_fd(), || reach(&servers[0], own, port));
        assert_eq!(from_outside(80).unwrap().ip(), NEIGHBOUR);
        inside(lab.second.as_fd(), || {
            assert!(is_unreachable(own, 81), "what is not published");
            assert!(is_unreachable(other, 80), "a network that trusts nobody");
        });
        assert!(inside(two.namespace.as_fd(), || is_unreachable(own, 80)), "by another link");
        // As long as one port of the host leads there.
        let change = |before: &[network::PortRequest], after: &[network::PortRequest]| network::PortChange {
            container: "one".to_owned(),
            name: "one".to_owned(),
            before: before.to_vec(),
            after: after.to_vec(),
        };
        network::republish(&networks, &change(&ports, &ports[..1])).unwrap();
        from_outside(80).unwrap();
        network::republish(&networks, &change(&ports[..1], &[])).unwrap();
        assert!(inside(lab.second.as_fd(), || is_unreachable(own, 80)));
    });
}

#[test]
fn privileged_as_many_links_are_trusted_as_a_rule_can_speak_of() {
    on_a_machine_of_both(|lab| {
        let networks = lab.networks();
        let trusting = |count: usize| {
            let names: Vec<_> = (0..count).map(|number| format!("link{number}")).collect();
            let option = "com.docker.network.bridge.trusted_host_interfaces".to_owned();
            let options = [(option, names.join(":"))].into();
            networks.create(UserNetworkRequest { options, ..wish(&format!("n{count}"), "", "") })
        };
        trusting(32).unwrap();
        let refused = trusting(33).unwrap_err();
        assert_eq!(refused.kind(), errdefs::ErrorKind::InvalidArgument, "{refused}");
        assert!(refused.to_string().ends_with("names 33 interfaces, the most are 32"), "{refused}");
    });
}
