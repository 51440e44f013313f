//! Programs that are run at points of a container's life.

use std::fs;

use serde_json::{Value, json};

use super::fixture::{Bundle, wait_until};

/// A hook of the host's that notes its name, what it was told, and what it sees at `look`.
fn hook(bundle: &Bundle, name: &str, look: &str) -> Value {
    let notes = bundle.path("notes");
    let script = format!("echo {name} $(cat | grep -o '\"status\":\"[a-z]*\"') $({look}) >> {}", notes.display());
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
}

#[test]
fn privileged_hooks_run_in_their_order_and_places() {
    let mut bundle = Bundle::new(&["sh", "-c", "echo program >> /notes"]);
    let notes = bundle.path("notes");
    fs::write(&notes, "").unwrap();
    let mount = json!({"destination": "/notes", "type": "bind", "source": notes, "options": ["bind"]});
    bundle.config["mounts"].as_array_mut().unwrap().push(mount);
    let inside = "[ -e rootfs/proc/self ] && echo mounted || echo outside";
    let script = "cat > /tmp/told; echo start >> /notes";
    bundle.config["hooks"] = json!({
        "prestart": hook(&bundle, "prestart", inside),
        "createRuntime": hook(&bundle, "createRuntime", inside),
        "createContainer": hook(&bundle, "createContainer", inside),
        "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}],
        "poststart": hook(&bundle, "poststart", "true"),
        "poststop": hook(&bundle, "poststop", "true"),
    });
    // Longer than any clock goes: no limit, and no reason to fail.
    bundle.config["hooks"]["prestart"][0]["timeout"] = json!(i64::MAX);
    bundle.ok(&["create"]);
    let created = "\
prestart \"status\":\"creating\" outside
createRuntime \"status\":\"creating\" outside
createContainer \"status\":\"creating\" mounted
";
    assert_eq!(fs::read_to_string(&notes).unwrap(), created);
    bundle.ok(&["start"]);
    bundle.wait_for_status("stopped");
    let text = fs::read_to_string(&notes).unwrap();
    let mut after: Vec<_> = text.strip_prefix(created).unwrap().lines().collect();
    // The container's own goes on beside the host's.
    after.sort_unstable();
    assert_eq!(after, ["poststart \"status\":\"running\"", "program", "start"]);
    let told: Value = serde_json::from_slice(&fs::read(bundle.path("rootfs/tmp/told")).unwrap()).unwrap();
    assert_eq!((&told["status"], &told["pid"], &told["id"]), (&json!("created"), &json!(1), &json!(bundle.id)));
    bundle.ok(&["delete"]);
    assert!(fs::read_to_string(&notes).unwrap().ends_with("poststop \"status\":\"stopped\"\n"));
    bundle.assert_gone();
}

#[test]
fn privileged_a_failed_hook_ends_the_container() {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    let failing = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo because >&2; exit 3"]}]);
    for (name, place) in [
        ("prestart", "unable to start container process: "),
        ("createRuntime", "unable to start container process: "),
        ("createContainer", "unable to start container process: error during container init: "),
    ] {
        bundle.config["hooks"] = json!({ name: failing });
        let text = format!(
            "longshore-runtime create failed: {place}hooks.{name}[0]: /bin/sh ended with status 3, output: because"
        );
        assert_eq!(bundle.err(&["create"]), text);
        bundle.assert_gone();
    }
    bundle.config["hooks"] =
        json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]});
    let text = "longshore-runtime create failed: unable to start container process: \
         hooks.createRuntime[0].timeout: /bin/sleep took longer than 1 s and was killed";
    assert_eq!(bundle.err(&["create"]), text);
    bundle.assert_gone();
    // The second of its list, and one that has nothing to say.
    let silent = json!([{"path": "/bin/true"}, {"path": "/bin/false"}]);
    for (hooks, text) in [
        (json!({"prestart": silent}), "hooks.prestart[1]: /bin/false ended with status 1"),
        (json!({"prestart": [{"path": "/nosuch"}]}), "hooks.prestart[0]: run /nosuch: no such file or directory"),
        (
            json!({"createRuntime": [{"path": "/etc/passwd"}]}),
            "hooks.createRuntime[0]: run /etc/passwd: permission denied",
        ),
    ] {
        bundle.config["hooks"] = hooks;
        let said = bundle.err(&["create"]);
        assert_eq!(said, format!("longshore-runtime create failed: unable to start container process: {text}"));
        bundle.assert_gone();
    }
    bundle.config["hooks"] = json!({"poststart": failing});
    bundle.ok(&["create"]);
    assert_eq!(bundle.err(&["start"]), "hooks.poststart[0]: /bin/sh ended with status 3, output: because");
    bundle.wait_for_status("stopped");
    // What fails afterwards stops nothing.
    bundle.ok(&["delete"]);
    bundle.assert_gone();
}

