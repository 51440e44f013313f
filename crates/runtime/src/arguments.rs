//! runc's flags: what there is, what of it is done here, and how words are read. Pure.
//!
//! As with Go's `flag`, one dash is as good as two, and a value may follow after `=`. Flags may come after the other words,
//! except with `exec`, whose words end in a command line that is not ours.

mod takes;

use std::collections::BTreeMap;

/// One flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flag {
    /// Without dashes.
    pub(crate) name: &'static str,
    /// One letter that means the same.
    pub(crate) short: &'static str,
    /// What it takes, and whether it is done.
    pub(crate) kind: Kind,
}

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing, or `=true` or `=false`.
    Switch,
    /// One value; the last one counts.
    Value,
    /// Values, each time it is given.
    List,
    /// runc has it and we do not: nothing or a value.
    Refused {
        /// Whether a value follows.
        takes_value: bool,
    },
}

/// What was said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Parsed {
    flags: BTreeMap<&'static str, Vec<String>>,
    /// Everything else, in its order.
    pub(crate) words: Vec<String>,
}

/// Why words cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsageError {
    /// As Go says it.
    #[error("flag provided but not defined: -{name}")]
    Unknown {
        /// Without dashes.
        name: String,
    },
    /// As Go says it, and what was meant.
    #[error("flag provided but not defined: -{name} (a signal stands behind the container's id, without a dash)")]
    Signal {
        /// Without dashes.
        name: String,
    },
    /// The value is missing.
    #[error("flag needs an argument: -{name}")]
    NoValue {
        /// Which flag.
        name: &'static str,
    },
    /// The value is not of the right kind. The first words are Go's.
    #[error("invalid value {value:?} for flag -{name}, which takes {}", takes::words(name))]
    BadValue {
        /// Which flag.
        name: &'static str,
        /// As given.
        value: String,
    },
    /// Not the number of a user or a group. The first words are runc's.
    #[error("bad {what}: {value:?} of --user is no number from 0 to {}", u32::MAX - 1)]
    BadId {
        /// Of which.
        what: &'static str,
        /// As given.
        value: String,
    },
    /// A path that must not depend on where anybody is.
    #[error("--{name}: {value:?} is not an absolute path")]
    Relative {
        /// Which flag.
        name: &'static str,
        /// As given.
        value: String,
    },
    /// runc has it, this runtime has not.
    #[error("--{name} is not supported")]
    Refused {
        /// Which flag.
        name: &'static str,
    },
    /// A command that is told nothing.
    #[error("--{name} is empty")]
    Empty {
        /// Which flag.
        name: &'static str,
    },
    /// Too few or too many words.
    #[error("longshore-runtime: {command:?} requires {wanted}")]
    Words {
        /// Which command.
        command: &'static str,
        /// How many are right.
        wanted: &'static str,
    },
}

impl Parsed {
    /// The last value of a flag.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.flags.get(name)?.last().map(String::as_str)
    }

    /// All values of a flag.
    pub(crate) fn values(&self, name: &str) -> &[String] {
        self.flags.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether a switch is on.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.value(name) == Some("true")
    }

    /// The value of a flag as a number; 0 if it is absent.
    pub(crate) fn number(&self, name: &'static str) -> Result<u32, UsageError> {
        let Some(value) = self.value(name) else { return Ok(0) };
        value.parse().map_err(|_| UsageError::BadValue { name, value: value.to_owned() })
    }
}

/// Reads `words`. With `mixed` flags may follow other words; without, everything after the first of those is left alone.
pub(crate) fn parse(
    flags: &[Flag],
    words: impl IntoIterator<Item = String>,
    mixed: bool,
) -> Result<Parsed, UsageError> {
    let mut parsed = Parsed::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let Some(body) = word.strip_prefix('-').filter(|body| !body.is_empty()) else {
            parsed.words.push(word);
            if mixed {
                continue;
            }
            break;
        };
        let body = body.strip_prefix('-').unwrap_or(body);
        if body.is_empty() {
            break;
        }
        let (name, value) = body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value.to_owned())));
        let flag = flags.iter().find(|flag| flag.name == name || flag.short == name && !name.is_empty());
        let flag = flag.ok_or_else(|| UsageError::Unknown { name: name.to_owned() })?;
        let value = value_of(flag, value, &mut words)?;
        parsed.flags.entry(flag.name).or_default().push(value);
    }
    parsed.words.extend(words);
    Ok(parsed)
}

