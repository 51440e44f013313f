//! Directories of cgroups: which, how they come, and how they go.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::error::CgroupError;
use crate::facts::{Controller, Hierarchies, Version};
use crate::group::Cgroup;
use crate::plan::Write;

/// What every container is put under where it is mounted: what can limit it later, count it or freeze it. Without cpuset a
/// Java machine takes the host's memory for its own (cgroupSubsystem_linux.cpp, `determine_type`).
const CONTROLLERS_DEFAULT: [Controller; 8] = [
    Controller::Cpu,
    Controller::Cpuacct,
    Controller::Cpuset,
    Controller::Memory,
    Controller::Devices,
    Controller::Freezer,
    Controller::Blkio,
    Controller::Pids,
];

/// The controllers to use: with version 1 those that containers are always under, and what is asked for; with version 2
/// all, because it costs nothing, and a later limit finds its files. One that is asked for must be there.
pub(crate) fn wanted(hierarchies: &Hierarchies, writes: &[Write]) -> Result<Vec<Controller>, CgroupError> {
    let mut wanted: Vec<_> = match hierarchies.version() {
        Version::V1 => {
            CONTROLLERS_DEFAULT.into_iter().filter(|controller| hierarchies.v1_mount(*controller).is_some()).collect()
        }
        Version::V2 => hierarchies.unified_controllers.clone(),
    };
    for write in writes {
        let Some(controller) = write.controller.filter(|controller| !wanted.contains(controller)) else { continue };
        if !hierarchies.has(controller) {
            return Err(CgroupError::Unavailable { field: write.field.clone(), controller });
        }
        wanted.push(controller);
    }
    Ok(wanted)
}

/// Directories with their controllers.
pub(crate) type Directories = Vec<(Vec<Controller>, PathBuf)>;

/// The directories of these controllers, made or not.
pub(crate) fn directories(
    hierarchies: &Hierarchies,
    path: &Path,
    wanted: &[Controller],
) -> Result<Directories, CgroupError> {
    let below = below(path)?;
    if let (Version::V2, Some(unified)) = (hierarchies.version(), &hierarchies.unified) {
        return Ok(vec![(wanted.to_vec(), unified.join(below))]);
    }
    let used = hierarchies.v1.iter().filter(|hierarchy| hierarchy.controllers.iter().any(|c| wanted.contains(c)));
    let mut all: Vec<_> = used.map(|hierarchy| (hierarchy.controllers.clone(), hierarchy.mount.join(below))).collect();
    let left_over: Vec<_> =
        wanted.iter().copied().filter(|controller| hierarchies.version_of(*controller) == Version::V2).collect();
    if let Some(unified) = hierarchies.unified.as_ref().filter(|_| !left_over.is_empty()) {
        all.push((left_over, unified.join(below)));
    }
    Ok(all)
}

/// The directories of `path` where systemd only follows processes, with version 1: in its own hierarchy, and in a hybrid also
/// in that of version 2. Those that are there; with `make` also those that should be.
///
/// A scope ends when nobody is there. And whoever stays where he comes from belongs to that service for systemd, which ends
/// him with it, and takes him out of our directories when it makes its own in another hierarchy.
pub(crate) fn followed(
    hierarchies: &Hierarchies,
    path: &Path,
    known: &[(Vec<Controller>, PathBuf)],
    make: bool,
) -> Result<Directories, CgroupError> {
    let below = below(path)?;
    if hierarchies.version() == Version::V2 {
        return Ok(Vec::new());
    }
    let places = hierarchies.systemd.iter().chain(&hierarchies.unified).map(|mount| mount.join(below));
    let new = places.filter(|place| !known.iter().any(|(_, known)| known == place));
    let wanted = new.filter(|place| make && hierarchies.is_followed || place.is_dir());
    Ok(wanted.map(|place| (Vec::new(), place)).collect())
}

fn below(path: &Path) -> Result<&Path, CgroupError> {
    let refused = |fault| CgroupError::Path { path: path.to_owned(), fault };
    let below = path.strip_prefix("/").map_err(|_| refused("is not absolute: it has to begin with /"))?;
    if below.components().any(|part| part == Component::ParentDir) {
        return Err(refused("has \"..\" in it, which could lead out of the hierarchy: it has to be written without"));
    }
    match below.components().next() {
        None => Err(refused("is the hierarchy's root, which is the host's: it has to name a cgroup below")),
        Some(_) => Ok(below),
    }
}

/// Makes the directories with everything above them, and readies them for processes. What was made above is told in `above`.
pub(crate) fn make(
    group: &Cgroup,
    hierarchies: &Hierarchies,
    writes: &[Write],
    above: &mut Vec<PathBuf>,
) -> Result<(), CgroupError> {
    for (controllers, directory) in &group.directories {
        let in_unified = |unified: &&PathBuf| directory.starts_with(unified);
        match hierarchies.unified.as_ref().filter(in_unified) {
            Some(unified) => delegate(unified, &group.path, controllers, writes, above)?,
            None => make_directory(directory, above)?,
        }
        if controllers.contains(&Controller::Cpuset) && group.version == Version::V1 {
            let mount = hierarchies.v1_mount(Controller::Cpuset).ok_or(CgroupError::NoHierarchy)?;
            inherit_cpuset(mount, &group.path)?;
        }
    }
    Ok(())
}

