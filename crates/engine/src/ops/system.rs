//! `GET /info`, `GET /version`

mod warnings;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use container_spec::log::DRIVERS;
use container_spec::{CgroupLayout, HostFacts};
use engine_api::system::{Component, Info, Platform, Version};
use engine_api::versions;
use network::{FirewalldState, ForeignChain, LegacyChain, Passage};
use serde_json::{Value, json};
use snapshot::Driver;

use crate::Engine;
use crate::cdi;
use crate::config::{EngineConfig, RegistriesConfig};
use crate::log_target;
use crate::programs;

/// The product's name.
const PRODUCT: &str = "Longshore";
/// Where clients of old think that Docker Hub is.
const INDEX_SERVER: &str = "https://index.docker.io/v1/";

/// The engine, its store and its machine.
pub async fn info(engine: &Engine) -> Info {
    let facts = &engine.facts;
    let containers = engine.containers.all();
    let running = containers.iter().filter(|container| container.state().is_running()).count();
    let paused = containers.iter().filter(|container| container.state().paused).count();
    let (config, settings) = (&engine.config, engine.current.settings());
    let (data_root, cdi_dirs) = (config.data_root.clone(), config.cdi_spec_dirs.clone());
    let networks = engine.clone();
    let (release, backing, devices, firewall) = bridge::blocking(move || {
        let firewall = networks.networking.bridge().map(Firewall::look);
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        (release, backing_filesystem(&data_root), cdi::listed(&cdi_dirs), firewall)
    })
    .await;
    let machine = machine(facts);
    let mut warnings = config.api_warnings.clone();
    warnings.extend(warnings::of_machine(&machine));
    if let Some(firewall) = &firewall {
        warnings.extend(warnings::of_chains(&firewall.foreign));
        warnings.extend(warnings::of_firewalld(&firewall.firewalld));
        warnings.extend(firewall.legacy.iter().map(warnings::of_legacy));
    }
    let (mut security_options, unusual) = security_options(facts, config, &settings.cgroupns_mode);
    warnings.extend(unusual);
    let trust = settings.trust.iter().map(|trust| format!("name=trust,profile={}", trust.path.display()));
    security_options.extend(trust);
    let proxies = settings.registries.proxies.shown();
    Info {
        id: engine.id.clone(),
        containers: count(containers.len()),
        containers_running: count(running - paused),
        containers_paused: count(paused),
        containers_stopped: count(containers.len() - running),
        images: count(engine.images.list().iter().filter(|image| !engine.steps.has(image)).count()),
        driver: engine.images.snapshots().driver().name().to_owned(),
        driver_status: driver_status(engine.images.snapshots().driver(), &backing),
        runtimes: crate::runtimes::shown(engine),
        plugins: plugins(engine.networking.bridge().is_some()),
        n_fd: count(fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)),
        n_goroutines: count(tokio::runtime::Handle::current().metrics().num_alive_tasks()),
        n_events_listener: count(engine.events.listeners()),
        system_time: stdx::time::Rfc3339::now().to_string(),
        debug: settings.debug,
        logging_driver: config.default_log.kind.clone(),
        operating_system: release_field(&release, "PRETTY_NAME"),
        os_version: release_field(&release, "VERSION_ID"),
        index_server_address: INDEX_SERVER.to_owned(),
        registry_config: registry_config(&settings.registries),
        http_proxy: proxies.http,
        https_proxy: proxies.https,
        no_proxy: proxies.none,
        docker_root_dir: config.data_root.display().to_string(),
        labels: settings.labels.clone(),
        experimental_build: config.experimental,
        cdi_spec_dirs: Some(config.cdi_spec_dirs.iter().map(|dir| dir.display().to_string()).collect()),
        discovered_devices: devices,
        server_version: version_text(),
        live_restore_enabled: true,
        init_binary: config.init_path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        init_commit: json!({"ID": ""}),
        security_options,
        default_address_pools: address_pools(config.network.as_ref()),
        firewall_backend: firewall.map(|firewall| firewall.shown()),
        warnings: Some(warnings).filter(|warnings| !warnings.is_empty()),
        ..machine
    }
}

