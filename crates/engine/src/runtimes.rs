//! Other OCI runtimes than our own: which there are, and what the shim is told for a container of one.
//!
//! A container keeps the name of its runtime. What the name means is daemon.json's: one that is not there any more makes the
//! start fail, and nothing else.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use container_spec::{HostFacts, SeccompChoice};
use engine_api::host_config::HostConfig;
use errdefs::ErrorKind;
use serde_json::{Map, Value, json};
use shim_api::ForeignRuntime;

use crate::Engine;
use crate::container::Container;

/// Why a container's runtime cannot run it.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// daemon.json has none of that name. The text is dockerd's.
    #[error("unknown or invalid runtime name: {0}")]
    Unknown(String),
    /// Its program is nowhere.
    #[error("error while looking up the specified runtime path: {:?}: executable file not found in $PATH", path.display())]
    Missing {
        /// As configured.
        path: PathBuf,
    },
    /// Its filter cannot be written down.
    #[error(transparent)]
    Filter(#[from] seccomp::CacheError),
    /// Its record asks for what cannot be.
    #[error(transparent)]
    Plan(#[from] container_spec::InvalidRequest),
}

impl RuntimeError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            RuntimeError::Unknown(_) => ErrorKind::InvalidArgument,
            _ => ErrorKind::Internal,
        }
    }
}

/// The runtime of a container; none for our own. Blocks briefly, for others alone.
pub(crate) fn of(engine: &Engine, container: &Container) -> Result<Option<ForeignRuntime>, RuntimeError> {
    let name = container.definition.host_config.runtime.as_str();
    let own = || name.is_empty() || HostFacts::OWN_RUNTIMES.contains(&name);
    let runtime = match engine.config.runtimes.get(name) {
        Some(runtime) => runtime,
        None if own() => return Ok(None),
        None => return Err(RuntimeError::Unknown(name.to_owned())),
    };
    let dir = engine.recorder.shim_dir(container.id());
    Ok(Some(ForeignRuntime {
        path: find(&runtime.path).ok_or_else(|| RuntimeError::Missing { path: runtime.path.clone() })?,
        args: runtime.args.clone(),
        root: dir.join("runtime"),
        bundle: dir.join("bundle"),
    }))
}

/// A program by its path, or by its name in `PATH`.
pub(crate) fn find(path: &Path) -> Option<PathBuf> {
    if path.as_os_str().as_bytes().contains(&b'/') {
        return path.is_file().then(|| path.to_owned());
    }
    let places = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&places).map(|place| place.join(path)).find(|file| file.is_file())
}

/// The system-call filter of a container as other runtimes read it.
pub(crate) fn filter(engine: &Engine, host: &HostConfig) -> Result<Option<Value>, RuntimeError> {
    let capabilities = || container_spec::capabilities(host, &engine.facts).map(|all| all.bounding);
    let named = |name: &str| host.security_opt.iter().flatten().any(|option| option.starts_with(name));
    let chosen = engine.config.seccomp.as_ref().filter(|_| !named("seccomp=") && !named("seccomp:"));
    let text = match (container_spec::seccomp_choice(host, &engine.facts)?, chosen) {
        (SeccompChoice::Unconfined, _) => return Ok(None),
        (SeccompChoice::Profile(text), _) => Some(text),
        (_, Some(chosen)) if chosen.profile == "unconfined" => return Ok(None),
        (_, Some(chosen)) => Some(chosen.profile.as_str()),
        (_, None) => None,
    };
    let filter = engine.filters.written(text, &capabilities()?)?;
    Ok(filter.map(|filter| json!(filter)))
}

/// As `info` shows them.
pub(crate) fn shown(engine: &Engine) -> Value {
    let own = json!({"path": engine.config.shim_path.display().to_string()});
    let mut shown = Map::from_iter([(HostFacts::RUNTIME.to_owned(), own)]);
    for (name, runtime) in &engine.config.runtimes {
        let mut entry = json!({"path": runtime.path.display().to_string()});
        if !runtime.args.is_empty() {
            entry["runtimeArgs"] = json!(runtime.args);
        }
        shown.insert(name.clone(), entry);
    }
    Value::Object(shown)
}
