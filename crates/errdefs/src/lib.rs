//! The vocabulary of failure: what a caller can *do* about an error.
//!
//! Every error enum of the workspace answers `kind()` with one [`ErrorKind`]. `api-server` turns kinds into HTTP
//! statuses in one table and looks at nothing else; nobody matches on message text. [`chain`] prints an error with
//! its sources, the form in which people and the API see it.
//!
//! Deliberately not here: HTTP, messages, conversions from other crates' errors.

mod words;

use std::error::Error;
use std::fmt::Write;
use std::io;

pub use words::system_words;

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is malformed or contradicts itself; repeating it unchanged cannot help. HTTP 400.
    InvalidArgument,
    /// Who asks is not known. HTTP 401.
    Unauthorized,
    /// Who asks is known, and may not. HTTP 403.
    Forbidden,
    /// The named object does not exist. HTTP 404.
    NotFound,
    /// The object's state does not allow the operation. HTTP 409.
    Conflict,
    /// An object of that name exists already. HTTP 409.
    AlreadyExists,
    /// The object is already in the wanted state. HTTP 304.
    NotModified,
    /// The operation exists in the API and is not offered here. HTTP 501.
    NotImplemented,
    /// A thing that we need is away at the moment; trying again can help. HTTP 503.
    Unavailable,
    /// Everything else: the system or ourselves. HTTP 500.
    Internal,
}

/// Prints `err` and its sources as `outer: inner: innermost`.
///
/// Messages never contain their source's text (style, 3), so nothing is said twice. The system's answers are in
/// [`system_words`].
pub fn chain(err: &dyn Error) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(err) = source {
        text.push_str(": ");
        match err.downcast_ref::<io::Error>() {
            Some(err) => text.push_str(&system_words(err)),
            // Writing to a String cannot fail.
            None => write!(text, "{err}").unwrap_or_default(),
        }
        source = err.source();
    }
    text
}

/// The kind of an operating-system error, for errors that carry an `io::Error` and have nothing better to say.
pub fn io_kind(err: &io::Error) -> ErrorKind {
    match err.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => ErrorKind::Forbidden,
        io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        io::ErrorKind::InvalidInput => ErrorKind::InvalidArgument,
        _ => ErrorKind::Internal,
    }
}
