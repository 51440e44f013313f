//! Where the output of a container goes: log drivers and their options.
//!
//! As with dockerd, names are checked when a container is made, and values by its start: some are never looked at.

mod fault;
mod options;
mod syslog;
mod tag;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use engine_api::container::Config;
use engine_api::host_config::LogConfig;
use engine_api::size::{self, Units};

pub use fault::{LogFault, LogStartFault};
use options::Options;
pub use syslog::{SyslogFormat, SyslogServer};

use crate::validate::InvalidRequest;

/// Drivers that we have, as `info` lists them. `none` is none.
pub const DRIVERS: [&str; 4] = ["journald", "json-file", "local", "syslog"];

/// Docker's default for `local`.
const LOCAL_MAX_SIZE_BYTES: u64 = 20 << 20;
/// As above.
const LOCAL_MAX_FILES: u32 = 5;

/// Docker's default for `max-buffer-size`.
const BUFFER_MAX_BYTES: u64 = 1_000_000;

/// What a log consists of; with neither there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPlan {
    /// A file of this machine.
    pub file: Option<LogFile>,
    /// A server.
    pub server: Option<LogServer>,
    /// Lines to the server that find no room among so many bytes are dropped; if absent, the container waits.
    pub server_buffer_max_bytes: Option<u64>,
}

/// A file and its rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// The current file.
    pub path: PathBuf,
    /// In our own format instead of Docker's JSON.
    pub compact: bool,
    /// Bytes after which it is rotated; never if absent.
    pub max_size_bytes: Option<u64>,
    /// How many files are kept, the current one included; at least 1.
    pub max_files: u32,
    /// Whether rotated files are compressed.
    pub compress: bool,
    /// Put in every line as `attrs`.
    pub attrs: BTreeMap<String, String>,
    /// Lines that find no room among so many bytes are dropped; if absent, the container waits.
    pub buffer_max_bytes: Option<u64>,
}

/// A server that gets a message for every line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogServer {
    /// One that speaks syslog.
    Syslog(SyslogServer),
    /// The journal of this machine, and what every message says.
    Journal(BTreeMap<String, String>),
}

/// What drivers say of a container.
#[derive(Clone, Debug)]
pub struct LogSubject<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its name, without a slash.
    pub name: &'a str,
    /// Its image's id.
    pub image_id: &'a str,
    /// Its program and its arguments.
    pub command: Vec<&'a str>,
    /// Its environment, labels and its image's name.
    pub config: &'a Config,
    /// This machine's name.
    pub hostname: &'a str,
    /// Where its files are.
    pub dir: &'a Path,
}

/// Checks the driver and the names of its options.
pub fn validate(log: &LogConfig) -> Result<(), InvalidRequest> {
    Ok(check(log)?)
}

fn check(log: &LogConfig) -> Result<(), LogFault> {
    let options = Options::of(log);
    if log.kind == "none" {
        return Ok(());
    }
    options.check_common()?;
    let known: &[&str] = match log.kind.as_str() {
        "" | "json-file" => &["max-file", "max-size", "compress", "labels", "labels-regex", "env", "env-regex", "tag"],
        "local" => &["max-file", "max-size", "compress"],
        "journald" => &["labels", "labels-regex", "env", "env-regex", "tag"],
        "syslog" => &syslog::OPTIONS,
        "gelf" | "fluentd" | "awslogs" | "splunk" => return Err(LogFault::NotOffered { driver: log.kind.clone() }),
        name => return Err(LogFault::Driver { name: name.to_owned() }),
    };
    if let Some(name) = options.unknown(known) {
        let driver = if log.kind.is_empty() { "json-file" } else { &log.kind };
        return Err(match driver {
            // Docker has two forms of the sentence.
            "local" => LogFault::LocalOption { name: name.to_owned() },
            driver => LogFault::Option { name: name.to_owned(), driver: driver.to_owned() },
        });
    }
    if log.kind == "syslog" { syslog::check(&options) } else { Ok(()) }
}

/// Which file `logs` reads, and whether it is in our own format; none where nothing is kept.
pub fn readable(log: &LogConfig, id: &str, dir: &Path) -> Option<(PathBuf, bool)> {
    match log.kind.as_str() {
        "none" => None,
        "" | "json-file" => Some((dir.join(format!("{id}-json.log")), false)),
        "local" => Some((dir.join("local-logs/container.log"), true)),
        _ if Options::of(log).flag("cache-disabled") == Ok(Some(true)) => None,
        _ => Some((dir.join("container-cached.log"), true)),
    }
}

/// What the shim writes.
pub fn plan(log: &LogConfig, subject: &LogSubject<'_>) -> Result<LogPlan, InvalidRequest> {
    Ok(planned(log, subject)?)
}

