//! Names of containers: what is allowed, and what we choose. Pure but for the choice.

/// What Docker's sentences say of allowed names.
pub const ALLOWED: &str = "[a-zA-Z0-9][a-zA-Z0-9_.-]";

/// How often a random name may be taken before the id is used instead.
pub const ATTEMPTS: usize = 6;

const ADJECTIVES: [&str; 64] = [
    "able", "agile", "amber", "ample", "apt", "bold", "brave", "bright", "brisk", "busy", "calm", "candid", "clear",
    "clever", "cosy", "crisp", "daring", "deft", "eager", "early", "easy", "exact", "fair", "firm", "fleet", "fond",
    "frank", "fresh", "gentle", "glad", "golden", "grand", "hardy", "honest", "humble", "jolly", "keen", "kind",
    "lively", "loyal", "lucid", "merry", "mighty", "neat", "nimble", "noble", "patient", "plucky", "proud", "quick",
    "quiet", "ready", "robust", "serene", "sharp", "silent", "sober", "steady", "sturdy", "swift", "tidy", "trusty",
    "vivid", "witty",
];

const NOUNS: [&str; 64] = [
    "anchor",
    "ballast",
    "barge",
    "beacon",
    "bollard",
    "boom",
    "bosun",
    "bridge",
    "buoy",
    "cable",
    "canal",
    "capstan",
    "cargo",
    "chain",
    "compass",
    "cooper",
    "coracle",
    "crane",
    "davit",
    "derrick",
    "dinghy",
    "dock",
    "dory",
    "ferry",
    "fender",
    "galley",
    "gantry",
    "girder",
    "halyard",
    "harbour",
    "hawser",
    "helm",
    "hoist",
    "hold",
    "hull",
    "jetty",
    "keel",
    "ketch",
    "lanyard",
    "lever",
    "lighter",
    "lock",
    "mast",
    "mooring",
    "oar",
    "pallet",
    "pier",
    "pilot",
    "pulley",
    "quay",
    "rigger",
    "rivet",
    "rudder",
    "sextant",
    "sloop",
    "spar",
    "stevedore",
    "tiller",
    "trawler",
    "tug",
    "wharf",
    "winch",
    "windlass",
    "yawl",
];

/// Whether `name` (without a slash) is allowed: at least two of the allowed characters, a letter or digit first.
pub fn is_valid(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() >= 2
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// A name of two words out of 12 random bits; from the second attempt on with a digit more.
pub fn choose(random: u64, attempt: usize) -> String {
    let pick = |words: &[&'static str; 64], shift: u32| words[(random >> shift) as usize % words.len()];
    let (adjective, noun) = (pick(&ADJECTIVES, 0), pick(&NOUNS, 6));
    match attempt {
        0 => format!("{adjective}_{noun}"),
        _ => format!("{adjective}_{noun}{}", (random >> 12) % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_dockerd_does() {
        for good in ["ab", "a1", "0x", "web-1", "a_.-"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["", "a", "-ab", ".ab", "_a", "a b", "a/b", "ä1", "a\n"] {
            assert!(!is_valid(bad), "{bad:?}");
        }
    }

    #[test]
    fn chosen_names_are_valid_and_all_words_occur() {
        let names: std::collections::BTreeSet<String> = (0..4096).map(|random| choose(random, 0)).collect();
        assert_eq!(names.len(), 4096);
        assert!(names.iter().all(|name| is_valid(name)));
        assert_eq!(choose(3 << 12, 1), "able_anchor3");
    }
}
