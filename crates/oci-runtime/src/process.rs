//! The half that the first process and exec have in common: from the container's namespaces to the program.

use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use oci::runtime::{Capabilities, ConsoleSize, Hook, Namespace, NamespaceKind, Process, State};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, accessat, fchown, fstat, stat};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, chdir, getcwd, ioctl_tiocsctty, setrlimit, setsid, umask};
use sys::open::openat2;
use sys::{capability, signal, terminal};

use crate::channel::{At, Channel, Failure, Reason, wait_for_start};
use crate::error::{PlanError, Step};
use crate::field::FieldError;
use crate::filter::Filter;
use crate::hooks::{HookError, run_all};
use crate::interpreter;
use crate::labels::Labels;
use crate::mounts::{clone_tree, move_to};
use crate::scheduling::{Machine, Scheduling};
use crate::target::PATH_FLAGS;
use crate::user_namespace;
use crate::{Kept, Stdio};

/// A process, ready to be executed: everything that can be computed before the clone.
#[derive(Clone, Debug)]
pub(crate) struct ProcessPlan {
    argv: Vec<CString>,
    envp: Vec<CString>,
    /// The directories of `PATH`, if the name is looked up there.
    search: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    groups: Vec<Gid>,
    umask: u32,
    capabilities: CapabilitySets,
    rlimits: Vec<(usize, Rlimit)>,
    no_new_privileges: bool,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) scheduling: Scheduling,
    pub(crate) machine: Machine,
    pub(crate) labels: Labels,
    pub(crate) seccomp: Option<Filter>,
    keyring: CString,
    /// Height and width.
    console_size: Option<(u16, u16)>,
    pub(crate) kept: Kept,
    /// What is run before the program, and what it is told.
    pub(crate) start_hooks: Option<(Vec<Hook>, State)>,
    /// Whether a program that cannot be executed is told with its field: dockerd's users know the sentence without it.
    pub(crate) names_field: bool,
    /// Whether it is told what is missing where the program itself is there.
    pub(crate) names_interpreter: bool,
}

/// The five sets as bits, within what the host can give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CapabilitySets {
    /// What the bounding set loses: all that it holds and the process shall not.
    dropped: capability::Set,
    effective: capability::Set,
    inheritable: capability::Set,
    permitted: capability::Set,
    ambient: capability::Set,
}

/// Where a process's streams come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Streams<'a> {
    /// Of a container's first process, whose terminal is /dev/console, too.
    First(&'a Stdio),
    /// A terminal of its own.
    Terminal,
    /// They are in their place already.
    Placed,
}

/// umask where the specification says nothing (runc's).
const UMASK_DEFAULT: u32 = 0o022;

/// Status of a process that could not be executed after it was started, as runc's.
const STATUS_EXEC_FAILED: u8 = 255;

/// Why execve has failed, for those who explain: the kernel says the same of a file and of its interpreter.
fn unexecuted(program: &CString, err: &io::Error, interpreter: &Option<String>) -> Failure {
    let errno = err.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
    let program = program.to_string_lossy();
    match interpreter {
        Some(name) => Failure { reason: Reason::Interpreter, errno, subject: format!("{program}\0{name}") },
        None => Failure { reason: Reason::Execute, errno, subject: program.into_owned() },
    }
}

