//! Block devices: weights and throttles.

use oci::runtime::{BlockIo, ThrottleDevice, WeightDevice};

use super::{PlanError, Write, asked};
use crate::facts::{Controller, Version};
use crate::field::Field;

const WEIGHT: &str = "linux.resources.blockIO.weight";
const LEAF_WEIGHT: &str = "linux.resources.blockIO.leafWeight";
const WEIGHT_DEVICE: &str = "linux.resources.blockIO.weightDevice";

pub(super) fn plan(block_io: &BlockIo, version: Version) -> Result<Vec<Write>, PlanError> {
    let mut writes = Vec::new();
    if let Some(weight) = asked(block_io.weight) {
        in_range(WEIGHT, weight)?;
        writes.push(all_devices(weight, version));
    }
    if let Some(weight) = asked(block_io.leaf_weight) {
        in_range(LEAF_WEIGHT, weight)?;
        only_version_1(LEAF_WEIGHT, version)?;
        writes.push(write(LEAF_WEIGHT, "blkio.leaf_weight", weight));
    }
    for (index, device) in block_io.weight_device.iter().enumerate() {
        one_device(index, device, version, &mut writes)?;
    }
    for (list, devices, file, key) in [
        (
            "linux.resources.blockIO.throttleReadBpsDevice",
            &block_io.throttle_read_bps_device,
            "blkio.throttle.read_bps_device",
            "rbps",
        ),
        (
            "linux.resources.blockIO.throttleWriteBpsDevice",
            &block_io.throttle_write_bps_device,
            "blkio.throttle.write_bps_device",
            "wbps",
        ),
        (
            "linux.resources.blockIO.throttleReadIOPSDevice",
            &block_io.throttle_read_iops_device,
            "blkio.throttle.read_iops_device",
            "riops",
        ),
        (
            "linux.resources.blockIO.throttleWriteIOPSDevice",
            &block_io.throttle_write_iops_device,
            "blkio.throttle.write_iops_device",
            "wiops",
        ),
    ] {
        for (index, ThrottleDevice { major, minor, rate }) in devices.iter().enumerate() {
            let device = device(list, index, *major, *minor)?;
            let field = Field::member(list, index, "");
            writes.push(match version {
                Version::V1 => write(field, file, format!("{device} {rate}")),
                Version::V2 if *rate == 0 => write(field, "io.max", format!("{device} {key}=max")),
                Version::V2 => write(field, "io.max", format!("{device} {key}={rate}")),
            });
        }
    }
    Ok(writes)
}

fn write(field: impl Into<Field>, file: &'static str, value: impl ToString) -> Write {
    Write::new(Controller::Blkio, field, file, value)
}

/// The file depends on the scheduler that the kernel was built with.
fn all_devices(weight: u16, version: Version) -> Write {
    match version {
        Version::V1 => write(WEIGHT, "blkio.weight", weight).or_instead("blkio.bfq.weight", weight),
        Version::V2 => write(WEIGHT, "io.bfq.weight", weight).or_instead("io.weight", io_weight(weight)),
    }
}

fn one_device(index: usize, device: &WeightDevice, version: Version, writes: &mut Vec<Write>) -> Result<(), PlanError> {
    let name = self::device(WEIGHT_DEVICE, index, device.major, device.minor)?;
    let field = |part| Field::member(WEIGHT_DEVICE, index, part);
    if let Some(weight) = asked(device.weight) {
        in_range(field("weight"), weight)?;
        let value = format!("{name} {weight}");
        writes.push(match version {
            Version::V1 => {
                write(field(""), "blkio.weight_device", &value).or_instead("blkio.bfq.weight_device", &value)
            }
            Version::V2 => write(field(""), "io.bfq.weight", &value)
                .or_instead("io.weight", format!("{name} {}", io_weight(weight))),
        });
    }
    if let Some(weight) = asked(device.leaf_weight) {
        in_range(field("leafWeight"), weight)?;
        only_version_1(field("leafWeight"), version)?;
        writes.push(write(field("leafWeight"), "blkio.leaf_weight_device", format!("{name} {weight}")));
    }
    Ok(())
}

/// `io.weight` (1 to 10,000) for version 1's weight (10 to 1000): a straight line (opencontainers/cgroups
/// `ConvertBlkIOToIOWeightValue`).
pub(super) fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990
}

fn in_range(field: impl Into<Field>, weight: u16) -> Result<(), PlanError> {
    let range = "between 10 and 1000";
    let known = (10..=1000).contains(&weight);
    if known { Ok(()) } else { Err(PlanError::OutOfRange { field: field.into(), value: weight.into(), range }) }
}

fn only_version_1(field: impl Into<Field>, version: Version) -> Result<(), PlanError> {
    if version == Version::V1 { Ok(()) } else { Err(PlanError::OnlyVersion1 { field: field.into() }) }
}

fn device(list: &'static str, index: usize, major: i64, minor: i64) -> Result<String, PlanError> {
    for (part, number) in [("major", major), ("minor", minor)] {
        if u32::try_from(number).is_err() {
            let (field, range) = (Field::member(list, index, part), "the number of a device");
            return Err(PlanError::OutOfRange { field, value: number.into(), range });
        }
    }
    Ok(format!("{major}:{minor}"))
}
