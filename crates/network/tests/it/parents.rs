//! Networks on top of one of the machine's links: macvlan, and in the virtual machine what this machine's kernel lacks.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd};

use network::{
    CreateError, DEFAULT, DriverKind, EndpointRequest, JoinError, Joined, Networks, ParentError, RangeRequest,
    RemoveError, UserNetworkRequest,
};

use crate::lab::*;

/// Of the second host, which is the containers' way out.
const OUTWARD: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 254);
const MAC: [u8; 6] = [2, 0x42, 10, 7, 0, 77];

/// A network of 10.7.0.0/24, whose gateway is the second host, with options as they are typed.
fn wish(name: &str, driver: DriverKind, options: &[&str]) -> UserNetworkRequest {
    let subnet = "10.7.0.0/24".parse().ok();
    let ipv4 = RangeRequest { subnet, gateway: Some(OUTWARD.into()), ..RangeRequest::default() };
    let options = options.iter().map(|option| option.split_once('=').unwrap());
    let options = options.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    UserNetworkRequest { name: name.to_owned(), driver, ipv4, options, ..UserNetworkRequest::default() }
}

fn macvlan(name: &str, options: &[&str]) -> UserNetworkRequest {
    wish(name, DriverKind::Macvlan, options)
}

/// On another subnet, whose gateway is nobody's wish.
fn elsewhere(subnet: &str, request: UserNetworkRequest) -> UserNetworkRequest {
    let ipv4 = RangeRequest { subnet: subnet.parse().ok(), ..RangeRequest::default() };
    UserNetworkRequest { ipv4, ..request }
}

fn join(networks: &Networks, container: &str, network: &str) -> Joined {
    networks.join(&request_on(container, &[], vec![EndpointRequest::on(network)])).unwrap()
}

fn address(joined: &Joined) -> Ipv4Addr {
    joined.place.endpoints[0].ipv4.unwrap().address
}

/// The second host's address on the link that is the parent.
fn neighbour(lab: &Lab, link: &str, address: Ipv4Addr) {
    inside(lab.second.as_fd(), || run(&["ip", "addr", "add", &format!("{address}/24"), "dev", link]));
}

fn routes(namespace: BorrowedFd<'_>) -> String {
    inside(namespace, || run(&["ip", "route", "show", "default"]))
}

/// All links of the machine that are nobody's veth pair.
fn links() -> Vec<String> {
    let links = run(&["ip", "-o", "link"]);
    let names = links.lines().filter_map(|line| line.split(": ").nth(1)).map(|name| name.split('@').next().unwrap());
    names.filter(|name| !name.starts_with("v0123abcd")).map(str::to_owned).collect()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, JoinError>) -> String {
    errdefs::chain(&result.unwrap_err())
}