/// A hook of a shell of the host's.
fn shell(script: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]})
}

/// Whether a process runs: one that nobody has reaped yet does not.
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn privileged_what_a_hook_has_started_ends_with_a_container_that_fails() {
    let mut bundle = Bundle::new(&["true"]);
    let noted = bundle.path("pid");
    let leave = format!("sleep 1000 & echo $! > {}", noted.display());
    let mut late = shell(&format!("{leave}; sleep 1000"));
    late["timeout"] = json!(1);
    let leaves = shell(&leave);
    for (hooks, program, text) in [
        (json!({"createRuntime": [late]}), "true", "hooks.createRuntime[0].timeout: /bin/sh took longer than 1 s"),
        (json!({"prestart": [shell(&format!("{leave}; exit 3"))]}), "true", "hooks.prestart[0]: /bin/sh ended with"),
        (json!({"prestart": [leaves, {"path": "/bin/false"}]}), "true", "hooks.prestart[1]: /bin/false ended with"),
        (json!({"createRuntime": [leaves]}), "nosuch", "exec: \"nosuch\": executable file not found in $PATH"),
    ] {
        bundle.config["hooks"] = hooks;
        bundle.config["process"]["args"] = json!([program]);
        let said = bundle.err(&["create"]);
        assert!(said.contains(text), "{said}");
        let pid = fs::read_to_string(&noted).unwrap();
        wait_until("the end of what the hook has started", || !runs(&pid));
        bundle.assert_gone();
    }
    // What a hook leaves running for a container that is one goes on: a server for it, perhaps.
    bundle.config["hooks"] = json!({"createRuntime": [leaves]});
    bundle.config["process"]["args"] = json!(["true"]);
    bundle.ok(&["create"]);
    let pid = fs::read_to_string(&noted).unwrap();
    assert!(runs(&pid));
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    bundle.ok(&["delete"]);
    bundle.assert_gone();
}

/// A hook has a process group of its own, to which no terminal sends anything; and `run` holds signals back.
#[test]
fn privileged_a_signal_ends_a_run_that_waits_for_a_hook() {
    let mut bundle = Bundle::new(&["true"]);
    let noted = bundle.path("pid");
    bundle.config["hooks"] = json!({"prestart": [shell(&format!("echo $$ > {}; exec sleep 1000", noted.display()))]});
    let mut running = bundle.command(&["run", &bundle.id]).spawn().unwrap();
    wait_until("the hook", || fs::read_to_string(&noted).is_ok_and(|text| text.ends_with('\n')));
    let pid = rustix::process::Pid::from_child(&running);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(1));
    assert!(bundle.logged().ends_with("hooks.prestart[0]: /bin/sh was interrupted and killed"), "{}", bundle.logged());
    assert!(!runs(&fs::read_to_string(&noted).unwrap()));
    bundle.assert_gone();
}

/// Whether somewhere a `sleep` of this length runs.
fn sleeps(length: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.into_iter().any(|line| line.trim() == format!("sleep {length}"))
}

/// A hook that waits for a child of its own, which is told by the length of its sleep.
fn waiting(bundle: &mut Bundle, name: &str) -> String {
    // No other test's.
    let length = format!("{}.{}", 90_000 + std::process::id() % 10_000, rand_digits(&bundle.id));
    bundle.config["hooks"] = json!({ name: [shell(&format!("sleep {length}; true"))] });
    length
}

