//! What the modules share: lines typed on each command line, one after the other.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::{Cli, Daemon, Events, Output, Piped, Pty, http};

/// A command line pointed at a daemon that has busybox.
pub(crate) struct At<'a> {
    /// The daemon.
    pub(crate) daemon: &'a Daemon,
    /// Which command line.
    pub(crate) cli: Cli,
}

/// Runs `test` with one daemon and each command line; reports a skip without root.
pub(crate) fn on_both(test: impl Fn(&At<'_>)) {
    if testkit::skip::without_root() {
        return;
    }
    let daemon = Daemon::with_busybox().unwrap();
    each(&daemon, test);
}

/// Runs `test` with each command line at this daemon.
pub(crate) fn each(daemon: &Daemon, test: impl Fn(&At<'_>)) {
    for cli in daemon.clis() {
        // Shown with a failure, which then needs no name of the command line in it.
        println!("with {cli:?}");
        test(&At { daemon, cli });
    }
}

/// Runs `test` with ours only where it does not apply to Docker; reports the skip.
pub(crate) fn ours(test: impl Fn(&mut Daemon)) {
    if testkit::skip::without_root() {
        return;
    }
    let mut daemon = Daemon::with_busybox().unwrap();
    if daemon.is_foreign() {
        testkit::skip::report("this is about a daemon of the test's own");
        return;
    }
    test(&mut daemon);
}

impl At<'_> {
    /// `name`, unique to this daemon and this command line.
    pub(crate) fn name(&self, name: &str) -> String {
        self.daemon.name(&format!("{name}-{:?}", self.cli).to_lowercase())
    }

    /// The same as an image's name, which has no capital letters.
    pub(crate) fn image(&self, name: &str) -> String {
        self.name(name).to_lowercase()
    }

    /// The command of a line as a shell would split it at blanks and single quotes.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = self.daemon.command(self.cli).unwrap();
        command.args(split(line));
        command
    }

    /// Types `line`.
    pub(crate) fn line(&self, line: &str) -> Output {
        self.with_input(line, b"")
    }

    /// Types `line` with this standard input.
    pub(crate) fn with_input(&self, line: &str, input: &[u8]) -> Output {
        println!("{line}");
        testkit::process::run(&mut self.command(line), input).unwrap()
    }

    /// Types `line`, which must succeed; answers what it printed, trimmed.
    pub(crate) fn ok(&self, line: &str) -> String {
        let output = self.line(line);
        output.success().unwrap_or_else(|err| panic!("{line}: {err:?}")).to_owned()
    }

    /// Types `line`, which must end with `code` and say `sentence` on standard error.
    pub(crate) fn fails(&self, line: &str, code: i32, sentence: &str) {
        let output = self.line(line);
        assert_eq!(output.code, code, "{line}: {output:?}");
        assert!(output.stderr.contains(sentence), "{line}: {:?} has no {sentence:?}", output.stderr);
    }

    /// `run --rm --network none` and `rest`, which must succeed; answers what it printed, trimmed.
    pub(crate) fn run(&self, rest: &str) -> String {
        self.ok(&format!("run --rm --network none {rest}"))
    }

    /// Starts `run -d --network none --name NAME` and `rest`.
    pub(crate) fn start(&self, name: &str, rest: &str) {
        self.ok(&format!("run -d --network none --name {name} {rest}"));
    }

    /// Removes a container, running or not.
    pub(crate) fn remove(&self, name: &str) {
        self.ok(&format!("rm -f {name}"));
    }

    /// `inspect -f TEMPLATE NAME`.
    pub(crate) fn inspect(&self, name: &str, template: &str) -> String {
        self.ok(&format!("inspect -f '{template}' {name}"))
    }

    /// Starts `line` with pipes.
    pub(crate) fn spawn(&self, line: &str) -> Piped {
        println!("{line} &");
        Piped::spawn(&mut self.command(line)).unwrap()
    }

    /// Starts `line` on a terminal of 33 rows and 99 columns.
    pub(crate) fn pty(&self, line: &str) -> Pty {
        println!("{line} (on a terminal)");
        Pty::spawn(&self.command(line), 33, 99).unwrap()
    }

    /// The events of the container `name` from now on.
    pub(crate) fn events(&self, name: &str) -> Events {
        Events::subscribe(self.daemon.socket(), name).unwrap()
    }
}

