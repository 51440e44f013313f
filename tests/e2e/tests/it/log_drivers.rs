//! Log drivers and their options, as users see them.

use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;

use testkit::process::DEADLINE;

use crate::support::on_both;

#[test]
fn privileged_local_keeps_everything_and_compresses_what_was_rotated() {
    on_both(|at| {
        let name = at.name("local");
        let script = "i=10000; while [ $i -lt 14000 ]; do echo line $i; i=$((i+1)); done; echo err >&2; printf end";
        at.line(&format!(
            "run --network none --log-driver local --log-opt max-size=20k --log-opt max-file=20 --name {name} busybox \
             sh -c '{script}'"
        ));
        let expected: String = (10_000..14_000).map(|number| format!("line {number}\n")).collect();
        let shown = at.line(&format!("logs {name}"));
        assert!(shown.stdout == expected + "end", "{} bytes", shown.stdout.len());
        assert_eq!(shown.stderr, "err\n");
        // The one of stderr is among the last 3001 lines unless it was read before a thousand of the others.
        let shown = at.line(&format!("logs -n 3001 {name}"));
        let first = if shown.stderr.is_empty() { 11_000 } else { 11_001 };
        let tail: String = (first..14_000).map(|number| format!("line {number}\n")).collect();
        assert!(shown.stdout == tail + "end", "{} bytes", shown.stdout.len());
        assert_eq!(at.inspect(&name, "{{.LogPath}}"), "");
        at.remove(&name);
    });
}

#[test]
fn privileged_details_show_the_tag_and_what_patterns_choose() {
    on_both(|at| {
        let name = at.name("details");
        at.line(&format!(
            "run --network none --label com.a=1 --label b=2 -e SECRET=x -e SHOWN=y --log-opt labels-regex=^com \
             --log-opt env-regex=OWN$ --log-opt tag={{{{.Name}}}}/{{{{.ImageName}}}} --name {name} busybox echo hi"
        ));
        let shown = at.ok(&format!("logs --details {name}"));
        assert_eq!(shown, format!("SHOWN=y,com.a=1,tag={name}%2Fbusybox hi"));
        at.remove(&name);
    });
}

#[test]
fn privileged_logs_follows_over_compressed_rotations() {
    on_both(|at| {
        let name = at.name("packed");
        let script = "read go; i=10000; while [ $i -lt 12000 ]; do echo line $i; i=$((i+1)); done; echo done; read end";
        let mut events = at.events(&name);
        let mut run = at.spawn(&format!(
            "run -i --network none --log-opt max-size=32k --log-opt max-file=50 --log-opt compress=true --name {name} \
             busybox sh -c '{script}'"
        ));
        events.until("start").unwrap();
        let mut follow = at.spawn(&format!("logs -f {name}"));
        run.send(b"go\n").unwrap();
        let text = follow.read_until("done\n").unwrap();
        let expected: String = (10_000..12_000).map(|number| format!("line {number}\n")).collect();
        assert!(text == expected + "done\n", "{} bytes", text.len());
        run.send(b"end\n").unwrap();
        assert_eq!(run.wait().unwrap().code, 0);
        assert_eq!(follow.wait().unwrap().code, 0);
        at.remove(&name);
    });
}

#[test]
fn privileged_syslog_gets_every_line_and_logs_shows_them() {
    on_both(|at| {
        if at.daemon.is_foreign() {
            return testkit::skip::report("the foreign daemon does not see our socket");
        }
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("log");
        let server = UnixDatagram::bind(&socket).unwrap();
        let name = at.name("syslog");
        at.line(&format!(
            "run --network none --log-driver syslog --log-opt syslog-address=unixgram://{} --log-opt syslog-facility=local1 \
             --log-opt tag={{{{.Name}}}} --name {name} busybox sh -c 'echo out; echo err >&2'",
            socket.display()
        ));
        let mut messages: Vec<String> = (0..2)
            .map(|_| {
                let mut buffer = [0; 1000];
                let length = server.recv(&mut buffer).unwrap();
                String::from_utf8_lossy(&buffer[..length]).into_owned()
            })
            .collect();
        messages.sort();
        assert!(messages[0].starts_with("<139>") && messages[0].ends_with("]: err\n"), "{messages:?}");
        assert!(messages[1].starts_with("<142>") && messages[1].contains(&format!(" {name}[")), "{messages:?}");
        let shown = at.line(&format!("logs {name}"));
        assert_eq!((shown.stdout.as_str(), shown.stderr.as_str()), ("out\n", "err\n"));
        at.remove(&name);
    });
}

