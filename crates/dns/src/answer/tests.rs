use std::collections::BTreeMap;

use proptest::prelude::*;
use simple_dns::rdata::{OPT, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

use super::*;
use crate::zone::Endpoint;

/// A query as another implementation writes it.
fn query(name: &str, kind: TYPE) -> Vec<u8> {
    query_with(name, QTYPE::TYPE(kind), None)
}

fn query_with(name: &str, kind: QTYPE, udp_bytes: Option<u16>) -> Vec<u8> {
    let mut packet = Packet::new_query(0x1234);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let class = QCLASS::CLASS(CLASS::IN);
    packet.questions.push(Question::new(Name::new_unchecked(name).into_owned(), kind, class, false));
    if let Some(udp_packet_size) = udp_bytes {
        *packet.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size, version: 0 });
    }
    packet.build_bytes_vec().unwrap()
}

/// An answer as another implementation reads it.
fn read(reply: &[u8]) -> Vec<String> {
    let packet = Packet::parse(reply).unwrap();
    assert_eq!(packet.id(), 0x1234);
    assert_eq!(packet.rcode(), RCODE::NoError);
    let flags = PacketFlag::RESPONSE | PacketFlag::RECURSION_DESIRED | PacketFlag::RECURSION_AVAILABLE;
    assert!(packet.has_flags(flags) && !packet.has_flags(PacketFlag::AUTHORITATIVE_ANSWER));
    let name = packet.questions[0].qname.to_string();
    let texts = packet.answers.iter().map(|record| {
        assert_eq!((record.name.to_string(), record.ttl, record.class), (name.clone(), 600, CLASS::IN));
        match &record.rdata {
            RData::A(a) => Ipv4Addr::from_bits(a.address).to_string(),
            RData::AAAA(aaaa) => Ipv6Addr::from_bits(aaaa.address).to_string(),
            RData::PTR(ptr) => ptr.0.to_string(),
            other => panic!("{other:?}"),
        }
    });
    texts.collect()
}

