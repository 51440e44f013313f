//! Values as text: Go's `fmt`.

use std::fmt::Write;
use std::rc::Rc;

use super::value::{Data, Struct, Value};
use crate::format::quote;

/// `%v`; below the top, pointers are addresses.
pub(super) fn plain(value: &Value) -> String {
    shown(value, Style::Plain, true)
}

/// How composed values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// `%v`
    Plain,
    /// `%+v`: with the names of fields.
    Named,
    /// `%#v`: as in Go's source.
    Source,
}

fn shown(value: &Value, style: Style, top: bool) -> String {
    if let Some(text) = own_text(value.pointee()).filter(|_| style != Style::Source) {
        return text;
    }
    match &value.data {
        Data::Nothing | Data::Nil => "<nil>".to_owned(),
        Data::Bool(value) => value.to_string(),
        Data::Int(value) => value.to_string(),
        Data::Uint(value) => value.to_string(),
        Data::Float(value) => float(*value),
        Data::String(text) if style == Style::Source => quote(text),
        Data::String(text) => text.to_string(),
        Data::Duration(nanoseconds) => duration(*nanoseconds),
        Data::Time(text) => time(text),
        Data::Pointer(inner) if top => format!("&{}", shown(inner, style, false)),
        Data::Pointer(inner) => format!("0xc{:09x}", Rc::as_ptr(inner) as usize & 0xf_ffff_ffff),
        Data::List(items) => list(items.as_deref().map_or(&[], Vec::as_slice), value.type_name, style),
        Data::Map(members) => {
            let empty = std::collections::BTreeMap::new();
            let members = members.as_deref().unwrap_or(&empty);
            let parts = members.iter().map(|(name, member)| {
                let name = if style == Style::Source { quote(name) } else { name.clone() };
                format!("{name}:{}", shown(member, style, false))
            });
            around(parts, style, "map[", value.type_name)
        }
        Data::Struct(inner) => structure(inner, value.type_name, style),
        Data::Row(row) => {
            let parts = row.columns.iter().map(|(name, column)| format!("{name}:{}", shown(column, style, false)));
            around(parts, Style::Plain, "map[", value.type_name)
        }
    }
}

fn list(items: &[Value], type_name: &str, style: Style) -> String {
    around(items.iter().map(|item| shown(item, style, false)), style, "[", type_name)
}

fn around(parts: impl Iterator<Item = String>, style: Style, open: &str, type_name: &str) -> String {
    let parts: Vec<String> = parts.collect();
    match style {
        Style::Source => format!("{type_name}{{{}}}", parts.join(", ")),
        _ => format!("{open}{}]", parts.join(" ")),
    }
}

fn structure(value: &Struct, type_name: &str, style: Style) -> String {
    let parts = value.fields.iter().zip(&value.values).map(|(field, value)| {
        let text = shown(value, style, false);
        if style == Style::Plain { text } else { format!("{}:{text}", field.name) }
    });
    let parts: Vec<String> = parts.collect();
    match style {
        Style::Source => format!("{type_name}{{{}}}", parts.join(", ")),
        _ => format!("{{{}}}", parts.join(" ")),
    }
}

/// Of types that have a text of their own.
fn own_text(value: &Value) -> Option<String> {
    let Data::Struct(fields) = &value.data else { return None };
    let field = |name: &str| fields.field(name).map(|value| shown(&value, Style::Plain, false)).unwrap_or_default();
    match value.type_name {
        "units.Ulimit" => Some(format!("{}={}:{}", field("Name"), field("Soft"), field("Hard"))),
        "blkiodev.WeightDevice" => Some(format!("{}:{}", field("Path"), field("Weight"))),
        "blkiodev.ThrottleDevice" => Some(format!("{}:{}", field("Path"), field("Rate"))),
        _ => None,
    }
}

/// Go's shortest form of a float.
fn float(value: f64) -> String {
    if value != 0.0 && !(1e-4..1e21).contains(&value.abs()) && value.is_finite() {
        return exponent(&format!("{value:e}"));
    }
    match value {
        value if value.is_nan() => "NaN".to_owned(),
        value if value.is_infinite() => if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        value => value.to_string(),
    }
}

/// `1e6` as `1e+06`.
fn exponent(text: &str) -> String {
    let Some((digits, power)) = text.split_once('e') else { return text.to_owned() };
    let (sign, power) = power.strip_prefix('-').map_or(('+', power), |power| ('-', power));
    format!("{digits}e{sign}{power:0>2}")
}

