//! Bodies of `POST /containers/{id}/update`.

use serde::{Deserialize, Serialize};

use crate::host_config::HostConfig;

/// What changes: limits and the restart policy of a host configuration. Zero and empty mean "as it is".
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct UpdateRequest {
    /// Only fields of limits, and the restart policy, are ever set.
    pub host_config: HostConfig,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UpdateResponse {
    /// What the user should know; null for nothing.
    pub warnings: Option<Vec<String>>,
}

/// The request as Docker's client sends it: what is not given is zero, an empty text or null.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SentUpdate {
    /// Relative processor weight.
    pub cpu_shares: i64,
    /// Bytes.
    pub memory: i64,
    /// Billionths of a processor.
    pub nano_cpus: i64,
    /// 10 to 1000.
    pub blkio_weight: u16,
    /// Microseconds.
    pub cpu_period: i64,
    /// Microseconds in a period.
    pub cpu_quota: i64,
    /// Microseconds.
    pub cpu_realtime_period: i64,
    /// Microseconds.
    pub cpu_realtime_runtime: i64,
    /// `0-2,4`.
    pub cpuset_cpus: String,
    /// `0-2,4`.
    pub cpuset_mems: String,
    /// Bytes; soft limit.
    pub memory_reservation: i64,
    /// Bytes of memory and swap; -1 for no limit.
    pub memory_swap: i64,
    /// Number of tasks; -1 for no limit.
    pub pids_limit: Option<i64>,
    /// When it is started again; an empty name for "as it is".
    pub restart_policy: crate::host_config::RestartPolicy,
}
