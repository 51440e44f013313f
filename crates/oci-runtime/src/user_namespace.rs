//! Containers with a user namespace: new, or joined by path.
//!
//! What a user namespace's root may change must belong to that namespace: its mount namespace, its file systems, its
//! network. And what it shall not change (read-only binds, flags of the host's mounts) must not. So the child itself makes
//! the file systems, with ids mapped; and what is bound of the host is cloned by the parent *in the child's mount
//! namespace*, where the kernel has locked the flags of the host's mounts (mount_namespaces(7), "Restrictions"), but with the
//! parent's credentials, which reach directories that the mapped ids do not. The parent of a user without privilege can do
//! no more than the child, which clones for itself then.
//!
//! ```text
//! parent                        usher                                    child
//! clone  ---------------------> enter the cgroup
//!                               join namespaces, the user's last
//!                               clone, as a child of the parent,
//!                               in all new namespaces -----------------> wait
//!  <---------------------- BORN end
//! write the ids' maps
//! GO ------------------------------------------------------------------> become the namespace's root
//! clone trees in the child's
//!   mount namespace; GIVEN --------------------------------------------> take them, or clone them itself
//!                                                                        make file systems
//!                                                                        go on as every other container's
//! ```
//!
//! The usher is for the namespaces to join: only the caller may join some of them, and who has entered the user namespace
//! has no way back. A new PID, mount or network namespace belongs to the user namespace of whoever makes it, so they are made
//! last. Containers without a user namespace know nothing of all this.

use std::convert::Infallible;
use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;

use oci::runtime::{IdMapping, Linux, NamespaceKind};
use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, set_dumpable_behavior, umask};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces};
use sys::capability;
use sys::fork::{Child, NewNamespaces, fork_sibling};

use crate::birth::{REAP_WITHIN, end, report};
use crate::channel::{At, Channel, Failure, Message};
use crate::child::Birth;
use crate::error::{CreateError, PlanError, ProcessError, Step};
use crate::field::FieldError;
use crate::plan::{Joined, Namespaces};
use crate::process::{open_proc, write_proc};
use crate::supply;

/// The user namespace of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UserNamespace {
    /// Made for it.
    New {
        /// Its users.
        users: Vec<IdMapping>,
        /// Its groups.
        groups: Vec<IdMapping>,
    },
    /// Somebody else's, with the ids that the specification believes it to have; none where it says nothing.
    Joined {
        /// Its users.
        users: Vec<IdMapping>,
        /// Its groups.
        groups: Vec<IdMapping>,
    },
}

/// Extents of a map at most (user_namespaces(7)).
const EXTENTS_MAX: usize = 340;

impl UserNamespace {
    pub(crate) fn plan(linux: &Linux) -> Result<Option<UserNamespace>, PlanError> {
        let (users, groups) = (linux.uid_mappings.clone(), linux.gid_mappings.clone());
        check("linux.uidMappings", &users)?;
        check("linux.gidMappings", &groups)?;
        let fault = "is empty, and a new user namespace needs ids";
        let missing = |field| Err(FieldError::Mapping { fault }.at(field));
        let needed = |field| Err(FieldError::Needs { with: "a user namespace in linux.namespaces" }.at(field));
        match linux.namespaces.iter().find(|namespace| namespace.kind == NamespaceKind::User) {
            None if !users.is_empty() => needed("linux.uidMappings"),
            None if !groups.is_empty() => needed("linux.gidMappings"),
            None => Ok(None),
            Some(namespace) if namespace.path.is_some() => Ok(Some(UserNamespace::Joined { users, groups })),
            Some(_) if users.is_empty() => missing("linux.uidMappings"),
            Some(_) if groups.is_empty() => missing("linux.gidMappings"),
            Some(_) => {
                require_root("linux.uidMappings", &users)?;
                require_root("linux.gidMappings", &groups)?;
                Ok(Some(UserNamespace::New { users, groups }))
            }
        }
    }
}

