//! Hostile input out of good input: always the same for the same seed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How many seconds [`rounds`] takes; ten if it is not set.
pub const SECONDS_VARIABLE: &str = "LONGSHORE_FUZZ_SECONDS";

/// The seed of the first round, as a failed round has printed it.
pub const SEED_VARIABLE: &str = "LONGSHORE_FUZZ_SEED";

/// What values of JSON are replaced with: the edges of what readers expect.
const STRINGS: [&str; 12] = [
    "",
    "/",
    "..",
    "../../..",
    "a b",
    "-1",
    "18446744073709551616",
    "\u{0}",
    "\u{fffd}",
    "sha256:",
    "none",
    "x:y:z:ro",
];

/// Makes changes.
#[derive(Debug)]
pub struct Mutator(u64);

/// Does `round` with one mutator after another until the time is up. The seed of a round that panics is printed.
pub fn rounds(mut round: impl FnMut(&mut Mutator)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = number(SEED_VARIABLE).unwrap_or_else(|| u64::from(std::process::id()) << 32);
    let end = Instant::now() + Duration::from_secs(number(SECONDS_VARIABLE).unwrap_or(10));
    let mut seed = first;
    while seed == first || Instant::now() < end {
        let told = Told(seed);
        round(&mut Mutator::new(seed));
        std::mem::forget(told);
        seed = seed.wrapping_add(1);
    }
    println!("{} rounds, the first with {SEED_VARIABLE}={first}", seed.wrapping_sub(first));
}

/// Tells the seed when a panic drops it.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("to do this round again: {SEED_VARIABLE}={}", self.0);
    }
}

impl Mutator {
    /// A mutator whose changes follow from `seed`.
    pub fn new(seed: u64) -> Mutator {
        Mutator(seed)
    }

    /// A number below `end`, which is not 0. SplitMix64 (Steele, Lea, Flood, 2014): every seed is a good one.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end as u64).expect("it is below a usize")
    }

    /// Whether, once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// The bytes with a few changes.
    pub fn bytes(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let length = bytes.len().max(1);
            let at = self.below(length).min(bytes.len());
            let until = (at + 1 + self.below(16)).min(bytes.len());
            match self.below(6) {
                _ if bytes.is_empty() => bytes.push(b'x'),
                0 => bytes.truncate(at),
                1 => drop(bytes.drain(at..until)),
                2 => bytes.extend_from_within(at..until),
                3 => bytes[at..until].fill(*self.pick(&[0, b'0', b'7', 0x7f, 0x80, 0xff])),
                _ => bytes[at.min(length - 1)] ^= 1 << self.below(8),
            }
        }
        bytes
    }

    /// The value with one of its parts changed.
    pub fn json(&mut self, value: &Value) -> Value {
        let mut value = value.clone();
        self.change(&mut value);
        value
    }

    fn change(&mut self, value: &mut Value) {
        let deeper = !self.once_in(8);
        match value {
            Value::Object(fields) if deeper && !fields.is_empty() => {
                let name = fields.keys().nth(self.below(fields.len())).expect("below their number").clone();
                match self.below(10) {
                    0 => drop(fields.remove(&name)),
                    1 => drop(fields.insert(name.to_lowercase(), self.any())),
                    _ => self.change(&mut fields[&name]),
                }
            }
            Value::Array(items) if deeper && !items.is_empty() => {
                let at = self.below(items.len());
                match self.below(6) {
                    0 => drop(items.remove(at)),
                    1 => items.push(items[at].clone()),
                    _ => self.change(&mut items[at]),
                }
            }
            value => *value = self.any(),
        }
    }

    fn any(&mut self) -> Value {
        match self.below(12) {
            0 => Value::Null,
            1 => json!(true),
            2 => json!(-1),
            3 => json!(i64::MAX),
            4 => json!(u64::MAX),
            5 => json!(0.5),
            6 => json!([]),
            7 => json!({}),
            8 => json!([[["a"]]]),
            9 => json!("a".repeat(5000)),
            _ => json!(self.pick(&STRINGS)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_changes_and_another_seed_others() {
        let value = json!({"a": [1, "two", {"b": null}], "c": {"d": 5}});
        let bytes = value.to_string().into_bytes();
        let made = |seed| (Mutator::new(seed).json(&value), Mutator::new(seed).bytes(&bytes));
        let all: std::collections::BTreeSet<_> =
            (0..100).map(|seed| (made(seed).0.to_string(), made(seed).1)).collect();
        assert!(all.len() > 60, "{}", all.len());
        assert_eq!(made(7), made(7));
        assert!(Mutator::new(1).bytes(b"").len() < 20);
    }
}
