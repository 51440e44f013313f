//! What users write for mounts: the short form `SOURCE:TARGET[:OPTIONS]`, the long form, and `CONTAINER[:OPTIONS]`.

use engine_api::host_config::Mount;
use engine_api::paths::clean;

use crate::validate::{InvalidRequest, MountFault};

/// Docker's mount propagation where none is asked for.
pub const PROPAGATION_DEFAULT: &str = "rprivate";

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];

/// A mount of the short form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// A path on the host, absolute and clean; or a volume's name, empty for one that nobody named.
    pub source: String,
    /// Whether the source is a volume's name.
    pub is_volume: bool,
    /// In the container; absolute and clean.
    pub target: String,
    /// The options as written.
    pub mode: String,
    /// How mounts pass between host and container; empty for the default.
    pub propagation: String,
}

impl Bind {
    /// Whether one of the options is `word`.
    pub fn has(&self, word: &str) -> bool {
        has(&self.mode, word)
    }
}

/// Reads `/host:/container:ro,z` and `volume:/container`.
pub fn parse_bind(raw: &str) -> Result<Bind, InvalidRequest> {
    let invalid = || InvalidRequest::VolumeSpec { raw: raw.to_owned() };
    let parts: Vec<&str> = raw.split(':').collect();
    let (source, target, mode) = match parts[..] {
        ["", ..] => return Err(invalid()),
        // A target alone: a volume of the container's own.
        [target] => ("", target, ""),
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
    let is_volume = !source.starts_with('/');
    let kind = if is_volume { "volume" } else { "bind" };
    let propagation = mode.split(',').find(|word| PROPAGATIONS.contains(word)).unwrap_or_default();
    let checked = check_target(target).and_then(|()| match is_volume {
        true => check_extra("BindOptions", !propagation.is_empty()),
        false => check_extra("VolumeOptions", has(mode, "nocopy")),
    });
    checked.map_err(|fault| InvalidRequest::VolumeSpecMount { raw: raw.to_owned(), kind: kind.to_owned(), fault })?;
    Ok(Bind {
        source: if is_volume { source.to_owned() } else { clean(source) },
        is_volume,
        target: clean(target),
        mode: mode.to_owned(),
        propagation: propagation.to_owned(),
    })
}

/// Reads `container:ro` of `--volumes-from`: the container, and whether its mounts stay writable.
pub fn parse_volumes_from(raw: &str) -> Result<(&str, bool), InvalidRequest> {
    if raw.is_empty() {
        return Err(InvalidRequest::VolumesFromEmpty);
    }
    let (container, mode) = raw.split_once(':').unwrap_or((raw, ""));
    // These say how something is mounted anew, which it is not.
    let foreign = mode.split(',').any(|word| word == "nocopy" || PROPAGATIONS.contains(&word));
    match is_mode(mode) && !foreign {
        true => Ok((container, !has(mode, "ro"))),
        false => Err(InvalidRequest::VolumesFromMode { mode: mode.to_owned() }),
    }
}

fn has(mode: &str, word: &str) -> bool {
    mode.split(',').any(|own| own == word)
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
        "volume" => check_long_volume(mount).map_err(fault)?,
        "image" => check_long_image(mount).map_err(fault)?,
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

fn check_long_volume(mount: &Mount) -> Result<(), MountFault> {
    check_extra("BindOptions", mount.bind_options.is_some())?;
    check_extra("ImageOptions", mount.image_options.is_some())?;
    check_extra("TmpfsOptions", mount.tmpfs_options.is_some())?;
    let subpath = mount.volume_options.as_ref().map_or("", |options| &options.subpath);
    match mount.source.is_empty() {
        true if !subpath.is_empty() => Err(MountFault::AnonymousSubpath),
        true if mount.read_only => Err(MountFault::AnonymousReadOnly),
        _ if !is_local(subpath) => Err(MountFault::Subpath),
        _ => Ok(()),
    }
}

fn check_long_image(mount: &Mount) -> Result<(), MountFault> {
    check_extra("BindOptions", mount.bind_options.is_some())?;
    check_extra("VolumeOptions", mount.volume_options.is_some())?;
    check_extra("TmpfsOptions", mount.tmpfs_options.is_some())?;
    let subpath = mount.image_options.as_ref().map_or("", |options| &options.subpath);
    match mount.source.is_empty() {
        true => Err(MountFault::Missing("Source")),
        false if !is_local(subpath) => Err(MountFault::Subpath),
        false => Ok(()),
    }
}

/// Whether a path is relative and leaves its directory at no point, as Go's `filepath.IsLocal` tells it; also if empty.
fn is_local(path: &str) -> bool {
    let mut depth = 0_i64;
    let stays = path.split('/').all(|part| {
        depth += match part {
            "" | "." => 0,
            ".." => -1,
            _ => 1,
        };
        depth >= 0
    });
    stays && !path.starts_with('/') && !path.contains('\0')
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: &str, expected: Result<(&str, &str, bool), &str>) {
        let parsed = parse_bind(raw).map(|bind| (bind.source.clone(), bind.target.clone(), bind.has("ro")));
        let parsed = parsed.map_err(|err| err.to_string());
        let parsed = parsed.as_ref().map(|(source, target, ro)| (source.as_str(), target.as_str(), *ro));
        assert_eq!(parsed.map_err(|err| err.as_str()), expected);
    }

    #[test]
    fn binds_are_read_as_docker_reads_them() {
        check("/a:/b", Ok(("/a", "/b", false)));
        check("/a/../x//y/:/b/.:ro,z", Ok(("/x/y", "/b", true)));
        check("/a:/b:rw,rprivate,cached", Ok(("/a", "/b", false)));
        check("/a", Ok(("", "/a", false)));
        check("/a/../b", Ok(("", "/b", false)));
        check(
            "a",
            Err(
                "invalid volume specification: 'a': invalid mount config for type \"volume\": invalid mount path: 'a' mount \
                 path must be absolute",
            ),
        );
        check(
            "/",
            Err("invalid volume specification: '/': invalid mount config for type \"volume\": invalid specification: \
                 destination can't be '/'"),
        );
        check("", Err("invalid volume specification: ''"));
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
        check(
            "/a:/b:nocopy",
            Err(
                "invalid volume specification: '/a:/b:nocopy': invalid mount config for type \"bind\": field VolumeOptions must not be specified",
            ),
        );
        check("data:/b:ro,nocopy", Ok(("data", "/b", true)));
        check("../x:/b/..//c", Ok(("../x", "/c", false)));
        check("data:/b:copy", Err("invalid mode: copy"));
        check(
            "data:/b:rprivate",
            Err("invalid volume specification: 'data:/b:rprivate': invalid mount config for type \"volume\": field \
                 BindOptions must not be specified"),
        );
        check(
            "data:b",
            Err(
                "invalid volume specification: 'data:b': invalid mount config for type \"volume\": invalid mount path: \
                 'b' mount path must be absolute",
            ),
        );
    }

    #[test]
    fn containers_whose_mounts_are_shared_are_read_as_docker_reads_them() {
        for (raw, expected) in [
            ("c", Ok(("c", true))),
            ("c:", Ok(("c", true))),
            ("c:rw", Ok(("c", true))),
            ("c:ro,z", Ok(("c", false))),
            ("", Err("volumes-from specification cannot be an empty string")),
            ("c:zz", Err("invalid mode: zz")),
            ("c:nocopy", Err("invalid mode: nocopy")),
            ("c:rprivate", Err("invalid mode: rprivate")),
        ] {
            let parsed = parse_volumes_from(raw).map_err(|err| err.to_string());
            assert_eq!(parsed.as_ref().map(|parsed| *parsed).map_err(String::as_str), expected, "{raw}");
        }
    }

    #[test]
    fn parts_of_volumes_stay_in_them() {
        for (path, local) in
            [("", true), ("a/b", true), ("a/../b", true), ("..", false), ("a/../../b", false), ("/a", false)]
        {
            assert_eq!(is_local(path), local, "{path}");
        }
    }
}