#[test]
fn privileged_syslog_goes_over_udp_and_tcp() {
    on_both(|at| {
        if at.daemon.is_foreign() {
            return testkit::skip::report("the foreign daemon does not see our sockets");
        }
        let name = at.name("inet");
        let run = |network: &str, address: std::net::SocketAddr, format: &str| {
            at.ok(&format!(
                "run --rm --network none --log-driver syslog --log-opt syslog-address={network}://{address} --log-opt \
                 syslog-format={format} --log-opt tag=mark --name {name} busybox sh -c 'echo one; echo two'"
            ));
        };
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        datagrams.set_read_timeout(Some(DEADLINE)).unwrap();
        run("udp", datagrams.local_addr().unwrap(), "rfc3164");
        for text in ["one", "two"] {
            let mut buffer = [0; 1000];
            let length = datagrams.recv(&mut buffer).unwrap();
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            assert!(message.starts_with("<30>") && message.contains(" mark["), "{message}");
            assert!(message.ends_with(&format!(": {text}\n")), "{message}");
        }
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        run("tcp", server.local_addr().unwrap(), "rfc5424");
        let (mut stream, _) = server.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).unwrap();
        let texts: Vec<_> = got.lines().map(|line| line.rsplit_once(" mark - ").unwrap().1).collect();
        assert!(got.lines().all(|line| line.starts_with("<30>1 ")) && texts == ["one", "two"], "{got}");
    });
}

#[test]
fn privileged_options_that_fit_no_driver_are_refused_in_dockers_words() {
    on_both(|at| {
        let name = at.name("refused");
        let begun = "failed to create task for container: failed to initialize logging driver: ";
        for (flags, sentence, is_made) in [
            ("--log-driver nope", "error looking up logging plugin nope: plugin \"nope\" not found", false),
            ("--log-driver local --log-opt tag=x", "unknown log opt 'tag' for log driver local", false),
            ("--log-driver syslog --log-opt syslog-facility=x", "invalid syslog facility", false),
            ("--log-driver syslog --log-opt syslog-address=foo://x", "unsupported scheme: 'foo'", false),
            (
                "--log-opt max-buffer-size=1m",
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
                false,
            ),
            (
                "--log-driver local --log-opt max-file=1",
                &format!("{begun}compression cannot be enabled when max file count is 1"),
                true,
            ),
            (
                "--log-driver syslog --log-opt syslog-address=tcp://127.0.0.1:1",
                &format!("{begun}dial tcp 127.0.0.1:1: connect: connection refused"),
                true,
            ),
        ] {
            let output = at.line(&format!("run --network none --name {name} {flags} busybox true"));
            assert!(output.stderr.contains(&format!("Error response from daemon: {sentence}")), "{flags}: {output:?}");
            assert_eq!(output.code, 125, "{flags}");
            if is_made {
                at.remove(&name);
            }
        }
    });
}

#[test]
fn privileged_a_container_that_may_not_wait_is_logged_as_well() {
    on_both(|at| {
        let name = at.name("ring");
        at.line(&format!(
            "run --network none --log-opt mode=non-blocking --log-opt max-buffer-size=4m --name {name} busybox seq 1 1000"
        ));
        assert_eq!(at.ok(&format!("logs {name}")).lines().count(), 1000);
        at.remove(&name);
    });
}
