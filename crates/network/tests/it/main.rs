//! Networks against the kernel, on scratch machines with a second host beside them.
#![allow(clippy::unwrap_used)]

mod crash;
mod default_ipv6;
mod egress;
mod firewalld;
mod foreign;
mod gateway_modes;
mod ipv6;
mod lab;
mod links;
mod parents;
mod ranges;
mod reach;
mod relayed;
mod sctp;
mod undone;
mod users;
mod wander;

use std::net::{IpAddr, Ipv4Addr, TcpListener};

use lab::*;
use network::{Config, JoinError, Networks, PortRequest};

#[test]
fn privileged_open_touches_nothing() {
    on_a_machine(|lab| {
        let before = (run(&["ip", "-o", "link"]), run(&["nft", "list", "ruleset"]));
        let sent = netlink::requests_sent();
        let networks = lab.networks();
        assert_eq!(netlink::requests_sent(), sent);
        assert!(!lab.directory.path().join("network").exists());
        // Nor does who looks at the network, which is so when somebody needs it.
        let shown = networks.network().unwrap();
        assert_eq!(networks.network().unwrap(), shown);
        assert!(!lab.directory.path().join("network").exists());
        drop(networks);
        let networks = lab.networks();
        assert_eq!(before, (run(&["ip", "-o", "link"]), run(&["nft", "list", "ruleset"])));
        let shown = networks.network().unwrap();
        networks.close().unwrap();
        assert_eq!(before, (run(&["ip", "-o", "link"]), run(&["nft", "list", "ruleset"])));
        networks.prepare().unwrap();
        assert_eq!(networks.network().unwrap(), shown);
    });
}

#[test]
fn privileged_an_endpoint_is_dockers() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let endpoint = networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
        assert_eq!(
            (endpoint.place.endpoints[0].ipv4.unwrap().address, endpoint.place.endpoints[0].ipv4.unwrap().prefix),
            (Ipv4Addr::new(172, 17, 0, 2), 16)
        );
        assert_eq!(endpoint.place.endpoints[0].ipv4.unwrap().gateway, Some(Ipv4Addr::new(172, 17, 0, 1)));
        assert_eq!((endpoint.place.endpoints[0].endpoint_id.len(), endpoint.place.sandbox_id.len()), (64, 64));
        assert_eq!(endpoint.place.endpoints[0].mac.unwrap()[0] & 3, 2, "locally administered, for one receiver");
        let shown = inside(std::os::fd::AsFd::as_fd(&endpoint.namespace), || run(&["ip", "addr"]));
        let mac = netlink::link::text(endpoint.place.endpoints[0].mac.unwrap());
        for part in ["inet 127.0.0.1/8", "inet 172.17.0.2/16 brd 172.17.255.255 scope global eth0", &mac, "mtu 1500"] {
            assert!(shown.contains(part), "{part}\n in\n{shown}");
        }
        assert!(!shown.contains("fe80"), "{shown}");
        let second = networks.join(&request("two", &[])).unwrap();
        assert_eq!(second.place.endpoints[0].ipv4.unwrap().address, Ipv4Addr::new(172, 17, 0, 3));
        assert!(matches!(networks.join(&request("two", &[])), Err(JoinError::Joined { .. })));
        let network = networks.network().unwrap();
        assert_eq!((network.subnet.to_string().as_str(), network.bridge.as_str()), ("172.17.0.0/16", "ls0123abcd"));
    });
}

#[test]
fn privileged_a_wanted_address_and_mac() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let wanted = Ipv4Addr::new(172, 17, 3, 4);
        let mac = [2, 0x42, 1, 2, 3, 4];
        let wanted_place =
            network::EndpointRequest { mac: Some(mac), ipv4: Some(wanted), ..network::EndpointRequest::on("bridge") };
        let wish = request_on("one", &[], vec![wanted_place]);
        let endpoint = networks.join(&wish).unwrap();
        assert_eq!(
            (endpoint.place.endpoints[0].ipv4.unwrap().address, endpoint.place.endpoints[0].mac),
            (wanted, Some(mac))
        );
        let again = networks.join(&network::JoinRequest { container: "two".to_owned(), ..wish.clone() });
        assert!(matches!(again, Err(JoinError::AddressTaken)));
        networks.leave("one").unwrap();
        networks.leave("one").unwrap();
        networks.join(&wish).unwrap();
    });
}

fn error(result: Result<network::Joined, JoinError>) -> String {
    errdefs::chain(&result.unwrap_err())
}

