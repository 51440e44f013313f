//! Controllers with a file or two: tasks, huge pages, marks on packets, RDMA, and whatever version 2 has besides.

use std::collections::BTreeMap;

use oci::runtime::{HugepageLimit, NetworkMarks, PidsLimit, RdmaLimit};

use super::{PlanError, Write, asked};
use crate::facts::{Controller, Hierarchies, Version};
use crate::field::Field;

const PIDS: &str = "linux.resources.pids.limit";
const HUGEPAGES: &str = "linux.resources.hugepageLimits";
const CLASS_ID: &str = "linux.resources.network.classID";
const PRIORITIES: &str = "linux.resources.network.priorities";
const RDMA: &str = "linux.resources.rdma";
const UNIFIED: &str = "linux.resources.unified";

pub(super) fn pids(pids: Option<&PidsLimit>) -> Result<Option<Write>, PlanError> {
    let Some(limit) = pids.and_then(|pids| pids.limit) else { return Ok(None) };
    let value = match limit {
        -1 => "max".to_owned(),
        // A first process that could not be cloned into its cgroup would be no container: one task, and no more, is what
        // runc makes of 0, too.
        0 => "1".to_owned(),
        1.. => limit.to_string(),
        _ => {
            let range = "-1, for no limit, or a number of tasks";
            return Err(PlanError::OutOfRange { field: PIDS.into(), value: limit.into(), range });
        }
    };
    Ok(Some(Write::new(Controller::Pids, PIDS, "pids.max", value)))
}

pub(super) fn hugepages(limits: &[HugepageLimit], version: Version) -> Result<Vec<Write>, PlanError> {
    let suffix = match version {
        Version::V1 => "limit_in_bytes",
        Version::V2 => "max",
    };
    let mut writes = Vec::new();
    for (index, HugepageLimit { page_size, limit }) in limits.iter().enumerate() {
        let field = |part| Field::member(HUGEPAGES, index, part);
        if !is_page_size(page_size) {
            let wanted = "a size of pages, as 2MB";
            return Err(PlanError::Word { field: field("pageSize"), value: page_size.clone(), wanted });
        }
        let write = |file: String| Write::new(Controller::Hugetlb, field("limit"), file, limit);
        writes.push(write(format!("hugetlb.{page_size}.{suffix}")));
        // Reserved pages are counted apart since Linux 5.7; limited alike, a mapping fails where else it would be killed.
        writes.push(write(format!("hugetlb.{page_size}.rsvd.{suffix}")).or_skip());
    }
    Ok(writes)
}

/// `64KB`, `2MB`, `1GB`: the kernel's way to write it (mm/hugetlb_cgroup.c, `mem_fmt`).
fn is_page_size(text: &str) -> bool {
    let number = ["KB", "MB", "GB"].iter().find_map(|unit| text.strip_suffix(unit));
    number.is_some_and(|number| !number.starts_with('0') && number.parse::<u32>().is_ok_and(|number| number > 0))
}

pub(super) fn network(network: &NetworkMarks, version: Version) -> Result<Vec<Write>, PlanError> {
    let mut writes = Vec::new();
    writes.extend(
        asked(network.class_id).map(|class| Write::new(Controller::NetCls, CLASS_ID, "net_cls.classid", class)),
    );
    for (index, priority) in network.priorities.iter().enumerate() {
        let field = |part| Field::member(PRIORITIES, index, part);
        one_word(field("name"), &priority.name)?;
        let value = format!("{} {}", priority.name, priority.priority);
        writes.push(Write::new(Controller::NetPrio, field(""), "net_prio.ifpriomap", value));
    }
    match writes.first() {
        Some(write) if version == Version::V2 => Err(PlanError::OnlyVersion1 { field: write.field.clone() }),
        _ => Ok(writes),
    }
}

pub(super) fn rdma(devices: &BTreeMap<String, RdmaLimit>) -> Result<Vec<Write>, PlanError> {
    let mut writes = Vec::new();
    for (device, limit) in devices {
        let field = || Field::under(RDMA, device);
        one_word(field(), device)?;
        let mut value = device.clone();
        value.extend(limit.hca_handles.map(|count| format!(" hca_handle={count}")));
        value.extend(limit.hca_objects.map(|count| format!(" hca_object={count}")));
        if value != *device {
            writes.push(Write::new(Controller::Rdma, field(), "rdma.max", value));
        }
    }
    Ok(writes)
}

/// A name with a space in it would be read as two.
fn one_word(field: Field, name: &str) -> Result<(), PlanError> {
    let is_word = !name.is_empty() && !name.contains(char::is_whitespace);
    if is_word { Ok(()) } else { Err(PlanError::Word { field, value: name.to_owned(), wanted: "a name" }) }
}

pub(super) fn unified(files: &BTreeMap<String, String>, hierarchies: &Hierarchies) -> Result<Vec<Write>, PlanError> {
    let mut writes = Vec::new();
    for (file, text) in files {
        let field = || Field::under(UNIFIED, file);
        if hierarchies.version() == Version::V1 {
            return Err(PlanError::OnlyVersion2 { field: field() });
        }
        let unknown = || PlanError::UnifiedFile { field: field() };
        let (prefix, _) = file.split_once('.').filter(|_| !file.contains('/')).ok_or_else(unknown)?;
        let controller = match prefix {
            "cgroup" => None,
            name => Some(Controller::of_unified(name).ok_or_else(unknown)?),
        };
        // One write a line: some files take one entry at a time (`io.max`).
        for value in text.lines() {
            let write = Write::new(Controller::Memory, field(), file.clone(), value);
            writes.push(Write { controller, ..write });
        }
    }
    Ok(writes)
}
