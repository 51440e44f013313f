//! A root file system of busybox, a specification as Docker's default one, and containers that cannot be left behind.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use cgroup::Hierarchies;
use oci::runtime::{Capabilities, DeviceRule, Linux, Mount, Namespace, NamespaceKind, Process, Resources, Root, Spec};
use oci_runtime::{Container, CreateError, CreateOptions, ExecOptions, Kept, Stdio, UserRequest};
use sys::fork::{NewNamespaces, fork};
use sys::wait::{Exit, wait};

/// Runs a test's body in a process of its own with one thread, as the runtime wants it, and passes its failure on.
pub(crate) fn isolated(body: impl FnOnce()) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let child = fork(NewNamespaces::default(), None, || {
        // The test harness would keep what is printed, in memory that nobody reads.
        let failures = writer.try_clone().unwrap();
        std::panic::set_hook(Box::new(move |panic| {
            let _ = rustix::io::write(&failures, panic.to_string().as_bytes());
        }));
        u8::from(catch_unwind(AssertUnwindSafe(body)).is_err())
    });
    let child = child.unwrap();
    drop(writer);
    let mut failure = String::new();
    reader.read_to_string(&mut failure).unwrap();
    let exit = wait(child.pidfd.as_fd()).unwrap();
    assert_eq!(exit, Exit::Code(0), "{failure}");
}

/// A scratch directory with a root, removed at the end.
pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) spec: Spec,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) id: String,
}

/// What a finished process left.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) text: String,
    pub(crate) code: u8,
}

impl Fixture {
    /// The layer below holds busybox; the container's own is empty.
    pub(crate) fn new(args: &[&str]) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let lower = dir.path().join("lower");
        make_root(&lower);
        for name in ["upper", "work"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let id = dir.path().file_name().unwrap().to_str().unwrap().replace('.', "t");
        let spec = default_spec(dir.path(), &id, args);
        Fixture { dir, spec, hierarchies: Hierarchies::detect().unwrap(), id }
    }

    pub(crate) fn lower(&self) -> PathBuf {
        self.dir.path().join("lower")
    }

    pub(crate) fn create(&self, user: Option<UserRequest<'_>>, stdio: Stdio) -> Result<Container, CreateError> {
        let (id, spec, hierarchies) = (&self.id, &self.spec, &self.hierarchies);
        let kept = Kept::default();
        oci_runtime::create(CreateOptions { id, spec, user, stdio, hierarchies, kept, handover: None })
    }

    /// Runs the container to its end: standard output and error, and the exit code.
    pub(crate) fn run_as(&self, user: Option<UserRequest<'_>>) -> Result<Output, CreateError> {
        let (mut reader, stdio) = output_pipe();
        let mut container = self.create(user, stdio)?;
        container.start().unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let code = wait(container.pidfd.as_fd()).unwrap().code();
        container.destroy().unwrap();
        Ok(Output { text, code })
    }

    pub(crate) fn run(&self) -> Output {
        self.run_as(None).map_err(|err| errdefs::chain(&err)).unwrap()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // Failed tests leave processes and directories otherwise.
        let path = Path::new(&self.spec.linux.cgroups_path);
        if let Ok(group) = cgroup::Cgroup::open(&self.hierarchies, path) {
            let _ = group.destroy(std::time::Duration::from_secs(10));
        }
    }
}

/// Runs a process in a container: standard output and error, and the exit code.
pub(crate) fn exec(container: &Container, process: &Process) -> Result<Output, oci_runtime::ExecError> {
    let (mut reader, stdio) = output_pipe();
    let executed = container.exec(ExecOptions { process, user: None, stdio, kept: Kept::default() })?;
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    Ok(Output { text, code: wait(executed.pidfd.as_fd()).unwrap().code() })
}