/// What follows from the machine alone.
fn machine(facts: &HostFacts) -> Info {
    let uname = rustix::system::uname();
    let v1 = facts.cgroup == CgroupLayout::V1;
    let forwarding = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap_or_default();
    Info {
        memory_limit: facts.controls.memory,
        swap_limit: facts.swap_limit,
        kernel_memory_tcp: facts.controls.kernel_memory_tcp,
        cpu_cfs_period: facts.controls.cpu_quota,
        cpu_cfs_quota: facts.controls.cpu_quota,
        cpu_shares: facts.controls.cpu_shares,
        cpu_set: facts.controls.cpuset,
        pids_limit: facts.controls.pids,
        ipv4_forwarding: forwarding.trim() == "1",
        oom_kill_disable: facts.controls.oom_kill_disable,
        cgroup_driver: "cgroupfs".to_owned(),
        cgroup_version: if v1 { "1" } else { "2" }.to_owned(),
        kernel_version: uname.release().to_string_lossy().into_owned(),
        os_type: "linux".to_owned(),
        architecture: uname.machine().to_string_lossy().into_owned(),
        ncpu: facts.cpus.into(),
        mem_total: i64::try_from(facts.memory_bytes).unwrap_or(i64::MAX),
        name: facts.hostname.clone(),
        default_runtime: facts.runtime("").unwrap_or_default().to_owned(),
        swarm: swarm(),
        containerd_commit: json!({"ID": ""}),
        runc_commit: json!({"ID": ""}),
        ..Info::default()
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// dockerd's words; of vfs it has none, and of fuse-overlayfs an empty list.
fn driver_status(driver: Driver, backing: &str) -> Option<Vec<[String; 2]>> {
    let told: &[(&str, &str)] = match driver {
        Driver::Vfs => return None,
        Driver::FuseOverlayfs => &[],
        Driver::Btrfs => &[("Btrfs", "")],
        Driver::Overlay2 => &[
            ("Backing Filesystem", backing),
            ("Supports d_type", "true"),
            ("Using metacopy", "false"),
            ("Native Overlay Diff", "true"),
            ("userxattr", "false"),
        ],
    };
    Some(told.iter().map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]).collect())
}

/// What the data root lies on, by dockerd's names (moby daemon/internal/fstype); the numbers are those of statfs(2).
fn backing_filesystem(data_root: &Path) -> String {
    let kind = rustix::fs::statfs(data_root).map_or(0, |found| found.f_type as u32);
    let name = match kind {
        0x0000_EF53 => "extfs",
        0x5846_5342 => "xfs",
        0x9123_683E => "btrfs",
        0x0102_1994 => "tmpfs",
        0x2FC1_2FC1 => "zfs",
        0xF2F5_2010 => "f2fs",
        0x794C_7630 => "overlayfs",
        0x8584_58F6 => "ramfs",
        0x6573_5546 => "fuse",
        0x0000_6969 => "nfs",
        _ => "<unknown>",
    };
    name.to_owned()
}

fn plugins(bridge: bool) -> Value {
    let networks: &[&str] =
        if bridge { &["bridge", "host", "host-interface", "ipvlan", "macvlan", "null"] } else { &["host", "null"] };
    let has_journal = log_target::has_journal();
    let logs: Vec<&str> = DRIVERS.into_iter().filter(|driver| has_journal || *driver != "journald").collect();
    json!({
        "Volume": [volume::DRIVER],
        "Network": networks,
        "Authorization": null,
        "Log": logs,
    })
}

/// Registries that need no certificate: names, and ranges of addresses with those that every engine trusts; and mirrors.
/// dockerd has mirrors of the Hub alone; others have a place of their own in the same form.
fn registry_config(registries: &RegistriesConfig) -> Value {
    let (insecure, mirrors) = (&registries.insecure, &registries.mirrors);
    let (ranges, names): (Vec<&String>, Vec<&String>) = insecure.iter().partition(|name| name.contains('/'));
    let index = |name: &str, secure: bool| {
        let (official, named) = (name == "docker.io", mirrors.by_host.get(name));
        let mirrors = if official && named.is_none() { Some(&mirrors.hub) } else { named };
        json!({"Mirrors": mirrors.map_or(&[][..], Vec::as_slice), "Name": name, "Official": official, "Secure": secure})
    };
    let secure = mirrors.by_host.keys().map(String::as_str).chain(["docker.io"]);
    let mut indexes: BTreeMap<&str, Value> = secure.map(|name| (name, index(name, true))).collect();
    indexes.extend(names.iter().map(|name| (name.as_str(), index(name, false))));
    let all = Some(&mirrors.hub).filter(|hub| !hub.is_empty());
    let ranges = ranges.iter().map(|range| range.as_str()).chain(["127.0.0.0/8", "::1/128"]);
    json!({"IndexConfigs": indexes, "InsecureRegistryCIDRs": ranges.collect::<Vec<_>>(), "Mirrors": all})
}

/// What the machine's own firewall has to do with our networks.
struct Firewall {
    foreign: Vec<ForeignChain>,
    firewalld: FirewalldState,
    legacy: Vec<LegacyChain>,
}

impl Firewall {
    fn look(networks: &network::Networks) -> Firewall {
        Firewall {
            foreign: network::foreign_chains(networks),
            firewalld: network::firewalld_state(networks),
            legacy: network::legacy_chains(networks),
        }
    }

    /// In dockerd's words, and whose chains have a rule of ours, as clients print it: one line each.
    fn shown(&self) -> Value {
        let driver = if self.firewalld.running { "nftables+firewalld" } else { "nftables" };
        let reloaded = self.firewalld.reloaded_at.map(|at| ["ReloadedAt".to_owned(), whole_seconds(at)]);
        let placed = self.foreign.iter().filter(|one| one.passage == Passage::Placed);
        let placed = placed.map(|one| ["Accept rule in".to_owned(), one.chain.clone()]);
        let lines: Vec<_> = reloaded.into_iter().chain(placed).collect();
        if lines.is_empty() { json!({"Driver": driver}) } else { json!({"Driver": driver, "Info": lines}) }
    }
}

