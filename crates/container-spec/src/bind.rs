//! Bind mounts: the short form `SOURCE:TARGET[:OPTIONS]` and the long form, one value for both.

use std::path::PathBuf;

use engine_api::container::MountPoint;
use engine_api::host_config::{BindOptions, HostConfig, Mount};

use crate::validate::{InvalidRequest, MountFault};

/// Docker's mount propagation where none is asked for.
pub const PROPAGATION_DEFAULT: &str = "rprivate";

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];

/// One bind mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// On the host; absolute and clean.
    pub source: String,
    /// In the container; absolute and clean.
    pub target: String,
    /// The options of the short form as written; empty for the long form.
    pub mode: String,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// The long form's options.
    pub options: BindOptions,
    /// Whether the source is made when it is missing: always for the short form.
    pub create_source: bool,
}

impl Bind {
    /// How mounts pass between host and container.
    pub fn propagation(&self) -> &str {
        match self.options.propagation.as_str() {
            "" => PROPAGATION_DEFAULT,
            propagation => propagation,
        }
    }
}

/// A place on the host that a start needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindSource {
    /// Where.
    pub path: PathBuf,
    /// Whether a directory is made there if it is missing; otherwise that is an error
    /// ([`crate::validate::missing_bind_source`]).
    pub create: bool,
}

/// The places on the host that bind mounts need, in the request's order.
pub fn bind_sources(host: &HostConfig) -> Result<Vec<BindSource>, InvalidRequest> {
    let source = |bind: Bind| BindSource { path: bind.source.into(), create: bind.create_source };
    Ok(parse_all(host)?.into_iter().map(source).collect())
}

/// The `Mounts` of `inspect`.
pub fn mount_points(host: &HostConfig) -> Result<Vec<MountPoint>, InvalidRequest> {
    let bind_point = |bind: Bind| MountPoint {
        kind: "bind".to_owned(),
        propagation: bind.propagation().to_owned(),
        rw: !bind.read_only,
        source: bind.source,
        destination: bind.target,
        mode: bind.mode,
        ..MountPoint::default()
    };
    let mut points: Vec<MountPoint> = parse_all(host)?.into_iter().map(bind_point).collect();
    // tmpfs of the short form (HostConfig.Tmpfs) is not listed by Docker either.
    for mount in host.mounts.iter().flatten().filter(|mount| mount.kind == "tmpfs") {
        points.push(MountPoint {
            kind: "tmpfs".to_owned(),
            destination: clean(&mount.target),
            rw: !mount.read_only,
            ..MountPoint::default()
        });
    }
    Ok(points)
}

/// All bind mounts, short form first; two mounts at one place are refused, also if one is a tmpfs.
pub fn parse_all(host: &HostConfig) -> Result<Vec<Bind>, InvalidRequest> {
    let mut binds = Vec::new();
    let mut taken: Vec<String> = Vec::new();
    let mut take = |target: &str| {
        let path = clean(target);
        if taken.contains(&path) {
            return Err(InvalidRequest::DuplicateMount { path });
        }
        taken.push(path);
        Ok(())
    };
    for raw in host.binds.iter().flatten() {
        let bind = parse_bind(raw)?;
        take(&bind.target)?;
        binds.push(bind);
    }
    for mount in host.mounts.iter().flatten() {
        check_mount(mount)?;
        take(&mount.target)?;
        if mount.kind == "bind" {
            binds.push(long_form(mount));
        }
    }
    for destination in host.tmpfs.iter().flat_map(|tmpfs| tmpfs.keys()) {
        take(destination)?;
    }
    match binds.iter().any(|bind| !matches!(bind.propagation(), "private" | "rprivate")) {
        true => Err(InvalidRequest::NotOffered { option: "bind propagation other than private and rprivate" }),
        false => Ok(binds),
    }
}

