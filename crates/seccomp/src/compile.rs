//! From a filter to the program that the kernel runs.
//!
//! libseccomp makes it, as it does for runc. In front of it stands what runc adds: a call that is newer than every call
//! the profile names gets ENOSYS instead of the default's EPERM, since programs fall back to an older call on the first only
//! (runc libcontainer/seccomp/patchbpf/enosys_linux.go).
//!
//! ```text
//!   load architecture
//!   is it A?  no -> next architecture
//!     load number; greater than A's newest? -> return ENOSYS
//!     -> libseccomp's program
//!   ...
//!   libseccomp's program
//! ```
//!
//! The whole is then made shorter ([`shorten`]).

mod exact;
mod shorten;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::str::FromStr;

use errdefs::ErrorKind;
use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};

use self::shorten::shorten;
use crate::conflicts::Contradiction;
use crate::profile::{Action, Argument, Operator};
use crate::resolve::{Filter, FilterRule};

/// The error of SCMP_ACT_ERRNO and the value of SCMP_ACT_TRACE where a profile names none: EPERM.
pub(crate) const ERRNO_DEFAULT: u32 = 1;

/// What a kernel answers for a call that it does not have.
const ENOSYS: u32 = 38;

/// Makes libseccomp search a balanced tree of numbers instead of a list: the kernel runs the program for every call, and once
/// for every number when it is loaded.
const OPTIMIZE_BINARY_TREE: u32 = 2;

/// Set in the numbers of x32, which has the architecture of x86-64.
const X32_BIT: u32 = 0x4000_0000;

/// Why a filter could not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// An unknown instruction set.
    #[error("string {name} is not a valid arch for seccomp")]
    Architecture {
        /// As given.
        name: String,
    },
    /// libseccomp refused a rule.
    #[error("add seccomp rule for {name}")]
    Rule {
        /// The call.
        name: String,
        /// Why.
        source: SeccompError,
    },
    /// Two rules say different things of the same arguments of a call.
    #[error(
        "{} for {} contradicts syscalls[{}], which has {} for the same arguments",
        contradiction.action, contradiction.name, contradiction.other, contradiction.earlier
    )]
    Contradiction {
        /// Which.
        contradiction: Contradiction,
    },
    /// libseccomp could not make the program.
    #[error("compile seccomp filter")]
    Compile {
        /// Why.
        source: SeccompError,
    },
    /// The program could not be taken over from libseccomp.
    #[error("read compiled seccomp filter")]
    Export {
        /// Why.
        source: io::Error,
    },
}

impl CompileError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CompileError::Architecture { .. } | CompileError::Rule { .. } | CompileError::Contradiction { .. } => {
                ErrorKind::InvalidArgument
            }
            CompileError::Compile { .. } | CompileError::Export { .. } => ErrorKind::Internal,
        }
    }
}

/// The program: an array of `struct sock_filter` in host byte order. Takes milliseconds to tens
/// of them, nearly all in libseccomp.
pub fn compile(filter: &Filter) -> Result<Vec<u8>, CompileError> {
    let architectures = architectures(filter)?;
    let compiled = |source| CompileError::Compile { source };
    let default = action(filter.default_action, filter.default_errno_ret);
    let mut context = ScmpFilterContext::new(default).map_err(compiled)?;
    for architecture in &architectures {
        context.add_arch(*architecture).map_err(compiled)?;
    }
    context.set_ctl_optimize(OPTIMIZE_BINARY_TREE).map_err(compiled)?;
    let decided = exact::decided(filter, &architectures, default, action);
    for rule in &filter.syscalls {
        let action = action(rule.action, rule.errno_ret);
        // libseccomp refuses a rule that says what the default says.
        if action != default {
            add_rule(&mut context, rule, action, &decided)?;
        }
    }
    let exact = exact::program(filter, &architectures, default, action);
    let mut program: Vec<u8> = exact.into_iter().flat_map(encode).collect();
    program.extend(prologue(filter, &architectures));
    program.extend(export(&context)?);
    let short = shorten(&decode(&program)).map(|short| short.into_iter().flat_map(encode).collect());
    Ok(short.unwrap_or(program))
}

/// The names in a filter that libseccomp knows of no machine: what was meant by them is left to the default.
pub(crate) fn unknown_calls(filter: &Filter) -> Vec<String> {
    let names = filter.syscalls.iter().flat_map(|rule| &rule.names);
    names.filter(|name| ScmpSyscall::from_name(name).is_err()).cloned().collect()
}

fn architectures(filter: &Filter) -> Result<Vec<ScmpArch>, CompileError> {
    let parse = |name: &String| {
        let unknown = |_| CompileError::Architecture { name: name.clone() };
        ScmpArch::from_str(name).map_err(unknown)
    };
    filter.architectures.iter().map(parse).collect()
}

