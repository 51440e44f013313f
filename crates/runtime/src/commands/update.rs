//! `update`: other limits for a living container.

mod blame;

use std::fs::File;
use std::path::Path;

use cgroup::{Before, CgroupError};
use oci::runtime::{
    BlockIo, CpuLimits, HugepageLimit, MemoryLimits, PidsLimit, Resources, ThrottleDevice, WeightDevice,
};
use oci_runtime::SystemError;

use super::{Context, cgroup, hierarchies};
use crate::arguments::{Parsed, UsageError};
use crate::bundle::{self, BundleError};
use crate::error::CommandError;
use crate::one;
use crate::scope;
use crate::state::{Record, Status};

/// Changes what flags or a file say, and keeps it in the record.
pub(crate) fn update(context: &Context<'_>, flags: &Parsed) -> Result<u8, CommandError> {
    let id = one(flags, "update")?;
    let locked = context.store.lock(id)?;
    let mut record = locked.place.load()?;
    let hierarchies = hierarchies()?;
    if locked.status(&record, hierarchies)? == Status::Stopped {
        return Err(CommandError::NotRunning);
    }
    let file = flags.value("resources").filter(|path| !path.is_empty());
    let change = match file {
        Some(path) => read(&context.directory, path)?,
        None => said(flags)?,
    };
    let memory = change.memory.as_ref();
    // Go's zero asks for nothing.
    let asks = |limit: Option<i64>| limit.is_some_and(|limit| limit != 0);
    if memory.is_some_and(|memory| asks(memory.kernel) || asks(memory.kernel_tcp)) {
        context.log.warning("kernel memory settings are ignored: the kernel has no such limit");
    }
    let old = record.spec.linux.resources.clone().unwrap_or_default();
    // They change nothing; but what nobody could carry out is not passed over.
    let rules = Resources { devices: change.devices.clone(), ..Resources::default() };
    cgroup::plan(&rules, hierarchies).map_err(|source| CgroupError::Plan { source })?;
    if !change.devices.is_empty() && change.devices != old.devices {
        // Engines send all limits of a container with every change; runc does not change these, either.
        context.log.warning("linux.resources.devices: the rules of a living container stay as they are");
    }
    let merged = merge(&old, &change);
    let mut group = cgroup(&record, hierarchies)?;
    let new = to_apply(&merged, &change);
    let changed = cgroup::change(&mut group, hierarchies, &new).map_err(CommandError::from).and_then(|before| {
        if record.scope.is_none() {
            return Ok(());
        }
        // What systemd knows less precisely it writes less precisely; so the kernel is told once more.
        let told = scope::update(&record, &new).and_then(|()| Ok(group.update(hierarchies, &new)?));
        told.inspect_err(|_| put_back(context, &record, &before, &to_apply(&old, &change)))
    });
    if let Err(err) = changed {
        return Err(if file.is_some() { err } else { blame::blame(err) });
    }
    record.spec.linux.resources = Some(merged);
    locked.save(&record)?;
    Ok(0)
}

/// Takes a change back that systemd refused or that failed after it: systemd has what the record has, the files have all that
/// they had, whoever wrote it.
fn put_back(context: &Context<'_>, record: &Record, before: &Before, old: &Resources) {
    if let Err(err) = scope::update(record, old) {
        // The first error is the one to tell.
        context.log.warning(&format!("put back the limits: {}", errdefs::chain(&err)));
    }
    // Last: systemd writes the files, too.
    before.put_back();
}

/// Reads the file, or standard input for `-`.
fn read(directory: &Path, path: &str) -> Result<Resources, CommandError> {
    if path == "-" {
        return bundle::read_resources(std::io::stdin().lock(), Path::new("/dev/stdin")).map_err(in_file);
    }
    let path = directory.join(path);
    let failed = |err| CommandError::File { action: "--resources: open", path: path.clone(), source: SystemError(err) };
    bundle::read_resources(File::open(&path).map_err(failed)?, &path).map_err(in_file)
}

/// What the file itself has against it is told by its flag.
fn in_file(source: BundleError) -> CommandError {
    match source.is_of_file() {
        true => CommandError::FlagFile { flag: "resources", source: source.into() },
        false => source.into(),
    }
}

