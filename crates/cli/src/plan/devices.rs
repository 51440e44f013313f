//! What flags say of devices: limits of block devices, rules, GPUs, and devices by qualified name.

use std::num::{IntErrorKind, ParseIntError};

use engine_api::host_config::{DeviceRequest, ThrottleDevice, WeightDevice};
use engine_api::size::{self, Units};

use super::environment::pair;
use super::mount;

/// Why a value is wrong. The texts are docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// No device, or nothing behind it.
    #[error("bad format: {0}")]
    Format(String),
    /// Not below /dev.
    #[error("bad format for device path: {0}")]
    Path(String),
    /// Not a number of bytes.
    #[error(
        "invalid rate for device: {0}. The correct format is <device-path>:<number>[<unit>]. Number must be a positive \
         integer. Unit is optional and can be kb, mb, or gb"
    )]
    Bytes(String),
    /// Not a number.
    #[error(
        "invalid rate for device: {0}. The correct format is <device-path>:<number>. Number must be a positive integer"
    )]
    Rate(String),
    /// Not a weight.
    #[error("invalid weight for device: {0}")]
    Weight(String),
    /// Not a rule.
    #[error("invalid device cgroup format '{0}'")]
    Rule(String),
    /// A key of GPUs twice.
    #[error("gpu request key '{0}' can be specified only once")]
    Twice(String),
    /// A key that GPUs do not have.
    #[error("unexpected key '{0}' in '{1}'")]
    Key(String, String),
    /// Not a number of GPUs.
    #[error("invalid count ({0}): value must be either \"all\" or an integer: {1}")]
    Count(String, &'static str),
}

/// Reads `/dev/sda:1mb`.
pub fn bytes(text: &str) -> Result<ThrottleDevice, DeviceError> {
    let (path, rate) = split(text)?;
    let rate = size::parse(rate, Units::Binary).ok().and_then(|rate| u64::try_from(rate).ok());
    let rate = rate.ok_or_else(|| DeviceError::Bytes(text.to_owned()))?;
    Ok(ThrottleDevice { path: path.to_owned(), rate })
}

/// Reads `/dev/sda:1000`.
pub fn rate(text: &str) -> Result<ThrottleDevice, DeviceError> {
    let (path, rate) = split(text)?;
    let rate = decimal(rate).ok_or_else(|| DeviceError::Rate(text.to_owned()))?;
    Ok(ThrottleDevice { path: path.to_owned(), rate })
}

/// Reads `/dev/sda:300`.
pub fn weight(text: &str) -> Result<WeightDevice, DeviceError> {
    let (path, weight) = split(text)?;
    let weight = decimal(weight).and_then(|weight| u16::try_from(weight).ok());
    let weight = weight.filter(|weight| *weight == 0 || (10..=1000).contains(weight));
    Ok(WeightDevice { path: path.to_owned(), weight: weight.ok_or_else(|| DeviceError::Weight(text.to_owned()))? })
}

fn split(text: &str) -> Result<(&str, &str), DeviceError> {
    match text.split_once(':') {
        None | Some(("", _)) => Err(DeviceError::Format(text.to_owned())),
        Some((path, _)) if !path.starts_with("/dev/") => Err(DeviceError::Path(text.to_owned())),
        Some(parts) => Ok(parts),
    }
}

/// Go's `ParseUint` takes no sign.
fn decimal(text: &str) -> Option<u64> {
    if text.starts_with('+') { None } else { text.parse().ok() }
}

/// Checks `c 10:* rw`.
pub fn check_rule(text: &str) -> Result<(), DeviceError> {
    let is_number = |text: &str| text == "*" || !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_access = |text: &str| (1..=3).contains(&text.len()) && text.bytes().all(|byte| b"rwm".contains(&byte));
    let fits = match text.split(' ').collect::<Vec<_>>()[..] {
        ["a" | "b" | "c", numbers, access] => {
            numbers.split_once(':').is_some_and(|(major, minor)| is_number(major) && is_number(minor))
                && is_access(access)
        }
        _ => false,
    };
    if fits { Ok(()) } else { Err(DeviceError::Rule(text.to_owned())) }
}

/// Reads `all`, `2` and `device=0,driver=...`.
pub fn gpus(text: &str) -> Result<DeviceRequest, DeviceError> {
    let mut request = DeviceRequest::default();
    let mut seen: Vec<String> = Vec::new();
    for field in mount::fields(text) {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field.as_str(), None),
        };
        if seen.iter().any(|earlier| earlier == key) {
            return Err(DeviceError::Twice(key.to_owned()));
        }
        seen.push(key.to_owned());
        let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        match (key, value) {
            (number, None) => {
                seen.push("count".to_owned());
                request.count = count(number)?;
            }
            ("driver", Some(value)) => request.driver = value.to_owned(),
            ("count", Some(value)) => request.count = count(value)?,
            ("device", Some(value)) => request.device_ids = Some(list(value)),
            ("capabilities", Some(value)) => {
                request.capabilities = Some(vec![list(&format!("{value},gpu"))]);
            }
            ("options", Some(value)) => {
                request.options = Some(mount::fields(value).iter().map(|field| pair(field)).collect());
            }
            (key, Some(_)) => return Err(DeviceError::Key(key.to_owned(), field.clone())),
        }
    }
    if request.device_ids.is_none() && !seen.iter().any(|key| key == "count") {
        request.count = 1;
    }
    request.options.get_or_insert_default();
    request.capabilities.get_or_insert_with(|| vec![vec!["gpu".to_owned()]]);
    Ok(request)
}

