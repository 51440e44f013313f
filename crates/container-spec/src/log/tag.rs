//! `--log-opt tag`: a Go template about the container.

use std::collections::HashMap;

use gtmpl_ng::{Context, ExecError, StructuredError, Template, Value};

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
    let fields = fields(subject);
    let rendered = template.render(&Context::from(Value::Object(fields.clone())));
    rendered.map_err(|err| fault(source, &fields, &err))
}

/// Why a template does not fit. Nothing of the library's sentence is repeated: it shows values, and a container's
/// environment is nobody's business. So only what the user has written is told, and where.
fn fault(source: &str, fields: &HashMap<String, Value>, err: &ExecError) -> LogStartFault {
    let Some(StructuredError { context, .. }) = err.as_structured() else { return LogStartFault::TagLimit };
    let start = context.col.saturating_sub(1);
    let text = source.lines().nth(context.line.saturating_sub(1)).and_then(|line| line.get(start..));
    let text = text.and_then(|text| text.get(..context.len)).unwrap_or_default();
    let unknown = unknown_field(text, fields);
    LogStartFault::TagField {
        line: context.line,
        column: start + unknown.as_ref().map_or(0, |(offset, _)| *offset),
        text: text.to_owned(),
        reason: unknown.map_or_else(|| "it fits none of a container's fields".to_owned(), |(_, reason)| reason),
    }
}

/// The field that a chain of them asks for in vain: where Go's templates say that it is, and their sentence.
fn unknown_field(chain: &str, fields: &HashMap<String, Value>) -> Option<(usize, String)> {
    let mut names = chain.strip_prefix('.')?.split('.');
    let first = names.next()?;
    let (offset, name, type_name) = match fields.get(first) {
        None => (0, first, "*logger.Info"),
        Some(value) => {
            let type_name = if matches!(value, Value::Array(_)) { "[]string" } else { "string" };
            (1 + first.len(), names.next()?, type_name)
        }
    };
    Some((offset, format!("can't evaluate field {name} in type {type_name}")))
}

/// Methods and fields of Docker's `logger.Info`.
fn fields(subject: &LogSubject<'_>) -> HashMap<String, Value> {
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
    fields
}
