//! Whether mounts that appear on the host, or in the container, can pass to the other side, as a bind asks.

use std::io;
use std::path::{Path, PathBuf};

use container_spec::Point;

/// Why a bind cannot be made. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum PropagationError {
    /// Nothing passes on there.
    #[error("path {} is mounted on {} but it is not a {wanted} mount", path.display(), mount.display())]
    Private {
        /// The source.
        path: PathBuf,
        /// Where the mount is that holds it.
        mount: PathBuf,
        /// `shared`, or `shared or slave`.
        wanted: &'static str,
    },
    /// It cannot be looked at.
    #[error("find the mount of {}", path.display())]
    Look {
        /// The source.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Binds of what holds the data root, or lies in it, follow the host's mounts unless the user says otherwise: dockerd does
/// so lest a container keep its mounts busy, and users have learnt to rely on `-v /:/host` to show new ones.
pub(crate) fn follow_data_root(points: &mut [Point], data_root: &Path) {
    let root = data_root.to_string_lossy();
    for point in points.iter_mut().filter(|point| point.shown.kind == "bind" && point.bind.propagation.is_empty()) {
        let source = point.shown.source.as_str();
        if source.starts_with(&*root) || root.starts_with(source) {
            point.shown.propagation = "rslave".to_owned();
        }
    }
}

/// Checks the binds of a container that is about to start. Blocks briefly, and only for those that ask for something.
pub(crate) fn settle(points: &mut [Point]) -> Result<(), PropagationError> {
    for point in points {
        let (wanted, tags): (_, &[&str]) = match point.shown.propagation.as_str() {
            "shared" | "rshared" => ("shared", &["shared:"]),
            "slave" | "rslave" => ("shared or slave", &["shared:", "master:"]),
            _ => continue,
        };
        let path = PathBuf::from(&point.shown.source);
        let look = |source| PropagationError::Look { path: path.clone(), source };
        let table = std::fs::read_to_string("/proc/self/mountinfo").map_err(look)?;
        let real = std::fs::canonicalize(&path).map_err(look)?;
        let (mount, passes) = holder(&table, &real, tags);
        if passes {
            continue;
        }
        if point.bind.propagation.is_empty() {
            // Nobody asked for it.
            point.shown.propagation = "rprivate".to_owned();
            continue;
        }
        return Err(PropagationError::Private { path, mount, wanted });
    }
    Ok(())
}

/// The mount that holds a path, and whether it has one of these tags (proc_pid_mountinfo(5), "optional fields").
fn holder(table: &str, path: &Path, tags: &[&str]) -> (PathBuf, bool) {
    let mounts = table.lines().filter_map(|line| {
        let (fields, _) = line.split_once(" - ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let place = PathBuf::from(unescape(fields.get(4)?));
        let passes = fields.get(6..)?.iter().any(|field| tags.iter().any(|tag| field.starts_with(tag)));
        path.starts_with(&place).then_some((place, passes))
    });
    // Of two at one place the later one is on top.
    mounts.max_by_key(|(place, _)| place.as_os_str().len()).unwrap_or_default()
}

/// Blanks and their like are written in octal.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, letter)| text.replace(code, letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_that_holds_a_path_is_the_longest_and_the_last() {
        let table = "1 0 8:1 / / rw shared:1 - ext4 /dev/a rw\n\
                     2 1 8:2 / /data rw - ext4 /dev/b rw\n\
                     3 1 8:3 / /data rw master:4 - ext4 /dev/c rw\n\
                     4 1 8:4 / /a\\040b rw shared:5 master:6 - ext4 /dev/d rw\n";
        for (path, mount, shared, slave) in [
            ("/etc", "/", true, true),
            ("/data/x", "/data", false, true),
            ("/database", "/", true, true),
            ("/a b/c", "/a b", true, true),
        ] {
            let told = |tags: &[&str]| holder(table, Path::new(path), tags);
            assert_eq!(told(&["shared:"]), (mount.into(), shared), "{path}");
            assert_eq!(told(&["shared:", "master:"]), (mount.into(), slave), "{path}");
        }
    }
}
