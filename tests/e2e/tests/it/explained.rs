//! What `why` says of starts that fail, and what is counted and remembered of checks and execs.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testkit::process::{DEADLINE, until};
use testkit::{Cli, Daemon, http};

use crate::support::{At, on_both, ours};

/// The answer with all facts.
fn why(at: &At<'_>, name: &str) -> String {
    at.ok(&format!("why {name}"))
}

#[test]
fn privileged_who_holds_a_port_is_told() {
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        let (first, second) = (at.name("first"), at.name("second"));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let publish = |name: &str| at.line(&format!("run -d -p 127.0.0.1:{port}:80 --name {name} busybox sleep 1000"));
        assert_eq!(publish(&first).code, 125);
        let text = why(&at, &first);
        // The name of a thread of the test's harness would do as well: it is the process's that counts.
        let holder = format!("127.0.0.1:{port}/tcp is held by the process {}, ", std::process::id());
        assert!(text.contains("It could not be started.") && text.contains(&holder), "{text}");
        drop(listener);
        at.ok(&format!("start {first}"));
        assert!(!why(&at, &first).contains("is held by"));
        assert_eq!(publish(&second).code, 125);
        let text = why(&at, &second);
        assert!(text.contains(&format!("127.0.0.1:{port}/tcp is published by the container {first}")), "{text}");
        at.remove(&first);
        at.remove(&second);
    });
}

#[test]
fn privileged_a_shim_that_was_killed_is_told() {
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        let name = at.name("killed");
        at.start(&name, "busybox sleep 1000");
        let pid = at.inspect(&name, "{{.State.Pid}}");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let shim = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap().parse().unwrap();
        kill_process(Pid::from_raw(shim).unwrap(), Signal::KILL).unwrap();
        assert_eq!(at.ok(&format!("wait {name}")), "255");
        let text = why(&at, &name);
        assert!(
            text.contains(&format!("{name}: The program beside it was killed, and the engine ended it.")),
            "{text}"
        );
        assert!(text.contains("longshore-shim, which is beside every container, ended without a word"), "{text}");
        at.ok(&format!("start {name}"));
        at.ok(&format!("stop -t 0 {name}"));
        assert!(!why(&at, &name).contains("beside"), "it is told of the last run");
        at.remove(&name);
    });
}

#[test]
fn privileged_an_interpreter_that_is_not_there_is_told() {
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        let shared = daemon.shared_dir().unwrap().expect("a daemon of our own sees our directories");
        let script = shared.path().join("script");
        fs::write(&script, "#!/no/such/perl -w\n").unwrap();
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let name = at.name("script");
        let run =
            |rest: &str| at.line(&format!("run --network none --name {name} -v {}:/s {rest}", shared.path().display()));
        let output = run("busybox /s/script");
        assert_eq!((output.code, output.stderr.as_str()), (255, "exec /s/script: no such file or directory\n"));
        let text = why(&at, &name);
        assert!(text.contains(&format!("{name}: Its program could not be executed.")), "{text}");
        assert!(text.contains("exec /s/script: its interpreter /no/such/perl is missing"), "{text}");
        at.remove(&name);
        // One that ends with the same code was executed.
        assert_eq!(run("busybox sh -c 'exit 255'").code, 255);
        let text = why(&at, &name);
        assert!(text.contains("Its program failed.") && !text.contains("exec "), "{text}");
        at.remove(&name);
        assert_eq!(run("--cap-drop CHOWN busybox chown 1 /").code, 1);
        let text = why(&at, &name);
        assert!(text.contains("capability it ran without capabilities that it was refused: "), "{text}");
        at.remove(&name);
    });
}

