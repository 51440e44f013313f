//! A shorter program with the same decisions.
//!
//! libseccomp's program compares with one number after the other, and has a leaf for each. Most neighbours among the numbers
//! share their fate, though: here each architecture gets a tree over the bounds of such ranges. With Docker's default half
//! of the instructions is left, which the kernel checks, translates and tries out in half of the time, for every container.
//!
//! ```text
//!   the program, run with every architecture and number that it can tell apart
//!     -> ranges of numbers with one outcome: an action, or the place from which arguments decide
//!     -> load architecture; tree; load number; tree; action | the instructions from that place on
//! ```
//!
//! What comes out is run in the same way and compared before it is used; where anything is not understood, or not the same,
//! libseccomp's own program stays.

use std::collections::BTreeSet;

use super::{ARCHITECTURE_OFFSET, Instruction, NUMBER_OFFSET, code};

/// What is left to do when architecture and number are known.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rest {
    /// Nothing but this action.
    Return(u32),
    /// These instructions, which begin with a look at the arguments.
    Run(Vec<Instruction>),
}

/// First values of ranges, each with what holds up to the next.
type Ranges<T> = Vec<(u32, T)>;

/// `None` if the program cannot be shortened.
pub(super) fn shorten(program: &[Instruction]) -> Option<Vec<Instruction>> {
    let bounds = bounds(program)?;
    let decisions = decisions(program, &bounds)?;
    let mut short = vec![(code::LOAD, 0, 0, ARCHITECTURE_OFFSET)];
    short.extend(tree(&decisions, &|numbers| match numbers.as_slice() {
        [(_, rest)] => leaf(rest),
        several => {
            let mut part = vec![(code::LOAD, 0, 0, NUMBER_OFFSET)];
            part.extend(tree(several, &leaf));
            part
        }
    }));
    let same = self::decisions(&short, &bounds).is_some_and(|of_short| of_short == decisions);
    (same && short.len() < program.len()).then_some(short)
}

/// Values at which the outcome can change: of the architecture, and of the number.
struct Bounds {
    architectures: BTreeSet<u32>,
    numbers: BTreeSet<u32>,
}

/// What the accumulator holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Loaded {
    Nothing,
    Architecture,
    Number,
    Argument,
}

/// Walks every path. `None` for instructions that libseccomp does not use so, and for jumps out of the program.
fn bounds(program: &[Instruction]) -> Option<Bounds> {
    let mut bounds = Bounds { architectures: BTreeSet::from([0]), numbers: BTreeSet::from([0]) };
    let mut walked = BTreeSet::new();
    let mut left = vec![(0, Loaded::Nothing)];
    while let Some((at, loaded)) = left.pop() {
        if !walked.insert((at, loaded)) {
            continue;
        }
        let (code, if_true, if_false, operand) = *program.get(at)?;
        match (code, loaded) {
            (code::LOAD, _) => left.push((at + 1, loads(operand))),
            (code::AND, Loaded::Argument) => left.push((at + 1, loaded)),
            (code::RETURN, _) => {}
            (code::JUMP, _) => left.push((at + 1 + operand as usize, loaded)),
            (code::JUMP_EQUAL | code::JUMP_GREATER | code::JUMP_GREATER_EQUAL, _) => {
                let values = match loaded {
                    Loaded::Architecture => Some(&mut bounds.architectures),
                    Loaded::Number => Some(&mut bounds.numbers),
                    Loaded::Argument => None,
                    Loaded::Nothing => return None,
                };
                if let Some(values) = values {
                    values.extend([Some(operand), operand.checked_add(1)].into_iter().flatten());
                }
                left.extend([if_true, if_false].map(|jump| (at + 1 + usize::from(jump), loaded)));
            }
            _ => return None,
        }
    }
    Some(bounds)
}

fn loads(offset: u32) -> Loaded {
    match offset {
        ARCHITECTURE_OFFSET => Loaded::Architecture,
        NUMBER_OFFSET => Loaded::Number,
        _ => Loaded::Argument,
    }
}