/// As dockerd shows such a time.
fn whole_seconds(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    stdx::time::Rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

/// Where networks come from, if the administrator has said so.
fn address_pools(network: Option<&network::Config>) -> Option<Value> {
    let pools = network.map(|network| network.default_address_pools.as_slice()).unwrap_or_default();
    let pools: Vec<Value> =
        pools.iter().map(|pool| json!({"Base": pool.base.to_string(), "Size": pool.size})).collect();
    Some(pools).filter(|pools| !pools.is_empty()).map(Value::Array)
}

fn swarm() -> Value {
    json!({
        "NodeID": "",
        "NodeAddr": "",
        "LocalNodeState": "inactive",
        "ControlAvailable": false,
        "Error": "",
        "RemoteManagers": null,
    })
}

/// What protects containers, and what is to be said about that.
fn security_options(facts: &HostFacts, config: &EngineConfig, cgroupns: &str) -> (Vec<String>, Option<String>) {
    let chosen = config.seccomp.as_ref().map(|chosen| chosen.name.as_str());
    let seccomp = facts.seccomp.then(|| format!("name=seccomp,profile={}", chosen.unwrap_or("builtin")));
    let private = match cgroupns {
        "" => facts.cgroup == CgroupLayout::V2,
        mode => mode == "private",
    };
    let private = private.then(|| "name=cgroupns".to_owned());
    let fixed = config.no_new_privileges.then(|| "name=no-new-privileges".to_owned());
    let unusual = chosen.filter(|_| facts.seccomp);
    let unusual = unusual.map(|_| "WARNING: daemon is not using the default seccomp profile".to_owned());
    (seccomp.into_iter().chain(private).chain(fixed).collect(), unusual)
}

/// A field of os-release(5), without its quotes.
fn release_field(text: &str, name: &str) -> String {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
}

fn version_text() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// Versions.
pub async fn version(engine: &Engine) -> Version {
    let uname = rustix::system::uname();
    let kernel_version = uname.release().to_string_lossy().into_owned();
    let version = Version {
        platform: Platform { name: PRODUCT.to_owned() },
        version: version_text(),
        api_version: versions::MAX.to_string(),
        min_api_version: versions::MIN.to_string(),
        git_commit: option_env!("LONGSHORE_COMMIT").unwrap_or_default().to_owned(),
        go_version: concat!("rust", env!("CARGO_PKG_RUST_VERSION")).to_owned(),
        os: "linux".to_owned(),
        arch: architecture().to_owned(),
        kernel_version,
        experimental: engine.config.experimental,
        build_time: option_env!("LONGSHORE_BUILD_TIME").unwrap_or_default().to_owned(),
        ..Version::default()
    };
    let details = [
        ("ApiVersion", &version.api_version),
        ("Arch", &version.arch),
        ("BuildTime", &version.build_time),
        ("Experimental", &version.experimental.to_string()),
        ("GitCommit", &version.git_commit),
        ("GoVersion", &version.go_version),
        ("KernelVersion", &version.kernel_version),
        ("MinAPIVersion", &version.min_api_version),
        ("Os", &version.os),
    ];
    let details: BTreeMap<String, String> =
        details.into_iter().map(|(name, value)| (name.to_owned(), value.clone())).collect();
    let component = Component { name: "Engine".to_owned(), version: version.version.clone(), details };
    let programs = programs::components(engine).await;
    Version { components: std::iter::once(component).chain(programs).collect(), ..version }
}

/// Go's name of the processor.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firewalld_is_shown_as_dockerd_shows_it() {
        let shown = |firewalld| Firewall { foreign: Vec::new(), firewalld, legacy: Vec::new() }.shown();
        assert_eq!(shown(FirewalldState::default()), json!({"Driver": "nftables"}));
        let running = FirewalldState { running: true, ..FirewalldState::default() };
        assert_eq!(shown(running.clone()), json!({"Driver": "nftables+firewalld"}));
        let reloaded_at = Some(UNIX_EPOCH + Duration::from_millis(1_700_000_000_500));
        let info = json!([["ReloadedAt", "2023-11-14T22:13:20Z"]]);
        let reloaded = FirewalldState { reloaded_at, ..running };
        assert_eq!(shown(reloaded), json!({"Driver": "nftables+firewalld", "Info": info}));
    }

    #[test]
    fn filesystems_have_dockers_names() {
        assert_eq!(backing_filesystem(Path::new("/dev/shm")), "tmpfs");
        assert_eq!(backing_filesystem(Path::new("/proc")), "<unknown>");
    }

    #[test]
    fn fields_of_os_release_lose_their_quotes() {
        let text = "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nVERSION_ID='13'\n";
        assert_eq!(release_field(text, "PRETTY_NAME"), "Debian GNU/Linux 13 (trixie)");
        assert_eq!(release_field(text, "VERSION_ID"), "13");
        assert_eq!(release_field(text, "VERSION"), "");
    }
}
