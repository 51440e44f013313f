//! The one way in which request bodies are decoded.
//!
//! Go takes `null` for any field and keeps the zero value; serde does not. So nulls are dropped before the types see the
//! document. Unknown fields are ignored, as Docker does: newer clients send more than we know.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Why a body was refused. The texts are those of Docker's `httputils.ReadJSON`.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Nothing was sent.
    #[error("invalid JSON: got EOF while reading request body")]
    Empty,
    /// The text ends too early.
    #[error("invalid JSON: unexpected EOF")]
    Truncated,
    /// More than one document was sent.
    #[error("unexpected content after JSON")]
    Trailing,
    /// It is no JSON, or a field has the wrong type.
    #[error("invalid JSON: {0}")]
    Invalid(String),
}

impl DecodeError {
    /// Always the caller's mistake.
    pub fn kind(&self) -> errdefs::ErrorKind {
        errdefs::ErrorKind::InvalidArgument
    }
}

/// Decodes one JSON document, taking `null` for "not given".
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
    let mut documents = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
    let mut value = match documents.next() {
        None => return Err(DecodeError::Empty),
        Some(Err(err)) if err.is_eof() => return Err(DecodeError::Truncated),
        Some(Err(err)) => return Err(DecodeError::Invalid(err.to_string())),
        Some(Ok(value)) => value,
    };
    if documents.next().is_some() {
        return Err(DecodeError::Trailing);
    }
    drop_nulls(&mut value);
    serde_json::from_value(value).map_err(|err| DecodeError::Invalid(err.to_string()))
}

/// For a field of an answer that other daemons send as null.
pub(crate) fn null_as_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + serde::Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    Ok(<Option<T> as serde::Deserialize>::deserialize(deserializer)?.unwrap_or_default())
}

/// Removes null members of objects at every depth; a null in an array stays, since its place means something.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(elements) => elements.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::CreateRequest;

    #[test]
    fn nulls_read_as_absent_and_unknown_fields_are_ignored() {
        let request: CreateRequest =
            decode(br#"{"Image":"a","Cmd":null,"Tty":null,"HostConfig":{"Binds":null,"Memory":5},"New":1}"#).unwrap();
        assert_eq!((request.config.image.as_str(), request.config.cmd), ("a", None));
        assert_eq!(request.host_config.unwrap().memory, 5);
    }

    #[test]
    fn sentences_are_dockers() {
        let message = |body: &[u8]| decode::<CreateRequest>(body).unwrap_err().to_string();
        assert_eq!(message(b""), "invalid JSON: got EOF while reading request body");
        assert_eq!(message(b"{"), "invalid JSON: unexpected EOF");
        assert_eq!(message(b"{}{}"), "unexpected content after JSON");
        assert!(message(b"{x").starts_with("invalid JSON: "));
    }
}
