//! What a SIGKILL leaves, and who cleans it up.
//!
//! The test starts itself as another process on the scratch machine, which joins and leaves at random; kills it, and
//! looks at what the next daemon makes of it.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use network::{Config, Networks};

use crate::lab::*;

const STATE: &str = "LONGSHORE_TEST_NETWORK_STATE";
const SEED: &str = "LONGSHORE_TEST_NETWORK_SEED";

/// A small generator, so that a failure can be repeated from its seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }
}

/// The process that is killed.
fn victim(state: PathBuf) -> ! {
    let mut random = Random(std::env::var(SEED).unwrap().parse().unwrap());
    let networks = Networks::open(Config::new("0123abcd", state)).unwrap();
    networks.reconcile(&[]).unwrap();
    // What joins under the same name again finds address and port free.
    let mut joined: [Option<network::Joined>; 6] = Default::default();
    loop {
        let number = random.below(6);
        let container = format!("c{number}");
        match joined[number as usize].take() {
            Some(_) => networks.leave(&container).unwrap(),
            None => {
                let ports = [publish(None, 8000 + number as u16, 80), publish(Some(HOME), 9000 + number as u16, 80)];
                let count = random.below(3) as usize;
                let egress = (number % 2 == 1).then(|| "deny,allow=10.9.0.0/16:80".parse().unwrap());
                let wish = network::JoinRequest { egress, ..request(&container, &ports[..count]) };
                joined[number as usize] = Some(networks.join(&wish).unwrap());
            }
        }
    }
}

fn start_victim(lab: &Lab, seed: u64) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::privileged_nothing_is_left_of_a_killed_daemon"])
        .env(STATE, lab.config().state_dir)
        .env(SEED, seed.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

#[test]
fn privileged_nothing_is_left_of_a_killed_daemon() {
    if let Some(state) = std::env::var_os(STATE) {
        victim(state.into());
    }
    on_a_machine(|lab| {
        for seed in 0..25 {
            let mut victim = start_victim(&lab, seed);
            // The moment is what is random here, not something waited for.
            std::thread::sleep(Duration::from_micros(Random(seed).below(120_000)));
            let ended = victim.try_wait().unwrap();
            victim.kill().unwrap();
            victim.wait().unwrap();
            assert_eq!(ended, None, "the victim failed by itself, seed {seed}");
            let networks = Networks::open(lab.config()).unwrap();
            networks.reconcile(&[]).unwrap();
            let ruleset = run(&["nft", "list", "ruleset"]);
            assert!(!ruleset.contains("elements"), "seed {seed}: {ruleset}");
            let left: Vec<_> =
                std::fs::read_dir(lab.config().state_dir.join("endpoints")).into_iter().flatten().collect();
            assert!(left.is_empty(), "seed {seed}: {left:?}");
            // All is free again.
            let one = networks.join(&request("c0", &[publish(None, 8000, 80)])).unwrap();
            assert_eq!(one.place.endpoints[0].ipv4.unwrap().address, Ipv4Addr::new(172, 17, 0, 2));
            let server = listen(&one, 80);
            inside(lab.second.as_fd(), || reach(&server, MACHINE, 8000)).unwrap();
            networks.leave("c0").unwrap();
            drop((one, server));
            networks.close().unwrap();
            wait_until_links(0);
            assert_eq!(run(&["nft", "list", "ruleset"]), "", "seed {seed}");
        }
    });
}

#[test]
fn privileged_containers_outlive_the_daemon() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let one = networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
        let two = networks.join(&request("two", &[publish(None, 8081, 80)])).unwrap();
        let (server, other) = (listen(&one, 80), listen(&two, 80));
        // Gone without a word; only the namespaces' other holders stay.
        std::mem::forget(networks);
        let networks = Networks::open(lab.config()).unwrap();
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
        run(&["ip", "link", "del", "ls0123abcd"]);
        run(&["nft", "flush", "ruleset"]);
        networks.reconcile(&["one", "unknown"]).unwrap();
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
        inside(lab.second.as_fd(), || reach(&server, one.place.endpoints[0].ipv4.unwrap().gateway.unwrap(), 8080))
            .unwrap();
        reach(&server, HOME, 8080).unwrap();
        let ruleset = run(&["nft", "list", "ruleset"]);
        assert!(ruleset.contains("8080") && !ruleset.contains("8081"), "two is not alive: {ruleset}");
        drop(other);
        let three = networks.join(&request("three", &[])).unwrap();
        assert_eq!(three.place.endpoints[0].ipv4.unwrap().address, two.place.endpoints[0].ipv4.unwrap().address);
        let refused = networks.join(&request("four", &[publish(None, 8080, 80)]));
        assert!(
            errdefs::chain(&refused.unwrap_err()).ends_with("Bind for 0.0.0.0:8080 failed: port is already allocated")
        );
    });
}

