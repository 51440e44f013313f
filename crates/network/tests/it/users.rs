//! Networks that users make.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use network::{
    CreateError, DEFAULT, EndpointRequest, JoinError, Networks, RangeRequest, RemoveError, UserNetworkRequest,
};

use crate::lab::*;

fn wish(name: &str, subnet: &str) -> UserNetworkRequest {
    let ipv4 = RangeRequest { subnet: subnet.parse().ok(), ..RangeRequest::default() };
    UserNetworkRequest { name: name.to_owned(), ipv4, ..UserNetworkRequest::default() }
}

fn routes(joined: &network::Joined) -> String {
    inside(joined.namespace.as_fd(), || run(&["ip", "route", "show", "default"]))
}

#[test]
fn privileged_networks_are_made_joined_and_removed() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let a = networks.create(wish("a", "10.7.0.0/24")).unwrap();
        let b = networks.create(wish("b", "")).unwrap();
        assert_eq!(
            (a.driver.bridge().unwrap().bridge.as_str(), b.ipv4.as_ref().unwrap().subnet.to_string().as_str()),
            (&*format!("br-{}", &a.id[..12]), "172.18.0.0/16")
        );
        assert!(matches!(networks.create(wish("a", "")), Err(CreateError::Exists(_))));
        assert!(matches!(networks.create(wish("c", "10.7.0.0/25")), Err(CreateError::Overlap)));
        let both = vec![EndpointRequest::on(&b.id), EndpointRequest::on(&a.id)];
        let one = networks.join(&request_on("one", &[publish(None, 8080, 80)], both)).unwrap();
        assert_eq!(one.place.on(&a.id).unwrap().ipv4.unwrap().address, Ipv4Addr::new(10, 7, 0, 2));
        assert!(routes(&one).contains("via 10.7.0.1"), "the first name has the gateway");
        let links = inside(one.namespace.as_fd(), || run(&["ip", "-o", "addr"]));
        assert!(links.contains("eth0    inet 172.18.0.2/16") && links.contains("eth1    inet 10.7.0.2/24"), "{links}");
        let two = networks.join(&request_on("two", &[], vec![EndpointRequest::on(&a.id)])).unwrap();
        let three = networks.join(&request("three", &[])).unwrap();
        let server = listen(&one, 80);
        inside(two.namespace.as_fd(), || reach(&server, Ipv4Addr::new(10, 7, 0, 2), 80)).unwrap();
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
        // From another network nobody is reached but by the host's port.
        for address in [Ipv4Addr::new(10, 7, 0, 2), Ipv4Addr::new(172, 18, 0, 2)] {
            assert!(inside(three.namespace.as_fd(), || is_unreachable(address, 80)), "{address}");
        }
        inside(three.namespace.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
        assert!(matches!(networks.remove(&a.id), Err(RemoveError::InUse { .. })));
        for container in ["one", "two", "three"] {
            networks.leave(container).unwrap();
        }
        networks.remove(&a.id).unwrap();
        networks.remove(&b.id).unwrap();
        assert!(!run(&["ip", "-o", "link"]).contains(&a.driver.bridge().unwrap().bridge));
        assert!(networks.user_networks().is_empty());
    });
}

#[test]
fn privileged_running_containers_connect_and_disconnect() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let a = networks.create(wish("a", "10.7.0.0/24")).unwrap();
        let b = networks.create(wish("b", "10.8.0.0/24")).unwrap();
        let inner = UserNetworkRequest { internal: true, ..wish("0", "10.6.0.0/24") };
        let inner = networks.create(inner).unwrap();
        let on = |network: &str| vec![EndpointRequest::on(network)];
        let one = networks.join(&request_on("one", &[publish(None, 8080, 80)], on(&b.id))).unwrap();
        let server = listen(&one, 80);
        let here = one.namespace.as_fd();
        let ports = [publish(None, 8080, 80)];
        let place = networks.connect(&request_on("one", &ports, on(&a.id)), here).unwrap();
        assert_eq!((place.endpoints.len(), place.ports.len()), (2, 1));
        assert!(routes(&one).contains("via 10.7.0.1"));
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
        networks.connect(&request_on("one", &ports, on(&inner.id)), here).unwrap();
        assert!(routes(&one).contains("via 10.7.0.1"), "an internal network leads nowhere");
        let again = networks.connect(&request_on("one", &ports, on(&a.id)), here);
        assert!(matches!(again, Err(JoinError::Joined { network, .. }) if network == "a"));
        networks.disconnect("one", &a.id, Some(here)).unwrap().unwrap();
        assert!(routes(&one).contains("via 10.8.0.1"));
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
        networks.disconnect("one", &b.id, Some(here)).unwrap().unwrap();
        assert_eq!(routes(&one), "");
        assert!(networks.place("one").unwrap().ports.is_empty());
        assert!(inside(here, || is_unreachable(NEIGHBOUR, 80)));
        assert_eq!(networks.disconnect("one", &b.id, Some(here)).unwrap(), None);
        networks.connect(&request_on("one", &ports, on(DEFAULT)), here).unwrap();
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
        networks.leave("one").unwrap();
        drop((one, server));
        for network in [&a, &b, &inner] {
            networks.remove(&network.id).unwrap();
        }
        networks.close().unwrap();
        wait_until_links(0);
        assert!(!run(&["nft", "list", "tables"]).contains("longshore"));
    });
}

