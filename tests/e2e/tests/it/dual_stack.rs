//! Networks with addresses of IPv6, alone or beside those of IPv4, as with dockerd.

use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{At, on_both, ours};

/// Says hello to everybody on port 80, of both families.
const SERVER: &str = "nc -ll -p 80 -e echo hello";

/// Subnets for this process and command line: tests side by side share no daemon, but may share one of dockerd's, and the host.
fn subnets(at: &At<'_>, number: u8) -> (String, String) {
    let id = std::process::id();
    let cli = if format!("{:?}", at.cli) == "Docker" { 0 } else { 8 };
    let [_, _, high, low] = id.to_be_bytes();
    let ipv4 = format!("10.{}.{}", 200 + high % 50, (low & 0xf0) ^ (cli + number));
    (ipv4, format!("fd5e:{:x}:{:x}:{:x}:", id >> 16, id & 0xffff, cli + number))
}

fn shown(at: &At<'_>, network: &str) -> Value {
    let shown: Value = serde_json::from_str(&at.ok(&format!("network inspect {network}"))).unwrap();
    shown[0].clone()
}

fn settings(at: &At<'_>, container: &str, network: &str) -> Value {
    let all: Value = serde_json::from_str(&at.inspect(container, "{{json .NetworkSettings.Networks}}")).unwrap();
    all[network].clone()
}

/// Its server says hello.
fn answers(address: SocketAddr) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let mut heard = String::new();
        let asked = TcpStream::connect_timeout(&address, Duration::from_secs(5));
        let asked = asked.and_then(|mut stream| stream.read_to_string(&mut heard));
        if heard == "hello\n" {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{address}: {asked:?} {heard:?}");
        std::thread::yield_now();
    }
}

#[test]
fn privileged_networks_of_both_families_are_made_and_shown() {
    on_both(|at| {
        let (name, (ipv4, ipv6)) = (at.name("dual"), subnets(at, 1));
        at.ok(&format!(
            "network create --ipv6 --subnet {ipv6}:/64 --gateway {ipv6}:9 --ip-range {ipv6}:100/120 \
             --aux-address r={ipv6}:7 --subnet {ipv4}.0/24 {name}"
        ));
        let network = shown(at, &name);
        assert_eq!((&network["EnableIPv4"], &network["EnableIPv6"]), (&json!(true), &json!(true)));
        let ranges = json!([{"Subnet": format!("{ipv4}.0/24")}, {"Subnet": format!("{ipv6}:/64"),
            "IPRange": format!("{ipv6}:100/120"), "Gateway": format!("{ipv6}:9"),
            "AuxiliaryAddresses": {"r": format!("{ipv6}:7")}}]);
        assert_eq!(network["IPAM"]["Config"], ranges);
        let listed = at.ok(&format!("network ls --filter name={name} --format '{{{{.IPv4}}}} {{{{.IPv6}}}}'"));
        assert_eq!(listed, "true true");
        let overlap = "invalid pool request: Pool overlaps with other one on this address space";
        at.fails(&format!("network create --ipv6 --subnet {ipv6}:/80 {name}-2"), 1, overlap);
        at.ok(&format!("network rm {name}"));
        // From the pools; alone; and addresses of a family that is off.
        at.ok(&format!("network create --ipv6 {name}"));
        at.ok(&format!("network create --ipv6 --ipv4=false {name}-2"));
        let (both, alone) = (shown(at, &name), shown(at, &format!("{name}-2")));
        let range = |network: &Value, at: usize| network["IPAM"]["Config"][at].clone();
        let (first, second) = (range(&both, 1), range(&alone, 0));
        assert_ne!(first["Subnet"], second["Subnet"]);
        for range in [first, second] {
            let subnet = range["Subnet"].as_str().unwrap();
            assert!(subnet.starts_with("fd") && subnet.ends_with("::/64"), "{subnet}");
            assert_eq!(range["Gateway"], json!(subnet.replace("::/64", "::1")));
        }
        assert_eq!((&alone["EnableIPv4"], alone["IPAM"]["Config"].as_array().unwrap().len()), (&json!(false), 1));
        at.ok(&format!("network create --subnet {ipv6}:/64 {name}-3"));
        let idle = shown(at, &format!("{name}-3"));
        assert_eq!((&idle["EnableIPv6"], &range(&idle, 0)["Subnet"]), (&json!(false), &json!(format!("{ipv6}:/64"))));
        at.ok(&format!("network rm {name} {name}-2 {name}-3"));
    });
}

