//! What a container wrote, read later: `logs` and its flags, the file and its rotation.

use std::fs;
use std::path::PathBuf;

use crate::support::{At, on_both};

/// Runs `script` to its end in a container called `name`.
fn finished(at: &At<'_>, name: &str, flags: &str, script: &str) {
    at.line(&format!("run --network none --name {name} {flags} busybox sh -c '{script}'"));
}

#[test]
fn privileged_logs_show_both_streams_whole_and_apart() {
    on_both(|at| {
        let name = at.name("logs");
        finished(at, &name, "", "echo out 1; echo err 1 >&2; echo out 2; printf partial");
        let output = at.line(&format!("logs {name}"));
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out 1\nout 2\npartial", "err 1\n"));
        at.remove(&name);
    });
}

#[test]
fn privileged_tail_since_until_and_times_choose_lines() {
    on_both(|at| {
        let name = at.name("logs");
        finished(at, &name, "", "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done");
        let lines = |from: u32| (from..2000).map(|number| format!("line {number}\n")).collect::<String>();
        for (flags, expected) in [
            ("", lines(0)),
            ("--tail 3", lines(1997)),
            ("-n 1999", lines(1)),
            ("--tail 0", String::new()),
            ("--tail all", lines(0)),
            ("--tail 5000", lines(0)),
            ("--since 2100-01-01T00:00:00Z", String::new()),
            ("--until 2001-01-01T00:00:00Z", String::new()),
            ("--since 10m", lines(0)),
        ] {
            assert!(at.line(&format!("logs {flags} {name}")).stdout == expected, "{flags}");
        }
        let timed = at.ok(&format!("logs -t {name}"));
        let times: Vec<_> = timed.lines().map(|line| line.split_once(' ').unwrap()).collect();
        assert!(times.iter().enumerate().all(|(number, (_, text))| *text == format!("line {number}")));
        assert!(times.is_sorted_by_key(|(time, _)| *time));
        assert!(times.iter().all(|(time, _)| time.len() == 30 && time.ends_with('Z')), "{:?}", times[0]);
        let (middle, _) = times[1000];
        let first = times.iter().position(|(time, _)| *time >= middle).unwrap();
        assert_eq!(at.line(&format!("logs --since {middle} {name}")).stdout, lines(first as u32));
        let before = times.iter().filter(|(time, _)| *time <= middle).count();
        assert_eq!(at.line(&format!("logs --until {middle} {name}")).stdout.lines().count(), before);
        at.remove(&name);
    });
}

#[test]
fn privileged_logs_f_follows_over_a_restart_until_the_end() {
    on_both(|at| {
        let name = at.name("logs");
        let script = "echo up; trap \"echo bye; exit 0\" TERM; sleep 1000 & wait";
        at.start(&name, &format!("--label a=b busybox sh -c '{script}'"));
        let mut follow = at.spawn(&format!("logs -f {name}"));
        follow.read_until("up\n").unwrap();
        at.ok(&format!("exec {name} sh -c 'echo hello > /proc/1/fd/1'"));
        follow.read_until("hello\n").unwrap();
        at.ok(&format!("stop {name}"));
        assert_eq!(follow.wait().unwrap().stdout, "bye\n", "the end of the container ends it");
        at.ok(&format!("start {name}"));
        let mut follow = at.spawn(&format!("logs -f --tail 2 {name}"));
        follow.read_until("up\n").unwrap();
        at.ok(&format!("stop {name}"));
        assert_eq!(follow.wait().unwrap().stdout, "bye\n");
        assert_eq!(at.ok(&format!("logs {name}")), "up\nhello\nbye\nup\nbye");
        at.remove(&name);
    });
}

#[test]
fn privileged_the_file_has_dockers_lines_byte_for_byte() {
    on_both(|at| {
        let name = at.name("logs");
        let script = r#"printf "a<b>&c \"q\" \\\\ \011tab\n"; printf "\303\244 \377\376 \001 \033[0m\r\n" >&2; printf "\342\200\250\n"; printf end"#;
        finished(at, &name, "", script);
        let Some(path) = log_path(at, &name) else { return };
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<_> = text.lines().map(|line| line.rsplit_once(",\"time\":\"").unwrap()).collect();
        let mut expected = [
            r#"{"log":"a\u003cb\u003e\u0026c \"q\" \\ \u0009tab\n","stream":"stdout""#,
            r#"{"log":"ä \ufffd\ufffd \u0001 \u001b[0m\r\n","stream":"stderr""#,
            r#"{"log":"\u2028\n","stream":"stdout""#,
            r#"{"log":"end","stream":"stdout""#,
        ];
        let mut found: Vec<_> = lines.iter().map(|(rest, _)| *rest).collect();
        // The two streams are two pipes: which is read first is open.
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
        assert!(lines.iter().all(|(_, time)| time.ends_with("Z\"}") && time.len() <= 33), "{text}");
        at.remove(&name);
    });
}

