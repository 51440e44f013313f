//! Containers that are written to files and made from them again, by the runtime and CRIU.
//!
//! ```text
//!   Checkpoint   a copy of this process has CRIU write, which takes as long as the memory is large; the loop goes on, and
//!                hears of it through a pipe. The copy syncs the files and gives their directory its name, whether or not
//!                a daemon is there. The news of the container's end waits for that.
//!   Create       with files: CRIU makes the container, in a private mount namespace, with the root in a [bundle]; its first
//!                process is our child, and stands still
//!   Start        it goes on
//! ```
//! Streams, log and exit are the same as of any container: what were the pipes of the first shim are ours.

use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cgroup::Hierarchies;
use errdefs::ErrorKind;
use oci::runtime::{Namespace, NamespaceKind, Spec, State};
use oci_runtime::checkpoint::{Checkpoint, CriuError, CriuOptions, Restore, Restoring, checkpoint, descriptors};
use oci_runtime::{CgroupNeed, Container, Living, OpenError, Stdio};
use rustix::pipe::PipeFlags;
use shim_api::{Answer, CheckpointTask, CreateTask, Failure, Reason, RestoreTask};
use sys::fork::{NewNamespaces, fork};

use crate::container::Task;
use crate::event_loop::{SIGKILL, Shim};
use crate::foreign::{BundleError, bundle};
use crate::join::Asker;
use crate::streams::names::names;

/// How long the news of the container's end waits for a checkpoint: CRIU has ended it, and has little left to do.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Why a container was not written, or not made again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointError {
    #[error("container is being written already")]
    Busy,
    #[error("containers of other runtimes cannot be checkpointed")]
    Foreign,
    #[error("{action}")]
    System { action: &'static str, source: io::Error },
    #[error("call what was written {}", path.display())]
    Keep { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Criu(#[from] CriuError),
}

impl CheckpointError {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            CheckpointError::Busy => ErrorKind::Conflict,
            CheckpointError::Foreign => ErrorKind::NotImplemented,
            CheckpointError::Criu(err) => err.kind(),
            CheckpointError::System { .. }
            | CheckpointError::Keep { .. }
            | CheckpointError::Bundle(_)
            | CheckpointError::Open(_) => ErrorKind::Internal,
        }
    }
}

fn system(action: &'static str) -> impl FnOnce(io::Error) -> CheckpointError {
    move |source| CheckpointError::System { action, source }
}

/// A container that is being written.
pub(crate) struct Writing {
    asker: Asker,
    /// What came of it, as JSON, and then its end.
    report: File,
    text: Vec<u8>,
    /// The copy of this process that sees to it.
    writer: OwnedFd,
}

impl Writing {
    /// What to await.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }

    /// What came of it, once that is known.
    fn advance(&mut self) -> Option<Result<(), Failure>> {
        match self.report.read_to_end(&mut self.text) {
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => None,
            Err(_) => Some(Err(without_a_word())),
            Ok(_) => Some(serde_json::from_slice(&self.text).unwrap_or_else(|_| Err(without_a_word()))),
        }
    }
}

/// The writer was killed.
fn without_a_word() -> Failure {
    let message = "the process that writes the container has ended".to_owned();
    Failure { kind: ErrorKind::Internal, message, exit_code: 128, reason: Reason::Runtime }
}

impl Task {
    /// Begins to write the container.
    pub(crate) fn write(&mut self, request: CheckpointTask, asker: Asker) -> Result<(), CheckpointError> {
        if self.foreign.is_some() {
            return Err(CheckpointError::Foreign);
        }
        if self.writing.is_some() {
            return Err(CheckpointError::Busy);
        }
        let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK);
        let (report, sender) = pipe.map_err(|err| system("make a pipe")(err.into()))?;
        let streams = self.stream_names();
        // The log's thread never allocates, and the copy does not log.
        let copied = fork(NewNamespaces::default(), None, || {
            let written = self.write_now(&request, &streams).and_then(|()| keep(&request)).map_err(|err| Failure {
                kind: err.kind(),
                message: errdefs::chain(&err),
                exit_code: 128,
                reason: Reason::Runtime,
            });
            let text = serde_json::to_vec(&written).unwrap_or_default();
            // Shorter than what a pipe holds. Whoever is not there any more needs no word.
            u8::from(rustix::io::write(&sender, &text).is_err())
        });
        let writer = copied.map_err(system("copy the shim"))?.pidfd;
        self.writing = Some(Writing { asker, report: report.into(), text: Vec::new(), writer });
        Ok(())
    }

    /// Has CRIU write. For the copy of this process.
    fn write_now(&self, request: &CheckpointTask, streams: &[String]) -> Result<(), CheckpointError> {
        let Some(container) = &self.container else { return Err(CheckpointError::Busy) };
        let mut spec = request.spec.clone();
        for kind in &self.joined {
            name_namespace(&mut spec, *kind, &format!("/proc/{}", self.run_state.pid));
        }
        let hierarchies = Hierarchies::detect().map_err(system("find cgroup hierarchies"))?;
        checkpoint(Checkpoint {
            spec: &spec,
            pid: container.pid,
            cgroup: &container.cgroup,
            hierarchies: &hierarchies,
            descriptors: streams,
            options: &options(&request.images, &request.work, &request.search_path),
            parent: None,
            leave_running: request.leave_running,
            pre_dump: false,
            tcp_skip_in_flight: false,
            link_remap: false,
            page_server: None,
            status: None,
        })?;
        Ok(())
    }

    /// What the standard streams are called: by our ends of them, because the first process may have replaced its own.
    fn stream_names(&self) -> Vec<String> {
        let shown = descriptors(self.run_state.pid);
        let ours = names(&self.streams);
        ours.into_iter().zip(shown).map(|(ours, shown)| ours.unwrap_or(shown)).collect()
    }

    /// When the news of the container's end waits no longer for who writes it.
    pub(crate) fn writing_deadline(&self) -> Option<Instant> {
        self.exit.as_ref().filter(|_| self.writing.is_some()).map(|(_, at)| *at + ENDS_WITHIN)
    }
}

