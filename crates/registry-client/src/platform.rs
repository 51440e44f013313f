//! Which of an index's manifests is meant.

use oci::image::{Descriptor, Platform};

/// The platform that somebody wants, normalized as Go's programs do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted(pub Platform);

/// Why a text is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// More than three parts, or none.
    #[error("{text:?}: cannot parse platform specifier: invalid argument")]
    Parts {
        /// The text.
        text: String,
    },
    /// A part with characters that no part has.
    #[error(
        "{component:?} is an invalid component of {text:?}: platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument"
    )]
    Component {
        /// The part.
        component: String,
        /// The text.
        text: String,
    },
    /// A single part that is neither an operating system nor an architecture that we know.
    #[error("{text:?}: unknown operating system or architecture: invalid argument")]
    Unknown {
        /// The text.
        text: String,
    },
}

impl PlatformError {
    /// What a caller can do about it.
    pub fn kind(&self) -> errdefs::ErrorKind {
        errdefs::ErrorKind::InvalidArgument
    }
}

/// Architectures that a single part may name (containerd platforms/database.go, `isKnownArch`; those that Linux runs on).
const ARCHITECTURES: [&str; 14] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64",
    "s390x", "wasm",
];

/// Operating systems that a single part may name.
const SYSTEMS: [&str; 6] = ["darwin", "freebsd", "linux", "netbsd", "openbsd", "windows"];

impl Wanted {
    /// That of this machine.
    pub fn host() -> Wanted {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Wanted(Platform { os: "linux".into(), architecture: architecture.into(), ..Platform::default() }).normalized()
    }

    /// Its operating system.
    pub fn os(&self) -> &str {
        &self.0.os
    }

    /// `os`, `architecture`, `os/architecture` or `os/architecture/variant`.
    pub fn parse(text: &str) -> Result<Wanted, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        if parts.len() > 3 {
            return Err(PlatformError::Parts { text: text.to_owned() });
        }
        let is_part =
            |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if let Some(bad) = parts.iter().find(|part| !is_part(part)) {
            return Err(PlatformError::Component { component: (*bad).to_owned(), text: text.to_owned() });
        }
        let host = Wanted::host().0;
        let part = |index: usize| parts.get(index).map(|part| part.to_ascii_lowercase()).unwrap_or_default();
        if let [only] = parts[..] {
            let only = system(&only.to_ascii_lowercase()).to_owned();
            let platform = match () {
                () if SYSTEMS.contains(&&only[..]) => Platform { os: only, ..host },
                () => {
                    let one = Platform { os: "linux".into(), architecture: only, ..Platform::default() };
                    let one = Wanted(one).normalized().0;
                    if !ARCHITECTURES.contains(&&one.architecture[..]) {
                        return Err(PlatformError::Unknown { text: text.to_owned() });
                    }
                    one
                }
            };
            return Ok(Wanted(platform));
        }
        let os = system(&part(0)).to_owned();
        Ok(Wanted(Platform { os, architecture: part(1), variant: part(2), ..Platform::default() }).normalized())
    }

    fn normalized(self) -> Wanted {
        let (architecture, variant) = processor(&self.0.architecture, &self.0.variant);
        Wanted(Platform { architecture, variant, ..self.0 })
    }

    /// Platforms that can run what is wanted, the best one first (containerd platforms/compare.go, `platformVector`).
    fn accepted(&self) -> Vec<Platform> {
        let with = |architecture: &str, variant: &str| Platform {
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            ..self.0.clone()
        };
        let mut accepted = vec![self.0.clone()];
        let number =
            |default| self.0.variant.strip_prefix('v').map_or(Some(default), |digits| digits.parse::<u32>().ok());
        match &self.0.architecture[..] {
            "amd64" => {
                let level = number(1).unwrap_or(1).min(9);
                accepted.extend((2..level).rev().map(|level| with("amd64", &format!("v{level}"))));
                if level > 1 {
                    accepted.push(with("amd64", ""));
                }
                accepted.push(with("386", ""));
            }
            "arm" => {
                let level = number(7).unwrap_or(7).min(9);
                accepted.extend((5..level).rev().map(|level| with("arm", &format!("v{level}"))));
            }
            "arm64" => {
                if !self.0.variant.is_empty() {
                    accepted.push(with("arm64", ""));
                }
                accepted.extend([8, 7, 6, 5].map(|level| with("arm", &format!("v{level}"))));
            }
            _ => {}
        }
        accepted
    }

    /// The manifests that fit, the best one first; among equals the order of the index.
    pub fn choose<'a>(&self, manifests: &'a [Descriptor]) -> Vec<&'a Descriptor> {
        let accepted = self.accepted();
        let rank = |descriptor: &Descriptor| {
            let platform = Wanted(descriptor.platform.clone()?).normalized().0;
            accepted.iter().position(|one| {
                one.os == platform.os && one.architecture == platform.architecture && one.variant == platform.variant
            })
        };
        let mut ranked: Vec<_> = manifests.iter().filter_map(|one| Some((rank(one)?, one))).collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, one)| one).collect()
    }
}

