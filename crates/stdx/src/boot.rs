//! Which start of the machine this is.

use std::fs;
use std::io;

/// What tells one boot from another (random(4)).
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The id of this boot: whatever was not synced during another one may be lost.
pub fn id() -> io::Result<String> {
    Ok(fs::read_to_string(BOOT)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_boot_has_one_id() {
        let id = super::id().unwrap();
        assert_eq!((id.len(), &id), (36, &super::id().unwrap()));
    }
}
