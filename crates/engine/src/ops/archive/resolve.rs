//! Paths and users of a container, read as dockerd reads them.

use std::fs::File;
use std::io::Read;

use engine_api::paths::clean;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::view::View;

/// Symlinks that are followed on the way to one place (Go's `filepath.EvalSymlinks`).
const LINKS_MAX: u32 = 255;

/// How much of a container's passwd and group is read: more users than any has.
const DATABASE_MAX: u64 = 4 * 1024 * 1024;

/// Why a container's user means nobody in it.
#[derive(Debug, thiserror::Error)]
pub enum ResolveUserError {
    /// There is none of that name.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    User(String),
    /// There is no group of that name.
    #[error("unable to find group {0}: no matching entries in group file")]
    Group(String),
}

/// The path from the root, cleaned, and with the end that asks for a directory.
pub(super) fn absolute(path: &str) -> String {
    let clean = clean(&format!("/{path}"));
    let ends_in_dot = path == "." || path.ends_with("/.");
    match (ends_in_dot, path.ends_with('/'), clean.as_str()) {
        (true, _, "/") => "/.".to_owned(),
        (true, _, _) => format!("{clean}/."),
        (_, true, "/") | (_, false, _) => clean,
        (_, true, _) => format!("{clean}/"),
    }
}

/// The last part of a path, slashes at its end not counted (Go's `filepath.Base`).
pub(super) fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    match path.trim_end_matches('/') {
        "" => "/",
        path => path.rsplit('/').next().unwrap_or(path),
    }
}

/// Where a path leads when all its symlinks are followed, as far as they lead anywhere.
pub(super) fn evaluate(view: &View, path: &str) -> Result<String, Errno> {
    let parts = |path: &str| path.rsplit('/').map(str::to_owned).collect::<Vec<_>>();
    let (mut todo, mut clean, mut links) = (parts(path), Vec::<String>::new(), 0);
    while let Some(part) = todo.pop() {
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                clean.pop();
                continue;
            }
            _ => {}
        }
        let here = format!("/{}/{part}", clean.join("/"));
        let target = match view.open(&here, false) {
            Ok(place) => link_of(&place)?,
            Err(Errno::NOENT | Errno::NOTDIR) => None,
            Err(err) => return Err(err),
        };
        let Some(target) = target else {
            clean.push(part);
            continue;
        };
        links += 1;
        if links > LINKS_MAX {
            return Err(Errno::LOOP);
        }
        if target.starts_with('/') {
            clean.clear();
        }
        todo.extend(parts(&target));
    }
    Ok(format!("/{}", clean.join("/")))
}

fn link_of(place: &std::os::fd::OwnedFd) -> Result<Option<String>, Errno> {
    let stat = rustix::fs::fstat(place)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        return Ok(None);
    }
    let target = rustix::fs::readlinkat(place, "", Vec::new())?;
    Ok(Some(target.to_string_lossy().into_owned()))
}

/// The numbers of `user[:group]`; `None` if nobody is named.
pub(super) fn user_of(view: &View, user: &str) -> Result<Option<(u32, u32)>, ResolveUserError> {
    if user.is_empty() {
        return Ok(None);
    }
    let (name, group) = user.split_once(':').map_or((user, None), |(name, group)| (name, Some(group)));
    let (uid, own_gid) = match find(&read(view, "/etc/passwd"), name) {
        Some(fields) => (fields.0, fields.1),
        None => (name.parse().map_err(|_| ResolveUserError::User(name.to_owned()))?, 0),
    };
    let gid = match group {
        None => own_gid,
        Some(group) => match find(&read(view, "/etc/group"), group) {
            Some(fields) => fields.0,
            None => group.parse().map_err(|_| ResolveUserError::Group(group.to_owned()))?,
        },
    };
    Ok(Some((uid, gid)))
}

/// The third and the fourth field of the line of that name, or of that number in the third.
fn find(database: &str, name: &str) -> Option<(u32, u32)> {
    let lines = database.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let own = fields.next()?;
        let number = fields.nth(1)?;
        let next = fields.next().and_then(|next| next.parse().ok()).unwrap_or(0);
        (own == name || number == name).then_some((number.parse().ok()?, next))
    });
    lines.into_iter().next()
}

/// A file of the container, if it is one.
fn read(view: &View, path: &str) -> String {
    let opened = view.open(path, true).and_then(|place| {
        let stat = rustix::fs::fstat(&place)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => archive::reopen(&place, OFlags::RDONLY),
            _ => Err(Errno::INVAL),
        }
    });
    let mut bytes = Vec::new();
    // One that cannot be read names nobody.
    let read = opened.map(|file| File::from(file).take(DATABASE_MAX).read_to_end(&mut bytes));
    match read {
        Ok(Ok(_)) => String::from_utf8_lossy(&bytes).into_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_keep_their_end() {
        for (path, wanted, last) in [
            ("/", "/", "/"),
            ("", "/", "/"),
            ("a", "/a", "a"),
            ("/a/", "/a/", "a"),
            ("/a/.", "/a/.", "."),
            ("/a/..", "/", "/"),
            ("../../etc//x", "/etc/x", "x"),
            (".", "/.", "."),
            ("/.", "/.", "."),
            ("//", "/", "/"),
            ("/a/b/../.", "/a/.", "."),
        ] {
            assert_eq!(absolute(path), wanted, "{path}");
            assert_eq!(base(&absolute(path)), last, "{path}");
        }
        assert_eq!(base("/a/.."), "..");
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:34::/:/bin/false\n";
        for (name, wanted) in [("web", Some((33, 34))), ("33", Some((33, 34))), ("root", Some((0, 0))), ("x", None)] {
            assert_eq!(find(passwd, name), wanted, "{name}");
        }
        assert_eq!(find("adm:x:4:root,web\n", "adm"), Some((4, 0)));
    }
}
