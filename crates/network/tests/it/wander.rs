//! A SIGKILL while networks come and go and containers wander between them.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use network::{Config, DEFAULT, DriverKind, EndpointRequest, JoinError, Networks, UserNetworkRequest};

use crate::crash::Random;
use crate::lab::*;

const STATE: &str = "LONGSHORE_TEST_WANDER_STATE";
const SEED: &str = "LONGSHORE_TEST_WANDER_SEED";

/// The process that is killed.
fn victim(state: PathBuf) -> ! {
    let mut random = Random(std::env::var(SEED).unwrap().parse().unwrap());
    let networks = Networks::open(Config::new("0123abcd", state)).unwrap();
    networks.reconcile(&[]).unwrap();
    let ports = [publish(None, 8000, 80)];
    let one = networks.join(&request("one", &ports)).unwrap();
    loop {
        let users = networks.user_networks();
        let any = |random: &mut Random| match random.below(users.len() as u64 + 1) {
            0 => DEFAULT.to_owned(),
            number => users[number as usize - 1].id.clone(),
        };
        match random.below(5) {
            0 if users.len() < 4 => {
                let driver = [DriverKind::Bridge, DriverKind::Macvlan][random.below(2) as usize];
                let name = format!("n{}", random.below(1 << 30));
                networks.create(UserNetworkRequest { name, driver, ..Default::default() }).unwrap();
            }
            1 if !users.is_empty() => {
                // Refused while the container is on it.
                let _ = networks.remove(&users[random.below(users.len() as u64) as usize].id);
            }
            2 | 3 => {
                let wanted = vec![EndpointRequest::on(any(&mut random))];
                match networks.connect(&request_on("one", &ports, wanted), one.namespace.as_fd()) {
                    Ok(_) | Err(JoinError::Joined { .. }) => {}
                    Err(err) => panic!("{}", errdefs::chain(&err)),
                }
            }
            _ => drop(networks.disconnect("one", &any(&mut random), Some(one.namespace.as_fd())).unwrap()),
        }
    }
}

/// How many networks have something on this machine: bridges, and parents that lead nowhere.
fn standing() -> usize {
    let is_ours = |line: &&str| line.contains(": br-") || line.contains(": dm-");
    run(&["ip", "-o", "link"]).lines().filter(is_ours).count()
}

#[test]
fn privileged_nothing_is_left_of_a_daemon_killed_among_networks() {
    if let Some(state) = std::env::var_os(STATE) {
        victim(state.into());
    }
    on_a_machine(|lab| {
        for seed in 0..12 {
            let victim = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "wander::privileged_nothing_is_left_of_a_daemon_killed_among_networks"])
                .env(STATE, lab.config().state_dir)
                .env(SEED, seed.to_string())
                .stdout(Stdio::null())
                .stderr(Stdio::inherit())
                .spawn();
            let mut victim = victim.unwrap();
            // The moment is what is random here, not something waited for.
            std::thread::sleep(Duration::from_micros(Random(seed).below(400_000)));
            let ended = victim.try_wait().unwrap();
            victim.kill().unwrap();
            victim.wait().unwrap();
            assert_eq!(ended, None, "the victim failed by itself, seed {seed}");
            let networks = Networks::open(lab.config()).unwrap();
            networks.reconcile(&[]).unwrap();
            let users = networks.user_networks();
            assert_eq!(standing(), users.len(), "seed {seed}");
            let ruleset = run(&["nft", "list", "ruleset"]);
            assert!(!ruleset.contains("elements"), "seed {seed}: {ruleset}");
            for network in users {
                let one = request_on("one", &[publish(None, 8000, 80)], vec![EndpointRequest::on(&network.id)]);
                let one = networks.join(&one).unwrap();
                // Where nobody leads outward, nobody has the first address.
                let lowest = if network.leads_nowhere() { 1 } else { 2 };
                let address = one.place.endpoints[0].ipv4.unwrap().address;
                assert_eq!(address.octets()[3], lowest, "seed {seed}: all is free again");
                networks.leave("one").unwrap();
                drop(one);
                networks.remove(&network.id).unwrap();
            }
            networks.close().unwrap();
            wait_until_links(0);
            assert_eq!((standing(), run(&["nft", "list", "ruleset"])), (0, String::new()), "seed {seed}");
        }
    });
}
