//! daemon.json: Docker's file with Docker's keys.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::settings::{Given, SETTINGS, ValueError};

/// Why a configuration file was refused.
#[derive(Debug, thiserror::Error)]
#[error("unable to configure the daemon with file {}", path.display())]
pub(crate) struct FileError {
    path: PathBuf,
    source: Cause,
}

/// What is wrong with it. The sentences are dockerd's where it has them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    #[error("invalid JSON")]
    Syntax(#[source] serde_json::Error),
    #[error("the following directives don't match any configuration option: {0}")]
    Unknown(String),
    #[error("the following directives are specified both as a flag and in the configuration file: {0}")]
    Conflict(String),
    #[error("{key}")]
    Value { key: &'static str, source: ValueError },
}

/// Reads `path` and adds its settings to those of the flags; a setting in both is refused.
///
/// A file that is absent says nothing, unless it was asked for.
pub(crate) fn merge(path: &Path, asked_for: bool, flags: Given) -> Result<Given, FileError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(err) if err.kind() == io::ErrorKind::NotFound && !asked_for => return Ok(flags),
        Err(err) => return Err(FileError { path: path.to_owned(), source: Cause::Read(err) }),
    };
    merge_text(&text, flags).map_err(|source| FileError { path: path.to_owned(), source })
}

fn merge_text(text: &str, mut flags: Given) -> Result<Given, Cause> {
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return Ok(flags);
    }
    let members: serde_json::Map<String, Json> = serde_json::from_str(text).map_err(Cause::Syntax)?;
    let file = load(&members)?;
    let conflicts: Vec<String> =
        file.iter().filter_map(|(flag, value)| conflict(flag, value, flags.get(flag)?)).collect();
    if !conflicts.is_empty() {
        return Err(Cause::Conflict(conflicts.join(", ")));
    }
    flags.extend(file);
    Ok(flags)
}

fn load(members: &serde_json::Map<String, Json>) -> Result<Given, Cause> {
    let mut unknown = Vec::new();
    let mut given = Given::new();
    for (key, json) in flattened(members) {
        match SETTINGS.iter().find(|setting| !setting.key.is_empty() && setting.key == key) {
            None => unknown.push(key.as_str()),
            // Go's decoder takes `null` for "not said".
            Some(_) if json.is_null() => {}
            Some(setting) => {
                let value = setting.kind.load(json).map_err(|source| Cause::Value { key: setting.key, source })?;
                given.insert(setting.flag, value);
            }
        }
    }
    if unknown.is_empty() { Ok(given) } else { Err(Cause::Unknown(unknown.join(", "))) }
}

/// The members with those of `proxies`, which dockerd keeps in an object of their own.
fn flattened(members: &serde_json::Map<String, Json>) -> impl Iterator<Item = (&String, &Json)> {
    members.iter().flat_map(|(key, json)| {
        let inner = json.as_object().filter(|_| key == "proxies");
        let outer = inner.is_none().then_some((key, json));
        outer.into_iter().chain(inner.into_iter().flatten())
    })
}

