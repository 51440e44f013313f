//! What containers with a policy reach, and what they do not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use network::{
    CreateError, DEFAULT, Denials, EGRESS, EgressError, JoinError, JoinRequest, Joined, Networks, RangeRequest,
    UserNetwork, UserNetworkRequest, egress_gate, open_egress,
};

use crate::ipv6::{MACHINE_6, NEIGHBOUR_6, on, on_a_machine_of_both};
use crate::lab::*;

/// Addresses of the second host that are nobody's secret.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const OTHER_PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 8);
const PUBLIC_6: &str = "2001:db8::7";

/// How long the tests' answers are good.
const TTL: Duration = Duration::from_secs(60);

fn with_policy(request: JoinRequest, policy: &str) -> JoinRequest {
    JoinRequest { egress: Some(policy.parse().unwrap()), ..request }
}

fn wish(name: &str, subnet: &str, policy: &str) -> UserNetworkRequest {
    let ipv4 = RangeRequest { subnet: subnet.parse().ok(), ..RangeRequest::default() };
    let options = [(EGRESS.to_owned(), policy.to_owned())].into();
    UserNetworkRequest { name: name.to_owned(), ipv4, options, ..UserNetworkRequest::default() }
}

/// Gives the second host its public addresses.
fn go_public(lab: &Lab) {
    inside(lab.second.as_fd(), || {
        for address in [PUBLIC, OTHER_PUBLIC] {
            run(&["ip", "addr", "add", &format!("{address}/32"), "dev", "lo"]);
        }
    });
    run(&["ip", "route", "add", "203.0.113.0/24", "via", &NEIGHBOUR.to_string()]);
}

/// A server in a namespace, at a port of all its addresses.
fn serve(namespace: BorrowedFd<'_>, port: u16) -> TcpListener {
    inside(namespace, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap())
}

fn reaches(joined: &Joined, address: impl Into<IpAddr>, port: u16) -> bool {
    let to = SocketAddr::new(address.into(), port);
    inside(joined.namespace.as_fd(), || TcpStream::connect_timeout(&to, DEADLINE).is_ok())
}

fn denied(joined: &Joined, address: impl Into<IpAddr>, port: u16) -> bool {
    let address = address.into();
    inside(joined.namespace.as_fd(), || is_unreachable(address, port))
}

fn is_so(joined: &Joined, address: impl Into<IpAddr>, port: u16, reached: bool) -> bool {
    if reached { reaches(joined, address, port) } else { denied(joined, address, port) }
}

fn tables() -> String {
    // What nft(8) cannot print its users cannot, either.
    run(&["nft", "list", "ruleset"]);
    run(&["nft", "list", "tables"])
        .lines()
        .filter(|line| line.contains("egress"))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Whether an address answers an echo request (RFC 792).
fn echoes(joined: &Joined, address: Ipv4Addr) -> bool {
    use rustix::net::{AddressFamily, SocketType, ipproto, socket};
    let socket: UdpSocket = inside(joined.namespace.as_fd(), || {
        let socket = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP)).unwrap();
        rustix::net::connect(&socket, &SocketAddr::from((address, 0))).unwrap();
        socket.into()
    });
    socket.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    socket.send(&[8, 0, 0xf7, 0xff, 0, 0, 0, 0]).unwrap();
    socket.recv(&mut [0; 64]).is_ok()
}

/// Whether datagrams from `joined` arrive at the second host's address, or none does, sent from an address of the sender's choice.
fn datagrams(lab: &Lab, joined: &Joined, from: Option<&str>, to: SocketAddr, arrive: bool) -> bool {
    let server = inside(lab.second.as_fd(), || UdpSocket::bind(to).unwrap());
    server.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    let client = inside(joined.namespace.as_fd(), || {
        let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        UdpSocket::bind((from.map_or(any, |from| from.parse().unwrap()), 0)).unwrap()
    });
    // One may be lost: a link that is new takes a moment.
    let deadline = std::time::Instant::now() + if arrive { DEADLINE } else { Duration::ZERO };
    loop {
        client.send_to(b"hello", to).unwrap();
        let arrived = server.recv(&mut [0; 16]).is_ok();
        if arrived || std::time::Instant::now() >= deadline {
            return arrived == arrive;
        }
    }
}

