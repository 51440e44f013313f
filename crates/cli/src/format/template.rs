//! Go templates, with Docker's functions.
//!
//! The engine is gtmpl-ng; nothing else of the program sees its types. It keeps maps unordered, while `{{json .}}` must
//! print a struct's keys in the daemon's order: [`json`] finds the order again by the set of keys, of which every Go
//! struct has exactly one.

mod go_struct;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use gtmpl_ng::{Context, FuncError, NumberKind, Template, TemplateError, Value as Dynamic};
use serde_json::{Map, Value};

/// What functions, which have no state of their own, know of the row.
#[derive(Default)]
struct CurrentRow {
    labels: BTreeMap<String, String>,
    head: bool,
}

thread_local! {
    /// The row that a template is applied to.
    static ROW: RefCell<CurrentRow> = RefCell::default();
    /// Sorted keys of an object to the keys in their order.
    static ORDERS: RefCell<HashMap<Vec<String>, Vec<String>>> = RefCell::default();
}

/// Fields of the API that are maps: a missing key there is `<no value>`, and in a struct an error.
const MAPS: [&str; 18] = [
    "Labels",
    "Ports",
    "Networks",
    "Annotations",
    "Config",
    "Sysctls",
    "Tmpfs",
    "Data",
    "Volumes",
    "ExposedPorts",
    "PortBindings",
    "StorageOpt",
    "DriverOpts",
    "EndpointsConfig",
    "Attributes",
    "Details",
    "Runtimes",
    "Options",
];

/// How the engine's ends about a field of what is no struct.
const NO_FIELDS: &str = "only maps and objects have fields";

/// A template that does not parse, or does not fit what it is applied to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It does not parse.
    #[error("template: {name}:1: {reason}")]
    Parse {
        /// The template's name.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// It does not fit.
    #[error("template: {name}:{line}:{column}: executing {name:?} at <{construct}>: {reason}")]
    Execute {
        /// The template's name.
        name: &'static str,
        /// From 1.
        line: usize,
        /// From 0, as Go counts.
        column: usize,
        /// The part of the template.
        construct: String,
        /// What is wrong with it.
        reason: Mismatch,
    },
}

/// Why a template does not fit what it is applied to. The texts are Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// A map has no such key.
    #[error("map has no entry for key {0:?}")]
    NoKey(String),
    /// A struct of a known type has no such field.
    #[error("can't evaluate field {field} in type {type_name}")]
    NoField {
        /// The field.
        field: String,
        /// Go's name of the type.
        type_name: &'static str,
    },
    /// What a function of the template refuses.
    #[error("{0}")]
    Function(String),
}

impl FormatError {
    /// Whether a field is named that a struct of a known type does not have.
    pub fn is_missing_field(&self) -> bool {
        matches!(self, FormatError::Execute { reason: Mismatch::NoField { .. }, .. })
    }
}

/// A parsed template.
pub struct Format {
    template: Template,
    source: String,
    name: &'static str,
    types: Types,
    /// Go's name of a row's type; all fields of a row are texts.
    row_type: Option<&'static str>,
}

/// Go's names of the structs that a template is applied to, by the path to them. What is unknown is told as a map.
pub type Types = &'static [(&'static str, &'static str)];

impl Format {
    /// Parses a template of a listing's rows, which have a method: `{{.Label "name"}}`. The engine has functions only.
    pub fn parse_row(source: &str, type_name: &'static str) -> Result<Format, FormatError> {
        let format = Format::parse(&source.replace(".Label ", "label "))?;
        Ok(Format { row_type: Some(type_name), ..format })
    }

    /// Parses a template that has no name and is applied to what may be anything.
    pub fn parse(source: &str) -> Result<Format, FormatError> {
        Format::parse_for(source, "", &[])
    }

    /// Parses a template of a name, for structs whose Go types are known: mistakes are told by them.
    pub fn parse_for(source: &str, name: &'static str, types: Types) -> Result<Format, FormatError> {
        let mut template = Template::default();
        for (name, function) in FUNCTIONS {
            template.add_func(name, *function);
        }
        let refused = |reason: String| FormatError::Parse { name, reason };
        template.parse(source).map_err(|err| refused(parse_reason(&err.to_string())))?;
        Ok(Format { template, source: source.to_owned(), name, types, row_type: None })
    }