/// `1m30s`
fn duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let all = nanoseconds.unsigned_abs();
    let fraction = |count: u64, unit: u64, name: &str| {
        let rest = format!("{:0width$}", count % unit, width = unit.ilog10() as usize);
        let rest = rest.trim_end_matches('0');
        let dot = if rest.is_empty() { "" } else { "." };
        format!("{}{dot}{rest}{name}", count / unit)
    };
    let text = match all {
        0 => "0s".to_owned(),
        1..1000 => format!("{all}ns"),
        1000..1_000_000 => fraction(all, 1000, "µs"),
        1_000_000..1_000_000_000 => fraction(all, 1_000_000, "ms"),
        _ => {
            let (minutes, rest) = (all / 60_000_000_000, all % 60_000_000_000);
            let seconds = fraction(rest, 1_000_000_000, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    };
    format!("{sign}{text}")
}

/// `2026-01-01 00:00:00.5 +0000 UTC`
fn time(text: &str) -> String {
    let Some((day, rest)) = text.split_once('T') else { return text.to_owned() };
    let at = rest.find(['Z', '+', '-']).unwrap_or(rest.len());
    let (clock, zone) = rest.split_at(at);
    let clock = if clock.contains('.') { clock.trim_end_matches('0').trim_end_matches('.') } else { clock };
    match zone {
        "Z" | "" => format!("{day} {clock} +0000 UTC"),
        zone => format!("{day} {clock} {0} {0}", zone.replace(':', "")),
    }
}

/// `print`: blanks stand between what is no text.
pub(super) fn print(values: &[Value]) -> String {
    let mut out = String::new();
    for (at, value) in values.iter().enumerate() {
        let is_text = |value: &Value| matches!(value.data, Data::String(_)) && value.type_name == "string";
        if at > 0 && !is_text(value) && !is_text(&values[at - 1]) {
            out.push(' ');
        }
        out.push_str(&plain(value));
    }
    out
}

/// What stands between `%` and the verb.
#[derive(Default)]
struct Directive {
    minus: bool,
    plus: bool,
    sharp: bool,
    zero: bool,
    space: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// `printf`
pub(super) fn printf(format: &str, values: &[Value]) -> String {
    let mut out = String::new();
    let mut values_left = values.iter();
    let mut characters = format.chars().peekable();
    while let Some(c) = characters.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let directive = directive(&mut characters, &mut values_left);
        match characters.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => match values_left.next() {
                None => _ = write!(out, "%!{verb}(MISSING)"),
                Some(value) => out.push_str(&padded(&formatted(value, verb, &directive), verb, value, &directive)),
            },
        }
    }
    let extra: Vec<String> = values_left.map(|value| format!("{}={}", type_of(value), plain(value))).collect();
    if !extra.is_empty() {
        let _ = write!(out, "%!(EXTRA {})", extra.join(", "));
    }
    out
}

fn directive<'a>(
    characters: &mut std::iter::Peekable<std::str::Chars<'_>>,
    values: &mut impl Iterator<Item = &'a Value>,
) -> Directive {
    let mut directive = Directive::default();
    while let Some(c) = characters.peek() {
        match c {
            '-' => directive.minus = true,
            '+' => directive.plus = true,
            '#' => directive.sharp = true,
            '0' => directive.zero = true,
            ' ' => directive.space = true,
            _ => break,
        }
        characters.next();
    }
    let mut number = |characters: &mut std::iter::Peekable<std::str::Chars<'_>>| {
        if characters.next_if_eq(&'*').is_some() {
            return values.next().and_then(|value| match value.data {
                Data::Int(number) => usize::try_from(number).ok(),
                _ => None,
            });
        }
        let mut text = String::new();
        while let Some(digit) = characters.next_if(char::is_ascii_digit) {
            text.push(digit);
        }
        text.parse::<usize>().ok()
    };
    // Nobody wants more; Go has the same limit.
    directive.width = number(characters).map(|width| width.min(1_000_000));
    if characters.next_if_eq(&'.').is_some() {
        directive.precision = Some(number(characters).unwrap_or(0).min(1_000_000));
    }
    directive
}

/// Go's name of a value's type.
pub(super) fn type_of(value: &Value) -> &str {
    value.type_name
}

