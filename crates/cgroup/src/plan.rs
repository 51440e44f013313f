//! From limits to the files that keep them. Pure.
//!
//! One file here a controller; this one puts them together. A limit is either in the answer or an error that names its
//! field: nothing is left out silently, but for what asks for nothing (Go's zero) and kernel memory, which no kernel limits.

mod cpu;
mod devices;
mod io;
mod memory;
mod rest;

use std::borrow::Cow;

use errdefs::ErrorKind;
use oci::runtime::Resources;

use crate::facts::{Controller, Hierarchies, Version};
use crate::field::Field;

pub use cpu::cpu_weight;
pub(crate) use memory::swap_alone;

/// One file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The controller that the file belongs to; absent for files that every cgroup has.
    pub controller: Option<Controller>,
    /// The limit, by its name in config.json.
    pub field: Field,
    /// The file's name in the cgroup's directory.
    pub file: Cow<'static, str>,
    /// What is written, in one write.
    pub value: String,
    /// What to do if there is no such file.
    pub absent: Absent,
    /// Whether the kernel may refuse it until later writes are made: it is then tried once more, after them.
    pub again: bool,
}

/// What to do if a kernel has no such file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The limit cannot be kept: an error.
    Fail,
    /// Without the file the limit is kept already.
    Skip,
    /// Another file does the same.
    Instead {
        /// Its name.
        file: &'static str,
        /// What is written there.
        value: String,
    },
}

/// Why limits make no plan.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// Version 2 counts swap apart from memory, so the sum needs its other part.
    #[error("linux.resources.memory.swap: {swap} bytes of memory and swap together need linux.resources.memory.limit")]
    SwapWithoutMemory {
        /// What was asked for.
        swap: i64,
    },
    /// The sum is less than one of its parts.
    #[error(
        "linux.resources.memory.swap: {swap} bytes of memory and swap together are less than \
         linux.resources.memory.limit ({memory} bytes)"
    )]
    SwapBelowMemory {
        /// Memory and swap together.
        swap: i64,
        /// Memory alone.
        memory: i64,
    },
    /// Unused time cannot be more than there is.
    #[error("linux.resources.cpu.burst: {burst} microseconds are more than linux.resources.cpu.quota ({quota})")]
    BurstAboveQuota {
        /// What was asked for.
        burst: u64,
        /// Of each period.
        quota: i64,
    },
    /// A number that no kernel takes.
    #[error("{field}: {value} is not {range}")]
    OutOfRange {
        /// The limit.
        field: Field,
        /// As given.
        value: i128,
        /// What it should be.
        range: &'static str,
    },
    /// A word that is none.
    #[error("{field}: {value:?} is not {wanted}")]
    Word {
        /// The limit.
        field: Field,
        /// As given.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// Version 2 has no such thing.
    #[error("{field}: does not exist with cgroup version 2")]
    OnlyVersion1 {
        /// The limit.
        field: Field,
    },
    /// Version 1 has no such thing.
    #[error("{field}: does not exist with cgroup version 1")]
    OnlyVersion2 {
        /// The limit.
        field: Field,
    },
    /// A file of a controller that nobody knows.
    #[error("{field}: is not a file of a controller that is available")]
    UnifiedFile {
        /// Its name in the map.
        field: Field,
    },
}

impl PlanError {
    /// The limit that is at fault, by its name in config.json without its place in lists.
    pub fn limit(&self) -> &'static str {
        match self {
            PlanError::SwapWithoutMemory { .. } | PlanError::SwapBelowMemory { .. } => "linux.resources.memory.swap",
            PlanError::BurstAboveQuota { .. } => "linux.resources.cpu.burst",
            PlanError::OutOfRange { field, .. }
            | PlanError::Word { field, .. }
            | PlanError::OnlyVersion1 { field }
            | PlanError::OnlyVersion2 { field }
            | PlanError::UnifiedFile { field } => field.limit(),
        }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

/// The files to write for these limits, in order.
///
/// Device rules make no file with version 2: there an eBPF program keeps them ([`crate::Cgroup::create`] attaches it).
pub fn plan(resources: &Resources, hierarchies: &Hierarchies) -> Result<Vec<Write>, PlanError> {
    let version = hierarchies.version();
    let mut writes = devices::plan(&resources.devices, version)?;
    if let Some(memory) = &resources.memory {
        writes.extend(memory::plan(memory, version)?);
    }
    if let Some(cpu) = &resources.cpu {
        writes.extend(cpu::plan(cpu, version)?);
        writes.extend(cpu::cpuset(cpu)?);
    }
    writes.extend(rest::pids(resources.pids.as_ref())?);
    if let Some(block_io) = &resources.block_io {
        writes.extend(io::plan(block_io, version)?);
    }
    writes.extend(rest::hugepages(&resources.hugepage_limits, hierarchies.version_of(Controller::Hugetlb))?);
    if let Some(network) = &resources.network {
        writes.extend(rest::network(network, version)?);
    }
    writes.extend(rest::rdma(&resources.rdma)?);
    // Last: they are the more precise word on the same limits.
    writes.extend(rest::unified(&resources.unified, hierarchies)?);
    Ok(writes)
}

/// What a change of a living cgroup takes back besides: a new one has no such thing. For who has the controller.
pub(crate) fn taken_back(resources: &Resources, version: Version) -> Option<Write> {
    memory::oom_killer_again(resources.memory.as_ref()?, version)
}

impl Write {
    fn new(
        controller: Controller,
        field: impl Into<Field>,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
    ) -> Write {
        let (file, value) = (file.into(), value.to_string());
        Write { controller: Some(controller), field: field.into(), file, value, absent: Absent::Fail, again: false }
    }

    fn again(self) -> Write {
        Write { again: true, ..self }
    }

    fn or_skip(self) -> Write {
        Write { absent: Absent::Skip, ..self }
    }

    fn or_instead(self, file: &'static str, value: impl ToString) -> Write {
        Write { absent: Absent::Instead { file, value: value.to_string() }, ..self }
    }
}

/// The value, unless it is one that asks for nothing.
fn asked<T: Default + PartialEq>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

#[cfg(test)]
mod tests;
