//! `longshore-runtime`: runc's command line over the library `oci-runtime`, for podman, containerd, dockerd and people.
//!
//! ```text
//! arguments ---> commands/create --- bundle (config.json, plan) --- refused (what is not honoured)
//!   words          start  run  exec  |
//!                  state list ps     +-- given (terminal's socket, pid file, descriptors)
//!                  kill delete       +-- seal (our own program, read-only)
//!                  pause update      +-- oci_runtime::create, exec
//!                  events            |
//!                  spec features     |
//!                  checkpoint        +-- oci_runtime::checkpoint: CRIU
//!                  restore           |
//!                    |               +-- state: <root>/<id>/state.json, start.fifo; lock
//!                  log <--- errors
//! ```
//!
//! One command a process, one thread. Whatever changes a container holds its lock; looking takes none. A container depends on
//! no process of ours: what it does is read from its record, its processes and its gate each time.
//!
//! Not done, and refused by name: flags that `arguments` lists as refused, fields of
//! config.json in `refused`. Deliberately not here: how a container is made (`oci-runtime`).

mod arguments;
mod bundle;
mod commands;
mod error;
mod foreground;
mod given;
mod help;
mod log;
mod refused;
mod rootless;
mod scope;
mod seal;
mod state;
mod streams;
mod terminal;
mod typed;

use std::path::PathBuf;
use std::process::ExitCode;

use arguments::{
    CHECKPOINT, CREATE, CRIU, DELETE, EVENTS, EXEC, Flag, GLOBAL, KILL, LIST, PS, Parsed, RESTORE, RUN, SPEC, UPDATE,
    UsageError,
};
use commands::Context;
use error::CommandError;
use log::Log;
use rootless::Rootless;
use state::Store;

/// musl's allocator gives every small region back at once: of 970 system calls of a `run` 210 were its mappings.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: sys::memory::Heap = sys::memory::Heap::new();

/// Where containers are kept if nothing else is said.
const ROOT_DEFAULT: &str = "/run/longshore-runtime";

/// runc's status of a failed command, and of a failed exec, which is no status of the process's.
const STATUS_FAILED: u8 = 1;
const STATUS_EXEC_FAILED: u8 = 255;

/// runc's status of a command that it does not know.
const STATUS_UNKNOWN: u8 = 3;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let (log, result) = match prepare(words) {
        Ok((log, call)) => {
            let result = run(&log, call);
            (log, result)
        }
        Err((log, message)) => (log, Err((message, STATUS_FAILED))),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err((message, status)) => {
            log.error(&message);
            ExitCode::from(status)
        }
    }
}

/// A command with everything before it.
struct Call {
    global: Parsed,
    rootless: Rootless,
    command: Option<String>,
    words: Vec<String>,
}

fn prepare(words: Vec<String>) -> Result<(Log, Call), (Log, String)> {
    let mut global = match arguments::parse(&GLOBAL, words, false) {
        Ok(global) => global,
        Err(err) => return Err((Log::stderr(), err.to_string())),
    };
    let log = Log::open(global.value("log"), global.value("log-format"), global.is_on("debug"));
    let log = log.map_err(|err| (Log::stderr(), errdefs::chain(&err)))?;
    if global.value("criu").is_some() {
        log.warning("--criu is ignored: the criu of $PATH is used");
    }
    let rootless = match Rootless::parse(global.value("rootless")) {
        Ok(rootless) => rootless,
        Err(err) => return Err((log, err.to_string())),
    };
    let mut words = std::mem::take(&mut global.words).into_iter();
    let command = words.next();
    Ok((log, Call { global, rootless, command, words: words.collect() }))
}

