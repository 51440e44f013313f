//! Writing like everybody.

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// Gives the capability back when it is dropped.
struct Back(CapabilitySets);

impl Drop for Back {
    fn drop(&mut self) {
        // It is still permitted, so nothing can refuse it.
        let _ = set_capabilities(None, self.0);
    }
}

/// Runs `work`, whose writes on this thread keep to limits: ext4's do not count for who has CAP_SYS_RESOURCE
/// (fs/quota/dquot.c, `ignore_hardlimit`), and a daemon mostly has it.
pub fn obeying<T>(work: impl FnOnce() -> T) -> T {
    let _back = lower();
    work()
}

fn lower() -> Option<Back> {
    let before = capabilities(None).ok()?;
    if !before.effective.contains(CapabilitySet::SYS_RESOURCE) {
        return None;
    }
    let effective = before.effective - CapabilitySet::SYS_RESOURCE;
    set_capabilities(None, CapabilitySets { effective, ..before }).ok()?;
    Some(Back(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lowered_comes_back() {
        let now = || capabilities(None).unwrap().effective;
        let before = now();
        assert!(!obeying(now).contains(CapabilitySet::SYS_RESOURCE));
        assert_eq!(now(), before);
        std::panic::catch_unwind(|| obeying(|| panic!("on purpose"))).unwrap_err();
        assert_eq!(now(), before);
    }
}
