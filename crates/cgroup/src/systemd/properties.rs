//! Limits as properties of a unit (systemd.resource-control(5)), so that systemd does not set them back to its own when it
//! is reloaded. Pure.
//!
//! What systemd has no property for is kept by the cgroup's files alone, which are written in any case.

use dbus::Value;
use oci::runtime::{CpuLimits, DeviceRule, Resources};

use crate::facts::Version;
use crate::plan::{cpu_weight, swap_alone};

/// A property and its value.
pub(crate) type Property = (String, Value);

/// systemd's word for no limit.
const INFINITY: u64 = u64::MAX;

/// The properties of these limits; `release` is systemd's. Device rules make some only if there are any.
pub(crate) fn of_limits(resources: &Resources, version: Version, release: u32) -> Vec<Property> {
    let mut properties = devices(&resources.devices);
    let mut add = |name: &str, value: Value| properties.push((name.to_owned(), value));
    let bytes = |bytes: i64| Value::U64(u64::try_from(bytes).unwrap_or(INFINITY));
    let asked = |value: Option<i64>| value.filter(|value| *value != 0);
    if let Some(memory) = &resources.memory {
        match version {
            Version::V1 => asked(memory.limit).into_iter().for_each(|limit| add("MemoryLimit", bytes(limit))),
            Version::V2 => {
                asked(memory.limit).into_iter().for_each(|limit| add("MemoryMax", bytes(limit)));
                asked(memory.reservation).into_iter().for_each(|limit| add("MemoryLow", bytes(limit)));
                // Contradictions are the plan's to tell.
                swap_alone(memory).ok().flatten().into_iter().for_each(|swap| add("MemorySwapMax", bytes(swap)));
            }
        }
    }
    if let Some(cpu) = &resources.cpu {
        properties.extend(processors(cpu, version, release));
    }
    let mut add = |name: &str, value: Value| properties.push((name.to_owned(), value));
    if let (Version::V1, Some(weight)) = (version, resources.block_io.as_ref().and_then(|io| io.weight)) {
        add("BlockIOWeight", Value::U64(weight.into()));
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        // systemd takes no 0, which is one task for us, too.
        add("TasksMax", Value::U64(u64::try_from(limit).unwrap_or(INFINITY).max(1)));
    }
    if version == Version::V2 {
        resources.unified.iter().filter_map(|(file, value)| unified(file, value.trim())).for_each(|(n, v)| add(n, v));
    }
    properties
}

fn processors(cpu: &CpuLimits, version: Version, release: u32) -> Vec<Property> {
    let mut properties = Vec::new();
    let mut add = |name: &str, value: Value| properties.push((name.to_owned(), value));
    let idle = version == Version::V2 && cpu.idle == Some(1) && release >= IDLE_SINCE;
    match (cpu.shares.filter(|shares| *shares != 0), version) {
        // A weight of 0 is idle.
        _ if idle => add("CPUWeight", Value::U64(0)),
        (Some(shares), Version::V1) => add("CPUShares", Value::U64(shares)),
        (Some(shares), Version::V2) => add("CPUWeight", Value::U64(cpu_weight(shares))),
        (None, _) => {}
    }
    let (quota, period) = (cpu.quota.filter(|quota| *quota != 0), cpu.period.filter(|period| *period != 0));
    if let Some(period) = period {
        add("CPUQuotaPeriodUSec", Value::U64(period));
    }
    if quota.is_some() || period.is_some() {
        add("CPUQuotaPerSecUSec", Value::U64(quota_per_second(quota, period.unwrap_or(100_000))));
    }
    for (name, list) in [("AllowedCPUs", &cpu.cpus), ("AllowedMemoryNodes", &cpu.mems)] {
        if let Some(bits) = bits(list) {
            add(name, Value::bytes(&bits));
        }
    }
    properties
}

/// systemd.resource-control(5), CPUWeight=, "idle".
const IDLE_SINCE: u32 = 252;