/// What the flags say. Pure.
fn said(flags: &Parsed) -> Result<Resources, CommandError> {
    for (name, what) in [("l3-cache-schema", "L3 cache"), ("mem-bw-schema", "memory bandwidth")] {
        if flags.value(name).is_some_and(|schema| !schema.is_empty()) {
            return Err(CommandError::Schema { what });
        }
    }
    let memory = MemoryLimits {
        limit: size(flags, "memory")?,
        swap: size(flags, "memory-swap")?,
        reservation: size(flags, "memory-reservation")?,
        kernel: size(flags, "kernel-memory")?,
        kernel_tcp: size(flags, "kernel-memory-tcp")?,
        ..MemoryLimits::default()
    };
    let text = |name: &str| flags.value(name).unwrap_or_default().to_owned();
    let cpu = CpuLimits {
        shares: number(flags, "cpu-share")?,
        quota: number(flags, "cpu-quota")?,
        burst: number(flags, "cpu-burst")?,
        period: number(flags, "cpu-period")?,
        realtime_runtime: number(flags, "cpu-rt-runtime")?,
        realtime_period: number(flags, "cpu-rt-period")?,
        cpus: text("cpuset-cpus"),
        mems: text("cpuset-mems"),
        idle: number(flags, "cpu-idle")?,
    };
    let block_io = BlockIo { weight: number(flags, "blkio-weight")?, ..BlockIo::default() };
    let pids = number(flags, "pids-limit")?.map(|limit| PidsLimit { limit: Some(limit) });
    Ok(Resources {
        memory: Some(memory).filter(|memory| *memory != MemoryLimits::default()),
        cpu: Some(cpu).filter(|cpu| *cpu != CpuLimits::default()),
        block_io: Some(block_io).filter(|block_io| *block_io != BlockIo::default()),
        pids,
        ..Resources::default()
    })
}

