//! Weights and limits of block I/O: what is asked for, what the kernel has of it, and what the runtime is told.

use engine_api::host_config::{HostConfig, ThrottleDevice};

use crate::facts::{BlockIoControls, HostFacts};
use crate::validate::{InvalidRequest, Warning};

/// Docker's weights.
const WEIGHTS: std::ops::RangeInclusive<u16> = 10..=1000;

/// Checks what is asked for; what the kernel does not have is left out with a warning.
pub(crate) fn validate(host: &HostConfig, facts: &HostFacts) -> Result<Vec<Warning>, InvalidRequest> {
    let has = &facts.controls.block_io;
    let mut warnings = Vec::new();
    match host.blkio_weight {
        0 => {}
        _ if !has.weight => warnings.push(Warning::NoBlockIo { what: "Block I/O weight", discarded: "Weight" }),
        weight if !WEIGHTS.contains(&weight) => return Err(InvalidRequest::BlockIoWeight),
        _ => {}
    }
    for (asked, what) in [(host.io_maximum_bandwidth, "bandwidth"), (host.io_maximum_iops, "IOPs")] {
        if asked != 0 {
            return Err(InvalidRequest::IoMaximum { what });
        }
    }
    if host.blkio_weight_device.as_ref().is_some_and(|list| !list.is_empty()) && !has.weight_device {
        warnings.push(Warning::NoBlockIo { what: "Block I/O weight_device", discarded: "Weight-device" });
    }
    for ((list, has, _), (what, discarded)) in throttles(host, has).into_iter().zip([
        ("BPS Block I/O read limit", "Block I/O BPS read limit"),
        ("BPS Block I/O write limit", "Block I/O BPS write limit"),
        ("IOPS Block read limit", "Block I/O IOPS read limit"),
        ("IOPS Block write limit", "Block I/O IOPS write limit"),
    ]) {
        if !list.is_empty() && !has {
            warnings.push(Warning::NoBlockIo { what, discarded });
        }
    }
    Ok(warnings)
}

/// Which list of the host configuration a limit comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Throttle {
    /// Bytes read.
    ReadBps,
    /// Bytes written.
    WriteBps,
    /// Reads.
    ReadIops,
    /// Writes.
    WriteIops,
}

/// The limits of a request, and whether the kernel has such ones.
pub fn throttles<'a>(host: &'a HostConfig, has: &BlockIoControls) -> [(&'a [ThrottleDevice], bool, Throttle); 4] {
    let list = |list: &'a Option<Vec<ThrottleDevice>>| list.as_deref().unwrap_or_default();
    [
        (list(&host.blkio_device_read_bps), has.read_bps, Throttle::ReadBps),
        (list(&host.blkio_device_write_bps), has.write_bps, Throttle::WriteBps),
        (list(&host.blkio_device_read_iops), has.read_iops, Throttle::ReadIops),
        (list(&host.blkio_device_write_iops), has.write_iops, Throttle::WriteIops),
    ]
}

/// Leaves out what the kernel does not have, as `inspect` shows it.
pub(crate) fn normalize(host: &mut HostConfig, facts: &HostFacts) {
    fn clear<T>(list: &mut Option<Vec<T>>, has: bool) {
        if !has && let Some(list) = list {
            list.clear();
        }
    }
    let has = facts.controls.block_io;
    if !has.weight {
        host.blkio_weight = 0;
    }
    clear(&mut host.blkio_weight_device, has.weight_device);
    clear(&mut host.blkio_device_read_bps, has.read_bps);
    clear(&mut host.blkio_device_write_bps, has.write_bps);
    clear(&mut host.blkio_device_read_iops, has.read_iops);
    clear(&mut host.blkio_device_write_iops, has.write_iops);
}

#[cfg(test)]
mod tests {
    use engine_api::host_config::WeightDevice;

    use super::*;
    use crate::testing::facts;

    fn asked() -> HostConfig {
        let throttle = || Some(vec![ThrottleDevice { path: "/dev/loop0".to_owned(), rate: 1 }]);
        HostConfig {
            blkio_weight: 20,
            blkio_weight_device: Some(vec![WeightDevice { path: "/dev/loop0".to_owned(), weight: 10 }]),
            blkio_device_read_bps: throttle(),
            blkio_device_write_bps: throttle(),
            blkio_device_read_iops: throttle(),
            blkio_device_write_iops: throttle(),
            ..HostConfig::default()
        }
    }

    /// The sentences as dockerd 28.5.2 has them on a kernel without any.
    #[test]
    fn what_the_kernel_does_not_have_is_said_and_left_out() {
        let warnings = validate(&asked(), &facts()).unwrap();
        expect_test::expect![[r#"
            Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.
            Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.
            Your kernel does not support BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read limit discarded.
            Your kernel does not support BPS Block I/O write limit or the cgroup is not mounted. Block I/O BPS write limit discarded.
            Your kernel does not support IOPS Block read limit or the cgroup is not mounted. Block I/O IOPS read limit discarded.
            Your kernel does not support IOPS Block write limit or the cgroup is not mounted. Block I/O IOPS write limit discarded.
        "#]]
        .assert_eq(&warnings.iter().map(|warning| format!("{warning}\n")).collect::<String>());
        let mut host = asked();
        normalize(&mut host, &facts());
        assert_eq!((host.blkio_weight, host.blkio_weight_device), (0, Some(vec![])));
        assert_eq!(host.blkio_device_write_iops, Some(vec![]));
    }

    #[test]
    fn what_the_kernel_has_stays() {
        let mut facts = facts();
        let all = BlockIoControls {
            weight: true,
            weight_device: true,
            read_bps: true,
            write_bps: true,
            ..Default::default()
        };
        facts.controls.block_io = BlockIoControls { read_iops: true, write_iops: true, ..all };
        let mut host = asked();
        assert_eq!(validate(&host, &facts), Ok(vec![]));
        normalize(&mut host, &facts);
        assert_eq!(host, asked());
        host.blkio_weight = 5;
        assert_eq!(validate(&host, &facts), Err(InvalidRequest::BlockIoWeight));
        host = HostConfig { io_maximum_iops: 1, ..HostConfig::default() };
        assert_eq!(validate(&host, &facts), Err(InvalidRequest::IoMaximum { what: "IOPs" }));
    }
}