/// Of every architecture and number; neighbours with the same outcome together.
fn decisions(program: &[Instruction], bounds: &Bounds) -> Option<Ranges<Ranges<Rest>>> {
    let mut architectures = Vec::new();
    for architecture in &bounds.architectures {
        let mut numbers = Vec::new();
        for number in &bounds.numbers {
            append(&mut numbers, *number, rest(program, *architecture, *number)?);
        }
        append(&mut architectures, *architecture, numbers);
    }
    Some(architectures)
}

fn append<T: PartialEq>(ranges: &mut Ranges<T>, first: u32, value: T) {
    if ranges.last().is_none_or(|(_, last)| *last != value) {
        ranges.push((first, value));
    }
}

/// Runs the program until it returns or looks at arguments.
fn rest(program: &[Instruction], architecture: u32, number: u32) -> Option<Rest> {
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let (code, if_true, if_false, operand) = *program.get(at)?;
        let jump = |holds| usize::from(if holds { if_true } else { if_false });
        match (code, loads(operand)) {
            (code::LOAD, Loaded::Architecture) => accumulator = architecture,
            (code::LOAD, Loaded::Number) => accumulator = number,
            (code::LOAD, _) => return from(program, at).map(Rest::Run),
            (code::RETURN, _) => return Some(Rest::Return(operand)),
            (code::JUMP, _) => at += operand as usize,
            (code::JUMP_EQUAL, _) => at += jump(accumulator == operand),
            (code::JUMP_GREATER, _) => at += jump(accumulator > operand),
            (code::JUMP_GREATER_EQUAL, _) => at += jump(accumulator >= operand),
            _ => return None,
        }
        at += 1;
    }
}

/// Everything that can be reached from `first`, in its order, as a program of its own: jumps lead forward only.
fn from(program: &[Instruction], first: usize) -> Option<Vec<Instruction>> {
    let mut reached = BTreeSet::from([first]);
    let mut at = first;
    while let Some(next) = reached.range(at..).next().copied() {
        reached.extend(targets(program, next)?);
        at = next + 1;
    }
    let place = |target: usize| reached.range(..target).count();
    let moved = |at: &usize| -> Option<Instruction> {
        let (code, if_true, if_false, operand) = program[*at];
        let jump = |offset: usize| place(at + 1 + offset).checked_sub(place(*at) + 1);
        let near = |offset: u8| jump(usize::from(offset)).and_then(|offset| u8::try_from(offset).ok());
        Some(match code {
            code::JUMP => (code, 0, 0, u32::try_from(jump(operand as usize)?).ok()?),
            code::JUMP_EQUAL | code::JUMP_GREATER | code::JUMP_GREATER_EQUAL => {
                (code, near(if_true)?, near(if_false)?, operand)
            }
            _ => (code, if_true, if_false, operand),
        })
    };
    reached.iter().map(moved).collect()
}

/// Where it goes on after the instruction.
fn targets(program: &[Instruction], at: usize) -> Option<Vec<usize>> {
    let (code, if_true, if_false, operand) = *program.get(at)?;
    Some(match code {
        code::RETURN => Vec::new(),
        code::JUMP => vec![at + 1 + operand as usize],
        code::JUMP_EQUAL | code::JUMP_GREATER | code::JUMP_GREATER_EQUAL => {
            [if_true, if_false].map(|jump| at + 1 + usize::from(jump)).to_vec()
        }
        _ => vec![at + 1],
    })
}

fn leaf(rest: &Rest) -> Vec<Instruction> {
    match rest {
        Rest::Return(action) => vec![(code::RETURN, 0, 0, *action)],
        Rest::Run(instructions) => instructions.clone(),
    }
}