fn formatted(value: &Value, verb: char, directive: &Directive) -> String {
    let wrong = || format!("%!{verb}({}={})", type_of(value), plain(value));
    match (verb, &value.data) {
        ('T', _) => return type_of(value).to_owned(),
        ('v', _) if directive.sharp => return shown(value, Style::Source, true),
        ('v', _) if directive.plus => return shown(value, Style::Named, true),
        ('v', Data::Int(_) | Data::Uint(_)) | (_, Data::Bool(_)) => {}
        ('v', _) => return plain(value),
        (_, Data::Nothing) => return format!("%!{verb}(<nil>)"),
        (_, Data::List(items)) => {
            let items = items.as_deref().map_or(&[][..], Vec::as_slice);
            let parts = items.iter().map(|item| formatted(item, verb, directive));
            return around(parts, Style::Plain, "[", value.type_name);
        }
        _ => {}
    }
    match &value.data {
        Data::Bool(flag) if matches!(verb, 't' | 'v') => flag.to_string(),
        Data::String(text) => string(text, verb, directive).unwrap_or_else(wrong),
        Data::Int(number) | Data::Duration(number) => {
            whole(number.unsigned_abs(), *number < 0, verb, directive).unwrap_or_else(wrong)
        }
        Data::Uint(number) => whole(*number, false, verb, directive).unwrap_or_else(wrong),
        Data::Float(number) => fraction(*number, verb, directive).unwrap_or_else(wrong),
        _ if verb == 's' => plain(value),
        _ => wrong(),
    }
}

fn string(text: &str, verb: char, directive: &Directive) -> Option<String> {
    let cut: String = text.chars().take(directive.precision.unwrap_or(usize::MAX)).collect();
    let hex = |upper: bool| {
        cut.bytes().fold(String::new(), |mut out, byte| {
            let _ = if upper { write!(out, "{byte:02X}") } else { write!(out, "{byte:02x}") };
            out
        })
    };
    match verb {
        's' => Some(cut),
        'q' if directive.sharp && !cut.contains('`') => Some(format!("`{cut}`")),
        'q' => Some(quote(&cut)),
        'x' => Some(hex(false)),
        'X' => Some(hex(true)),
        _ => None,
    }
}

fn whole(number: u64, negative: bool, verb: char, directive: &Directive) -> Option<String> {
    let prefix = |text: &str| if directive.sharp { text.to_owned() } else { String::new() };
    let (prefix, mut digits) = match verb {
        'd' | 'v' => (String::new(), number.to_string()),
        'x' => (prefix("0x"), format!("{number:x}")),
        'X' => (prefix("0X"), format!("{number:X}")),
        'o' => (prefix("0"), format!("{number:o}")),
        'b' => (prefix("0b"), format!("{number:b}")),
        'c' => return Some(char::from_u32(number as u32).unwrap_or('\u{fffd}').to_string()),
        'q' => return Some(format!("'{}'", char::from_u32(number as u32).unwrap_or('\u{fffd}'))),
        'U' => return Some(format!("U+{number:04X}")),
        _ => return None,
    };
    if let Some(precision) = directive.precision {
        digits = format!("{digits:0>precision$}");
    }
    Some(format!("{}{prefix}{digits}", sign(negative, directive)))
}

fn sign(negative: bool, directive: &Directive) -> &'static str {
    match (negative, directive.plus, directive.space) {
        (true, ..) => "-",
        (_, true, _) => "+",
        (_, _, true) => " ",
        _ => "",
    }
}

fn fraction(number: f64, verb: char, directive: &Directive) -> Option<String> {
    let places = directive.precision.unwrap_or(6);
    let magnitude = number.abs();
    let text = match verb {
        'f' | 'F' => format!("{magnitude:.places$}"),
        'e' => exponent(&format!("{magnitude:.places$e}")),
        'E' => exponent(&format!("{magnitude:.places$e}")).to_uppercase(),
        'g' | 'v' if directive.precision.is_none() => float(magnitude),
        'g' | 'v' => float(format!("{magnitude:.*e}", places.max(1) - 1).parse().ok()?),
        _ => return None,
    };
    Some(format!("{}{text}", sign(number.is_sign_negative(), directive)))
}

fn padded(text: &str, verb: char, value: &Value, directive: &Directive) -> String {
    let blanks = directive.width.unwrap_or(0).saturating_sub(text.chars().count());
    let is_number = matches!(value.data, Data::Int(_) | Data::Uint(_) | Data::Float(_));
    match (directive.minus, directive.zero && (is_number || verb == 's')) {
        (true, _) => format!("{text}{:blanks$}", ""),
        (_, true) => {
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+']) && is_number));
            format!("{sign}{}{digits}", "0".repeat(blanks))
        }
        _ => format!("{:blanks$}{text}", ""),
    }
}
