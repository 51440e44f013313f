//! `RUN`: a container whose output goes to whoever builds.
//!
//! From before it is made until it is removed or left to the user, a file beside the builds' directories is called like it:
//! what a daemon leaves that dies, or ends in the middle of a build, the next one removes.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use builder::stage::SCRIPTS;
use builder::{RunStep, Stage};
use dockerfile::RunNetwork;
use engine_api::container::{Config, CreateRequest};
use engine_api::host_config::HostConfig;
use errdefs::ErrorKind;
use oci::image::Healthcheck;
use oci::{ContainerId, Digest};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tracing::warn;

use super::BuildError;
use super::lines::Lines;
use super::mounts::PreparedMounts;
use crate::Engine;
use crate::connection::Connection;
use crate::ops::attach::{self, AttachError, AttachQuery};
use crate::ops::create::{self, CreateOptions};
use crate::ops::remove::{self, RemoveOptions};
use crate::ops::start::{self, StartError};
use crate::ops::wait::{self, Condition};
use crate::stream::StreamError;

/// How much output is told at once: as much as a client takes from a connection in one read (io.Copy of Go); more would be
/// told later.
const PIECE_BYTES: usize = 32 * 1024;

/// The number of standard error in a frame's head.
const STDERR: u8 = 2;

/// A container of a build, which goes when the build is given up.
pub(super) struct Running {
    engine: Engine,
    id: ContainerId,
    /// What it is mounted, as long as it may run.
    mounted: PreparedMounts,
    kept: bool,
}

impl Running {
    pub(super) fn id(&self) -> &ContainerId {
        &self.id
    }

    /// Leaves the container to the user.
    pub(super) fn keep(mut self) {
        self.kept = true;
        forget(&self.engine, &self.id);
    }

    /// Removes the container.
    pub(super) async fn remove(mut self, lines: &Lines) {
        self.kept = true;
        let removed = remove::remove(&self.engine, self.id.as_str(), GONE).await;
        let short = self.id.short();
        let line = match removed {
            Ok(()) => format!(" ---> Removed intermediate container {short}\n"),
            Err(err) => format!("Removing intermediate container {short}: {}\n", errdefs::chain(&err)),
        };
        forget(&self.engine, &self.id);
        // Who reads may have stopped.
        drop(std::mem::take(&mut self.mounted));
        lines.holds(None);
        lines.text(line).await;
    }
}

/// How containers of builds are removed.
const GONE: RemoveOptions = RemoveOptions { force: true, volumes: true, link: false };

impl Drop for Running {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let (engine, id, mounted) = (self.engine.clone(), self.id.clone(), std::mem::take(&mut self.mounted));
        tokio::spawn(async move {
            give_up(&engine, &id).await;
            drop(mounted);
        });
    }
}

/// Removes the container of a build that is given up. One that is just being started is in the way of that for a moment.
async fn give_up(engine: &Engine, id: &ContainerId) {
    for pause in PAUSES {
        match remove::remove(engine, id.as_str(), GONE).await {
            Ok(()) => return forget(engine, id),
            // It was never made.
            Err(err) if err.kind() == ErrorKind::NotFound => return forget(engine, id),
            Err(err) => warn!(container = %id, err = errdefs::chain(&err), "the container of a build is still there"),
        }
        tokio::time::sleep(pause).await;
    }
}

/// How long to wait until the removal of a container is tried again.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(10), Duration::from_secs(60)];

/// Removes the containers of builds that an earlier daemon did not end. A build of ours may have begun already, whose
/// containers are none of these.
pub(crate) async fn remove_left_over(engine: Engine, left: Vec<ContainerId>) {
    for id in left {
        give_up(&engine, &id).await;
    }
}

