//! Every field that is planned here, in and out.

use serde_json::{Value, json};

use super::*;
use crate::process::ProcessPlan;

/// A specification with these changes: members of objects are put in or replaced, at any depth.
fn spec(changes: &Value) -> Spec {
    let mut config = json!({
        "process": {"args": ["true"], "cwd": "/"},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "network"}, {"type": "ipc"}]},
    });
    merge(&mut config, changes);
    serde_json::from_value(config).unwrap()
}

fn merge(config: &mut Value, changes: &Value) {
    match (config, changes) {
        (Value::Object(fields), Value::Object(changes)) => {
            for (name, change) in changes {
                merge(fields.entry(name.clone()).or_insert(Value::Null), change);
            }
        }
        (config, changes) => *config = changes.clone(),
    }
}

/// Everything that is known before the first system call, or why it cannot be.
fn planned(changes: &Value) -> String {
    let spec = spec(changes);
    let held = sys::capability::Set(u64::MAX);
    let process = || ProcessPlan::new("id", &spec.process, || Ok("/home".into()), None, held);
    match Plan::new(&spec).and_then(|plan| Ok((plan, process()?.unwrap()))) {
        Ok((plan, process)) => format!("{plan:?} {process:?}"),
        Err(err) => format!("error: {}", errdefs::chain(&err)),
    }
}

fn check(changes: Value, expected: &str) {
    let found = planned(&changes);
    let as_expected = if expected.starts_with("error: ") { found == expected } else { found.contains(expected) };
    assert!(as_expected, "{changes}:\n{found}\nis not\n{expected}");
}

