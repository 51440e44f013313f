//! Which images may come in.
//!
//! ```text
//! policy.json --Policy::parse--> Policy --of_registry(reference)--> Requirements
//!                                                                     |  reject, accept anything, or
//!                          signatures of a registry, hostile -------> |  signed with one of these keys, under this name
//!                                                                     v
//!                                               Requirements::check: the image's digest, or why not
//! ```
//! The file has the form of `containers-policy.json` (containers/image, docs/containers-policy.json.5.md), so that one file
//! serves podman, skopeo and us. What it may ask for and we cannot check (GPG's signatures, certificates of Fulcio, logs of
//! Rekor) is refused when the file is read, and never taken for met.
//!
//! Signatures are cosign's: a payload, *simple signing*'s JSON, says which digest was signed and under which name; the
//! signature is over the payload's bytes. Nothing of a payload is believed, nor even parsed, before a key has vouched for it.
//!
//! Deliberately not here: where signatures lie (`registry-client`), and when they are asked for (`engine`). Nothing here reads
//! a file on its own: whoever parses a policy hands in how keys are read.

mod base64;
mod identity;
mod key;
mod policy;
mod scope;
mod signature;
mod unique;

pub use identity::Identity;
pub use key::{Key, KeyError};
pub use policy::{Policy, PolicyError, Requirement, Requirements, SignedBy};
pub use signature::{Check, Signature, SignatureError, TrustError};
