//! Several rules for one call, decided as they are written.
//!
//! What libseccomp 2.5.4 makes of several rules that compare arguments of one call is not always what they say: beside
//! `0 < 0` it forgets `0 < 0x100000000`, and of `0 != 0 && 1 != 0` or `0 <= 0` it takes one for the other (found by the
//! property test). A filter that lets calls through which it denies is none, so such calls are decided here, in front of
//! libseccomp's program, one rule after the other; all others are left to it.
//!
//! ```text
//!   load architecture; A?  no -> behind A's calls
//!     load number; this call?  no -> next call
//!       rule: load half of an argument; compare; ...  no -> next rule
//!             return action
//!       return default
//! ```

use std::collections::{BTreeMap, BTreeSet};

use libseccomp::{ScmpAction, ScmpArch, ScmpSyscall};

use super::{ARCHITECTURE_OFFSET, Instruction, NUMBER_OFFSET, code};
use crate::profile::{Action, Argument, Operator};
use crate::resolve::{Filter, FilterRule};

/// Architectures of the machines that we run on: name, audit number, whether arguments have 64 bits, as libseccomp has it.
const ARCHITECTURES: [(ScmpArch, u32, bool); 5] = [
    (ScmpArch::X8664, 0xc000_003e, true),
    (ScmpArch::X86, 0x4000_0003, false),
    (ScmpArch::X32, 0xc000_003e, false),
    (ScmpArch::Aarch64, 0xc000_00b7, true),
    (ScmpArch::Arm, 0x4000_0028, false),
];

/// SECCOMP_RET_DATA (linux/seccomp.h).
const DATA: u32 = 0xffff;

/// Alternatives for one call, all of one action.
struct Call<'a> {
    name: &'a str,
    action: ScmpAction,
    alternatives: Vec<&'a [Argument]>,
}

/// The instructions that come first; none for most filters.
pub(super) fn program(
    filter: &Filter,
    architectures: &[ScmpArch],
    default: ScmpAction,
    action: impl Fn(Action, Option<u32>) -> ScmpAction,
) -> Vec<Instruction> {
    let calls = calls(filter, default, action);
    if calls.is_empty() {
        return Vec::new();
    }
    let named = |name: &ScmpArch| *name == ScmpArch::native() || architectures.contains(name);
    let of_machine = ARCHITECTURES.iter().filter(|(name, ..)| named(name));
    of_machine.flat_map(|(name, audit, wide)| architecture(&calls, default, *name, *audit, *wide)).collect()
}

/// The names of calls that [`program`] decides whatever the architecture: libseccomp need not see their rules, and must not,
/// as some of them keep 2.5.4 in an endless loop.
pub(super) fn decided<'a>(
    filter: &'a Filter,
    architectures: &[ScmpArch],
    default: ScmpAction,
    action: impl Fn(Action, Option<u32>) -> ScmpAction,
) -> BTreeSet<&'a str> {
    // Where a call is multiplexed, only libseccomp knows how.
    let has_number = |name: &str, architecture: &ScmpArch| {
        let number = ScmpSyscall::from_name_by_arch(name, *architecture).ok().map(i32::from);
        ARCHITECTURES.iter().any(|(known, ..)| known == architecture) && number.is_some_and(|number| number >= 0)
    };
    let all = || architectures.iter().copied().chain([ScmpArch::native()]);
    let names = calls(filter, default, action).into_iter().map(|call| call.name);
    names.filter(|name| all().all(|architecture| has_number(name, &architecture))).collect()
}

/// The calls that are not left to libseccomp, by name.
fn calls<'a>(
    filter: &'a Filter,
    default: ScmpAction,
    action: impl Fn(Action, Option<u32>) -> ScmpAction,
) -> Vec<Call<'a>> {
    let mut rules: BTreeMap<&str, Vec<(ScmpAction, &FilterRule)>> = BTreeMap::new();
    for rule in &filter.syscalls {
        let action = action(rule.action, rule.errno_ret);
        for name in rule.names.iter().filter(|_| action != default) {
            rules.entry(name).or_default().push((action, rule));
        }
    }
    let call = |(name, rules): (&'a str, Vec<(ScmpAction, &'a FilterRule)>)| {
        let alternatives: Vec<_> = rules.iter().flat_map(|(_, rule)| super::alternatives(rule)).collect();
        let action = rules.first()?.0;
        // Which of several actions counts only libseccomp knows.
        let one_action = rules.iter().all(|(other, _)| *other == action);
        let call = Call { name, action, alternatives };
        (one_action && !call.is_safe()).then_some(call)
    };
    rules.into_iter().filter_map(call).collect()
}

impl Call<'_> {
    /// Whether libseccomp gets it right: a single rule, or values of one argument, as in Docker's profile.
    fn is_safe(&self) -> bool {
        let values = |arguments: &&[Argument]| matches!(arguments, [one] if one.operator == Operator::Equal);
        let mut indexes: Vec<_> = self.alternatives.iter().flat_map(|all| all.iter()).map(|one| one.index).collect();
        indexes.dedup();
        self.alternatives.len() < 2
            || self.alternatives.iter().any(|arguments| arguments.is_empty())
            || self.alternatives.iter().all(values) && indexes.len() == 1
    }
}

