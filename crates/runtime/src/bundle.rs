//! A bundle's config.json, read and judged before anything is made. Pure, but for the reading.

mod advice;
mod needed;
mod twice;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use oci::runtime::{Linux, Process, Resources, Spec};
use oci_runtime::SystemError;
use rustix::fs::{Mode, OFlags};
use seccomp::{Arch, Filter, Profile};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::refused;
use crate::typed::{self, ValueError};

/// What config.json means here.
#[derive(Debug)]
pub(crate) struct Plan {
    /// With absolute paths, and a cgroup.
    pub(crate) spec: Spec,
    /// The system-call filter to compile.
    pub(crate) filter: Option<Filter>,
    /// Whether there has to be a cgroup: a place for it or a limit was named.
    pub(crate) asks_for_cgroup: bool,
    /// What is to be told of it in the log.
    pub(crate) warnings: Vec<String>,
    /// The cgroup's path as it was given, which is no path where systemd makes it.
    pub(crate) cgroups_path: String,
}

/// Why a bundle cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    /// The file could not be read.
    #[error("open {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        source: SystemError,
    },
    /// It is a directory, a FIFO or a device.
    #[error("{} is not a regular file", path.display())]
    NoFile {
        /// Which.
        path: PathBuf,
    },
    /// It would take more memory than the container.
    #[error("{} is larger than {BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// It is not what it should be.
    #[error("read {}", path.display())]
    Json {
        /// Which.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A field is not what it should be.
    #[error("{field}")]
    Field {
        /// Its full name.
        field: String,
        /// Why.
        source: ValueError,
    },
    /// No path, name or argument can have one.
    #[error("{field}: contains a NUL byte")]
    Nul {
        /// Its full name.
        field: String,
    },
    /// The root is not there, or is no directory.
    #[error("root.path: {}{}", path.display(), leads_to(target.as_deref()))]
    Root {
        /// As it was looked for.
        path: PathBuf,
        /// Where it leads, if it is a symbolic link.
        target: Option<PathBuf>,
        /// The kernel's answer.
        source: SystemError,
    },
    /// No version of the specification.
    #[error("ociVersion: is missing, 1.0.0 to {} are honoured", oci::runtime::VERSION)]
    NoVersion,
    /// Not the form that the specification wants, which nobody could compare.
    #[error("ociVersion: {version:?} is no semantic version, as {} is (MAJOR.MINOR.PATCH)", oci::runtime::VERSION)]
    NoSemantic {
        /// As given.
        version: String,
    },
    /// A version of the specification whose major number is another one.
    #[error("ociVersion: {version:?} is not supported, only 1.0.0 to {}", oci::runtime::VERSION)]
    Version {
        /// As given.
        version: String,
    },
    /// A field of the specification that this runtime has not.
    #[error("{field} is not supported")]
    Refused {
        /// Its full name.
        field: String,
    },
    /// A field without which there is no container.
    #[error("{field}: is missing")]
    Missing {
        /// Its full name.
        field: String,
    },
    /// Something of which one counts.
    #[error("{field}: {word:?} is there twice")]
    Twice {
        /// The full name of the second.
        field: String,
        /// What is there.
        word: String,
    },
    /// There is nothing in it.
    #[error("{} is empty", path.display())]
    Blank {
        /// Which.
        path: PathBuf,
    },
    /// No process, but what it is a part of, or a part of it.
    #[error("{} has {field}, but should hold what process of config.json does", path.display())]
    NoProcess {
        /// The file.
        path: PathBuf,
        /// What is no process's.
        field: &'static str,
    },
    /// No limits, but what they are a part of.
    #[error("--resources: {} has {field}, but should hold what linux.resources of config.json does", path.display())]
    NoResources {
        /// The file.
        path: PathBuf,
        /// What is no limit.
        field: &'static str,
    },
    /// The kernel would take it and change nothing.
    #[error("linux.sysctl[{name:?}]: is empty, which sets nothing: it needs a value, or is to be left out")]
    NoParameter {
        /// The parameter.
        name: String,
    },
    /// There is no root.
    #[error("root.path: is empty")]
    NoRoot,
    /// It would be the host's, read-only or not.
    #[error("root.path: {} is the host's own root, which cannot become a container's", path.display())]
    HostRoot {
        /// As given, from the bundle on.
        path: PathBuf,
    },
    /// A variable that no program can read. The words are runc's.
    #[error("{place}: {entry:?}: invalid environment variable: {fault}")]
    Variable {
        /// Its full name, or the flag that gave it.
        place: String,
        /// As given.
        entry: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A filter's action is missing, without which it means nothing.
    #[error("linux.seccomp.{field}: is missing{}", one_of(known))]
    NoAction {
        /// Its name below `linux.seccomp`.
        field: String,
        /// All that there are.
        known: Vec<&'static str>,
    },
    /// The filter is not one that can be carried out.
    #[error("linux.seccomp.{}: {fault}{}", fault.field(), one_of(&fault.allowed()))]
    Seccomp {
        /// What is wrong with it, and where.
        fault: seccomp::ProfileError,
    },
    /// The library cannot carry it out.
    #[error(transparent)]
    Plan(#[from] oci_runtime::PlanError),
}

fn leads_to(target: Option<&Path>) -> String {
    target.map_or_else(String::new, |target| format!(" is a symbolic link to {}", target.display()))
}

fn one_of(words: &[&str]) -> String {
    if words.is_empty() { String::new() } else { format!(", must be one of {}", words.join(", ")) }
}

/// No program's arguments and environment are longer than 6 MiB (execve(2)); the rest is for annotations.
const BYTES_MAX: u64 = 16 << 20;

/// Reads and plans the bundle's config.json. `directory` is absolute.
pub(crate) fn load(directory: &Path, id: &str) -> Result<Plan, BundleError> {
    let path = directory.join("config.json");
    // A FIFO would keep whoever creates the container waiting, and a device never ends. Looked at when it is open: by its
    // name it could be another one then.
    let file = open(&path, OFlags::NONBLOCK | OFlags::NOCTTY)?;
    let meta = file.metadata().map_err(unreadable(&path))?;
    if !meta.is_file() {
        return Err(BundleError::NoFile { path });
    }
    let plan = plan(&read_json(file, &path, meta.len())?, directory, id)?;
    if plan.spec.root.mounts.is_empty() {
        let path = &plan.spec.root.path;
        let is_directory = fs::metadata(path).and_then(|meta| match meta.is_dir() {
            true => Ok(()),
            false => Err(io::ErrorKind::NotADirectory.into()),
        });
        is_directory.map_err(|err| BundleError::Root {
            path: path.clone(),
            target: fs::read_link(path).ok(),
            source: SystemError(err),
        })?;
        // A bind mount of it elsewhere is another mount, which can take its place.
        if fs::canonicalize(path).is_ok_and(|path| path == Path::new("/")) {
            return Err(BundleError::HostRoot { path: path.clone() });
        }
    }
    Ok(plan)
}

/// Reads a process for exec.
pub(crate) fn load_process(path: &Path) -> Result<Process, BundleError> {
    let value = read_json(open(path, OFlags::empty())?, path, 0)?;
    let whole = ["ociVersion", "process", "root", "mounts", "linux"];
    if let Some(field) = whole.into_iter().find(|field| value.get(field).is_some()) {
        return Err(BundleError::NoProcess { path: path.to_owned(), field });
    }
    typed(&value, "process")
}

impl BundleError {
    /// Whether it is the file that is at fault, and no field in it.
    pub(crate) fn is_of_file(&self) -> bool {
        use BundleError::{Blank, Json, NoFile, NoProcess, Read, TooLarge};
        matches!(self, Read { .. } | NoFile { .. } | TooLarge { .. } | Json { .. } | Blank { .. } | NoProcess { .. })
    }
}

/// Reads limits for `update`, from a file or from standard input.
pub(crate) fn read_resources(file: impl Read, path: &Path) -> Result<Resources, BundleError> {
    let value = read_json(file, path, 0)?;
    // Of a whole configuration no field is a limit: it would change nothing, and nobody would be told.
    if let Some(field) = OTHERS.into_iter().find(|field| value.get(field).is_some()) {
        return Err(BundleError::NoResources { path: path.to_owned(), field });
    }
    let resources = typed(&value, "linux.resources")?;
    if let Some(field) = needed::missing_limit(&value) {
        return Err(BundleError::Missing { field });
    }
    once(&resources)?;
    Ok(resources)
}

fn once(resources: &Resources) -> Result<(), BundleError> {
    twice::limit(resources).map_or(Ok(()), |(field, word)| Err(BundleError::Twice { field, word }))
}

/// What is beside or above the limits in config.json.
const OTHERS: [&str; 8] = ["ociVersion", "process", "root", "hostname", "mounts", "hooks", "linux", "resources"];

/// A value of the specification, with the full name of the field that cannot be read.
fn typed<T: DeserializeOwned>(value: &Value, above: &str) -> Result<T, BundleError> {
    typed::typed(value, above).map_err(|(field, source)| BundleError::Field { field, source })
}

fn open(path: &Path, flags: OFlags) -> Result<File, BundleError> {
    let opened = rustix::fs::open(path, flags | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    opened.map(File::from).map_err(|err| unreadable(path)(err.into()))
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    |err| BundleError::Read { path: path.to_owned(), source: SystemError(err) }
}

/// `length` is about how much there is.
fn read_json(file: impl Read, path: &Path, length: u64) -> Result<Value, BundleError> {
    // One more: the end is read, too.
    let mut bytes = Vec::with_capacity(length.min(BYTES_MAX) as usize + 1);
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable(path))?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(BundleError::TooLarge { path: path.to_owned() });
    }
    if bytes.trim_ascii().is_empty() {
        return Err(BundleError::Blank { path: path.to_owned() });
    }
    parse_json(&bytes, path)
}

fn parse_json(bytes: &[u8], path: &Path) -> Result<Value, BundleError> {
    let twice::Once(mut value) =
        serde_json::from_slice(bytes).map_err(|source| BundleError::Json { path: path.to_owned(), source })?;
    remove_nulls(&mut value);
    // JSON has no other way to say it.
    if bytes.split(|byte| *byte == b'\\').any(|rest| rest.starts_with(b"u0000")) {
        typed::nul_in(&value).map_or(Ok(()), |field| Err(BundleError::Nul { field }))?;
    }
    Ok(value)
}

/// In Go, whose programs write these files, null is the same as absent.
fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(remove_nulls);
        }
        Value::Array(members) => members.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

