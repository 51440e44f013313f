//! What `image bootstrap` will make, and of what.

use jiff::Timestamp;
use oci::image::{ArchiveManifest, ExecConfig, History, ImageConfig, Platform, RootFs};
use oci::{Digest, Reference, ReferenceError};

/// What the user wants.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    /// `debian:bookworm`.
    pub name: &'a str,
    /// Names of the image; none for that of the distribution.
    pub tags: &'a [String],
    /// Which packages.
    pub variant: &'a str,
    /// Further packages.
    pub include: &'a [String],
    /// Where packages are taken from; nothing for the distribution's own servers.
    pub mirrors: &'a [String],
    /// This machine's processor, as Rust calls it.
    pub processor: &'a str,
}

/// What is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// The names that the image gets, whole.
    pub references: Vec<String>,
    /// Files whose date is the date of the packages: the newest is that of the image.
    pub releases: Vec<String>,
    /// The keys that the packages are signed with.
    pub keyring: &'static str,
    /// The package that has these keys.
    pub keyring_package: &'static str,
    /// What mmdebstrap is told; it writes to its standard output.
    pub words: Vec<String>,
    /// How it was made, for the image's history.
    command: String,
    architecture: &'static str,
}

/// Why nothing can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// Of that one we do not know how.
    #[error("cannot bootstrap {0:?}: only debian and ubuntu are known, as in debian:bookworm or ubuntu:noble")]
    Distribution(String),
    /// The suite is not said.
    #[error("which suite of {distribution}? {distribution}:NAME, where NAME is one of {known}")]
    NoSuite {
        /// Of what.
        distribution: &'static str,
        /// Which there are.
        known: String,
    },
    /// There is none of that name.
    #[error("{distribution} has no suite {suite:?} that is known here: it is one of {known}")]
    Suite {
        /// Of what.
        distribution: &'static str,
        /// What was asked for.
        suite: String,
        /// Which there are.
        known: String,
    },
    /// There is none of that name.
    #[error("invalid variant {0:?}: it is one of apt, buildd, essential, important, minbase, slim, standard")]
    Variant(String),
    /// What is there for it is called otherwise.
    #[error("the name says slim, the variant {0:?}: say one of them")]
    SlimVariant(String),
    /// That is no package.
    #[error("invalid package name {0:?}")]
    Package(String),
    /// That is no place.
    #[error("invalid mirror {0:?}: a URL of http, https or file, or a line that begins with deb")]
    Mirror(String),
    /// There is no image of that name.
    #[error("invalid name {name:?}")]
    Name {
        /// Which one.
        name: String,
        /// Why.
        source: ReferenceError,
    },
    /// An image is named by a digest.
    #[error("refusing to create a tag with a digest reference")]
    Digest,
    /// The distribution does not run on it.
    #[error("there are no packages for the processor {0:?}")]
    Processor(String),
}

/// The variant that is made if none is said: what Docker Hub's images of these distributions are.
pub const VARIANT: &str = "minbase";

/// A distribution.
struct Distribution {
    name: &'static str,
    /// Suites, and the version that is another name for each.
    suites: &'static [(&'static str, &'static str)],
    keyring: &'static str,
    keyring_package: &'static str,
    components: &'static str,
}

const DISTRIBUTIONS: [Distribution; 2] = [
    Distribution {
        name: "debian",
        suites: &[
            ("bullseye", "11"),
            ("bookworm", "12"),
            ("trixie", "13"),
            ("forky", "14"),
            ("oldstable", ""),
            ("stable", ""),
            ("testing", ""),
            ("unstable", ""),
            ("sid", ""),
        ],
        keyring: "/usr/share/keyrings/debian-archive-keyring.gpg",
        keyring_package: "debian-archive-keyring",
        components: "main",
    },
    Distribution {
        name: "ubuntu",
        suites: &[
            ("focal", "20.04"),
            ("jammy", "22.04"),
            ("noble", "24.04"),
            ("questing", "25.10"),
            ("resolute", "26.04"),
        ],
        keyring: "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
        keyring_package: "ubuntu-keyring",
        components: "main universe",
    },
];

/// Variants of mmdebstrap that make an image which has a package manager's records.
const VARIANTS: [&str; 6] = ["apt", "buildd", "essential", "important", "minbase", "standard"];

/// What nobody reads in a container.
const UNREAD: [&str; 5] = ["doc", "man", "locale", "info", "lintian"];

