//! What containers with an egress policy reach, and how it is told what they do not.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::thread::UnshareFlags;
use serde_json::Value;
use simple_dns::TYPE;
use testkit::{Cli, Daemon};

use crate::foreign_firewall::{Host, NEIGHBOUR, ip, nft};
use crate::names::query;
use crate::support::{self, At, within};

/// An address of the second host that names may lead to.
pub(crate) const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const RESOLVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);
/// How long something that must happen may take on a loaded machine; and how long we look whether something happens that must not.
const DEADLINE: Duration = Duration::from_secs(20);
const GLIMPSE: Duration = Duration::from_millis(400);

const REFUSED: u8 = 5;

/// Runs `test` on a thread whose network namespace has a daemon and a second host, which has servers and a name server.
fn beside_a_host(test: impl FnOnce(&mut Daemon) + Send + 'static) {
    if testkit::skip::without_root() {
        return;
    }
    let thread = std::thread::spawn(move || {
        sys::namespace::unshare(UnshareFlags::NEWNET).unwrap();
        let host = Host::new();
        host.inside(|| {
            ip("link set lo up");
            ip(&format!("addr add {PUBLIC}/32 dev lo"));
        });
        ip(&format!("route add {PUBLIC}/32 via {NEIGHBOUR}"));
        let _servers = host.inside(|| [80, 81].map(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap()));
        let names = host.inside(|| UdpSocket::bind((NEIGHBOUR, 53)).unwrap());
        let own = names.try_clone().unwrap();
        let server = std::thread::spawn(move || lead_all_names(&own));
        let mut daemon = Daemon::start().unwrap();
        if daemon.is_foreign() {
            testkit::skip::report("this is about a daemon in a network of the test's own");
        } else {
            daemon.load(testkit::images::Archive::Busybox).unwrap();
            test(&mut daemon);
            daemon.finish().unwrap();
            assert!(!nft("list tables").contains("egress"));
        }
        host.inside(|| UdpSocket::bind((NEIGHBOUR, 0)).unwrap().send_to(b"", (NEIGHBOUR, 53)).unwrap());
        server.join().unwrap();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Answers every question with the one address, until an empty one comes.
pub(crate) fn lead_all_names(socket: &UdpSocket) {
    let mut buffer = [0; 512];
    loop {
        let (count, from) = socket.recv_from(&mut buffer).unwrap();
        if count == 0 {
            return;
        }
        let mut answer = buffer[..count].to_vec();
        (answer[2], answer[3], answer[7]) = (0x81, 0x80, 1);
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(PUBLIC.octets());
        socket.send_to(&answer, from).unwrap();
    }
}

/// The code of the answer to a container's question, and the address that it ends with.
pub(crate) fn ask(at: &At<'_>, container: &str, name: &str) -> (u8, Ipv4Addr) {
    let socket = within(at, container, || UdpSocket::bind("127.0.0.1:0").unwrap());
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.send_to(&query(name, TYPE::A), RESOLVER).unwrap();
    let mut buffer = [0; 512];
    let count = socket.recv(&mut buffer).expect("an answer in time");
    let last: [u8; 4] = buffer[count - 4..count].try_into().unwrap();
    (buffer[3] & 15, last.into())
}

fn reaches(at: &At<'_>, container: &str, port: u16, time: Duration) -> bool {
    within(at, container, || TcpStream::connect_timeout(&SocketAddr::from((PUBLIC, port)), time).is_ok())
}

/// Whether the name server outside answers a container that asks it itself.
fn is_answered_outside(at: &At<'_>, container: &str) -> bool {
    let socket = within(at, container, || UdpSocket::bind("0.0.0.0:0").unwrap());
    socket.set_read_timeout(Some(GLIMPSE)).unwrap();
    socket.send_to(&query("secret.evil.com", TYPE::A), (NEIGHBOUR, 53)).unwrap();
    socket.recv(&mut [0; 512]).is_ok()
}

/// The attributes of the denials that were told so far, of a container.
fn denials(at: &At<'_>, container: &str) -> Vec<Value> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let until = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
    let line = format!("events --since 1 --until {until} --filter type=network --filter event=egress-deny");
    let told = at.ok(&format!("{line} --format '{{{{json .Actor.Attributes}}}}'"));
    let all = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|attributes| attributes["container"] == container).collect()
}

/// The ways to say a container's and a network's policy: of our command line, and of Docker's.
fn flags(at: &At<'_>, policy: &str) -> (String, String) {
    match at.cli {
        Cli::Longshore => {
            // In one word or in several.
            let words: String = policy.split(',').map(|item| format!("--egress {item} ")).collect();
            (words.trim_end().to_owned(), format!("--egress {policy}"))
        }
        Cli::Docker => (format!("--label longshore.egress={policy}"), format!("--opt longshore.egress={policy}")),
    }
}

#[test]
fn privileged_names_open_what_they_lead_to_and_denials_are_events() {
    beside_a_host(|daemon| {
        support::each(daemon, |at| {
            let (front, name) = (at.image("front"), at.name("agent"));
            let policy = "deny,allow=*.example.org:80";
            at.ok(&format!("network create {front}"));
            let (of_container, _) = flags(at, policy);
            let id = at.ok(&format!(
                "run -d --name {name} --network {front} --dns {NEIGHBOUR} {of_container} busybox sleep 1000"
            ));
            assert_eq!(at.inspect(&name, "{{index .Config.Labels \"longshore.egress\"}}"), policy);
            assert!(!reaches(at, &name, 80, GLIMPSE), "nobody has asked for its name");
            assert_eq!(ask(at, &name, "web.example.org"), (0, PUBLIC));
            assert!(reaches(at, &name, 80, DEADLINE) && !reaches(at, &name, 81, GLIMPSE));
            assert_eq!(ask(at, &name, "secret.evil.com").0, REFUSED);
            assert!(!is_answered_outside(at, &name));
            let told = || {
                let told = denials(at, &id);
                let has = |destination: &str, protocol: &str, port: Option<&str>| {
                    told.iter().any(|one| {
                        one["destination"] == destination
                            && one["protocol"] == protocol
                            && one.get("port").and_then(Value::as_str) == port
                            && one["name"] == front
                            && one["type"] == "bridge"
                    })
                };
                let public = PUBLIC.to_string();
                let packets = has(&public, "tcp", Some("80")) && has(&public, "tcp", Some("81"));
                let names = has("secret.evil.com", "dns", None) && has(&NEIGHBOUR.to_string(), "udp", Some("53"));
                (packets && names).then_some(())
            };
            testkit::process::until("the denials are told", DEADLINE, told).unwrap();
            at.remove(&name);
            at.ok(&format!("network rm {front}"));
        });
    });
}

#[test]
fn privileged_a_networks_policy_is_every_containers_and_outlives_the_daemon() {
    beside_a_host(|daemon| {
        for cli in daemon.clis() {
            let at = At { daemon, cli };
            let (front, name) = (at.image("front"), at.name("agent"));
            let policy = format!("deny,allow={PUBLIC}:80,allow=a.org:81");
            let (_, of_network) = flags(&at, &policy);
            at.ok(&format!("network create {of_network} {front}"));
            assert_eq!(
                at.ok(&format!("network inspect -f '{{{{index .Options \"longshore.egress\"}}}}' {front}")),
                policy
            );
            at.ok(&format!("run -d --name {name} --dns {NEIGHBOUR} busybox sleep 1000"));
            assert!(reaches(&at, &name, 81, DEADLINE), "nobody forbids it");
            at.ok(&format!("network connect {front} {name}"));
            at.ok(&format!("network disconnect bridge {name}"));
            assert!(reaches(&at, &name, 80, DEADLINE) && !reaches(&at, &name, 81, GLIMPSE));
            daemon.kill9().unwrap();
            daemon.restart().unwrap();
            let at = At { daemon, cli };
            assert!(reaches(&at, &name, 80, DEADLINE) && !reaches(&at, &name, 81, GLIMPSE));
            assert_eq!(ask(&at, &name, "b.org").0, REFUSED);
            assert_eq!(ask(&at, &name, "a.org"), (0, PUBLIC));
            assert!(reaches(&at, &name, 81, DEADLINE));
            at.remove(&name);
            at.ok(&format!("network rm {front}"));
        }
    });
}

#[test]
fn privileged_policies_that_could_not_be_kept_are_refused() {
    support::ours(|daemon| {
        support::each(daemon, |at| {
            let (container, network) = flags(at, "deny,allow=x");
            let sentence = "invalid egress policy: \"allow=x\": a name needs a port";
            at.fails(&format!("run --rm {container} busybox true"), 125, sentence);
            at.fails(&format!("network create {network} {}", at.image("n")), 1, sentence);
            let (container, _) = flags(at, "allow=x.org:1");
            let sentence = "an egress policy with names needs a network of your own";
            at.fails(&format!("run --rm {container} busybox true"), 125, sentence);
            let sentence = "conflicting options: an egress policy and the network mode host";
            at.fails(&format!("run --rm --network host {container} busybox true"), 125, sentence);
            // Everything is allowed: nobody has to keep anything.
            let (container, _) = flags(at, "allow");
            at.ok(&format!("run --rm --network host {container} busybox true"));
        });
    });
}