#[test]
fn fields_of_the_process() {
    let process = |name: &str, value: Value| json!({"process": {name: value}});
    check(process("args", json!(["a", "b"])), r#"argv: ["a", "b"]"#);
    check(process("args", json!([])), "error: process.args: is empty");
    check(process("args", json!(["a\0"])), "error: process.args: contains a NUL byte");
    check(process("env", json!(["A=1", "A=2"])), r#"envp: ["A=2", "HOME=/home"]"#);
    check(process("env", json!(["\0"])), "error: process.env: contains a NUL byte");
    check(process("cwd", json!("/srv")), r#"cwd: "/srv""#);
    check(process("cwd", json!("srv")), r#"error: process.cwd: "srv" is not an absolute path"#);
    check(process("cwd", json!("")), "error: process.cwd: is empty");
    check(process("user", json!({"uid": 7, "gid": 8, "umask": 63})), "uid: 7, gid: 8");
    let text = |field: &str| format!("error: process.user.{field}: 4294967295 is not between 0 and 4294967294");
    check(process("user", json!({"uid": u32::MAX})), &text("uid"));
    check(process("user", json!({"gid": u32::MAX})), &text("gid"));
    check(process("user", json!({"additionalGids": [1, u32::MAX]})), &text("additionalGids[1]"));
    check(process("user", json!({"umask": 63})), "umask: 63");
    // As somebody writes who means the octal one.
    check(process("user", json!({"umask": 777})), "error: process.user.umask: 777 is not between 0 and 511");
    check(json!({}), "umask: 18");
    check(process("noNewPrivileges", json!(true)), "no_new_privileges: true");
    check(process("oomScoreAdj", json!(-1000)), "oom_score_adj: Some(-1000)");
    check(process("oomScoreAdj", json!(1001)), "error: process.oomScoreAdj: 1001 is not between -1000 and 1000");
    let terminal = |height: u64, width: u64| json!({"process": {"terminal": true, "consoleSize": {"height": height, "width": width}}});
    check(terminal(3, 4), "console_size: Some((3, 4))");
    check(terminal(3, 65536), "error: process.consoleSize.width: 65536 is not between 0 and 65535");
    check(process("consoleSize", json!({"height": 65536, "width": 4})), "console_size: None");
    check(process("apparmorProfile", json!("profile")), r#"apparmor: Some("profile"), selinux: None"#);
    check(process("apparmorProfile", json!("\0")), "error: process.apparmorProfile: contains a NUL byte");
    check(process("selinuxLabel", json!("label")), r#"apparmor: None, selinux: Some("label")"#);
    check(process("ioPriority", json!({"class": "IOPRIO_CLASS_RT"})), r#"io: Some((1, 0, "IOPRIO_CLASS_RT"))"#);
    check(process("scheduler", json!({"policy": "SCHED_IDLE"})), "policy: 5");
    check(process("execCPUAffinity", json!({"final": "1"})), "last_processors: Some(Mask([2]))");
    check(
        process("capabilities", json!({"effective": ["CAP_KILL", "CAP_NOPE"], "permitted": ["CAP_KILL"]})),
        "effective: Set(32)",
    );
}

#[test]
fn resource_limits() {
    let limits = |limits: Value| json!({"process": {"rlimits": limits}});
    let limit = |kind: &str, soft: u64, hard: u64| json!({"type": kind, "soft": soft, "hard": hard});
    let unlimited = limits(json!([limit("RLIMIT_CORE", 0, u64::MAX)]));
    check(unlimited, "rlimits: [(4, Rlimit { current: Some(0), maximum: None })]");
    let text = r#"error: process.rlimits[0].type: unknown word "RLIMIT_X", must be one of RLIMIT_CPU, RLIMIT_FSIZE, "#;
    let found = planned(&limits(json!([limit("RLIMIT_X", 0, 0)])));
    assert!(found.starts_with(text) && found.ends_with(", RLIMIT_RTTIME"), "{found}");
    check(
        limits(json!([limit("RLIMIT_AS", 1, 1), limit("RLIMIT_CPU", 1, 1), limit("RLIMIT_AS", 1, 1)])),
        r#"error: process.rlimits[2].type: "RLIMIT_AS" is there twice"#,
    );
    check(limits(json!([limit("RLIMIT_AS", 2, 1)])), "error: process.rlimits[0].soft: 2 is not between 0 and 1");
}

#[test]
fn names_paths_and_root() {
    check(json!({"hostname": "h", "domainname": "d"}), r#"hostname: "h", domainname: "d""#);
    let long = "h".repeat(65);
    for name in ["hostname", "domainname"] {
        check(json!({ name: long[1..] }), &long[1..]);
        check(json!({ name: long }), &format!("error: {name}: is 65 bytes long, and 64 are the most"));
    }
    let overlay = |option: &str| json!({"mounts": [{"destination": "/o", "type": "overlay", "options": [option]}]});
    let text = "error: mounts[0].options: needs lowerdir=, the layers of the overlay";
    check(overlay("upperdir=/u"), text);
    for option in ["lowerdir=/a", "lowerdir+=/a", "datadir+=/a"] {
        check(overlay(option), "FileSystem(\"overlay\")");
    }
    check(json!({"root": {"readonly": true}}), "root_readonly: true");
    let linux = |name: &str, value: Value| json!({"linux": {name: value}});
    check(linux("rootfsPropagation", json!("rslave")), "root_propagation: Some((524288, true))");
    check(linux("rootfsPropagation", json!("")), "root_propagation: None");
    for word in ["r", "rr", "slaves"] {
        let known = "private, rprivate, slave, rslave, shared, rshared, unbindable, runbindable";
        let text = format!("error: linux.rootfsPropagation: unknown word {word:?}, must be one of {known}");
        check(linux("rootfsPropagation", json!(word)), &text);
    }
    let mount = |place: &str| json!({"mounts": [{"destination": "/a", "type": "tmpfs"}, {"destination": place, "type": "tmpfs"}]});
    check(mount(""), "error: mounts[1].destination: is empty");
    for root in ["/", "//", "/./", "."] {
        check(mount(root), "error: mounts[1].destination: is the container's root, which no mount covers");
    }
    check(linux("maskedPaths", json!(["/a"])), r#"masked: ["/a"]"#);
    check(linux("maskedPaths", json!(["/a", "b"])), r#"error: linux.maskedPaths[1]: "b" is not an absolute path"#);
    for root in ["/", "//", "/."] {
        let text = format!("error: linux.maskedPaths[1]: {root} is the container's root directory");
        check(linux("maskedPaths", json!(["/a", root])), &text);
    }
    check(linux("readonlyPaths", json!(["/a"])), r#"read_only: ["/a"]"#);
    check(linux("readonlyPaths", json!([""])), r#"error: linux.readonlyPaths[0]: "" is not an absolute path"#);
    check(linux("personality", json!({"domain": "LINUX32"})), r#"personality: Some((8, "LINUX32"))"#);
    check(linux("memoryPolicy", json!({"mode": "MPOL_LOCAL"})), r#"memory: Some((4, Mask([]), "MPOL_LOCAL"))"#);
    let mounts = json!([{"destination": "/t", "type": "tmpfs"}]);
    let labelled = json!({"mounts": mounts, "linux": {"mountLabel": "label"}});
    check(labelled, r#"data: [("context", Some("label"))]"#);
}

#[test]
fn devices() {
    let device = |device: Value| json!({"linux": {"devices": [device]}});
    for kind in ["c", "b", "u", "p"] {
        let node = json!({"type": kind, "path": "/dev/x", "major": 1, "minor": 2, "fileMode": 384, "uid": 3, "gid": 4});
        let text = format!(
            r#"devices: [(0, Device {{ kind: "{kind}", path: "/dev/x", major: 1, minor: 2, file_mode: Some(384), uid: 3, gid: 4, user_owns: false, group_owns: false }})]"#
        );
        check(device(node), &text);
    }
    check(device(json!({"type": "c", "path": "/dev/ptmx"})), "devices: []");
    let text = "error: linux.devices[0].gid: 4294967295 is not between 0 and 4294967294";
    check(device(json!({"type": "c", "path": "/dev/x", "gid": u32::MAX})), text);
    let text = r#"error: linux.devices[0].type: unknown word "s", must be one of c, b, u, p"#;
    check(device(json!({"type": "s", "path": "/dev/x"})), text);
    for (major, minor, text) in [
        (4096, 0, "major: 4096 is not between 0 and 4095"),
        (1, 1 << 20, "minor: 1048576 is not between 0 and 1048575"),
    ] {
        let node = |kind: &str| device(json!({"type": kind, "path": "/dev/x", "major": major, "minor": minor}));
        check(node("b"), &format!("error: linux.devices[0].{text}"));
        check(node("p"), "devices: [(0, ");
    }
    for (path, above) in [("/dev/null/x", "/dev/null"), ("/dev/fd/1/x", "/dev/fd"), ("//dev/./tty/x", "//dev/./tty")] {
        let text =
            format!("error: linux.devices[0].path: {path} is below {above}, which is no directory in a container");
        check(device(json!({"type": "c", "path": path})), &text);
    }
    let text = "error: linux.devices[0].path: /dev/null is the null device, of type c with major 1 and minor 3, in every \
                container";
    check(device(json!({"type": "c", "path": "/dev/null", "major": 1, "minor": 5})), text);
    check(device(json!({"type": "p", "path": "/dev//null"})), text.replace("/dev/null", "/dev//null").as_str());
    check(device(json!({"type": "u", "path": "/dev/null", "major": 1, "minor": 3})), "devices: [(0, ");
    let text = "error: linux.devices[0].path: / is the container's root directory";
    check(device(json!({"type": "c", "path": "/", "major": 1, "minor": 3})), text);
    check(device(json!({"type": "c", "path": "/dev/net/tun"})), "devices: [(0, ");
    check(device(json!({"type": "c", "path": "/srv/fd/x"})), "devices: [(0, ");
    check(
        device(json!({"type": "c", "path": "dev/x"})),
        r#"error: linux.devices[0].path: "dev/x" is not an absolute path"#,
    );
}

#[test]
fn namespaces_by_type_and_by_path() {
    let namespaces = |list: Value| json!({"linux": {"namespaces": list}});
    let kinds = [
        ("pid", "PROCESS_ID"),
        ("network", "NETWORK"),
        ("ipc", "INTER_PROCESS_COMMUNICATION"),
        ("uts", "HOST_NAME_AND_NIS_DOMAIN_NAME"),
        ("cgroup", "CONTROL_GROUP"),
        ("time", "TIME"),
    ];
    for (kind, flag) in kinds {
        let all = format!("all: ThreadNameSpaceType({flag}");
        let found = planned(&namespaces(json!([{"type": kind}, {"type": "mount"}])));
        assert!(found.contains(&all) || found.contains(&format!("| {flag}")), "{kind}: {found}");
        let joined = planned(&namespaces(json!([{"type": kind, "path": "/n"}, {"type": "mount"}])));
        assert!(joined.contains(r#"path: "/n" }"#), "{kind}: {joined}");
        check(
            namespaces(json!([{"type": "mount"}, {"type": kind}, {"type": kind, "path": "/n"}])),
            &format!(r#"error: linux.namespaces[2].type: "{kind}" is there twice"#),
        );
    }
    check(
        namespaces(json!([{"type": "mount", "path": "/n"}])),
        r#"joined: [Joined { field: "linux.namespaces[0].path", kind: ThreadNameSpaceType(MOUNT), path: "/n" }]"#,
    );
    check(
        namespaces(json!([{"type": "mount", "path": "n"}])),
        r#"error: linux.namespaces[0].path: "n" is not an absolute path"#,
    );
    check(namespaces(json!([])), "all: ThreadNameSpaceType(0x0)");
    check(namespaces(json!([{"type": "user"}])), "error: linux.namespaces: a mount namespace of its own is required");
}

#[test]
fn clocks() {
    let clocks = |namespace: Value, offsets: Value| json!({"linux": {"namespaces": [{"type": "mount"}, namespace], "timeOffsets": offsets}});
    let offsets = || json!({"monotonic": {"secs": -5, "nanosecs": 7}, "boottime": {"secs": 9}});
    let time = json!({"type": "time"});
    check(clocks(time.clone(), offsets()), r#"time_offsets: "boottime 9 0\nmonotonic -5 7\n""#);
    check(
        clocks(time, json!({"boottime": {"nanosecs": 1_000_000_000}})),
        "error: linux.timeOffsets.boottime.nanosecs: 1000000000 is not between 0 and 999999999",
    );
    let text = r#"error: linux.timeOffsets: unknown word "tai", must be one of monotonic, boottime"#;
    check(clocks(json!({"type": "time"}), json!({"tai": {}})), text);
    check(
        clocks(json!({"type": "time"}), json!({"monotonic": {"secs": i64::MIN}})),
        "error: linux.timeOffsets.monotonic.secs: -9223372036854775808 is not between -9223372036 and 9223372036",
    );
    check(clocks(json!({"type": "uts"}), offsets()), "error: linux.timeOffsets: needs a time namespace");
    check(
        clocks(json!({"type": "time", "path": "/t"}), offsets()),
        "error: linux.timeOffsets: needs a new time namespace, not one to join",
    );
}

#[test]
fn kernel_parameters() {
    let parameter = |name: &str| json!({"linux": {"sysctl": {name: "1"}}});
    check(
        parameter("kernel.domainname"),
        r#"sysctl: [Parameter { name: "kernel.domainname", path: "kernel/domainname", value: "1" }]"#,
    );
    check(parameter("kernel.hostname"), "error: linux.sysctl[\"kernel.hostname\"]: contradicts hostname");
    for name in ["kernel.panic", "vm.swappiness", "", "net", "net."] {
        let text = format!("error: linux.sysctl[{name:?}]: sysctl {name:?} is not in a separate kernel namespace");
        check(parameter(name), &text);
    }
    let text =
        r#"error: linux.sysctl["user.max_user_namespaces"]: sysctl "user.max_user_namespaces" is not in a separate "#;
    check(
        parameter("user.max_user_namespaces"),
        &format!("{text}kernel namespace: it needs the user namespace in linux.namespaces"),
    );
}

#[test]
fn hooks() {
    for name in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        let hook = |hook: Value| json!({"hooks": {name: [{"path": "/bin/true", "timeout": 5}, hook]}});
        check(hook(json!({"path": "/bin/false"})), "argv");
        check(hook(json!({"path": "x"})), &format!(r#"error: hooks.{name}[1].path: "x" is not an absolute path"#));
        check(
            hook(json!({"path": "/x", "timeout": -1})),
            &format!("error: hooks.{name}[1].timeout: -1 seconds are not 1 or more"),
        );
    }
}