fn make_directory(directory: &Path, above: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
    match fs::create_dir(directory) {
        Ok(()) => return Ok(()),
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
            // One of the files that every cgroup has is none.
            let is_file = |meta: fs::Metadata| if meta.is_dir() { Ok(()) } else { Err(err) };
            return fs::metadata(directory).and_then(is_file).map_err(CgroupError::io(CREATE, directory));
        }
        // The usual parent exists: trying the leaf first saves a stat for each hierarchy.
        Err(_) => {}
    }
    let mut missing: Vec<_> =
        directory.ancestors().skip(1).take_while(|parent| !parent.exists()).map(Path::to_owned).collect();
    // Also where it fails half-way; what is not there then is passed over when they are removed.
    above.append(&mut missing);
    fs::create_dir_all(directory).map_err(CgroupError::io(CREATE, directory))
}

/// What is tried, with the name of the field that says where.
const CREATE: &str = "linux.cgroupsPath: create";

/// Takes away what [`make`] has made above the directories, as far as nobody uses it.
pub(crate) fn remove_above(above: &[PathBuf]) {
    for directory in above {
        // Somebody else may have come meanwhile: then it stays.
        let _ = fs::remove_dir(directory);
    }
}

/// Makes the directory, with these controllers given to every directory on the way down (cgroup-v2.rst, "Top-down
/// Constraint").
fn delegate(
    unified: &Path,
    path: &Path,
    controllers: &[Controller],
    writes: &[Write],
    above: &mut Vec<PathBuf>,
) -> Result<(), CgroupError> {
    make_directory(&unified.join(path.strip_prefix("/").unwrap_or(path)), above)?;
    let parents = path.parent().into_iter().flat_map(Path::components).skip(1);
    let mut directory = unified.to_owned();
    enable(&directory, controllers, writes)?;
    for parent in parents {
        directory.push(parent);
        enable(&directory, controllers, writes)?;
    }
    Ok(())
}

/// Gives the controllers to the cgroups below. Those that no limit asks for may stay away: a part of the tree that was
/// handed to somebody without privilege, or by systemd, has what it has.
fn enable(directory: &Path, controllers: &[Controller], writes: &[Write]) -> Result<(), CgroupError> {
    let file = directory.join("cgroup.subtree_control");
    let name = |controller: &Controller| controller.unified_name().map(|name| format!("+{name}"));
    let names: Vec<_> = controllers.iter().filter_map(name).collect();
    if fs::write(&file, names.join(" ")).is_ok() {
        return Ok(());
    }
    let on = fs::read_to_string(&file).unwrap_or_default();
    let on: Vec<_> = on.split_whitespace().collect();
    for controller in controllers {
        let Some(name) = controller.unified_name().filter(|name| !on.contains(name)) else { continue };
        let enabled = fs::write(&file, format!("+{name}"));
        if writes.iter().any(|write| write.controller == Some(*controller)) {
            enabled.map_err(CgroupError::io("write", &file))?;
        }
    }
    Ok(())
}

/// A new directory of version 1's cpuset is empty, and takes no process until it has processors and memory nodes.
///
/// What is filled here hands them down by itself from then on: the next container finds its own full, and a systemd inside
/// one can use what it makes below.
pub(crate) fn inherit_cpuset(mount: &Path, path: &Path) -> Result<(), CgroupError> {
    let whole = mount.join(path.strip_prefix("/").unwrap_or(path));
    if !is_empty(&whole.join(CPUSET_FILES[1]))? && !is_empty(&whole.join(CPUSET_FILES[0]))? {
        return Ok(());
    }
    let mut directory = mount.to_owned();
    for part in path.components().skip(1) {
        let child = directory.join(part);
        let mut filled = false;
        for file in CPUSET_FILES {
            let (from, to) = (directory.join(file), child.join(file));
            if is_empty(&to)? {
                let value = fs::read_to_string(&from).map_err(CgroupError::io("read", &from))?;
                fs::write(&to, value.trim()).map_err(CgroupError::io("write", &to))?;
                filled = true;
            }
        }
        if filled {
            // A kernel that does not want to is asked again by the next container.
            let _ = fs::write(child.join("cgroup.clone_children"), "1");
        }
        directory = child;
    }
    Ok(())
}

const CPUSET_FILES: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

fn is_empty(file: &Path) -> Result<bool, CgroupError> {
    let text = fs::read_to_string(file).map_err(CgroupError::io("read", file))?;
    Ok(text.trim().is_empty())
}