/// Digits that no other bundle has.
fn rand_digits(id: &str) -> String {
    id.bytes().map(|byte| char::from(b'0' + byte % 10)).collect()
}

#[test]
fn privileged_delete_by_force_ends_whoever_waits_for_a_hook() {
    for name in ["createRuntime", "poststart"] {
        let mut bundle = Bundle::new(&["sleep", "1000"]);
        let length = waiting(&mut bundle, name);
        let mut running = bundle.command(&["run", "-d", &bundle.id]).spawn().unwrap();
        wait_until("the hook", || sleeps(&length));
        // Nobody waits for ever.
        let busy = format!(
            "container is being made or changed by process {}, which waits for hooks.{name}[0]",
            rustix::process::Pid::from_child(&running).as_raw_nonzero()
        );
        assert_eq!(bundle.err(&["delete"]), busy);
        assert_eq!(bundle.err(&["pause"]), busy);
        if name == "createRuntime" {
            let maker = busy.strip_prefix("container is being made or changed by ").unwrap();
            let said = format!("container not running: it is being made by {maker}, and delete --force ends that");
            assert_eq!(bundle.err(&["kill"]), said);
        }
        bundle.ok(&["delete", "-f"]);
        assert_eq!(running.wait().unwrap().code(), Some(1));
        assert!(!sleeps(&length));
        bundle.assert_gone();
    }
}

#[test]
fn privileged_what_a_hook_has_started_ends_with_a_runtime_that_is_killed() {
    for name in ["prestart", "poststart"] {
        let mut bundle = Bundle::new(&["sleep", "1000"]);
        let length = waiting(&mut bundle, name);
        let mut running = bundle.command(&["run", "-d", &bundle.id]).spawn().unwrap();
        wait_until("the hook", || sleeps(&length));
        running.kill().unwrap();
        running.wait().unwrap();
        wait_until("the end of the hook's child", || !sleeps(&length));
        bundle.ok(&["delete", "-f"]);
        bundle.assert_gone();
    }
    // And with one that is told to end, which takes the container away all the same.
    let mut bundle = Bundle::new(&["true"]);
    let length = waiting(&mut bundle, "poststop");
    bundle.ok(&["run", "-d"]);
    bundle.wait_for_status("stopped");
    let mut deleting = bundle.command(&["delete", &bundle.id]).spawn().unwrap();
    wait_until("the hook", || sleeps(&length));
    rustix::process::kill_process(rustix::process::Pid::from_child(&deleting), rustix::process::Signal::TERM).unwrap();
    assert_eq!(deleting.wait().unwrap().code(), Some(0));
    assert!(!sleeps(&length));
    bundle.assert_gone();
}

#[test]
fn privileged_a_hook_that_deletes_its_container_waits_for_nobody() {
    for (name, command) in [("createRuntime", "create"), ("poststart", "run"), ("poststart", "start")] {
        let mut bundle = Bundle::new(&["sleep", "1000"]);
        let program = format!("{} --root {}", env!("CARGO_BIN_EXE_longshore-runtime"), bundle.path("root").display());
        let noted = bundle.path("noted");
        let script = format!(
            "{program} pause {id} 2> {noted}; echo $? >> {noted}; {program} delete -f {id}; echo $? >> {noted}",
            id = bundle.id,
            noted = noted.display()
        );
        bundle.config["hooks"] = json!({ name: [shell(&script)] });
        let said = match command {
            "start" => {
                bundle.ok(&["create"]);
                bundle.err(&["start"])
            }
            "run" => bundle.err(&["run", "-d"]),
            _ => bundle.err(&["create"]),
        };
        assert!(said.ends_with("container was deleted by a hook of its own"), "{said}");
        let noted = fs::read_to_string(&noted).unwrap();
        let busy = format!("which waits for hooks.{name}[0]\"\n1\n0\n");
        assert!(noted.contains("container is being made or changed by process "), "{noted}");
        assert!(noted.ends_with(&busy), "{noted}");
        bundle.assert_gone();
    }
}
