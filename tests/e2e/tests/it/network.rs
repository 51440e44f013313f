//! Containers on the default bridge, and their published ports.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use testkit::Daemon;

use crate::support::{At, datagram_server, exchange_datagrams, on_both, ours};

/// Serves its own host name over HTTP on port 80.
const SERVER: &str = "sh -c 'mkdir /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www'";
/// How long an answer may take on a loaded machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// What a server sent, or why there was none.
fn fetch(address: &str) -> std::io::Result<String> {
    let address: SocketAddr = address.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Asks until the server has begun to listen.
fn fetch_soon(address: &str) -> String {
    let answer = || fetch(address).ok().filter(|answer| answer.contains("200 OK"));
    testkit::process::until("an answer of the server", ANSWER_WITHIN, answer).unwrap()
}

/// A loopback address for this process: other tests, whose daemons give out the same ports, have another one.
fn home() -> String {
    let id = std::process::id().to_be_bytes();
    format!("127.{}.{}.{}", 8 + id[1], id[2], id[3])
}

/// The published address of a container's port 80.
fn address(at: &At<'_>, name: &str) -> String {
    at.ok(&format!("port {name} 80"))
}

#[test]
fn privileged_a_published_port_answers_and_is_told() {
    on_both(|at| {
        let (name, home) = (at.name("web"), home());
        at.ok(&format!("run -d --name {name} --hostname served -p {home}::80 --expose 90 busybox {SERVER}"));
        let address = address(at, &name);
        assert!(address.starts_with(&format!("{home}:")), "{address}");
        assert!(fetch_soon(&address).ends_with("served\n"));
        assert_eq!(at.ok(&format!("port {name}")), format!("80/tcp -> {address}"));
        at.fails(&format!("port {name} 90"), 1, &format!("Error: No public port '90' published for {name}"));
        for (port, reason) in [("x", "invalid syntax"), ("+80", "invalid syntax"), ("65536", "value out of range")] {
            let sentence = format!("Error: invalid port ({port}): strconv.ParseUint: parsing \"{port}\": {reason}");
            at.fails(&format!("port {name} {port}"), 1, &sentence);
        }
        let shown = at.ok(&format!("ps --filter name={name} --format {{{{.Ports}}}}"));
        assert_eq!(shown, format!("90/tcp, {address}->80/tcp"));
        let port = address.rsplit_once(':').unwrap().1;
        for (filter, found) in [
            (format!("publish={port}"), true),
            ("publish=1-65535/tcp".to_owned(), true),
            (format!("publish={port}/udp"), false),
            ("publish=80".to_owned(), false),
            ("expose=80".to_owned(), true),
            ("expose=85-95".to_owned(), true),
            ("expose=85-89".to_owned(), false),
            // Either is enough.
            ("publish=80 --filter expose=90".to_owned(), true),
        ] {
            let shown = at.ok(&format!("ps --filter name={name} --filter {filter} --format {{{{.Names}}}}"));
            assert_eq!(shown, if found { &name[..] } else { "" }, "{filter}");
        }
        let ports = at.inspect(&name, "{{json .NetworkSettings.Ports}}");
        assert_eq!(ports, format!(r#"{{"80/tcp":[{{"HostIp":"{home}","HostPort":"{port}"}}],"90/tcp":null}}"#));
        let own = at.inspect(&name, "{{.NetworkSettings.IPAddress}}");
        let bridge =
            at.inspect(&name, "{{with .NetworkSettings.Networks.bridge}}{{.IPAddress}} {{.MacAddress}}{{end}}");
        assert_eq!(bridge, format!("{own} {}", at.inspect(&name, "{{.NetworkSettings.MacAddress}}")));
        assert_eq!(at.ok(&format!("exec {name} tail -n 1 /etc/hosts")), format!("{own}\tserved"));
        at.ok(&format!("stop -t 0 {name}"));
        assert!(fetch(&address).is_err());
        assert_eq!(at.inspect(&name, "{{json .NetworkSettings.Ports}} {{.NetworkSettings.IPAddress}}"), "{}");
        at.remove(&name);
    });
}

#[test]
fn privileged_containers_reach_each_other_and_share_networks() {
    on_both(|at| {
        let name = at.name("donor");
        at.ok(&format!("run -d --name {name} --hostname donor busybox {SERVER}"));
        let own = at.inspect(&name, "{{.NetworkSettings.IPAddress}}");
        fetch_soon(&format!("{own}:80"));
        assert_eq!(at.ok(&format!("run --rm busybox wget -qO- http://{own}")), "donor");
        // The host by the gateway's address, by name.
        let gateway = at.inspect(&name, "{{.NetworkSettings.Gateway}}");
        let hosts = at.ok("run --rm --add-host outside:host-gateway busybox cat /etc/hosts");
        assert!(hosts.contains(&format!("\n{gateway}\toutside\n")), "{hosts}");
        let shared = "sh -c 'hostname; wget -qO- http://127.0.0.1; tail -n 1 /etc/hosts'";
        let shared = at.ok(&format!("run --rm --network container:{name} busybox {shared}"));
        assert_eq!(shared, format!("donor\ndonor\n{own}\tdonor"));
        at.remove(&name);
        at.fails(
            &format!("run --rm --network container:{name} busybox true"),
            125,
            &format!("joining network namespace of container: No such container: {name}"),
        );
        let conflict = "conflicting options: port publishing and the container type network mode";
        at.fails(&format!("run --rm --network container:{name} -p 80 busybox true"), 125, conflict);
        let full = at.ok("run --rm --hostname box.of.lan busybox tail -n 1 /etc/hosts");
        assert!(full.ends_with("\tbox.of.lan box"), "{full}");
        let alone = at.ok("run --rm --network none busybox ip -o addr");
        assert!(!alone.contains("eth0"), "{alone}");
    });
}

#[test]
fn privileged_all_ports_ranges_and_datagrams() {
    on_both(|at| {
        let (name, home) = (at.name("ports"), home());
        at.ok(&format!("run -d --name {name} -P --expose 70-71 -p {home}::53/udp busybox sleep 1000"));
        let ports = at.ok(&format!("port {name}"));
        let count = |start: &str| ports.lines().filter(|line| line.starts_with(start)).count();
        // Docker publishes them on IPv6, too.
        assert!(count("70/tcp -> 0.0.0.0:") == 1 && count("71/tcp -> 0.0.0.0:") == 1, "{ports}");
        let server = datagram_server(at, &name, 53);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(at.ok(&format!("port {name} 53/udp"))).unwrap();
        exchange_datagrams(&client, &server, ANSWER_WITHIN);
        at.remove(&name);
    });
}

#[test]
fn privileged_bindings_of_ports_that_are_not_exposed_lead_nowhere() {
    on_both(|at| {
        let (name, home) = (at.name("bound"), home());
        let bound = format!(r#"[{{"HostIp":"{home}","HostPort":"45321"}}]"#);
        let shown = "{{json .HostConfig.PortBindings}} {{json .NetworkSettings.Ports}}";
        for (exposed, key, all, wanted) in [
            ("{}", "80/tcp", false, "{}".to_owned()),
            (r#"{"80/tcp":{}}"#, "80/tcp", false, format!(r#"{{"80/tcp":{bound}}}"#)),
            (r#"{"80":{}}"#, "80", false, format!(r#"{{"80/tcp":{bound}}}"#)),
            (r#"{"80/tcp":{}}"#, "80", false, r#"{"80/tcp":null}"#.to_owned()),
            (r#"{"81/tcp":{}}"#, "80/tcp", false, r#"{"81/tcp":null}"#.to_owned()),
            ("{}", "80/tcp", true, "{}".to_owned()),
        ] {
            let body = format!(
                r#"{{"Image":"busybox","Cmd":["sleep","1000"],"ExposedPorts":{exposed},
                    "HostConfig":{{"PublishAllPorts":{all},"PortBindings":{{"{key}":{bound}}}}}}}"#
            );
            let made = at.daemon.post(&format!("/containers/create?name={name}"), &body).unwrap();
            assert_eq!(made.status, 201, "{}", made.text());
            assert_eq!(at.inspect(&name, shown), format!(r#"{{"{key}":{bound}}} {{}}"#));
            at.ok(&format!("start {name}"));
            assert_eq!(at.inspect(&name, shown), format!(r#"{{"{key}":{bound}}} {wanted}"#), "{exposed} {key}");
            let listed = at.ok(&format!("ps --filter name={name} --format {{{{.Ports}}}}"));
            assert_eq!(listed.contains("->"), wanted.contains("HostPort"), "{exposed} {key}: {listed}");
            at.remove(&name);
        }
    });
}

#[test]
fn privileged_a_port_belongs_to_one() {
    on_both(|at| {
        let (first, second, home) = (at.name("first"), at.name("second"), home());
        at.ok(&format!("run -d --name {first} -p {home}::80 busybox sleep 1000"));
        let taken = address(at, &first);
        let refused = format!("Bind for {taken} failed: port is already allocated");
        let setup =
            "failed to set up container networking: driver failed programming external connectivity on endpoint";
        let line = format!("run -d --name {second} -p {taken}:80 busybox sleep 1000");
        at.fails(&line, 125, &format!("{setup} {second} ("));
        at.fails(&format!("start {second}"), 1, &refused);
        assert_eq!(at.inspect(&second, "{{.State.Status}} {{.State.ExitCode}}"), "created 128");
        // The answer about an end comes when the port is free.
        at.ok(&format!("rm -f {first}"));
        at.ok(&format!("start {second}"));
        assert_eq!(address(at, &second), taken);
        at.ok(&format!("restart -t 0 {second}"));
        assert_eq!(address(at, &second), taken);
        at.remove(&second);
    });
}

#[test]
fn privileged_heavy_ports_answer_while_daemons_die() {
    ours(|daemon| deaths(daemon, 20));
}

#[test]
fn privileged_quick_ports_answer_while_daemons_die() {
    ours(|daemon| deaths(daemon, 2));
}

/// Clients fetch all the time; every connection is answered, whatever becomes of the daemon.
fn deaths(daemon: &mut Daemon, kills: usize) {
    let us = |daemon: &Daemon, line: &str| At { daemon, cli: testkit::Cli::Longshore }.ok(line);
    let home = home();
    us(daemon, &format!("run -d --name web -p {home}::80 busybox {SERVER}"));
    us(daemon, &format!("run -d --name gone -p {home}::80 busybox sleep 1000"));
    let address = us(daemon, "port web 80");
    fetch_soon(&address);
    let (done, fetched) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let fetch_on = || {
            while !done.load(Ordering::Relaxed) {
                fetch(&address).unwrap();
                fetched.fetch_add(1, Ordering::Relaxed);
            }
        };
        let clients = [scope.spawn(fetch_on), scope.spawn(fetch_on)];
        for _ in 0..kills {
            let before = fetched.load(Ordering::Relaxed);
            daemon.kill9().unwrap();
            let answered = || (fetched.load(Ordering::Relaxed) > before + 2).then_some(());
            testkit::process::until("answers without a daemon", ANSWER_WITHIN, answered).unwrap();
            daemon.restart().unwrap();
            assert_eq!(us(daemon, "port web 80"), address);
        }
        done.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    // One that ends while nobody is there gives its port back to the next daemon.
    let pid: i32 = us(daemon, "inspect -f {{.State.Pid}} gone").parse().unwrap();
    let port = us(daemon, "port gone 80");
    daemon.kill9().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    daemon.restart().unwrap();
    us(daemon, "wait gone");
    us(daemon, &format!("run -d --name next -p {port}:80 busybox {SERVER}"));
    fetch_soon(&port);
}

#[test]
fn privileged_daemons_have_bridges_of_their_own() {
    ours(|daemon| {
        let line = "run --rm busybox ip -4 -o addr show eth0";
        let other = Daemon::with_busybox().unwrap();
        let at = |daemon| At { daemon, cli: testkit::Cli::Longshore };
        let (ours, theirs) = std::thread::scope(|scope| {
            let theirs = scope.spawn(|| at(&other).ok(line));
            (at(daemon).ok(line), theirs.join().unwrap())
        });
        assert_ne!(ours, theirs);
    });
}

#[test]
fn privileged_name_servers_and_hosts_are_those_that_were_asked_for() {
    on_both(|at| {
        let dns = "--dns 10.1.2.3 --dns 10.1.2.4 --dns-search box.lan --dns-option ndots:2";
        let resolv = at.ok(&format!("run --rm {dns} busybox grep -v '^#' /etc/resolv.conf"));
        let lines: Vec<&str> = resolv.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines, ["nameserver 10.1.2.3", "nameserver 10.1.2.4", "search box.lan", "options ndots:2"]);
        let hosts = at.ok("run --rm --add-host one:10.1.2.5 --add-host two=10.1.2.6 busybox cat /etc/hosts");
        assert!(hosts.contains("10.1.2.5\tone\n10.1.2.6\ttwo\n"), "{hosts}");
    });
}

#[test]
fn privileged_ports_are_shown_as_often_as_they_are_bound_and_where_they_could_be_published() {
    on_both(|at| {
        let (name, inside) = (at.name("twice"), at.name("inside"));
        let home = home();
        let port = UdpSocket::bind((home.as_str(), 0)).unwrap().local_addr().unwrap().port();
        let twice = format!("-p {home}:{port}:53/udp -p {home}:{port}:53/udp");
        at.ok(&format!("run -d --name {name} {twice} -p [::1]:{port}:{port} busybox sleep 1000"));
        let listed = at.ok(&format!("ps --filter name={name} --format '{{{{.Ports}}}}'"));
        let datagrams = format!("{home}:{port}->53/udp");
        let mut shown: Vec<&str> = listed.split(", ").collect();
        shown.sort_unstable();
        let mut expected = [datagrams.clone(), datagrams, format!("[::1]:{port}->{port}/tcp")];
        expected.sort_unstable();
        assert_eq!(shown, expected);
        let ports: serde_json::Value =
            serde_json::from_str(&at.inspect(&name, "{{json .NetworkSettings.Ports}}")).unwrap();
        assert_eq!(ports["53/udp"].as_array().unwrap().len(), 2);
        at.remove(&name);
        at.ok(&format!("network create --internal {inside}"));
        at.ok(&format!("run -d --name {name} --network {inside} --expose 80 -p 81 busybox sleep 1000"));
        assert_eq!(at.ok(&format!("ps --filter name={name} --format '{{{{.Ports}}}}'")), "");
        assert_eq!(at.inspect(&name, "{{json .NetworkSettings.Ports}}"), "{}");
        at.remove(&name);
        at.ok(&format!("network rm {inside}"));
    });
}

#[test]
fn privileged_the_bridge_is_shown_as_it_was_configured_and_a_wrong_one_is_found_at_the_start() {
    ours(|daemon| {
        let write = |daemon: &Daemon, text: &str| drop(daemon.scratch().write("daemon.json", text).unwrap());
        let [_, high, low, _] = std::process::id().to_be_bytes();
        let network = format!("10.{}.{}", 64 + high % 64, low);
        write(
            daemon,
            &format!(r#"{{"bip":"{network}.1/24","fixed-cidr":"{network}.64/26","default-gateway":"{network}.9"}}"#),
        );
        daemon.restart().unwrap();
        let at = At { daemon, cli: testkit::Cli::Longshore };
        let shown = at.ok("network inspect bridge --format '{{json .IPAM.Config}}'");
        let expected = format!(
            r#"[{{"Subnet":"{network}.0/24","IPRange":"{network}.64/26","Gateway":"{network}.1","AuxiliaryAddresses":{{"DefaultGatewayIPv4":"{network}.9"}}}}]"#
        );
        assert_eq!(shown, expected);
        for (text, sentence) in [
            (
                format!(r#"{{"bip":"{network}.1/24","fixed-cidr":"192.0.2.0/26"}}"#),
                format!("fixed-cidr 192.0.2.0/26 is not in the default bridge's network {network}.0/24"),
            ),
            (
                r#"{"bridge":"nosuch0"}"#.to_owned(),
                "bridge device with non default name nosuch0 must be created manually".to_owned(),
            ),
        ] {
            write(daemon, &text);
            let refused = format!("{:?}", daemon.restart().unwrap_err());
            assert!(refused.contains(&sentence), "{refused}");
        }
        write(daemon, "{}");
        daemon.restart().unwrap();
    });
}
