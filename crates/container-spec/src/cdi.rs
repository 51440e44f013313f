//! Devices by name: the container device interface (CDI, version 1.1 of its specification). Vendors describe in files what
//! of a container's specification has to be edited so that it can use a device.
//!
//! [`SpecFile::check`] says what is wrong with a file, [`resolve`] finds devices in files, [`apply`] edits.

use std::collections::BTreeMap;
use std::path::PathBuf;

use engine_api::host_config::DeviceRequest;
use errdefs::ErrorKind;
use oci::runtime::{Device, DeviceRule, Hook, Hooks, Mount, NetDevice, Spec};
use serde::Deserialize;

/// Where GPUs are looked for, in this order, when a request names no driver.
const GPU_KINDS: [&str; 2] = ["nvidia.com/gpu", "amd.com/gpu"];

/// What a request may want of a driver of GPUs; any one of them is enough.
const GPU_CAPABILITIES: [&str; 8] = ["gpu", "nvidia", "compute", "compat32", "graphics", "utility", "video", "display"];

/// A file of a vendor: devices of one kind.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SpecFile {
    /// Version of the specification that it follows.
    pub cdi_version: String,
    /// `vendor/class`.
    pub kind: String,
    /// For people.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The devices; at least one.
    pub devices: Vec<NamedDevice>,
    /// For whoever has one of them.
    #[serde(default)]
    pub container_edits: Edits,
}

/// A device of a file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamedDevice {
    /// What stands behind `vendor/class=`.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// For whoever has it.
    #[serde(default)]
    pub container_edits: Edits,
}

/// What is added to a container's specification.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Edits {
    /// `NAME=VALUE`; in place of what is there under this name.
    pub env: Vec<String>,
    /// Nodes of devices.
    pub device_nodes: Vec<Node>,
    /// Mounts; in place of what is mounted there.
    pub mounts: Vec<CdiMount>,
    /// Programs around its life.
    pub hooks: Vec<CdiHook>,
    /// Groups of its processes; 0 adds nothing.
    pub additional_gids: Vec<u32>,
    /// Interfaces that leave the host.
    pub net_devices: Vec<CdiNetDevice>,
    /// Classes of cache and memory, which we refuse.
    pub intel_rdt: Option<serde_json::Value>,
}

/// A node of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Node {
    /// In the container.
    pub path: PathBuf,
    /// On the host; the same path if absent.
    pub host_path: Option<PathBuf>,
    /// `b`, `c`, `u` or `p`; the host's if absent.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Major number; the host's if absent.
    pub major: Option<u32>,
    /// Minor number; the host's if absent.
    pub minor: Option<u32>,
    /// Permission bits; 0666 if absent.
    pub file_mode: Option<u32>,
    /// Some of `rwm`; all of them if absent, `none` for none.
    #[serde(default)]
    pub permissions: String,
    /// Owner; the container's user if absent.
    pub uid: Option<u32>,
    /// Group; that user's if absent.
    pub gid: Option<u32>,
}

/// A mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CdiMount {
    /// On the host.
    pub host_path: String,
    /// In the container.
    pub container_path: String,
    /// Kind of file system; absent for binds.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// As in the container's specification.
    #[serde(default)]
    pub options: Vec<String>,
}

/// A program around a container's life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CdiHook {
    /// When: `createRuntime` and its like.
    pub hook_name: String,
    /// Absolute.
    pub path: PathBuf,
    /// With the program's name as the first.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its whole environment.
    #[serde(default)]
    pub env: Vec<String>,
    /// Seconds until it is killed.
    pub timeout: Option<i64>,
}

