//! The protocol between the daemon and a shim.
//!
//! ```text
//!   daemon --- Request{seq, container, call} (+ descriptors) --->  shim
//!          <-- Message::Reply{seq, result} ----------------------
//!          <-- Message::Fact(..) --------------------------------   to every connection that said Hello
//! ```
//!
//! A frame is a little-endian `u32` length and that many bytes of JSON ([`frame`]). Descriptors travel with SCM_RIGHTS on the
//! bytes of the frame that announces them (`Request::descriptors`), and are matched to frames by count, in order.
//! Requests may be pipelined: the daemon sends `Hello`, `Create`, `Attach` and `Start` in one write.
//!
//! A shim's directory, below `<exec-root>/containers/<id>/` (mode 0700, tmpfs):
//! ```text
//!   shim.sock    where a restarted daemon finds the shim (mode 0600; peers that are not root are refused)
//!   state.json   RunState, written before Start is answered
//!   exit.json    ExitFile, written before Exited is posted; outlives the shim
//!   exec-<id>.json  the daemons': an exec that was made and not started (crate `engine`)
//! ```
//! The first connection is a socket pair that the shim inherits as descriptor 3, so that no start waits for a socket file.
//!
//! Life: the shim makes the container at `Create`, lets it run at `Start`, and ends by itself when the container has ended, its
//! output has been written, `exit.json` is in place and `Exited` was posted. The daemon never has to be there: one that
//! comes later finds `exit.json`. The shim removes the container's cgroups; the daemon removes the directory.
//!
//! [`VERSION`] grows with every change; a daemon speaks all earlier versions.

pub mod frame;
pub mod paths;

use errdefs::ErrorKind;
use oci::ContainerId;
use oci::runtime::{NamespaceKind, Process, Spec};
use serde::{Deserialize, Serialize};

/// The version that this build speaks.
pub const VERSION: u32 = 8;

/// What the daemon asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the daemon, repeated in the reply.
    pub seq: u64,
    /// Which container is meant: one shim may own several one day.
    pub container: ContainerId,
    /// How many descriptors come with this frame.
    #[serde(default)]
    pub descriptors: u32,
    /// What is asked.
    pub call: Call,
}

/// The calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Call {
    /// Names the daemon's version and subscribes this connection to facts. Answer: [`Answer::Hello`].
    Hello {
        /// The daemon's [`VERSION`].
        version: u32,
    },
    /// Makes the container up to the point where its program would be executed. The first descriptor is a network
    /// namespace if [`CreateTask::joins_network`]; then come those of [`CreateTask::joins`] and
    /// [`CreateTask::shares_memory`]; the others the shim keeps open until the container has ended: sockets
    /// that hold its published ports, daemon or no daemon, and last of all those of [`CreateTask::lends`].
    /// Answer: [`Answer::Created`].
    Create(Box<CreateTask>),
    /// Connects a client: one descriptor, the client's stream. The shim owns it from then on. Answer: [`Answer::Done`]; for
    /// one that is held [`Answer::Held`], as soon as everything can be read in the log that came before.
    Attach(Attach),
    /// Lets a client go that was held. Since version 5. Answer: [`Answer::Done`].
    Release {
        /// Which one: [`Attach::hold`].
        hold: u64,
        /// What it sent meanwhile, as far as the daemon has read it.
        already_read: Vec<u8>,
    },
    /// Lets the program run. Answer: [`Answer::Started`].
    Start,
    /// Writes the container to files. Since version 6; since version 7 the directory gets its name, daemon or no daemon.
    /// Answer, when everything is written and named: [`Answer::Done`]; the news of the container's end, if that is to be its
    /// end, comes after it.
    Checkpoint(Box<CheckpointTask>),
    /// Adds a process; with one descriptor, the client's stream, unless detached. Answer: [`Answer::ExecStarted`].
    Exec(Box<ExecTask>),
    /// Sets a terminal's size. Answer: [`Answer::Done`].
    Resize {
        /// The exec; the container itself if absent.
        exec_id: Option<String>,
        /// Rows.
        height: u16,
        /// Columns.
        width: u16,
    },
    /// Sends a signal to the container's first process. Answer: [`Answer::Done`].
    Signal {
        /// Its number.
        signal: i32,
    },
    /// Sends a signal to an exec's process. One that has ended needs none. Since version 3. Answer: [`Answer::Done`].
    SignalExec {
        /// Which one.
        exec_id: String,
        /// Its number.
        signal: i32,
    },
    /// Asks how the container is. Answer: [`Answer::State`].
    State,
    /// Has descriptors kept as long as the container's first process lives, in place of those that were kept to be lent
    /// before. Since version 8. Answer: [`Answer::Done`].
    Keep,
    /// Asks for copies of the descriptors that are kept to be lent. Since version 8. Answer: [`Answer::Lent`].
    Lend,
    /// Looks for a user in the container's files, as an exec will. Answer: [`Answer::Done`].
    CheckUser {
        /// `user[:group]` as the user wrote it.
        user: String,
    },
}

