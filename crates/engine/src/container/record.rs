//! The record of a container on disk.
//!
//! `<data-root>/containers/<id>/config.json`, replaced by write and rename. It is the truth about configuration and name;
//! about a run, the shim's files are newer as long as they exist.

use std::path::{Path, PathBuf};
use std::{fs, io};

use container_spec::Point;
use engine_api::container::Config;
use engine_api::host_config::HostConfig;
use oci::ContainerId;
use serde::{Deserialize, Serialize};
use stdx::fs::Durability;

use crate::container::state::State;
use crate::links::Link;
use crate::networking::Attachments;

/// The version of the record's shape; grows with changes that an older daemon could not read.
const VERSION: u32 = 1;

/// What never changes about a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// Its identifier.
    pub id: ContainerId,
    /// Nanoseconds since 1970.
    pub created_at_nanos: i64,
    /// The image's id, `sha256:...`.
    pub image_id: String,
    /// The program.
    pub path: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// What it runs: the request, merged with the image.
    pub config: Config,
    /// How the host runs it, with every default filled in.
    pub host_config: HostConfig,
    /// What is mounted beside the root.
    pub mounts: Vec<Point>,
    /// Whether read-only binds leave what is mounted below them writable.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flat_read_only: bool,
    /// The containers that it links to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// The networks that it is to be on, by name; where nobody said anything, that of its network mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Attachments>,
    /// What keeps its files, if that is not overlay2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_driver: Option<String>,
}

impl Definition {
    /// What keeps its files.
    pub fn storage_driver(&self) -> &str {
        self.storage_driver.as_deref().unwrap_or(snapshot::Driver::Overlay2.name())
    }
}

/// The whole record.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Record {
    /// See [`VERSION`].
    pub version: u32,
    /// The name, without a slash.
    pub name: String,
    /// What never changes.
    pub definition: Definition,
    /// What changes.
    pub state: State,
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    name: &'a str,
    definition: &'a Definition,
    state: &'a State,
}

/// Where a container keeps its files on the data disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerDir(PathBuf);

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system says no.
    #[error("read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is torn, or of a version that we do not know.
    #[error("decode {}", path.display())]
    Decode {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A newer daemon wrote it.
    #[error("{} has version {version}, newer than {VERSION}", path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// It lies in the directory of another container.
    #[error("{} belongs to container {id}", path.display())]
    Misplaced {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        id: ContainerId,
    },
}

