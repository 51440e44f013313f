//! The database: tables of JSON, read whole at start, one commit per operation: a durable one, unless nobody would
//! miss it.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use oci::{Digest, Reference};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use rustix::fs::FallocateFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;
use snapshot::ChainId;
use tracing::debug;

use crate::record::{StoredImage, StoredLayer};

const IMAGES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("images");
const REFERENCES: TableDefinition<'_, &str, &str> = TableDefinition::new("references");
const LAYERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("layers");
/// Keys of images and layers, and the boot during which they were written.
const UNSETTLED: TableDefinition<'_, &str, &str> = TableDefinition::new("unsettled");

/// redb's page cache. We read every row once at start and keep them ourselves, so this is for the pages of one commit.
const CACHE_BYTES: usize = 512 * 1024;

/// So many commits do not wait for the disk, one after another. Their pages are used again after a durable one alone, some
/// 16 KiB of each.
const AT_LEISURE_MAX: u32 = 31;

/// The database.
#[derive(Debug)]
pub(crate) struct Metadata {
    path: PathBuf,
    /// Commits since the last durable one.
    at_leisure: u32,
    /// `None` after a failure, until it can be opened again.
    database: Option<Database>,
}

/// All rows that could be read.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) images: BTreeMap<Digest, StoredImage>,
    pub(crate) references: Vec<(Reference, Digest)>,
    pub(crate) layers: HashMap<ChainId, StoredLayer>,
    /// What need not be on disk, and the boot during which it was written.
    pub(crate) unsettled: Vec<(Unsettled, String)>,
    /// `table key` of rows that could not be understood.
    pub(crate) torn: Vec<String>,
}

/// What one operation changes, all of it or nothing. `None` removes.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(crate) images: Vec<(Digest, Option<StoredImage>)>,
    pub(crate) references: Vec<(Reference, Option<Digest>)>,
    pub(crate) layers: Vec<(ChainId, Option<StoredLayer>)>,
    /// With the boot during which they were written.
    pub(crate) unsettled: Vec<(Unsettled, Option<String>)>,
}

/// What a power cut may take.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unsettled {
    Image(Digest),
    Layer(ChainId),
}

impl Unsettled {
    fn key(&self) -> String {
        match self {
            Unsettled::Image(id) => format!("image {id}"),
            Unsettled::Layer(chain_id) => format!("layer {}", chain_id.0),
        }
    }

    fn of_key(key: &str) -> Option<Unsettled> {
        match key.split_once(' ')? {
            ("image", id) => id.parse().ok().map(Unsettled::Image),
            ("layer", chain_id) => chain_id.parse().ok().map(Unsettled::Layer),
            _ => None,
        }
    }
}

impl Metadata {
    /// Opens or creates the database; one that cannot be opened is renamed, and its new path returned.
    pub(crate) fn open(path: &Path) -> Result<(Metadata, Option<PathBuf>), redb::Error> {
        let opened = |database| Metadata { path: path.to_owned(), at_leisure: 0, database: Some(database) };
        match open(path) {
            Ok(database) => Ok((opened(database), None)),
            Err(err) if !is_torn(&err) => Err(err),
            Err(_) => {
                let mut aside = path.as_os_str().to_owned();
                aside.push(format!(".torn-{}", stdx::id::random_hex::<4>()));
                fs::rename(path, &aside).map_err(redb::Error::Io)?;
                Ok((opened(open(path)?), Some(aside.into())))
            }
        }
    }

    pub(crate) fn read(&self) -> Result<Rows, redb::Error> {
        let read = self.database.as_ref().ok_or(redb::Error::DatabaseClosed)?.begin_read()?;
        let mut rows = Rows::default();
        for (key, value) in table(&read, IMAGES)? {
            match (key.parse(), decode(&value)) {
                (Ok(id), Some(image)) => drop(rows.images.insert(id, image)),
                _ => rows.torn.push(format!("image {key}")),
            }
        }
        for (key, value) in table(&read, LAYERS)? {
            match (key.parse(), decode(&value)) {
                (Ok(chain_id), Some(layer)) => drop(rows.layers.insert(chain_id, layer)),
                _ => rows.torn.push(format!("layer {key}")),
            }
        }
        match read.open_table(UNSETTLED) {
            // An older one.
            Err(redb::TableError::TableDoesNotExist(_)) => {}
            unsettled => {
                for row in unsettled?.iter()? {
                    let (key, boot) = row?;
                    match Unsettled::of_key(key.value()) {
                        Some(unsettled) => rows.unsettled.push((unsettled, boot.value().to_owned())),
                        None => rows.torn.push(format!("unsettled {}", key.value())),
                    }
                }
            }
        }
        let references = match read.open_table(REFERENCES) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(rows),
            other => other?,
        };
        for row in references.iter()? {
            let (key, value) = row?;
            match (key.value().parse(), value.value().parse()) {
                (Ok(reference), Ok(id)) => rows.references.push((reference, id)),
                _ => rows.torn.push(format!("reference {}", key.value())),
            }
        }
        Ok(rows)
    }

    /// One durable commit.
    pub(crate) fn commit(&mut self, change: &Change) -> Result<(), redb::Error> {
        self.commit_with(change, Durability::Immediate)
    }

    /// One that does not wait for the disk: it lasts from the next durable commit on, or from the end of the process if
    /// that is none by force.
    pub(crate) fn commit_at_leisure(&mut self, change: &Change) -> Result<(), redb::Error> {
        let is_time = self.at_leisure == AT_LEISURE_MAX;
        self.commit_with(change, if is_time { Durability::Immediate } else { Durability::None })
    }

    fn commit_with(&mut self, change: &Change, durability: Durability) -> Result<(), redb::Error> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open(&self.path)?,
        };
        // After a failed write redb refuses everything until it is opened anew. A full disk must not end with the need
        // to restart, least of all for a removal, which is how people make room.
        write(&database, change, durability)?;
        self.database = Some(database);
        self.at_leisure = match durability {
            Durability::None => self.at_leisure + 1,
            _ => 0,
        };
        reserve(&self.path);
        Ok(())
    }
}

