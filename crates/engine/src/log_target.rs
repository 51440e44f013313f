//! What a container's shim logs, and where `logs` finds it again.

use std::path::{Path, PathBuf};

use container_spec::InvalidRequest;
use container_spec::log::{self, LogFile, LogServer, LogSubject, SyslogFormat};
use engine_api::host_config::LogConfig;
use logging::Format;
use shim_api::{CreateTask, LogServerKind, LogTarget};

use crate::Engine;
use crate::container::Container;

/// Where the journal takes messages (systemd.io, JOURNAL_NATIVE_PROTOCOL).
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";

/// Whether the host has a journal; without one the driver that writes to it is none.
pub(crate) fn has_journal() -> bool {
    Path::new(JOURNAL_SOCKET).exists()
}

/// Checks a log configuration as a container's is checked when it is made. The words are dockerd's.
pub fn check_log(log: &LogConfig) -> Result<(), InvalidRequest> {
    log::validate(log)
}

/// The file of a container's log and its format; none where nothing is kept that can be read.
pub(crate) fn readable(engine: &Engine, container: &Container) -> Option<(PathBuf, Format)> {
    let id = container.id();
    let config = &container.definition.host_config.log_config;
    let (path, compact) = log::readable(config, id.as_str(), engine.recorder.dir(id).path())?;
    Some((path, if compact { Format::Compact } else { Format::Json }))
}

/// Adds the log to what a shim is told.
pub(crate) fn add(engine: &Engine, container: &Container, task: &mut CreateTask) -> Result<(), InvalidRequest> {
    let (definition, id, name) = (&container.definition, container.id(), container.name());
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let command = std::iter::once(&definition.path).chain(&definition.args).map(String::as_str);
    let dir = engine.recorder.dir(id);
    let subject = LogSubject {
        id: id.as_str(),
        name: &name,
        image_id: &definition.image_id,
        command: command.collect(),
        config: &definition.config,
        hostname: &hostname,
        dir: dir.path(),
    };
    let plan = log::plan(&definition.host_config.log_config, &subject)?;
    task.log = plan.file.map(target);
    let buffer_max_bytes = plan.server_buffer_max_bytes;
    task.log_server = plan.server.map(|server| shim_api::LogServer { kind: kind(server), buffer_max_bytes });
    Ok(())
}

fn target(file: LogFile) -> LogTarget {
    let LogFile { path, compact, max_size_bytes, max_files, compress, attrs, buffer_max_bytes } = file;
    LogTarget { path, max_size_bytes, max_files, attrs, compact, compress, buffer_max_bytes }
}

fn kind(server: LogServer) -> LogServerKind {
    match server {
        LogServer::Syslog(server) => LogServerKind::Syslog {
            network: server.network,
            address: server.address,
            facility: server.facility,
            format: match server.format {
                SyslogFormat::Unix => shim_api::SyslogFormat::Unix,
                SyslogFormat::Rfc3164 => shim_api::SyslogFormat::Rfc3164,
                SyslogFormat::Rfc5424 => shim_api::SyslogFormat::Rfc5424,
                SyslogFormat::Rfc5424Micro => shim_api::SyslogFormat::Rfc5424Micro,
            },
            tag: server.tag,
        },
        LogServer::Journal(fields) => LogServerKind::Journal { socket: Path::new(JOURNAL_SOCKET).into(), fields },
    }
}
