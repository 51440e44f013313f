//! Profiles: rules that depend on the machine and the container, in Docker's JSON format.

use errdefs::ErrorKind;
use serde::{Deserialize, Deserializer, Serialize};

/// A profile as `--security-opt seccomp=FILE` takes it. A missing field and `null` mean the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Profile {
    /// What happens to calls that no rule names.
    #[serde(deserialize_with = "action_or_empty")]
    pub default_action: Option<Action>,
    /// The error number of a default action that has one.
    pub default_errno_ret: Option<u32>,
    /// The instruction sets it is for; excludes `archMap`.
    #[serde(deserialize_with = "nullable")]
    pub architectures: Vec<String>,
    /// Instruction sets that go together.
    #[serde(rename = "archMap", deserialize_with = "nullable")]
    pub architecture_map: Vec<Architecture>,
    /// Flags of seccomp(2); absent means SECCOMP_FILTER_FLAG_SPEC_ALLOW, as with runc.
    pub flags: Option<Vec<String>>,
    /// Where SCMP_ACT_NOTIFY reports to.
    #[serde(deserialize_with = "nullable")]
    pub listener_path: String,
    /// What the listener is told besides.
    #[serde(deserialize_with = "nullable")]
    pub listener_metadata: String,
    /// The rules.
    #[serde(deserialize_with = "nullable")]
    pub syscalls: Vec<Rule>,
}

/// An instruction set and those that its processors run, too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Architecture {
    /// `SCMP_ARCH_X86_64` and so on.
    #[serde(rename = "architecture")]
    pub name: String,
    /// The others.
    #[serde(rename = "subArchitectures", deserialize_with = "nullable")]
    pub subs: Vec<String>,
}

/// What happens to some calls, perhaps only under a condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// One call (old profiles); excludes `names`.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// The calls.
    #[serde(deserialize_with = "nullable")]
    pub names: Vec<String>,
    /// What happens to them; required.
    pub action: Option<Action>,
    /// The error number of an action that has one.
    #[serde(rename = "errnoRet")]
    pub errno: Option<u32>,
    /// What their arguments must be.
    #[serde(deserialize_with = "nullable")]
    pub args: Vec<Argument>,
    /// The rule counts only where all of this holds.
    pub includes: Option<Condition>,
    /// The rule does not count where any of this holds.
    pub excludes: Option<Condition>,
}

/// On what a rule depends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// Capabilities of the bounding set, `CAP_SYS_ADMIN`.
    #[serde(rename = "caps", deserialize_with = "nullable")]
    pub capabilities: Vec<String>,
    /// Processors, `amd64`.
    #[serde(rename = "arches", deserialize_with = "nullable")]
    pub architectures: Vec<String>,
    /// The oldest kernel, `4.8`.
    #[serde(rename = "minKernel", deserialize_with = "kernel")]
    pub min_kernel: Option<(u32, u32)>,
}

/// What happens to a call (runtime-spec config-linux.md, "Seccomp").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// The thread ends.
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    Kill,
    /// The process ends.
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    /// SIGSYS.
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    /// An error, EPERM if not said otherwise.
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    /// A tracer decides.
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    /// It is made.
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    /// It is made and logged.
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    /// A listener decides.
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

/// A comparison of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Argument {
    /// Which argument, from 0.
    #[serde(default)]
    pub index: u32,
    /// With what it is compared; the mask of a masked comparison.
    #[serde(default)]
    pub value: u64,
    /// With what a masked comparison compares.
    #[serde(default)]
    pub value_two: u64,
    /// How.
    #[serde(rename = "op")]
    pub operator: Operator,
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operator {
    /// `!=`
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    /// `<`
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    /// `<=`
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    /// `==`
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    /// `>=`
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    /// `>`
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    /// `argument & value == value_two`
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// Why a profile is refused. The sentences are dockerd's and runc's.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// It is no JSON of the right shape.
    #[error("Decoding seccomp profile failed")]
    Decode {
        /// Where and why.
        source: serde_json::Error,
    },
    /// Two ways to say the same.
    #[error(
        "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'"
    )]
    ArchitecturesTwice,
    /// Two ways to say the same.
    #[error("both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'")]
    NamesTwice {
        /// Which rule.
        rule: usize,
    },
    /// A rule or the default says nothing.
    #[error("string  is not a valid action for seccomp")]
    NoAction {
        /// Which rule; absent for the default.
        rule: Option<usize>,
    },
    /// An unknown instruction set.
    #[error("string {name} is not a valid arch for seccomp")]
    Architecture {
        /// Its place in the list.
        index: usize,
        /// As given.
        name: String,
    },
    /// Asked of somebody who only loads programs: a listener would have to be told the filter's descriptor.
    #[error("SCMP_ACT_NOTIFY and listenerPath are not supported yet")]
    Notify,
    /// Asked of somebody who only loads programs: a flag is their loader's.
    #[error("seccomp flag {flag} is not supported yet")]
    Flag {
        /// As given.
        flag: String,
    },
    /// No flag is called so.
    #[error("seccomp flag {flag} is not known")]
    UnknownFlag {
        /// Its place in the list.
        index: usize,
        /// As given.
        flag: String,
    },
    /// The call with which the listener's descriptor is announced would wait for the listener.
    #[error("SCMP_ACT_NOTIFY cannot be used for the write syscall")]
    NotifyWrite {
        /// Which rule.
        rule: usize,
    },
    /// As for `write`.
    #[error("SCMP_ACT_NOTIFY cannot be used as default action")]
    NotifyDefault,
    /// Nobody would hear of the calls.
    #[error("SCMP_ACT_NOTIFY needs listenerPath, which is not set")]
    NoListener,
    /// Nobody would be told (runtime-spec config-linux.md, "Seccomp").
    #[error("listenerMetadata must not be set without listenerPath")]
    NeedlessMetadata,
    /// The action has no error number (runtime-spec config-linux.md, "Seccomp": an error).
    #[error("{} has no error number, only SCMP_ACT_ERRNO and SCMP_ACT_TRACE have one", action.word())]
    NeedlessErrno {
        /// `defaultErrnoRet`, or one of a rule.
        field: String,
        /// What it was given with.
        action: Action,
    },
    /// The kernel would make another one of it.
    #[error("{value} is no number of {}, which takes those from 0 to {most}", action.word())]
    Errno {
        /// `defaultErrnoRet`, or one of a rule.
        field: String,
        /// What it was given with.
        action: Action,
        /// As given.
        value: u32,
        /// The greatest.
        most: u32,
    },
    /// Without a listener there is nobody to be waited for, and the kernel refuses it.
    #[error("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY")]
    NeedlessWait {
        /// Its place in the list.
        index: usize,
    },
    /// System calls have six arguments.
    #[error("{index} is not between 0 and 5, the numbers of the arguments")]
    ArgumentIndex {
        /// Which.
        field: String,
        /// As given.
        index: u32,
    },
}

