//! Making volumes.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use errdefs::ErrorKind;
use oci::ContainerId;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use stdx::time::Rfc3339;

use crate::name::{NameError, VolumeName};
use crate::options::{self, OptionsError};
use crate::record::{self, DATA, Volume};
use crate::store::{ANONYMOUS_LABEL, DRIVER, Entry, Slot, Volumes};

/// The mode of the root and of each volume's directory: dockerd's. What is inside `_data` may belong to users of the host.
pub(crate) const DIRECTORY_MODE: u32 = 0o701;

/// The mode of `_data` until something else is wanted: dockerd's.
pub(crate) const DATA_MODE: u32 = 0o755;

/// Begins the names of volumes in the making.
pub(crate) const NEW: &str = ".new-";

/// What somebody wants to have.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Empty: a name that nobody has.
    pub name: String,
    /// It is nobody's but one container's. Always so without a name; a name that was chosen ahead
    /// ([`VolumeName::random`]) needs it said.
    pub anonymous: bool,
    /// Empty: `local`.
    pub driver: String,
    /// Its labels, if the volume is new.
    pub labels: Option<BTreeMap<String, String>>,
    /// Options of the driver, if the volume is new.
    pub options: Option<BTreeMap<String, String>>,
}

/// What [`Volumes::create`] answers.
#[derive(Clone, Debug)]
pub struct Created {
    /// The volume.
    pub volume: Arc<Volume>,
    /// It was not there before.
    pub new: bool,
}

/// Why [`Volumes::create`] failed. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// There is no such driver.
    #[error("create {name}: error looking up volume plugin {driver}: plugin {driver:?} not found")]
    Driver {
        /// The volume's name.
        name: String,
        /// The driver.
        driver: String,
    },
    /// The name is none.
    #[error("create {name}")]
    Name {
        /// The text.
        name: String,
        /// Why not.
        source: NameError,
    },
    /// The driver's options are wrong.
    #[error("create {name}")]
    Options {
        /// The volume's name.
        name: String,
        /// What is wrong with them.
        source: OptionsError,
    },
    /// The system says no.
    #[error("create {name}: {what}")]
    Io {
        /// The volume's name.
        name: VolumeName,
        /// What we were doing.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl CreateError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CreateError::Driver { .. } => ErrorKind::NotFound,
            CreateError::Name { source, .. } => source.kind(),
            CreateError::Options { .. } => ErrorKind::InvalidArgument,
            CreateError::Io { .. } => ErrorKind::Internal,
        }
    }
}

impl Volumes {
    /// Makes a volume, durably, unless there is one of that name, whatever its labels; `user` has it from then on, and owns
    /// it if it is anonymous and new.
    pub fn create(&self, wanted: &Wanted, user: Option<&ContainerId>) -> Result<Created, CreateError> {
        let plan = plan(wanted, user, SystemTime::now(), &self.root)?;
        let mut table = self.settled(plan.name.as_str());
        if let Some(Slot::Here(entry)) = table.get_mut(&plan.name) {
            entry.users.extend(user.cloned());
            return Ok(Created { volume: entry.volume.clone(), new: false });
        }
        let checked = plan.options.as_ref().map_or(Ok(()), |options| options::check(options, self.limits.is_some()));
        checked.map_err(|source| CreateError::Options { name: plan.name.to_string(), source })?;
        let (changing, _) = self.change(table, &plan.name);
        self.make(&plan).map_err(|(what, source)| CreateError::Io { name: plan.name.clone(), what, source })?;
        let volume = Arc::new(plan);
        let mut entry = Entry::new(volume.clone());
        entry.users.extend(user.cloned());
        changing.becomes(entry);
        Ok(Created { volume, new: true })
    }

    fn make(&self, volume: &Volume) -> Result<(), (&'static str, io::Error)> {
        let new = self.root.join(format!("{NEW}{}", stdx::id::random_hex::<8>()));
        let staged = stage(self, &new, volume).and_then(|()| {
            let path = self.directory(&volume.name);
            // Something without a volume in it may be in the way: then it stays.
            let renamed = renameat_with(CWD, &new, CWD, &path, RenameFlags::NOREPLACE);
            renamed.map_err(|err| ("show the volume's directory", err.into()))?;
            stdx::fs::sync_dir(&self.root).map_err(|err| {
                // It is not known to last, so it is not there. The error that is reported is the one that matters.
                let _ = fs::rename(&path, &new);
                ("sync the volume's directory", err)
            })
        });
        if staged.is_err() {
            // What cannot be removed now is set aside when the store opens.
            let _ = fs::remove_dir_all(&new);
        }
        staged
    }
}

fn stage(volumes: &Volumes, new: &Path, volume: &Volume) -> Result<(), (&'static str, io::Error)> {
    make_directory(new, DIRECTORY_MODE).map_err(|err| ("make the volume's directory", err))?;
    let data = new.join(DATA);
    make_directory(&data, DATA_MODE).map_err(|err| ("make the data directory", err))?;
    limit(volumes, &data, volume.limit()).map_err(|err| ("limit the data directory", err))?;
    record::save(new, volume).map_err(|err| ("write the volume's record", err))
}

/// Limits a directory that is empty.
pub(crate) fn limit(volumes: &Volumes, directory: &Path, bytes: Option<u64>) -> io::Result<()> {
    match (bytes, &volumes.limits) {
        (None, _) => Ok(()),
        (Some(bytes), Some(limits)) => limits.limit(&[directory], bytes),
        // Of a volume that was made where there were quotas.
        (Some(_), None) => Err(rustix::io::Errno::OPNOTSUPP.into()),
    }
}

/// Makes a directory with that very mode, whatever the umask.
pub(crate) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)?;
    fs::set_permissions(path, PermissionsExt::from_mode(mode))
}

/// The volume as it will be, if it is new. dockerd looks for the driver first.
pub(crate) fn plan(
    wanted: &Wanted,
    user: Option<&ContainerId>,
    now: SystemTime,
    root: &Path,
) -> Result<Volume, CreateError> {
    if !matches!(wanted.driver.as_str(), "" | DRIVER) {
        return Err(CreateError::Driver { name: wanted.name.clone(), driver: wanted.driver.clone() });
    }
    let anonymous = wanted.anonymous || wanted.name.is_empty();
    let name = match wanted.name.as_str() {
        "" => VolumeName::random(),
        text => text.parse().map_err(|source| CreateError::Name { name: text.to_owned(), source })?,
    };
    let mut labels = wanted.labels.clone();
    if anonymous {
        labels.get_or_insert_default().insert(ANONYMOUS_LABEL.to_owned(), String::new());
    }
    let mountpoint = root.join(name.as_str()).join(DATA);
    let owner = user.filter(|_| anonymous).cloned();
    Ok(Volume { name, created: to_seconds(now), labels, options: wanted.options.clone(), anonymous, owner, mountpoint })
}

/// RFC 3339 without a fraction, as dockerd shows a volume's creation.
pub(crate) fn to_seconds(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}
