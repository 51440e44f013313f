//! Ports one after the other.

use std::os::fd::AsFd;

use network::{Networks, PortChange, PortRequest, republish};

use crate::lab::*;

fn change(networks: &Networks, before: Vec<PortRequest>, after: Vec<PortRequest>) {
    republish(networks, &PortChange { container: "one".to_owned(), name: "one".to_owned(), before, after }).unwrap();
}

/// The ranges that the packet filter has, without spaces around them.
fn ranges() -> Vec<String> {
    let listed = run(&["nft", "list", "map", "ip", "longshore-0123abcd", "port-ranges"]);
    let elements = listed.split_once("elements = {").map_or("", |(_, elements)| elements.split('}').next().unwrap());
    let mut ranges: Vec<String> =
        elements.split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect();
    ranges.sort();
    ranges
}

#[test]
fn privileged_a_range_is_one_element_and_is_split_where_a_port_goes() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let some = |ports: &[u16]| ports.iter().map(|port| publish(None, *port, *port)).collect::<Vec<_>>();
        let all: Vec<u16> = (20_000..20_100).collect();
        let joined = networks.join(&request("one", &some(&all))).unwrap();
        let address = joined.place.endpoints[0].ipv4.unwrap().address;
        assert_eq!(ranges(), [format!("tcp . 20000-20099 : {address}")]);
        let reached = |port: u16| {
            let server = listen(&joined, port);
            inside(lab.second.as_fd(), || reach(&server, MACHINE, port)).unwrap();
            reach(&server, HOME, port).unwrap();
        };
        [20_000, 20_050, 20_099].into_iter().for_each(reached);
        let rest: Vec<u16> = all.iter().copied().filter(|port| *port != 20_050).collect();
        change(&networks, some(&all), some(&rest));
        assert_eq!(ranges(), [format!("tcp . 20000-20049 : {address}"), format!("tcp . 20051-20099 : {address}")]);
        [20_049, 20_051].into_iter().for_each(reached);
        assert!(inside(lab.second.as_fd(), || is_unreachable(MACHINE, 20_050)));
        // Another's, in the gap.
        let other = networks.join(&request("two", &some(&[20_050]))).unwrap();
        let server = listen(&other, 20_050);
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 20_050)).unwrap();
        networks.leave("two").unwrap();
        change(&networks, some(&rest), some(&all));
        assert_eq!(ranges(), [format!("tcp . 20000-20099 : {address}")]);
        // The next daemon writes the same.
        std::mem::forget(networks);
        let networks = lab.networks_with(&["one"]);
        assert_eq!(ranges(), [format!("tcp . 20000-20099 : {address}")]);
        networks.leave("one").unwrap();
        assert!(ranges().is_empty());
    });
}