fn plan(config: &Value, directory: &Path, id: &str) -> Result<Plan, BundleError> {
    if let Some(field) = refused::of_config(config) {
        return Err(BundleError::Refused { field });
    }
    let mut spec: Spec = typed(config, "")?;
    if spec.oci_version.is_empty() {
        return Err(BundleError::NoVersion);
    }
    if !needed::is_semantic(&spec.oci_version) {
        return Err(BundleError::NoSemantic { version: spec.oci_version });
    }
    if needed::numbers(&spec.oci_version).is_none_or(|(major, _)| major != 1) {
        return Err(BundleError::Version { version: spec.oci_version });
    }
    if let Some(field) = needed::missing(config, &spec) {
        return Err(BundleError::Missing { field });
    }
    // Its source is a program, which would run on the host: that is for the engine, whose mounts these are.
    let served = |mounts: &[oci::runtime::Mount]| mounts.iter().position(|mount| mount.kind == sys::fuse::KIND);
    let served = [("mounts", served(&spec.mounts)), ("root.mounts", served(&spec.root.mounts))];
    if let Some((list, index)) = served.into_iter().find_map(|(list, index)| Some((list, index?))) {
        return Err(BundleError::Refused { field: format!("{list}[{index}].type: {}", sys::fuse::KIND) });
    }
    if spec.root.mounts.is_empty() {
        if spec.root.path.as_os_str().is_empty() {
            return Err(BundleError::NoRoot);
        }
        spec.root.path = directory.join(&spec.root.path);
    }
    // In Go, whose programs write these files, an empty one is none.
    for namespace in &mut spec.linux.namespaces {
        namespace.path.take_if(|path| path.as_os_str().is_empty());
    }
    spec.linux.resources.as_ref().map_or(Ok(()), once)?;
    if let Some((name, _)) = spec.linux.sysctl.iter().find(|(_, value)| value.is_empty()) {
        return Err(BundleError::NoParameter { name: name.clone() });
    }
    let warnings = advice::warnings(config, &spec);
    let asks_for_cgroup = asks_for_cgroup(&spec.linux);
    // A relative path begins at a place of the runtime's choice (runtime-spec config-linux.md, "Cgroups Path"): the root.
    let cgroups_path = spec.linux.cgroups_path.clone();
    spec.linux.cgroups_path = match spec.linux.cgroups_path.as_str() {
        "" => format!("/{CGROUP_PREFIX}{id}"),
        path => format!("/{}", path.trim_start_matches('/')),
    };
    let filter = filter(&spec)?;
    check_variables(&spec.process.env, in_process)?;
    oci_runtime::check(&spec)?;
    Ok(Plan { spec, filter, asks_for_cgroup, warnings, cgroups_path })
}