impl ProcessPlan {
    /// `home` is what HOME becomes if the environment has none; `held` the host's bounding set.
    pub(crate) fn new(
        id: &str,
        process: &Process,
        home: impl FnOnce() -> Result<String, crate::user::UserError>,
        seccomp: Option<Filter>,
        held: capability::Set,
    ) -> Result<Result<ProcessPlan, crate::user::UserError>, PlanError> {
        let name = process.args.first().ok_or(PlanError::NoArguments)?;
        if !process.cwd.starts_with('/') {
            let relative = FieldError::Relative { path: process.cwd.clone() };
            return Err(if process.cwd.is_empty() { FieldError::Empty } else { relative }.at("process.cwd"));
        }
        check_ids(&process.user)?;
        if let Some(umask) = process.user.umask {
            // The kernel takes the permission bits of it. A greater one was meant to be read as octal.
            FieldError::in_range(umask, 0, 0o777).map_err(|err| err.at("process.user.umask"))?;
        }
        if let Some(value) = process.oom_score_adj {
            FieldError::in_range(value, -1000, 1000).map_err(|err| err.at("process.oomScoreAdj"))?;
        }
        let mut env = unique(&process.env);
        if !env.iter().any(|entry| entry.starts_with("HOME=")) {
            match home() {
                Ok(home) => env.push(format!("HOME={home}")),
                Err(err) => return Ok(Err(err)),
            }
        }
        let path = env.iter().find_map(|entry| entry.strip_prefix("PATH="));
        let search = path.filter(|_| !name.contains('/')).map(|path| path.split(':').map(str::to_owned).collect());
        let groups = process.user.additional_gids.iter().map(|gid| Gid::from_raw(*gid));
        Ok(Ok(ProcessPlan {
            argv: c_strings("process.args", &process.args)?,
            search: search.unwrap_or_default(),
            envp: c_strings("process.env", &env)?,
            cwd: process.cwd.clone(),
            uid: process.user.uid,
            gid: process.user.gid,
            groups: groups.collect(),
            umask: process.user.umask.unwrap_or(UMASK_DEFAULT),
            capabilities: CapabilitySets::plan(process.capabilities.as_ref(), held),
            rlimits: rlimits(&process.rlimits)?,
            no_new_privileges: process.no_new_privileges,
            oom_score_adj: process.oom_score_adj,
            scheduling: Scheduling::plan(process)?,
            machine: Machine::default(),
            labels: Labels::plan(process)?,
            seccomp,
            keyring: CString::new(format!("_ses.{id}")).map_err(|_| PlanError::Nul { field: "id" })?,
            console_size: console_size(process)?,
            kept: Kept::default(),
            start_hooks: None,
            names_field: false,
            names_interpreter: false,
        }))
    }

    /// What [`ProcessPlan::new`] would refuse.
    pub(crate) fn check(process: &Process) -> Result<(), PlanError> {
        ProcessPlan::new("", process, || Ok("/".into()), None, capability::Set::default()).map(drop)
    }

    /// The first descriptor that the program does not have.
    pub(crate) fn first_closed(&self) -> u32 {
        3 + self.kept.descriptors
    }

    /// Does everything up to execve, reports, waits at the gate, and executes.
    ///
    /// Runs in the child, inside the container's namespaces and root, still with every privilege. The order is runc's,
    /// where each step says why it cannot come later or earlier.
    ///
    /// The gate is the channel where there is no other.
    pub(crate) fn run(
        &self,
        streams: Streams<'_>,
        channel: &Channel,
        gate: Option<BorrowedFd<'_>>,
    ) -> Result<Infallible, Failure> {
        if !self.kept.keyring {
            self.join_keyring()?;
        }
        setsid().at(Step::Terminal, "")?;
        match streams {
            Streams::First(Stdio::Terminal) => self.set_terminal(channel, true)?,
            Streams::Terminal => self.set_terminal(channel, false)?,
            Streams::First(Stdio::Fds(fds)) => self.set_stdio(fds)?,
            Streams::Placed => {}
        }
        self.set_rlimits()?;
        // As root first: the directory may be closed to the user, whose command then still starts in it, as with runc.
        let entered = self.enter_cwd();
        // Some of it needs CAP_SYS_NICE, which the container may not keep, and calls that its filter may forbid.
        self.scheduling.apply()?;
        self.machine.apply()?;
        // Before there is a filter: it may not know close_range(2), and the descriptors are nobody's business inside.
        let channel = channel.0.as_fd();
        let finish = |channel, gate| self.finish(Channel(channel), gate, entered);
        let kept = match gate {
            None => sys::fd::keep_only(self.first_closed(), [channel], |[channel]| finish(channel, None)),
            Some(gate) => {
                sys::fd::keep_only(self.first_closed(), [channel, gate], |[channel, gate]| finish(channel, Some(gate)))
            }
        };
        kept.map_err(|err| self.unkept(err))
    }

