//! `GET /containers/{id}/top`: the processes of a container, as the host's `ps` shows them.
//!
//! Nothing is executed in the container. `ps_args` are the host's `ps` to judge, of which only rows of the container's
//! processes are shown; where the host has none, we tell what `ps -ef` would, and nothing else.

use std::collections::BTreeSet;
use std::io;
use std::process::{Command, Stdio};

use engine_api::container::Top;
use errdefs::ErrorKind;
use oci::ContainerId;

use crate::Engine;
use crate::container::Container;
use crate::container::state::Phase;
use crate::registry::LookupError;

mod table;

/// What is shown where the request does not say: Docker's.
const ARGUMENTS_DEFAULT: &str = "-ef";

/// Why [`top`] failed. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// There is no such container.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It does not run.
    #[error("container {0} is not running")]
    NotRunning(ContainerId),
    /// It waits for its next start.
    #[error("Container {0} is restarting, wait until the container is running")]
    Restarting(ContainerId),
    /// Without the number a row cannot be told to be the container's.
    #[error("Couldn't find PID field in ps output")]
    NoPid,
    /// A row that has no number where the title says.
    #[error("Unexpected pid '{0}'")]
    Pid(String),
    /// `ps` says so.
    #[error("ps: {0}")]
    Said(String),
    /// There is no `ps`, and we know but one table.
    #[error("the host has no ps program: only \"ps -ef\" can be shown, not {0:?}")]
    OnlyDefault(String),
    /// `ps` cannot be run.
    #[error("Error running ps")]
    Run(#[source] io::Error),
    /// The container's processes cannot be listed.
    #[error("list the container's processes")]
    Processes(#[source] cgroup::CgroupError),
}

impl TopError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            TopError::Lookup(err) => err.kind(),
            TopError::NotRunning(_) | TopError::Restarting(_) => ErrorKind::Conflict,
            _ => ErrorKind::Internal,
        }
    }
}

/// The processes of a container; `arguments` are for `ps`, empty for Docker's.
pub async fn top(engine: &Engine, name: &str, arguments: &str) -> Result<Top, TopError> {
    let container = engine.containers.find(name)?;
    container.settle_start().await;
    match container.state().phase {
        Phase::Running { .. } => {}
        Phase::Restarting => return Err(TopError::Restarting(container.id().clone())),
        Phase::Stopped | Phase::Removing => return Err(TopError::NotRunning(container.id().clone())),
    }
    let arguments = if arguments.is_empty() { ARGUMENTS_DEFAULT } else { arguments }.to_owned();
    let (task, inside) = (engine.clone(), container.clone());
    let top = bridge::blocking(move || list(&task, &inside, &arguments)).await?;
    engine.events.container(&container, "top", []);
    Ok(top)
}

fn list(engine: &Engine, container: &Container, arguments: &str) -> Result<Top, TopError> {
    let group = engine.cgroup_of(container).map_err(TopError::Processes)?;
    let pids = group.procs_with_below();
    match ps(arguments, &pids) {
        Ok(text) => table::parse(&text, &pids),
        Err(TopError::Run(err)) if err.kind() == io::ErrorKind::NotFound => match arguments {
            ARGUMENTS_DEFAULT => Ok(table::full(&pids)),
            other => Err(TopError::OnlyDefault(other.to_owned())),
        },
        Err(err) => Err(err),
    }
}

/// Runs `ps`: of these processes alone, if it can, else of all.
fn ps(arguments: &str, pids: &BTreeSet<i32>) -> Result<String, TopError> {
    let list: Vec<String> = pids.iter().map(ToString::to_string).collect();
    match run(arguments, Some(&format!("-q{}", list.join(",")))) {
        Ok(text) => Ok(text),
        // Some arguments exclude the choice, and some programs of that name do not know it.
        Err(TopError::Said(_)) => run(arguments, None),
        Err(err) => Err(err),
    }
}

fn run(arguments: &str, choice: Option<&str>) -> Result<String, TopError> {
    let mut command = Command::new("ps");
    command.args(arguments.split_whitespace()).args(choice);
    let output = command.stdin(Stdio::null()).env("LC_ALL", "C").output().map_err(TopError::Run)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("failed");
    Err(TopError::Said(first.trim_start_matches("ps: ").to_owned()))
}