#[test]
fn privileged_containers_of_macvlan_are_neighbours_of_who_is_behind_the_parent() {
    on_a_machine(|lab| {
        neighbour(&lab, "eth0", OUTWARD);
        let networks = lab.networks();
        let lan = networks.create(macvlan("lan", &["parent=up0"])).unwrap();
        assert_eq!(links(), ["lo", "up0", "ls0123abcd"], "nothing is made for it");
        let wanted = EndpointRequest { mac: Some(MAC), ..EndpointRequest::on(&lan.id) };
        let one = networks.join(&request_on("one", &[publish(None, 8080, 80)], vec![wanted.clone()])).unwrap();
        let (server, here) = (listen(&one, 80), one.namespace.as_fd());
        assert_eq!(address(&one), Ipv4Addr::new(10, 7, 0, 1));
        let client = inside(lab.second.as_fd(), || reach(&server, address(&one), 80)).unwrap();
        assert_eq!(client.ip(), IpAddr::from(OUTWARD));
        let known = inside(lab.second.as_fd(), || run(&["ip", "neigh", "show", "10.7.0.1"]));
        assert!(known.contains("02:42:0a:07:00:4d"), "{known}");
        assert_eq!(one.place.endpoints[0].mac, Some(MAC));
        assert!(routes(here).contains("via 10.7.0.254 dev eth0"), "{}", routes(here));
        // The kernel passes nothing between a link and those on top of it, whatever addresses this machine has.
        run(&["ip", "addr", "add", "10.7.0.9/24", "dev", "up0"]);
        assert!(is_unreachable(address(&one), 80));
        // No rule leads there.
        assert!(one.place.ports.is_empty() && one.holds.is_empty() && !one.place.exposes, "{:?}", one.place);
        assert!(inside(lab.second.as_fd(), || is_unreachable(MACHINE, 8080)));
        // Those on top see each other.
        let two = join(&networks, "two", &lan.id);
        inside(two.namespace.as_fd(), || reach(&server, address(&one), 80)).unwrap();
        assert!(matches!(networks.remove(&lan.id), Err(RemoveError::InUse { .. })));
        let taken = refusal(networks.join(&request_on("three", &[], vec![wanted.clone()])));
        let sentence = "failed to add interface eth0 to sandbox: error setting interface \"eth0\" MAC to \
                        \"02:42:0a:07:00:4d\": address already in use";
        assert_eq!(taken, sentence);
        // Its address is free at once, although somebody has its namespace.
        networks.leave("one").unwrap();
        networks.join(&request_on("three", &[], vec![wanted])).unwrap();
        networks.leave("three").unwrap();
        networks.leave("two").unwrap();
        networks.remove(&lan.id).unwrap();
        networks.close().unwrap();
        assert_eq!(links(), ["lo", "up0"]);
    });
}

#[test]
fn privileged_modes_of_macvlan_keep_containers_apart_or_alone() {
    on_a_machine(|lab| {
        neighbour(&lab, "eth0", OUTWARD);
        let networks = lab.networks();
        let apart = networks.create(macvlan("apart", &["parent=up0", "macvlan_mode=private"])).unwrap();
        let (one, two) = (join(&networks, "one", &apart.id), join(&networks, "two", &apart.id));
        let server = listen(&one, 80);
        inside(lab.second.as_fd(), || reach(&server, address(&one), 80)).unwrap();
        assert!(inside(two.namespace.as_fd(), || is_unreachable(address(&one), 80)));
        let alone = macvlan("alone", &["parent=up0", "macvlan_mode=passthru"]);
        let alone = elsewhere("10.8.0.0/24", alone);
        let refused = networks.create(alone.clone()).unwrap_err();
        assert!(matches!(refused, CreateError::Parent(ParentError::PassthruOfOthers { .. })), "{refused}");
        drop(server);
        networks.leave("one").unwrap();
        networks.leave("two").unwrap();
        networks.remove(&apart.id).unwrap();
        let alone = networks.create(alone).unwrap();
        let _one = join(&networks, "one", &alone.id);
        let second = networks.join(&request_on("two", &[], vec![EndpointRequest::on(&alone.id)]));
        assert_eq!(refusal(second), "failed to create the macvlan port: invalid argument");
        networks.leave("one").unwrap();
        // The place is free at once, although somebody has the namespace that the link was in.
        join(&networks, "two", &alone.id);
    });
}