impl ContainerDir {
    /// The directory of `id` below `<data-root>/containers`.
    pub fn new(containers: &Path, id: &ContainerId) -> ContainerDir {
        ContainerDir(containers.join(id.as_str()))
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The record.
    pub fn record(&self) -> PathBuf {
        self.0.join("config.json")
    }

    /// The container's /etc/hostname.
    pub fn hostname(&self) -> PathBuf {
        self.0.join("hostname")
    }

    /// The container's /etc/hosts.
    pub fn hosts(&self) -> PathBuf {
        self.0.join("hosts")
    }

    /// The container's /etc/resolv.conf.
    pub fn resolv_conf(&self) -> PathBuf {
        self.0.join("resolv.conf")
    }

    /// The json-file log.
    pub fn log(&self, id: &ContainerId) -> PathBuf {
        self.0.join(format!("{id}-json.log"))
    }

    /// Where output that a slow client has not read yet may be kept.
    pub fn spool(&self) -> &Path {
        &self.0
    }

    /// Replaces the record. Blocks.
    pub fn write(&self, name: &str, definition: &Definition, state: &State, durability: Durability) -> io::Result<()> {
        let written = Written { version: VERSION, name, definition, state };
        let bytes = serde_json::to_vec(&written).map_err(io::Error::from)?;
        stdx::fs::write_atomic(&self.record(), &bytes, durability)
    }

    /// Reads the record of `id`. Blocks.
    pub fn read(&self, id: &ContainerId) -> Result<Record, ReadError> {
        let path = self.record();
        let bytes = fs::read(&path).map_err(|source| ReadError::Read { path: path.clone(), source })?;
        let record: Record =
            serde_json::from_slice(&bytes).map_err(|source| ReadError::Decode { path: path.clone(), source })?;
        if record.version > VERSION {
            return Err(ReadError::Newer { path, version: record.version });
        }
        if record.definition.id != *id {
            return Err(ReadError::Misplaced { path, id: record.definition.id });
        }
        Ok(record)
    }

    /// Whether there is neither a record nor one that was set aside: the creation, which writes the record last, was cut.
    pub fn is_half_made(&self) -> io::Result<bool> {
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            // What a cut write of it leaves is not the record.
            if name.as_encoded_bytes().starts_with(b"config.json") && name != "config.json.tmp" {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Puts a record that cannot be read aside, so that the next start does not stumble over it; answers its new name.
    pub fn set_aside(&self) -> io::Result<PathBuf> {
        for n in 0_u32.. {
            let aside = self.0.join(format!("config.json.corrupt-{n}"));
            if !aside.exists() {
                fs::rename(self.record(), &aside)?;
                return Ok(aside);
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNT: &str = r#"{"Type":"volume","Name":"data","Source":"/v/data/_data","Destination":"/x","Driver":"local",
        "Mode":"z","RW":true,"Propagation":"","Anonymous":true,"Subpath":"a"}"#;

    fn definition(id: &ContainerId) -> Definition {
        Definition {
            id: id.clone(),
            created_at_nanos: 5,
            image_id: "sha256:0".into(),
            path: "sh".into(),
            args: vec!["-c".into(), "true".into()],
            config: Config { env: Some(vec!["A=1".into()]), stop_timeout: Some(3), ..Config::default() },
            host_config: HostConfig { memory: 6 << 20, oom_kill_disable: Some(false), ..HostConfig::default() },
            mounts: vec![serde_json::from_str(MOUNT).unwrap()],
            flat_read_only: true,
            links: vec![Link { to: id.clone(), alias: "db".into() }],
            networks: Some([("own".to_owned(), Default::default())].into()),
            storage_driver: Some("vfs".into()),
        }
    }

    fn scratch() -> (tempfile::TempDir, ContainerId, ContainerDir) {
        let root = tempfile::tempdir().unwrap();
        let id: ContainerId = stdx::id::random_hex::<32>().parse().unwrap();
        let dir = ContainerDir::new(root.path(), &id);
        fs::create_dir(dir.path()).unwrap();
        (root, id, dir)
    }

    #[test]
    fn what_was_written_is_read() {
        let (_root, id, dir) = scratch();
        let (definition, state) = (definition(&id), State { exit_code: 3, ..State::default() });
        dir.write("web", &definition, &state, Durability::PowerCut).unwrap();
        let expected = Record { version: VERSION, name: "web".into(), definition, state };
        assert_eq!(dir.read(&id).unwrap(), expected);
    }

    #[test]
    fn what_is_torn_newer_or_misplaced_is_told_and_can_be_set_aside() {
        let (_root, id, dir) = scratch();
        dir.write("web", &definition(&id), &State::default(), Durability::ProcessDeath).unwrap();
        let other: ContainerId = "0".repeat(64).parse().unwrap();
        assert!(matches!(dir.read(&other), Err(ReadError::Misplaced { .. })));
        let whole = fs::read_to_string(dir.record()).unwrap();
        fs::write(dir.record(), whole.replace("\"version\":1", "\"version\":2")).unwrap();
        assert!(matches!(dir.read(&id), Err(ReadError::Newer { version: 2, .. })));
        for n in 0..2 {
            fs::write(dir.record(), &whole[..whole.len() / 2]).unwrap();
            assert!(matches!(dir.read(&id), Err(ReadError::Decode { .. })));
            assert!(dir.set_aside().unwrap().ends_with(format!("config.json.corrupt-{n}")));
        }
        assert!(matches!(dir.read(&id), Err(ReadError::Read { .. })));
    }
}
