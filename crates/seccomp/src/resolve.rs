//! The rules of a profile that count for one container on one machine.

use serde::Serialize;

use crate::profile::{Action, Argument, Condition, Profile, ProfileError, Rule};

/// A processor that the engine runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl Arch {
    /// The one that this program was built for.
    pub fn native() -> Arch {
        if cfg!(target_arch = "aarch64") { Arch::Aarch64 } else { Arch::X86_64 }
    }

    /// Its name in the conditions of a profile.
    fn docker(self) -> &'static str {
        match self {
            Arch::X86_64 => "amd64",
            Arch::Aarch64 => "arm64",
        }
    }

    /// Its name in the runtime specification.
    fn oci(self) -> &'static str {
        match self {
            Arch::X86_64 => "SCMP_ARCH_X86_64",
            Arch::Aarch64 => "SCMP_ARCH_AARCH64",
        }
    }
}

/// A profile without conditions. Printed as JSON it is `linux.seccomp` of the runtime specification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// What happens to calls that no rule names.
    pub default_action: Action,
    /// The error number of a default action that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// The instruction sets, by name; only the machine's own if there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<String>,
    /// Flags of seccomp(2); absent means SECCOMP_FILTER_FLAG_SPEC_ALLOW.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<Vec<String>>,
    /// The socket of who decides SCMP_ACT_NOTIFY.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub listener_path: String,
    /// What it is told besides.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub listener_metadata: String,
    /// The rules.
    pub syscalls: Vec<FilterRule>,
}

/// What happens to some calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FilterRule {
    /// The calls; a name that this machine does not have counts for nothing.
    pub names: Vec<String>,
    /// What happens to them.
    pub action: Action,
    /// The error number of an action that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// What their arguments must be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Argument>,
}

/// Keeps the rules that count with these `capabilities` (the bounding set, `CAP_CHOWN`) on this processor and `kernel`
/// (its first two numbers). Absent for an empty profile, which means no filter at all.
pub fn resolve(
    profile: &Profile,
    capabilities: &[String],
    arch: Arch,
    kernel: (u32, u32),
) -> Result<Option<Filter>, ProfileError> {
    if profile.default_action.is_none() && profile.syscalls.is_empty() {
        return Ok(None);
    }
    refuse(profile)?;
    let counts = |rule: &Rule| {
        rule.excludes.as_ref().is_none_or(|condition| !excludes(condition, capabilities, arch, kernel))
            && rule.includes.as_ref().is_none_or(|condition| includes(condition, capabilities, arch, kernel))
    };
    Ok(Some(Filter {
        default_action: profile.default_action.ok_or(ProfileError::NoAction { rule: None })?,
        default_errno_ret: profile.default_errno_ret,
        architectures: architectures(profile, arch),
        flags: profile.flags.clone(),
        listener_path: profile.listener_path.clone(),
        listener_metadata: profile.listener_metadata.clone(),
        syscalls: rules(profile, counts)?,
    }))
}

fn refuse(profile: &Profile) -> Result<(), ProfileError> {
    if !profile.architectures.is_empty() && !profile.architecture_map.is_empty() {
        return Err(ProfileError::ArchitecturesTwice);
    }
    if let Some(rule) = profile.syscalls.iter().position(|rule| !rule.name.is_empty() && !rule.names.is_empty()) {
        return Err(ProfileError::NamesTwice { rule });
    }
    refuse_listener(profile)?;
    let mut flags = profile.flags.iter().flatten().enumerate();
    match flags.find(|(_, flag)| !Profile::FLAGS.contains(&flag.as_str())) {
        Some((index, flag)) => Err(ProfileError::UnknownFlag { index, flag: flag.clone() }),
        None => Ok(()),
    }
}

/// What a listener could not be told, or not be asked.
fn refuse_listener(profile: &Profile) -> Result<(), ProfileError> {
    let rules = profile.syscalls.iter().enumerate();
    let mut notifying = rules.filter(|(_, rule)| rule.action == Some(Action::Notify)).peekable();
    if profile.default_action == Some(Action::Notify) {
        return Err(ProfileError::NotifyDefault);
    }
    if notifying.peek().is_some() && profile.listener_path.is_empty() {
        return Err(ProfileError::NoListener);
    }
    let names_write = |rule: &Rule| rule.name == "write" || rule.names.iter().any(|name| name == "write");
    if let Some((rule, _)) = notifying.find(|(_, rule)| names_write(rule)) {
        return Err(ProfileError::NotifyWrite { rule });
    }
    if profile.listener_path.is_empty() && !profile.listener_metadata.is_empty() {
        return Err(ProfileError::NeedlessMetadata);
    }
    Ok(())
}

