//! What host and guest tell each other: a [`Plan`] on the way in, a line of JSON per [`Event`] on the way out.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::boot::Boot;

/// What the guest is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// How the machine comes up.
    pub(crate) boot: Boot,
    /// The kernel's modules, at the same path on host and guest.
    pub(crate) modules: PathBuf,
    /// For modules that the kernel asks for.
    pub(crate) busybox: PathBuf,
    /// Tests beside each other.
    pub(crate) jobs: usize,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) cases: Vec<Case>,
}

/// One test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Case {
    /// The test binary.
    pub(crate) program: PathBuf,
    /// Where cargo would run it: its package.
    pub(crate) directory: PathBuf,
    /// Its name in the binary.
    pub(crate) name: String,
}

impl Case {
    /// `package::name`, as docs/acceptance.md writes it.
    pub(crate) fn title(&self) -> String {
        let package = self.directory.file_name().unwrap_or_default().to_string_lossy();
        format!("{package}::{}", self.name)
    }
}

/// What happened in the guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The machine is ready; mounts of either version of cgroups, as `type point`.
    Ready { kernel: String, cgroups: Vec<String> },
    /// A test ended.
    Ended { case: usize, outcome: Outcome, seconds: f64, output: String },
    /// It could not go on.
    Failed { why: String },
    /// All tests ended.
    Done,
}

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Passed,
    /// It ran, and something was wrong; or the binary did not know it.
    Failed,
    /// It said that it cannot run there.
    Skipped {
        why: String,
    },
}
