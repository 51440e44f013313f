//! Images from registries: names to manifests, manifests to blobs.
//!
//! ```text
//! Registry::session   which scheme (TLS, or plain HTTP where that is allowed), who we are (basic, token)
//! Session::resolve    tag or digest -> index -> manifest for a platform; every document verified and bounded
//! Session::signatures what cosign keeps beside an image; bounded, and nobody's word yet
//! referrers           what names a manifest as its subject: the registry's list, or that under a tag
//! Session::raw_manifest  what a name means, as it is; mount, for lists of images
//! Session::config     the configuration, verified and bounded
//! Registry::mirrors   who is asked before it, as nobody: Registry::mirror_session
//! Proxies             between us and all of them
//! Registry::search    what a registry offers, where it says
//! Transfer::open      a layer: a blocking reader over bytes that are still arriving
//! Session::upload     a blob, if it is not there: mounted, or sent; then Session::put_manifest
//! Registry::fetch     what lies at an address of the web; no registry at all, but the same ways
//! ```
//! **Transfers.** One task per digest brings a blob into `content` as a partial blob, whoever asks for it: it is shared by
//! all readers in the daemon, and ends when the last one is dropped. At most [`Settings::concurrent_downloads`] run at a
//! time. A connection that is cut is resumed by Range where it ended, after a pause that grows; so is a transfer that an
//! earlier process left. Readers see bytes as they arrive (bounded by the file, not by memory) and the end only after
//! digest and length are verified. What a transfer brought belongs to its pulls until they are recorded: nobody else removes
//! or changes it. Other settings ([`Registry::changed`]) change nothing of this.
//!
//! **Uploads** ask for the blob first, have it mounted from another repository if there is one, and send it in one piece, at
//! most [`Settings::concurrent_uploads`] at a time, a few pieces of 128 KiB in memory each. One that is cut goes on where the
//! registry says it ended, or begins anew where it says nothing. A blob may be made while it is sent: its digest is told last.
//!
//! **A registry is hostile.** Documents end at 4 MiB and blobs at their descriptor's size. Every wait has a deadline, and
//! a body that trickles counts as cut. Redirects are bounded, credentials never leave the host that asked for them nor come
//! back to it by way of another one, nor go over plain HTTP to a realm that a registry behind TLS names. No text of a
//! registry is taken for more than text.
//!
//! **Locks** (all held for map access only): the pool of idle connections, the cache of tokens, the transfers; each
//! transfer's state is locked by its writer and its readers, who wait on its condition variable.
//!
//! Deliberately not here: unpacking and recording (`image`), files with credentials (clients), the progress that clients
//! print (the engine), making layers to push.

mod access;
mod auth;
mod challenge;
mod connection;
mod document;
mod download;
mod error;
mod fetch;
mod mirror;
mod outgoing;
mod platform;
mod proxy;
mod range;
mod search;
mod session;
mod tls;
mod transfer;
mod upload;
mod web;

pub use auth::Credentials;
pub use document::{
    RawManifest, Referrer, Resolved, Signed, has_manifest, mount, named_manifest, referrers, resolve_or,
};
pub use download::Progress;
pub use error::{DialError, ExchangeError, RegistryError};
pub use mirror::{Mirror, MirrorError, Mirrors};
pub use platform::{PlatformError, Wanted, processor};
pub use proxy::{Proxies, ProxyError, without_password};
pub use range::{AddressRange, AddressRangeError};
pub use search::{Found, SearchError};
pub use session::{Registry, Session, Settings, Timing, origin};
pub use tls::TlsError;
pub use transfer::{LayerProgress, LayerReader, Transfer};
pub use upload::{Source, Stored, Tell, Upload, UploadProgress};
pub use web::{Fetched, Known, WebAddress, WebError};