/// What a container is made of, and what the shim does with its streams.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateTask {
    /// The OCI specification. `process.user` counts only where `user` is absent.
    pub spec: Spec,
    /// `user[:group]` as the user wrote it, resolved inside the root by descriptor.
    pub user: Option<String>,
    /// More groups, names or numbers, resolved likewise.
    pub groups: Vec<String>,
    /// Whether standard input is a pipe (or the terminal) instead of /dev/null.
    pub open_stdin: bool,
    /// Whether standard input ends when the first client's does.
    pub stdin_once: bool,
    /// The log on this machine, if there is one.
    pub log: Option<LogTarget>,
    /// The server that gets a message for every line, if there is one. Since version 4.
    #[serde(default)]
    pub log_server: Option<LogServer>,
    /// A directory on the data disk where output that a slow client has not read yet may be kept in unnamed files.
    pub spool_dir: std::path::PathBuf,
    /// The container lives in the network namespace whose descriptor comes with the frame. Since version 2.
    #[serde(default)]
    pub joins_network: bool,
    /// More namespaces that the container lives in, whose descriptors come next, in this order. Since version 3.
    #[serde(default)]
    pub joins: Vec<NamespaceKind>,
    /// A detached mount comes next, to be attached at /dev/shm. Since version 3.
    #[serde(default)]
    pub shares_memory: bool,
    /// Who makes the container instead of the shim itself. Since version 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<ForeignRuntime>,
    /// How many of the descriptors, the last ones, are kept to be lent to later daemons: the sockets of the container's name
    /// server, in which queries wait meanwhile. Since version 8.
    #[serde(default)]
    pub lends: u32,
    /// The files that it goes on from, instead of from its program's beginning. Since version 6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreTask>,
}

/// Files that a container was written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreTask {
    /// Their directory.
    pub images: std::path::PathBuf,
    /// Where CRIU writes its log; made.
    pub work: std::path::PathBuf,
    /// A directory that the shim makes for its work and leaves in its own.
    pub bundle: std::path::PathBuf,
    /// What the shim finds CRIU by: the daemon's `PATH`.
    pub search_path: String,
}

/// Where a container is written to, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointTask {
    /// The specification as it would be made again: of it the mounts count.
    pub spec: Spec,
    /// The directory, which exists.
    pub images: std::path::PathBuf,
    /// What that is called once everything in it is on the disk; in the same directory. Since version 7.
    pub named: std::path::PathBuf,
    /// Where CRIU writes its log; made.
    pub work: std::path::PathBuf,
    /// Whether the container goes on afterwards.
    pub leave_running: bool,
    /// What the shim finds CRIU by: the daemon's `PATH`.
    pub search_path: String,
}

/// Another OCI runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignRuntime {
    /// The program.
    pub path: std::path::PathBuf,
    /// What stands before its command.
    pub args: Vec<String>,
    /// Where it keeps its state.
    pub root: std::path::PathBuf,
    /// Where the bundle is made.
    pub bundle: std::path::PathBuf,
}

/// A log in files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTarget {
    /// The current file; rotated ones get `.1`, `.2` and so on.
    pub path: std::path::PathBuf,
    /// Bytes after which it is rotated; never if absent.
    pub max_size_bytes: Option<u64>,
    /// How many files are kept, the current one included; at least 1.
    pub max_files: u32,
    /// Put in every line as `attrs`: labels and environment that `--log-opt labels/env` selects.
    pub attrs: std::collections::BTreeMap<String, String>,
    /// In Longshore's own format instead of Docker's JSON. Since version 4.
    #[serde(default)]
    pub compact: bool,
    /// Whether rotated files are compressed. Since version 4.
    #[serde(default)]
    pub compress: bool,
    /// Lines that find no room among so many bytes are dropped; if absent, the container waits. Since version 4.
    #[serde(default)]
    pub buffer_max_bytes: Option<u64>,
}

