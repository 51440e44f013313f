//! Where errors are told: the log file in the form that engines read, and standard error.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use stdx::time::Rfc3339;

/// The two forms of runc's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `time="..." level=error msg="..."`.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// No such form.
    #[error("invalid log-format: {format}, must be one of text, json")]
    Format {
        /// As given.
        format: String,
    },
    /// The file could not be opened.
    #[error("--log: open {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        source: oci_runtime::SystemError,
    },
}

/// An open log.
#[derive(Debug)]
pub(crate) struct Log {
    file: Option<File>,
    format: Format,
    debug: bool,
}

impl Log {
    /// Standard error alone.
    pub(crate) fn stderr() -> Log {
        Log { file: None, format: Format::Text, debug: false }
    }

    /// Opens the file, if one is given, for appending.
    pub(crate) fn open(path: Option<&str>, format: Option<&str>, debug: bool) -> Result<Log, LogError> {
        let format = match format.unwrap_or_default() {
            "" | "text" => Format::Text,
            "json" => Format::Json,
            other => return Err(LogError::Format { format: other.to_owned() }),
        };
        let open = |path: &str| {
            let opened = OpenOptions::new().append(true).create(true).open(path).and_then(out_of_the_way);
            let path = Path::new(path).to_owned();
            opened.map_err(|err| LogError::Open { path, source: oci_runtime::SystemError(err) })
        };
        let file = path.filter(|path| !path.is_empty()).map(open).transpose()?;
        Ok(Log { file, format, debug })
    }

    /// Tells why the program fails: in the log, and on standard error where that is something else.
    pub(crate) fn error(&self, message: &str) {
        self.line("error", message);
        if self.file.is_some() {
            // Nobody reads there, perhaps; then the log has it.
            let _ = writeln!(std::io::stderr(), "{message}");
        }
    }

    /// Tells of something that is wrong and stops nothing.
    pub(crate) fn warning(&self, message: &str) {
        self.line("warning", message);
    }

    /// Tells what is done, if that is asked for.
    pub(crate) fn debug(&self, message: &str) {
        if self.debug {
            self.line("debug", message);
        }
    }

    fn line(&self, level: &str, message: &str) {
        let line = line(self.format, level, message, Rfc3339::now());
        // There is no other place to tell that this one is full.
        let _ = match &self.file {
            Some(file) => (&*file).write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }
}

/// The low numbers are for descriptors that containers inherit (`--preserve-fds`): the log must not be taken for one.
fn out_of_the_way(file: File) -> io::Result<File> {
    Ok(rustix::io::fcntl_dupfd_cloexec(&file, 3 + crate::given::DESCRIPTORS_MAX as i32)?.into())
}

/// One write, so that two programs with one file do not mix.
fn line(format: Format, level: &str, message: &str, time: Rfc3339) -> String {
    // To the second, as logrus prints it.
    let time = time.to_string();
    let time = format!("{}Z", &time[..time.len().min(19)]);
    match format {
        Format::Text => format!("time={time:?} level={level} msg={message:?}\n"),
        Format::Json => format!("{}\n", serde_json::json!({"level": level, "msg": message, "time": time})),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_runc() {
        let time = Rfc3339::parse("2026-11-21T07:06:57.5Z").unwrap();
        let json = line(Format::Json, "error", "exec: \"x\"", time);
        assert_eq!(json, "{\"level\":\"error\",\"msg\":\"exec: \\\"x\\\"\",\"time\":\"2026-11-21T07:06:57Z\"}\n");
        let text = line(Format::Text, "error", "exec: \"x\"", time);
        assert_eq!(text, "time=\"2026-11-21T07:06:57Z\" level=error msg=\"exec: \\\"x\\\"\"\n");
    }
}