    /// From the last descriptor that is the host's to the program's end, or what comes instead.
    fn finish(&self, channel: Channel, gate: Option<OwnedFd>, entered: Result<(), Failure>) -> u8 {
        let program = match self.lower_privileges(&channel, entered).and_then(|program| {
            channel.send_ready()?;
            Ok(program)
        }) {
            Ok(program) => program,
            Err(failure) => {
                channel.send_failure(&failure);
                return 1;
            }
        };
        // With a gate of its own the channel has said everything, and is closed here.
        let channel = gate.is_none().then_some(channel);
        let started = match (&gate, &channel) {
            (Some(gate), _) => wait_for_start(gate),
            (None, Some(channel)) => wait_for_start(&channel.0),
            (None, None) => false,
        };
        drop(gate);
        if started { self.execute(&program, channel.as_ref()) } else { 1 }
    }

    /// Everything after which there is less that this process may do; the program's path.
    fn lower_privileges(&self, channel: &Channel, entered: Result<(), Failure>) -> Result<CString, Failure> {
        if !self.no_new_privileges {
            // Needs CAP_SYS_ADMIN, which the container may not keep.
            self.load_seccomp(channel)?;
        }
        self.drop_privileges().map_err(|failure| self.by_filter(failure))?;
        if entered.is_err() {
            self.enter_cwd()?;
        }
        let program = self.find_program()?;
        umask(Mode::from_raw_mode(self.umask));
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true).at(Step::NoNewPrivileges, "")?;
            // As late as possible: the profile need not allow what was done before.
            self.load_seccomp(channel)?;
        }
        Ok(program)
    }

    /// In the words of the filter, if one is loaded by now that may be at fault.
    fn by_filter(&self, failure: Failure) -> Failure {
        match self.seccomp.as_ref().filter(|_| !self.no_new_privileges) {
            Some(filter) => filter.blamed(failure),
            None => failure,
        }
    }

    fn join_keyring(&self) -> Result<(), Failure> {
        match sys::keyring::join_session(&self.keyring) {
            // A kernel without keyrings, or a filter around us that forbids them: nothing to protect.
            Err(err) if matches!(Errno::from_io_error(&err), Some(Errno::NOSYS | Errno::PERM)) => Ok(()),
            other => other.at(Step::Keyring, ""),
        }
    }

    /// The channel, which goes with execve, is for a parent that wants to know more.
    fn execute(&self, program: &CString, channel: Option<&Channel>) -> u8 {
        // The container counts as started: what goes wrong is told on its own standard error, as runc does it.
        let text = match self.run_start_hooks() {
            Err(err) => format!("{}\n", errdefs::chain(&err)),
            Ok(()) => {
                // Nothing is open that stays open: all that was is closed, and what came since is close-on-exec.
                let err = match signal::reset() {
                    Ok(()) => sys::exec::execve(program, &self.argv, &self.envp),
                    Err(err) => err,
                };
                let missing = err.kind() == io::ErrorKind::NotFound;
                let field = if self.names_field { "process.args[0]: " } else { "" };
                let end = if self.names_interpreter { "" } else { "\n" };
                let text = format!("{field}exec {}: {}{end}", program.to_string_lossy(), errdefs::system_words(&err));
                // At once: the filter may end whoever looks further.
                let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
                let interpreter = missing.then(|| interpreter::named_by(program)).flatten();
                channel.into_iter().for_each(|channel| channel.send_failure(&unexecuted(program, &err, &interpreter)));
                match interpreter {
                    _ if !self.names_interpreter => String::new(),
                    Some(name) => format!(": its interpreter {name} is missing\n"),
                    None => "\n".to_owned(),
                }
            }
        };
        let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
        STATUS_EXEC_FAILED
    }

    fn run_start_hooks(&self) -> Result<(), HookError> {
        let Some((hooks, state)) = &self.start_hooks else { return Ok(()) };
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        run_all("startContainer", hooks, &State { pid, ..state.clone() })
    }

    fn set_terminal(&self, channel: &Channel, console: bool) -> Result<(), Failure> {
        let pair = open_ptmx().and_then(terminal::pair).at(Step::Terminal, "/dev/pts/ptmx")?;
        if let Some((height, width)) = self.console_size {
            terminal::resize(&pair.master, height, width).at(Step::Terminal, "size")?;
        }
        fchown(&pair.slave, Some(Uid::from_raw(self.uid)), None).at(Step::Terminal, "owner")?;
        if console {
            show_console(&pair.slave).at(Step::Terminal, "/dev/console")?;
        }
        ioctl_tiocsctty(&pair.slave).at(Step::Terminal, "controlling terminal")?;
        sys::fd::set_standard([pair.slave.as_fd(); 3]).at(Step::Stdio, "")?;
        channel.send_console(&pair.master)
    }

    /// Puts the streams where the program expects them.
    pub(crate) fn set_stdio(&self, fds: &[OwnedFd; 3]) -> Result<(), Failure> {
        let mut own_null = None;
        let mut given = fds.each_ref().map(|fd| fd.as_fd());
        for fd in fds {
            let stat = fstat(fd).at(Step::Stdio, "")?;
            if !is_null(&stat) {
                self.give_stream(fd.as_fd(), &stat).at(Step::Stdio, "owner")?;
            } else if own_null.is_none() {
                own_null = Some(open_null().at(Step::Stdio, "/dev/null")?);
            }
        }
        if let Some(null) = &own_null {
            let is_null = |fd: &BorrowedFd<'_>| fstat(fd).is_ok_and(|stat| is_null(&stat));
            given.iter_mut().filter(|fd| is_null(fd)).for_each(|fd| *fd = null.as_fd());
        }
        sys::fd::set_standard(given).at(Step::Stdio, "")
    }

    /// Makes the user the owner of a pipe, so that a program may open /dev/stdout again.
    fn give_stream(&self, fd: BorrowedFd<'_>, stat: &rustix::fs::Stat) -> io::Result<()> {
        if stat.st_uid == self.uid {
            return Ok(());
        }
        match fchown(fd, Some(Uid::from_raw(self.uid)), None) {
            // A file on a read-only or foreign file system, or a socket: such a stream keeps its owner (runc's list).
            Err(Errno::INVAL | Errno::PERM | Errno::ROFS | Errno::ACCESS) => Ok(()),
            other => Ok(other?),
        }
    }

    fn set_rlimits(&self) -> Result<(), Failure> {
        for (index, (number, limit)) in self.rlimits.iter().enumerate() {
            let (name, resource) = RLIMITS[*number];
            setrlimit(resource, *limit).or_else(|err| {
                let hard = limit.maximum.unwrap_or(u64::MAX);
                let field = format!("process.rlimits[{index}].hard: {name} {hard}");
                Err(err).because(Reason::Rlimit(*number as u8), &field)
            })?;
        }
        Ok(())
    }

    /// What kept descriptors from being put in order: with too few of them allowed there is no place for those that are
    /// needed until the program is executed.
    fn unkept(&self, err: io::Error) -> Failure {
        let failed = |err: io::Error, reason, subject: &str| Failure {
            reason,
            errno: err.raw_os_error().unwrap_or(Errno::IO.raw_os_error()),
            subject: subject.to_owned(),
        };
        let files = |(_, (number, _)): &(usize, &(usize, Rlimit))| RLIMITS[*number].0 == "RLIMIT_NOFILE";
        match self.rlimits.iter().enumerate().find(files) {
            Some((index, (_, limit)))
                if matches!(Errno::from_io_error(&err), Some(Errno::MFILE | Errno::BADF | Errno::INVAL)) =>
            {
                let most = limit.current.unwrap_or(u64::MAX);
                let what = format!(
                    "RLIMIT_NOFILE {most} is too few: {} are open until the program is executed",
                    self.first_closed() + 2
                );
                failed(err, Reason::Refused, &format!("process.rlimits[{index}].soft: {what}"))
            }
            _ => failed(err, Reason::Step(Step::Clean), ""),
        }
    }

    fn enter_cwd(&self) -> Result<(), Failure> {
        let inside = || -> io::Result<()> {
            chdir(self.cwd.as_str())?;
            // A directory outside the root is shown as "(unreachable)..." (getcwd(3)): a descriptor that leaked, or a
            // /proc/self/fd link in the image (CVE-2024-21626).
            if getcwd(Vec::new())?.as_bytes().first() == Some(&b'/') { Ok(()) } else { Err(Errno::NOENT.into()) }
        };
        inside().because(Reason::Cwd, &self.cwd)
    }

    fn load_seccomp(&self, channel: &Channel) -> Result<(), Failure> {
        self.seccomp.as_ref().map_or(Ok(()), |filter| filter.load(channel))
    }

    fn drop_privileges(&self) -> Result<(), Failure> {
        let sets = &self.capabilities;
        capability::drop_bounding(sets.dropped).at(Step::Capabilities, "bounding")?;
        capability::set_keep(true).at(Step::Capabilities, "keep")?;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        match rustix::thread::set_thread_groups(&self.groups) {
            // Denied to a user namespace of somebody without privilege, and nobody has asked for any: the caller's stay, as with
            // runc.
            Err(Errno::PERM) if self.groups.is_empty() && user_namespace::denies_groups() => {}
            Err(Errno::INVAL) => return Err(self.unknown_group()),
            other => other.asked("process.user.additionalGids", "set the process's groups")?,
        }
        set_id("process.user.gid", self.gid, rustix::thread::set_thread_res_gid(gid, gid, gid))?;
        set_id("process.user.uid", self.uid, rustix::thread::set_thread_res_uid(uid, uid, uid))?;
        capability::set_keep(false).at(Step::Capabilities, "keep")?;
        let set = capability::set(sets.effective, sets.permitted, sets.inheritable);
        set.asked("process.capabilities", "set them: what is in inheritable has to be in bounding, too")?;
        capability::set_ambient(sets.ambient).at(Step::Capabilities, "ambient")
    }

    /// The kernel does not say which one it does not know.
    fn unknown_group(&self) -> Failure {
        let is_unknown = |group: &Gid| rustix::thread::set_thread_groups(&[*group]) == Err(Errno::INVAL);
        let (field, what) = match self.groups.iter().position(is_unknown) {
            Some(index) => {
                let field = format!("process.user.additionalGids[{index}]");
                (field, format!("{} is no id of the container's user namespace", self.groups[index].as_raw()))
            }
            None => ("process.user.additionalGids".to_owned(), format!("{} groups are too many", self.groups.len())),
        };
        Failure { reason: Reason::Refused, errno: Errno::INVAL.raw_os_error(), subject: format!("{field}: {what}") }
    }

    /// The program's path, looked up with the container's eyes and credentials (Go's exec.LookPath).
    fn find_program(&self) -> Result<CString, Failure> {
        let name = self.argv.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.contains('/') {
            let errno = |result: Result<_, Errno>| result.err().map_or(0, Errno::raw_os_error);
            let failure = |reason, errno| Failure { reason, errno, subject: name.clone() };
            let stat = stat(name.as_str()).map_err(|err| failure(Reason::Stat, err.raw_os_error()))?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                return Err(failure(Reason::IsDirectory, 0));
            }
            let allowed = executable(&name, &stat);
            allowed.map_err(|err| failure(Reason::NotExecutable, errno(Err::<(), _>(err))))?;
            return Ok(self.argv[0].clone());
        }
        let candidates = self.search.iter().filter(|_| !name.is_empty()).map(|directory| match directory.as_str() {
            "" => format!("./{name}"),
            directory => format!("{directory}/{name}"),
        });
        let is_program = |path: &String| stat(path.as_str()).and_then(|found| executable(path, &found)).is_ok();
        let found = candidates.into_iter().find(is_program).and_then(|path| CString::new(path).ok());
        found.ok_or(Failure { reason: Reason::NotInPath, errno: 0, subject: name })
    }
}

