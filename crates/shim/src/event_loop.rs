//! The loop: waits for descriptors and deadlines, and moves everything one step on.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use oci::ContainerId;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{DumpableBehavior, getpid, set_child_subreaper, set_dumpable_behavior};
use rustix::time::Timespec;
use shim_api::{Answer, Call, ExecState, Fact, Failure, Message};
use sys::signal::{SignalFd, SignalSet};

use crate::calls::CallError;
use crate::checkpoint;
use crate::container::Task;
use crate::exec::{Ended, Exec};
use crate::exit;
use crate::foreign::Foreign;
use crate::join::Arrival;
use crate::server::{Connection, Connections, Listener};
use crate::streams::hold::{self, Marks};
use crate::streams::{Part, Scratch, Streams};

/// Signal numbers that are the same on every architecture of ours.
const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
pub(crate) const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;

/// After so long without anything to do, memory that the work needed goes back. To take it again costs some ten
/// microseconds: a container that writes all the time pays for it twenty times a second at most.
const QUIET_AFTER: Duration = Duration::from_millis(50);

/// How long the last words wait for a daemon that does not read.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(10);

/// The command line.
#[derive(Debug)]
pub struct Arguments {
    /// The shim's directory.
    pub dir: PathBuf,
    /// The container.
    pub id: ContainerId,
}