/// An interface of the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CdiNetDevice {
    /// On the host.
    pub host_interface_name: String,
    /// In the container.
    pub name: String,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecFileError {
    /// No `vendor/class`.
    #[error("kind: {kind:?} is not VENDOR/CLASS of letters, digits, '-', '_' and '.'")]
    Kind {
        /// As given.
        kind: String,
    },
    /// It describes nothing.
    #[error("devices: there is none")]
    NoDevice,
    /// A name that cannot be asked for.
    #[error("devices[{index}].name: {name:?} is not made of letters, digits, '-', '_', '.' and ':'")]
    Name {
        /// Which.
        index: usize,
        /// As given.
        name: String,
    },
    /// An edit that cannot be made.
    #[error("{field}: {problem}")]
    Edit {
        /// Which.
        field: String,
        /// Why.
        problem: &'static str,
    },
}

/// Why devices are not given. The texts are dockerd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// There is nobody who gives such devices.
    #[error("could not select device driver {driver:?} with capabilities: {capabilities}")]
    NoDriver {
        /// As asked for.
        driver: String,
        /// As Go shows lists of lists.
        capabilities: String,
    },
    /// Devices by name are not counted.
    #[error("unexpected count in CDI device request")]
    Count,
    /// Devices by name have no options.
    #[error("unexpected options in CDI device request")]
    Options,
    /// Some of them, or so many.
    #[error("cannot set both Count and DeviceIDs on device request")]
    CountAndNames,
    /// No file describes them.
    #[error("CDI device injection failed: unresolvable CDI devices {}", names.join(", "))]
    Unresolvable {
        /// Their names.
        names: Vec<String>,
    },
}

impl RequestError {
    /// What the API answers with.
    pub fn kind(&self) -> ErrorKind {
        match self {
            RequestError::Unresolvable { .. } => ErrorKind::Internal,
            _ => ErrorKind::InvalidArgument,
        }
    }
}

impl SpecFile {
    /// Looks at everything that can be wrong without asking the host.
    pub fn check(&self) -> Result<(), SpecFileError> {
        let kind = self.kind.split_once('/').filter(|(vendor, class)| is_name(vendor, "-_.") && is_name(class, "-_."));
        kind.ok_or_else(|| SpecFileError::Kind { kind: self.kind.clone() })?;
        if self.devices.is_empty() {
            return Err(SpecFileError::NoDevice);
        }
        self.container_edits.check("containerEdits")?;
        for (index, device) in self.devices.iter().enumerate() {
            if !is_name(&device.name, "-_.:") {
                return Err(SpecFileError::Name { index, name: device.name.clone() });
            }
            device.container_edits.check(&format!("devices[{index}].containerEdits"))?;
        }
        Ok(())
    }
}

/// Begins and ends with a letter or a digit, and has these others in between.
fn is_name(text: &str, others: &str) -> bool {
    let (first, last) = (text.bytes().next(), text.bytes().next_back());
    let ends = [first, last].into_iter().all(|end| end.is_some_and(|end| end.is_ascii_alphanumeric()));
    ends && text.chars().all(|letter| letter.is_ascii_alphanumeric() || others.contains(letter))
}

impl SpecFile {
    /// What its devices are asked for by.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.devices.iter().map(|device| format!("{}={}", self.kind, device.name))
    }
}

impl Edits {
    fn check(&self, place: &str) -> Result<(), SpecFileError> {
        let found = self.problem();
        found.map_or(Ok(()), |(field, problem)| Err(SpecFileError::Edit { field: format!("{place}.{field}"), problem }))
    }

