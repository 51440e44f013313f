//! Settings of the kernel's for a container's interface.

use std::fs;
use std::path::PathBuf;

use crate::error::SystemReason;

/// Why a setting cannot be made. The sentences are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// It has no value.
    #[error("expected sysctl '{0}' to have format name=value")]
    NoValue(String),
    /// It is not that of an interface.
    #[error("expected sysctl '{0}' to have format net.X.Y.IFNAME.Z")]
    Form(String),
    /// The kernel has no such setting.
    #[error("{} is not a sysctl file", .0.display())]
    NoFile(PathBuf),
    /// It cannot be read.
    #[error("unable to read '{path}': open {path}", path = path.display())]
    Read {
        /// Its file.
        path: PathBuf,
        /// The system's reason.
        source: SystemReason,
    },
    /// The kernel does not take the value.
    #[error("unable to write to '{path}': write {path}", path = path.display())]
    Write {
        /// Its file.
        path: PathBuf,
        /// The system's reason.
        source: SystemReason,
    },
}

/// An interface cannot be as it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("failed to add interface {interface} to sandbox")]
pub struct InterfaceError {
    /// Its name in the container.
    pub interface: String,
    /// Why.
    pub source: SysctlError,
}

/// Where a setting is made and what is written there, of `net.ipv4.conf.IFNAME.forwarding=1`. Settings of interfaces alone: whatever the
/// text says, the path ends below that interface's directory. Pure.
fn plan<'a>(interface: &str, sysctl: &'a str) -> Result<(PathBuf, &'a str), SysctlError> {
    let (name, value) = sysctl.split_once('=').ok_or_else(|| SysctlError::NoValue(sysctl.to_owned()))?;
    let [net, family, area, _, key] = name.split('.').collect::<Vec<_>>()[..] else {
        return Err(SysctlError::Form(sysctl.to_owned()));
    };
    let path: PathBuf = ["/proc/sys", net, family, area, interface, key].join("/").into();
    let is_of_interface = net == "net"
        && matches!(family, "ipv4" | "ipv6" | "mpls")
        && matches!(area, "conf" | "neigh" | "route")
        && !key.is_empty()
        && !key.contains('/');
    if is_of_interface { Ok((path, value)) } else { Err(SysctlError::NoFile(path)) }
}

/// Makes the settings of an interface in the network namespace of the calling thread.
pub(crate) fn apply(interface: &str, sysctls: &[String]) -> Result<(), InterfaceError> {
    let set = |sysctl: &String| {
        let (path, value) = plan(interface, sysctl)?;
        if !fs::metadata(&path).is_ok_and(|found| found.is_file()) {
            return Err(SysctlError::NoFile(path));
        }
        match fs::read_to_string(&path) {
            // It may be read-only, and is as it should be.
            Ok(found) if found.trim() == value => return Ok(()),
            Ok(_) => {}
            Err(source) => return Err(SysctlError::Read { path, source: SystemReason(source) }),
        }
        fs::write(&path, value).map_err(|source| SysctlError::Write { path, source: SystemReason(source) })
    };
    sysctls.iter().try_for_each(set).map_err(|source| InterfaceError { interface: interface.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_those_of_an_interface() {
        let planned = |sysctl: &str| match plan("eth0", sysctl) {
            Ok((path, value)) => format!("{} {value}", path.display()),
            Err(err) => err.to_string(),
        };
        for (sysctl, expected) in [
            ("net.ipv4.conf.IFNAME.log_martians=1", "/proc/sys/net/ipv4/conf/eth0/log_martians 1"),
            ("net.ipv6.neigh.ifname.x=a=b", "/proc/sys/net/ipv6/neigh/eth0/x a=b"),
            ("net.ipv4.conf.IFNAME.x", "expected sysctl 'net.ipv4.conf.IFNAME.x' to have format name=value"),
            (
                "net.ipv4.conf.IFNAME.x.y=1",
                "expected sysctl 'net.ipv4.conf.IFNAME.x.y=1' to have format net.X.Y.IFNAME.Z",
            ),
            ("kernel.ipv4.conf.IFNAME.x=1", "/proc/sys/kernel/ipv4/conf/eth0/x is not a sysctl file"),
            ("net.ipv4.x.IFNAME.x=1", "/proc/sys/net/ipv4/x/eth0/x is not a sysctl file"),
            ("net.ipv4.conf.IFNAME.x/y=1", "/proc/sys/net/ipv4/conf/eth0/x/y is not a sysctl file"),
            ("net.ipv4.conf.IFNAME.=1", "/proc/sys/net/ipv4/conf/eth0/ is not a sysctl file"),
        ] {
            assert_eq!(planned(sysctl), expected);
        }
    }
}
