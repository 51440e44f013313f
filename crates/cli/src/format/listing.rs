//! Lists: tables by default, templates and JSON on demand.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::tabwriter;
use super::template::{Format, FormatError};
use crate::report::Exit;

/// Rows of named texts, and the titles of their columns.
#[derive(Debug)]
pub struct Listing {
    /// Field and title, for all fields that a template may name.
    pub titles: &'static [(&'static str, &'static str)],
    /// The rows.
    pub rows: Vec<Row>,
    /// Go's name of the row's type, for its sentence about unknown fields.
    pub type_name: &'static str,
}

/// A row.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Its fields by name, in the order of JSON. No map: a table of hundreds of rows asks each once.
    pub fields: Vec<(&'static str, Value)>,
    /// What `{{.Label "name"}}` finds.
    pub labels: BTreeMap<String, String>,
}

impl Row {
    /// A row without labels.
    pub fn of<const N: usize>(fields: [(&'static str, String); N]) -> Row {
        let fields = fields.into_iter().map(|(name, text)| (name, Value::String(text)));
        Row { fields: fields.collect(), labels: BTreeMap::new() }
    }

    /// A field's text; empty if there is no such field, or it is no text.
    fn text(&self, field: &str) -> &str {
        self.fields.iter().find(|(name, _)| *name == field).and_then(|(_, value)| value.as_str()).unwrap_or("")
    }

    fn object(&self) -> Map<String, Value> {
        self.fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    /// As Go's encoder prints it, which escapes what HTML would take for markup.
    fn json(&self) -> String {
        let text = Value::Object(self.object()).to_string();
        text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
    }
}

/// What is printed of a listing.
#[derive(Clone, Debug)]
pub enum Shape {
    /// These columns.
    Table(Vec<&'static str>),
    /// A template, under a line of titles.
    TableTemplate(String),
    /// A template.
    Template(String),
}

impl Shape {
    /// Reads `--format`; `columns` are the default table's.
    pub fn parse(format: &str, quiet: bool, columns: Vec<&'static str>) -> Shape {
        let unescaped = |text: &str| text.trim_matches(' ').replace("\\t", "\t").replace("\\n", "\n");
        match format {
            _ if quiet => Shape::Template("{{.ID}}".to_owned()),
            "" | "table" => Shape::Table(columns),
            "json" => Shape::Template("{{json .}}".to_owned()),
            text => match text.strip_prefix("table") {
                Some(template) => Shape::TableTemplate(unescaped(template)),
                None => Shape::Template(unescaped(text)),
            },
        }
    }

    /// Whether it shows a field.
    pub fn shows(&self, field: &str) -> bool {
        match self {
            Shape::Table(columns) => columns.contains(&field),
            Shape::TableTemplate(text) | Shape::Template(text) => text.contains(&format!(".{field}")),
        }
    }
}

impl Listing {
    /// The text.
    pub fn render(&self, shape: &Shape) -> Result<String, Exit> {
        match shape {
            Shape::Table(columns) => Ok(self.table(columns)),
            Shape::Template(text) => self.template(text),
            Shape::TableTemplate(text) => {
                let titles = self.titles.iter().map(|(field, title)| (*field, Value::from(*title)));
                let head = self.apply(text, &Row { fields: titles.collect(), labels: BTreeMap::new() }, true)?;
                Ok(tabwriter::align(&format!("{head}\n{}", self.template(text)?)))
            }
        }
    }

    fn table(&self, columns: &[&'static str]) -> String {
        let title = |field: &str| self.titles.iter().find(|(name, _)| *name == field).map_or("", |(_, title)| title);
        let mut text = columns.iter().map(|field| title(field)).collect::<Vec<_>>().join("\t");
        text.push('\n');
        for row in &self.rows {
            let cells: Vec<&str> = columns.iter().map(|field| row.text(field)).collect();
            text.push_str(&cells.join("\t"));
            text.push('\n');
        }
        tabwriter::align(&text)
    }

    fn template(&self, text: &str) -> Result<String, Exit> {
        let mut out = String::new();
        for row in &self.rows {
            out.push_str(&self.apply(text, row, false)?);
            out.push('\n');
        }
        Ok(out)
    }

    fn apply(&self, text: &str, row: &Row, head: bool) -> Result<String, Exit> {
        // `-q`, of which scripts make many calls, does not need the engine.
        if text == "{{.ID}}" {
            return Ok(row.text("ID").to_owned());
        }
        if text == "{{json .}}" {
            return Ok(row.json());
        }
        let format = Format::parse_row(text).map_err(|err| Exit::new(1, format!("template parsing error: {err}")))?;
        format.apply_row(&row.object(), &row.labels, head).map_err(|err| match err {
            FormatError::Execute { name, line, column, construct, reason }
                if reason.starts_with("map has no entry") =>
            {
                let field = construct.trim_start_matches('.');
                let reason = format!("can't evaluate field {field} in type {}", self.type_name);
                let err = FormatError::Execute { name, line, column, construct: construct.clone(), reason };
                // Docker tries the template of `ps` before it asks the daemon, and says so in other words.
                let of_ps = self.type_name == "*formatter.ContainerContext";
                let step = if of_ps { "failed to execute template" } else { "template parsing error" };
                Exit::new(1, format!("{step}: {err}"))
            }
            err => Exit::new(1, format!("template parsing error: {err}")),
        })
    }
}
