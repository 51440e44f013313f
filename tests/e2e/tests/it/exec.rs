//! Further programs in a running container.

use std::io::{BufReader, Read, Write};

use testkit::{Cli, http};

use crate::support::{At, on_both, ours};

#[test]
fn privileged_exec_ends_as_its_program_and_takes_its_flags() {
    on_both(|at| {
        let name = at.name("exec");
        at.start(&name, "-e C=container -w /var busybox sleep 1000");
        for (line, stdout, stderr, code) in [
            ("N sh -c 'echo out; echo err >&2; exit 42'", "out\n", "err\n", 42),
            ("N sh -c 'kill -9 $$'", "", "", 137),
            ("N pwd", "/var\n", "", 0),
            ("-w /tmp N pwd", "/tmp\n", "", 0),
            ("-e A=b -e C=exec N sh -c 'echo $A $C'", "b exec\n", "", 0),
            (
                "N sh -c 'echo $C $HOME $PATH'",
                "container /root /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n",
                "",
                0,
            ),
            ("-u nobody N id", "uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)\n", "", 0),
            ("-u 1000:1001 N id", "uid=1000 gid=1001 groups=1001\n", "", 0),
            ("N sh -c 'cat /proc/1/comm; cat'", "sleep\n", "", 0),
            (
                "N grep -E ^Cap(Eff|Bnd) /proc/self/status",
                "CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\n",
                "",
                0,
            ),
            ("-u nobody N grep CapEff /proc/self/status", "CapEff:\t0000000000000000\n", "", 0),
            ("N grep Seccomp: /proc/self/status", "Seccomp:\t2\n", "", 0),
        ] {
            let output = at.line(&format!("exec {}", line.replacen('N', &name, 1)));
            assert_eq!((output.stdout.as_str(), output.stderr.as_str(), output.code), (stdout, stderr, code), "{line}");
        }
        at.remove(&name);
    });
}

#[test]
fn privileged_exec_that_cannot_start_has_dockers_code_and_sentence() {
    on_both(|at| {
        let name = at.name("exec");
        at.start(&name, "busybox sleep 1000");
        let prefix = "OCI runtime exec failed: exec failed: unable to start container process:";
        for (line, code, sentence) in [
            ("nope", 127, "exec: \"nope\": executable file not found in $PATH"),
            ("/no/such", 127, "exec: \"/no/such\": stat /no/such: no such file or directory"),
            ("/etc/passwd", 126, "exec: \"/etc/passwd\": permission denied"),
            ("/etc", 126, "exec: \"/etc\": is a directory: permission denied"),
        ] {
            let output = at.line(&format!("exec {name} {line}"));
            // Docker's daemon writes the sentence into the stream.
            assert_eq!(
                (output.stdout.as_str(), output.code),
                (format!("{prefix} {sentence}\r\n").as_str(), code),
                "{line}"
            );
        }
        let output = at.line(&format!("exec -w /nope {name} pwd"));
        assert_eq!(output.code, 127);
        assert!(
            output.stdout.contains("chdir to cwd (\"/nope\") set in config.json failed: no such file or directory")
        );
        let sentence =
            "Error response from daemon: unable to find user nosuchuser: no matching entries in passwd file\n";
        at.fails(&format!("exec -u nosuchuser {name} id"), 1, sentence);
        let sentence =
            "Error response from daemon: unable to find group nosuchgroup: no matching entries in group file\n";
        at.fails(&format!("exec -u 0:nosuchgroup {name} id"), 1, sentence);
        let id = at.inspect(&name, "{{.Id}}");
        at.ok(&format!("stop -t 0 {name}"));
        let sentence = format!("Error response from daemon: container {id} is not running\n");
        at.fails(&format!("exec {name} true"), 1, &sentence);
        at.fails(&format!("exec -d {name} true"), 1, &sentence);
        at.remove(&name);
    });
}

#[test]
fn privileged_exec_has_standard_input_only_with_i() {
    on_both(|at| {
        let name = at.name("exec");
        at.start(&name, "busybox sleep 1000");
        let text = "0123456789abcdef\n".repeat(50_000);
        let output = at.with_input(&format!("exec -i {name} cat"), text.as_bytes());
        assert!(output.stdout == text && output.code == 0, "{} bytes, {}", output.stdout.len(), output.stderr);
        let output = at.with_input(&format!("exec -i {name} wc -c"), text.as_bytes());
        assert_eq!(output.stdout, format!("{}\n", text.len()));
        assert_eq!(at.with_input(&format!("exec {name} cat"), b"text").stdout, "");
        at.remove(&name);
    });
}

#[test]
fn privileged_exec_d_returns_at_once_and_runs_on() {
    on_both(|at| {
        let name = at.name("exec");
        at.start(&name, "busybox sh -c 'mkfifo /tmp/p; exec cat /tmp/p'");
        let mut events = at.events(&name);
        assert_eq!(at.ok(&format!("exec -d {name} sh -c 'exit 3'")), "");
        assert_eq!(events.until("exec_die").unwrap()["Actor"]["Attributes"]["exitCode"], "3");
        at.remove(&name);
    });
}