/// Reads `/host:/container:ro,z`.
pub fn parse_bind(raw: &str) -> Result<Bind, InvalidRequest> {
    let invalid = || InvalidRequest::VolumeSpec { raw: raw.to_owned() };
    let parts: Vec<&str> = raw.split(':').collect();
    let (source, target, mode) = match parts[..] {
        ["", ..] => return Err(invalid()),
        [_] => return Err(InvalidRequest::NotOffered { option: "--volume without a source" }),
        // A target and options without a source: `/foo:rw`.
        [_, target] if is_mode(target) => return Err(invalid()),
        [source, target] => (source, target, ""),
        [source, target, mode] => (source, target, mode),
        _ => return Err(invalid()),
    };
    if !is_mode(mode) {
        return Err(InvalidRequest::VolumeMode { mode: mode.to_owned() });
    }
    if source.contains('\0') {
        return Err(InvalidRequest::NulByte);
    }
    let kind = if source.starts_with('/') { "bind" } else { "volume" };
    check_target(target).map_err(|fault| InvalidRequest::VolumeSpecMount {
        raw: raw.to_owned(),
        kind: kind.to_owned(),
        fault,
    })?;
    if kind == "volume" {
        return Err(InvalidRequest::NotOffered { option: "--volume NAME:PATH" });
    }
    let propagation = mode.split(',').find(|word| PROPAGATIONS.contains(word)).unwrap_or_default();
    Ok(Bind {
        source: clean(source),
        target: clean(target),
        mode: mode.to_owned(),
        read_only: mode.split(',').any(|word| word == "ro"),
        options: BindOptions { propagation: propagation.to_owned(), ..BindOptions::default() },
        create_source: true,
    })
}

fn long_form(mount: &Mount) -> Bind {
    let options = mount.bind_options.clone().unwrap_or_default();
    Bind {
        source: clean(&mount.source),
        target: clean(&mount.target),
        mode: String::new(),
        read_only: mount.read_only,
        create_source: options.create_mountpoint,
        options,
    }
}

/// Checks one mount of the long form.
pub fn check_mount(mount: &Mount) -> Result<(), InvalidRequest> {
    let fault = |fault| InvalidRequest::Mount { kind: mount.kind.clone(), fault };
    if mount.target.is_empty() {
        return Err(fault(MountFault::Missing("Target")));
    }
    check_target(&mount.target).map_err(fault)?;
    match mount.kind.as_str() {
        "bind" => check_long_bind(mount).map_err(fault)?,
        "tmpfs" => check_long_tmpfs(mount).map_err(fault)?,
        "volume" => return Err(InvalidRequest::NotOffered { option: "--mount type=volume" }),
        "image" => return Err(InvalidRequest::NotOffered { option: "--mount type=image" }),
        "cluster" => return Err(InvalidRequest::NotOffered { option: "--mount type=cluster" }),
        _ => return Err(fault(MountFault::Kind)),
    }
    let options = mount.bind_options.as_ref();
    match options.is_some_and(|options| options.read_only_non_recursive && options.read_only_force_recursive) {
        true => Err(InvalidRequest::ReadOnlyConflict),
        false => Ok(()),
    }
}

fn check_long_bind(mount: &Mount) -> Result<(), MountFault> {
    if mount.source.is_empty() {
        return Err(MountFault::Missing("Source"));
    }
    let propagation = mount.bind_options.as_ref().map_or("", |options| &options.propagation);
    if !propagation.is_empty() && !PROPAGATIONS.contains(&propagation) {
        return Err(MountFault::Propagation(propagation.to_owned()));
    }
    check_extra("VolumeOptions", mount.volume_options.is_some())?;
    check_extra("ImageOptions", mount.image_options.is_some())?;
    check_extra("TmpfsOptions", mount.tmpfs_options.is_some())?;
    check_absolute(&mount.source)
}

fn check_long_tmpfs(mount: &Mount) -> Result<(), MountFault> {
    check_extra("BindOptions", mount.bind_options.is_some())?;
    check_extra("VolumeOptions", mount.volume_options.is_some())?;
    check_extra("ImageOptions", mount.image_options.is_some())?;
    check_extra("Source", !mount.source.is_empty())?;
    crate::mounts::long_tmpfs_data(mount).map(drop)
}

