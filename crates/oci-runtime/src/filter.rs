//! The system-call filter: how it is loaded, and who decides the calls that it leaves open.
//!
//! ```text
//! the process                                  its parent
//! seccomp(2): a listener at descriptor N
//! write(channel, LISTENER N)   ------------->  takes N out of the process (pidfd_getfd)
//!                                              connects to listenerPath; sends N and the process's state
//!                              <-------------  GO
//! closes N
//! ```
//!
//! Callers without privilege may not take it (ptrace(2), "Ptrace access mode checking"): they ask, and the process sends it,
//! unless that is a call for the listener, too.
//!
//! From the first line on any call of the process may wait for the listener's decision. Only write(2) must not, before the
//! listener has the descriptor: a filter that asks for it is refused, as by runc. Sent as a message the descriptor would
//! need sendmsg(2), which listeners for networks ask for.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci::runtime::{Linux, Spec, State};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
use serde_json::{Value, json};
use stdx::sealed;
use sys::fork::{Child, NewNamespaces, fork};
use sys::seccomp::{Flags, Program};

use crate::birth::{REAP_WITHIN, end};
use crate::channel::{At, Channel, Failure, Offer, Reason};
use crate::error::{CreateError, PlanError, Step, SystemError};

/// How long the listener's socket may take. It is the host's, and has nothing to do but to accept.
const LISTENER_WITHIN: Duration = Duration::from_secs(10);

/// A program with all that its loading needs.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    program: Program,
    flags: Flags,
    pub(crate) listener: Option<Listener>,
    /// What calls get that no rule speaks of, if they are not made: the action's word.
    denies: Option<String>,
}

/// Who decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    path: PathBuf,
    metadata: String,
    /// Whether sendmsg(2) waits for it.
    decides_messages: bool,
}

/// Why the listener of SCMP_ACT_NOTIFY could not be given its descriptor.
#[derive(Debug, thiserror::Error)]
#[error("linux.seccomp.listenerPath {}: {action}", path.display())]
pub struct ListenerError {
    /// What was tried.
    pub action: &'static str,
    /// The socket.
    pub path: PathBuf,
    /// The kernel's answer.
    pub source: SystemError,
}

impl Filter {
    /// Reads the program that the specification names.
    pub(crate) fn read(spec: &Spec) -> Result<Option<Filter>, CreateError> {
        let Some(path) = &spec.linux.seccomp_program else { return Ok(None) };
        let bytes = read_program(path).map_err(|source| CreateError::Read { path: path.to_owned(), source })?;
        let program = sealed::open(&bytes).and_then(Program::from_bytes);
        let program = program.ok_or_else(|| CreateError::SeccompProgram { path: path.clone() })?;
        let listener = listener(&spec.linux).filter(|_| program.notifies());
        if program.notifies() && listener.is_none() {
            return Err(PlanError::NoListener.into());
        }
        Ok(Some(Filter { program, flags: flags(&spec.linux)?, listener, denies: denies(&spec.linux) }))
    }

    /// The field that is at fault if the filter forbids a call that every container needs.
    pub(crate) fn field(&self) -> &'static str {
        if self.denies.is_some() { "linux.seccomp.defaultAction" } else { "linux.seccomp" }
    }

    /// In the words of the filter, if it may have been the filter that answered: it stands in front of all that comes before
    /// the program.
    pub(crate) fn blamed(&self, failure: Failure) -> Failure {
        let answers = [Errno::PERM, Errno::NOSYS].map(Errno::raw_os_error);
        let (Some(action), true) = (&self.denies, answers.contains(&failure.errno)) else { return failure };
        let what = match failure.reason {
            Reason::Step(step) => format!("{step} {}", failure.subject),
            Reason::Refused => failure.subject,
            // These have sentences that programs know.
            _ => return failure,
        };
        let rule = "has to allow what comes before the program";
        let subject = format!("{}: a filter with {action} {rule}: {}", self.field(), what.trim_end());
        Failure { reason: Reason::Refused, subject, ..failure }
    }

    /// Loads it, and hands its listener over.
    pub(crate) fn load(&self, channel: &Channel) -> Result<(), Failure> {
        match self.program.load(self.flags).at(Step::Seccomp, "")? {
            None => Ok(()),
            Some(listener) => channel.send_listener(&listener),
        }
    }
}

impl Listener {
    /// Takes the listener's descriptor out of the process, and sends it on with what is known of the process; or asks for
    /// another offer. Blocks for as long as the listener takes to accept, ten seconds at most.
    pub(crate) fn accept(
        &self,
        process: &Child,
        offer: Offer,
        state: &State,
        channel: &Channel,
    ) -> Result<(), ListenerError> {
        let Some(descriptor) = self.take(process, offer, channel)? else { return Ok(()) };
        let sent = self.send(&self.process_state(process, state), descriptor);
        sent.map_err(self.failed(SEND))?;
        channel.send_go().map_err(self.failed("answer the process"))
    }

