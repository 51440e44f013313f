//! Whose the container's cgroup is (runtime-spec config-linux.md, "Cgroup ownership"): its user's, if it may write there.

use std::io;
use std::path::Path;

use cgroup::{Cgroup, CgroupError, Version};
use sys::mount::Attributes;

use crate::mounts::{MountKind, MountPlan};
use crate::plan::Plan;
use crate::rootless::is_rootless;
use crate::user_namespace::UserNamespace;

/// Gives the cgroup to the host's id of `uid`, where that is somebody else's than ours and the plan lets the container write.
pub(crate) fn delegate(plan: &Plan, uid: u32, cgroup: &Cgroup) -> Result<(), CgroupError> {
    let owner = match cgroup.version {
        Version::V1 => None,
        Version::V2 => owner(plan, uid),
    };
    match owner.filter(|owner| *owner != rustix::process::geteuid().as_raw()) {
        Some(owner) => match cgroup::delegate(cgroup, owner) {
            // Somebody without privilege has given a container more ids than its own: it does without.
            Err(CgroupError::Io { source, .. }) if is_refusal(&source) && is_rootless() => Ok(()),
            other => other,
        },
        None => Ok(()),
    }
}

fn is_refusal(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput)
}

/// The host's id of the owner. Pure.
fn owner(plan: &Plan, uid: u32) -> Option<u32> {
    let has_own = plan.namespaces.new_cgroup && plan.mounts.iter().any(is_writable);
    let users = match &plan.user {
        _ if !has_own => return None,
        None => return Some(uid),
        Some(UserNamespace::New { users, .. } | UserNamespace::Joined { users, .. }) => users,
    };
    // Of a joined namespace nothing may be known.
    users.iter().find_map(|ids| {
        let offset = uid.checked_sub(ids.container_id).filter(|offset| *offset < ids.size)?;
        ids.host_id.checked_add(offset)
    })
}

fn is_writable(mount: &MountPlan) -> bool {
    mount.kind == MountKind::Cgroup
        && mount.source == Path::new("cgroup")
        && mount.destination == Path::new("/sys/fs/cgroup")
        && mount.options.attributes.set & Attributes::READ_ONLY == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::runtime::{IdMapping, Mount, Namespace, NamespaceKind, Spec};

    fn owner_of(options: &[&str], kinds: &[NamespaceKind], uid: u32) -> Option<u32> {
        let mut spec = Spec::default();
        spec.linux.namespaces = kinds.iter().map(|kind| Namespace { kind: *kind, path: None }).collect();
        if kinds.contains(&NamespaceKind::User) {
            let ids = vec![
                IdMapping { container_id: 0, host_id: 100_000, size: 10 },
                IdMapping { container_id: 10, host_id: 5, size: 1 },
            ];
            (spec.linux.uid_mappings, spec.linux.gid_mappings) = (ids.clone(), ids);
        }
        spec.mounts = vec![Mount {
            destination: "/sys/fs/cgroup".into(),
            kind: "cgroup".into(),
            source: "cgroup".into(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            ..Mount::default()
        }];
        owner(&Plan::new(&spec).unwrap(), uid)
    }

    #[test]
    fn a_cgroup_that_may_be_written_is_its_users() {
        use NamespaceKind::{Cgroup, Mount, User};
        for (options, kinds, uid, owner) in [
            (&["nosuid"][..], &[Mount, Cgroup][..], 0, Some(0)),
            (&[], &[Mount, Cgroup], 1000, Some(1000)),
            (&["ro"], &[Mount, Cgroup], 1000, None),
            (&["ro", "rw"], &[Mount, Cgroup], 1000, Some(1000)),
            (&[], &[Mount], 1000, None),
            (&[], &[Mount, Cgroup, User], 0, Some(100_000)),
            (&[], &[Mount, Cgroup, User], 10, Some(5)),
            (&[], &[Mount, Cgroup, User], 11, None),
            (&["ro"], &[Mount, Cgroup, User], 0, None),
        ] {
            assert_eq!(owner_of(options, kinds, uid), owner, "{options:?} {kinds:?} {uid}");
        }
    }
}
