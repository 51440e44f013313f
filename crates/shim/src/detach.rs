//! Finding the detach keys in what a client types.

/// Looks for one sequence of bytes in a stream that comes in pieces.
pub(crate) struct Matcher {
    keys: Vec<u8>,
    /// How many of `keys` were seen at the end of the stream so far.
    matched: usize,
}

/// What came of one piece of input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Typed {
    /// What is passed on: keys that turned out not to be the sequence included, those of a beginning sequence not yet.
    pub(crate) input: Vec<u8>,
    /// The whole sequence was seen; what came after it is dropped.
    pub(crate) detached: bool,
}

impl Matcher {
    /// Looks for `keys`; empty for nothing.
    pub(crate) fn new(keys: Vec<u8>) -> Matcher {
        Matcher { keys, matched: 0 }
    }

    /// Takes one piece.
    pub(crate) fn take(&mut self, piece: &[u8]) -> Typed {
        if self.keys.is_empty() {
            return Typed { input: piece.to_vec(), detached: false };
        }
        let mut input = Vec::with_capacity(piece.len());
        for byte in piece {
            // A key that breaks the sequence passes the held ones on, and can be the first of another one.
            if *byte != self.keys[self.matched] {
                input.extend_from_slice(&self.keys[..self.matched]);
                self.matched = 0;
            }
            if *byte != self.keys[self.matched] {
                input.push(*byte);
                continue;
            }
            self.matched += 1;
            if self.matched == self.keys.len() {
                self.matched = 0;
                return Typed { input, detached: true };
            }
        }
        Typed { input, detached: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_found_and_nothing_else_is_held_back() {
        for (keys, pieces, input, detached) in [
            (&b"\x10\x11"[..], &[&b"abc"[..]][..], &b"abc"[..], false),
            (b"\x10\x11", &[b"a\x10\x11rest"], b"a", true),
            (b"\x10\x11", &[b"a\x10", b"\x11"], b"a", true),
            (b"\x10\x11", &[b"\x10", b"x"], b"\x10x", false),
            (b"\x10\x11", &[b"\x10\x10\x11"], b"\x10", true),
            (b"\x10\x11", &[b"\x10"], b"", false),
            (b"q", &[b"xq"], b"x", true),
            (b"", &[b"\x10\x11"], b"\x10\x11", false),
        ] {
            let mut matcher = Matcher::new(keys.to_vec());
            let mut got = Typed { input: Vec::new(), detached: false };
            for piece in pieces {
                let typed = matcher.take(piece);
                got.input.extend(typed.input);
                got.detached |= typed.detached;
            }
            assert_eq!(got, Typed { input: input.to_vec(), detached }, "{keys:?} in {pieces:?}");
        }
    }
}
