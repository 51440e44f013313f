//! Processes added to running containers, as the engine remembers them.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use engine_api::exec::ExecCreate;

use crate::sync::lock;

/// How long an exec that ended can be inspected: dockerd looks for old ones every five minutes.
pub const KEPT: Duration = Duration::from_secs(300);

/// One exec.
pub struct Exec {
    /// Its id, 64 hex digits.
    pub id: String,
    /// What was asked for.
    pub request: ExecCreate,
    progress: Mutex<Progress>,
}

/// How far an exec is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// It was started and has not ended.
    pub running: bool,
    /// Its process on the host; 0 before the start.
    pub pid: i32,
    /// How it ended.
    pub exit_code: Option<i32>,
    /// When it ended.
    pub ended_at: Option<Instant>,
}

impl Progress {
    /// It ended.
    pub fn end(&mut self, exit_code: i32) {
        self.running = false;
        self.exit_code = Some(exit_code);
        self.ended_at = Some(Instant::now());
    }
}

impl Exec {
    /// An exec that was not started.
    pub fn new(request: ExecCreate) -> Exec {
        Exec { id: stdx::id::random_hex::<32>(), request, progress: Mutex::default() }
    }

    /// How far it is.
    pub fn progress(&self) -> MutexGuard<'_, Progress> {
        lock(&self.progress)
    }

    /// The command as events show it, `exec_start: sh -c true`.
    pub fn action(&self, verb: &str) -> String {
        let command = self.request.cmd.as_deref().unwrap_or_default();
        let (program, arguments) = command.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
        // dockerd's blank behind a program without arguments is kept: clients split there.
        format!("{verb}: {program} {}", arguments.join(" "))
    }
}
