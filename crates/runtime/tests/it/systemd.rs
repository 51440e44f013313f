//! Containers as scopes of the system's systemd, with either version of cgroups. It needs a machine that systemd has
//! started, which nobody else uses: `cargo xtask vm-test` starts one for each version.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use cgroup::{Cgroup, Controller, Hierarchies, Version};
use serde_json::{Value, json};

use super::criu::{COUNTER, FILES, assert_gone, bundle as with_criu, running, wait_for_more, words};
use super::fixture::{Bundle, wait_until};

/// The flag that makes a container a scope.
const SYSTEMD: &str = "--systemd-cgroup";

/// A bundle whose container is the scope `p-ID.scope` of `a-b.slice`.
fn scoped(mut bundle: Bundle) -> Bundle {
    assert!(Path::new("/run/systemd/private").exists(), "run `cargo xtask vm-test`");
    bundle.config["linux"]["cgroupsPath"] = json!(format!("a-b.slice:p:{}", bundle.id));
    bundle
}

fn unit(bundle: &Bundle) -> String {
    format!("p-{}.scope", bundle.id)
}

fn path(bundle: &Bundle) -> PathBuf {
    Path::new("/a.slice/a-b.slice").join(unit(bundle))
}

fn group(path: &Path) -> Cgroup {
    Cgroup::open(&Hierarchies::detect().unwrap(), path).unwrap()
}

fn systemctl(words: &[&str]) -> String {
    let done = Command::new("systemctl").args(words).output().unwrap();
    assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// A property of a unit, as systemd tells it.
fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", "--value", "-p", name, unit]).trim().to_owned()
}

/// Whether neither systemd nor any hierarchy knows of the scope.
fn assert_no_scope(unit: &str, path: &Path) {
    wait_until("no unit", || property(unit, "LoadState") == "not-found" && property(unit, "ActiveState") == "inactive");
    let left = group(path);
    assert!(left.directories.is_empty(), "{left:?}");
    // Also where no controller of ours is.
    let below = path.strip_prefix("/").unwrap();
    let mounts = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
    let left: Vec<_> = mounts.map(|mount| mount.join(below)).filter(|place| place.exists()).collect();
    assert!(left.is_empty() && !Path::new("/sys/fs/cgroup").join(below).exists(), "{left:?}");
}

/// What is in a file of the scope's, by its names in both versions.
fn limit(group: &Cgroup, controller: Controller, v1: &str, v2: &str) -> String {
    let file = if group.version == Version::V1 { v1 } else { v2 };
    let (_, directory) = group.directories.iter().find(|(known, _)| known.contains(&controller)).unwrap();
    fs::read_to_string(directory.join(file)).unwrap().trim().to_owned()
}

/// Whether a process is in the cgroup wherever systemd looks, and wherever there is a limit.
fn assert_inside(pid: &str, group: &Cgroup) {
    assert_in(pid, group, &["name=systemd", "memory", "pids", "cpu", "cpuacct", "devices", "freezer", "blkio", ""]);
}

/// The same in these hierarchies of version 1, the last of which is that of version 2 in a hybrid.
fn assert_in(pid: &str, group: &Cgroup, version_1: &[&str]) {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path_of = |name: &str| {
        let line = text.lines().find(|line| line.split(':').nth(1).is_some_and(|n| n.split(',').any(|n| n == name)));
        line.and_then(|line| line.splitn(3, ':').nth(2)).map(PathBuf::from)
    };
    let names = match group.version {
        Version::V1 => version_1,
        Version::V2 => &[""][..],
    };
    for name in names {
        assert_eq!(path_of(name).as_deref(), Some(group.path.as_path()), "{name}: {text}");
    }
}

