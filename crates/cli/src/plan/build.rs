//! Flags of `build` as the API wants them.

use std::collections::BTreeMap;

use client::build::BuildOptions;

use super::values;
use crate::args::Parsed;

/// Why a build is not asked for. The texts are Docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The size is none.
    #[error("invalid size: '{0}'")]
    Size(String),
}

/// The request, without what comes of the surroundings: its platform, logins and Dockerfile.
pub fn options(parsed: &Parsed, arguments: BTreeMap<String, Option<String>>) -> Result<BuildOptions, BuildError> {
    let bytes = |name: &str| match parsed.text(name) {
        "" => Ok(0),
        "-1" => Ok(-1),
        text => values::bytes(text).map_err(|_| BuildError::Size(text.to_owned())),
    };
    let int = |name: &str| parsed.int(name).unwrap_or(0);
    let ulimits = parsed.list("ulimit").iter().filter_map(|text| values::ulimit(text).ok());
    // Go's client keeps them in a map: the last of a name counts.
    let ulimits: BTreeMap<String, _> = ulimits.map(|limit| (limit.name.clone(), limit)).collect();
    let labels = parsed.list("label").iter().map(|text| text.split_once('=').unwrap_or((text, "")));
    Ok(BuildOptions {
        names: parsed.list("tag").to_vec(),
        arguments,
        labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        target: parsed.text("target").to_owned(),
        quiet: parsed.flag("quiet"),
        no_cache: parsed.flag("no-cache"),
        pull: parsed.flag("pull"),
        remove: parsed.flag_or("rm", true),
        force_remove: parsed.flag("force-rm"),
        cache_from: parsed.list("cache-from").to_vec(),
        extra_hosts: parsed.list("add-host").to_vec(),
        security: parsed.list("security-opt").to_vec(),
        network: parsed.text("network").to_owned(),
        isolation: parsed.text("isolation").to_owned(),
        cgroup_parent: parsed.text("cgroup-parent").to_owned(),
        cpuset_cpus: parsed.text("cpuset-cpus").to_owned(),
        cpuset_mems: parsed.text("cpuset-mems").to_owned(),
        numbers: vec![
            ("memory", bytes("memory")?),
            ("memswap", bytes("memory-swap")?),
            ("shmsize", bytes("shm-size")?),
            ("cpushares", int("cpu-shares")),
            ("cpuperiod", int("cpu-period")),
            ("cpuquota", int("cpu-quota")),
        ],
        ulimits: ulimits.into_values().collect(),
        ..BuildOptions::default()
    })
}
