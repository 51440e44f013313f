//! Go's types of what the daemon answers, as Docker's client knows them: their fields in order, by [`DEFINITIONS`].
//!
//! ```text
//! pkg.Name                a struct; its fields follow, indented
//!  Name type [json] [?]   the name in JSON if it is another; `?` leaves out what is empty
//!  +type                  embedded
//! pkg.Name = type         a name for a simple type
//! ```

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::OnceLock;

use serde_json::{Map, Value as Json};

use super::value::{Data, Struct, Value};

/// Names and types of fields, which are facts of Docker's API for Go.
const DEFINITIONS: &str = include_str!("types.txt");

/// A field of a struct.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) json: &'static str,
    pub(super) type_name: &'static str,
    pub(super) omits_empty: bool,
    pub(super) is_embedded: bool,
}

#[derive(Debug)]
enum Definition {
    Struct(Vec<Field>),
    Name(&'static str),
}

/// Read when the first template asks.
fn definitions() -> &'static HashMap<&'static str, Definition> {
    static ALL: OnceLock<HashMap<&'static str, Definition>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut all = HashMap::new();
        let mut current = "";
        for line in DEFINITIONS.lines() {
            if let Some((name, meaning)) = line.split_once(" = ") {
                all.insert(name, Definition::Name(meaning));
            } else if !line.starts_with(' ') {
                current = line;
                all.insert(current, Definition::Struct(Vec::new()));
            } else if let Some(Definition::Struct(fields)) = all.get_mut(current) {
                fields.extend(field(line.trim_start()));
            }
        }
        all
    })
}

fn field(line: &'static str) -> Option<Field> {
    if let Some(type_name) = line.strip_prefix('+') {
        let name = type_name.rsplit('.').next()?;
        return Some(Field { name, json: name, type_name, omits_empty: false, is_embedded: true });
    }
    let (line, omits_empty) = match line.strip_suffix(" ?") {
        Some(line) => (line, true),
        None => (line, false),
    };
    let (name, rest) = line.split_once(' ')?;
    // `struct {}` and `interface {}` have a blank.
    let end = rest.find(" {}").map(|at| at + " {}".len()).or_else(|| rest.find(' ')).unwrap_or(rest.len());
    let (type_name, json) = (&rest[..end], rest[end..].trim_start());
    let json = if json.is_empty() { name } else { json };
    Some(Field { name, json, type_name, omits_empty, is_embedded: false })
}

/// What JSON says of a value of this type.
pub(super) fn decode(type_name: &'static str, json: &Json) -> Data {
    if let Some(pointee) = type_name.strip_prefix('*') {
        return match json {
            Json::Null => Data::Nil,
            json => Data::Pointer(Rc::new(Value::typed(pointee, Some(json)))),
        };
    }
    if let Some(rest) = type_name.strip_prefix("map[") {
        let element = rest.split_once(']').map_or("interface {}", |(_, element)| element);
        let members = json.as_object().map(|members| {
            let member = |(name, json): (&String, &Json)| (name.clone(), Value::typed(element, Some(json)));
            Rc::new(members.iter().map(member).collect::<BTreeMap<_, _>>())
        });
        return Data::Map(members);
    }
    if let Some(rest) = type_name.strip_prefix('[') {
        let element = rest.split_once(']').map_or("interface {}", |(_, element)| element);
        let items = json.as_array().map(|items| items.iter().map(|item| Value::typed(element, Some(item))).collect());
        let length = rest.split_once(']').and_then(|(length, _)| length.parse::<usize>().ok());
        let items = match length {
            Some(length) => Some(items.unwrap_or_else(|| vec![Value::typed(element, None); length])),
            None => items,
        };
        return Data::List(items.map(Rc::new));
    }
    match type_name {
        "struct {}" => Data::Struct(Rc::new(Struct { fields: &[], values: Vec::new() })),
        "interface {}" => Value::raw(json).data,
        "bool" => Data::Bool(json.as_bool().unwrap_or_default()),
        "string" => Data::String(json.as_str().unwrap_or_default().into()),
        "float64" => Data::Float(json.as_f64().unwrap_or_default()),
        "time.Time" => Data::Time(json.as_str().unwrap_or("0001-01-01T00:00:00Z").into()),
        "time.Duration" => Data::Duration(json.as_i64().unwrap_or_default()),
        name if name.starts_with("uint") => Data::Uint(json.as_u64().unwrap_or_default()),
        name if name.starts_with("int") => Data::Int(json.as_i64().unwrap_or_default()),
        name => defined(name, json),
    }
}

