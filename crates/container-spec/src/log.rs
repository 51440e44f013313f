//! Where the output of a container goes.

use std::collections::BTreeMap;
use std::num::{IntErrorKind, ParseIntError};
use std::path::PathBuf;

use engine_api::container::Config;
use engine_api::host_config::LogConfig;
use engine_api::size::{self, Units};

use crate::validate::InvalidRequest;

/// A json-file log: what `shim-api` calls a `LogTarget`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// The current file.
    pub path: PathBuf,
    /// Bytes after which it is rotated; never if absent.
    pub max_size_bytes: Option<u64>,
    /// How many files are kept, the current one included; at least 1.
    pub max_files: u32,
    /// Put in every line as `attrs`.
    pub attrs: BTreeMap<String, String>,
}

/// Checks the driver and the names of the options. As in Docker, sizes and counts are read by the start.
pub fn validate(log: &LogConfig) -> Result<(), InvalidRequest> {
    match log.kind.as_str() {
        "" | "json-file" => validate_options(log),
        "none" => Ok(()),
        "local" | "syslog" | "journald" | "gelf" | "fluentd" | "awslogs" | "splunk" | "etwlogs" | "gcplogs" => {
            Err(InvalidRequest::NotOffered { option: "--log-driver other than json-file and none" })
        }
        name => Err(InvalidRequest::LogDriver { name: name.to_owned() }),
    }
}

fn validate_options(log: &LogConfig) -> Result<(), InvalidRequest> {
    let not_offered = |option| Err(InvalidRequest::NotOffered { option });
    for (name, value) in log.config.iter().flatten() {
        match name.as_str() {
            "max-size" | "max-file" | "labels" | "env" => {}
            "mode" if matches!(value.as_str(), "" | "blocking") => {}
            "mode" if value == "non-blocking" => return not_offered("--log-opt mode=non-blocking"),
            "mode" => return Err(InvalidRequest::LogMode { mode: value.clone() }),
            "compress" if matches!(value.as_str(), "false" | "0") => {}
            "compress" => return not_offered("--log-opt compress"),
            "tag" if value.is_empty() => {}
            "tag" => return not_offered("--log-opt tag"),
            "labels-regex" => return not_offered("--log-opt labels-regex"),
            "env-regex" => return not_offered("--log-opt env-regex"),
            "max-buffer-size" => return not_offered("--log-opt max-buffer-size"),
            _ => return Err(InvalidRequest::LogOption { name: name.clone() }),
        }
    }
    Ok(())
}

/// What the shim writes; absent where there is no log.
pub fn options(log: &LogConfig, config: &Config, path: PathBuf) -> Result<Option<LogOptions>, InvalidRequest> {
    if log.kind == "none" {
        return Ok(None);
    }
    let option = |name: &str| log.config.as_ref().and_then(|options| options.get(name)).map(String::as_str);
    let selected = |name: &str| option(name).unwrap_or_default().split(',').map(str::trim).collect::<Vec<_>>();
    let (labels, env) = (selected("labels"), selected("env"));
    let own_labels = config.labels.iter().flatten().map(|(name, value)| (name.as_str(), value.as_str()));
    let own_env = config.env.iter().flatten().filter_map(|entry| entry.split_once('='));
    let chosen = own_labels
        .filter(|(name, _)| labels.contains(name))
        .chain(own_env.filter(|(name, _)| env.contains(name)))
        .filter(|(name, _)| !name.is_empty());
    Ok(Some(LogOptions {
        path,
        max_size_bytes: option("max-size").map(size).transpose()?,
        max_files: option("max-file").map(files).transpose()?.unwrap_or(1),
        attrs: chosen.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }))
}

fn files(value: &str) -> Result<u32, InvalidRequest> {
    let files: i64 = value.parse().map_err(|err: ParseIntError| match err.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => {
            InvalidRequest::LogFilesRange { value: value.to_owned() }
        }
        _ => InvalidRequest::LogFiles { value: value.to_owned() },
    })?;
    match u32::try_from(files) {
        Ok(files) if files > 0 => Ok(files),
        // More than anybody can have.
        Err(_) if files > 0 => Ok(u32::MAX),
        _ => Err(InvalidRequest::LogFilesTooFew),
    }
}

/// Reads `10m`, `1.5GB`, `500`, of which a thousand are a kilobyte.
fn size(value: &str) -> Result<u64, InvalidRequest> {
    match u64::try_from(size::parse(value, Units::Decimal).map_err(InvalidRequest::LogSize)?) {
        Ok(bytes) if bytes > 0 => Ok(bytes),
        _ => Err(InvalidRequest::LogSizeNotPositive),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(options: &[(&str, &str)]) -> LogConfig {
        let config = options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        LogConfig { kind: "json-file".to_owned(), config: Some(config) }
    }

    #[test]
    fn options_are_read_as_docker_reads_them() {
        for (options, expected) in [
            (&[("max-size", "10m"), ("max-file", "3")][..], Ok(())),
            (&[("max-size", "1.5GB")], Ok(())),
            (&[("max-size", "q")], Ok(())),
            (&[("foo", "1")], Err("unknown log opt 'foo' for json-file log driver")),
            (&[("mode", "x")], Err("logger: logging mode not supported: x")),
            (&[("compress", "true")], Err("--log-opt compress is not supported yet")),
        ] {
            assert_eq!(validate(&log(options)).map_err(|err| err.to_string()), expected.map_err(str::to_owned));
        }
        assert_eq!(size("1.5k"), Ok(1500));
        let unknown = LogConfig { kind: "nope".to_owned(), config: None };
        let sentence = "error looking up logging plugin nope: plugin \"nope\" not found";
        assert_eq!(validate(&unknown).unwrap_err().to_string(), sentence);
    }

    #[test]
    fn values_are_read_at_the_start() {
        for (option, sentence) in [
            (("max-size", "q"), "invalid size: 'q'"),
            (("max-size", "-1"), "invalid size: '-1'"),
            (("max-size", "10q"), "invalid suffix: 'q'"),
            (("max-size", "1.2.3k"), "strconv.ParseFloat: parsing \"1.2.3\": invalid syntax"),
            (
                ("max-file", "99999999999999999999"),
                "strconv.Atoi: parsing \"99999999999999999999\": value out of range",
            ),
            (("max-size", "0"), "max-size must be a positive number"),
            (("max-file", "x"), "strconv.Atoi: parsing \"x\": invalid syntax"),
            (("max-file", "0"), "max-file cannot be less than 1"),
        ] {
            let refused = options(&log(&[option]), &Config::default(), "/log".into()).unwrap_err().to_string();
            let prefix = "failed to create task for container: failed to initialize logging driver: ";
            assert_eq!(refused, format!("{prefix}{sentence}"));
        }
    }

    #[test]
    fn selected_labels_and_variables_are_put_in_every_line() {
        let config = Config {
            env: Some(vec!["A=1".to_owned(), "B=2".to_owned()]),
            labels: Some([("l".to_owned(), "x".to_owned()), ("m".to_owned(), "y".to_owned())].into()),
            ..Config::default()
        };
        let options = options(&log(&[("labels", "l, q"), ("env", "B")]), &config, "/log".into()).unwrap().unwrap();
        assert_eq!(options.attrs, [("l".to_owned(), "x".to_owned()), ("B".to_owned(), "2".to_owned())].into());
        assert_eq!((options.max_files, options.max_size_bytes), (1, None));
    }
}
