//! firewalld as the machine's firewall.

use std::net::TcpListener;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use network::{Config, Networks, UserNetworkRequest, firewalld_state};
use rustix::process::Signal;
use testkit::Firewalld;
use testkit::firewalld::SilentBus;

use crate::foreign::{with_a_healer, within_a_second};
use crate::lab::*;

const BRIDGE: &str = "ls0123abcd";
/// How long whoever needs firewalld waits for it, and what else may take its time on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(5);
const SLACK: Duration = Duration::from_secs(4);

fn config(lab: &Lab, firewalld: &Firewalld) -> Config {
    Config { system_bus: Some(firewalld.bus().socket()), ..lab.config() }
}

fn named(name: &str) -> UserNetworkRequest {
    UserNetworkRequest { name: name.to_owned(), ..UserNetworkRequest::default() }
}

fn has(firewalld: &Firewalld, bridge: &str) -> bool {
    firewalld.interfaces("docker").unwrap().iter().any(|one| one == bridge)
}

#[test]
fn privileged_bridges_join_a_zone_and_pass_a_firewalld_that_drops() {
    on_a_machine(|lab| {
        let mut firewalld = Firewalld::start("drop").unwrap();
        let outside = inside(lab.second.as_fd(), || TcpListener::bind((NEIGHBOUR, 7)).unwrap());
        let networks = Networks::open(config(&lab, &firewalld)).unwrap();
        let one = networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
        let server = listen(&one, 80);
        let passes = || {
            inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
            inside(one.namespace.as_fd(), || reach(&outside, NEIGHBOUR, 7)).unwrap();
        };
        // At once: who has joined is in the zone.
        passes();
        assert_eq!(firewalld.interfaces("docker").unwrap(), [BRIDGE]);
        assert!(firewalld_state(&networks).running);
        let policy = firewalld.command(&["--permanent", "--info-policy=docker-forwarding"]).unwrap();
        for line in ["target: ACCEPT", "ingress-zones: ANY", "egress-zones: docker"] {
            assert!(policy.contains(line), "{line} in {policy}");
        }
        // What a firewalld that does not know our bridge does to what a container sends.
        firewalld.command(&["--zone=docker", &format!("--remove-interface={BRIDGE}")]).unwrap();
        assert!(inside(one.namespace.as_fd(), || is_unreachable(NEIGHBOUR, 7)));
        firewalld.command(&["--reload"]).unwrap();
        within_a_second("the bridge is back after a reload", || has(&firewalld, BRIDGE));
        passes();
        assert!(firewalld_state(&networks).reloaded_at.is_some());
        firewalld.end(Signal::TERM).unwrap();
        within_a_second("it is known to be gone", || !firewalld_state(&networks).running);
        firewalld.run().unwrap();
        within_a_second("the bridge is back after a start", || has(&firewalld, BRIDGE));
        passes();
        let second = networks.create(named("second")).unwrap();
        let bridge = format!("br-{}", &second.id[..12]);
        assert_eq!(firewalld.interfaces("docker").unwrap().len(), 2, "{:?}", firewalld.interfaces("docker").unwrap());
        assert!(has(&firewalld, &bridge));
        networks.remove(&second.id).unwrap();
        assert_eq!(firewalld.interfaces("docker").unwrap(), [BRIDGE]);
        networks.leave("one").unwrap();
        networks.close().unwrap();
        assert!(firewalld.interfaces("docker").unwrap().is_empty());
        // Both stay, as Docker's do: an installed one has the same.
        assert!(firewalld.zones().unwrap().iter().any(|zone| zone == "docker"));
    });
}

