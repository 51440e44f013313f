//! Where a build finds what others built, and where it leaves what it built: buildx's `--cache-from` and `--cache-to`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use errdefs::ErrorKind;
use oci::Digest;

/// Where steps may be known already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheFrom {
    /// Where that is.
    pub source: CacheSource,
    /// What commands keep that comes from there, too.
    pub mounts: CacheMounts,
}

/// Which caches of commands (`RUN --mount=type=cache`) go and come with a cache of steps: ours alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CacheMounts {
    /// None: they may be private.
    #[default]
    None,
    /// All of the build's.
    All,
    /// Those of these names.
    Named(BTreeSet<String>),
}

impl CacheMounts {
    /// `true`, `false`, or names between commas or semicolons; those without a slash in front mean the same.
    fn parse(text: &str) -> CacheMounts {
        match text {
            "" | "false" | "0" => CacheMounts::None,
            "true" | "1" => CacheMounts::All,
            names => {
                let names = names.split([',', ';']).filter(|name| !name.is_empty());
                CacheMounts::Named(names.map(|name| name.trim_start_matches('/').to_owned()).collect())
            }
        }
    }

    /// Whether a cache of that name is one.
    pub fn has(&self, name: &str) -> bool {
        match self {
            CacheMounts::None => false,
            CacheMounts::All => true,
            CacheMounts::Named(names) => names.contains(name.trim_start_matches('/')),
        }
    }
}

/// Where a cache may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheSource {
    /// An image, here or in its registry, or a cache in a registry.
    Any(String),
    /// Whatever a registry has by that name.
    Registry(String),
    /// A directory of the client's.
    Local {
        /// The client's name for it.
        directory: String,
        /// The manifest in it.
        digest: Digest,
    },
}

/// Where it is left what steps came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheTo {
    /// Where that is.
    pub place: CachePlace,
    /// Whether steps count of stages that are in no image (`mode=max`).
    pub all_stages: bool,
    /// Whether the build is good without it.
    pub ignore_error: bool,
    /// What commands keep that goes there, too.
    pub mounts: CacheMounts,
}

/// A place for a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CachePlace {
    /// A name in a registry.
    Registry(String),
    /// A directory of the client's, by the client's name for it.
    Local(String),
}

impl fmt::Display for CachePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CachePlace::Registry(name) | CachePlace::Local(name) => f.write_str(name),
        }
    }
}

/// What was asked for is not to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CacheOptionError {
    /// It is no list of keys and values.
    #[error("invalid value {0}")]
    Field(String),
    /// It has no type.
    #[error("type required form> \"{0}\"")]
    NoType(String),
    /// It has no name.
    #[error("no ref found in {0:?}")]
    NoName(String),
    /// A directory is not named. BuildKit's sentences.
    #[error("local cache {0}")]
    NoDirectory(&'static str),
    /// A key has no such value.
    #[error("invalid {key} {value:?}")]
    Value {
        /// Which one.
        key: &'static str,
        /// What it was given.
        value: String,
    },
    /// There is no such compression. BuildKit's sentence.
    #[error("unsupported compression type {0}")]
    Compression(String),
    /// There is no such cache here.
    #[error("a cache of type {0} is not supported yet")]
    Type(String),
}

impl CacheOptionError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CacheOptionError::Type(_) => ErrorKind::NotImplemented,
            _ => ErrorKind::InvalidArgument,
        }
    }
}

/// Fields of an option that count.
#[derive(Default)]
struct Fields<'a> {
    kind: &'a str,
    name: &'a str,
    source: &'a str,
    destination: &'a str,
    digest: &'a str,
    mode: &'a str,
    ignore_error: &'a str,
    compression: &'a str,
    mounts: &'a str,
}

impl<'a> Fields<'a> {
    fn parse(text: &'a str) -> Result<Fields<'a>, CacheOptionError> {
        let mut fields = Fields::default();
        for field in text.split(',') {
            let (key, value) = field.split_once('=').ok_or_else(|| CacheOptionError::Field(field.to_owned()))?;
            fields.set(key, value);
        }
        fields.checked(text)
    }

    fn of(kind: &'a str, attributes: &'a BTreeMap<String, String>) -> Result<Fields<'a>, CacheOptionError> {
        let mut fields = Fields { kind, ..Fields::default() };
        attributes.iter().for_each(|(key, value)| fields.set(key, value));
        fields.checked(kind)
    }