fn arrives(lab: &Lab, joined: &Joined, from: Option<&str>, port: u16) -> bool {
    datagrams(lab, joined, from, (NEIGHBOUR, port).into(), true)
}

fn is_lost(lab: &Lab, joined: &Joined, from: Option<&str>, port: u16) -> bool {
    datagrams(lab, joined, from, (NEIGHBOUR, port).into(), false)
}

#[test]
fn privileged_only_what_is_allowed_of_addresses_is_reached() {
    on_a_machine(|lab| {
        go_public(&lab);
        let networks = lab.networks();
        let free = networks.join(&request("free", &[])).unwrap();
        assert_eq!(tables(), "", "nobody has a policy");
        let policy = "deny,allow=10.9.0.2:80-81,allow=10.9.0.2:53/udp,allow=203.0.113.8";
        let wanted = with_policy(request("one", &[publish(None, 8080, 80)]), policy);
        let one = networks.join(&wanted).unwrap();
        let second: Vec<_> = [80, 81, 82].map(|port| serve(lab.second.as_fd(), port)).into();
        let here = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 82)).unwrap();
        for (address, port, reached) in [
            (NEIGHBOUR, 80, true),
            (NEIGHBOUR, 81, true),
            (NEIGHBOUR, 82, false),
            (PUBLIC, 80, false),
            (OTHER_PUBLIC, 82, true),
            // The host itself: by the bridge's address, and by its own one.
            (Ipv4Addr::new(172, 17, 0, 1), 82, false),
            (MACHINE, 82, false),
        ] {
            assert!(is_so(&one, address, port, reached), "{address}:{port}");
            assert!(reaches(&free, address, port), "{address}:{port} without a policy");
        }
        assert!(arrives(&lab, &one, None, 53) && is_lost(&lab, &one, None, 54));
        assert!(arrives(&lab, &free, None, 54));
        assert!(echoes(&one, OTHER_PUBLIC) && !echoes(&one, PUBLIC), "all protocols, where no port is named");
        // Answers, neighbours, and what the host begins.
        let server = listen(&one, 80);
        inside(lab.second.as_fd(), || reach(&server, MACHINE, 8080)).unwrap();
        inside(free.namespace.as_fd(), || reach(&server, Ipv4Addr::new(172, 17, 0, 3), 80)).unwrap();
        reach(&server, Ipv4Addr::new(172, 17, 0, 3), 80).unwrap();
        let neighbour = listen(&free, 80);
        inside(one.namespace.as_fd(), || reach(&neighbour, Ipv4Addr::new(172, 17, 0, 2), 80)).unwrap();
        networks.leave("one").unwrap();
        assert_eq!(tables(), "");
        drop((one, server, second, here));
        // The next one has the address, and no policy.
        let next = networks.join(&request("next", &[])).unwrap();
        assert_eq!(next.place.endpoints[0].ipv4.unwrap().address, Ipv4Addr::new(172, 17, 0, 3));
        let _server = serve(lab.second.as_fd(), 82);
        assert!(reaches(&next, NEIGHBOUR, 82));
    });
}

#[test]
fn privileged_a_source_of_somebody_elses_gets_nowhere() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let free = networks.join(&request("free", &[])).unwrap();
        let one = networks.join(&with_policy(request("one", &[]), "deny,allow=10.9.0.2:53/udp")).unwrap();
        let claim = |joined: &Joined, address: &str| {
            inside(joined.namespace.as_fd(), || run(&["ip", "addr", "add", &format!("{address}/32"), "dev", "eth0"]));
        };
        claim(&one, "172.17.0.99");
        assert!(is_lost(&lab, &one, Some("172.17.0.99"), 54));
        assert!(is_lost(&lab, &one, Some("172.17.0.99"), 53), "also where it may go by itself");
        assert!(arrives(&lab, &one, None, 53));
        // The address of somebody without a policy.
        claim(&one, "172.17.0.2");
        assert!(is_lost(&lab, &one, Some("172.17.0.2"), 54));
        // Without a policy nobody asks.
        claim(&free, "172.17.0.98");
        assert!(arrives(&lab, &free, Some("172.17.0.98"), 54));
        // One that claims to be a container with a policy has that one's.
        claim(&free, "172.17.0.3");
        assert!(is_lost(&lab, &free, Some("172.17.0.3"), 54));
    });
}

