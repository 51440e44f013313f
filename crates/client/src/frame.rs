//! The multiplexed stream of containers without a terminal.
//!
//! ```text
//! 1 byte stream (0 stdin, 1 stdout, 2 stderr, 3 error of the daemon) | 3 bytes 0 | 4 bytes length, big endian | payload
//! ```
//! (Engine API, "Attach to a container", stream format.)

/// Which stream a piece belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Standard output (and what the daemon echoes of standard input).
    Stdout,
    /// Standard error.
    Stderr,
    /// The daemon's own error: the stream ends here.
    SystemError,
}

/// The stream is not in this encoding.
#[derive(Debug, thiserror::Error)]
#[error("Unrecognized input header: {0}")]
pub struct FrameError(pub u8);

/// Takes bytes in pieces of any size and tells whose they are, without copying them.
#[derive(Debug, Default)]
pub struct Demultiplexer {
    header: [u8; 8],
    header_len: usize,
    payload_left: usize,
    kind: Option<Kind>,
}

impl Demultiplexer {
    /// Calls `sink` for each run of payload in `bytes`.
    pub fn feed<'a>(&mut self, mut bytes: &'a [u8], mut sink: impl FnMut(Kind, &'a [u8])) -> Result<(), FrameError> {
        while !bytes.is_empty() {
            match self.kind {
                Some(kind) => {
                    let (payload, rest) = bytes.split_at(self.payload_left.min(bytes.len()));
                    sink(kind, payload);
                    self.payload_left -= payload.len();
                    bytes = rest;
                    if self.payload_left == 0 {
                        self.kind = None;
                    }
                }
                None => bytes = self.feed_header(bytes)?,
            }
        }
        Ok(())
    }

    fn feed_header<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], FrameError> {
        let (part, rest) = bytes.split_at((8 - self.header_len).min(bytes.len()));
        self.header[self.header_len..self.header_len + part.len()].copy_from_slice(part);
        self.header_len += part.len();
        if self.header_len == 8 {
            self.header_len = 0;
            let [kind, _, _, _, length @ ..] = self.header;
            self.payload_left = u32::from_be_bytes(length) as usize;
            let kind = match kind {
                0 | 1 => Kind::Stdout,
                2 => Kind::Stderr,
                3 => Kind::SystemError,
                other => return Err(FrameError(other)),
            };
            self.kind = (self.payload_left > 0).then_some(kind);
        }
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_give_the_same_streams() {
        let stream = b"\x01\0\0\0\0\0\0\x03abc\x02\0\0\0\0\0\0\x02de\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x01f";
        for size in 1..stream.len() {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut demultiplexer = Demultiplexer::default();
            for piece in stream.chunks(size) {
                let sink = |kind, bytes: &[u8]| match kind {
                    Kind::Stdout => out.extend_from_slice(bytes),
                    _ => err.extend_from_slice(bytes),
                };
                demultiplexer.feed(piece, sink).unwrap();
            }
            assert_eq!((out.as_slice(), err.as_slice()), (&b"abcf"[..], &b"de"[..]), "pieces of {size}");
        }
        assert!(Demultiplexer::default().feed(b"\x09\0\0\0\0\0\0\x01", |_, _| ()).is_err());
    }
}
