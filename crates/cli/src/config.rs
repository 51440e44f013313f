//! The user's configuration: the environment and `~/.docker/config.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use engine_api::auth::AuthConfig;
use errdefs::ErrorKind;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::args::{Kind, Parsed};
use crate::plan::proxies::Proxies;
use crate::plan::values;
use crate::report::{Exit, go_error};
use crate::warn_line;

/// What we take from config.json; the rest belongs to others and is left alone.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConfigFile {
    /// The context in use; none if empty.
    #[serde(rename = "currentContext")]
    pub current_context: String,
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
    /// How `network ls` shows networks, if the command line does not say.
    #[serde(rename = "networksFormat")]
    pub networks_format: String,
    /// How `volume ls` shows volumes, if the command line does not say.
    #[serde(rename = "volumesFormat")]
    pub volumes_format: String,
    /// What is never pruned, or only pruned: filters for every prune.
    #[serde(rename = "pruneFilters", deserialize_with = "null_is_no_list")]
    pub prune_filters: Vec<String>,
    /// Headers of every request.
    #[serde(rename = "HttpHeaders", deserialize_with = "null_is_empty")]
    pub http_headers: BTreeMap<String, String>,
    /// What new containers are told of proxies, by the address of the daemon; `default` for the others.
    #[serde(deserialize_with = "null_is_empty")]
    pub proxies: BTreeMap<String, Proxies>,
    /// Logins by registry.
    #[serde(deserialize_with = "null_is_empty")]
    pub auths: BTreeMap<String, AuthConfig>,
    /// The program that keeps logins.
    #[serde(rename = "credsStore")]
    pub credentials_store: String,
    /// The programs that keep the logins of some registries.
    #[serde(rename = "credHelpers", deserialize_with = "null_is_empty")]
    pub credential_helpers: BTreeMap<String, String>,
    /// Whether it is the user's own, in `~/.docker`: whoever names another directory wants what is in it apart.
    #[serde(skip)]
    pub is_the_users: bool,
}

/// Go's decoder takes `null` for an empty map, and Go's programs write it.
fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(source: D) -> Result<BTreeMap<String, T>, D::Error> {
    Option::deserialize(source).map(Option::unwrap_or_default)
}

/// The same of a list.
fn null_is_no_list<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<String>, D::Error> {
    Option::deserialize(source).map(Option::unwrap_or_default)
}

impl ConfigFile {
    /// Whether it says anything about logins.
    pub fn names_credentials(&self) -> bool {
        !(self.auths.is_empty() && self.credentials_store.is_empty() && self.credential_helpers.is_empty())
    }

    /// Reads it; one that cannot be read is an empty one, and nothing is said about it.
    pub fn load_quietly(directory: &str) -> ConfigFile {
        let directory = self::directory(directory);
        let text = std::fs::read(directory.join("config.json"));
        let file: ConfigFile = text.ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        ConfigFile { is_the_users: is_the_users(&directory), ..file }
    }

    /// Reads it; a missing file is an empty one.
    pub fn load(directory: &str) -> Result<ConfigFile, Exit> {
        let directory = self::directory(directory);
        let path = directory.join("config.json");
        // Docker warns and goes on, too: a file that somebody else wrote must not take away `ps`.
        let warn = |sentence: String| {
            warn_line!("WARNING: Error {sentence}");
            ConfigFile::default()
        };
        let shown = path.display();
        let file = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .unwrap_or_else(|err| warn(format!("parsing config file ({shown}): {err}"))),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => ConfigFile::default(),
            Err(err) => warn(format!("loading config file: open {shown}: {}", go_error(&err))),
        };
        Ok(ConfigFile { is_the_users: is_the_users(&directory), ..file })
    }
}

/// The directory of the user's configuration: the one that is given, else DOCKER_CONFIG's, else `~/.docker`.
pub fn directory(given: &str) -> PathBuf {
    match given {
        "" => match std::env::var_os("DOCKER_CONFIG").filter(|dir| !dir.is_empty()) {
            Some(dir) => PathBuf::from(dir),
            None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".docker"),
        },
        given => PathBuf::from(given),
    }
}

fn is_the_users(directory: &Path) -> bool {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    home.is_some_and(|home| directory == Path::new(&home).join(".docker"))
}

/// Notes in config.json which context is in use; none if `name` is empty.
pub fn set_current_context(directory: &Path, name: &str) -> Result<(), Exit> {
    let edited = edit(directory, |members| {
        if name.is_empty() {
            members.remove("currentContext");
        } else {
            members.insert("currentContext".to_owned(), name.into());
        }
    });
    edited.map_err(|err| Exit::new(1, err.to_string()))
}

/// Why config.json was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// It cannot be read or written.
    #[error("open {}: {}", path.display(), go_error(source))]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is no JSON: it must not be replaced by one that says less.
    #[error("parsing config file ({}): {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
}

impl EditError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            EditError::File { source, .. } => errdefs::io_kind(source),
            EditError::Parse { .. } => ErrorKind::InvalidArgument,
        }
    }
}

/// Changes config.json. Everything that `change` does not touch stays as it is.
pub fn edit(directory: &Path, change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Result<(), EditError> {
    let path = directory.join("config.json");
    let failed = |source: std::io::Error| EditError::File { path: path.clone(), source };
    let refused = |source: serde_json::Error| EditError::Parse { path: path.clone(), source };
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => br#"{"auths":{}}"#.to_vec(),
        Err(err) => return Err(failed(err)),
    };
    let mut members: serde_json::Map<String, Value> = serde_json::from_slice(&text).map_err(refused)?;
    change(&mut members);
    let mut bytes = Vec::new();
    let indented = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let written = members.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, indented));
    written.map_err(refused)?;
    stdx::fs::create_private_dir(directory).map_err(failed)?;
    // Somebody may keep the file elsewhere and link to it.
    let target = std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
    stdx::fs::write_atomic(&target, &bytes, stdx::fs::Durability::ProcessDeath).map_err(failed)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_null_is_empty() {
        let text = r#"{"auths": null, "credHelpers": null, "HttpHeaders": null, "pruneFilters": null, "detachKeys": "ctrl-x"}"#;
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

    #[test]
    fn the_context_is_noted_beside_what_others_say() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let text = || std::fs::read_to_string(&path).unwrap();
        set_current_context(dir.path(), "a1").unwrap();
        assert_eq!(text(), "{\n\t\"auths\": {},\n\t\"currentContext\": \"a1\"\n}");
        std::fs::write(&path, r#"{"z":1,"currentContext":"x","a":{"b":null}}"#).unwrap();
        set_current_context(dir.path(), "").unwrap();
        let kept: Value = serde_json::from_str(&text()).unwrap();
        assert_eq!(kept, serde_json::json!({"z": 1, "a": {"b": null}}));
        std::fs::write(&path, "{").unwrap();
        assert!(set_current_context(dir.path(), "b1").is_err());
        assert_eq!(text(), "{");
    }
}
