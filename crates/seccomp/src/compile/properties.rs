//! Any profile: the program decides as its rules do, read by themselves.

use proptest::prelude::*;

use super::tests::{Call, run};
use super::*;

/// On every architecture here, alone and in no multiplexed call.
const CALLS: [&str; 12] = [
    "read",
    "write",
    "close",
    "mkdir",
    "getpid",
    "kill",
    "personality",
    "prctl",
    "ioctl",
    "openat",
    "unshare",
    "statx",
];

/// SECCOMP_RET_* (linux/seccomp.h).
fn value(action: Action, errno: Option<u32>) -> u32 {
    let errno = errno.unwrap_or(1) & 0xffff;
    match action {
        Action::Kill => 0,
        Action::KillProcess => 0x8000_0000,
        Action::Trap => 0x0003_0000,
        Action::Errno => RETURN_ERRNO | errno,
        Action::Trace => 0x7ff0_0000 | errno,
        Action::Allow => 0x7fff_0000,
        Action::Log => 0x7ffc_0000,
        Action::Notify => 0x7fc0_0000,
    }
}

/// What becomes of a call, by the naive reading of runc's documentation and code.
fn model(filter: &Filter, architecture: ScmpArch, name: &str, number: u32, args: [u64; 6]) -> u32 {
    let default = value(filter.default_action, filter.default_errno_ret);
    let permissive = matches!(filter.default_action, Action::Allow | Action::Log | Action::Trace);
    let stub = !permissive && filter.default_errno_ret != Some(ENOSYS);
    // The machine's own instruction set is always filtered, but gets the stub only where it is named, or none is.
    let native = filter.architectures.is_empty() && architecture == ScmpArch::native();
    let named = |name: &String| ScmpArch::from_str(name).is_ok_and(|named| named == architecture);
    let stub = stub && (native || filter.architectures.iter().any(named));
    if stub && newest_call(filter, architecture).is_some_and(|newest| number > newest) {
        return RETURN_ERRNO | ENOSYS;
    }
    // Registers of the smaller ones have 32 bits, and so have the values they are compared with.
    let wide = |value: u64| if architecture == ScmpArch::X8664 { value } else { value & 0xffff_ffff };
    let holds = |argument: &Argument| {
        let (given, one, two) = (wide(args[argument.index as usize]), wide(argument.value), wide(argument.value_two));
        match argument.operator {
            Operator::NotEqual => given != one,
            Operator::Less => given < one,
            Operator::LessOrEqual => given <= one,
            Operator::Equal => given == one,
            Operator::GreaterOrEqual => given >= one,
            Operator::Greater => given > one,
            Operator::MaskedEqual => given & one == two & one,
        }
    };
    let matches = |rule: &&FilterRule| {
        let repeated = rule
            .args
            .iter()
            .enumerate()
            .any(|(at, argument)| rule.args[..at].iter().any(|earlier| earlier.index == argument.index));
        rule.names.iter().any(|known| known == name)
            && if repeated { rule.args.iter().any(holds) } else { rule.args.iter().all(holds) }
    };
    filter.syscalls.iter().find(matches).map_or(default, |rule| value(rule.action, rule.errno_ret))
}

fn any_action() -> impl Strategy<Value = (Action, Option<u32>)> {
    prop_oneof![
        Just((Action::Kill, None)),
        Just((Action::KillProcess, None)),
        Just((Action::Trap, None)),
        Just((Action::Allow, None)),
        Just((Action::Log, None)),
        Just((Action::Notify, None)),
        // libseccomp takes no greater ones (MAX_ERRNO is 4095 to the kernel).
        prop::option::of(0..4095_u32).prop_map(|errno| (Action::Errno, errno)),
        prop::option::of(0..=0xffff_u32).prop_map(|value| (Action::Trace, value)),
    ]
}

/// Few enough to meet, on both sides of every boundary between halves.
fn any_word() -> impl Strategy<Value = u64> {
    prop::sample::select(vec![0, 1, 2, 0x7fff_ffff, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, u64::MAX - 1, u64::MAX])
}