fn endpoint(container: &str, names: &[&str], addresses: &[&str]) -> Endpoint {
    Endpoint {
        container: container.to_owned(),
        names: names.iter().map(|name| name.to_string()).collect(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        ..Endpoint::default()
    }
}

/// `web` and `db` on `front`, `db` and two of `api` on `back`.
fn zone() -> Zone {
    let mut zone = Zone::default();
    zone.connect("n1", "front", false, endpoint("web", &["Web", "www", "0123456789ab"], &["172.18.0.2"]));
    zone.connect("n1", "front", false, endpoint("db", &["db", "a.b"], &["172.18.0.3"]));
    zone.connect("n2", "back", true, endpoint("db", &["db"], &["172.19.0.2", "fd00::2"]));
    zone.connect("n2", "back", true, endpoint("api1", &["api1", "api"], &["172.19.0.3"]));
    zone.connect("n2", "back", true, endpoint("api2", &["api2", "api"], &["172.19.0.4"]));
    zone
}

fn ask(zone: &Zone, client: &str, name: &str, kind: TYPE) -> Option<Vec<String>> {
    match zone.answer(client, &query(name, kind), Transport::Udp, 0, false) {
        Verdict::Reply(reply) => Some(read(&reply)),
        Verdict::Forward(_) => None,
        Verdict::Ignore => panic!("ignored"),
    }
}

#[test]
fn names_lead_to_addresses_of_shared_networks() {
    let zone = zone();
    let check = |client, name, kind, expected: Option<&[&str]>| {
        let expected = expected.map(|all| all.iter().map(|one| one.to_string()).collect::<Vec<_>>());
        assert_eq!(ask(&zone, client, name, kind), expected, "{client} asks for {name} {kind:?}");
    };
    check("db", "web", TYPE::A, Some(&["172.18.0.2"]));
    check("web", "WEB", TYPE::A, Some(&["172.18.0.2"]));
    check("db", "www", TYPE::A, Some(&["172.18.0.2"]));
    check("db", "0123456789ab", TYPE::A, Some(&["172.18.0.2"]));
    // The network that leads out comes first, then the name's other family is asked for there.
    check("db", "db", TYPE::A, Some(&["172.18.0.3"]));
    check("db", "db", TYPE::AAAA, Some(&[]));
    check("api1", "db", TYPE::AAAA, Some(&["fd00::2"]));
    check("db", "db.back", TYPE::A, Some(&["172.19.0.2"]));
    check("db", "db.Back", TYPE::AAAA, Some(&["fd00::2"]));
    check("db", "web.back", TYPE::A, None);
    check("web", "a.b", TYPE::A, Some(&["172.18.0.3"]));
    check("web", "a.b.front", TYPE::A, Some(&["172.18.0.3"]));
    check("web", "a", TYPE::A, None);
    // Nothing of a network that the client is not on.
    check("web", "api", TYPE::A, None);
    check("web", "db.back", TYPE::A, None);
    check("stranger", "web", TYPE::A, None);
    check("db", "web", TYPE::MX, Some(&[]));
    check("db", "example.com", TYPE::MX, None);
    check("db", "web", TYPE::TXT, None);
    check("db", "example.com", TYPE::A, None);
}

#[test]
fn addresses_lead_to_names() {
    let zone = zone();
    let check = |client, name: &str, expected: Option<&str>| {
        let expected = expected.map(|one| vec![one.to_owned()]);
        assert_eq!(ask(&zone, client, name, TYPE::PTR), expected, "{client} asks for {name}");
    };
    check("db", "2.0.18.172.in-addr.arpa", Some("Web.front"));
    check("db", "2.0.18.172.IN-ADDR.arpa", Some("Web.front"));
    check("web", "2.0.19.172.in-addr.arpa", None);
    check("db", "9.0.18.172.in-addr.arpa", None);
    check("db", "18.172.in-addr.arpa", None);
    check("db", "x.0.18.172.in-addr.arpa", None);
    let nibbles = format!("2.{}0.0.d.f.ip6.arpa", "0.".repeat(27));
    check("db", &nibbles, Some("db.back"));
    check("db", &nibbles[2..], None);
}

#[test]
fn chance_orders_several_owners_of_a_name() {
    let zone = zone();
    let first = |chance| match zone.answer("db", &query("api", TYPE::A), Transport::Udp, chance, false) {
        Verdict::Reply(reply) => read(&reply),
        other => panic!("{other:?}"),
    };
    assert_eq!(first(0), ["172.19.0.3", "172.19.0.4"]);
    assert_eq!(first(1), ["172.19.0.4", "172.19.0.3"]);
    assert_eq!(first(2), first(0));
    assert_eq!(first(u64::MAX).len(), 2);
    let orders: std::collections::BTreeSet<Vec<u8>> = (0..6)
        .map(|chance| {
            let mut addresses = [1, 2, 3].map(|last| IpAddr::from([10, 0, 0, last]));
            shuffle(&mut addresses, chance);
            addresses.iter().map(|one| one.to_string().as_bytes()[7]).collect()
        })
        .collect();
    assert_eq!(orders.len(), 6, "each order once");
}

#[test]
fn the_highest_priority_is_asked_first_and_the_lowest_last() {
    let mut zone = Zone::default();
    for (network, priority, last) in [("low", i64::MIN, 2), ("high", i64::MAX, 3), ("none", 0, 4)] {
        let own = Endpoint { priority, ..endpoint("web", &["web"], &[]) };
        zone.connect(network, network, false, own);
        zone.connect(network, network, false, endpoint("db", &["db"], &[&format!("10.0.0.{last}")]));
    }
    assert_eq!(ask(&zone, "web", "db", TYPE::A).unwrap(), ["10.0.0.3"]);
    zone.disconnect("high", "db");
    assert_eq!(ask(&zone, "web", "db", TYPE::A).unwrap(), ["10.0.0.4"]);
    zone.disconnect("none", "db");
    assert_eq!(ask(&zone, "web", "db", TYPE::A).unwrap(), ["10.0.0.2"]);
}

#[test]
fn links_are_the_containers_own_words() {
    let mut zone = zone();
    let links = BTreeMap::from([("store".to_owned(), "db".to_owned()), ("www".to_owned(), "db".to_owned())]);
    zone.connect("n1", "front", false, Endpoint { links, ..endpoint("web", &["web", "www"], &["172.18.0.2"]) });
    assert_eq!(ask(&zone, "web", "store", TYPE::A).unwrap(), ["172.18.0.3"]);
    assert_eq!(ask(&zone, "web", "Store.front", TYPE::A).unwrap(), ["172.18.0.3"]);
    // Its own word hides the name that it has for others.
    assert_eq!(ask(&zone, "web", "www", TYPE::A).unwrap(), ["172.18.0.3"]);
    assert_eq!(ask(&zone, "db", "www", TYPE::A).unwrap(), ["172.18.0.2"]);
    assert_eq!(ask(&zone, "db", "store", TYPE::A), None);
}

#[test]
fn what_goes_is_gone_at_once() {
    let mut zone = zone();
    zone.disconnect("n2", "api1");
    assert_eq!(ask(&zone, "db", "api", TYPE::A).unwrap(), ["172.19.0.4"]);
    assert_eq!(ask(&zone, "api1", "api", TYPE::A), None);
    // On anew, with another address.
    zone.connect("n2", "back", true, endpoint("api2", &["other"], &["172.19.0.9"]));
    assert_eq!(ask(&zone, "db", "api", TYPE::A), None);
    assert_eq!(ask(&zone, "db", "other", TYPE::A).unwrap(), ["172.19.0.9"]);
    assert_eq!(ask(&zone, "db", "4.0.19.172.in-addr.arpa", TYPE::PTR), None);
    assert!(zone.leads_out("db") && !zone.leads_out("api2"));
    zone.forget("db");
    assert!(!zone.knows("db") && zone.knows("api2"));
    assert_eq!(ask(&zone, "api2", "db", TYPE::A), None);
}

#[test]
fn the_highest_priority_is_asked_first() {
    let mut zone = zone();
    let preferred = Endpoint { priority: 5, ..endpoint("db", &["db"], &["172.19.0.2"]) };
    zone.connect("n2", "back", true, preferred);
    assert_eq!(ask(&zone, "db", "db", TYPE::A).unwrap(), ["172.19.0.2"]);
}

#[test]
fn words_wait_for_their_domain_where_the_client_completes_them() {
    let zone = zone();
    let ask = |name, kind| zone.answer("web", &query(name, kind), Transport::Udp, 0, true) == forward(name, kind);
    fn forward(name: &str, kind: TYPE) -> Verdict<'static> {
        let bytes: &'static [u8] = query(name, kind).leak();
        Verdict::Forward(Query::parse(bytes, Transport::Udp).unwrap())
    }
    assert!(!ask("elsewhere", TYPE::A) && !ask("elsewhere", TYPE::AAAA));
    assert!(ask("elsewhere", TYPE::TXT) && ask("elsewhere.example", TYPE::A));
}

