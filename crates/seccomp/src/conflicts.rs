//! Several actions for one call: which of them counts, and which contradict each other. Pure.
//!
//! libseccomp 2.5 takes the first rule that compares nothing for all that is said of its call, before and behind it, without
//! a word. Two actions for the same comparisons it refuses, without saying which.

use std::collections::BTreeMap;

use crate::profile::{Action, Argument};
use crate::resolve::{Filter, FilterRule};

/// A rule that is passed over, because another one has the same calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// Its place in [`Filter::syscalls`].
    pub rule: usize,
    /// The place of the one that counts.
    pub counts: usize,
    /// Those of its calls that both have.
    pub names: Vec<String>,
    /// What it says, in words.
    pub action: String,
    /// What counts, in words.
    pub other: String,
}

/// Two rules that say different things of the same comparisons of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The later one's place in [`Filter::syscalls`].
    pub rule: usize,
    /// The earlier one's.
    pub other: usize,
    /// The call.
    pub name: String,
    /// What the later one says, in words.
    pub action: String,
    /// What the earlier one says, in words.
    pub earlier: String,
}

/// What a rule does, with the number that it has.
type Effect = (Action, Option<u32>);

/// The rules that are passed over, in their order; or the first two that contradict each other.
pub(crate) fn find(filter: &Filter) -> Result<Vec<PassedOver>, Contradiction> {
    let mut calls: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, rule) in filter.syscalls.iter().enumerate() {
        for name in &rule.names {
            calls.entry(name).or_default().push(index);
        }
    }
    let mut passed: BTreeMap<(usize, usize), Vec<String>> = BTreeMap::new();
    for (name, rules) in calls.into_iter().filter(|(_, rules)| rules.len() > 1) {
        let of_all = rules.iter().copied().find(|index| filter.of_all(&filter.syscalls[*index]));
        let compared = rules.iter().copied().take_while(|index| Some(*index) != of_all).collect::<Vec<_>>();
        filter.contradiction(name, &compared).map_or(Ok(()), Err)?;
        let Some(counts) = of_all else { continue };
        let differs =
            |index: &usize| filter.effect(&filter.syscalls[*index]) != filter.effect(&filter.syscalls[counts]);
        for rule in rules.into_iter().filter(differs) {
            passed.entry((rule, counts)).or_default().push(name.to_owned());
        }
    }
    let told = |((rule, counts), names)| {
        let [action, other] = [rule, counts].map(|index| words(filter.effect(&filter.syscalls[index])));
        PassedOver { rule, counts, names, action, other }
    };
    Ok(passed.into_iter().map(told).collect())
}

impl Filter {
    /// Whether a rule counts whatever the arguments are. One that says what the default says is none to libseccomp.
    fn of_all(&self, rule: &FilterRule) -> bool {
        rule.args.is_empty() && !self.is_default(rule)
    }

    fn is_default(&self, rule: &FilterRule) -> bool {
        self.effect(rule) == number(self.default_action, self.default_errno_ret)
    }

    fn effect(&self, rule: &FilterRule) -> Effect {
        number(rule.action, rule.errno_ret)
    }

    /// The first two of these rules for one call that compare the same and do not say the same.
    fn contradiction(&self, name: &str, rules: &[usize]) -> Option<Contradiction> {
        let rules = || rules.iter().copied().map(|index| (index, &self.syscalls[index]));
        let said = |rule: &FilterRule| words(self.effect(rule));
        rules().filter(|(_, rule)| !self.is_default(rule)).find_map(|(index, rule)| {
            let same = |(other, earlier): &(usize, &FilterRule)| {
                *other < index
                    && !self.is_default(earlier)
                    && self.effect(earlier) != self.effect(rule)
                    && meet(earlier, rule)
            };
            let (other, earlier) = rules().find(same)?;
            Some(Contradiction {
                rule: index,
                other,
                name: name.to_owned(),
                action: said(rule),
                earlier: said(earlier),
            })
        })
    }
}

/// Without one it is EPERM (runc, `defaultErrnoRet`).
fn number(action: Action, errno: Option<u32>) -> Effect {
    match action {
        Action::Errno | Action::Trace => (action, Some(errno.unwrap_or(crate::compile::ERRNO_DEFAULT))),
        action => (action, None),
    }
}

/// Whether both have the same comparisons among their alternatives.
fn meet(one: &FilterRule, other: &FilterRule) -> bool {
    let sorted = |rule| {
        let alternatives = crate::compile::alternatives(rule).into_iter();
        let key = |one: &Argument| one.index;
        alternatives.map(move |all| {
            let mut all = all.to_vec();
            all.sort_by_key(key);
            all
        })
    };
    sorted(one).any(|all| sorted(other).any(|others| others == all))
}

