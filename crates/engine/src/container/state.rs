//! The life of a container, as a pure machine: a state and an input give the next state and what is to be done.
//!
//! ```text
//!            StartRequested, Started               Exited, no restart
//!   Stopped ------------------------> Running ------------------------> Stopped
//!      ^  ^                             ^  |                               |
//!      |  |                     Started |  | Exited, restart               | RemovalBegun
//!      |  |  StartFailed,               |  v                               v
//!      |  +-- RestartCancelled ---- Restarting                         Removing
//!      +---------------------- RemovalFailed --------------------------- /
//! ```
//! `Stopped` is `created` to users as long as the container never ran, and `exited` afterwards.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine_api::container::Health;
use engine_api::host_config::HostConfig;
use serde::{Deserialize, Serialize};

use crate::restart::{BackOff, Policy, Run};

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It does not run.
    #[default]
    Stopped,
    /// It runs; its first process is `pid` on the host.
    Running {
        /// On the host.
        pid: i32,
    },
    /// It ended and waits for its policy to start it again.
    Restarting,
    /// It is being removed.
    Removing,
}

/// Everything about a container that changes while it lives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Where it is.
    pub phase: Phase,
    /// How its last run ended, or Docker's code for a start that failed.
    pub exit_code: i32,
    /// Why its last start failed.
    pub error: String,
    /// The kernel killed a process of its last run for lack of memory.
    pub oom_killed: bool,
    /// Nanoseconds since 1970; 0 for never.
    pub started_at_nanos: i64,
    /// Nanoseconds since 1970; 0 for never.
    pub finished_at_nanos: i64,
    /// Starts made by its policy since the last start by a client.
    pub restart_count: u32,
    /// A client stopped it or sent it a signal since its last start.
    pub manually_stopped: bool,
    /// A client asked its end: the policy is out of force until the next start.
    pub end_requested: bool,
    /// The last wait of its policy.
    pub back_off: BackOff,
    /// It runs, and its processes stand still.
    pub paused: bool,
    /// What its health check has found out; none if it has no health check or never ran. Shared: lists copy the state.
    #[serde(with = "crate::health::shared", skip_serializing_if = "Option::is_none")]
    pub health: Option<Arc<Health>>,
    /// The last signal that we have sent it in this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_signal: Option<SentSignal>,
    /// What was at fault when its last start failed; none if that did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// What was found out about that when it happened.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cause_facts: Vec<String>,
    /// Why the program of its last run was never executed; none if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unexecuted: Option<String>,
    /// The checkpoint with which its last run ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// What took its shim in its last run, and with it the run; none if it ended by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
    /// The id of the network that is always there and that it was on last; empty for none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network_id: String,
    /// It was found unhealthy in this run, and is ended because its policy says so.
    pub found_unhealthy: bool,
    /// It is being written to files; if it is to end with that, its policy waits until it is known what came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<Box<Pending>>,
    /// `restart` stops it to start it again: it is not removed in between.
    #[serde(skip)]
    pub restarted_by_client: bool,
}

/// What took a container's shim, without which it is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lost {
    /// The shim ended without a word: somebody killed it, or the kernel did.
    Shim,
    /// Nothing of the run is left: the machine went down.
    Machine,
}

/// A checkpoint that is being written. In the record, so that a daemon that comes later finds out what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Its name.
    pub name: String,
    /// Where it will be.
    pub path: PathBuf,
    /// Where it is written.
    pub begun: PathBuf,
    /// Whether the container ends with it.
    pub exit: bool,
}

/// What came of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It has its name.
    Named,
    /// CRIU has written everything, but it could not be given its name.
    Left,
    /// Nothing.
    Nothing,
}

/// A signal that we have sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentSignal {
    /// Its number.
    pub signal: i32,
    /// Who wanted it to be sent.
    pub by: Sender,
    /// Nanoseconds since 1970.
    pub at_nanos: i64,
}

/// Who wants signals to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sender {
    /// A client: with stop, kill or rm.
    Client,
    /// A client, with restart.
    Restart,
    /// The policy of a container that is unhealthy.
    Health,
}

/// What was at fault when a start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// Its program was not found.
    ProgramMissing,
    /// Its program cannot be executed.
    ProgramRefused,
    /// Its user or a group of it is not in its files.
    User,
    /// Its working directory is a file.
    WorkingDir,
    /// It could not be connected.
    Network,
    /// A port of the host's that it publishes is somebody else's.
    Port,
    /// Something that it mounts.
    Mount,
    /// Its system-call filter.
    Filter,
    /// Anything else that the runtime was asked for.
    Runtime,
    /// Anything else of the engine's own.
    Engine,
}

