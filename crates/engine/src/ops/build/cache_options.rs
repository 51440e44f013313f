//! Where a build finds what others built, and where it leaves what it built: buildx's `--cache-from` and `--cache-to`.

use std::collections::BTreeMap;

use errdefs::ErrorKind;

/// Where steps may be known already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheFrom {
    /// An image, here or in its registry, or a cache in a registry.
    Any(String),
    /// Whatever a registry has by that name.
    Registry(String),
}

/// Where it is left what steps came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheTo {
    /// The name in a registry.
    pub name: String,
    /// Whether steps count of stages that are in no image (`mode=max`).
    pub all_stages: bool,
    /// Whether the build is good without it.
    pub ignore_error: bool,
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
    /// A key has no such value.
    #[error("invalid {key} {value:?}")]
    Value {
        /// Which one.
        key: &'static str,
        /// What it was given.
        value: String,
    },
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
    mode: &'a str,
    ignore_error: &'a str,
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
            "registry" | "inline" => Ok(self),
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
        match fields.kind {
            "registry" => Ok(CacheFrom::Registry(fields.name.to_owned())),
            other => Err(CacheOptionError::Type(other.to_owned())),
        }
    }

    /// Reads `NAME` or `type=registry,ref=NAME`.
    pub fn parse(text: &str) -> Result<CacheFrom, CacheOptionError> {
        if !text.contains('=') {
            return Ok(CacheFrom::Any(text.to_owned()));
        }
        CacheFrom::from_fields(&Fields::parse(text)?)
    }

    /// The name.
    pub fn name(&self) -> &str {
        match self {
            CacheFrom::Any(name) | CacheFrom::Registry(name) => name,
        }
    }
}

impl CacheTo {
    /// Reads `NAME`, `type=registry,ref=NAME[,mode=max]`, or `type=inline`, for which there is nothing to do: every image says
    /// how it was built.
    pub fn parse(text: &str) -> Result<Option<CacheTo>, CacheOptionError> {
        if !text.contains('=') {
            return Ok(Some(CacheTo { name: text.to_owned(), all_stages: false, ignore_error: false }));
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
        let all_stages = match fields.mode {
            "" | "min" => false,
            "max" => true,
            other => return Err(CacheOptionError::Value { key: "mode", value: other.to_owned() }),
        };
        let ignore_error = match fields.ignore_error {
            "" | "false" | "0" => false,
            "true" | "1" => true,
            other => return Err(CacheOptionError::Value { key: "ignore-error", value: other.to_owned() }),
        };
        Ok(Some(CacheTo { name: fields.name.to_owned(), all_stages, ignore_error }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_named_as_with_buildx() {
        for (text, wanted) in [
            ("a/b:c", Ok(CacheFrom::Any("a/b:c".into()))),
            ("type=registry,ref=h:1/r", Ok(CacheFrom::Registry("h:1/r".into()))),
            ("ref=r,Type=registry,compression=zstd", Ok(CacheFrom::Registry("r".into()))),
            ("type=registry", Err("no ref found in \"type=registry\"")),
            ("ref=a", Err("type required form> \"ref=a\"")),
            ("type=registry,ref", Err("invalid value ref")),
            ("type=gha,url=x", Err("a cache of type gha is not supported yet")),
            ("type=inline", Err("a cache of type inline is not supported yet")),
        ] {
            assert_eq!(CacheFrom::parse(text).map_err(|err| err.to_string()), wanted.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn caches_are_left_as_with_buildx() {
        let to =
            |name: &str, all_stages, ignore_error| Ok(Some(CacheTo { name: name.into(), all_stages, ignore_error }));
        for (text, wanted) in [
            ("a:b", to("a:b", false, false)),
            ("type=registry,ref=a", to("a", false, false)),
            ("type=registry,ref=a,mode=max,ignore-error=true", to("a", true, true)),
            ("type=inline", Ok(None)),
            ("type=registry,ref=a,mode=most", Err("invalid mode \"most\"")),
            ("type=registry,ref=a,ignore-error=x", Err("invalid ignore-error \"x\"")),
            ("type=local,dest=x", Err("a cache of type local is not supported yet")),
        ] {
            assert_eq!(CacheTo::parse(text).map_err(|err| err.to_string()), wanted.map_err(str::to_owned), "{text}");
        }
    }
}
