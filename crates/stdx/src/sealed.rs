//! Bytes that tell whether they are whole: a head with a checksum, for files that are made again when they are damaged.
//!
//! ```text
//! magic     8 bytes
//! checksum  8 bytes   of everything that follows, and of its length
//! bytes
//! ```
//!
//! Against disks and kills, not against people: who may write the file may seal it, too.

const MAGIC: [u8; 8] = *b"LSSEAL1\n";

/// How much longer bytes are when they are sealed.
pub const HEAD_BYTES: usize = 16;

/// The bytes with their head.
pub fn seal(bytes: &[u8]) -> Vec<u8> {
    [&MAGIC[..], &checksum(bytes).to_le_bytes(), bytes].concat()
}

/// The bytes behind the head; `None` if they are not those that were sealed.
pub fn open(sealed: &[u8]) -> Option<&[u8]> {
    let (magic, rest) = sealed.split_first_chunk::<8>()?;
    let (sum, bytes) = rest.split_first_chunk::<8>()?;
    (*magic == MAGIC && u64::from_le_bytes(*sum) == checksum(bytes)).then_some(bytes)
}

/// FNV-1a by words of eight bytes. Each step can be undone, so that two texts that differ in one word never have the same.
fn checksum(bytes: &[u8]) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let step = |sum: u64, word: u64| {
        let mixed = (sum ^ word).wrapping_mul(PRIME);
        mixed ^ (mixed >> 29)
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let sum = words.iter().fold(BASIS, |sum, word| step(sum, u64::from_le_bytes(*word)));
    step(step(sum, u64::from_le_bytes(last)), bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_damage_is_seen() {
        for length in [0, 1, 7, 8, 9, 64, 100] {
            let bytes: Vec<u8> = (0..length).collect();
            let sealed = seal(&bytes);
            assert_eq!((open(&sealed), sealed.len()), (Some(&bytes[..]), bytes.len() + HEAD_BYTES));
            for at in 0..sealed.len() {
                assert_eq!(open(&sealed[..at]), None, "{length} cut at {at}");
                for bit in 0..8 {
                    let mut damaged = sealed.clone();
                    damaged[at] ^= 1 << bit;
                    assert_eq!(open(&damaged), None, "{length} with another bit {bit} of {at}");
                }
            }
            assert_eq!(open(&[&sealed[..], &[0]].concat()), None, "{length} and a zero");
            assert_eq!(open(&vec![0; sealed.len()]), None);
        }
    }
}