/// The greatest error number that the kernel returns (linux/err.h, MAX_ERRNO).
const ERRNO_MAX: u32 = 4095;

impl Filter {
    /// Whether somebody who only loads the compiled program does all that the filter says.
    pub fn require_program_only(&self) -> Result<(), ProfileError> {
        if !self.listener_path.is_empty() {
            return Err(ProfileError::Notify);
        }
        // Both mean nothing for a process with one thread that loads one filter.
        let harmless = ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"];
        match self.flags.iter().flatten().find(|flag| !harmless.contains(&flag.as_str())) {
            Some(flag) => Err(ProfileError::Flag { flag: flag.clone() }),
            None => Ok(()),
        }
    }

    /// What the runtime specification forbids, and Docker's profiles may have.
    pub fn require_strict(&self) -> Result<(), ProfileError> {
        let errno = |field: String, action: Action, errno: Option<u32>| {
            let most = match action {
                _ if errno.is_none() => return Ok(()),
                Action::Errno => ERRNO_MAX,
                Action::Trace => u16::MAX.into(),
                action => return Err(ProfileError::NeedlessErrno { field, action }),
            };
            let great = errno.filter(|value| *value > most);
            great.map_or(Ok(()), |value| Err(ProfileError::Errno { field, action, value, most }))
        };
        let mut architectures = self.architectures.iter().enumerate();
        if let Some((index, name)) = architectures.find(|(_, name)| !crate::compile::is_architecture(name)) {
            return Err(ProfileError::Architecture { index, name: name.clone() });
        }
        let waits = |flag: &String| flag == "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV";
        if let Some(index) = self.flags.iter().flatten().position(waits)
            && !self.syscalls.iter().any(|rule| rule.action == Action::Notify)
        {
            return Err(ProfileError::NeedlessWait { index });
        }
        errno("defaultErrnoRet".into(), self.default_action, self.default_errno_ret)?;
        for (number, rule) in self.syscalls.iter().enumerate() {
            errno(format!("syscalls[{number}].errnoRet"), rule.action, rule.errno_ret)?;
            if let Some((at, argument)) = rule.args.iter().enumerate().find(|(_, argument)| argument.index > 5) {
                let field = format!("syscalls[{number}].args[{at}].index");
                return Err(ProfileError::ArgumentIndex { field, index: argument.index });
            }
        }
        Ok(())
    }
}

fn excludes(condition: &Condition, capabilities: &[String], arch: Arch, kernel: (u32, u32)) -> bool {
    condition.architectures.iter().any(|name| name == arch.docker())
        || condition.capabilities.iter().any(|name| capabilities.contains(name))
        || condition.min_kernel.is_some_and(|oldest| kernel >= oldest)
}

fn includes(condition: &Condition, capabilities: &[String], arch: Arch, kernel: (u32, u32)) -> bool {
    (condition.architectures.is_empty() || condition.architectures.iter().any(|name| name == arch.docker()))
        && condition.capabilities.iter().all(|name| capabilities.contains(name))
        && condition.min_kernel.is_none_or(|oldest| kernel >= oldest)
}

fn architectures(profile: &Profile, arch: Arch) -> Vec<String> {
    let mapped = profile.architecture_map.iter().find(|architecture| architecture.name == arch.oci());
    let mapped = mapped.into_iter().flat_map(|architecture| [&architecture.name].into_iter().chain(&architecture.subs));
    profile.architectures.iter().chain(mapped).cloned().collect()
}

fn rules(profile: &Profile, counts: impl Fn(&Rule) -> bool) -> Result<Vec<FilterRule>, ProfileError> {
    let rules = profile.syscalls.iter().enumerate().filter(|(_, rule)| counts(rule));
    rules.map(|(index, rule)| filter_rule(index, rule)).collect()
}

fn filter_rule(index: usize, rule: &Rule) -> Result<FilterRule, ProfileError> {
    let names = if rule.name.is_empty() { rule.names.clone() } else { vec![rule.name.clone()] };
    let action = rule.action.ok_or(ProfileError::NoAction { rule: Some(index) })?;
    Ok(FilterRule { names, action, errno_ret: rule.errno, args: rule.args.clone() })
}

#[cfg(test)]
mod tests;
