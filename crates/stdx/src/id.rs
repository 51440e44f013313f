//! Random identifiers.

use std::fmt::Write;

/// `2 * N` lower-case hex digits from the kernel's random source.
///
/// Never blocks once the machine has booted (getrandom(2)).
pub fn random_hex<const N: usize>() -> String {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        let read = rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty());
        filled += read.expect("getrandom with valid arguments fails only on kernels before 3.17");
    }
    bytes.iter().fold(String::with_capacity(2 * N), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_have_their_length_and_differ() {
        let (a, b) = (super::random_hex::<32>(), super::random_hex::<32>());
        assert_eq!(a.len(), 64);
        assert_ne!(a, b);
    }
}
