//! The policy file.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::path::{Path, PathBuf};

use errdefs::ErrorKind;
use oci::{Reference, ReferenceError};
use serde::Deserialize;
use serde_json::Value;

use crate::base64;
use crate::identity::Identity;
use crate::key::{Key, KeyError};
use crate::scope;
use crate::unique::Unique;

/// Whom to believe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    default: Vec<Requirement>,
    /// By transport, by scope.
    transports: BTreeMap<String, BTreeMap<String, Vec<Requirement>>>,
    /// What stands in the file and is never asked, in sentences.
    idle: Vec<String>,
}

/// One thing that must hold of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing.
    Accept,
    /// Something impossible.
    Reject,
    /// Somebody signed it.
    Signed(SignedBy),
}

/// Who, and under which name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedBy {
    /// One of these keys made the signature.
    pub keys: Vec<Key>,
    /// What the signature calls the image.
    pub identity: Identity,
}

/// All that must hold of images of one name. Never empty.
#[derive(Clone, Copy, Debug)]
pub struct Requirements<'a> {
    /// What it says it of: a repository, a registry, or `default`.
    pub scope: &'a str,
    pub(crate) list: &'a [Requirement],
}

/// Why a policy cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It is no JSON, or of another form.
    #[error("parse the policy")]
    Json(#[from] serde_json::Error),
    /// Nothing is said of images that nothing else is said of.
    #[error("the policy has no default")]
    NoDefault,
    /// A list asks for nothing, which is more often a mistake than a wish.
    #[error("the requirements of {0} are empty: insecureAcceptAnything says that everything may come")]
    Empty(String),
    /// Two spellings of one registry: nobody knows which of them was meant.
    #[error("{scope} is said twice, in two spellings")]
    Twice {
        /// Of what.
        scope: String,
    },
    /// A requirement of that kind is not known.
    #[error("{scope}: requirements of type {kind:?} are not known")]
    Kind {
        /// Of what.
        scope: String,
        /// Which kind.
        kind: String,
    },
    /// We cannot check that.
    #[error("{scope}: {what} cannot be checked here: sigstoreSigned with keyPath or keyData can")]
    Unsupported {
        /// Of what.
        scope: String,
        /// What.
        what: &'static str,
    },
    /// There must be one of them.
    #[error("{scope}: sigstoreSigned wants exactly one of keyPath, keyPaths, keyData and keyDatas")]
    Keys {
        /// Of what.
        scope: String,
    },
    /// A file with a key cannot be read.
    #[error("{scope}: read the key {}", path.display())]
    Read {
        /// Of what.
        scope: String,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key in the file itself is no base64.
    #[error("{scope}: keyData is no base64")]
    Base64 {
        /// Of what.
        scope: String,
    },
    /// What should be a key is none.
    #[error("{scope}: read a key")]
    Key {
        /// Of what.
        scope: String,
        /// Why.
        source: KeyError,
    },
    /// What should be a name is none.
    #[error("{scope}: {text:?} is no name of an image")]
    Name {
        /// Of what.
        scope: String,
        /// What it says.
        text: String,
        /// Why.
        source: ReferenceError,
    },
}

impl PolicyError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    default: Vec<Value>,
    #[serde(default)]
    transports: BTreeMap<String, BTreeMap<String, Vec<Value>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bare {
    #[serde(rename = "type")]
    _kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Sigstore {
    #[serde(rename = "type")]
    _kind: String,
    key_path: Option<PathBuf>,
    key_paths: Option<Vec<PathBuf>>,
    key_data: Option<String>,
    key_datas: Option<Vec<String>>,
    fulcio: Option<Value>,
    pki: Option<Value>,
    rekor_public_key_path: Option<Value>,
    rekor_public_key_paths: Option<Value>,
    rekor_public_key_data: Option<Value>,
    rekor_public_key_datas: Option<Value>,
    signed_identity: Option<Named>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
enum Named {
    MatchExact {},
    MatchRepoDigestOrExact {},
    MatchRepository {},
    ExactReference { docker_reference: String },
    ExactRepository { docker_repository: String },
    RemapIdentity { prefix: String, signed_prefix: String },
}

/// How a file with a key is read.
pub(crate) type ReadKey<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// Transports that images come in by; what a policy says of others is about other programs.
const REGISTRY: &str = "docker";
const ARCHIVE: &str = "docker-archive";

/// Transports of other programs that read such a file (containers/image, transports): what is called otherwise is a typo.
const OTHERS: [&str; 10] = [
    "atomic",
    "containers-storage",
    "dir",
    "docker-daemon",
    "oci",
    "oci-archive",
    "openshift",
    "ostree",
    "sif",
    "tarball",
];

impl Policy {
    /// Reads a policy, and the keys that it names.
    pub fn parse(text: &[u8], read: ReadKey<'_>) -> Result<Policy, PolicyError> {
        // Of two equal keys the last would count, and whoever reads the file sees the first.
        serde_json::from_slice::<Unique>(text)?;
        let document: Document = serde_json::from_slice(text)?;
        if document.default.is_empty() {
            return Err(PolicyError::NoDefault);
        }
        let (mut transports, mut idle) = (BTreeMap::new(), Vec::new());
        for (name, scopes) in document.transports {
            if name != REGISTRY && name != ARCHIVE {
                if !OTHERS.contains(&name.as_str()) {
                    idle.push(format!("nothing comes by the transport {name:?}: is it {REGISTRY} or {ARCHIVE}?"));
                }
                continue;
            }
            let scopes = scopes_of(&name, scopes, read, &mut idle)?;
            transports.insert(name, scopes);
        }
        Ok(Policy { default: requirements("default", document.default, read)?, transports, idle })
    }

    /// What stands in the file and no image is ever asked for, in sentences: typos, mostly, which leave the default alone.
    pub fn idle(&self) -> &[String] {
        &self.idle
    }

    /// What must hold of an image that a registry gives for that name: what is said of the narrowest scope.
    pub fn of_registry(&self, reference: &Reference) -> Requirements<'_> {
        let Some(scopes) = self.transports.get(REGISTRY) else { return self.otherwise() };
        let said = scope::candidates(reference).into_iter().find_map(|scope| scopes.get_key_value(&scope));
        let said = said.or_else(|| scopes.get_key_value(""));
        said.map_or_else(|| self.otherwise(), |(scope, list)| named(scope, REGISTRY, list))
    }

    /// What must hold of images in an archive that is loaded.
    pub fn of_archive(&self) -> Requirements<'_> {
        let scopes = self.transports.get(ARCHIVE);
        let said = scopes.and_then(|scopes| scopes.get_key_value(""));
        said.map_or_else(|| self.otherwise(), |(scope, list)| named(scope, ARCHIVE, list))
    }

    fn otherwise(&self) -> Requirements<'_> {
        Requirements { scope: "default", list: &self.default }
    }
}

