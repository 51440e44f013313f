//! Networks with addresses of IPv6, alone or beside those of IPv4.

use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::os::fd::AsFd;

use network::{
    CreateError, DEFAULT, EndpointRequest, JoinError, Networks, PortRequest, Protocol, RangeRequest, UserNetworkRequest,
};

use crate::lab::*;

pub(crate) const MACHINE_6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1);
pub(crate) const NEIGHBOUR_6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2);
const HOME_6: Ipv6Addr = Ipv6Addr::LOCALHOST;
pub(crate) const FORWARDING_6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// As `on_a_machine`, with addresses of IPv6 on the link to the second host.
pub(crate) fn on_a_machine_of_both(test: impl FnOnce(Lab) + Send + 'static) {
    on_a_machine(|lab| {
        let add = |address: Ipv6Addr, link: &str| {
            run(&["ip", "addr", "add", &format!("{address}/64"), "dev", link, "nodad"]);
        };
        add(MACHINE_6, "up0");
        inside(lab.second.as_fd(), || {
            add(NEIGHBOUR_6, "eth0");
            run(&["ip", "route", "add", "default", "via", &MACHINE_6.to_string()]);
        });
        test(lab);
    });
}

fn range(subnet: &str) -> RangeRequest {
    RangeRequest { subnet: subnet.parse().ok(), ..RangeRequest::default() }
}

pub(crate) fn wish(name: &str, subnet: &str, of_ipv6: &str) -> UserNetworkRequest {
    let (ipv4, ipv6) = (range(subnet), range(of_ipv6));
    UserNetworkRequest { name: name.to_owned(), ipv4, with_ipv6: true, ipv6, ..UserNetworkRequest::default() }
}

pub(crate) fn on(networks: &[&str]) -> Vec<EndpointRequest> {
    networks.iter().map(|network| EndpointRequest::on(*network)).collect()
}

fn address_of(joined: &network::Joined, network: &str) -> Ipv6Addr {
    joined.place.on(network).unwrap().ipv6.unwrap().address
}

pub(crate) fn publish_on(address: impl Into<IpAddr>, host_port: u16) -> PortRequest {
    PortRequest { host_address: Some(address.into()), ..publish(None, host_port, 80) }
}

fn routes(joined: &network::Joined) -> String {
    inside(joined.namespace.as_fd(), || run(&["ip", "-6", "route", "show", "default"]))
}

