//! What templates can call: Go's functions and Docker's.

use std::cmp::Ordering;
use std::rc::Rc;

use super::printing;
use super::types;
use super::value::{Data, Value};
use crate::format::json as printed;

/// What a function takes at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parameter {
    Any,
    Text,
    Texts,
    Number,
}

impl Parameter {
    pub(super) fn type_name(self) -> &'static str {
        match self {
            Parameter::Any => "interface {}",
            Parameter::Text => "string",
            Parameter::Texts => "[]string",
            Parameter::Number => "int",
        }
    }
}

/// What a function takes.
pub(super) struct Signature {
    pub(super) fixed: &'static [Parameter],
    /// Any number more of this.
    pub(super) rest: Option<Parameter>,
}

const NAMES: [&str; 27] = [
    "and", "call", "html", "index", "slice", "js", "len", "not", "or", "print", "printf", "println", "urlquery", "eq",
    "ge", "gt", "le", "lt", "ne", "json", "split", "join", "title", "lower", "upper", "pad", "truncate",
];

/// Whether there is such a function.
pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

/// What it takes; in the titles of columns, some take other things.
pub(super) fn signature(name: &str, is_head: bool) -> Signature {
    use Parameter::{Any, Number, Text, Texts};
    let (fixed, rest): (&[Parameter], _) = match name {
        "print" | "println" | "html" | "js" | "urlquery" => (&[], Some(Any)),
        "printf" => (&[Text], Some(Any)),
        "and" | "or" | "call" | "index" | "slice" | "eq" => (&[Any], Some(Any)),
        "ge" | "gt" | "le" | "lt" | "ne" => (&[Any, Any], None),
        "split" => (&[Text, Text], None),
        // What is split stays whole there.
        "join" if is_head => (&[Text, Text], None),
        "join" => (&[Texts, Text], None),
        "title" | "lower" | "upper" => (&[Text], None),
        "json" if is_head => (&[Text], None),
        "pad" => (&[Text, Number, Number], None),
        "truncate" => (&[Text, Number], None),
        _ => (&[Any], None),
    };
    Signature { fixed, rest }
}

/// Calls it; a refusal is Go's sentence. In the titles of columns, Docker's own functions leave them as they are.
pub(super) fn call(name: &str, values: &[Value], is_head: bool, first_word: &str) -> Result<Value, String> {
    if is_head && matches!(name, "json" | "split" | "join" | "title" | "lower" | "upper" | "truncate") {
        return Ok(values[0].clone());
    }
    let text = |at: usize| printing::plain(&values[at]);
    let number = |at: usize| match values[at].data {
        Data::Int(number) => number,
        _ => 0,
    };
    match name {
        "json" => Ok(Value::string(&json(&values[0]))),
        "split" => Ok(split(&text(0), &text(1))),
        "join" => Ok(Value::string(&join(&values[0], &text(1)))),
        "title" => Ok(Value::string(&title(&text(0)))),
        "lower" => Ok(Value::string(&text(0).to_lowercase())),
        "upper" => Ok(Value::string(&text(0).to_uppercase())),
        "pad" => pad(&text(0), number(1), number(2)),
        "truncate" => truncate(&text(0), number(1)),
        "print" => Ok(Value::string(&printing::print(values))),
        "println" => {
            let parts: Vec<String> = values.iter().map(printing::plain).collect();
            Ok(Value::string(&format!("{}\n", parts.join(" "))))
        }
        "printf" => Ok(Value::string(&printing::printf(&text(0), &values[1..]))),
        "html" | "js" | "urlquery" => Ok(Value::string(&escaped(name, &printing::print(values)))),
        "index" => index(&values[0], &values[1..]),
        "slice" => slice(&values[0], &values[1..]),
        "len" => length(&values[0]),
        "not" => Ok(Value::bool(!values[0].truth())),
        "call" => Err(not_callable(&values[0], first_word)),
        "eq" => equal_any(&values[0], &values[1..]).map(Value::bool),
        "ne" => equal(&values[0], &values[1]).map(|equal| Value::bool(!equal)),
        "lt" => less(&values[0], &values[1]).map(Value::bool),
        "le" => Ok(Value::bool(less(&values[0], &values[1])? || equal(&values[0], &values[1])?)),
        "gt" => Ok(Value::bool(!(less(&values[0], &values[1])? || equal(&values[0], &values[1])?))),
        _ => less(&values[0], &values[1]).map(|less| Value::bool(!less)),
    }
}

fn not_callable(value: &Value, word: &str) -> String {
    match value.is_nothing() {
        true => "call of nil".to_owned(),
        false => format!("non-function {word} of type {}", value.type_name),
    }
}