#[test]
fn privileged_vm_a_container_is_a_scope_with_its_limits() {
    let mut bundle = scoped(Bundle::new(&["sleep", "1000"]));
    bundle.config["linux"]["resources"]["memory"] = json!({"limit": 67108864});
    bundle.config["linux"]["resources"]["cpu"] = json!({"shares": 512, "quota": 25000, "period": 50000, "cpus": "0"});
    bundle.config["annotations"] = json!({"org.systemd.property.TimeoutStopSec": "uint64 7"});
    bundle.ok(&[SYSTEMD, "run", "-d"]);
    let (unit, group) = (unit(&bundle), group(&path(&bundle)));
    let v1 = group.version == Version::V1;
    let (memory, weight, shares) =
        if v1 { ("MemoryLimit", "CPUShares", "512") } else { ("MemoryMax", "CPUWeight", "59") };
    for (name, value) in [
        ("ActiveState", "active"),
        ("Slice", "a-b.slice"),
        ("Delegate", "yes"),
        ("ControlGroup", path(&bundle).to_str().unwrap()),
        (memory, "67108864"),
        (weight, shares),
        ("TasksMax", "64"),
        ("CPUQuotaPerSecUSec", "500ms"),
        ("CPUQuotaPeriodUSec", "50ms"),
        ("DevicePolicy", "strict"),
        ("TimeoutStopUSec", "7s"),
    ] {
        assert_eq!(property(&unit, name), value, "{name}");
    }
    let limits = || {
        [
            limit(&group, Controller::Memory, "memory.limit_in_bytes", "memory.max"),
            limit(&group, Controller::Pids, "pids.max", "pids.max"),
            limit(&group, Controller::Cpu, "cpu.cfs_quota_us", "cpu.max"),
            limit(&group, Controller::Cpuset, "cpuset.cpus", "cpuset.cpus"),
        ]
    };
    let quota = |v1_quota: &str, v2_quota: &str| if v1 { v1_quota.to_owned() } else { v2_quota.to_owned() };
    let expected = ["67108864".to_owned(), "64".to_owned(), quota("25000", "25000 50000"), "0".to_owned()];
    assert_eq!(limits(), expected);
    // What systemd sets by itself leaves all as it is, also for devices.
    systemctl(&["daemon-reload"]);
    assert_eq!(limits(), expected);
    let script = "echo x > /dev/null && echo null; busybox mknod /tmp/n b 7 0; cat /tmp/n";
    bundle.config["process"]["capabilities"] = Value::Null;
    let done = bundle.run(&["exec", "--cap", "CAP_MKNOD", &bundle.id, "sh", "-c", script]);
    assert!(done.stdout == "null\n" && done.stderr.contains("Operation not permitted"), "{done:?}");
    bundle.ok(&["update", "--memory", "96m", "--pids-limit", "50", "--cpu-quota", "40000"]);
    assert_eq!(limits(), ["100663296".into(), "50".into(), quota("40000", "40000 50000"), "0".into()]);
    let told = [memory, "TasksMax", "CPUQuotaPerSecUSec"].map(|name| property(&unit, name));
    assert_eq!(told, ["100663296", "50", "800ms"]);
    bundle.ok(&["delete", "--force"]);
    assert_no_scope(&unit, &path(&bundle));
}