/// Refuses what is no `NAME=VALUE`, as runc does.
pub(crate) fn check_variables(env: &[String], place: impl Fn(usize) -> String) -> Result<(), BundleError> {
    for (index, entry) in env.iter().enumerate() {
        let fault = match entry.find('=') {
            None => "missing '='",
            Some(0) => "name cannot be empty",
            Some(_) => continue,
        };
        return Err(BundleError::Variable { place: place(index), entry: entry.clone(), fault });
    }
    Ok(())
}

/// The full name of a variable of a process's.
pub(crate) fn in_process(index: usize) -> String {
    format!("process.env[{index}]")
}

/// Where containers are whose specification says nothing: in no directory of their own, which nobody would take away, or
/// everybody would make again.
const CGROUP_PREFIX: &str = "longshore-runtime-";

/// Rules for devices are no limits here: where they matter most, for root of a user namespace, no device can be made.
fn asks_for_cgroup(linux: &Linux) -> bool {
    let limits = |resources: &Resources| Resources { devices: Vec::new(), ..resources.clone() } != Resources::default();
    !linux.cgroups_path.is_empty() || linux.resources.as_ref().is_some_and(limits)
}

/// The rules; absent where a program is given, or nothing.
fn filter(spec: &Spec) -> Result<Option<Filter>, BundleError> {
    let Some(value) = spec.linux.seccomp.as_ref().filter(|_| spec.linux.seccomp_program.is_none()) else {
        return Ok(None);
    };
    let failed = |fault: seccomp::ProfileError| match fault {
        seccomp::ProfileError::NoAction { .. } => {
            BundleError::NoAction { field: fault.field(), known: fault.allowed() }
        }
        fault => BundleError::Seccomp { fault },
    };
    let profile: Profile = typed(value, "linux.seccomp")?;
    // Nothing in the specification's form depends on capabilities or the kernel.
    let filter = seccomp::resolve(&profile, &[], Arch::native(), (0, 0)).map_err(failed)?;
    filter.as_ref().map_or(Ok(()), Filter::require_strict).map_err(failed)?;
    Ok(filter)
}

