//! A bundle with busybox, a root directory of its own, and nothing left of either.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cgroup::{Cgroup, Hierarchies};
use serde_json::{Value, json};

/// Longer than anything takes on a loaded machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// One bundle and its containers, all of which end with it.
pub(crate) struct Bundle {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: Value,
    /// The container's name, and that of its cgroup.
    pub(crate) id: String,
    /// Where programs are looked for before `PATH`.
    pub(crate) programs: Option<PathBuf>,
}

/// What a finished command left.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Bundle {
    pub(crate) fn new(args: &[&str]) -> Bundle {
        let dir = tempfile::tempdir().unwrap();
        make_root(&dir.path().join("rootfs"));
        let id = dir.path().file_name().unwrap().to_str().unwrap().replace('.', "t");
        let config = config(&id, args);
        Bundle { dir, config, id, programs: None }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The directory of the container's state.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.path("root").join(&self.id)
    }

    /// The program with its global flags, in the bundle.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        fs::write(self.path("config.json"), self.config.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_longshore-runtime"));
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        if let (Some(first), Some(path)) = (&self.programs, std::env::var_os("PATH")) {
            command.env("PATH", [first.as_os_str(), path.as_os_str()].join(":".as_ref()));
        }
        command.args(["--root", "root", "--log", "log", "--log-format=json"]).args(words);
        command
    }

    /// Runs a command to its end. Its streams are files: what it leaves running holds no pipe open.
    pub(crate) fn run(&self, words: &[&str]) -> Done {
        let files = ["stdout", "stderr"].map(|_| tempfile::tempfile().unwrap());
        let [out, err] = files.each_ref().map(|file| Stdio::from(file.try_clone().unwrap()));
        let status = self.command(words).stdout(out).stderr(err).status().unwrap();
        let [stdout, stderr] = files.map(read_again);
        Done { code: status.code(), stdout, stderr }
    }

    /// Runs a command with the container's name after it, which must succeed; its output.
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        let words: Vec<_> = words.iter().copied().chain([self.id.as_str()]).collect();
        let done = self.run(&words);
        assert_eq!(done.code, Some(0), "{words:?}: {done:?}");
        done.stdout
    }

    /// Runs a command with the container's name after it, which must fail with status 1; its sentence.
    pub(crate) fn err(&self, words: &[&str]) -> String {
        let words: Vec<_> = words.iter().copied().chain([self.id.as_str()]).collect();
        let done = self.run(&words);
        assert_eq!(done.code, Some(1), "{words:?}: {done:?}");
        assert_eq!(self.logged(), done.stderr.trim_end());
        done.stderr.trim_end().to_owned()
    }

    /// Runs a command, in which `ID` is the container's name: its status, and what standard error says.
    pub(crate) fn assert_says(&self, words: &[&str], code: i32, text: &str) {
        let words: Vec<_> = words.iter().map(|word| word.replace("ID", &self.id)).collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let done = self.run(&words);
        assert_eq!((done.code, done.stderr.trim_end()), (Some(code), text), "{words:?}");
    }

    /// The message of the last line of the log.
    pub(crate) fn logged(&self) -> String {
        let text = fs::read_to_string(self.path("log")).unwrap();
        let line: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(line["level"], "error");
        line["msg"].as_str().unwrap().to_owned()
    }

    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(&self.ok(&["state"])).unwrap()
    }

    pub(crate) fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    pub(crate) fn wait_for_status(&self, status: &str) {
        wait_until(status, || self.status() == status);
    }

    /// The container's cgroup, as much of it as there is.
    pub(crate) fn cgroup(&self) -> Cgroup {
        let path = format!("/longshore-test-{}", self.id);
        Cgroup::open(&Hierarchies::detect().unwrap(), Path::new(&path)).unwrap()
    }

    /// Whether nothing is left of the container.
    pub(crate) fn assert_gone(&self) {
        assert!(!self.state_dir().exists());
        let left = self.cgroup();
        assert!(left.directories.is_empty(), "{left:?}");
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        // Failed tests leave processes and directories otherwise.
        let _ = self.cgroup().destroy(DEADLINE);
    }
}

/// Waits for a fact that nobody announces.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

fn read_again(mut file: File) -> String {
    let mut text = String::new();
    std::io::Seek::rewind(&mut file).unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

fn make_root(root: &Path) {
    for name in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in
        "sh true cat ls id echo sleep touch hostname pwd env readlink mkdir kill stty stat grep mount wc".split(' ')
    {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
}

fn config(id: &str, args: &[&str]) -> Value {
    let mount = |destination: &str, kind: &str, options: &str| {
        let options: Vec<_> = options.split(',').collect();
        json!({"destination": destination, "type": kind, "source": kind, "options": options})
    };
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "args": args,
            "env": ["PATH=/bin"],
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
            "capabilities": {
                "bounding": ["CAP_KILL", "CAP_CHOWN"],
                "effective": ["CAP_KILL", "CAP_CHOWN"],
                "permitted": ["CAP_KILL", "CAP_CHOWN"],
            },
        },
        "root": {"path": "rootfs"},
        "hostname": "bundle",
        "annotations": {"org.example": "kept"},
        "mounts": [
            mount("/proc", "proc", "nosuid,noexec,nodev"),
            mount("/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
            mount("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620"),
        ],
        "linux": {
            "cgroupsPath": format!("/longshore-test-{id}"),
            "resources": {"devices": [{"allow": false, "access": "rwm"}], "pids": {"limit": 64}},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"},
            ],
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
            },
        },
    })
}