    /// Applies it. Fields have the names of JSON and those of Docker's Go structs, which differ in case alone: `Id`, `ID`.
    pub fn apply(&self, value: &Value) -> Result<String, FormatError> {
        if let Some(text) = go_struct::named(&self.source, value) {
            return Ok(text);
        }
        let context = Context::from(dynamic(value, "", true));
        let rendered = self.template.render(&context).map_err(|err| self.explain(&TemplateError::from(err)));
        let Err(FormatError::Execute { reason, .. }) = &rendered else { return rendered };
        let (Mismatch::NoKey(missing) | Mismatch::NoField { field: missing, .. }) = reason else { return rendered };
        let mut named = value.clone();
        if name_anew(&mut named, "", missing) { self.apply(&named) } else { rendered }
    }

    /// Applies it to a row of a listing.
    pub fn apply_row(
        &self,
        row: &Map<String, Value>,
        labels: &BTreeMap<String, String>,
    ) -> Result<String, FormatError> {
        ROW.set(CurrentRow { labels: labels.clone(), head: false });
        let fields = row.iter().map(|(name, field)| (name.clone(), dynamic(field, name, false)));
        let text = self.template.render(&Context::from(Dynamic::Object(fields.collect())));
        ROW.take();
        text.map_err(|err| self.explain(&TemplateError::from(err)))
    }

    /// Applies it to the titles of a listing's columns, which functions leave as they are. As in Docker, no mistake is
    /// one here: what has no title is `<no value>`.
    pub fn apply_head(&self, titles: &[(&str, &str)]) -> String {
        ROW.set(CurrentRow { labels: BTreeMap::new(), head: true });
        let fields = titles.iter().map(|(field, title)| ((*field).to_owned(), Dynamic::String((*title).to_owned())));
        let text = self.template.render(&Context::from(Dynamic::Map(fields.collect())));
        ROW.take();
        text.unwrap_or_default()
    }

    fn explain(&self, err: &TemplateError) -> FormatError {
        let text = err.to_string();
        // `template: NAME:LINE:COLUMN:LENGTH:message`
        let mut numbers = text.split(':').filter_map(|part| part.trim().parse::<usize>().ok());
        let line = numbers.next().unwrap_or(1);
        let column = numbers.next().unwrap_or(1).saturating_sub(1);
        let length = numbers.next().unwrap_or(0);
        let source = self.source.lines().nth(line.saturating_sub(1)).unwrap_or("");
        let construct = source.get(column..column + length).unwrap_or("").to_owned();
        // gtmpl-ng: only maps and objects have fields
        let second = construct.match_indices('.').nth(1).map(|(at, _)| at);
        if let (Some(_), Some(at), true) = (self.row_type, second, text.ends_with(NO_FIELDS)) {
            let field = construct[at + 1..].split('.').next().unwrap_or("");
            let reason = Mismatch::NoField { field: field.to_owned(), type_name: "string" };
            return FormatError::Execute { name: self.name, line, column: column + at, construct, reason };
        }
        // gtmpl-ng: no field `Foo` in ...
        let Some(missing) = text.split("no field `").nth(1).and_then(|rest| rest.split('`').next()) else {
            let reason = function_refusal(text.rsplit(": ").next().unwrap_or("").trim());
            return FormatError::Execute { name: self.name, line, column, construct, reason };
        };
        // Go points at the dot before the last field of the chain, whichever is missing.
        let last = construct.rfind('.').unwrap_or(0);
        let (column, path) = (column + last, construct[..last].trim_start_matches('.'));
        let known = self.types.iter().find(|(known, _)| *known == path).map(|(_, type_name)| *type_name);
        let reason = match known.or(self.row_type) {
            Some(type_name) => Mismatch::NoField { field: missing.to_owned(), type_name },
            None => Mismatch::NoKey(missing.to_owned()),
        };
        FormatError::Execute { name: self.name, line, column, construct, reason }
    }
}

/// Gives fields that differ from `name` in case alone that name, too; whether there were any.
fn name_anew(value: &mut Value, field: &str, name: &str) -> bool {
    match value {
        Value::Array(items) => items.iter_mut().fold(false, |any, item| name_anew(item, field, name) | any),
        Value::Object(fields) if field == "Config" || !MAPS.contains(&field) => {
            let mut any = fields.iter_mut().fold(false, |any, (key, value)| name_anew(value, key, name) | any);
            let alike = fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone());
            if let Some(alike) = alike.filter(|_| !fields.contains_key(name) && name.starts_with(char::is_uppercase)) {
                fields.insert(name.to_owned(), alike);
                any = true;
            }
            any
        }
        _ => false,
    }
}