#[test]
fn privileged_ends_of_execs_outlive_their_container_without_a_daemon() {
    ours(|daemon| {
        let (name, exec) = {
            let at = At { daemon, cli: Cli::Longshore };
            let name = at.name("gone");
            // It ends when the other one has ended: a container's end takes along who is still there.
            let waits =
                "until [ -e /end ]; do usleep 10000; done; while [ -e /proc/$(cat /end) ]; do usleep 10000; done";
            at.start(&name, &format!("busybox sh -c '{waits}'"));
            let ends = "until [ -e /now ]; do usleep 10000; done; echo $$ > /number; mv /number /end; exit 7";
            let body = &format!(r#"{{"Cmd": ["sh", "-c", "{ends}"]}}"#);
            let made = daemon.post(&format!("/containers/{name}/exec"), body).unwrap().json().unwrap();
            let exec = made["Id"].as_str().unwrap().to_owned();
            let started = daemon.post(&format!("/exec/{exec}/start"), r#"{"Detach": true}"#).unwrap();
            assert_eq!(started.status, 200);
            (name, exec)
        };
        let pid = daemon.get(&format!("/containers/{name}/json")).unwrap().json().unwrap()["State"]["Pid"].clone();
        let root = format!("/proc/{pid}/root");
        daemon.kill9().unwrap();
        fs::write(format!("{root}/now"), "").unwrap();
        let ended = || fs::metadata(&root).is_err().then_some(());
        until("the container has ended", DEADLINE, ended).unwrap();
        daemon.restart().unwrap();
        let shown = daemon.get(&format!("/exec/{exec}/json")).unwrap();
        assert_eq!(shown.status, 200, "{}", shown.text());
        let shown = shown.json().unwrap();
        let found =
            (shown["Running"].as_bool(), shown["ExitCode"].as_i64(), shown["ProcessConfig"]["entrypoint"].as_str());
        assert_eq!(found, (Some(false), Some(7), Some("sh")));
        At { daemon, cli: Cli::Longshore }.remove(&name);
    });
}

#[test]
fn privileged_health_checks_are_counted() {
    if testkit::skip::without_root() || std::env::var_os(testkit::daemon::HOST_VARIABLE).is_some() {
        return;
    }
    let daemon = Daemon::start_with(&["--metrics-addr", "127.0.0.1:0"]).unwrap();
    // The address is told in the daemon's log alone.
    let log = daemon.scratch().log();
    let (_, rest) = log.split_once("metrics API listening on ").unwrap_or_else(|| panic!("{log}"));
    let address = rest.split(['"', ' ', '\n']).next().unwrap().to_owned();
    daemon.load(testkit::images::Archive::Busybox).unwrap();
    let at = At { daemon: &daemon, cli: Cli::Longshore };
    let name = at.name("checked");
    at.start(&name, "--health-interval 50ms --health-cmd 'exit 1' busybox sleep 1000");
    let counted = |figure: &str| -> Option<u64> {
        let text = metrics(&address);
        let line = text.lines().find(|line| line.starts_with(&format!("{figure} ")))?;
        line.split(' ').nth(1)?.parse().ok()
    };
    let checked = || counted("engine_daemon_health_checks_total").filter(|count| *count > 2);
    until("checks were counted", DEADLINE, checked).unwrap();
    // Those that find something did not fail, as with dockerd.
    assert_eq!(counted("engine_daemon_health_checks_failed_total"), Some(0));
    at.remove(&name);
    daemon.finish().unwrap();
}

fn metrics(address: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    http::read_response(&mut answer.as_slice()).unwrap().text()
}

#[test]
fn privileged_without_sig_proxy_the_third_key_ends_the_client_alone() {
    on_both(|at| {
        let name = at.name("keys");
        let script = "trap \"echo interrupted\" INT; echo up; while :; do sleep 1000 & wait; done";
        let line = format!("run --sig-proxy=false --network none --name {name} busybox sh -c '{script}'");
        let mut pty = at.pty(&line);
        pty.read_until("up").unwrap();
        let said = "got 3 SIGTERM/SIGINTs, forcefully exiting";
        // Two that come at once count as one: a signal is pending or not.
        let keys = (1..20).find(|_| {
            pty.send(b"\x03").unwrap();
            pty.read_until_within(said, Duration::from_millis(300)).unwrap().is_some()
        });
        assert!(keys.is_some_and(|keys| keys > 2), "{keys:?}");
        assert_eq!(pty.wait().unwrap().1, 1);
        let shown: Value = serde_json::from_str(&at.inspect(&name, "{{json .State.Running}}")).unwrap();
        assert_eq!(shown, Value::Bool(true));
        assert_eq!(at.ok(&format!("logs {name}")), "up");
        at.remove(&name);
    });
}
