//! `cp`: which path is meant, what it is called in the archive, and where that goes.
//!
//! Docker's rules, in which the end of a path tells: `a` is the directory itself or a new name, `a/` a directory, and `a/.`
//! what is in it.

use engine_api::paths::clean;

/// Why nothing can be copied there. The texts are docker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// A directory onto something else.
    #[error("cannot copy directory")]
    Directory,
    /// A file into a directory that does not exist.
    #[error("no such directory")]
    NoDirectory,
}

/// One side of a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The path, with the end that tells what is meant.
    pub path: String,
    /// Whether there is anything.
    pub exists: bool,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// The name that the user gave it, where a link leads to another one; else empty.
    pub asked_name: String,
}

/// Where an archive goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The directory that it is unpacked in.
    pub directory: String,
    /// What its top is called, where the destination says so.
    pub name: Option<String>,
}

/// `CONTAINER:PATH` or a path of the user's; the name is empty for that.
pub fn split_argument(argument: &str) -> (&str, &str) {
    match argument.split_once(':') {
        // A path with a colon must begin with a slash or a dot.
        Some((container, path)) if !argument.starts_with('/') && !container.starts_with('.') => (container, path),
        _ => ("", argument),
    }
}

/// The last part (Go's `path.Base`).
pub fn base(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" if path.is_empty() => ".",
        "" => "/",
        path => path.rsplit('/').next().unwrap_or(path),
    }
}

/// Everything before the last part (Go's `path.Dir`).
pub fn parent(path: &str) -> String {
    clean(path.rsplit_once('/').map_or("", |(parent, _)| if parent.is_empty() { "/" } else { parent }))
}

fn is_dot(path: &str) -> bool {
    base(path) == "."
}

fn names_directory(path: &str) -> bool {
    path.ends_with('/') || is_dot(path)
}

/// A cleaned path with the end that the original has.
pub fn keep_end(cleaned: &str, original: &str) -> String {
    let mut path = cleaned.to_owned();
    if !is_dot(&path) && is_dot(original) {
        if !path.ends_with('/') {
            path.push('/');
        }
        path.push('.');
    }
    if !path.ends_with('/') && original.ends_with('/') {
        path.push('/');
    }
    path
}

/// A path of the user's from the root, with its end.
pub fn absolute(directory: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{directory}/{path}") };
    keep_end(&clean(&whole), path)
}

/// The directory and the last part; `.` stays one.
pub fn split(path: &str) -> (String, String) {
    let mut cleaned = clean(path);
    if is_dot(path) {
        cleaned.push_str("/.");
    }
    (parent(&cleaned), base(&cleaned).to_owned())
}

/// Where a link leads, with the end of the path that it was found by, and the name that the user knows.
pub fn followed(path: &str, resolved: &str) -> (String, String) {
    let mut resolved = resolved.to_owned();
    if is_dot(path) && !is_dot(&resolved) {
        resolved.push_str("/.");
    }
    if path.ends_with('/') && !resolved.ends_with('/') {
        resolved.push('/');
    }
    let asked = if base(path) == base(&resolved) { String::new() } else { base(path).to_owned() };
    (resolved, asked)
}

/// Decides where what is at `source` goes.
pub fn target(source: &Place, destination: &Place) -> Result<Target, CopyError> {
    let (directory, name) = split(&destination.path);
    let renamed = Target { directory, name: Some(name) };
    match (destination.exists, destination.is_directory, source.is_directory) {
        (true, true, _) => Ok(Target { directory: destination.path.clone(), name: None }),
        (true, false, true) => Err(CopyError::Directory),
        (true, false, false) | (false, _, true) => Ok(renamed),
        (false, _, false) if names_directory(&destination.path) => Err(CopyError::NoDirectory),
        (false, _, false) => Ok(renamed),
    }
}