/// What the kernel would refuse without a reason.
pub(crate) fn check(field: &str, mappings: &[IdMapping]) -> Result<(), PlanError> {
    let fault = |field: String, fault| Err(FieldError::Mapping { fault }.at(field));
    let first_inside: fn(&IdMapping) -> u32 = |mapping| mapping.container_id;
    let first_outside: fn(&IdMapping) -> u32 = |mapping| mapping.host_id;
    if mappings.len() > EXTENTS_MAX {
        return fault(field.to_owned(), "has more than 340 ranges");
    }
    for (index, IdMapping { container_id, host_id, size }) in mappings.iter().copied().enumerate() {
        if size == 0 {
            return fault(format!("{field}[{index}].size"), "0 is no range: it has one id at least");
        }
        for (part, first, first_of) in [("containerID", container_id, first_inside), ("hostID", host_id, first_outside)]
        {
            if first.checked_add(size).is_none() {
                return Err(FieldError::PastEnd { first, size }.at(format!("{field}[{index}].{part}")));
            }
            // Of the earlier ones it is known that they have an end.
            let overlaps = |other: &IdMapping| first < first_of(other) + other.size && first_of(other) < first + size;
            if let Some(other) = mappings[..index].iter().position(overlaps) {
                let other = format!("{field}[{other}]");
                return Err(FieldError::Overlap { first, size, other }.at(format!("{field}[{index}].{part}")));
            }
        }
    }
    Ok(())
}

/// Who makes the container inside is root there: without these ids the files and mounts that he makes would be nobody's.
/// runc ends there, too.
fn require_root(field: &str, mappings: &[IdMapping]) -> Result<(), PlanError> {
    match mappings.iter().any(|mapping| mapping.container_id == 0) {
        true => Ok(()),
        false => Err(FieldError::Mapping { fault: NO_ROOT }.at(field)),
    }
}

const NO_ROOT: &str = "maps no id to 0, as whom the container is made";

/// Whether this process may do with mounts what its children cannot: else it is rootless.
pub(crate) fn is_privileged() -> Result<bool, CreateError> {
    has("CAP_SYS_ADMIN")
}

fn has(capability: &str) -> Result<bool, CreateError> {
    let failed = |source| CreateError::Read { path: "the capabilities of this process".into(), source };
    let number = oci::names::capability_number(capability).map_or(0, |number| 1 << number);
    Ok(capability::effective().map_err(failed)?.0 & number != 0)
}

/// What the bounding set of a process in the container holds before it drops anything.
pub(crate) fn bounding(namespaces: ThreadNameSpaceType) -> capability::Set {
    match namespaces.contains(ThreadNameSpaceType::USER) {
        // Whatever the host lacks: in a user namespace its first process, and whoever joins, has all.
        true => capability::known(),
        false => capability::bounding(),
    }
}

/// The parent's part from the clone of the usher on: the container's first process, which has all it needs of the parent.
pub(crate) fn attend(channel: &Channel, usher: &Child, order: &supply::Order<'_>) -> Result<Child, CreateError> {
    let failed = |action| move |source| CreateError::Clone { action, source };
    let gone = |child: &Child| ProcessError::Died { status: end(child, REAP_WITHIN) }.into();
    let child = match channel.receive().map_err(failed("hear from the container's usher"))? {
        Message::Born(pid, pidfd) => Child { pid, pidfd },
        Message::Failed(err) => {
            end(usher, REAP_WITHIN);
            return Err(err.into());
        }
        _ => return Err(gone(usher)),
    };
    // It has said its last word.
    sys::wait::wait(usher.pidfd.as_fd()).map_err(failed("reap the container's usher"))?;
    let attended = map(child.pid, order).and_then(|()| {
        let sent = channel.send_go().map_err(failed("talk to the container's process"));
        sent.and_then(|()| order.deliver(channel, child.pid))
    });
    match attended {
        Ok(()) => Ok(child),
        Err(err) => {
            end(&child, REAP_WITHIN);
            Err(err)
        }
    }
}

