use super::*;
use proptest::prelude::*;

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ANY_6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

fn tcp(address: IpAddr, container_port: u16, host_ports: (u16, u16)) -> PortRequest {
    PortRequest { protocol: Protocol::Tcp, container_port, host_address: Some(address), host_ports }
}

/// Of both families by rules.
const BOTH: Leads =
    Leads { families: [Some(Led::Translated), Some(Led::Translated)], across: true, all_of_ipv6: false };
const IPV4: Leads = Leads { families: [Some(Led::Translated), None], across: true, all_of_ipv6: true };

fn one(address: IpAddr, host_ports: (u16, u16)) -> Group {
    bound(&[tcp(address, 80, host_ports)]).remove(0)
}

fn bound(requests: &[PortRequest]) -> Vec<Group> {
    groups(requests, |request| BOTH.ways(request, Ipv4Addr::UNSPECIFIED))
}

#[test]
fn a_port_is_given_out_once() {
    let mut ports = Ports::new((32768, 32770));
    assert_eq!(ports.take(&one(ANY, (80, 80))).unwrap(), 80);
    let sentence = |result: Result<u16, PortError>| result.unwrap_err().to_string();
    assert_eq!(sentence(ports.take(&one(ANY, (80, 80)))), "Bind for 0.0.0.0:80 failed: port is already allocated");
    assert_eq!(sentence(ports.take(&one(HOME, (80, 80)))), "Bind for 0.0.0.0:80 failed: port is already allocated");
    assert_eq!(ports.take(&one(HOME, (81, 81))).unwrap(), 81);
    assert_eq!(sentence(ports.take(&one(ANY, (81, 81)))), "Bind for 127.0.0.1:81 failed: port is already allocated");
    assert_eq!(ports.take(&one(IpAddr::from([10, 0, 0, 1]), (81, 81))).unwrap(), 81);
    let udp = bound(&[PortRequest { protocol: Protocol::Udp, ..tcp(ANY, 80, (80, 80)) }]);
    assert_eq!(ports.take(&udp[0]).unwrap(), 80);
    assert_eq!(sentence(ports.take(&one(ANY, (9, 8)))), "invalid port range: 9-8");
}

#[test]
fn what_one_container_publishes_twice_is_refused() {
    let (ten, udp) = (IpAddr::from([10, 0, 0, 1]), |request| PortRequest { protocol: Protocol::Udp, ..request });
    for (requests, wanted) in [
        (
            [tcp(ANY, 80, (80, 80)), tcp(ANY, 80, (80, 80))],
            Err("failed to listen on TCP socket: address already in use"),
        ),
        (
            [tcp(HOME, 80, (80, 80)), tcp(ANY, 80, (80, 80))],
            Err("failed to listen on TCP socket: address already in use"),
        ),
        ([tcp(ANY, 80, (0, 0)), tcp(HOME, 80, (0, 0))], Err("failed to listen on TCP socket: address already in use")),
        ([tcp(HOME, 80, (80, 80)), tcp(ten, 80, (80, 80))], Ok(2)),
        ([tcp(ANY, 80, (80, 80)), tcp(ANY_6, 80, (80, 80))], Ok(2)),
        ([udp(tcp(ANY, 80, (80, 80))), udp(tcp(ANY, 80, (80, 80)))], Ok(1)),
        ([udp(tcp(HOME, 80, (80, 80))), udp(tcp(ANY, 80, (80, 80)))], Ok(2)),
    ] {
        let groups = bound(&requests);
        let taken = Ports::new((32768, 32770)).take(&groups[0]);
        let published = taken.map(|_| groups[0].addresses.len()).map_err(|err| err.to_string());
        assert_eq!((groups.len(), published), (1, wanted.map_err(str::to_owned)), "{requests:?}");
    }
}

#[test]
fn ranges_go_on_behind_the_last_port() {
    let mut ports = Ports::new((32768, 32770));
    let any = one(ANY, (0, 0));
    assert_eq!(ports.take(&any).unwrap(), 32768);
    ports.release(&any.published(32768)[0]);
    assert_eq!(ports.take(&any).unwrap(), 32769);
    assert_eq!(ports.take(&any).unwrap(), 32770);
    assert_eq!(ports.take(&any).unwrap(), 32768);
    assert_eq!(ports.take(&any).unwrap_err().to_string(), "all ports are allocated");
    assert_eq!(ports.take(&one(ANY, (65535, 65535))).unwrap(), 65535);
    assert!(ports.take(&one(ANY, (65534, 65535))).is_ok());
    assert!(ports.take(&one(ANY, (65534, 65535))).is_err());
}

