use super::*;
use proptest::prelude::*;

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ANY_6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

fn tcp(address: IpAddr, container_port: u16, host_ports: (u16, u16)) -> PortRequest {
    PortRequest { protocol: Protocol::Tcp, container_port, host_address: Some(address), host_ports }
}

fn one(address: IpAddr, host_ports: (u16, u16)) -> Group {
    groups(&[tcp(address, 80, host_ports)], &[ANY]).remove(0)
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
    let udp = groups(&[PortRequest { protocol: Protocol::Udp, ..tcp(ANY, 80, (80, 80)) }], &[ANY]);
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
        let groups = groups(&requests, &[ANY]);
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
    ports.release(&any.published(32768).next().unwrap());
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
    let found: Vec<_> = groups(&requests, &[HOME])
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
    assert_eq!(defaults(Ipv4Addr::UNSPECIFIED, true, true), [ANY, ANY_6]);
    assert_eq!(defaults(Ipv4Addr::UNSPECIFIED, false, true), [ANY_6]);
    assert_eq!(defaults(Ipv4Addr::UNSPECIFIED, true, false), [ANY]);
    assert_eq!(defaults(Ipv4Addr::LOCALHOST, true, true), [HOME]);
    let unnamed = PortRequest { host_address: None, ..tcp(ANY, 80, (0, 0)) };
    let both = groups(&[unnamed], &[ANY, ANY_6]);
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
                    let published = group.published(port).next().unwrap();
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
