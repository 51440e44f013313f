//! Lists: tables by default, templates and JSON on demand.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::json;
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

    /// A template, filled with the row, whose type in Go is this.
    pub fn apply(&self, format: &Format, type_name: &'static str) -> Result<String, FormatError> {
        let labels = WITH_LABELS.contains(&type_name).then_some(&self.labels);
        format.apply_row(type_name, &self.object(), labels)
    }

    /// Its labels, if rows of this type in Go have `{{.Label "name"}}`.
    pub fn labels_of(&self, type_name: &str) -> Option<BTreeMap<String, String>> {
        WITH_LABELS.contains(&type_name).then(|| self.labels.clone())
    }

    /// Its fields as an object.
    pub fn object(&self) -> Map<String, Value> {
        self.fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    /// As Go's encoder prints it, which escapes what HTML would take for markup.
    pub fn json(&self) -> String {
        json::escaped(&Value::Object(self.object()).to_string())
    }
}

/// Types of rows that have `{{.Label "name"}}`.
const WITH_LABELS: [&str; 3] = ["*formatter.ContainerContext", "*formatter.volumeContext", "*network.networkContext"];

/// What `-q` prints of each row.
const ID_ALONE: &str = "{{.ID}}";

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
            _ if quiet => Shape::Template(ID_ALONE.to_owned()),
            "" | "table" => Shape::Table(columns),
            "json" => Shape::Template("{{json .}}".to_owned()),
            text => match text.strip_prefix("table") {
                Some(template) => Shape::TableTemplate(unescaped(template)),
                None => Shape::Template(unescaped(text)),
            },
        }
    }

    /// The shape of `--format raw` is a template, too: of everything, or of what is left with `quiet`.
    pub fn of_raw(quiet: bool, everything: &str, identity: &str) -> Shape {
        Shape::Template(if quiet { identity } else { everything }.to_owned())
    }

    /// Whether it shows rows as JSON.
    pub fn is_json(&self) -> bool {
        matches!(self, Shape::Template(text) | Shape::TableTemplate(text) if text.contains("json ."))
    }

    /// Whether a field must be there: always, unless it is known which ones are shown.
    pub fn needs(&self, field: &str) -> bool {
        match self {
            Shape::Table(columns) => columns.contains(&field),
            Shape::Template(text) if text == ID_ALONE => field == "ID",
            Shape::TableTemplate(_) | Shape::Template(_) => true,
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
            // `-q`, of which scripts make many calls, does not need the engine.
            Shape::Template(text) if text == ID_ALONE => Ok(self.lines(|row| row.text("ID").to_owned())),
            Shape::Template(text) if text == "{{json .}}" => Ok(self.lines(Row::json)),
            Shape::Template(text) => self.rows(&self.parse(text)?),
            Shape::TableTemplate(text) => {
                let format = self.parse(text)?;
                let rows = self.rows(&format)?;
                Ok(tabwriter::align(&format!("{}\n{rows}", format.apply_head(self.titles))))
            }
        }
    }

    fn table(&self, columns: &[&'static str]) -> String {
        table(self.titles, columns, self.rows.iter().map(|row| columns.iter().map(|field| row.text(field).into())))
    }

    fn lines(&self, line: impl Fn(&Row) -> String) -> String {
        self.rows.iter().map(|row| line(row) + "\n").collect()
    }

    fn parse(&self, text: &str) -> Result<Format, Exit> {
        Format::parse(text).map_err(refused)
    }

    fn rows(&self, format: &Format) -> Result<String, Exit> {
        let mut out = String::new();
        for row in &self.rows {
            out.push_str(&row.apply(format, self.type_name).map_err(refused)?);
            out.push('\n');
        }
        Ok(out)
    }
}

/// A table whose cells are asked for one after another: hundreds of rows of `ps` need not be kept for it.
pub fn table<'a, R>(titles: &[(&str, &str)], columns: &[&str], rows: impl Iterator<Item = R>) -> String
where
    R: Iterator<Item = Cow<'a, str>>,
{
    let title = |field: &&str| titles.iter().find(|(name, _)| name == field).map_or("", |(_, title)| title);
    let mut text = columns.iter().map(title).collect::<Vec<_>>().join("\t");
    text.push('\n');
    for row in rows {
        for (at, cell) in row.enumerate() {
            text.push_str(if at == 0 { "" } else { "\t" });
            text.push_str(&cell);
        }
        text.push('\n');
    }
    tabwriter::align(&text)
}

fn refused(err: FormatError) -> Exit {
    Exit::new(1, format!("template parsing error: {err}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(rows: &[&str], format: &str) -> String {
        let rows = rows.iter().map(|id| Row::of([("ID", (*id).to_owned())])).collect();
        let listing = Listing { titles: &[("ID", "CONTAINER ID")], rows, type_name: "*a.Row" };
        match listing.render(&Shape::parse(format, false, vec!["ID"])) {
            Ok(text) => text,
            Err(exit) => exit.message.unwrap_or_default(),
        }
    }

    #[test]
    fn templates_fill_rows_and_titles() {
        for (format, text) in [
            ("", "CONTAINER ID\na\nb\n"),
            ("{{.ID}}", "a\nb\n"),
            ("{{.ID}}!", "a!\nb!\n"),
            ("json", "{\"ID\":\"a\"}\n{\"ID\":\"b\"}\n"),
            ("table {{.ID}}", "CONTAINER ID\na\nb\n"),
        ] {
            assert_eq!(render(&["a", "b"], format), text, "{format}");
        }
    }

    #[test]
    fn mistakes_are_dockers() {
        let unknown =
            "template parsing error: template: :1:2: executing \"\" at <.No>: can't evaluate field No in type *a.Row";
        let of_text =
            "template parsing error: template: :1:5: executing \"\" at <.ID.X>: can't evaluate field X in type string";
        for (rows, format, text) in [
            (&["a"][..], "{{.No}}", unknown),
            (&["a"], "table {{.No}}", unknown),
            (&["a"], "{{.ID.X}}", of_text),
            (&[], "{{.No}}", ""),
            (&[], "table {{.No}}", "<no value>\n"),
            (&[], "{{", "template parsing error: template: :1: unclosed action"),
        ] {
            assert_eq!(render(rows, format), text, "{format}");
        }
    }
}