    fn problem(&self) -> Option<(String, &'static str)> {
        let env = self.env.iter().position(|entry| entry.find('=').is_none_or(|at| at == 0));
        if let Some(index) = env {
            return Some((format!("env[{index}]"), "it is not NAME=VALUE"));
        }
        for (index, node) in self.device_nodes.iter().enumerate() {
            let known = node.kind.as_deref().is_none_or(|kind| matches!(kind, "b" | "c" | "u" | "p"));
            let access = node.permissions == "none" || node.permissions.chars().all(|letter| "rwm".contains(letter));
            let problem = match () {
                () if !node.path.is_absolute() => "path: it is not absolute",
                () if !known => "type: it is none of b, c, u and p",
                () if !access => "permissions: they are not made of r, w and m",
                () => continue,
            };
            return Some((format!("deviceNodes[{index}]"), problem));
        }
        let mounts = self.mounts.iter().position(|one| one.host_path.is_empty() || one.container_path.is_empty());
        if let Some(index) = mounts {
            return Some((format!("mounts[{index}]"), "it has no hostPath or no containerPath"));
        }
        for (index, hook) in self.hooks.iter().enumerate() {
            let problem = match () {
                () if place_of(&mut Hooks::default(), &hook.hook_name).is_none() => "hookName: there is no such hook",
                () if !hook.path.is_absolute() => "path: it is not absolute",
                () => continue,
            };
            return Some((format!("hooks[{index}]"), problem));
        }
        self.intel_rdt.as_ref().map(|_| ("intelRdt".to_owned(), "classes of cache are not supported"))
    }
}

/// The names of the devices that requests ask for; `kinds` are those that there are files for.
pub fn names(requests: &[DeviceRequest], kinds: &[&str]) -> Result<Vec<String>, RequestError> {
    let mut names = Vec::new();
    for request in requests {
        if request.driver == "cdi" {
            names.extend(named(request)?);
        } else {
            names.extend(gpus(request, kinds)?);
        }
    }
    Ok(names)
}

fn named(request: &DeviceRequest) -> Result<Vec<String>, RequestError> {
    if request.count != 0 {
        return Err(RequestError::Count);
    }
    if request.options.as_ref().is_some_and(|options| !options.is_empty()) {
        return Err(RequestError::Options);
    }
    Ok(request.device_ids.clone().unwrap_or_default())
}

/// GPUs, where there is a file for them: `all`, so many, or some by their names.
fn gpus(request: &DeviceRequest, kinds: &[&str]) -> Result<Vec<String>, RequestError> {
    let wanted = request.capabilities.iter().flatten();
    let matches = wanted.clone().any(|all| all.iter().all(|one| GPU_CAPABILITIES.contains(&one.as_str())));
    let kind = GPU_KINDS.into_iter().find(|kind| kinds.contains(kind));
    let driver = match request.driver.as_str() {
        "" => matches,
        driver => kind.is_some_and(|kind| kind.split('.').next() == Some(driver)),
    };
    let Some(kind) = kind.filter(|_| driver) else {
        let lists: Vec<String> = wanted.map(|all| format!("[{}]", all.join(" "))).collect();
        let capabilities = format!("[{}]", lists.join(" "));
        return Err(RequestError::NoDriver { driver: request.driver.clone(), capabilities });
    };
    let ids = request.device_ids.clone().unwrap_or_default();
    let ids = match (request.count, ids.is_empty()) {
        (0, _) => ids,
        (_, false) => return Err(RequestError::CountAndNames),
        (count, true) if count < 0 => vec!["all".to_owned()],
        (count, true) => (0..count).map(|number| number.to_string()).collect(),
    };
    Ok(ids.into_iter().map(|id| format!("{kind}={id}")).collect())
}

/// The edits for devices by their names, `vendor/class=name`. A file counts before those of an earlier directory, which is
/// the number beside it; of two in one directory that describe one device none counts.
pub fn resolve<'a>(names: &[String], files: &'a [(usize, SpecFile)]) -> Result<Vec<&'a Edits>, RequestError> {
    let mut edits = Vec::new();
    let mut used: Vec<&SpecFile> = Vec::new();
    let mut missing = Vec::new();
    for name in names {
        let Some((file, device)) = find(name, files) else {
            missing.push(name.clone());
            continue;
        };
        if !used.iter().any(|known| std::ptr::eq(*known, file)) {
            used.push(file);
            edits.push(&file.container_edits);
        }
        edits.push(&device.container_edits);
    }
    if missing.is_empty() { Ok(edits) } else { Err(RequestError::Unresolvable { names: missing }) }
}

