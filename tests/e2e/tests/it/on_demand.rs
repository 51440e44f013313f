//! The daemon that nobody starts: the command line does, and it goes when nothing is left to do.

use std::time::Duration;

use testkit::images::Archive;
use testkit::{OnDemand, Piped};

/// How long a daemon may take to leave when it has nothing to do: its ten seconds and a slow machine's.
const LEAVES_WITHIN: Duration = Duration::from_secs(40);

/// An instance with busybox and no daemon.
fn instance() -> Option<OnDemand> {
    if testkit::skip::without_root() {
        return None;
    }
    let Some(instance) = OnDemand::new().unwrap() else {
        testkit::skip::report("our programs are not built");
        return None;
    };
    let archive = Archive::Busybox.path().unwrap();
    let loaded = instance.run(&["load", "-i", &archive.display().to_string()]).unwrap();
    assert_eq!(loaded.success().unwrap(), "Loaded image: busybox:latest", "{}", instance.log());
    instance.stop().unwrap();
    Some(instance)
}

fn echo(instance: &OnDemand, word: &str) {
    let output = instance.run(&["run", "--rm", "--network", "none", "busybox", "echo", word]).unwrap();
    assert_eq!((output.stdout.trim(), output.code), (word, 0), "{}\n{}", output.stderr, instance.log());
}

#[test]
fn privileged_the_first_command_starts_the_daemon_and_an_idle_one_leaves() {
    let Some(instance) = instance() else { return };
    assert!(instance.daemons().unwrap().is_empty());
    echo(&instance, "first");
    let daemon = instance.daemon().unwrap();
    echo(&instance, "second");
    assert_eq!(instance.daemon().unwrap(), daemon, "the same one");
    assert!(instance.ends(daemon, LEAVES_WITHIN).unwrap(), "{}", instance.log());
    assert!(instance.daemons().unwrap().is_empty());
    echo(&instance, "third");
    assert_ne!(instance.daemon().unwrap(), daemon, "a new one");
}

#[test]
fn privileged_eight_racing_starters_get_one_daemon() {
    let Some(instance) = instance() else { return };
    let line = |number: u32| {
        ["run", "--rm", "--network", "none", "busybox", "echo"]
            .map(str::to_owned)
            .into_iter()
            .chain([number.to_string()])
    };
    let starters: Vec<Piped> = (0..8)
        .map(|number| {
            let words: Vec<String> = line(number).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            Piped::spawn(&mut instance.command(&words)).unwrap()
        })
        .collect();
    for (number, starter) in starters.into_iter().enumerate() {
        let output = starter.wait().unwrap();
        assert_eq!((output.stdout.trim(), output.code), (number.to_string().as_str(), 0), "{}", output.stderr);
    }
    instance.daemon().unwrap();
}

#[test]
fn privileged_the_daemon_stays_while_a_container_runs() {
    let Some(instance) = instance() else { return };
    let run = |arguments: &[&str]| instance.run(arguments).unwrap().success().unwrap().to_owned();
    run(&["run", "-d", "--name", "stays", "--network", "none", "busybox", "sleep", "1000"]);
    let daemon = instance.daemon().unwrap();
    // Longer than an idle one stays.
    assert!(!instance.ends(daemon, Duration::from_secs(13)).unwrap(), "{}", instance.log());
    assert_eq!(run(&["inspect", "-f", "{{.State.Running}}", "stays"]), "true");
    // A daemon that was killed is started again by the next command, and finds the container.
    instance.stop().unwrap();
    assert_eq!(run(&["inspect", "-f", "{{.State.Running}}", "stays"]), "true");
    let daemon = instance.daemon().unwrap();
    run(&["rm", "-f", "stays"]);
    assert!(instance.ends(daemon, LEAVES_WITHIN).unwrap(), "{}", instance.log());
}

#[test]
fn privileged_a_client_whose_daemon_died_starts_the_next_one() {
    let Some(instance) = instance() else { return };
    let script = "read go; echo in; read end; exit 9";
    let line = ["run", "-i", "--network", "none", "--name", "asked", "busybox", "sh", "-c", script];
    let mut client = Piped::spawn(&mut instance.command(&line)).unwrap();
    client.send(b"go\n").unwrap();
    client.read_until("in\n").unwrap();
    let first = instance.daemon().unwrap();
    let target = rustix::process::Pid::from_raw(first).unwrap();
    rustix::process::kill_process(target, rustix::process::Signal::KILL).unwrap();
    assert!(instance.ends(first, testkit::process::DEADLINE).unwrap());
    client.send(b"end\n").unwrap();
    let output = client.wait().unwrap();
    assert_eq!((output.code, output.stderr.as_str()), (9, ""));
    assert_ne!(instance.daemon().unwrap(), first);
    instance.run(&["rm", "asked"]).unwrap().success().unwrap();
}

#[test]
fn privileged_a_daemon_on_demand_has_nothing_of_its_starter() {
    let Some(instance) = instance() else { return };
    echo(&instance, "start");
    let proc = std::path::PathBuf::from(format!("/proc/{}", instance.daemon().unwrap()));
    assert_eq!(std::fs::read_link(proc.join("cwd")).unwrap(), std::path::Path::new("/"));
    let environment = String::from_utf8(std::fs::read(proc.join("environ")).unwrap()).unwrap();
    assert!(!environment.contains("CARGO") && !environment.contains("HOME="), "{environment:?}");
    let status = std::fs::read_to_string(proc.join("status")).unwrap();
    for line in ["Umask:\t0022", "SigBlk:\t0000000000000000"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    let stat = std::fs::read_to_string(proc.join("stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let pid = proc.file_name().unwrap().to_str().unwrap();
    assert_eq!((fields[3], fields[4]), (pid, "0"), "a session of its own, without a terminal");
}