#[test]
fn privileged_endpoints_have_addresses_of_both_families_at_once() {
    on_a_machine_of_both(|lab| {
        let networks = lab.networks();
        let network = networks.create(wish("a", "10.7.0.0/24", "fd07::/64")).unwrap();
        let shown = run(&["ip", "-6", "addr", "show", "dev", &network.driver.bridge().unwrap().bridge]);
        assert!(shown.contains("fd07::1/64") && shown.contains("fe80::1/64"), "{shown}");
        let one = networks.join(&request_on("one", &[], on(&[&network.id]))).unwrap();
        let endpoint = &one.place.endpoints[0];
        assert_eq!(endpoint.ipv4.unwrap().address.to_string(), "10.7.0.2");
        let own = endpoint.ipv6.unwrap();
        assert_eq!((own.address.to_string().as_str(), own.prefix), ("fd07::2", 64));
        assert_eq!(own.gateway.unwrap().to_string(), "fd07::1");
        let shown =
            inside(one.namespace.as_fd(), || run(&["ip", "-6", "addr", "show", "dev", "eth0", "scope", "global"]));
        assert!(shown.contains("inet6 fd07::2/64 scope global nodad") && !shown.contains("tentative"), "{shown}");
        assert!(routes(&one).contains("default via fd07::1"), "{}", routes(&one));
        let mac = endpoint.mac.unwrap();
        let of_link = format!(
            "fe80::{:x}:{:x}ff:fe{:02x}:{:x}",
            u16::from(mac[0] ^ 2) << 8 | u16::from(mac[1]),
            mac[2],
            mac[3],
            u16::from(mac[4]) << 8 | u16::from(mac[5])
        );
        let shown =
            inside(one.namespace.as_fd(), || run(&["ip", "-6", "addr", "show", "dev", "eth0", "scope", "link"]));
        assert!(shown.contains(&of_link), "{of_link} in {shown}");
        // A neighbour, who is reached without a moment's wait, and the default bridge, which has no IPv6.
        let wanted = EndpointRequest { ipv6: "fd07::77".parse().ok(), ..EndpointRequest::on(&network.id) };
        let two = networks.join(&request_on("two", &[], vec![EndpointRequest::on(DEFAULT), wanted.clone()])).unwrap();
        assert_eq!(address_of(&two, &network.id).to_string(), "fd07::77");
        assert_eq!(two.place.on(DEFAULT).unwrap().ipv6, None);
        let disabled = inside(two.namespace.as_fd(), || {
            ["eth0", "eth1"].map(|name| std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6")))
        });
        assert_eq!(disabled.map(|text| text.unwrap().trim().to_owned()), ["1", "0"]);
        let server = listen_on_ipv6(&one, 80);
        inside(two.namespace.as_fd(), || reach(&server, own.address, 80)).unwrap();
        reach(&server, own.address, 80).unwrap();
        let taken = networks.join(&request_on("three", &[], vec![wanted]));
        assert!(matches!(taken, Err(JoinError::AddressTaken)), "{taken:?}");
        let outside = EndpointRequest { ipv6: "fd08::1".parse().ok(), ..EndpointRequest::on(&network.id) };
        let refused = networks.join(&request_on("three", &[], vec![outside])).unwrap_err();
        assert!(refused.to_string().starts_with("invalid address fd08::1:"), "{refused}");
        let three = networks.join(&request_on("three", &[], on(&[&network.id]))).unwrap();
        assert_eq!(three.place.endpoints[0].ipv4.unwrap().address.to_string(), "10.7.0.4", "refusals cost nothing");
    });
}

#[test]
fn privileged_ports_are_published_on_both_families() {
    on_a_machine_of_both(|lab| {
        let networks = lab.networks();
        let network = networks.create(wish("a", "10.7.0.0/24", "fd07::/64")).unwrap();
        let other = networks.create(wish("b", "10.8.0.0/24", "fd08::/64")).unwrap();
        let ports = [publish(None, 8080, 80), publish_on(MACHINE_6, 8082)];
        let one = networks.join(&request_on("one", &ports, on(&[&network.id]))).unwrap();
        let published: Vec<_> =
            one.place.ports.iter().map(|one| format!("{}:{}", one.host_address, one.host_port)).collect();
        assert_eq!(published, ["0.0.0.0:8080", ":::8080", "fd09::1:8082"]);
        let server = listen_on_ipv6(&one, 80);
        let client = inside(lab.second.as_fd(), || reach(&server, MACHINE_6, 8080)).unwrap();
        assert_eq!(client.ip(), NEIGHBOUR_6, "the client is seen");
        inside(lab.second.as_fd(), || reach(&server, MACHINE_6, 8082)).unwrap();
        reach(&server, MACHINE_6, 8080).unwrap();
        reach(&server, MACHINE_6, 8082).unwrap();
        // Who tries ::1 first goes on to 127.0.0.1 at once.
        let refused = reach(&server, HOME_6, 8080).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        // By the host's address from itself, a neighbour and another network.
        let two = networks.join(&request_on("two", &[], on(&[&network.id]))).unwrap();
        let three = networks.join(&request_on("three", &[], on(&[&other.id]))).unwrap();
        for namespace in [&one.namespace, &two.namespace, &three.namespace] {
            inside(namespace.as_fd(), || reach(&server, MACHINE_6, 8080)).unwrap();
        }
        let ipv4 = listen(&one, 80);
        inside(lab.second.as_fd(), || reach(&ipv4, MACHINE, 8080)).unwrap();
        let taken = networks.join(&request_on("four", &[publish_on(MACHINE_6, 8080)], on(&[&other.id]))).unwrap_err();
        assert!(errdefs::chain(&taken).ends_with("Bind for :::8080 failed: port is already allocated"), "{taken:?}");
        networks.leave("one").unwrap();
        assert!(inside(lab.second.as_fd(), || is_unreachable(MACHINE_6, 8080)));
        drop(networks.join(&request_on("four", &[publish_on(MACHINE_6, 8080)], on(&[&other.id]))).unwrap());
        // What would take a relay.
        for (address, network) in [(HOME_6, other.id.as_str()), (MACHINE_6, DEFAULT)] {
            let refused = networks.join(&request_on("five", &[publish_on(address, 8090)], on(&[network]))).unwrap_err();
            let sentence = format!("publishing a port on {address} for this container takes a relay");
            assert!(errdefs::chain(&refused).contains(&sentence), "{refused:?}");
        }
    });
}

#[test]
fn privileged_networks_of_ipv6_are_apart_and_lead_out() {
    on_a_machine_of_both(|lab| {
        let networks = lab.networks();
        let a = networks.create(wish("a", "10.7.0.0/24", "fd07::/64")).unwrap();
        let b = networks.create(wish("b", "10.8.0.0/24", "fd08::/64")).unwrap();
        let icc = [("com.docker.network.bridge.enable_icc".to_owned(), "false".to_owned())].into();
        let c = networks.create(UserNetworkRequest { options: icc, ..wish("c", "10.6.0.0/24", "fd06::/64") }).unwrap();
        let inner =
            networks.create(UserNetworkRequest { internal: true, ..wish("d", "10.5.0.0/24", "fd05::/64") }).unwrap();
        let join = |name: &str, network: &str| networks.join(&request_on(name, &[], on(&[network]))).unwrap();
        let (one, two) = (join("one", &a.id), join("two", &b.id));
        let (three, four) = (join("three", &c.id), join("four", &c.id));
        let (five, six) = (join("five", &inner.id), join("six", &inner.id));
        let (first, fifth) = (listen_on_ipv6(&one, 80), listen_on_ipv6(&five, 80));
        let _fourth = listen_on_ipv6(&four, 80);
        let target = address_of(&one, &a.id);
        // The second host has a route to it, but the machine is no router to its networks; nor between them.
        assert!(inside(lab.second.as_fd(), || is_unreachable(target, 80)));
        assert!(inside(two.namespace.as_fd(), || is_unreachable(target, 80)));
        assert!(inside(three.namespace.as_fd(), || is_unreachable(address_of(&four, &c.id), 80)), "icc is off");
        reach(&first, target, 80).unwrap();
        // Out, with the machine's address.
        let outside = inside(lab.second.as_fd(), || std::net::TcpListener::bind((NEIGHBOUR_6, 90)).unwrap());
        let client = inside(one.namespace.as_fd(), || reach(&outside, NEIGHBOUR_6, 90)).unwrap();
        assert_eq!(client.ip(), MACHINE_6);
        inside(three.namespace.as_fd(), || reach(&outside, NEIGHBOUR_6, 90)).unwrap();
        assert_eq!(routes(&five), "");
        inside(five.namespace.as_fd(), || run(&["ip", "route", "add", "default", "via", "fd05::1"]));
        assert!(inside(five.namespace.as_fd(), || is_unreachable(NEIGHBOUR_6, 90)), "internal");
        inside(six.namespace.as_fd(), || reach(&fifth, address_of(&five, &inner.id), 80)).unwrap();
    });
}

#[test]
fn privileged_routes_and_ports_of_each_family_follow_its_networks() {
    on_a_machine_of_both(|lab| {
        let networks = lab.networks();
        let both = networks.create(wish("b", "10.7.0.0/24", "fd07::/64")).unwrap();
        let old = networks.create(UserNetworkRequest { with_ipv6: false, ..wish("a", "10.8.0.0/24", "") }).unwrap();
        let new = UserNetworkRequest { without_ipv4: true, ..wish("c", "", "fd08::/64") };
        let new = networks.create(new).unwrap();
        assert_eq!((new.ipv4.as_ref(), new.ranges().count()), (None, 1));
        let ports = [publish(None, 8080, 80)];
        let one = networks.join(&request_on("one", &ports, on(&[&both.id, &old.id]))).unwrap();
        let here = one.namespace.as_fd();
        let of_ipv4 = || inside(here, || run(&["ip", "-4", "route", "show", "default"]));
        assert!(
            of_ipv4().contains("via 10.8.0.1") && routes(&one).contains("via fd07::1"),
            "{} {}",
            of_ipv4(),
            routes(&one)
        );
        let (server, server_6) = (listen(&one, 80), listen_on_ipv6(&one, 80));
        let reached = || {
            inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
            inside(lab.second.as_fd(), || reach(&server_6, MACHINE_6, 8080)).unwrap();
        };
        reached();
        let preferred = EndpointRequest { gateway_priority: 7, ..EndpointRequest::on(&new.id) };
        let place = networks.connect(&request_on("one", &ports, vec![preferred]), here).unwrap();
        assert_eq!(place.on(&new.id).unwrap().ipv4, None);
        assert!(
            of_ipv4().contains("via 10.8.0.1") && routes(&one).contains("via fd08::1"),
            "{} {}",
            of_ipv4(),
            routes(&one)
        );
        reached();
        networks.disconnect("one", &new.id, Some(here)).unwrap().unwrap();
        networks.disconnect("one", &old.id, Some(here)).unwrap().unwrap();
        assert!(
            of_ipv4().contains("via 10.7.0.1") && routes(&one).contains("via fd07::1"),
            "{} {}",
            of_ipv4(),
            routes(&one)
        );
        reached();
        // Of one family the ports stay; those of the other one come back with it.
        let place = networks.connect(&request_on("one", &ports, on(&[&old.id])), here).unwrap();
        assert_eq!(place.ports.len(), 2);
        let place = networks.disconnect("one", &both.id, Some(here)).unwrap().unwrap();
        assert_eq!(place.ports.iter().map(|one| one.host_address.to_string()).collect::<Vec<_>>(), ["0.0.0.0"]);
        drop(std::net::TcpListener::bind((HOME_6, 8080)).unwrap());
        networks.connect(&request_on("one", &ports, on(&[&both.id])), here).unwrap();
        reached();
        networks.disconnect("one", &old.id, Some(here)).unwrap().unwrap();
        networks.disconnect("one", &both.id, Some(here)).unwrap().unwrap();
        assert!(networks.place("one").unwrap().ports.is_empty());
        let place = networks.connect(&request_on("one", &ports, on(&[&new.id])), here).unwrap();
        assert_eq!(place.ports.iter().map(|one| one.host_address.to_string()).collect::<Vec<_>>(), ["::"]);
        inside(lab.second.as_fd(), || reach(&server_6, MACHINE_6, 8080)).unwrap();
    });
}

#[test]
fn privileged_networks_of_ipv6_outlive_the_daemon_and_leave_nothing() {
    on_a_machine_of_both(|lab| {
        let mut config = lab.config();
        config.data_dir = lab.directory.path().join("data");
        // Where it is none we leave a guard.
        std::fs::write(FORWARDING_6, "1").unwrap();
        let networks = Networks::open(config.clone()).unwrap();
        networks.reconcile(&[]).unwrap();
        assert!(!run(&["nft", "list", "tables"]).contains("ip6"));
        let a = networks.create(UserNetworkRequest { with_ipv6: true, ..wish("a", "", "") }).unwrap();
        let b = networks.create(wish("b", "", "")).unwrap();
        let subnets = [&a, &b].map(|network| network.ipv6.as_ref().unwrap().subnet);
        assert!(!subnets[0].overlaps(subnets[1]) && subnets[0].prefix == 64, "{subnets:?}");
        assert!(subnets[0].to_string().starts_with("fd"), "{subnets:?}");
        let overlap = networks.create(wish("c", "", &subnets[0].to_string()));
        assert!(matches!(overlap, Err(CreateError::Overlap)));
        let ports = [publish(None, 8080, 80), PortRequest { protocol: Protocol::Udp, ..publish(None, 8053, 53) }];
        let one = networks.join(&request_on("one", &ports, on(&[&a.id]))).unwrap();
        let server = listen_on_ipv6(&one, 80);
        let address = address_of(&one, &a.id);
        // Killed; somebody flushes the rules and the bridge's addresses.
        kill(networks, 1);
        reach(&server, MACHINE_6, 8080).unwrap();
        run(&["nft", "flush", "ruleset"]);
        run(&["ip", "addr", "flush", "dev", &a.driver.bridge().unwrap().bridge]);
        let networks = Networks::open(config.clone()).unwrap();
        networks.reconcile(&["one"]).unwrap();
        assert_eq!(networks.place("one").unwrap(), one.place);
        inside(lab.second.as_fd(), || reach(&server, MACHINE_6, 8080)).unwrap();
        let two = networks.join(&request_on("two", &[], on(&[&a.id]))).unwrap();
        assert_ne!(address_of(&two, &a.id), address);
        inside(two.namespace.as_fd(), || reach(&server, address, 80)).unwrap();
        // Killed again, and now the container has ended.
        kill(networks, 2);
        drop((one, server));
        let networks = Networks::open(config.clone()).unwrap();
        networks.reconcile(&["two"]).unwrap();
        assert!(inside(lab.second.as_fd(), || is_unreachable(MACHINE_6, 8080)));
        drop(networks.join(&request_on("three", &[], on(&[&a.id]))).unwrap());
        for container in ["two", "three"] {
            networks.leave(container).unwrap();
        }
        networks.remove(&a.id).unwrap();
        assert!(run(&["nft", "list", "tables"]).contains("table ip6 longshore-0123abcd"), "b still has IPv6");
        networks.remove(&b.id).unwrap();
        assert!(!run(&["nft", "list", "tables"]).contains("ip6"));
        networks.create(wish("d", "", "")).unwrap();
        drop(two);
        networks.close().unwrap();
        wait_until_links(0);
        assert!(!run(&["nft", "list", "tables"]).contains("longshore"));
        assert!(!run(&["ip", "-6", "addr"]).contains("fe80::1/64"));
    });
}

#[test]
fn privileged_datagrams_of_ipv6_follow_the_port_to_its_next_container() {
    on_a_machine_of_both(|lab| {
        let networks = lab.networks();
        let network = networks.create(wish("a", "10.7.0.0/24", "fd07::/64")).unwrap();
        let ports = [PortRequest { protocol: Protocol::Udp, ..publish(None, 8053, 53) }];
        let client = inside(lab.second.as_fd(), || UdpSocket::bind((NEIGHBOUR_6, 0)).unwrap());
        for container in ["one", "two"] {
            let joined = networks.join(&request_on(container, &ports, on(&[&network.id]))).unwrap();
            let server = inside(joined.namespace.as_fd(), || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 53)).unwrap());
            server.set_read_timeout(Some(DEADLINE)).unwrap();
            client.send_to(b"question", (MACHINE_6, 8053)).unwrap();
            let (_, from) = server.recv_from(&mut [0; 16]).unwrap();
            assert_eq!(from.ip(), NEIGHBOUR_6, "{container}");
            networks.leave(container).unwrap();
        }
    });
}

