//! What `--help` prints: every command and flag, in the order and form of runc's. Pure.

use std::fmt::Write;

use crate::arguments::{Flag, GLOBAL, Kind};

/// One command.
struct Command {
    name: &'static str,
    /// What follows its flags.
    words: &'static str,
    summary: &'static str,
    /// More, in whole lines.
    more: &'static str,
}

const fn command(name: &'static str, words: &'static str, summary: &'static str, more: &'static str) -> Command {
    Command { name, words, summary, more }
}

const ID: &str = "<container-id>";

/// As they are listed.
const COMMANDS: [Command; 17] = [
    command(
        "checkpoint",
        ID,
        "save a running container's processes with CRIU",
        "They end, unless they are left running.",
    ),
    command(
        "create",
        ID,
        "make a container that waits for `start`",
        "The id is the caller's choice: letters, digits and _+-.",
    ),
    command(
        "delete",
        ID,
        "take a stopped container away",
        "With its cgroup and its record; the bundle stays. With --force also one that runs, or none at all.",
    ),
    command(
        "events",
        ID,
        "tell of a container's use of resources, and when memory ran out",
        "One JSON object a line, until the container ends.",
    ),
    command(
        "exec",
        "<container-id> <command> [arguments...] | -p process.json <container-id>",
        "run another process in a container",
        "Its status is the process's: 255 if there was none. What the flags do not change is as with the\n\
         container's own process.",
    ),
    command(
        "kill",
        "<container-id> [signal]",
        "send a signal to a container's first process",
        "SIGTERM, if none is named.",
    ),
    command("list", "", "list the containers of the root directory", ""),
    command("pause", ID, "freeze all processes of a container", ""),
    command("ps", "<container-id> [ps's options]", "list the processes of a container", ""),
    command("restore", ID, "make a container of what `checkpoint` saved", ""),
    command("resume", ID, "let the processes of a paused container go on", ""),
    command(
        "run",
        ID,
        "make a container and start it",
        "Waits for its end and takes it away, unless --detach is given; signals go on to its first process,\n\
         whose status becomes the command's.",
    ),
    command("spec", "", "write a config.json to begin with", "One that is there stays as it is."),
    command("start", ID, "let a created container execute its program", ""),
    command("state", ID, "print a container's state", ""),
    command(
        "update",
        ID,
        "change the limits of a container",
        "With --resources only the file counts; it holds what linux.resources of config.json does, as\n\
         {\"memory\": {\"limit\": 67108864}, \"cpu\": {\"quota\": 50000, \"period\": 100000}, \"pids\": {\"limit\": 64}}.\n\
         What is not named stays as it is.",
    ),
    command("features", "", "print what this runtime honours", "JSON; see features.md of the runtime specification."),
];

