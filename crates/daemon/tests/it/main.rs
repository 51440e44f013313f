//! The real daemon in scratch directories: how it starts, who may start beside it, and how it ends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod daemon;
mod reload;
mod tls;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use daemon::{Scratch, output};
use rustix::process::Signal;

#[test]
fn configurations_are_checked_without_being_used() {
    let scratch = Scratch::new();
    let valid = output(scratch.longshored(&["--validate", "--data-root", "/nonexistent/x"]));
    assert_eq!((valid.code, valid.stdout.as_str()), (Some(0), "configuration OK\n"));
    scratch.write("bad.json", "{\"foo\":1}");
    let path = scratch.path("bad.json");
    let refused = output(scratch.longshored(&["--validate", "--config-file", &path]));
    assert_eq!(refused.code, Some(1));
    assert_eq!(
        refused.stderr,
        format!(
            "longshored: unable to configure the daemon with file {path}: the following directives don't match any configuration option: foo\n"
        )
    );
    let missing = output(scratch.longshored(&["--validate", "--tlsverify", "--tlscert=/nope", "--tlskey=/nope"]));
    let wanted = "invalid TLS configuration: could not load X509 key pair (cert: \"/nope\", key: \"/nope\")";
    assert!(missing.stderr.contains(wanted), "{}", missing.stderr);
    let profile = output(scratch.longshored(&["--validate", "--seccomp-profile=/nope"]));
    assert!(profile.stderr.contains("opening seccomp profile (/nope) failed"), "{}", profile.stderr);
    let unknown = output(scratch.longshored(&["--foo"]));
    assert!(unknown.stderr.contains("unknown flag: --foo"), "{}", unknown.stderr);
}