/// mmdebstrap gives the chroot the names of this machine and its name servers: a container has its own, and no two machines
/// would make the same image.
const FORGET_HOST: &str = "--customize-hook=rm -f \"$1\"/etc/resolv.conf \"$1\"/etc/hostname";

/// Decides what is made.
pub fn plan(wish: &Wish<'_>) -> Result<Bootstrap, BootstrapError> {
    let (name, suite) = wish.name.split_once(':').unwrap_or((wish.name, ""));
    let distribution = DISTRIBUTIONS
        .iter()
        .find(|distribution| distribution.name == name)
        .ok_or_else(|| BootstrapError::Distribution(wish.name.to_owned()))?;
    let (suite, variant) = match (suite.strip_suffix("-slim"), wish.variant) {
        (Some(suite), "minbase" | "slim") => (suite, "slim"),
        (Some(_), other) => return Err(BootstrapError::SlimVariant(other.to_owned())),
        (None, variant) => (suite, variant),
    };
    let suite = distribution.suite(suite)?;
    if variant != "slim" && !VARIANTS.contains(&variant) {
        return Err(BootstrapError::Variant(variant.to_owned()));
    }
    if let Some(bad) = wish.include.iter().find(|package| !is_package(package)) {
        return Err(BootstrapError::Package(bad.clone()));
    }
    let architecture = architecture(wish.processor)?;
    let sources = distribution.sources(suite, architecture, wish.mirrors)?;
    Ok(Bootstrap {
        references: references(wish)?,
        releases: sources.iter().filter_map(|line| release(line)).collect(),
        keyring: distribution.keyring,
        keyring_package: distribution.keyring_package,
        words: words(suite, variant, wish.include, sources),
        command: command(distribution.name, suite, variant, wish.include),
        architecture,
    })
}

impl Distribution {
    fn suite(&self, wanted: &str) -> Result<&'static str, BootstrapError> {
        let known = || self.suites.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        if wanted.is_empty() {
            return Err(BootstrapError::NoSuite { distribution: self.name, known: known() });
        }
        let found = self.suites.iter().find(|(name, version)| *name == wanted || *version == wanted);
        let missing = || BootstrapError::Suite { distribution: self.name, suite: wanted.to_owned(), known: known() };
        found.map(|(name, _)| *name).ok_or_else(missing)
    }

    /// Lines for `sources.list`: the suite with its updates and what was mended in it, or the given mirrors alone.
    fn sources(&self, suite: &str, architecture: &str, mirrors: &[String]) -> Result<Vec<String>, BootstrapError> {
        let (signed, components) = (self.keyring, self.components);
        let line = |url: &str, suite: &str| format!("deb [signed-by={signed}] {url} {suite} {components}");
        if !mirrors.is_empty() {
            let given = mirrors.iter().map(|mirror| match mirror.as_str() {
                text if text.contains(char::is_control) => Err(BootstrapError::Mirror(mirror.clone())),
                text if text.starts_with("deb ") => Ok(text.to_owned()),
                url if is_url(url) => Ok(line(url, suite)),
                _ => Err(BootstrapError::Mirror(mirror.clone())),
            });
            return given.collect();
        }
        let (updates, security) = (format!("{suite}-updates"), format!("{suite}-security"));
        Ok(match (self.name, suite, architecture) {
            ("debian", "sid" | "unstable", _) => vec![line("http://deb.debian.org/debian", suite)],
            ("debian", ..) => vec![
                line("http://deb.debian.org/debian", suite),
                line("http://deb.debian.org/debian", &updates),
                line("http://deb.debian.org/debian-security", &security),
            ],
            (_, _, "amd64") => vec![
                line("http://archive.ubuntu.com/ubuntu", suite),
                line("http://archive.ubuntu.com/ubuntu", &updates),
                line("http://security.ubuntu.com/ubuntu", &security),
            ],
            _ => [suite, &updates, &security].map(|suite| line("http://ports.ubuntu.com/ubuntu-ports", suite)).to_vec(),
        })
    }
}

/// `deb-src`'s syntax policy: letters, digits, `+`, `-`, `.`; and `:arch`, `=version`, `/suite` as apt takes them.
fn is_package(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"+-.:=~/_".contains(&b);
    name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) && name.bytes().all(inner)
}

fn is_url(text: &str) -> bool {
    ["http://", "https://", "file:/", "copy:/"].iter().any(|scheme| text.starts_with(scheme)) && !text.contains(' ')
}