#[test]
fn privileged_what_is_no_network_of_ipv6_is_refused() {
    on_both(|at| {
        let name = at.name("refused");
        for (flags, sentence) in [
            ("--ipv4=false", "IPv4 or IPv6 must be enabled"),
            (
                "--subnet fd5e:1:1:1::1/64",
                "invalid network config:\ninvalid subnet fd5e:1:1:1::1/64: it should be fd5e:1:1:1::/64",
            ),
            ("--subnet fd5e:1:1:1::/64 --subnet fd5e:1:1:2::/64", "bridge driver doesn't support multiple subnets"),
            (
                "--subnet fd5e:1:1:1::/64 --gateway fd5e:1:1:1::",
                "failed to allocate gateway (fd5e:1:1:1::): Address already in use",
            ),
            ("--subnet fd5e:1:1:1::/128", "failed to allocate gateway (): no available addresses on this pool"),
            ("--subnet fd5e:1:1:1::/64 --gateway fd5e:2::1", "no matching subnet for gateway fd5e:2::1"),
        ] {
            at.fails(&format!("network create --ipv6 {flags} {name}").replace("--ipv6 --ipv4", "--ipv4"), 1, sentence);
        }
    });
}

#[test]
fn privileged_containers_have_addresses_names_and_ports_of_both_families() {
    on_both(|at| {
        let (network, name, other) = (at.name("lan"), at.name("server"), at.name("other"));
        let (ipv4, ipv6) = subnets(at, 2);
        at.ok(&format!("network create --ipv6 --subnet {ipv6}:/64 --subnet {ipv4}.0/24 {network}"));
        at.ok(&format!("run -d --name {name} --network {network} --ip6 {ipv6}:55 -p 80 busybox {SERVER}"));
        let on = settings(at, &name, &network);
        assert_eq!(on["IPAMConfig"], json!({"IPv6Address": format!("{ipv6}:55")}));
        for (field, value) in [
            ("Gateway", json!(format!("{ipv4}.1"))),
            ("IPAddress", json!(format!("{ipv4}.2"))),
            ("IPPrefixLen", json!(24)),
            ("IPv6Gateway", json!(format!("{ipv6}:1"))),
            ("GlobalIPv6Address", json!(format!("{ipv6}:55"))),
            ("GlobalIPv6PrefixLen", json!(64)),
        ] {
            assert_eq!(on[field], value, "{field}");
        }
        let members = shown(at, &network)["Containers"].clone();
        let member = members.as_object().unwrap().values().next().unwrap();
        assert_eq!(
            (&member["IPv4Address"], &member["IPv6Address"]),
            (&json!(format!("{ipv4}.2/24")), &json!(format!("{ipv6}:55/64")))
        );
        let id = &at.inspect(&name, "{{.Id}}")[..12];
        let hosts = at.ok(&format!("exec {name} cat /etc/hosts"));
        assert!(hosts.ends_with(&format!("\n{ipv4}.2\t{id}\n{ipv6}:55\t{id}")), "{hosts}");
        let routes = at.ok(&format!("exec {name} ip -6 route"));
        assert!(routes.contains(&format!("default via {ipv6}:1 dev eth0")), "{routes}");
        // Ports.
        let ports = at.ok(&format!("port {name} 80"));
        let number: u16 = ports.rsplit(':').next().unwrap().parse().unwrap();
        assert_eq!(ports, format!("0.0.0.0:{number}\n[::]:{number}"));
        let listed = at.ok(&format!("ps --filter name={name} --format '{{{{.Ports}}}}'"));
        assert_eq!(listed, format!("0.0.0.0:{number}->80/tcp, [::]:{number}->80/tcp"));
        answers((Ipv4Addr::LOCALHOST, number).into());
        answers((Ipv6Addr::LOCALHOST, number).into());
        // The host's own address on that network is one of its addresses like others.
        answers(format!("[{ipv6}:1]:{number}").parse().unwrap());
        answers(format!("[{ipv6}:55]:80").parse().unwrap());
        // Names, from a container that joins later, and is refused an address that is taken.
        at.ok(&format!("run -d --name {other} busybox sleep 1000"));
        let taken = format!("network connect --ip6 {ipv6}:55 {network} {other}");
        at.fails(&taken, 1, "Address already in use");
        at.ok(&format!("network connect --ip6 {ipv6}:77 {network} {other}"));
        assert_eq!(settings(at, &other, &network)["GlobalIPv6Address"], json!(format!("{ipv6}:77")));
        let found = at.ok(&format!("exec {other} nslookup -type=aaaa {name}"));
        assert!(found.contains(&format!("Address: {ipv6}:55")), "{found}");
        let found = at.ok(&format!("exec {other} nslookup {ipv6}:55"));
        assert!(found.contains(&format!("name = {name}.{network}")), "{found}");
        assert_eq!(at.ok(&format!("exec {other} nc -w 10 {ipv6}:55 80")), "hello");
        let hosts = at.ok(&format!("exec {other} cat /etc/hosts"));
        assert!(hosts.contains(&format!("\n{ipv6}:77\t")), "{hosts}");
        at.ok(&format!("network disconnect {network} {other}"));
        let hosts = at.ok(&format!("exec {other} cat /etc/hosts"));
        assert!(!hosts.contains(&ipv6) && !hosts.contains(&format!("\n{ipv4}.")), "{hosts}");
        for (address, sentence) in [
            ("fd5e::1".to_owned(), "no configured subnet or ip-range contain the IP address fd5e::1"),
            (format!("{ipv6}:1"), "Address already in use"),
        ] {
            at.fails(&format!("run --rm --network {network} --ip6 {address} busybox true"), 125, sentence);
        }
        at.remove(&format!("{name} {other}"));
        at.ok(&format!("network rm {network}"));
    });
}

