//! kill -9 of the daemon amid changes of networks and published ports, at random points: what is told of a container is what it
//! has, what is published answers, and no link, address, rule or lease is left.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use testkit::process::{DEADLINE, until};
use testkit::{Cli, Daemon, Piped};

use crate::crash::{Remains, difference, remains};
use crate::republish::{fetch_soon, home};
use crate::support::{At, ours};

/// How many changes the long test makes, and the quick one.
const CHANGES: usize = 200;
const CHANGES_QUICK: usize = 30;

/// How many are under way when the daemon is killed.
const AT_ONCE: usize = 3;

/// What a change takes at most when nobody is in its way.
const USUAL: Duration = Duration::from_millis(40);

/// Addresses that a network of this prefix has for containers.
const PREFIX: u8 = 29;
const LEASES: usize = 5;

const SERVER: &str = "sh -c 'mkdir /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www'";

/// What is typed; `C` is a container that stays, `N` a network, `T` a container that comes and goes.
const LINES: [&str; 7] = [
    "network connect N C",
    "network disconnect N C",
    "update --publish-add HOME::80 C",
    "update --publish-rm 80 C",
    "run -d --network N -p HOME::80 --name T busybox sleep 1000",
    "rm -f T",
    "restart -t 0 C",
];

#[test]
fn privileged_quick_changes_of_networks_that_are_cut_leave_nothing() {
    ours(|daemon| changes(daemon, CHANGES_QUICK));
}

#[test]
fn privileged_slow_changes_of_networks_that_are_cut_leave_nothing() {
    ours(|daemon| changes(daemon, CHANGES));
}

fn changes(daemon: &mut Daemon, changes: usize) {
    let seed = u64::from(std::process::id()) << 32;
    let mut chance = testkit::mutate::Mutator::new(seed);
    let networks = networks(daemon);
    {
        let at = At { daemon, cli: Cli::Longshore };
        for (number, name) in networks.iter().enumerate() {
            at.ok(&format!("network create --subnet {}/{PREFIX} {name}", subnet(number)));
        }
        for container in containers(daemon) {
            at.ok(&format!("run -d --name {container} busybox {SERVER}"));
        }
    }
    for round in 0..changes / AT_ONCE {
        let lines: [String; AT_ONCE] = std::array::from_fn(|client| {
            let (line, network): (&&str, &String) = (chance.pick(&LINES), chance.pick(&networks));
            typed(daemon, line, client, network)
        });
        let delay = Duration::from_micros(chance.below(USUAL.as_micros() as usize) as u64);
        println!("-- round {round}: killed after {delay:?}");
        cut(daemon, &lines, delay);
        let at = At { daemon, cli: Cli::Longshore };
        containers(daemon).iter().for_each(|container| check(&at, container, &lines));
        assert!(!daemon.scratch().log().contains("panicked"), "{}", daemon.scratch().log());
    }
    check_leases(daemon, &networks[0]);
    check_end(daemon, &networks);
}

fn networks(daemon: &Daemon) -> [String; 2] {
    ["changed", "other"].map(|name| daemon.name(name))
}

/// Each has its own client, so that no two changes of one round are about the same container.
fn containers(daemon: &Daemon) -> [String; AT_ONCE] {
    std::array::from_fn(|number| daemon.name(&format!("kept{number}")))
}

/// A small network for this process: tests side by side have bridges on the same machine.
fn subnet(number: usize) -> String {
    let id = std::process::id().to_be_bytes();
    format!("10.{}.{}.{}", 200 + id[2] % 50, id[3], 8 * number)
}