fn defined(type_name: &'static str, json: &Json) -> Data {
    match definitions().get(type_name) {
        Some(Definition::Name(meaning)) => decode(meaning, json),
        Some(Definition::Struct(fields)) => {
            let none = Map::new();
            let members = json.as_object().unwrap_or(&none);
            let value = |field: &Field| match field.is_embedded {
                true => Value::typed(field.type_name, Some(json)),
                false => Value::typed(field.type_name, member(members, field.json)),
            };
            let values = fields.iter().map(value).collect();
            Data::Struct(Rc::new(Struct { fields, values }))
        }
        None => Value::raw(json).data,
    }
}

/// Go's decoder takes names in any case.
fn member<'a>(members: &'a Map<String, Json>, name: &str) -> Option<&'a Json> {
    let alike = || members.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, member)| member);
    members.get(name).or_else(alike)
}

/// What a name stands for.
fn underlying(mut type_name: &'static str) -> &'static str {
    while let Some(Definition::Name(meaning)) = definitions().get(type_name) {
        type_name = meaning;
    }
    type_name
}

/// What a missing key of a map stands for; nothing if that is nothing.
pub(super) fn zero_element(map: &'static str) -> Value {
    match underlying(map).split_once(']') {
        Some((_, "interface {}")) | None => Value { boxed: true, ..Value::nothing() },
        Some((_, element)) => Value::typed(element, None),
    }
}

/// The type of a map's keys.
pub(super) fn key_of(map: &'static str) -> &'static str {
    underlying(map).strip_prefix("map[").and_then(|rest| rest.split_once(']')).map_or("string", |(key, _)| key)
}

/// What methods of these types say, for those that take nothing.
pub(super) fn method(value: &Value, name: &str) -> Option<Value> {
    let value = value.pointee();
    if let (Data::Struct(policy), "container.RestartPolicy") = (&value.data, value.type_name) {
        let policy = policy.field("Name")?;
        let Data::String(policy) = policy.data else { return None };
        return Some(Value::bool(match name {
            "IsNone" => matches!(&*policy, "" | "no"),
            "IsAlways" => &*policy == "always",
            "IsOnFailure" => &*policy == "on-failure",
            "IsUnlessStopped" => &*policy == "unless-stopped",
            _ => return None,
        }));
    }
    let Data::String(text) = &value.data else { return None };
    if value.type_name == "nat.Port" {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        return match name {
            "Port" => Some(Value::string(port)),
            "Proto" => Some(Value::string(protocol)),
            "Int" => Some(Value::int(port.parse().unwrap_or_default())),
            _ => None,
        };
    }
    mode(value.type_name, text, name)
}

/// Of the modes of namespaces.
fn mode(type_name: &str, text: &str, method: &str) -> Option<Value> {
    let container = text.strip_prefix("container:");
    let is_network = type_name == "container.NetworkMode";
    let user_defined = !matches!(text, "default" | "bridge" | "host" | "none") && container.is_none();
    let private = match type_name {
        "container.CgroupnsMode" | "container.IpcMode" => text == "private",
        _ => text != "host" && container.is_none(),
    };
    let known = [
        "container.NetworkMode",
        "container.IpcMode",
        "container.PidMode",
        "container.UTSMode",
        "container.UsernsMode",
        "container.CgroupnsMode",
    ];
    if !known.contains(&type_name) {
        return None;
    }
    Some(match method {
        "IsHost" => Value::bool(text == "host"),
        "IsPrivate" => Value::bool(private),
        "IsContainer" => Value::bool(container.is_some()),
        "Container" | "ConnectedContainer" => Value::string(container.unwrap_or_default()),
        "IsNone" => Value::bool(text == "none"),
        "IsShareable" => Value::bool(text == "shareable"),
        "IsEmpty" => Value::bool(text.is_empty()),
        "IsDefault" if is_network => Value::bool(text == "default"),
        "IsBridge" if is_network => Value::bool(text == "bridge"),
        "IsUserDefined" if is_network => Value::bool(user_defined),
        "UserDefined" if is_network => Value::string(if user_defined { text } else { "" }),
        "NetworkName" if is_network => Value::string(if container.is_some() { "container" } else { text }),
        _ => return None,
    })
}