impl ProfileError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ProfileError::Notify | ProfileError::Flag { .. } => ErrorKind::NotImplemented,
            _ => ErrorKind::InvalidArgument,
        }
    }

    /// The field that is at fault, with its place in lists, as it is called below `linux.seccomp`: `syscalls[0].action`.
    /// Empty where there was no profile to be read.
    pub fn field(&self) -> String {
        let plain = |name: &str| name.to_owned();
        match self {
            ProfileError::Decode { .. } => String::new(),
            ProfileError::ArchitecturesTwice => plain("architectures"),
            ProfileError::NamesTwice { rule } => format!("syscalls[{rule}].names"),
            ProfileError::NoAction { rule: Some(rule) } => format!("syscalls[{rule}].action"),
            ProfileError::NoAction { rule: None } | ProfileError::NotifyDefault => plain("defaultAction"),
            ProfileError::Architecture { index, .. } => format!("architectures[{index}]"),
            ProfileError::Notify | ProfileError::NoListener => plain("listenerPath"),
            ProfileError::Flag { .. } => plain("flags"),
            ProfileError::UnknownFlag { index, .. } | ProfileError::NeedlessWait { index } => format!("flags[{index}]"),
            ProfileError::NotifyWrite { rule } => format!("syscalls[{rule}].action"),
            ProfileError::NeedlessMetadata => plain("listenerMetadata"),
            ProfileError::NeedlessErrno { field, .. }
            | ProfileError::Errno { field, .. }
            | ProfileError::ArgumentIndex { field, .. } => field.clone(),
        }
    }

    /// The words that the field takes; empty if they are not words, or if there is nothing to choose.
    pub fn allowed(&self) -> Vec<&'static str> {
        match self {
            ProfileError::NoAction { .. } => Action::ALL.iter().map(|action| action.word()).collect(),
            ProfileError::Architecture { .. } => crate::compile::architecture_names(),
            ProfileError::UnknownFlag { .. } => Profile::FLAGS.to_vec(),
            _ => Vec::new(),
        }
    }
}

impl Action {
    /// All of them.
    pub const ALL: [Action; 8] = [
        Action::Kill,
        Action::KillProcess,
        Action::Trap,
        Action::Errno,
        Action::Trace,
        Action::Allow,
        Action::Log,
        Action::Notify,
    ];

    /// Its word in profiles.
    pub fn word(self) -> &'static str {
        match self {
            Action::Kill => "SCMP_ACT_KILL",
            Action::KillProcess => "SCMP_ACT_KILL_PROCESS",
            Action::Trap => "SCMP_ACT_TRAP",
            Action::Errno => "SCMP_ACT_ERRNO",
            Action::Trace => "SCMP_ACT_TRACE",
            Action::Allow => "SCMP_ACT_ALLOW",
            Action::Log => "SCMP_ACT_LOG",
            Action::Notify => "SCMP_ACT_NOTIFY",
        }
    }
}

impl Profile {
    /// Docker's default profile.
    pub fn docker_default() -> Profile {
        crate::default::profile()
    }

    /// Flags of [`Profile::flags`] that are known.
    pub const FLAGS: [&'static str; 4] = [
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ];

    /// Reads Docker's JSON format. Unknown fields are ignored, as Docker does.
    pub fn parse(json: &str) -> Result<Profile, ProfileError> {
        serde_json::from_str(json).map_err(|source| ProfileError::Decode { source })
    }
}

fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An action; the empty text is none.
fn action_or_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Action>, D::Error> {
    use serde::de::IntoDeserializer;
    use serde::de::value::StrDeserializer;
    match Option::<String>::deserialize(deserializer)? {
        Some(text) if !text.is_empty() => {
            let text: StrDeserializer<'_, D::Error> = text.as_str().into_deserializer();
            Action::deserialize(text).map(Some)
        }
        _ => Ok(None),
    }
}

/// `4.8`; the empty text is none.
fn kernel<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<(u32, u32)>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let number = |text: &str| text.parse::<u8>().ok().map(u32::from);
    let version = text.split_once('.').and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
    match version {
        Some(version) if version != (0, 0) => Ok(Some(version)),
        _ => Err(serde::de::Error::custom(format!("invalid kernel version: {text:?}, expected \"<kernel>.<major>\""))),
    }
}
