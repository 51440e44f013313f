//! From what the daemon wants logged to a log.

use logging::{FileOptions, Format, Log, LogOptions, OpenError, RemoteOptions, Rotation, SyslogOptions, Target};
use shim_api::{CreateTask, LogServerKind, LogTarget, SyslogFormat};

/// Opens the log of a container, if it has one.
pub(crate) fn open(task: &CreateTask) -> Result<Option<Log>, OpenError> {
    if task.log.is_none() && task.log_server.is_none() {
        return Ok(None);
    }
    let remote = task
        .log_server
        .as_ref()
        .map(|server| RemoteOptions { target: target(&server.kind), buffer_max_bytes: server.buffer_max_bytes });
    Log::open(&LogOptions { file: task.log.as_ref().map(file), remote }).map(Some)
}

fn file(target: &LogTarget) -> FileOptions {
    let LogTarget { path, max_size_bytes, max_files, attrs, compact, compress, buffer_max_bytes } = target.clone();
    let format = if compact { Format::Compact } else { Format::Json };
    let rotation = Rotation { max_size_bytes, max_files, compress };
    FileOptions { path, format, rotation, attrs, buffer_max_bytes }
}

fn target(kind: &LogServerKind) -> Target {
    match kind.clone() {
        LogServerKind::Syslog { network, address, facility, format, tag } => {
            let format = match format {
                SyslogFormat::Unix => logging::SyslogFormat::Unix,
                SyslogFormat::Rfc3164 => logging::SyslogFormat::Rfc3164,
                SyslogFormat::Rfc5424 => logging::SyslogFormat::Rfc5424,
                SyslogFormat::Rfc5424Micro => logging::SyslogFormat::Rfc5424Micro,
            };
            Target::Syslog(SyslogOptions { network, address, facility, format, tag })
        }
        LogServerKind::Journal { socket, fields } => Target::Journal { socket, fields },
    }
}
