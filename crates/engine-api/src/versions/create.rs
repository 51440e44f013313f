//! What older clients mean by a create request.

use errdefs::ErrorKind;

use super::ApiVersion;
use crate::container::{CreateRequest, NetworkingConfig};
use crate::host_config::{HostConfig, Mount};
use crate::update::UpdateRequest;

/// Why a request is none of its version. The texts are dockerd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// Options of another type of mount; before 1.42 they were dropped.
    #[error("{options} must not be specified on mount type {kind:?}")]
    MountOptions {
        /// Which ones.
        options: &'static str,
        /// The mount's type.
        kind: String,
    },
    /// A field or a value that must not be ignored, and came later.
    #[error("{what} needs API v{since} or newer")]
    TooEarly {
        /// As dockerd names it.
        what: &'static str,
        /// Its first version.
        since: ApiVersion,
    },
    /// Two Ethernet addresses for one network.
    #[error(
        "unable to migrate container-wide MAC address to a specific network: the container-wide MAC address must match \
         the endpoint-specific MAC address for the main network, or be left empty"
    )]
    MacAddress,
    /// A container is connected to one network at its creation before 1.44.
    #[error("Container cannot be created with multiple network endpoints: {0}")]
    Networks(String),
}

impl UpgradeError {
    /// Always the caller's mistake.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

/// Lifts a create request of `version` to the newest one (moby `postContainersCreate`).
///
/// That cgroup namespaces were `host` on version 1 before 1.41 needs no rule: there they are to this day. Answers what the user
/// should know of it.
pub fn upgrade_create(version: ApiVersion, request: &mut CreateRequest) -> Result<Option<&'static str>, UpgradeError> {
    if let Some(host) = &mut request.host_config {
        upgrade_host(version, host);
        host.mounts.iter_mut().flatten().try_for_each(|mount| upgrade_mount(version, mount))?;
    }
    if version.before(44)
        && let Some(healthcheck) = &mut request.config.healthcheck
    {
        healthcheck.start_interval = 0;
    }
    let has_address = !request.config.mac_address.is_empty();
    if let Some(networking) = &mut request.networking_config {
        upgrade_networks(version, has_address, networking)?;
    }
    if has_address { carry_address(version, request) } else { Ok(None) }
}

/// The Ethernet address of a container as a whole is that of its main network.
fn carry_address(version: ApiVersion, request: &mut CreateRequest) -> Result<Option<&'static str>, UpgradeError> {
    let mode = request.host_config.as_ref().map_or("", |host| host.network_mode.as_str());
    let mode = if matches!(mode, "" | "default") { "bridge" } else { mode }.to_owned();
    if matches!(mode.as_str(), "host" | "none") || mode.starts_with("container:") {
        return Ok(None);
    }
    let address = request.config.mac_address.clone();
    let networking = request.networking_config.get_or_insert_default();
    let endpoints = networking.endpoints_config.get_or_insert_default();
    let names = [mode.as_str(), if mode == "bridge" { "default" } else { "" }];
    let known = names.into_iter().find(|name| endpoints.contains_key(*name)).map(str::to_owned);
    let only = endpoints.keys().next().filter(|_| endpoints.len() == 1).cloned();
    let endpoint = endpoints.entry(known.or(only).unwrap_or(mode)).or_default();
    if version.before(44) {
        endpoint.mac_address = address;
        return Ok(None);
    }
    if !endpoint.mac_address.is_empty() && endpoint.mac_address != address {
        return Err(UpgradeError::MacAddress);
    }
    endpoint.mac_address = address;
    request.config.mac_address.clear();
    Ok(Some(DEPRECATED_ADDRESS))
}

const DEPRECATED_ADDRESS: &str =
    "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead.";

/// Lifts an update of `version` to the newest one: limits on tasks could not be changed before 1.40.
pub fn upgrade_update(version: ApiVersion, request: &mut UpdateRequest) {
    if version.before(40) {
        request.host_config.pids_limit = None;
    }
}

/// The wanted platform: before 1.41 there was none.
pub fn upgrade_platform(version: ApiVersion, platform: Option<&str>) -> Option<&str> {
    platform.filter(|_| !version.before(41))
}

/// The platform that a pushed image shall have: before 1.46 it said nothing.
pub fn upgrade_push_platform(version: ApiVersion, platform: Option<&str>) -> Option<&str> {
    platform.filter(|_| !version.before(46))
}

/// Whether a read-only bind leaves what is mounted below it writable: before 1.44 every one did.
pub fn read_only_is_flat(version: ApiVersion) -> bool {
    version.before(44)
}

