//! What survives the daemon: one small file per endpoint, and one for the bridge.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use netlink::link::Mac;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stdx::fs::{Durability, remove_if_exists, write_atomic};

use crate::error::NetworkError;
use crate::ports::Published;

/// An endpoint, as far as it must be known to go on with it or to remove it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EndpointRecord {
    pub(crate) container: String,
    pub(crate) endpoint_id: String,
    pub(crate) sandbox_id: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) mac: Mac,
    /// The end of the veth pair on the host.
    pub(crate) interface: String,
    /// That one's number, which unlike its name nobody can change.
    pub(crate) interface_index: u32,
    pub(crate) ports: Vec<Published>,
}

/// The bridge network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BridgeRecord {
    pub(crate) id: String,
    /// The gateway's address, on the bridge.
    pub(crate) gateway: Ipv4Addr,
    pub(crate) prefix: u8,
    /// Whether forwarding was off until we switched it on, so that we keep this machine from routing for others.
    pub(crate) guards_forwarding: bool,
}

/// The directory of the records.
#[derive(Debug)]
pub(crate) struct Records {
    directory: PathBuf,
}

impl Records {
    pub(crate) fn new(directory: &Path) -> Records {
        Records { directory: directory.to_owned() }
    }

    /// All endpoints. A file that cannot be understood is set aside: its container then counts as not joined.
    pub(crate) fn endpoints(&self) -> Result<Vec<EndpointRecord>, NetworkError> {
        let directory = self.directory.join("endpoints");
        let entries = match fs::read_dir(&directory) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|source| record_error(&directory, source))?,
        };
        let mut records = Vec::new();
        for entry in entries {
            let path = entry.map_err(|source| record_error(&directory, source))?.path();
            if path.extension().is_none() {
                records.extend(load(&path)?);
            }
        }
        Ok(records)
    }

    /// Removes what a writer left that was killed.
    pub(crate) fn sweep(&self) -> Result<(), NetworkError> {
        for entry in fs::read_dir(self.directory.join("endpoints")).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "tmp") {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    pub(crate) fn write_endpoint(&self, record: &EndpointRecord) -> Result<(), NetworkError> {
        self.write(&self.endpoint(&record.container), record)
    }

    pub(crate) fn remove_endpoint(&self, container: &str) -> Result<(), NetworkError> {
        remove(&self.endpoint(container))
    }

    pub(crate) fn bridge(&self) -> Result<Option<BridgeRecord>, NetworkError> {
        load(&self.directory.join("bridge.json"))
    }

    pub(crate) fn write_bridge(&self, record: &BridgeRecord) -> Result<(), NetworkError> {
        self.write(&self.directory.join("bridge.json"), record)
    }

    pub(crate) fn remove_bridge(&self) -> Result<(), NetworkError> {
        remove(&self.directory.join("bridge.json"))
    }

    fn endpoint(&self, container: &str) -> PathBuf {
        self.directory.join("endpoints").join(container)
    }

    fn write(&self, path: &Path, record: &impl Serialize) -> Result<(), NetworkError> {
        let bytes = serde_json::to_vec(record).expect("records have text keys only");
        match write_atomic(path, &bytes, Durability::ProcessDeath) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                // The first record of this boot.
                fs::create_dir_all(self.directory.join("endpoints")).map_err(|source| record_error(path, source))?;
                write_atomic(path, &bytes, Durability::ProcessDeath)
            }
            written => written,
        }
        .map_err(|source| record_error(path, source))
    }
}

fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, NetworkError> {
    let bytes = match fs::read(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(|source| record_error(path, source))?,
    };
    match serde_json::from_slice(&bytes) {
        Ok(record) => Ok(Some(record)),
        Err(err) => {
            tracing::warn!(path = %path.display(), %err, "a network record cannot be read and is set aside");
            let aside = path.with_extension("torn");
            fs::rename(path, &aside).map_err(|source| record_error(path, source))?;
            Ok(None)
        }
    }
}

fn remove(path: &Path) -> Result<(), NetworkError> {
    remove_if_exists(path).map_err(|source| record_error(path, source))
}

fn record_error(path: &Path, source: io::Error) -> NetworkError {
    NetworkError::Record { path: path.to_owned(), source }
}