#[test]
fn privileged_what_goes_to_everybody_is_not_for_the_host() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let free = networks.join(&request("free", &[])).unwrap();
        let one = networks.join(&with_policy(request("one", &[]), "deny")).unwrap();
        let here = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5353)).unwrap();
        here.join_multicast_v4(&Ipv4Addr::new(224, 0, 0, 251), &Ipv4Addr::new(172, 17, 0, 1)).unwrap();
        let shout = |joined: &Joined, word: &[u8]| {
            let socket = inside(joined.namespace.as_fd(), || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
            socket.set_broadcast(true).unwrap();
            for everybody in [[172, 17, 255, 255], [255, 255, 255, 255], [224, 0, 0, 251]] {
                socket.send_to(word, (Ipv4Addr::from(everybody), 5353)).unwrap();
            }
        };
        let neighbour = bind_udp(&free, 5353);
        let deadline = std::time::Instant::now() + DEADLINE;
        let mut buffer = [0; 8];
        // The host hears whoever has no policy, and so would have heard the other one before.
        loop {
            shout(&one, b"one");
            shout(&free, b"free");
            here.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let heard = here.recv(&mut buffer).ok();
            assert!(heard.is_none_or(|count| &buffer[..count] == b"free"), "{:?}", &buffer);
            if heard.is_some() {
                break;
            }
            assert!(std::time::Instant::now() < deadline);
        }
        let words = std::iter::from_fn(|| here.recv(&mut buffer).ok().map(|count| buffer[..count].to_vec()));
        assert!(words.take(20).all(|word| word == b"free"));
        // Its neighbours hear it.
        let mut word = [0; 8];
        while neighbour.recv(&mut word).map(|count| word[..count].to_vec()).unwrap() != b"one" {}
    });
}

#[test]
fn privileged_names_open_what_they_lead_to() {
    on_a_machine(|lab| {
        go_public(&lab);
        let networks = lab.networks();
        let network =
            networks.create(wish("a", "10.7.0.0/24", "allow=*.example.org:80-81,allow=other.net:443")).unwrap();
        let one = networks.join(&request_on("one", &[], on(&[&network.id]))).unwrap();
        let two = networks.join(&request_on("two", &[], on(&[&network.id]))).unwrap();
        let _second: Vec<_> = [80, 81, 443].map(|port| serve(lab.second.as_fd(), port)).into();
        assert!(denied(&one, PUBLIC, 80));
        let gate = egress_gate(&networks, "one").unwrap();
        assert!(gate.allows_name("www.example.org") && !gate.allows_name("example.com"));
        assert!(gate.is_near("10.7.0.9".parse().unwrap()) && !gate.is_near(PUBLIC.into()));
        let lead = |name: &str, to: Ipv4Addr| open_egress(&networks, "one", name, &[(to.into(), TTL)]).unwrap();
        lead("www.example.org", PUBLIC);
        for (address, port, reached) in
            [(PUBLIC, 80, true), (PUBLIC, 81, true), (PUBLIC, 443, false), (OTHER_PUBLIC, 80, false)]
        {
            assert!(is_so(&one, address, port, reached), "{address}:{port}");
            assert!(denied(&two, address, port), "{address}:{port} was opened for another one");
        }
        lead("other.net", PUBLIC);
        assert!(reaches(&one, PUBLIC, 443) && reaches(&one, PUBLIC, 80));
        // What others' names must not lead to, and names that nobody allowed.
        lead("www.example.org", NEIGHBOUR);
        lead("example.com", OTHER_PUBLIC);
        assert!(denied(&one, NEIGHBOUR, 80) && denied(&one, OTHER_PUBLIC, 80));
        // This machine's own address is none of theirs either, however public.
        run(&["ip", "addr", "add", "198.51.100.1/32", "dev", "lo"]);
        let _here = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).unwrap();
        lead("www.example.org", Ipv4Addr::new(198, 51, 100, 1));
        assert!(denied(&one, Ipv4Addr::new(198, 51, 100, 1), 80));
        let learned = run(&["nft", "list", "set", "ip", "longshore-0123abcd-egress", "learned"]);
        assert!(learned.contains("timeout 1m30s") && learned.contains("expires 1m"), "{learned}");
        // What was open stays so when its time has come, for connections that are there.
        let mut open = inside(one.namespace.as_fd(), || TcpStream::connect((PUBLIC, 80)).unwrap());
        run(&["nft", "flush", "set", "ip", "longshore-0123abcd-egress", "learned"]);
        assert!(denied(&one, PUBLIC, 80));
        std::io::Write::write_all(&mut open, b"still here").unwrap();
        let acknowledged = || inside(one.namespace.as_fd(), || run(&["ss", "-tnH", "state", "established"]));
        // A queue of nothing that is not acknowledged.
        wait_until("the bytes arrive", || {
            acknowledged().lines().any(|line| line.contains(" 0 ") || line.starts_with("0 0"))
        });
    });
}

