//! Values of flags: numbers, sizes, fractions, durations, limits.

use std::num::{IntErrorKind, ParseIntError};

use engine_api::host_config::Ulimit;
use engine_api::size::{self, SizeError, Units};

use crate::args::Kind;
use crate::plan::{devices, mount, network};

/// Why a value is wrong. The texts are those of Go's libraries and docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a boolean.
    #[error("strconv.ParseBool: parsing {0:?}: invalid syntax")]
    Bool(String),
    /// Not a number.
    #[error("strconv.ParseInt: parsing {0:?}: invalid syntax")]
    Int(String),
    /// A number beyond all bounds.
    #[error("strconv.ParseInt: parsing {0:?}: value out of range")]
    Range(String),
    /// Not a size.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// Not a fraction.
    #[error("failed to parse {0} as a rational number")]
    Rational(String),
    /// More than nine digits behind the point.
    #[error("value is too precise")]
    Precise,
    /// Not a duration.
    #[error("time: invalid duration {0:?}")]
    Duration(String),
    /// Not a limit.
    #[error("invalid ulimit argument: {0}")]
    Ulimit(String),
    /// No such limit.
    #[error("invalid ulimit type: {0}")]
    UlimitType(String),
    /// More than two limits.
    #[error("too many limit value arguments - {0}, can only have up to two, `soft[:hard]`")]
    UlimitCount(String),
    /// The soft limit is above the hard one.
    #[error("ulimit soft limit must be less than or equal to hard limit: {0} > {1}")]
    UlimitOrder(i64, i64),
    /// There is no soft limit, and a hard one.
    #[error("ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: {0}")]
    UlimitUnlimited(i64),
    /// A label without a name.
    #[error("invalid label '{0}': empty name")]
    Label(String),
    /// A variable without a name.
    #[error("invalid environment variable: {0}")]
    Env(String),
    /// No such stream.
    #[error("valid streams are STDIN, STDOUT and STDERR")]
    Stream,
    /// Not a filter.
    #[error("bad format of filter (expected name=value)")]
    Filter,
    /// Not `name=value`.
    #[error("invalid argument {0:?}: expected name=value")]
    Map(String),
    /// Not `name=value` in a list.
    #[error("{0} must be formatted as key=value")]
    Pair(String),
    /// Not a parameter of a namespace.
    #[error("sysctl '{0}' is not allowed")]
    Sysctl(String),
    /// Not an address.
    #[error("IP address is not correctly formatted: {0}")]
    Address(String),
    /// Not a domain.
    #[error("{0} is not a valid domain")]
    Domain(String),
    /// Not a host and an address.
    #[error("bad format for add-host: {0:?}")]
    ExtraHost(String),
    /// Its address is none.
    #[error("invalid IP address in add-host: {0:?}")]
    ExtraHostAddress(String),
    /// Not a device, or not what is asked of one.
    #[error(transparent)]
    Device(devices::DeviceError),
    /// No container to link to.
    #[error("empty string specified for links")]
    NoLink,
    /// More than a container and an alias.
    #[error("bad format for links: {0}")]
    Link(String),
    /// Not a number from 0 on.
    #[error("strconv.ParseUint: parsing {0:?}: invalid syntax")]
    Unsigned(String),
    /// Such a number beyond all bounds.
    #[error("strconv.ParseUint: parsing {0:?}: value out of range")]
    UnsignedRange(String),
    /// Not a mount.
    #[error(transparent)]
    Mount(mount::MountError),
    /// Not a network.
    #[error(transparent)]
    Network(network::NetworkError),
}