fn named<'a>(scope: &'a str, transport: &'a str, list: &'a [Requirement]) -> Requirements<'a> {
    Requirements { scope: if scope.is_empty() { transport } else { scope }, list }
}

impl Requirements<'_> {
    /// Whether it depends on signatures.
    pub fn wants_signatures(&self) -> bool {
        let rejected = self.list.contains(&Requirement::Reject);
        !rejected && self.list.iter().any(|requirement| matches!(requirement, Requirement::Signed(_)))
    }
}

/// What is said of each scope of a transport, under its one spelling.
fn scopes_of(
    transport: &str,
    scopes: BTreeMap<String, Vec<Value>>,
    read: ReadKey<'_>,
    idle: &mut Vec<String>,
) -> Result<BTreeMap<String, Vec<Requirement>>, PolicyError> {
    let mut all = BTreeMap::new();
    for (scope, list) in scopes {
        let shown = if scope.is_empty() { transport } else { &scope };
        let list = requirements(shown, list, read)?;
        let is_registry = transport == REGISTRY;
        let matches = if is_registry { scope::matches_something(&scope) } else { scope.is_empty() };
        if !matches {
            idle.push(format!("no image is of the scope {scope:?} of {transport}"));
        }
        match all.entry(if is_registry { scope::normal(&scope) } else { scope.clone() }) {
            Entry::Occupied(_) => return Err(PolicyError::Twice { scope }),
            Entry::Vacant(place) => place.insert(list),
        };
    }
    Ok(all)
}

