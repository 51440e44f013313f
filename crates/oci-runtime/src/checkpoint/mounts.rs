//! Mounts that CRIU cannot make by itself, because they come from the host, and where they are in the container.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use cgroup::{Cgroup, Hierarchies, Version};
use oci::runtime::NamespaceKind;
use oci::runtime::Spec;

use super::{bytes, has_own};
use crate::error::PlanError;
use crate::mounts::{MountKind, MountPlan, v1_mounts};
use crate::target::{self, Missing};

/// A mount of the host's: its place in the container, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outside {
    pub(super) place: PathBuf,
    pub(super) source: PathBuf,
}

impl Outside {
    /// For a dump both are the place: the name under which the restore looks for it.
    pub(super) fn named(&self) -> (Vec<u8>, Vec<u8>) {
        (bytes(&self.place), bytes(&self.place))
    }

    /// For a restore. CRIU works in another directory than we: sources are made absolute.
    pub(super) fn sourced(&self) -> (Vec<u8>, Vec<u8>) {
        let source = std::path::absolute(&self.source).unwrap_or_else(|_| self.source.clone());
        (bytes(&self.place), bytes(&source))
    }
}

/// All of them. `resolve` says where a path of the specification really is in the container.
pub(super) fn outside(
    spec: &Spec,
    cgroup: &Cgroup,
    hierarchies: &Hierarchies,
    resolve: impl Fn(&Path) -> PathBuf,
) -> Result<Vec<Outside>, PlanError> {
    let mut found = Vec::new();
    for mount in &spec.mounts {
        let plan = MountPlan::below_root(mount)?;
        let place = resolve(&plan.destination);
        match plan.kind {
            MountKind::Bind => found.push(Outside { place, source: plan.source }),
            MountKind::Cgroup if cgroup.version == Version::V1 => {
                let binds = v1_mounts(cgroup).map(|(name, directory)| (place.join(name), directory.to_owned()));
                found.extend(binds.map(|(place, source)| Outside { place, source }));
            }
            MountKind::Cgroup if !has_own(spec, NamespaceKind::Cgroup) => {
                let source = hierarchies.unified.clone().unwrap_or_else(|| "/sys/fs/cgroup".into());
                found.push(Outside { place, source });
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Where `path` is below `root`, links followed as the container follows them; what is not there yet is taken as it is.
pub(super) fn real_place(root: BorrowedFd<'_>, path: &Path) -> PathBuf {
    let real = |above: &Path| {
        let fd = target::open(root, above, Missing::Refuse).ok()?;
        let place = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
        let missing = path.strip_prefix(above).ok()?;
        place.is_absolute().then(|| place.join(missing).components().collect())
    };
    path.ancestors().find_map(real).unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(version: Version) -> Cgroup {
        let directories = vec![
            (vec![cgroup::Controller::Memory], PathBuf::from("/sys/fs/cgroup/memory/a/b")),
            (
                vec![cgroup::Controller::Cpu, cgroup::Controller::Cpuacct],
                PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/a/b"),
            ),
        ];
        let mut cgroup = Cgroup::none(&Hierarchies::default(), Path::new("/a/b"));
        (cgroup.version, cgroup.directories) = (version, directories);
        cgroup
    }

    fn places(version: Version, namespaces: &str) -> Vec<String> {
        let spec: Spec = serde_json::from_value(serde_json::json!({
            "mounts": [
                {"destination": "/proc", "type": "proc"},
                {"destination": "/data/", "source": "/srv", "options": ["rbind"]},
                {"destination": "/run/x", "type": "none", "source": "/y", "options": ["bind"]},
                {"destination": "/tmp", "type": "tmpfs"},
                {"destination": "/sys/fs/cgroup", "type": "cgroup"},
            ],
            "linux": {"namespaces": serde_json::from_str::<serde_json::Value>(namespaces).unwrap()},
        }))
        .unwrap();
        let hierarchies = Hierarchies { unified: Some("/cg".into()), ..Hierarchies::default() };
        let found = outside(&spec, &cgroup(version), &hierarchies, |path| {
            Path::new("/r").join(path.strip_prefix("/").unwrap())
        });
        let show = |outside: &Outside| format!("{} < {}", outside.place.display(), outside.source.display());
        found.unwrap().iter().map(show).collect()
    }

    #[test]
    fn mounts_of_the_hosts_are_told_from_the_containers() {
        let binds = ["/r/data < /srv", "/r/run/x < /y"];
        let v1 = [
            "/r/sys/fs/cgroup/memory < /sys/fs/cgroup/memory/a/b",
            "/r/sys/fs/cgroup/cpu,cpuacct < /sys/fs/cgroup/cpu,cpuacct/a/b",
        ];
        assert_eq!(places(Version::V1, "[]"), [&binds[..], &v1].concat());
        assert_eq!(places(Version::V2, r#"[{"type": "cgroup"}]"#), binds);
        assert_eq!(places(Version::V2, "[]"), [&binds[..], &["/r/sys/fs/cgroup < /cg"]].concat());
    }
}