fn check_extra(field: &'static str, given: bool) -> Result<(), MountFault> {
    if given { Err(MountFault::Extra(field)) } else { Ok(()) }
}

/// A mount's place: absolute, and not the root itself.
pub(crate) fn check_target(target: &str) -> Result<(), MountFault> {
    if clean(target) == "/" {
        return Err(MountFault::Root);
    }
    check_absolute(target)
}

fn check_absolute(path: &str) -> Result<(), MountFault> {
    match path.starts_with('/') && !path.contains('\0') {
        true => Ok(()),
        false => Err(MountFault::Relative(path.to_owned())),
    }
}

/// Whether a word list is one of options, with at most one of each group.
fn is_mode(mode: &str) -> bool {
    let groups: [&[&str]; 5] =
        [&["rw", "ro"], &["z", "Z"], &PROPAGATIONS, &["nocopy"], &["consistent", "cached", "delegated"]];
    if mode.is_empty() {
        return true;
    }
    let mut used = [0; 5];
    for word in mode.split(',') {
        match groups.iter().position(|group| group.contains(&word)) {
            Some(group) => used[group] += 1,
            None => return false,
        }
    }
    used.iter().all(|count| *count <= 1)
}

/// A path without empty, `.` and `..` parts, as Go's `path.Clean` makes it; lexical, so only for absolute paths of a mount.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    if path.starts_with('/') { format!("/{joined}") } else { joined }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: &str, expected: Result<(&str, &str, bool), &str>) {
        let parsed = parse_bind(raw).map(|bind| (bind.source, bind.target, bind.read_only));
        let parsed = parsed.map_err(|err| err.to_string());
        let parsed = parsed.as_ref().map(|(source, target, ro)| (source.as_str(), target.as_str(), *ro));
        assert_eq!(parsed.map_err(|err| err.as_str()), expected);
    }

    #[test]
    fn binds_are_read_as_docker_reads_them() {
        check("/a:/b", Ok(("/a", "/b", false)));
        check("/a/../x//y/:/b/.:ro,z", Ok(("/x/y", "/b", true)));
        check("/a:/b:rw,rprivate,cached", Ok(("/a", "/b", false)));
        check("/a:/b:ro,rw", Err("invalid mode: ro,rw"));
        check("/a:/b:q", Err("invalid mode: q"));
        check("a:b:c:d", Err("invalid volume specification: 'a:b:c:d'"));
        check(":/b", Err("invalid volume specification: ':/b'"));
        check("/foo:rw", Err("invalid volume specification: '/foo:rw'"));
        check(
            "/a:b",
            Err(
                "invalid volume specification: '/a:b': invalid mount config for type \"bind\": invalid mount path: 'b' \
                 mount path must be absolute",
            ),
        );
        check(
            "/a:/",
            Err(
                "invalid volume specification: '/a:/': invalid mount config for type \"bind\": invalid specification: \
                 destination can't be '/'",
            ),
        );
        check("/a\0:/b", Err("invalid request: a value contains a NUL byte"));
        check("data:/b", Err("--volume NAME:PATH is not supported yet"));
    }

    #[test]
    fn one_place_takes_one_mount() {
        let host = |binds: &[&str], tmpfs: &str| HostConfig {
            binds: Some(binds.iter().map(|bind| bind.to_string()).collect()),
            tmpfs: Some([(tmpfs.to_owned(), String::new())].into()),
            ..HostConfig::default()
        };
        let message = |host| parse_all(&host).unwrap_err().to_string();
        assert_eq!(message(host(&["/tmp:/b", "/:/b/"], "/c")), "Duplicate mount point: /b");
        assert_eq!(message(host(&["/tmp:/b"], "/b")), "Duplicate mount point: /b");
        assert_eq!(parse_all(&host(&["/tmp:/b"], "/c")).unwrap().len(), 1);
        assert!(message(host(&["/tmp:/b:rslave"], "/c")).contains("not supported yet"));
    }
}
