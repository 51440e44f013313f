use super::*;
use std::fs::{self, File};
use std::os::fd::AsFd;

use proptest::prelude::*;

fn rule(allow: bool, kind: &str, major: Option<i64>, minor: Option<i64>, access: &str) -> DeviceRule {
    DeviceRule { allow, kind: kind.into(), major, minor, access: access.into() }
}

#[test]
fn nothing_follows_a_rule_for_everything() {
    assert_eq!(program(&[]).len(), 8);
    let rules = [rule(true, "c", Some(1), Some(3), "rwm"), rule(false, "a", None, None, "rwm")];
    assert_eq!(program(&rules).len(), 8);
}

#[test]
fn privileged_the_kernel_takes_the_program_and_obeys_it() {
    let Some(unified) = crate::Hierarchies::detect().unwrap().unified else { return };
    let directory = unified.join(format!("longshore-test-devices-{}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    let rules = [
        rule(false, "a", None, None, "rwm"),
        rule(true, "c", None, None, "m"),
        rule(true, "c", Some(1), Some(3), "rwm"),
        rule(true, "c", Some(1), Some(5), "r"),
        rule(true, "c", Some(1), None, "r"),
        rule(false, "c", Some(1), Some(7), "w"),
        rule(false, "c", Some(1), Some(9), "r"),
    ];
    let cgroup = File::open(&directory).unwrap();
    let attached = sys::bpf::attach_device_program(cgroup.as_fd(), &program(&rules));
    let child = sys::fork::fork(Default::default(), Some(cgroup.as_fd()), || {
        let open = |path: &str, write: bool| File::options().read(!write).write(write).open(path).is_ok();
        let allowed = [
            open("/dev/null", false),
            open("/dev/null", true),
            open("/dev/zero", false),
            !open("/dev/zero", true),
            open("/dev/full", false),
            !open("/dev/full", true),
            !open("/dev/urandom", false),
            !open("/dev/ptmx", false),
        ];
        allowed.iter().enumerate().map(|(index, right)| u8::from(!right) << index).sum()
    });
    let exit = child.and_then(|child| sys::wait::wait(child.pidfd.as_fd()));
    fs::remove_dir(&directory).unwrap();
    attached.unwrap();
    assert_eq!(exit.unwrap(), sys::wait::Exit::Code(0));
}

/// What a program answers, by the kernel's rules of the instructions that ours are made of
/// (Documentation/bpf/standardization/instruction-set.rst).
fn run(program: &[Instruction], access_type: u32, major: u32, minor: u32) -> u64 {
    let (mut registers, mut at) = ([0_u64; 11], 0);
    loop {
        let [code, pair, o0, o1, v0, v1, v2, v3] = program[at];
        let (dst, src) = ((pair & 15) as usize, (pair >> 4) as usize);
        let (offset, value) = (i16::from_ne_bytes([o0, o1]), i32::from_ne_bytes([v0, v1, v2, v3]));
        let low = |register: usize| registers[register] as u32;
        let jumps = match code {
            0x61 => {
                registers[dst] = u64::from(match offset {
                    0 => access_type,
                    4 => major,
                    _ => minor,
                });
                false
            }
            0x54 => {
                registers[dst] = u64::from(low(dst) & value as u32);
                false
            }
            0x74 => {
                registers[dst] = u64::from(low(dst) >> value);
                false
            }
            0xbc => {
                registers[dst] = u64::from(low(src));
                false
            }
            0xb7 => {
                registers[dst] = value as i64 as u64;
                false
            }
            0x16 => low(dst) == value as u32,
            0x56 => low(dst) != value as u32,
            0x5e => low(dst) != low(src),
            0x95 => return registers[0],
            other => panic!("instruction {other:#x}"),
        };
        // Only forwards, as the verifier wants it of old kernels.
        assert!(offset >= 0);
        at += 1 + if jumps { offset as usize } else { 0 };
    }
}

/// The last rule that speaks of the access decides: an allowing one must name all of it, a denying one some of it.
fn model(rules: &[DeviceRule], kind: &str, access: &str, major: u32, minor: u32) -> bool {
    let mut allowed = true;
    for rule in rules {
        let is = |named: Option<i64>, number: u32| named.is_none_or(|named| named == -1 || named == i64::from(number));
        let of_all = matches!(rule.kind.as_str(), "" | "a");
        let named = |letter: char| of_all || rule.access.contains(letter);
        let spoken = if rule.allow { access.chars().all(named) } else { access.chars().any(named) };
        if spoken && (of_all || rule.kind == kind && is(rule.major, major) && is(rule.minor, minor)) {
            allowed = rule.allow;
        }
    }
    allowed
}

/// Numbers that are near each other, so that rules and devices meet; and those at which signs turn.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![0..3_u32, Just(i32::MAX as u32), Just(1 << 31), Just(u32::MAX)]
}

fn any_access() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["r", "w", "m", "rw", "rm", "wm", "rwm"])
}

fn any_rule() -> impl Strategy<Value = DeviceRule> {
    let numbers = || prop_oneof![Just(None), Just(Some(-1)), number().prop_map(|number| Some(i64::from(number)))];
    let kinds = prop::sample::select(vec!["b", "c", "c", "b", "a", ""]);
    (any::<bool>(), kinds, numbers(), numbers(), any_access())
        .prop_map(|(allow, kind, major, minor, access)| rule(allow, kind, major, minor, access))
}

proptest! {
    #[test]
    fn the_program_answers_as_the_rules_say(
        rules in prop::collection::vec(any_rule(), 0..12),
        asked in prop::collection::vec((any::<bool>(), any_access(), number(), number()), 1..20),
    ) {
        let program = program(&rules);
        for (block, access, major, minor) in asked {
            let kind = if block { BLOCK } else { CHARACTER };
            let bit = |letter, bit| if access.contains(letter) { bit } else { 0 };
            let bits = bit('m', MKNOD) | bit('r', READ) | bit('w', WRITE);
            let answer = run(&program, (bits << 16 | kind) as u32, major, minor);
            let right = model(&rules, if block { "b" } else { "c" }, access, major, minor);
            prop_assert_eq!(answer, u64::from(right), "{} {} {}:{}", kind, access, major, minor);
        }
    }
}