/// Rows of listings are escaped, as Go's encoder does by itself, also in lists; other things are not.
fn json(value: &Value) -> String {
    let text = value.json().to_string();
    let is_row = |value: &Value| matches!(value.data, Data::Row(_));
    match &value.data {
        Data::Row(_) => printed::escaped(&text),
        Data::List(Some(items)) if items.iter().any(is_row) => printed::escaped(&text),
        _ => text,
    }
}

fn split(text: &str, separator: &str) -> Value {
    match separator.is_empty() {
        true => {
            let letters: Vec<String> = text.chars().map(String::from).collect();
            Value::strings(letters.iter().map(String::as_str))
        }
        false => Value::strings(text.split(separator)),
    }
}

fn join(texts: &Value, separator: &str) -> String {
    match &texts.data {
        Data::List(Some(items)) => items.iter().map(printing::plain).collect::<Vec<_>>().join(separator),
        _ => String::new(),
    }
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

fn pad(text: &str, before: i64, after: i64) -> Result<Value, String> {
    let blanks = |count: i64| usize::try_from(count).map(|count| " ".repeat(count.min(1_000_000)));
    match (text, blanks(before), blanks(after)) {
        ("", ..) => Ok(Value::string("")),
        (_, Ok(before), Ok(after)) => Ok(Value::string(&format!("{before}{text}{after}"))),
        _ => Err("strings: negative Repeat count".to_owned()),
    }
}

/// By bytes, as Docker does.
fn truncate(text: &str, length: i64) -> Result<Value, String> {
    let Ok(length) = usize::try_from(length) else {
        return Err(format!("runtime error: slice bounds out of range [:{length}]"));
    };
    let bytes = text.as_bytes().get(..length).unwrap_or(text.as_bytes());
    Ok(Value::string(&String::from_utf8_lossy(bytes)))
}

fn escaped(name: &str, text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match (name, c) {
            ("html", '"') => out.push_str("&#34;"),
            ("html", '\'') => out.push_str("&#39;"),
            ("html", '&') => out.push_str("&amp;"),
            ("html", '<') => out.push_str("&lt;"),
            ("html", '>') => out.push_str("&gt;"),
            ("js", '\\' | '\'' | '"') => out.extend(['\\', c]),
            ("js", '<' | '>' | '&' | '=') => out.push_str(&format!("\\u{:04X}", c as u32)),
            ("js", c) if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04X}", c as u32)),
            ("urlquery", ' ') => out.push('+'),
            ("urlquery", c) if !(c.is_ascii_alphanumeric() || "-_.~".contains(c)) => {
                c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| out.push_str(&format!("%{byte:02X}")));
            }
            _ => out.push(c),
        }
    }
    out
}

/// A whole number that stands for a place.
fn place(index: &Value, most: usize) -> Result<usize, String> {
    let number = match &index.data {
        Data::Int(number) => *number,
        Data::Uint(number) => i64::try_from(*number).unwrap_or(i64::MAX),
        Data::Nothing => return Err("cannot index slice/array with nil".to_owned()),
        _ => return Err(format!("cannot index slice/array with type {}", index.type_name)),
    };
    usize::try_from(number).ok().filter(|at| *at <= most).ok_or_else(|| format!("index out of range: {number}"))
}

fn index(item: &Value, indexes: &[Value]) -> Result<Value, String> {
    if item.is_nothing() {
        return Err("index of untyped nil".to_owned());
    }
    let mut item = item.clone();
    for index in indexes {
        item = indexed(item.pointee(), index)?;
    }
    Ok(item)
}

fn indexed(item: &Value, index: &Value) -> Result<Value, String> {
    let past = |kind: &str| format!("reflect: {kind} index out of range");
    match &item.data {
        Data::Nothing | Data::Nil => Err("index of nil pointer".to_owned()),
        Data::List(items) => {
            let items = items.as_deref().map_or(&[][..], Vec::as_slice);
            items.get(place(index, items.len())?).cloned().ok_or_else(|| past("slice"))
        }
        Data::String(text) => match text.as_bytes().get(place(index, text.len())?) {
            Some(byte) => Ok(Value { type_name: "uint8", ..Value::int(i64::from(*byte)) }),
            None => Err(past("string")),
        },
        Data::Map(members) => {
            let key = types::key_of(item.type_name);
            match &index.data {
                Data::String(name) if index.type_name == key => {
                    let found = members.as_ref().and_then(|members| members.get(&**name));
                    Ok(found.cloned().unwrap_or_else(|| types::zero_element(item.type_name)))
                }
                Data::Nothing => Err(format!("value is nil; should be of type {key}")),
                _ => Err(format!("value has type {}; should be {key}", index.type_name)),
            }
        }
        _ => Err(format!("can't index item of type {}", item.type_name)),
    }
}