#[test]
fn privileged_both_policies_count_and_a_running_container_gets_the_networks() {
    on_a_machine(|lab| {
        go_public(&lab);
        let networks = lab.networks();
        let strict =
            networks.create(wish("strict", "10.7.0.0/24", "allow=203.0.113.0/24:80,allow=a.org:80-81")).unwrap();
        let _second: Vec<_> = [80, 81].map(|port| serve(lab.second.as_fd(), port)).into();
        let both = with_policy(
            request_on("both", &[], on(&[&strict.id])),
            "allow=203.0.113.7:80-81,allow=*.org:81,allow=b.net:80",
        );
        let both = networks.join(&both).unwrap();
        assert!(reaches(&both, PUBLIC, 80) && denied(&both, PUBLIC, 81) && denied(&both, OTHER_PUBLIC, 80));
        let gate = egress_gate(&networks, "both").unwrap();
        assert_eq!(["a.org", "c.org", "b.net"].map(|name| gate.allows_name(name)), [true, false, false]);
        open_egress(&networks, "both", "a.org", &[(OTHER_PUBLIC.into(), TTL)]).unwrap();
        assert!(reaches(&both, OTHER_PUBLIC, 81) && denied(&both, OTHER_PUBLIC, 80));
        // A container that runs joins, and leaves again.
        let one = networks.join(&request("one", &[])).unwrap();
        assert_eq!(egress_gate(&networks, "one"), None);
        assert!(reaches(&one, OTHER_PUBLIC, 81));
        networks.connect(&request_on("one", &[], on(&[&strict.id])), one.namespace.as_fd()).unwrap();
        let gate = egress_gate(&networks, "one").unwrap();
        assert!(gate.allows_name("anything.net"), "its other network asks nobody");
        networks.disconnect("one", DEFAULT, Some(one.namespace.as_fd())).unwrap();
        assert!(denied(&one, OTHER_PUBLIC, 81) && reaches(&one, OTHER_PUBLIC, 80));
        networks.leave("both").unwrap();
        assert!(denied(&one, OTHER_PUBLIC, 81), "another one's end changes nothing");
        networks.disconnect("one", &strict.id, Some(one.namespace.as_fd())).unwrap();
        assert_eq!(tables(), "");
    });
}

