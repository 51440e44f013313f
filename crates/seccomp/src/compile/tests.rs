use super::*;
use crate::profile::Profile;
use crate::resolve::{Arch, resolve};

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = RETURN_ERRNO | 1;
const NO_CALL: u32 = RETURN_ERRNO | ENOSYS;
const KILL_THREAD: u32 = 0;

/// `struct seccomp_data` without the instruction pointer, which no filter of ours looks at.
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) architecture: u32,
    pub(super) args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.architecture,
            16.. => {
                let arg = self.args[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) { arg as u32 } else { (arg >> 32) as u32 }
            }
            _ => panic!("load from {offset}"),
        }
    }
}

/// Runs a program of classic BPF as the kernel does (net/core/filter.c, `___bpf_prog_run` of the converted program).
pub(super) fn run(program: &[u8], call: &Call) -> u32 {
    let (mut at, mut accumulator) = (0, 0u32);
    loop {
        let bytes: [u8; 8] = program[8 * at..8 * at + 8].try_into().unwrap();
        let code = u16::from_ne_bytes([bytes[0], bytes[1]]);
        let operand = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let jump = |holds: bool| usize::from(if holds { bytes[2] } else { bytes[3] });
        at += 1;
        match code {
            code::LOAD => accumulator = call.word(operand),
            code::JUMP => at += operand as usize,
            code::JUMP_EQUAL => at += jump(accumulator == operand),
            code::JUMP_GREATER => at += jump(accumulator > operand),
            code::JUMP_GREATER_EQUAL => at += jump(accumulator >= operand),
            code::AND => accumulator &= operand,
            code::RETURN => return operand,
            code => panic!("instruction {code:#x}"),
        }
    }
}

/// What the filter's rules say, read by themselves.
fn decide(filter: &Filter, architecture: ScmpArch, number: u32, args: [u64; 6]) -> u32 {
    if number > newest_call(filter, architecture).unwrap() {
        return NO_CALL;
    }
    let Ok(name) = ScmpSyscall::from(number as i32).get_name_by_arch(architecture) else { return EPERM };
    let holds = |argument: &Argument| {
        let value = args[argument.index as usize];
        match argument.operator {
            Operator::NotEqual => value != argument.value,
            Operator::Equal => value == argument.value,
            Operator::MaskedEqual => value & argument.value == argument.value_two,
            operator => panic!("the default profile has no {operator:?}"),
        }
    };
    let named = filter.syscalls.iter().filter(|rule| rule.names.contains(&name));
    match named.filter(|rule| rule.args.iter().all(holds)).map(|rule| (rule.action, rule.errno_ret)).next() {
        Some((Action::Allow, _)) => ALLOW,
        Some((Action::Errno, errno)) => RETURN_ERRNO | errno.unwrap(),
        None => EPERM,
        other => panic!("the default profile has no {other:?}"),
    }
}