fn set_id(field: &str, id: u32, set: rustix::io::Result<()>) -> Result<(), Failure> {
    let unknown = set == Err(Errno::INVAL);
    let what = if unknown { "is no id of the container's user namespace" } else { "cannot be set" };
    set.asked(field, format_args!("{id} {what}"))
}

impl CapabilitySets {
    /// Without a list there are none. What the host or its kernel has not is left out, as the specification demands
    /// (runtime-spec config.md, "capabilities"); see [`unavailable_capabilities`].
    fn plan(capabilities: Option<&Capabilities>, held: capability::Set) -> CapabilitySets {
        let Some(names) = capabilities else { return CapabilitySets { dropped: held, ..Default::default() } };
        let set = |names: &[String]| {
            let numbers = names.iter().filter_map(|name| oci::names::capability_number(name));
            capability::Set(numbers.fold(0, |set, number| set | 1 << number)).intersection(held)
        };
        let (permitted, inheritable) = (set(&names.permitted), set(&names.inheritable));
        CapabilitySets {
            dropped: held.difference(set(&names.bounding)),
            effective: set(&names.effective).intersection(permitted),
            inheritable,
            permitted,
            ambient: set(&names.ambient).intersection(permitted).intersection(inheritable),
        }
    }
}

/// The capabilities of a process that no kernel knows, or that the host has not, each once: whoever runs it is to be warned.
pub fn unavailable_capabilities<'a>(process: &'a Process, namespaces: &[Namespace]) -> Vec<&'a str> {
    unavailable(process, || match namespaces.iter().any(|namespace| namespace.kind == NamespaceKind::User) {
        true => capability::known(),
        false => capability::bounding(),
    })
}

