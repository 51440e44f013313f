//! The networks that users made, on disk: one row of JSON each, one durable commit an operation.

use std::fs;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::error::NetworkError;
use crate::user::UserNetwork;

const NETWORKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("networks");

/// redb's page cache. Every row is read once at start and kept, so this is for the pages of one commit.
const CACHE_BYTES: usize = 128 * 1024;

/// The database, which is there from the first network on.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
}

impl Store {
    pub(crate) fn new(path: PathBuf) -> Store {
        Store { path }
    }

    /// All networks. A row that cannot be understood is told and left alone; so is a database that cannot be opened, but
    /// under another name.
    pub(crate) fn load(&self) -> Result<Vec<UserNetwork>, NetworkError> {
        if !self.path.exists() {
            return Ok(Vec::new());
        }
        match self.read() {
            Err(err) if is_torn(&err) => {
                let aside = self.path.with_extension(format!("torn-{}", stdx::id::random_hex::<4>()));
                tracing::error!(%err, aside = %aside.display(), "the torn records of networks were set aside");
                fs::rename(&self.path, &aside).map_err(|err| self.failed(redb::Error::Io(err)))?;
                Ok(Vec::new())
            }
            read => read.map_err(|err| self.failed(err)),
        }
    }

    /// Keeps a network.
    pub(crate) fn put(&self, network: &UserNetwork) -> Result<(), NetworkError> {
        let bytes = serde_json::to_vec(network).expect("records have text keys only");
        self.commit(&network.id, Some(&bytes)).map_err(|err| self.failed(err))
    }

    /// Forgets a network.
    pub(crate) fn remove(&self, id: &str) -> Result<(), NetworkError> {
        self.commit(id, None).map_err(|err| self.failed(err))
    }

    fn read(&self) -> Result<Vec<UserNetwork>, redb::Error> {
        // It has to outlive the transaction: what is not in memory by then cannot be read from a database that is closed.
        let database = open(&self.path)?;
        let read = database.begin_read()?;
        let table = match read.open_table(NETWORKS) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            table => table?,
        };
        let mut networks = Vec::new();
        for row in table.iter()? {
            let (id, bytes) = row?;
            match serde_json::from_slice(bytes.value()) {
                Ok(network) => networks.push(network),
                Err(err) => tracing::error!(network = id.value(), %err, "the record of a network cannot be read"),
            }
        }
        Ok(networks)
    }

    /// Opened for the moment only: networks come and go seldom, and an open database costs memory.
    fn commit(&self, id: &str, bytes: Option<&[u8]>) -> Result<(), redb::Error> {
        let database = if self.path.exists() { open(&self.path)? } else { self.create()? };
        let write = database.begin_write()?;
        {
            let mut table = write.open_table(NETWORKS)?;
            match bytes {
                Some(bytes) => drop(table.insert(id, bytes)?),
                None => drop(table.remove(id)?),
            }
        }
        Ok(write.commit()?)
    }

    /// Makes the database; a kill meanwhile leaves none of its name.
    fn create(&self) -> Result<Database, redb::Error> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory).map_err(redb::Error::Io)?;
        let new = self.path.with_extension("new");
        stdx::fs::remove_if_exists(&new).map_err(redb::Error::Io)?;
        let database = open(&new)?;
        fs::rename(&new, &self.path).map_err(redb::Error::Io)?;
        stdx::fs::sync_dir(directory).map_err(redb::Error::Io)?;
        Ok(database)
    }

    fn failed(&self, source: redb::Error) -> NetworkError {
        NetworkError::Store { path: self.path.clone(), source: Box::new(source) }
    }
}

fn open(path: &Path) -> Result<Database, redb::Error> {
    Ok(Database::builder().set_cache_size(CACHE_BYTES).create(path)?)
}

/// Whether it is the file's fault, not that of the system (a full disk, no descriptor), of another process, or of a newer version
/// that has written it: what is whole is not set aside.
fn is_torn(err: &redb::Error) -> bool {
    match err {
        redb::Error::Corrupted(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TableIsNotMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. } => true,
        redb::Error::Io(err) => err.raw_os_error().is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::{Surroundings, UserNetworkRequest};

    fn network(id: &str) -> UserNetwork {
        let around = Surroundings {
            id: id.repeat(64),
            now_nanos: 1,
            free: Some("172.18.0.0/16".parse().unwrap()),
            free_ipv6: None,
            subnets: Vec::new(),
            bridges: Vec::new(),
            parents: Vec::new(),
            mtu: 1500,
        };
        let request = UserNetworkRequest { name: format!("n{id}"), ..UserNetworkRequest::default() };
        UserNetwork::plan(request, around).unwrap()
    }

    #[test]
    fn networks_stay_until_they_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().join("data/networks.redb"));
        assert!(store.load().unwrap().is_empty());
        let (one, two) = (network("1"), network("2"));
        store.put(&one).unwrap();
        store.put(&two).unwrap();
        store.remove(&one.id).unwrap();
        let again = Store::new(directory.path().join("data/networks.redb"));
        assert_eq!(again.load().unwrap(), [two]);
    }

    #[test]
    fn what_a_newer_version_has_written_is_not_torn() {
        assert!(!is_torn(&redb::Error::UpgradeRequired(9)));
        assert!(!is_torn(&redb::Error::Io(std::io::Error::from_raw_os_error(24))));
        assert!(is_torn(&redb::Error::Corrupted("no".to_owned())));
    }

    #[test]
    fn what_is_torn_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("networks.redb");
        fs::write(&path, "no database").unwrap();
        let store = Store::new(path);
        assert!(store.load().unwrap().is_empty());
        store.put(&network("1")).unwrap();
        assert_eq!(store.load().unwrap().len(), 1);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
