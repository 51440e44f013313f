//! The commands, one file each.

pub(crate) mod checkpoint;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod features;
pub(crate) mod kill;
pub(crate) mod pause;
pub(crate) mod ps;
pub(crate) mod restore;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod update;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cgroup::{Cgroup, Hierarchies};
use oci::runtime::{Namespace, Process, State};
use oci_runtime::Stdio;

use crate::error::CommandError;
use crate::foreground::Foreground;
use crate::given::{Given, GivenError};
use crate::log::Log;
use crate::rootless::Rootless;
use crate::state::{Record, Store};

/// The specification's version that is spoken.
pub(crate) const OCI_VERSION: &str = oci::runtime::VERSION;

/// What every command has.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    /// The containers.
    pub(crate) store: Store,
    /// Where to tell.
    pub(crate) log: &'a Log,
    /// Whether the caller is one without privilege.
    pub(crate) rootless: Rootless,
    /// Whether new containers are scopes of systemd.
    pub(crate) systemd: bool,
    /// Where the caller is: relative paths begin there.
    pub(crate) directory: PathBuf,
}

/// What is mounted of cgroups. Looked for once: it takes longer than most commands do otherwise.
pub(crate) fn hierarchies() -> Result<&'static Hierarchies, CommandError> {
    static FOUND: OnceLock<Hierarchies> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found);
    }
    let found = Hierarchies::detect().map_err(CommandError::system("look for cgroups"))?;
    Ok(FOUND.get_or_init(|| found))
}

/// The container's cgroup, as much of it as there is.
pub(crate) fn cgroup(record: &Record, hierarchies: &Hierarchies) -> Result<Cgroup, CommandError> {
    Ok(Cgroup::open(hierarchies, Path::new(&record.spec.linux.cgroups_path))?)
}

/// The container's cgroup for what cannot be done without one.
pub(crate) fn some_cgroup(
    record: &Record,
    hierarchies: &Hierarchies,
    what: &'static str,
) -> Result<Cgroup, CommandError> {
    let found = cgroup(record, hierarchies)?;
    if found.directories.is_empty() { Err(CommandError::NoCgroup { id: record.id.clone(), what }) } else { Ok(found) }
}

/// The streams of a new process: carried in the foreground, else ours.
fn streams(foreground: Option<&mut Foreground>, given: &Given, terminal: bool) -> Result<Stdio, GivenError> {
    match foreground {
        Some(foreground) => foreground.stdio(given),
        None => given.stdio(terminal),
    }
}

/// What no kernel knows, or the host has not, is no error, but to be told (runtime-spec config.md, "capabilities"); runc's
/// sentence.
pub(crate) fn warn_of_capabilities(context: &Context<'_>, process: &Process, namespaces: &[Namespace]) {
    let unknown = oci_runtime::unavailable_capabilities(process, namespaces);
    if !unknown.is_empty() {
        context.log.warning(&format!("ignoring unknown or unavailable capabilities: [{}]", unknown.join(" ")));
    }
}

/// Prints in one write. `println!` panics where standard output is full, or its reader has gone.
pub(crate) fn print(text: &str) -> Result<(), CommandError> {
    let failed = CommandError::system("write to standard output");
    let mut left = text.as_bytes();
    while !left.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::write(rustix::stdio::stdout(), left)) {
            Ok(0) => return Err(failed(io::ErrorKind::WriteZero.into())),
            Ok(written) => left = &left[written..],
            Err(err) => return Err(failed(io::Error::from(err))),
        }
    }
    Ok(())
}

/// What hooks are told.
pub(crate) fn hook_state(record: &Record, status: &str) -> State {
    State {
        oci_version: OCI_VERSION.to_owned(),
        id: record.id.clone(),
        status: status.to_owned(),
        pid: record.process.map_or(0, |process| process.pid),
        bundle: record.bundle.clone(),
        annotations: record.spec.annotations.clone(),
    }
}