/// Checks a value by its kind.
pub fn check(kind: Kind, text: &str) -> Result<(), ValueError> {
    match kind {
        Kind::Text | Kind::List | Kind::Strings => Ok(()),
        Kind::Bool => boolean(text).map(drop),
        Kind::Int => int(text).map(drop),
        Kind::Uint16 => unsigned_16(text).map(drop),
        Kind::Pairs => Ok(()),
        Kind::DeviceBytes => devices::bytes(text).map(drop).map_err(ValueError::Device),
        Kind::DeviceRate => devices::rate(text).map(drop).map_err(ValueError::Device),
        Kind::DeviceWeight => devices::weight(text).map(drop).map_err(ValueError::Device),
        Kind::DeviceRule => devices::check_rule(text).map_err(ValueError::Device),
        Kind::Gpus => devices::gpus(text).map(drop).map_err(ValueError::Device),
        Kind::Link => check_link(text),
        Kind::Bytes => bytes(text).map(drop),
        Kind::SwapBytes if text == "-1" => Ok(()),
        Kind::SwapBytes => bytes(text).map(drop),
        Kind::Cpus => nano_cpus(text).map(drop),
        Kind::Duration => duration_nanos(text).map(drop),
        Kind::Ulimit => ulimit(text).map(drop),
        Kind::Sysctl if is_sysctl(text) => Ok(()),
        Kind::Sysctl => Err(ValueError::Sysctl(text.to_owned())),
        Kind::Map if text.contains('=') => Ok(()),
        Kind::Map => Err(ValueError::Map(text.to_owned())),
        Kind::PairList => match text.split(',').find(|pair| !pair.contains('=')) {
            Some(pair) => Err(ValueError::Pair(pair.to_owned())),
            None => Ok(()),
        },
        Kind::Env if text.is_empty() || text.starts_with('=') => Err(ValueError::Env(text.to_owned())),
        Kind::Label if text.is_empty() || text.starts_with('=') => Err(ValueError::Label(text.to_owned())),
        Kind::Env | Kind::Label => Ok(()),
        Kind::Attach if matches!(text.to_ascii_lowercase().as_str(), "stdin" | "stdout" | "stderr") => Ok(()),
        Kind::Attach => Err(ValueError::Stream),
        Kind::Filter if text.contains('=') || text.is_empty() => Ok(()),
        Kind::Filter => Err(ValueError::Filter),
        Kind::Address if text.trim().parse::<std::net::IpAddr>().is_ok() => Ok(()),
        Kind::Address => Err(ValueError::Address(text.to_owned())),
        Kind::Domain if is_domain(text.trim_matches(' ')) => Ok(()),
        Kind::Domain => Err(ValueError::Domain(text.trim_matches(' ').to_owned())),
        Kind::ExtraHost => extra_host(text).map(drop),
        Kind::Mount => mount::parse(text, &|path| path.to_owned()).map(drop).map_err(ValueError::Mount),
        Kind::Network => network::parse(text).map(drop).map_err(ValueError::Network),
    }
}

/// A whole number up to 65535.
pub fn unsigned_16(text: &str) -> Result<u16, ValueError> {
    let number = int(text).map_err(|err| match err {
        ValueError::Range(text) => ValueError::UnsignedRange(text),
        _ => ValueError::Unsigned(text.to_owned()),
    })?;
    match u16::try_from(number) {
        _ if text.starts_with(['-', '+']) => Err(ValueError::Unsigned(text.to_owned())),
        Err(_) => Err(ValueError::UnsignedRange(text.to_owned())),
        Ok(number) => Ok(number),
    }
}

/// Docker's client leaves it to the daemon whether there is such a container.
fn check_link(text: &str) -> Result<(), ValueError> {
    match text.matches(':').count() {
        _ if text.is_empty() => Err(ValueError::NoLink),
        0 | 1 => Ok(()),
        _ => Err(ValueError::Link(text.to_owned())),
    }
}

/// Kernel parameters that belong to a namespace; all others are the host's (docker cli `opts.ValidateSysctl`).
fn is_sysctl(text: &str) -> bool {
    const NAMES: [&str; 8] = ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];
    let Some((name, _)) = text.split_once('=') else { return false };
    let kernel = name.strip_prefix("kernel.").is_some_and(|name| NAMES.contains(&name));
    kernel || name.starts_with("net.") || name.starts_with("fs.mqueue.")
}

