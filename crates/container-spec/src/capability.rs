//! Which capabilities a container has.

use engine_api::host_config::HostConfig;
use oci::names::capability_number;
use oci::runtime::Capabilities;

use crate::facts::HostFacts;
use crate::validate::InvalidRequest;

/// What Docker gives a container that asks for nothing else, in its order.
pub const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// The word for all of them in `CapAdd` and `CapDrop`.
const ALL: &str = "ALL";

/// The five sets of a container's processes: bounding, effective and permitted are equal, the others empty.
///
/// What our own bounding set lacks cannot be given. A privileged container gets the rest of it.
pub fn capabilities(host: &HostConfig, facts: &HostFacts) -> Result<Capabilities, InvalidRequest> {
    let add = normalize("CapAdd", host.cap_add.as_deref().unwrap_or_default(), facts)?;
    let drop = normalize("CapDrop", host.cap_drop.as_deref().unwrap_or_default(), facts)?;
    if host.privileged {
        return Ok(everything(facts));
    }
    let has = |list: &[String], name: &str| list.iter().any(|entry| entry == name);
    let chosen: Vec<String> = if has(&add, ALL) {
        facts.bounding_capabilities.iter().filter(|name| !has(&drop, name)).cloned().collect()
    } else {
        let kept = DEFAULT.iter().filter(|name| !has(&drop, ALL) && !has(&drop, name)).map(|name| name.to_string());
        let mut chosen: Vec<String> = kept.filter(|name| has(&facts.bounding_capabilities, name)).collect();
        for name in add {
            if !has(&chosen, &name) {
                chosen.push(name);
            }
        }
        chosen
    };
    Ok(sets(chosen))
}

/// All that can be given: for privileged containers and privileged execs.
pub fn everything(facts: &HostFacts) -> Capabilities {
    sets(facts.bounding_capabilities.clone())
}

fn sets(names: Vec<String>) -> Capabilities {
    Capabilities { bounding: names.clone(), effective: names.clone(), permitted: names, ..Capabilities::default() }
}

/// Names in capitals with their prefix; unknown ones, and those that cannot be given, are refused.
fn normalize(list: &'static str, names: &[String], facts: &HostFacts) -> Result<Vec<String>, InvalidRequest> {
    let mut normalized = Vec::with_capacity(names.len());
    for name in names {
        let mut name = name.to_uppercase();
        if name != ALL {
            if !name.starts_with("CAP_") {
                name.insert_str(0, "CAP_");
            }
            if capability_number(&name).is_none() {
                return Err(InvalidRequest::UnknownCapability { list, name });
            }
            if !facts.bounding_capabilities.contains(&name) {
                return Err(InvalidRequest::UnavailableCapability { list, name });
            }
        }
        normalized.push(name);
    }
    Ok(normalized)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::facts;

    fn check(add: &[&str], drop: &[&str], expected: Result<&str, &str>) {
        let list = |names: &[&str]| Some(names.iter().map(|name| name.to_string()).collect());
        let host = HostConfig { cap_add: list(add), cap_drop: list(drop), ..HostConfig::default() };
        let result = capabilities(&host, &facts()).map(|sets| sets.bounding.join(" ").replace("CAP_", ""));
        let result = result.map_err(|err| err.to_string());
        assert_eq!(result.as_deref().map_err(String::as_str), expected, "+{add:?} -{drop:?}");
    }

    #[test]
    fn adding_and_dropping_follows_docker() {
        check(
            &[],
            &[],
            Ok(
                "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT \
                 KILL AUDIT_WRITE",
            ),
        );
        check(&["net_admin"], &["all"], Ok("NET_ADMIN"));
        check(&["CAP_CHOWN", "SYS_PTRACE"], &["ALL"], Ok("CHOWN SYS_PTRACE"));
        check(&["ALL"], &["SYS_ADMIN"], {
            let all: Vec<&str> = oci::names::CAPABILITIES
                .into_iter()
                .filter(|name| !["SYS_ADMIN", "SYS_RESOURCE"].contains(name))
                .collect();
            Ok(Box::leak(all.join(" ").into_boxed_str()))
        });
        check(&["FOO"], &[], Err(r#"invalid CapAdd: unknown capability: "CAP_FOO""#));
        check(
            &[],
            &["sys_resource"],
            Err(
                "invalid CapDrop: capability not supported by your kernel or not available in the current environment: \
                 \"CAP_SYS_RESOURCE\"",
            ),
        );
    }

    #[test]
    fn a_privileged_container_gets_the_bounding_set() {
        let host = HostConfig { privileged: true, ..HostConfig::default() };
        let sets = capabilities(&host, &facts()).unwrap();
        assert_eq!(sets.effective, facts().bounding_capabilities);
        assert!(sets.inheritable.is_empty() && sets.ambient.is_empty());
    }
}