#[test]
fn privileged_the_way_out_and_published_ports_change_between_drivers() {
    on_a_machine(|lab| {
        neighbour(&lab, "eth0", OUTWARD);
        let networks = lab.networks();
        let bridge = UserNetworkRequest { driver: DriverKind::Bridge, ..macvlan("b", &[]) };
        let bridge = networks.create(elsewhere("10.6.0.0/24", bridge)).unwrap();
        let lan = networks.create(macvlan("a", &["parent=up0"])).unwrap();
        let ports = [publish(None, 8080, 80)];
        let on = |network: &str| vec![EndpointRequest::on(network)];
        let both = [on(&bridge.id), on(&lan.id)].concat();
        let one = networks.join(&request_on("one", &ports, both)).unwrap();
        let (server, here) = (listen(&one, 80), one.namespace.as_fd());
        assert!(routes(here).contains("via 10.7.0.254 dev eth1"), "{}", routes(here));
        assert!(one.place.ports.is_empty() && !one.place.exposes);
        // Without the network that leads outward by itself, ports lead in by the bridge.
        let place = networks.disconnect("one", &lan.id, Some(here)).unwrap().unwrap();
        assert_eq!((place.ports.len(), place.exposes), (1, true));
        assert!(routes(here).contains("via 10.6.0.1 dev eth0"), "{}", routes(here));
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
        assert!(!inside(here, || run(&["ip", "-o", "link"])).contains("eth1"));
        let place = networks.connect(&request_on("one", &ports, on(&lan.id)), here).unwrap();
        assert_eq!(place.ports, []);
        assert!(routes(here).contains("via 10.7.0.254 dev eth1"), "{}", routes(here));
        assert!(inside(lab.second.as_fd(), || is_unreachable(MACHINE, 8080)));
        inside(lab.second.as_fd(), || reach(&server, Ipv4Addr::new(10, 7, 0, 1), 80)).unwrap();
        // Others may have them meanwhile; nobody fails to leave for that.
        let two = networks.join(&request_on("two", &ports, on(&bridge.id))).unwrap();
        assert_eq!(two.place.ports.len(), 1);
        let place = networks.disconnect("one", &lan.id, Some(here)).unwrap().unwrap();
        assert_eq!(place.ports, []);
        // What fails leaves nothing: the second network is full, for its address is taken.
        let wanted = EndpointRequest { ipv4: Some(OUTWARD), ..EndpointRequest::on(&lan.id) };
        let refused = networks.connect(&request_on("one", &ports, vec![wanted]), here);
        assert!(matches!(refused, Err(JoinError::AddressTaken)));
        run(&["ip", "link", "delete", "up0"]);
        let refused = refusal(networks.connect(&request_on("one", &ports, on(&lan.id)), here));
        assert_eq!(refused, "the requested parent interface up0 was not found on the Docker host");
        assert_eq!(inside(here, || run(&["ip", "-o", "link"])).lines().count(), 2);
        assert_eq!(networks.place("one").unwrap().endpoints.len(), 1);
    });
}

#[test]
fn privileged_networks_without_a_parent_lead_nowhere() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let lan = networks.create(elsewhere("10.7.0.0/24", macvlan("lan", &[]))).unwrap();
        let parent = format!("dm-{}", &lan.id[..12]);
        assert!(links().contains(&parent), "{:?}", links());
        assert!(lan.leads_nowhere() && !lan.internal && lan.ipv4.as_ref().unwrap().gateway.is_none());
        let (one, two) = (join(&networks, "one", &lan.id), join(&networks, "two", &lan.id));
        assert_eq!(address(&one), Ipv4Addr::new(10, 7, 0, 1), "nobody has the first address");
        assert_eq!(routes(one.namespace.as_fd()), "");
        let server = listen(&one, 80);
        inside(two.namespace.as_fd(), || reach(&server, address(&one), 80)).unwrap();
        let internal = UserNetworkRequest { internal: true, ..macvlan("internal", &["parent=up0"]) };
        let internal = networks.create(elsewhere("10.8.0.0/24", internal)).unwrap();
        let three = join(&networks, "three", &internal.id);
        assert_eq!((address(&three), routes(three.namespace.as_fd()).as_str()), (Ipv4Addr::new(10, 8, 0, 1), ""));
        // A reboot, or somebody's mistake: who comes next has it made again.
        for container in ["one", "two", "three"] {
            networks.leave(container).unwrap();
        }
        drop((one, two, three));
        run(&["ip", "link", "delete", &parent]);
        join(&networks, "one", &lan.id);
        networks.leave("one").unwrap();
        networks.close().unwrap();
        assert_eq!(links(), ["lo", "up0"]);
        drop(networks);
        let networks = lab.networks();
        assert!(links().contains(&parent), "{:?}", links());
        networks.remove(&lan.id).unwrap();
        networks.remove(&internal.id).unwrap();
        assert_eq!(links(), ["lo", "up0", "ls0123abcd"]);
    });
}