/// Our chains and maps with the numbers that the kernel gave them.
fn standing() -> String {
    let listed = run(&["nft", "-a", "list", "table", "ip", "longshore-0123abcd"]);
    listed.lines().filter(|line| line.contains("{ # handle")).collect::<Vec<_>>().join("\n")
}

#[test]
fn privileged_the_next_daemon_leaves_no_moment_without_rules() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let one = networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
        let server = listen(&one, 80);
        let before = standing();
        assert!(before.contains("chain output") && before.contains("map ports"), "{before}");
        std::mem::forget(networks);
        // A packet may come between a chain that goes and the next one, and what the kernel decides then holds for the connection.
        let networks = lab.networks_with(&["one"]);
        assert_eq!(standing(), before, "they stay in the packets' way, and what is in them is replaced");
        reach(&server, HOME, 8080).unwrap();
        let elements = run(&["nft", "list", "map", "ip", "longshore-0123abcd", "ports"]);
        assert_eq!(elements.matches("tcp . 8080").count(), 1, "{elements}");
        networks.leave("one").unwrap();
        drop(server);
        std::mem::forget(networks);
        let networks = lab.networks();
        networks.join(&request("two", &[])).unwrap();
        let elements = run(&["nft", "list", "map", "ip", "longshore-0123abcd", "ports"]);
        assert!(!elements.contains("8080"), "{elements}");
    });
}

#[test]
fn privileged_chains_and_maps_of_another_version_give_way() {
    on_a_machine(|lab| {
        let table = "longshore-0123abcd";
        run(&["nft", "add", "table", "ip", table]);
        let place = "{ type filter hook prerouting priority -5; policy drop; }";
        run(&["nft", "add", "chain", "ip", table, "forward", place]);
        run(&["nft", "add", "map", "ip", table, "ports", "{ type inet_service : ipv4_addr; }"]);
        let networks = lab.networks();
        let one = networks.join(&request("one", &[publish(None, 8080, 80)])).unwrap();
        let server = listen(&one, 80);
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
    });
}

#[test]
fn privileged_a_shared_hold_outlives_the_daemon() {
    on_a_machine(|lab| {
        let datagrams = network::PortRequest { protocol: network::Protocol::Udp, ..publish(Some(HOME), 8081, 80) };
        let networks = lab.networks();
        let one = networks.join(&request("one", &[publish(Some(HOME), 8080, 80), datagrams])).unwrap();
        assert_eq!(one.holds.len(), 2);
        drop(networks);
        let stream = || std::net::TcpListener::bind((HOME, 8080)).map(drop);
        let datagram = || std::net::UdpSocket::bind((HOME, 8081)).map(drop);
        assert!(stream().is_err() && datagram().is_err());
        let networks = Networks::open(lab.config()).unwrap();
        networks.reconcile(&["one"]).unwrap();
        assert!(stream().is_err() && datagram().is_err());
        // Who ends tells so after it has let go.
        let network::Joined { holds, namespace, .. } = one;
        drop(holds);
        networks.leave("one").unwrap();
        stream().unwrap();
        datagram().unwrap();
        // In the life of one daemon nobody else needs to let go of TCP.
        let two = networks.join(&request("two", &[publish(Some(HOME), 8080, 80), datagrams])).unwrap();
        networks.leave("two").unwrap();
        stream().unwrap();
        drop((two, namespace));
        datagram().unwrap();
    });
}

#[test]
fn privileged_a_torn_record_is_set_aside() {
    on_a_machine(|lab| {
        let directory = lab.config().state_dir.join("endpoints");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("one"), b"{\"container\":").unwrap();
        let networks = lab.networks();
        networks.join(&request("one", &[])).unwrap();
        assert!(directory.join("one.torn").exists());
    });
}

#[test]
fn privileged_a_thousand_joins_and_leaves_leave_nothing() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let networks = &networks;
                scope.spawn(move || {
                    for round in 0..125 {
                        let container = format!("c{thread}x{round}");
                        let ports = [publish(None, 0, 80), publish(None, 8000 + thread, 81)];
                        let egress = (thread % 2 == 1).then(|| "deny,allow=10.9.0.0/16:80".parse().unwrap());
                        let wish = network::JoinRequest { egress, ..request(&container, &ports) };
                        let endpoint = networks.join(&wish).unwrap();
                        assert_eq!(endpoint.place.ports.len(), 2);
                        networks.leave(&container).unwrap();
                    }
                });
            }
        });
        assert!(!run(&["nft", "list", "ruleset"]).contains("elements"));
        networks.close().unwrap();
        wait_until_links(0);
    });
}