fn typed(daemon: &Daemon, line: &str, client: usize, network: &str) -> String {
    let word = |word: &str| match word {
        "N" => network.to_owned(),
        "C" => containers(daemon)[client].clone(),
        "T" => daemon.name(&format!("brief{client}")),
        word => word.replace("HOME", &home()),
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// Types the lines, and kills the daemon.
fn cut(daemon: &mut Daemon, lines: &[String], delay: Duration) {
    let clients: Vec<Piped> = {
        let at = At { daemon, cli: Cli::Longshore };
        lines.iter().map(|line| at.spawn(line)).collect()
    };
    // A wait for time, because the point of the kill is what is random.
    std::thread::sleep(delay);
    daemon.kill9().unwrap();
    daemon.restart().unwrap();
    for client in clients {
        let output = client.wait().expect("the client ends");
        println!("   {} {}", output.code, output.stderr.trim());
    }
}

/// What is told of a container is so.
fn check(at: &At<'_>, container: &str, lines: &[String]) {
    let mut last = String::new();
    let right = until("a container that has what is told", DEADLINE, || {
        let inspect = at.daemon.get(&format!("/containers/{container}/json")).ok()?.json().ok()?;
        if inspect["State"]["Running"] != true {
            // A restart was cut.
            last = at.line(&format!("start {container}")).stderr;
            return None;
        }
        let told = told(&inspect["NetworkSettings"]["Networks"]);
        let has = has(&at.line(&format!("exec {container} ip -4 -o addr")).stdout);
        last = format!("{told:?} is told, {has:?} is there");
        (told == has).then_some(())
    });
    assert!(right.is_ok(), "{container} after {lines:?}: {last}");
    for address in at.ok(&format!("port {container}")).lines().filter_map(|line| line.split(" -> ").nth(1)) {
        assert_eq!(fetch_soon(address), "hello", "{container} after {lines:?}");
    }
}

fn told(networks: &Value) -> BTreeSet<String> {
    let networks = networks.as_object().into_iter().flatten();
    let addresses = networks.filter_map(|(_, one)| one["IPAddress"].as_str().filter(|address| !address.is_empty()));
    addresses.map(str::to_owned).collect()
}

/// The addresses that `ip -o addr` shows, but those of the loopback.
fn has(shown: &str) -> BTreeSet<String> {
    let addresses = shown.lines().filter_map(|line| line.split_once(" inet ")?.1.split('/').next());
    addresses.filter(|address| !address.starts_with("127.")).map(str::to_owned).collect()
}

/// All addresses of the network are to be had again.
fn check_leases(daemon: &Daemon, network: &str) {
    let at = At { daemon, cli: Cli::Longshore };
    let removed: Vec<String> = at.ok("ps -aq").lines().map(str::to_owned).collect();
    at.ok(&format!("rm -f {}", removed.join(" ")));
    let run = |number: usize| {
        format!("run -d --network {network} --name {} busybox sleep 1000", daemon.name(&format!("lease{number}")))
    };
    let ids: Vec<String> = (0..LEASES).map(|number| at.ok(&run(number))).collect();
    at.fails(&run(LEASES), 125, "no available IPv4 addresses on this network's address pools");
    at.ok(&format!("rm -f {} {}", ids.join(" "), daemon.name(&format!("lease{LEASES}"))));
}

/// Without containers and networks the machine is as after a network of another instance that nobody was cut off.
fn check_end(daemon: &Daemon, networks: &[String]) {
    let fresh = Daemon::with_busybox().unwrap();
    let at = At { daemon: &fresh, cli: Cli::Longshore };
    let name = fresh.name("brief");
    at.ok(&format!("network create {name}"));
    at.ok(&format!("run --rm --network {name} -p 127.0.0.1::80 busybox true"));
    at.ok(&format!("network rm {name}"));
    At { daemon, cli: Cli::Longshore }.ok(&format!("network rm {}", networks.join(" ")));
    let (mut here, mut there) = (Remains::default(), Remains::default());
    let equal = until("equal", DEADLINE, || {
        (here, there) = (remains(daemon).without_names(), remains(&fresh).without_names());
        (here == there).then_some(())
    });
    assert!(equal.is_ok(), "{}", difference(&here, &there));
}