fn unavailable(process: &Process, held: impl FnOnce() -> capability::Set) -> Vec<&str> {
    let held = process.capabilities.as_ref().map(|_| held()).unwrap_or_default();
    let sets = process.capabilities.iter().flat_map(|sets| {
        [&sets.bounding, &sets.effective, &sets.inheritable, &sets.permitted, &sets.ambient].into_iter().flatten()
    });
    let has = |number: usize| held.0 & 1 << number != 0;
    let mut unknown: Vec<_> = sets.filter(|name| !oci::names::capability_number(name).is_some_and(has)).collect();
    unknown.sort_unstable();
    unknown.dedup();
    unknown.into_iter().map(String::as_str).collect()
}

/// By the kernel's number (asm-generic/resource.h).
const RLIMITS: [(&str, Resource); 16] = [
    ("RLIMIT_CPU", Resource::Cpu),
    ("RLIMIT_FSIZE", Resource::Fsize),
    ("RLIMIT_DATA", Resource::Data),
    ("RLIMIT_STACK", Resource::Stack),
    ("RLIMIT_CORE", Resource::Core),
    ("RLIMIT_RSS", Resource::Rss),
    ("RLIMIT_NPROC", Resource::Nproc),
    ("RLIMIT_NOFILE", Resource::Nofile),
    ("RLIMIT_MEMLOCK", Resource::Memlock),
    ("RLIMIT_AS", Resource::As),
    ("RLIMIT_LOCKS", Resource::Locks),
    ("RLIMIT_SIGPENDING", Resource::Sigpending),
    ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
    ("RLIMIT_NICE", Resource::Nice),
    ("RLIMIT_RTPRIO", Resource::Rtprio),
    ("RLIMIT_RTTIME", Resource::Rttime),
];