fn conflict(flag: &str, file: &crate::settings::Value, flags: &crate::settings::Value) -> Option<String> {
    let key = SETTINGS.iter().find(|setting| setting.flag == flag)?.key;
    Some(format!("{key}: (from flag: {}, from file: {})", flags.shown(), file.shown()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{Invocation, parse};

    fn merged(json: &str, flags: &[&str]) -> Result<Given, String> {
        let Ok(Invocation::Run(flags)) = parse(flags.iter().map(|&flag| flag.to_owned())) else { panic!("{flags:?}") };
        merge_text(json, flags).map_err(|err| errdefs::chain(&err))
    }

    #[test]
    fn files_and_flags_add_up() {
        let given = merged(
            r#"{"debug":true,"log-opts":{"max-file":"2"},"default-shm-size":1024,
                "default-ulimits":{"nofile":{"Name":"nofile","Hard":2,"Soft":1}}}"#,
            &["-H", "unix:///b"],
        );
        let shown: Vec<_> = given.unwrap().iter().map(|(flag, value)| format!("{flag}={}", value.shown())).collect();
        let wanted = [
            "debug=true",
            "default-shm-size=1024",
            "default-ulimit=[nofile=1:2]",
            "host=[unix:///b]",
            "log-opt=map[max-file:2]",
        ];
        assert_eq!(shown, wanted);
        assert_eq!(merged("", &[]), Ok(Given::new()));
        assert_eq!(merged(r#"{"debug":null}"#, &["-D"]), merged("", &["-D"]));
        let mirrors =
            merged(r#"{"registry-mirrors-by-host":{"a.b":["http://m","http://n"],"*":["http://{host}"]}}"#, &[]);
        let flags = ["a.b=http://m", "*=http://{host}", "a.b=http://n"];
        let flags = flags.map(|mirror| format!("--registry-mirror-by-host={mirror}"));
        assert_eq!(mirrors, merged("", &flags.each_ref().map(String::as_str)));
        let pools = merged(r#"{"default-address-pools":[{"base":"10.0.0.0/8","size":24}]}"#, &[]);
        assert_eq!(pools, merged("", &["--default-address-pool", "base=10.0.0.0/8,size=24"]));
    }

    #[test]
    fn refusals_are_dockerds() {
        let refused = |json: &str, flags: &[&str]| merged(json, flags).unwrap_err();
        assert_eq!(
            refused(r#"{"foo":1,"debug":true}"#, &[]),
            "the following directives don't match any configuration option: foo"
        );
        assert_eq!(
            refused(r#"{"debug":true}"#, &["-D"]),
            "the following directives are specified both as a flag and in the configuration file: debug: (from flag: true, from file: true)"
        );
        assert_eq!(
            refused(r#"{"hosts":["unix:///a"],"labels":["a=b"]}"#, &["-H", "unix:///b", "--label", "c=d"]),
            "the following directives are specified both as a flag and in the configuration file: hosts: (from flag: [unix:///b], from file: [unix:///a]), labels: (from flag: [c=d], from file: [a=b])"
        );
        assert_eq!(
            refused(r#"{"log-opts":{"a":"b"}}"#, &["--log-opt", "c=d"]),
            "the following directives are specified both as a flag and in the configuration file: log-opts: (from flag: map[c:d], from file: map[a:b])"
        );
        assert_eq!(
            refused(r#"{"proxies":{"http-proxy":"http://u:p@h"}}"#, &["--http-proxy", "http://a:b@c"]),
            "the following directives are specified both as a flag and in the configuration file: http-proxy: (from flag: http://xxxxx:xxxxx@c, from file: http://xxxxx:xxxxx@h)"
        );
        assert_eq!(
            refused(r#"{"proxies":{"http-proxy":"u:p@h:1"}}"#, &["--http-proxy", "a:b@c"]),
            "the following directives are specified both as a flag and in the configuration file: http-proxy: (from flag: xxxxx:xxxxx@c, from file: xxxxx:xxxxx@h:1)"
        );
        assert_eq!(
            refused(r#"{"proxies":{"http-proxy":"x","foo":"y"}}"#, &[]),
            "the following directives don't match any configuration option: foo"
        );
        assert_eq!(
            refused(r#"{"key":null}"#, &[]),
            "the following directives don't match any configuration option: key"
        );
        let mirrors = refused(r#"{"registry-mirrors-by-host":{"a.b":"http://m"}}"#, &[]);
        assert_eq!(mirrors, "registry-mirrors-by-host: must be an object of lists of strings");
        assert_eq!(refused(r#"{"debug":"x"}"#, &[]), "debug: must be true or false");
        assert_eq!(
            refused(r#"{"validate":true}"#, &[]),
            "the following directives don't match any configuration option: validate"
        );
        assert!(refused("{", &[]).starts_with("invalid JSON: "));
        assert!(refused("[]", &[]).starts_with("invalid JSON: "));
    }

    #[test]
    fn only_a_file_that_was_asked_for_must_exist() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none.json");
        assert_eq!(merge(&path, false, Given::new()).unwrap(), Given::new());
        assert!(merge(&path, true, Given::new()).is_err());
    }
}
