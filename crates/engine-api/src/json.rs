//! The one way in which request bodies are decoded: as Go decodes them.
//!
//! ```text
//! bytes -- syntax: is it a value? -- shape: is it this value? -- Value, names and nulls put right -- serde -- T
//! ```
//!
//! serde alone would be stricter than Go (which takes `null` for any field, and names in any case) and would say other
//! sentences, which Docker's clients print. So [`mod@syntax`] reads the text, [`mod@shape`] compares it with what
//! [`mod@shapes`] declares of each body, in the words of `encoding/json`, and serde is given only what fits.
//! Unknown fields are ignored, as Docker does: newer clients send more than we know.
//!
//! The words are those of Go 1.27; earlier ones put the path of a field, and some places in the text, differently.

mod shape;
mod shapes;
mod syntax;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use shape::{Document, Field, Shape, TypeError};
pub use syntax::SyntaxError;

/// Why a body was refused. The texts are those of Docker's `httputils.ReadJSON`.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Nothing was sent.
    #[error("invalid JSON: got EOF while reading request body")]
    Empty,
    /// It is no JSON.
    #[error("invalid JSON")]
    Syntax(#[from] SyntaxError),
    /// A value has the wrong type.
    #[error("invalid JSON")]
    Type(#[from] TypeError),
    /// More than one document was sent.
    #[error("unexpected content after JSON")]
    Trailing,
    /// A value that Docker takes is more than we can hold.
    #[error("invalid JSON")]
    Unfit(#[from] serde_json::Error),
}

impl DecodeError {
    /// Always the caller's mistake.
    pub fn kind(&self) -> errdefs::ErrorKind {
        errdefs::ErrorKind::InvalidArgument
    }
}

/// Decodes one JSON document; `null` is the document in which nothing is given.
pub fn decode<T: Document + Default>(body: &[u8]) -> Result<T, DecodeError> {
    match read::<T>(body)? {
        Value::Null => Ok(T::default()),
        value => typed(value),
    }
}

/// Reads one JSON document: its members have the names and types that `T` knows, nulls are still there.
pub(crate) fn read<T: Document>(body: &[u8]) -> Result<Value, DecodeError> {
    let start = syntax::skip_blanks(body, 0);
    if start == body.len() {
        return Err(DecodeError::Empty);
    }
    let end = syntax::end_of_value(body, start)?;
    let value = shape::read_document::<T>(&body[start..end])?;
    match body.get(syntax::skip_blanks(body, end)) {
        // Go's decoder takes a bracket too many for the end of something around it.
        None | Some(b']' | b'}') => Ok(value),
        Some(_) => Err(DecodeError::Trailing),
    }
}

/// Why a text is not one JSON document, in the words of Go's `json.Compact`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompactError {
    /// It ends too early.
    #[error("unexpected end of JSON input")]
    Truncated,
    /// It is no JSON.
    #[error(transparent)]
    Syntax(SyntaxError),
}

/// The same document without the blanks between its tokens, as Go's `json.Compact` writes it.
pub fn compact(text: &[u8]) -> Result<Vec<u8>, CompactError> {
    let told = |err| if err == SyntaxError::Truncated { CompactError::Truncated } else { CompactError::Syntax(err) };
    let end = syntax::end_of_value(text, 0).map_err(told)?;
    syntax::check_end(text, end).map_err(told)?;
    Ok(syntax::without_blanks(&text[..end]))
}

/// Turns what was read into its type. Of the document itself nulls are read, too: whether a field was named may matter.
pub(crate) fn typed<T: DeserializeOwned>(mut value: Value) -> Result<T, DecodeError> {
    if let Value::Object(members) = &mut value {
        members.retain(|_, member| !member.is_null());
    }
    Ok(serde_json::from_value(value)?)
}

/// For a field of an answer that other daemons send as null.
pub(crate) fn null_as_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + serde::Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    Ok(<Option<T> as serde::Deserialize>::deserialize(deserializer)?.unwrap_or_default())
}

/// Whether there is nothing to be shown of a field that Go's `omitempty` leaves out when it is empty, too.
pub(crate) fn is_unset<'a, C: 'a>(field: &'a Option<C>) -> bool
where
    &'a C: IntoIterator,
{
    field.as_ref().is_none_or(|all| all.into_iter().next().is_none())
}

#[cfg(test)]
mod tests;