#[test]
fn privileged_a_daemon_that_was_killed_leaves_its_bridge_in_the_zone() {
    on_a_machine(|lab| {
        let firewalld = Firewalld::start("drop").unwrap();
        let outside = inside(lab.second.as_fd(), || TcpListener::bind((NEIGHBOUR, 7)).unwrap());
        let networks = Networks::open(config(&lab, &firewalld)).unwrap();
        let one = networks.join(&request("one", &[])).unwrap();
        kill(networks, 1);
        inside(one.namespace.as_fd(), || reach(&outside, NEIGHBOUR, 7)).unwrap();
        let networks = Networks::open(config(&lab, &firewalld)).unwrap();
        networks.reconcile(&[]).unwrap();
        networks.close().unwrap();
        assert!(firewalld.interfaces("docker").unwrap().is_empty());
    });
}

#[test]
fn privileged_published_ports_of_a_routed_network_are_forwarded_past_firewalld() {
    on_a_machine(|lab| {
        let firewalld = Firewalld::start("drop").unwrap();
        let networks = Networks::open(config(&lab, &firewalld)).unwrap();
        let option = ("com.docker.network.bridge.gateway_mode_ipv4".to_owned(), "routed".to_owned());
        let request = UserNetworkRequest { options: [option].into(), ..named("routed") };
        let network = networks.create(request).unwrap();
        let endpoints = vec![network::EndpointRequest::on(&network.id)];
        let one = networks.join(&request_on("one", &[publish(None, 0, 80)], endpoints)).unwrap();
        let (server, address) = (listen(&one, 80), one.place.endpoints[0].ipv4.unwrap().address);
        inside(lab.second.as_fd(), || reach(&server, address, 80)).unwrap();
        // That is what the policy is for.
        firewalld.command(&["--policy=docker-forwarding", "--remove-ingress-zone=ANY"]).unwrap();
        assert!(inside(lab.second.as_fd(), || is_unreachable(address, 80)));
    });
}

#[test]
fn privileged_a_firewalld_that_comes_later_gets_our_bridges() {
    on_a_machine(|lab| {
        let mut firewalld = Firewalld::prepare("drop").unwrap();
        let begun = Instant::now();
        let networks = Networks::open(config(&lab, &firewalld)).unwrap();
        networks.join(&request("one", &[])).unwrap();
        assert!(begun.elapsed() < PATIENCE, "nobody is waited for: {:?}", begun.elapsed());
        assert!(!firewalld_state(&networks).running);
        firewalld.run().unwrap();
        // It makes the zone first.
        wait_until("the bridge is in the zone", || has(&firewalld, BRIDGE));
    });
}

#[test]
fn privileged_a_bus_that_comes_later_is_found_when_firewalld_starts() {
    on_a_machine(|lab| {
        let socket = lab.directory.path().join("bus");
        let networks = Networks::open(Config { system_bus: Some(socket.clone()), ..lab.config() }).unwrap();
        networks.join(&request("one", &[])).unwrap();
        assert_eq!(threads_of_firewalld(), 0, "without a bus there is nobody");
        with_a_healer(&networks, || {
            let mut firewalld = Firewalld::prepare("drop").unwrap();
            std::os::unix::fs::symlink(firewalld.bus().socket(), &socket).unwrap();
            firewalld.run().unwrap();
            wait_until("the bridge is in the zone", || has(&firewalld, BRIDGE));
            assert_eq!(threads_of_firewalld(), 1);
            // The bus ends, and with it who is on it.
            drop(firewalld);
            wait_until("nobody is left", || threads_of_firewalld() == 0);
        });
    });
}

/// Of this process.
fn threads_of_firewalld() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    // One that has ended meanwhile has no name.
    let name = |thread: &std::fs::DirEntry| std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
    threads.filter(|thread| name(thread.as_ref().unwrap()) == "firewalld\n").count()
}

#[test]
fn privileged_in_the_mode_host_firewall_nothing_is_asked_of_firewalld() {
    on_a_machine(|lab| {
        let firewalld = Firewalld::start("drop").unwrap();
        let networks = Networks::open(Config { host_firewall: true, ..config(&lab, &firewalld) }).unwrap();
        let one = networks.join(&request("one", &[])).unwrap();
        let _outside = inside(lab.second.as_fd(), || TcpListener::bind((NEIGHBOUR, 7)).unwrap());
        assert!(inside(one.namespace.as_fd(), || is_unreachable(NEIGHBOUR, 7)));
        assert!(!firewalld.zones().unwrap().iter().any(|zone| zone == "docker"));
        networks.leave("one").unwrap();
        networks.close().unwrap();
    });
}