#[test]
fn privileged_what_the_packet_filter_refuses_is_as_before() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let a = networks.create(wish("a", "10.7.0.0/24")).unwrap();
        let b = networks.create(wish("b", "10.8.0.0/24")).unwrap();
        let on = |network: &str| vec![EndpointRequest::on(network)];
        let ports = [publish(None, 8080, 80)];
        let one = networks.join(&request_on("one", &ports, on(&b.id))).unwrap();
        let (server, here) = (listen(&one, 80), one.namespace.as_fd());
        let taken = OwnedTable::of_ours();
        networks.connect(&request_on("one", &ports, on(&a.id)), here).unwrap_err();
        assert!(routes(&one).contains("via 10.8.0.1"), "{}", routes(&one));
        networks.disconnect("one", &b.id, Some(here)).unwrap_err();
        let place = networks.place("one").unwrap();
        assert!(place.on(&b.id).is_some() && place.endpoints.len() == 1 && place.ports.len() == 1, "{place:?}");
        assert!(matches!(networks.remove(&a.id), Err(RemoveError::Network(_))));
        assert_eq!(networks.user_networks().len(), 2);
        drop(taken);
        networks.connect(&request_on("one", &ports, on(&a.id)), here).unwrap();
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
        networks.disconnect("one", &a.id, Some(here)).unwrap().unwrap();
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
        networks.remove(&a.id).unwrap();
    });
}

#[test]
fn privileged_a_choice_that_waits_holds_up_nobody_else() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        networks.join(&request("first", &[])).unwrap();
        let choosing = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        rustix::fs::flock(&choosing, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let made = scope.spawn(|| networks.create(wish("a", "10.7.0.0/24")));
            wait_until("the choice waits", || {
                std::fs::read_to_string("/proc/locks").unwrap().contains(&waiting(&choosing))
            });
            let networks = &networks;
            scope.spawn(move || sender.send(networks.join(&request("second", &[])).map(drop)));
            let joined = receiver.recv_timeout(std::time::Duration::from_secs(5));
            drop(choosing);
            joined.expect("it starts while another one waits").unwrap();
            made.join().unwrap().unwrap();
        });
    });
}

/// How the kernel lists who waits for the lock of this file, without the process, which is anybody of this test.
fn waiting(file: &std::fs::File) -> String {
    use std::os::unix::fs::MetadataExt;
    let metadata = file.metadata().unwrap();
    let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    format!("-> FLOCK  ADVISORY  WRITE {} {major:02x}:{minor:02x}:{} ", std::process::id(), metadata.ino())
}

#[test]
fn privileged_what_fails_leaves_nothing() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let a = networks.create(wish("a", "10.7.0.0/30")).unwrap();
        let on_a = || vec![EndpointRequest::on(&a.id)];
        let one = networks.join(&request_on("one", &[], on_a())).unwrap();
        let two = networks.join(&request("two", &[])).unwrap();
        let full = networks.connect(&request_on("two", &[], on_a()), two.namespace.as_fd());
        assert!(matches!(full, Err(JoinError::AddressesExhausted { name, .. }) if name == "a"));
        // One that was on no network is on none, and starts all the same.
        let full = networks.connect(&request_on("three", &[], on_a()), two.namespace.as_fd());
        assert!(matches!(full, Err(JoinError::AddressesExhausted { .. })));
        assert_eq!(networks.place("three"), None);
        drop(networks.join(&request("three", &[])).unwrap());
        networks.leave("three").unwrap();
        // The name of an interface that is there.
        let taken = EndpointRequest { interface: Some("eth0".to_owned()), ..EndpointRequest::on(DEFAULT) };
        networks.connect(&request_on("one", &[], vec![taken]), one.namespace.as_fd()).unwrap_err();
        assert_eq!(networks.place("one").unwrap(), one.place);
        let links = run(&["ip", "-o", "link"]);
        let (_, address) = (
            links,
            networks.connect(&request_on("one", &[], vec![EndpointRequest::on(DEFAULT)]), one.namespace.as_fd()),
        );
        assert_eq!(address.unwrap().on(DEFAULT).unwrap().ipv4.unwrap().address, Ipv4Addr::new(172, 17, 0, 3));
        networks.leave("one").unwrap();
        networks.leave("two").unwrap();
    });
}