fn find<'a>(name: &str, files: &'a [(usize, SpecFile)]) -> Option<(&'a SpecFile, &'a NamedDevice)> {
    let (kind, device) = name.split_once('=')?;
    let all = files.iter().filter(|(_, file)| file.kind == kind);
    let found = all.filter_map(|(rank, file)| {
        let device = file.devices.iter().find(|known| known.name == device)?;
        Some((*rank, file, device))
    });
    let found: Vec<_> = found.collect();
    let last = found.iter().map(|(rank, ..)| *rank).max()?;
    let mut counting = found.into_iter().filter(|(rank, ..)| *rank == last);
    let (_, file, device) = counting.next()?;
    counting.next().is_none().then_some((file, device))
}

/// Edits a planned specification. `node` is asked for devices whose numbers a file leaves to the host.
pub fn apply<E>(edits: &[&Edits], spec: &mut Spec, mut node: impl FnMut(&Node) -> Result<Device, E>) -> Result<(), E> {
    for edits in edits {
        edits.env.iter().for_each(|entry| set_variable(&mut spec.process.env, entry));
        for wanted in &edits.device_nodes {
            add_device(spec, node(wanted)?, &wanted.permissions);
        }
        for mount in &edits.mounts {
            spec.mounts.retain(|known| known.destination.as_os_str() != mount.container_path.as_str());
            spec.mounts.push(Mount {
                destination: mount.container_path.clone().into(),
                source: mount.host_path.clone().into(),
                kind: mount.kind.clone(),
                options: mount.options.clone(),
                ..Mount::default()
            });
        }
        for hook in &edits.hooks {
            let made =
                Hook { path: hook.path.clone(), args: hook.args.clone(), env: hook.env.clone(), timeout: hook.timeout };
            // Others are refused when the file is read.
            if let Some(hooks) = place_of(spec.hooks.get_or_insert_default(), &hook.hook_name) {
                hooks.push(made);
            }
        }
        let groups = edits.additional_gids.iter().filter(|gid| **gid != 0);
        spec.process.user.additional_gids.extend(groups);
        for device in &edits.net_devices {
            let moved = NetDevice { name: device.name.clone() };
            spec.linux.net_devices.insert(device.host_interface_name.clone(), moved);
        }
    }
    Ok(())
}

fn set_variable(env: &mut Vec<String>, entry: &str) {
    let name = entry.split_once('=').map_or(entry, |(name, _)| name);
    let known = env.iter_mut().find(|known| known.split_once('=').is_some_and(|(known, _)| known == name));
    match known {
        Some(known) => entry.clone_into(known),
        None => env.push(entry.to_owned()),
    }
}

fn add_device(spec: &mut Spec, device: Device, permissions: &str) {
    let access = match permissions {
        "" => "rwm",
        "none" => "",
        some => some,
    };
    if matches!(device.kind.as_str(), "b" | "c") && !access.is_empty() {
        let rules = &mut spec.linux.resources.get_or_insert_default().devices;
        rules.push(DeviceRule {
            allow: true,
            kind: device.kind.clone(),
            major: Some(device.major.into()),
            minor: Some(device.minor.into()),
            access: access.to_owned(),
        });
    }
    spec.linux.devices.retain(|known| known.path != device.path);
    spec.linux.devices.push(device);
}

fn place_of<'a>(hooks: &'a mut Hooks, name: &str) -> Option<&'a mut Vec<Hook>> {
    Some(match name {
        "prestart" => &mut hooks.prestart,
        "createRuntime" => &mut hooks.create_runtime,
        "createContainer" => &mut hooks.create_container,
        "startContainer" => &mut hooks.start_container,
        "poststart" => &mut hooks.poststart,
        "poststop" => &mut hooks.poststop,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
