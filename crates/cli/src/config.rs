//! The user's configuration: the environment and `~/.docker/config.json`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use client::on_demand::Instance;
use client::{Endpoint, Options};
use engine_api::auth::AuthConfig;
use serde::{Deserialize, Deserializer};

use crate::args::{Kind, Parsed};
use crate::plan::values;
use crate::report::{Exit, go_error};
use crate::warn_line;

/// What we take from config.json; the rest belongs to others and is left alone.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConfigFile {
    /// Keys that detach.
    #[serde(rename = "detachKeys")]
    pub detach_keys: String,
    /// `--format` of `ps`.
    #[serde(rename = "psFormat")]
    pub ps_format: String,
    /// `--format` of `stats`.
    #[serde(rename = "statsFormat")]
    pub stats_format: String,
    /// `--format` of `images`.
    #[serde(rename = "imagesFormat")]
    pub images_format: String,
    /// How `volume ls` shows volumes, if the command line does not say.
    #[serde(rename = "volumesFormat")]
    pub volumes_format: String,
    /// Headers of every request.
    #[serde(rename = "HttpHeaders", deserialize_with = "null_is_empty")]
    pub http_headers: BTreeMap<String, String>,
    /// Logins by registry.
    #[serde(deserialize_with = "null_is_empty")]
    pub auths: BTreeMap<String, AuthConfig>,
    /// The program that keeps logins.
    #[serde(rename = "credsStore")]
    pub credentials_store: String,
    /// The programs that keep the logins of some registries.
    #[serde(rename = "credHelpers", deserialize_with = "null_is_empty")]
    pub credential_helpers: BTreeMap<String, String>,
}

/// Go's decoder takes `null` for an empty map, and Go's programs write it.
fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(source: D) -> Result<BTreeMap<String, T>, D::Error> {
    Option::deserialize(source).map(Option::unwrap_or_default)
}

impl ConfigFile {
    /// Whether it says anything about logins.
    pub fn names_credentials(&self) -> bool {
        !(self.auths.is_empty() && self.credentials_store.is_empty() && self.credential_helpers.is_empty())
    }

    /// Reads it; a missing file is an empty one.
    pub fn load(directory: &str) -> Result<ConfigFile, Exit> {
        let path = match directory {
            "" => match std::env::var_os("DOCKER_CONFIG").filter(|dir| !dir.is_empty()) {
                Some(dir) => PathBuf::from(dir),
                None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".docker"),
            },
            dir => PathBuf::from(dir),
        };
        let path = path.join("config.json");
        // Docker warns and goes on, too: a file that somebody else wrote must not take away `ps`.
        let warn = |sentence: String| {
            warn_line!("WARNING: Error {sentence}");
            ConfigFile::default()
        };
        let shown = path.display();
        Ok(match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .unwrap_or_else(|err| warn(format!("parsing config file ({shown}): {err}"))),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => ConfigFile::default(),
            Err(err) => warn(format!("loading config file: open {shown}: {}", go_error(&err))),
        })
    }
}

/// The platform that is wanted; empty for the daemon's.
pub fn platform(parsed: &Parsed) -> String {
    match parsed.given("platform") {
        true => parsed.text("platform").to_owned(),
        false => std::env::var("DOCKER_DEFAULT_PLATFORM").unwrap_or_default(),
    }
}

/// Refuses to take an image whose signature the user wants to have verified: we cannot.
pub fn check_content_trust(parsed: &Parsed) -> Result<(), Exit> {
    let text = std::env::var("DOCKER_CONTENT_TRUST").unwrap_or_default();
    match wants_content_trust(&text) && !parsed.flag("disable-content-trust") {
        true => Err(Exit::new(1, "content trust is not supported yet: DOCKER_CONTENT_TRUST")),
        false => Ok(()),
    }
}

/// What is no boolean means yes: a mistyped wish for safety is one.
fn wants_content_trust(text: &str) -> bool {
    !text.is_empty() && (values::check(Kind::Bool, text).is_err() || values::is_true(text))
}

/// Where the daemon is, and how to speak to it.
pub fn connection(global: &Parsed, file: &ConfigFile) -> Result<(Endpoint, Options), Exit> {
    let headers = file.http_headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let version = match std::env::var("DOCKER_API_VERSION").ok().filter(|text| !text.is_empty()) {
        Some(text) => Some(text.parse().map_err(|_| Exit::new(1, format!("invalid DOCKER_API_VERSION: {text}")))?),
        None => None,
    };
    let hosts = global.list("host");
    if hosts.len() > 1 {
        return Err(Exit::new(1, "specify only one -H"));
    }
    let host = hosts.first().cloned().or_else(|| std::env::var("DOCKER_HOST").ok()).filter(|host| !host.is_empty());
    let (endpoint, on_demand) = match host {
        Some(host) => (host.parse().map_err(|err| Exit::error(&err))?, None),
        None => {
            let instance = default_instance();
            (Endpoint::Unix(instance.socket.clone()), Some(instance))
        }
    };
    if std::env::var("DOCKER_TLS_VERIFY").is_ok_and(|text| !text.is_empty()) && matches!(endpoint, Endpoint::Tcp(_)) {
        return Err(Exit::new(1, "TLS is not supported yet: DOCKER_TLS_VERIFY"));
    }
    Ok((endpoint, Options { on_demand, headers, version }))
}

/// The machine's own instance. The variables move it as a whole, which is how tests get one of their own.
fn default_instance() -> Instance {
    let path = |name: &str, default: &str| {
        std::env::var_os(name).filter(|path| !path.is_empty()).map_or_else(|| PathBuf::from(default), PathBuf::from)
    };
    Instance {
        socket: path("LONGSHORE_SOCKET", "/run/longshore.sock"),
        data_root: path("LONGSHORE_DATA_ROOT", "/var/lib/longshore"),
        exec_root: path("LONGSHORE_EXEC_ROOT", "/run/longshore"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_null_is_empty() {
        let text = r#"{"auths": null, "credHelpers": null, "HttpHeaders": null, "detachKeys": "ctrl-x"}"#;
        let config: ConfigFile = serde_json::from_str(text).unwrap();
        assert_eq!((config.names_credentials(), &*config.detach_keys), (false, "ctrl-x"));
    }

    #[test]
    fn content_trust_is_wanted_in_doubt() {
        for (text, wanted) in [("", false), ("0", false), ("false", false), ("1", true), ("T", true), ("please", true)]
        {
            assert_eq!(wants_content_trust(text), wanted, "{text}");
        }
    }
}