#[test]
fn privileged_containers_of_an_unprotected_network_are_reached_by_their_own_addresses() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let unprotected = |name: &str, subnet: &str, more: &[(&str, &str)]| {
            let mode = ("com.docker.network.bridge.gateway_mode_ipv4", "nat-unprotected");
            let options = more.iter().chain([&mode]).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            networks.create(UserNetworkRequest { options: options.collect(), ..wish(name, subnet) }).unwrap()
        };
        let open = unprotected("open", "10.7.0.0/24", &[]);
        let apart = unprotected("apart", "10.8.0.0/24", &[("com.docker.network.bridge.enable_icc", "false")]);
        let plain = networks.create(wish("plain", "10.6.0.0/24")).unwrap();
        let join = |name: &str, network: &str| {
            let joined = networks.join(&request_on(name, &[], vec![EndpointRequest::on(network)])).unwrap();
            let address = joined.place.endpoints[0].ipv4.unwrap().address;
            let server = listen(&joined, 80);
            (joined, address, server)
        };
        let (of_open, of_apart, of_plain) = (join("o", &open.id), join("a", &apart.id), join("p", &plain.id));
        // Nothing is published.
        for (_, address, server) in [&of_open, &of_apart] {
            let client = inside(lab.second.as_fd(), || reach(server, *address, 80)).unwrap();
            assert_eq!(client.ip(), NEIGHBOUR);
        }
        assert!(inside(lab.second.as_fd(), || is_unreachable(of_plain.1, 80)));
        // From other networks, too, and not to them.
        inside(of_plain.0.namespace.as_fd(), || reach(&of_open.2, of_open.1, 80)).unwrap();
        assert!(inside(of_open.0.namespace.as_fd(), || is_unreachable(of_plain.1, 80)));
        let internal = UserNetworkRequest { internal: true, ..wish("internal", "10.5.0.0/24") };
        let of_internal = join("i", &networks.create(internal).unwrap().id);
        // One that makes itself a way out. Answers would not come back in any case.
        let datagrams = bind_udp(&of_open.0, 53);
        inside(of_internal.0.namespace.as_fd(), || {
            run(&["ip", "route", "add", "default", "via", "10.5.0.1"]);
            assert!(is_unreachable(of_open.1, 80));
            std::net::UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"out", (of_open.1, 53)).unwrap();
        });
        let from_elsewhere = inside(lab.second.as_fd(), || std::net::UdpSocket::bind((NEIGHBOUR, 0)).unwrap());
        from_elsewhere.send_to(b"in", (of_open.1, 53)).unwrap();
        let mut first = [0; 8];
        let length = datagrams.recv(&mut first).unwrap();
        assert_eq!(&first[..length], b"in");
        // What neighbours may do is another matter.
        let neighbour = join("b", &apart.id);
        assert!(inside(neighbour.0.namespace.as_fd(), || is_unreachable(of_apart.1, 80)));
        // The way out is the one of other networks.
        let outside = inside(lab.second.as_fd(), || std::net::TcpListener::bind((NEIGHBOUR, 80)).unwrap());
        assert_eq!(inside(of_open.0.namespace.as_fd(), || reach(&outside, NEIGHBOUR, 80)).unwrap().ip(), MACHINE);
    });
}

#[test]
fn privileged_networks_and_bridges_are_there_again_after_a_reboot() {
    on_a_machine(|lab| {
        let mut config = lab.config();
        config.data_dir = lab.directory.path().join("data");
        let networks = Networks::open(config.clone()).unwrap();
        networks.reconcile(&[]).unwrap();
        let a = networks.create(wish("a", "10.7.0.0/24")).unwrap();
        networks.close().unwrap();
        drop(networks);
        assert!(!run(&["ip", "-o", "link"]).contains(&a.driver.bridge().unwrap().bridge));
        std::fs::remove_dir_all(&config.state_dir).unwrap();
        let networks = Networks::open(config.clone()).unwrap();
        networks.reconcile(&[]).unwrap();
        assert!(run(&["ip", "-o", "addr"]).contains("10.7.0.1/24"));
        assert_eq!(networks.user_networks(), std::slice::from_ref(&a));
        let one = networks.join(&request_on("one", &[], vec![EndpointRequest::on(&a.id)])).unwrap();
        // Killed: the next one finds the container, and the link that somebody unplugged is plugged again.
        std::mem::forget(networks);
        run(&["ip", "link", "delete", &a.driver.bridge().unwrap().bridge]);
        let networks = Networks::open(config).unwrap();
        networks.reconcile(&["one"]).unwrap();
        assert_eq!(networks.place("one").unwrap(), one.place);
        let two = networks.join(&request_on("two", &[], vec![EndpointRequest::on(&a.id)])).unwrap();
        let server = listen(&one, 80);
        inside(two.namespace.as_fd(), || reach(&server, one.place.endpoints[0].ipv4.unwrap().address, 80)).unwrap();
        // What a connect began that nobody recorded.
        networks.connect(&request_on("one", &[], vec![EndpointRequest::on(DEFAULT)]), one.namespace.as_fd()).unwrap();
        networks.keep_only("one", &[&a.id]).unwrap();
        assert_eq!(networks.place("one").unwrap(), one.place);
    });
}
