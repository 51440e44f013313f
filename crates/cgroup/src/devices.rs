//! The device controller of version 2: the rules as an eBPF program. Pure.
//!
//! The program runs at every open and mknod of a device node. The last rule that speaks of an access decides, as with the
//! files of version 1; so the rules are tried backwards, and the first that fits answers. Without rules all is allowed.
//!
//! ```text
//! r2 = type, r3 = access, r4 = major, r5 = minor      from struct bpf_cgroup_dev_ctx
//! for each rule:   unless it fits, go on with the next
//!                  return allow or deny
//! return allow
//! ```

use oci::runtime::DeviceRule;

type Instruction = [u8; 8];

// linux/bpf.h: device types and accesses.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

/// The program of these rules, which [`crate::plan()`] has found well-formed.
pub(crate) fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        load(2, 0),
        instruction(0x54, 2, 0, 0, 0xffff),
        load(3, 0),
        instruction(0x74, 3, 0, 0, 16),
        load(4, 4),
        load(5, 8),
    ];
    for rule in rules.iter().rev() {
        let checks = checks(rule);
        let everything = checks.is_empty();
        program.extend(checks);
        program.extend(answer(rule.allow));
        if everything {
            // Nothing behind it can be reached, and the verifier refuses code that cannot be reached.
            return program;
        }
    }
    program.extend(answer(true));
    program
}

/// What must hold for the rule to decide; each check jumps over the rest of the rule.
fn checks(rule: &DeviceRule) -> Vec<Instruction> {
    let kind = match rule.kind.as_str() {
        "b" => BLOCK,
        "c" => CHARACTER,
        _ => return Vec::new(),
    };
    let bit = |letter, bit| if rule.access.contains(letter) { bit } else { 0 };
    let access = bit('m', MKNOD) | bit('r', READ) | bit('w', WRITE);
    let mut checks: Vec<(u8, u8, u8, i32)> = vec![(JUMP_UNLESS_EQUAL, 2, 0, kind)];
    let mut prepared = Vec::new();
    if access != MKNOD | READ | WRITE {
        // r1 = wanted & named. An allowing rule must name all that is wanted, a denying one only some of it.
        prepared = vec![instruction(0xbc, 1, 3, 0, 0), instruction(0x54, 1, 0, 0, access)];
        checks.push(if rule.allow { (JUMP_UNLESS_SAME, 1, 3, 0) } else { (JUMP_IF_EQUAL, 1, 0, 0) });
    }
    let number = |number: Option<i64>| number.filter(|number| *number >= 0).map(|number| number as i32);
    checks.extend(number(rule.major).map(|major| (JUMP_UNLESS_EQUAL, 4, 0, major)));
    checks.extend(number(rule.minor).map(|minor| (JUMP_UNLESS_EQUAL, 5, 0, minor)));
    let count = checks.len();
    let jump = |(index, (code, dst, src, value)): (usize, (u8, u8, u8, i32))| {
        // Over the checks that follow, and over the two instructions of the answer.
        instruction(code, dst, src, (count - index - 1 + ANSWER) as i16, value)
    };
    prepared.extend(checks.into_iter().enumerate().map(jump));
    prepared
}

// BPF_JMP32, so that numbers of 32 bits compare without their sign extended.
const JUMP_IF_EQUAL: u8 = 0x16;
const JUMP_UNLESS_EQUAL: u8 = 0x56;
const JUMP_UNLESS_SAME: u8 = 0x5e;

/// Instructions of an answer.
const ANSWER: usize = 2;

fn answer(allow: bool) -> [Instruction; ANSWER] {
    [instruction(0xb7, 0, 0, 0, i32::from(allow)), instruction(0x95, 0, 0, 0, 0)]
}

/// A word of the context into a register.
fn load(register: u8, offset: i16) -> Instruction {
    instruction(0x61, register, 1, offset, 0)
}

fn instruction(code: u8, dst: u8, src: u8, offset: i16, value: i32) -> Instruction {
    let ([a, b], [c, d, e, f]) = (offset.to_ne_bytes(), value.to_ne_bytes());
    let registers = if cfg!(target_endian = "little") { src << 4 | dst } else { dst << 4 | src };
    [code, registers, a, b, c, d, e, f]
}

#[cfg(test)]
mod tests;
