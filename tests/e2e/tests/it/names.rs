//! Names of containers on networks that users made: the name server at 127.0.0.11.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

use crate::support::{At, on_both, ours, within};

/// How long an answer may take: other name servers may be silent.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);

/// A container's way to ask.
struct Asker(UdpSocket);

/// What an answer has: nothing where it says that there is none.
type Answer = Option<Vec<String>>;

impl Asker {
    fn of(at: &At<'_>, container: &str) -> Asker {
        let open = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(SERVER).unwrap();
            socket
        };
        let socket = within(at, container, open);
        socket.set_read_timeout(Some(ANSWER_WITHIN)).unwrap();
        Asker(socket)
    }

    fn send(&self, name: &str, kind: TYPE) {
        self.0.send(&query(name, kind)).unwrap();
    }

    fn receive(&self) -> Answer {
        let mut buffer = [0; 4096];
        let count = self.0.recv(&mut buffer).expect("an answer in time");
        read(&buffer[..count])
    }

    fn ask(&self, name: &str, kind: TYPE) -> Answer {
        self.send(name, kind);
        self.receive()
    }

    fn address(&self, name: &str) -> Answer {
        self.ask(name, TYPE::A)
    }
}

pub(crate) fn query(name: &str, kind: TYPE) -> Vec<u8> {
    let mut packet = Packet::new_query(7);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let (kind, class) = (QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN));
    packet.questions.push(Question::new(Name::new_unchecked(name).into_owned(), kind, class, false));
    packet.build_bytes_vec().unwrap()
}

fn read(answer: &[u8]) -> Answer {
    let packet = Packet::parse(answer).unwrap();
    assert_eq!(packet.id(), 7);
    if packet.rcode() != RCODE::NoError {
        return None;
    }
    let text = |data: &RData<'_>| match data {
        RData::A(a) => Ipv4Addr::from_bits(a.address).to_string(),
        RData::PTR(name) => name.0.to_string(),
        other => format!("{other:?}"),
    };
    let records = packet.answers.iter().map(|record| {
        assert_eq!(record.ttl, 600);
        text(&record.rdata)
    });
    Some(records.collect())
}

fn some(text: &str) -> Answer {
    Some(vec![text.to_owned()])
}

fn address_on(at: &At<'_>, container: &str, network: &str) -> String {
    at.inspect(
        container,
        &format!("{{{{with index .NetworkSettings.Networks \"{network}\"}}}}{{{{.IPAddress}}}}{{{{end}}}}"),
    )
}

#[test]
fn privileged_names_lead_to_containers_of_shared_networks() {
    on_both(|at| {
        let (front, back) = (at.name("front"), at.name("back"));
        let (web, db, api) = (at.name("web"), at.name("db"), at.name("api"));
        at.ok(&format!("network create {front}"));
        at.ok(&format!("network create {back}"));
        let id =
            at.ok(&format!("run -d --name {web} -h webhost --network {front} --network-alias www busybox sleep 1000"));
        at.ok(&format!("run -d --name {db} --network {front} busybox sleep 1000"));
        at.ok(&format!("run -d --name {api} --network {back} busybox sleep 1000"));
        let (of_web, asker, stranger) = (address_on(at, &web, &front), Asker::of(at, &db), Asker::of(at, &api));
        let short = &id[..12];
        for name in [&web[..], &web.to_uppercase(), "www", "webhost", short, &format!("{web}.{front}")] {
            assert_eq!(asker.address(name), some(&of_web), "{name}");
            // Its name is there, but not in this family: no error, and at once.
            assert_eq!(asker.ask(name, TYPE::AAAA), Some(vec![]), "{name}");
            assert!(stranger.address(name).is_none_or(|all| all.is_empty()), "{name}");
        }
        assert_eq!(asker.ask(&web, TYPE::MX), Some(vec![]));
        let mut reversed: Vec<&str> = of_web.split('.').collect();
        reversed.reverse();
        let reversed = format!("{}.in-addr.arpa", reversed.join("."));
        assert_eq!(asker.ask(&reversed, TYPE::PTR), some(&format!("{web}.{front}")));
        assert_eq!(stranger.ask(&reversed, TYPE::PTR).unwrap_or_default(), [] as [String; 0]);
        // Programs find it, too.
        let seen = at.ok(&format!("exec {db} ping -c 1 -W 5 www"));
        assert!(seen.contains(&format!("PING www ({of_web})")), "{seen}");
        let over_tcp = within(at, &db, || {
            let mut stream = TcpStream::connect(SERVER).unwrap();
            let query = query("www", TYPE::A);
            stream.write_all(&[&(query.len() as u16).to_be_bytes()[..], &query].concat()).unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut answer = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut answer).unwrap();
            read(&answer)
        });
        assert_eq!(over_tcp, some(&of_web));
        for name in [&web, &db, &api] {
            at.remove(name);
        }
        at.ok(&format!("network rm {front} {back}"));
    });
}