#[test]
fn privileged_a_network_of_macvlan_has_several_subnets() {
    on_a_machine(|lab| {
        let second = Ipv4Addr::new(10, 8, 0, 254);
        neighbour(&lab, "eth0", second);
        let networks = lab.networks();
        let range = |subnet: &str| RangeRequest { subnet: subnet.parse().ok(), ..RangeRequest::default() };
        let more = vec![RangeRequest { gateway: Some(second.into()), ..range("10.8.0.0/24") }];
        let twice =
            UserNetworkRequest { more: [more.clone(), more.clone()].concat(), ..macvlan("lan", &["parent=up0"]) };
        assert!(matches!(networks.create(twice), Err(CreateError::Overlap)));
        let lan = networks.create(UserNetworkRequest { more, ..macvlan("lan", &["parent=up0"]) }).unwrap();
        let one = join(&networks, "one", &lan.id);
        assert!(routes(one.namespace.as_fd()).contains("via 10.7.0.254"));
        let wanted = EndpointRequest { ipv4: Some(Ipv4Addr::new(10, 8, 0, 7)), ..EndpointRequest::on(&lan.id) };
        let two = networks.join(&request_on("two", &[], vec![wanted])).unwrap();
        assert_eq!(two.place.endpoints[0].ipv4.unwrap().gateway, Some(second));
        assert!(routes(two.namespace.as_fd()).contains("via 10.8.0.254"));
        let server = listen(&two, 80);
        inside(lab.second.as_fd(), || reach(&server, address(&two), 80)).unwrap();
        networks.close().unwrap();
        assert_eq!(Networks::open(lab.config()).unwrap().user_networks(), [lan]);
    });
}

#[test]
fn privileged_addresses_of_ipv6_are_on_the_parents_link_too() {
    on_a_machine(|lab| {
        inside(lab.second.as_fd(), || run(&["ip", "-6", "addr", "add", "fd07::fe/64", "dev", "eth0", "nodad"]));
        let networks = lab.networks();
        let gateway = Some("fd07::fe".parse().unwrap());
        let ipv6 = RangeRequest { subnet: "fd07::/64".parse().ok(), gateway, ..RangeRequest::default() };
        let both = UserNetworkRequest { with_ipv6: true, ipv6, ..macvlan("lan", &["parent=up0"]) };
        let lan = networks.create(both).unwrap();
        assert!(!run(&["nft", "list", "tables"]).contains("ip6 longshore"), "no rule is about it");
        let one = join(&networks, "one", &lan.id);
        let server = listen_on_ipv6(&one, 80);
        let own = one.place.endpoints[0].ipv6.unwrap();
        let client = inside(lab.second.as_fd(), || reach(&server, own.address, 80)).unwrap();
        assert_eq!(client.ip().to_string(), "fd07::fe");
        let default = inside(one.namespace.as_fd(), || run(&["ip", "-6", "route", "show", "default"]));
        assert!(default.contains("via fd07::fe dev eth0"), "{default}");
    });
}

