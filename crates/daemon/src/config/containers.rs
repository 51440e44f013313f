//! What the settings say about containers that do not say it themselves.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use engine::{ImageBudgetConfig, ResolverConfig};
use engine_api::size::{Units, parse};

use super::{ConfigError, list, seconds, text};
use crate::settings::{Given, Value};

/// The profile of system calls, still to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SeccompProfile {
    Unconfined,
    File(PathBuf),
}

/// `private` or `shareable`.
pub(super) fn ipc_mode(given: &Given) -> Result<String, ConfigError> {
    match text(given, "default-ipc-mode").unwrap_or("private") {
        mode @ ("private" | "shareable") => Ok(mode.to_owned()),
        mode if matches!(mode, "host" | "none") || mode.starts_with("container:") => {
            Err(ConfigError::IpcModeDefault(mode.to_owned()))
        }
        mode => Err(ConfigError::IpcMode(mode.to_owned())),
    }
}

/// `private` or `host`; empty if nothing is said, which depends on the machine.
pub(super) fn cgroupns_mode(given: &Given) -> Result<String, ConfigError> {
    match text(given, "default-cgroupns-mode").unwrap_or_default() {
        mode @ ("" | "private" | "host") => Ok(mode.to_owned()),
        mode => Err(ConfigError::CgroupnsMode(mode.to_owned())),
    }
}

/// What stands in /etc/resolv.conf.
pub(super) fn resolver(given: &Given) -> Result<ResolverConfig, ConfigError> {
    let servers = list(given, "dns");
    if let Some(server) = servers.iter().find(|server| server.parse::<IpAddr>().is_err()) {
        return Err(ConfigError::IpAddress(server.clone()));
    }
    let search = list(given, "dns-search");
    if let Some(domain) = search.iter().find(|domain| !is_domain(domain)) {
        return Err(ConfigError::Domain(domain.clone()));
    }
    Ok(ResolverConfig { servers: servers.to_vec(), options: list(given, "dns-opt").to_vec(), search: search.to_vec() })
}

/// `overlay2.size=10G`, in dockerd's words where it is wrong; the last one counts, and 0 is no limit.
pub(super) fn size_bytes(given: &Given) -> Result<Option<u64>, ConfigError> {
    let mut size = 0;
    for option in list(given, "storage-opt") {
        let (name, value) = option.split_once('=').ok_or_else(|| ConfigError::StorageOption(option.clone()))?;
        match name.trim().to_lowercase() {
            name if name == "overlay2.size" => size = parse(value.trim(), Units::Binary)?,
            name => return Err(ConfigError::StorageOptionName(name)),
        }
    }
    Ok(u64::try_from(size).ok().filter(|size| *size > 0))
}

/// How long images stay after their last use if nothing is said: what was pulled first of several is still there when the
/// last one is, and they are started.
const IMAGE_AGE_SECONDS: i64 = 600;

/// How much images may take. The low mark is four fifths of the high one if nothing is said.
pub(super) fn image_budget(given: &Given) -> Result<Option<ImageBudgetConfig>, ConfigError> {
    let mark = |key: &'static str| -> Result<Option<u64>, ConfigError> {
        let Some(text) = text(given, key).filter(|text| !text.is_empty()) else { return Ok(None) };
        Ok(u64::try_from(parse(text, Units::Binary)?).ok().filter(|bytes| *bytes > 0))
    };
    let (high, low, pins) = (mark("image-budget-high")?, mark("image-budget-low")?, list(given, "image-pin").to_vec());
    let min_age = seconds(given, "image-budget-min-age", IMAGE_AGE_SECONDS)?;
    match (high, low) {
        (None, Some(_)) => Err(ConfigError::NoBudget("image-budget-low")),
        (None, None) if !pins.is_empty() => Err(ConfigError::NoBudget("image-pins")),
        (None, None) => Ok(None),
        (Some(high), Some(low)) if low > high => Err(ConfigError::Budget { low, high }),
        (Some(high_bytes), low) => {
            Ok(Some(ImageBudgetConfig { high_bytes, low_bytes: low.unwrap_or(high_bytes / 5 * 4), pins, min_age }))
        }
    }
}