/// The signed list of everything that a line of `sources.list` stands for, which says when it was made.
fn release(line: &str) -> Option<String> {
    let rest = line.strip_prefix("deb ")?.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(options) => options.split_once(']')?.1,
        None => rest,
    };
    let mut parts = rest.split_whitespace();
    let (url, suite) = (parts.next()?.trim_end_matches('/'), parts.next()?);
    // A suite that ends in a slash is a directory, without more below it.
    Some(match suite.strip_suffix('/') {
        Some(directory) => format!("{url}/{directory}/InRelease").replace("/./", "/"),
        None => format!("{url}/dists/{suite}/InRelease"),
    })
}

fn words(suite: &str, variant: &str, include: &[String], sources: Vec<String>) -> Vec<String> {
    let base = if variant == "slim" { "minbase" } else { variant };
    let mut words = vec![format!("--variant={base}"), "--format=tar".to_owned()];
    // Containers have devices of their own.
    words.push("--skip=output/dev".to_owned());
    if variant == "slim" {
        words.extend(UNREAD.map(|unread| format!("--dpkgopt=path-exclude=/usr/share/{unread}/*")));
        // Licences ask to stay with what they are about.
        words.push("--dpkgopt=path-include=/usr/share/doc/*/copyright".to_owned());
    }
    if !include.is_empty() {
        words.push(format!("--include={}", include.join(",")));
    }
    words.extend([FORGET_HOST.to_owned(), suite.to_owned(), "-".to_owned()]);
    words.extend(sources);
    words
}

fn command(distribution: &str, suite: &str, variant: &str, include: &[String]) -> String {
    let mut text = format!("image bootstrap --variant={variant}");
    if !include.is_empty() {
        text = format!("{text} --include={}", include.join(","));
    }
    format!("{text} {distribution}:{suite}")
}

fn references(wish: &Wish<'_>) -> Result<Vec<String>, BootstrapError> {
    let own = [wish.name.to_owned()];
    let names = if wish.tags.is_empty() { &own[..] } else { wish.tags };
    let whole = names.iter().map(|name| {
        let reference: Reference =
            name.parse().map_err(|source| BootstrapError::Name { name: name.clone(), source })?;
        if reference.digest().is_some() {
            return Err(BootstrapError::Digest);
        }
        Ok(reference.with_default_tag().familiar())
    });
    whole.collect()
}

/// What Debian and Go both call it.
fn architecture(processor: &str) -> Result<&'static str, BootstrapError> {
    match processor {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        "riscv64" => Ok("riscv64"),
        "s390x" => Ok("s390x"),
        other => Err(BootstrapError::Processor(other.to_owned())),
    }
}

/// The `Date` of a list of packages, in seconds since 1970.
pub fn date_of(release: &str) -> Option<i64> {
    let text = release.lines().find_map(|line| line.strip_prefix("Date: "))?.trim();
    // Dates of archives end in `UTC`, which RFC 2822 does not know.
    let text = text.strip_suffix("UTC").map_or_else(|| text.to_owned(), |rest| format!("{rest}GMT"));
    jiff::fmt::rfc2822::parse(&text).ok().map(|date| date.timestamp().as_second())
}

impl Bootstrap {
    /// The image's configuration. Nothing in it comes from this machine or this moment.
    pub fn config(&self, layer: &Digest, epoch: i64) -> ImageConfig {
        let created = Timestamp::from_second(epoch).ok().map(|time| time.to_string());
        let step = History { created: created.clone(), created_by: self.command.clone(), ..History::default() };
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
        ImageConfig {
            platform: Platform {
                architecture: self.architecture.to_owned(),
                os: "linux".to_owned(),
                variant: if self.architecture == "arm64" { "v8".to_owned() } else { String::new() },
                ..Platform::default()
            },
            created,
            config: ExecConfig { env: Some(vec![path]), cmd: Some(vec!["bash".to_owned()]), ..ExecConfig::default() },
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![layer.clone()] },
            history: vec![step],
            ..ImageConfig::default()
        }
    }

    /// The archive's table of contents.
    pub fn manifest(&self, config: &Digest, layer: &Digest) -> ArchiveManifest {
        ArchiveManifest {
            config: config_path(config),
            repo_tags: Some(self.references.clone()),
            layers: vec![layer_path(layer)],
            parent: String::new(),
        }
    }
}

/// Where a configuration lies in an archive.
pub fn config_path(config: &Digest) -> String {
    format!("{}.json", config.hex())
}

/// Where a layer lies in an archive.
pub fn layer_path(layer: &Digest) -> String {
    format!("{}/layer.tar", layer.hex())
}

#[cfg(test)]
mod tests;