/// systemd counts in percent of a second: rounded up, so that what it sets itself is never less than what was asked for.
fn quota_per_second(quota: Option<i64>, period: u64) -> u64 {
    let Some(quota) = quota.and_then(|quota| u64::try_from(quota).ok()) else { return INFINITY };
    let per_second = u128::from(quota) * 1_000_000 / u128::from(period.max(1));
    u64::try_from(per_second.div_ceil(10_000) * 10_000).unwrap_or(INFINITY)
}

/// `0-1,3` as a bit for each number, lowest byte first; nothing for what is no such list, or for an empty one.
fn bits(list: &str) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        // No kernel has more processors than fit (CONFIG_NR_CPUS).
        let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
        for number in usize::from(first)..=usize::from(last) {
            bits.resize(bits.len().max(number / 8 + 1), 0);
            bits[number / 8] |= 1 << (number % 8);
        }
    }
    Some(bits).filter(|bits: &Vec<u8>| !bits.is_empty())
}

/// Files of version 2 that have a property.
fn unified(file: &str, value: &str) -> Option<(&'static str, Value)> {
    let number = || Some(Value::U64(if value == "max" { INFINITY } else { value.parse().ok()? }));
    Some(match file {
        "cpu.weight" => ("CPUWeight", number()?),
        "memory.high" => ("MemoryHigh", number()?),
        "memory.low" => ("MemoryLow", number()?),
        "memory.min" => ("MemoryMin", number()?),
        "memory.max" => ("MemoryMax", number()?),
        "memory.swap.max" => ("MemorySwapMax", number()?),
        "pids.max" => ("TasksMax", number()?),
        "cpuset.cpus" => ("AllowedCPUs", Value::bytes(&bits(value)?)),
        "cpuset.mems" => ("AllowedMemoryNodes", Value::bytes(&bits(value)?)),
        _ => return None,
    })
}

/// A list of what is allowed, if the rules are one that systemd can say; else it is told to keep out of it.
fn devices(rules: &[DeviceRule]) -> Vec<Property> {
    if rules.is_empty() {
        return Vec::new();
    }
    let everything = |rule: &DeviceRule| matches!(rule.kind.as_str(), "" | "a");
    let from = rules.iter().rposition(everything);
    let (begins_closed, rest) = from.map_or((false, rules), |at| (!rules[at].allow, &rules[at + 1..]));
    let allowed: Option<Vec<Value>> = rest.iter().map(device).collect();
    let (policy, allowed) = match allowed.filter(|_| begins_closed) {
        Some(allowed) => ("strict", allowed),
        None => ("auto", Vec::new()),
    };
    vec![
        ("DevicePolicy".to_owned(), Value::Text(policy.to_owned())),
        ("DeviceAllow".to_owned(), Value::Array("(ss)".to_owned(), allowed)),
    ]
}