#[test]
fn groups_are_dockers() {
    let requests = [
        tcp(ANY, 80, (8000, 8010)),
        tcp(HOME, 80, (0, 0)),
        tcp(IpAddr::from([10, 0, 0, 1]), 80, (0, 0)),
        tcp(ANY, 443, (8001, 8001)),
        tcp(ANY, 443, (8001, 8001)),
        PortRequest { host_address: None, ..tcp(ANY, 22, (2222, 2222)) },
    ];
    let home = |request: &PortRequest| BOTH.ways(request, Ipv4Addr::LOCALHOST);
    let found: Vec<_> = groups(&requests, home)
        .into_iter()
        .map(|group| (group.container_port, group.host_ports.0, group.addresses.len(), group.addresses[0]))
        .collect();
    let ten = IpAddr::from([10, 0, 0, 1]);
    assert_eq!(found, [(22, 2222, 1, HOME), (443, 8001, 2, ANY), (80, 0, 2, ten), (80, 8000, 1, ANY)]);
    let container = IpAddr::from([172, 17, 0, 2]);
    assert_eq!(one(ANY, (8080, 8080)).text(ANY, container), "0.0.0.0:8080:172.17.0.2:80/tcp");
    assert_eq!(one(ANY, (8080, 8081)).text(ANY, container), "0.0.0.0:8080-8081:172.17.0.2:80/tcp");
    assert_eq!(one(ANY, (0, 0)).text(ANY, container), "0.0.0.0::172.17.0.2:80/tcp");
}

#[test]
fn the_families_are_beside_each_other() {
    let unnamed = PortRequest { host_address: None, ..tcp(ANY, 80, (0, 0)) };
    let both = bound(&[unnamed]);
    assert_eq!((both.len(), both[0].addresses.as_slice()), (1, &[ANY, ANY_6][..]), "they get the same port");
    let mut ports = Ports::new((32768, 32770));
    assert_eq!(ports.take(&one(ANY, (32768, 32768))).unwrap(), 32768);
    assert_eq!(ports.take(&both[0]).unwrap(), 32769);
    assert_eq!(ports.take(&one(ANY_6, (32768, 32768))).unwrap(), 32768);
    let refused = ports.take(&one("::1".parse().unwrap(), (32768, 32768))).unwrap_err();
    assert_eq!(refused.to_string(), "Bind for :::32768 failed: port is already allocated");
    let text = one(ANY_6, (80, 80)).text("::1".parse().unwrap(), "fd00::2".parse().unwrap());
    assert_eq!(text, "[::1]:80:[fd00::2]:80/tcp");
}

#[test]
fn ports_are_published_where_something_leads_to_the_container() {
    let (translated, opened) = (Some(Led::Translated), Some(Led::Opened));
    let leads = |families| Leads { families, across: true, all_of_ipv6: true };
    let without_proxy = Leads { across: false, ..IPV4 };
    let other_gateway = Leads { all_of_ipv6: false, ..IPV4 };
    let (any, home, other) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST, "::1".parse().unwrap());
    for (leads, host, default, wanted) in [
        (BOTH, None, any, &[Way::Bound(ANY), Way::Bound(ANY_6)][..]),
        (BOTH, None, home, &[Way::Bound(HOME)]),
        (leads([None, translated]), None, any, &[Way::Bound(ANY_6)]),
        (leads([None, None]), None, any, &[]),
        // A container of IPv4 alone is on all of IPv6 by the relay, if nobody is against it.
        (IPV4, None, any, &[Way::Bound(ANY), Way::Bound(ANY_6)]),
        (IPV4, None, home, &[Way::Bound(HOME)]),
        (IPV4, Some(HOME), any, &[Way::Bound(HOME)]),
        (IPV4, Some(other), any, &[Way::Bound(other)]),
        (other_gateway, None, any, &[Way::Bound(ANY)]),
        (other_gateway, Some(ANY_6), any, &[Way::Bound(ANY_6)]),
        (without_proxy, None, any, &[Way::Bound(ANY)]),
        (without_proxy, Some(other), any, &[]),
        // Opened ports have no address of the host's, whoever names one.
        (leads([opened, opened]), None, any, &[Way::Opened(ANY), Way::Opened(ANY_6)]),
        (leads([opened, opened]), None, home, &[Way::Opened(ANY)]),
        (leads([opened, opened]), Some(HOME), any, &[Way::Opened(ANY)]),
        (leads([opened, opened]), Some(other), any, &[Way::Opened(ANY_6)]),
        (leads([translated, opened]), None, any, &[Way::Bound(ANY), Way::Opened(ANY_6)]),
        (leads([opened, None]), None, any, &[Way::Opened(ANY), Way::Bound(ANY_6)]),
    ] {
        let request = PortRequest { host_address: host, ..tcp(ANY, 80, (0, 0)) };
        assert_eq!(leads.ways(&request, default), wanted, "{leads:?} {host:?} {default}");
    }
    let sctp = PortRequest { protocol: Protocol::Sctp, host_address: None, ..tcp(ANY, 80, (0, 0)) };
    assert_eq!(IPV4.ways(&sctp, any), [Way::Bound(ANY)], "nobody relays it");
}