#[cfg(test)]
mod fields;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(changes: Value) -> Value {
        let mut config = json!({
            "ociVersion": "1.2.0",
            "process": {"args": ["true"], "cwd": "/", "env": null},
            "root": {"path": "rootfs"},
            "linux": {"namespaces": [{"type": "mount"}]},
        });
        for (name, value) in changes.as_object().unwrap() {
            config[name] = value.clone();
        }
        config
    }

    fn planned(changes: Value) -> Result<Plan, String> {
        let mut config = config(changes);
        remove_nulls(&mut config);
        plan(&config, Path::new("/bundle"), "name").map_err(|err| errdefs::chain(&err))
    }

    #[test]
    fn paths_become_absolute() {
        let plan = planned(json!({})).unwrap();
        assert_eq!(plan.spec.root.path, Path::new("/bundle/rootfs"));
        assert_eq!(plan.spec.linux.cgroups_path, "/longshore-runtime-name");
        let plan = planned(json!({"linux": {"namespaces": [{"type": "mount"}], "cgroupsPath": "a/b"}})).unwrap();
        assert_eq!(plan.spec.linux.cgroups_path, "/a/b");
    }

    #[test]
    fn what_cannot_be_carried_out_is_named() {
        let linux = |field: &str, value: Value| json!({"linux": {"namespaces": [{"type": "mount"}], field: value}});
        for (changes, text) in [
            (json!({"ociVersion": "2.0.0"}), "ociVersion: \"2.0.0\" is not supported, only 1.0.0 to 1."),
            (json!({"ociVersion": null}), "ociVersion: is missing, 1.0.0 to 1."),
            (json!({"ociVersion": "1.0"}), "ociVersion: \"1.0\" is no semantic version, as 1."),
            (
                linux("sysctl", json!({"net.ipv4.ip_forward": ""})),
                "linux.sysctl[\"net.ipv4.ip_forward\"]: is empty, which sets nothing",
            ),
            (
                linux("resources", json!({"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0}]}})),
                "linux.resources.blockIO.throttleReadBpsDevice[0].rate: is missing",
            ),
            (
                json!({"process": {"args": ["x"], "cwd": "/", "env": ["A=1", "bare"]}}),
                "process.env[1]: \"bare\": invalid environment variable: missing '='",
            ),
            (
                json!({"process": {"args": ["x"], "cwd": "/", "env": ["=x"]}}),
                "process.env[0]: \"=x\": invalid environment variable: name cannot be empty",
            ),
            (json!({"root": null}), "root: is missing"),
            (json!({"root": {}}), "root.path: is missing"),
            (json!({"root": {"path": ""}}), "root.path: is empty"),
            (json!({"process": null}), "process: is missing"),
            (json!({"process": {"args": ["x"]}}), "process.cwd: is missing"),
            (json!({"process": {"args": ["x"], "cwd": ""}}), "process.cwd: is empty"),
            (json!({"process": {"cwd": "/"}}), "process.args: is missing"),
            (json!({"process": {"args": [], "cwd": "/"}}), "process.args: is empty"),
            (json!({"process": {"args": ["x"], "cwd": "etc"}}), "process.cwd: \"etc\" is not an absolute path"),
            (
                json!({"process": {"args": ["x"], "cwd": "/", "rlimits": [{"type": "RLIMIT_X", "hard": 1, "soft": 1}]}}),
                "process.rlimits[0].type: unknown word \"RLIMIT_X\", must be one of RLIMIT_CPU, RLIMIT_FSIZE",
            ),
            (
                json!({"linux": {"namespaces": [{"type": "user"}]}}),
                "linux.namespaces: a mount namespace of its own is required",
            ),
            (
                json!({"linux": {"namespaces": [{"type": "mount"}, {"type": "user"}]}}),
                "linux.uidMappings: is empty, and a new user namespace needs ids",
            ),
            (
                linux("personality", json!({"domain": "BSD"})),
                "linux.personality.domain: unknown word \"BSD\", must be one of LINUX, LINUX32",
            ),
            (
                linux("seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_X"]})),
                "linux.seccomp.flags[0]: seccomp flag SECCOMP_FILTER_FLAG_X is not known, must be one of ",
            ),
            (
                linux(
                    "seccomp",
                    json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}),
                ),
                "linux.seccomp.flags[0]: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY",
            ),
            (
                linux("seccomp", json!({"syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO"}]})),
                "linux.seccomp.defaultAction: is missing, must be one of SCMP_ACT_KILL, ",
            ),
            (
                linux("seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"]}]})),
                "linux.seccomp.syscalls[0].action: is missing, must be one of SCMP_ACT_KILL, ",
            ),
            (
                linux("devices", json!([{"type": "p", "path": "/dev/p"}, {"type": "c", "path": "/dev/x", "major": 1}])),
                "linux.devices[1].minor: is missing",
            ),
            (
                linux("devices", json!([{"type": "b", "path": "/dev/x", "minor": 1}])),
                "linux.devices[0].major: is missing",
            ),
            (
                linux(
                    "resources",
                    json!({"hugepageLimits": [
                        {"pageSize": "2MB", "limit": 1}, {"pageSize": "2MB", "limit": 2}
                    ]}),
                ),
                "linux.resources.hugepageLimits[1].pageSize: \"2MB\" is there twice",
            ),
            (
                json!({"mounts": [{"destination": "/x", "type": "bind", "source": "/y", "options": ["rbind", "idmap"]}]}),
                "mounts[0].options: needs uidMappings and gidMappings, or a user namespace",
            ),
            (
                json!({"mounts": [{"destination": "/x", "type": "fuse.fuse-overlayfs", "source": "/y"}]}),
                "mounts[0].type: fuse.fuse-overlayfs is not supported",
            ),
            (
                json!({"hooks": {"prestart": [{"path": "relative"}]}}),
                "hooks.prestart[0].path: \"relative\" is not an absolute path",
            ),
            (
                json!({"hooks": {"poststop": [{"path": "/bin/true", "timeout": 0}]}}),
                "hooks.poststop[0].timeout: 0 seconds are not 1 or more",
            ),
            (
                json!({"linux": {"namespaces": [{"type": "other"}]}}),
                "linux.namespaces[0].type: unknown word \"other\", must be one of pid, ",
            ),
        ] {
            let err = planned(changes).unwrap_err();
            assert!(err.starts_with(text), "{err:?} is not {text:?}");
        }
    }

    #[test]
    fn a_filter_is_compiled_unless_there_is_its_program() {
        let filter =
            json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]});
        let linux = json!({"namespaces": [{"type": "mount"}], "seccomp": filter});
        assert!(planned(json!({"linux": linux})).unwrap().filter.is_some());
        let mut given = linux;
        given["longshoreSeccompProgram"] = json!("/program");
        assert!(planned(json!({"linux": given})).unwrap().filter.is_none());
    }
}