/// Command (none: any), flag, what it takes, what it does.
const FLAGS: [(&str, &str, &str, &str); 76] = [
    ("", "debug", "", "log more"),
    ("", "log", "FILE", "append errors to FILE (default: standard error)"),
    ("", "log-format", "FORMAT", "text or json (default: text)"),
    (
        "",
        "root",
        "DIR",
        "where containers are recorded; best on tmpfs (default: /run/longshore-runtime, or $XDG_RUNTIME_DIR/longshore-runtime for others than root)",
    ),
    ("", "systemd-cgroup", "", "cgroups are systemd's: cgroupsPath is slice:prefix:name"),
    (
        "",
        "rootless",
        "WHEN",
        "whether to do without cgroups that the caller may not change: true, false or auto (default: auto)",
    ),
    ("", "criu", "FILE", "ignored: the criu of $PATH is used"),
    ("", "help", "", "print this"),
    ("", "version", "", "print the version"),
    ("", "bundle", "DIR", "the bundle's directory (default: the current one)"),
    ("", "console-socket", "SOCKET", "the socket to which the terminal's master is sent"),
    ("", "pidfd-socket", "SOCKET", "the socket to which a pidfd of the process is sent"),
    ("", "pid-file", "FILE", "the file that gets the process's number"),
    ("", "no-pivot", "", "move the root instead of pivoting, for hosts whose root is a ramdisk"),
    ("", "no-new-keyring", "", "keep the caller's session keyring"),
    (
        "",
        "preserve-fds",
        "N",
        "hand N descriptors after those of $LISTEN_FDS to the process, from number 3 on (default: 0)",
    ),
    ("", "detach", "", "do not wait for the process"),
    ("", "keep", "", "leave the ended container to `delete`"),
    ("", "no-subreaper", "", "ignored: there is no subreaper"),
    ("", "cwd", "DIR", "the working directory; absolute (default: as in config.json)"),
    ("", "env", "NAME=VALUE", "one more variable; may be repeated"),
    ("", "tty", "", "give the process a terminal"),
    ("", "user", "UID[:GID]", "run as this user (default: as in config.json)"),
    ("", "additional-gids", "GID", "one more group; may be repeated"),
    ("", "process", "FILE", "take the process from FILE, of the form of config.json's process"),
    ("", "process-label", "LABEL", "the process's SELinux label (default: as in config.json)"),
    ("", "apparmor", "PROFILE", "the process's AppArmor profile (default: as in config.json)"),
    ("", "no-new-privs", "", "let the process gain no privileges"),
    ("", "cap", "CAP", "one more capability; may be repeated"),
    ("", "cgroup", "[CONTROLLER:]PATH", "a cgroup below the container's, which must be there; may be repeated"),
    ("", "ignore-paused", "", "wait until a paused container goes on"),
    ("", "all", "", "send it to every process of the container"),
    ("", "force", "", "kill what runs"),
    ("", "format", "FORMAT", "table or json (default: table)"),
    ("", "quiet", "", "ids alone"),
    ("spec", "rootless", "", "for a caller without privilege"),
    ("", "interval", "DURATION", "time between two lines (default: 5s)"),
    ("", "stats", "", "print one line and end"),
    ("", "resources", "FILE", "the new limits; - is standard input"),
    ("", "blkio-weight", "N", "share of disks, 10 to 1000"),
    ("", "cpu-period", "US", "period of the limit of CPU time"),
    ("", "cpu-quota", "US", "CPU time in each period"),
    ("", "cpu-burst", "US", "unused CPU time that may be kept"),
    ("", "cpu-share", "N", "share of CPU time beside others"),
    ("", "cpu-rt-period", "US", "period of the limit of realtime processes"),
    ("", "cpu-rt-runtime", "US", "CPU time of realtime processes in each period"),
    ("", "cpuset-cpus", "LIST", "the CPUs to be used"),
    ("", "cpuset-mems", "LIST", "the memory nodes to be used"),
    ("", "memory", "BYTES", "limit of memory"),
    ("", "cpu-idle", "0|1", "whether only idle CPUs are used"),
    ("", "memory-reservation", "BYTES", "memory that is left under pressure"),
    ("", "memory-swap", "BYTES", "limit of memory and swap together; -1 is none"),
    ("", "kernel-memory", "BYTES", "ignored, as the kernel does"),
    ("", "kernel-memory-tcp", "BYTES", "ignored, as the kernel does"),
    ("", "pids-limit", "N", "limit of processes"),
    ("", "l3-cache-schema", "TEXT", "Intel RDT's schema of the L3 cache"),
    ("", "mem-bw-schema", "TEXT", "Intel RDT's schema of memory bandwidth"),
    ("", "image-path", "DIR", "where CRIU's images are (default: ./checkpoint)"),
    ("", "work-path", "DIR", "where CRIU works and writes its log (default: --image-path)"),
    ("", "parent-path", "DIR", "the images of an earlier --pre-dump, relative to --image-path"),
    ("", "leave-running", "", "let the processes go on"),
    ("", "tcp-established", "", "with open TCP connections"),
    ("", "tcp-skip-in-flight", "", "without TCP connections that are being made"),
    ("", "link-remap", "", "with files that are open and have no name any more"),
    ("", "ext-unix-sk", "", "with UNIX sockets whose other end is outside"),
    ("", "shell-job", "", "with a terminal that is the caller's"),
    ("", "lazy-pages", "", "hand memory over when it is touched"),
    ("", "status-fd", "FD", "the descriptor that gets a zero byte when lazy pages are ready (default: -1, none)"),
    ("", "page-server", "ADDRESS:PORT", "where memory is sent"),
    ("", "file-locks", "", "with file locks"),
    ("", "pre-dump", "", "save memory only, and let the processes go on"),
    ("", "manage-cgroups-mode", "MODE", "what CRIU does with cgroups: soft, full, strict or ignore (default: soft)"),
    ("", "empty-ns", "TYPE", "restore this namespace without its properties; may be repeated"),
    ("", "auto-dedup", "", "free what a later image replaces"),
    ("", "lsm-profile", "TYPE:NAME", "the restored processes' security profile"),
    ("", "lsm-mount-context", "CONTEXT", "the restored mounts' security context"),
];

