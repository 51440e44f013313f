//! The grammar: where a value ends, and Go's words for what is wrong with it.
//!
//! Nothing here recurses: a body of a million brackets must cost the daemon no stack.

/// How deep values may lie in each other; Go's limit.
const DEPTH_LIMIT: usize = 10_000;

/// Why a text is no JSON, in the words of Go's decoder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// It ends too early.
    #[error("unexpected EOF")]
    Truncated,
    /// Something else was expected.
    #[error("invalid character {found} {place}")]
    Character {
        /// The character, as Go quotes it.
        found: String,
        /// Where it stands.
        place: Place,
    },
    /// A backslash stands before something that needs none.
    #[error("invalid escape sequence {0} in string")]
    Escape(String),
    /// More than 10,000 values lie in each other.
    #[error("exceeded max depth")]
    TooDeep,
}

/// A place in a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Place {
    /// Before a value.
    #[error("looking for beginning of value")]
    Value,
    /// Before a member's name.
    #[error("looking for beginning of object key string")]
    Key,
    /// Behind a member's name.
    #[error("after object key")]
    Colon,
    /// Behind a member.
    #[error("after object key:value pair")]
    Member,
    /// Behind an element.
    #[error("after array element")]
    Element,
    /// In a text.
    #[error("in string")]
    Text,
    /// In a number.
    #[error("in numeric literal")]
    Number,
    /// Behind the document.
    #[error("after top-level value")]
    End,
    /// In one of the three words.
    #[error("in literal {word} (expecting {expected:?})")]
    Word {
        /// The word.
        word: &'static str,
        /// What comes next in it.
        expected: char,
    },
}