#[test]
fn answers_are_cut_where_the_client_says_so() {
    let mut zone = Zone::default();
    for at in 0..60 {
        zone.connect("n", "net", false, endpoint(&format!("c{at}"), &["all"], &[&format!("10.0.0.{at}")]));
    }
    let check = |bytes: &[u8], transport, expected: usize, cut| {
        let Verdict::Reply(reply) = zone.answer("c0", bytes, transport, 0, false) else { panic!("no reply") };
        assert_eq!(read(&reply).len(), expected);
        assert_eq!(Packet::parse(&reply).unwrap().has_flags(PacketFlag::TRUNCATION), cut);
    };
    let kind = QTYPE::TYPE(TYPE::A);
    // 12 bytes of header, 9 of question, 16 a record.
    check(&query_with("all", kind, None), Transport::Udp, 30, true);
    check(&query_with("all", kind, Some(600)), Transport::Udp, 36, true);
    check(&query_with("all", kind, Some(100)), Transport::Udp, 30, true);
    check(&query_with("all", kind, Some(1232)), Transport::Udp, 60, false);
    check(&query_with("all", kind, None), Transport::Tcp, 60, false);
}

#[test]
fn what_is_no_query_is_refused_or_ignored() {
    let zone = zone();
    let ignored = |bytes: &[u8]| zone.answer("web", bytes, Transport::Udp, 0, false) == Verdict::Ignore;
    let code = |bytes: &[u8]| match zone.answer("web", bytes, Transport::Udp, 0, false) {
        Verdict::Reply(reply) => Some((reply[3] & 15, reply.len())),
        _ => None,
    };
    let good = query("web", TYPE::A);
    assert!(ignored(&good[..11]) && ignored(&[]));
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    assert!(ignored(&with(2, 0x81)), "an answer");
    assert_eq!(code(&with(2, 0x29)), Some((4, 12)), "an update");
    assert_eq!(code(&with(5, 2)), Some((1, 12)), "two questions");
    assert_eq!(code(&with(12, 0xc0)), Some((1, 12)), "a pointer as the name asked for");
    assert_eq!(code(&good[..good.len() - 1]), Some((1, 12)), "half a question");
    assert_eq!(code(&with(11, 1)), Some((1, 12)), "a record that is not there");
}

#[test]
fn names_that_are_no_text_are_nobodys() {
    let zone = zone();
    let mut bytes = query("web", TYPE::A);
    bytes[14] = 0xff;
    assert!(matches!(zone.answer("db", &bytes, Transport::Udp, 0, false), Verdict::Forward(_)));
    let mut bytes = query("aXb", TYPE::A);
    bytes[14] = b'.';
    assert!(matches!(zone.answer("web", &bytes, Transport::Udp, 0, false), Verdict::Forward(_)), "no name with a dot");
}

proptest! {
    #[test]
    fn any_bytes_get_an_answer_that_can_be_read_or_none(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..600), plausible in any::<bool>(), tcp in any::<bool>(),
    ) {
        if plausible && bytes.len() >= 12 {
            bytes[2] &= 0x07;
            let additional = bytes[11] % 3;
            bytes[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, additional]);
        }
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let zone = zone();
        if let Verdict::Reply(reply) = zone.answer("db", &bytes, transport, 7, false) {
            prop_assert!(Packet::parse(&reply).is_ok());
            prop_assert_eq!(&reply[..2], &bytes[..2]);
        }
    }

    #[test]
    fn whoever_comes_and_goes_leaves_nothing(steps in proptest::collection::vec((0..3u8, 0..4u8, 0..4u8), 0..60)) {
        let mut zone = Zone::default();
        for (what, network, container) in steps {
            let (network, container) = (format!("n{network}"), format!("c{container}"));
            let names = [container.as_str(), "shared"];
            match what {
                0 => zone.connect(&network, &network, false, endpoint(&container, &names, &["10.0.0.1"])),
                1 => zone.disconnect(&network, &container),
                _ => zone.forget(&container),
            }
        }
        (0..4).for_each(|container| zone.forget(&format!("c{container}")));
        prop_assert_eq!(format!("{:?}", zone), format!("{:?}", Zone::default()));
    }
}
