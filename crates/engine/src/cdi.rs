//! Devices by name: reads the files that describe them, and looks at the nodes that they name. The files are read when a
//! container starts that asks for such a device: vendors write them anew when drivers change.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use container_spec::cdi::{self, Node, RequestError, SpecFile};
use engine_api::host_config::HostConfig;
use engine_api::system::DiscoveredDevice;
use errdefs::ErrorKind;
use oci::runtime::{Device, Spec};
use tracing::warn;

use crate::devices;

/// What a file may weigh: those of many GPUs have some 100 KiB.
const FILE_LIMIT_BYTES: u64 = 16 << 20;

/// Why a container does not get its devices.
#[derive(Debug, thiserror::Error)]
pub enum CdiError {
    /// The request, or what the files say of it.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A node that a file names.
    #[error("CDI device injection failed: failed to stat CDI host device {}", path.display())]
    Node {
        /// On the host.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl CdiError {
    /// What the API answers with.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CdiError::Request(err) => err.kind(),
            CdiError::Node { .. } => ErrorKind::Internal,
        }
    }
}

/// Adds the devices that a request asks for by name. Blocks briefly; where none is asked for it does nothing.
pub(crate) fn inject(dirs: &[PathBuf], host: &HostConfig, spec: &mut Spec) -> Result<(), CdiError> {
    let requests = host.device_requests.as_deref().unwrap_or_default();
    if requests.is_empty() {
        return Ok(());
    }
    let files = read_all(dirs);
    let kinds: Vec<&str> = files.iter().map(|(_, file)| file.kind.as_str()).collect();
    let names = cdi::names(requests, &kinds)?;
    cdi::apply(&cdi::resolve(&names, &files)?, spec, look)
}

/// The names of all devices, sorted, as `info` tells them. Blocks briefly.
pub(crate) fn listed(dirs: &[PathBuf]) -> Vec<DiscoveredDevice> {
    let files = read_all(dirs);
    let names: BTreeSet<String> = files.iter().flat_map(|(_, file)| file.names()).collect();
    // Those that two files of the same rank describe are nobody's.
    let known = names.into_iter().filter(|name| cdi::resolve(std::slice::from_ref(name), &files).is_ok());
    known.map(|id| DiscoveredDevice { source: "cdi".to_owned(), id }).collect()
}

/// The good files of all directories, each with its directory's rank. A bad one is told of, and spoils only its own devices.
fn read_all(dirs: &[PathBuf]) -> Vec<(usize, SpecFile)> {
    let mut files = Vec::new();
    for (rank, dir) in dirs.iter().enumerate() {
        for path in spec_files(dir) {
            match read(&path) {
                Ok(file) => files.push((rank, file)),
                Err(problem) => warn!(file = %path.display(), problem, "a CDI specification is left out"),
            }
        }
    }
    files
}

/// By name; a directory that is not there has none.
fn spec_files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let known = |path: &PathBuf| matches!(path.extension().and_then(|end| end.to_str()), Some("json" | "yaml" | "yml"));
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(known).collect();
    paths.sort();
    paths
}

fn read(path: &Path) -> Result<SpecFile, String> {
    let mut text = String::new();
    let opened = fs::File::open(path).and_then(|file| file.take(FILE_LIMIT_BYTES).read_to_string(&mut text));
    opened.map_err(|err| err.to_string())?;
    let file: SpecFile = if path.extension().is_some_and(|end| end == "json") {
        serde_json::from_str(&text).map_err(|err| err.to_string())?
    } else {
        serde_saphyr::from_str(&text).map_err(|err| err.to_string())?
    };
    file.check().map_err(|err| err.to_string())?;
    Ok(file)
}

/// The node as a file describes it, with the host's numbers where it gives none.
fn look(node: &Node) -> Result<Device, CdiError> {
    let described = Device {
        kind: node.kind.clone().unwrap_or_default(),
        path: node.path.clone(),
        major: node.major.unwrap_or_default(),
        minor: node.minor.unwrap_or_default(),
        file_mode: node.file_mode,
        uid: node.uid.unwrap_or_default(),
        gid: node.gid.unwrap_or_default(),
        // Who may use the container may use its devices (CDI specification, "deviceNodes").
        user_owns: node.uid.is_none(),
        group_owns: node.gid.is_none(),
    };
    if node.kind.as_deref().is_some_and(|kind| kind == "p" || node.major.is_some_and(|major| major != 0)) {
        return Ok(described);
    }
    let path = node.host_path.as_ref().unwrap_or(&node.path);
    let failed = |source| CdiError::Node { path: path.clone(), source };
    let metadata = fs::metadata(path).map_err(failed)?;
    let found =
        devices::node(node.path.clone(), &metadata).ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    Ok(Device { kind: found.kind, major: found.major, minor: found.minor, ..described })
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "cdiVersion: \"0.6.0\"\nkind: vendor.com/class\ndevices:\n- name: null-one\n  containerEdits:\n    \
                        env: [SEEN=yes]\n    deviceNodes:\n    - path: /dev/other\n      hostPath: /dev/null\n";

    fn host(name: &str) -> HostConfig {
        serde_json::from_value(serde_json::json!({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": [name]}]})).unwrap()
    }

    #[test]
    fn files_are_read_and_bad_ones_left_out() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.yaml"), YAML).unwrap();
        fs::write(dir.path().join("b.json"), "{").unwrap();
        fs::write(dir.path().join("c.txt"), YAML).unwrap();
        let dirs = [PathBuf::from("/no/such"), dir.path().to_owned()];
        let mut spec = Spec::default();
        inject(&dirs, &host("vendor.com/class=null-one"), &mut spec).unwrap();
        assert_eq!(spec.process.env, ["SEEN=yes"]);
        let device = &spec.linux.devices[0];
        assert_eq!((device.kind.as_str(), device.major, device.minor), ("c", 1, 3));
        assert_eq!(device.path, Path::new("/dev/other"));
    }

    #[test]
    fn what_is_not_there_is_told_in_dockerds_words() {
        let refused = |dirs: &[PathBuf]| inject(dirs, &host("v.com/cls=dev"), &mut Spec::default()).unwrap_err();
        assert_eq!(refused(&[]).to_string(), "CDI device injection failed: unresolvable CDI devices v.com/cls=dev");
        let dir = tempfile::tempdir().unwrap();
        let gone =
            YAML.replace("vendor.com/class", "v.com/cls").replace("null-one", "dev").replace("/dev/null", "/dev/gone");
        fs::write(dir.path().join("a.yml"), gone).unwrap();
        let err = refused(&[dir.path().to_owned()]);
        assert!(err.to_string().ends_with("failed to stat CDI host device /dev/gone"), "{err}");
    }
}
