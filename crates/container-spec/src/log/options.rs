//! The options of a log driver, by name.

use std::collections::{BTreeMap, HashMap};
use std::num::{IntErrorKind, ParseIntError};

use engine_api::container::Config;
use engine_api::host_config::LogConfig;
use engine_api::size::{self, Units};

use super::fault::{LogFault, LogStartFault};

/// Those that every driver has.
const COMMON: [&str; 6] =
    ["mode", "max-buffer-size", "cache-disabled", "cache-max-file", "cache-max-size", "cache-compress"];

/// Options as given.
pub(super) struct Options<'a>(&'a LogConfig);

impl<'a> Options<'a> {
    pub(super) fn of(log: &'a LogConfig) -> Options<'a> {
        Options(log)
    }

    /// The value of one.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.config.as_ref()?.get(name).map(String::as_str)
    }

    /// The first that neither every driver has, nor is known.
    pub(super) fn unknown(&self, known: &[&str]) -> Option<&'a str> {
        let names = self.0.config.iter().flatten().map(|(name, _)| name.as_str());
        names.into_iter().find(|name| !COMMON.contains(name) && !known.contains(name))
    }

    /// Checks those that every driver has.
    pub(super) fn check_common(&self) -> Result<(), LogFault> {
        let mode = self.get("mode").unwrap_or_default();
        if !matches!(mode, "" | "blocking" | "non-blocking") {
            return Err(LogFault::Mode { mode: mode.to_owned() });
        }
        if let Some(text) = self.get("max-buffer-size") {
            if mode != "non-blocking" {
                return Err(LogFault::BlockingBuffer);
            }
            size::parse(text, Units::Binary).map_err(LogFault::BufferSize)?;
        }
        let disabled = self.get("cache-disabled").unwrap_or_default();
        if !disabled.is_empty() && self.flag("cache-disabled").is_err() {
            return Err(LogFault::CacheDisabled { value: disabled.to_owned() });
        }
        Ok(())
    }

    /// As Go's `strconv.ParseBool` reads it.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, LogStartFault> {
        match self.get(name) {
            None => Ok(None),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(value) => Err(LogStartFault::Flag { value: value.to_owned() }),
        }
    }

    /// As Go's `strconv.Atoi` reads it.
    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, LogStartFault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.parse().map_err(|err: ParseIntError| match err.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => {
                LogStartFault::NumberRange { value: value.to_owned() }
            }
            _ => LogStartFault::Number { value: value.to_owned() },
        })?;
        Ok(Some(number))
    }

    /// The labels and variables that are chosen, under their names as `rename` makes them.
    pub(super) fn attributes(
        &self,
        config: &Config,
        rename: impl Fn(&str) -> String,
    ) -> Result<BTreeMap<String, String>, LogStartFault> {
        let labels: HashMap<&str, &str> =
            config.labels.iter().flatten().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let env = config.env.iter().flatten().filter_map(|entry| entry.split_once('=')).collect();
        let mut chosen = BTreeMap::new();
        for (names, pattern, from) in [("labels", "labels-regex", labels), ("env", "env-regex", env)] {
            let given = self.get(names).filter(|names| !names.is_empty());
            for name in given.into_iter().flat_map(|names| names.split(',')) {
                if let Some(value) = from.get(name) {
                    chosen.insert(rename(name), (*value).to_owned());
                }
            }
            let Some(text) = self.get(pattern).filter(|text| !text.is_empty()) else { continue };
            let pattern = regex_lite::Regex::new(text)
                .map_err(|err| LogStartFault::Pattern { pattern: text.to_owned(), reason: err.to_string() })?;
            for (name, value) in from.iter().filter(|(name, _)| pattern.is_match(name)) {
                chosen.insert(rename(name), (*value).to_owned());
            }
        }
        Ok(chosen)
    }
}
