//! What templates work on: values with Go's types, because their texts and mistakes depend on them.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::{Map, Value as Json};

use super::types::{self, Field};

/// A value, and Go's name of its type.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) data: Data,
    pub(super) type_name: &'static str,
    /// It came out of an `interface {}`, which sentences about its fields tell.
    pub(super) boxed: bool,
}

/// What it is.
#[derive(Clone, Debug)]
pub(super) enum Data {
    /// Nothing: a missing key, or an interface that holds nothing.
    Nothing,
    /// A pointer to nothing.
    Nil,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    String(Rc<str>),
    /// Nothing for one that is nil.
    List(Option<Rc<Vec<Value>>>),
    /// Nothing for one that is nil.
    Map(Option<Rc<BTreeMap<String, Value>>>),
    Struct(Rc<Struct>),
    Pointer(Rc<Value>),
    /// A row of a listing.
    Row(Rc<Row>),
    /// Of a day, as JSON has it.
    Time(Rc<str>),
    /// In nanoseconds.
    Duration(i64),
}

/// Fields in the order of their type's definition.
#[derive(Debug)]
pub(super) struct Struct {
    pub(super) fields: &'static [Field],
    pub(super) values: Vec<Value>,
}

/// A row, whose columns are methods in Go.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) columns: Vec<(String, Value)>,
    /// For those that have `.Label "name"`.
    pub(super) labels: Option<BTreeMap<String, String>>,
    /// It holds the titles of columns.
    pub(super) is_head: bool,
}

impl Value {
    const fn of(data: Data, type_name: &'static str) -> Value {
        Value { data, type_name, boxed: false }
    }

    pub(super) fn nothing() -> Value {
        Value::of(Data::Nothing, "<nil>")
    }

    pub(super) fn bool(value: bool) -> Value {
        Value::of(Data::Bool(value), "bool")
    }

    pub(super) fn int(value: i64) -> Value {
        Value::of(Data::Int(value), "int")
    }

    pub(super) fn float(value: f64) -> Value {
        Value::of(Data::Float(value), "float64")
    }

    pub(super) fn string(text: &str) -> Value {
        Value::of(Data::String(text.into()), "string")
    }

    pub(super) fn strings<'a>(texts: impl Iterator<Item = &'a str>) -> Value {
        Value::of(Data::List(Some(Rc::new(texts.map(Value::string).collect()))), "[]string")
    }

    pub(super) fn row(row: Row, type_name: &'static str) -> Value {
        Value::of(Data::Row(Rc::new(row)), type_name)
    }

    pub(super) fn list(items: Vec<Value>, type_name: &'static str) -> Value {
        Value::of(Data::List(Some(Rc::new(items))), type_name)
    }

    /// A value of the type `type_name`, from the daemon's JSON; what is missing or does not fit is the type's zero.
    pub(super) fn typed(type_name: &'static str, json: Option<&Json>) -> Value {
        let json = json.unwrap_or(&Json::Null);
        if type_name == "interface {}" {
            return Value::raw(json);
        }
        Value::of(types::decode(type_name, json), type_name)
    }

    /// A value of no known type.
    pub(super) fn raw(json: &Json) -> Value {
        let (data, type_name) = match json {
            Json::Null => (Data::Nothing, "<nil>"),
            Json::Bool(value) => (Data::Bool(*value), "bool"),
            Json::Number(number) => (Data::String(number.to_string().into()), "json.Number"),
            Json::String(text) => (Data::String(text.as_str().into()), "string"),
            Json::Array(items) => (Data::List(Some(Rc::new(items.iter().map(Value::raw).collect()))), "[]interface {}"),
            Json::Object(members) => {
                let members = members.iter().map(|(name, member)| (name.clone(), Value::raw(member))).collect();
                (Data::Map(Some(Rc::new(members))), "map[string]interface {}")
            }
        };
        Value { data, type_name, boxed: true }
    }

    pub(super) fn is_nothing(&self) -> bool {
        matches!(self.data, Data::Nothing)
    }

    /// Behind pointers.
    pub(super) fn pointee(&self) -> &Value {
        let mut value = self;
        while let Data::Pointer(inner) = &value.data {
            value = inner;
        }
        value
    }

    /// What conditions take it for.
    pub(super) fn truth(&self) -> bool {
        match &self.data {
            Data::Nothing | Data::Nil => false,
            Data::Bool(value) => *value,
            Data::Int(value) | Data::Duration(value) => *value != 0,
            Data::Uint(value) => *value != 0,
            Data::Float(value) => *value != 0.0,
            Data::String(text) => !text.is_empty(),
            Data::List(items) => items.as_ref().is_some_and(|items| !items.is_empty()),
            Data::Map(members) => members.as_ref().is_some_and(|members| !members.is_empty()),
            Data::Struct(_) | Data::Pointer(_) | Data::Row(_) | Data::Time(_) => true,
        }
    }

    /// As JSON, fields in the order of their type.
    pub(super) fn json(&self) -> Json {
        match &self.data {
            Data::Nothing | Data::Nil | Data::List(None) | Data::Map(None) => Json::Null,
            Data::Bool(value) => Json::Bool(*value),
            Data::Int(value) | Data::Duration(value) => Json::from(*value),
            Data::Uint(value) => Json::from(*value),
            Data::Float(value) => Json::from(*value),
            Data::String(text) if self.type_name == "json.Number" => {
                serde_json::from_str(text).unwrap_or_else(|_| Json::String(text.to_string()))
            }
            Data::String(text) | Data::Time(text) => Json::String(text.to_string()),
            Data::List(Some(items)) => items.iter().map(Value::json).collect(),
            Data::Map(Some(members)) => members.iter().map(|(name, member)| (name.clone(), member.json())).collect(),
            Data::Pointer(inner) => inner.json(),
            Data::Row(row) => row.columns.iter().map(|(name, column)| (name.clone(), column.json())).collect(),
            Data::Struct(value) => {
                let mut members = Map::new();
                value.add_to(&mut members);
                Json::Object(members)
            }
        }
    }
}

impl Struct {
    fn add_to(&self, members: &mut Map<String, Json>) {
        for (field, value) in self.fields.iter().zip(&self.values) {
            match &value.pointee().data {
                Data::Struct(inner) if field.is_embedded => inner.add_to(members),
                _ if field.is_embedded || field.omits_empty && is_empty(value) => {}
                _ => _ = members.insert(field.json.to_owned(), value.json()),
            }
        }
    }

    /// A field, also of what is embedded; the nearest counts.
    pub(super) fn field(&self, name: &str) -> Option<Value> {
        let fields = || self.fields.iter().zip(&self.values);
        if let Some((_, value)) = fields().find(|(field, _)| field.name == name) {
            return Some(value.clone());
        }
        fields().filter(|(field, _)| field.is_embedded).find_map(|(_, value)| match &value.pointee().data {
            Data::Struct(inner) => inner.field(name),
            _ => None,
        })
    }
}

/// What `omitempty` leaves out: structs never, a day before all days neither.
fn is_empty(value: &Value) -> bool {
    !value.truth()
}
