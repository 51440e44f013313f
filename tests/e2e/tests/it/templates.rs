//! Templates: what Docker's client says to each, `longshore` says, too, of the same daemon.

use testkit::{Cli, Daemon, Output};

use crate::support::At;

/// A line and a template a line; `%c` and `%v` are a container and a volume of this test's own.
const CASES: &str = include_str!("templates/cases.txt");

/// How often two answers may differ, because time went on between them.
const TRIES: usize = 4;

/// What may differ: the name of the program, and where Go keeps what pointers point to.
fn normal(output: Output) -> (i32, String, String) {
    let text = |text: &str| {
        let text = text.replace("longshore:", "docker:");
        let mut parts = text.split("0xc");
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            out += "0xc";
            out += part.trim_start_matches(|c: char| c.is_ascii_hexdigit());
        }
        out
    };
    (output.code, text(&output.stdout), text(&output.stderr))
}

fn answer(daemon: &Daemon, cli: Cli, line: &str, template: &str) -> (i32, String, String) {
    let at = At { daemon, cli };
    let mut command = at.command(line);
    command.args(["--format", template]);
    normal(testkit::process::run(&mut command, b"").unwrap())
}

#[test]
fn privileged_every_template_says_what_dockers_client_says() {
    if testkit::skip::without_root() {
        return;
    }
    let daemon = Daemon::with_busybox().unwrap();
    if daemon.clis().len() < 2 {
        testkit::skip::report("two command lines are needed to compare them");
        return;
    }
    let at = At { daemon: &daemon, cli: Cli::Docker };
    let (container, volume) = (daemon.name("tmpl"), daemon.name("tmplv"));
    at.ok(&format!("volume create --label a=b {volume}"));
    at.ok(&format!(
        "run -d --name {container} --label com.example.one-two=x --label z=<&> -e 'A=b c' -p 127.0.0.1::80 --expose 443 \
         -v {volume}:/data:ro -m 64m --cpus 0.5 --restart on-failure:3 --tmpfs /t --health-cmd true \
         --sysctl net.ipv4.ip_forward=1 --ulimit nofile=64:128 busybox sleep 1000"
    ));
    at.ok(&format!("create --name {container}2 --network none busybox true"));
    let mut different = Vec::new();
    let mut count = 0;
    for case in CASES.lines() {
        let (line, template) = case.split_once(" :: ").unwrap();
        let line = line.replace("%c", &container).replace("%v", &volume);
        let template = template.replace("\\t", "\t");
        count += 1;
        let both =
            || (answer(&daemon, Cli::Docker, &line, &template), answer(&daemon, Cli::Longshore, &line, &template));
        let mut answers = both();
        for _ in 1..TRIES {
            if answers.0 != answers.1 {
                answers = both();
            }
        }
        let (docker, ours) = answers;
        if docker != ours {
            different.push(format!("{line} --format {template:?}\n  docker {docker:?}\n  ours   {ours:?}"));
        }
    }
    at.remove(&container);
    at.remove(&format!("{container}2"));
    at.ok(&format!("volume rm {volume}"));
    assert!(different.is_empty(), "{} of {count} differ:\n{}", different.len(), different.join("\n"));
}
