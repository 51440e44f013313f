//! Memory and swap.

use oci::runtime::MemoryLimits;

use super::{PlanError, Write, asked};
use crate::facts::{Controller, Version};

const LIMIT: &str = "linux.resources.memory.limit";
const SWAP: &str = "linux.resources.memory.swap";
const RESERVATION: &str = "linux.resources.memory.reservation";
const SWAPPINESS: &str = "linux.resources.memory.swappiness";
const OOM_KILLER: &str = "linux.resources.memory.disableOOMKiller";

pub(super) fn plan(memory: &MemoryLimits, version: Version) -> Result<Vec<Write>, PlanError> {
    for (field, value) in [(LIMIT, memory.limit), (SWAP, memory.swap), (RESERVATION, memory.reservation)] {
        if let Some(value) = value.filter(|value| *value < -1) {
            return Err(PlanError::OutOfRange {
                field: field.into(),
                value: value.into(),
                range: "-1, for no limit, or a size",
            });
        }
    }
    match version {
        Version::V1 => version_1(memory),
        Version::V2 => version_2(memory),
    }
}

/// Writers in Go put -1 into a number without sign for "as it is".
fn swappiness(memory: &MemoryLimits) -> Option<u64> {
    memory.swappiness.filter(|value| *value != u64::MAX)
}

fn write(field: &'static str, file: &'static str, value: impl ToString) -> Write {
    Write::new(Controller::Memory, field, file, value)
}

fn version_1(memory: &MemoryLimits) -> Result<Vec<Write>, PlanError> {
    let (limit, swap) = (asked(memory.limit), asked(memory.swap));
    // A sum alone may be one for a living cgroup that has its limit of memory already: the kernel knows.
    if let Some((swap, memory)) = swap.zip(limit).filter(|(swap, memory)| *swap > 0 && *memory > 0 && swap < memory) {
        return Err(PlanError::SwapBelowMemory { swap, memory });
    }
    let mut writes = Vec::new();
    // The sum may never be less than memory: on a fresh cgroup memory comes first, and where the limit is raised it is
    // refused until the sum is raised, too.
    writes.extend(limit.map(|bytes| write(LIMIT, "memory.limit_in_bytes", bytes).again()));
    const SUM: &str = "memory.memsw.limit_in_bytes";
    writes.extend(match swap {
        // Without accounting of swap there is no limit of it.
        Some(-1) => Some(write(SWAP, SUM, -1).or_skip()),
        Some(bytes) => Some(write(SWAP, SUM, bytes)),
        // No limit of memory means none of the sum, either.
        None if limit == Some(-1) => Some(write(LIMIT, SUM, -1).or_skip()),
        None => None,
    });
    writes.extend(asked(memory.reservation).map(|bytes| write(RESERVATION, "memory.soft_limit_in_bytes", bytes)));
    if let Some(value) = swappiness(memory) {
        if value > 100 {
            let range = "between 0 and 100";
            return Err(PlanError::OutOfRange { field: SWAPPINESS.into(), value: value.into(), range });
        }
        writes.push(write(SWAPPINESS, "memory.swappiness", value));
    }
    if memory.disable_oom_killer == Some(true) {
        writes.push(write(OOM_KILLER, "memory.oom_control", 1));
    }
    Ok(writes)
}

/// Brings the OOM killer back.
pub(super) fn oom_killer_again(memory: &MemoryLimits, version: Version) -> Option<Write> {
    let wanted = version == Version::V1 && memory.disable_oom_killer == Some(false);
    wanted.then(|| write(OOM_KILLER, "memory.oom_control", 0))
}

fn version_2(memory: &MemoryLimits) -> Result<Vec<Write>, PlanError> {
    if memory.disable_oom_killer == Some(true) {
        return Err(PlanError::OnlyVersion1 { field: OOM_KILLER.into() });
    }
    if swappiness(memory).is_some() {
        return Err(PlanError::OnlyVersion1 { field: SWAPPINESS.into() });
    }
    let (limit, swap) = (asked(memory.limit), asked(memory.swap));
    let alone = swap_alone(memory)?;
    let number = |bytes: i64| if bytes < 0 { "max".to_owned() } else { bytes.to_string() };
    let mut writes = Vec::new();
    writes.extend(limit.map(|bytes| write(LIMIT, "memory.max", number(bytes))));
    writes.extend(alone.map(|bytes| {
        let field = if swap.is_some() { SWAP } else { LIMIT };
        let write = write(field, "memory.swap.max", number(bytes));
        // A kernel without swap has none to limit, and none to forbid.
        if bytes <= 0 { write.or_skip() } else { write }
    }));
    writes.extend(asked(memory.reservation).map(|bytes| write(RESERVATION, "memory.low", number(bytes))));
    Ok(writes)
}

/// Swap without memory, as version 2 counts it.
pub(crate) fn swap_alone(memory: &MemoryLimits) -> Result<Option<i64>, PlanError> {
    let (limit, swap) = (asked(memory.limit), asked(memory.swap));
    Ok(match (swap, limit) {
        (None, Some(-1)) | (Some(-1), _) => Some(-1),
        (None, _) => None,
        // Unlimited memory leaves nothing to be subtracted, as runc has it.
        (Some(swap), Some(-1)) => Some(swap),
        (Some(swap), None) => return Err(PlanError::SwapWithoutMemory { swap }),
        (Some(swap), Some(memory)) if swap < memory => return Err(PlanError::SwapBelowMemory { swap, memory }),
        (Some(swap), Some(memory)) => Some(swap - memory),
    })
}
