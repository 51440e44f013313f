//! The files that every container has from the engine, `/etc/hosts` and its like, and what may be mounted over them.
//!
//! dockerd has an empty file for each in a layer above the image, so that a directory does not fit there, whatever the image
//! has. Ours are mount points that are made for what is mounted: without a look a directory would be taken, and programs
//! would find one where they read a file.

use std::path::Path;

use container_spec::Point;
use engine_api::host_config::HostConfig;
use engine_api::paths::clean;
use errdefs::ErrorKind;
use shim_api::{Failure, Reason};

use crate::launch::in_dockerds_words;

const OWN_FILES: [&str; 3] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

/// Refuses directories in the place of one of these files, in the words of the runtime. Looks at the sources of binds, and
/// so may block.
pub(crate) fn refuse_directories(points: &[Point], host: &HostConfig) -> Result<(), Failure> {
    let tmpfs = host.tmpfs.iter().flatten().map(|(place, _)| ("tmpfs", place.as_str()));
    let directories = points.iter().filter(|point| is_own(&point.shown.destination) && is_directory(point));
    let named = |point| (name(point), point.shown.destination.as_str());
    match directories.map(named).chain(tmpfs.filter(|(_, place)| is_own(place))).next() {
        None => Ok(()),
        Some((mounted, place)) => Err(in_dockerds_words(Failure {
            kind: ErrorKind::InvalidArgument,
            message: shim_api::mount_refusal(mounted, place, &"not a directory"),
            exit_code: 128,
            reason: Reason::Runtime,
        })),
    }
}

fn is_own(place: &str) -> bool {
    OWN_FILES.contains(&&*clean(place))
}

fn name(point: &Point) -> &str {
    match point.shown.kind.as_str() {
        "tmpfs" => "tmpfs",
        _ => &point.shown.source,
    }
}

fn is_directory(point: &Point) -> bool {
    let leads_to_one = |path: &Path| std::fs::metadata(path).is_ok_and(|found| found.is_dir());
    match (point.shown.kind.as_str(), &point.stack) {
        ("bind", _) => leads_to_one(Path::new(&point.shown.source)),
        (_, Some(stack)) if stack.kind == "bind" => leads_to_one(&stack.source),
        // A part of a volume may be a file.
        _ => point.subpath.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: &str, source: &str, destination: &str, subpath: &str) -> String {
        let shown = engine_api::container::MountPoint {
            kind: kind.to_owned(),
            source: source.to_owned(),
            destination: destination.to_owned(),
            ..Default::default()
        };
        let point = Point { subpath: subpath.to_owned(), ..Point::new(shown) };
        refuse_directories(&[point], &HostConfig::default()).map_or_else(|refused| refused.message, |()| String::new())
    }

    #[test]
    fn directories_do_not_take_the_place_of_our_files() {
        const WHY: &str = "not a directory: Are you trying to mount a directory onto a file (or vice-versa)? Check if the \
                           specified host path exists and is the expected type";
        let refused = |mounted: &str, place: &str| {
            format!("error mounting \"{mounted}\" to rootfs at \"{place}\": mount src={mounted}, dst={place}: {WHY}")
        };
        for (kind, source, destination, subpath, wanted) in [
            ("bind", "/etc", "/etc/hostname", "", refused("/etc", "/etc/hostname")),
            ("bind", "/etc", "/etc//hosts/", "", refused("/etc", "/etc//hosts/")),
            ("volume", "/data/v", "/etc/resolv.conf", "", refused("/data/v", "/etc/resolv.conf")),
            ("tmpfs", "", "/etc/hosts", "", refused("tmpfs", "/etc/hosts")),
            ("volume", "/data/v", "/etc/hosts", "file", String::new()),
            ("bind", "/etc/passwd", "/etc/hosts", "", String::new()),
            ("bind", "/etc", "/etc/hosts.d", "", String::new()),
        ] {
            assert_eq!(told(kind, source, destination, subpath), wanted, "{kind} {source} {destination}");
        }
        let host =
            HostConfig { tmpfs: Some([("/etc/hosts".to_owned(), String::new())].into()), ..HostConfig::default() };
        assert_eq!(refuse_directories(&[], &host).unwrap_err().exit_code, 127);
    }
}
