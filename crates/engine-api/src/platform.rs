//! Platforms as clients write them: `os`, `architecture`, `os/architecture[/variant]` (containerd `platforms.Parse`).

pub use oci::image::Platform;

/// Why a text names no platform. The texts are containerd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// A pattern.
    #[error("{0:?}: wildcards not yet supported: invalid argument")]
    Wildcard(String),
    /// The first part has characters that no system's name has.
    #[error(
        "{part:?} is an invalid OS component of {text:?}: OSAndVersion specifier component must match {OS:?}: invalid argument"
    )]
    System {
        /// The part.
        part: String,
        /// All of it.
        text: String,
    },
    /// Another part has characters that it must not have.
    #[error(
        "{part:?} is an invalid component of {text:?}: platform specifier component must match {COMPONENT:?}: invalid argument"
    )]
    Component {
        /// The part.
        part: String,
        /// All of it.
        text: String,
    },
    /// One word that is neither.
    #[error("{0:?}: unknown operating system or architecture: invalid argument")]
    Unknown(String),
    /// More than three parts.
    #[error("{0:?}: cannot parse platform specifier: invalid argument")]
    TooLong(String),
}

impl PlatformError {
    /// Always the caller's mistake.
    pub fn kind(&self) -> errdefs::ErrorKind {
        errdefs::ErrorKind::InvalidArgument
    }
}

/// Why a document describes no platform. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum PlatformJsonError {
    /// It is no JSON.
    #[error("failed to parse platform")]
    Syntax(#[from] crate::json::CompactError),
    /// It is other JSON.
    #[error("failed to parse platform")]
    Type(#[from] serde_json::Error),
    /// It says what comes after the first two parts.
    #[error("optional platform fields provided, but OS and Architecture are missing")]
    OnlyOptional,
    /// It lacks one of them.
    #[error("both OS and Architecture must be provided")]
    Incomplete,
}

/// A platform as requests carry it: the JSON of the OCI's type.
pub fn from_json(text: &[u8]) -> Result<Platform, PlatformJsonError> {
    // A list of values would do for a struct, too.
    let fields: serde_json::Map<_, _> = serde_json::from_slice(&crate::json::compact(text)?)?;
    let platform: Platform = serde_json::from_value(fields.into())?;
    match (platform.os.is_empty(), platform.architecture.is_empty()) {
        (false, false) => Ok(platform),
        (true, true) if !platform.variant.is_empty() || !platform.os_version.is_empty() => {
            Err(PlatformJsonError::OnlyOptional)
        }
        _ => Err(PlatformJsonError::Incomplete),
    }
}

/// What the first part must match, as containerd tells it.
const OS: &str = r"^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?$";
/// What the other parts must match.
const COMPONENT: &str = r"^[A-Za-z0-9_.-]+$";

/// Go's systems.
const SYSTEMS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "macos",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];
/// Go's architectures, and other names of them.
const ARCHITECTURES: &[&str] = &[
    "386",
    "aarch64",
    "amd64",
    "amd64p32",
    "arm",
    "arm64",
    "arm64be",
    "armbe",
    "armel",
    "armhf",
    "i386",
    "loong64",
    "mips",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "mipsle",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
    "x86-64",
    "x86_64",
];

/// Checks a platform, and puts the system before a lone architecture.
pub fn parse(text: &str) -> Result<String, PlatformError> {
    if text.contains('*') {
        return Err(PlatformError::Wildcard(text.to_owned()));
    }
    let parts: Vec<&str> = text.splitn(4, '/').collect();
    check_parts(text, &parts)?;
    let lower = parts[0].to_ascii_lowercase();
    match parts.len() {
        1 if SYSTEMS.contains(&system_name(&lower)) => Ok(text.to_owned()),
        1 if ARCHITECTURES.contains(&lower.as_str()) => Ok(format!("linux/{text}")),
        1 => Err(PlatformError::Unknown(text.to_owned())),
        2 | 3 => Ok(text.to_owned()),
        _ => Err(PlatformError::TooLong(text.to_owned())),
    }
}

fn check_parts(text: &str, parts: &[&str]) -> Result<(), PlatformError> {
    for (index, part) in parts.iter().enumerate() {
        let (part, text) = ((*part).to_owned(), text.to_owned());
        match index {
            0 if !is_system(&part) => return Err(PlatformError::System { part, text }),
            1.. if !is_word(&part, "_.-") => return Err(PlatformError::Component { part, text }),
            _ => {}
        }
    }
    Ok(())
}

/// The name of a system without the version that may stand in brackets behind it.
fn system_name(part: &str) -> &str {
    part.split_once('(').map_or(part, |(name, _)| name)
}

/// Whether a text matches [`OS`].
fn is_system(part: &str) -> bool {
    let Some((name, version)) = part.split_once('(') else { return is_word(part, "_-") };
    let Some(version) = version.strip_suffix(')') else { return false };
    let (version, features) = version.split_once('+').map_or((version, None), |(version, rest)| (version, Some(rest)));
    let well_formed = |features: &str| features.split('+').all(|feature| is_word(feature, "_.%-"));
    is_word(name, "_-") && (version.is_empty() || is_word(version, "_.%-")) && features.is_none_or(well_formed)
}

fn is_word(text: &str, more: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_of_requests_are_complete() {
        let told = |text: &str| from_json(text.as_bytes()).map(|one| one.variant).map_err(|err| errdefs::chain(&err));
        let incomplete = Err("both OS and Architecture must be provided".to_owned());
        let only = Err("optional platform fields provided, but OS and Architecture are missing".to_owned());
        assert_eq!(told(r#"{"os":"linux","architecture":"arm","variant":"v7"}"#), Ok("v7".to_owned()));
        assert_eq!(told("{}"), incomplete);
        assert_eq!(told(r#"{"os":"linux","variant":"v7"}"#), incomplete);
        assert_eq!(told(r#"{"variant":"v7"}"#), only);
        let syntax = "failed to parse platform: invalid character 'l' looking for beginning of value";
        assert_eq!(told("linux/arm64"), Err(syntax.to_owned()));
        assert!(told("[]").unwrap_err().starts_with("failed to parse platform: "));
    }

    #[test]
    fn platforms_are_checked_as_containerd_checks_them() {
        for good in ["linux", "linux/foo", "linux/arm64/v8", "LINUX/AMD64", "windows", "linux(x)/amd64", "linux(1+a+b)"]
        {
            assert_eq!(parse(good).as_deref(), Ok(good));
        }
        assert_eq!(parse("x86_64").as_deref(), Ok("linux/x86_64"));
        for (bad, told) in [
            ("foo", r#""foo": unknown operating system or architecture: invalid argument"#),
            ("a/b/c/d", r#""a/b/c/d": cannot parse platform specifier: invalid argument"#),
            (
                "linux/",
                r#""" is an invalid component of "linux/": platform specifier component must match "^[A-Za-z0-9_.-]+$": invalid argument"#,
            ),
            (
                "a b",
                r#""a b" is an invalid OS component of "a b": OSAndVersion specifier component must match "^([A-Za-z0-9_-]+)(?:\\(([A-Za-z0-9_.%-]*)((?:\\+[A-Za-z0-9_.%-]+)*)\\))?$": invalid argument"#,
            ),
        ] {
            assert_eq!(parse(bad).unwrap_err().to_string(), told);
        }
    }
}