fn value_of(flag: &Flag, value: Option<String>, rest: &mut impl Iterator<Item = String>) -> Result<String, UsageError> {
    let name = flag.name;
    match (flag.kind, value) {
        // Said to be off, it asks for nothing.
        (Kind::Refused { takes_value: false }, Some(value)) if value == "false" => Ok(value),
        (Kind::Refused { .. }, _) => Err(UsageError::Refused { name }),
        (Kind::Switch, None) => Ok("true".into()),
        // The words of Go's strconv.ParseBool.
        (Kind::Switch, Some(value)) => match value.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok("true".into()),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok("false".into()),
            _ => Err(UsageError::BadValue { name, value }),
        },
        (_, Some(value)) => Ok(value),
        (_, None) => rest.next().ok_or(UsageError::NoValue { name }),
    }
}

const fn flag(name: &'static str, short: &'static str, kind: Kind) -> Flag {
    Flag { name, short, kind }
}

const REFUSED_SWITCH: Kind = Kind::Refused { takes_value: false };

/// Before the command.
pub(crate) const GLOBAL: [Flag; 9] = [
    flag("debug", "", Kind::Switch),
    flag("log", "", Kind::Value),
    flag("log-format", "", Kind::Value),
    flag("root", "", Kind::Value),
    flag("systemd-cgroup", "", Kind::Switch),
    flag("rootless", "", Kind::Value),
    flag("criu", "", Kind::Value),
    flag("help", "h", Kind::Switch),
    flag("version", "v", Kind::Switch),
];

/// Of `create`; `run` has them, too.
pub(crate) const CREATE: [Flag; 7] = [
    flag("bundle", "b", Kind::Value),
    flag("console-socket", "", Kind::Value),
    flag("pidfd-socket", "", Kind::Value),
    flag("pid-file", "", Kind::Value),
    flag("no-pivot", "", Kind::Switch),
    flag("no-new-keyring", "", Kind::Switch),
    flag("preserve-fds", "", Kind::Value),
];

/// Of `run`, beside those of `create`. There is no subreaper to be switched off.
pub(crate) const RUN: [Flag; 3] =
    [flag("detach", "d", Kind::Switch), flag("keep", "", Kind::Switch), flag("no-subreaper", "", Kind::Switch)];

/// Of `exec`.
pub(crate) const EXEC: [Flag; 17] = [
    flag("console-socket", "", Kind::Value),
    flag("pidfd-socket", "", Kind::Value),
    flag("cwd", "", Kind::Value),
    flag("env", "e", Kind::List),
    flag("tty", "t", Kind::Switch),
    flag("user", "u", Kind::Value),
    flag("additional-gids", "g", Kind::List),
    flag("process", "p", Kind::Value),
    flag("detach", "d", Kind::Switch),
    flag("pid-file", "", Kind::Value),
    flag("process-label", "", Kind::Value),
    flag("apparmor", "", Kind::Value),
    flag("no-new-privs", "", Kind::Switch),
    flag("cap", "c", Kind::List),
    flag("preserve-fds", "", Kind::Value),
    flag("cgroup", "", Kind::List),
    flag("ignore-paused", "", Kind::Switch),
];

/// Of `checkpoint` and `restore`.
pub(crate) const CRIU: [Flag; 10] = [
    flag("image-path", "", Kind::Value),
    flag("work-path", "", Kind::Value),
    flag("tcp-established", "", Kind::Switch),
    flag("ext-unix-sk", "", Kind::Switch),
    flag("shell-job", "", Kind::Switch),
    flag("file-locks", "", Kind::Switch),
    flag("manage-cgroups-mode", "", Kind::Value),
    flag("empty-ns", "", Kind::List),
    flag("auto-dedup", "", Kind::Switch),
    flag("lazy-pages", "", Kind::Switch),
];

/// Of `checkpoint`, beside those.
pub(crate) const CHECKPOINT: [Flag; 7] = [
    flag("parent-path", "", Kind::Value),
    flag("leave-running", "", Kind::Switch),
    flag("tcp-skip-in-flight", "", Kind::Switch),
    flag("link-remap", "", Kind::Switch),
    flag("status-fd", "", Kind::Value),
    flag("page-server", "", Kind::Value),
    flag("pre-dump", "", Kind::Switch),
];