    /// The same without blocking: a process of its own does what may take long. `None` if another offer was asked for.
    pub(crate) fn begin(
        &self,
        process: &Child,
        offer: Offer,
        state: &State,
        channel: &Channel,
    ) -> Result<Option<Delivery>, ListenerError> {
        let Some(descriptor) = self.take(process, offer, channel)? else { return Ok(None) };
        let text = self.process_state(process, state);
        let begin = || -> io::Result<Delivery> {
            let (answer, tell) = io::pipe()?;
            let (tell, descriptor) = (Cell::new(Some(tell)), Cell::new(Some(descriptor)));
            let messenger = fork(NewNamespaces::default(), None, || {
                let Some(descriptor) = descriptor.take() else { return 1 };
                let number = self.send(&text, descriptor).map_or_else(|err| err.raw_os_error().unwrap_or(EIO), |()| 0);
                let told = tell.take().map(|tell| rustix::io::write(&tell, &number.to_ne_bytes()));
                u8::from(!matches!(told, Some(Ok(_))))
            })?;
            // Ours would hide its death.
            drop(tell.take());
            Ok(Delivery { messenger, answer: answer.into(), listener: self.clone() })
        };
        begin().map(Some).map_err(self.failed(SEND))
    }

    /// `None`: the process was asked to send it.
    fn take(&self, process: &Child, offer: Offer, channel: &Channel) -> Result<Option<OwnedFd>, ListenerError> {
        let taken = match offer {
            Offer::At(number) => pidfd_getfd(&process.pidfd, number, PidfdGetfdFlags::empty()),
            Offer::Sent(descriptor) => Ok(descriptor),
        };
        match taken {
            Err(Errno::PERM) if !self.decides_messages => {
                channel.ask_for_listener().map(|()| None).map_err(self.failed("answer the process"))
            }
            other => other.map(Some).map_err(|err| self.failed("take the process's descriptor")(err.into())),
        }
    }

    fn send(&self, text: &str, descriptor: OwnedFd) -> io::Result<()> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // Of connect(2), too: a listener that does not accept has a full queue some day.
        set_socket_timeout(&socket, Timeout::Send, Some(LISTENER_WITHIN))?;
        connect(&socket, &SocketAddrUnix::new(&self.path)?)?;
        send_all(&socket, text.as_bytes(), descriptor)
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> ListenerError {
        let path = self.path.clone();
        move |err| ListenerError { action, path, source: SystemError(err) }
    }

    /// Runtime-spec config-linux.md, "The Container Process State".
    fn process_state(&self, process: &Child, state: &State) -> String {
        let mut value = json!({
            "ociVersion": state.oci_version,
            "fds": ["seccompFd"],
            "pid": process.pid.as_raw_nonzero().get(),
            "state": state,
        });
        if !self.metadata.is_empty() {
            value["metadata"] = json!(self.metadata);
        }
        value.to_string()
    }
}

const SEND: &str = "send the listener's descriptor";

const EIO: i32 = Errno::IO.raw_os_error();

/// A descriptor on its way to its listener. Dropping it ends the way.
#[derive(Debug)]
pub(crate) struct Delivery {
    messenger: Child,
    answer: OwnedFd,
    listener: Listener,
}

impl Delivery {
    /// Readable when [`Delivery::end`] has an answer.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.answer.as_fd()
    }

    /// What came of it, once there is an answer. The process is to be told then.
    pub(crate) fn end(self) -> Result<(), ListenerError> {
        let mut number = [0; 4];
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&self.answer, &mut number));
        let err = match (read, i32::from_ne_bytes(number)) {
            (Ok(4), 0) => return Ok(()),
            (Ok(4), number) => io::Error::from_raw_os_error(number),
            // It was killed.
            (Ok(_), _) => Errno::PIPE.into(),
            (Err(err), _) => err.into(),
        };
        Err(self.listener.failed(SEND)(err))
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        end(&self.messenger, REAP_WITHIN);
    }
}

/// The descriptor goes with the first bytes.
fn send_all(socket: &OwnedFd, bytes: &[u8], descriptor: OwnedFd) -> io::Result<()> {
    let mut sent = sys::socket::send(socket.as_fd(), bytes, &[descriptor.as_fd()])?;
    while sent < bytes.len() {
        sent += sys::socket::send(socket.as_fd(), &bytes[sent..], &[])?;
    }
    Ok(())
}