fn requirements(scope: &str, list: Vec<Value>, read: ReadKey<'_>) -> Result<Vec<Requirement>, PolicyError> {
    if list.is_empty() {
        return Err(PolicyError::Empty(scope.to_owned()));
    }
    list.into_iter().map(|value| requirement(scope, value, read)).collect()
}

fn requirement(scope: &str, value: Value, read: ReadKey<'_>) -> Result<Requirement, PolicyError> {
    let kind = value.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    match kind.as_str() {
        "insecureAcceptAnything" => Ok(serde_json::from_value(value).map(|Bare { .. }| Requirement::Accept)?),
        "reject" => Ok(serde_json::from_value(value).map(|Bare { .. }| Requirement::Reject)?),
        "sigstoreSigned" => Ok(Requirement::Signed(signed_by(scope, serde_json::from_value(value)?, read)?)),
        "signedBy" => Err(PolicyError::Unsupported { scope: scope.to_owned(), what: "signedBy, a signature of GPG," }),
        _ => Err(PolicyError::Kind { scope: scope.to_owned(), kind }),
    }
}

fn signed_by(scope: &str, signed: Sigstore, read: ReadKey<'_>) -> Result<SignedBy, PolicyError> {
    let rekor = [
        &signed.rekor_public_key_path,
        &signed.rekor_public_key_paths,
        &signed.rekor_public_key_data,
        &signed.rekor_public_key_datas,
    ];
    let what = match () {
        () if signed.fulcio.is_some() => Some("fulcio"),
        () if signed.pki.is_some() => Some("pki"),
        () if rekor.iter().any(|key| key.is_some()) => Some("rekorPublicKey"),
        () => None,
    };
    if let Some(what) = what {
        return Err(PolicyError::Unsupported { scope: scope.to_owned(), what });
    }
    let from_file = |path: &PathBuf| {
        read(path).map_err(|source| PolicyError::Read { scope: scope.to_owned(), path: path.clone(), source })
    };
    let from_text = |text: &String| base64::decode(text).ok_or(PolicyError::Base64 { scope: scope.to_owned() });
    let pems: Result<Vec<Vec<u8>>, PolicyError> =
        match (&signed.key_path, &signed.key_paths, &signed.key_data, &signed.key_datas) {
            (Some(path), None, None, None) => [path].into_iter().map(from_file).collect(),
            (None, Some(paths), None, None) if !paths.is_empty() => paths.iter().map(from_file).collect(),
            (None, None, Some(text), None) => [text].into_iter().map(from_text).collect(),
            (None, None, None, Some(texts)) if !texts.is_empty() => texts.iter().map(from_text).collect(),
            _ => return Err(PolicyError::Keys { scope: scope.to_owned() }),
        };
    let keys = pems?.iter().map(|pem| Key::parse(pem)).collect::<Result<_, _>>();
    Ok(SignedBy {
        keys: keys.map_err(|source| PolicyError::Key { scope: scope.to_owned(), source })?,
        identity: signed
            .signed_identity
            .map_or(Ok(Identity::RepositoryDigestOrExact), |named| identity(scope, named))?,
    })
}

fn identity(scope: &str, named: Named) -> Result<Identity, PolicyError> {
    let name = |text: String| {
        let parsed: Result<Reference, _> = text.parse();
        parsed.map_err(|source| PolicyError::Name { scope: scope.to_owned(), text, source })
    };
    Ok(match named {
        Named::MatchExact {} => Identity::Exact,
        Named::MatchRepoDigestOrExact {} => Identity::RepositoryDigestOrExact,
        Named::MatchRepository {} => Identity::Repository,
        Named::ExactReference { docker_reference } => Identity::ExactReference(name(docker_reference)?),
        Named::ExactRepository { docker_repository } => Identity::ExactRepository(name(docker_repository)?),
        Named::RemapIdentity { prefix, signed_prefix } => Identity::Remap { prefix, signed_prefix },
    })
}

#[cfg(test)]
mod tests;
