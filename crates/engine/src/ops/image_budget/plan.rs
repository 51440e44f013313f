//! Who goes. Pure.

use std::collections::{HashMap, HashSet};

use image::{ImageRecord, Part};
use oci::{Digest, Reference};

use crate::config::ImageBudgetConfig;

/// The label by which an image's maker pins it.
const PIN: &str = "longshore.pin";

/// An image that frees less than one of so many parts of what it takes is not worth its removal.
const WORTH: u64 = 100;

/// Images that share a name, each for its platform; nearly always one. They go together or not at all: a name means what it
/// meant, or nothing.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// First the one that the name means.
    pub(super) members: Vec<Member>,
    /// Of the one that was used last.
    pub(super) last_used_nanos: i64,
}

/// What is known of an image.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) id: Digest,
    pub(super) parent: Option<Digest>,
    /// Layers and blobs, with their bytes.
    pub(super) parts: Vec<(Part, u64)>,
    /// Why it stays in any case.
    pub(super) stays: Option<String>,
}

/// What becomes of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes, and so many bytes with each member.
    Goes(Vec<u64>),
    /// It stays.
    Stays,
}

/// What is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) fates: Vec<Fate>,
    /// Why members without a reason of their own stay, by group.
    pub(super) why: Vec<String>,
}

/// What all parts take, each counted once.
pub(super) fn total_bytes(groups: &[Group]) -> u64 {
    let parts = groups.iter().flat_map(Group::parts);
    parts.collect::<HashMap<_, _>>().values().fold(0, |sum, bytes| sum.saturating_add(*bytes))
}

impl Group {
    fn parts(&self) -> impl Iterator<Item = (&Part, u64)> {
        self.members.iter().flat_map(|member| &member.parts).map(|(part, bytes)| (part, *bytes))
    }

    fn stays(&self) -> bool {
        self.members.iter().any(|member| member.stays.is_some())
    }

    fn has(&self, id: &Digest) -> bool {
        self.members.iter().any(|member| member.id == *id)
    }
}

/// Decides; `groups` are the least recently used first, and `held` is what stays on the disk whatever image goes.
pub(super) fn plan(groups: &[Group], held: &HashSet<Part>, budget: &ImageBudgetConfig) -> Decision {
    let mut left = total_bytes(groups);
    let mut fates = vec![Fate::Stays; groups.len()];
    if left <= budget.high_bytes {
        return Decision { why: vec!["there is room".to_owned(); groups.len()], fates };
    }
    let mut users: HashMap<&Part, usize> = held.iter().map(|part| (part, 1)).collect();
    for (part, _) in groups.iter().flat_map(|group| group.members.iter().flat_map(|member| &member.parts)) {
        *users.entry(part).or_default() += 1;
    }
    let mut order = Vec::new();
    while left > budget.low_bytes {
        // What others were built from waits for them.
        let is_parent = |at: usize| {
            let mut rest = (0..groups.len()).filter(|other| *other != at && fates[*other] == Fate::Stays);
            rest.any(|other| {
                groups[other].members.iter().filter_map(|one| one.parent.as_ref()).any(|id| groups[at].has(id))
            })
        };
        let may_go = |at: &usize| fates[*at] == Fate::Stays && !groups[*at].stays() && !is_parent(*at);
        let Some(next) = (0..groups.len()).find(may_go) else { break };
        let frees: Vec<u64> = groups[next].members.iter().map(|member| take(member, &mut users)).collect();
        left = left.saturating_sub(frees.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes)));
        fates[next] = Fate::Goes(frees);
        order.push(next);
    }
    let rest = if left > budget.low_bytes { "other images were built from it" } else { "there is room without it" };
    let mut why = vec![rest.to_owned(); groups.len()];
    for at in put_back(groups, held, &mut fates, &order) {
        why[at] = "others have its layers: it would free next to nothing".to_owned();
    }
    Decision { fates, why }
}

