//! What older clients are told of the engine.

use serde::Serialize;
use serde_json::Value;

use super::ApiVersion;
use crate::system::Info;

/// The engine as a version of the API tells it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct InfoAnswer {
    /// Everything else.
    #[serde(flatten)]
    pub info: Info,
    /// Limits on the kernel's memory, where they worked; gone with 1.42.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub kernel_memory: bool,
    /// Always false, and gone with 1.50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge_nf_iptables: Option<bool>,
    /// Always false, and gone with 1.50.
    #[serde(rename = "BridgeNfIp6tables", skip_serializing_if = "Option::is_none")]
    pub bridge_nf_ip6tables: Option<bool>,
}

/// Lowers what is told of the engine to `version` (moby `getInfo`).
pub fn downgrade_info(version: ApiVersion, mut info: Info) -> InfoAnswer {
    if version.before(25) {
        info.security_options.iter_mut().for_each(|option| *option = name_of(option));
    }
    if version.before(47)
        && let Value::Object(registries) = &mut info.registry_config
    {
        registries.insert("AllowNondistributableArtifactsCIDRs".to_owned(), Value::Null);
        registries.insert("AllowNondistributableArtifactsHostnames".to_owned(), Value::Null);
    }
    if version.before(49) {
        for commit in [&mut info.containerd_commit, &mut info.runc_commit, &mut info.init_commit] {
            // Left out where it is empty.
            let expected = commit.get("ID").and_then(Value::as_str).filter(|id| !id.is_empty()).map(Value::from);
            if let (Value::Object(commit), Some(expected)) = (commit, expected) {
                commit.insert("Expected".to_owned(), expected);
            }
        }
    }
    if version.before(49) {
        info.firewall_backend = None;
    }
    if version.before(50) {
        info.discovered_devices.clear();
    }
    let bridge = version.before(50).then_some(false);
    // Kernels have both kinds of limits or none.
    let kernel_memory = version.before(42) && info.kernel_memory_tcp;
    InfoAnswer { info, kernel_memory, bridge_nf_iptables: bridge, bridge_nf_ip6tables: bridge }
}

/// `seccomp` of `name=seccomp,profile=builtin`.
fn name_of(option: &str) -> String {
    let name = option.split(',').find_map(|part| part.strip_prefix("name="));
    name.unwrap_or(option).to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::system::DiscoveredDevice;

    #[test]
    fn old_clients_are_told_what_they_knew() {
        let info = Info {
            security_options: vec!["name=seccomp,profile=builtin".to_owned(), "name=cgroupns".to_owned()],
            registry_config: json!({"Mirrors": null}),
            runc_commit: json!({"ID": "x"}),
            init_commit: json!({"ID": ""}),
            kernel_memory_tcp: true,
            containerd_commit: json!({"ID": ""}),
            firewall_backend: Some(json!({"Driver": "nftables"})),
            discovered_devices: vec![DiscoveredDevice { source: "cdi".to_owned(), id: "v/c=d".to_owned() }],
            ..Info::default()
        };
        let told = |minor| serde_json::to_value(downgrade_info(ApiVersion { major: 1, minor }, info.clone())).unwrap();
        for (since, pointer, old, new) in [
            (25, "/SecurityOptions/0", Some(json!("seccomp")), Some(json!("name=seccomp,profile=builtin"))),
            (25, "/SecurityOptions/1", Some(json!("cgroupns")), Some(json!("name=cgroupns"))),
            (42, "/KernelMemory", Some(json!(true)), None),
            (47, "/RegistryConfig/AllowNondistributableArtifactsCIDRs", Some(json!(null)), None),
            (49, "/RuncCommit/Expected", Some(json!("x")), None),
            (49, "/InitCommit/Expected", None, None),
            (49, "/FirewallBackend/Driver", None, Some(json!("nftables"))),
            (50, "/DiscoveredDevices/0/ID", None, Some(json!("v/c=d"))),
            (50, "/BridgeNfIptables", Some(json!(false)), None),
            (50, "/BridgeNfIp6tables", Some(json!(false)), None),
        ] {
            assert_eq!(told(since - 1).pointer(pointer), old.as_ref(), "before 1.{since}: {pointer}");
            assert_eq!(told(since).pointer(pointer), new.as_ref(), "1.{since}: {pointer}");
        }
    }
}
