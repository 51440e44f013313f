//! What may change while the engine runs: the part of daemon.json that counts as soon as it is read again.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use engine_api::host_config::HostConfig;
use registry_client::Registry;

use crate::Engine;
use crate::admission::TrustConfig;
use crate::config::RegistriesConfig;
use crate::sync::{read, write};

/// Defaults and limits that the administrator may change at any time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changeable {
    /// Whether `info` shows debug mode.
    pub debug: bool,
    /// The daemon's labels, shown by `info`.
    pub labels: Vec<String>,
    /// Size of /dev/shm where none is asked for; 64 MiB if absent.
    pub shm_size_bytes: Option<i64>,
    /// The IPC namespace of containers that do not say; `private` if empty.
    pub ipc_mode: String,
    /// Their cgroup namespace; if empty, what fits the version of cgroups.
    pub cgroupns_mode: String,
    /// Features by name.
    pub features: BTreeMap<String, bool>,
    /// How registries are reached.
    pub registries: RegistriesConfig,
    /// Which images may come in; all if absent.
    pub trust: Option<TrustConfig>,
    /// Seconds that requests get when the daemon ends; told by the event of a reload.
    pub shutdown_timeout_seconds: u64,
}

impl Changeable {
    /// Puts the administrator's defaults where a request is silent.
    pub fn fill(&self, host: &mut HostConfig) {
        for (field, default) in [(&mut host.ipc_mode, &self.ipc_mode), (&mut host.cgroupns_mode, &self.cgroupns_mode)] {
            if field.is_empty() {
                field.clone_from(default);
            }
        }
        if let (0, Some(size)) = (host.shm_size, self.shm_size_bytes) {
            host.shm_size = size;
        }
    }

    /// What the event of a reload says, in dockerd's names and forms (moby daemon/reload.go).
    fn attributes(&self) -> BTreeMap<String, String> {
        let list = |texts: &[String]| serde_json::to_string(texts).expect("texts are JSON");
        let by_host = serde_json::to_string(&self.registries.mirrors.by_host).expect("texts are JSON");
        let features: Vec<String> = self.features.iter().map(|(name, on)| format!("{name}:{on}")).collect();
        let shm_size = self.shm_size_bytes.unwrap_or(crate::facts::SHM_SIZE_BYTES);
        [
            ("debug", self.debug.to_string()),
            ("default-cgroupns-mode", self.cgroupns_mode.clone()),
            ("default-ipc-mode", self.ipc_mode.clone()),
            ("default-shm-size", shm_size.to_string()),
            ("features", format!("map[{}]", features.join(" "))),
            ("insecure-registries", list(&self.registries.insecure)),
            ("labels", list(&self.labels)),
            ("live-restore", "true".to_owned()),
            ("max-concurrent-downloads", self.registries.concurrent_downloads.to_string()),
            ("max-concurrent-uploads", self.registries.concurrent_uploads.to_string()),
            ("max-download-attempts", self.registries.download_attempts.to_string()),
            ("registry-mirrors", list(&self.registries.mirrors.hub)),
            ("registry-mirrors-by-host", by_host),
            ("shutdown-timeout", self.shutdown_timeout_seconds.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

/// What counts now. Locked for a copy only.
pub struct Current(RwLock<State>);

#[derive(Clone)]
struct State {
    settings: Arc<Changeable>,
    registries: Arc<Registry>,
}

impl Current {
    /// Begins with these.
    pub(crate) fn new(settings: Changeable) -> Current {
        let registries = Registry::new(crate::pulls::settings(&settings.registries));
        Current(RwLock::new(State { settings: Arc::new(settings), registries }))
    }

    /// The settings that count now.
    pub fn settings(&self) -> Arc<Changeable> {
        self.state().settings
    }

    /// Registries, as they are reached now. Pulls that go on keep the one that they began with.
    pub fn registries(&self) -> Arc<Registry> {
        self.state().registries
    }

    fn state(&self) -> State {
        read(&self.0).clone()
    }

    fn replace(&self, settings: Changeable) {
        let mut state = write(&self.0);
        if state.settings.registries != settings.registries {
            state.registries = state.registries.changed(crate::pulls::settings(&settings.registries));
        }
        state.settings = Arc::new(settings);
    }
}

impl Engine {
    /// Lets these settings count from now on, and tells so.
    pub fn reload(&self, settings: Changeable) {
        let mut attributes = settings.attributes();
        attributes.insert("default-runtime".to_owned(), container_spec::HostFacts::RUNTIME.to_owned());
        attributes.insert("name".to_owned(), self.facts.hostname.clone());
        self.current.replace(settings);
        self.events.daemon(&self.id, "reload", attributes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_fill_what_a_request_leaves_open() {
        let settings = Changeable {
            shm_size_bytes: Some(1 << 20),
            ipc_mode: "shareable".to_owned(),
            cgroupns_mode: "private".to_owned(),
            ..Changeable::default()
        };
        let mut host = HostConfig::default();
        settings.fill(&mut host);
        assert_eq!((host.shm_size, &*host.ipc_mode, &*host.cgroupns_mode), (1 << 20, "shareable", "private"));
        let mut asked = HostConfig { shm_size: 5, ipc_mode: "host".into(), cgroupns_mode: "host".into(), ..host };
        settings.fill(&mut asked);
        assert_eq!((asked.shm_size, &*asked.ipc_mode, &*asked.cgroupns_mode), (5, "host", "host"));
    }

    #[test]
    fn a_change_of_registries_makes_new_ones() {
        let current = Current::new(Changeable::default());
        let first = current.registries();
        current.replace(Changeable { debug: true, ..Changeable::default() });
        assert!(current.settings().debug && Arc::ptr_eq(&first, &current.registries()));
        let registries = RegistriesConfig { insecure: vec!["a".into()], ..RegistriesConfig::default() };
        current.replace(Changeable { registries, ..Changeable::default() });
        assert!(!current.settings().debug && !Arc::ptr_eq(&first, &current.registries()));
    }

    #[test]
    fn the_event_has_dockerds_attributes() {
        let settings = Changeable {
            labels: vec!["a=b".into()],
            features: [("cdi".to_owned(), true)].into(),
            ..Changeable::default()
        };
        let attributes = settings.attributes();
        for (name, value) in [
            ("debug", "false"),
            ("labels", r#"["a=b"]"#),
            ("features", "map[cdi:true]"),
            ("max-concurrent-downloads", "3"),
            ("default-shm-size", "67108864"),
            ("insecure-registries", "[]"),
            ("registry-mirrors", "[]"),
            ("registry-mirrors-by-host", "{}"),
        ] {
            assert_eq!(attributes[name], value, "{name}");
        }
    }
}
