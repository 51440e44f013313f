//! The tabulator, in real shells on a terminal.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use testkit::{Cli, Daemon, Pty, paths};

use crate::support::{At, ours};

/// A shell, how it is started, and how it takes our script.
struct Shell {
    name: &'static str,
    arguments: &'static [&'static str],
    /// Typed first.
    prepare: &'static str,
}

const SHELLS: [Shell; 3] = [
    Shell { name: "bash", arguments: &["--norc", "--noprofile", "-i"], prepare: "source <(longshore completion bash)" },
    Shell {
        name: "zsh",
        arguments: &["-f", "-i"],
        prepare: "autoload -U compinit; compinit -u -D; source <(longshore completion zsh)",
    },
    Shell { name: "fish", arguments: &["--no-config", "-i"], prepare: "longshore completion fish | source" },
];

const READY: &str = "ready> ";

/// Docker's own scripts. That for bash needs the package bash-completion, which does not come with it.
const DOCKERS_SHELLS: [Shell; 2] = [
    Shell {
        name: "zsh",
        arguments: SHELLS[1].arguments,
        prepare: "autoload -U compinit; compinit -u -D; source <(docker completion zsh)",
    },
    Shell { name: "fish", arguments: SHELLS[2].arguments, prepare: "docker completion fish | source" },
];

/// A program `name` that completes as ours does, by the scripts of `scripts`, and otherwise says what it was given.
fn wrapper(directory: &Path, name: &str, scripts: &Path) {
    let script = format!(
        "#!/bin/sh\ncase $1 in __complete*) exec {} \"$@\";; completion) exec {} \"$@\";; esac\necho \"ran: $*;\"\n",
        paths::dist().join("longshore").display(),
        scripts.display()
    );
    let path = directory.join(name);
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Types lines into each shell, `\t` being the tabulator; each is run as it became.
fn type_in_shells(command: impl Fn(&str) -> Command, lines: &[(String, String)]) {
    type_in(&SHELLS, "longshore", &paths::dist().join("longshore"), command, lines);
}

/// The same, in these shells, with the scripts of a program of this name.
fn type_in(
    shells: &[Shell],
    name: &str,
    scripts: &Path,
    command: impl Fn(&str) -> Command,
    lines: &[(String, String)],
) {
    for shell in shells {
        if paths::program(shell.name).is_none() {
            testkit::skip::report(&format!("{} is not on this machine", shell.name));
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        wrapper(directory.path(), name, scripts);
        let mut command = command(shell.name);
        let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
        command.args(shell.arguments).env("PATH", path).env("PS1", READY).env("TERM", "xterm");
        if shell.name == "fish" {
            command.args(["-C", "function fish_prompt; echo -n 'ready> '; end"]);
        }
        command.current_dir(directory.path());
        let mut pty = Pty::spawn(&command, 40, 200).unwrap();
        println!("{}: {}", shell.name, pty.read_until(READY).unwrap());
        pty.send(format!("{}; {name} it is\n", shell.prepare).as_bytes()).unwrap();
        println!("{}", pty.read_until("ran: it is;").unwrap());
        for (line, ran) in lines {
            println!("{}", pty.read_until(READY).unwrap());
            println!("{}: {line:?}", shell.name);
            pty.send(line.as_bytes()).unwrap();
            // zsh and fish draw the line anew; what is run is what counts.
            pty.send(b"\n").unwrap();
            println!("{}", pty.read_until(&format!("ran: {ran};")).unwrap());
        }
    }
}

fn pair(line: &str, ran: &str) -> (String, String) {
    (line.to_owned(), ran.to_owned())
}

#[test]
fn commands_flags_and_values_are_completed_without_a_daemon() {
    if !paths::dist().join("longshore").exists() {
        testkit::skip::report("our programs are not built");
        return;
    }
    let lines = [
        pair("longshore inf\t", "info"),
        pair("longshore container restar\t", "container restart"),
        pair("longshore run --entryp\tx", "run --entrypoint x"),
        pair("longshore run --restart unl\tx", "run --restart unless-stopped x"),
        pair("longshore run --restart=unl\tx", "run --restart=unless-stopped x"),
        pair("longshore ps --filter stat\trunn\t", "ps --filter status=running"),
        // Nothing answers: the line stays as it was.
        pair("longshore rm nob\t", "rm nob"),
    ];
    // Shells write into it.
    let home = tempfile::tempdir().unwrap();
    let command = |shell: &str| {
        let mut command = Command::new(shell);
        command.env("DOCKER_HOST", "unix:///nowhere/d.sock").env("HOME", home.path());
        command
    };
    type_in_shells(command, &lines);
}

#[test]
fn privileged_names_of_live_objects_are_completed() {
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        at.start("up-one", "busybox sleep 1000");
        at.ok("create --name down-one --network none busybox true");
        at.ok("create --name down-two --network none busybox true");
        at.ok("volume create vol-one");
        at.ok("tag busybox img:some-tag");
        at.ok("context create ctx-one --docker host=unix:///nowhere");
        let lines = [
            pair("longshore stop u\t", "stop up-one"),
            pair("longshore start down-o\tdown-t\t", "start down-one down-two"),
            // What runs is not started, what does not is not stopped.
            pair("longshore start u\t", "start u"),
            pair("longshore stop d\t", "stop d"),
            pair("longshore rm -f u\t", "rm -f up-one"),
            pair("longshore run img\tx", "run img:some-tag x"),
            pair("longshore run img:s\tx", "run img:some-tag x"),
            pair("longshore volume inspect vo\t", "volume inspect vol-one"),
            pair("longshore run -v vol\t/x", "run -v vol-one:/x"),
            pair("longshore run --network ho\tx", "run --network host x"),
            pair("longshore run --log-driver sys\tx", "run --log-driver syslog x"),
            pair("longshore context use ctx\t", "context use ctx-one"),
            pair("longshore inspect vol-\t", "inspect vol-one"),
        ];
        type_in_shells(|shell| surrounded(&at, shell), &lines);
        at.remove("up-one");
        at.ok("rm down-one down-two");
    });
}