/// The whole program's.
pub(crate) fn overview() -> String {
    let mut text = "\
NAME:
   longshore-runtime - runs containers of the Open Container Initiative's runtime specification

USAGE:
   longshore-runtime [global options] command [command options] [arguments...]

VERSION:
"
    .to_owned();
    // Writing to a string does not fail.
    let _ = writeln!(text, "   {}\n\nCOMMANDS:", env!("CARGO_PKG_VERSION"));
    for command in &COMMANDS {
        line(&mut text, command.name, 10, command.summary);
    }
    line(&mut text, "help, h", 10, "print this, or a command's help");
    text.push_str("\nGLOBAL OPTIONS:\n");
    options(&mut text, "", &GLOBAL);
    text
}

/// A command's, with the flags that it takes. `None` if there is no such command.
pub(crate) fn of(name: &str, flags: &[Flag]) -> Option<String> {
    let command = COMMANDS.iter().find(|command| command.name == name)?;
    let mut usage = format!("longshore-runtime {name}");
    if !flags.is_empty() {
        usage.push_str(" [command options]");
    }
    if !command.words.is_empty() {
        usage.extend([" ", command.words]);
    }
    let mut text = format!("NAME:\n   longshore-runtime {name} - {}\n\nUSAGE:\n   {usage}\n", command.summary);
    if !command.more.is_empty() {
        text.push_str("\nDESCRIPTION:\n");
        for line in command.more.lines() {
            let _ = writeln!(text, "   {line}");
        }
    }
    if !flags.is_empty() {
        text.push_str("\nOPTIONS:\n");
        options(&mut text, name, flags);
    }
    Some(text)
}

fn options(text: &mut String, command: &str, flags: &[Flag]) {
    let named = |flag: &Flag| {
        let (value, does) = describe(command, flag.name).unwrap_or_default();
        let refused = if matches!(flag.kind, Kind::Refused { .. }) { " (not supported)" } else { "" };
        let short = if flag.short.is_empty() { String::new() } else { format!(", -{}", flag.short) };
        let value = if value.is_empty() { String::new() } else { format!(" {value}") };
        (format!("--{}{short}{value}", flag.name), format!("{does}{refused}"))
    };
    let lines: Vec<_> = flags.iter().map(named).collect();
    let width = lines.iter().map(|(flag, _)| flag.len()).max().unwrap_or_default();
    for (flag, does) in &lines {
        line(text, flag, width, does);
    }
}

/// What the flag takes, and what it does.
fn describe(command: &str, flag: &str) -> Option<(&'static str, &'static str)> {
    let of = |wanted: &str| FLAGS.iter().find(|(command, name, ..)| *command == wanted && *name == flag);
    of(command).or_else(|| of("")).map(|(_, _, value, does)| (*value, *does))
}

fn line(text: &mut String, name: &str, width: usize, does: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "   {name:width$}  {does}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags_of;

    #[test]
    fn every_flag_of_every_command_says_what_it_does() {
        for command in COMMANDS.iter().map(|command| command.name) {
            let flags = flags_of(command);
            let text = of(command, &flags).unwrap();
            for flag in &flags {
                assert!(text.contains(&format!("--{}", flag.name)), "{command}: {}", flag.name);
                let (value, does) = describe(command, flag.name).unwrap_or_default();
                assert!(!does.is_empty(), "{command}: {}", flag.name);
                let takes = !matches!(flag.kind, Kind::Switch | Kind::Refused { takes_value: false });
                assert_eq!(takes, !value.is_empty(), "{command}: {}", flag.name);
            }
            assert!(overview().contains(&format!("\n   {command} ")));
        }
        assert!(GLOBAL.iter().all(|flag| describe("", flag.name).is_some()));
        assert_eq!(of("nosuch", &[]), None);
    }

    #[test]
    fn a_commands_help_has_runcs_form() {
        assert_eq!(
            of("delete", &crate::arguments::DELETE).unwrap(),
            "\
NAME:
   longshore-runtime delete - take a stopped container away

USAGE:
   longshore-runtime delete [command options] <container-id>

DESCRIPTION:
   With its cgroup and its record; the bundle stays. With --force also one that runs, or none at all.

OPTIONS:
   --force, -f  kill what runs
"
        );
    }
}