fn slice(item: &Value, indexes: &[Value]) -> Result<Value, String> {
    if item.is_nothing() {
        return Err("slice of untyped nil".to_owned());
    }
    if indexes.len() > 3 {
        return Err(format!("too many slice indexes: {}", indexes.len()));
    }
    let most = match &item.data {
        Data::String(_) if indexes.len() == 3 => return Err("cannot 3-index slice a string".to_owned()),
        Data::String(text) => text.len(),
        Data::List(items) => items.as_ref().map_or(0, |items| items.len()),
        _ => return Err(format!("can't slice item of type {}", item.type_name)),
    };
    let mut places = indexes.iter().map(|index| place(index, most)).collect::<Result<Vec<_>, _>>()?;
    places.truncate(2);
    let from = places.first().copied().unwrap_or(0);
    let to = places.get(1).copied().unwrap_or(most);
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    Ok(match &item.data {
        Data::String(text) => {
            let cut = String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned();
            Value { type_name: item.type_name, ..Value::string(&cut) }
        }
        Data::List(Some(items)) => Value { data: Data::List(Some(Rc::new(items[from..to].to_vec()))), ..item.clone() },
        _ => item.clone(),
    })
}

fn length(item: &Value) -> Result<Value, String> {
    let item = item.pointee();
    Ok(Value::int(match &item.data {
        Data::Nothing | Data::Nil => return Err("len of nil pointer".to_owned()),
        Data::String(text) => text.len(),
        Data::List(items) => items.as_ref().map_or(0, |items| items.len()),
        Data::Map(members) => members.as_ref().map_or(0, |members| members.len()),
        // Go looks behind pointers first.
        _ => return Err(format!("len of type {}", item.type_name.trim_start_matches('*'))),
    } as i64))
}

/// A value as comparisons see it.
enum Basic<'a> {
    Bool(bool),
    Whole(i128),
    Float(f64),
    Text(&'a str),
}

fn basic(value: &Value) -> Option<Basic<'_>> {
    match &value.data {
        Data::Bool(flag) => Some(Basic::Bool(*flag)),
        Data::Int(number) | Data::Duration(number) => Some(Basic::Whole(i128::from(*number))),
        Data::Uint(number) => Some(Basic::Whole(i128::from(*number))),
        Data::Float(number) => Some(Basic::Float(*number)),
        Data::String(text) => Some(Basic::Text(text)),
        _ => None,
    }
}

const INCOMPATIBLE: &str = "incompatible types for comparison";

fn equal_any(first: &Value, others: &[Value]) -> Result<bool, String> {
    if others.is_empty() {
        return Err("missing argument for comparison".to_owned());
    }
    for other in others {
        if equal(first, other)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn equal(first: &Value, other: &Value) -> Result<bool, String> {
    match (basic(first), basic(other)) {
        (Some(Basic::Bool(first)), Some(Basic::Bool(other))) => Ok(first == other),
        (Some(Basic::Whole(first)), Some(Basic::Whole(other))) => Ok(first == other),
        (Some(Basic::Float(first)), Some(Basic::Float(other))) => Ok(first == other),
        (Some(Basic::Text(first)), Some(Basic::Text(other))) => Ok(first == other),
        (None, None) => composed(first, other),
        _ if first.is_nothing() || other.is_nothing() => Ok(false),
        _ => Err(INCOMPATIBLE.to_owned()),
    }
}

/// Of what is no simple value: only nothing can be compared with it.
fn composed(first: &Value, other: &Value) -> Result<bool, String> {
    let is_nil = |value: &Value| matches!(value.data, Data::Nothing | Data::Nil | Data::List(None) | Data::Map(None));
    if is_nil(first) || is_nil(other) {
        return Ok(is_nil(first) == is_nil(other));
    }
    let shown = |value: &Value| format!("{}: {}", value.type_name, printing::plain(value));
    if first.type_name != other.type_name {
        return Err(format!("non-comparable types {}, {}", shown(first), shown(other)));
    }
    match &first.data {
        Data::List(_) | Data::Map(_) => Err(format!("non-comparable type {}", shown(first))),
        _ => Ok(first.json() == other.json()),
    }
}

fn less(first: &Value, other: &Value) -> Result<bool, String> {
    let is_less = |order: Option<Ordering>| order == Some(Ordering::Less);
    match (basic(first), basic(other)) {
        (Some(Basic::Whole(first)), Some(Basic::Whole(other))) => Ok(first < other),
        (Some(Basic::Float(first)), Some(Basic::Float(other))) => Ok(is_less(first.partial_cmp(&other))),
        (Some(Basic::Text(first)), Some(Basic::Text(other))) => Ok(first < other),
        (Some(Basic::Bool(_)), Some(Basic::Bool(_))) | (None, _) | (_, None) => {
            Err("invalid type for comparison".to_owned())
        }
        _ => Err(INCOMPATIBLE.to_owned()),
    }
}