#[test]
fn privileged_containers_of_macvlan_outlive_the_daemon_which_leaves_nothing() {
    on_a_machine(|lab| {
        neighbour(&lab, "eth0", OUTWARD);
        let networks = lab.networks();
        let lan = networks.create(macvlan("lan", &["parent=up0", "macvlan_mode=passthru"])).unwrap();
        let one = join(&networks, "one", &lan.id);
        let server = listen(&one, 80);
        kill(networks, 0);
        inside(lab.second.as_fd(), || reach(&server, address(&one), 80)).unwrap();
        let networks = Networks::open(lab.config()).unwrap();
        networks.reconcile(&["one"]).unwrap();
        network::enter(&networks, "one", one.namespace.as_fd()).unwrap();
        assert_eq!(networks.place("one").as_ref(), Some(&one.place));
        inside(lab.second.as_fd(), || reach(&server, address(&one), 80)).unwrap();
        // The later daemon takes it away, also where it is not told the namespace.
        networks.keep_only("one", &[DEFAULT]).unwrap();
        assert_eq!(inside(one.namespace.as_fd(), || run(&["ip", "-o", "link"])).lines().count(), 1);
        let again = request_on("one", &[], vec![EndpointRequest::on(&lan.id)]);
        networks.connect(&again, one.namespace.as_fd()).unwrap();
        networks.leave("one").unwrap();
        // The only place is free.
        join(&networks, "two", &lan.id);
        networks.leave("two").unwrap();
        networks.remove(&lan.id).unwrap();
        networks.close().unwrap();
        assert_eq!(links(), ["lo", "up0"]);
    });
}

#[test]
fn privileged_a_kernel_that_lacks_a_driver_is_named_when_the_network_is_made() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let made = networks.create(wish("lan", DriverKind::Ipvlan, &["parent=up0"]));
        let known =
            run(&["sh", "-c", "ip link add link up0 name upper0 type ipvlan 2>/dev/null && echo yes || echo no"]);
        match made {
            Ok(_) => assert_eq!(known, "yes\n"),
            Err(err) => {
                assert_eq!(known, "no\n");
                let sentence =
                    "the kernel of this machine has no ipvlan: neither built in nor as a module that can be loaded";
                assert_eq!(errdefs::chain(&err), sentence);
                assert!(networks.user_networks().is_empty());
            }
        }
    });
}

#[test]
fn privileged_a_link_moves_into_its_container_and_comes_back() {
    on_a_machine(|lab| {
        let (here, there) = (Ipv4Addr::new(10, 5, 0, 1), Ipv4Addr::new(10, 5, 0, 2));
        let other = host_behind("nic0", here, there);
        let networks = lab.networks();
        let whole = |name: &str, option: &str| UserNetworkRequest {
            ipv4: RangeRequest::default(),
            ..wish(name, DriverKind::HostInterface, &[option])
        };
        for (options, sentence) in [
            ("parent=", "the network driver host-interface takes the name of a link: -o parent=eth1"),
            ("parent=lo", "loopback interface is not a valid host-interface parent link"),
            ("parent=nic7", "the requested parent interface nic7 was not found on the Docker host"),
        ] {
            assert_eq!(errdefs::chain(&networks.create(whole("nic", options)).unwrap_err()), sentence);
        }
        let nic = networks.create(whole("nic", "parent=nic0")).unwrap();
        let taken = networks.create(whole("more", "parent=nic0")).unwrap_err();
        assert_eq!(errdefs::chain(&taken), format!("network {} has the interface nic0", nic.id));
        let before = run(&["ip", "-o", "addr", "show", "dev", "nic0"]);
        let link = run(&["ip", "-o", "link", "show", "nic0"]);
        let one = join(&networks, "one", &nic.id);
        let shown = inside(one.namespace.as_fd(), || run(&["ip", "-o", "addr", "show", "dev", "nic0"]));
        assert!(shown.contains("inet 10.5.0.1/24"), "{shown}");
        assert!(!links().contains(&"nic0".to_owned()));
        assert_eq!(one.place.endpoints[0].ipv4, None, "its addresses are not ours to give");
        assert!(link.contains(&netlink::link::text(one.place.endpoints[0].mac.unwrap())), "{link}");
        let server = listen(&one, 80);
        inside(other.as_fd(), || reach(&server, here, 80)).unwrap();
        let gone = "the requested parent interface nic0 was not found on the Docker host";
        assert_eq!(refusal(networks.join(&request_on("two", &[], vec![EndpointRequest::on(&nic.id)]))), gone);
        networks.leave("one").unwrap();
        let scope = |shown: &str| shown.split("scope global").next().unwrap().to_owned();
        let after = run(&["ip", "-o", "-4", "addr", "show", "dev", "nic0"]);
        assert!(after.contains("inet 10.5.0.1/24") && scope(&before).contains("10.5.0.1/24"), "{after}");
        // A running container, which has other names and a way out; the later daemon gives the link back.
        let two = networks.join(&request("two", &[])).unwrap();
        let wanted = EndpointRequest { interface: Some("lan0".to_owned()), ..EndpointRequest::on(&nic.id) };
        networks.connect(&request_on("two", &[], vec![wanted]), two.namespace.as_fd()).unwrap();
        assert!(routes(two.namespace.as_fd()).contains("via 172.17.0.1 dev eth0"));
        let server = listen(&two, 80);
        inside(other.as_fd(), || reach(&server, here, 80)).unwrap();
        kill(networks, 1);
        let networks = Networks::open(lab.config()).unwrap();
        networks.reconcile(&["two"]).unwrap();
        network::enter(&networks, "two", two.namespace.as_fd()).unwrap();
        inside(other.as_fd(), || reach(&server, here, 80)).unwrap();
        networks.disconnect("two", &nic.id, Some(two.namespace.as_fd())).unwrap().unwrap();
        let server = std::net::TcpListener::bind((here, 80)).unwrap();
        inside(other.as_fd(), || reach(&server, here, 80)).unwrap();
        drop(server);
        networks.remove(&nic.id).unwrap();
        // With a subnet, it has addresses of that one, and its own ones again when it is back.
        let given = elsewhere("10.4.0.0/24", whole("given", "parent=nic0"));
        let given = networks.create(given).unwrap();
        let wanted = EndpointRequest { ipv4: Some(Ipv4Addr::new(10, 4, 0, 9)), ..EndpointRequest::on(&given.id) };
        let three = networks.join(&request_on("three", &[], vec![wanted])).unwrap();
        let shown = inside(three.namespace.as_fd(), || run(&["ip", "-o", "addr", "show", "dev", "nic0"]));
        assert!(shown.contains("inet 10.4.0.9/24") && !shown.contains("10.5.0.1"), "{shown}");
        networks.leave("three").unwrap();
        assert_eq!(run(&["ip", "-o", "-4", "addr", "show", "dev", "nic0"]), after);
    });
}