/// What the start would refuse by the configuration alone.
#[test]
fn privileged_what_the_start_refuses_is_no_valid_configuration() {
    let removed = "[graphdriver] ERROR: the aufs storage-driver has been deprecated and removed; visit \
                   https://docs.docker.com/go/storage-driver/ for more information: aufs";
    let pool = "Error initializing network controller: error obtaining controller instance: could not construct local \
                address space: network at index 0 (&{10.0.0.0/8 4}) has a smaller prefix (/8) than the target size of \
                that pool (/4)";
    for (file, sentence) in [
        (r#"{"storage-driver":"zfs"}"#, "error initializing graphdriver: prerequisites for driver not satisfied"),
        (r#"{"storage-driver":"aufs"}"#, removed),
        (r#"{"storage-driver":"nosuch"}"#, "error initializing graphdriver: driver not supported: nosuch"),
        (r#"{"default-address-pools":[{"base":"10.0.0.0/8","size":4}]}"#, pool),
        (r#"{"default-runtime":"nosuch"}"#, "specified default runtime 'nosuch' does not exist"),
    ] {
        let scratch = Scratch::new();
        scratch.write("daemon.json", file);
        let (checked, started) = (output(scratch.longshored(&["--validate"])), output(scratch.longshored(&[])));
        assert_eq!((checked.code, started.code), (Some(1), Some(1)), "{file}: {checked:?} {started:?}");
        assert_eq!(checked.stderr, started.stderr, "{file}");
        assert!(checked.stderr.contains(sentence), "{file}: {}", checked.stderr);
    }
    let scratch = Scratch::new();
    let nested = output(scratch.longshored(&["--validate", "--exec-root", &scratch.path("data/exec")]));
    assert!(nested.stderr.contains("must be two directories"), "{}", nested.stderr);
    assert!(!fs::exists(scratch.path("data")).unwrap(), "nothing is made for a check");
}

#[test]
fn privileged_it_answers_until_it_is_asked_to_end() {
    let scratch = Scratch::new();
    let mut daemon = scratch.start(&[]);
    assert!(scratch.ping());
    for root in ["exec", "data"] {
        assert_eq!(fs::metadata(scratch.path(root)).unwrap().permissions().mode() & 0o777, 0o700, "{root}");
    }
    assert_eq!(fs::metadata(scratch.path("d.sock")).unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(fs::read_to_string(scratch.path("exec/instance-key")).unwrap().len(), 8);
    assert_eq!(fs::read_to_string(scratch.path("d.pid")).unwrap(), daemon.pid().to_string());
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait(), Some(0));
    assert!(!fs::exists(scratch.path("d.sock")).unwrap());
    assert!(!fs::exists(scratch.path("d.pid")).unwrap());
}

#[test]
fn privileged_streams_do_not_keep_it_from_ending() {
    let scratch = Scratch::new();
    let mut daemon = scratch.start(&["--shutdown-timeout", "3600"]);
    let mut events = scratch.open("GET /events HTTP/1.1\r\nHost: d\r\n\r\n");
    let mut first = [0; 12];
    events.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    daemon.signal(Signal::INT);
    assert_eq!(daemon.wait(), Some(0));
}

#[test]
fn privileged_a_killed_daemon_leaves_nothing_in_the_way() {
    let scratch = Scratch::new();
    for _ in 0..3 {
        let mut daemon = scratch.start(&[]);
        assert!(scratch.ping());
        daemon.signal(Signal::KILL);
        daemon.wait();
    }
    let _daemon = scratch.start(&[]);
    assert!(scratch.ping());
}

#[test]
fn privileged_a_second_daemon_is_told_of_the_first() {
    let scratch = Scratch::new();
    let daemon = scratch.start(&[]);
    let second = output(scratch.longshored(&["-H", &format!("unix://{}", scratch.path("other.sock"))]));
    assert_eq!(second.code, Some(1));
    let wanted = format!("{} is in use by another longshored, process {}", scratch.path("exec"), daemon.pid());
    assert!(second.stderr.contains(&wanted), "{}", second.stderr);
    let elsewhere = Scratch::new();
    let third = output(elsewhere.longshored(&["-H", &format!("unix://{}", scratch.path("d.sock"))]));
    assert!(third.stderr.contains("is in use: another daemon listens there"), "{}", third.stderr);
    assert!(scratch.ping());
}

#[test]
fn privileged_one_directory_is_not_two_roots() {
    let scratch = Scratch::new();
    let refused = output(scratch.longshored(&["--exec-root", &scratch.path("data")]));
    assert_eq!(refused.code, Some(1));
    let wanted = "must be two directories, neither of them in the other";
    assert!(refused.stderr.contains(wanted) && !refused.stderr.contains("in use"), "{}", refused.stderr);
}

#[test]
fn privileged_another_user_is_told_to_be_root() {
    let scratch = Scratch::new();
    // Others may not reach the program where it was built, nor read the configuration.
    fs::set_permissions(scratch.path("."), fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(scratch.path("daemon.json"), fs::Permissions::from_mode(0o600)).unwrap();
    // By cp: a file that this process had open for writing cannot be run while another test's child still holds it.
    let copied = Command::new("cp").args([env!("CARGO_BIN_EXE_longshored"), &scratch.path("longshored")]).status();
    assert!(copied.unwrap().success());
    let mut nobody = Command::new(scratch.path("longshored"));
    nobody.args(scratch.longshored(&[]).get_args()).uid(65534);
    let refused = output(nobody);
    assert_eq!(refused.code, Some(1));
    assert_eq!(refused.stderr, "longshored: longshored needs root: start it as root, or with sudo\n");
}

#[test]
fn privileged_a_container_that_cannot_be_looked_into_is_reported() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path("data/containers")).unwrap();
    let odd = scratch.path(&format!("data/containers/{}", "ab".repeat(32)));
    fs::write(&odd, "").unwrap();
    let _daemon = scratch.start(&[]);
    scratch.wait_for_log("cannot tell whether the container's creation was cut");
    assert!(fs::exists(&odd).unwrap());
}

#[test]
fn privileged_tcp_is_served_where_it_is_named_as_insecure() {
    let scratch = Scratch::new();
    let refused = output(scratch.longshored(&["-H", "tcp://0.0.0.0:0"]));
    assert!(refused.stderr.contains("say --tls=false if that is what you want"), "{}", refused.stderr);
    let _daemon = scratch.start(&["-H", "tcp://127.0.0.1:0", "--metrics-addr", "127.0.0.1:0"]);
    assert!(daemon::ping(TcpStream::connect(scratch.listens("API listen on 127")).unwrap()));
    let info = scratch.get("/info");
    let warning = "[DEPRECATION NOTICE]: API is accessible on http://127.0.0.1:0 without encryption.";
    assert!(info.contains(warning), "{info}");
    scratch.wait_for_log("without encryption");
}

#[test]
fn privileged_sockets_come_from_systemd_too() {
    let scratch = Scratch::new();
    let listener = UnixListener::bind(scratch.path("passed.sock")).unwrap();
    let mut daemon = scratch.start_with_socket(&listener);
    drop(listener);
    assert!(daemon::ping(UnixStream::connect(scratch.path("passed.sock")).unwrap()));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait(), Some(0));
    // The file belongs to whoever made it.
    assert!(fs::exists(scratch.path("passed.sock")).unwrap());
}

#[test]
fn privileged_on_demand_it_leaves_its_caller_and_ends_when_idle() {
    let scratch = Scratch::new();
    let mut daemon = scratch.start(&["--on-demand", "--idle-timeout", "1"]);
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    // Behind the name in parentheses: state, parent, process group, session.
    let session = stat.rsplit_once(')').unwrap().1.split(' ').nth(4).unwrap().to_owned();
    assert_eq!(session, daemon.pid().to_string());
    assert_eq!(fs::read_link(format!("/proc/{}/cwd", daemon.pid())).unwrap().to_str(), Some("/"));
    assert!(scratch.ping());
    let client = UnixStream::connect(scratch.path("d.sock")).unwrap();
    assert!(daemon::ping(client.try_clone().unwrap()));
    drop(client);
    assert_eq!(daemon.wait(), Some(0));
    assert!(!fs::exists(scratch.path("d.sock")).unwrap());
    assert!(fs::read_to_string(scratch.path("log")).unwrap().contains("there is nothing to do"));
}

#[test]
fn privileged_an_open_connection_keeps_a_daemon_on_demand() {
    let scratch = Scratch::new();
    let mut daemon = scratch.start(&["--on-demand", "--idle-timeout", "1"]);
    // A stream that ends by itself after more than the timeout.
    let until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3;
    let mut events = scratch.open(&format!("GET /events?until={until} HTTP/1.0\r\nHost: d\r\n\r\n"));
    events.read_to_end(&mut Vec::new()).unwrap();
    assert!(scratch.ping());
    assert_eq!(daemon.wait(), Some(0));
}

#[test]
fn privileged_metrics_are_served_where_they_are_asked_for_and_only_there() {
    let scratch = Scratch::new();
    let _daemon = scratch.start(&["--metrics-addr", "127.0.0.1:0"]);
    let address = scratch.listens("metrics API listening on 127");
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let page = ask("/metrics");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("text/plain; version=0.0.4"), "{page}");
    for line in [
        "engine_daemon_container_states_containers{state=\"running\"} 0",
        "engine_daemon_container_actions_seconds_count{action=\"start\"} 0",
        "engine_daemon_events_subscribers_total 0",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in {page}");
    }
    assert!(ask("/info").starts_with("HTTP/1.1 404 "), "the API is not served there");
    assert!(scratch.get("/metrics").contains("page not found"));
}