const RLIMIT_NAMES: [&str; RLIMITS.len()] = {
    let (mut names, mut number) = ([""; RLIMITS.len()], 0);
    while number < names.len() {
        names[number] = RLIMITS[number].0;
        number += 1;
    }
    names
};

fn rlimits(limits: &[oci::runtime::Rlimit]) -> Result<Vec<(usize, Rlimit)>, PlanError> {
    let mut planned: Vec<(usize, Rlimit)> = Vec::new();
    for (index, limit) in limits.iter().enumerate() {
        let word = || limit.kind.clone();
        let failed = |err: FieldError, part: &str| err.at(format!("process.rlimits[{index}].{part}"));
        let number = RLIMITS.iter().position(|(name, _)| *name == limit.kind);
        let number =
            number.ok_or_else(|| failed(FieldError::Unknown { word: word(), known: &RLIMIT_NAMES }, "type"))?;
        if planned.iter().any(|(known, _)| *known == number) {
            return Err(failed(FieldError::Duplicate { word: word() }, "type"));
        }
        FieldError::in_range(limit.soft, 0, limit.hard.into()).map_err(|err| failed(err, "soft"))?;
        let value = |value: u64| (value != u64::MAX).then_some(value);
        planned.push((number, Rlimit { current: value(limit.soft), maximum: value(limit.hard) }));
    }
    Ok(planned)
}

