//! Ports of running containers come and go.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use testkit::Cli;

use crate::support::{At, ours};

/// Serves `one` on port 80 and `two` on port 81.
const SERVER: &str = "sh -c 'mkdir /1 /2; echo one > /1/index.html; echo two > /2/index.html; httpd -p 81 -h /2; exec httpd -f -p 80 -h /1'";
/// How long an answer may take on a loaded machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// A loopback address for this process: other tests, whose daemons give out the same ports, have another one.
pub(crate) fn home() -> String {
    let id = std::process::id().to_be_bytes();
    format!("127.{}.{}.{}", 8 + id[1], id[2], id[3])
}

/// The last line of what a server sent, or why there was none.
fn fetch(address: &str) -> std::io::Result<String> {
    let address: SocketAddr = address.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.lines().last().unwrap_or_default().to_owned())
}

/// Asks until the server has begun to listen.
pub(crate) fn fetch_soon(address: &str) -> String {
    let answer = || fetch(address).ok().filter(|answer| !answer.is_empty());
    testkit::process::until("an answer of the server", ANSWER_WITHIN, answer).unwrap()
}

fn published(at: &At<'_>, name: &str) -> String {
    at.inspect(name, "{{json .HostConfig.PortBindings}} {{json .Config.ExposedPorts}}")
}

#[test]
fn privileged_ports_and_limits_change_together_or_not_at_all() {
    ours(|daemon| {
        let (name, home, at) = (daemon.name("together"), home(), At { daemon, cli: Cli::Longshore });
        at.ok(&format!("run -d -m 64m --memory-swap 128m --name {name} busybox {SERVER}"));
        let sentence = "Memory limit should be smaller than already set memoryswap limit";
        at.fails(&format!("update --publish-add {home}::80 -m 256m {name}"), 1, sentence);
        assert_eq!((at.ok(&format!("port {name}")), published(&at, &name)), (String::new(), "{} {}".to_owned()));
        assert_eq!(at.ok(&format!("update --publish-add {home}::80 -m 32m {name}")), name);
        assert_eq!(at.inspect(&name, "{{.HostConfig.Memory}}"), "33554432");
        assert_eq!(fetch_soon(&at.ok(&format!("port {name} 80"))), "one");
    });
}

#[test]
fn privileged_ports_of_running_containers_come_and_go() {
    ours(|daemon| {
        let (name, home) = (daemon.name("republished"), home());
        let address = {
            let at = At { daemon, cli: Cli::Longshore };
            at.ok(&format!("run -d --name {name} busybox {SERVER}"));
            assert_eq!(at.ok(&format!("update --publish-add {home}::80 {name}")), name);
            let address = at.ok(&format!("port {name} 80"));
            assert_eq!(fetch_soon(&address), "one");
            let shown = format!(r#"{{"80/tcp":[{{"HostIp":"{home}","HostPort":""}}]}} {{"80/tcp":{{}}}}"#);
            assert_eq!(published(&at, &name), shown);
            let events =
                at.ok(&format!("events --since 1 --until 0s --filter container={name} --format {{{{.Action}}}}"));
            assert!(events.ends_with("update"), "{events}");
            address
        };
        // It outlives the daemon, which knows of it again.
        daemon.kill9().unwrap();
        assert_eq!(fetch(&address).unwrap(), "one");
        daemon.restart().unwrap();
        let at = At { daemon, cli: Cli::Docker };
        assert_eq!((at.ok(&format!("port {name} 80")), fetch(&address).unwrap()), (address.clone(), "one".to_owned()));
        at.ok(&format!("restart -t 0 {name}"));
        let address = at.ok(&format!("port {name} 80"));
        assert_eq!(fetch_soon(&address), "one");

        // The port of the host leads to another one of the container, and what was published beside it stays.
        let at = At { daemon, cli: Cli::Longshore };
        at.ok(&format!("update --publish-rm 80 --publish-add {address}:80 --publish-add {home}::81 {name}"));
        let other = at.ok(&format!("port {name} 81"));
        assert_eq!((fetch(&address).unwrap(), fetch_soon(&other)), ("one".to_owned(), "two".to_owned()));
        at.ok(&format!("update --publish-rm {address}:80 --publish-add {address}:81 {name}"));
        assert_eq!((fetch(&address).unwrap(), fetch(&other).unwrap()), ("two".to_owned(), "two".to_owned()));

        // Whatever comes and goes beside it, a port that stays answers.
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(fetch(&other).unwrap(), "two");
                }
            });
            for _ in 0..10 {
                at.ok(&format!("update --publish-add {home}::80 {name}"));
                at.ok(&format!("update --publish-rm 80 {name}"));
            }
            done.store(true, Ordering::Relaxed);
            asking.join().unwrap();
        });

        // What cannot be had changes nothing.
        let taken = TcpListener::bind((home.as_str(), 0)).unwrap();
        let taken = taken.local_addr().unwrap();
        let line = format!("update --publish-rm 81 --publish-add {home}::80 --publish-add {taken}:80 {name}");
        let output = at.line(&line);
        assert!(output.code == 1 && output.stderr.contains(&format!("{taken}")), "{output:?}");
        assert_eq!((fetch(&address).unwrap(), fetch(&other).unwrap()), ("two".to_owned(), "two".to_owned()));
        for (flags, sentence) in [
            ("--publish-rm 80", "80/tcp is not published".to_owned()),
            (
                &format!("--publish-rm 81 --publish-add {home}::80 --publish-add 0.0.0.0::80"),
                "failed to listen on TCP socket: address already in use".to_owned(),
            ),
            (
                &format!("--publish-add {address}:81"),
                format!("81/tcp is published already at {home}, port {}", port(&address)),
            ),
        ] {
            at.fails(&format!("update {flags} {name}"), 1, &sentence);
        }

        // Given up, the port is anybody's.
        at.ok(&format!("update --publish-rm 81 {name}"));
        assert!(fetch(&address).is_err() && fetch(&other).is_err());
        TcpListener::bind(address.parse::<SocketAddr>().unwrap()).unwrap();
        assert_eq!(at.inspect(&name, "{{json .NetworkSettings.Ports}}"), r#"{"80/tcp":null,"81/tcp":null}"#);

        // Of one that does not run they count from its start on.
        at.ok(&format!("stop -t 0 {name}"));
        at.ok(&format!("update --publish-add {home}::81 --memory 64m --memory-swap 64m {name}"));
        assert_eq!(at.inspect(&name, "{{.HostConfig.Memory}}"), "67108864");
        at.ok(&format!("start {name}"));
        assert_eq!(fetch_soon(&at.ok(&format!("port {name} 81"))), "two");
        at.remove(&name);
        let host = daemon.name("of-the-host");
        at.ok(&format!("create --name {host} --network host busybox true"));
        let sentence = format!("container {host} publishes no ports: its network is that of the host");
        at.fails(&format!("update --publish-add 8080:80 {host}"), 1, &sentence);
        at.remove(&host);
    });
}

fn port(address: &str) -> &str {
    address.rsplit_once(':').map_or("", |(_, port)| port)
}