fn planned(log: &LogConfig, subject: &LogSubject<'_>) -> Result<LogPlan, LogStartFault> {
    let options = Options::of(log);
    let readable = readable(log, subject.id, subject.dir);
    let buffer_max_bytes = match options.get("mode") {
        Some("non-blocking") => Some(buffer(&options)?),
        _ => None,
    };
    let server = match log.kind.as_str() {
        "none" => return Ok(LogPlan::default()),
        "" | "json-file" => {
            let file = json_file(&options, subject, buffer_max_bytes)?;
            return Ok(LogPlan { file: readable.map(|(path, _)| LogFile { path, ..file }), ..LogPlan::default() });
        }
        "local" => {
            let file = local(&options, "", buffer_max_bytes)?;
            return Ok(LogPlan { file: readable.map(|(path, _)| LogFile { path, ..file }), ..LogPlan::default() });
        }
        "syslog" => LogServer::Syslog(syslog::server(&options, tag::expand(&options, subject, "{{.ID}}")?)?),
        _ => LogServer::Journal(journal_fields(&options, subject)?),
    };
    // Beside a server lines are kept, and never hold up anybody unless the mode says so.
    let cache_max_bytes = if options.get("mode") == Some("blocking") { None } else { Some(buffer(&options)?) };
    let cache = local(&options, "cache-", cache_max_bytes)?;
    let file = readable.map(|(path, _)| LogFile { path, ..cache });
    Ok(LogPlan { file, server: Some(server), server_buffer_max_bytes: buffer_max_bytes })
}

fn buffer(options: &Options<'_>) -> Result<u64, LogStartFault> {
    let Some(text) = options.get("max-buffer-size") else { return Ok(BUFFER_MAX_BYTES) };
    Ok(size::parse(text, Units::Binary).map(i64::unsigned_abs)?)
}

fn json_file(
    options: &Options<'_>,
    subject: &LogSubject<'_>,
    buffer_max_bytes: Option<u64>,
) -> Result<LogFile, LogStartFault> {
    let max_size_bytes = match options.get("max-size").map(|text| size::parse(text, Units::Decimal)).transpose()? {
        Some(..=0) => return Err(LogStartFault::SizeNotPositive),
        bytes => bytes.map(i64::unsigned_abs),
    };
    let max_files = match options.number("max-file")? {
        Some(..=0) => return Err(LogStartFault::TooFewFiles),
        // More than anybody can have.
        files => files.map_or(1, |files| u32::try_from(files).unwrap_or(u32::MAX)),
    };
    let compress = options.flag("compress")?.unwrap_or(false);
    if compress && (max_files == 1 || max_size_bytes.is_none()) {
        return Err(LogStartFault::NothingToCompress);
    }
    let mut attrs = options.attributes(subject.config, str::to_owned)?;
    let tag = tag::expand(options, subject, "")?;
    if !tag.is_empty() {
        attrs.insert("tag".to_owned(), tag);
    }
    Ok(LogFile { path: PathBuf::new(), compact: false, max_size_bytes, max_files, compress, attrs, buffer_max_bytes })
}

/// `local`, and what is kept beside a server, whose options have a prefix.
fn local(options: &Options<'_>, prefix: &str, buffer_max_bytes: Option<u64>) -> Result<LogFile, LogStartFault> {
    let name = |name: &str| format!("{prefix}{name}");
    let max_size_bytes = match options.get(&name("max-size")) {
        None => LOCAL_MAX_SIZE_BYTES,
        Some(value) => {
            let parsed = size::parse(value, Units::Decimal);
            let value = value.to_owned();
            parsed.map_err(|source| LogStartFault::LocalSize { value, source })?.unsigned_abs()
        }
    };
    let files = match options.number(&name("max-file")) {
        Ok(files) => files.unwrap_or(LOCAL_MAX_FILES.into()),
        Err(source) => {
            let value = options.get(&name("max-file")).unwrap_or_default().to_owned();
            return Err(LogStartFault::LocalFiles { value, source: Box::new(source) });
        }
    };
    let compress = options.flag(&name("compress")).map_err(|source| LogStartFault::LocalCompress(Box::new(source)))?;
    let compress = compress.unwrap_or(true);
    if files < 0 {
        return Err(LogStartFault::NegativeFiles);
    }
    if compress && files <= 1 {
        return Err(LogStartFault::CompressesOneFile);
    }
    Ok(LogFile {
        path: PathBuf::new(),
        compact: true,
        max_size_bytes: Some(max_size_bytes),
        max_files: u32::try_from(files).unwrap_or(u32::MAX).max(1),
        compress,
        attrs: BTreeMap::new(),
        buffer_max_bytes,
    })
}

/// Docker's fields.
fn journal_fields(options: &Options<'_>, subject: &LogSubject<'_>) -> Result<BTreeMap<String, String>, LogStartFault> {
    let tag = tag::expand(options, subject, "{{.ID}}")?;
    let mut fields: BTreeMap<String, String> = [
        ("CONTAINER_ID", tag::short(subject.id)),
        ("CONTAINER_ID_FULL", subject.id),
        ("CONTAINER_NAME", subject.name),
        ("CONTAINER_TAG", &tag),
        ("IMAGE_NAME", &subject.config.image),
        ("SYSLOG_IDENTIFIER", &tag),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    fields.extend(options.attributes(subject.config, journal_name)?);
    Ok(fields)
}

/// A name that the journal takes, of any other.
fn journal_name(name: &str) -> String {
    let fits = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
    let replaced = name.chars().map(|c| c.to_ascii_uppercase()).map(|c| if fits(c) { c } else { '_' });
    replaced.skip_while(|c| *c == '_').collect()
}

#[cfg(test)]
mod tests;
