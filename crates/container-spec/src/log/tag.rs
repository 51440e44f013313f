//! `--log-opt tag`: a Go template about the container.

use std::collections::HashMap;

use gtmpl_ng::{Context, Template, Value};

use super::LogSubject;
use super::fault::LogStartFault;
use super::options::Options;

/// Digits of an id that `ID` shows.
const SHORT_DIGITS: usize = 12;

/// The first digits of an id.
pub(super) fn short(id: &str) -> &str {
    id.get(..SHORT_DIGITS).unwrap_or(id)
}

/// The tag that is asked for, or by default.
pub(super) fn expand(options: &Options<'_>, subject: &LogSubject<'_>, default: &str) -> Result<String, LogStartFault> {
    let source = options.get("tag").filter(|tag| !tag.is_empty()).unwrap_or(default);
    if !source.contains("{{") {
        return Ok(source.to_owned());
    }
    let mut template = Template::default();
    template.parse(source).map_err(|err| LogStartFault::Tag { reason: err.to_string() })?;
    let rendered = template.render(&Context::from(fields(subject)));
    rendered.map_err(|err| LogStartFault::TagField { reason: err.to_string() })
}

/// Methods and fields of Docker's `logger.Info`.
fn fields(subject: &LogSubject<'_>) -> Value {
    let image = &subject.config.image;
    let command = subject.command.join(" ");
    let slashed = format!("/{}", subject.name);
    let texts = [
        ("ID", short(subject.id)),
        ("FullID", subject.id),
        ("Name", subject.name),
        ("ImageID", short(subject.image_id)),
        ("ImageFullID", subject.image_id),
        ("ImageName", image),
        ("Hostname", subject.hostname),
        ("Command", &command),
        ("ContainerID", subject.id),
        ("ContainerName", &slashed),
        ("ContainerImageID", subject.image_id),
        ("ContainerImageName", image),
        ("ContainerEntrypoint", subject.command.first().copied().unwrap_or_default()),
        ("DaemonName", "docker"),
    ];
    let text = |text: &str| Value::String(text.to_owned());
    let mut fields: HashMap<String, Value> = texts.map(|(name, value)| (name.to_owned(), text(value))).into();
    let labels = subject.config.labels.iter().flatten().map(|(name, value)| (name.clone(), text(value)));
    fields.insert("ContainerLabels".to_owned(), Value::Map(labels.collect()));
    let env = subject.config.env.iter().flatten().map(|entry| text(entry));
    fields.insert("ContainerEnv".to_owned(), Value::Array(env.collect()));
    let args = subject.command.iter().skip(1).map(|argument| text(argument));
    fields.insert("ContainerArgs".to_owned(), Value::Array(args.collect()));
    Value::Object(fields)
}