/// The program's status, or what to say and the status then.
fn run(log: &Log, call: Call) -> Result<u8, (String, u8)> {
    let show = |text: &str| match commands::print(text) {
        Ok(()) => Ok(0),
        Err(err) => Err((errdefs::chain(&err), STATUS_FAILED)),
    };
    if call.global.is_on("version") {
        return show(&format!("{}\n", commands::features::version()));
    }
    let Some(command) = call.command.as_deref().filter(|_| !call.global.is_on("help")) else {
        return show(&help::overview());
    };
    if call.global.value("root") == Some("") {
        // Containers would be kept wherever the caller happens to be.
        return Err((UsageError::Empty { name: "root" }.to_string(), STATUS_FAILED));
    }
    let given = call.global.value("root");
    let root = given.map_or_else(|| rootless::root_default(ROOT_DEFAULT), PathBuf::from);
    // Relative to where we are now, not to the bundle.
    // Where that was removed, this says so, and nothing lands elsewhere.
    let directory = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/proc/self/cwd"));
    let systemd = call.global.is_on("systemd-cgroup");
    let store = Store { root: directory.join(root), named: given.is_some() };
    let context = Context { store, log, rootless: call.rootless, systemd, directory };
    log.debug(&format!("longshore-runtime {command} {}", call.words.join(" ")));
    dispatch(&context, command, call.words).map_err(|err| {
        let text = errdefs::chain(&err);
        // What cannot be understood was no attempt.
        if matches!(
            err,
            CommandError::Usage(
                UsageError::Unknown { .. }
                    | UsageError::Signal { .. }
                    | UsageError::NoValue { .. }
                    | UsageError::BadValue { .. }
                    | UsageError::Words { .. }
            )
        ) {
            return (text, STATUS_FAILED);
        }
        match command {
            _ if matches!(err, CommandError::Unknown { .. }) => (text, STATUS_UNKNOWN),
            "create" | "run" | "restore" => (format!("longshore-runtime {command} failed: {text}"), STATUS_FAILED),
            "exec" => (format!("exec failed: {text}"), STATUS_EXEC_FAILED),
            _ => (text, STATUS_FAILED),
        }
    })
}

/// The flags of a command.
fn flags_of(command: &str) -> Vec<Flag> {
    let mut flags = Vec::new();
    flags.extend(match command {
        "create" => &CREATE[..],
        "run" => &RUN[..],
        "exec" => &EXEC[..],
        "checkpoint" => &CHECKPOINT[..],
        "restore" => &RESTORE[..],
        "kill" => &KILL[..],
        "delete" => &DELETE[..],
        "list" => &LIST[..],
        "ps" => &PS[..],
        "update" => &UPDATE[..],
        "events" => &EVENTS[..],
        "spec" => &SPEC[..],
        _ => &[],
    });
    if command == "run" {
        flags.extend(CREATE);
    }
    if matches!(command, "checkpoint" | "restore") {
        flags.extend(CRIU);
    }
    flags
}

fn dispatch(context: &Context<'_>, command: &str, words: Vec<String>) -> Result<u8, CommandError> {
    let flags = flags_of(command);
    if let Some(text) = help_asked(command, &words)? {
        commands::print(&text)?;
        return Ok(0);
    }
    let flags = arguments::parse(&flags, words, !matches!(command, "exec" | "ps")).map_err(|err| match err {
        // As with kill(1).
        UsageError::Unknown { name } if command == "kill" && commands::kill::is_signal(&name) => {
            UsageError::Signal { name }
        }
        err => err,
    })?;
    match command {
        "create" => commands::create::create(context, &flags),
        "run" => commands::create::run(context, &flags),
        "start" => commands::start::start(context, one(&flags, "start")?),
        "exec" => commands::exec::exec(context, &flags),
        "state" => commands::state::state(context, one(&flags, "state")?),
        "list" => commands::state::list(context, &flags),
        "ps" => commands::ps::ps(context, &flags),
        "kill" => commands::kill::kill(context, &flags),
        "delete" => commands::delete::delete(context, one(&flags, "delete")?, flags.is_on("force")),
        "checkpoint" => commands::checkpoint::checkpoint(context, &flags),
        "restore" => commands::restore::restore(context, &flags),
        "pause" => commands::pause::pause(context, one(&flags, "pause")?),
        "update" => commands::update::update(context, &flags),
        "events" => commands::events::events(context, &flags),
        "resume" => commands::pause::resume(context, one(&flags, "resume")?),
        "spec" => commands::spec::spec(context, &flags),
        "features" => commands::features::features(&flags),
        other => Err(CommandError::Unknown { command: other.to_owned() }),
    }
}

/// `help`, `help COMMAND`, `COMMAND --help`.
fn help_asked(command: &str, words: &[String]) -> Result<Option<String>, CommandError> {
    let first = words.first().map(String::as_str);
    let of = |command: &str| {
        let unknown = || CommandError::Unknown { command: command.to_owned() };
        help::of(command, &flags_of(command)).ok_or_else(unknown).map(Some)
    };
    match (command, first) {
        ("help" | "h", None | Some("-h" | "-help" | "--help" | "help" | "h")) => Ok(Some(help::overview())),
        ("help" | "h", Some(command)) => of(command),
        (_, Some("-h" | "-help" | "--help")) => of(command),
        _ => Ok(None),
    }
}

/// The one word of a command that takes a container's id.
pub(crate) fn one<'a>(flags: &'a Parsed, command: &'static str) -> Result<&'a str, UsageError> {
    match flags.words.as_slice() {
        [id] => Ok(id),
        _ => Err(UsageError::Words { command, wanted: "exactly 1 argument(s)" }),
    }
}