fn default_filter(capabilities: &[&str]) -> Filter {
    let capabilities: Vec<String> = capabilities.iter().map(|name| name.to_string()).collect();
    resolve(&Profile::docker_default(), &capabilities, Arch::X86_64, (6, 1)).unwrap().unwrap()
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_program_decides_every_call_as_the_profile_says() {
    let architectures =
        [(ScmpArch::X8664, 0xc000_003e, 0), (ScmpArch::X32, 0xc000_003e, X32_BIT), (ScmpArch::X86, 0x4000_0003, 0)];
    for capabilities in [&[][..], &["CAP_SYS_ADMIN"], &["CAP_SYS_CHROOT", "CAP_SYS_NICE", "CAP_BPF"]] {
        let filter = default_filter(capabilities);
        let program = compile(&filter).unwrap();
        // libseccomp's has 1,250; the kernel takes 4,096.
        assert!(program.len().is_multiple_of(8) && program.len() / 8 <= 650, "{}", program.len() / 8);
        for (architecture, audit, bit) in architectures {
            // Values on both sides of every comparison of the profile.
            for first in [0, 8, 40, 0x2_0000, 0xffff_ffff, 0x1000_0011] {
                for number in (0..480).map(|number| number | bit) {
                    let args = [first, 0, 0, 0, 0, 0];
                    let decision = run(&program, &Call { number, architecture: audit, args });
                    let expected = decide(&filter, architecture, number, args);
                    assert_eq!(decision, expected, "{architecture:?} {number} ({first:#x}) {capabilities:?}");
                }
            }
        }
        let foreign = Call { number: 0, architecture: 0xc000_00b7, args: [0; 6] };
        assert_eq!(run(&program, &foreign), KILL_THREAD);
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn high_halves_of_arguments_count() {
    let program = compile(&default_filter(&[])).unwrap();
    let number = i32::from(ScmpSyscall::from_name("personality").unwrap()) as u32;
    let decision = |first| run(&program, &Call { number, architecture: 0xc000_003e, args: [first, 0, 0, 0, 0, 0] });
    assert_eq!(decision(0xffff_ffff), ALLOW);
    assert_eq!(decision(u64::MAX), EPERM);
}

/// What a container of dockerd 28.5.2 with default options answers, seen from inside.
#[test]
#[cfg(target_arch = "x86_64")]
fn decisions_are_those_of_dockerd() {
    let capabilities = ["CAP_CHOWN", "CAP_SYS_CHROOT", "CAP_NET_RAW", "CAP_MKNOD"];
    let program = compile(&default_filter(&capabilities)).unwrap();
    for (name, first, expected) in [
        ("read", 0, ALLOW),
        ("chroot", 0, ALLOW),
        ("ptrace", 0, ALLOW),
        ("clone", 0x11, ALLOW),
        ("clone", 0x1000_0000, EPERM),
        ("clone", 0x0200_0000, EPERM),
        ("clone3", 0, NO_CALL),
        ("unshare", 0x1000_0000, EPERM),
        ("setns", 0, EPERM),
        ("mount", 0, EPERM),
        ("umount2", 0, EPERM),
        ("open_tree", 0, EPERM),
        ("bpf", 0, EPERM),
        ("perf_event_open", 0, EPERM),
        ("keyctl", 0, EPERM),
        ("add_key", 0, EPERM),
        ("userfaultfd", 0, EPERM),
        ("io_uring_setup", 0, EPERM),
        ("kexec_load", 0, EPERM),
        ("open_by_handle_at", 0, EPERM),
        ("name_to_handle_at", 0, ALLOW),
        ("init_module", 0, EPERM),
        ("reboot", 0, EPERM),
        ("acct", 0, EPERM),
        ("swapon", 0, EPERM),
        ("settimeofday", 0, EPERM),
        ("socket", 1, ALLOW),
        ("socket", 40, EPERM),
        ("personality", 0, ALLOW),
        ("personality", 0x4_0000, EPERM),
        ("arch_prctl", 0, ALLOW),
        ("modify_ldt", 0, ALLOW),
        ("syslog", 0, EPERM),
        ("vhangup", 0, EPERM),
        ("mbind", 0, EPERM),
        ("iopl", 0, EPERM),
        ("seccomp", 0, ALLOW),
        ("landlock_create_ruleset", 0, ALLOW),
        ("pidfd_open", 0, ALLOW),
        ("pidfd_getfd", 0, EPERM),
        ("memfd_create", 0, ALLOW),
        ("quotactl", 0, EPERM),
    ] {
        let number = i32::from(ScmpSyscall::from_name(name).unwrap()) as u32;
        let call = Call { number, architecture: 0xc000_003e, args: [first, 0, 0, 0, 0, 0] };
        assert_eq!(run(&program, &call), expected, "{name}({first:#x})");
    }
}

#[test]
fn a_permissive_default_does_not_hide_new_calls() {
    let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}"#;
    let filter = resolve(&Profile::parse(json).unwrap(), &[], Arch::native(), (6, 1)).unwrap().unwrap();
    let architecture = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
    assert_eq!(run(&compile(&filter).unwrap(), &Call { number: 5000, architecture, args: [0; 6] }), ALLOW);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn several_comparisons_of_one_argument_are_alternatives() {
    let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[
        {"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#;
    let filter = resolve(&Profile::parse(json).unwrap(), &[], Arch::native(), (6, 1)).unwrap().unwrap();
    let program = compile(&filter).unwrap();
    let decision = |first| run(&program, &Call { number: 41, architecture: 0xc000_003e, args: [first, 0, 0, 0, 0, 0] });
    assert_eq!([decision(1), decision(2), decision(3)], [ALLOW, ALLOW, EPERM]);
}

#[test]
fn an_unknown_architecture_is_refused() {
    let filter = Filter { architectures: vec!["SCMP_ARCH_PDP11".to_owned()], ..default_filter(&[]) };
    assert_eq!(compile(&filter).unwrap_err().to_string(), "string SCMP_ARCH_PDP11 is not a valid arch for seccomp");
}
