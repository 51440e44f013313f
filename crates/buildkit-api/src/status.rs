//! How a call ends.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use prost::Message;

use crate::messages::{Any, RpcStatus};

/// Trailers of a call.
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// What a failure is, in numbers (gRPC, "Status codes and their use in gRPC").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    /// None.
    Ok = 0,
    /// The caller has gone.
    Cancelled = 1,
    /// Any: clients print its message without more words.
    Unknown = 2,
    /// The caller's mistake.
    InvalidArgument = 3,
    /// Something is not there.
    NotFound = 5,
    /// Something is there already.
    AlreadyExists = 6,
    /// A bound was reached.
    ResourceExhausted = 8,
    /// Something is asked for behind an end.
    OutOfRange = 11,
    /// Nobody does that.
    Unimplemented = 12,
    /// Somebody does not keep to the protocol.
    Internal = 13,
    /// The other end has gone.
    Unavailable = 14,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// The number of the failure, [`Code`] or another one.
    pub code: i32,
    /// The sentence.
    pub message: String,
    /// What programs read of it.
    pub details: Vec<Any>,
}

impl Status {
    /// A failure in words.
    pub fn new(code: Code, message: impl Into<String>) -> Status {
        Status { code: code as i32, message: message.into(), details: Vec::new() }
    }

    /// The number's name, as Go writes it (google.golang.org/grpc/codes, String).
    pub fn name(&self) -> String {
        const NAMES: [&str; 17] = [
            "OK",
            "Canceled",
            "Unknown",
            "InvalidArgument",
            "DeadlineExceeded",
            "NotFound",
            "AlreadyExists",
            "PermissionDenied",
            "ResourceExhausted",
            "FailedPrecondition",
            "Aborted",
            "OutOfRange",
            "Unimplemented",
            "Internal",
            "Unavailable",
            "DataLoss",
            "Unauthenticated",
        ];
        let known = usize::try_from(self.code).ok().and_then(|code| NAMES.get(code));
        known.map_or_else(|| format!("Code({})", self.code), |name| (*name).to_owned())
    }

    /// The other end has gone, or does not speak HTTP/2.
    pub(crate) fn broken(err: &h2::Error) -> Status {
        Status::new(Code::Unavailable, err.to_string())
    }

    /// The failure as a message, as which it is handed on.
    pub fn to_message(&self) -> RpcStatus {
        RpcStatus { code: self.code, message: self.message.clone(), details: self.details.clone() }
    }

    /// The failure that a message tells.
    pub fn of_message(message: RpcStatus) -> Status {
        Status { code: message.code, message: message.message, details: message.details }
    }

    /// The failure as trailers.
    pub(crate) fn trailers(&self) -> HeaderMap {
        let mut trailers = success();
        trailers.insert(STATUS, HeaderValue::from(self.code));
        let text = |text: String| HeaderValue::from_str(&text).ok();
        if let Some(message) = text(escaped(&self.message)) {
            trailers.insert(MESSAGE, message);
        }
        if !self.details.is_empty()
            && let Some(details) = text(base64(&self.to_message().encode_to_vec()))
        {
            trailers.insert(DETAILS, details);
        }
        trailers
    }

    /// What trailers tell; none is success, too.
    pub(crate) fn of_trailers(trailers: &HeaderMap) -> Result<(), Status> {
        let text = |name| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match text(&STATUS).parse().unwrap_or(0) {
            0 => Ok(()),
            // The details of a client's failure are its own words once more.
            code => Err(Status { code, message: unescaped(text(&MESSAGE)), details: Vec::new() }),
        }
    }
}

/// The trailers of a call that went well.
pub(crate) fn success() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(STATUS, HeaderValue::from_static("0"));
    trailers
}

/// Percent escapes of what is no printable ASCII (gRPC over HTTP/2, "Percent-Byte-Encoded").
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b' '..=b'~' if byte != b'%' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// The text of such escapes; what is none stays as it is.
pub(crate) fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Base64 without padding, as binary trailers are written; with padding in JSON.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for piece in bytes.chunks(3) {
        let byte = |index: usize| u32::from(piece.get(index).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for letter in 0..=piece.len() {
            text.push(char::from(LETTERS[(bits >> (18 - 6 * letter)) as usize & 63]));
        }
    }
    text
}

/// Base64 with padding, as JSON of Go's has bytes.
pub fn base64_padded(bytes: &[u8]) -> String {
    let mut text = base64(bytes);
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_comes_back_as_it_was_told() {
        for message in ["plain words", "100% of \u{e4} \n\t", ""] {
            let told = Status::of_trailers(&Status::new(Code::NotFound, message).trailers()).unwrap_err();
            assert_eq!((told.code, told.message.as_str()), (5, message));
        }
        assert_eq!(Status::of_trailers(&success()), Ok(()));
        assert_eq!(unescaped("a%zz%4"), "a%zz%4");
    }

    #[test]
    fn bytes_are_written_as_letters() {
        for (bytes, bare, padded) in [
            (&b""[..], "", ""),
            (b"f", "Zg", "Zg=="),
            (b"fo", "Zm8", "Zm8="),
            (b"foo", "Zm9v", "Zm9v"),
            (b"\xff\xfe\xfd\xfc", "//79/A", "//79/A=="),
        ] {
            assert_eq!((base64(bytes).as_str(), base64_padded(bytes).as_str()), (bare, padded));
        }
    }

    #[test]
    fn details_stand_in_the_trailers() {
        let detail = Any { type_url: "x".to_owned(), value: b"y".to_vec() };
        let status = Status { details: vec![detail], ..Status::new(Code::Unknown, "m") };
        assert_eq!(status.trailers().get(DETAILS).unwrap(), &base64(&status.to_message().encode_to_vec()));
        assert_eq!(Status::of_message(status.to_message()), status);
    }
}
