use std::fs;
use std::process::{Child as Process, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::{Cgroup, Hierarchies};

#[test]
fn paths_name_a_slice_and_a_scope() {
    for (path, manager, printed) in [
        ("", Manager::System, "/system.slice/longshore-x.scope"),
        ("", Manager::User, "/user.slice/longshore-x.scope"),
        ("a-b-c.slice:p:n", Manager::System, "/a.slice/a-b.slice/a-b-c.slice/p-n.scope"),
        (":p:n", Manager::User, "/user.slice/p-n.scope"),
        ("-.slice:libpod:1f", Manager::System, "/libpod-1f.scope"),
    ] {
        let place = Place::parse(path, "x", manager).unwrap();
        assert_eq!(place.path, Path::new(printed));
        assert!(place.path.ends_with(&place.unit));
    }
    for (path, text) in [
        ("/a/b", "linux.cgroupsPath: \"/a/b\" is not \"slice:prefix:name\""),
        ("a:b:c:d", "linux.cgroupsPath: \"a:b:c:d\" is not \"slice:prefix:name\""),
        ("a.slice:b:", "linux.cgroupsPath: \"a.slice:b:\" is not \"slice:prefix:name\""),
        ("a.slice:b:c/d", "linux.cgroupsPath: \"a.slice:b:c/d\" is not \"slice:prefix:name\""),
        ("a.slice:b:c.slice", "linux.cgroupsPath: \"a.slice:b:c.slice\" is not \"slice:prefix:name\""),
        ("a:b:c", "linux.cgroupsPath: invalid slice name \"a\""),
        ("a--b.slice:b:c", "linux.cgroupsPath: invalid slice name \"a--b.slice\""),
        ("../a.slice:b:c", "linux.cgroupsPath: invalid slice name \"../a.slice\""),
        (".slice:b:c", "linux.cgroupsPath: invalid slice name \".slice\""),
    ] {
        assert_eq!(Place::parse(path, "x", Manager::System).unwrap_err().to_string(), text);
    }
}

#[test]
fn releases_are_read_from_versions() {
    for (version, number) in [("252.38-1~deb12u1", 252), ("v245.4-1.fc32", 245), ("260", 260), ("x", 0)] {
        assert_eq!(release(version), number);
    }
}

#[test]
fn what_holds_a_place_ends_with_it() {
    let held = hold("x").unwrap();
    let pid = held.holder.pid;
    assert!(rustix::process::test_kill_process(pid).is_ok());
    drop(held);
    assert!(rustix::process::test_kill_process(pid).is_err());
}

/// A systemd of a user's kind, which needs neither to be the first process nor a bus; in a cgroup of its own.
struct Running {
    process: Process,
    dir: tempfile::TempDir,
    cgroups: Vec<PathBuf>,
}

/// Where Debian and others have it.
const PROGRAM: &str = "/lib/systemd/systemd";

impl Running {
    fn new() -> Running {
        assert!(Path::new(PROGRAM).exists(), "{PROGRAM}, of Debian's package systemd");
        let dir = tempfile::tempdir().unwrap();
        let name = format!("longshore-test-systemd-{}", std::process::id());
        // What systemd follows processes in.
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        let cgroups: Vec<_> =
            mounts.iter().filter(|mount| mount.join("cgroup.procs").exists()).map(|m| m.join(&name)).collect();
        for cgroup in &cgroups {
            fs::create_dir(cgroup).unwrap();
        }
        for name in ["units", "run"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("units/nothing.target"), "[Unit]\nDefaultDependencies=no\n").unwrap();
        let mut script: String =
            cgroups.iter().map(|cgroup| format!("echo 0 > {}/cgroup.procs; ", cgroup.display())).collect();
        // It wants to know of a systemd that has started the machine.
        script.push_str("mount -t tmpfs run /run; mkdir -p /run/systemd/system; exec ");
        script.push_str(PROGRAM);
        script.push_str(" --user --unit=nothing.target --log-target=null");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]).env_clear();
        command.env("PATH", "/bin:/usr/bin:/sbin:/usr/sbin").env("HOME", dir.path());
        command.env("XDG_RUNTIME_DIR", dir.path().join("run")).env("SYSTEMD_UNIT_PATH", dir.path().join("units"));
        let process = command.stdin(Stdio::null()).spawn().unwrap();
        Running { process, dir, cgroups }
    }

    fn connect(&self) -> Systemd {
        let run = self.dir.path().join("run").to_str().unwrap().to_owned();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let variable = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| run.clone());
            match Systemd::connect_with(Manager::User, Hierarchies::detect().unwrap().version(), variable) {
                Ok(systemd) => return systemd,
                Err(err) => assert!(Instant::now() < deadline, "{}", errdefs::chain(&err)),
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        for directory in std::mem::take(&mut self.cgroups) {
            let path = PathBuf::from("/").join(directory.file_name().unwrap());
            let group =
                Cgroup { version: Version::V1, path, directories: vec![(Vec::new(), directory)], above: Vec::new() };
            group.destroy(Duration::from_secs(20)).unwrap();
        }
    }
}