fn words((action, number): Effect) -> String {
    let number = number.map_or_else(String::new, |number| format!(" ({number})"));
    format!("{}{number}", action.word())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::profile::Profile;
    use crate::resolve::{Arch, resolve};

    fn filter(default: &str, rules: &Value) -> Filter {
        let profile: Profile = serde_json::from_value(json!({"defaultAction": default, "syscalls": rules})).unwrap();
        resolve(&profile, &[], Arch::X86_64, (6, 1)).unwrap().unwrap()
    }

    fn rule(action: &str, errno: Option<u32>, values: &[u64]) -> Value {
        let compare = |value| json!({"index": 0, "value": value, "op": "SCMP_CMP_EQ"});
        let args: Vec<_> = values.iter().map(compare).collect();
        json!({"names": ["getuid", "getgid"], "action": action, "errnoRet": errno, "args": args})
    }

    #[test]
    fn the_rule_that_counts_is_the_one_that_libseccomp_takes() {
        let errno = |number, values: &[u64]| rule("SCMP_ACT_ERRNO", Some(number), values);
        let kill = || rule("SCMP_ACT_KILL_PROCESS", None, &[]);
        let allow = |values: &[u64]| rule("SCMP_ACT_ALLOW", None, values);
        let allowed = "SCMP_ACT_ALLOW";
        for (default, rules, passed, does) in [
            (allowed, [errno(3, &[]), errno(5, &[])], Some((1, 0)), 0x50003),
            (allowed, [errno(3, &[]), kill()], Some((1, 0)), 0x50003),
            (allowed, [kill(), errno(3, &[])], Some((1, 0)), 0x8000_0000),
            (allowed, [errno(3, &[]), errno(5, &[1])], Some((1, 0)), 0x50003),
            (allowed, [errno(5, &[1]), errno(3, &[])], Some((0, 1)), 0x50003),
            // What the default does already, yet somebody wrote it.
            (allowed, [allow(&[]), errno(3, &[])], Some((0, 1)), 0x50003),
            (allowed, [errno(3, &[]), allow(&[])], Some((1, 0)), 0x50003),
            ("SCMP_ACT_ERRNO", [kill(), allow(&[1])], Some((1, 0)), 0x8000_0000),
            // Nothing is passed over.
            (allowed, [errno(3, &[1]), errno(4, &[2])], None, 0x50003),
            (allowed, [errno(1, &[]), rule("SCMP_ACT_ERRNO", None, &[])], None, 0x50001),
            (allowed, [errno(3, &[1]), allow(&[])], None, 0x50003),
        ] {
            let filter = filter(default, &json!(rules));
            let found = find(&filter).unwrap();
            let places: Vec<_> = found.iter().map(|one| (one.rule, one.counts)).collect();
            assert_eq!(places, passed.into_iter().collect::<Vec<_>>(), "{rules:?}");
            assert!(found.iter().all(|one| one.names == ["getgid", "getuid"]), "{found:?}");
            let program = crate::compile(&filter).unwrap();
            assert_eq!(crate::compile::decided_with(&program, 102, 1), does, "{rules:?}");
        }
    }

    #[test]
    fn two_actions_for_the_same_arguments_contradict_each_other() {
        let log = || rule("SCMP_ACT_LOG", None, &[1]);
        let both = filter("SCMP_ACT_ALLOW", &json!([rule("SCMP_ACT_ERRNO", Some(5), &[1]), log()]));
        let expected = Contradiction {
            rule: 1,
            other: 0,
            name: "getgid".into(),
            action: "SCMP_ACT_LOG".into(),
            earlier: "SCMP_ACT_ERRNO (5)".into(),
        };
        assert_eq!(find(&both), Err(expected));
        // libseccomp does not take them, either.
        assert!(crate::compile(&both).is_err());
        let covered = json!([rule("SCMP_ACT_ERRNO", Some(5), &[]), rule("SCMP_ACT_ERRNO", Some(4), &[1]), log()]);
        assert_eq!(find(&filter("SCMP_ACT_ALLOW", &covered)).unwrap().len(), 2);
    }

    #[test]
    fn dockers_profile_has_one_action_for_each_call() {
        for capabilities in [&[][..], &["CAP_SYS_ADMIN".to_owned()], &["CAP_SYS_CHROOT".to_owned()]] {
            let found = resolve(&Profile::docker_default(), capabilities, Arch::X86_64, (6, 1)).unwrap().unwrap();
            assert_eq!(find(&found), Ok(Vec::new()));
        }
    }
}