/// Labels of letters, digits and inner hyphens, with a letter somewhere; or `.`, which stands for no domain.
fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        let edges = !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
        edges && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let bare = text.trim_end();
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    let lettered = bare.bytes().any(|byte| byte.is_ascii_alphabetic());
    text == "." || lettered && bare.len() < 255 && bare.split('.').all(is_label)
}

/// `NAME:ADDRESS`, or `NAME=ADDRESS`, as the API wants it.
pub fn extra_host(text: &str) -> Result<String, ValueError> {
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).unwrap_or(("", ""));
    if name.is_empty() || name.contains(':') {
        return Err(ValueError::ExtraHost(text.to_owned()));
    }
    let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
    match bare == "host-gateway" || bare.trim().parse::<std::net::IpAddr>().is_ok() {
        true => Ok(format!("{name}:{bare}")),
        false => Err(ValueError::ExtraHostAddress(bare.to_owned())),
    }
}

/// Whether two values of a kind mean the same.
pub fn same(kind: Kind, a: &str, b: &str) -> bool {
    match kind {
        Kind::Bool => is_true(a) == is_true(b),
        Kind::Int | Kind::Uint16 => int(a) == int(b),
        Kind::Duration => duration_nanos(a) == duration_nanos(b),
        Kind::Bytes => bytes(a) == bytes(b),
        _ => a == b,
    }
}

/// Whether a checked boolean is true.
pub fn is_true(text: &str) -> bool {
    boolean(text).unwrap_or(false)
}

/// Go's `strconv.ParseBool`.
pub fn boolean(text: &str) -> Result<bool, ValueError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ValueError::Bool(text.to_owned())),
    }
}

/// A whole number, decimal or with Go's prefixes.
pub fn int(text: &str) -> Result<i64, ValueError> {
    let (sign, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (if text.starts_with('-') { -1 } else { 1 }, digits),
        None => (1, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(ValueError::Int(text.to_owned()));
    }
    let magnitude = i128::from_str_radix(digits, radix).map_err(|_| ValueError::Range(text.to_owned()))?;
    i64::try_from(sign * magnitude).map_err(|_| ValueError::Range(text.to_owned()))
}

/// A number of bytes: `64m`, `1.5 GiB`, `7`.
pub fn bytes(text: &str) -> Result<i64, ValueError> {
    Ok(size::parse(text, Units::Binary)?)
}

/// Processors in billionths: `1.5`, `1/2`.
pub fn nano_cpus(text: &str) -> Result<i64, ValueError> {
    let bad = || ValueError::Rational(text.to_owned());
    let (numerator, denominator) = text.split_once('/').unwrap_or((text, "1"));
    let (whole, fraction) = numerator.split_once('.').unwrap_or((numerator, ""));
    let digits = format!("{whole}{fraction}");
    let unsigned = digits.trim_start_matches(['+', '-']);
    if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let numerator: i128 = digits.parse().map_err(|_| bad())?;
    let denominator: i128 = denominator.parse().ok().filter(|d| *d > 0).ok_or_else(bad)?;
    let scale = 10_i128.checked_pow(fraction.len() as u32).and_then(|s| s.checked_mul(denominator)).ok_or_else(bad)?;
    let scaled = numerator.checked_mul(1_000_000_000).ok_or_else(bad)?;
    if scaled % scale != 0 {
        return Err(ValueError::Precise);
    }
    i64::try_from(scaled / scale).map_err(|_| bad())
}

/// A decimal number, as Go's `strconv.ParseInt` reads it in base 10.
fn decimal(text: &str) -> Result<i64, ValueError> {
    text.parse().map_err(|err: ParseIntError| match err.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => ValueError::Range(text.to_owned()),
        _ => ValueError::Int(text.to_owned()),
    })
}