#[test]
fn privileged_vm_what_a_tagged_parent_carries_has_its_tag() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let first = networks.create(macvlan("first", &["parent=up0.50"])).unwrap();
        let shown = run(&["ip", "-d", "-o", "link", "show", "up0.50"]);
        assert!(shown.contains("vlan protocol 802.1Q id 50") && shown.contains(",UP"), "{shown}");
        let second = elsewhere("10.8.0.0/24", macvlan("second", &["parent=up0.50"]));
        let second = networks.create(second).unwrap();
        let one = join(&networks, "one", &first.id);
        let server = listen(&one, 80);
        // Untagged frames are not for it; tagged ones are.
        neighbour(&lab, "eth0", OUTWARD);
        assert!(inside(lab.second.as_fd(), || is_unreachable(address(&one), 80)));
        inside(lab.second.as_fd(), || {
            run(&["ip", "addr", "flush", "dev", "eth0"]);
            run(&["ip", "link", "add", "link", "eth0", "name", "tagged", "type", "vlan", "id", "50"]);
            run(&["ip", "link", "set", "tagged", "up"]);
        });
        neighbour(&lab, "tagged", OUTWARD);
        inside(lab.second.as_fd(), || reach(&server, address(&one), 80)).unwrap();
        networks.leave("one").unwrap();
        // It goes with the last network that has it; after a reboot it is made again.
        networks.remove(&first.id).unwrap();
        assert!(links().contains(&"up0.50".to_owned()));
        networks.close().unwrap();
        assert_eq!(links(), ["lo", "up0"]);
        drop(networks);
        let networks = lab.networks();
        assert!(links().contains(&"up0.50".to_owned()));
        networks.remove(&second.id).unwrap();
        assert!(!links().contains(&"up0.50".to_owned()));
        // One that was there stays.
        run(&["ip", "link", "add", "link", "up0", "name", "up0.60", "type", "vlan", "id", "60"]);
        let third = networks.create(macvlan("third", &["parent=up0.60"])).unwrap();
        networks.remove(&third.id).unwrap();
        assert!(links().contains(&"up0.60".to_owned()));
        let missing = networks.create(macvlan("fourth", &["parent=none.5"])).unwrap_err();
        assert_eq!(errdefs::chain(&missing), "-o parent interface was not found on the host: none");
    });
}

