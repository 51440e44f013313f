//! What is refused, before anything is made.

use std::fs;

use serde_json::json;

use super::fixture::Bundle;

#[test]
fn privileged_a_bundle_that_cannot_be_carried_out_leaves_nothing() {
    let mut bundle = Bundle::new(&["nosuch"]);
    let text = "longshore-runtime create failed: unable to start container process: error during container init: \
                process.args[0]: exec: \"nosuch\": executable file not found in $PATH";
    assert_eq!(bundle.err(&["create"]), text);
    bundle.assert_gone();
    bundle.config["linux"]["intelRdt"] = json!({"closID": "gold"});
    assert_eq!(bundle.err(&["create"]), "longshore-runtime create failed: linux.intelRdt is not supported");
    bundle.config["linux"]["intelRdt"] = json!(null);
    bundle.config["root"]["path"] = json!("nosuch");
    let text = bundle.err(&["create"]);
    let path = bundle.path("nosuch");
    let wanted = format!("longshore-runtime create failed: root.path: {}: no such file or directory", path.display());
    assert_eq!(text, wanted);
    bundle.assert_gone();
    let nowhere = bundle.run(&["create", "-b", "nowhere", &bundle.id]);
    assert_eq!(nowhere.stderr, "longshore-runtime create failed: --bundle: chdir nowhere: no such file or directory\n");
}

#[test]
fn a_full_standard_output_is_an_error_and_no_panic() {
    let bundle = Bundle::new(&["true"]);
    fs::create_dir(bundle.path("root")).unwrap();
    for words in [&["--version"][..], &["--help"], &["list"], &["features"], &["list", "--help"]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = bundle.command(words).stdout(full).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), text.trim_end()), (Some(1), NO_ROOM), "{words:?}");
        // Nor does it matter that nobody reads why.
        let full = || fs::File::options().write(true).open("/dev/full").unwrap();
        assert_eq!(bundle.command(words).stdout(full()).stderr(full()).status().unwrap().code(), Some(1));
    }
}

const NO_ROOM: &str = "write to standard output: no space left on device";

#[test]
fn privileged_a_cgroup_with_processes_is_left_alone() {
    let holder = Bundle::new(&["sleep", "1000"]);
    holder.ok(&["run", "-d"]);
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["linux"]["cgroupsPath"] = holder.config["linux"]["cgroupsPath"].clone();
    let text = "longshore-runtime create failed: container's cgroup is not empty: 1 process(es) found";
    assert_eq!(bundle.err(&["create"]), text);
    assert!(!bundle.state_dir().exists());
    assert_eq!(holder.status(), "running");
    holder.ok(&["delete", "-f"]);
}

#[test]
fn privileged_what_is_done_in_another_way_than_asked_is_told() {
    let mut bundle = Bundle::new(&["stat", "-c", "%a", "/place"]);
    let mount = json!({"destination": "place", "type": "tmpfs", "source": "tmpfs", "options": ["mode=700"]});
    bundle.config["mounts"].as_array_mut().unwrap().push(mount);
    bundle.config["process"]["capabilities"]["bounding"] = json!(["CAP_KILL", "CAP_NOPE"]);
    let done = bundle.run(&["run", &bundle.id]);
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "700\n"), "{done:?}");
    let log = fs::read_to_string(bundle.path("log")).unwrap();
    for text in [
        "mounts[3].destination: place is not absolute: it is taken from / on",
        "ignoring unknown or unavailable capabilities: [CAP_NOPE]",
    ] {
        assert!(log.contains(text), "{log}");
    }
}

#[test]
fn privileged_a_limit_above_our_own_is_named() {
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    let ids = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    (bundle.config["linux"]["uidMappings"], bundle.config["linux"]["gidMappings"]) = (ids.clone(), ids);
    bundle.config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 1, "hard": u64::MAX}]);
    let text = "longshore-runtime create failed: unable to start container process: error during container init: \
                process.rlimits[0].hard: RLIMIT_NOFILE 18446744073709551615: error setting rlimits for ready process: error setting rlimit type 7: \
                operation not permitted";
    assert_eq!(bundle.err(&["create"]), text);
    bundle.assert_gone();
}

#[test]
fn what_is_not_done_is_refused_by_name_in_the_log() {
    let bundle = Bundle::new(&["true"]);
    for (words, text) in [
        (&["update", "x"][..], "container does not exist"),
        (&["events", "x"], "container does not exist"),
        (&["checkpoint", "nosuch"], "container does not exist"),
        (&["create", "--nosuch", "x"], "flag provided but not defined: -nosuch"),
        (&["create"], "longshore-runtime: \"create\" requires exactly 1 argument(s)"),
        (
            &["create", "a/b"],
            "longshore-runtime create failed: invalid container ID format: \"a/b\" must be of letters, digits, _, +, - and .",
        ),
        (&["state", "nosuch"], "container does not exist"),
        (&["kill", "nosuch"], "container does not exist"),
        (&["list", "-f", "yaml"], "invalid format option: \"yaml\" of --format must be table or json"),
    ] {
        let done = bundle.run(words);
        assert_eq!((done.code, done.stderr.trim_end()), (Some(1), text));
        assert_eq!(bundle.logged(), text);
    }
    // Before there is a log.
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_longshore-runtime")).arg("--nosuch=x").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = "level=error msg=\"flag provided but not defined: -nosuch\"";
    assert!(String::from_utf8(output.stderr).unwrap().contains(text));
}

#[test]
fn a_specification_to_begin_with_is_written_once() {
    let bundle = Bundle::new(&["true"]);
    fs::create_dir(bundle.path("new")).unwrap();
    assert_eq!(bundle.run(&["spec", "--bundle", "new"]).code, Some(0));
    let text = fs::read_to_string(bundle.path("new/config.json")).unwrap();
    assert!(text.contains("\"ociVersion\": \"1.3.0\""));
    assert_eq!(bundle.run(&["spec", "-b", "new"]).code, Some(1));
    assert_eq!(fs::read_to_string(bundle.path("new/config.json")).unwrap(), text);
    let features: serde_json::Value = serde_json::from_str(&bundle.run(&["features"]).stdout).unwrap();
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    assert_eq!(features["linux"]["netDevices"]["enabled"], true);
    assert_eq!(features["linux"]["memoryPolicy"]["flags"][2], "MPOL_F_STATIC_NODES");
    let version = bundle.run(&["--version"]).stdout;
    assert!(version.starts_with("longshore-runtime version ") && version.contains("\nspec: 1."), "{version}");
}