fn upgrade_host(version: ApiVersion, host: &mut HostConfig) {
    // Before 1.25 the client removed its container.
    if version.before(25) {
        host.auto_remove = false;
    }
    // Before 1.40 the daemon chose the IPC mode "shareable"; since then "private".
    if version.before(40) && host.ipc_mode.is_empty() {
        host.ipc_mode = "shareable".to_owned();
    }
    if version.before(42) {
        host.console_size = [0, 0];
        // -1 meant "the default", as the command line of that time sent it.
        host.memory_swappiness = host.memory_swappiness.filter(|&swappiness| swappiness != -1);
    }
    // Before 1.40 there was no such limit.
    if version.before(40) {
        host.kernel_memory_tcp = 0;
    }
    // KernelMemory is an unknown field by now. Annotations came with 1.43: older clients cannot mean them.
    if version.before(43) {
        host.annotations = None;
    }
}

fn upgrade_mount(version: ApiVersion, mount: &mut Mount) -> Result<(), UpgradeError> {
    let too_early = |what, since| Err(UpgradeError::TooEarly { what, since: ApiVersion { major: 1, minor: since } });
    if let Some(bind) = &mut mount.bind_options {
        bind.non_recursive &= !version.before(40);
        bind.create_mountpoint &= !version.before(42);
        if version.before(44) && mount.kind == "bind" && bind.read_only_force_recursive {
            return too_early("BindOptions.ReadOnlyForceRecursive", 44);
        }
    }
    if version.before(42) {
        mount.volume_options.take_if(|_| mount.kind != "volume");
        mount.tmpfs_options.take_if(|_| mount.kind != "tmpfs");
    }
    for (options, given, kind) in [
        ("VolumeOptions", mount.volume_options.is_some(), "volume"),
        ("BindOptions", mount.bind_options.is_some() && !version.before(42), "bind"),
        ("TmpfsOptions", mount.tmpfs_options.is_some(), "tmpfs"),
    ] {
        if given && mount.kind != kind {
            return Err(UpgradeError::MountOptions { options, kind: mount.kind.clone() });
        }
    }
    let subpath = mount.volume_options.as_ref().map_or("", |options| options.subpath.as_str());
    if version.before(45) && !subpath.is_empty() {
        return too_early("VolumeOptions.Subpath", 45);
    }
    if version.before(48) && mount.kind == "image" {
        return too_early("Mount type \"Image\"", 48);
    }
    Ok(())
}

