//! Flags of `build` as the API wants them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use client::build::BuildOptions;
use client::session::{Offers, SecretSource};

use super::values;
use crate::args::Parsed;

/// Why a build is not asked for. The texts are Docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The size is none.
    #[error("invalid size: '{0}'")]
    Size(String),
    /// The time is none.
    #[error("invalid SOURCE_DATE_EPOCH: {0:?} are no seconds since 1970")]
    Time(String),
    /// A field has no value.
    #[error("invalid field '{0}' must be a key=value pair")]
    Field(String),
    /// A field is none.
    #[error("unexpected key '{key}' in '{field}'")]
    Key {
        /// Its name.
        key: String,
        /// All of it.
        field: String,
    },
    /// A secret is neither in a file nor in a variable.
    #[error("unsupported secret type {0:?}")]
    SecretType(String),
    /// A secret has no name.
    #[error("secret missing ID")]
    NoSecret,
    /// There is no agent. The sentence is buildx's, field by field.
    #[error(
        "failed to convert agent config {{{id} [{shown}] false}}: invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set"
    )]
    NoAgent {
        /// Its name.
        id: String,
        /// The places where it should be.
        shown: String,
    },
    /// A context without a name or a place. The sentence is buildx's.
    #[error("invalid context value: {0}, expected key=value")]
    ContextValue(String),
    /// A context has no name that one can have. The sentence is buildx's.
    #[error("invalid context name {0}")]
    ContextName(String),
    /// A context in a layout that is not read.
    #[error("the context {0} of an OCI layout is not supported yet")]
    Layout(String),
}

/// The variable that says where the user's agent is.
const AGENT: &str = "SSH_AUTH_SOCK";

/// What the daemon may ask for while it builds; `variable` reads the environment.
pub fn offers(parsed: &Parsed, variable: &dyn Fn(&str) -> Option<String>) -> Result<Offers, BuildError> {
    let mut offers = Offers::default();
    for text in parsed.list("secret") {
        let (id, source) = secret(text, variable)?;
        offers.secrets.insert(id, source);
    }
    for (name, value) in contexts(parsed)? {
        if let Some(directory) = directory(&value) {
            offers.directories.insert(name, directory.into());
        }
    }
    Ok(offers)
}

/// `--ssh`: by the names of agents, the sockets or the files of keys where they are.
pub fn agents(
    parsed: &Parsed,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, Vec<PathBuf>>, BuildError> {
    let mut agents = BTreeMap::new();
    for text in parsed.list("ssh") {
        let (id, places) = match text.split_once('=') {
            Some((id, places)) if !places.is_empty() => (id, places.to_owned()),
            Some((id, _)) => (id, variable(AGENT).unwrap_or_default()),
            None => (text.as_str(), variable(AGENT).unwrap_or_default()),
        };
        let places: Vec<&str> = places.split(',').collect();
        if places.iter().any(|place| place.is_empty()) {
            return Err(BuildError::NoAgent { id: id.to_owned(), shown: places.join(" ") });
        }
        agents.insert(id.to_owned(), places.into_iter().map(PathBuf::from).collect());
    }
    Ok(agents)
}

/// `--build-context`: places by names, as the daemon is told.
pub fn told_contexts(parsed: &Parsed) -> Result<BTreeMap<String, String>, BuildError> {
    let told = |(name, value): (String, String)| match directory(&value) {
        Some(_) => (name.clone(), format!("local:{name}")),
        None => (name, value),
    };
    Ok(contexts(parsed)?.into_iter().map(told).collect())
}

fn contexts(parsed: &Parsed) -> Result<BTreeMap<String, String>, BuildError> {
    let mut contexts = BTreeMap::new();
    for text in parsed.list("build-context") {
        let (name, value) = text.split_once('=').ok_or_else(|| BuildError::ContextValue(text.clone()))?;
        let reference: oci::Reference = name.parse().map_err(|_| BuildError::ContextName(name.to_owned()))?;
        if value.starts_with("oci-layout://") {
            return Err(BuildError::Layout(name.to_owned()));
        }
        let familiar = reference.familiar();
        contexts.insert(familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned(), value.to_owned());
    }
    Ok(contexts)
}

/// The directory that a context is, if it is one of ours.
fn directory(value: &str) -> Option<&str> {
    let elsewhere = ["docker-image://", "http://", "https://", "git://", "git@"];
    (!elsewhere.iter().any(|start| value.starts_with(start))).then_some(value)
}

/// `id=NAME,src=FILE`
fn secret(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<(String, SecretSource), BuildError> {
    let (mut id, mut file, mut env, mut kind) = ("", "", "", "");
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| BuildError::Field(field.to_owned()))?;
        match (key.to_lowercase().as_str(), value) {
            ("type", "file" | "env") => kind = value,
            ("type", other) => return Err(BuildError::SecretType(other.to_owned())),
            ("id", _) => id = value,
            ("source" | "src", _) => file = value,
            ("env", _) => env = value,
            (key, _) => return Err(BuildError::Key { key: key.to_owned(), field: field.to_owned() }),
        }
    }
    if kind == "env" && env.is_empty() {
        (env, file) = (file, "");
    }
    if id.is_empty() {
        return Err(BuildError::NoSecret);
    }
    let source = match (env, file) {
        ("", "") if variable(id).is_some() => SecretSource::Variable(id.to_owned()),
        ("", "") => SecretSource::File(id.into()),
        ("", file) => SecretSource::File(file.into()),
        (env, _) => SecretSource::Variable(env.to_owned()),
    };
    Ok((id.to_owned(), source))
}

/// Several names between commas, or one cache by keys and values.
fn names_of(text: &str) -> Vec<String> {
    match text.contains('=') {
        true => vec![text.to_owned()],
        false => text.split(',').map(str::to_owned).collect(),
    }
}

/// What nothing may be later than: without a value 1970.
pub fn time(text: &str) -> Result<i64, BuildError> {
    match text {
        "" => Ok(0),
        text => text.parse().ok().filter(|secs| *secs >= 0).ok_or_else(|| BuildError::Time(text.to_owned())),
    }
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
        explain: parsed.flag("explain"),
        no_cache_stages: parsed
            .list("no-cache-filter")
            .iter()
            .flat_map(|text| text.split(','))
            .map(str::to_owned)
            .collect(),
        pull: parsed.flag("pull"),
        remove: parsed.flag_or("rm", true),
        force_remove: parsed.flag("force-rm"),
        cache_from: parsed.list("cache-from").iter().flat_map(|text| names_of(text)).collect(),
        cache_to: parsed.list("cache-to").to_vec(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_files_or_variables() {
        let variable = |name: &str| (name == "IN_ENV").then(|| "x".to_owned());
        let told = |text: &str| match secret(text, &variable) {
            Ok((id, source)) => format!("{id} {source:?}"),
            Err(err) => err.to_string(),
        };
        for (text, wanted) in [
            ("id=a,src=/f", "a File(\"/f\")"),
            ("id=a,source=f,type=file", "a File(\"f\")"),
            ("id=a,env=V", "a Variable(\"V\")"),
            ("type=env,id=a,src=V", "a Variable(\"V\")"),
            ("id=IN_ENV", "IN_ENV Variable(\"IN_ENV\")"),
            ("id=other", "other File(\"other\")"),
            ("src=f", "secret missing ID"),
            ("id", "invalid field 'id' must be a key=value pair"),
            ("id=a,foo=b", "unexpected key 'foo' in 'foo=b'"),
            ("id=a,type=x", "unsupported secret type \"x\""),
        ] {
            assert_eq!(told(text), wanted, "{text}");
        }
    }
}