/// Why the shim cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// Setting the process up.
    #[error("set up the process")]
    Process(#[source] io::Error),
    /// The socket for daemons.
    #[error("listen in {}", dir.display())]
    Listen {
        /// The shim's directory.
        dir: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Waiting for events.
    #[error("wait for events")]
    Poll(#[source] io::Error),
}

/// Everything the shim holds.
pub(crate) struct Shim {
    pub(crate) dir: PathBuf,
    pub(crate) id: ContainerId,
    pub(crate) task: Option<Task>,
    /// Execs that ended, for the next daemon.
    pub(crate) ended_execs: Ended,
    /// The container could not be created: nothing is left to do but to say so.
    pub(crate) doomed: bool,
    pub(crate) connections: Connections,
    /// Clients whose log is being written.
    pub(crate) marks: Marks,
    /// Gone when everything is cleaned up.
    listener: Option<Listener>,
    signals: SignalFd,
    scratch: Scratch,
    /// Clients of processes that are gone, who have not read everything yet.
    pub(crate) slow: Vec<Streams>,
    /// When memory is given back if nothing happens until then; `None` once it was.
    rest_at: Option<Instant>,
    /// The moment for which everything was settled last. What was still to wait for then is waited for, even if its time
    /// has come since: asked for a later moment it would not be there any more, and nobody would wake us.
    settled_at: Instant,
    /// By when the last connection must have taken the last words.
    close_by: Option<Instant>,
}

/// What a descriptor in the poll set belongs to.
#[derive(Clone, Copy)]
enum Token {
    Signals,
    Listener,
    Connection(usize),
    Container(Part),
    Exec(usize, Part),
    Slow(usize, Part),
    /// Only wakes: who joins, or writes, is asked in every turn.
    Join,
    Oom,
}

impl Arguments {
    /// Reads `--dir DIRECTORY CONTAINER-ID`.
    pub fn parse(mut arguments: impl Iterator<Item = OsString>) -> Option<Arguments> {
        let flag = arguments.next()?;
        let dir = arguments.next()?.into();
        let id = arguments.next()?.to_str()?.parse().ok()?;
        (flag == "--dir" && arguments.next().is_none()).then_some(Arguments { dir, id })
    }
}

/// Serves one container until it has ended and everybody knows. Blocks for as long as that takes.
pub fn run(arguments: Arguments) -> Result<(), ShimError> {
    // First of all: whatever opens a descriptor could get the inherited one's number.
    let inherited = sys::fd::inherited(3);
    let signals = set_up_process().map_err(ShimError::Process)?;
    let Arguments { dir, id } = arguments;
    let listener = Listener::open(&dir).map_err(|source| ShimError::Listen { dir: dir.clone(), source })?;
    let mut shim = Shim {
        dir,
        id,
        task: None,
        ended_execs: Ended::default(),
        doomed: false,
        connections: Connections::default(),
        marks: Marks::default(),
        listener: Some(listener),
        signals,
        scratch: Scratch::new(),
        slow: Vec::new(),
        rest_at: Some(Instant::now() + QUIET_AFTER),
        settled_at: Instant::now(),
        close_by: None,
    };
    if let Some(socket) = inherited {
        rustix::io::ioctl_fionbio(&socket, true).map_err(|err| ShimError::Process(err.into()))?;
        shim.connections.add(socket);
    }
    while !shim.is_done() {
        shim.turn().map_err(ShimError::Poll)?;
    }
    Ok(())
}

fn set_up_process() -> io::Result<SignalFd> {
    set_child_subreaper(Some(getpid()))?;
    // A container's process that gets at our /proc directory must not find descriptors in it (CVE-2016-9962).
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // Those that end a session must not end us: blocked, and never read.
    let blocked = [SIGHUP, SIGINT, SIGTERM, SIGCHLD].into_iter().fold(SignalSet::empty(), SignalSet::with);
    sys::signal::set_mask(blocked)?;
    SignalFd::open(SignalSet::empty().with(SIGCHLD))
}

impl Shim {
    fn turn(&mut self) -> io::Result<()> {
        let ready = self.wait()?;
        if !ready.is_empty() {
            self.rest_at = Some(Instant::now() + QUIET_AFTER);
        }
        for (token, flags) in ready {
            self.dispatch(token, flags);
        }
        let now = Instant::now();
        self.settle(now);
        self.settled_at = now;
        if self.rest_at.is_some_and(|at| now >= at) {
            self.trim();
        }
        Ok(())
    }

    /// Nothing is left to do.
    fn is_done(&self) -> bool {
        let cleaned_up = self.listener.is_none();
        let nothing_made = !cleaned_up && self.task.is_none() && (self.doomed || self.connections.all.is_empty());
        let all_done = cleaned_up && self.slow.is_empty();
        (nothing_made || all_done) && self.connections.are_flushed()
    }

    fn wait(&self) -> io::Result<Vec<(Token, PollFlags)>> {
        let mut tokens = vec![Token::Signals];
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        let mut add = |token, fd, flags| {
            tokens.push(token);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        if let Some(listener) = &self.listener {
            add(Token::Listener, listener.fd(), PollFlags::IN);
        }
        for (at, connection) in self.connections.all.iter().enumerate() {
            add(Token::Connection(at), connection.fd(), connection.interest());
        }
        if let Some(task) = &self.task {
            task.streams.interests(|part, fd, flags| add(Token::Container(part), fd, flags));
            task.oom.interest().into_iter().for_each(|(fd, flags)| add(Token::Oom, fd, flags));
            task.joins.iter().for_each(|join| add(Token::Join, join.joining.fd(), PollFlags::IN));
            task.writing.iter().for_each(|writing| add(Token::Join, writing.fd(), PollFlags::IN));
            for (at, exec) in task.execs.iter().enumerate() {
                exec.streams.interests(|part, fd, flags| add(Token::Exec(at, part), fd, flags));
            }
        }
        for (at, streams) in self.slow.iter().enumerate() {
            streams.interests(|part, fd, flags| add(Token::Slow(at, part), fd, flags));
        }
        let timeout = self.timeout();
        if self.rest_at.is_none() {
            // Last of all: every function that runs between here and the end of poll comes back, with its neighbourhood.
            sys::memory::release_program_pages();
        }
        rustix::io::retry_on_intr(|| poll(&mut fds, timeout.as_ref()))?;
        let ready = tokens.into_iter().zip(&fds).map(|(token, fd)| (token, fd.revents()));
        Ok(ready.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn timeout(&self) -> Option<Timespec> {
        let task = self.task.as_ref().and_then(|task| task.deadline(self.settled_at));
        let slow = self.slow.iter().filter_map(|streams| streams.deadline(self.settled_at));
        let next = slow.chain(task).chain(self.rest_at).chain(self.close_by).min()?;
        let left = next.saturating_duration_since(Instant::now());
        // Rounded up: a timeout of a moment too short would be a turn for nothing.
        Some(Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) })
    }

    fn dispatch(&mut self, token: Token, flags: PollFlags) {
        let scratch = &mut self.scratch;
        match token {
            Token::Signals => self.reap(),
            Token::Listener => {
                let socket = self.listener.as_ref().and_then(Listener::accept);
                socket.into_iter().for_each(|socket| self.connections.add(socket));
            }
            Token::Connection(at) => self.serve(at, flags),
            Token::Container(part) => {
                self.task.iter_mut().for_each(|task| task.streams.ready(part, flags, scratch));
            }
            Token::Exec(at, part) => {
                let exec = self.task.as_mut().and_then(|task| task.execs.get_mut(at));
                exec.into_iter().for_each(|exec| exec.streams.ready(part, flags, scratch));
            }
            Token::Slow(at, part) => self.slow[at].ready(part, flags, scratch),
            Token::Join => {}
            Token::Oom => self.task.iter_mut().for_each(|task| task.oom.ready()),
        }
    }

    fn reap(&mut self) {
        // Only empties the descriptor: one signal can stand for several ends.
        while let Ok(Some(_)) = self.signals.read() {}
        while let Ok(Some((pid, exit))) = sys::wait::try_wait_any() {
            // What is neither the container nor an exec is an orphan that was left to us.
            if let Some(task) = &mut self.task {
                task.reaped(pid.as_raw_nonzero().get(), i32::from(exit.code()), Instant::now());
            }
        }
    }

    fn serve(&mut self, at: usize, flags: PollFlags) {
        if flags.contains(PollFlags::OUT) {
            self.connections.all[at].flush();
        }
        if !flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return;
        }
        self.connections.all[at].receive();
        while let Some((request, descriptors)) = self.connections.all[at].next_request() {
            let seq = request.seq;
            let hello = matches!(request.call, Call::Hello { .. });
            let start = matches!(request.call, Call::Start);
            let result = self.call(request, descriptors, self.connections.all[at].number);
            self.connections.all[at].subscribed |= hello && result.is_ok();
            if let Some(result) = result.transpose() {
                answer(&mut self.connections.all[at], self.task.as_ref(), seq, result);
            }
            if start && self.task.as_ref().is_some_and(|task| task.streams.is_empty()) {
                // Nobody waits for its first words: most likely it lives for long.
                self.rest_at = Some(Instant::now());
            }
        }
        self.connections.all[at].trim();
    }

    /// Answers those who asked for an exec, when it has come to something.
    fn answer_joins(&mut self, now: Instant) {
        let Some(task) = self.task.as_mut().filter(|task| !task.joins.is_empty() || task.foreign.is_some()) else {
            return;
        };
        for Arrival { asker, exec, result } in task.advance_joins(now) {
            let result = result.map_err(Failure::from);
            let failed = result.as_ref().err().map(|failure| failure.exit_code);
            if !self.connections.send_to(asker.connection, &Message::Reply { seq: asker.seq, result })
                && let Some(exit_code) = failed
            {
                // Whoever asked is dead; its successor may have been told that this one runs.
                self.tell_ended_exec(ExecState { exit_code: Some(exit_code), ..exec });
            }
        }
    }

    /// Everything that follows from what happened in this turn.
    fn settle(&mut self, now: Instant) {
        self.answer_joins(now);
        checkpoint::answer(self, now);
        self.tell_ended_execs();
        if let Some(task) = &mut self.task {
            task.settle(now, &mut self.scratch);
        }
        for streams in &mut self.slow {
            streams.settle(now, &mut self.scratch);
        }
        self.slow.retain(|streams| !streams.is_empty());
        hold::answer_marks(self);
        self.tell_small_facts(now);
        if self.task.as_mut().is_some_and(|task| !task.told && task.is_settled(now)) {
            self.tell_exit(now);
        }
        self.connections.all.retain(|connection| !connection.is_gone());
        let overdue = self.close_by.is_some_and(|by| now >= by);
        if self.task.as_ref().is_some_and(|task| task.told) && (overdue || self.connections.are_flushed()) {
            self.clean_up();
        }
    }

    fn tell_small_facts(&mut self, now: Instant) {
        // Those that were given up on in this turn.
        self.tell_ended_execs();
        let Some(task) = &mut self.task else { return };
        let ended = task.take_ended_execs(now);
        let container = || self.id.clone();
        let mut facts = Vec::new();
        let mut detached = vec![(None, task.streams.take_detached())];
        for exec in task.execs.iter_mut() {
            detached.push((Some(&exec.id), exec.streams.take_detached()));
        }
        for (exec_id, count) in detached {
            (0..count).for_each(|_| facts.push(Fact::Detached { container: container(), exec_id: exec_id.cloned() }));
        }
        if task.oom.take_news() {
            facts.push(Fact::Oom { container: container() });
        }
        let lines = task.streams.take_lost_lines();
        if lines > 0 {
            facts.push(Fact::LogLost { container: container(), lines });
        }
        facts.iter().for_each(|fact| self.connections.post(fact));
        ended.into_iter().for_each(|exec| self.let_go(exec));
    }

    /// Before any of their clients gets the end of its stream: Docker's clients ask for the exit code right then.
    fn tell_ended_execs(&mut self) {
        let Some(task) = &mut self.task else { return };
        let ended = task.execs.iter_mut().filter(|exec| exec.exit_code.is_some() && !exec.told);
        let states: Vec<ExecState> = ended
            .map(|exec| {
                exec.told = true;
                exec.state()
            })
            .collect();
        for state in states {
            self.tell_ended_exec(state);
        }
    }

    fn tell_ended_exec(&mut self, state: ExecState) {
        let heard = self.connections.all.iter().any(|connection| connection.subscribed);
        if heard {
            let (exec_id, exit_code) = (state.exec_id.clone(), state.exit_code.unwrap_or(137));
            self.connections.post(&Fact::ExecExited { container: self.id.clone(), exec_id, exit_code });
        }
        self.ended_execs.keep(state, heard);
    }

    /// What is left of an exec that has ended: a client who has not read everything yet.
    fn let_go(&mut self, mut exec: Exec) {
        for _ in 0..exec.streams.take_detached() {
            self.connections.post(&Fact::Detached { container: self.id.clone(), exec_id: Some(exec.id.clone()) });
        }
        if !exec.streams.is_empty() {
            self.slow.push(exec.streams);
        }
    }

    fn tell_exit(&mut self, now: Instant) {
        let Some(task) = &mut self.task else { return };
        let Some((exit, _)) = task.exit.clone() else { return };
        task.told = true;
        let lines = task.streams.take_lost_lines();
        // Without the record a later daemon finds no exit code; this one is told all the same.
        let recorded = exit::write_exit(&self.dir, exit.clone(), self.ended_execs.states().collect());
        if let Err(err) = recorded {
            eprintln!("longshore-shim: record exit of {}: {err}", self.id);
        }
        let container = || self.id.clone();
        let lost = (lines > 0).then(|| Fact::LogLost { container: container(), lines });
        let oom = task.oom.is_untold(exit.oom_killed).then(|| Fact::Oom { container: container() });
        let exited = Fact::Exited { container: container(), exit };
        lost.iter().chain(&oom).chain([&exited]).for_each(|fact| self.connections.post(fact));
        self.close_by = Some(now + LAST_WORDS_WITHIN);
    }

    /// The end of everything but slow clients.
    fn clean_up(&mut self) {
        let Some(mut task) = self.task.take() else { return };
        task.foreign.iter().for_each(Foreign::delete);
        if let Some(mut container) = task.container.take()
            && let Err(err) = container.destroy()
        {
            eprintln!("longshore-shim: remove cgroups of {}: {}", self.id, errdefs::chain(&err));
        }
        task.streams.drop_log();
        if !task.streams.is_empty() {
            self.slow.push(task.streams);
        }
        hold::drop_all(self);
        self.listener = None;
        self.connections.all.clear();
        self.close_by = None;
    }

    /// Gives back what only work needs. The program's own pages go right before the next wait.
    fn trim(&mut self) {
        self.rest_at = None;
        if self.scratch.is_large() {
            self.scratch = Scratch::new();
        }
        if let Some(task) = &mut self.task {
            task.streams.trim();
        }
    }
}

/// Sends an answer, with the descriptors that it tells of.
fn answer(connection: &mut Connection, task: Option<&Task>, seq: u64, mut result: Result<Answer, CallError>) {
    if let (Ok(answer @ Answer::Lent { .. }), Some(task)) = (&result, task) {
        if connection.send_with(&Message::Reply { seq, result: Ok(answer.clone()) }, &task.kept.lent) {
            return;
        }
        result = Err(CallError::Busy);
    }
    connection.send(&Message::Reply { seq, result: result.map_err(Into::into) });
}
