//! Opening the store: what is there, and what a dead process left.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

use errdefs::ErrorKind;

use crate::create::{DIRECTORY_MODE, NEW, to_seconds};
use crate::fill::{self, FILLED, FILLING};
use crate::name::VolumeName;
use crate::record::{self, DATA, FILE, Volume};
use crate::store::{Entry, Slot, Volumes, gone};

/// Begins the names of what looked like a volume and was none.
const TORN: &str = ".torn-";

/// Why [`Volumes::open`] failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The root cannot be made.
    #[error("create directory {}", path.display())]
    Create {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The root cannot be read.
    #[error("list the volumes in {}", path.display())]
    List {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Something that was found at open and that a person should know of. None of it keeps the store from working.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The record could not be understood. The volume is there, without labels.
    #[error("volume {name} had a torn record, now in {}", aside.display())]
    TornRecord {
        /// The volume.
        name: VolumeName,
        /// Where the record is now.
        aside: PathBuf,
    },
    /// There was no record beside the data, as in a directory that Docker made. The volume is there, without labels.
    #[error("volume {name} had no record")]
    NoRecord {
        /// The volume.
        name: VolumeName,
    },
    /// There was no data; the directory is no volume.
    #[error("volume {name} had no data directory, and is now in {}", aside.display())]
    NoData {
        /// The volume's name.
        name: VolumeName,
        /// Where the directory is now.
        aside: PathBuf,
    },
    /// A copy from an image is complete and could not be moved into the volume. The next fill tries again.
    #[error("finish filling volume {name}")]
    Fill {
        /// The volume.
        name: VolumeName,
        /// Why.
        source: io::Error,
    },
    /// The system says no. The volume is not there.
    #[error("open volume {name}")]
    Io {
        /// The volume.
        name: VolumeName,
        /// Why.
        source: io::Error,
    },
}

impl OpenError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

impl Fault {
    /// Nothing that a request could change.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

impl Volumes {
    /// Opens or creates the store below `root`. What a dead process left is only renamed; `sweep` deletes it.
    pub fn open(root: &Path) -> Result<Volumes, OpenError> {
        let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(root);
        let made = made.and_then(|()| fs::set_permissions(root, PermissionsExt::from_mode(DIRECTORY_MODE)));
        made.map_err(|source| OpenError::Create { path: root.to_owned(), source })?;
        let (mut table, mut faults) = (BTreeMap::new(), Vec::new());
        let failed = |source| OpenError::List { path: root.to_owned(), source };
        for entry in fs::read_dir(root).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().as_encoded_bytes().starts_with(NEW.as_bytes()) {
                fs::rename(entry.path(), gone(root)).map_err(failed)?;
                continue;
            }
            // Others' files are none of our business: Docker's metadata.db, a file system's lost+found.
            let Some(name) = name_of(&entry.file_name()) else { continue };
            if !entry.file_type().map_err(failed)?.is_dir() {
                continue;
            }
            match open_one(root, &name, &mut faults) {
                Ok(Some(volume)) => drop(table.insert(name, Slot::Here(Entry::new(Arc::new(volume))))),
                Ok(None) => {}
                Err(source) => faults.push(Fault::Io { name, source }),
            }
        }
        Ok(Volumes { root: root.to_owned(), table: Mutex::new(table), changed: Condvar::new(), faults, limits: None })
    }
}

fn name_of(name: &OsStr) -> Option<VolumeName> {
    name.to_str()?.parse().ok()
}

/// What lies in one volume's directory.
#[derive(Default)]
struct Found {
    record: bool,
    data: bool,
    filling: bool,
    filled: bool,
}

fn open_one(root: &Path, name: &VolumeName, faults: &mut Vec<Fault>) -> io::Result<Option<Volume>> {
    let directory = root.join(name.as_str());
    let found = look(&directory)?;
    if !found.data {
        let aside = root.join(format!("{TORN}{}", stdx::id::random_hex::<8>()));
        fs::rename(&directory, &aside)?;
        faults.push(Fault::NoData { name: name.clone(), aside });
        return Ok(None);
    }
    if found.filling {
        fs::rename(directory.join(FILLING), gone(root))?;
    }
    if found.filled
        && let Err(source) = fill::settle(&directory, &gone(root))
    {
        faults.push(Fault::Fill { name: name.clone(), source });
    }
    if found.record
        && let Some(volume) = record::load(&directory, name)?
    {
        return Ok(Some(volume));
    }
    adopt(&directory, name, found.record, faults).map(Some)
}

fn look(directory: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let is_dir = entry.file_type()?.is_dir();
        match entry.file_name().to_str() {
            Some(DATA) => found.data = is_dir,
            Some(FILLING) => found.filling = true,
            Some(FILLED) => found.filled = true,
            Some(FILE) => found.record = true,
            _ => {}
        }
    }
    Ok(found)
}

/// Writes a new record for data that has none that can be read.
fn adopt(directory: &Path, name: &VolumeName, torn: bool, faults: &mut Vec<Fault>) -> io::Result<Volume> {
    let created = to_seconds(fs::metadata(directory)?.modified()?);
    if torn {
        let aside = directory.join(format!("{FILE}.torn-{}", stdx::id::random_hex::<4>()));
        fs::rename(directory.join(FILE), &aside)?;
        faults.push(Fault::TornRecord { name: name.clone(), aside });
    } else {
        faults.push(Fault::NoRecord { name: name.clone() });
    }
    let mountpoint = directory.join(DATA);
    // Not anonymous, whatever the name looks like: nobody loses data because of a torn record.
    let volume =
        Volume { name: name.clone(), created, labels: None, options: None, anonymous: false, owner: None, mountpoint };
    record::save(directory, &volume)?;
    Ok(volume)
}