/// A log that goes to a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogServer {
    /// Which one.
    pub kind: LogServerKind,
    /// As [`LogTarget::buffer_max_bytes`].
    pub buffer_max_bytes: Option<u64>,
}

/// Servers that take messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogServerKind {
    /// One that speaks syslog.
    Syslog {
        /// `unix`, `unixgram`, `tcp` or `udp`; empty for the server of this machine.
        network: String,
        /// A path, or `host:port`.
        address: String,
        /// The facility's number.
        facility: u8,
        /// How messages look.
        format: SyslogFormat,
        /// Whose they are.
        tag: String,
    },
    /// The journal.
    Journal {
        /// Its socket.
        socket: std::path::PathBuf,
        /// What every message says.
        fields: std::collections::BTreeMap<String, String>,
    },
}

/// How messages to syslog look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyslogFormat {
    /// For a server on this machine, without its name.
    Unix,
    /// RFC 3164.
    Rfc3164,
    /// RFC 5424.
    Rfc5424,
    /// RFC 5424 with microseconds.
    Rfc5424Micro,
}

/// Which streams a client wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// What it sends is the container's input.
    pub stdin: bool,
    /// It gets standard output.
    pub stdout: bool,
    /// It gets standard error.
    pub stderr: bool,
    /// Bytes of the client's input that the daemon read already, behind the request.
    pub already_read: Vec<u8>,
    /// The byte sequence that detaches the client; only looked for with a terminal. Empty for none.
    pub detach_keys: Vec<u8>,
    /// What the client gets before anything else, as it is: the head of the answer to its request. It and the output
    /// from then on come in one turn, so that a client which has read it misses nothing.
    #[serde(default)]
    pub preamble: Vec<u8>,
    /// Whether output comes in pieces that say which output it is; if absent, that is so without a terminal. Since
    /// version 5.
    #[serde(default)]
    pub framed: Option<bool>,
    /// Keeps everything back that the client is to get until this connection says [`Call::Release`] with this number: the
    /// daemon has something to send before. A client that is not released within ten seconds is let go of without a word,
    /// and so are those that are held when the shim ends. Since version 5.
    #[serde(default)]
    pub hold: Option<u64>,
}

/// A process to add.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecTask {
    /// Its id.
    pub exec_id: String,
    /// What it runs. `process.user` counts only where `user` is absent.
    pub process: Process,
    /// `user[:group]` as the user wrote it.
    pub user: Option<String>,
    /// More groups, names or numbers: the container's own.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Its client, if it has one: one descriptor comes with the frame.
    pub attach: Option<Attach>,
    /// What the next daemon has to know of it, in the words of this one: [`ExecState::note`].
    #[serde(default)]
    pub note: String,
}

/// What the shim says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// The answer to a request.
    Reply {
        /// The request's.
        seq: u64,
        /// How it went.
        result: Result<Answer, Failure>,
    },
    /// Something happened.
    Fact(Fact),
}

/// The answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Call::Hello`].
    Hello {
        /// The shim's [`VERSION`].
        version: u32,
        /// The container, if it was created.
        state: Option<RunState>,
        /// Execs that run, and the last that ended: a daemon that was told of one may be dead.
        execs: Vec<ExecState>,
    },
    /// To [`Call::Create`].
    Created {
        /// The first process, on the host.
        pid: i32,
    },
    /// To [`Call::Start`].
    Started(RunState),
    /// To [`Call::Exec`].
    ExecStarted {
        /// The process, on the host.
        pid: i32,
    },
    /// To [`Call::State`].
    State(Option<RunState>),
    /// To [`Call::Attach`] of a client that is held. Since version 5.
    Held {
        /// The log has everything up to this moment, in nanoseconds since 1970, and the client gets everything from then on.
        /// Absent without a log.
        logged_until_nanos: Option<u64>,
    },
    /// To [`Call::Lend`]. Since version 8.
    Lent {
        /// How many come with the first byte of this frame.
        descriptors: u32,
    },
    /// To calls that have nothing to tell.
    Done,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What the caller can do about it.
    #[serde(with = "kind_name")]
    pub kind: ErrorKind,
    /// In words, with its causes, such as `exec: "nosuch": executable file not found in $PATH`.
    pub message: String,
    /// Docker's exit code for a program that could not be started: 126 or 127; 128 for everything else.
    pub exit_code: i32,
    /// What was at fault.
    #[serde(default)]
    pub reason: Reason,
}

