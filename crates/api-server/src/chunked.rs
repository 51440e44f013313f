//! The chunked transfer encoding (RFC 9112, section 7.1), for the few bodies that hyper does not read for us.

/// Why a body cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChunkError {
    /// It is not in chunks.
    Malformed,
    /// It is larger than allowed.
    TooLarge,
}

/// Longest line of a chunk's size, with extensions that nobody uses.
const LINE_LIMIT: usize = 256;

/// Decodes a whole body: its bytes, and how many encoded ones they were. `None` if more are needed.
///
/// Trailers are skipped. Decodes from the start at each call: bodies here are a few bytes of JSON.
pub(crate) fn decode(encoded: &[u8], limit: usize) -> Result<Option<(Vec<u8>, usize)>, ChunkError> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let Some(line) = line(encoded, at)? else { return Ok(None) };
        let size = size(line)?;
        at += line.len() + 2;
        if size == 0 {
            return Ok(trailers_end(encoded, at)?.map(|end| (body, end)));
        }
        if body.len() + size > limit {
            return Err(ChunkError::TooLarge);
        }
        let Some(chunk) = encoded.get(at..at + size + 2) else { return Ok(None) };
        let Some(bytes) = chunk.strip_suffix(b"\r\n") else { return Err(ChunkError::Malformed) };
        body.extend_from_slice(bytes);
        at += size + 2;
    }
}

/// The line that begins at `at`, without its end; `None` if its end has not come.
fn line(encoded: &[u8], at: usize) -> Result<Option<&[u8]>, ChunkError> {
    let rest = &encoded[at..];
    match rest.windows(2).take(LINE_LIMIT).position(|pair| pair == b"\r\n") {
        Some(end) => Ok(Some(&rest[..end])),
        None if rest.len() > LINE_LIMIT => Err(ChunkError::Malformed),
        None => Ok(None),
    }
}

/// The size in hexadecimal digits, before extensions.
fn size(line: &[u8]) -> Result<usize, ChunkError> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    // Eight digits are more than any limit, and cannot overflow.
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(ChunkError::Malformed);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| ChunkError::Malformed)?;
    usize::from_str_radix(digits, 16).map_err(|_| ChunkError::Malformed)
}

/// Where the empty line behind the trailers ends.
fn trailers_end(encoded: &[u8], mut at: usize) -> Result<Option<usize>, ChunkError> {
    loop {
        match line(encoded, at)? {
            None => return Ok(None),
            Some([]) => return Ok(Some(at + 2)),
            Some(trailer) => at += trailer.len() + 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_decoded_once_they_are_whole() {
        let text = b"2\r\n{}\r\n3;x=y\r\nabc\r\n0\r\nTrailer: z\r\n\r\nbehind";
        let whole = text.len() - "behind".len();
        for length in 0..whole {
            assert_eq!(decode(&text[..length], 100), Ok(None), "{length}");
        }
        assert_eq!(decode(text, 100), Ok(Some((b"{}abc".to_vec(), whole))));
        assert_eq!(decode(b"0\r\n\r\n", 0), Ok(Some((Vec::new(), 5))));
    }

    #[test]
    fn broken_ones_are_refused() {
        assert_eq!(decode(b"zz\r\n", 100), Err(ChunkError::Malformed));
        assert_eq!(decode(b"\r\n", 100), Err(ChunkError::Malformed));
        assert_eq!(decode(b"1\r\nabc", 100), Err(ChunkError::Malformed));
        assert_eq!(decode(b"fffffffff\r\n", 100), Err(ChunkError::Malformed));
        assert_eq!(decode(&[b'1'; 400], 100), Err(ChunkError::Malformed));
        assert_eq!(decode(b"65\r\n", 100), Err(ChunkError::TooLarge));
    }
}
