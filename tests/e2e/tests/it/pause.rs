//! `pause` and `unpause`: who stands still, what is refused meanwhile, and what lets go.

use std::fs;

use crate::support::{At, cgroup, on_both, ours, unified};

/// Whether the kernel holds the container's processes.
fn is_frozen(at: &At<'_>, name: &str) -> bool {
    let (file, word) = if unified() { ("cgroup.freeze", "1") } else { ("freezer.state", "FROZEN") };
    fs::read_to_string(cgroup(at, name, "freezer").join(file)).unwrap().trim() == word
}

#[test]
fn privileged_a_paused_container_stands_still_and_is_shown_so() {
    on_both(|at| {
        let name = at.name("still");
        at.start(&name, "busybox sleep 1000");
        let mut events = at.events(&name);
        assert_eq!(at.ok(&format!("pause {name}")), name);
        assert!(is_frozen(at, &name));
        let state = "{{.State.Status}} {{.State.Running}} {{.State.Paused}}";
        assert_eq!(at.inspect(&name, state), "paused true true");
        assert!(at.ok(&format!("ps -f name={name}")).contains(" (Paused)"));
        assert_eq!(at.ok(&format!("ps -f name={name} -f status=paused --format '{{{{.State}}}}'")), "paused");
        assert_eq!(at.ok(&format!("container unpause {name}")), name);
        assert!(!is_frozen(at, &name));
        assert_eq!(at.inspect(&name, state), "running true false");
        let mut actions = events.actions_until("unpause").unwrap();
        actions.retain(|action| action != "start");
        assert_eq!(actions, ["pause", "unpause"]);
        at.remove(&name);
    });
}

#[test]
fn privileged_what_a_paused_container_refuses_is_dockers() {
    on_both(|at| {
        let name = at.name("refusing");
        let id = at.ok(&format!("run -d --network none --name {name} busybox sleep 1000"));
        at.fails(&format!("unpause {name}"), 1, &format!("Container {id} is not paused"));
        at.ok(&format!("pause {name}"));
        at.fails(&format!("pause {name}"), 1, &format!("Container {id} is already paused"));
        at.fails(&format!("start {name}"), 1, "cannot start a paused container, try unpause instead");
        let sentence = format!("Container {name} is paused, unpause the container before exec");
        at.fails(&format!("exec {name} true"), 1, &sentence);
        at.fails(&format!("attach {name}"), 1, "You cannot attach to a paused container, unpause it first");
        let sentence = format!("cannot remove container \"{name}\": container is paused and must be unpaused first");
        at.fails(&format!("rm {name}"), 1, &sentence);
        let attach = at.daemon.post(&format!("/v1.50/containers/{name}/attach?stream=1&stdout=1"), "").unwrap();
        assert_eq!(attach.status, 409);
        at.remove(&name);
        at.ok(&format!("create --name {name} busybox true"));
        at.fails(&format!("pause {name}"), 1, " is not running");
        at.remove(&name);
        at.fails(&format!("pause {name}"), 1, &format!("No such container: {name}"));
    });
}

#[test]
fn privileged_a_paused_container_is_stopped_killed_removed_and_committed() {
    on_both(|at| {
        let (name, image) = (at.name("ending"), at.image("committed"));
        for (line, code) in [("stop -t 1", "137"), ("kill", "137"), ("kill -s TERM", "143")] {
            at.start(&name, "--init busybox sleep 1000");
            at.ok(&format!("exec {name} true"));
            at.ok(&format!("pause {name}"));
            at.ok(&format!("{line} {name}"));
            let ended = at.ok(&format!("wait {name}"));
            assert!(ended == code || line.starts_with("stop"), "{line}: {ended}");
            assert_eq!(at.inspect(&name, "{{.State.Paused}} {{.State.Running}}"), "false false", "{line}");
            at.remove(&name);
        }
        at.start(&name, "busybox sleep 1000");
        at.ok(&format!("pause {name}"));
        at.ok(&format!("commit {name} {image}"));
        assert!(is_frozen(at, &name), "a commit lets nobody go whom it did not hold");
        at.ok(&format!("rmi {image}"));
        at.remove(&name);
    });
}

#[test]
fn privileged_the_next_daemon_knows_who_stands_still() {
    ours(|daemon| {
        let name = daemon.name("recalled");
        let cli = daemon.clis()[0];
        let at = At { daemon, cli };
        at.start(&name, "busybox sleep 1000");
        at.ok(&format!("pause {name}"));
        daemon.kill9().unwrap();
        daemon.restart().unwrap();
        let at = At { daemon, cli };
        assert_eq!(at.inspect(&name, "{{.State.Status}}"), "paused");
        at.ok(&format!("unpause {name}"));
        assert_eq!(at.ok(&format!("exec {name} echo on")), "on");
        at.remove(&name);
    });
}