#[test]
fn privileged_vm_every_process_of_a_scope_is_inside_counted_and_stopped() {
    let bundle = scoped(Bundle::new(&["sleep", "1000"]));
    bundle.ok(&[SYSTEMD, "create"]);
    let (unit, path) = (unit(&bundle), path(&bundle));
    let group = group(&path);
    let first = bundle.state()["pid"].to_string();
    assert_inside(&first, &group);
    bundle.ok(&["start"]);
    let words = ["exec", "-d", "--pid-file", "pid", &bundle.id, "sleep", "1000"];
    assert_eq!(bundle.run(&words).code, Some(0));
    let added = fs::read_to_string(bundle.path("pid")).unwrap();
    assert_inside(&added, &group);
    assert_eq!(bundle.ok(&["ps", "--format=json"]), format!("[{first},{added}]\n"));
    let stats: Value = serde_json::from_str(&bundle.ok(&["events", "--stats"])).unwrap();
    assert_eq!(stats["data"]["pids"]["current"], 2, "{stats}");
    assert!(stats["data"]["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{stats}");
    assert_eq!(property(&unit, "TasksCurrent"), "2");
    bundle.ok(&["pause"]);
    assert_eq!(bundle.status(), "paused");
    let done = bundle.run(&["exec", &bundle.id, "true"]);
    assert!(done.code == Some(255) && bundle.logged().contains("paused"), "{done:?}");
    bundle.ok(&["resume"]);
    assert_eq!(bundle.run(&["exec", &bundle.id, "true"]).code, Some(0));
    // A frozen one is deleted, too.
    bundle.ok(&["pause"]);
    bundle.ok(&["delete", "--force"]);
    assert_no_scope(&unit, &path);
    assert!(!bundle.state_dir().exists());
}

#[test]
fn privileged_vm_a_scope_ends_with_its_container() {
    let bundle = scoped(Bundle::new(&["sleep", "1000"]));
    let (unit, path) = (unit(&bundle), path(&bundle));
    bundle.ok(&[SYSTEMD, "run", "-d"]);
    let done = bundle.run(&["kill", &bundle.id, "KILL"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    bundle.wait_for_status("stopped");
    bundle.ok(&["delete"]);
    assert_no_scope(&unit, &path);
    // The name is free; one that runs in the foreground leaves nothing either.
    let mut bundle = bundle;
    bundle.config["process"]["args"] = json!(["sh", "-c", "exit 7"]);
    assert_eq!(bundle.run(&[SYSTEMD, "run", &bundle.id]).code, Some(7));
    assert_no_scope(&unit, &path);
    // Nor does one that cannot be made, after its scope, or before.
    for (args, resources) in [(json!(["/nosuch"]), json!({})), (json!(["true"]), json!({"memory": {"limit": 1}}))] {
        bundle.config["process"]["args"] = args;
        bundle.config["linux"]["resources"] = resources;
        bundle.err(&[SYSTEMD, "create"]);
        assert_no_scope(&unit, &path);
        assert!(!bundle.state_dir().exists());
    }
}

#[test]
fn privileged_vm_without_a_path_a_scope_is_in_the_usual_slice() {
    let mut bundle = scoped(Bundle::new(&["sleep", "1000"]));
    for (given, path) in [
        (Value::Null, format!("/system.slice/longshore-{}.scope", bundle.id)),
        (json!(":p:n"), "/system.slice/p-n.scope".to_owned()),
        (json!("-.slice:p:n"), "/p-n.scope".to_owned()),
        (json!("a-b-c.slice:p:n"), "/a.slice/a-b.slice/a-b-c.slice/p-n.scope".to_owned()),
    ] {
        bundle.config["linux"]["cgroupsPath"] = given;
        bundle.ok(&[SYSTEMD, "run", "-d"]);
        let path = Path::new(&path);
        assert_inside(&bundle.state()["pid"].to_string(), &group(path));
        bundle.ok(&["delete", "--force"]);
        assert_no_scope(path.file_name().unwrap().to_str().unwrap(), path);
    }
    bundle.config["linux"]["cgroupsPath"] = json!("/a/b");
    assert!(bundle.err(&[SYSTEMD, "create"]).contains("linux.cgroupsPath: \"/a/b\" is not \"slice:prefix:name\""));
    if Hierarchies::detect().unwrap().version() == Version::V1 {
        let text = bundle.err(&[SYSTEMD, "--rootless=true", "create"]);
        assert!(text.contains("linux.cgroupsPath"), "{text}");
        bundle.config["linux"]["cgroupsPath"] = json!(":p:n");
        let text = bundle.err(&[SYSTEMD, "--rootless=true", "create"]);
        assert!(text.contains("cannot use rootless systemd cgroups manager on cgroup v1"), "{text}");
    }
}

/// Begins to make a container, and holds it at a hook until the file `held` is gone.
fn hold(bundle: &mut Bundle, command: &[&str]) -> Child {
    let script = "touch held; while [ -e held ]; do sleep 0.05; done";
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]});
    bundle.config["hooks"] = json!({"createRuntime": [hook]});
    let words = [&[SYSTEMD], command, &[bundle.id.as_str()]].concat();
    let runtime = bundle.command(&words).spawn().unwrap();
    wait_until("held", || bundle.path("held").exists());
    runtime
}

#[test]
fn privileged_vm_a_killed_runtime_leaves_no_scope_that_delete_does_not_find() {
    let mut bundle = scoped(Bundle::new(&["sleep", "1000"]));
    let mut runtime = hold(&mut bundle, &["create"]);
    assert_eq!(property(&unit(&bundle), "ActiveState"), "active");
    runtime.kill().unwrap();
    runtime.wait().unwrap();
    fs::remove_file(bundle.path("held")).unwrap();
    bundle.ok(&["delete", "--force"]);
    assert_no_scope(&unit(&bundle), &path(&bundle));
    assert!(!bundle.state_dir().exists());
}

