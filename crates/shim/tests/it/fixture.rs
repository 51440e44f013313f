//! A shim, its daemon's end, and a container of busybox.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci::ContainerId;
use oci::runtime::{Linux, Mount, Namespace, NamespaceKind, Process, Resources, Root, Spec};
use shim_api::frame::{Decoder, encode};
use shim_api::{Answer, Attach, Call, CreateTask, ExitRecord, Fact, Failure, Message, Request, RunState, VERSION};

/// Everything a test waits for comes within this time or never.
const DEADLINE: Duration = Duration::from_secs(20);

/// A shim with one connection. Its processes and cgroups end with it.
pub(crate) struct Shim {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) id: ContainerId,
    pub(crate) child: sys::fork::Child,
    pub(crate) task: CreateTask,
    pub(crate) daemon: Daemon,
}

/// One end of a connection to the shim.
pub(crate) struct Daemon {
    pub(crate) socket: UnixStream,
    id: ContainerId,
    decoder: Decoder,
    seq: u64,
    /// Facts that came while a reply was awaited.
    facts: Vec<Fact>,
    /// Descriptors that came.
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// A client's own end of its connection.
pub(crate) struct Client(pub(crate) UnixStream);

impl Shim {
    /// Starts a shim and prepares a container that runs `script`.
    pub(crate) fn new(script: &str) -> Shim {
        let dir = tempfile::tempdir().unwrap();
        let id: ContainerId = stdx::id::random_hex::<32>().parse().unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        make_root(dir.path());
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = spawn(&dir.path().join("run"), &id, theirs.as_fd());
        let task = CreateTask {
            spec: spec(dir.path(), &id, script),
            user: None,
            groups: vec![],
            open_stdin: false,
            stdin_once: false,
            log: None,
            log_server: None,
            joins_network: false,
            joins: Vec::new(),
            shares_memory: false,
            runtime: None,
            lends: 0,
            restore: None,
            spool_dir: dir.path().to_owned(),
        };
        Shim { dir, daemon: Daemon::new(ours, &id), id, child, task }
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// Hello and Create.
    pub(crate) fn create(&mut self) {
        let hello = self.daemon.call(Call::Hello { version: VERSION }).unwrap();
        assert!(matches!(hello, Answer::Hello { version: VERSION, state: None, .. }), "{hello:?}");
        let created = self.daemon.call(Call::Create(Box::new(self.task.clone()))).unwrap();
        assert!(matches!(created, Answer::Created { pid } if pid > 0), "{created:?}");
    }

    pub(crate) fn start(&mut self) -> RunState {
        match self.daemon.call(Call::Start).unwrap() {
            Answer::Started(state) => state,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the last fact, and for the shim's own end.
    pub(crate) fn finish(&mut self) -> ExitRecord {
        let exit = self.daemon.exited();
        self.wait();
        exit
    }

    /// Waits for the shim's own end; nothing of the container is left then.
    pub(crate) fn wait(&mut self) {
        let readable = rustix::event::PollFlags::IN;
        let timeout = rustix::time::Timespec { tv_sec: DEADLINE.as_secs() as i64, tv_nsec: 0 };
        let mut fds = [rustix::event::PollFd::new(&self.child.pidfd, readable)];
        assert_eq!(rustix::event::poll(&mut fds, Some(&timeout)), Ok(1), "the shim does not end");
        assert_eq!(sys::wait::wait(self.child.pidfd.as_fd()).unwrap().code(), 0);
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new());
        assert!(!self.run_dir().join("shim.sock").exists());
    }

    /// The container's cgroup directories that exist.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        self.cgroup().directories.into_iter().map(|(_, path)| path).collect()
    }

    /// The container's cgroup.
    pub(crate) fn cgroup(&self) -> cgroup::Cgroup {
        let hierarchies = cgroup::Hierarchies::detect().unwrap();
        cgroup::Cgroup::open(&hierarchies, Path::new(&cgroups_path(&self.id))).unwrap()
    }

    /// A daemon that comes later.
    pub(crate) fn connect(&self) -> Daemon {
        Daemon::new(UnixStream::connect(self.run_dir().join("shim.sock")).unwrap(), &self.id)
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        // Only what a failed test left: an ended shim has been reaped.
        let _ = sys::signal::send(self.child.pidfd.as_fd(), 9);
        let _ = self.cgroup().destroy(Duration::from_secs(10));
    }
}

impl Daemon {
    pub(crate) fn new(socket: UnixStream, id: &ContainerId) -> Daemon {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Daemon { socket, id: id.clone(), decoder: Decoder::default(), seq: 0, facts: vec![], descriptors: vec![] }
    }