#[test]
fn privileged_policies_outlive_the_daemon_and_a_flush() {
    on_a_machine(|lab| {
        go_public(&lab);
        let networks = lab.networks();
        let network = networks.create(wish("a", "10.7.0.0/24", "allow=a.org:80")).unwrap();
        let one = networks.join(&request_on("one", &[], on(&[&network.id]))).unwrap();
        let own = with_policy(request("own", &[]), "allow=203.0.113.8:80");
        let own = networks.join(&own).unwrap();
        open_egress(&networks, "one", "a.org", &[(PUBLIC.into(), TTL)]).unwrap();
        let _second: Vec<_> = [80, 81].map(|port| serve(lab.second.as_fd(), port)).into();
        let stands = || {
            assert!(reaches(&one, PUBLIC, 80) && denied(&one, PUBLIC, 81) && denied(&one, OTHER_PUBLIC, 80));
            assert!(reaches(&own, OTHER_PUBLIC, 80) && denied(&own, OTHER_PUBLIC, 81) && denied(&own, PUBLIC, 80));
        };
        stands();
        kill(networks, 2);
        stands();
        let networks = Networks::open(lab.config()).unwrap();
        networks.reconcile(&["one", "own"]).unwrap();
        stands();
        let mut healer = network::Healer::listen(&networks).unwrap();
        run(&["nft", "flush", "ruleset"]);
        healer.heal(&networks).unwrap();
        stands();
        run(&["nft", "delete", "table", "bridge", "longshore-0123abcd-egress"]);
        healer.heal(&networks).unwrap();
        assert_eq!(tables().lines().count(), 2);
        // What is added when somebody has flushed everything stands, too.
        run(&["nft", "flush", "ruleset"]);
        open_egress(&networks, "one", "a.org", &[(OTHER_PUBLIC.into(), TTL)]).unwrap();
        healer.heal(&networks).unwrap();
        assert!(reaches(&one, OTHER_PUBLIC, 80) && reaches(&one, PUBLIC, 80));
        // The next daemon finds nobody alive: nothing stays.
        drop((one, own));
        kill(networks, 0);
        let networks = Networks::open(lab.config()).unwrap();
        networks.reconcile(&[]).unwrap();
        assert_eq!(tables(), "");
    });
}

#[test]
fn privileged_policies_are_of_both_families() {
    on_a_machine_of_both(|lab| {
        inside(lab.second.as_fd(), || run(&["ip", "addr", "add", &format!("{PUBLIC_6}/128"), "dev", "lo"]));
        run(&["ip", "route", "add", "2001:db8::/64", "via", &NEIGHBOUR_6.to_string()]);
        let networks = lab.networks();
        let policy = format!("allow=[{NEIGHBOUR_6}]:80,allow=[{NEIGHBOUR_6}]:53/udp,allow=a.org:81");
        let mut wanted = crate::ipv6::wish("a", "10.7.0.0/24", "fd07::/64");
        wanted.options.insert(EGRESS.to_owned(), policy);
        let network = networks.create(wanted).unwrap();
        let one =
            networks.join(&request_on("one", &[crate::ipv6::publish_on(MACHINE_6, 8080)], on(&[&network.id]))).unwrap();
        let two = networks.join(&request_on("two", &[], on(&[&network.id]))).unwrap();
        let bind = |port: u16| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
        let _second: Vec<_> = inside(lab.second.as_fd(), || [80, 81].map(bind)).into();
        let _here = bind(80);
        let public: IpAddr = PUBLIC_6.parse().unwrap();
        let gateway: IpAddr = "fd07::1".parse().unwrap();
        for (address, port, reached) in [
            (NEIGHBOUR_6.into(), 80, true),
            (NEIGHBOUR_6.into(), 81, false),
            (NEIGHBOUR.into(), 80, false),
            (public, 81, false),
            (gateway, 80, false),
            (MACHINE_6.into(), 80, false),
        ] {
            assert!(is_so(&one, address, port, reached), "{address} {port}");
        }
        // This machine by the address of the link, which is no neighbour's.
        let reaches_the_link = |joined: &Joined, time: Duration| {
            inside(joined.namespace.as_fd(), || {
                let index = run(&["ip", "-o", "link", "show", "eth0"]);
                let index = index.split(':').next().unwrap().parse().unwrap();
                let to = SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, index);
                TcpStream::connect_timeout(&to.into(), time).is_ok()
            })
        };
        let free = networks.create(crate::ipv6::wish("free", "10.8.0.0/24", "fd08::/64")).unwrap();
        let free = networks.join(&request_on("free", &[], on(&[&free.id]))).unwrap();
        assert!(reaches_the_link(&free, DEADLINE) && !reaches_the_link(&one, Duration::from_millis(400)));
        open_egress(&networks, "one", "a.org", &[(public, TTL)]).unwrap();
        assert!(reaches(&one, public, 81) && denied(&one, public, 80) && denied(&two, public, 81));
        let server = listen_on_ipv6(&one, 80);
        inside(lab.second.as_fd(), || reach(&server, MACHINE_6, 8080)).unwrap();
        inside(two.namespace.as_fd(), || reach(&server, "fd07::2".parse::<IpAddr>().unwrap(), 80)).unwrap();
        // A source that is not its own.
        inside(two.namespace.as_fd(), || run(&["ip", "addr", "add", "fd07::99/128", "dev", "eth0", "nodad"]));
        let to = (NEIGHBOUR_6, 53).into();
        assert!(datagrams(&lab, &two, Some("fd07::3"), to, true) && datagrams(&lab, &two, Some("fd07::99"), to, false));
        networks.leave("one").unwrap();
        networks.leave("two").unwrap();
        assert_eq!(tables(), "");
    });
}