/// The containers of builds that are still to be removed.
pub(crate) fn left_over(data_root: &Path) -> Vec<ContainerId> {
    // What is not there names nothing.
    let entries = std::fs::read_dir(marks(data_root)).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Where an empty file is called like each container of a build.
fn marks(data_root: &Path) -> PathBuf {
    data_root.join("build-containers")
}

/// Whether it is the container of a build, which nobody else has been left. Blocks shortly.
pub(crate) fn runs_in(engine: &Engine, id: &ContainerId) -> bool {
    marks(&engine.config.data_root).join(id.as_str()).exists()
}

/// Notes a container that is about to be made. Blocks shortly.
fn note(engine: &Engine, id: &ContainerId) -> std::io::Result<()> {
    let marks = marks(&engine.config.data_root);
    std::fs::create_dir_all(&marks)?;
    std::fs::write(marks.join(id.as_str()), "")
}

/// Forgets one that is gone, or somebody else's by now.
fn forget(engine: &Engine, id: &ContainerId) {
    if let Err(err) = stdx::fs::remove_if_exists(&marks(&engine.config.data_root).join(id.as_str())) {
        // The next daemon finds nothing that is called so, or removes what the user was left.
        warn!(%err, "the mark of a build's container stays");
    }
}

/// Whose command is run.
#[derive(Clone, Copy)]
pub(super) struct RunTarget<'a> {
    pub(super) engine: &'a Engine,
    pub(super) lines: &'a Lines,
    /// Whether it sees the same host name in every build: BuildKit's. Else it is the container's, which is random.
    pub(super) same_name: bool,
}

/// The host name of commands with BuildKit (executor/oci/hosts.go).
const HOST_NAME: &str = "buildkitsandbox";

/// Names the host that a command sees; answers the variables that it has before its own.
fn name_host(config: &mut Config, host: &mut HostConfig) -> Vec<String> {
    // Whoever joins another container's network has that one's name.
    if host.network_mode.starts_with("container:") {
        return Vec::new();
    }
    config.hostname = HOST_NAME.to_owned();
    host.extra_hosts.get_or_insert_default().push(format!("{HOST_NAME}:127.0.0.1"));
    // One without a value is taken away: `docker run` sets it, BuildKit does not.
    vec!["HOSTNAME".to_owned()]
}

/// The network of a command, of the build's own and the one that the command asks for. Who wrote the Dockerfile is not
/// who runs the build: the host's network is had only where the latter wants it.
pub(super) fn network(build: &str, wanted: RunNetwork, allows_host: bool) -> Result<&str, BuildError> {
    match wanted {
        RunNetwork::Default => Ok(build),
        RunNetwork::None => Ok("none"),
        RunNetwork::Host if allows_host || build == "host" => Ok("host"),
        RunNetwork::Host => Err(BuildError::HostNetwork),
    }
}

/// Runs a command above an image to its end; answers its container, and its code or why it was not begun.
pub(super) async fn run(
    RunTarget { engine, lines, same_name }: RunTarget<'_>,
    stage: &Stage,
    image: Option<&Digest>,
    step: &RunStep,
    mut host: HostConfig,
    script: Option<PathBuf>,
    mut mounted: PreparedMounts,
) -> Result<(Running, Result<i64, StartError>), BuildError> {
    if let (Some(path), Some(file)) = (script, &step.script) {
        host.binds = Some(vec![format!("{}:{SCRIPTS}/{}:ro", path.display(), file.name)]);
    }
    let mut config = Config {
        // The image's check is not wanted.
        healthcheck: Some(Healthcheck { test: Some(vec!["NONE".to_owned()]), ..Healthcheck::default() }),
        image: image.map(Digest::to_string).unwrap_or_default(),
        on_build: None,
        ..stage.config.clone()
    };
    if !step.command.is_empty() {
        // Nor is its entry point.
        (config.entrypoint, config.cmd) = (Some(vec![String::new()]), Some(step.command.clone()));
    }
    let mut env = if same_name { name_host(&mut config, &mut host) } else { Vec::new() };
    env.extend(step.env.iter().cloned());
    config.env = Some(env);
    let request = CreateRequest { config, host_config: Some(host), networking_config: None };
    let unrecorded = std::mem::take(&mut mounted.unrecorded);
    // With BuildKit a command writes to the image wherever a volume will be, and sees nothing by which it would know a container.
    let options =
        CreateOptions { without_volumes: stage.buildkit, without_mark: stage.buildkit, ..CreateOptions::default() };
    let (running, warnings) = make(engine, options, request, mounted).await?;
    let id = running.id().clone();
    if let Some(container) = engine.containers.get(&id) {
        container.live().unrecorded = Arc::new(unrecorded);
    }
    for warning in warnings {
        lines.text(format!(" ---> [Warning] {warning}\n")).await;
    }
    lines.text(format!(" ---> Running in {}\n", id.short())).await;
    let stream = attached(engine, id.as_str()).await.map_err(BuildError::Attach)?;
    let waiting = wait::wait(engine, id.as_str(), Condition::NextExit).await.map_err(BuildError::Wait)?;
    if let Err(err) = start::start(engine, id.as_str(), None).await {
        return Ok((running, Err(err)));
    }
    follow(stream, lines).await;
    let ended = waiting.finish().await;
    Ok((running, Ok(ended.status_code)))
}

