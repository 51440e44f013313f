//! What the kernel wants of a limit, in words: its own answer is a number. Pure, but for what is looked up on the way.

use std::fs;
use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::error::CgroupError;
use crate::group::Cgroup;

/// Adds to a refusal of the kernel's what it wants, and whether it is the use of the container that stands against it.
pub(crate) fn explained(group: &Cgroup, err: CgroupError) -> CgroupError {
    let CgroupError::Write { field, path, value, source, .. } = err else { return err };
    let errno = Errno::from_io_error(&source);
    if let ("linux.resources.memory.limit", Some(Errno::BUSY)) = (field.limit(), errno) {
        let limit = value.parse().unwrap_or_default();
        let (usage, peak) = group.usage().map_or((0, 0), |usage| (usage.memory_bytes, usage.memory_bytes));
        let peak = number(&path.with_file_name("memory.max_usage_in_bytes")).unwrap_or(peak);
        return CgroupError::InUse { field: "linux.resources.memory.limit", limit, usage, peak };
    }
    let field = match *field {
        // The file is named after the size.
        field if field.limit() == "linux.resources.hugepageLimits" && errno == Some(Errno::NOENT) => {
            field.beside("pageSize")
        }
        field => field,
    };
    let rule = match field.limit() {
        "linux.resources.cpu.cpus" => format!("which takes a list of the processors {}", above(&path)),
        "linux.resources.cpu.mems" => format!("which takes a list of the memory nodes {}", above(&path)),
        limit => rule(limit).map(|rule| format!("which takes {rule}")).unwrap_or_default(),
    };
    CgroupError::Write { field: Box::new(field), path, value, rule: rule.into(), source }
}

fn rule(field: &str) -> Option<&'static str> {
    let below = |prefix: &str| field.strip_prefix("linux.resources.")?.strip_prefix(prefix);
    Some(match field.strip_prefix("linux.resources.")? {
        "cpu.shares" => "no other share while linux.resources.cpu.idle is 1",
        "cpu.quota" => "-1, or 1000 microseconds and more, within the limit of the cgroup above",
        "cpu.period" => "1000 to 1000000 microseconds, within the limit of the cgroup above",
        "cpu.burst" => "no more than linux.resources.cpu.quota",
        "cpu.idle" => "0 or 1",
        "cpu.realtimeRuntime" => "no more than realtimePeriod, and no more than the cgroup above has",
        "cpu.realtimePeriod" => "no less than realtimeRuntime",
        "memory.limit" | "memory.reservation" => "-1 or bytes",
        "memory.swap" => "-1, or bytes that are no less than linux.resources.memory.limit",
        "pids.limit" => "-1 or a number up to 4194304",
        "hugepageLimits" => "bytes, of a size of pages that this machine has",
        "network.priorities" => "the name of a network device that is there",
        "network.classID" => "a number of 32 bits",
        "rdma" => "the name of a device that is there",
        _ if below("blockIO.").is_some_and(|part| part.ends_with("Device")) => {
            "the numbers of a block device that is there"
        }
        _ => return None,
    })
}

/// What the cgroup above has of the same.
fn above(path: &Path) -> String {
    let Some((directory, name)) = path.parent().and_then(Path::parent).zip(path.file_name()) else {
        return String::new();
    };
    let effective = directory.join(format!("{}.effective", name.to_string_lossy()));
    let text = fs::read_to_string(effective).or_else(|_| fs::read_to_string(directory.join(name)));
    text.map_or_else(|_: io::Error| String::new(), |text| text.trim().to_owned())
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}