#[test]
fn privileged_vm_a_container_with_a_user_namespace_is_a_scope() {
    let mut bundle = scoped(Bundle::new(&["sleep", "1000"]));
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    let ids = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
    (bundle.config["linux"]["uidMappings"], bundle.config["linux"]["gidMappings"]) = (ids.clone(), ids);
    // The container's root may make none.
    fs::create_dir_all(bundle.path("rootfs/sys/fs/cgroup")).unwrap();
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"source": "cgroup", "type": "cgroup", "destination": "/sys/fs/cgroup"}));
    bundle.ok(&[SYSTEMD, "run", "-d"]);
    assert_inside(&bundle.state()["pid"].to_string(), &group(&path(&bundle)));
    let script = "mkdir /sys/fs/cgroup/below && echo 0 > /sys/fs/cgroup/below/cgroup.procs && cat /proc/self/cgroup";
    let done = bundle.run(&["exec", &bundle.id, "sh", "-c", script]);
    match Hierarchies::detect().unwrap().version() {
        // What shows its hierarchies is a file system of its own.
        Version::V1 => assert!(done.stdout.contains("memory:/\n"), "{done:?}"),
        Version::V2 => assert_eq!(done.stdout, "0::/below\n", "{done:?}"),
    }
    bundle.ok(&["delete", "--force"]);
    assert_no_scope(&unit(&bundle), &path(&bundle));
}

#[test]
fn privileged_vm_a_container_is_restored_into_a_scope() {
    let bundle = with_criu(&["sh", "-c", COUNTER]).expect("criu, which `cargo xtask vm-test` unpacks");
    let bundle = if Hierarchies::detect().unwrap().version() == Version::V2 {
        // Made without systemd: the scope is what it is restored into.
        running(&bundle);
        bundle.ok(&words(&[&["checkpoint"], &FILES]));
        assert_gone(&bundle);
        scoped(bundle)
    } else {
        // There systemd may move it between the making of its cgroup namespace and its end, which CRIU cannot write.
        let bundle = scoped(bundle);
        bundle.ok(&[SYSTEMD, "run", "-d"]);
        wait_for_more(&bundle);
        bundle.ok(&words(&[&["checkpoint"], &FILES]));
        assert_no_scope(&unit(&bundle), &path(&bundle));
        bundle
    };
    bundle.ok(&words(&[&[SYSTEMD, "restore", "--detach"], &FILES]));
    wait_for_more(&bundle);
    let (unit, path) = (unit(&bundle), path(&bundle));
    assert_eq!((property(&unit, "ActiveState"), property(&unit, "TasksMax")), ("active".into(), "64".into()));
    assert_inside(&bundle.state()["pid"].to_string(), &group(&path));
    assert_eq!(limit(&group(&path), Controller::Pids, "pids.max", "pids.max"), "64");
    // A second time, from scope to scope.
    bundle.ok(&words(&[&["checkpoint"], &FILES]));
    assert_no_scope(&unit, &path);
    bundle.ok(&words(&[&[SYSTEMD, "restore", "--detach"], &FILES]));
    wait_for_more(&bundle);
    assert_inside(&bundle.state()["pid"].to_string(), &group(&path));
    bundle.ok(&["delete", "--force"]);
    assert_no_scope(&unit, &path);
    // One that cannot be restored leaves nothing.
    fs::remove_file(bundle.path("images/pstree.img")).unwrap();
    bundle.err(&words(&[&[SYSTEMD, "restore", "--detach"], &FILES]));
    assert_no_scope(&unit, &path);
    assert!(!bundle.state_dir().exists());
}

#[test]
fn privileged_vm_without_systemd_a_container_belongs_to_no_unit() {
    // Who made it is a service, or a scope: it does not end with that, and is not moved with it.
    let bundle = Bundle::new(&["sleep", "1000"]);
    bundle.ok(&["run", "-d"]);
    let group = bundle.cgroup();
    let pid = bundle.state()["pid"].to_string();
    // Not everywhere: what is the first of the machine to use a controller makes systemd move all to that one's root.
    let followed = |pid: &str| assert_in(pid, &group, &["name=systemd", ""]);
    followed(&pid);
    // What may make systemd put the processes of a slice's other units into place again.
    for slice in ["system.slice", "-.slice"] {
        let mut other = Bundle::new(&["sleep", "1000"]);
        other.config["linux"]["cgroupsPath"] = json!(format!("{slice}:p:{}", other.id));
        other.ok(&[SYSTEMD, "run", "-d"]);
        followed(&pid);
        other.ok(&["delete", "-f"]);
    }
    systemctl(&["daemon-reload"]);
    followed(&pid);
    bundle.ok(&["delete", "-f"]);
    bundle.assert_gone();
}
