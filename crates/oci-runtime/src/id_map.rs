//! Id-mapped mounts: files that show other owners than they have (mount_setattr(2), "ID-mapped mounts").

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use oci::runtime::{IdMapping, Mount};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::UnshareFlags;
use sys::fork::{NewNamespaces, fork};

use crate::birth::{REAP_WITHIN, end};
use crate::error::{CreateError, PlanError};
use crate::fault::Part;
use crate::field::FieldError;
use crate::mounts::{MountKind, MountPlan};
use crate::user_namespace::{self, GROUPS, USERS, UserNamespace, write_map};

/// How the ids of one mount are mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdMap {
    /// With everything mounted below.
    pub(crate) recursive: bool,
    /// Users and groups; the container's own user namespace where there are none.
    pub(crate) ids: Option<(Vec<IdMapping>, Vec<IdMapping>)>,
}

impl IdMap {
    /// What options (`idmap`, `ridmap`) and mappings ask for. Mappings alone mean `idmap`, as with runc.
    pub(crate) fn plan(field: &str, mount: &Mount, asked: Option<bool>) -> Result<Option<IdMap>, PlanError> {
        let (users, groups) = (&mount.uid_mappings, &mount.gid_mappings);
        user_namespace::check(&format!("{field}.uidMappings"), users)?;
        user_namespace::check(&format!("{field}.gidMappings"), groups)?;
        let fault = "is empty, and an id-mapped mount needs both";
        let missing = |part: &str| Err(FieldError::Mapping { fault }.at(format!("{field}.{part}")));
        match (users.is_empty(), groups.is_empty()) {
            (true, true) => Ok(asked.map(|recursive| IdMap { recursive, ids: None })),
            (true, false) => missing("uidMappings"),
            (false, true) => missing("gidMappings"),
            (false, false) => {
                let ids = Some((users.clone(), groups.clone()));
                Ok(Some(IdMap { recursive: asked.unwrap_or(false), ids }))
            }
        }
    }
}

/// Refuses what no kernel does, and mappings of a user namespace that is not there.
pub(crate) fn check(mounts: &[MountPlan], user: Option<&UserNamespace>) -> Result<(), PlanError> {
    for mount in mounts {
        let Some(map) = &mount.id_map else { continue };
        if mount.kind != MountKind::Bind {
            let of = "a mount that is no bind mount: ids are mapped of those alone";
            return Err(FieldError::Option { option: "idmap".into(), of }.at(Part::Ids.of(mount)));
        }
        if map.ids.is_none() && user.is_none() {
            let with = "uidMappings and gidMappings, or a user namespace whose ids are mapped";
            return Err(FieldError::Needs { with }.at(Part::Options.of(mount)));
        }
    }
    Ok(())
}

/// Maps the ids of a detached mount; `container` is a process of the container's user namespace.
pub(crate) fn apply(mount: BorrowedFd<'_>, plan: &MountPlan, container: Option<Pid>) -> Result<(), CreateError> {
    let Some(map) = &plan.id_map else { return Ok(()) };
    let failed = || Part::Ids.fault::<io::Error>(plan, format!("map the ids of {}", plan.source.display()));
    let namespace = match (&map.ids, container) {
        (Some((users, groups)), _) => with_ids(&plan.field, users, groups)?,
        (None, Some(pid)) => namespace_of(pid)?,
        (None, None) => return Err(failed()(Errno::INVAL.into()).into()),
    };
    Ok(sys::mount::map_ids(mount, namespace.as_fd(), map.recursive).map_err(failed())?)
}

fn namespace_of(pid: Pid) -> Result<OwnedFd, CreateError> {
    let path = PathBuf::from(format!("/proc/{}/ns/user", pid.as_raw_nonzero()));
    File::open(&path).map(OwnedFd::from).map_err(|source| CreateError::Read { path, source })
}

/// A user namespace with these ids, which lives as long as the descriptor.
fn with_ids(field: &str, users: &[IdMapping], groups: &[IdMapping]) -> Result<OwnedFd, CreateError> {
    let failed = |action| move |source| CreateError::Clone { action, source };
    let (hold, held) = io::pipe().map_err(failed("make a pipe"))?;
    let held = Cell::new(Some(held));
    let holder = fork(NewNamespaces(u64::from(UnshareFlags::NEWUSER.bits())), None, || {
        // A copy of ours would keep it from seeing our death.
        drop(held.take());
        // It is killed when the namespace is open.
        let _ = rustix::io::read(&hold, &mut [0; 1]);
        0
    });
    let holder = holder.map_err(failed("clone a user namespace"))?;
    let mapped = write_map(&format!("{field}.uidMappings"), holder.pid, users, &USERS)
        .and_then(|()| write_map(&format!("{field}.gidMappings"), holder.pid, groups, &GROUPS));
    let opened = mapped.and_then(|()| namespace_of(holder.pid));
    end(&holder, REAP_WITHIN);
    opened
}