/// Where devices by name are described: `feature cdi=false`, or a single empty directory, is nowhere.
pub(super) fn cdi_spec_dirs(given: &Given) -> Result<Vec<PathBuf>, ConfigError> {
    if features(given)?.get("cdi") == Some(&false) {
        return Ok(Vec::new());
    }
    Ok(match list(given, "cdi-spec-dir") {
        [] => CDI_SPEC_DIRS.map(PathBuf::from).to_vec(),
        [none] if none.is_empty() => Vec::new(),
        dirs => dirs.iter().map(PathBuf::from).collect(),
    })
}

/// The directories of the CDI specification.
const CDI_SPEC_DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Letters, digits, dashes, underscores and dots, at least one of the first; or a single dot, for no domain.
fn is_domain(text: &str) -> bool {
    let known = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    text == "." || (text.len() <= 255 && text.chars().all(known) && text.chars().any(char::is_alphanumeric))
}

/// Absent for Docker's own.
pub(super) fn seccomp(given: &Given) -> Result<Option<SeccompProfile>, ConfigError> {
    Ok(match text(given, "seccomp-profile") {
        None | Some("builtin") => None,
        Some("unconfined") => Some(SeccompProfile::Unconfined),
        Some(_) => super::path(given, "seccomp-profile")?.map(SeccompProfile::File),
    })
}

/// Features by name; a name alone means yes.
pub(super) fn features(given: &Given) -> Result<BTreeMap<String, bool>, ConfigError> {
    let Some(Value::Pairs(pairs)) = given.get("feature") else { return Ok(BTreeMap::new()) };
    let mut features = BTreeMap::new();
    for (name, value) in pairs {
        let on = match value.as_str() {
            "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
            "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
            _ => return Err(ConfigError::Feature { name: name.clone(), value: value.clone() }),
        };
        if on && name == "containerd-snapshotter" {
            return Err(ConfigError::Unsupported { key: "features", value: format!("{name}=true") });
        }
        features.insert(name.clone(), on);
    }
    Ok(features)
}

/// Options of the runtime: one is known, at one value.
pub(super) fn check_exec_options(given: &Given) -> Result<(), ConfigError> {
    for option in list(given, "exec-opt") {
        let refused = |reason: String| ConfigError::ExecOption { option: option.clone(), reason };
        let pair = option.split_once('=').map(|(name, value)| (name.trim().to_lowercase(), value.trim()));
        match pair {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => match (name.as_str(), value) {
                ("native.cgroupdriver", "cgroupfs") => {}
                ("native.cgroupdriver", _) => {
                    return Err(ConfigError::Unsupported { key: "exec-opts", value: option.clone() });
                }
                ("isolation", _) => return Err(refused("option 'isolation' is only supported on windows".to_owned())),
                (name, _) => return Err(refused(format!("unknown option: '{name}'"))),
            },
            _ => return Err(refused("must be formatted 'opt=value'".to_owned())),
        }
    }
    Ok(())
}

/// Labels, each once; one name with two values is refused.
pub(super) fn labels(given: &Given) -> Result<Vec<String>, ConfigError> {
    let mut labels: Vec<String> = Vec::new();
    for label in list(given, "label") {
        let (name, _) = label.split_once('=').ok_or_else(|| ConfigError::Label(label.clone()))?;
        let same_name = |known: &&String| known.split_once('=').is_some_and(|(known, _)| known == name);
        match labels.iter().find(same_name) {
            Some(known) if known == label => {}
            Some(known) => {
                return Err(ConfigError::LabelConflict { later: label.clone(), earlier: known.clone() });
            }
            None => labels.push(label.clone()),
        }
    }
    Ok(labels)
}