/// What the machine must know of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Its restart policy.
    pub policy: Policy,
    /// It is removed when it ends.
    pub auto_remove: bool,
}

/// What can happen to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A client asked for a start.
    StartRequested,
    /// Its program runs.
    Started {
        /// On the host.
        pid: i32,
        /// Nanoseconds since 1970.
        at_nanos: i64,
    },
    /// Its program could not be started.
    StartFailed {
        /// Docker's code: 126, 127 or 128.
        exit_code: i32,
        /// The sentence.
        error: String,
    },
    /// A client sends it a signal.
    Signalled {
        /// Whether it is one that asks it to end.
        ends: bool,
    },
    /// `restart` is about to stop it.
    RestartRequested,
    /// Its processes stand still.
    Paused,
    /// They go on.
    Unpaused,
    /// Its health check has failed too often.
    FoundUnhealthy,
    /// The kernel killed a process of it for lack of memory.
    OomKilled,
    /// It ended.
    Exited {
        /// The exit code, or 128 and the signal.
        exit_code: i32,
        /// The kernel killed a process of it for lack of memory.
        oom_killed: bool,
        /// Nanoseconds since 1970.
        at_nanos: i64,
    },
    /// It is known what came of its checkpoint.
    CheckpointSettled(Written),
    /// A client stopped it while it waited for its next start.
    RestartCancelled,
    /// Its removal begins.
    RemovalBegun,
    /// Its removal could not be finished.
    RemovalFailed,
}

/// What is to be done after a transition, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell that it started.
    TellStart,
    /// Wake who waits for its end.
    WakeWaiters,
    /// Tell that it ended.
    TellDie {
        /// The exit code.
        exit_code: i32,
        /// How long it ran.
        duration: Duration,
    },
    /// Tell that memory was short.
    TellOom,
    /// Tell that it stands still.
    TellPause,
    /// Tell that it goes on.
    TellUnpause,
    /// End it, so that its policy starts it again.
    End,
    /// Write the record.
    Record,
    /// Find out what came of its checkpoint, and tell by [`Input::CheckpointSettled`].
    SettleCheckpoint,
    /// Start it after that time.
    RestartAfter(Duration),
    /// Remove it.
    Remove,
}

impl Rules {
    /// What a host configuration says.
    pub fn of(host: &HostConfig) -> Rules {
        Rules { policy: Policy::of(&host.restart_policy), auto_remove: host.auto_remove }
    }
}