fn number<T: std::str::FromStr>(flags: &Parsed, name: &'static str) -> Result<Option<T>, UsageError> {
    let Some(value) = flags.value(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    value.parse().map(Some).map_err(|_| UsageError::BadValue { name, value: value.to_owned() })
}

/// Bytes as Docker's tools read them: `-1`, a number, or one with a unit (`1.5g`, `64MiB`).
fn size(flags: &Parsed, name: &'static str) -> Result<Option<i64>, UsageError> {
    let Some(value) = flags.value(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    parse_size(value).map(Some).ok_or_else(|| UsageError::BadValue { name, value: value.to_owned() })
}

/// github.com/docker/go-units, `RAMInBytes`: units are powers of 1024 whatever they are called.
fn parse_size(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let lower = text.to_ascii_lowercase();
    let end = lower.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let letter = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit);
    let power = match letter {
        "" if unit != "ib" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let factor = 1024_i64.pow(power);
    match number.parse::<i64>() {
        Ok(whole) => whole.checked_mul(factor),
        Err(_) => {
            let bytes = number.parse::<f64>().ok()? * factor as f64;
            (bytes < i64::MAX as f64).then_some(bytes as i64)
        }
    }
}

/// The limits as they are afterwards. Pure.
fn merge(old: &Resources, change: &Resources) -> Resources {
    let mut merged = old.clone();
    if let Some(memory) = &change.memory {
        merge_memory(merged.memory.get_or_insert_default(), memory);
    }
    if let Some(cpu) = &change.cpu {
        merge_cpu(merged.cpu.get_or_insert_default(), cpu);
    }
    if let Some(block_io) = &change.block_io {
        merge_block_io(merged.block_io.get_or_insert_default(), block_io);
    }
    if let Some(limit) = change.pids.as_ref().and_then(|pids| pids.limit) {
        merged.pids = Some(PidsLimit { limit: Some(limit) });
    }
    for new in &change.hugepage_limits {
        upsert(&mut merged.hugepage_limits, new, |one: &HugepageLimit| one.page_size.clone());
    }
    if change.network.is_some() {
        merged.network.clone_from(&change.network);
    }
    merged.rdma.extend(change.rdma.clone());
    merged.unified.extend(change.unified.clone());
    merged
}

fn merge_memory(memory: &mut MemoryLimits, change: &MemoryLimits) {
    // No limit of memory and no word on swap: none of swap, either.
    if change.limit == Some(-1) && change.swap.is_none() {
        memory.swap = None;
    }
    replace(&mut memory.limit, change.limit);
    replace(&mut memory.swap, change.swap);
    replace(&mut memory.reservation, change.reservation);
    replace(&mut memory.swappiness, change.swappiness);
    replace(&mut memory.disable_oom_killer, change.disable_oom_killer);
    replace(&mut memory.check_before_update, change.check_before_update);
}

fn merge_cpu(cpu: &mut CpuLimits, change: &CpuLimits) {
    // An idle cgroup has no weight of its own, and keeps none for later.
    if change.idle.is_some() && change.shares.is_none() {
        cpu.shares = None;
    }
    replace(&mut cpu.shares, change.shares);
    replace(&mut cpu.quota, change.quota.filter(|quota| *quota != 0));
    replace(&mut cpu.period, change.period.filter(|period| *period != 0));
    replace(&mut cpu.burst, change.burst);
    replace(&mut cpu.realtime_runtime, change.realtime_runtime);
    replace(&mut cpu.realtime_period, change.realtime_period);
    replace(&mut cpu.idle, change.idle);
    for (text, new) in [(&mut cpu.cpus, &change.cpus), (&mut cpu.mems, &change.mems)] {
        if !new.is_empty() {
            text.clone_from(new);
        }
    }
}

fn merge_block_io(block_io: &mut BlockIo, change: &BlockIo) {
    replace(&mut block_io.weight, change.weight);
    replace(&mut block_io.leaf_weight, change.leaf_weight);
    for new in &change.weight_device {
        upsert(&mut block_io.weight_device, new, |one: &WeightDevice| (one.major, one.minor));
    }
    let key = |one: &ThrottleDevice| (one.major, one.minor);
    for (list, new) in [
        (&mut block_io.throttle_read_bps_device, &change.throttle_read_bps_device),
        (&mut block_io.throttle_write_bps_device, &change.throttle_write_bps_device),
        (&mut block_io.throttle_read_iops_device, &change.throttle_read_iops_device),
        (&mut block_io.throttle_write_iops_device, &change.throttle_write_iops_device),
    ] {
        new.iter().for_each(|one| upsert(list, one, key));
    }
}

fn replace<T>(old: &mut Option<T>, new: Option<T>) {
    if new.is_some() {
        *old = new;
    }
}

fn upsert<T: Clone, K: PartialEq>(list: &mut Vec<T>, new: &T, key: impl Fn(&T) -> K) {
    match list.iter_mut().find(|one| key(one) == key(new)) {
        Some(one) => one.clone_from(new),
        None => list.push(new.clone()),
    }
}

/// Of `all` limits those that the change speaks of: what nobody has changed may have been changed by somebody else.
///
/// Memory and swap, and quota, period and burst, are known to the kernel together, and go together.
fn to_apply(all: &Resources, change: &Resources) -> Resources {
    let memory = change.memory.as_ref().and(all.memory.clone());
    let cpu = change.cpu.as_ref().zip(all.cpu.clone()).map(|(change, all)| {
        let bandwidth = change.quota.or(change.period.map(|_| 0)).is_some() || change.burst.is_some();
        CpuLimits {
            shares: change.shares.and(all.shares),
            quota: all.quota.filter(|_| bandwidth),
            period: all.period.filter(|_| bandwidth),
            burst: all.burst.filter(|_| bandwidth),
            realtime_runtime: change.realtime_runtime.and(all.realtime_runtime),
            realtime_period: change.realtime_period.and(all.realtime_period),
            cpus: if change.cpus.is_empty() { String::new() } else { all.cpus },
            mems: if change.mems.is_empty() { String::new() } else { all.mems },
            idle: change.idle.and(all.idle),
        }
    });
    let unified = all.unified.iter().filter(|(file, _)| change.unified.contains_key(*file));
    Resources {
        devices: Vec::new(),
        memory,
        cpu,
        pids: change.pids.as_ref().and(all.pids.clone()),
        block_io: change.block_io.as_ref().and(all.block_io.clone()),
        hugepage_limits: if change.hugepage_limits.is_empty() { Vec::new() } else { all.hugepage_limits.clone() },
        network: change.network.as_ref().and(all.network.clone()),
        rdma: if change.rdma.is_empty() { Default::default() } else { all.rdma.clone() },
        unified: unified.map(|(file, value)| (file.clone(), value.clone())).collect(),
    }
}

#[cfg(test)]
mod tests;