/// To the kernel the last number is no id but "as it is": who asks for it would stay root (setresuid(2)).
fn check_ids(user: &oci::runtime::User) -> Result<(), PlanError> {
    FieldError::is_id(user.uid).map_err(|err| err.at("process.user.uid"))?;
    FieldError::is_id(user.gid).map_err(|err| err.at("process.user.gid"))?;
    let mut groups = user.additional_gids.iter().enumerate();
    groups.try_for_each(|(index, gid)| {
        FieldError::is_id(*gid).map_err(|err| err.at(format!("process.user.additionalGids[{index}]")))
    })
}

/// The terminal's size. Without a terminal it is ignored (runtime-spec config.md, "Process").
fn console_size(process: &Process) -> Result<Option<(u16, u16)>, PlanError> {
    let Some(ConsoleSize { height, width }) = process.console_size.filter(|_| process.terminal) else {
        return Ok(None);
    };
    let side = |number: u64, name: &str| {
        let range = FieldError::Range { number: number.into(), least: 0, most: u16::MAX.into() };
        u16::try_from(number).map_err(|_| range.at(format!("process.consoleSize.{name}")))
    };
    Ok(Some((side(height, "height")?, side(width, "width")?)))
}

/// Of several values of one name the last, as a shell would have it; entries without `=` stay.
fn unique(env: &[String]) -> Vec<String> {
    let name = |entry: &str| entry.split('=').next().map(str::to_owned);
    let mut seen = std::collections::HashSet::new();
    let mut kept: Vec<String> = env.iter().rev().filter(|entry| seen.insert(name(entry))).cloned().collect();
    kept.reverse();
    kept
}

fn c_strings(field: &'static str, strings: &[String]) -> Result<Vec<CString>, PlanError> {
    let string = |string: &String| CString::new(string.as_str()).map_err(|_| PlanError::Nul { field });
    strings.iter().map(string).collect()
}

/// The container's ptmx, and nothing that it has put in its place: a FIFO would hang us, a link could lead anywhere.
fn open_ptmx() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let master = openat2(CWD, "/dev/pts/ptmx", flags, Mode::empty(), resolve)?;
    let stat = fstat(&master)?;
    let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || device != (5, 2) {
        return Err(Errno::NOTTY.into());
    }
    rustix::fs::fcntl_setfl(&master, OFlags::empty())?;
    Ok(master)
}

/// The container's null device. With the host's as a stream the container's root could change the mode and the owner of
/// the host's node (runc's reOpenDevNull).
fn open_null() -> io::Result<OwnedFd> {
    // A FIFO opened for both never blocks.
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let null = openat2(CWD, "/dev/null", flags, Mode::empty(), resolve)?;
    if is_null(&fstat(&null)?) { Ok(null) } else { Err(Errno::NODEV.into()) }
}

/// Puts the terminal over /dev/console, an empty file made for it. By descriptor: what the image has there is not trusted
/// (CVE-2025-52565).
fn show_console(slave: &OwnedFd) -> io::Result<()> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // Not with O_NOFOLLOW: a link would be opened itself, and covered.
    let place = openat2(CWD, "/dev/console", PATH_FLAGS, Mode::empty(), resolve)?;
    move_to(clone_tree(slave.as_fd(), false)?.as_fd(), place.as_fd())
}