#[test]
fn opened_ports_take_none_of_the_hosts() {
    let leads = |families| Leads { families, across: true, all_of_ipv6: true };
    let (request, exact) = (PortRequest { host_address: None, ..tcp(ANY, 80, (0, 0)) }, tcp(HOME, 80, (80, 80)));
    let group = |leads: Leads, request: PortRequest| {
        groups(&[request, request], |request| leads.ways(request, Ipv4Addr::UNSPECIFIED)).remove(0)
    };
    let mut ports = Ports::new((32768, 32770));
    let opened = group(leads([Some(Led::Opened), Some(Led::Opened)]), exact);
    for _ in 0..2 {
        assert_eq!(ports.take(&opened).unwrap(), 0);
    }
    let shown = |group: &Group, port| {
        let published = group.published(port).into_iter();
        published.map(|one| format!("{} {}", one.host_address, one.host_port)).collect::<Vec<_>>()
    };
    assert_eq!(shown(&opened, 0), ["0.0.0.0 0", "0.0.0.0 0"], "as often as it is published, as with Docker");
    opened.published(0).iter().for_each(|one| ports.note(one));
    assert!(ports.taken.is_empty());
    let mixed = Leads { families: [Some(Led::Opened), Some(Led::Translated)], ..BOTH };
    let mixed = groups(&[request], |request| mixed.ways(request, Ipv4Addr::UNSPECIFIED)).remove(0);
    let port = ports.take(&mixed).unwrap();
    assert_eq!(shown(&mixed, port), ["0.0.0.0 0", ":: 32768"], "IPv4 first");
    opened.published(0).iter().for_each(|one| ports.release(one));
}

#[test]
fn what_is_published_already_is_not_published_again() {
    let published =
        |host_address, host_port| Published { protocol: Protocol::Tcp, container_port: 80, host_address, host_port };
    let request = |host_address, host_ports| PortRequest { host_address, ..tcp(ANY, 80, host_ports) };
    let ports = [published(HOME, 8080), published(ANY_6, 0)];
    for (request, way, met) in [
        (request(Some(HOME), (8080, 8080)), Way::Bound(HOME), true),
        (request(Some(HOME), (8081, 8081)), Way::Bound(HOME), false),
        (request(Some(HOME), (0, 0)), Way::Bound(HOME), true),
        (request(Some(ANY), (0, 0)), Way::Bound(ANY), false),
        (request(None, (8000, 8090)), Way::Bound(ANY), true),
        (request(None, (0, 0)), Way::Bound(ANY_6), false),
        (request(None, (0, 0)), Way::Opened(ANY_6), true),
        (request(None, (0, 0)), Way::Opened(ANY), false),
    ] {
        assert_eq!(is_met(&request, way, &ports), met, "{request:?} {way:?}");
    }
    let other = PortRequest { container_port: 81, ..request(None, (0, 0)) };
    assert!(!is_met(&other, Way::Bound(ANY), &ports));
    let group = one(ANY, (8000, 8090));
    assert_eq!(group.at(8080).map(|group| group.is_exact()), Some(true));
    assert!(group.at(9000).is_none() && group.is_beside(&ports[0]) && !group.is_beside(&ports[1]));
}

proptest! {
    #[test]
    fn nothing_is_given_out_twice(steps in prop::collection::vec((any::<bool>(), 0_usize..4, 1_u16..8, 0_u16..4), 1..100)) {
        let addresses = [ANY, HOME, IpAddr::from([10, 0, 0, 1]), ANY_6];
        let mut ports = Ports::new((1, 8));
        let mut given: Vec<Published> = Vec::new();
        for (take, address, first, more) in steps {
            if take {
                let group = one(addresses[address], (first, first + more));
                if let Ok(port) = ports.take(&group) {
                    prop_assert!((first..=first + more).contains(&port));
                    let published = group.published(port)[0];
                    prop_assert!(!given.iter().any(|other| other.host_port == port
                        && other.host_address.is_ipv4() == published.host_address.is_ipv4()
                        && (other.host_address == published.host_address
                            || other.host_address.is_unspecified()
                            || published.host_address.is_unspecified())));
                    given.push(published);
                }
            } else if let Some(published) = given.pop() {
                ports.release(&published);
            }
        }
        for published in given {
            ports.release(&published);
        }
        prop_assert!(ports.taken.is_empty());
    }
}