    fn set(&mut self, key: &str, value: &'a str) {
        match key.trim().to_lowercase().as_str() {
            "type" => self.kind = value,
            "ref" => self.name = value,
            "src" => self.source = value,
            "dest" => self.destination = value,
            "digest" => self.digest = value,
            "compression" => self.compression = value,
            "mounts" => self.mounts = value,
            "mode" => self.mode = value,
            "ignore-error" => self.ignore_error = value,
            // What says how a registry is reached or how layers are packed is the daemon's to know.
            _ => {}
        }
    }

    fn checked(self, text: &str) -> Result<Fields<'a>, CacheOptionError> {
        match self.kind {
            "" => Err(CacheOptionError::NoType(text.to_owned())),
            "registry" if self.name.is_empty() => Err(CacheOptionError::NoName(text.to_owned())),
            "registry" | "inline" | "local" => Ok(self),
            other => Err(CacheOptionError::Type(other.to_owned())),
        }
    }
}

impl CacheFrom {
    /// Reads what BuildKit's clients send.
    pub fn of(kind: &str, attributes: &BTreeMap<String, String>) -> Result<CacheFrom, CacheOptionError> {
        CacheFrom::from_fields(&Fields::of(kind, attributes)?)
    }

    fn from_fields(fields: &Fields<'_>) -> Result<CacheFrom, CacheOptionError> {
        let source = match fields.kind {
            "registry" => Ok(CacheSource::Registry(fields.name.to_owned())),
            "local" if fields.digest.is_empty() => {
                Err(CacheOptionError::NoDirectory("importer requires explicit digest"))
            }
            "local" if fields.source.is_empty() => Err(CacheOptionError::NoDirectory("importer requires src")),
            "local" => {
                let digest = fields.digest.parse();
                let digest = digest.map_err(|_| value_error("digest", fields.digest))?;
                Ok(CacheSource::Local { directory: fields.source.to_owned(), digest })
            }
            other => Err(CacheOptionError::Type(other.to_owned())),
        };
        Ok(CacheFrom { source: source?, mounts: CacheMounts::parse(fields.mounts) })
    }

    /// Reads `NAME`, `type=registry,ref=NAME` or `type=local,src=DIRECTORY,digest=DIGEST`.
    pub fn parse(text: &str) -> Result<CacheFrom, CacheOptionError> {
        if !text.contains('=') {
            return Ok(CacheFrom { source: CacheSource::Any(text.to_owned()), mounts: CacheMounts::None });
        }
        CacheFrom::from_fields(&Fields::parse(text)?)
    }

    /// The name.
    pub fn name(&self) -> &str {
        match &self.source {
            CacheSource::Any(name) | CacheSource::Registry(name) => name,
            CacheSource::Local { directory, .. } => directory,
        }
    }
}

impl CacheTo {
    /// Reads `NAME`, `type=registry,ref=NAME[,mode=max]`, `type=local,dest=DIRECTORY[,mode=max]`, or `type=inline`, for which
    /// there is nothing to do: every image says how it was built.
    pub fn parse(text: &str) -> Result<Option<CacheTo>, CacheOptionError> {
        if !text.contains('=') {
            let place = CachePlace::Registry(text.to_owned());
            let mounts = CacheMounts::None;
            return Ok(Some(CacheTo { place, all_stages: false, ignore_error: false, mounts }));
        }
        CacheTo::from_fields(&Fields::parse(text)?)
    }

    /// Reads what BuildKit's clients send.
    pub fn of(kind: &str, attributes: &BTreeMap<String, String>) -> Result<Option<CacheTo>, CacheOptionError> {
        CacheTo::from_fields(&Fields::of(kind, attributes)?)
    }

    fn from_fields(fields: &Fields<'_>) -> Result<Option<CacheTo>, CacheOptionError> {
        if fields.kind == "inline" {
            return Ok(None);
        }
        let place = match fields.kind {
            "local" if fields.destination.is_empty() => {
                return Err(CacheOptionError::NoDirectory("exporter requires dest"));
            }
            "local" => CachePlace::Local(fields.destination.to_owned()),
            _ => CachePlace::Registry(fields.name.to_owned()),
        };
        let all_stages = match fields.mode {
            "" | "min" => false,
            "max" => true,
            other => return Err(value_error("mode", other)),
        };
        let ignore_error = match fields.ignore_error {
            "" | "false" | "0" => false,
            "true" | "1" => true,
            other => return Err(value_error("ignore-error", other)),
        };
        // Layers go as they are kept or sent anyhow; what is no compression is a mistake all the same.
        match fields.compression {
            "" | "uncompressed" | "gzip" | "estargz" | "zstd" => {}
            other => return Err(CacheOptionError::Compression(other.to_owned())),
        }
        Ok(Some(CacheTo { place, all_stages, ignore_error, mounts: CacheMounts::parse(fields.mounts) }))
    }
}

