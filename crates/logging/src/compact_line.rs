//! One line of a file in our own format: what `local` and the cache of remote drivers write.
//!
//! ```text
//!   o-Kh3f_9aZ12text and more       o, e: a line of stdout, of stderr; O, E: a piece of one that goes on
//!   ^`---------'`----- the bytes as they are: a newline cannot be among them, for it ends the line
//!   |     +----------- nanoseconds since 1970, eleven digits to the base 64, in an alphabet that sorts as the numbers do
//! ```

use crate::record::{PIECE_MAX_BYTES, Record, Stream};

/// In the order of their bytes.
const DIGITS: &[u8; 64] = b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";

/// 64 bits in groups of six.
const TIME_BYTES: usize = 11;

/// Bytes before the text.
const HEAD_BYTES: usize = 1 + TIME_BYTES;

/// The longest line.
pub(crate) const RECORD_MAX_BYTES: usize = HEAD_BYTES + PIECE_MAX_BYTES + 1;

/// A line taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) stream: Stream,
    pub(crate) nanos: u64,
    pub(crate) text: &'a [u8],
    pub(crate) ends_line: bool,
}

/// Appends the line of a record.
pub(crate) fn encode(line: &mut Vec<u8>, record: Record<'_>) {
    let mut head = [0; HEAD_BYTES];
    head[0] = match (record.stream, record.ends_line) {
        (Stream::Stdout, true) => b'o',
        (Stream::Stderr, true) => b'e',
        (Stream::Stdout, false) => b'O',
        (Stream::Stderr, false) => b'E',
    };
    for (at, digit) in head[1..].iter_mut().rev().enumerate() {
        *digit = DIGITS[(record.nanos >> (6 * at) & 63) as usize];
    }
    line.extend_from_slice(&head);
    record.parts.iter().for_each(|part| line.extend_from_slice(part));
    line.push(b'\n');
}

/// Takes a line apart, which comes without its newline; `None` if it is none.
pub(crate) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let (head, text) = line.split_at_checked(HEAD_BYTES)?;
    let (stream, ends_line) = match head[0] {
        b'o' => (Stream::Stdout, true),
        b'e' => (Stream::Stderr, true),
        b'O' => (Stream::Stdout, false),
        b'E' => (Stream::Stderr, false),
        _ => return None,
    };
    let mut nanos = 0_u64;
    for digit in &head[1..] {
        nanos = nanos << 6 | u64::from(value(*digit)?);
    }
    Some(Line { stream, nanos, text, ends_line })
}

fn value(digit: u8) -> Option<u8> {
    Some(match digit {
        b'-' => 0,
        b'0'..=b'9' => digit - b'0' + 1,
        b'A'..=b'Z' => digit - b'A' + 11,
        b'_' => 37,
        b'a'..=b'z' => digit - b'a' + 38,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_as_they_were_and_sort_by_time() {
        assert!(DIGITS.is_sorted() && DIGITS.iter().enumerate().all(|(at, digit)| value(*digit) == Some(at as u8)));
        let mut last = Vec::new();
        for (nanos, stream, ends_line) in [
            (0, Stream::Stdout, true),
            (63, Stream::Stdout, false),
            (1_767_225_600_000_000_005, Stream::Stderr, true),
            (u64::MAX, Stream::Stderr, false),
        ] {
            let mut line = Vec::new();
            encode(&mut line, Record { stream, nanos, parts: [b"a\xff", b"\0b"], ends_line, piece: None });
            assert_eq!(line.pop(), Some(b'\n'));
            assert_eq!(parse(&line), Some(Line { stream, nanos, text: b"a\xff\0b", ends_line }));
            assert!(line[1..HEAD_BYTES] > last[..]);
            last = line[1..HEAD_BYTES].to_vec();
        }
        for torn in ["", "o", "o----------", "x-----------text", "o---- ------text"] {
            assert_eq!(parse(torn.as_bytes()), None, "{torn}");
        }
    }
}