fn action(action: Action, errno: Option<u32>) -> ScmpAction {
    // The kernel has 16 bits for it.
    let value = errno.unwrap_or(ERRNO_DEFAULT) as u16;
    match action {
        Action::Kill => ScmpAction::KillThread,
        Action::KillProcess => ScmpAction::KillProcess,
        Action::Trap => ScmpAction::Trap,
        Action::Errno => ScmpAction::Errno(value.into()),
        Action::Trace => ScmpAction::Trace(value),
        Action::Allow => ScmpAction::Allow,
        Action::Log => ScmpAction::Log,
        Action::Notify => ScmpAction::Notify,
    }
}

fn add_rule(
    context: &mut ScmpFilterContext,
    rule: &FilterRule,
    action: ScmpAction,
    decided: &BTreeSet<&str>,
) -> Result<(), CompileError> {
    let comparisons = |arguments: &[Argument]| arguments.iter().map(comparison).collect::<Vec<_>>();
    let alternatives: Vec<Vec<ScmpArgCompare>> = alternatives(rule).into_iter().map(comparisons).collect();
    for name in rule.names.iter().filter(|name| !decided.contains(name.as_str())) {
        // A call that this libseccomp does not know cannot be named: it gets the default or ENOSYS.
        let Ok(call) = ScmpSyscall::from_name(name) else { continue };
        for comparisons in &alternatives {
            let added = match comparisons.as_slice() {
                [] => context.add_rule(action, call),
                comparisons => context.add_rule_conditional(action, call, comparisons),
            };
            added.map_err(|source| CompileError::Rule { name: name.clone(), source })?;
        }
    }
    Ok(())
}

/// All comparisons of a rule must hold; but libseccomp takes one per argument, and several of one argument mean "any of
/// them" then (runc libcontainer/seccomp, matchCall).
pub(crate) fn alternatives(rule: &FilterRule) -> Vec<&[Argument]> {
    let mut indexes: Vec<u32> = rule.args.iter().map(|argument| argument.index).collect();
    indexes.sort_unstable();
    let repeated = indexes.windows(2).any(|pair| pair[0] == pair[1]);
    if repeated { rule.args.chunks(1).collect() } else { vec![&rule.args] }
}

fn comparison(argument: &Argument) -> ScmpArgCompare {
    let (operator, value) = match argument.operator {
        Operator::NotEqual => (ScmpCompareOp::NotEqual, argument.value),
        Operator::Less => (ScmpCompareOp::Less, argument.value),
        Operator::LessOrEqual => (ScmpCompareOp::LessOrEqual, argument.value),
        Operator::Equal => (ScmpCompareOp::Equal, argument.value),
        Operator::GreaterOrEqual => (ScmpCompareOp::GreaterEqual, argument.value),
        Operator::Greater => (ScmpCompareOp::Greater, argument.value),
        Operator::MaskedEqual => (ScmpCompareOp::MaskedEqual(argument.value), argument.value_two),
    };
    ScmpArgCompare::new(argument.index, operator, value)
}

fn export(context: &ScmpFilterContext) -> Result<Vec<u8>, CompileError> {
    let failed = |source| CompileError::Export { source };
    let memory = rustix::fs::memfd_create("seccomp", rustix::fs::MemfdFlags::CLOEXEC);
    let mut file = File::from(memory.map_err(|err| failed(err.into()))?);
    context.export_bpf(&file).map_err(|source| CompileError::Compile { source })?;
    let mut program = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut program)).map_err(failed)?;
    Ok(program)
}

/// Instructions of classic BPF (linux/bpf_common.h).
mod code {
    pub(super) const LOAD: u16 = 0x20;
    pub(super) const JUMP: u16 = 0x05;
    pub(super) const JUMP_EQUAL: u16 = 0x15;
    pub(super) const JUMP_GREATER: u16 = 0x25;
    pub(super) const JUMP_GREATER_EQUAL: u16 = 0x35;
    pub(super) const AND: u16 = 0x54;
    pub(super) const RETURN: u16 = 0x06;
}

/// Where `struct seccomp_data` has the call's number and its architecture.
const NUMBER_OFFSET: u32 = 0;
const ARCHITECTURE_OFFSET: u32 = 4;

/// SECCOMP_RET_ERRNO (linux/seccomp.h).
const RETURN_ERRNO: u32 = 0x0005_0000;

/// One instruction: code, jumps if true and if false, operand.
type Instruction = (u16, u8, u8, u32);

/// Instructions of one architecture's part, its comparison included.
const PART: u8 = 7;

