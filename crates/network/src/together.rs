//! Two things at once, where both take long enough to be worth a thread.

use std::thread::Builder;

/// From how many ports on their sockets are made, and they are told of, by two at once: 128 sockets take about a millisecond, a
/// thread a tenth of it.
pub(crate) const MANY: usize = 128;

/// Does both at once if `many` are concerned, and one after the other otherwise, or where no thread is to be had.
pub(crate) fn together<A: Send, B>(many: bool, mut one: impl FnMut() -> A + Send, other: impl FnOnce() -> B) -> (A, B) {
    if !many {
        return (one(), other());
    }
    let both = std::thread::scope(|scope| match Builder::new().spawn_scoped(scope, &mut one) {
        Ok(thread) => {
            let other = other();
            Ok((thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), other))
        }
        Err(_) => Err(other),
    });
    both.unwrap_or_else(|other| (one(), other()))
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::together;

    #[test]
    fn both_are_done_at_once_if_there_are_many() {
        let barrier = Barrier::new(2);
        // Each waits for the other one.
        let meet = || barrier.wait().is_leader();
        let (one, other) = together(true, meet, meet);
        assert_ne!(one, other);
        let here = || std::thread::current().id();
        let (one, other) = together(false, here, here);
        assert_eq!(one, other);
    }
}
