//! The default bridge with addresses of IPv6, and with a gateway that is not the bridge.

use std::net::Ipv6Addr;
use std::os::fd::AsFd;

use network::{Config, CreateError, DEFAULT, Joined, Networks};

use crate::ipv6::{FORWARDING_6, MACHINE_6, NEIGHBOUR_6, on_a_machine_of_both, wish};
use crate::lab::*;

/// A bridge with that network of IPv6.
fn config(lab: &Lab) -> Config {
    Config { ipv6: true, fixed_cidr_v6: "fd07::/64".parse().ok(), ..lab.config() }
}

fn open(config: &Config, alive: &[&str]) -> Networks {
    let networks = Networks::open(config.clone()).unwrap();
    networks.reconcile(alive).unwrap();
    networks
}

fn own(joined: &Joined) -> Ipv6Addr {
    joined.place.on(DEFAULT).unwrap().ipv6.unwrap().address
}

fn routes(joined: &Joined, family: &str) -> String {
    inside(joined.namespace.as_fd(), || run(&["ip", family, "route", "show", "default"]))
}

#[test]
fn privileged_the_default_bridge_has_ipv6_where_that_is_asked_for() {
    on_a_machine_of_both(|lab| {
        std::fs::write(FORWARDING_6, "1").unwrap();
        let networks = open(&config(&lab), &[]);
        let one = networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
        let shown = networks.network().unwrap().of_ipv6.map(|(subnet, gateway)| format!("{subnet} {gateway}"));
        assert_eq!(shown.as_deref(), Some("fd07::/64 fd07::1"));
        let endpoint = one.place.on(DEFAULT).unwrap();
        assert_eq!((own(&one).to_string().as_str(), endpoint.ipv6.unwrap().prefix), ("fd07::2", 64));
        assert!(routes(&one, "-6").contains("default via fd07::1"), "{}", routes(&one, "-6"));
        let [a, b, c, d, e, f] = endpoint.mac.unwrap().map(u16::from);
        let of_link = Ipv6Addr::new(0xfe80, 0, 0, 0, (a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f);
        // Of the Ethernet address that it has now; the kernel makes it once it has heard that the link is up.
        let shown = || inside(one.namespace.as_fd(), || run(&["ip", "-6", "addr", "show", "dev", "eth0"]));
        let deadline = std::time::Instant::now() + DEADLINE;
        while !shown().contains(&of_link.to_string()) {
            assert!(std::time::Instant::now() < deadline, "{of_link} {}", shown());
        }
        assert_eq!(shown().matches("inet6").count(), 2, "{}", shown());
        // In by the published port, with the client's own address; from a neighbour; out with the machine's address.
        let server = listen_on_ipv6(&one, 80);
        let client = inside(lab.second.as_fd(), || reach(&server, MACHINE_6, 8080)).unwrap();
        assert_eq!(client.ip(), NEIGHBOUR_6);
        let overlap = networks.create(wish("a", "10.7.0.0/24", "fd07::/80"));
        assert!(matches!(overlap, Err(CreateError::Overlap)), "{overlap:?}");
        let two = networks.join(&request("two", &[])).unwrap();
        inside(two.namespace.as_fd(), || reach(&server, own(&one), 80)).unwrap();
        inside(two.namespace.as_fd(), || reach(&server, MACHINE_6, 8080)).unwrap();
        let outside = inside(lab.second.as_fd(), || std::net::TcpListener::bind((NEIGHBOUR_6, 90)).unwrap());
        let client = inside(one.namespace.as_fd(), || reach(&outside, NEIGHBOUR_6, 90)).unwrap();
        assert_eq!(client.ip(), MACHINE_6);
        assert!(inside(lab.second.as_fd(), || is_unreachable(own(&one), 80)), "only what is published");
        // The daemon dies, and somebody flushes all.
        kill(networks, 2);
        run(&["nft", "flush", "ruleset"]);
        run(&["ip", "addr", "flush", "dev", "ls0123abcd"]);
        let networks = open(&config(&lab), &["one", "two"]);
        assert_eq!(networks.place("one").unwrap(), one.place);
        inside(lab.second.as_fd(), || reach(&server, MACHINE_6, 8080)).unwrap();
        let three = networks.join(&request("three", &[])).unwrap();
        assert_eq!(own(&three).to_string(), "fd07::4");
        for container in ["one", "two", "three"] {
            networks.leave(container).unwrap();
        }
        drop((one, two, three, server));
        networks.close().unwrap();
        wait_until_links(0);
        assert!(!run(&["nft", "list", "tables"]).contains("longshore"));
    });
}

#[test]
fn privileged_the_default_bridges_network_of_ipv6_is_the_pools_and_stays() {
    on_a_machine_of_both(|lab| {
        let config = Config { ipv6: true, ..lab.config() };
        let networks = open(&config, &[]);
        let one = networks.join(&request("one", &[])).unwrap();
        let (subnet, gateway) = networks.network().unwrap().of_ipv6.unwrap();
        assert!(subnet.to_string().starts_with("fd") && subnet.prefix == 64, "{subnet}");
        assert_eq!(format!("{gateway}/64"), subnet.to_string().replace("::/64", "::1/64"));
        assert!(subnet.contains(own(&one).into()));
        kill(networks, 1);
        let networks = open(&config, &["one"]);
        assert_eq!(networks.network().unwrap().of_ipv6.unwrap().0, subnet);
        assert_eq!(networks.place("one").unwrap(), one.place);
        networks.leave("one").unwrap();
        // Addresses of a part of the network alone.
        drop(one);
        networks.close().unwrap();
        let (bip6, fixed) = ("fd0b::9/48".parse().ok(), "fd0b::1:0:0:100/120".parse().ok());
        let networks = open(&Config { bip6, fixed_cidr_v6: fixed, ..config }, &[]);
        let two = networks.join(&request("two", &[])).unwrap();
        assert_eq!(own(&two).to_string(), "fd0b::1:0:0:100");
        assert!(routes(&two, "-6").contains("default via fd0b::9"));
    });
}

#[test]
fn privileged_containers_of_the_default_bridge_go_by_the_gateways_that_are_named() {
    on_a_machine_of_both(|lab| {
        let default_gateways = vec!["172.17.0.2".parse().unwrap(), "fd07::2".parse().unwrap()];
        let networks = open(&Config { default_gateways, ..config(&lab) }, &[]);
        let one = networks.join(&request("one", &[])).unwrap();
        assert!(routes(&one, "-4").contains("default via 172.17.0.2"), "{}", routes(&one, "-4"));
        assert!(routes(&one, "-6").contains("default via fd07::2"), "{}", routes(&one, "-6"));
        let endpoint = one.place.on(DEFAULT).unwrap();
        let (ipv4, ipv6) = (endpoint.ipv4.unwrap(), endpoint.ipv6.unwrap());
        assert_eq!(
            (ipv4.address.to_string().as_str(), ipv4.gateway.unwrap().to_string().as_str()),
            ("172.17.0.3", "172.17.0.2")
        );
        assert_eq!(
            (ipv6.address.to_string().as_str(), ipv6.gateway.unwrap().to_string().as_str()),
            ("fd07::3", "fd07::2")
        );
        let shown = networks.network().unwrap();
        assert_eq!([shown.gateway, shown.bridge_address].map(|one| one.to_string()), ["172.17.0.2", "172.17.0.1"]);
        networks.leave("one").unwrap();
        networks.close().unwrap();
        let stray = Config { default_gateways: vec!["10.1.1.1".parse().unwrap()], ..lab.config() };
        let refused = Networks::open(stray).unwrap().prepare().unwrap_err();
        let sentence = "default-gateway 10.1.1.1/32 is not in the default bridge's network 172.17.0.0/16";
        assert_eq!(refused.to_string(), sentence);
        let bip6 = "fd0b::1/64".parse().ok();
        let refused = Networks::open(Config { bip6, ..config(&lab) }).unwrap_err();
        assert_eq!(refused.to_string(), "fixed-cidr-v6 fd07::/64 is not in the default bridge's network fd0b::/64");
    });
}

#[test]
fn privileged_a_bridge_of_somebody_elses_has_the_ipv6_that_it_has() {
    on_a_machine_of_both(|lab| {
        run(&["ip", "link", "add", "br9", "type", "bridge"]);
        run(&["ip", "addr", "add", "10.9.9.1/24", "dev", "br9"]);
        run(&["ip", "link", "set", "br9", "up"]);
        let config = Config { bridge: Some("br9".to_owned()), ..config(&lab) };
        // It gets no address from us, and no container a gateway that nobody is.
        let refused = Networks::open(config.clone()).unwrap_err();
        assert_eq!(refused.to_string(), "bridge br9 has no IPv6 address");
        run(&["ip", "addr", "add", "fd0c::1/64", "dev", "br9", "nodad"]);
        let networks = open(&Config { fixed_cidr_v6: None, ..config }, &[]);
        let one = networks.join(&request("one", &[])).unwrap();
        assert_eq!(own(&one).to_string(), "fd0c::2");
        let server = listen_on_ipv6(&one, 80);
        reach(&server, own(&one), 80).unwrap();
        networks.leave("one").unwrap();
        networks.close().unwrap();
        assert!(run(&["ip", "-6", "addr", "show", "dev", "br9"]).contains("fd0c::1/64"));
    });
}