/// Whether this is the null device, which belongs to everybody.
pub(crate) fn is_null(stat: &rustix::fs::Stat) -> bool {
    let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && device == (1, 3)
}

fn executable(path: &str, stat: &rustix::fs::Stat) -> Result<(), Errno> {
    // Root may execute what has any execute bit; access(2) alone says yes to root for a directory, too.
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory || stat.st_mode & 0o111 == 0 {
        return Err(Errno::ACCESS);
    }
    let ask = |flags| match accessat(CWD, path, rustix::fs::Access::EXEC_OK, flags) {
        // A profile that does not know the system call and is loaded already.
        Err(Errno::PERM | Errno::NOSYS) => None,
        answer => Some(answer),
    };
    // Without the flag it is faccessat(2), older than faccessat2(2), whose answer is the same but for ambient capabilities.
    // What neither may tell, execve does.
    ask(AtFlags::EACCESS).or_else(|| ask(AtFlags::empty())).unwrap_or(Ok(()))
}

/// Writes to a file below a directory of proc that the parent opened, after making sure that it is proc
/// (CVE-2019-16884: a container's fake /proc made runtimes write elsewhere).
pub(crate) fn write_proc(proc: BorrowedFd<'_>, path: &str, value: &str) -> io::Result<()> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let fd = openat2(proc, OsStr::from_bytes(path.as_bytes()), flags, Mode::empty(), resolve)?;
    if !is_proc(fd.as_fd())? {
        return Err(Errno::XDEV.into());
    }
    io::Write::write_all(&mut File::from(fd), value.as_bytes())
}

/// Whether a file is on procfs.
pub(crate) fn is_proc(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(fd)?.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

/// Inode of a procfs's own root (linux/proc_fs.h, PROC_ROOT_INO): a part of proc, bound over /proc, is not it.
const PROC_ROOT_INODE: u64 = 1;

/// Opens the host's /proc for [`write_proc`].
pub(crate) fn open_proc() -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::openat(CWD, Path::new("/proc"), flags, Mode::empty())?;
    let whole = is_proc(proc.as_fd())? && fstat(&proc)?.st_ino == PROC_ROOT_INODE;
    if whole { Ok(proc) } else { Err(Errno::XDEV.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_name_counts_and_order_stays() {
        let env = ["A=1", "B=2", "A=3", "bare", "B=2"].map(str::to_owned);
        assert_eq!(unique(&env), ["A=3", "bare", "B=2"]);
    }

    #[test]
    fn capabilities_stay_within_what_the_host_holds() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let all = names(&["CAP_CHOWN", "CAP_SYS_RESOURCE"]);
        let capabilities = Capabilities {
            bounding: all.clone(),
            permitted: all.clone(),
            effective: all.clone(),
            inheritable: vec![],
            ambient: all,
        };
        let sets = CapabilitySets::plan(Some(&capabilities), capability::Set(3));
        let chown = capability::Set(1);
        let none = capability::Set(0);
        assert_eq!((sets.dropped, sets.effective, sets.ambient), (capability::Set(2), chown, none));
        assert_eq!(CapabilitySets::plan(None, chown).dropped, chown);
        let unknown = Capabilities { bounding: names(&["CAP_NOPE"]), ..Capabilities::default() };
        assert_eq!(CapabilitySets::plan(Some(&unknown), chown), CapabilitySets::plan(None, chown));
        let process = Process { capabilities: Some(unknown), ..Process::default() };
        assert_eq!(unavailable(&process, || chown), ["CAP_NOPE"]);
        let process = Process { capabilities: Some(capabilities), ..Process::default() };
        assert_eq!(unavailable(&process, || chown), ["CAP_SYS_RESOURCE"]);
    }

    #[test]
    fn errors_read_as_gos() {
        assert_eq!(crate::SystemError(Errno::NOEXEC.into()).to_string(), "exec format error");
    }
}