/// Gives the namespace of a process its ids, or makes sure that it has those that are expected.
fn map(pid: Pid, order: &supply::Order<'_>) -> Result<(), CreateError> {
    let file = |name| PathBuf::from(format!("/proc/{}/{name}", pid.as_raw_nonzero()));
    match order.user {
        UserNamespace::New { users, groups } => {
            write_map("linux.uidMappings", pid, users, &USERS)?;
            write_map("linux.gidMappings", pid, groups, &GROUPS)
        }
        UserNamespace::Joined { users, groups } => {
            for (name, field, mappings) in
                [("uid_map", "linux.uidMappings", users), ("gid_map", "linux.gidMappings", groups)]
            {
                let path = file(name);
                let text = fs::read_to_string(&path).map_err(|source| CreateError::Read { path, source })?;
                if !mappings.is_empty() && !is_map(&text, mappings) {
                    let fault = "is not what the user namespace to join has";
                    return Err(FieldError::Mapping { fault }.at(field).into());
                }
                let mut joined = order.plan.namespaces.joined.iter();
                let path = joined.find(|joined| joined.kind == ThreadNameSpaceType::USER).map(|joined| &joined.field);
                if let (Some(path), false) = (path, has_root(&text)) {
                    return Err(FieldError::Mapping { fault: NO_ROOT }.at(path).into());
                }
            }
            Ok(())
        }
    }
}

/// Whether this is what a map file of the kernel says.
fn is_map(text: &str, mappings: &[IdMapping]) -> bool {
    let numbers = |line: &str| line.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>();
    let mut found: Vec<_> = text.lines().filter_map(|line| numbers(line).ok()).collect();
    let mut wanted: Vec<_> = mappings.iter().map(|one| vec![one.container_id, one.host_id, one.size]).collect();
    found.sort_unstable();
    wanted.sort_unstable();
    found == wanted
}

/// Whether a map file of the kernel has the id 0.
fn has_root(text: &str) -> bool {
    text.lines().any(|line| line.split_whitespace().next() == Some("0"))
}

/// One of the two maps.
pub(crate) struct Map {
    file: &'static str,
    capability: &'static str,
    tool: &'static str,
    /// What the caller may map without privilege: itself.
    own: fn() -> u32,
}

pub(crate) const USERS: Map =
    Map { file: "uid_map", capability: "CAP_SETUID", tool: "newuidmap", own: || rustix::process::geteuid().as_raw() };

pub(crate) const GROUPS: Map =
    Map { file: "gid_map", capability: "CAP_SETGID", tool: "newgidmap", own: || rustix::process::getegid().as_raw() };

/// Writes one map, by the program that is installed for it where this process may not; `field` is the mappings' full name.
pub(crate) fn write_map(field: &str, pid: Pid, mappings: &[IdMapping], map: &Map) -> Result<(), CreateError> {
    let write = |name: &str, text: &str| {
        let path = format!("{}/{name}", pid.as_raw_nonzero());
        let written = open_proc().and_then(|proc| write_proc(proc.as_fd(), &path, text));
        written.map_err(|source| CreateError::WriteMap {
            field: field.to_owned(),
            program: format!("/proc/{path}"),
            source,
        })
    };
    let only_own = matches!(mappings, [one] if one.size == 1 && one.host_id == (map.own)());
    if !has(map.capability)? {
        if !only_own {
            return run_tool(field, pid, mappings, map.tool);
        }
        if map.file == GROUPS.file {
            // Or a process could drop a group that denies it something (CVE-2014-8989).
            write("setgroups", "deny")?;
        }
    }
    let line = |one: &IdMapping| format!("{} {} {}\n", one.container_id, one.host_id, one.size);
    // At once: a second write is refused.
    write(map.file, &mappings.iter().map(line).collect::<String>())
}