#[test]
fn privileged_denials_are_told() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let other = networks.create(wish("a", "10.7.0.0/24", "deny")).unwrap();
        let one = networks.join(&request_on("one", &[], on(&[&other.id]))).unwrap();
        let mut denials = Denials::listen(&networks).unwrap();
        let own = networks.join(&with_policy(request("own", &[]), "deny")).unwrap();
        assert!(denied(&one, NEIGHBOUR, 80) && is_lost(&lab, &own, None, 53));
        inside(own.namespace.as_fd(), || run(&["ip", "addr", "add", "172.17.0.99/32", "dev", "eth0"]));
        assert!(is_lost(&lab, &own, Some("172.17.0.99"), 54));
        let told = denials.read(&networks).unwrap();
        let has = |container: &str, network: &str, protocol: &str, port: u16, forged: Option<&str>| {
            told.iter().any(|one| {
                (&*one.container, &*one.network, &*one.protocol, one.port) == (container, network, protocol, Some(port))
                    && one.destination == IpAddr::V4(NEIGHBOUR)
                    && one.forged.map(|address| address.to_string()).as_deref() == forged
            })
        };
        assert!(has("one", &other.id, "tcp", 80, None), "{told:?}");
        assert!(has("own", DEFAULT, "udp", 53, None), "{told:?}");
        assert!(has("own", DEFAULT, "udp", 54, Some("172.17.0.99")), "{told:?}");
        assert_eq!(denials.read(&networks).unwrap(), []);
        // A flood is told in part.
        inside(one.namespace.as_fd(), || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            (1..=1000).for_each(|port| _ = socket.send_to(b"x", (NEIGHBOUR, port)).unwrap());
        });
        let told = denials.read(&networks).unwrap().len();
        assert!((1..100).contains(&told), "{told}");
        // Another instance in the same place finds another group.
        let beside = network::Config::new("0123abcd", lab.directory.path().join("beside"));
        Denials::listen(&Networks::open(beside).unwrap()).unwrap();
    });
}

#[test]
fn privileged_what_cannot_be_kept_is_refused() {
    on_a_machine(|lab| {
        let networks = lab.networks();
        let refused = networks.join(&with_policy(request("one", &[]), "allow=a.org:80"));
        assert!(matches!(refused, Err(JoinError::Egress(EgressError::NoNames))));
        assert!(matches!(networks.create(wish("a", "10.7.0.0/24", "deny,x")), Err(CreateError::Egress(_))));
        let parent = |policy: &str| UserNetworkRequest {
            driver: network::DriverKind::Macvlan,
            ..wish("beside", "10.7.0.0/24", policy)
        };
        let create =
            |policy: &str| -> Result<std::sync::Arc<UserNetwork>, CreateError> { networks.create(parent(policy)) };
        assert!(matches!(create("deny"), Err(CreateError::EgressKept(EgressError::NoBridge { .. }))));
        let beside = create("allow").unwrap();
        let refused = networks.join(&with_policy(request_on("one", &[], on(&[&beside.id])), "deny"));
        assert!(matches!(refused, Err(JoinError::Egress(EgressError::NoBridge { .. }))));
        assert_eq!(networks.place("one"), None);
        assert_eq!(tables(), "");
    });
}