/// Makes a container that goes when nobody waits for it any more, and tells what the user should know of it.
async fn make(
    engine: &Engine,
    options: CreateOptions,
    request: CreateRequest,
    mounted: PreparedMounts,
) -> Result<(Running, Vec<String>), BuildError> {
    let id = create::random_id();
    note(engine, &id).map_err(BuildError::Script)?;
    let own = engine.clone();
    let work = async move {
        let engine = own;
        let running = Running { engine: engine.clone(), id: id.clone(), mounted, kept: false };
        let created = create::create_as(&engine, id, options, request).await;
        created.map(|created| (running, created.warnings)).map_err(BuildError::Create)
    };
    // Whoever gives up meanwhile drops what this answers, and the container with it.
    engine.detached(work).await
}

/// Our end of the container's output.
async fn attached(engine: &Engine, id: &str) -> Result<UnixStream, AttachError> {
    let failed = |err| AttachError::Stream(StreamError::Register(err));
    let (ours, theirs) = StdStream::pair().map_err(failed)?;
    ours.set_nonblocking(true).map_err(failed)?;
    let stream = UnixStream::from_std(ours).map_err(failed)?;
    let query = AttachQuery { stream: true, stdout: true, stderr: true, ..AttachQuery::default() };
    let connection =
        Connection { stream: OwnedFd::from(theirs), head: Vec::new(), already_read: Vec::new(), gate: None };
    attach::prepare(engine, id, query).await?.connect(connection).await?;
    Ok(stream)
}

/// Tells all that comes, to the end.
async fn follow(mut stream: UnixStream, lines: &Lines) {
    let mut head = [0; 8];
    let mut piece = vec![0; PIECE_BYTES];
    while stream.read_exact(&mut head).await.is_ok() {
        let mut left = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        while left > 0 {
            let wanted = left.min(piece.len());
            let Ok(count @ 1..) = stream.read(&mut piece[..wanted]).await else { return };
            left -= count;
            lines.print(head[0] == STDERR, &piece[..count]).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_network_is_for_builds_that_have_it() {
        for (build, wanted, network_mode) in [
            ("default", RunNetwork::Default, Some("default")),
            ("default", RunNetwork::None, Some("none")),
            ("default", RunNetwork::Host, None),
            ("none", RunNetwork::Host, None),
            ("none", RunNetwork::Default, Some("none")),
            ("own", RunNetwork::Default, Some("own")),
            ("own", RunNetwork::Host, None),
            ("host", RunNetwork::Default, Some("host")),
            ("host", RunNetwork::Host, Some("host")),
            ("host", RunNetwork::None, Some("none")),
        ] {
            let found = network(build, wanted, false);
            assert_eq!(found.ok(), network_mode, "{build} {wanted:?}");
        }
        assert_eq!(network("default", RunNetwork::Host, true).ok(), Some("host"));
        assert_eq!(network("default", RunNetwork::Default, true).ok(), Some("default"));
        assert_eq!(network("default", RunNetwork::Host, false).unwrap_err().to_string(), "network.host is not allowed");
    }
}