/// Empty input; output and error on one pipe.
pub(crate) fn output_pipe() -> (std::io::PipeReader, Stdio) {
    let (reader, writer) = std::io::pipe().unwrap();
    let input: OwnedFd = File::open("/dev/null").unwrap().into();
    let error = writer.try_clone().unwrap();
    (reader, Stdio::Fds([input, writer.into(), error.into()]))
}

fn make_root(root: &Path) {
    for name in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in "sh true cat ls id echo sleep mount touch hostname grep stat tty mkdir chmod env pwd rm head".split(' ')
    {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/srv/web:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nwheel:x:10:web\nweb:x:1001:\n").unwrap();
    fs::write(root.join("bin/script"), "#!/nosuch\n").unwrap();
    fs::set_permissions(root.join("bin/script"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// What dockerd 28 asks for, less the files that it binds.
pub(crate) fn default_spec(dir: &Path, id: &str, args: &[&str]) -> Spec {
    let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let overlay = Mount {
        kind: "overlay".into(),
        source: "overlay".into(),
        options: vec![
            format!("lowerdir+={}", path("lower")),
            format!("upperdir={}", path("upper")),
            format!("workdir={}", path("work")),
            "index=off".into(),
            "metacopy=off".into(),
            "redirect_dir=off".into(),
            "xino=off".into(),
        ],
        ..Mount::default()
    };
    let capabilities = text(&CAPABILITIES);
    let new = |kind| Namespace { kind, path: None };
    use NamespaceKind as Kind;
    Spec {
        process: Process {
            args: text(args),
            env: text(&["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]),
            cwd: "/".into(),
            capabilities: Some(Capabilities {
                bounding: capabilities.clone(),
                effective: capabilities.clone(),
                permitted: capabilities,
                ..Capabilities::default()
            }),
            ..Process::default()
        },
        root: Root { mounts: vec![overlay], ..Root::default() },
        hostname: "longshore".into(),
        mounts: default_mounts(),
        linux: Linux {
            namespaces: [Kind::Pid, Kind::Network, Kind::Mount, Kind::Ipc, Kind::Uts, Kind::Cgroup].map(new).to_vec(),
            cgroups_path: format!("/longshore-test-{id}"),
            resources: Some(Resources { devices: device_rules(), ..Resources::default() }),
            masked_paths: text(&MASKED),
            readonly_paths: text(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]),
            ..Linux::default()
        },
        ..Spec::default()
    }
}

const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];

fn default_mounts() -> Vec<Mount> {
    let mount = |destination: &str, kind: &str, options: &str| Mount {
        destination: destination.into(),
        kind: kind.into(),
        source: kind.into(),
        options: options.split(',').map(str::to_owned).collect(),
        ..Mount::default()
    };
    vec![
        mount("/proc", "proc", "nosuid,noexec,nodev"),
        mount("/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        mount("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
        mount("/sys", "sysfs", "nosuid,noexec,nodev,ro"),
        mount("/sys/fs/cgroup", "cgroup", "ro,nosuid,noexec,nodev"),
        mount("/dev/mqueue", "mqueue", "nosuid,noexec,nodev"),
        mount("/dev/shm", "tmpfs", "nosuid,noexec,nodev,mode=1777,size=67108864"),
    ]
}

fn device_rules() -> Vec<DeviceRule> {
    let rule = |allow, kind: &str, major, minor, access: &str| DeviceRule {
        allow,
        kind: kind.into(),
        major,
        minor,
        access: access.into(),
    };
    let node = |major, minor: Option<i64>| rule(true, "c", Some(major), minor, "rwm");
    vec![
        rule(false, "a", None, None, "rwm"),
        rule(true, "c", None, None, "m"),
        rule(true, "b", None, None, "m"),
        node(1, Some(3)),
        node(1, Some(5)),
        node(1, Some(7)),
        node(1, Some(8)),
        node(1, Some(9)),
        node(5, Some(0)),
        node(5, Some(2)),
        node(136, None),
    ]
}
