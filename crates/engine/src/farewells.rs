//! How containers ended that removed themselves: for clients who ask a moment too late.
//!
//! A client of `run --rm` whose daemon died asks the next one for the exit code, which by then may have recorded the end and
//! removed the container. Nobody else needs this: it is small, in memory, and forgotten soon.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use oci::ContainerId;

use crate::sync::lock;

/// How many are kept: more than attached clients wait for one daemon in practice, and some tens of KiB.
const KEPT_MAX: usize = 256;

/// How long each is kept: several times what a client waits for the next daemon.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// The last exit codes of containers that removed themselves.
#[derive(Default)]
pub struct Farewells(Mutex<VecDeque<Farewell>>);

struct Farewell {
    container: ContainerId,
    exit_code: i32,
    at: Instant,
}

impl Farewells {
    /// Keeps the exit code of a container that is about to be forgotten.
    pub fn keep(&self, container: &ContainerId, exit_code: i32) {
        self.keep_at(container, exit_code, Instant::now());
    }

    /// The exit code of a container that was removed a moment ago; only its whole id finds it.
    pub fn exit_code(&self, id: &str) -> Option<i32> {
        self.exit_code_at(id, Instant::now())
    }

    fn keep_at(&self, container: &ContainerId, exit_code: i32, now: Instant) {
        let mut kept = lock(&self.0);
        forget(&mut kept, now);
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(Farewell { container: container.clone(), exit_code, at: now });
    }

    fn exit_code_at(&self, id: &str, now: Instant) -> Option<i32> {
        let mut kept = lock(&self.0);
        forget(&mut kept, now);
        // The last one, should somebody have brought an id back.
        kept.iter().rev().find(|farewell| farewell.container.as_str() == id).map(|farewell| farewell.exit_code)
    }
}

fn forget(kept: &mut VecDeque<Farewell>, now: Instant) {
    let old = kept.iter().take_while(|farewell| now.duration_since(farewell.at) >= KEPT_FOR).count();
    kept.drain(..old);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ContainerId {
        format!("{number:064x}").parse().unwrap()
    }

    #[test]
    fn a_farewell_is_found_by_its_whole_id_until_it_is_old() {
        let (farewells, begin) = (Farewells::default(), Instant::now());
        farewells.keep_at(&id(1), 7, begin);
        let soon = begin + KEPT_FOR / 2;
        farewells.keep_at(&id(2), 0, soon);
        assert_eq!(farewells.exit_code_at(id(1).as_str(), soon), Some(7));
        assert_eq!(farewells.exit_code_at(&id(1).as_str()[..63], soon), None);
        assert_eq!(farewells.exit_code_at(id(3).as_str(), soon), None);
        assert_eq!(farewells.exit_code_at(id(1).as_str(), begin + KEPT_FOR), None);
        assert_eq!(farewells.exit_code_at(id(2).as_str(), begin + KEPT_FOR), Some(0));
    }

    #[test]
    fn the_oldest_make_room() {
        let (farewells, now) = (Farewells::default(), Instant::now());
        (0..=KEPT_MAX).for_each(|number| farewells.keep_at(&id(number), 1, now));
        assert_eq!(farewells.exit_code_at(id(0).as_str(), now), None);
        assert_eq!(farewells.exit_code_at(id(1).as_str(), now), Some(1));
        assert_eq!(farewells.exit_code_at(id(KEPT_MAX).as_str(), now), Some(1));
        assert_eq!(lock(&farewells.0).len(), KEPT_MAX);
    }
}