/// Where the blanks that begin at `at` end.
pub(super) fn skip_blanks(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

/// Where the value that begins at `at` ends.
pub(super) fn end_of_value(bytes: &[u8], mut at: usize) -> Result<usize, SyntaxError> {
    let mut open = Vec::new();
    let mut next = Next::Value;
    loop {
        at = skip_blanks(bytes, at);
        let byte = *bytes.get(at).ok_or(SyntaxError::Truncated)?;
        (at, next) = match (next, byte) {
            (Next::Value | Next::ValueOrEnd, b'{' | b'[') => {
                open.push(byte);
                (at + 1, if byte == b'{' { Next::KeyOrEnd } else { Next::ValueOrEnd })
            }
            (Next::KeyOrEnd, b'}') | (Next::ValueOrEnd, b']') => (at + 1, Next::Separator),
            (Next::Separator, b'}' | b']') if closes(open.last(), byte) => (at + 1, Next::Separator),
            (Next::Separator, b',') => (at + 1, if open.last() == Some(&b'{') { Next::Key } else { Next::Value }),
            (Next::Separator, _) if open.last() == Some(&b'{') => return Err(character(bytes, at, Place::Member)),
            (Next::Separator, _) => return Err(character(bytes, at, Place::Element)),
            (Next::Key | Next::KeyOrEnd, b'"') => (end_of_text(bytes, at)?, Next::Colon),
            (Next::Key | Next::KeyOrEnd, _) => return Err(character(bytes, at, Place::Key)),
            (Next::Colon, b':') => (at + 1, Next::Value),
            (Next::Colon, _) => return Err(character(bytes, at, Place::Colon)),
            (Next::Value | Next::ValueOrEnd, _) => (end_of_scalar(bytes, at)?, Next::Separator),
        };
        if open.len() > DEPTH_LIMIT {
            return Err(SyntaxError::TooDeep);
        }
        // A value has just ended: its bracket, if it has one, is closed.
        if matches!(next, Next::Separator) && matches!(byte, b'}' | b']') {
            open.pop();
        }
        if matches!(next, Next::Separator) && open.is_empty() {
            return Ok(at);
        }
    }
}

/// Refuses everything but blanks behind a document.
pub(super) fn check_end(bytes: &[u8], end: usize) -> Result<(), SyntaxError> {
    let at = skip_blanks(bytes, end);
    if at == bytes.len() { Ok(()) } else { Err(character(bytes, at, Place::End)) }
}

/// A well-formed document without the blanks outside of its texts.
pub(super) fn without_blanks(bytes: &[u8]) -> Vec<u8> {
    let mut compact = Vec::with_capacity(bytes.len());
    let mut at = skip_blanks(bytes, 0);
    while let Some(&byte) = bytes.get(at) {
        // A text of a well-formed document has an end.
        let end = if byte == b'"' { end_of_text(bytes, at).unwrap_or(bytes.len()) } else { at + 1 };
        compact.extend_from_slice(&bytes[at..end]);
        at = skip_blanks(bytes, end);
    }
    compact
}

/// What may come next.
#[derive(Clone, Copy)]
enum Next {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    /// A comma, or the end of what is open.
    Separator,
}

fn closes(open: Option<&u8>, byte: u8) -> bool {
    matches!((open, byte), (Some(b'{'), b'}') | (Some(b'['), b']'))
}

fn end_of_scalar(bytes: &[u8], at: usize) -> Result<usize, SyntaxError> {
    match bytes[at] {
        b'"' => end_of_text(bytes, at),
        b'-' | b'0'..=b'9' => end_of_number(bytes, at),
        b't' => end_of_word(bytes, at, "true"),
        b'f' => end_of_word(bytes, at, "false"),
        b'n' => end_of_word(bytes, at, "null"),
        _ => Err(character(bytes, at, Place::Value)),
    }
}

fn end_of_word(bytes: &[u8], at: usize, word: &'static str) -> Result<usize, SyntaxError> {
    for (index, expected) in word.char_indices() {
        match bytes.get(at + index) {
            None => return Err(SyntaxError::Truncated),
            Some(&byte) if byte == expected as u8 => {}
            Some(_) => return Err(character(bytes, at + index, Place::Word { word, expected })),
        }
    }
    Ok(at + word.len())
}

fn end_of_number(bytes: &[u8], mut at: usize) -> Result<usize, SyntaxError> {
    if bytes[at] == b'-' {
        at += 1;
    }
    // A number that begins with zero is only that zero.
    at = if bytes.get(at) == Some(&b'0') { at + 1 } else { end_of_digits(bytes, at)? };
    if bytes.get(at) == Some(&b'.') {
        at = end_of_digits(bytes, at + 1)?;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let signed = matches!(bytes.get(at + 1), Some(b'+' | b'-'));
        at = end_of_digits(bytes, at + 1 + usize::from(signed))?;
    }
    Ok(at)
}

/// Where digits end, of which there must be one.
fn end_of_digits(bytes: &[u8], at: usize) -> Result<usize, SyntaxError> {
    match bytes.get(at) {
        None => Err(SyntaxError::Truncated),
        Some(b'0'..=b'9') => Ok(at + bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count()),
        Some(_) => Err(character(bytes, at, Place::Number)),
    }
}

/// Where the text that begins with the quote at `at` ends, behind its second quote.
pub(super) fn end_of_text(bytes: &[u8], at: usize) -> Result<usize, SyntaxError> {
    let mut at = at + 1;
    loop {
        match bytes.get(at) {
            None => return Err(SyntaxError::Truncated),
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => at = end_of_escape(bytes, at)?,
            Some(0..b' ') => return Err(character(bytes, at, Place::Text)),
            Some(_) => at += 1,
        }
    }
}

fn end_of_escape(bytes: &[u8], at: usize) -> Result<usize, SyntaxError> {
    match bytes.get(at + 1) {
        None => Err(SyntaxError::Truncated),
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => {
            let escape = &bytes[at..bytes.len().min(at + 6)];
            match escape[2..].iter().all(u8::is_ascii_hexdigit) {
                true if escape.len() < 6 => Err(SyntaxError::Truncated),
                true => Ok(at + 6),
                false => Err(SyntaxError::Escape(quoted_escape(escape))),
            }
        }
        Some(_) => Err(SyntaxError::Escape(quoted_escape(&bytes[at..at + 2]))),
    }
}

/// An escape sequence as Go shows it: as it is, unless that could not be read.
fn quoted_escape(escape: &[u8]) -> String {
    match std::str::from_utf8(escape) {
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'`') => format!("`{text}`"),
        _ => format!("\"{}\"", escape.escape_ascii()),
    }
}

fn character(bytes: &[u8], at: usize, place: Place) -> SyntaxError {
    // Four bytes hold any character; what follows it may be cut.
    let window = &bytes[at..bytes.len().min(at + 4)];
    let text = window.utf8_chunks().next().map(|chunk| chunk.valid()).unwrap_or_default();
    let found = text.chars().next().map_or_else(|| format!("'\\x{:02x}'", bytes[at]), quoted);
    SyntaxError::Character { found, place }
}

/// A character as Go's `strconv.QuoteRune` shows it.
fn quoted(character: char) -> String {
    match character {
        '\u{7}' => r"'\a'".to_owned(),
        '\u{8}' => r"'\b'".to_owned(),
        '\u{c}' => r"'\f'".to_owned(),
        '\u{b}' => r"'\v'".to_owned(),
        '"' => "'\"'".to_owned(),
        '\0'..' ' | '\u{7f}' if !matches!(character, '\n' | '\r' | '\t') => format!("'\\x{:02x}'", character as u32),
        _ if character.is_ascii() || character.escape_debug().count() == 1 => format!("'{}'", character.escape_debug()),
        _ if (character as u32) < 0x1_0000 => format!("'\\u{:04x}'", character as u32),
        _ => format!("'\\U{:08x}'", character as u32),
    }
}
