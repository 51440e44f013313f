//! What commands say of themselves: flags and fields by name, statuses as runc's, nothing done by halves.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::fixture::Bundle;

/// Statuses and sentences, the name of the container behind the words.
fn check(bundle: &Bundle, cases: &[(&[&str], i32, &str)]) {
    for (words, code, text) in cases {
        bundle.assert_says(words, *code, text);
    }
}

#[test]
fn flags_and_commands_that_are_misunderstood_are_named_before_anything_else() {
    let bundle = Bundle::new(&["true"]);
    check(
        &bundle,
        &[
            (&["help", "frob"], 3, "No help topic for 'frob'"),
            (&["frob"], 3, "No help topic for 'frob'"),
            (&["frob", "--help"], 3, "No help topic for 'frob'"),
            (
                &["kill", "-9", "ID"],
                1,
                "flag provided but not defined: -9 (a signal stands behind the container's id, without a dash)",
            ),
            (&["kill", "-x", "ID"], 1, "flag provided but not defined: -x"),
            (&["features", "x"], 1, "longshore-runtime: \"features\" requires exactly 0 argument(s)"),
            (&["kill"], 1, "longshore-runtime: \"kill\" requires a minimum of 1 argument(s)"),
            (&["kill", "a", "b", "c"], 1, "longshore-runtime: \"kill\" requires a maximum of 2 argument(s)"),
            (
                &["create", "--preserve-fds", "x", "ID"],
                1,
                "invalid value \"x\" for flag -preserve-fds, which takes a number from 0 to 512",
            ),
            (
                &["delete", "--force=maybe", "ID"],
                1,
                "invalid value \"maybe\" for flag -force, which takes true or false",
            ),
            (
                &["events", "--interval", "soon", "ID"],
                1,
                "invalid value \"soon\" for flag -interval, which takes a time as 5s, 500ms or 1m30s",
            ),
            (
                &["spec", "-b", "nosuch"],
                1,
                &format!("--bundle: create {}: no such file or directory", bundle.path("nosuch/config.json").display()),
            ),
        ],
    );
    for (words, text) in [
        (&["--root", "", "list"][..], "--root is empty"),
        (&["--log", "/nosuch/x", "list"], "--log: open /nosuch/x: no such file or directory"),
        (&["--log-format", "xml", "list"], "invalid log-format: xml, must be one of text, json"),
        (&["--rootless", "x", "list"], "invalid value \"x\" for flag -rootless, which takes true, false or auto"),
    ] {
        let program = env!("CARGO_BIN_EXE_longshore-runtime");
        let output = std::process::Command::new(program).args(words).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && said.contains(&format!("msg={text:?}")), "{words:?}: {said}");
    }
}

#[test]
fn privileged_what_is_given_with_a_container_is_named_by_its_flag() {
    let mut bundle = Bundle::new(&["true"]);
    fs::create_dir(bundle.path("empty")).unwrap();
    let missing = |flag: &str, doing: &str| {
        format!("longshore-runtime create failed: {flag}: {doing}: no such file or directory")
    };
    let file = |name: &str| bundle.path(name).display().to_string();
    check(
        &bundle,
        &[
            (&["create", "--pid-file", "a/b", "ID"], 1, &missing("--pid-file", &format!("write {}", file("a/b")))),
            (
                &["create", "--pidfd-socket", "a/b", "ID"],
                1,
                &missing("--pidfd-socket", &format!("send the pidfd to {}", file("a/b"))),
            ),
            (&["create", "-b", "nosuch", "ID"], 1, &missing("--bundle", "chdir nosuch")),
            (&["create", "-b", "empty", "ID"], 1, &missing("--bundle", &format!("open {}", file("empty/config.json")))),
        ],
    );
    bundle.assert_gone();
    bundle.config["process"]["terminal"] = json!(true);
    let text = missing("--console-socket", &format!("send the terminal to {}", bundle.path("a/b").display()));
    check(&bundle, &[(&["create", "--console-socket", "a/b", "ID"], 1, &text)]);
    bundle.assert_gone();
}

