//! Containers as scopes of systemd. It needs a machine with no controller on version 1: `cargo xtask vm-test` starts one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cgroup::{Hierarchies, Version};
use serde_json::json;

use super::fixture::{Bundle, wait_until};

/// A systemd of a user's kind, in a cgroup of its own: it needs neither to be the first process nor a bus.
struct Systemd {
    process: Child,
    dir: tempfile::TempDir,
    cgroup: PathBuf,
}

impl Systemd {
    fn start(bundle: &Bundle) -> Systemd {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = Path::new("/sys/fs/cgroup").join(format!("longshore-test-systemd-{}", bundle.id));
        fs::create_dir(&cgroup).unwrap();
        fs::create_dir(dir.path().join("units")).unwrap();
        fs::write(dir.path().join("units/nothing.target"), "[Unit]\nDefaultDependencies=no\n").unwrap();
        // It wants to know of a systemd that has started the machine.
        let script = format!(
            "echo +cpu +memory +pids +io +cpuset > /sys/fs/cgroup/cgroup.subtree_control; echo 0 > {}/cgroup.procs; \
             mount -t tmpfs run /run; mkdir -p /run/systemd/system; \
             exec /lib/systemd/systemd --user --unit=nothing.target --log-target=null",
            cgroup.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]).env_clear();
        command.env("PATH", "/bin:/usr/bin:/sbin:/usr/sbin").env("HOME", dir.path());
        command.env("XDG_RUNTIME_DIR", dir.path()).env("SYSTEMD_UNIT_PATH", dir.path().join("units"));
        let process = command.stdin(Stdio::null()).spawn().unwrap();
        wait_until("systemd listens", || dir.path().join("systemd/private").exists());
        Systemd { process, dir, cgroup }
    }

    /// The runtime's commands, by way of this systemd.
    fn run(&self, bundle: &Bundle, words: &[&str]) -> (Option<i32>, String, String) {
        let words: Vec<_> = ["--systemd-cgroup", "--rootless=true"].iter().chain(words).copied().collect();
        let mut command = bundle.command(&words);
        // To files: what it leaves running holds no pipe open.
        let (out, err) = (bundle.path("out"), bundle.path("err"));
        let file = |path: &Path| Stdio::from(fs::File::create(path).unwrap());
        command.env("XDG_RUNTIME_DIR", self.dir.path()).stdout(file(&out)).stderr(file(&err));
        let status = command.status().unwrap();
        (status.code(), fs::read_to_string(out).unwrap(), fs::read_to_string(err).unwrap())
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let path = Path::new("/").join(self.cgroup.file_name().unwrap());
        let group = cgroup::Cgroup::open(&Hierarchies::detect().unwrap(), &path).unwrap();
        group.destroy(super::fixture::DEADLINE).unwrap();
    }
}

#[test]
fn privileged_vm_a_container_is_a_scope_of_systemd() {
    assert_eq!(Hierarchies::detect().unwrap().version(), Version::V2, "run `cargo xtask vm-test`");
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    let systemd = Systemd::start(&bundle);
    bundle.config["linux"]["cgroupsPath"] = json!("a-b.slice:p:n");
    bundle.config["linux"]["resources"]["memory"] = json!({"limit": 67108864});
    bundle.config["annotations"] = json!({"org.systemd.property.TimeoutStopSec": "uint64 7"});
    let id = bundle.id.clone();
    let good = |words: &[&str]| {
        let (code, out, err) = systemd.run(&bundle, words);
        assert_eq!(code, Some(0), "{words:?}: {err}");
        out
    };
    good(&["run", "-d", &id]);
    let scope = systemd.cgroup.join("a.slice/a-b.slice/p-n.scope");
    let read = |file: &str| fs::read_to_string(scope.join(file)).unwrap().trim().to_owned();
    assert_eq!((read("memory.max"), read("pids.max")), ("67108864".into(), "64".into()));
    assert_eq!(read("cgroup.procs").lines().count(), 1);
    good(&["update", "--memory", "96m", "--pids-limit", "50", &id]);
    assert_eq!((read("memory.max"), read("pids.max")), ("100663296".into(), "50".into()));
    assert_eq!(good(&["exec", &id, "cat", "/proc/self/cgroup"]), "0::/\n");
    good(&["pause", &id]);
    assert_eq!(read("cgroup.freeze"), "1");
    good(&["resume", &id]);
    // The name is taken, and stays so while it is.
    let (code, _, err) = systemd.run(&bundle, &["create", "other"]);
    assert!(code == Some(1) && err.contains("container's cgroup is not empty"), "{err}");
    assert_eq!(read("cgroup.procs").lines().count(), 1);
    good(&["delete", "-f", &id]);
    assert!(!scope.exists());
    good(&["run", "-d", &id]);
    good(&["delete", "-f", &id]);
    for (path, text) in [
        ("/a/b", "linux.cgroupsPath: \"/a/b\" is not \"slice:prefix:name\""),
        ("a--b.slice:p:n", "linux.cgroupsPath: invalid slice name \"a--b.slice\""),
    ] {
        bundle.config["linux"]["cgroupsPath"] = json!(path);
        let (code, _, err) = systemd.run(&bundle, &["create", &id]);
        assert!(code == Some(1) && err.contains(text), "{err}");
    }
    assert!(!bundle.state_dir().exists());
}