/// Go's words for what the engine says, behind its own `:LINE:COLUMN:LENGTH:`.
fn function_refusal(text: &str) -> Mismatch {
    let reason = text.trim_start_matches(|c: char| c == ':' || c.is_ascii_digit());
    match reason.strip_prefix("unable to get ").and_then(|rest| rest.split(" in [").next()) {
        Some(index) => Mismatch::Function(format!("error calling index: index out of range: {index}")),
        None => Mismatch::Function(reason.to_owned()),
    }
}

fn parse_reason(text: &str) -> String {
    let reason = text.rsplit(':').next().unwrap_or(text).trim();
    // Go says the same without the parser's state around it.
    if reason.contains("unclosed action") {
        return "unclosed action".to_owned();
    }
    if reason == "unexpected } in operand" {
        return "bad character U+007D '}'".to_owned();
    }
    match reason.strip_prefix("function ").and_then(|rest| rest.strip_suffix(" not defined")) {
        Some(function) => format!("function {function:?} not defined"),
        None => reason.to_owned(),
    }
}

/// The engine's form of a JSON value, and the order of its keys remembered.
fn dynamic(value: &Value, name: &str, top: bool) -> Dynamic {
    match value {
        Value::Null => Dynamic::Nil,
        Value::Bool(value) => Dynamic::Bool(*value),
        Value::String(text) => Dynamic::String(text.clone()),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Dynamic::from(number),
            (None, Some(number)) => Dynamic::from(number),
            _ => Dynamic::from(number.as_f64().unwrap_or_default()),
        },
        Value::Array(elements) => Dynamic::Array(elements.iter().map(|element| dynamic(element, "", false)).collect()),
        Value::Object(members) => {
            remember_order(members);
            let fields = members.iter().map(|(key, member)| (key.clone(), dynamic(member, key, false))).collect();
            // `Config` is a struct at the top and a map in LogConfig; a struct has many fields, all capitalized.
            let is_map =
                !top && MAPS.contains(&name) && !members.contains_key("Hostname") && !members.contains_key("Cmd");
            if is_map { Dynamic::Map(fields) } else { Dynamic::Object(fields) }
        }
    }
}

fn remember_order(members: &Map<String, Value>) {
    let order: Vec<String> = members.keys().cloned().collect();
    let mut sorted = order.clone();
    sorted.sort();
    if sorted != order {
        ORDERS.with_borrow_mut(|orders| orders.insert(sorted, order));
    }
}

/// A function of templates, as the engine wants it.
type Function = fn(&[Dynamic]) -> Result<Dynamic, FuncError>;

const FUNCTIONS: &[(&str, Function)] = &[
    ("json", json),
    ("split", split),
    ("join", join),
    ("title", |values| text_function(values, title)),
    ("lower", |values| text_function(values, |text| text.to_lowercase())),
    ("upper", |values| text_function(values, |text| text.to_uppercase())),
    ("pad", pad),
    ("truncate", truncate),
    ("println", println),
    ("label", label),
];

fn text(values: &[Dynamic], at: usize, function: &str) -> Result<String, FuncError> {
    match values.get(at) {
        Some(Dynamic::String(text)) => Ok(text.clone()),
        Some(other) => Ok(other.to_string()),
        None => Err(FuncError::ExactlyXArgs(function.to_owned(), at + 1)),
    }
}

fn number(values: &[Dynamic], at: usize, function: &str) -> Result<usize, FuncError> {
    match values.get(at) {
        Some(Dynamic::Number(number)) => Ok(number.as_u64().unwrap_or(0) as usize),
        _ => Err(FuncError::ExactlyXArgs(function.to_owned(), at + 1)),
    }
}

fn text_function(values: &[Dynamic], change: impl Fn(&str) -> String) -> Result<Dynamic, FuncError> {
    if is_head() {
        return Ok(values.first().cloned().unwrap_or(Dynamic::Nil));
    }
    Ok(Dynamic::String(change(&text(values, 0, "text")?)))
}

/// Titles of columns are left as they are.
fn is_head() -> bool {
    ROW.with_borrow(|row| row.head)
}