#[test]
fn privileged_a_network_of_ipv6_alone() {
    on_both(|at| {
        let (network, name, (_, ipv6)) = (at.name("alone"), at.name("single"), subnets(at, 3));
        at.ok(&format!("network create --ipv6 --ipv4=false --subnet {ipv6}:/64 {network}"));
        at.ok(&format!("run -d --name {name} --network {network} -p 80 busybox {SERVER}"));
        let on = settings(at, &name, &network);
        assert_eq!((&on["IPAddress"], &on["Gateway"], &on["IPPrefixLen"]), (&json!(""), &json!(""), &json!(0)));
        assert_eq!(on["GlobalIPv6Address"], json!(format!("{ipv6}:2")));
        let port = at.ok(&format!("port {name} 80"));
        let number: u16 = port.strip_prefix("[::]:").unwrap().parse().unwrap();
        answers(format!("[{ipv6}:1]:{number}").parse().unwrap());
        assert_eq!(at.ok(&format!("exec {name} ip -4 route")), "");
        at.remove(&name);
        at.ok(&format!("network rm {network}"));
    });
}

#[test]
fn privileged_addresses_of_ipv6_outlive_the_daemon() {
    ours(|daemon| {
        let told = |at: &At<'_>| {
            let (network, name) = (at.name("kept"), at.name("living"));
            (shown(at, &network), settings(at, &name, &network), at.ok(&format!("port {name} 80")))
        };
        crate::support::each(daemon, |at| {
            let (network, name) = (at.name("kept"), at.name("living"));
            at.ok(&format!("network create --ipv6 {network}"));
            at.ok(&format!("run -d --name {name} --network {network} -p 80 busybox {SERVER}"));
        });
        let before = std::cell::RefCell::new(Vec::new());
        crate::support::each(daemon, |at| before.borrow_mut().push(told(at)));
        daemon.kill9().unwrap();
        daemon.restart().unwrap();
        let after = std::cell::RefCell::new(Vec::new());
        crate::support::each(daemon, |at| after.borrow_mut().push(told(at)));
        assert_eq!(before, after);
        crate::support::each(daemon, |at| {
            let (network, name) = (at.name("kept"), at.name("living"));
            let port = at.ok(&format!("port {name} 80"));
            let number = port.rsplit(':').next().unwrap();
            let gateway = settings(at, &name, &network)["IPv6Gateway"].as_str().unwrap().to_owned();
            answers(format!("[{gateway}]:{number}").parse().unwrap());
            let next = at.ok(&format!("run -d --network {network} busybox sleep 1000"));
            let (first, second) = (settings(at, &name, &network), settings(at, &next, &network));
            assert_ne!(first["GlobalIPv6Address"], second["GlobalIPv6Address"]);
            at.remove(&format!("{name} {next}"));
            at.ok(&format!("network rm {network}"));
        });
    });
}

#[test]
fn privileged_the_default_bridge_has_the_ipv6_of_daemon_json() {
    ours(|daemon| {
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let prefix = format!("fd5f:{high:x}:{low:x}:");
        let text = format!(r#"{{"ipv6": true, "fixed-cidr-v6": "{prefix}:/64"}}"#);
        daemon.scratch().write("daemon.json", &text).unwrap();
        daemon.restart().unwrap();
        crate::support::each(daemon, |at| {
            let bridge = shown(at, "bridge");
            let range = json!({"Subnet": format!("{prefix}:/64"), "IPRange": format!("{prefix}:/64"),
                "Gateway": format!("{prefix}:1")});
            assert_eq!((&bridge["EnableIPv6"], &bridge["IPAM"]["Config"][1]), (&json!(true), &range));
            let name = at.name("server");
            at.ok(&format!("run -d --name {name} -p 80 busybox {SERVER}"));
            let on = settings(at, &name, "bridge");
            assert_eq!(on["IPv6Gateway"], json!(format!("{prefix}:1")));
            let address = on["GlobalIPv6Address"].as_str().unwrap();
            assert!(address.starts_with(&prefix), "{address}");
            let top: Value = serde_json::from_str(&at.inspect(&name, "{{json .NetworkSettings}}")).unwrap();
            assert_eq!(
                (&top["GlobalIPv6Address"], &top["GlobalIPv6PrefixLen"], &top["IPv6Gateway"]),
                (&on["GlobalIPv6Address"], &json!(64), &on["IPv6Gateway"])
            );
            let hosts = at.ok(&format!("exec {name} cat /etc/hosts"));
            assert!(hosts.contains(&format!("\n{address}\t")), "{hosts}");
            let port = at.ok(&format!("port {name} 80"));
            let number = port.lines().find_map(|line| line.strip_prefix("[::]:")).unwrap();
            answers(format!("[{prefix}:1]:{number}").parse().unwrap());
            answers(format!("[{address}]:80").parse().unwrap());
            at.remove(&name);
        });
    });
}
