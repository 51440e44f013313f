//! What stands after something failed: the kernel, the records and what is given out say the same.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use network::{Healer, Networks, PortChange, PortRequest, republish};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::ipv6::{on_a_machine_of_both, publish_on};
use crate::lab::*;

/// What the packet filter and links refuse this thread meanwhile.
fn powerless<T>(act: impl FnOnce() -> T) -> T {
    let all = capabilities(None).unwrap();
    let mut some = all;
    some.effective.remove(CapabilitySet::NET_ADMIN);
    set_capabilities(None, some).unwrap();
    let acted = act();
    set_capabilities(None, all).unwrap();
    acted
}

fn change(before: &[PortRequest], after: &[PortRequest]) -> PortChange {
    PortChange { container: "one".to_owned(), name: "one".to_owned(), before: before.to_vec(), after: after.to_vec() }
}

fn host_ports(networks: &Networks) -> Vec<u16> {
    networks.place("one").unwrap().ports.iter().map(|port| port.host_port).collect()
}

#[test]
fn privileged_a_change_of_ports_that_fails_twice_is_on_no_record() {
    on_a_machine_of_both(|lab| {
        let works = Arc::new(AtomicBool::new(true));
        let networks = lab.networks();
        let is_possible = Arc::clone(&works);
        let start = move |dir: &std::path::Path, socket| {
            let dir = dir.to_owned();
            if !is_possible.load(Ordering::Relaxed) {
                return Err(std::io::ErrorKind::WouldBlock.into());
            }
            let run = move || relay::run(&dir, Some(socket), std::time::Duration::ZERO).unwrap();
            std::thread::Builder::new().spawn(run).map(drop)
        };
        network::start_relays_by(&networks, Box::new(start));
        let (before, after) = (publish_on(Ipv6Addr::LOCALHOST, 8080), publish_on(Ipv6Addr::LOCALHOST, 8081));
        let _one = networks.join(&request("one", &[before])).unwrap();
        works.store(false, Ordering::Relaxed);
        republish(&networks, &change(&[before], &[after])).unwrap_err();
        assert_eq!(host_ports(&networks), [8080]);
        drop(networks);
        assert_eq!(host_ports(&Networks::open(lab.config()).unwrap()), [8080]);
    });
}

#[test]
fn privileged_a_port_that_could_not_be_published_is_published_by_nobody_later() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let (first, second) = (publish(Some(HOME), 8080, 80), publish(Some(HOME), 8081, 81));
        let one = networks.join(&request("one", &[first])).unwrap();
        let mut healer = Healer::listen(&networks).unwrap();
        powerless(|| republish(&networks, &change(&[first], &[first, second]))).unwrap_err();
        assert_eq!(host_ports(&networks), [8080]);
        TcpListener::bind((HOME, 8081)).unwrap();
        // Somebody else's flush has all of it written anew.
        run(&["nft", "flush", "ruleset"]);
        wait_until("the rules are back", || {
            healer.heal(&networks).unwrap();
            run(&["nft", "list", "ruleset"]).contains("8080")
        });
        let rules = run(&["nft", "list", "ruleset"]);
        assert!(!rules.contains("8081"), "{rules}");
        drop(one);
    });
}

#[test]
fn privileged_what_a_container_had_is_nobodys_until_the_kernel_has_nothing_of_it() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let wanted = request("one", &[publish(Some(HOME), 8080, 80)]);
        let one = networks.join(&wanted).unwrap();
        let address = one.place.endpoints[0].ipv4.unwrap().address;
        powerless(|| networks.leave("one")).unwrap_err();
        assert!(run(&["nft", "list", "ruleset"]).contains("8080"));
        assert_eq!(networks.place("one"), None);
        // It goes as soon as it can, and then all that it had is free.
        let again = networks.join(&wanted).unwrap();
        assert_eq!(again.place.endpoints[0].ipv4.unwrap().address, address);
        powerless(|| networks.leave("one")).unwrap_err();
        let two = networks.join(&request("two", &[])).unwrap();
        assert_eq!(two.place.endpoints[0].ipv4.unwrap().address, address);
        assert!(!run(&["nft", "list", "ruleset"]).contains("8080"));
        let three = networks.join(&wanted).unwrap();
        powerless(|| networks.leave("one")).unwrap_err();
        drop((one, again, two, three, networks));
        // The next daemon finds the record, and makes good what was due.
        let networks = lab.networks_with(&["two"]);
        assert!(!run(&["nft", "list", "ruleset"]).contains("8080"));
        let place = networks.join(&wanted).unwrap().place;
        assert_eq!(place.endpoints[0].ipv4.unwrap().address, Ipv4Addr::new(172, 17, 0, 3));
    });
}

#[test]
fn privileged_a_change_of_ports_that_a_kill_cut_comes_to_what_the_container_is_to_publish() {
    on_a_machine(|lab| {
        let (first, second) = (publish(Some(HOME), 8080, 80), publish(Some(HOME), 8081, 81));
        let networks = lab.networks();
        let _one = networks.join(&request("one", &[first])).unwrap();
        republish(&networks, &change(&[first], &[second])).unwrap();
        drop(networks);
        // The container's own record did not hear of it.
        let networks = lab.networks_with(&["one"]);
        network::keep_ports(&networks, &change(&[first], &[first])).unwrap().unwrap();
        assert_eq!(host_ports(&networks), [8080]);
        let rules = run(&["nft", "list", "ruleset"]);
        assert!(rules.contains("8080") && !rules.contains("8081"), "{rules}");
        assert_eq!(network::keep_ports(&networks, &change(&[first], &[first])).unwrap(), None);
        assert_eq!(
            network::keep_ports(&networks, &PortChange { container: "two".to_owned(), ..change(&[], &[]) }).unwrap(),
            None
        );
    });
}
