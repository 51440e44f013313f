//! Trees of cgroups, of any depth: a container that may make directories makes them deeper than paths are long, and deeper
//! than this process may open descriptors. So a walk goes by descriptor, and holds one.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

/// Removes a cgroup directory, and those that the container made below it, children before parents. All are tried; the first
/// error is the answer.
pub(crate) fn remove_tree(directory: &Path) -> Result<(), (PathBuf, io::Error)> {
    let failed = |err: io::Error| (directory.to_owned(), err);
    // rmdir first: nearly always there is nothing below, and listing costs as much again.
    match fs::remove_dir(directory) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {}
        _ => return Ok(()),
    }
    let mut first = Ok(());
    let walked = walk(directory, &mut |_| {}, &mut |above, name| match unlinkat(above, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(err) if first.is_ok() => first = Err(failed(err.into())),
        Err(_) => {}
    });
    walked.map_err(|err| failed(err.into()))?;
    first?;
    match fs::remove_dir(directory) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(failed(err)),
        _ => Ok(()),
    }
}

/// The processes of a directory and those below.
pub(crate) fn collect_procs(directory: &Path, found: &mut BTreeSet<i32>) {
    let mut text = String::new();
    // What cannot be read has gone meanwhile.
    let _ = walk(
        directory,
        &mut |here| {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let Ok(file) = openat(here, "cgroup.procs", flags, Mode::empty()) else { return };
            text.clear();
            if File::from(file).read_to_string(&mut text).is_ok() {
                found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            }
        },
        &mut |_, _| {},
    );
}

/// Lets the processes of a directory of version 1 and those below go on; above before below, as what is above holds them.
pub(crate) fn thaw(directory: &Path) {
    // If one stays frozen the deadline of whoever waits tells.
    let _ = walk(
        directory,
        &mut |here| {
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if let Ok(file) = openat(here, "freezer.state", flags, Mode::empty()) {
                let _ = rustix::io::write(&file, b"THAWED");
            }
        },
        &mut |_, _| {},
    );
}

/// Calls `enter` in each directory before it looks at those below, and `leave` with a directory's parent and its name after
/// them. A tree that is not there has no directories.
///
/// EBUSY: a directory went away while we were in it, and with it the way back.
fn walk(top: &Path, enter: &mut dyn FnMut(&OwnedFd), leave: &mut dyn FnMut(&OwnedFd, &CStr)) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here = match openat(CWD, top, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    enter(&here);
    let mut left = below(&here)?;
    // Names on the way down to `here`, each with the siblings that are still to be walked.
    let mut way: Vec<(CString, Vec<CString>)> = Vec::new();
    loop {
        if let Some(name) = left.pop() {
            match openat(&here, &name, flags, Mode::empty()) {
                Err(Errno::NOENT) => continue,
                other => here = other?,
            }
            enter(&here);
            way.push((name, std::mem::replace(&mut left, below(&here)?)));
            continue;
        }
        let Some((name, siblings)) = way.pop() else { return Ok(()) };
        here = openat(&here, "..", flags, Mode::empty()).map_err(|_| Errno::BUSY)?;
        leave(&here, &name);
        left = siblings;
    }
}

/// The directories in a directory; none where it has gone.
fn below(directory: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut found = Vec::new();
    let entries = match Dir::read_from(directory) {
        Err(Errno::NOENT) => return Ok(found),
        other => other?,
    };
    for entry in entries {
        let Ok(entry) = entry else { break };
        if entry.file_type() == FileType::Directory && !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            found.push(entry.file_name().to_owned());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directory_is_entered_once_and_left_after_what_is_below() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/b/c", "a/d", "e"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        for (path, text) in [("cgroup.procs", "1\n2\n"), ("a/b/c/cgroup.procs", "3\n"), ("e/cgroup.procs", "x\n4\n")] {
            fs::write(dir.path().join(path), text).unwrap();
        }
        let mut found = BTreeSet::new();
        collect_procs(dir.path(), &mut found);
        assert_eq!(found, BTreeSet::from([1, 2, 3, 4]));
        let mut names = Vec::new();
        walk(dir.path(), &mut |_| {}, &mut |_, name| names.push(name.to_str().unwrap().to_owned())).unwrap();
        let place = |name: &str| names.iter().position(|known| known == name).unwrap();
        assert!(names.len() == 5 && place("c") < place("b") && place("b") < place("a") && place("d") < place("a"));
        // On an ordinary file system files keep their directories; all others go.
        let (path, err) = remove_tree(dir.path()).unwrap_err();
        assert_eq!((path.as_path(), err.raw_os_error()), (dir.path(), Some(Errno::NOTEMPTY.raw_os_error())));
        assert!(!dir.path().join("a/d").exists() && dir.path().join("a/b/c").exists());
        assert!(remove_tree(&dir.path().join("nosuch")).is_ok());
    }
}
