//! Writes records, a little later than they change.
//!
//! A change marks its container; some time later one blocking task writes the last state of all that are marked. So a
//! container that lives shorter than that never costs a write beside the one at its creation. What is lost if the daemon
//! is killed meanwhile is in the shim's files, which are removed only after the record was written. What is not there
//! (that a client stopped it, its name) is written before the client is answered, by [`Recorder::write_now`].

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oci::ContainerId;
use stdx::fs::Durability;
use tokio::sync::Notify;
use tracing::error;

use crate::container::Container;
use crate::container::record::ContainerDir;
use crate::sync::lock;

/// How long a changed record waits for further changes.
const DELAY: Duration = Duration::from_millis(200);

/// Which records are to be written, and where.
pub struct Recorder {
    /// `<data-root>/containers`.
    containers: PathBuf,
    exec_root: PathBuf,
    marked: Mutex<BTreeMap<ContainerId, Arc<Container>>>,
    wake: Notify,
}

impl Recorder {
    /// A recorder for the records below `containers`, and the shims' directories below `exec_root`.
    pub fn new(containers: PathBuf, exec_root: PathBuf) -> Recorder {
        Recorder { containers, exec_root, marked: Mutex::default(), wake: Notify::new() }
    }

    /// The directory of a container on the data disk.
    pub fn dir(&self, id: &ContainerId) -> ContainerDir {
        ContainerDir::new(&self.containers, id)
    }

    /// The directory of a container's shim.
    pub fn shim_dir(&self, id: &ContainerId) -> PathBuf {
        shim_api::paths::dir(&self.exec_root, id)
    }

    /// Has the record written soon.
    pub fn mark(&self, container: &Arc<Container>) {
        let mut marked = lock(&self.marked);
        if marked.insert(container.id().clone(), container.clone()).is_none() {
            self.wake.notify_one();
        }
    }

    /// The container is removed: its record is not to be written any more.
    pub fn forget(&self, id: &ContainerId) {
        lock(&self.marked).remove(id);
    }

    /// Writes marked records for ever.
    pub async fn run(&self) {
        loop {
            self.wake.notified().await;
            tokio::time::sleep(DELAY).await;
            self.flush().await;
        }
    }

    /// Writes all marked records.
    pub async fn flush(&self) {
        let marked = std::mem::take(&mut *lock(&self.marked));
        for container in marked.into_values() {
            if let Err(err) = self.write_now(&container).await {
                error!(container = %container.id(), %err, "cannot write the container's record");
            }
        }
    }

    /// Writes the record of a container, and removes its shim's directory if nothing there is needed any more.
    pub async fn write_now(&self, container: &Arc<Container>) -> io::Result<()> {
        // Two writers would mix their temporary files. Nobody but writers of this one record waits here.
        let _writing = container.recording.lock().await;
        lock(&self.marked).remove(container.id());
        if container.is_removed() {
            return Ok(());
        }
        let (container, dir, shim_dir) = (container.clone(), self.dir(container.id()), self.shim_dir(container.id()));
        bridge::blocking(move || settle(&container, &dir, &shim_dir)).await
    }
}

fn settle(container: &Container, dir: &ContainerDir, shim_dir: &std::path::Path) -> io::Result<()> {
    let (name, state, ended) = {
        let live = container.live();
        (live.name.clone(), live.state.clone(), live.shim.is_none() && live.state.pid() == 0)
    };
    dir.write(&name, &container.definition_now(), &state, Durability::ProcessDeath)?;
    if ended { stdx::fs::remove_if_exists(shim_dir) } else { Ok(()) }
}