/// Of `restore`, beside those. There is no subreaper to be switched off, and CRIU alone decides how it changes the root.
pub(crate) const RESTORE: [Flag; 8] = [
    flag("bundle", "b", Kind::Value),
    flag("console-socket", "", Kind::Value),
    flag("pid-file", "", Kind::Value),
    flag("detach", "d", Kind::Switch),
    flag("no-subreaper", "", Kind::Switch),
    flag("no-pivot", "", REFUSED_SWITCH),
    flag("lsm-profile", "", Kind::Value),
    flag("lsm-mount-context", "", Kind::Value),
];

/// Of `kill`.
pub(crate) const KILL: [Flag; 1] = [flag("all", "a", Kind::Switch)];

/// Of `delete`.
pub(crate) const DELETE: [Flag; 1] = [flag("force", "f", Kind::Switch)];

/// Of `list`.
pub(crate) const LIST: [Flag; 2] = [flag("format", "f", Kind::Value), flag("quiet", "q", Kind::Switch)];

/// Of `ps`.
pub(crate) const PS: [Flag; 1] = [flag("format", "f", Kind::Value)];

/// Of `update`.
pub(crate) const UPDATE: [Flag; 19] = [
    flag("resources", "r", Kind::Value),
    flag("blkio-weight", "", Kind::Value),
    flag("cpu-period", "", Kind::Value),
    flag("cpu-quota", "", Kind::Value),
    flag("cpu-burst", "", Kind::Value),
    flag("cpu-share", "", Kind::Value),
    flag("cpu-rt-period", "", Kind::Value),
    flag("cpu-rt-runtime", "", Kind::Value),
    flag("cpuset-cpus", "", Kind::Value),
    flag("cpuset-mems", "", Kind::Value),
    flag("kernel-memory", "", Kind::Value),
    flag("kernel-memory-tcp", "", Kind::Value),
    flag("memory", "", Kind::Value),
    flag("cpu-idle", "", Kind::Value),
    flag("memory-reservation", "", Kind::Value),
    flag("memory-swap", "", Kind::Value),
    flag("pids-limit", "", Kind::Value),
    flag("l3-cache-schema", "", Kind::Value),
    flag("mem-bw-schema", "", Kind::Value),
];

/// Of `events`.
pub(crate) const EVENTS: [Flag; 2] = [flag("interval", "", Kind::Value), flag("stats", "", Kind::Switch)];

/// Of `spec`.
pub(crate) const SPEC: [Flag; 2] = [flag("bundle", "b", Kind::Value), flag("rootless", "", Kind::Switch)];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(flags: &[Flag], line: &str, mixed: bool) -> Result<Parsed, UsageError> {
        parse(flags, line.split(' ').map(str::to_owned), mixed)
    }

    #[test]
    fn flags_are_read_as_go_reads_them() {
        let parsed = read(&CREATE, "-b /b --pid-file=/p name --no-new-keyring -preserve-fds 2", true).unwrap();
        assert_eq!((parsed.value("bundle"), parsed.value("pid-file")), (Some("/b"), Some("/p")));
        assert!(parsed.is_on("no-new-keyring") && !parsed.is_on("no-pivot"));
        assert_eq!((parsed.number("preserve-fds"), parsed.words.len()), (Ok(2), 1));
        let parsed = read(&EXEC, "-e A=1 --env B=2 name sh -c -t", false).unwrap();
        assert_eq!(parsed.values("env"), ["A=1", "B=2"]);
        assert_eq!(parsed.words, ["name", "sh", "-c", "-t"]);
        assert_eq!(read(&DELETE, "-- -f", true).unwrap().words, ["-f"]);
        assert!(!read(&DELETE, "--force=false x", true).unwrap().is_on("force"));
        assert!(read(&DELETE, "--force=1 x", true).unwrap().is_on("force"));
        assert!(read(&CREATE, "--no-pivot=false x", true).is_ok());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (line, text) in [
            ("--nosuch x", "flag provided but not defined: -nosuch"),
            ("x -b", "flag needs an argument: -bundle"),
            ("--no-new-keyring=maybe x", "invalid value \"maybe\" for flag -no-new-keyring, which takes true or false"),
        ] {
            assert_eq!(read(&CREATE, line, true).unwrap_err().to_string(), text);
        }
        let parsed = read(&CREATE, "--preserve-fds -1 x", true).unwrap();
        assert!(parsed.number("preserve-fds").is_err());
    }
}