/// Go's `time.ParseDuration`, in nanoseconds.
pub fn duration_nanos(text: &str) -> Result<i64, ValueError> {
    let bad = || ValueError::Duration(text.to_owned());
    let (sign, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (if text.starts_with('-') { -1.0 } else { 1.0 }, rest),
        None => (1.0, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..end].parse().map_err(|_| bad())?;
        let unit_end = rest[end..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |at| end + at);
        let unit = match &rest[end..unit_end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(bad()),
        };
        total += number * unit;
        rest = &rest[unit_end..];
    }
    if text.is_empty() { Err(bad()) } else { Ok((sign * total) as i64) }
}

/// Names of limits that Linux has (go-units `ulimit.go`).
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `name=soft[:hard]`.
pub fn ulimit(text: &str) -> Result<Ulimit, ValueError> {
    let bad = || ValueError::Ulimit(text.to_owned());
    let (name, limits) = text.split_once('=').ok_or_else(bad)?;
    if !ULIMITS.contains(&name) {
        return Err(ValueError::UlimitType(name.to_owned()));
    }
    // Go's parser reads the hard limit first.
    let (soft, hard) = match limits.split(':').collect::<Vec<_>>()[..] {
        [both] => (decimal(both)?, decimal(both)?),
        [soft, hard] => {
            let hard = decimal(hard)?;
            (decimal(soft)?, hard)
        }
        _ => return Err(ValueError::UlimitCount(limits.to_owned())),
    };
    match (soft, hard) {
        (_, -1) => {}
        (-1, hard) => return Err(ValueError::UlimitUnlimited(hard)),
        (soft, hard) if soft > hard => return Err(ValueError::UlimitOrder(soft, hard)),
        _ => {}
    }
    Ok(Ulimit { name: name.to_owned(), hard, soft })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions() {
        assert_eq!(nano_cpus("1.5"), Ok(1_500_000_000));
        assert_eq!(nano_cpus("1/4"), Ok(250_000_000));
        assert_eq!(nano_cpus("0.0000000001"), Err(ValueError::Precise));
        assert_eq!(nano_cpus("a").unwrap_err().to_string(), "failed to parse a as a rational number");
    }

    #[test]
    fn numbers_and_durations() {
        assert_eq!((int("0x10"), int("-3"), int("010")), (Ok(16), Ok(-3), Ok(8)));
        assert_eq!(int("x").unwrap_err().to_string(), "strconv.ParseInt: parsing \"x\": invalid syntax");
        assert!(int("99999999999999999999").unwrap_err().to_string().ends_with("value out of range"));
        assert_eq!(duration_nanos("1m30.5s"), Ok(90_500_000_000));
        assert_eq!(duration_nanos("-2ms"), Ok(-2_000_000));
        assert!(duration_nanos("5").is_err() && duration_nanos("").is_err());
    }

    #[test]
    fn limits() {
        assert_eq!(ulimit("nofile=1:2"), Ok(Ulimit { name: "nofile".into(), hard: 2, soft: 1 }));
        assert_eq!(ulimit("core=-1").map(|limit| limit.hard), Ok(-1));
        assert_eq!(ulimit("x").unwrap_err().to_string(), "invalid ulimit argument: x");
        for (text, sentence) in [
            ("foo=1", "invalid ulimit type: foo"),
            ("nofile=a:b", "strconv.ParseInt: parsing \"b\": invalid syntax"),
            ("core=99999999999999999999", "strconv.ParseInt: parsing \"99999999999999999999\": value out of range"),
            ("core=0:0:0", "too many limit value arguments - 0:0:0, can only have up to two, `soft[:hard]`"),
            ("core=-1:5", "ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: 5"),
            ("core=6:5", "ulimit soft limit must be less than or equal to hard limit: 6 > 5"),
        ] {
            assert_eq!(ulimit(text).unwrap_err().to_string(), sentence);
        }
    }
}
