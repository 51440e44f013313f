//! What somebody signed.

use errdefs::ErrorKind;
use oci::{Digest, Reference};
use serde::Deserialize;
use serde_json::Value;

use crate::base64;
use crate::policy::{Requirement, Requirements, SignedBy};

/// The longest payload that is read; cosign's are about 300 bytes.
const PAYLOAD_MAX: usize = 64 << 10;

/// The longest signature in base64 that is looked at; those of our algorithms are about 100 bytes.
const SIGNATURE_MAX: usize = 1 << 10;

/// How many signatures of an image are looked at, so that nobody makes us compute for ever.
const SIGNATURES_MAX: usize = 64;

/// What a payload of cosign that is about an image has as its `type`; containers/image's sigstore signatures have it, too. GPG's
/// have another, and were made by somebody who meant another kind of key.
const TYPE: &str = "cosign container image signature";

/// A signature as a registry gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// What was signed, byte for byte.
    pub payload: Vec<u8>,
    /// The signature in base64.
    pub signature: String,
}

/// Why one signature does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// It is longer than signatures are.
    #[error("longer than signatures are")]
    TooLong,
    /// It is no base64.
    #[error("no base64")]
    Base64,
    /// None of the keys made it.
    #[error("made with none of the trusted keys")]
    Key,
    /// What was signed is no statement about an image.
    #[error("no statement about an image")]
    Payload,
    /// It is about another image.
    #[error("made for {0}")]
    Digest(String),
    /// It is about another name.
    #[error("made for the name {0:?}")]
    Identity(String),
}

/// Why an image may not come in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The policy allows none of that name.
    #[error("it rejects all of {scope}")]
    Rejected {
        /// What the policy says it of.
        scope: String,
    },
    /// It must be signed and is not.
    #[error("it wants a signature for {scope}, and there is none")]
    NoSignature {
        /// What the policy says it of.
        scope: String,
    },
    /// None of its signatures counts.
    #[error("it accepts none of {count} signatures for {scope}; of the first it says")]
    NoGoodSignature {
        /// What the policy says it of.
        scope: String,
        /// How many there are.
        count: usize,
        /// Why the first of them does not count.
        #[source]
        source: SignatureError,
    },
    /// There are so many that whoever made them means no good.
    #[error("there are {0} signatures, more than anybody makes")]
    TooMany(usize),
}

impl TrustError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Forbidden
    }
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
    /// Free, but an object.
    #[serde(default)]
    #[allow(dead_code, reason = "read for its type alone")]
    optional: Option<serde_json::Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: Named,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    #[serde(rename = "docker-reference")]
    reference: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// What is known of an image while its signatures arrive, one after another: none of them is kept.
#[derive(Debug)]
pub struct Check<'a> {
    scope: &'a str,
    asked: &'a Reference,
    digest: &'a Digest,
    rejected: bool,
    /// Who must have signed it and, so far, has not; and why the first signature does not count.
    open: Vec<(&'a SignedBy, Option<SignatureError>)>,
    count: usize,
}

impl<'a> Requirements<'a> {
    /// Begins to look at the image of that digest, asked for as `asked`.
    pub fn begin(&self, asked: &'a Reference, digest: &'a Digest) -> Check<'a> {
        let signers = self.list.iter().filter_map(|requirement| match requirement {
            Requirement::Signed(by) => Some((by, None)),
            Requirement::Accept | Requirement::Reject => None,
        });
        let rejected = self.list.contains(&Requirement::Reject);
        Check { scope: self.scope, asked, digest, rejected, open: signers.collect(), count: 0 }
    }

    /// Whether the image may come in with these signatures: every requirement must be met.
    pub fn check(&self, asked: &Reference, digest: &Digest, signatures: &[Signature]) -> Result<(), TrustError> {
        let mut check = self.begin(asked, digest);
        signatures.iter().take_while(|signature| check.add(signature)).count();
        check.end()
    }
}

impl Check<'_> {
    /// Looks at one more signature, and says whether a further one could change anything.
    pub fn add(&mut self, signature: &Signature) -> bool {
        self.count += 1;
        if self.count <= SIGNATURES_MAX {
            let (asked, digest) = (self.asked, self.digest);
            self.open.retain_mut(|(by, first)| match signature.check(by, asked, digest) {
                Ok(()) => false,
                Err(err) => {
                    first.get_or_insert(err);
                    true
                }
            });
        }
        !self.rejected && !self.open.is_empty() && self.count <= SIGNATURES_MAX
    }

    /// The verdict, after the last one.
    pub fn end(self) -> Result<(), TrustError> {
        let (scope, count) = (self.scope.to_owned(), self.count);
        match self.open.into_iter().next() {
            _ if self.rejected => Err(TrustError::Rejected { scope }),
            None => Ok(()),
            Some(_) if count > SIGNATURES_MAX => Err(TrustError::TooMany(count)),
            Some((_, None)) => Err(TrustError::NoSignature { scope }),
            Some((_, Some(source))) => Err(TrustError::NoGoodSignature { scope, count, source }),
        }
    }
}

impl Requirements<'_> {
    /// Whether images may come in an archive, where nobody finds signatures.
    pub fn check_archive(&self) -> Result<(), TrustError> {
        let scope = || self.scope.to_owned();
        self.list.iter().try_for_each(|requirement| match requirement {
            Requirement::Accept => Ok(()),
            Requirement::Reject => Err(TrustError::Rejected { scope: scope() }),
            Requirement::Signed(_) => Err(TrustError::NoSignature { scope: scope() }),
        })
    }
}

impl Signature {
    fn check(&self, by: &SignedBy, asked: &Reference, digest: &Digest) -> Result<(), SignatureError> {
        if self.payload.len() > PAYLOAD_MAX || self.signature.len() > SIGNATURE_MAX {
            return Err(SignatureError::TooLong);
        }
        let signature = base64::decode(&self.signature).ok_or(SignatureError::Base64)?;
        if !by.keys.iter().any(|key| key.verifies(&self.payload, &signature)) {
            return Err(SignatureError::Key);
        }
        // From here on somebody with a key said it.
        let Payload { critical, .. } = serde_json::from_slice(&self.payload).map_err(|_| SignatureError::Payload)?;
        if critical.kind != TYPE {
            return Err(SignatureError::Payload);
        }
        if critical.image.digest != digest.as_str() {
            return Err(SignatureError::Digest(critical.image.digest));
        }
        let signed: Option<Reference> = critical.identity.reference.parse().ok();
        match signed.is_some_and(|signed| by.identity.allows(asked, &signed)) {
            true => Ok(()),
            false => Err(SignatureError::Identity(critical.identity.reference)),
        }
    }
}

#[cfg(test)]
mod tests;
