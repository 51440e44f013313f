//! Paths with their query.

use std::fmt::Write;

/// A path that grows a query string.
#[derive(Clone, Debug)]
pub struct Query {
    text: String,
    next: char,
}

impl Query {
    /// A path without a query.
    pub fn new(path: impl Into<String>) -> Query {
        Query { text: path.into(), next: '?' }
    }

    /// Adds `key=value`, encoded.
    pub fn with(mut self, key: &str, value: &str) -> Query {
        self.text.push(self.next);
        self.next = '&';
        self.text.push_str(key);
        self.text.push('=');
        encode(value, &mut self.text);
        self
    }

    /// Adds `key=value` unless the value is empty.
    pub fn with_text(self, key: &str, value: &str) -> Query {
        if value.is_empty() { self } else { self.with(key, value) }
    }

    /// Adds `key=1` if it holds.
    pub fn with_flag(self, key: &str, value: bool) -> Query {
        if value { self.with(key, "1") } else { self }
    }

    /// The path and its query.
    pub fn build(self) -> String {
        self.text
    }
}

/// A path segment, encoded.
pub fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    encode(text, &mut encoded);
    encoded
}

/// RFC 3986: everything but the unreserved characters, and `/` and `:`, which image names are full of and every
/// server takes as they are.
fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => out.push(byte as char),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded() {
        let path = Query::new("/a").with("x", "a b&ü").with_text("y", "").with_flag("z", true).build();
        assert_eq!(path, "/a?x=a%20b%26%C3%BC&z=1");
        assert_eq!(segment("a:1/b?"), "a:1/b%3F");
    }
}
