//! Volumes that are mounts of their own: mounted on `_data` while anybody holds them.
//!
//! ```text
//!            mount(holder)                       put_down(last holder)               settle_mount, or the next mount
//! directory --------------> mounted, held by some --------------------> mounted, stale ----------------------> directory
//! ```
//! The mount is the host's, so that it outlives the daemon and all containers see the same one. Who holds it is kept in
//! memory and told again by the engine when the store opens; a mount that nobody holds then is stale. What is stale is
//! never used again: a volume in memory is empty at its next use, whether or not somebody was quick.

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use errdefs::ErrorKind;
use oci::ContainerId;
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{self as kernel, UnmountFlags};

use crate::options::{self, Wish};
use crate::record::Volume;
use crate::store::{Held, NotFound, Slot, Volumes};

/// How many mounts may lie on one another before an unmount gives up: somebody mounts faster than we unmount.
const STACKED_MAX: usize = 64;

/// Why a volume is not mounted. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// There is no such volume.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// The host of a network's file system has no address.
    #[error("error while mounting volume '{}': error resolving passed in network volume address: lookup {host}", path.display())]
    Resolve {
        /// The volume's data.
        path: PathBuf,
        /// The host.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// It has a limit that nobody keeps, unlike when it was made.
    #[error("error while mounting volume '{}': size quota requested for volume but no quota support", path.display())]
    NoQuota {
        /// The volume's data.
        path: PathBuf,
    },
    /// It has a type and no device.
    #[error("error while mounting volume '{}': missing device in volume options", path.display())]
    NoDevice {
        /// The volume's data.
        path: PathBuf,
    },
    /// The system says no.
    #[error("error while mounting volume '{}': failed to mount local volume: mount {what}", path.display())]
    Mount {
        /// The volume's data.
        path: PathBuf,
        /// Device, place, flags and options.
        what: String,
        /// Why.
        source: SystemReason,
    },
    /// What an earlier use left cannot be unmounted.
    #[error("unmount volume '{}'", path.display())]
    Unmount {
        /// The volume's data.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The system's reason in the words that dockerd passes on: in lower case, without a number.
#[derive(Debug, thiserror::Error)]
#[error("{}", words(.0))]
pub struct SystemReason(io::Error);

fn words(err: &io::Error) -> String {
    let text = err.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

impl MountError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            MountError::NotFound(err) => err.kind(),
            _ => ErrorKind::Internal,
        }
    }
}

/// Makes a volume's data be there for `holder`, until [`put_down`]. Costs nothing for a directory.
///
/// A file system of the network may take as long as it likes.
pub fn mount(volumes: &Volumes, name: &str, holder: &ContainerId) -> Result<Arc<Volume>, MountError> {
    let volume = volumes.get(name)?.volume;
    if !volume.is_mount() {
        return match volume.limit() {
            Some(_) if volumes.limits.is_none() => Err(MountError::NoQuota { path: volume.mountpoint.clone() }),
            _ => Ok(volume),
        };
    }
    let held = volumes.hold(name)?;
    held.mount()?;
    held.change_holders(|holders| {
        holders.insert(holder.clone());
    });
    Ok(held.volume.clone())
}

/// `holder` needs the mount no longer; whether [`settle_mount`] has something to do. Does not block.
pub fn put_down(volumes: &Volumes, name: &str, holder: &ContainerId) -> bool {
    match volumes.lock().get_mut(name) {
        Some(Slot::Here(entry)) if entry.volume.is_mount() => {
            entry.stale |= entry.holders.remove(holder) && entry.holders.is_empty();
            entry.stale
        }
        _ => false,
    }
}

/// `holder` has had the mount since before the store opened. Does not block.
pub fn held_before(volumes: &Volumes, name: &str, holder: &ContainerId) {
    if let Some(Slot::Here(entry)) = volumes.lock().get_mut(name)
        && entry.volume.is_mount()
    {
        entry.holders.insert(holder.clone());
    }
}

/// Unmounts what nobody holds.
pub fn settle_mount(volumes: &Volumes, name: &str) -> Result<(), MountError> {
    let Ok(held) = volumes.hold(name) else { return Ok(()) };
    if !held.volume.is_mount() || held.is_held() {
        return Ok(());
    }
    held.unmount()?;
    held.change_holders(|_| {});
    Ok(())
}

/// For the start, when all who hold mounts are known: unmounts the others. Answers what could not be.
pub fn settle_mounts(volumes: &Volumes) -> Vec<MountError> {
    let mounts = volumes.list().into_iter().filter(|listed| listed.volume.is_mount());
    mounts.filter_map(|listed| settle_mount(volumes, listed.volume.name.as_str()).err()).collect()
}

impl Volume {
    /// Whether it is a mount of its own, and no directory.
    pub fn is_mount(&self) -> bool {
        options::wish(self.options.as_ref()).is_some()
    }

    /// How many bytes it may hold; none if it is not limited.
    pub fn limit(&self) -> Option<u64> {
        options::limit(self.options.as_ref())
    }
}