fn count(text: &str) -> Result<i64, DeviceError> {
    if text == "all" {
        return Ok(-1);
    }
    text.parse().map_err(|err: ParseIntError| {
        let reason = match err.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        DeviceError::Count(text.to_owned(), reason)
    })
}

/// Whether a device is meant by its qualified name, `vendor/class=name` (CDI specification, "Kind").
pub fn is_qualified(text: &str) -> bool {
    let Some((kind, name)) = text.split_once('=') else { return false };
    let Some((vendor, class)) = kind.split_once('/') else { return false };
    let word = |text: &str, first: fn(&u8) -> bool, between: &[u8]| match text.as_bytes() {
        [] => false,
        [only] => first(only) && only.is_ascii_alphanumeric(),
        [begin, middle @ .., end] => {
            first(begin)
                && middle.iter().all(|byte| byte.is_ascii_alphanumeric() || between.contains(byte))
                && end.is_ascii_alphanumeric()
        }
    };
    word(vendor, u8::is_ascii_alphabetic, b"_-.")
        && word(class, u8::is_ascii_alphabetic, b"_-.")
        && word(name, u8::is_ascii_alphanumeric, b"_-.:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_docker_reads_them() {
        assert_eq!(bytes("/dev/sda:1mb"), Ok(ThrottleDevice { path: "/dev/sda".to_owned(), rate: 1 << 20 }));
        assert_eq!(rate("/dev/sda:10").map(|limit| limit.rate), Ok(10));
        assert_eq!(weight("/dev/sda:300").map(|limit| limit.weight), Ok(300));
        for (told, sentence) in [
            (bytes("x").map(drop), "bad format: x"),
            (bytes("/x:1").map(drop), "bad format for device path: /x:1"),
            (
                bytes("/dev/x:q").map(drop),
                "invalid rate for device: /dev/x:q. The correct format is <device-path>:<number>[<unit>]. Number must be a \
                 positive integer. Unit is optional and can be kb, mb, or gb",
            ),
            (
                rate("/dev/x:-1").map(drop),
                "invalid rate for device: /dev/x:-1. The correct format is <device-path>:<number>. Number must be a \
                 positive integer",
            ),
            (weight("/dev/x:5").map(drop), "invalid weight for device: /dev/x:5"),
            (check_rule("x"), "invalid device cgroup format 'x'"),
        ] {
            assert_eq!(told.unwrap_err().to_string(), sentence);
        }
        assert_eq!((check_rule("c 10:* rw"), check_rule("a *:* rwm")), (Ok(()), Ok(())));
    }

    #[test]
    fn gpus_are_asked_for_as_docker_asks() {
        let sent = |text: &str| serde_json::to_string(&gpus(text).unwrap()).unwrap();
        let all = r#"{"Driver":"","Count":-1,"DeviceIDs":null,"Capabilities":[["gpu"]],"Options":{}}"#;
        assert_eq!((sent("all").as_str(), sent("count=all").as_str()), (all, all));
        assert_eq!(
            sent("device=1,driver=d,capabilities=a,options=b=c"),
            r#"{"Driver":"d","Count":0,"DeviceIDs":["1"],"Capabilities":[["a","gpu"]],"Options":{"b":"c"}}"#
        );
        assert_eq!(
            sent("driver=d"),
            r#"{"Driver":"d","Count":1,"DeviceIDs":null,"Capabilities":[["gpu"]],"Options":{}}"#
        );
        for (text, sentence) in [
            ("x", "invalid count (x): value must be either \"all\" or an integer: invalid syntax"),
            ("driver=a,driver=b", "gpu request key 'driver' can be specified only once"),
            ("a=b", "unexpected key 'a' in 'a=b'"),
        ] {
            assert_eq!(gpus(text).unwrap_err().to_string(), sentence);
        }
    }

    #[test]
    fn qualified_names_are_told_from_paths() {
        for (text, qualified) in [
            ("vendor.com/class=dev0", true),
            ("v/c=0", true),
            ("/dev/a=b", false),
            ("/dev/null", false),
            ("vendor/=x", false),
            ("vendor/class=", false),
            ("vendor/class=a b", false),
            ("1vendor/class=a", false),
        ] {
            assert_eq!(is_qualified(text), qualified, "{text}");
        }
    }
}