/// `{{.Label "name"}}`: the value, or the title made of the name's last part.
fn label(values: &[Dynamic]) -> Result<Dynamic, FuncError> {
    let name = text(values, values.len().saturating_sub(1), "Label")?;
    Ok(Dynamic::String(ROW.with_borrow(|row| match row.head {
        true => name.rsplit('.').next().unwrap_or("").replace(['-', '_'], " "),
        false => row.labels.get(&name).cloned().unwrap_or_default(),
    })))
}

fn title(text: &str) -> String {
    let mut start = true;
    let upper = |c: char, start: bool| if start { c.to_uppercase().next().unwrap_or(c) } else { c };
    text.chars()
        .map(|c| {
            let changed = upper(c, start);
            start = !(c.is_alphanumeric() || c == '_' || c == '\'');
            changed
        })
        .collect()
}

fn split(values: &[Dynamic]) -> Result<Dynamic, FuncError> {
    if is_head() {
        return Ok(values.first().cloned().unwrap_or(Dynamic::Nil));
    }
    let (text, separator) = (text(values, 0, "split")?, text(values, 1, "split")?);
    let parts: Vec<String> = match separator.is_empty() {
        true => text.chars().map(String::from).collect(),
        false => text.split(&separator).map(str::to_owned).collect(),
    };
    Ok(Dynamic::from(parts))
}

fn join(values: &[Dynamic]) -> Result<Dynamic, FuncError> {
    if is_head() {
        return Ok(values.first().cloned().unwrap_or(Dynamic::Nil));
    }
    let separator = text(values, 1, "join")?;
    match values.first() {
        Some(Dynamic::Array(elements)) => {
            let parts: Vec<String> = elements.iter().map(ToString::to_string).collect();
            Ok(Dynamic::String(parts.join(&separator)))
        }
        Some(Dynamic::Nil | Dynamic::NoValue) => Ok(Dynamic::String(String::new())),
        _ => Err(FuncError::UnableToConvertFromValue),
    }
}

fn pad(values: &[Dynamic]) -> Result<Dynamic, FuncError> {
    let (text, before, after) = (text(values, 0, "pad")?, number(values, 1, "pad")?, number(values, 2, "pad")?);
    let padded = if text.is_empty() { text } else { format!("{:before$}{text}{:after$}", "", "") };
    Ok(Dynamic::String(padded))
}

fn truncate(values: &[Dynamic]) -> Result<Dynamic, FuncError> {
    if is_head() {
        return Ok(values.first().cloned().unwrap_or(Dynamic::Nil));
    }
    let (text, length) = (text(values, 0, "truncate")?, number(values, 1, "truncate")?);
    Ok(Dynamic::String(text.chars().take(length).collect()))
}

fn println(values: &[Dynamic]) -> Result<Dynamic, FuncError> {
    let parts: Vec<String> = values.iter().map(ToString::to_string).collect();
    Ok(Dynamic::String(format!("{}\n", parts.join(" "))))
}

fn json(values: &[Dynamic]) -> Result<Dynamic, FuncError> {
    if is_head() {
        return Ok(values.first().cloned().unwrap_or(Dynamic::Nil));
    }
    let value = values.first().ok_or_else(|| FuncError::ExactlyXArgs("json".to_owned(), 1))?;
    Ok(Dynamic::String(to_json(value).to_string()))
}

fn to_json(value: &Dynamic) -> Value {
    match value {
        Dynamic::NoValue | Dynamic::Nil | Dynamic::Function(_) => Value::Null,
        Dynamic::Bool(value) => Value::Bool(*value),
        Dynamic::String(text) => Value::String(text.clone()),
        Dynamic::Number(number) => match number.kind() {
            NumberKind::Float(number) => Value::from(number),
            NumberKind::Unsigned(number) => Value::from(number),
            NumberKind::Signed(number) => Value::from(number),
        },
        Dynamic::Array(elements) => elements.iter().map(to_json).collect(),
        Dynamic::Object(fields) | Dynamic::Map(fields) => {
            let mut keys: Vec<String> = fields.keys().cloned().collect();
            keys.sort();
            let order = ORDERS.with_borrow(|orders| orders.get(&keys).cloned()).unwrap_or(keys);
            let members = order.into_iter().filter_map(|key| fields.get(&key).map(|field| (key, to_json(field))));
            Value::Object(members.collect())
        }
    }
}

#[cfg(test)]
mod tests;