fn open(path: &Path) -> Result<Database, redb::Error> {
    if path.exists() {
        return open_or_create(path);
    }
    // A kill while it is made must not leave half a database under its name. The lock moves with the file.
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    stdx::fs::remove_if_exists(&new).map_err(redb::Error::Io)?;
    let database = open_or_create(&new)?;
    fs::rename(&new, path).map_err(redb::Error::Io)?;
    stdx::fs::sync_dir(path.parent().unwrap_or(path)).map_err(redb::Error::Io)?;
    Ok(database)
}

fn open_or_create(path: &Path) -> Result<Database, redb::Error> {
    let database = Database::builder().set_cache_size(CACHE_BYTES).create(path)?;
    let write = database.begin_write()?;
    write.open_table(IMAGES)?;
    write.open_table(REFERENCES)?;
    write.open_table(LAYERS)?;
    write.open_table(UNSETTLED)?;
    // Dropped when nothing was created: an open of an existing database costs no sync.
    write.abort()?;
    reserve(path);
    Ok(database)
}

/// Takes the room for the holes in the file, which is where redb writes next: a removal makes room on a full disk, and must
/// not need any for that. A file system that cannot promise it is no worse than before.
fn reserve(path: &Path) {
    let reserved = (|| {
        let file = OpenOptions::new().write(true).open(path)?;
        let metadata = file.metadata()?;
        // stat(2): in units of 512 bytes, whatever the file system's are.
        if metadata.blocks() * 512 < metadata.len() {
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, metadata.len())?;
        }
        io::Result::Ok(())
    })();
    if let Err(err) = reserved {
        debug!(path = %path.display(), %err, "no room is reserved for removals");
    }
}

/// Whether it is the file's fault, not that of the system (a full disk, no descriptor) or of another process.
fn is_torn(err: &redb::Error) -> bool {
    match err {
        redb::Error::DatabaseAlreadyOpen => false,
        redb::Error::Io(err) => err.raw_os_error().is_none(),
        _ => true,
    }
}

fn write(database: &Database, change: &Change, durability: Durability) -> Result<(), redb::Error> {
    let mut write = database.begin_write()?;
    write.set_durability(durability)?;
    {
        let mut images = write.open_table(IMAGES)?;
        for (id, image) in &change.images {
            match image {
                Some(image) => drop(images.insert(id.as_str(), &encode(image)[..])?),
                None => drop(images.remove(id.as_str())?),
            }
        }
        let mut references = write.open_table(REFERENCES)?;
        for (reference, id) in &change.references {
            match id {
                Some(id) => drop(references.insert(&reference.to_string()[..], id.as_str())?),
                None => drop(references.remove(&reference.to_string()[..])?),
            }
        }
        let mut layers = write.open_table(LAYERS)?;
        for (chain_id, layer) in &change.layers {
            match layer {
                Some(layer) => drop(layers.insert(chain_id.0.as_str(), &encode(layer)[..])?),
                None => drop(layers.remove(chain_id.0.as_str())?),
            }
        }
        let mut unsettled = write.open_table(UNSETTLED)?;
        for (what, boot) in &change.unsettled {
            match boot {
                Some(boot) => drop(unsettled.insert(&what.key()[..], &boot[..])?),
                None => drop(unsettled.remove(&what.key()[..])?),
            }
        }
    }
    Ok(write.commit()?)
}

fn table(
    read: &redb::ReadTransaction,
    definition: TableDefinition<'_, &str, &[u8]>,
) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
    let table = match read.open_table(definition) {
        // A new database.
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        other => other?,
    };
    let mut rows = Vec::new();
    for row in table.iter()? {
        let (key, value) = row?;
        rows.push((key.value().to_owned(), value.value().to_owned()));
    }
    Ok(rows)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("records have string keys and no failing serializers")
}