/// What the top of an archive is called that goes there.
pub fn top_name(source: &Place, target: &Target) -> String {
    let own = if source.asked_name.is_empty() { split(&source.path).1 } else { source.asked_name.clone() };
    target.name.clone().unwrap_or(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_and_paths_are_told_apart() {
        for (argument, wanted) in [
            ("c:/x", ("c", "/x")),
            ("c:x:y", ("c", "x:y")),
            ("/a:b", ("", "/a:b")),
            ("./a:b", ("", "./a:b")),
            ("..a:b", ("", "..a:b")),
            ("a", ("", "a")),
            (":/x", ("", "/x")),
            ("-", ("", "-")),
        ] {
            assert_eq!(split_argument(argument), wanted, "{argument}");
        }
    }

    #[test]
    fn paths_are_gos() {
        for (path, cleaned, last, above) in [
            ("", ".", ".", "."),
            ("/", "/", "/", "/"),
            ("a/b/", "a/b", "b", "a/b"),
            ("a//b/../c", "a/c", "c", "a"),
            ("../a", "../a", "a", ".."),
            ("/..", "/", "..", "/"),
            ("/a/.", "/a", ".", "/a"),
        ] {
            assert_eq!((&*clean(path), base(path), &*parent(path)), (cleaned, last, above), "{path}");
        }
    }

    #[test]
    fn ends_of_paths_stay() {
        for (path, wanted) in [
            ("a", "/w/a"),
            ("a/", "/w/a/"),
            ("a/.", "/w/a/."),
            (".", "/w/."),
            ("./", "/w/./"),
            ("/", "/"),
            ("/x/..", "/"),
            ("../y/", "/y/"),
        ] {
            assert_eq!(absolute("/w", path), wanted, "{path}");
        }
    }

    #[test]
    fn links_keep_the_name_that_was_asked_for() {
        for (path, resolved, wanted) in [
            ("/l", "/x/y", ("/x/y", "l")),
            ("/l/", "/x/y", ("/x/y/", "l")),
            ("/l/.", "/x/y", ("/x/y/.", "")),
            ("/l", "/x/l", ("/x/l", "")),
        ] {
            let (path, name) = followed(path, resolved);
            assert_eq!((&*path, &*name), wanted);
        }
    }

    /// What docker's reference says of `cp`, line by line.
    #[test]
    fn destinations_are_dockers() {
        let place = |path: &str, kind: &str| Place {
            path: path.to_owned(),
            exists: kind != "absent",
            is_directory: kind == "directory",
            asked_name: String::new(),
        };
        let to = |directory: &str, name: &str| Ok((directory.to_owned(), name.to_owned()));
        for (source, destination, kind, wanted) in [
            ("/s/file", "/d/new", "absent", to("/d", "new")),
            ("/s/file", "/d/new/", "absent", Err(CopyError::NoDirectory)),
            ("/s/file", "/d/new/.", "absent", Err(CopyError::NoDirectory)),
            ("/s/file", "/d/old", "file", to("/d", "old")),
            ("/s/file", "/d", "directory", to("/d", "file")),
            ("/s/file", "/d/", "directory", to("/d/", "file")),
            ("/s/dir", "/d/new", "absent", to("/d", "new")),
            ("/s/dir/", "/d/new/", "absent", to("/d", "new")),
            ("/s/dir/.", "/d/new", "absent", to("/d", "new")),
            ("/s/dir", "/d/old", "file", Err(CopyError::Directory)),
            ("/s/dir", "/d", "directory", to("/d", "dir")),
            ("/s/dir/.", "/d", "directory", to("/d", ".")),
            ("/s/dir/.", "/d/.", "directory", to("/d/.", ".")),
            ("/", "/d/new", "absent", to("/d", "new")),
        ] {
            let source = place(source, if source.contains("file") { "file" } else { "directory" });
            let found = target(&source, &place(destination, kind));
            let found = found.map(|target| (target.directory.clone(), top_name(&source, &target)));
            assert_eq!(found, wanted, "{} {destination} {kind}", source.path);
        }
    }
}
