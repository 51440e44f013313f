//! The keys that detach from a container.
//!
//! They are looked for here as well as in the daemon: what we swallow, the daemon never sees, and we know at once that
//! the stream ended because the user left and not because the container did.

/// ctrl-p, ctrl-q.
const DEFAULT: [u8; 2] = [16, 17];

/// A sequence, and how much of it has been typed.
#[derive(Clone, Debug)]
pub struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// Reads `ctrl-p,ctrl-q`; the default for an empty or wrong text.
    pub fn parse(text: &str) -> DetachKeys {
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        let keys = keys.filter(|_| !text.is_empty()).unwrap_or_else(|| DEFAULT.to_vec());
        DetachKeys { keys, matched: 0 }
    }

    /// Takes typed bytes. Returns what goes on to the container, and whether the sequence is complete.
    pub fn feed(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len());
        for &byte in typed {
            if byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (passed, true);
                }
                continue;
            }
            // A false start belongs to the container, and may be the start of a true one.
            passed.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(byte == self.keys[0]);
            if self.matched == 0 {
                passed.push(byte);
            }
        }
        (passed, false)
    }
}

fn key(text: &str) -> Option<u8> {
    match text.strip_prefix("ctrl-").map(str::as_bytes) {
        Some([letter @ b'a'..=b'z']) => Some(letter - b'a' + 1),
        Some(b"@") => Some(0),
        Some([symbol @ b'['..=b'_']) => Some(symbol - b'@'),
        Some(_) => None,
        None => match text.as_bytes() {
            [byte] => Some(*byte),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_found_across_reads() {
        let mut keys = DetachKeys::parse("");
        assert_eq!(keys.feed(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(keys.feed(b"b\x10\x10\x11"), (b"\x10b\x10".to_vec(), true));
        assert_eq!(DetachKeys::parse("ctrl-[,x").keys, [27, b'x']);
        assert_eq!(DetachKeys::parse("nonsense").keys, DEFAULT);
    }
}