#[test]
fn privileged_a_scope_is_made_changed_and_taken_away() {
    let running = Running::new();
    let mut systemd = running.connect();
    assert!(systemd.release > 200, "{}", systemd.release);
    let root = systemd.root().unwrap();
    assert!(root.to_str().unwrap().contains("longshore-test-systemd-"), "{}", root.display());
    let place = Place::parse("a-b.slice:p:n", "x", Manager::User).unwrap();
    let resources: Resources = serde_json::from_str(
        r#"{"memory": {"limit": 67108864}, "pids": {"limit": 50}, "cpu": {"shares": 512, "quota": 5000, "period": 10000, "cpus": "0"},
            "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}]}"#,
    )
    .unwrap();
    let annotations = std::collections::BTreeMap::from([
        ("org.systemd.property.TimeoutStopSec".to_owned(), "uint64 5".to_owned()),
        ("org.systemd.property.CollectMode".to_owned(), "'inactive-or-failed'".to_owned()),
    ]);
    let held = systemd.start(&place, &resources, &annotations).unwrap();
    let path = root.join(place.path.strip_prefix("/").unwrap());
    let own = fs::read_to_string(format!("/proc/{}/cgroup", held.holder.pid.as_raw_nonzero())).unwrap();
    assert!(own.lines().any(|line| line.ends_with(path.to_str().unwrap())), "{own}");
    let again = systemd.start(&place, &resources, &annotations).unwrap_err();
    assert!(again.is("UnitExists"), "{again}");
    let mut wrong = Place::parse("a.slice:p:n", "x", Manager::User).unwrap();
    wrong.unit = "nothing".to_owned();
    let refused = systemd.start(&wrong, &resources, &annotations).unwrap_err();
    assert!(refused.to_string().starts_with("systemd refuses StartTransientUnit: org.freedesktop."), "{refused}");
    let less: Resources = serde_json::from_str(r#"{"memory": {"limit": 33554432}, "pids": {"limit": 40}}"#).unwrap();
    systemd.update(&place.unit, &less).unwrap();
    if systemd.version == Version::V2 {
        let read = |file: &str| {
            fs::read_to_string(Path::new("/sys/fs/cgroup").join(path.strip_prefix("/").unwrap()).join(file))
        };
        assert_eq!(read("memory.max").unwrap(), "33554432\n");
        assert_eq!(read("pids.max").unwrap(), "40\n");
        assert_eq!(read("cpu.max").unwrap(), "5000 10000\n");
        assert_eq!(read("cpuset.cpus").unwrap(), "0\n");
    }
    systemd.stop(&place.unit).unwrap();
    assert!(running.cgroups.iter().all(|cgroup| !cgroup.join("a.slice/a-b.slice/p-n.scope").exists()));
    systemd.stop(&place.unit).unwrap();
    drop(held);
    // The name is free again.
    let held = systemd.start(&place, &resources, &annotations).unwrap();
    drop(held);
    systemd.stop(&place.unit).unwrap();
}
