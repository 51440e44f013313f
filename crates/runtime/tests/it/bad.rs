//! Bundles that are broken in every way: each is refused in words that name what is wrong, and leaves nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};
use testkit::mutate::{Mutator, rounds};

use super::fixture::{Bundle, Done};
use super::leftovers::{adopt_orphans, assert_nothing_left};

/// Nothing here takes a second; but others may want the machine.
const WITHIN: Duration = Duration::from_secs(60);

/// A configuration with nearly every field that there is.
fn rich() -> Bundle {
    let mut bundle = Bundle::new(&["true"]);
    let own = bundle.config.as_object_mut().unwrap();
    own["process"]["user"] = json!({"uid": 0, "gid": 0, "umask": 18, "additionalGids": [1, 2]});
    own["process"]["rlimits"] = json!([{"type": "RLIMIT_CORE", "hard": 0, "soft": 0}]);
    own["process"]["noNewPrivileges"] = json!(true);
    own["process"]["oomScoreAdj"] = json!(1);
    own["process"]["scheduler"] = json!({"policy": "SCHED_OTHER", "nice": 1});
    own["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 4});
    own["process"]["consoleSize"] = json!({"height": 1, "width": 2});
    own.insert("domainname".into(), json!("domain"));
    own.insert(
        "hooks".into(),
        json!({"createRuntime": [{"path": "/bin/true", "args": ["true"], "env": ["A=1"], "timeout": 30}]}),
    );
    own["root"]["readonly"] = json!(false);
    let linux = own["linux"].as_object_mut().unwrap();
    linux.insert(
        "devices".into(),
        json!([{"type": "c", "path": "/dev/extra", "major": 1, "minor": 3, "fileMode": 438, "uid": 0, "gid": 0}]),
    );
    linux.insert("sysctl".into(), json!({"net.ipv4.ip_forward": "0"}));
    linux.insert("rootfsPropagation".into(), json!("rprivate"));
    linux.insert("personality".into(), json!({"domain": "LINUX"}));
    linux["resources"] = json!({
        "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}],
        "pids": {"limit": 64},
        "memory": {"limit": 67_108_864, "reservation": 33_554_432, "swap": 134_217_728, "disableOOMKiller": false},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0"},
    });
    linux["seccomp"]["flags"] = json!(["SECCOMP_FILTER_FLAG_LOG"]);
    linux["seccomp"]["syscalls"][0]["args"] = json!([{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_EQ"}]);
    bundle
}

/// Writes the text as the bundle's, creates a container of it, and takes it away if that worked. Whatever the text is, it
/// takes a bounded time, nobody panics, and nothing is left.
fn attempt(bundle: &Bundle, text: &[u8]) -> Done {
    let done = bounded(bundle, &["create", &bundle.id], Some(text));
    assert!(matches!(done.code, Some(0 | 1)), "{done:?}");
    if done.code == Some(0) {
        let deleted = bounded(bundle, &["delete", "--force", &bundle.id], None);
        assert_eq!(deleted.code, Some(0), "{deleted:?}");
    } else {
        assert!(done.stderr.starts_with("longshore-runtime create failed: "), "{done:?}");
    }
    assert_nothing_left(bundle);
    done
}

fn bounded(bundle: &Bundle, words: &[&str], text: Option<&[u8]>) -> Done {
    let streams = ["stdout", "stderr"].map(|name| bundle.path(name));
    let mut command = bundle.command(words);
    if let Some(text) = text {
        fs::write(bundle.path("config.json"), text).unwrap();
    }
    let [stdout, stderr] = streams.each_ref().map(|path| Stdio::from(fs::File::create(path).unwrap()));
    let mut child = command.stdout(stdout).stderr(stderr).spawn().unwrap();
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
    let ended = sys::wait::readable(std::os::fd::AsFd::as_fd(&pidfd), Instant::now() + WITHIN).unwrap();
    if !ended {
        child.kill().unwrap();
    }
    let code = child.wait().unwrap().code();
    let [stdout, stderr] = streams.map(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned());
    assert!(ended, "{words:?} takes too long: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    Done { code, stdout, stderr }
}

/// The names of all fields, and the values' pointers in the document.
fn fields(value: &Value, name: &str, pointer: &str, all: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                let full = match name {
                    "" => key.clone(),
                    // Names of the writer's choice.
                    name if key.contains('.') => format!("{name}[{key:?}]"),
                    name => format!("{name}.{key}"),
                };
                let escaped = key.replace('~', "~0").replace('/', "~1");
                fields(member, &full, &format!("{pointer}/{escaped}"), all);
            }
        }
        Value::Array(members) => {
            for (index, member) in members.iter().enumerate() {
                fields(member, &format!("{name}[{index}]"), &format!("{pointer}/{index}"), all);
            }
        }
        _ => {}
    }
    if !pointer.is_empty() {
        all.push((name.to_owned(), pointer.to_owned()));
    }
}

#[test]
fn privileged_a_value_of_the_wrong_type_is_named_with_its_field() {
    adopt_orphans();
    let bundle = rich();
    assert_eq!(attempt(&bundle, bundle.config.to_string().as_bytes()).code, Some(0));
    let mut all = Vec::new();
    fields(&bundle.config, "", "", &mut all);
    assert!(all.len() > 100, "{}", all.len());
    for (name, pointer) in &all {
        let good = bundle.config.pointer(pointer).unwrap();
        let numbers = [json!(-1), json!(1.5), json!(u32::MAX), json!(u64::MAX)];
        for bad in [json!(true), json!("word"), json!([[]]), json!({"a": {}})].into_iter().chain(numbers) {
            let same = std::mem::discriminant(good) == std::mem::discriminant(&bad);
            if same && !good.is_number() {
                continue;
            }
            let mut config = bundle.config.clone();
            *config.pointer_mut(pointer).unwrap() = bad.clone();
            let done = attempt(&bundle, config.to_string().as_bytes());
            // A number may be a good one for its field; and what it breaks may be the field beside it.
            let named = done.stderr.contains(name) || same && done.stderr.contains(near(name));
            assert!(named || same && done.code == Some(0), "{name} = {bad}: {done:?}");
        }
    }
}

#[test]
fn privileged_a_value_of_the_wrong_type_is_named_for_an_exec_too() {
    let mut bundle = rich();
    let process = bundle.config["process"].clone();
    bundle.config["process"]["args"] = json!(["sleep", "1000"]);
    bundle.ok(&["run", "-d"]);
    let mut all = Vec::new();
    fields(&process, "", "", &mut all);
    for (name, pointer) in &all {
        let good = process.pointer(pointer).unwrap();
        for bad in [json!(true), json!("a\0b"), json!(-1.5), json!(u64::MAX), json!([[]]), json!({"a": {}})] {
            let same = std::mem::discriminant(good) == std::mem::discriminant(&bad);
            if same && !bad.is_string() {
                continue;
            }
            let mut changed = process.clone();
            *changed.pointer_mut(pointer).unwrap() = bad.clone();
            fs::write(bundle.path("process.json"), changed.to_string()).unwrap();
            let done = bounded(&bundle, &["exec", "-p", "process.json", &bundle.id], None);
            let named = done.code == Some(255) && done.stderr.contains(name);
            assert!(named, "{name} = {bad}: {done:?}");
        }
    }
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}

/// What else a sentence may name for a number that is out of range.
fn near(name: &str) -> &str {
    match name {
        // The limit that cannot be less.
        "linux.resources.memory.limit" => "linux.resources.memory.swap",
        _ => "\0",
    }
}

#[test]
fn privileged_files_that_are_no_configuration_are_refused() {
    adopt_orphans();
    let bundle = rich();
    let good = bundle.config.to_string();
    let with = |name: &str, text: &str| good.replacen(name, &format!("{text}, {name}"), 1).into_bytes();
    let deep = |open: &str, close: &str| [open.repeat(200_000), close.repeat(200_000)].concat().into_bytes();
    let huge = "x".repeat(100 << 20);
    for (text, said) in [
        (Vec::new(), "config.json is empty"),
        (b"{".to_vec(), "EOF while parsing"),
        (good.as_bytes()[..good.len() - 1].to_vec(), "EOF while parsing"),
        (format!("{good}{good}").into_bytes(), "trailing characters"),
        (format!("\u{feff}{good}").into_bytes(), "expected value"),
        (b"null".to_vec(), "config.json"),
        (b"[]".to_vec(), "config.json: invalid type: array, expected an object"),
        (b"7".to_vec(), "config.json"),
        (b"\"text\"".to_vec(), "config.json"),
        (deep("[", "]"), "recursion limit exceeded"),
        (deep("{\"a\":", "}"), "recursion limit exceeded"),
        (with("\"hostname\"", "\"x\": 1e999"), "number out of range"),
        (with("\"hostname\"", "\"x\": \"\\ud800\""), "line 1"),
        ([&good.as_bytes()[..20], b"\xff\xfe", &good.as_bytes()[20..]].concat(), "line 1"),
        (with("\"hostname\"", &format!("\"x\": \"{huge}\"")), "is larger than 16777216 bytes"),
    ] {
        let done = attempt(&bundle, &text);
        let shown = String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned();
        assert!(done.code == Some(1) && done.stderr.contains(said), "{shown}: {said:?} is not said: {done:?}");
    }
    // Of two values of one name runc takes the last, or a mixture of both.
    let done = attempt(&bundle, &with("\"process\"", "\"process\": {}"));
    assert!(done.stderr.contains("config.json: \"process\" is there twice at line 1 column "), "{done:?}");
    // What nobody knows is passed over, however long.
    let unknown = with("\"hostname\"", "\"unknown\": {\"process\": [[[[]]]]}");
    assert_eq!(attempt(&bundle, &unknown).code, Some(0));
    let long = with("\"hostname\"", &format!("\"unknown\": \"{}\"", &huge[..10 << 20]));
    assert_eq!(attempt(&bundle, &long).code, Some(0));
}

#[test]
fn privileged_what_is_no_file_is_not_waited_for() {
    adopt_orphans();
    let bundle = Bundle::new(&["true"]);
    let path = bundle.path("config.json");
    let refused = |said: &str| {
        let mut command = bundle.command(&["create", &bundle.id]);
        fs::remove_file(&path).unwrap();
        match said {
            "is not a regular file" => {
                rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap()
            }
            "too many levels" => symlink("config.json", &path).unwrap(),
            _ => {}
        }
        let done = command.output().unwrap();
        let text = String::from_utf8(done.stderr).unwrap();
        assert!(done.status.code() == Some(1) && text.contains(said), "{text}");
        let _ = fs::remove_file(&path);
        assert_nothing_left(&bundle);
    };
    refused("no such file");
    refused("too many levels");
    refused("is not a regular file");
}

/// Values that no type forbids.
#[test]
fn privileged_values_that_cannot_be_are_named() {
    adopt_orphans();
    let bundle = rich();
    fs::write(bundle.path("rootfs/file"), "").unwrap();
    symlink("loop", bundle.path("rootfs/loop")).unwrap();
    symlink("ring/a", bundle.path("rootfs/ring")).unwrap();
    let mount = |destination: &str| json!([{"destination": destination, "type": "tmpfs", "source": "tmpfs"}]);
    let bound = |destination: &str, source: &str, option: &str| json!({"destination": destination, "type": "bind", "source": source, "options": [option]});
    let mut mapped = bound("/m", "/etc", "rbind");
    mapped["uidMappings"] = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
    let copied = json!({"destination": "/file", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]});
    let remounted = json!({"destination": "/nothing", "type": "tmpfs", "source": "tmpfs", "options": ["remount"]});
    let long = "a/".repeat(3000);
    for (pointer, bad, said) in [
        ("/ociVersion", json!("9.9.9"), "ociVersion: \"9.9.9\" is not supported, only 1.0.0 to 1."),
        ("/ociVersion", json!(null), "ociVersion: is missing"),
        ("/root/path", json!("nosuch"), "root.path"),
        ("/root/path", json!("config.json"), "root.path"),
        ("/root/path", json!("rootfs/loop"), "root.path"),
        ("/root/path", json!("root\0fs"), "root.path"),
        ("/root/path", json!(""), "root.path: is empty"),
        ("/root", json!({}), "root.path: is missing"),
        ("/root", json!(null), "root: is missing"),
        ("/process", json!(null), "process: is missing"),
        ("/process/cwd", json!(null), "process.cwd: is missing"),
        ("/process/cwd", json!(""), "process.cwd: is empty"),
        ("/process/args", json!(null), "process.args: is missing"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/process/cwd", json!("/file"), "process.cwd: chdir to cwd (\"/file\")"),
        ("/process/cwd", json!("/loop/x"), "process.cwd: mkdir /loop/x"),
        ("/process/cwd", json!("/\0"), "process.cwd"),
        ("/process/args", json!([]), "process.args"),
        ("/process/args", json!(["a\0b"]), "process.args"),
        ("/process/env", json!(["A=\0"]), "process.env"),
        ("/process/env", json!(["A=1", "bare"]), "process.env[1]: \"bare\": invalid environment variable: missing '='"),
        ("/process/user/uid", json!(u32::MAX), "process.user.uid: 4294967295 is not between 0 and 4294967294"),
        (
            "/process/user/additionalGids/1",
            json!(u32::MAX),
            "process.user.additionalGids[1]: 4294967295 is not between",
        ),
        ("/linux/devices/0/uid", json!(u32::MAX), "linux.devices[0].uid: 4294967295 is not between 0 and 4294967294"),
        ("/process/oomScoreAdj", json!(5000), "process.oomScoreAdj: 5000 is not between -1000 and 1000"),
        ("/mounts/0/options", json!(["size=1"]), "mounts[0].options: proc on /proc refuses \"size=1\""),
        ("/mounts/1/options", json!(["idmap"]), "mounts[1].options: \"idmap\" is no option of"),
        ("/mounts/2/options", json!(["tmpcopyup"]), "mounts[2].options: \"tmpcopyup\" is no option of"),
        ("/mounts/1", bound("/m", "/nosuch", "rbind"), "mounts[1].source: /nosuch: no such file or directory"),
        ("/mounts/1", bound("/m", "", "rbind"), "mounts[1].source: is empty"),
        ("/mounts/1", bound("", "/etc", "rbind"), "mounts[1].destination: is empty"),
        ("/mounts/1", bound("/m", "/etc", "size=1"), "mounts[1].options: \"size=1\" is no option of a bind mount"),
        ("/mounts/1", bound("/m", "/etc", "norw"), "mounts[1].options: \"norw\" is no option of a bind mount"),
        ("/mounts/1", mapped, "mounts[1].gidMappings: is empty, and an id-mapped mount needs both"),
        (
            "/process/rlimits/0/type",
            json!("RLIMIT_NOTHING"),
            "process.rlimits[0].type: unknown word \"RLIMIT_NOTHING\", must",
        ),
        (
            "/process/rlimits/0",
            json!({"type": "RLIMIT_NOFILE", "soft": 0, "hard": 0}),
            "process.rlimits[0].soft: RLIMIT_NOFILE 0 is too few: 5 are open until the program is executed",
        ),
        ("/hostname", json!("h".repeat(70)), "hostname: is 70 bytes long, and 64 are the most"),
        ("/hostname", json!("a\0b"), "hostname"),
        ("/mounts", mount("/loop"), "mounts[0].destination: /loop: take over what is covered: "),
        ("/mounts", mount("/ring/x"), "mounts[0].destination: /ring/x: "),
        ("/mounts", mount("/file/x"), "mounts[0].destination: /file/x: "),
        (
            "/mounts",
            mount("/file"),
            "mounts[0].destination: /file is no directory, and what is mounted is one: not a directory",
        ),
        ("/mounts", mount("/a\0b"), "mounts[0].destination"),
        ("/mounts", mount(&format!("/{long}")), "mounts[0].destination: /a/a/a"),
        ("/mounts/0/type", json!("nosuchfs"), "mounts[0].type: /proc cannot be mounted because it is not of type proc"),
        (
            "/mounts/1",
            json!({"destination": "/dev", "type": "overlay", "source": "overlay", "options": ["upperdir=/u", "workdir=/w"]}),
            "mounts[1].options: needs lowerdir=, the layers of the overlay",
        ),
        (
            "/mounts/2",
            bound("/file", "/etc", "rbind"),
            "mounts[2].destination: /file is no directory, and mounts[2].source /etc is one: not a directory",
        ),
        (
            "/mounts/2",
            bound("/dev", "/etc/passwd", "bind"),
            "mounts[2].destination: /dev is a directory, and mounts[2].source /etc/passwd is none: not a directory",
        ),
        ("/mounts/2", copied, "mounts[2].destination: /file: take over what is covered: not a directory"),
        ("/mounts/2", remounted, "mounts[2].destination: remount /nothing: no such file or directory"),
        (
            "/mounts/1/type",
            json!("nosuchfs"),
            "mounts[1].type: \"nosuchfs\" is no file system of this kernel: no such device",
        ),
        ("/mounts/1/options", json!(["size=banana"]), "mounts[1].options: tmpfs on /dev refuses \"size=banana\""),
        (
            "/mounts/1/options",
            json!(["nosuchoption=1"]),
            "mounts[1].options: tmpfs on /dev refuses \"nosuchoption=1\" (",
        ),
        (
            "/linux/namespaces/0/type",
            json!("galaxy"),
            "linux.namespaces[0].type: unknown word \"galaxy\", must be one of",
        ),
        ("/linux/namespaces/0/path", json!("/nosuch"), "linux.namespaces[0].path: open /nosuch: no such file"),
        (
            "/linux/namespaces/0/path",
            json!("/proc/self/ns/net"),
            "linux.namespaces[0].path: /proc/self/ns/net is a namespace of kind network, not of kind pid",
        ),
        ("/linux/namespaces/0/path", json!("/dev/null"), "linux.namespaces[0].path: /dev/null is no namespace"),
        (
            "/linux/namespaces/2/path",
            json!("/proc/self/ns/uts"),
            "linux.namespaces[2].path: /proc/self/ns/uts is a namespace of kind uts, not of kind ipc",
        ),
        ("/linux/namespaces/1/path", json!("/a\0b"), "linux.namespaces[1].path"),
        ("/linux/namespaces", json!([]), "hostname: needs a uts namespace in linux.namespaces"),
        ("/linux/cgroupsPath", json!("/"), "linux.cgroupsPath"),
        ("/linux/cgroupsPath", json!(".."), "linux.cgroupsPath"),
        ("/linux/cgroupsPath", json!("/a/../../b"), "linux.cgroupsPath"),
        ("/linux/cgroupsPath", json!("/a\0b"), "linux.cgroupsPath"),
        ("/linux/devices/0/type", json!("x"), "linux.devices[0].type: unknown word \"x\", must be one of c, b, u, p"),
        ("/linux/devices/0/major", json!(4096), "linux.devices[0].major: 4096 is not between 0 and 4095"),
        ("/linux/devices/0/minor", json!(-1), "linux.devices[0].minor: -1 is not between 0 and 4294967295"),
        ("/linux/devices/0/path", json!("/dev/null/x"), "linux.devices[0].path: /dev/null/x is below /dev/null"),
        ("/linux/devices/0/path", json!("/dev/pts"), "linux.devices[0].path: make /dev/pts: file exists"),
        ("/linux/devices/0/path", json!("relative"), "linux.devices[0].path"),
        ("/linux/devices/0/path", json!("/loop/x"), "linux.devices[0].path: make /loop/x: "),
        (
            "/linux/sysctl",
            json!({"kernel.panic": "1"}),
            "linux.sysctl[\"kernel.panic\"]: sysctl \"kernel.panic\" is not in",
        ),
        (
            "/linux/sysctl",
            json!({"net.ipv4.nothing": "1"}),
            "linux.sysctl[\"net.ipv4.nothing\"]: write \"1\" to /proc/sys/net/ipv4/nothing: no such file or directory",
        ),
        (
            "/linux/sysctl",
            json!({"net.ipv4.ip_forward": "banana"}),
            "linux.sysctl[\"net.ipv4.ip_forward\"]: write \"banana\" to /proc/sys/net/ipv4/ip_forward: invalid argument",
        ),
        ("/linux/sysctl", json!({"net.../../kernel.panic": "1"}), "kernel.panic"),
        ("/linux/maskedPaths", json!(["/loop"]), "linux.maskedPaths[0]: mask /loop: too many levels"),
        ("/linux/readonlyPaths", json!(["/ring/x"]), "linux.readonlyPaths[0]: make /ring/x read-only: too many levels"),
        (
            "/linux/readonlyPaths",
            json!(["/nothing", "/file/x"]),
            "linux.readonlyPaths[1]: make /file/x read-only: not a directory",
        ),
        ("/linux/maskedPaths", json!(["/nothing", "/file/x"]), "linux.maskedPaths[1]: mask /file/x: not a directory"),
        (
            "/linux/devices/0",
            json!({"type": "c", "path": "/dev/null", "major": 1, "minor": 5}),
            "linux.devices[0].path: /dev/null is the null device, of type c with major 1 and minor 3, in every container",
        ),
        (
            "/linux/rootfsPropagation",
            json!("sideways"),
            "linux.rootfsPropagation: unknown word \"sideways\", must be one of private, rprivate, slave",
        ),
        (
            "/linux/seccomp/architectures",
            json!(["SCMP_ARCH_PDP11"]),
            "linux.seccomp.architectures[0]: string SCMP_ARCH_PDP11 is not a valid arch for seccomp, must be one of",
        ),
        (
            "/linux/seccomp/syscalls/0/args/0/index",
            json!(7),
            "linux.seccomp.syscalls[0].args[0].index: 7 is not between 0 and 5",
        ),
        (
            "/linux/resources/memory/limit",
            json!(2_f64.powi(70)),
            "linux.resources.memory.limit: 1.181e21 is not between -9223372036854775808 and 9223372036854775807",
        ),
        ("/linux/resources/memory/limit", json!(1.5), "linux.resources.memory.limit: 1.5 is not a whole number"),
        (
            "/linux/resources/hugepageLimits",
            json!([{"pageSize": "2MB", "limit": 0}, {"pageSize": "3MB", "limit": 0}]),
            "linux.resources.hugepageLimits[1].pageSize: ",
        ),
        (
            "/linux/resources/blockIO",
            json!({"weightDevice": [{"major": 8, "minor": 0, "weight": 10}, {"major": 8, "minor": 16, "weight": 5}]}),
            "linux.resources.blockIO.weightDevice[1].weight: 5 is not between 10 and 1000",
        ),
        (
            "/linux/resources/blockIO",
            json!({"throttleReadBpsDevice": [{"major": 4000, "minor": 77, "rate": 1}]}),
            "linux.resources.blockIO.throttleReadBpsDevice[0]: ",
        ),
        ("/linux/resources/rdma", json!({"no such": {"hcaHandles": 1}}), "linux.resources.rdma[\"no such\"]: "),
        ("/linux/resources/unified", json!({"nosuch.max": "1"}), "linux.resources.unified[\"nosuch.max\"]: "),
        (
            "/linux/resources/devices/1/major",
            json!(-7),
            "linux.resources.devices[1].major: -7 is not -1, for all, or the number of a device",
        ),
        ("/linux/resources/memory/limit", json!(1), "linux.resources.memory"),
        ("/linux/resources/memory/swap", json!(1), "linux.resources.memory.swap: 1 bytes of memory and swap together"),
        ("/linux/resources/cpu/quota", json!(5), "linux.resources.cpu.quota: 5 is not -1, for no limit, or 1000"),
        (
            "/linux/resources/cpu/burst",
            json!(60_000),
            "linux.resources.cpu.burst: 60000 microseconds are more than linux.resources.cpu.quota (50000)",
        ),
        ("/linux/resources/cpu/mems", json!("77"), "which takes a list of the memory nodes 0"),
        ("/linux/resources/cpu/cpus", json!("9999"), "which takes a list of the processors 0"),
        ("/linux/resources/cpu/cpus", json!("banana"), "linux.resources.cpu.cpus"),
        ("/linux/resources/cpu/cpus", json!(" "), "linux.resources.cpu.cpus: \" \" is not a list, as 0-3,7"),
        ("/linux/resources/cpu/mems", json!("\n"), "linux.resources.cpu.mems: \"\\n\" is not a list, as 0-3,7"),
        ("/linux/resources/cpu/period", json!(1), "linux.resources.cpu.period: 1 is not between 1000 and 1000000"),
        ("/linux/resources/devices/1/access", json!("xyz"), "linux.resources.devices[1].access: \"xyz\" is not"),
        ("/linux/resources/devices/1/type", json!("q"), "linux.resources.devices[1].type: \"q\" is not"),
        ("/hooks/createRuntime/0/path", json!("relative"), "hooks.createRuntime[0].path"),
        ("/hooks/createRuntime/0/path", json!("/bin"), "hooks.createRuntime[0]: run /bin: is a directory"),
        ("/hooks/createRuntime/0/path", json!("/nosuch"), "hooks.createRuntime[0]: run /nosuch: no such file"),
        (
            "/hooks/createRuntime/0/path",
            json!("/bin/false"),
            "hooks.createRuntime[0]: /bin/false ended with status 1\n",
        ),
        (
            "/hooks/createRuntime/0",
            json!({"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}),
            "hooks.createRuntime[0].timeout: /bin/sleep took longer than 1 s and was killed",
        ),
        ("/hooks/createRuntime/0/args", json!(["a\0"]), "hooks.createRuntime[0].args[0]"),
        ("/hooks/createRuntime/0/timeout", json!(0), "hooks.createRuntime[0].timeout: 0 seconds are not 1 or more"),
        ("/hooks/preStart", json!([]), "hooks.preStart: unknown field, must be written \"prestart\""),
        ("/linux/CgroupsPath", json!("/x"), "linux.CgroupsPath: unknown field, must be written \"cgroupsPath\""),
        ("/annotations", json!({"a": 1}), "annotations.a"),
        ("/annotations", json!({"a.b": 1}), "annotations[\"a.b\"]: invalid type: integer `1`, expected a string"),
    ] {
        let mut config = bundle.config.clone();
        let (above, name) = pointer.rsplit_once('/').unwrap();
        match config.pointer_mut(above).unwrap() {
            Value::Object(fields) => drop(fields.insert(name.to_owned(), bad.clone())),
            other => other[name.parse::<usize>().unwrap()] = bad.clone(),
        }
        let done = attempt(&bundle, config.to_string().as_bytes());
        assert!(
            done.code == Some(1) && done.stderr.contains(said),
            "{pointer} = {bad}: {said:?} is not said: {done:?}"
        );
    }
}

#[test]
fn privileged_ids_that_cannot_be_mapped_are_named() {
    adopt_orphans();
    let mut bundle = rich();
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    let range = |inside: u32, outside: u32, size: u32| json!({"containerID": inside, "hostID": outside, "size": size});
    let good = json!([range(0, 100_000, 1000)]);
    for (field, ids, said) in [
        (
            "uidMappings",
            json!([range(0, 0, 10), range(5, 100, 10)]),
            "linux.uidMappings[1].containerID: 5 to 14 overlap linux.uidMappings[0]",
        ),
        (
            "gidMappings",
            json!([range(0, 7, 1), range(1, 7, 1)]),
            "linux.gidMappings[1].hostID: 7 to 7 overlap linux.gidMappings[0]",
        ),
        ("uidMappings", json!([range(0, 0, 0)]), "linux.uidMappings[0].size: 0 is no range"),
        (
            "gidMappings",
            json!([range(0, 0, 1), range(u32::MAX, 5, 1)]),
            "linux.gidMappings[1].containerID: 1 ids from 4294967295 on go beyond the last one",
        ),
        ("uidMappings", json!([range(1, 0, 1)]), "linux.uidMappings: maps no id to 0, as whom the container is made"),
        ("gidMappings", json!([range(1, 0, 1)]), "linux.gidMappings: maps no id to 0, as whom the container is made"),
        ("uidMappings", json!([]), "linux.uidMappings: is empty, and a new user namespace needs ids"),
        (
            "uidMappings",
            json!([{"containerID": -1}]),
            "linux.uidMappings[0].containerID: -1 is not between 0 and 4294967295",
        ),
    ] {
        let mut config = bundle.config.clone();
        (config["linux"]["uidMappings"], config["linux"]["gidMappings"]) = (good.clone(), good.clone());
        config["linux"][field] = ids.clone();
        let done = attempt(&bundle, config.to_string().as_bytes());
        assert!(done.code == Some(1) && done.stderr.contains(said), "{field} = {ids}: {said:?} is not said: {done:?}");
    }
}

/// Parts that would lead out of the bundle, or into what others have, if they were carried out.
fn is_harmless(config: &Value, bundle: &Bundle) -> bool {
    let text = |pointer: &str| config.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_own_cgroup = text("/linux/cgroupsPath") == bundle.config["linux"]["cgroupsPath"];
    // A hook's own file system is the host's.
    let hooks = config.get("hooks").is_none_or(|hooks| *hooks == bundle.config["hooks"]);
    is_own_cgroup && text("/root/path") == "rootfs" && hooks
}

fn mutate(bundle: &Bundle, mutator: &mut Mutator) {
    let mut config = bundle.config.clone();
    for _ in 0..=mutator.below(3) {
        config = mutator.json(&config);
    }
    let mut text = config.to_string().into_bytes();
    if mutator.once_in(6) {
        text = mutator.bytes(&text);
    }
    let read: Option<Value> = serde_json::from_slice(&text).ok();
    if read.is_none_or(|config| is_harmless(&config, bundle)) {
        attempt(bundle, &text);
    }
}

/// Always the same, for everyday; `privileged_slow_bundles_of_any_shape_are_answered` goes on where this ends.
#[test]
fn privileged_changed_bundles_are_answered_and_leave_nothing() {
    adopt_orphans();
    let bundle = rich();
    for seed in 0..300 {
        mutate(&bundle, &mut Mutator::new(seed));
    }
}

#[test]
fn privileged_slow_bundles_of_any_shape_are_answered() {
    adopt_orphans();
    let bundle = rich();
    rounds(|mutator| mutate(&bundle, mutator));
}

#[test]
fn privileged_a_filter_that_forbids_every_call_ends_the_container() {
    adopt_orphans();
    let mut bundle = Bundle::new(&["true"]);
    for (action, text) in [
        (
            "SCMP_ACT_ERRNO",
            "linux.seccomp.defaultAction: the filter has to allow what comes before the program: the container's \
             process ended with status 139 before it was ready",
        ),
        (
            "SCMP_ACT_KILL",
            "linux.seccomp.defaultAction: the filter has to allow what comes before the program: the container's \
             process ended with status 159 before it was ready",
        ),
        (
            "SCMP_ACT_KILL_PROCESS",
            "linux.seccomp.defaultAction: the filter has to allow what comes before the program: the container's \
             process ended with status 159 before it was ready",
        ),
    ] {
        bundle.config["linux"]["seccomp"] = json!({ "defaultAction": action });
        let done = bounded(&bundle, &["run", &bundle.id], Some(bundle.config.to_string().as_bytes()));
        assert!(done.code == Some(1) && done.stderr.contains(text), "{action}: {done:?}");
        assert_nothing_left(&bundle);
    }
}
