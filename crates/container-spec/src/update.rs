//! Other limits, and another restart policy, for a container that exists. Pure.
//!
//! A request is a host configuration in which only what changes is given: zero and empty mean "as it is".

use engine_api::host_config::HostConfig;
use oci::runtime::{BlockIo, CpuLimits, MemoryLimits, PidsLimit, Resources};

use crate::facts::{CgroupLayout, HostFacts};
use crate::plan;
use crate::validate::{self, InvalidRequest, Warning};

/// Why a change contradicts what is there. The texts are dockerd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateConflict {
    /// A share of the processors, where a period or a quota is set.
    #[error("Conflicting options: Nano CPUs cannot be updated as CPU {0} has already been set")]
    CpusOverOther(&'static str),
    /// A period or a quota, where a share of the processors is set.
    #[error("Conflicting options: CPU {0} cannot be updated as NanoCPUs has already been set")]
    OtherOverCpus(&'static str),
    /// Memory beyond memory and swap together.
    #[error("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")]
    MemoryOverSwap,
    /// A container that removes itself is not started again.
    #[error("Restart policy cannot be updated because AutoRemove is enabled for the container")]
    AutoRemove,
}

/// Checks a request by itself, in dockerd's words; takes out what this machine cannot do.
pub fn validate_update(request: &mut HostConfig, facts: &HostFacts) -> Result<Vec<Warning>, InvalidRequest> {
    validate::restart_policy(request)?;
    for (asked, option) in
        [(request.cpu_realtime_period != 0, "--cpu-rt-period"), (request.cpu_realtime_runtime != 0, "--cpu-rt-runtime")]
    {
        if asked {
            return Err(InvalidRequest::NotOffered { option });
        }
    }
    // The other part of a pair may be what is set already: see `merge_update`.
    let alone = request.memory == 0 && request.memory_swap > 0;
    let mut judged = request.clone();
    if alone {
        judged.memory_swap = 0;
    }
    let warnings = validate::limits(&judged, facts)?;
    if !facts.controls.block_io.weight {
        request.blkio_weight = 0;
    }
    // Both mean no limit.
    request.pids_limit = request.pids_limit.map(|limit| limit.max(0));
    Ok(warnings)
}

/// Puts a request over what a container has.
pub fn merge_update(host: &mut HostConfig, request: &HostConfig) -> Result<(), UpdateConflict> {
    for (set, name) in [(host.cpu_period > 0, "Period"), (host.cpu_quota > 0, "Quota")] {
        if request.nano_cpus > 0 && set {
            return Err(UpdateConflict::CpusOverOther(name));
        }
    }
    for (asked, name) in [(request.cpu_period > 0, "Period"), (request.cpu_quota > 0, "Quota")] {
        if asked && host.nano_cpus > 0 {
            return Err(UpdateConflict::OtherOverCpus(name));
        }
    }
    // Also where there is no limit of the sum, which dockerd keeps as 0 or -1.
    if request.memory != 0 && request.memory_swap == 0 && request.memory > host.memory_swap {
        return Err(UpdateConflict::MemoryOverSwap);
    }
    let restarts = !matches!(request.restart_policy.name.as_str(), "" | "no");
    if host.auto_remove && restarts {
        return Err(UpdateConflict::AutoRemove);
    }
    for (own, asked) in [
        (&mut host.cpu_shares, request.cpu_shares),
        (&mut host.nano_cpus, request.nano_cpus),
        (&mut host.cpu_period, request.cpu_period),
        (&mut host.cpu_quota, request.cpu_quota),
        (&mut host.memory, request.memory),
        (&mut host.memory_swap, request.memory_swap),
        (&mut host.memory_reservation, request.memory_reservation),
    ] {
        if asked != 0 {
            *own = asked;
        }
    }
    for (own, asked) in [(&mut host.cpuset_cpus, &request.cpuset_cpus), (&mut host.cpuset_mems, &request.cpuset_mems)] {
        if !asked.is_empty() {
            own.clone_from(asked);
        }
    }
    if request.blkio_weight != 0 {
        host.blkio_weight = request.blkio_weight;
    }
    host.pids_limit = request.pids_limit.or(host.pids_limit);
    if !request.restart_policy.name.is_empty() {
        host.restart_policy.clone_from(&request.restart_policy);
    }
    Ok(())
}

/// What is written for a request: `merged` is the container's configuration with it. What nobody asks for is left alone,
/// but for what the kernel knows together: memory and swap, quota and period.
pub fn update_resources(merged: &HostConfig, request: &HostConfig, facts: &HostFacts) -> Resources {
    let memory = request.memory != 0 || request.memory_swap != 0;
    let bandwidth = request.nano_cpus != 0 || request.cpu_quota != 0 || request.cpu_period != 0;
    let all = plan::processors(merged).unwrap_or_default();
    let cpu = CpuLimits {
        shares: all.shares.filter(|_| request.cpu_shares != 0),
        quota: all.quota.filter(|_| bandwidth),
        period: all.period.filter(|_| bandwidth),
        cpus: request.cpuset_cpus.clone(),
        mems: request.cpuset_mems.clone(),
        ..CpuLimits::default()
    };
    let limits = MemoryLimits {
        limit: Some(merged.memory).filter(|limit| memory && *limit > 0),
        swap: Some(merged.memory_swap).filter(|swap| memory && *swap != 0 && facts.swap_limit),
        reservation: Some(request.memory_reservation).filter(|limit| *limit > 0),
        // Version 2 would kill at once where version 1 refuses.
        check_before_update: (memory && facts.cgroup == CgroupLayout::V2).then_some(true),
        ..MemoryLimits::default()
    };
    let weight = Some(request.blkio_weight).filter(|weight| *weight != 0);
    Resources {
        memory: Some(limits).filter(|limits| *limits != MemoryLimits::default()),
        cpu: Some(cpu).filter(|cpu| *cpu != CpuLimits::default()),
        pids: request.pids_limit.map(|limit| PidsLimit { limit: Some(if limit > 0 { limit } else { -1 }) }),
        block_io: weight.map(|weight| BlockIo { weight: Some(weight), ..BlockIo::default() }),
        ..Resources::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::facts;
    use engine_api::host_config::RestartPolicy;

    const MIB: i64 = 1 << 20;

    fn request(change: impl FnOnce(&mut HostConfig)) -> HostConfig {
        let mut request = HostConfig::default();
        change(&mut request);
        request
    }

    #[test]
    fn contradictions_are_told_in_dockerds_words() {
        let has = |change: fn(&mut HostConfig)| request(change);
        for (host, request, sentence) in [
            (
                has(|it| it.cpu_period = 100_000),
                request(|it| it.nano_cpus = 1),
                "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set",
            ),
            (
                has(|it| it.nano_cpus = 1),
                request(|it| it.cpu_quota = 5000),
                "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
            ),
            (
                has(|it| (it.memory, it.memory_swap) = (64 * MIB, 128 * MIB)),
                request(|it| it.memory = 256 * MIB),
                "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
            ),
            (
                has(|it| it.auto_remove = true),
                request(|it| it.restart_policy.name = "always".to_owned()),
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            ),
        ] {
            let mut host = host;
            assert_eq!(merge_update(&mut host, &request).unwrap_err().to_string(), sentence);
        }
    }

    #[test]
    fn only_what_is_asked_for_changes() {
        let mut host = request(|it| (it.memory, it.memory_swap, it.cpu_shares) = (64 * MIB, -1, 7));
        host.restart_policy.name = "no".to_owned();
        let before = host.clone();
        merge_update(&mut host, &HostConfig::default()).unwrap();
        assert_eq!(host, before);
        let always = RestartPolicy { name: "always".to_owned(), maximum_retry_count: 0 };
        let asked = request(|it| {
            (it.memory, it.memory_swap) = (256 * MIB, -1);
            (it.pids_limit, it.restart_policy) = (Some(0), always.clone());
        });
        merge_update(&mut host, &asked).unwrap();
        assert_eq!((host.memory, host.memory_swap, host.cpu_shares, host.pids_limit), (256 * MIB, -1, 7, Some(0)));
        assert_eq!(host.restart_policy, always);
    }

    #[test]
    fn pairs_are_written_together_and_nothing_else() {
        let merged = request(|it| (it.memory, it.memory_swap, it.cpu_shares) = (64 * MIB, 128 * MIB, 7));
        let written = |request: &HostConfig| update_resources(&merged, request, &facts());
        assert_eq!(written(&HostConfig::default()), Resources::default());
        let memory = written(&request(|it| it.memory = 64 * MIB)).memory.unwrap();
        assert_eq!((memory.limit, memory.swap), (Some(64 * MIB), Some(128 * MIB)));
        let pids = written(&request(|it| it.pids_limit = Some(0)));
        assert_eq!((pids.pids.unwrap().limit, pids.memory, pids.cpu), (Some(-1), None, None));
        let shares = written(&request(|it| it.cpu_shares = 7)).cpu.unwrap();
        assert_eq!((shares.shares, shares.quota), (Some(7), None));
        let cpus = request(|it| it.nano_cpus = 500_000_000);
        let cpu = update_resources(&cpus, &cpus, &facts()).cpu.unwrap();
        assert_eq!((cpu.quota, cpu.period), (Some(50_000), Some(100_000)));
    }

    #[test]
    fn a_request_is_judged_by_itself() {
        for (mut asked, judged) in [
            (request(|it| it.memory = 1), Err("Minimum memory limit allowed is 6MB")),
            (request(|it| it.memory_swap = 64 * MIB), Ok(0)),
            (request(|it| it.restart_policy.name = "on-unhealthy".to_owned()), Ok(0)),
            (request(|it| it.cpuset_cpus = "99".to_owned()), Err("Requested CPUs are not available")),
        ] {
            let told = validate_update(&mut asked, &facts()).map(|warnings| warnings.len());
            match (told, judged) {
                (Ok(told), Ok(expected)) => assert_eq!(told, expected),
                (Err(err), Err(sentence)) => assert!(err.to_string().starts_with(sentence), "{err}"),
                (told, _) => panic!("{told:?} for {asked:?}"),
            }
        }
        let mut asked = request(|it| (it.blkio_weight, it.pids_limit) = (300, Some(-1)));
        let mut weightless = facts();
        weightless.controls.block_io.weight = false;
        assert_eq!(validate_update(&mut asked, &weightless).unwrap().len(), 1);
        assert_eq!((asked.blkio_weight, asked.pids_limit), (0, Some(0)));
    }
}
