//! Labels of mandatory access control: the process's for AppArmor and SELinux, the mounts' for SELinux.
//!
//! A process can label only itself, for its next execve, by writing to its own /proc/self/attr. Children inherit what is
//! written there, so it may be done before the last clone, but not before hooks are executed.

use std::os::fd::BorrowedFd;
use std::{fs, io};

use oci::runtime::{Process, Spec};
use rustix::fs::{Mode, OFlags, XattrFlags, fsetxattr, openat};

use crate::channel::{At, Failure};
use crate::error::{PlanError, Step};
use crate::field::FieldError;
use crate::mount_options::MountOptions;
use crate::mounts::{MountKind, MountPlan};
use crate::process::write_proc;

/// A process's labels; each may be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Labels {
    apparmor: Option<String>,
    selinux: Option<String>,
}

impl Labels {
    pub(crate) fn plan(process: &Process) -> Result<Labels, PlanError> {
        let label = |text: &String, field: &'static str| match text.contains('\0') {
            true => Err(PlanError::Nul { field }),
            false => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        };
        Ok(Labels {
            apparmor: label(&process.apparmor_profile, "process.apparmorProfile")?,
            selinux: label(&process.selinux_label, "process.selinuxLabel")?,
        })
    }

    /// Whether the host can do it: silently left out, a label would not confine.
    pub(crate) fn check_host(&self) -> Result<(), PlanError> {
        if self.apparmor.is_some() && !has_apparmor() {
            return Err(FieldError::HostLacks { what: "AppArmor" }.at("process.apparmorProfile"));
        }
        if self.selinux.is_some() && !has_selinux() {
            return Err(FieldError::HostLacks { what: "SELinux" }.at("process.selinuxLabel"));
        }
        Ok(())
    }

    /// Whether there is nothing to apply.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Labels::default()
    }

    /// Of the calling process from its next execve on. `proc` is the host's /proc.
    pub(crate) fn apply(&self, proc: BorrowedFd<'_>) -> Result<(), Failure> {
        if let Some(profile) = &self.apparmor {
            let written = write_proc(proc, "self/attr/apparmor/exec", &format!("exec {profile}"));
            written.at(Step::ApparmorProfile, profile)?;
        }
        if let Some(label) = &self.selinux {
            // The session keyring is the process's, too; execve clears both files (proc(5)).
            for file in ["self/attr/keycreate", "self/attr/exec"] {
                write_proc(proc, file, label).at(Step::SelinuxLabel, label)?;
            }
        }
        Ok(())
    }
}

/// Whether the host can label mounts, if it is asked to.
pub(crate) fn check_mounts(spec: &Spec) -> Result<(), PlanError> {
    if spec.linux.mount_label.is_empty() || has_selinux() {
        return Ok(());
    }
    Err(FieldError::HostLacks { what: "SELinux" }.at("linux.mountLabel"))
}

/// Gives every new file system the label, unless it has one. Kernel objects and what is bound have their own, as under runc.
pub(crate) fn label_mounts(mounts: &mut [MountPlan], label: &str) {
    if label.is_empty() {
        return;
    }
    for mount in mounts {
        match &mount.kind {
            // A program's options are its own.
            MountKind::FileSystem(kind) if kind == sys::fuse::KIND => {}
            MountKind::FileSystem(_) => add_context(&mut mount.options, label),
            // It takes no such option.
            MountKind::InChild(kind) if kind == "mqueue" => mount.root_label = Some(label.to_owned()),
            _ => {}
        }
    }
}

fn add_context(options: &mut MountOptions, label: &str) {
    if !options.data.iter().any(|(key, _)| key.ends_with("context")) {
        options.data.push(("context".into(), Some(label.to_owned())));
    }
}

/// Labels the root of a file system that is mounted nowhere yet.
pub(crate) fn label_root(mount: BorrowedFd<'_>, label: &str) -> io::Result<()> {
    let root = openat(mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(fsetxattr(root, "security.selinux", label.as_bytes(), XattrFlags::empty())?)
}

fn has_apparmor() -> bool {
    let enabled = fs::read("/sys/module/apparmor/parameters/enabled");
    enabled.is_ok_and(|text| text.first() == Some(&b'Y'))
}

/// Loaded with a policy: without one there is a single label for everything.
fn has_selinux() -> bool {
    /// linux/magic.h.
    const SELINUX_MAGIC: u64 = 0xf97c_ff8c;
    let mounted =
        rustix::fs::statfs("/sys/fs/selinux").is_ok_and(|stat| stat.f_type as u64 & 0xffff_ffff == SELINUX_MAGIC);
    let current = || fs::read("/proc/self/attr/current").unwrap_or_default();
    mounted && !matches!(current().as_slice(), b"" | b"kernel" | b"kernel\0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::runtime::Mount;

    #[test]
    fn new_file_systems_are_labelled_and_nothing_else() {
        let mount = |kind: &str, option: &str| {
            let mount = Mount {
                destination: "/m".into(),
                kind: kind.into(),
                source: "/x".into(),
                options: vec![option.into()],
                ..Mount::default()
            };
            MountPlan::below_root("mounts[0]".into(), &mount).unwrap()
        };
        let mut mounts = [
            mount("tmpfs", "rw"),
            mount("tmpfs", "context=own"),
            mount("bind", "rbind"),
            mount("sysfs", "ro"),
            mount("cgroup", "ro"),
            mount("mqueue", "rw"),
        ];
        label_mounts(&mut mounts, "");
        assert!(mounts[0].options.data.is_empty());
        label_mounts(&mut mounts, "system_u:object_r:container_file_t:s0");
        let label = ("context".to_owned(), Some("system_u:object_r:container_file_t:s0".to_owned()));
        assert_eq!(mounts[0].options.data, [label]);
        assert_eq!(mounts[1].options.data.len(), 1);
        assert!(mounts[2..].iter().all(|mount| mount.options.data.is_empty()));
        let roots: Vec<_> = mounts.iter().filter_map(|mount| mount.root_label.as_deref()).collect();
        assert_eq!(roots, ["system_u:object_r:container_file_t:s0"]);
        assert!(mounts[5].root_label.is_some());
    }
}
