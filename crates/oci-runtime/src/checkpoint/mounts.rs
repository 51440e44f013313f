//! Mounts that CRIU cannot make by itself, because they come from the host, and where they are in the container.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use cgroup::{Cgroup, Hierarchies, Version};
use rustix::thread::ThreadNameSpaceType;

use super::bytes;
use crate::mounts::{MountKind, unified, v1_mounts};
use crate::plan::Plan;
use crate::supply::nodes;
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
    plan: &Plan,
    cgroup: &Cgroup,
    hierarchies: &Hierarchies,
    resolve: impl Fn(&Path) -> PathBuf,
) -> Vec<Outside> {
    // Without a user namespace they are the container's own.
    let nodes = plan.user.iter().flat_map(|_| nodes(plan));
    let mut found: Vec<_> = nodes.map(|(_, path)| Outside { place: resolve(path), source: path.to_owned() }).collect();
    for mount in &plan.mounts {
        let place = resolve(&mount.destination);
        match mount.kind {
            MountKind::Bind => found.push(Outside { place, source: mount.source.clone() }),
            MountKind::Cgroup if cgroup.version == Version::V1 => {
                let binds = v1_mounts(cgroup).map(|(name, directory)| (place.join(name), directory.to_owned()));
                found.extend(binds.map(|(place, source)| Outside { place, source }));
            }
            MountKind::Cgroup if !plan.namespaces.all.contains(ThreadNameSpaceType::CONTROL_GROUP) => {
                found.push(Outside { place, source: unified(hierarchies).to_owned() });
            }
            _ => {}
        }
    }
    found
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
    use oci::runtime::{IdMapping, NamespaceKind, Spec};

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

    fn places(version: Version, namespaces: &[&str]) -> Vec<String> {
        let namespaces: Vec<_> = namespaces.iter().map(|kind| serde_json::json!({"type": kind})).collect();
        let mut spec: Spec = serde_json::from_value(serde_json::json!({
            "process": {"args": ["true"], "cwd": "/"},
            "mounts": [
                {"destination": "/proc", "type": "proc"},
                {"destination": "/data/", "source": "/srv", "options": ["rbind"]},
                {"destination": "/run/x", "type": "none", "source": "/y", "options": ["bind"]},
                {"destination": "/tmp", "type": "tmpfs"},
                {"destination": "/sys/fs/cgroup", "type": "cgroup"},
            ],
            "linux": {"namespaces": namespaces},
        }))
        .unwrap();
        if spec.linux.namespaces.iter().any(|namespace| namespace.kind == NamespaceKind::User) {
            spec.linux.uid_mappings = vec![IdMapping { container_id: 0, host_id: 1, size: 9 }];
            spec.linux.gid_mappings = spec.linux.uid_mappings.clone();
        }
        let plan = Plan::new(&spec).unwrap();
        let hierarchies = Hierarchies { unified: Some("/cg".into()), ..Hierarchies::default() };
        let below = |path: &Path| Path::new("/r").join(path.strip_prefix("/").unwrap());
        let show = |outside: Outside| format!("{} < {}", outside.place.display(), outside.source.display());
        outside(&plan, &cgroup(version), &hierarchies, below).into_iter().map(show).collect()
    }

    #[test]
    fn mounts_of_the_hosts_are_told_from_the_containers() {
        let binds = ["/r/data < /srv", "/r/run/x < /y"];
        let v1 = [
            "/r/sys/fs/cgroup/memory < /sys/fs/cgroup/memory/a/b",
            "/r/sys/fs/cgroup/cpu,cpuacct < /sys/fs/cgroup/cpu,cpuacct/a/b",
        ];
        assert_eq!(places(Version::V1, &["mount"]), [&binds[..], &v1].concat());
        assert_eq!(places(Version::V2, &["mount", "cgroup"]), binds);
        assert_eq!(places(Version::V2, &["mount"]), [&binds[..], &["/r/sys/fs/cgroup < /cg"]].concat());
        let with_user = places(Version::V2, &["mount", "cgroup", "user"]);
        assert!(with_user.contains(&"/r/dev/null < /dev/null".to_owned()), "{with_user:?}");
        assert_eq!(with_user.len(), binds.len() + 6);
    }
}