#[test]
fn privileged_vm_a_network_without_a_parent_has_a_dummy() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let lan = networks.create(elsewhere("10.7.0.0/24", macvlan("lan", &[]))).unwrap();
        let shown = run(&["ip", "-d", "-o", "link", "show", &format!("dm-{}", &lan.id[..12])]);
        assert!(shown.contains(" dummy ") && shown.contains(",UP"), "{shown}");
    });
}

#[test]
fn privileged_vm_containers_of_ipvlan_share_their_parents_ethernet_address() {
    on_a_machine(|lab| {
        neighbour(&lab, "eth0", OUTWARD);
        let networks = lab.networks();
        let lan = networks.create(wish("lan", DriverKind::Ipvlan, &["parent=up0"])).unwrap();
        let refused = networks.create(elsewhere("10.8.0.0/24", wish("other", DriverKind::Ipvlan, &["parent=up0"])));
        let sentence = format!("network di-{} is already using parent interface up0", &lan.id[..12]);
        assert_eq!(errdefs::chain(&refused.unwrap_err()), sentence);
        let (one, two) = (join(&networks, "one", &lan.id), join(&networks, "two", &lan.id));
        let server = listen(&one, 80);
        inside(lab.second.as_fd(), || reach(&server, address(&one), 80)).unwrap();
        inside(two.namespace.as_fd(), || reach(&server, address(&one), 80)).unwrap();
        let shown = run(&["ip", "-o", "link", "show", "up0"]);
        let known = inside(lab.second.as_fd(), || run(&["ip", "neigh", "show", &address(&one).to_string()]));
        let seen = known.split_whitespace().skip_while(|word| *word != "lladdr").nth(1).unwrap();
        assert!(shown.contains(seen), "{shown} {seen}");
        assert_eq!(one.place.endpoints[0].mac, None);
        assert!(routes(one.namespace.as_fd()).contains("via 10.7.0.254 dev eth0"));
        let own = EndpointRequest { mac: Some(MAC), ..EndpointRequest::on(&lan.id) };
        let sentence = "failed to create endpoint name-of-three on network lan: ipvlan interfaces do not support custom mac \
                        address assignment";
        assert_eq!(refusal(networks.join(&request_on("three", &[], vec![own]))), sentence);
        networks.leave("one").unwrap();
        networks.leave("two").unwrap();
        networks.remove(&lan.id).unwrap();
        for mode in ["l3", "l3s"] {
            let mode = format!("ipvlan_mode={mode}");
            let routed = elsewhere("10.7.0.0/24", wish("routed", DriverKind::Ipvlan, &["parent=up0", &mode]));
            let routed = networks.create(routed).unwrap();
            assert!(routed.ipv4.as_ref().unwrap().gateway.is_none());
            let one = join(&networks, "one", &routed.id);
            let here = one.namespace.as_fd();
            assert!(routes(here).starts_with("default dev eth0 scope link"), "{}", routes(here));
            // Nobody is asked where it is: the way there is known.
            let server = listen(&one, 80);
            let to = format!("{}/32", address(&one));
            inside(lab.second.as_fd(), || run(&["ip", "route", "replace", &to, "via", &MACHINE.to_string()]));
            inside(lab.second.as_fd(), || reach(&server, address(&one), 80)).unwrap();
            networks.leave("one").unwrap();
            networks.remove(&routed.id).unwrap();
        }
        networks.close().unwrap();
        assert_eq!(links(), ["lo", "up0"]);
    });
}
