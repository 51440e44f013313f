//! `docker buildx history`: builds that have ended.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;
use testkit::process::{DEADLINE, until};
use testkit::{Cli, Daemon, Piped};

use crate::build::{context, path};
use crate::build_outputs::build;
use crate::buildx::{Plugged, plugged, plugins};
use crate::support::At;

fn ok(plugged: &Plugged<'_>, line: &str) -> String {
    let output = plugged.line(&format!("buildx history {line}"));
    assert_eq!(output.code, 0, "{output:?}");
    output.stdout + &output.stderr
}

/// All builds, the newest first: what each is called, and how it ended.
fn builds(plugged: &Plugged<'_>, flags: &str) -> Vec<(String, String)> {
    let all = ok(plugged, &format!("ls --format json {flags}"));
    let one = |line: &str| {
        let build: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| build[name].as_str().unwrap().to_owned();
        (text("ref").rsplit('/').next().unwrap().to_owned(), text("status"))
    };
    all.lines().map(one).collect()
}

fn statuses(plugged: &Plugged<'_>, flags: &str) -> Vec<String> {
    builds(plugged, flags).into_iter().map(|(_, status)| status).collect()
}

#[test]
fn privileged_buildx_tells_of_builds_that_have_ended() {
    if testkit::skip::without_root() {
        return;
    }
    let mut daemon = Daemon::with_busybox().unwrap();
    if daemon.is_foreign() {
        return testkit::skip::report("others may build there");
    }
    if !daemon.clis().contains(&Cli::Docker) {
        return;
    }
    let plugged = Plugged { at: At { daemon: &daemon, cli: Cli::Docker }, config: plugins() };
    let (all, name, logs) = builds_are_told(&plugged);
    // The next daemon knows it still.
    let config = plugged.config;
    daemon.restart().unwrap();
    let plugged = &Plugged { at: At { daemon: &daemon, cli: Cli::Docker }, config };
    assert_eq!(builds(plugged, ""), all);
    assert_eq!(ok(plugged, &format!("logs {name}")).lines().count(), logs.lines().count());
    ok(plugged, &format!("rm {name}"));
    assert_eq!(builds(plugged, ""), all[..1]);
    let output = plugged.line(&format!("buildx history rm {name}"));
    assert!(output.code != 0 && output.stderr.contains("not found"), "{output:?}");
    ok(plugged, "rm --all");
    let blobs = daemon.scratch().data_root().join("build-history/blobs");
    assert_eq!((builds(plugged, ""), fs::read_dir(blobs).unwrap().count()), (vec![], 0));
}

/// Builds twice, of which the second one fails; answers all builds, the first one's name, and what it told.
fn builds_are_told(plugged: &Plugged<'_>) -> (Vec<(String, String)>, String, String) {
    assert_eq!(builds(plugged, ""), []);
    let to = tempfile::tempdir().unwrap();
    let good = context(&[("Dockerfile", "FROM busybox AS made\nARG A\nRUN echo said $A\n")]);
    let bad = context(&[("Dockerfile", "FROM busybox\nRUN echo before && exit 3\n")]);
    let metadata = to.path().join("metadata.json");
    build(plugged, &good, &format!("--build-arg A=own --target made --metadata-file {}", metadata.display()));
    plugged.fails(&bad, "");
    let all = builds(plugged, "");
    assert_eq!(statuses(plugged, ""), ["Error", "Completed"]);
    assert_eq!(statuses(plugged, "--filter status=error"), ["Error"]);
    assert_eq!(statuses(plugged, "--filter status=completed --filter duration<1h"), ["Completed"]);
    assert_eq!(statuses(plugged, "--filter startedAt<2001-01-01T00:00:00Z"), [""; 0]);
    let name = &all[1].0;
    let told = fs::read_to_string(&metadata).unwrap();
    assert!(told.contains(name), "{name} in {told}");
    let told: Value = serde_json::from_str(&told).unwrap();
    let provenance = &told["buildx.build.provenance"];
    let material = provenance["materials"][0]["uri"].as_str().unwrap();
    assert!(material.starts_with("pkg:docker/busybox@latest"), "{told}");
    // What was asked for, and what became of it.
    let inspected: Value = serde_json::from_str(&ok(plugged, &format!("inspect --format json {name}"))).unwrap();
    assert_eq!(inspected["Target"], "made");
    assert_eq!(inspected["BuildArgs"], serde_json::json!([{"Name": "A", "Value": "own"}]));
    assert_eq!(inspected["Status"], "completed");
    let steps = |name: &str| inspected[name].as_i64().unwrap();
    assert!(steps("NumTotalSteps") > 3 && steps("NumTotalSteps") == steps("NumCompletedSteps"), "{inspected}");
    assert_eq!(inspected["Attachments"][0]["Type"], "https://slsa.dev/provenance/v0.2");
    let attached = ok(plugged, &format!("inspect attachment --type provenance {name}"));
    assert_eq!(serde_json::from_str::<Value>(&attached).unwrap()["materials"], provenance["materials"]);
    let shown = ok(plugged, &format!("inspect {}", all[0].0));
    for wanted in ["exit code: 3", "before", "RUN echo before && exit 3"] {
        assert!(shown.contains(wanted), "{wanted} in {shown}");
    }
    let logs = ok(plugged, &format!("logs {name}"));
    assert!(logs.contains("RUN echo said own") && logs.contains(" said own\n"), "{logs}");
    let name = name.clone();
    (all, name, logs)
}

#[test]
fn privileged_a_build_that_goes_on_is_told_and_one_that_was_given_up_too() {
    plugged(|plugged| {
        if plugged.at.daemon.is_foreign() {
            return testkit::skip::report("others may build there");
        }
        let directory = context(&[("Dockerfile", "FROM busybox\nRUN echo begun && sleep 600\n")]);
        let mut command = plugged.command(&format!("buildx build --progress plain {}", path(&directory)));
        let client = Piped::spawn(&mut command).unwrap();
        let is_running = || (statuses(plugged, "") == ["Running"]).then_some(());
        until("the build goes on", DEADLINE, is_running).unwrap();
        for (status, wanted) in [("running", &["Running"][..]), ("error", &[]), ("completed", &[])] {
            assert_eq!(statuses(plugged, &format!("--filter status={status}")), wanted, "{status}");
        }
        client.signal(Signal::INT).unwrap();
        client.wait().unwrap();
        let has_ended = || (statuses(plugged, "--filter status=canceled") == ["Error"]).then_some(());
        until("the build was given up", DEADLINE, has_ended).unwrap();
    });
}