#[test]
fn privileged_what_an_exec_is_asked_for_is_named_by_its_flag_or_its_field() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.ok(&["run", "-d"]);
    let process =
        json!({"args": ["nosuch"], "cwd": "/nope", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin", "bare"]});
    fs::write(bundle.path("bare.json"), process.to_string()).unwrap();
    let mut process = process;
    process["env"] = json!(["PATH=/bin"]);
    fs::write(bundle.path("cwd.json"), process.to_string()).unwrap();
    process["cwd"] = json!("/");
    fs::write(bundle.path("args.json"), process.to_string()).unwrap();
    process["execCPUAffinity"] = json!({"initial": "900-901"});
    fs::write(bundle.path("affinity.json"), process.to_string()).unwrap();
    let file = |name: &str| bundle.path(name).display().to_string();
    let start = "exec failed: unable to start container process: ";
    check(
        &bundle,
        &[
            (&["exec", "--cwd", "/nope", "ID", "true"], 255, &format!("{start}--cwd /nope: no such file or directory")),
            (
                &["exec", "--env", "A=1", "--env", "bare", "ID", "true"],
                255,
                "exec failed: --env: \"bare\": invalid environment variable: missing '='",
            ),
            (
                &["exec", "-u", "web", "ID", "true"],
                255,
                "exec failed: bad uid: \"web\" of --user is no number from 0 to 4294967294",
            ),
            (
                &["exec", "-g", "web", "ID", "true"],
                1,
                "invalid value \"web\" for flag -additional-gids, which takes a number from 0 to 4294967294",
            ),
            (&["exec", "ID", "nosuch"], 255, &format!("{start}exec: \"nosuch\": executable file not found in $PATH")),
            (
                &["exec", "-p", "nosuch", "ID"],
                255,
                &format!("exec failed: --process: open {}: no such file or directory", file("nosuch")),
            ),
            (
                &["exec", "-p", "args.json", "ID", "ls", "-l"],
                255,
                "exec failed: the command \"ls -l\" and --process exclude each other: the file says all of the process, \
                 args included",
            ),
            (
                &["exec", "-p", "args.json", "--cwd", "/", "-e", "A=1", "ID"],
                255,
                "exec failed: --cwd and --process exclude each other: the file says all of the process, args included",
            ),
            (&["exec", "-p", "/dev/null", "ID"], 255, "exec failed: --process: /dev/null is empty"),
            (
                &["exec", "-p", "config.json", "ID"],
                255,
                &format!(
                    "exec failed: --process: {} has ociVersion, but should hold what process of config.json does",
                    file("config.json")
                ),
            ),
            (
                &["exec", "-p", "affinity.json", "ID"],
                255,
                &format!("{start}process.execCPUAffinity.initial: set the processors 900-901: invalid argument"),
            ),
            (
                &["exec", "-p", "bare.json", "ID"],
                255,
                "exec failed: process.env[1]: \"bare\": invalid environment variable: missing '='",
            ),
            (
                &["exec", "-p", "cwd.json", "ID"],
                255,
                &format!(
                    "{start}process.cwd: chdir to cwd (\"/nope\") set in config.json failed: no such file or directory"
                ),
            ),
            (
                &["exec", "-p", "args.json", "ID"],
                255,
                &format!("{start}process.args[0]: exec: \"nosuch\": executable file not found in $PATH"),
            ),
        ],
    );
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}

/// The container counts as started: its status and its standard error tell, as under runc.
#[test]
fn privileged_a_program_that_is_none_is_named_with_its_field() {
    let mut bundle = Bundle::new(&["/bin/none"]);
    let none = bundle.path("rootfs/bin/none");
    let interpreter = "no such file or directory: its interpreter /nosuch/interpreter is missing";
    for (content, why) in [("#!/nosuch/interpreter -e\n", interpreter), ("none\n", "exec format error")] {
        fs::write(&none, content).unwrap();
        fs::set_permissions(&none, fs::Permissions::from_mode(0o755)).unwrap();
        check(&bundle, &[(&["run", "ID"], 255, &format!("process.args[0]: exec /bin/none: {why}"))]);
    }
    bundle.config["process"]["args"] = json!(["true"]);
    bundle.config["linux"]["seccomp"]["syscalls"] =
        json!([{"names": ["execve"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]);
    check(&bundle, &[(&["run", "ID"], 255, "process.args[0]: exec /bin/true: operation not permitted")]);
    bundle.config["linux"]["seccomp"]["syscalls"] = json!([]);
    bundle.config["hooks"] = json!({"startContainer": [{"path": "/bin/true"}, {"path": "/bin"}]});
    check(&bundle, &[(&["run", "ID"], 255, "hooks.startContainer[1]: run /bin: is a directory")]);
    let start =
        "longshore-runtime run failed: unable to start container process: error during container init: process.";
    bundle.config["hooks"] = json!({});
    for (program, why) in [
        ("nosuch", "exec: \"nosuch\": executable file not found in $PATH"),
        ("/nosuch", "exec: \"/nosuch\": stat /nosuch: no such file or directory"),
        ("/bin", "exec: \"/bin\": is a directory"),
        ("/etc/plain", "exec: \"/etc/plain\": permission denied"),
    ] {
        fs::write(bundle.path("rootfs/etc/plain"), "").unwrap();
        bundle.config["process"]["args"] = json!([program]);
        check(&bundle, &[(&["run", "ID"], 1, &format!("{start}args[0]: {why}"))]);
    }
    bundle.assert_gone();
}

#[test]
fn privileged_images_that_are_none_and_a_criu_that_is_not_there_are_named_first() {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    fs::create_dir(bundle.path("empty")).unwrap();
    let directory = bundle.path("empty").display().to_string();
    fs::create_dir(bundle.path("programs")).unwrap();
    fs::write(bundle.path("programs/criu"), "").unwrap();
    fs::set_permissions(bundle.path("programs/criu"), fs::Permissions::from_mode(0o755)).unwrap();
    bundle.programs = Some(bundle.path("programs"));
    let text = format!(
        "longshore-runtime restore failed: --image-path {directory} is no checkpoint: open {directory}/descriptors.json: \
         no such file or directory"
    );
    assert_eq!(bundle.err(&["restore", "--image-path", "empty"]), text);
    bundle.assert_gone();
    bundle.ok(&["run", "-d"]);
    let mut command = bundle.command(&["checkpoint", "--image-path", "new", &bundle.id]);
    let output = command.env("PATH", bundle.path("empty")).output().unwrap();
    let text = "exec: \"criu\": executable file not found in $PATH\n";
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(1), text));
    assert!(!bundle.path("new").exists());
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}

#[test]
fn privileged_a_limit_is_named_by_its_flag_and_a_file_without_limits_is_refused() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.ok(&["run", "-d"]);
    fs::write(bundle.path("limits.json"), r#"{"cpu": {"shares": 1}}"#).unwrap();
    fs::write(bundle.path("inner.json"), r#"{"resources": {"pids": {"limit": 5}}}"#).unwrap();
    fs::write(bundle.path("blank.json"), " \n").unwrap();
    fs::write(bundle.path("devices.json"), r#"{"devices": [{"allow": true, "type": "c", "access": "x"}]}"#).unwrap();
    let pages = json!({"pageSize": "2MB", "limit": 0});
    fs::write(bundle.path("twice.json"), json!({"hugepageLimits": [pages, pages]}).to_string()).unwrap();
    let file = |name: &str| bundle.path(name).display().to_string();
    let shares = "linux.resources.cpu.shares: 1 is not between 2 and 262144";
    let no_limits = |name: &str, field: &str| {
        format!("--resources: {} has {field}, but should hold what linux.resources of config.json does", file(name))
    };
    check(
        &bundle,
        &[
            (&["update", "--cpu-share", "1", "ID"], 1, &format!("--cpu-share: {shares}")),
            (&["update", "-r", "limits.json", "ID"], 1, shares),
            (
                &["update", "--memory", "lots", "ID"],
                1,
                "invalid value \"lots\" for flag -memory, which takes bytes as 1048576, 512k, 64m or 1.5g, or -1 for no \
                 limit",
            ),
            (&["update", "-r", "config.json", "ID"], 1, &no_limits("config.json", "ociVersion")),
            (&["update", "-r", "inner.json", "ID"], 1, &no_limits("inner.json", "resources")),
            (
                &["update", "-r", "nosuch", "ID"],
                1,
                &format!("--resources: open {}: no such file or directory", file("nosuch")),
            ),
            (&["update", "-r", "rootfs", "ID"], 1, &format!("--resources: open {}: is a directory", file("rootfs"))),
            (&["update", "-r", "blank.json", "ID"], 1, &format!("--resources: {} is empty", file("blank.json"))),
            (
                &["update", "-r", "devices.json", "ID"],
                1,
                "linux.resources.devices[0].access: \"x\" is not an access: must be some of r, w, m",
            ),
            (
                &["update", "-r", "twice.json", "ID"],
                1,
                "linux.resources.hugepageLimits[1].pageSize: \"2MB\" is there twice",
            ),
            // As runc: nothing is asked for.
            (&["update", "ID"], 0, ""),
        ],
    );
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}

#[test]
fn privileged_what_keeps_an_exec_from_its_program_is_named() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.ok(&["run", "-d"]);
    let none = bundle.path("rootfs/bin/none");
    fs::write(&none, "#!/nosuch\n").unwrap();
    fs::set_permissions(&none, fs::Permissions::from_mode(0o755)).unwrap();
    let missing = "exec /bin/none: no such file or directory: its interpreter /nosuch is missing";
    check(&bundle, &[(&["exec", "ID", "none"], 255, missing)]);
    bundle.ok(&["update", "--pids-limit", "1"]);
    let text = "exec failed: unable to start container process: linux.resources.pids.limit: the container has as many tasks \
                as it may, 1 (pids.max of its cgroup): resource temporarily unavailable";
    check(&bundle, &[(&["exec", "ID", "true"], 255, text)]);
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}

#[test]
fn a_root_that_is_missing_or_a_file_is_named() {
    let bundle = Bundle::new(&["true"]);
    let root = bundle.path("root").display().to_string();
    check(&bundle, &[(&["list"], 1, &format!("--root: read {root}: no such file or directory"))]);
    fs::write(bundle.path("root"), "").unwrap();
    let failed = |action: &str| format!("--root: {action} {root}: not a directory");
    check(
        &bundle,
        &[
            (&["list"], 1, &failed("read")),
            (&["create", "ID"], 1, &format!("longshore-runtime create failed: {}", failed("create"))),
        ],
    );
}

#[test]
fn privileged_hooks_need_mounts_of_the_containers_own() {
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["linux"]["namespaces"] = json!([{"type": "pid"}]);
    bundle.config["hostname"] = json!("");
    bundle.config["hooks"] = json!({"prestart": [{"path": "/bin/true"}]});
    let said = bundle.err(&["create"]);
    let own = "hooks: needs a mount namespace of the container's own in linux.namespaces";
    // Before Linux 6.15 no container is without one.
    let any = "linux.namespaces: a mount namespace of its own is required";
    assert!(said.ends_with(own) || said.ends_with(any), "{said}");
    bundle.assert_gone();
}