#[test]
fn privileged_a_port_that_is_taken_is_refused_in_dockers_words() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let _one = networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
        let refused = error(networks.join(&request("two", &[publish(None, 8080, 80)])));
        let (start, end) = ("driver failed programming external connectivity on endpoint name-of-two (", "): ");
        assert!(refused.starts_with(start), "{refused}");
        assert!(
            refused.ends_with(&format!("{end}Bind for 0.0.0.0:8080 failed: port is already allocated")),
            "{refused}"
        );
        let program = TcpListener::bind((HOME, 8081)).unwrap();
        let refused = error(networks.join(&request("two", &[publish(None, 9000, 80), publish(None, 8081, 80)])));
        let sentence = "failed to bind host port for 0.0.0.0:8081:172.17.0.3:80/tcp: address already in use";
        assert!(refused.ends_with(&format!("{end}{sentence}")), "{refused}");
        drop(program);
        // Nothing is left of the refusal: neither the other port nor the address.
        let two = networks.join(&request("two", &[publish(None, 9000, 80), publish(None, 8081, 80)])).unwrap();
        assert_eq!(two.place.endpoints[0].ipv4.unwrap().address, Ipv4Addr::new(172, 17, 0, 3));
        assert!(TcpListener::bind((HOME, 8081)).is_err(), "the port is held");
        let twice = error(networks.join(&request("three", &[publish(None, 7000, 80), publish(None, 7000, 81)])));
        assert!(twice.ends_with("Bind for 0.0.0.0:7000 failed: port is already allocated"), "{twice}");
    });
}

#[test]
fn privileged_a_range_goes_around_other_programs() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let _program = TcpListener::bind((HOME, 8000)).unwrap();
        let range = PortRequest { host_ports: (8000, 8001), ..publish(None, 0, 80) };
        assert_eq!(networks.join(&request("one", &[range])).unwrap().place.ports[0].host_port, 8001);
        let refused = error(networks.join(&request("two", &[range])));
        assert!(
            refused.contains(
                "failed to bind host port 8000 for 0.0.0.0:8000-8001:172.17.0.3:80/tcp: address already in use"
            ),
            "{refused}"
        );
        setting("ip_local_port_range", "40000 40001");
        let any = networks.join(&request("three", &[publish(None, 0, 80)])).unwrap();
        assert!(any.place.ports[0].host_port >= 32768);
    });
}

#[test]
fn privileged_a_join_and_a_leave_cost_few_requests() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let warm = networks.join(&request("warm", &[])).unwrap();
        let count = |act: &mut dyn FnMut()| {
            let before = netlink::requests_sent();
            act();
            netlink::requests_sent() - before
        };
        let mut endpoint = None;
        let mut join = |ports: &[PortRequest]| {
            let sent = count(&mut || endpoint = Some(networks.join(&request("one", ports)).unwrap()));
            (sent, count(&mut || networks.leave("one").unwrap()))
        };
        assert_eq!(join(&[]), (2, 1));
        assert_eq!(join(&[publish(None, 8080, 80), publish(Some(HOME), 8081, 80)]), (3, 2));
        drop((endpoint, warm));
    });
}

#[test]
fn privileged_the_subnet_is_one_that_nobody_uses() {
    on_a_machine(|lab| {
        run(&["ip", "addr", "add", "172.17.9.9/24", "dev", "up0"]);
        run(&["ip", "route", "add", "172.18.0.0/15", "via", "10.9.0.2"]);
        let networks = lab.networks();
        let planned = networks.network().unwrap();
        assert_eq!(planned.subnet.to_string(), "172.20.0.0/16");
        let endpoint = networks.join(&request("one", &[])).unwrap();
        assert_eq!(
            (endpoint.place.endpoints[0].ipv4.unwrap().gateway.map(IpAddr::V4), networks.network().unwrap()),
            (Some(planned.gateway), planned)
        );
    });
}