#[test]
fn privileged_addresses_of_the_link_reach_neighbours_and_nobody_else() {
    on_a_machine_of_both(|lab| {
        let networks = lab.networks();
        let mut wanted = crate::ipv6::wish("a", "10.7.0.0/24", "fd07::/64");
        wanted.options.insert(EGRESS.to_owned(), format!("deny,allow={NEIGHBOUR}:53/udp"));
        let network = networks.create(wanted).unwrap();
        let with = |address: &str, of_ipv6: &str| network::EndpointRequest {
            link_local: vec![address.parse().unwrap(), of_ipv6.parse().unwrap()],
            ..network::EndpointRequest::on(&network.id)
        };
        let join = |name: &str, address: &str, of_ipv6: &str| {
            networks.join(&request_on(name, &[], vec![with(address, of_ipv6)])).unwrap()
        };
        let one = join("one", "169.254.7.1", "fe80::71");
        let two = join("two", "169.254.7.2", "fe80::72");
        let third = join("third", "169.254.7.1", "fe80::73");
        // Who has an address in common with one that goes keeps it.
        networks.leave("third").unwrap();
        drop(third);
        let server = serve(two.namespace.as_fd(), 80);
        let of = |address: &str| -> SocketAddr { (address.parse::<Ipv4Addr>().unwrap(), 0).into() };
        let reached = inside(one.namespace.as_fd(), || {
            use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
            let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
            bind(&socket, &of("169.254.7.1")).unwrap();
            connect(&socket, &SocketAddr::from((Ipv4Addr::new(169, 254, 7, 2), 80))).is_ok()
        });
        assert!(reached && server.accept().unwrap().1.ip() == Ipv4Addr::new(169, 254, 7, 1));
        // What the policy allows it may do from its own address, from the other one nothing that leaves the link.
        assert!(arrives(&lab, &one, None, 53));
        assert!(is_lost(&lab, &one, Some("169.254.7.1"), 53) && is_lost(&lab, &one, Some("169.254.7.1"), 54));
        inside(lab.second.as_fd(), || run(&["ip", "addr", "add", "169.254.169.254/32", "dev", "lo"]));
        run(&["ip", "route", "add", "169.254.169.254/32", "via", &NEIGHBOUR.to_string()]);
        inside(one.namespace.as_fd(), || run(&["ip", "route", "add", "169.254.169.254/32", "via", "10.7.0.1"]));
        let metadata = (Ipv4Addr::new(169, 254, 169, 254), 80).into();
        assert!(
            datagrams(&lab, &one, Some("169.254.7.1"), metadata, false) && datagrams(&lab, &one, None, metadata, false)
        );
        // Neighbours of IPv6 are found from there, too.
        let index: u32 = inside(one.namespace.as_fd(), || run(&["ip", "-o", "link", "show", "eth0"]))
            .split(':')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let hears = inside(two.namespace.as_fd(), || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 90)).unwrap());
        hears.set_read_timeout(Some(DEADLINE)).unwrap();
        inside(one.namespace.as_fd(), || {
            let client = UdpSocket::bind(SocketAddrV6::new("fe80::71".parse().unwrap(), 0, 0, index)).unwrap();
            client.send_to(b"hello", SocketAddrV6::new("fe80::72".parse().unwrap(), 90, 0, index)).unwrap();
        });
        assert_eq!(hears.recv(&mut [0; 16]).unwrap(), 5);
        networks.leave("one").unwrap();
        networks.leave("two").unwrap();
        assert_eq!(tables(), "");
    });
}