/// A shell that asks the daemon of `at`.
fn surrounded(at: &At<'_>, shell: &str) -> Command {
    let ours = at.command("");
    let mut command = Command::new(shell);
    for (name, value) in ours.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

#[test]
fn privileged_dockers_own_scripts_complete_by_ours() {
    ours(|daemon| {
        let Some(docker) = paths::program("docker") else {
            testkit::skip::report("the scripts of Docker's client are needed");
            return;
        };
        let at = At { daemon, cli: Cli::Longshore };
        at.start("up-one", "busybox sleep 1000");
        at.ok("create --name down-one --network none busybox true");
        at.ok("volume create vol-one");
        let lines = [
            pair("docker inf\t", "info"),
            pair("docker container restar\t", "container restart"),
            pair("docker run --entryp\tx", "run --entrypoint x"),
            pair("docker run --restart unl\tx", "run --restart unless-stopped x"),
            pair("docker run --restart=unl\tx", "run --restart=unless-stopped x"),
            pair("docker ps --filter stat\trunn\t", "ps --filter status=running"),
            pair("docker stop u\t", "stop up-one"),
            pair("docker start u\t", "start u"),
            pair("docker start d\t", "start down-one"),
            pair("docker volume rm vo\t", "volume rm vol-one"),
            pair("docker run -v vol\t/x", "run -v vol-one:/x"),
            pair("docker run --network ho\tx", "run --network host x"),
            pair("docker run busyb\tx", "run busybox:latest x"),
            pair("docker --context def\t", "--context default"),
            pair("docker rm nob\t", "rm nob"),
        ];
        type_in(&DOCKERS_SHELLS, "docker", &docker, |shell| surrounded(&at, shell), &lines);
        at.remove("up-one");
        at.ok("rm down-one");
        at.ok("volume rm vol-one");
    });
}

/// A press of the tabulator is one call, and short.
#[test]
fn privileged_an_answer_is_there_at_once() {
    ours(|daemon: &mut Daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        let fastest = (0..5).map(|_| {
            let start = Instant::now();
            assert_eq!(at.ok("__complete stop ''"), ":4");
            start.elapsed()
        });
        let fastest = fastest.min().unwrap();
        assert!(fastest < testkit::process::patient(Duration::from_millis(200)), "{fastest:?}");
    });
}