/// The log's file on this machine; None where a foreign daemon has it elsewhere.
fn log_path(at: &At<'_>, name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(at.inspect(name, "{{.LogPath}}"));
    if !path.exists() && at.daemon.is_foreign() {
        testkit::skip::report("the foreign daemon's files are not seen from here");
        return None;
    }
    Some(path)
}

#[test]
fn privileged_long_lines_and_bytes_come_back_as_they_were() {
    on_both(|at| {
        let name = at.name("logs");
        // A line of 100,000 letters without a break, then one with.
        finished(
            at,
            &name,
            "",
            "head -c 100000 /dev/zero | tr \"\\0\" x; echo; head -c 16384 /dev/zero | tr \"\\0\" y; echo",
        );
        let output = at.line(&format!("logs {name}"));
        let expected = format!("{}\n{}\n", "x".repeat(100_000), "y".repeat(16_384));
        assert!(output.stdout == expected, "{} bytes", output.stdout.len());
        at.remove(&name);
        finished(at, &name, "", "i=1; while [ $i -lt 128 ]; do printf \"\\\\$(printf %o $i)\"; i=$((i+1)); done");
        let expected: String = (1..128u8).map(char::from).collect();
        assert_eq!(at.line(&format!("logs {name}")).stdout, expected);
        at.remove(&name);
    });
}

#[test]
fn privileged_files_are_rotated_at_their_size_and_the_oldest_goes() {
    on_both(|at| {
        let name = at.name("logs");
        // About 90 bytes a line in the file: 64 KiB hold some 700.
        let script = "i=10000; while [ $i -lt 13000 ]; do echo line $i; i=$((i+1)); done";
        finished(at, &name, "--log-opt max-size=64k --log-opt max-file=3", script);
        let shown = at.ok(&format!("logs {name}"));
        let numbers: Vec<u32> =
            shown.lines().map(|line| line.strip_prefix("line ").unwrap().parse().unwrap()).collect();
        assert_eq!(numbers.last(), Some(&12_999));
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "no line is missing in between");
        assert!((1400..2400).contains(&numbers.len()), "{} lines of three files", numbers.len());
        assert_eq!(at.ok(&format!("logs --tail 1500 {name}")).lines().count(), 1500.min(numbers.len()), "over files");
        assert_eq!(at.inspect(&name, "{{json .HostConfig.LogConfig.Config}}"), r#"{"max-file":"3","max-size":"64k"}"#);
        if let Some(path) = log_path(at, &name) {
            let size = |suffix: &str| fs::metadata(format!("{}{suffix}", path.display())).map(|file| file.len()).ok();
            assert!(size("").is_some() && size(".1").is_some() && size(".2").is_some() && size(".3").is_none());
            assert!(size(".1").is_some_and(|size| (64_000..66_000).contains(&size)), "{:?}", size(".1"));
        }
        at.remove(&name);
    });
}

#[test]
fn privileged_logs_f_follows_over_rotations() {
    on_both(|at| {
        let name = at.name("logs");
        let script = "read go; i=10000; while [ $i -lt 12000 ]; do echo line $i; i=$((i+1)); done; echo done; read end";
        let line = format!(
            "run -i --network none --log-opt max-size=32k --log-opt max-file=50 --name {name} busybox sh -c '{script}'"
        );
        let mut events = at.events(&name);
        let mut run = at.spawn(&line);
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
fn privileged_what_a_terminal_showed_is_in_the_log() {
    on_both(|at| {
        let name = at.name("logs");
        let pty = at.pty(&format!("run -it --network none --name {name} busybox echo shown"));
        assert_eq!(pty.wait().unwrap(), ("shown\r\n".to_owned(), 0));
        assert_eq!(at.line(&format!("logs {name}")).stdout, "shown\r\n");
        at.remove(&name);
    });
}

#[test]
fn privileged_the_driver_none_keeps_nothing() {
    on_both(|at| {
        let name = at.name("logs");
        let output = at.line(&format!("run --network none --log-driver none --name {name} busybox echo seen"));
        assert_eq!((output.stdout.as_str(), output.code), ("seen\n", 0));
        at.fails(
            &format!("logs {name}"),
            1,
            "Error response from daemon: configured logging driver does not support reading",
        );
        at.remove(&name);
    });
}