/// The part that answers ENOSYS; empty where the default lets calls through or is ENOSYS itself.
fn prologue(filter: &Filter, architectures: &[ScmpArch]) -> Vec<u8> {
    let permissive = matches!(filter.default_action, Action::Allow | Action::Log | Action::Trace);
    if permissive || filter.default_errno_ret == Some(ENOSYS) {
        return Vec::new();
    }
    let native = [ScmpArch::native()];
    let architectures = if architectures.is_empty() { &native } else { architectures };
    let newest = |architecture: ScmpArch| match architectures.contains(&architecture) {
        true => newest_call(filter, architecture),
        false => None,
    };
    let parts: Vec<[Instruction; PART as usize]> = [
        (0xc000_003e, newest_x86_64(newest(ScmpArch::X8664), newest(ScmpArch::X32)), newest(ScmpArch::X32)),
        (0x4000_0003, newest(ScmpArch::X86), None),
        (0xc000_00b7, newest(ScmpArch::Aarch64), None),
        (0x4000_0028, newest(ScmpArch::Arm), None),
    ]
    .into_iter()
    .filter_map(|(audit, newest, x32)| Some((audit, newest?, x32)))
    .map(|(audit, newest, x32)| part(audit, newest, x32))
    .collect();
    if parts.is_empty() {
        return Vec::new();
    }
    let total = parts.len() * usize::from(PART);
    let mut bytes = encode((code::LOAD, 0, 0, ARCHITECTURE_OFFSET)).to_vec();
    for (index, mut instruction) in parts.into_iter().flatten().enumerate() {
        if instruction.0 == code::JUMP {
            // To the end of all parts.
            instruction.3 = (total - index - 1) as u32;
        }
        bytes.extend(encode(instruction));
    }
    bytes
}

/// For a filter of x32 alone no number without its bit is too new.
fn newest_x86_64(newest: Option<u32>, x32: Option<u32>) -> Option<u32> {
    newest.or(x32.map(|_| X32_BIT - 1))
}

/// The greatest number of all calls that the filter names.
fn newest_call(filter: &Filter, architecture: ScmpArch) -> Option<u32> {
    let names = filter.syscalls.iter().flat_map(|rule| &rule.names);
    let numbers = names.filter_map(|name| ScmpSyscall::from_name_by_arch(name, architecture).ok());
    // Negative numbers are libseccomp's own, for calls that the architecture multiplexes.
    numbers.filter_map(|call| u32::try_from(i32::from(call)).ok()).max()
}

fn part(audit: u32, newest: u32, x32: Option<u32>) -> [Instruction; PART as usize] {
    [
        (code::JUMP_EQUAL, 0, PART - 1, audit),
        (code::LOAD, 0, 0, NUMBER_OFFSET),
        (code::JUMP_GREATER_EQUAL, 1, 0, if x32.is_some() { X32_BIT } else { u32::MAX }),
        (code::JUMP_GREATER, 2, 1, newest),
        (code::JUMP_GREATER, 1, 0, x32.unwrap_or(newest)),
        (code::JUMP, 0, 0, 0),
        (code::RETURN, 0, 0, RETURN_ERRNO | ENOSYS),
    ]
}

fn encode((code, if_true, if_false, operand): Instruction) -> [u8; 8] {
    let (code, operand) = (code.to_ne_bytes(), operand.to_ne_bytes());
    [code[0], code[1], if_true, if_false, operand[0], operand[1], operand[2], operand[3]]
}

/// The instruction sets that this libseccomp can make programs for, by name (`SCMP_ARCH_X86`).
pub fn architecture_names() -> Vec<&'static str> {
    let known = |name: &&str| ScmpArch::from_str(name).is_ok_and(is_known);
    ARCHITECTURES.into_iter().filter(known).collect()
}

/// Whether an instruction set is called so.
pub(crate) fn is_architecture(name: &str) -> bool {
    ScmpArch::from_str(name).is_ok()
}

/// Whether the library is new enough for it: the name alone is the binding's.
fn is_known(architecture: ScmpArch) -> bool {
    let mut context = match ScmpFilterContext::new(ScmpAction::Allow) {
        Ok(context) => context,
        Err(_) => return false,
    };
    // Alone: sets of both byte orders cannot be together.
    let removed = context.remove_arch(ScmpArch::native()).is_ok();
    removed && context.add_arch(architecture).is_ok()
}

/// Those of the runtime specification (config-linux.md, "Seccomp").
const ARCHITECTURES: [&str; 23] = [
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];

#[cfg(test)]
mod properties;
fn decode(program: &[u8]) -> Vec<Instruction> {
    let instruction = |bytes: &[u8; 8]| {
        let [a, b, if_true, if_false, operand @ ..] = *bytes;
        (u16::from_ne_bytes([a, b]), if_true, if_false, u32::from_ne_bytes(operand))
    };
    program.as_chunks().0.iter().map(instruction).collect()
}

/// What a program does with a call of x86-64 whose first argument is this.
#[cfg(test)]
pub(crate) fn decided_with(program: &[u8], number: u32, argument: u64) -> u32 {
    tests::run(program, &tests::Call { number, architecture: 0xc000_003e, args: [argument, 0, 0, 0, 0, 0] })
}

#[cfg(test)]
mod tests;
