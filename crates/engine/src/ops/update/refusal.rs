//! A limit that is refused when a container has it already, in dockerd's words: those of runc, without the field of
//! config.json, which no client of dockerd's has ever seen.

use std::io;
use std::path::PathBuf;

use cgroup::{CgroupError, PlanError};

/// Why a limit was not changed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// More is in use, and cannot be taken back.
    #[error("{RUNC}: unable to set memory limit to {limit} (current usage: {usage}, peak usage: {peak})")]
    InUse {
        /// Bytes, as asked for.
        limit: i64,
        /// Bytes.
        usage: u64,
        /// Bytes.
        peak: u64,
    },
    /// The kernel does not take it.
    #[error("{RUNC}: failed to write {value:?}: write {}", path.display())]
    Write {
        /// As it was written.
        value: Box<str>,
        /// The cgroup's file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Less than any weight.
    #[error("{RUNC}: the minimum allowed cpu-shares is 2")]
    FewShares,
    /// More than any weight.
    #[error("{RUNC}: the maximum allowed cpu-shares is 262144")]
    ManyShares,
    /// What dockerd has no words for.
    #[error(transparent)]
    Cgroup(CgroupError),
}

/// How dockerd tells that its runtime refused: there is none here that could have ended.
const RUNC: &str = "runc did not terminate successfully: exit status 1";

/// The weight of a container's share of processor time.
const SHARES: &str = "linux.resources.cpu.shares";

impl From<CgroupError> for Refusal {
    fn from(err: CgroupError) -> Refusal {
        match err {
            CgroupError::InUse { limit, usage, peak, .. } => Refusal::InUse { limit, usage, peak },
            CgroupError::Write { path, value, source, .. } => Refusal::Write { value, path, source },
            CgroupError::Plan { source: PlanError::OutOfRange { field, value, .. } } if field.limit() == SHARES => {
                if value < 2 {
                    Refusal::FewShares
                } else {
                    Refusal::ManyShares
                }
            }
            err => Refusal::Cgroup(err),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(err: CgroupError) -> String {
        let text = errdefs::chain(&Refusal::from(err));
        text.strip_prefix(&format!("{RUNC}: ")).unwrap_or(&text).to_owned()
    }

    #[test]
    fn words_are_dockerds_without_the_name_of_a_field() {
        let in_use = CgroupError::InUse { field: "linux.resources.memory.limit", limit: 6, usage: 7, peak: 8 };
        assert_eq!(said(in_use), "unable to set memory limit to 6 (current usage: 7, peak usage: 8)");
        let write = CgroupError::Write {
            field: Box::new("linux.resources.cpu.cpus".into()),
            path: "/c/cpuset.cpus".into(),
            value: "9".into(),
            rule: "which takes a list of the processors 0-1".into(),
            source: io::Error::from_raw_os_error(34),
        };
        assert_eq!(said(write), "failed to write \"9\": write /c/cpuset.cpus: numerical result out of range");
        let shares = |value| {
            let source = PlanError::OutOfRange { field: SHARES.into(), value, range: "between 2 and 262144" };
            said(CgroupError::Plan { source })
        };
        assert_eq!(shares(1), "the minimum allowed cpu-shares is 2");
        assert_eq!(shares(300_000), "the maximum allowed cpu-shares is 262144");
        assert_eq!(said(CgroupError::NoHierarchy), "no cgroup hierarchy is mounted");
    }
}