/// Searches the range in which the accumulator is. Every leaf returns, so that none runs into the next.
fn tree<T>(ranges: &[(u32, T)], leaf: &impl Fn(&T) -> Vec<Instruction>) -> Vec<Instruction> {
    let [_, _, ..] = ranges else { return ranges.iter().flat_map(|(_, value)| leaf(value)).collect() };
    let (below, above) = ranges.split_at(ranges.len() / 2);
    let below = tree(below, leaf);
    let mut instructions = match u8::try_from(below.len()) {
        Ok(over) => vec![(code::JUMP_GREATER_EQUAL, over, 0, above[0].0)],
        // Only unconditional jumps go as far.
        Err(_) => vec![(code::JUMP_GREATER_EQUAL, 0, 1, above[0].0), (code::JUMP, 0, 0, below.len() as u32)],
    };
    instructions.extend(below);
    instructions.extend(tree(above, leaf));
    instructions
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD_NUMBER: Instruction = (code::LOAD, 0, 0, NUMBER_OFFSET);
    const LOAD_ARGUMENT: Instruction = (code::LOAD, 0, 0, 16);

    fn equal(value: u32, if_true: u8, if_false: u8) -> Instruction {
        (code::JUMP_EQUAL, if_true, if_false, value)
    }

    fn action(value: u32) -> Instruction {
        (code::RETURN, 0, 0, value)
    }

    #[test]
    fn neighbours_with_one_fate_become_a_range() {
        let mut program = vec![LOAD_NUMBER];
        program.extend((10..20).map(|number| equal(number, 19 - number as u8 + 1, 0)));
        program.extend([action(1), action(2)]);
        let short = shorten(&program).unwrap();
        let expected = [
            (code::LOAD, 0, 0, ARCHITECTURE_OFFSET),
            LOAD_NUMBER,
            (code::JUMP_GREATER_EQUAL, 1, 0, 10),
            action(1),
            (code::JUMP_GREATER_EQUAL, 1, 0, 20),
            action(2),
            action(1),
        ];
        assert_eq!(short, expected);
    }

    #[test]
    fn looks_at_arguments_stay_as_they_are() {
        // Two calls, one of which looks at an argument, with a leaf that both share.
        let looks = [LOAD_ARGUMENT, (code::AND, 0, 0, 0xff), equal(3, 1, 0), action(1), action(2)];
        let mut program = vec![LOAD_NUMBER, equal(7, 6, 0), equal(5, 0, 1), action(9)];
        program.extend([equal(6, 0, 1), action(9), equal(8, 4, 3)]);
        program.push((code::JUMP, 0, 0, 0));
        program.extend(looks);
        let decided = |number| rest(&program, 0, number);
        assert_eq!(decided(5), Some(Rest::Return(9)));
        assert_eq!(decided(7), Some(Rest::Run(looks.to_vec())));
        let short = shorten(&program).unwrap_or_else(|| program.clone());
        for number in 0..12 {
            assert_eq!(rest(&short, 0, number), decided(number), "{number}");
        }
    }

    #[test]
    fn what_is_not_understood_stays_as_it_is() {
        let mask_of_the_number = [LOAD_NUMBER, (code::AND, 0, 0, 1), equal(1, 0, 0), action(1)];
        let memory = [LOAD_NUMBER, (0x02, 0, 0, 0), action(1)];
        let out = [LOAD_NUMBER, equal(1, 9, 0), action(1)];
        let nothing_loaded = [equal(1, 0, 0), action(1)];
        for program in [&mask_of_the_number[..], &memory, &out, &nothing_loaded] {
            assert_eq!(shorten(program), None, "{program:?}");
        }
    }

    #[test]
    fn far_parts_are_reached_by_unconditional_jumps() {
        let ranges: Ranges<u32> = (0..600).map(|number| (number, number)).collect();
        let mut program = vec![LOAD_NUMBER];
        program.extend(tree(&ranges, &|value| vec![action(*value)]));
        for number in [0, 1, 255, 299, 300, 301, 599, 600, u32::MAX] {
            assert_eq!(rest(&program, 0, number), Some(Rest::Return(number.min(599))));
        }
    }
}