/// Why a directory is not mounted over something else, nor something else over a directory. The words are runc's, and
/// clients look for them.
pub fn mount_refusal(mounted: &str, place: &str, reason: &dyn std::fmt::Display) -> String {
    format!("error mounting \"{mounted}\" to rootfs at \"{place}\": mount src={mounted}, dst={place}: {reason}")
}

/// What was at fault when a call failed, as far as Docker's sentences differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// Everything else.
    #[default]
    Runtime,
    /// A user or a group that the container's files do not have: Docker's engine finds that out before its runtime runs.
    User,
    /// A working directory that is a file: Docker's engine finds that out, too.
    WorkingDir,
    /// A log that cannot be opened.
    Log,
    /// Another runtime, in its own words. Since version 3.
    Foreign,
    /// A checkpoint that the container was to go on from. Since version 6.
    Restore,
}

/// A container that was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunState {
    /// The first process, on the host.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat, which tells a reused process id apart.
    pub pid_start_ticks: u64,
    /// The shim, on the host.
    pub shim_pid: i32,
    /// Whether the program was let run.
    pub started: bool,
    /// Nanoseconds since 1970.
    pub started_at_nanos: i64,
}

/// An exec that runs or has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecState {
    /// Its id.
    pub exec_id: String,
    /// The process, on the host.
    pub pid: i32,
    /// Its exit code, once it has ended.
    pub exit_code: Option<i32>,
    /// What the daemon that started it noted: [`ExecTask::note`].
    #[serde(default)]
    pub note: String,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The exit code, or 128 and the signal.
    pub exit_code: i32,
    /// Nanoseconds since 1970.
    pub exited_at_nanos: i64,
    /// Nanoseconds since 1970.
    pub started_at_nanos: i64,
    /// The kernel killed a process of it for lack of memory.
    pub oom_killed: bool,
    /// Why its program was never executed, in words, if it was not. Since version 6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unexecuted: Option<String>,
}

/// What `exit.json` has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitFile {
    /// How the container ended.
    #[serde(flatten)]
    pub exit: ExitRecord,
    /// The execs that ended before, as far as they are kept: a daemon may never have heard of them. Since version 6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub execs: Vec<ExecState>,
}

/// What a shim posts by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// The container ended. The last fact of a shim.
    Exited {
        /// Which.
        container: ContainerId,
        /// How.
        exit: ExitRecord,
    },
    /// An exec ended. Posted before its client gets the end of its stream, so that who sees that end and asks the daemon
    /// for the exit code is never told that it still runs.
    ExecExited {
        /// In which container.
        container: ContainerId,
        /// Which.
        exec_id: String,
        /// The exit code, or 128 and the signal.
        exit_code: i32,
    },
    /// The kernel killed a process for lack of memory.
    Oom {
        /// In which container.
        container: ContainerId,
    },
    /// Lines could not be written to the log.
    LogLost {
        /// Of which container.
        container: ContainerId,
        /// How many since the last such fact.
        lines: u64,
    },
    /// A client used the detach keys.
    Detached {
        /// From which container.
        container: ContainerId,
        /// From which exec; from the container itself if absent.
        exec_id: Option<String>,
    },
}

mod kind_name {
    //! An [`ErrorKind`] by name: the enum itself stays free of serde.

    use errdefs::ErrorKind;
    use serde::{Deserialize, Deserializer, Serializer};

    const NAMES: [(ErrorKind, &str); 10] = [
        (ErrorKind::InvalidArgument, "invalid-argument"),
        (ErrorKind::Unauthorized, "unauthorized"),
        (ErrorKind::Forbidden, "forbidden"),
        (ErrorKind::NotFound, "not-found"),
        (ErrorKind::Conflict, "conflict"),
        (ErrorKind::AlreadyExists, "already-exists"),
        (ErrorKind::NotModified, "not-modified"),
        (ErrorKind::NotImplemented, "not-implemented"),
        (ErrorKind::Unavailable, "unavailable"),
        (ErrorKind::Internal, "internal"),
    ];

    pub(super) fn serialize<S: Serializer>(kind: &ErrorKind, serializer: S) -> Result<S::Ok, S::Error> {
        let name = NAMES.iter().find(|(k, _)| k == kind).map_or("internal", |(_, name)| name);
        serializer.serialize_str(name)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ErrorKind, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        // A kind that a newer shim invented is our "internal": the message still tells.
        Ok(NAMES.iter().find(|(_, name)| *name == text).map_or(ErrorKind::Internal, |(kind, _)| *kind))
    }
}
