//! Networks on top of one of the machine's links: macvlan, and what is said where the kernel has no ipvlan.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::thread::UnshareFlags;
use serde_json::{Value, json};
use testkit::Daemon;

use crate::support::{self, At};

/// What a web server of the containers' says.
const SERVER: &str = "sh -c 'mkdir /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www'";

/// Runs `test` on a thread whose network namespace is a machine with a second host at the other end of its link up0.
fn with_a_neighbour(test: impl FnOnce(&mut Daemon, &File) + Send + 'static) {
    if testkit::skip::without_root() {
        return;
    }
    let thread = std::thread::spawn(move || {
        let host = new_namespace();
        sys::namespace::unshare(UnshareFlags::NEWNET).unwrap();
        ip("link set lo up");
        // A thread's number stands for its namespace.
        let own = rustix::thread::gettid().as_raw_nonzero();
        support::inside(host.as_fd(), || ip(&format!("link add eth0 type veth peer name up0 netns {own}")));
        ip("link set up0 up");
        support::inside(host.as_fd(), || ip("link set eth0 up"));
        let mut daemon = Daemon::start().unwrap();
        if daemon.is_foreign() {
            testkit::skip::report("this is about a daemon in a network of the test's own");
            return;
        }
        daemon.load(testkit::images::Archive::Busybox).unwrap();
        let before = links();
        test(&mut daemon, &host);
        daemon.finish().unwrap();
        assert_eq!(links(), before);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn new_namespace() -> File {
    let namespace = std::thread::spawn(|| {
        sys::namespace::unshare(UnshareFlags::NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    });
    namespace.join().unwrap()
}

fn ip(line: &str) -> String {
    let output = Command::new("ip").args(line.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The machine's links but for those of a daemon's bridge, which are there as long as it is.
fn links() -> Vec<String> {
    let listed = ip("-o link");
    let names = listed.lines().filter_map(|line| line.split(": ").nth(1)).map(|name| name.split('@').next().unwrap());
    names.filter(|name| !name.starts_with("ls") && !name.starts_with('v')).map(str::to_owned).collect()
}

/// Whether the second host is answered hello at this address.
fn hears(host: &File, address: [u8; 4]) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&(address, 80).into(), Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    support::inside(host.as_fd(), ask).is_ok_and(|answer| answer.ends_with("\r\nhello\n"))
}

fn hears_soon(host: &File, address: [u8; 4]) {
    let heard = || hears(host, address).then_some(());
    testkit::process::until("the server answers", testkit::process::DEADLINE, heard).unwrap();
}

fn shown(at: &At<'_>, network: &str) -> Value {
    let shown: Value = serde_json::from_str(&at.ok(&format!("network inspect {network}"))).unwrap();
    shown[0].clone()
}

fn on(at: &At<'_>, container: &str, network: &str) -> Value {
    let networks: Value = serde_json::from_str(&at.inspect(container, "{{json .NetworkSettings.Networks}}")).unwrap();
    networks[network].clone()
}

#[test]
fn privileged_a_network_of_macvlan_is_dockers() {
    with_a_neighbour(|daemon, host| {
        support::inside(host.as_fd(), || ip("addr add 10.7.0.254/24 dev eth0"));
        support::each(daemon, |at| {
            let (lan, name) = (at.image("lan"), at.name("web"));
            let id = at.ok(&format!(
                "network create -d macvlan --subnet 10.7.0.0/24 --gateway 10.7.0.254 --ip-range 10.7.0.128/25 \
                 --aux-address r=10.7.0.128 -o parent=up0 -o foo=bar --label a=b {lan}"
            ));
            let network = shown(at, &lan);
            let range = json!({"Subnet": "10.7.0.0/24", "IPRange": "10.7.0.128/25", "Gateway": "10.7.0.254",
                "AuxiliaryAddresses": {"r": "10.7.0.128"}});
            for (field, value) in [
                ("Driver", json!("macvlan")),
                ("Scope", json!("local")),
                ("Internal", json!(false)),
                ("Options", json!({"parent": "up0", "foo": "bar"})),
                ("Labels", json!({"a": "b"})),
                ("IPAM", json!({"Driver": "default", "Options": {}, "Config": [range]})),
            ] {
                assert_eq!(network[field], value, "{field}");
            }
            assert_eq!(at.ok("network ls --filter driver=macvlan --format {{.Name}}"), lan);
            let mac = "02:42:0a:07:00:4d";
            at.ok(&format!(
                "run -d --name {name} --network {lan} --mac-address {mac} -p 8080:80 --add-host gw:host-gateway \
                 --network-alias web busybox {SERVER}"
            ));
            let own = on(at, &name, &lan);
            assert_eq!(
                (&own["IPAddress"], &own["Gateway"], &own["MacAddress"], &own["NetworkID"]),
                (&json!("10.7.0.129"), &json!("10.7.0.254"), &json!(mac), &json!(id))
            );
            // Published ports are none of its business, and nobody says a word.
            assert_eq!(at.inspect(&name, "{{json .NetworkSettings.Ports}}"), "{}");
            assert_eq!(at.ok(&format!("port {name}")), "");
            assert_eq!(at.ok(&format!("ps --filter name={name} --format '{{{{.Ports}}}}'")), "");
            assert!(at.ok(&format!("exec {name} ip route")).contains("default via 10.7.0.254 dev eth0"));
            let hosts = at.ok(&format!("exec {name} cat /etc/hosts"));
            assert!(hosts.contains("\tgw\n") && !hosts.contains("10.7.0.254\tgw"), "{hosts}");
            hears_soon(host, [10, 7, 0, 129]);
            let known = support::inside(host.as_fd(), || ip("neigh show 10.7.0.129"));
            assert!(known.contains(mac), "{known}");
            // Names are known there as on any network of a user's.
            let told = at.ok(&format!("run --rm --network {lan} busybox wget -qO- http://web/"));
            assert_eq!(told, "hello");
            at.fails(&format!("network rm {lan}"), 1, &format!("network {lan} has active endpoints"));
            at.fails(
                &format!("run --rm --network {lan} --ip 10.7.0.254 busybox true"),
                125,
                "failed to set up container networking: Address already in use",
            );
            at.fails(
                &format!("run --rm --network {lan} --mac-address {mac} busybox true"),
                125,
                "failed to set up container networking: failed to add interface eth0 to sandbox: error setting interface \
                 \"eth0\" MAC to \"02:42:0a:07:00:4d\": address already in use",
            );
            at.remove(&name);
            assert_eq!(at.ok("network prune -f"), format!("Deleted Networks:\n{lan}"));
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let until = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
            let told = daemon.get(&format!("/events?since=1&until={until}")).unwrap().text();
            let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            for action in ["create", "connect", "disconnect", "destroy"] {
                let is_it = |event: &&Value| event["Actor"]["Attributes"]["name"] == lan && event["Action"] == action;
                assert_eq!(told.iter().find(is_it).unwrap()["Actor"]["Attributes"]["type"], "macvlan", "{action}");
            }
        });
    });
}

#[test]
fn privileged_what_is_no_parent_is_refused_in_dockers_words() {
    with_a_neighbour(|daemon, _| {
        support::each(daemon, |at| {
            let (lan, other) = (at.image("lan"), at.image("other"));
            let id = at.ok(&format!("network create -d macvlan --subnet 10.7.0.0/24 -o parent=up0 {lan}"));
            for (options, sentence) in [
                (
                    "-o macvlan_mode=zz",
                    "requested macvlan mode 'zz' is not valid, 'bridge' mode is the macvlan driver default",
                ),
                ("-o parent=lo", "loopback interface is not a valid macvlan parent link"),
                ("-o parent=nosuch", "invalid subinterface vlan name nosuch, example formatting is eth0.10"),
                ("-o parent=averyveryverylongname", "invalid subinterface vlan name averyveryverylongname, example"),
                ("-o parent=nosuch.5", "-o parent interface was not found on the host: nosuch"),
                ("-o parent=up0.4095", "vlan id must be between 1-4094, received: 4095"),
                ("-o parent=up0.x", "unable to parse a valid vlan id from: x (ex. eth0.10 for vlan 10)"),
                (
                    "-o parent=up0.5.6",
                    "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received up0.5.6",
                ),
                (
                    "-o parent=up0 -o macvlan_mode=passthru",
                    &format!("cannot use mode passthru, macvlan network {id} is already using parent interface up0"),
                ),
                (
                    "-o parent=up0 --subnet 10.7.0.0/25",
                    "invalid pool request: Pool overlaps with other one on this address space",
                ),
            ] {
                let subnet = if options.contains("--subnet") { "" } else { "--subnet 10.8.0.0/24 " };
                at.fails(
                    &format!("network create -d macvlan {subnet}{options} {other}"),
                    1,
                    &format!("Error response from daemon: {sentence}"),
                );
            }
            // Several subnets are as many networks on one wire.
            at.ok(&format!(
                "network create -d macvlan --subnet 10.8.0.0/24 --subnet 10.9.0.0/24 -o parent=up0 {other}"
            ));
            // In any order: the real client sends them as its map has them.
            let ranges = shown(at, &other)["IPAM"]["Config"].as_array().unwrap().clone();
            let is_there = |subnet: &str| ranges.contains(&json!({ "Subnet": subnet }));
            assert!(ranges.len() == 2 && is_there("10.8.0.0/24") && is_there("10.9.0.0/24"), "{ranges:?}");
            let told = at.ok(&format!("run --rm --network {other} --ip 10.9.0.7 busybox ip route"));
            assert!(told.contains("default via 10.9.0.1 dev eth0"), "{told}");
            at.ok(&format!("network rm {other}"));
            // Two that share it are none too many.
            at.ok(&format!("network create -d macvlan --subnet 10.8.0.0/24 -o parent=up0 {other}"));
            at.ok(&format!("network rm {lan} {other}"));
        });
    });
}

#[test]
fn privileged_networks_of_macvlan_outlive_the_daemon_and_their_containers_it() {
    with_a_neighbour(|daemon, host| {
        support::inside(host.as_fd(), || ip("addr add 10.7.0.254/24 dev eth0"));
        let at = At { daemon, cli: testkit::Cli::Longshore };
        at.ok("network create -d macvlan --subnet 10.7.0.0/24 --gateway 10.7.0.254 -o parent=up0 -o macvlan_mode=passthru lan");
        at.ok("network create -d macvlan --subnet 10.8.0.0/24 inner");
        at.ok("network create usual");
        at.ok(&format!("run -d --name web --network lan -p 8080:80 busybox {SERVER}"));
        hears_soon(host, [10, 7, 0, 1]);
        at.fails("run --rm --network lan busybox true", 125, "failed to create the macvlan port: invalid argument");
        let before = (on(&at, "web", "lan"), shown(&at, "lan"), links());
        daemon.kill9().unwrap();
        hears_soon(host, [10, 7, 0, 1]);
        daemon.restart().unwrap();
        let at = At { daemon, cli: testkit::Cli::Longshore };
        assert_eq!((on(&at, "web", "lan"), shown(&at, "lan"), links()), before);
        at.ok("network connect usual web");
        at.ok("network connect --ip 10.8.0.9 inner web");
        assert!(at.ok("exec web ip route").contains("default via 10.7.0.254 dev eth0"));
        at.ok("network disconnect lan web");
        // Ports are the daemon's business again.
        assert!(at.ok("port web").contains("80/tcp -> 0.0.0.0:8080"));
        assert!(!at.ok("exec web ip -o addr").contains("10.7.0.1/"));
        // The parent's only place is free.
        at.ok("run --rm --network lan busybox true");
        at.ok("restart -t 0 web");
        assert_eq!(on(&at, "web", "inner")["IPAddress"], json!("10.8.0.9"));
        at.remove("web");
        // A container that ends while no daemon is there leaves nothing in the way either.
        at.ok("run -d --name short --network lan busybox sleep 1000");
        let pid: i32 = at.inspect("short", "{{.State.Pid}}").parse().unwrap();
        daemon.kill9().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
        daemon.restart().unwrap();
        let at = At { daemon, cli: testkit::Cli::Longshore };
        at.remove("short");
        at.ok("run --rm --network lan busybox true");
        at.ok("network rm lan usual inner");
    });
}

#[test]
fn privileged_a_container_has_a_link_of_the_hosts_and_gives_it_back() {
    with_a_neighbour(|daemon, host| {
        ip("addr add 10.5.0.1/24 brd + dev up0");
        support::inside(host.as_fd(), || ip("addr add 10.5.0.2/24 dev eth0"));
        let before = ip("-o addr show dev up0 scope global");
        let is_back = || ip("-o addr show dev up0 scope global") == before;
        support::each(daemon, |at| {
            let (nic, name) = (at.image("nic"), at.name("web"));
            at.ok(&format!("network create -d host-interface -o parent=up0 {nic}"));
            let network = shown(at, &nic);
            assert_eq!((&network["Driver"], &network["IPAM"]["Config"]), (&json!("host-interface"), &json!([])));
            at.ok(&format!("run -d --name {name} --network {nic} busybox {SERVER}"));
            hears_soon(host, [10, 5, 0, 1]);
            assert!(!links().contains(&"up0".to_owned()));
            assert_eq!(on(at, &name, &nic)["IPAddress"], json!(""));
            at.fails(
                &format!("run --rm --network {nic} busybox true"),
                125,
                "failed to set up container networking: the requested parent interface up0 was not found on the Docker host",
            );
            at.ok(&format!("kill {name}"));
            at.ok(&format!("wait {name}"));
            assert!(is_back(), "{}", ip("-o addr"));
            at.ok(&format!("start {name}"));
            hears_soon(host, [10, 5, 0, 1]);
            at.ok(&format!("network disconnect {nic} {name}"));
            assert!(is_back(), "{}", ip("-o addr"));
            at.remove(&name);
            at.ok(&format!("network rm {nic}"));
        });
        // The next daemon gives back what this one has lent.
        let at = At { daemon, cli: testkit::Cli::Longshore };
        at.ok("network create -d host-interface -o parent=up0 nic");
        at.ok(&format!("run -d --name web --network nic busybox {SERVER}"));
        daemon.kill9().unwrap();
        hears_soon(host, [10, 5, 0, 1]);
        daemon.restart().unwrap();
        hears_soon(host, [10, 5, 0, 1]);
        let at = At { daemon, cli: testkit::Cli::Longshore };
        at.remove("web");
        assert!(is_back(), "{}", ip("-o addr"));
        at.ok("network rm nic");
    });
}

#[test]
fn privileged_a_kernel_without_ipvlan_is_named_at_once() {
    with_a_neighbour(|daemon, _| {
        let known = Command::new("ip")
            .args(["link", "add", "link", "up0", "name", "upper0", "type", "ipvlan"])
            .output()
            .unwrap();
        if known.status.success() {
            ip("link del upper0");
            return testkit::skip::report("this kernel has ipvlan");
        }
        support::each(daemon, |at| {
            let lan = at.image("lan");
            at.fails(
                &format!("network create -d ipvlan --subnet 10.7.0.0/24 -o parent=up0 {lan}"),
                1,
                "the kernel of this machine has no ipvlan: neither built in nor as a module that can be loaded",
            );
            at.fails(&format!("network inspect {lan}"), 1, &format!("network {lan} not found"));
        });
    });
}
