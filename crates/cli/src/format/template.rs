//! Go templates, with Docker's functions: an own engine, because every other one lacks Go's types, and with them the
//! texts of structs and the sentences about mistakes that scripts and people know.
//!
//! ```text
//! text --lexer, parse--> tree (node) --exec--> text
//!                                      ^ value: the daemon's JSON with Go's types (types, types.txt), or without
//!                                        functions, printing: what templates call, and how values read
//! ```

mod exec;
mod functions;
mod lexer;
mod node;
mod parse;
mod printing;
mod types;
mod value;

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::listing;
use value::{Row, Value};

/// A template that does not parse, or does not fit what it is applied to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It does not parse.
    #[error("template: {name}:{line}: {reason}")]
    Parse {
        /// The template's name.
        name: &'static str,
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// It does not fit.
    #[error("template: {parsed_as}:{line}:{column}: executing {name:?} at <{construct}>: {reason}")]
    Execute {
        /// The name of the whole.
        parsed_as: &'static str,
        /// The template's name.
        name: Box<str>,
        /// From 1.
        line: usize,
        /// From 0, as Go counts.
        column: usize,
        /// The part of the template.
        construct: Box<str>,
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
    /// A struct has no such field.
    #[error("can't evaluate field {field} in type {type_name}")]
    NoField {
        /// The field.
        field: String,
        /// Go's name of the type.
        type_name: String,
    },
    /// What a step of the template refuses.
    #[error("{0}")]
    Refused(String),
}

impl FormatError {
    /// Whether a field is named that a struct does not have.
    pub fn is_missing_field(&self) -> bool {
        matches!(self, FormatError::Execute { reason: Mismatch::NoField { .. }, .. })
    }
}

/// A parsed template.
#[derive(Debug)]
pub struct Format {
    tree: parse::Tree,
    source: String,
    name: &'static str,
}

impl Format {
    /// Parses a template that has no name.
    pub fn parse(source: &str) -> Result<Format, FormatError> {
        Format::parse_as(source, "")
    }

    /// Parses a template of a name.
    pub fn parse_as(source: &str, name: &'static str) -> Result<Format, FormatError> {
        let refused = |refusal: parse::Refusal| FormatError::Parse { name, line: refusal.line, reason: refusal.reason };
        Ok(Format { tree: parse::parse(source, name).map_err(refused)?, source: source.to_owned(), name })
    }

    /// Applies it to what is of this type in Go.
    pub fn apply(&self, type_name: &'static str, json: &Json) -> Result<String, FormatError> {
        self.run(Value::typed(type_name, Some(json)), false)
    }

    /// The same; of a template that does not fit, what was written before the mistake.
    pub fn apply_in_part(&self, type_name: &'static str, json: &Json) -> (String, Result<(), FormatError>) {
        exec::apply(self, Value::typed(type_name, Some(json)), false)
    }

    /// The same; if the type does not have what is asked for, to what the daemon answered, where a missing key is a
    /// mistake.
    pub fn apply_or_raw(&self, type_name: &'static str, json: &Json) -> Result<String, FormatError> {
        self.apply(type_name, json).or_else(|_| self.run(Value::raw(json), true))
    }

    /// Applies it to fields that have a type's name for sentences about it, and are of any kind.
    pub fn apply_fields(&self, type_name: &'static str, fields: &Map<String, Json>) -> Result<String, FormatError> {
        self.run(Value::row(row(fields, None, false), type_name), false)
    }

    /// Applies it to a row of a listing; `labels` for one that has `{{.Label "name"}}`.
    pub fn apply_row(
        &self,
        type_name: &'static str,
        fields: &Map<String, Json>,
        labels: Option<&BTreeMap<String, String>>,
    ) -> Result<String, FormatError> {
        self.run(Value::row(row(fields, labels.cloned(), false), type_name), false)
    }

    /// Applies it to lists of rows, each with its name and its rows' type in Go.
    pub fn apply_lists(
        &self,
        type_name: &'static str,
        lists: &[(&str, &'static str, &[listing::Row])],
    ) -> Result<String, FormatError> {
        let one =
            |own: &listing::Row, type_name| Value::row(row(&own.object(), own.labels_of(type_name), false), type_name);
        let list = |(name, type_name, rows): &(&str, &'static str, &[listing::Row])| {
            let rows = rows.iter().map(|own| one(own, type_name)).collect();
            ((*name).to_owned(), Value::list(rows, "[]interface {}"))
        };
        let columns = lists.iter().map(list).collect();
        self.run(Value::row(Row { columns, labels: None, is_head: false }, type_name), false)
    }

    /// Applies it to the titles of a listing's columns, which Docker's functions leave as they are. As in Docker, no
    /// mistake is one here: what has no title is `<no value>`, and what was written before a mistake stays.
    pub fn apply_head(&self, titles: &[(&str, &str)]) -> String {
        let mut columns: Vec<_> =
            titles.iter().map(|(field, title)| ((*field).to_owned(), Value::string(title))).collect();
        // Titles are a map in Go, which prints in the order of names.
        columns.sort_by(|(a, _), (b, _)| a.cmp(b));
        let head = Row { columns, labels: Some(BTreeMap::new()), is_head: true };
        exec::apply(self, Value::row(head, "formatter.SubHeaderContext"), false).0
    }

    fn run(&self, value: Value, strict: bool) -> Result<String, FormatError> {
        let (text, done) = exec::apply(self, value, strict);
        done.map(|()| text)
    }
}

fn row(fields: &Map<String, Json>, labels: Option<BTreeMap<String, String>>, is_head: bool) -> Row {
    let column = |json: &Json| match json {
        // A pointer to nothing, which prints as such.
        Json::Null => Value::typed("*v1.Platform", None),
        json => Value { boxed: false, ..Value::raw(json) },
    };
    Row { columns: fields.iter().map(|(name, field)| (name.clone(), column(field))).collect(), labels, is_head }
}

#[cfg(test)]
mod tests;