fn run_tool(field: &str, pid: Pid, mappings: &[IdMapping], tool: &'static str) -> Result<(), CreateError> {
    let numbers = mappings.iter().flat_map(|one| [one.container_id, one.host_id, one.size]);
    let words = std::iter::once(pid.as_raw_nonzero().get().to_string()).chain(numbers.map(|number| number.to_string()));
    let failed = |text: String| CreateError::MapTool { field: field.to_owned(), tool, text };
    let output = Command::new(tool).args(words).output().map_err(|source| {
        // It is denied, not missing, if a directory of PATH is closed to this user.
        failed(format!("{source}: is it installed? Debian has it in the package uidmap"))
    })?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// Whether it is the user namespace that keeps its root from setting groups (setgroups(2)): root has the capability.
pub(crate) fn denies_groups() -> bool {
    has("CAP_SETGID").unwrap_or(false)
}

/// Becomes root of the user namespace that the process has entered, or somebody whom it knows.
pub(crate) fn become_root() -> Result<(), Failure> {
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    match rustix::thread::set_thread_groups(&[]) {
        // Denied to this namespace (setgroups(2)): then the caller's groups stay, as with every runtime.
        Ok(()) | Err(Errno::PERM) => {}
        other => other.at(Step::Credentials, "groups")?,
    }
    match rustix::thread::set_thread_res_gid(gid, gid, gid) {
        // It has no such id.
        Ok(()) | Err(Errno::INVAL) => {}
        other => other.at(Step::Credentials, "gid")?,
    }
    match rustix::thread::set_thread_res_uid(uid, uid, uid) {
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        other => other.at(Step::Credentials, "uid"),
    }
}

/// Made by the child, and not with the others: the directory of its message queues belongs to the user who makes it, and
/// before the child is root of the user namespace that is nobody there.
const NEW_IPC: u64 = UnshareFlags::NEWIPC.bits() as u64;

impl Birth<'_> {
    /// Joins what is to be joined, clones the first process, and ends with this status.
    pub(crate) fn usher(&self, channel: &Channel) -> u8 {
        let born = || -> Result<Child, Failure> {
            self.entrance.enter().at(Step::EnterCgroup, "")?;
            self.process.scheduling.settle_processors(true)?;
            match self.set_oom_score() {
                // Nobody without privilege may lower it; runc goes on, too.
                Err(_) if self.order.is_some_and(|order| !order.by_parent) => {}
                other => other?,
            }
            if self.order.is_some_and(|order| order.by_parent || matches!(order.user, UserNamespace::Joined { .. })) {
                // Inherited: others may be in the namespaces to join, and have every privilege there (CVE-2016-9962). Only a
                // parent without privilege could not map ids then, and nobody else is in a new user namespace.
                set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Step::Clean, "")?;
            }
            let namespaces = &self.plan.namespaces;
            self.join(namespaces)?;
            let new = NewNamespaces(namespaces.new.0 & !NEW_IPC);
            let clone = || fork_sibling(new, || report(channel, self.run_mapped(channel)));
            let cloned = match self.joined_pid {
                Some(namespace) => {
                    sys::namespace::in_pid_namespace(namespace, clone).at(Step::JoinNamespace, "of kind pid")?
                }
                None => clone(),
            };
            cloned.at(Step::Clone, "")
        };
        match born() {
            Ok(child) => u8::from(channel.send_born(&child).is_err()),
            Err(failure) => report(channel, Err(failure)),
        }
    }

    /// First those that the caller may join, then the user namespace, and then what only its root may join.
    fn join(&self, namespaces: &Namespaces) -> Result<(), Failure> {
        // With its kind: behind the path of another one could be the host's mounts.
        let join =
            |index: usize| move_into_thread_name_spaces(self.joined[index].as_fd(), namespaces.joined[index].kind);
        let is_user = |index: &usize| namespaces.joined[*index].kind == ThreadNameSpaceType::USER;
        let (user, others): (Vec<_>, Vec<_>) = (0..namespaces.joined.len()).partition(is_user);
        let left: Vec<_> = others.into_iter().filter(|index| user.is_empty() || join(*index).is_err()).collect();
        for index in user.into_iter().chain(left) {
            let Joined { field, path, .. } = &namespaces.joined[index];
            join(index).asked(field, format_args!("join {}", path.display()))?;
        }
        Ok(())
    }

    /// The first process of a container with a user namespace. Never returns but with a failure.
    fn run_mapped(&self, channel: &Channel) -> Result<Infallible, Failure> {
        channel.wait_for_go()?;
        become_root()?;
        set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Step::Clean, "")?;
        umask(Mode::empty());
        if self.plan.namespaces.new.0 & NEW_IPC != 0 {
            sys::namespace::unshare(UnshareFlags::NEWIPC).at(Step::Clone, "")?;
        }
        let trees = self.order.map_or_else(|| Ok(Default::default()), |order| order.take(channel))?;
        self.await_devices(channel)?;
        self.settle_namespaces()?;
        let supplied = supply::Supplied::make(self, trees)?;
        Birth {
            root: supplied.root.as_fd(),
            place: supplied.place.as_ref().map(|place| place.as_fd()),
            nodes: &supplied.nodes,
            mounts: &supplied.mounts,
            ..*self
        }
        .finish(channel)
    }
}

#[cfg(test)]
mod tests;