/// An entry of `DeviceAllow`; nothing for a rule that it cannot say.
fn device(rule: &DeviceRule) -> Option<Value> {
    let kind = match rule.kind.as_str() {
        "c" => "char",
        "b" => "block",
        _ => return None,
    };
    let number = |number: Option<i64>| number.filter(|number| *number >= 0);
    let node = match (number(rule.major), number(rule.minor)) {
        (None, None) => format!("{kind}-*"),
        (Some(major), None) => format!("{kind}-{major}"),
        (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
        (None, Some(_)) => return None,
    };
    let entry = Value::Struct(vec![Value::Text(node), Value::Text(rule.access.clone())]);
    rule.allow.then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(json: &str, version: Version) -> String {
        let resources: Resources = serde_json::from_str(json).unwrap();
        let one = |(name, value): &Property| match value {
            Value::U64(INFINITY) => format!("{name}=infinity"),
            Value::U64(number) => format!("{name}={number}"),
            Value::Text(text) => format!("{name}={text}"),
            Value::Array(_, members) => {
                let text = |value: &Value| match value {
                    Value::Byte(byte) => byte.to_string(),
                    Value::Struct(texts) => format!("{texts:?}").replace("Text(\"", "").replace("\")", ""),
                    other => format!("{other:?}"),
                };
                format!("{name}={}", members.iter().map(text).collect::<Vec<_>>().join(" "))
            }
            other => format!("{name}={other:?}"),
        };
        of_limits(&resources, version, 252).iter().map(one).collect::<Vec<_>>().join("; ")
    }

    fn check(json: &str, v1: &str, v2: &str) {
        assert_eq!(printed(json, Version::V1), v1);
        assert_eq!(printed(json, Version::V2), v2);
    }

    #[test]
    fn limits_are_properties() {
        check("{}", "", "");
        check(
            r#"{"memory": {"limit": 100, "swap": 150, "reservation": 50}, "pids": {"limit": 0}}"#,
            "MemoryLimit=100; TasksMax=1",
            "MemoryMax=100; MemoryLow=50; MemorySwapMax=50; TasksMax=1",
        );
        check(
            r#"{"memory": {"limit": -1}, "pids": {"limit": -1}, "blockIO": {"weight": 500}}"#,
            "MemoryLimit=infinity; BlockIOWeight=500; TasksMax=infinity",
            "MemoryMax=infinity; MemorySwapMax=infinity; TasksMax=infinity",
        );
        check(
            r#"{"cpu": {"shares": 1024, "quota": 33333, "cpus": "0-1,9", "mems": "0"}}"#,
            "CPUShares=1024; CPUQuotaPerSecUSec=340000; AllowedCPUs=3 2; AllowedMemoryNodes=1",
            "CPUWeight=100; CPUQuotaPerSecUSec=340000; AllowedCPUs=3 2; AllowedMemoryNodes=1",
        );
        check(
            r#"{"cpu": {"shares": 1024, "idle": 1, "quota": -1, "period": 50000, "cpus": "x"}}"#,
            "CPUShares=1024; CPUQuotaPeriodUSec=50000; CPUQuotaPerSecUSec=infinity",
            "CPUWeight=0; CPUQuotaPeriodUSec=50000; CPUQuotaPerSecUSec=infinity",
        );
        check(
            r#"{"unified": {"memory.high": "max", "pids.max": "7", "cpuset.cpus": "2", "io.max": "8:0 rbps=1"}}"#,
            "",
            "AllowedCPUs=4; MemoryHigh=infinity; TasksMax=7",
        );
    }

    #[test]
    fn device_rules_are_a_list_or_nothing() {
        let all = "DevicePolicy=auto; DeviceAllow=";
        let rule = r#"{"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}"#;
        let deny = r#"{"allow": false, "access": "rwm"}"#;
        for (rules, printed) in [
            (vec![rule], all),
            (vec![r#"{"allow": true, "access": "rwm"}"#], all),
            (vec![deny], "DevicePolicy=strict; DeviceAllow="),
            (
                vec![r#"{"allow": true, "type": "a"}"#, deny, rule, r#"{"allow": true, "type": "b", "access": "m"}"#],
                "DevicePolicy=strict; DeviceAllow=[/dev/char/1:3, rw] [block-*, m]",
            ),
            (
                vec![deny, r#"{"allow": true, "type": "c", "major": 136, "minor": -1, "access": "rwm"}"#],
                "DevicePolicy=strict; DeviceAllow=[char-136, rwm]",
            ),
            (vec![deny, r#"{"allow": true, "type": "c", "minor": 3, "access": "rwm"}"#], all),
            (vec![deny, rule, r#"{"allow": false, "type": "c", "major": 1, "access": "w"}"#], all),
        ] {
            let json = format!(r#"{{"devices": [{}]}}"#, rules.join(","));
            check(&json, printed, printed);
        }
    }
}
