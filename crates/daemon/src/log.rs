//! The daemon's log: one line an event on standard error, in the form of dockerd's.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use stdx::time::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, Subscriber};
use tracing::{Event, Metadata};

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level(LevelFilter);

/// A level that nobody knows. The sentence is dockerd's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid logging level: {0}")]
pub(crate) struct LevelError(String);

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// `time=... level=... msg=...`
    #[default]
    Text,
    /// One object of JSON.
    Json,
}

/// A form that nobody knows. The sentence is dockerd's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid log format: {0}")]
pub(crate) struct FormError(String);

impl Form {
    /// Parses one of dockerd's names.
    pub(crate) fn parse(text: &str) -> Result<Form, FormError> {
        match text {
            "text" => Ok(Form::Text),
            "json" => Ok(Form::Json),
            _ => Err(FormError(text.to_owned())),
        }
    }
}

/// Changes how much is told, while the daemon runs.
#[derive(Clone, Debug)]
pub(crate) struct Volume(Arc<AtomicUsize>);

impl Level {
    /// Everything that helps to find a mistake.
    pub(crate) const DEBUG: Level = Level(LevelFilter::DEBUG);
    /// The default.
    #[cfg(test)]
    pub(crate) const INFO: Level = Level(LevelFilter::INFO);

    /// Parses one of dockerd's names.
    pub(crate) fn parse(text: &str) -> Result<Level, LevelError> {
        Ok(Level(match text.to_ascii_lowercase().as_str() {
            // Ours have nothing above an error.
            "panic" | "fatal" | "error" => LevelFilter::ERROR,
            "warn" => LevelFilter::WARN,
            "info" => LevelFilter::INFO,
            "debug" => LevelFilter::DEBUG,
            "trace" => LevelFilter::TRACE,
            _ => return Err(LevelError(text.to_owned())),
        }))
    }
}

impl Volume {
    /// Tells from now on what `level` says.
    pub(crate) fn set(&self, level: Level) {
        self.0.store(rank(level.0), Ordering::Relaxed);
    }
}

/// Starts the log of this process.
pub(crate) fn start(level: Level, form: Form) -> Volume {
    let volume = Volume(Arc::new(AtomicUsize::new(rank(level.0))));
    // A second call would be a mistake of ours, and the first log goes on.
    let _ = tracing::subscriber::set_global_default(Stderr(volume.clone(), form));
    // A panic ends one request or one task, not the daemon: its words belong with the rest.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    volume
}

fn rank(filter: LevelFilter) -> usize {
    match filter.into_level() {
        None => 0,
        Some(tracing::Level::ERROR) => 1,
        Some(tracing::Level::WARN) => 2,
        Some(tracing::Level::INFO) => 3,
        Some(tracing::Level::DEBUG) => 4,
        Some(tracing::Level::TRACE) => 5,
    }
}

struct Stderr(Volume, Form);

impl Subscriber for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && rank(LevelFilter::from_level(*metadata.level())) <= self.0.0.load(Ordering::Relaxed)
    }

    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // Asked anew each time, because the level can change.
        if metadata.is_event() { Interest::sometimes() } else { Interest::never() }
    }

    fn event(&self, event: &Event<'_>) {
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        let level = if level == "warn" { "warning" } else { &level };
        let text = match self.1 {
            Form::Text => {
                let mut line = Line { message: String::new(), fields: String::new() };
                event.record(&mut line);
                format!("time=\"{}\" level={level} msg={:?}{}\n", Rfc3339::now(), line.message, line.fields)
            }
            Form::Json => {
                let mut object = Object::default();
                event.record(&mut object);
                object.0.insert("level".to_owned(), level.into());
                object.0.insert("time".to_owned(), Rfc3339::now().to_string().into());
                format!("{}\n", serde_json::Value::Object(object.0))
            }
        };
        // Where standard error is broken there is nowhere left to say so.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    // Spans are not used: events name what they are about.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Line {
    message: String,
    fields: String,
}

/// The members of a line of JSON; the message is `msg`, as in dockerd's.
#[derive(Default)]
struct Object(serde_json::Map<String, serde_json::Value>);

impl Visit for Object {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let name = if field.name() == "message" { "msg" } else { field.name() };
        self.0.insert(name.to_owned(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_dockerds_names() {
        let parsed = |text| Level::parse(text).map_err(|err| err.to_string());
        assert_eq!(parsed("info"), Ok(Level::INFO));
        assert_eq!(parsed("DEBUG"), Ok(Level::DEBUG));
        assert_eq!(parsed("fatal"), Ok(Level(LevelFilter::ERROR)));
        for bad in ["foo", "", "off", "3"] {
            assert_eq!(parsed(bad), Err(format!("invalid logging level: {bad}")));
        }
    }
}
