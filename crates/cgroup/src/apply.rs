//! Writing limits to a cgroup that is there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use oci::runtime::MemoryLimits;

use crate::directories::{self, wanted};
use crate::error::CgroupError;
use crate::facts::{Hierarchies, Version};
use crate::group::Cgroup;
use crate::plan::{Absent, Write};
use crate::rules::explained;
use crate::tree::collect_procs;

/// Writes all of them, in order; what may be refused until others are written, once more afterwards.
pub(crate) fn apply(group: &Cgroup, writes: &[Write]) -> Result<(), CgroupError> {
    apply_all(group, writes).map_err(|err| explained(group, err))
}

fn apply_all(group: &Cgroup, writes: &[Write]) -> Result<(), CgroupError> {
    let (mut again, mut last) = (Vec::new(), None);
    for write in writes {
        match one(group, write, &mut last) {
            Err(CgroupError::Write { .. }) if write.again => again.push(write),
            other => other?,
        }
    }
    again.into_iter().try_for_each(|write| one(group, write, &mut None))
}

/// `last` is the file of the write before: device rules are many writes to one.
fn one<'a>(group: &Cgroup, write: &'a Write, last: &mut Option<(&'a str, File)>) -> Result<(), CgroupError> {
    if last.as_ref().is_none_or(|(name, _)| *name != write.file) {
        *last = match open(group, write, &write.file, &write.value) {
            Ok(file) => Some((&write.file, file)),
            Err(CgroupError::Write { source, .. }) if source.kind() == io::ErrorKind::NotFound => match &write.absent {
                Absent::Skip => return Ok(()),
                Absent::Instead { file, value } => {
                    let opened = open(group, write, file, value)?;
                    return put(group, write, &opened, file, value);
                }
                Absent::Fail => return Err(refused(group, write, &write.file, &write.value)(source)),
            },
            Err(other) => return Err(other),
        };
    }
    last.as_ref().map_or(Ok(()), |(_, file)| put(group, write, file, &write.file, &write.value))
}

fn open(group: &Cgroup, write: &Write, name: &str, value: &str) -> Result<File, CgroupError> {
    let file = File::options().write(true).open(directory(group, write)?.join(name));
    file.map_err(refused(group, write, name, value))
}

fn put(group: &Cgroup, write: &Write, mut file: &File, name: &str, value: &str) -> Result<(), CgroupError> {
    file.write_all(value.as_bytes()).map_err(refused(group, write, name, value))
}

/// The directory of the file.
pub(crate) fn directory<'a>(group: &'a Cgroup, write: &Write) -> Result<&'a Path, CgroupError> {
    match write.controller {
        Some(controller) => group.directory(controller),
        None => group.directories.first().map(|(_, path)| path.as_path()).ok_or(CgroupError::NoHierarchy),
    }
}

fn refused(group: &Cgroup, write: &Write, name: &str, value: &str) -> impl FnOnce(io::Error) -> CgroupError {
    let path = directory(group, write).map_or_else(|_| name.into(), |directory| directory.join(name));
    let (field, value) = (Box::new(write.field.clone()), value.into());
    move |source| CgroupError::Write { field, path, value, rule: Box::default(), source }
}

/// Puts the living cgroup into the hierarchies that limits ask for and that it is not in yet.
pub(crate) fn extend(group: &mut Cgroup, hierarchies: &Hierarchies, writes: &[Write]) -> Result<(), CgroupError> {
    let mut missing = wanted(hierarchies, writes)?;
    missing.retain(|controller| group.directory(*controller).is_err());
    missing.retain(|controller| writes.iter().any(|write| write.controller == Some(*controller)));
    if missing.is_empty() || group.version == Version::V2 {
        return Ok(());
    }
    let directories = directories::directories(hierarchies, &group.path, &missing)?;
    let added = Cgroup { version: group.version, path: group.path.clone(), directories, above: Vec::new() };
    directories::make(&added, hierarchies, writes, &mut Vec::new())?;
    for (_, directory) in &added.directories {
        move_processes(group, directory)?;
    }
    group.directories.extend(added.directories);
    Ok(())
}

/// Moves all processes of the cgroup into a directory of another hierarchy, with those that are born meanwhile.
fn move_processes(group: &Cgroup, directory: &Path) -> Result<(), CgroupError> {
    let file = directory.join("cgroup.procs");
    for _ in 0..MOVES_MAX {
        let mut moved = BTreeSet::new();
        collect_procs(directory, &mut moved);
        let left: Vec<i32> = group.procs_with_below().difference(&moved).copied().collect();
        if left.is_empty() {
            break;
        }
        for pid in left {
            match fs::write(&file, pid.to_string()) {
                // It has ended.
                Err(err) if err.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
                other => other.map_err(CgroupError::io("write", &file))?,
            }
        }
    }
    Ok(())
}

/// A container that has a new process each time that we look does so to keep one of them out, and is limited all the same:
/// its children are born where their parents are.
const MOVES_MAX: usize = 100;

/// A limit below what is in use makes version 2 kill at once; version 1 refuses it by itself.
pub(crate) fn check_usage(group: &Cgroup, memory: &MemoryLimits) -> Result<(), CgroupError> {
    if memory.check_before_update != Some(true) {
        return Ok(());
    }
    let Ok(usage) = group.usage().map(|usage| usage.memory_bytes) else { return Ok(()) };
    for (field, limit) in [("linux.resources.memory.swap", memory.swap), ("linux.resources.memory.limit", memory.limit)]
    {
        if let Some(limit) = limit.filter(|limit| *limit > 0 && *limit as u64 <= usage) {
            return Err(CgroupError::InUse { field, limit, usage, peak: usage });
        }
    }
    Ok(())
}