/// A volume that is mounted for our own sake, until this is dropped, if nobody else holds it.
pub(crate) struct ForNow<'a>(Option<&'a Held<'a>>);

impl Drop for ForNow<'_> {
    fn drop(&mut self) {
        if let Some(held) = self.0.filter(|held| !held.is_held()) {
            // It stays stale, and is taken off by the next use or the next daemon.
            let _ = held.unmount();
        }
    }
}

impl Held<'_> {
    /// Mounts a volume that is a mount for as long as the answer lives.
    pub(crate) fn mount_for_now(&self) -> Result<ForNow<'_>, MountError> {
        if !self.volume.is_mount() {
            return Ok(ForNow(None));
        }
        self.mount()?;
        Ok(ForNow(Some(self)))
    }

    fn mount(&self) -> Result<(), MountError> {
        let Some(wish) = options::wish(self.volume.options.as_ref()) else { return Ok(()) };
        if self.is_stale() {
            self.unmount()?;
        }
        let path = &self.volume.mountpoint;
        let mounted = is_mounted(path).map_err(|source| MountError::Unmount { path: path.clone(), source })?;
        if mounted { Ok(()) } else { apply(&wish, path) }
    }

    fn unmount(&self) -> Result<(), MountError> {
        let path = &self.volume.mountpoint;
        unmount(path).map_err(|source| MountError::Unmount { path: path.clone(), source })
    }

    fn is_stale(&self) -> bool {
        self.look(|entry| entry.stale || entry.holders.is_empty())
    }

    fn is_held(&self) -> bool {
        self.look(|entry| !entry.holders.is_empty())
    }
}

/// Whether something is mounted on this very place.
pub(crate) fn is_mounted(path: &Path) -> io::Result<bool> {
    // Neither follows a link in its place nor asks a server that may be gone.
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    match statx(CWD, path, flags, StatxFlags::TYPE) {
        // STATX_ATTR_MOUNT_ROOT, since Linux 5.8.
        Ok(found) => Ok(found.stx_attributes.bits() & 0x2000 != 0),
        Err(Errno::NOENT) => Ok(false),
        // Something that is broken is mounted there: the directory itself is ours and is not.
        Err(Errno::STALE | Errno::IO | Errno::NOTCONN | Errno::HOSTDOWN) => Ok(true),
        Err(err) => Err(err.into()),
    }
}

/// Takes every mount off this place. Containers that still have one keep it until they end.
pub(crate) fn unmount(path: &Path) -> io::Result<()> {
    for _ in 0..STACKED_MAX {
        if !is_mounted(path)? {
            return Ok(());
        }
        kernel::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    }
    Err(Errno::BUSY.into())
}

fn apply(wish: &Wish, path: &Path) -> Result<(), MountError> {
    if wish.device.is_empty() {
        return Err(MountError::NoDevice { path: path.to_owned() });
    }
    let wish = match wish.host() {
        None => wish.clone(),
        Some(host) => {
            let resolved = resolve(host);
            let failed = |source| MountError::Resolve { path: path.to_owned(), host: host.to_owned(), source };
            wish.resolved(host, &resolved.map_err(failed)?.to_string())
        }
    };
    let plan = wish.plan();
    let failed = |source: io::Error| {
        let bits = plan.flags.bits() | if plan.bind { 0x1000 } else { 0 } | if plan.recursive { 0x4000 } else { 0 };
        let flags = if bits == 0 { String::new() } else { format!(", flags: {bits:#x}") };
        let data = if plan.data.is_empty() { String::new() } else { format!(", data: {}", wish.shown(&plan.data)) };
        let what = format!("{}:{}{flags}{data}", wish.device, path.display());
        MountError::Mount { path: path.to_owned(), what, source: SystemReason(source) }
    };
    attach(&wish, &plan, path).map_err(|err| failed(err.into()))
}

fn attach(wish: &Wish, plan: &options::Plan, path: &Path) -> Result<(), Errno> {
    let device = wish.device.as_str();
    if plan.bind {
        match plan.recursive {
            true => kernel::mount_bind_recursive(device, path)?,
            false => kernel::mount_bind(device, path)?,
        }
        if !plan.flags.is_empty() {
            let again = kernel::mount_remount(path, plan.flags | rustix::mount::MountFlags::BIND, "");
            // Half of what was asked for is nothing.
            again.inspect_err(|_| _ = unmount(path))?;
        }
    } else {
        let data = CString::new(plan.data.as_str()).map_err(|_| Errno::INVAL)?;
        kernel::mount(
            device,
            path,
            wish.kind.as_str(),
            plan.flags,
            Some(data.as_c_str()).filter(|data| !data.is_empty()),
        )?;
    }
    if let Some(propagation) = plan.propagation {
        kernel::mount_change(path, propagation).inspect_err(|_| _ = unmount(path))?;
    }
    Ok(())
}

/// The first IPv4 address, else the first one.
fn resolve(host: &str) -> io::Result<IpAddr> {
    let addresses: Vec<IpAddr> = (host, 0).to_socket_addrs()?.map(|address| address.ip()).collect();
    let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    first.copied().ok_or_else(|| io::ErrorKind::NotFound.into())
}
