//! Processes added to running containers, as the engine remembers them.
//!
//! The next daemon finds them all again: those that were started are known to the shim, with a note of ours; of each that
//! was not there is a file in the shim's directory, `exec-<id>.json`, which goes when it is started.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use engine_api::exec::ExecCreate;
use shim_api::ExecState;
use tracing::warn;

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

    /// An exec that an earlier daemon started; none if that did not note what was asked for.
    pub fn taken_over(state: ExecState) -> Option<Exec> {
        let request = serde_json::from_str(&state.note).ok()?;
        let mut progress = Progress { running: true, pid: state.pid, ..Progress::default() };
        if let Some(exit_code) = state.exit_code {
            progress.end(exit_code);
        }
        Some(Exec { id: state.exec_id, request, progress: Mutex::new(progress) })
    }

    /// What the next daemon has to know of it once it was started: what an inspection shows.
    pub fn note(&self) -> String {
        let shown = ExecCreate { env: None, working_dir: String::new(), ..self.request.clone() };
        serde_json::to_string(&shown).expect("wire types have string keys and no failing serializers")
    }

    /// Keeps an exec that was not started for the next daemon. `dir` is the shim's.
    pub fn keep(&self, dir: &Path) {
        let written = serde_json::to_vec(&self.request).map_err(std::io::Error::from);
        // Torn by our death it is nobody's: its client was not told the id yet.
        if let Err(err) = written.and_then(|bytes| fs::write(path(dir, &self.id), bytes)) {
            warn!(exec = self.id, %err, "the next daemon will not know of the exec");
        }
    }

    /// It was started: the shim knows it from now on.
    pub fn release(&self, dir: &Path) {
        if let Err(err) = stdx::fs::remove_if_exists(&path(dir, &self.id)) {
            warn!(exec = self.id, %err, "the file of an exec stays behind");
        }
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

/// The execs of a container that no daemon has started. `dir` is its shim's.
///
/// A file that cannot be read was torn by the death of who wrote it: nobody was told the exec's id.
pub fn kept(dir: &Path) -> Vec<Exec> {
    let names =
        fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let ids = names.filter_map(|name| Some(name.strip_prefix("exec-")?.strip_suffix(".json")?.to_owned()));
    ids.filter_map(|id| {
        let request = serde_json::from_slice(&fs::read(path(dir, &id)).ok()?).ok()?;
        Some(Exec { id, request, progress: Mutex::default() })
    })
    .collect()
}

fn path(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("exec-{id}.json"))
}