/// Splits at blanks; single quotes hold a word together.
pub(crate) fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for letter in line.chars() {
        match letter {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// Whether every controller is on version 2 of cgroups.
pub(crate) fn unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The directory of a running container's cgroup of this v1 controller, or the unified one, as the host sees it.
pub(crate) fn cgroup(at: &At<'_>, name: &str, controller: &str) -> PathBuf {
    let pid = at.inspect(name, "{{.State.Pid}}");
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path_of = |wanted: &str| {
        text.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let controllers = fields.next()?;
            controllers.split(',').any(|one| one == wanted).then(|| fields.next().unwrap_or_default().to_owned())
        })
    };
    let v1 = Path::new("/sys/fs/cgroup").join(controller);
    match path_of(controller) {
        Some(path) => v1.join(path.trim_start_matches('/')),
        None => Path::new("/sys/fs/cgroup").join(path_of("").expect("a cgroup").trim_start_matches('/')),
    }
}

/// Attaches to the output of a container by hand; the answer's head is read, the stream is not.
pub(crate) fn attach(at: &At<'_>, name: &str) -> BufReader<UnixStream> {
    let mut stream = http::connect(at.daemon.socket()).unwrap();
    let upgrade = "Host: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0";
    let query = "stream=1&stdout=1&stderr=1";
    write!(stream, "POST /v1.50/containers/{name}/attach?{query} HTTP/1.1\r\n{upgrade}\r\n\r\n").unwrap();
    let mut reader = BufReader::new(stream);
    assert_eq!(http::read_head(&mut reader).unwrap().status, 101);
    reader
}

/// Runs `act` in a network namespace.
pub(crate) fn inside<T: Send>(namespace: BorrowedFd<'_>, act: impl FnOnce() -> T + Send) -> T {
    let visit = || {
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(namespace, kind).unwrap();
        act()
    };
    std::thread::scope(|scope| scope.spawn(visit).join().unwrap())
}

/// Runs `act` in a container's network.
pub(crate) fn within<T: Send>(at: &At<'_>, container: &str, act: impl FnOnce() -> T + Send) -> T {
    let namespace = fs::File::open(format!("/proc/{}/ns/net", at.inspect(container, "{{.State.Pid}}"))).unwrap();
    inside(namespace.as_fd(), act)
}

/// Opens a socket for datagrams in a container, for busybox has no server of them.
pub(crate) fn datagram_server(at: &At<'_>, container: &str, port: u16) -> UdpSocket {
    within(at, container, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap())
}

/// Sends a datagram to the server, and one back to whom it came from.
pub(crate) fn exchange_datagrams(client: &UdpSocket, server: &UdpSocket, time: Duration) {
    for (from, to) in [(client, server), (server, client)] {
        from.send(b"ping").unwrap();
        to.set_read_timeout(Some(time)).unwrap();
        let mut buffer = [0; 16];
        let (length, sender) = to.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"ping");
        if std::ptr::eq(to, server) {
            server.connect(sender).unwrap();
        }
    }
}

/// Reads a stream of Docker's frames to its end, both outputs together.
pub(crate) fn demultiplex(mut stream: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut head = [0; 8];
    while stream.read_exact(&mut head).is_ok() {
        assert!(matches!(head[..4], [1 | 2, 0, 0, 0]), "a frame's head: {head:?}");
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let read = stream.by_ref().take(length.into()).read_to_end(&mut bytes).unwrap();
        assert_eq!(read, length as usize, "the stream ended within a frame");
    }
    bytes
}
