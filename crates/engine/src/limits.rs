//! Limits on containers' own files and on volumes: who keeps them, where the file systems can.

use std::io;
use std::path::Path;
use std::sync::Arc;

use container_spec::storage;
use engine_api::host_config::HostConfig;
use quota::{Projects, Unlimited};
use tracing::{debug, warn};

use crate::Engine;
use crate::config::EngineConfig;
use crate::container::Container;

/// Who limits what.
#[derive(Debug)]
pub struct Limits {
    /// Containers' own files, or why nobody does.
    pub containers: Result<Arc<Projects>, Unlimited>,
    /// Volumes; none where nobody does.
    pub volumes: Option<Arc<Projects>>,
}

impl Limits {
    /// Finds out, when the stores are there. One owner for each file system, and mostly both lie in the same.
    pub fn open(config: &EngineConfig, snapshots: &Path) -> Limits {
        let key = u32::from_str_radix(&config.instance_key, 16).unwrap_or_default();
        let open = |path: &Path| Projects::open(path, key).map(Arc::new);
        let containers = open(snapshots);
        let at = config.data_root.join("volumes");
        let volumes = match &containers {
            Ok(projects) if projects.covers(&at) => Some(projects.clone()),
            _ => open(&at).inspect_err(|err| debug!("no limits on volumes: {}", errdefs::chain(err))).ok(),
        };
        Limits { containers, volumes }
    }

    /// Takes back what belonged to directories that have gone. Blocks.
    pub(crate) fn reclaim(&self) {
        let containers = self.containers.as_ref().ok();
        let apart = self.volumes.as_ref().filter(|volumes| containers.is_none_or(|other| !Arc::ptr_eq(volumes, other)));
        for projects in containers.into_iter().chain(apart) {
            if let Err(err) = projects.reclaim() {
                warn!(%err, "limits of directories that have gone stay");
            }
        }
    }
}

/// How many bytes a container's own files may take; none for as many as there is room for.
pub(crate) fn of_container(engine: &Engine, host: &HostConfig) -> Result<Option<u64>, container_spec::InvalidRequest> {
    let wanted = storage::size_bytes(host)?.or(engine.config.container_size_bytes);
    Ok(wanted.filter(|bytes| *bytes > 0))
}

/// Limits the directories of a container that is being made, which are empty.
pub(crate) fn apply(engine: &Engine, directories: &[&Path], bytes: u64) -> io::Result<()> {
    match &engine.limits.containers {
        Ok(projects) => projects.limit(directories, bytes),
        Err(_) => Err(rustix::io::Errno::OPNOTSUPP.into()),
    }
}

/// When all containers are known: tells of those that were made with a limit which nobody keeps any more.
pub(crate) fn tell_unkept(engine: &Engine) {
    let Err(reason) = &engine.limits.containers else { return };
    let limited =
        |container: &Container| matches!(storage::size_bytes(&container.definition.host_config), Ok(Some(1..)));
    for container in engine.containers.all().iter().filter(|container| limited(container)) {
        warn!(container = %container.id(), reason = errdefs::chain(reason), "the container's size is not limited any more");
    }
}