#[test]
fn privileged_a_machine_that_was_no_router_becomes_none_for_others() {
    on_a_machine_of_both(|lab| {
        let third = host_behind("up1", std::net::Ipv4Addr::new(10, 10, 0, 1), std::net::Ipv4Addr::new(10, 10, 0, 2));
        run(&["ip", "addr", "add", "fd0a::1/64", "dev", "up1", "nodad"]);
        let server = inside(third.as_fd(), || {
            run(&["ip", "addr", "add", "fd0a::2/64", "dev", "eth0", "nodad"]);
            run(&["ip", "route", "add", "default", "via", "fd0a::1"]);
            std::net::TcpListener::bind("[fd0a::2]:80").unwrap()
        });
        let networks = lab.networks();
        let forwarding = || std::fs::read_to_string(FORWARDING_6).unwrap().trim().to_owned();
        std::fs::write(FORWARDING_6, "0").unwrap();
        networks.create(UserNetworkRequest { name: "a".to_owned(), ..UserNetworkRequest::default() }).unwrap();
        assert_eq!(forwarding(), "0", "nobody needs it");
        let network = networks.create(wish("b", "", "")).unwrap();
        assert_eq!(forwarding(), "1");
        let target: Ipv6Addr = "fd0a::2".parse().unwrap();
        let is_guarded = || inside(lab.second.as_fd(), || is_unreachable(target, 80));
        assert!(is_guarded());
        // Nor when the last network of IPv6 goes, when the daemon goes, and when the next one comes.
        networks.remove(&network.id).unwrap();
        assert!(is_guarded());
        networks.close().unwrap();
        assert!(is_guarded());
        assert_eq!(chains_left("ip6"), ["arrive", "guard", "unmark"]);
        let networks = lab.networks();
        networks.prepare().unwrap();
        assert!(is_guarded());
        networks.create(wish("c", "", "")).unwrap();
        assert!(is_guarded());
        run(&["nft", "delete", "table", "ip6", "longshore-0123abcd"]);
        inside(lab.second.as_fd(), || reach(&server, target, 80)).unwrap();
    });
}