/// One architecture's part.
fn architecture(calls: &[Call<'_>], default: ScmpAction, name: ScmpArch, audit: u32, wide: bool) -> Vec<Instruction> {
    let mut part = Vec::new();
    for call in calls {
        // Negative numbers are libseccomp's own, for calls that the architecture multiplexes.
        let number = ScmpSyscall::from_name_by_arch(call.name, name).ok().map(i32::from);
        let Some(number) = number.and_then(|number| u32::try_from(number).ok()) else { continue };
        let mut body: Vec<Instruction> =
            call.alternatives.iter().flat_map(|all| rule(all, call.action, wide)).collect();
        body.push(return_action(default));
        part.extend([
            (code::LOAD, 0, 0, NUMBER_OFFSET),
            (code::JUMP_EQUAL, 1, 0, number),
            (code::JUMP, 0, 0, body.len() as u32),
        ]);
        part.extend(body);
    }
    if part.is_empty() {
        return part;
    }
    let enter = [
        (code::LOAD, 0, 0, ARCHITECTURE_OFFSET),
        (code::JUMP_EQUAL, 1, 0, audit),
        (code::JUMP, 0, 0, part.len() as u32),
    ];
    enter.into_iter().chain(part).collect()
}

/// Returns the action if all comparisons hold, and goes on behind otherwise.
fn rule(arguments: &[Argument], action: ScmpAction, wide: bool) -> Vec<Instruction> {
    let mut instructions = vec![return_action(action)];
    for argument in arguments.iter().rev() {
        let behind = instructions.len() as u32;
        // Holds: over the jump; else the jump, behind everything.
        let mut compared = comparison(argument, wide);
        compared.push((code::JUMP, 0, 0, behind));
        compared.append(&mut instructions);
        instructions = compared;
    }
    instructions
}

/// Goes on one behind its end if the comparison holds, and at its end otherwise.
fn comparison(argument: &Argument, wide: bool) -> Vec<Instruction> {
    // Half of an argument; both of our machines have the low one first (`struct seccomp_data`).
    let half = |high: u32| (code::LOAD, 0, 0, 16 + 8 * argument.index + 4 * high);
    let split = |value: u64| ((value >> 32) as u32, value as u32);
    let ((high, low), (high_two, low_two)) = (split(argument.value), split(argument.value_two));
    // What is compared in the low half, and the outcome if it holds.
    let (test, holds) = match argument.operator {
        Operator::Equal | Operator::MaskedEqual => (code::JUMP_EQUAL, true),
        Operator::NotEqual => (code::JUMP_EQUAL, false),
        Operator::Greater => (code::JUMP_GREATER, true),
        Operator::LessOrEqual => (code::JUMP_GREATER, false),
        Operator::GreaterOrEqual => (code::JUMP_GREATER_EQUAL, true),
        Operator::Less => (code::JUMP_GREATER_EQUAL, false),
    };
    let jumps = |holds: bool| if holds { (1, 0) } else { (0, 1) };
    let (on_true, on_false) = jumps(holds);
    let masked = argument.operator == Operator::MaskedEqual;
    let mut tail = vec![half(0)];
    if masked {
        tail.push((code::AND, 0, 0, low));
    }
    tail.push((test, on_true, on_false, if masked { low_two & low } else { low }));
    if !wide {
        return tail;
    }
    let to_end = tail.len() as u8;
    let mut head = vec![half(1)];
    if masked {
        head.push((code::AND, 0, 0, high));
    }
    // With different high halves the low ones do not count.
    let (above, below) = (to_end + jumps(holds).0, to_end + jumps(!holds).0);
    match test {
        code::JUMP_EQUAL => {
            head.push((code::JUMP_EQUAL, 0, below, if masked { high_two & high } else { high }));
        }
        _ => head.extend([(code::JUMP_GREATER, above + 1, 0, high), (code::JUMP_EQUAL, 0, below, high)]),
    }
    head.extend(tail);
    head
}

/// linux/seccomp.h, SECCOMP_RET_*.
fn return_action(action: ScmpAction) -> Instruction {
    let value = match action {
        ScmpAction::KillThread => 0,
        ScmpAction::KillProcess => 0x8000_0000,
        ScmpAction::Trap => 0x0003_0000,
        ScmpAction::Notify => 0x7fc0_0000,
        ScmpAction::Errno(number) => super::RETURN_ERRNO | number as u32 & DATA,
        ScmpAction::Trace(value) => 0x7ff0_0000 | u32::from(value),
        ScmpAction::Log => 0x7ffc_0000,
        // Ours are the eight of the specification.
        _ => 0x7fff_0000,
    };
    (code::RETURN, 0, 0, value)
}