#[test]
fn privileged_instances_that_start_at_once_get_subnets_of_their_own() {
    on_a_machine(|lab| {
        // A plan that nobody has made true yet is no claim.
        let late = Networks::open(Config::new("00000009", lab.directory.path().join("late"))).unwrap();
        assert_eq!(late.network().unwrap().subnet.to_string(), "172.17.0.0/16");
        let own = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        let begin = std::sync::Barrier::new(4);
        let instance = |number: u8| {
            let directory = lab.directory.path().join(number.to_string());
            let networks = Networks::open(Config::new(format!("0000000{number}"), directory)).unwrap();
            begin.wait();
            let endpoint = networks.join(&request("one", &[])).unwrap();
            (networks, endpoint)
        };
        let instances: Vec<_> = std::thread::scope(|scope| {
            let instance = &instance;
            let own = std::os::fd::AsFd::as_fd(&own);
            let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || inside(own, || instance(n)))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut addresses: Vec<_> =
            instances.iter().map(|(_, endpoint)| endpoint.place.endpoints[0].ipv4.unwrap().address).collect();
        addresses.sort();
        assert_eq!(addresses, [17, 18, 19, 20].map(|octet| Ipv4Addr::new(172, octet, 0, 2)));
        assert_eq!(
            late.join(&request("one", &[])).unwrap().place.endpoints[0].ipv4.unwrap().address,
            Ipv4Addr::new(172, 21, 0, 2)
        );
        assert_eq!(instances[0].0.place("one").as_ref(), Some(&instances[0].1.place));
        assert_eq!(instances[0].0.place("two"), None);
    });
}

#[test]
fn privileged_bip_fixed_cidr_and_mtu() {
    on_a_machine(|lab| {
        let config = Config {
            bip: Some("10.77.0.5/24".parse().unwrap()),
            fixed_cidr: Some("10.77.0.64/26".parse().unwrap()),
            mtu: 1400,
            ..lab.config()
        };
        let networks = Networks::open(config).unwrap();
        let endpoint = networks.join(&request("one", &[])).unwrap();
        assert_eq!(
            (endpoint.place.endpoints[0].ipv4.unwrap().gateway, endpoint.place.endpoints[0].ipv4.unwrap().address),
            (Some(Ipv4Addr::new(10, 77, 0, 5)), Ipv4Addr::new(10, 77, 0, 64))
        );
        assert!(inside(std::os::fd::AsFd::as_fd(&endpoint.namespace), || run(&["ip", "link"])).contains("mtu 1400"));
    });
}

#[test]
fn privileged_a_part_that_is_not_of_the_bridges_network_is_refused_at_once() {
    on_a_machine(|lab| {
        let config = Config { fixed_cidr: "10.78.0.0/16".parse().ok(), ..lab.config() };
        let refused = Networks::open(Config { bip: "10.77.0.5/24".parse().ok(), ..config.clone() }).unwrap_err();
        assert_eq!(refused.to_string(), "fixed-cidr 10.78.0.0/16 is not in the default bridge's network 10.77.0.0/24");
        // Without another one it is the network, as with dockerd.
        let networks = Networks::open(config).unwrap();
        let endpoint = networks.join(&request("one", &[])).unwrap();
        assert_eq!(endpoint.place.endpoints[0].ipv4.unwrap().address, Ipv4Addr::new(10, 78, 0, 2));
        let shown = networks.network().unwrap();
        assert_eq!((shown.subnet.to_string().as_str(), shown.parts), ("10.78.0.0/16", vec![shown.subnet]));
    });
}

#[test]
fn privileged_a_bridge_of_the_users() {
    on_a_machine(|lab| {
        let config = Config { bridge: Some("mine".to_owned()), ..lab.config() };
        let refused = || Networks::open(config.clone()).unwrap_err().to_string();
        assert_eq!(refused(), "bridge device with non default name mine must be created manually");
        run(&["ip", "link", "add", "mine", "type", "bridge"]);
        assert_eq!(refused(), "bridge mine has no IPv4 address");
        run(&["ip", "addr", "add", "10.50.0.1/24", "dev", "mine"]);
        run(&["ip", "link", "set", "mine", "up"]);
        // A part that is not of its network means nothing, as with dockerd.
        let config = Config { fixed_cidr: "10.51.0.0/28".parse().ok(), ..config };
        let networks = Networks::open(config).unwrap();
        let endpoint = networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
        assert_eq!(
            (endpoint.place.endpoints[0].ipv4.unwrap().gateway, endpoint.place.endpoints[0].ipv4.unwrap().address),
            (Some(Ipv4Addr::new(10, 50, 0, 1)), Ipv4Addr::new(10, 50, 0, 2))
        );
        let server = listen(&endpoint, 80);
        reach(&server, HOME, 8080).unwrap();
        networks.leave("one").unwrap();
        networks.close().unwrap();
        assert!(run(&["ip", "-o", "link"]).contains("mine"));
    });
}

#[test]
fn privileged_close_leaves_nothing() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let endpoint = networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
        networks.leave("one").unwrap();
        drop(endpoint);
        networks.close().unwrap();
        wait_until_links(0);
        assert!(!run(&["ip", "-o", "link"]).contains("ls0123abcd"));
        assert_eq!(run(&["nft", "list", "ruleset"]), "");
        let left: Vec<_> = std::fs::read_dir(lab.directory.path().join("network/endpoints")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(!lab.directory.path().join("network/bridge.json").exists());
    });
}
