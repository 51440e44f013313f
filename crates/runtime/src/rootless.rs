//! Callers without privilege: whether this is one, and where its containers are kept.

use std::path::PathBuf;

use oci_runtime::{CgroupNeed, is_rootless};

use crate::arguments::UsageError;

/// What `--rootless` says: whether cgroups that may not be made are done without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rootless {
    /// `true`.
    On,
    /// `false`.
    Off,
    /// `auto`: for everybody but the host's root.
    Auto,
}

impl Rootless {
    /// The words of Go's strconv.ParseBool, and `auto`.
    pub(crate) fn parse(text: Option<&str>) -> Result<Rootless, UsageError> {
        match text.unwrap_or_default() {
            "" | "auto" => Ok(Rootless::Auto),
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Rootless::On),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Rootless::Off),
            value => Err(UsageError::BadValue { name: "rootless", value: value.to_owned() }),
        }
    }

    /// Whether a container has to have a cgroup; `asked` says whether its specification names one or limits.
    pub(crate) fn cgroup(self, asked: bool) -> CgroupNeed {
        match self {
            Rootless::Off => CgroupNeed::Always,
            _ if asked => CgroupNeed::Asked,
            Rootless::On => CgroupNeed::Never,
            Rootless::Auto => CgroupNeed::UnlessRootless,
        }
    }
}

/// Where containers are kept if nothing is said: `for_root`, or below XDG_RUNTIME_DIR, as with runc.
pub(crate) fn root_default(for_root: &str) -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let own = variable("XDG_RUNTIME_DIR").map(|directory| PathBuf::from(directory).join("longshore-runtime"));
    // Root of a user namespace whose USER is root has one of its own at /run.
    let is_own =
        || !rustix::process::geteuid().is_root() || is_rootless() && variable("USER").is_none_or(|user| user != "root");
    own.filter(|_| is_own()).unwrap_or_else(|| PathBuf::from(for_root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_done_without_only_by_those_who_may() {
        let need = |text: &str, asked| Rootless::parse(Some(text)).unwrap().cgroup(asked);
        assert_eq!(need("auto", false), CgroupNeed::UnlessRootless);
        assert_eq!(need("true", false), CgroupNeed::Never);
        assert_eq!((need("", true), need("1", true)), (CgroupNeed::Asked, CgroupNeed::Asked));
        assert_eq!((need("false", true), need("F", false)), (CgroupNeed::Always, CgroupNeed::Always));
        assert!(Rootless::parse(Some("perhaps")).is_err());
    }
}
