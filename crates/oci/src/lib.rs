//! The specifications' nouns as plain values: image-spec v1.1, runtime-spec v1.2 and Docker's image formats.
//!
//! - [`digest`]: content addresses, checked when parsed.
//! - [`id`]: the identifier of a container.
//! - [`reference`]: `repo:tag@digest`, and the normal form of the names users type.
//! - [`image`]: descriptors, manifests, indexes and image configurations as they lie in a registry.
//! - [`names`]: the kernel's own names that they contain.
//! - [`runtime`]: `config.json`, the contract between `container-spec` (writes it) and `oci-runtime` (applies it).
//! - [`signal`]: signals by name or number.
//!
//! Only data, parsing and printing: no I/O, no hashing, no decisions.

pub mod digest;
pub mod id;
pub mod image;
pub mod names;
pub mod reference;
pub mod runtime;
pub mod signal;

pub use digest::{Digest, DigestError};
pub use id::{ContainerId, ContainerIdError};
pub use reference::{Reference, ReferenceError};
