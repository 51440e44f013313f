//! What a container gets of the host's devices: nodes, and limits on block devices. Looked at when it starts, because a
//! device that was plugged in again may have other numbers.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use container_spec::block_io::{Throttle, throttles};
use container_spec::device::is_covered;
use container_spec::{Granted, HostDevices, HostFacts};
use engine_api::host_config::{DeviceMapping, HostConfig};
use errdefs::ErrorKind;
use oci::runtime::{BlockIo, Device, ThrottleDevice, WeightDevice};

/// Why a container does not get a device. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// It is not there, or is none.
    #[error("error gathering device information while adding custom device {path:?}: {}", reason(cause))]
    Gather {
        /// As given.
        path: String,
        /// Why. The sentence says it: as a source it would be said twice.
        cause: io::Error,
    },
    /// A device that is to be limited is not there.
    #[error("stat {path}: {}", reason(cause))]
    Stat {
        /// As given.
        path: String,
        /// Why. The sentence says it: as a source it would be said twice.
        cause: io::Error,
    },
}

impl DeviceError {
    /// dockerd answers both with 500.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

/// As Go writes what the system says.
fn reason(err: &io::Error) -> String {
    match err.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::NotADirectory => "not a directory".to_owned(),
        io::ErrorKind::InvalidInput => "not a device node".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => err.to_string(),
    }
}

/// Looks at the devices that a request names. Blocks briefly.
pub(crate) fn gather(host: &HostConfig, facts: &HostFacts) -> Result<HostDevices, DeviceError> {
    let mut devices = HostDevices::default();
    for mapping in host.devices.iter().flatten().filter(|mapping| !is_covered(host, mapping)) {
        let granted = grant(mapping);
        let failed = |cause| DeviceError::Gather { path: mapping.path_on_host.clone(), cause };
        devices.granted.extend(granted.map_err(failed)?);
    }
    devices.block_io = block_io(host, facts)?;
    Ok(devices)
}

/// A device, or all of a directory.
fn grant(mapping: &DeviceMapping) -> io::Result<Vec<Granted>> {
    let (host, place) = (Path::new(&mapping.path_on_host), Path::new(&mapping.path_in_container));
    let access = &mapping.cgroup_permissions;
    let metadata = std::fs::metadata(host)?;
    if let Some(node) = node(place.to_owned(), &metadata) {
        return Ok(vec![Granted { node, access: access.clone() }]);
    }
    let mut granted = Vec::new();
    if metadata.is_dir() {
        walk(&std::fs::canonicalize(host)?, place, access, &mut granted);
    }
    // What is no device and holds none, is a mistake.
    if granted.is_empty() { Err(io::ErrorKind::InvalidInput.into()) } else { Ok(granted) }
}

/// All devices below a directory, as far as it can be read. Links are not followed: they may lead back.
fn walk(host: &Path, place: &Path, access: &str, granted: &mut Vec<Granted>) {
    let Ok(entries) = std::fs::read_dir(host) else { return };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        let (Ok(metadata), Some(name)) = (std::fs::symlink_metadata(&path), path.file_name()) else { continue };
        let place = place.join(name);
        if metadata.is_dir() {
            walk(&path, &place, access, granted);
        } else if let Some(node) = node(place, &metadata) {
            granted.push(Granted { node, access: access.to_owned() });
        }
    }
}

/// The node of a device; none if it is something else.
pub(crate) fn node(path: PathBuf, metadata: &Metadata) -> Option<Device> {
    let kind = metadata.file_type();
    let kind = if kind.is_block_device() {
        "b"
    } else if kind.is_char_device() {
        "c"
    } else {
        return None;
    };
    Some(Device {
        kind: kind.to_owned(),
        path,
        major: rustix::fs::major(metadata.rdev()),
        minor: rustix::fs::minor(metadata.rdev()),
        file_mode: Some(metadata.mode() & 0o7777),
        uid: metadata.uid(),
        gid: metadata.gid(),
        ..Device::default()
    })
}

fn block_io(host: &HostConfig, facts: &HostFacts) -> Result<BlockIo, DeviceError> {
    let mut limits = BlockIo::default();
    for wanted in host.blkio_weight_device.iter().flatten() {
        let (major, minor) = numbers(&wanted.path)?;
        limits.weight_device.push(WeightDevice { major, minor, weight: Some(wanted.weight), leaf_weight: None });
    }
    for (wanted, _, throttle) in throttles(host, &facts.controls.block_io) {
        let list = match throttle {
            Throttle::ReadBps => &mut limits.throttle_read_bps_device,
            Throttle::WriteBps => &mut limits.throttle_write_bps_device,
            Throttle::ReadIops => &mut limits.throttle_read_iops_device,
            Throttle::WriteIops => &mut limits.throttle_write_iops_device,
        };
        for wanted in wanted {
            let (major, minor) = numbers(&wanted.path)?;
            list.push(ThrottleDevice { major, minor, rate: wanted.rate });
        }
    }
    Ok(limits)
}

fn numbers(path: &str) -> Result<(i64, i64), DeviceError> {
    let metadata = std::fs::metadata(path).map_err(|cause| DeviceError::Stat { path: path.to_owned(), cause })?;
    Ok((rustix::fs::major(metadata.rdev()).into(), rustix::fs::minor(metadata.rdev()).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(host: &str, place: &str) -> DeviceMapping {
        DeviceMapping {
            path_on_host: host.to_owned(),
            path_in_container: place.to_owned(),
            cgroup_permissions: "rw".to_owned(),
        }
    }

    #[test]
    fn a_device_is_found_with_its_numbers_and_a_directory_with_all_of_its_own() {
        let null = grant(&mapping("/dev/null", "/dev/x")).unwrap();
        let [Granted { node, access }] = &null[..] else { panic!("one device") };
        assert_eq!((node.kind.as_str(), node.major, node.minor, access.as_str()), ("c", 1, 3, "rw"));
        assert_eq!(node.path, Path::new("/dev/x"));
        let all = grant(&mapping("/dev", "/x")).unwrap();
        assert!(all.iter().any(|granted| granted.node.path == Path::new("/x/zero")));
    }

    #[test]
    fn what_is_no_device_is_refused_in_dockers_words() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().display().to_string();
        for (path, reason) in [("/dev/nosuch", "no such file or directory"), (directory.as_str(), "not a device node")]
        {
            let devices = Some(vec![mapping(path, "/dev/x")]);
            let host = HostConfig { devices, ..HostConfig::default() };
            let told = host.devices.iter().flatten().find_map(|mapping| grant(mapping).err());
            let told = DeviceError::Gather { path: path.to_owned(), cause: told.unwrap() };
            let told = errdefs::chain(&told);
            let prefix = "error gathering device information while adding custom device";
            assert_eq!(told, format!("{prefix} {path:?}: {reason}"));
        }
        assert_eq!(errdefs::chain(&numbers("/nosuch").unwrap_err()), "stat /nosuch: no such file or directory");
    }
}