fn value_error(key: &'static str, value: &str) -> CacheOptionError {
    CacheOptionError::Value { key, value: value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_named_as_with_buildx() {
        let digest = Digest::from_sha256(&[1; 32]);
        let from = |source| Ok(CacheFrom { source, mounts: CacheMounts::None });
        for (text, wanted) in [
            ("a/b:c", from(CacheSource::Any("a/b:c".into()))),
            ("type=registry,ref=h:1/r", from(CacheSource::Registry("h:1/r".into()))),
            ("ref=r,Type=registry,compression=zstd", from(CacheSource::Registry("r".into()))),
            ("type=registry", Err("no ref found in \"type=registry\"")),
            ("ref=a", Err("type required form> \"ref=a\"")),
            ("type=registry,ref", Err("invalid value ref")),
            ("type=gha,url=x", Err("a cache of type gha is not supported yet")),
            (
                &format!("type=local,src=a/b,tag=x,digest={digest}"),
                from(CacheSource::Local { directory: "a/b".into(), digest: digest.clone() }),
            ),
            ("type=local,src=a", Err("local cache importer requires explicit digest")),
            ("type=local,src=a,digest=x", Err("invalid digest \"x\"")),
            (&format!("type=local,digest={digest}"), Err("local cache importer requires src")),
            ("type=inline", Err("a cache of type inline is not supported yet")),
        ] {
            assert_eq!(CacheFrom::parse(text).map_err(|err| err.to_string()), wanted.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn caches_are_left_as_with_buildx() {
        let to = |name: &str, all_stages, ignore_error| {
            let mounts = CacheMounts::None;
            Ok(Some(CacheTo { place: CachePlace::Registry(name.into()), all_stages, ignore_error, mounts }))
        };
        let local = |name: &str, all_stages| {
            let mounts = CacheMounts::None;
            Ok(Some(CacheTo { place: CachePlace::Local(name.into()), all_stages, ignore_error: false, mounts }))
        };
        for (text, wanted) in [
            ("a:b", to("a:b", false, false)),
            ("type=registry,ref=a", to("a", false, false)),
            ("type=registry,ref=a,mode=max,ignore-error=true", to("a", true, true)),
            ("type=inline", Ok(None)),
            ("type=registry,ref=a,mode=most", Err("invalid mode \"most\"")),
            ("type=registry,ref=a,ignore-error=x", Err("invalid ignore-error \"x\"")),
            ("type=local,dest=x", local("x", false)),
            ("type=local,dest=x/y,mode=max,compression=zstd,force-compression=true", local("x/y", true)),
            ("type=local", Err("local cache exporter requires dest")),
            ("type=local,dest=x,compression=lzma", Err("unsupported compression type lzma")),
            ("type=s3", Err("a cache of type s3 is not supported yet")),
        ] {
            assert_eq!(CacheTo::parse(text).map_err(|err| err.to_string()), wanted.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn caches_of_commands_go_where_that_is_wanted_alone() {
        let wanted = |text: &str| {
            let mounts = CacheTo::parse(&format!("type=local,dest=x{text}")).unwrap().unwrap().mounts;
            ["/root/.cache", "go", "other"].map(|name| mounts.has(name))
        };
        assert_eq!(wanted(""), [false; 3]);
        assert_eq!(wanted(",mounts=false"), [false; 3]);
        assert_eq!(wanted(",mounts=true"), [true; 3]);
        assert_eq!(wanted(",mounts=/root/.cache;go"), [true, true, false]);
        assert_eq!(wanted(",mounts=root/.cache"), [true, false, false]);
        // As buildx reads a field in quotes.
        assert!(CacheMounts::parse("a,b").has("b"));
        assert!(CacheFrom::parse("type=registry,ref=a,mounts=true").unwrap().mounts.has("x"));
    }
}