impl State {
    /// `created`, `running`, `paused`, `restarting`, `removing` or `exited`.
    pub fn name(&self) -> &'static str {
        match self.phase {
            Phase::Running { .. } if self.paused => "paused",
            Phase::Running { .. } => "running",
            Phase::Restarting => "restarting",
            Phase::Removing => "removing",
            Phase::Stopped if self.started_at_nanos == 0 => "created",
            Phase::Stopped => "exited",
        }
    }

    /// Running to users: also while it waits for its policy to start it again.
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. } | Phase::Restarting)
    }

    /// The first process on the host; 0 if there is none.
    pub fn pid(&self) -> i32 {
        match self.phase {
            Phase::Running { pid } => pid,
            _ => 0,
        }
    }

    /// The next state, and what is to be done. What makes no sense in a state changes nothing.
    pub fn step(mut self, input: Input, rules: Rules) -> (State, Vec<Effect>) {
        let effects = match (self.phase, input) {
            (Phase::Stopped, Input::StartRequested) => {
                (self.restart_count, self.back_off) = (0, BackOff::default());
                (self.manually_stopped, self.end_requested) = (false, false);
                vec![]
            }
            (Phase::Stopped | Phase::Restarting, Input::Started { pid, at_nanos }) => self.started(pid, at_nanos),
            (Phase::Stopped, Input::StartFailed { exit_code, error }) => {
                (self.exit_code, self.error) = (exit_code, error);
                self.restarted_by_client = false;
                // Whoever wanted the start removes it, if it is to be removed, and answers then.
                vec![Effect::Record]
            }
            (Phase::Restarting, Input::StartFailed { error, .. }) => {
                // The exit code stays that of the last run, as with dockerd.
                (self.phase, self.error) = (Phase::Stopped, error);
                ended(rules, vec![Effect::WakeWaiters, Effect::Record])
            }
            (Phase::Running { .. } | Phase::Restarting, Input::Signalled { ends }) => {
                self.manually_stopped = true;
                self.end_requested |= ends;
                vec![Effect::Record]
            }
            (Phase::Running { .. } | Phase::Restarting, Input::RestartRequested) => {
                self.restarted_by_client = true;
                vec![]
            }
            (Phase::Running { .. }, Input::Paused) if !self.paused => {
                self.paused = true;
                vec![Effect::TellPause, Effect::Record]
            }
            (Phase::Running { .. }, Input::Unpaused) if self.paused => {
                self.paused = false;
                vec![Effect::TellUnpause, Effect::Record]
            }
            (Phase::Running { .. }, Input::FoundUnhealthy) => {
                self.found_unhealthy = rules.policy.ends_unhealthy(self.restart_count) && !self.end_requested;
                if self.found_unhealthy { vec![Effect::Record, Effect::End] } else { vec![] }
            }
            (Phase::Running { .. }, Input::OomKilled) => {
                self.oom_killed = true;
                vec![Effect::TellOom]
            }
            (Phase::Running { .. }, Input::Exited { exit_code, oom_killed, at_nanos }) => {
                (self.exit_code, self.finished_at_nanos) = (exit_code, at_nanos);
                self.oom_killed |= oom_killed;
                self.paused = false;
                self.exited(rules)
            }
            (_, Input::CheckpointSettled(written)) => self.settled(written, rules),
            (Phase::Restarting, Input::RestartCancelled) => {
                self.phase = Phase::Stopped;
                let effects = vec![Effect::WakeWaiters, Effect::Record];
                if self.restarted_by_client { effects } else { ended(rules, effects) }
            }
            (Phase::Stopped, Input::RemovalBegun) => {
                self.phase = Phase::Removing;
                vec![]
            }
            (Phase::Removing, Input::RemovalFailed) => {
                self.phase = Phase::Stopped;
                vec![]
            }
            _ => vec![],
        };
        (self, effects)
    }

    fn started(&mut self, pid: i32, at_nanos: i64) -> Vec<Effect> {
        self.phase = Phase::Running { pid };
        self.started_at_nanos = at_nanos;
        (self.exit_code, self.oom_killed, self.paused, self.found_unhealthy) = (0, false, false, false);
        (self.last_signal, self.cause, self.unexecuted, self.checkpoint) = (None, None, None, None);
        self.lost = None;
        self.cause_facts.clear();
        self.error.clear();
        self.restarted_by_client = false;
        vec![Effect::TellStart, Effect::Record]
    }

    /// Its last run.
    pub(crate) fn run(&self) -> Run {
        let nanos = u64::try_from(self.finished_at_nanos - self.started_at_nanos).unwrap_or(0);
        Run {
            exit_code: self.exit_code,
            duration: Duration::from_nanos(nanos),
            restarts: self.restart_count,
            stopped_by_client: self.manually_stopped,
            unhealthy: self.found_unhealthy,
        }
    }

    fn exited(&mut self, rules: Rules) -> Vec<Effect> {
        let run = self.run();
        let tell = Effect::TellDie { exit_code: run.exit_code, duration: run.duration };
        let mut effects = vec![Effect::WakeWaiters, tell, Effect::Record];
        if let Some(pending) = &self.pending {
            effects.push(Effect::SettleCheckpoint);
            if pending.exit {
                self.phase = Phase::Stopped;
                return effects;
            }
        }
        self.follow_policy(rules, effects)
    }

    /// A container that ended with its checkpoint is to go on from there; one that ended while it was written is nobody's
    /// exception.
    fn settled(&mut self, written: Written, rules: Rules) -> Vec<Effect> {
        let Some(pending) = self.pending.take() else { return vec![] };
        let held_back = pending.exit && self.phase == Phase::Stopped;
        match written {
            _ if !held_back => vec![Effect::Record],
            Written::Nothing => self.follow_policy(rules, vec![Effect::Record]),
            Written::Left => vec![Effect::Record],
            Written::Named => {
                self.checkpoint = Some(pending.name.clone());
                self.stays_stopped(rules, vec![Effect::Record])
            }
        }
    }

    /// What comes after the end of a run.
    fn follow_policy(&mut self, rules: Rules, mut effects: Vec<Effect>) -> Vec<Effect> {
        let run = self.run();
        if !self.end_requested && rules.policy.restarts_after(&run) {
            self.phase = Phase::Restarting;
            self.restart_count += 1;
            self.back_off = self.back_off.next(run.duration);
            effects.push(Effect::RestartAfter(self.back_off.delay()));
            return effects;
        }
        self.phase = Phase::Stopped;
        self.stays_stopped(rules, effects)
    }

    fn stays_stopped(&self, rules: Rules, effects: Vec<Effect>) -> Vec<Effect> {
        if self.restarted_by_client { effects } else { ended(rules, effects) }
    }
}

fn ended(rules: Rules, mut effects: Vec<Effect>) -> Vec<Effect> {
    if rules.auto_remove {
        effects.push(Effect::Remove);
    }
    effects
}

#[cfg(test)]
mod tests;