#[test]
fn privileged_names_come_and_go_with_networks() {
    on_both(|at| {
        let (net, first, second) = (at.name("net"), at.name("first"), at.name("second"));
        at.ok(&format!("network create {net}"));
        at.ok(&format!("run -d --name {first} --network {net} busybox sleep 1000"));
        // One that has begun on the default bridge, where there are no names.
        at.ok(&format!("run -d --name {second} busybox sleep 1000"));
        let asker = Asker::of(at, &first);
        let none = |answer: Answer| assert_eq!(answer.unwrap_or_default(), [] as [String; 0]);
        none(asker.address(&second));
        at.ok(&format!("network connect --alias other {net} {second}"));
        let of_second = address_on(at, &second, &net);
        assert_eq!((asker.address(&second), asker.address("other")), (some(&of_second), some(&of_second)));
        let file = at.ok(&format!("exec {second} cat /etc/resolv.conf"));
        assert!(file.contains("\nnameserver 127.0.0.11\noptions ndots:0\n"), "{file}");
        let theirs = Asker::of(at, &second);
        assert_eq!(theirs.address(&first), some(&address_on(at, &first, &net)));
        at.ok(&format!("rename {second} {second}2"));
        assert_eq!(asker.address(&format!("{second}2")), some(&of_second));
        none(asker.address(&second));
        at.ok(&format!("network disconnect {net} {second}2"));
        none(asker.address("other"));
        none(theirs.address(&first));
        at.ok(&format!("network connect {net} {second}2"));
        assert_eq!(asker.address(&format!("{second}2")), some(&address_on(at, &format!("{second}2"), &net)));
        at.ok(&format!("stop -t 0 {second}2"));
        none(asker.address(&format!("{second}2")));
        for name in [&first, &format!("{second}2")] {
            at.remove(name);
        }
        at.ok(&format!("network rm {net}"));
    });
}

#[test]
fn privileged_links_and_shared_aliases_on_a_users_network() {
    on_both(|at| {
        let (net, db, web, other) = (at.name("net"), at.name("db"), at.name("web"), at.name("other"));
        at.ok(&format!("network create {net}"));
        at.ok(&format!("run -d --name {db} --network {net} --network-alias all busybox sleep 1000"));
        at.ok(&format!("run -d --name {other} --network {net} --network-alias all busybox sleep 1000"));
        at.ok(&format!("run -d --name {web} --network {net} --link {db}:store busybox sleep 1000"));
        let (of_db, of_other) = (address_on(at, &db, &net), address_on(at, &other, &net));
        assert_eq!(Asker::of(at, &web).address("store"), some(&of_db));
        assert_eq!(Asker::of(at, &db).address("store").unwrap_or_default(), [] as [String; 0], "its own word");
        let asker = Asker::of(at, &web);
        let mut firsts = std::collections::BTreeSet::new();
        // They take turns, by chance with Docker.
        for _ in 0..64 {
            let mut all = asker.address("all").unwrap();
            firsts.insert(all[0].clone());
            all.sort();
            let mut expected = [of_db.clone(), of_other.clone()];
            expected.sort();
            assert_eq!(all, expected);
        }
        assert_eq!(firsts.len(), 2);
        for name in [&db, &web, &other] {
            at.remove(name);
        }
        at.ok(&format!("network rm {net}"));
    });
}

#[test]
fn privileged_own_name_servers_are_asked_from_the_containers_network() {
    on_both(|at| {
        let (net, name) = (at.name("net"), at.name("own"));
        at.ok(&format!("network create {net}"));
        let options = "--dns 127.0.0.2 --dns-search box.lan --dns-option ndots:1";
        at.ok(&format!("run -d --name {name} --network {net} {options} busybox sleep 1000"));
        let file = at.ok(&format!("exec {name} cat /etc/resolv.conf"));
        let expected = "\nnameserver 127.0.0.11\nsearch box.lan\noptions ndots:1\n\n\
            # Based on host file: '/etc/resolv.conf' (internal resolver)\n# ExtServers: [127.0.0.2]\n\
            # Overrides: [nameservers search options]\n# Option ndots from: override";
        assert!(file.ends_with(expected), "{file}");
        // It is nowhere but there.
        let server = within(at, &name, || UdpSocket::bind("127.0.0.2:53").unwrap());
        server.set_read_timeout(Some(ANSWER_WITHIN)).unwrap();
        let asker = Asker::of(at, &name);
        asker.send("example.com", TYPE::A);
        let mut buffer = [0; 4096];
        let (count, from) = server.recv_from(&mut buffer).unwrap();
        let mut answer = buffer[..count].to_vec();
        (answer[2], answer[3], answer[7]) = (0x81, 0x80, 1);
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 88, 0, 4, 9, 9, 9, 9]);
        server.send_to(&answer, from).unwrap();
        assert_eq!(asker.receive(), some("9.9.9.9"));
        // Who completes words itself does not want them asked of others.
        assert_eq!(asker.address("word"), Some(vec![]));
        drop(server);
        // A container may be a name server, which has port 53 to itself.
        within(at, &name, || UdpSocket::bind("0.0.0.0:53").map(drop)).unwrap();
        at.remove(&name);
        at.ok(&format!("network rm {net}"));
    });
}

#[test]
fn privileged_a_question_waits_for_the_next_daemon() {
    ours(|daemon| {
        let us = |daemon: &testkit::Daemon, line: &str| At { daemon, cli: testkit::Cli::Longshore }.ok(line);
        us(daemon, "network create net");
        us(daemon, "run -d --name web --network net busybox sleep 1000");
        us(daemon, "run -d --name late busybox sleep 1000");
        us(daemon, "network connect net late");
        let at = |daemon| At { daemon, cli: testkit::Cli::Longshore };
        let expected = some(&address_on(&at(daemon), "web", "net"));
        let askers = ["web", "late"].map(|name| Asker::of(&at(daemon), name));
        for _ in 0..2 {
            daemon.kill9().unwrap();
            askers.iter().for_each(|asker| asker.send("web", TYPE::A));
            daemon.restart().unwrap();
            for asker in &askers {
                assert_eq!(asker.receive(), expected);
                assert_eq!(asker.address("web"), expected);
            }
        }
        us(daemon, "rm -f web late");
        us(daemon, "network rm net");
    });
}
