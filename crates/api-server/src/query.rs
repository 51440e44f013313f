//! The part of the URL behind the question mark, read as Docker reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::num::IntErrorKind;

use errdefs::ErrorKind;

use crate::status::Failure;

/// Filters: for each name, the values of which one must match.
pub(crate) type Filters = BTreeMap<String, BTreeSet<String>>;

/// The parameters of a request, in the order given.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Parses `a=1&b=2`; bad escapes and semicolons are refused with Go's sentences.
    pub(crate) fn parse(text: &str) -> Result<Query, Failure> {
        let mut pairs = Vec::new();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            if part.contains(';') {
                return Err(Failure::invalid("invalid semicolon separator in query"));
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            pairs.push((unescape(name, true)?, unescape(value, true)?));
        }
        Ok(Query { pairs })
    }

    /// The first value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    /// The first value of a parameter; empty if there is none.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// The first value of a parameter, where empty means "not given".
    pub(crate) fn given(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// Whether a flag is set: everything counts but the empty text, `0`, `no`, `false` and `none`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        !matches!(self.text(name).trim().to_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// As [`flag`](Self::flag), with a default for a parameter that is absent.
    pub(crate) fn flag_or(&self, name: &str, default: bool) -> bool {
        if self.get(name).is_some() { self.flag(name) } else { default }
    }

    /// Yes or no as Go's strconv.ParseBool reads it; not given is no.
    pub(crate) fn truth(&self, name: &str) -> Result<bool, Failure> {
        match self.text(name) {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            other => {
                let fault = format!("strconv.ParseBool: parsing {other:?}: invalid syntax");
                Err(Failure::invalid(format!("invalid value for {name}: {other}: {fault}")))
            }
        }
    }

    /// A decimal number. dockerd lets the error of `strconv.Atoi` through, unmarked: status 500.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, Failure> {
        self.given(name).map(|text| decimal(text).map_err(|cause| not_a_number("Atoi", text, cause))).transpose()
    }

    /// A size of a terminal, 0 to 2^32-1.
    pub(crate) fn size(&self, name: &str, what: &str) -> Result<u32, Failure> {
        let text = self.text(name);
        let digits = text.strip_prefix('-').unwrap_or(text);
        let value = decimal(digits).and_then(|value| u32::try_from(value).map_err(|_| RANGE));
        let value = if digits.starts_with('+') { Err(SYNTAX) } else { value };
        match value {
            Ok(value) if digits.len() == text.len() => Ok(value),
            Ok(_) => Err(bad_size(what, text, RANGE)),
            Err(cause) => Err(bad_size(what, text, cause)),
        }
    }

    /// The filters, in the form of today (`{"label":{"a":true}}`) or of old (`{"label":["a"]}`).
    pub(crate) fn filters(&self) -> Result<Filters, Failure> {
        parse_filters(self.text("filters"))
    }
}

/// Go's words for a text that is no number.
pub(crate) const SYNTAX: &str = "invalid syntax";
/// Go's words for a number that does not fit.
pub(crate) const RANGE: &str = "value out of range";

/// Parses a decimal number, answering Go's words for what is wrong.
pub(crate) fn decimal(text: &str) -> Result<i64, &'static str> {
    text.parse::<i64>().map_err(|err| match err.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => RANGE,
        _ => SYNTAX,
    })
}

/// The sentence of Go's `strconv` for a bad number; dockerd does not mark it as the caller's mistake.
pub(crate) fn not_a_number(function: &str, text: &str, cause: &str) -> Failure {
    Failure::new(ErrorKind::Internal, format!("strconv.{function}: parsing {text:?}: {cause}"))
}

fn bad_size(what: &str, text: &str, cause: &str) -> Failure {
    Failure::invalid(format!("invalid resize {what} {text:?}: {cause}"))
}

fn parse_filters(text: &str) -> Result<Filters, Failure> {
    // Go reads null as an empty map.
    if text.is_empty() || text.trim() == "null" {
        return Ok(Filters::new());
    }
    if let Ok(filters) = serde_json::from_str::<BTreeMap<String, BTreeMap<String, bool>>>(text) {
        return Ok(filters.into_iter().map(|(name, values)| (name, values.into_keys().collect())).collect());
    }
    serde_json::from_str::<Filters>(text).map_err(|_| Failure::invalid("invalid filter"))
}

/// Undoes percent escapes, and in queries the plus sign that stands for a blank.
pub(crate) fn unescape(text: &str, plus_is_blank: bool) -> Result<String, Failure> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'+' if plus_is_blank => bytes.push(b' '),
            b'%' => {
                let Some(byte) = escaped_byte(tail) else { return Err(bad_escape(tail)) };
                bytes.push(byte);
                rest = &tail[2..];
            }
            other => bytes.push(other),
        }
    }
    // Names and paths of ours are UTF-8: what is not cannot be found, so nothing is lost by the replacement.
    Ok(String::from_utf8(bytes).unwrap_or_else(|err| String::from_utf8_lossy(err.as_bytes()).into_owned()))
}

fn escaped_byte(digits: &[u8]) -> Option<u8> {
    let digits = digits.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn bad_escape(tail: &[u8]) -> Failure {
    let shown = String::from_utf8_lossy(&tail[..tail.len().min(2)]);
    Failure::invalid(format!("invalid URL escape \"%{shown}\""))
}

#[cfg(test)]
mod tests;
