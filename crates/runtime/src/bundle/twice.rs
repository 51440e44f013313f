//! What is said twice, of which only one can count. Pure.
//!
//! runc takes the last, and of two objects of one name Go's reader makes a mixture of both: nobody means that.

use std::fmt;

use oci::runtime::{BlockIo, Resources, ThrottleDevice};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Value};

/// A document each of whose objects has every name once.
pub(super) struct Once(pub(super) Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Once, D::Error> {
        deserializer.deserialize_any(Reader).map(Once)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, on: bool) -> Result<Value, E> {
        Ok(Value::Bool(on))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Once(member)) = members.next_element()? {
            all.push(member);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            let Once(value) = fields.next_value()?;
            match all.entry(name) {
                Entry::Vacant(place) => drop(place.insert(value)),
                Entry::Occupied(there) => return Err(Error::custom(format_args!("{:?} is there twice", there.key()))),
            }
        }
        Ok(Value::Object(all))
    }
}

/// The full name of the first limit that a list has a second time, and of what it is one.
pub(super) fn limit(resources: &Resources) -> Option<(String, String)> {
    let sizes = resources.hugepage_limits.iter().map(|limit| limit.page_size.clone());
    let size = second(sizes).map(|(index, size)| (format!("linux.resources.hugepageLimits[{index}].pageSize"), size));
    size.or_else(|| resources.block_io.as_ref().and_then(of_devices))
}

fn of_devices(block_io: &BlockIo) -> Option<(String, String)> {
    let weights = block_io.weight_device.iter().map(|device| format!("{}:{}", device.major, device.minor));
    let throttles = |list: &[ThrottleDevice]| second(list.iter().map(|one| format!("{}:{}", one.major, one.minor)));
    let (index, device, list) =
        second(weights).map(|(index, device)| (index, device, "weightDevice")).or_else(|| {
            [
                ("throttleReadBpsDevice", &block_io.throttle_read_bps_device),
                ("throttleWriteBpsDevice", &block_io.throttle_write_bps_device),
                ("throttleReadIOPSDevice", &block_io.throttle_read_iops_device),
                ("throttleWriteIOPSDevice", &block_io.throttle_write_iops_device),
            ]
            .into_iter()
            .find_map(|(name, list)| throttles(list).map(|(index, device)| (index, device, name)))
        })?;
    Some((format!("linux.resources.blockIO.{list}[{index}]"), device))
}

/// The first that was there before, and its place.
fn second(keys: impl Iterator<Item = String>) -> Option<(usize, String)> {
    let mut seen = Vec::new();
    for (index, key) in keys.enumerate() {
        if seen.contains(&key) {
            return Some((index, key));
        }
        seen.push(key);
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_are_read_as_they_are_and_no_name_counts_twice() {
        for text in [
            r#"{"a": [1, -1, 1.5, 1e70, 18446744073709551615, "x", true, null, {}], "A": {"a": "\u00e4"}}"#,
            "null",
            "[[]]",
        ] {
            let Once(value) = serde_json::from_str(text).unwrap();
            assert_eq!(value, serde_json::from_str::<Value>(text).unwrap());
        }
        for (text, said) in [
            (r#"{"process": 1, "process": 2}"#, "\"process\" is there twice at line 1 column 28"),
            (r#"[{"a": {"b": null, "b": null}}]"#, "\"b\" is there twice at line 1 column 29"),
        ] {
            assert_eq!(serde_json::from_str::<Once>(text).map(|_| ()).unwrap_err().to_string(), said);
        }
    }

    #[test]
    fn a_limit_that_is_there_twice_is_named() {
        let check = |resources: Value| limit(&serde_json::from_value(resources).unwrap());
        let device = |minor: u32| json!({"major": 8, "minor": minor, "weight": 10, "rate": 1});
        let named = |field: &str, word: &str| Some((format!("linux.resources.{field}"), word.to_owned()));
        let pages = |size: &str| json!({"pageSize": size, "limit": 0});
        let sizes = json!({"hugepageLimits": [pages("2MB"), pages("1GB"), pages("2MB")]});
        assert_eq!(check(sizes), named("hugepageLimits[2].pageSize", "2MB"));
        for list in [
            "weightDevice",
            "throttleReadBpsDevice",
            "throttleWriteBpsDevice",
            "throttleReadIOPSDevice",
            "throttleWriteIOPSDevice",
        ] {
            let twice = json!({"blockIO": {list: [device(0), device(16), device(0)]}});
            assert_eq!(check(twice), named(&format!("blockIO.{list}[2]"), "8:0"));
            assert_eq!(check(json!({"blockIO": {list: [device(0), device(16)]}})), None);
        }
    }
}