#[test]
fn privileged_exec_on_a_terminal_has_its_size_and_its_own_end() {
    on_both(|at| {
        let name = at.name("exec");
        at.start(&name, "busybox sleep 1000");
        let mut pty = at.pty(&format!("exec -it {name} sh"));
        pty.read_until("/ # ").unwrap();
        pty.send(b"stty size; tty\r").unwrap();
        pty.read_until("33 99").unwrap();
        pty.read_until("/dev/pts/").unwrap();
        pty.resize(40, 120).unwrap();
        pty.send(b"until stty size | grep '40 120'; do :; done\r").unwrap();
        pty.read_until("\r\n40 120\r\n").unwrap();
        pty.send(b"exit 8\r").unwrap();
        assert_eq!(pty.wait().unwrap().1, 8);
        // Ctrl-P Ctrl-Q leaves the program running.
        let mut pty = at.pty(&format!("exec -it {name} sh -c 'echo up; exec sleep 777'"));
        pty.read_until("up").unwrap();
        pty.send(b"\x10\x11").unwrap();
        let (printed, code) = pty.wait().unwrap();
        assert!(code == 1 && printed.ends_with("read escape sequence\r\n"), "{code} {printed}");
        assert!(at.ok(&format!("exec {name} ps")).contains("sleep 777"));
        at.fails(&format!("exec -it {name} true"), 1, "the input device is not a TTY");
        at.remove(&name);
    });
}

#[test]
fn privileged_sizes_of_a_terminal_are_cut_to_what_the_kernel_takes() {
    on_both(|at| {
        let name = at.name("size");
        let body = r#"{"Image":"busybox","Tty":true,"Cmd":["sh","-c","stty size; exec sleep 1000"],
                       "HostConfig":{"NetworkMode":"none","ConsoleSize":[70000,65617]}}"#;
        assert_eq!(at.daemon.post(&format!("/containers/create?name={name}"), body).unwrap().status, 201);
        let mut events = at.events(&name);
        at.ok(&format!("start {name}"));
        for (created, started) in [("[70000,65617]", "null"), ("null", "[70000,65617]")] {
            let body = format!(
                r#"{{"Tty":true,"ConsoleSize":{created},"Cmd":["sh","-c","test \"$(stty size)\" = '4464 81'"]}}"#
            );
            let made = at.daemon.post(&format!("/containers/{name}/exec"), &body).unwrap();
            assert_eq!(made.status, 201, "{}", made.text());
            let id = made.json().unwrap()["Id"].as_str().unwrap().to_owned();
            let body = format!(r#"{{"Detach":true,"Tty":true,"ConsoleSize":{started}}}"#);
            let started = at.daemon.post(&format!("/exec/{id}/start"), &body).unwrap();
            assert_eq!(started.status, 200, "{}", started.text());
            assert_eq!(events.until("exec_die").unwrap()["Actor"]["Attributes"]["exitCode"], "0");
        }
        assert_eq!(at.ok(&format!("logs {name}")), "4464 81");
        at.remove(&name);
    });
}

#[test]
fn privileged_execs_end_with_their_container() {
    on_both(|at| {
        let name = at.name("exec");
        at.start(&name, "busybox sleep 1000");
        let mut exec = at.spawn(&format!("exec {name} sh -c 'echo up; sleep 1000'"));
        exec.read_until("up\n").unwrap();
        at.ok(&format!("kill {name}"));
        assert_eq!(exec.wait().unwrap().code, 137);
        at.remove(&name);
    });
}

#[test]
fn privileged_a_terminal_can_be_resized_as_soon_as_the_head_of_the_answer_is_read() {
    // dockerd sends the head before it starts anything; its clients try again.
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        let name = at.name("sized");
        at.start(&name, "busybox sleep 1000");
        let post = |path: &str, body: &str| at.daemon.post(path, body).unwrap();
        for upgrade in ["Connection: Upgrade\r\nUpgrade: tcp\r\n", ""].into_iter().cycle().take(20) {
            let command =
                r#"{"Tty":true,"AttachStdin":true,"AttachStdout":true,"Cmd":["sh","-c","read a; stty size"]}"#;
            let made = post(&format!("/containers/{name}/exec"), command).json().unwrap();
            let id = made["Id"].as_str().unwrap();
            let mut stream = http::connect(at.daemon.socket()).unwrap();
            let body = r#"{"Tty":true}"#;
            let length = body.len();
            write!(
                stream,
                "POST /v1.50/exec/{id}/start HTTP/1.1\r\nHost: docker\r\n{upgrade}\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            assert_eq!(http::read_head(&mut reader).unwrap().status, if upgrade.is_empty() { 200 } else { 101 });
            let resized = post(&format!("/exec/{id}/resize?h=31&w=77"), "");
            assert_eq!(resized.status, 200, "{}", resized.message());
            stream.write_all(b"\n").unwrap();
            let mut screen = String::new();
            reader.read_to_string(&mut screen).unwrap();
            assert!(screen.contains("31 77"), "{screen:?}");
        }
        at.remove(&name);
    });
}