/// One architecture and variant for all names of a processor, and no variant for its first one (containerd
/// platforms/database.go, `normalizeArch`).
pub fn processor(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = (architecture.to_lowercase(), variant.to_lowercase());
    let (architecture, variant) = match (&architecture[..], &variant[..]) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.0.os, self.0.architecture)?;
        match &self.0.variant[..] {
            "" => Ok(()),
            variant => write!(f, "/{variant}"),
        }
    }
}

/// One name per operating system.
fn system(text: &str) -> &str {
    match text {
        "macos" => "darwin",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[&str]) -> Vec<Descriptor> {
        let descriptor = |(number, text): (usize, &&str)| {
            let mut parts = text.split('/').map(str::to_owned);
            let mut part = || parts.next().unwrap_or_default();
            Descriptor {
                media_type: String::new(),
                digest: format!("sha256:{number:064x}").parse().unwrap(),
                size: 0,
                annotations: Default::default(),
                platform: Some(Platform { os: part(), architecture: part(), variant: part(), ..Default::default() }),
            }
        };
        platforms.iter().enumerate().map(descriptor).collect()
    }

    #[test]
    fn the_best_manifest_comes_first() {
        for (wanted, offered, expected) in [
            ("linux/amd64", &["linux/arm64", "linux/amd64"][..], &[1][..]),
            ("linux/amd64", &["linux/386", "linux/amd64", "windows/amd64"], &[1, 0]),
            ("linux/amd64", &["linux/amd64/v3", "linux/amd64/v1"], &[1]),
            ("linux/amd64/v3", &["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], &[1, 0]),
            ("linux/arm64", &["linux/arm/v6", "linux/arm64/v8", "linux/arm/v7"], &[1, 2, 0]),
            ("linux/arm64/v8", &["linux/arm64"], &[0]),
            ("linux/arm/v7", &["linux/arm/v6", "linux/arm/v7", "linux/arm64"], &[1, 0]),
            ("linux/arm", &["linux/arm"], &[0]),
            ("linux/s390x", &["linux/amd64"], &[]),
            ("aarch64", &["linux/arm64"], &[0]),
            ("linux/x86_64", &["unknown/unknown", "linux/amd64"], &[1]),
        ] {
            let manifests = index(offered);
            let chosen: Vec<usize> = Wanted::parse(wanted)
                .unwrap()
                .choose(&manifests)
                .into_iter()
                .map(|one| manifests.iter().position(|other| other == one).unwrap())
                .collect();
            assert_eq!(chosen, expected, "{wanted} of {offered:?}");
        }
    }

    #[test]
    fn texts_are_printed_in_their_normal_form() {
        for (text, normal) in [
            ("linux/arm64/v8", "linux/arm64"),
            ("LINUX/AMD64", "linux/amd64"),
            ("linux/armhf", "linux/arm/v7"),
            ("macos/arm64", "darwin/arm64"),
            ("s390x", "linux/s390x"),
        ] {
            assert_eq!(Wanted::parse(text).unwrap().to_string(), normal, "{text}");
        }
        assert_eq!(
            Wanted::parse("bad/x/y/z").unwrap_err().to_string(),
            "\"bad/x/y/z\": cannot parse platform specifier: invalid argument"
        );
        for bad in ["", "linux/", "a b/c", "nonsense"] {
            assert!(Wanted::parse(bad).is_err(), "{bad}");
        }
    }
}