#[test]
fn privileged_a_bus_that_never_answers_holds_up_one_container_for_a_while() {
    on_a_machine(|lab| {
        let bus = SilentBus::start().unwrap();
        let networks = Networks::open(Config { system_bus: Some(bus.socket()), ..lab.config() }).unwrap();
        let took = |container: &str| {
            let begun = Instant::now();
            networks.join(&request(container, &[])).unwrap();
            begun.elapsed()
        };
        let first = took("one");
        assert!(first < PATIENCE + SLACK, "{first:?}");
        let second = took("two");
        assert!(second < SLACK, "{second:?}");
        assert_eq!(firewalld_state(&networks).fault.as_deref(), Some("it does not answer"));
        ["one", "two"].iter().for_each(|container| networks.leave(container).unwrap());
        let begun = Instant::now();
        networks.close().unwrap();
        assert!(begun.elapsed() < SLACK, "{:?}", begun.elapsed());
    });
}

#[test]
fn privileged_a_firewalld_that_stands_still_gets_everything_when_it_goes_on() {
    on_a_machine(|lab| {
        let firewalld = Firewalld::start("drop").unwrap();
        let networks = Networks::open(config(&lab, &firewalld)).unwrap();
        networks.prepare().unwrap();
        wait_until("the bridge is in the zone", || has(&firewalld, BRIDGE));
        firewalld.signal(Signal::STOP).unwrap();
        let begun = Instant::now();
        let second = networks.create(named("second")).unwrap();
        assert!(begun.elapsed() < PATIENCE + SLACK, "{:?}", begun.elapsed());
        let third = networks.create(named("third")).unwrap();
        firewalld.signal(Signal::CONT).unwrap();
        for network in [second, third] {
            wait_until("its bridge is in the zone", || has(&firewalld, &format!("br-{}", &network.id[..12])));
        }
        within_a_second("nothing is left to tell", || firewalld_state(&networks).fault.is_none());
    });
}

#[test]
fn privileged_a_bridge_that_somebody_has_put_into_another_zone_stays_there() {
    on_a_machine(|lab| {
        let firewalld = Firewalld::start("drop").unwrap();
        run(&["ip", "link", "add", "theirs", "type", "bridge"]);
        firewalld.command(&["--permanent", "--zone=trusted", "--add-interface=theirs"]).unwrap();
        let networks = Networks::open(config(&lab, &firewalld)).unwrap();
        let option = ("com.docker.network.bridge.name".to_owned(), "theirs".to_owned());
        networks.create(UserNetworkRequest { options: [option].into(), ..named("adopted") }).unwrap();
        assert_eq!(firewalld.interfaces("docker").unwrap(), [BRIDGE]);
        assert_eq!(firewalld.interfaces("trusted").unwrap(), ["theirs"]);
        assert_eq!(firewalld_state(&networks).elsewhere, [("theirs".to_owned(), "trusted".to_owned())]);
        firewalld.command(&["--permanent", "--zone=trusted", "--remove-interface=theirs"]).unwrap();
        firewalld.command(&["--reload"]).unwrap();
        within_a_second("both are in the zone", || firewalld.interfaces("docker").unwrap().len() == 2);
    });
}

#[test]
fn privileged_a_firewalld_of_another_network_namespace_is_not_ours() {
    on_a_machine(|lab| {
        let firewalld = inside(lab.second.as_fd(), || Firewalld::start("drop").unwrap());
        let networks = Networks::open(config(&lab, &firewalld)).unwrap();
        networks.join(&request("one", &[])).unwrap();
        assert!(!firewalld_state(&networks).running);
        assert!(!firewalld.zones().unwrap().iter().any(|zone| zone == "docker"));
    });
}