/// One byte more than a program has at most, which makes it none. A FIFO is not waited for, and a device ends.
fn read_program(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let mut bytes = Vec::with_capacity(PROGRAM_BYTES);
    file.take((sealed::HEAD_BYTES + Program::BYTES_MAX) as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Docker's default takes a little less.
const PROGRAM_BYTES: usize = 4096;

/// What is refused of the filter before anything is made.
pub(crate) fn check(linux: &Linux) -> Result<(), PlanError> {
    flags(linux).map(drop)
}

/// SECCOMP_FILTER_FLAG_SPEC_ALLOW where nothing is said, as with runc.
fn flags(linux: &Linux) -> Result<Flags, PlanError> {
    let Some(words) = linux.seccomp.as_ref().and_then(|profile| profile.get("flags")).and_then(Value::as_array) else {
        return Ok(Flags::SPEC_ALLOW);
    };
    words.iter().enumerate().try_fold(Flags::default(), |flags, (index, word)| match word.as_str() {
        // For threads, and we have one.
        Some("SECCOMP_FILTER_FLAG_TSYNC") => Ok(flags),
        Some("SECCOMP_FILTER_FLAG_LOG") => Ok(flags.union(Flags::LOG)),
        Some("SECCOMP_FILTER_FLAG_SPEC_ALLOW") => Ok(flags.union(Flags::SPEC_ALLOW)),
        Some("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV") => Ok(flags.union(Flags::WAIT_KILLABLE_RECV)),
        _ => Err(PlanError::Unsupported { what: format!("linux.seccomp.flags[{index}]: {word}") }),
    })
}

/// The default action, if it lets no call be made.
fn denies(linux: &Linux) -> Option<String> {
    let action = linux.seccomp.as_ref()?.get("defaultAction")?.as_str()?;
    let lets = ["", "SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE"];
    (!lets.contains(&action)).then(|| action.to_owned())
}

fn listener(linux: &Linux) -> Option<Listener> {
    let text = |name| Some(linux.seccomp.as_ref()?.get(name)?.as_str()?.to_owned());
    let path = text("listenerPath").filter(|path| !path.is_empty())?;
    let rules = linux.seccomp.as_ref()?.get("syscalls").and_then(Value::as_array).into_iter().flatten();
    let mut asked = rules.filter(|rule| rule["action"] == "SCMP_ACT_NOTIFY");
    let names_sendmsg = |names: &Vec<Value>| names.iter().any(|name| name == "sendmsg");
    let decides_messages = asked.any(|rule| rule["names"].as_array().is_some_and(names_sendmsg));
    Some(Listener { path: path.into(), metadata: text("listenerMetadata").unwrap_or_default(), decides_messages })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linux(profile: Value) -> Linux {
        Linux { seccomp: Some(profile), ..Linux::default() }
    }

    #[test]
    fn flags_are_words_and_without_words_there_is_one() {
        assert_eq!(flags(&Linux::default()).unwrap(), Flags::SPEC_ALLOW);
        assert_eq!(flags(&linux(json!({}))).unwrap(), Flags::SPEC_ALLOW);
        assert_eq!(flags(&linux(json!({"flags": []}))).unwrap(), Flags::default());
        let words = json!({"flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]});
        assert_eq!(flags(&linux(words)).unwrap(), Flags::LOG.union(Flags::WAIT_KILLABLE_RECV));
        let err = check(&linux(json!({"flags": ["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}))).unwrap_err().to_string();
        assert_eq!(err, "linux.seccomp.flags[0]: \"SECCOMP_FILTER_FLAG_NEW_LISTENER\" is not supported");
    }

    #[test]
    fn what_never_ends_is_no_program() {
        let linux = Linux { seccomp_program: Some("/dev/zero".into()), ..Linux::default() };
        let read = Filter::read(&Spec { linux, ..Spec::default() });
        assert!(matches!(read, Err(CreateError::SeccompProgram { .. })));
    }

    #[test]
    fn a_listener_has_a_path() {
        assert_eq!(listener(&linux(json!({"listenerMetadata": "m", "listenerPath": ""}))), None);
        let found = listener(&linux(json!({"listenerMetadata": "m", "listenerPath": "/s"})));
        assert_eq!(found, Some(Listener { path: "/s".into(), metadata: "m".into(), decides_messages: false }));
        let rules = json!([{"names": ["mkdir", "sendmsg"], "action": "SCMP_ACT_NOTIFY"}]);
        let found = listener(&linux(json!({"listenerPath": "/s", "syscalls": rules})));
        assert!(found.unwrap().decides_messages);
    }
}