/// `has_address` tells that the container as a whole has a MAC address, which was the only way before 1.44.
fn upgrade_networks(
    version: ApiVersion,
    has_address: bool,
    networking: &mut NetworkingConfig,
) -> Result<(), UpgradeError> {
    let Some(endpoints) = &mut networking.endpoints_config else { return Ok(()) };
    if version.before(44) && endpoints.len() > 1 {
        let names: Vec<&str> = endpoints.keys().map(String::as_str).collect();
        return Err(UpgradeError::Networks(names.join(", ")));
    }
    for endpoint in endpoints.values_mut() {
        if version.before(44) && !has_address {
            endpoint.mac_address.clear();
        }
        if version.before(48) {
            endpoint.gw_priority = 0;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What is at `pointer` of a request after it was lifted, or why it was refused.
    fn upgraded(minor: u32, request: &Value, pointer: &str) -> Value {
        let mut request: CreateRequest = serde_json::from_value(request.clone()).unwrap();
        match upgrade_create(ApiVersion { major: 1, minor }, &mut request) {
            Ok(_) => serde_json::to_value(request).unwrap().pointer(pointer).cloned().unwrap_or_default(),
            Err(err) => err.to_string().into(),
        }
    }

    #[test]
    fn fields_count_from_their_version_on() {
        for (since, pointer, asked, before) in [
            (25, "/HostConfig/AutoRemove", json!(true), json!(false)),
            (40, "/HostConfig/IpcMode", json!(""), json!("shareable")),
            (42, "/HostConfig/ConsoleSize", json!([24, 80]), json!([0, 0])),
            (42, "/HostConfig/MemorySwappiness", json!(-1), json!(null)),
            (43, "/HostConfig/Annotations", json!({"a": "b"}), json!(null)),
            (44, "/Healthcheck/StartInterval", json!(5), json!(null)),
            (44, "/NetworkingConfig/EndpointsConfig/n/MacAddress", json!("02:42:ac:11:00:02"), json!("")),
            (48, "/NetworkingConfig/EndpointsConfig/n/GwPriority", json!(7), json!(0)),
        ] {
            let request = pointer
                .rsplit('/')
                .filter(|name| !name.is_empty())
                .fold(asked.clone(), |inner, name| json!({ name: inner }));
            assert_eq!(upgraded(since - 1, &request, pointer), before, "before 1.{since}: {pointer}");
            assert_eq!(upgraded(since, &request, pointer), asked, "1.{since}: {pointer}");
        }
    }

    #[test]
    fn options_of_mounts_count_from_their_version_on() {
        let check = |minor: u32, mount: Value, pointer: &str| {
            upgraded(minor, &json!({"HostConfig": {"Mounts": [mount]}}), &format!("/HostConfig/Mounts/0/{pointer}"))
        };
        for (minor, mount, pointer, expected) in [
            (39, json!({"Type": "bind", "BindOptions": {"NonRecursive": true}}), "BindOptions", json!({})),
            (
                40,
                json!({"Type": "bind", "BindOptions": {"NonRecursive": true}}),
                "BindOptions/NonRecursive",
                json!(true),
            ),
            (41, json!({"Type": "bind", "BindOptions": {"CreateMountpoint": true}}), "BindOptions", json!({})),
            (41, json!({"Type": "bind", "VolumeOptions": {}, "TmpfsOptions": {}}), "VolumeOptions", json!(null)),
            (41, json!({"Type": "bind", "TmpfsOptions": {}}), "TmpfsOptions", json!(null)),
            (41, json!({"Type": "tmpfs", "BindOptions": {}}), "Type", json!("tmpfs")),
            (
                42,
                json!({"Type": "bind", "VolumeOptions": {}}),
                "",
                json!("VolumeOptions must not be specified on mount type \"bind\""),
            ),
            (
                51,
                json!({"Type": "volume", "BindOptions": {}}),
                "",
                json!("BindOptions must not be specified on mount type \"volume\""),
            ),
            (
                43,
                json!({"Type": "bind", "BindOptions": {"ReadOnlyForceRecursive": true}}),
                "",
                json!("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer"),
            ),
            (
                44,
                json!({"Type": "volume", "VolumeOptions": {"Subpath": "a"}}),
                "",
                json!("VolumeOptions.Subpath needs API v1.45 or newer"),
            ),
            (45, json!({"Type": "volume", "VolumeOptions": {"Subpath": "a"}}), "VolumeOptions/Subpath", json!("a")),
            (47, json!({"Type": "image"}), "", json!("Mount type \"Image\" needs API v1.48 or newer")),
            (48, json!({"Type": "image"}), "Type", json!("image")),
        ] {
            assert_eq!(check(minor, mount.clone(), pointer), expected, "1.{minor} {mount}");
        }
    }

    #[test]
    fn networks_and_addresses_are_as_they_were() {
        let networks = json!({"NetworkingConfig": {"EndpointsConfig": {"a": {}, "b": {}}}});
        let refused = "Container cannot be created with multiple network endpoints: a, b";
        assert_eq!(upgraded(43, &networks, "/Image"), refused);
        assert_eq!(upgraded(44, &networks, "/Image"), "");
        // A container-wide address is that of the main network, and since 1.44 no other one.
        let both = json!({"MacAddress": "1", "NetworkingConfig": {"EndpointsConfig": {"n": {"MacAddress": "2"}}}});
        assert_eq!(upgraded(43, &both, "/NetworkingConfig/EndpointsConfig/n/MacAddress"), "1");
        let differ = upgraded(44, &both, "/MacAddress");
        assert!(differ.as_str().unwrap().ends_with("for the main network, or be left empty"), "{differ}");
        let alone = json!({"MacAddress": "1"});
        assert_eq!(upgraded(44, &alone, "/NetworkingConfig/EndpointsConfig/bridge/MacAddress"), "1");
        assert_eq!(upgraded(44, &alone, "/MacAddress"), Value::Null);
    }

    #[test]
    fn platforms_and_recursive_read_only_have_their_versions() {
        let version = |minor| ApiVersion { major: 1, minor };
        assert_eq!(upgrade_platform(version(40), Some("linux/arm64")), None);
        assert_eq!(upgrade_platform(version(41), Some("linux/arm64")), Some("linux/arm64"));
        assert_eq!(
            (upgrade_push_platform(version(45), Some("x")), upgrade_push_platform(version(46), Some("x"))),
            (None, Some("x"))
        );
        assert!(read_only_is_flat(version(43)) && !read_only_is_flat(version(44)));
    }
}