/// Bytes of what the member was the last one to have.
fn take<'a>(member: &'a Member, users: &mut HashMap<&'a Part, usize>) -> u64 {
    let mut frees: u64 = 0;
    for (part, bytes) in &member.parts {
        let count = users.entry(part).or_default();
        *count = count.saturating_sub(1);
        frees = frees.saturating_add(if *count == 0 { *bytes } else { 0 });
    }
    frees
}

/// Whoever goes for next to nothing, since all that it has others keep, stays. The last one of the order is looked at first.
fn put_back(groups: &[Group], held: &HashSet<Part>, fates: &mut [Fate], order: &[usize]) -> Vec<usize> {
    let mut kept: HashSet<&Part> = held.iter().collect();
    let staying = groups.iter().zip(&*fates).filter(|(_, fate)| **fate == Fate::Stays);
    kept.extend(staying.flat_map(|(group, _)| group.parts().map(|(part, _)| part)));
    let mut back = Vec::new();
    for at in order.iter().rev().copied() {
        let parts: HashMap<&Part, u64> = groups[at].parts().collect();
        let sum = |kept: &mut dyn Iterator<Item = u64>| kept.fold(0, |sum: u64, bytes| sum.saturating_add(bytes));
        let own = sum(&mut parts.iter().filter(|(part, _)| !kept.contains(*part)).map(|(_, bytes)| *bytes));
        if own.saturating_mul(WORTH) < sum(&mut parts.values().copied()) {
            fates[at] = Fate::Stays;
            kept.extend(parts.keys());
            back.push(at);
        }
    }
    back
}

/// Which of these images share names, by their places; each in one group.
pub(super) fn sharing(names: &[Vec<String>]) -> Vec<Vec<usize>> {
    let mut group: Vec<usize> = (0..names.len()).collect();
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (at, name) in names.iter().enumerate().flat_map(|(at, names)| names.iter().map(move |name| (at, name))) {
        let (mine, other) = (group[at], group[*first.entry(name).or_insert(at)]);
        if mine != other {
            group.iter_mut().filter(|one| **one == mine).for_each(|one| *one = other);
        }
    }
    let mut groups: Vec<Vec<usize>> = names.iter().map(|_| Vec::new()).collect();
    group.iter().enumerate().for_each(|(at, group)| groups[*group].push(at));
    groups.retain(|group| !group.is_empty());
    groups
}

/// Why nobody may take it away, if there is a reason in the image itself.
pub(super) fn pinned(image: &ImageRecord, budget: &ImageBudgetConfig) -> Option<String> {
    if image.config.config.labels.as_ref().and_then(|labels| labels.get(PIN)).is_some_and(|value| value == "true") {
        return Some(format!("pinned by its label {PIN}"));
    }
    let names: Vec<&Reference> = image.references.iter().chain(&image.platform_of).collect();
    if let Some(pin) = budget.pins.iter().find(|pin| names.iter().any(|name| is_meant(pin, name))) {
        return Some(format!("pinned by image-pins {pin}"));
    }
    only_here(&names)
}

/// What was built, loaded, committed or named here may be nowhere else. A registry is known to have what it gave or was given.
fn only_here(names: &[&Reference]) -> Option<String> {
    let known = |name: &Reference| {
        let of_repository = |other: &&&Reference| other.familiar_name() == name.familiar_name();
        names.iter().filter(of_repository).any(|other| other.digest().is_some())
    };
    match names.iter().find(|name| !known(name)) {
        Some(name) => Some(format!("no registry is known to have {}: it may be nowhere else", name.familiar())),
        None if names.is_empty() => Some("no registry is known to have it: it may be nowhere else".to_owned()),
        None => None,
    }
}

/// Whether a pattern means a name, in its short form or whole. Without a tag or digest it means all of the repository.
pub(super) fn is_meant(pattern: &str, name: &Reference) -> bool {
    let last = pattern.rsplit('/').next().unwrap_or(pattern);
    if last.contains([':', '@']) {
        return matches(pattern, &name.familiar()) || matches(pattern, &name.to_string());
    }
    let whole = format!("{}/{}", name.domain(), name.path());
    matches(pattern, &name.familiar_name()) || matches(pattern, &whole)
}

/// `*` stands for any letters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests;