    /// Sends a request without waiting for its answer; answers its number.
    pub(crate) fn send(&mut self, call: Call, fds: &[BorrowedFd<'_>]) -> u64 {
        self.seq += 1;
        let request = Request { seq: self.seq, container: self.id.clone(), descriptors: fds.len() as u32, call };
        let bytes = encode(&request);
        let sent = sys::socket::send(self.socket.as_fd(), &bytes, fds).unwrap();
        self.socket.write_all(&bytes[sent..]).unwrap();
        self.seq
    }

    pub(crate) fn reply(&mut self, wanted: u64) -> Result<Answer, Failure> {
        loop {
            match self.next() {
                Message::Reply { seq, result } if seq == wanted => return result,
                Message::Reply { .. } => {}
                Message::Fact(fact) => self.facts.push(fact),
            }
        }
    }

    pub(crate) fn call(&mut self, call: Call) -> Result<Answer, Failure> {
        let seq = self.send(call, &[]);
        self.reply(seq)
    }

    /// Attaches a client that wants `wants`.
    pub(crate) fn attach(&mut self, wants: Attach) -> Client {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let seq = self.send(Call::Attach(wants), &[theirs.as_fd()]);
        assert_eq!(self.reply(seq), Ok(Answer::Done));
        Client::new(ours)
    }

    /// The next fact.
    pub(crate) fn fact(&mut self) -> Fact {
        if !self.facts.is_empty() {
            return self.facts.remove(0);
        }
        match self.next() {
            Message::Fact(fact) => fact,
            Message::Reply { .. } => panic!("a reply that nobody awaits"),
        }
    }

    /// Waits for the container's exit, passing other facts over.
    pub(crate) fn exited(&mut self) -> ExitRecord {
        loop {
            if let Fact::Exited { exit, .. } = self.fact() {
                return exit;
            }
        }
    }

    fn next(&mut self) -> Message {
        let mut buffer = [0; 4096];
        loop {
            if let Some(message) = self.decoder.next_message().unwrap() {
                return message;
            }
            let count = sys::socket::receive(self.socket.as_fd(), &mut buffer, &mut self.descriptors);
            let count = count.expect("a message in time");
            assert!(count > 0, "the shim closed the connection");
            self.decoder.push(&buffer[..count]);
        }
    }
}

impl Client {
    pub(crate) fn new(socket: UnixStream) -> Client {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Client(socket)
    }

    /// Everything until the end.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Standard output and error of everything until the end, without their headers.
    pub(crate) fn rest_unframed(&mut self) -> (String, String) {
        let bytes = self.rest();
        let (mut rest, mut out, mut err) = (&bytes[..], String::new(), String::new());
        while let Some((header, body)) = rest.split_first_chunk::<8>() {
            let length = u32::from_be_bytes(header[4..].try_into().unwrap()) as usize;
            let text = std::str::from_utf8(&body[..length]).unwrap();
            if header[0] == 1 {
                out.push_str(text)
            } else {
                err.push_str(text)
            }
            rest = &body[length..];
        }
        (out, err)
    }

    /// Reads until `text` has come.
    pub(crate) fn await_text(&mut self, text: &str) -> String {
        let mut got = String::new();
        let mut buffer = [0; 1024];
        while !got.contains(text) {
            let count = self.0.read(&mut buffer).unwrap();
            assert!(count > 0, "ended after {got:?}");
            got.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        got
    }
}

/// All of a client's streams.
pub(crate) fn everything() -> Attach {
    Attach { stdin: true, stdout: true, stderr: true, ..Attach::default() }
}

/// Output only.
pub(crate) fn output() -> Attach {
    Attach { stdin: false, ..everything() }
}

fn spawn(run_dir: &Path, id: &ContainerId, socket: BorrowedFd<'_>) -> sys::fork::Child {
    // Another build of the program, such as the static one that is shipped, can be put in its place.
    let program = std::env::var_os("LONGSHORE_SHIM").unwrap_or(env!("CARGO_BIN_EXE_longshore-shim").into());
    let program = File::open(program).unwrap();
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let stderr: OwnedFd = std::io::stderr().as_fd().try_clone_to_owned().unwrap();
    let argv = [b"longshore-shim", &b"--dir"[..], run_dir.as_os_str().as_bytes(), id.as_str().as_bytes()];
    sys::spawn::spawn(&sys::spawn::Command {
        program: program.as_fd(),
        argv: argv.map(|arg| CString::new(arg).unwrap()).to_vec(),
        envp: vec![],
        fds: vec![null.as_fd(), null.as_fd(), stderr.as_fd(), socket],
        cgroups: vec![],
    })
    .unwrap()
}

fn make_root(dir: &Path) {
    let root = dir.join("lower");
    for name in ["bin", "etc", "proc", "dev", "tmp"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in "sh true cat echo sleep yes head stty kill seq tr dd".split(' ') {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    for name in ["upper", "work"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
}

fn cgroups_path(id: &ContainerId) -> String {
    format!("/longshore-test-shim-{}", id.short())
}

/// A process that runs `script`.
pub(crate) fn process(script: &str) -> Process {
    Process {
        args: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec!["PATH=/bin".to_owned()],
        cwd: "/".to_owned(),
        ..Process::default()
    }
}

fn spec(dir: &Path, id: &ContainerId, script: &str) -> Spec {
    let option = |name: &str, value: &str| format!("{name}={}", dir.join(value).display());
    let mount = |destination: &str, kind: &str, options: &str| Mount {
        destination: destination.into(),
        kind: kind.into(),
        source: kind.into(),
        options: options.split(',').map(str::to_owned).collect(),
        ..Mount::default()
    };
    let overlay = Mount {
        kind: "overlay".into(),
        source: "overlay".into(),
        options: vec![option("lowerdir+", "lower"), option("upperdir", "upper"), option("workdir", "work")],
        ..Mount::default()
    };
    use NamespaceKind as Kind;
    Spec {
        process: process(script),
        root: Root { mounts: vec![overlay], ..Root::default() },
        mounts: vec![
            mount("/proc", "proc", "nosuid,noexec,nodev"),
            mount("/dev", "tmpfs", "nosuid,mode=755"),
            mount("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620"),
        ],
        linux: Linux {
            namespaces: [Kind::Pid, Kind::Mount, Kind::Ipc, Kind::Uts, Kind::Network]
                .map(|kind| Namespace { kind, path: None })
                .to_vec(),
            cgroups_path: cgroups_path(id),
            resources: Some(Resources::default()),
            ..Linux::default()
        },
        ..Spec::default()
    }
}