fn any_argument() -> impl Strategy<Value = Argument> {
    let operator = prop::sample::select(vec![
        Operator::NotEqual,
        Operator::Less,
        Operator::LessOrEqual,
        Operator::Equal,
        Operator::GreaterOrEqual,
        Operator::Greater,
        Operator::MaskedEqual,
    ]);
    (0..6_u32, any_word(), any_word(), operator).prop_map(|(index, value, value_two, operator)| Argument {
        index,
        value,
        value_two,
        operator,
    })
}

/// Comparisons of different arguments, all of which must hold.
fn any_conjunction() -> impl Strategy<Value = Vec<Argument>> {
    prop::collection::vec(any_argument(), 0..4).prop_map(|mut arguments| {
        arguments.sort_by_key(|argument| argument.index);
        arguments.dedup_by_key(|argument| argument.index);
        arguments
    })
}

/// Rules for one call.
fn any_rules() -> impl Strategy<Value = Vec<Vec<Argument>>> {
    let one_argument = (0..6_u32, prop::collection::vec(any_argument(), 2..4))
        .prop_map(|(index, all)| all.into_iter().map(|argument| Argument { index, ..argument }).collect());
    prop_oneof![
        2 => any_conjunction().prop_map(|rule| vec![rule]),
        1 => one_argument.prop_map(|alternatives| vec![alternatives]),
        1 => prop::collection::vec(any_conjunction(), 2..4),
    ]
}

/// Each call has one action: what several mean is libseccomp's secret, and nobody's profile needs it.
fn any_filter() -> impl Strategy<Value = Filter> {
    let rules = prop::collection::vec((any_action(), any_rules()), 0..CALLS.len());
    let architectures = prop::sample::subsequence(vec!["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], 0..=3);
    (any_action(), rules, architectures).prop_map(|((default_action, default_errno_ret), rules, architectures)| {
        // A name that nobody knows is passed over.
        let names = CALLS.map(|name| vec![name.to_owned(), "no_such_call".to_owned()]);
        let rules = names.into_iter().zip(rules).flat_map(|(names, ((action, errno_ret), rules))| {
            let rule = move |args| FilterRule { names: names.clone(), action, errno_ret, args };
            rules.into_iter().map(rule)
        });
        Filter {
            default_action,
            default_errno_ret,
            architectures: architectures.into_iter().map(str::to_owned).collect(),
            flags: None,
            listener_path: String::new(),
            listener_metadata: String::new(),
            syscalls: rules.collect(),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(192) })]

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_program_of_any_profile_decides_as_its_rules_do(
        filter in any_filter(),
        args in prop::collection::vec(prop::array::uniform6(any_word()), 24),
    ) {
        let program = compile(&filter).unwrap();
        prop_assert!(program.len() / 8 <= 4096);
        let all = [(ScmpArch::X8664, 0xc000_003e), (ScmpArch::X86, 0x4000_0003), (ScmpArch::X32, 0xc000_003e)];
        let asked = |architecture: &ScmpArch| {
            *architecture == ScmpArch::X8664
                || filter.architectures.iter().any(|name| ScmpArch::from_str(name).is_ok_and(|named| named == *architecture))
        };
        for (architecture, audit) in all.into_iter().filter(|(architecture, _)| asked(architecture)) {
            for (name, args) in CALLS.iter().flat_map(|name| args.iter().map(move |args| (name, *args))) {
                let number = ScmpSyscall::from_name_by_arch(name, architecture).unwrap();
                let number = i32::from(number) as u32;
                let args = if architecture == ScmpArch::X8664 { args } else { args.map(|arg| arg & 0xffff_ffff) };
                let decision = run(&program, &Call { number, architecture: audit, args });
                let expected = model(&filter, architecture, name, number, args);
                prop_assert_eq!(decision, expected, "{:?} {}({:x?})", architecture, name, args);
            }
        }
        // An architecture that nobody named, and the other half of x86-64's where it is not asked for.
        prop_assert_eq!(run(&program, &Call { number: 0, architecture: 0xc000_00b7, args: [0; 6] }), 0);
    }

    #[test]
    fn any_text_is_a_profile_or_an_error(text in "\\PC{0,200}", json in any::<Vec<u8>>()) {
        let _ = crate::Profile::parse(&text);
        let _ = crate::Profile::parse(&String::from_utf8_lossy(&json));
    }
}