#[test]
fn privileged_a_chain_of_ipv6_that_drops_has_our_rule_while_somebody_has_such_addresses() {
    on_a_machine_of_both(|lab| {
        let chain = "ip6 filter FORWARD";
        run(&["nft", "add table ip6 filter"]);
        run(&["nft", &format!("add chain {chain} {{ type filter hook forward priority 0; policy drop; }}")]);
        let ours = || run(&["nft", "list", "ruleset"]).contains("comment \"longshore-0123abcd\"");
        let networks = lab.networks();
        networks.prepare().unwrap();
        assert!(!ours() && network::foreign_chains(&networks).is_empty());
        let network = networks.create(wish("a", "10.7.0.0/24", "fd07::/64")).unwrap();
        assert_eq!(network::foreign_chains(&networks)[0].chain, chain);
        let one = networks.join(&request_on("one", &[publish(None, 8080, 80)], on(&[&network.id]))).unwrap();
        let server = listen_on_ipv6(&one, 80);
        inside(lab.second.as_fd(), || reach(&server, MACHINE_6, 8080)).unwrap();
        networks.leave("one").unwrap();
        networks.remove(&network.id).unwrap();
        assert!(!ours());
        // In a chain of both families it is about those that our chains look at: nobody else's mark passes.
        run(&["nft", "add table inet f; add chain inet f c { type filter hook forward priority 0; policy drop; }"]);
        drop(networks);
        let networks = lab.networks();
        networks.prepare().unwrap();
        let of_ipv4 = || {
            let text = run(&["nft", "list chain inet f c"]);
            let ours = text.lines().filter(|line| line.contains("longshore-0123abcd"));
            ours.map(|line| line.contains("nfproto ipv4") && line.contains("abcd ipv4\"")).collect::<Vec<_>>()
        };
        assert_eq!(of_ipv4(), [true]);
        let network = networks.create(wish("a", "10.7.0.0/24", "fd07::/64")).unwrap();
        assert_eq!(of_ipv4(), [false]);
        networks.remove(&network.id).unwrap();
        assert_eq!(of_ipv4(), [true]);
    });
}
