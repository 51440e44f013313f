//! Streams of JSON documents: progress of a load, events.

use serde::de::DeserializeOwned;

/// Takes bytes in pieces of any size and gives whole documents.
#[derive(Debug, Default)]
pub struct Documents {
    buffer: Vec<u8>,
}

impl Documents {
    /// Adds bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether a part of a document is left: at the end of a stream that is a mistake.
    pub fn is_broken_off(&self) -> bool {
        !self.buffer.trim_ascii().is_empty()
    }

    /// Takes the next whole document, if there is one.
    pub fn take<T: DeserializeOwned>(&mut self) -> Option<Result<T, serde_json::Error>> {
        let mut stream = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<T>();
        let outcome = match stream.next() {
            None => return None,
            Some(Err(err)) if err.is_eof() => return None,
            Some(outcome) => outcome,
        };
        let used = if outcome.is_ok() { stream.byte_offset() } else { self.buffer.len() };
        self.buffer.drain(..used);
        Some(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_come_when_they_are_whole() {
        let mut documents = Documents::default();
        documents.feed(b"{\"a\":1}\r\n{\"a\"");
        let a = |documents: &mut Documents| documents.take::<serde_json::Value>().map(|v| v.unwrap()["a"].clone());
        assert_eq!(a(&mut documents), Some(1.into()));
        assert_eq!(a(&mut documents), None);
        assert!(documents.is_broken_off());
        documents.feed(b":2}\r\n");
        assert_eq!(a(&mut documents), Some(2.into()));
        assert!(!documents.is_broken_off());
        documents.feed(b"x");
        assert!(documents.take::<serde_json::Value>().unwrap().is_err());
        assert!(documents.take::<serde_json::Value>().is_none());
    }
}