/// Gives the files their name, once they are on the disk: by that a daemon knows that they are whole.
fn keep(request: &CheckpointTask) -> Result<(), CheckpointError> {
    let CheckpointTask { images, named, .. } = request;
    let kept = File::open(images).and_then(|directory| {
        rustix::fs::syncfs(directory)?;
        std::fs::rename(images, named)?;
        named.parent().map_or(Ok(()), stdx::fs::sync_dir)
    });
    kept.map_err(|source| CheckpointError::Keep { path: named.clone(), source })
}

/// Answers who asked for a checkpoint when it has come to something.
pub(crate) fn answer(shim: &mut Shim, now: Instant) {
    let Some(task) = &mut shim.task else { return };
    let overdue = task.writing_deadline().is_some_and(|deadline| now >= deadline);
    let Some(writing) = &mut task.writing else { return };
    let result = match writing.advance() {
        None if overdue => {
            // It may have ended, which is as well.
            let _ = sys::signal::send(writing.writer.as_fd(), SIGKILL);
            Err(without_a_word())
        }
        None => return,
        Some(result) => result,
    };
    let Asker { connection, seq } = writing.asker;
    task.writing = None;
    let result = result.map(|()| Answer::Done);
    // Whoever asked may be dead: its successor finds the files by their name.
    shim.connections.send_to(connection, &shim_api::Message::Reply { seq, result });
}

/// Makes a container of files. It stands still until it is released.
pub(crate) fn restore(
    id: &str,
    task: &CreateTask,
    from: RestoreTask,
    stdio: Stdio,
    hierarchies: &Hierarchies,
) -> Result<(Container, Restoring), CheckpointError> {
    let mut spec = bundle::make(&from.bundle, task)?;
    // The bundle is for runtimes that compile filters themselves.
    spec.linux.seccomp_program.clone_from(&task.spec.linux.seccomp_program);
    spec.linux.seccomp = None;
    let place = from.bundle.join("criu");
    DirBuilder::new().mode(0o700).create(&place).map_err(system("make a place for the root"))?;
    let state = State {
        oci_version: oci::runtime::VERSION.into(),
        id: id.to_owned(),
        status: "creating".into(),
        bundle: from.bundle.clone(),
        ..State::default()
    };
    let mut restoring = Restoring::begin(Restore {
        id,
        spec: &spec,
        hierarchies,
        stdio,
        state: &state,
        options: &options(&from.images, &from.work, &from.search_path),
        place: &place,
        lsm_profile: None,
        lsm_mount_context: None,
    })?;
    let restored = &mut restoring.restored;
    if restored.own_time {
        // Processes that are added have the same clocks.
        name_namespace(&mut spec, NamespaceKind::Time, "");
    }
    let (pid, console) = (restored.pid, restored.console.take());
    let pidfd = restored.pidfd.try_clone().map_err(system("copy a descriptor"))?;
    let cgroup = CgroupNeed::Always;
    let mut container = Container::open(Living { id, spec: &spec, pid, pidfd, hierarchies, cgroup })?;
    container.console = console;
    Ok((container, restoring))
}

/// What is the same both times.
fn options(images: &Path, work: &Path, search_path: &str) -> CriuOptions {
    CriuOptions {
        images: images.to_owned(),
        work: Some(work.to_owned()),
        // Databases hold locks all the time.
        file_locks: true,
        search_path: Some(search_path.into()),
        ..CriuOptions::default()
    }
}

/// Says where a namespace comes from, by a process's directory below /proc; nowhere is a new one.
fn name_namespace(spec: &mut Spec, kind: NamespaceKind, process: &str) {
    let path = (!process.is_empty()).then(|| PathBuf::from(format!("{process}/ns/{}", kind.file_name())));
    spec.linux.namespaces.retain(|namespace| namespace.kind != kind);
    spec.linux.namespaces.push(Namespace { kind, path });
}
