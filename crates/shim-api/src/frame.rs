//! Frames: a little-endian `u32` length, then that many bytes of JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest frame that is taken: an OCI specification with a huge environment is far below it, and a peer gone mad
/// cannot make us allocate more.
pub const FRAME_MAX_BYTES: usize = 16 << 20;

/// Why a stream of frames cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The announced length is over [`FRAME_MAX_BYTES`].
    #[error("frame of {length} bytes is over the limit of {FRAME_MAX_BYTES}")]
    TooLong {
        /// In bytes.
        length: usize,
    },
    /// The bytes are not the expected JSON.
    #[error("decode frame")]
    Decode(#[source] serde_json::Error),
}

/// One message as a frame.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message).expect("our messages have string keys only, and a Vec takes all bytes");
    let length = u32::try_from(bytes.len() - 4).expect("a frame is far below 4 GiB");
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// Puts frames together from the pieces in which a stream delivers them.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    consumed: usize,
}

impl Decoder {
    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.consumed > 0 {
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Frees the memory of messages that were taken: a large one is often the only one.
    pub fn trim(&mut self) {
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        self.buffer.shrink_to_fit();
    }

    /// The next whole message, if there is one. After an error the stream is of no more use.
    pub fn next_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let rest = &self.buffer[self.consumed..];
        let Some((head, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head) as usize;
        if length > FRAME_MAX_BYTES {
            return Err(FrameError::TooLong { length });
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = serde_json::from_slice(body).map_err(FrameError::Decode)?;
        self.consumed += 4 + length;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let bytes: Vec<u8> = ["a", "", "long".repeat(100).as_str()].iter().flat_map(encode).collect();
        for cut in 0..=bytes.len() {
            let mut decoder = Decoder::default();
            let mut got: Vec<String> = Vec::new();
            for piece in [&bytes[..cut], &bytes[cut..]] {
                decoder.push(piece);
                while let Some(message) = decoder.next_message().unwrap() {
                    got.push(message);
                }
            }
            assert_eq!(got, ["a", "", &"long".repeat(100)]);
        }
    }

    #[test]
    fn a_frame_over_the_limit_or_of_rubbish_is_refused() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::MAX.to_le_bytes());
        assert!(matches!(decoder.next_message::<String>(), Err(FrameError::TooLong { .. })));
        let mut decoder = Decoder::default();
        decoder.push(b"\x01\0\0\0{");
        assert!(matches!(decoder.next_message::<String>(), Err(FrameError::Decode(_))));
    }
}
