//! The command line; called as `docker` it is a drop-in for Docker's.
//!
//! ```text
//! argv --args--> Parsed --plan (pure)--> request of the API --commands/<verb>--> calls (client), output (format)
//! ```
//!
//! - [`args`]: tables of commands and flags, and the parser. [`plan`]: what the API wants.
//! - [`commands`]: one file a verb, with its effects. [`format`]: tables, templates, units.
//! - [`stream`], [`term`], [`detach`], [`signals`]: a container's streams and the user's terminal. [`entries`]: a log that
//!   is followed from one daemon to the next.
//! - [`complete`]: what the shells ask at a press of the tabulator.
//! - [`context_tar`]: what a build sends. [`console`]: printing. [`config`]: config.json. [`contexts`]: named daemons. [`connection`]: which daemon is meant. [`credentials`]: what is shown to registries.
//!   [`report`]: how errors read, and the exit status.
//!
//! Start-up is part of every measurement, so nothing is loaded or built that the command does not need: one thread, no
//! completion tables, no time zones, and no connection before the first call.

pub mod args;
pub mod commands;
pub mod complete;
pub mod config;
pub mod connection;
pub mod console;
pub mod context_files;
pub mod context_tar;
pub mod contexts;
pub mod credentials;
pub mod detach;
pub mod entries;
pub mod format;
pub mod plan;
pub mod report;
pub mod signals;
pub mod stream;
pub mod term;

use args::{ArgsError, Command, Parsed, Verb, help, later, tables};
use commands::Context;
use report::Exit;

/// What the command line asks for.
#[derive(Debug)]
enum Asked {
    /// Print this and succeed.
    Print(String),
    /// No command was named: the help goes to standard error, as docker's does, and that is success, too.
    Nothing(String),
    /// Run this.
    Run { global: Parsed, path: String, command: &'static Command, parsed: Parsed },
}

/// Runs the program: `arguments` begins with the program's name. Returns the exit status.
pub fn run(arguments: Vec<String>) -> u8 {
    if let Some(word @ ("__complete" | "__completeNoDesc")) = arguments.get(1).map(String::as_str) {
        say!("{}", complete::run(program(&arguments), &arguments[2..], word == "__complete"));
        return 0;
    }
    if own_name(&arguments) == credentials::own::PROGRAM {
        return keep_credentials(arguments.get(1).map_or("", String::as_str));
    }
    let exit = match understand(&arguments) {
        Ok(Asked::Print(text)) => {
            say!("{text}");
            return 0;
        }
        Ok(Asked::Nothing(text)) => {
            console::warn(format_args!("{text}"));
            return 0;
        }
        Ok(Asked::Run { global, path, command, parsed }) => {
            execute(program(&arguments), &global, path, command, parsed).err()
        }
        Err(exit) => Some(exit),
    };
    let Some(exit) = exit else { return 0 };
    if let Some(message) = exit.message {
        warn_line!("{message}");
    }
    exit.status
}

/// Called as `docker`, we are it; else we are ourselves.
fn program(arguments: &[String]) -> &'static str {
    if own_name(arguments) == "docker" { "docker" } else { "longshore" }
}

fn own_name(arguments: &[String]) -> &str {
    arguments.first().and_then(|path| path.rsplit('/').next()).unwrap_or("")
}

/// Called as a program that keeps logins, we are that.
fn keep_credentials(verb: &str) -> u8 {
    let read = || match verb {
        "store" | "get" | "erase" => std::io::read_to_string(std::io::stdin()).map_err(|err| report::go_error(&err)),
        _ => Ok(String::new()),
    };
    let answer = match verb {
        "" => Err(credentials::own::usage()),
        _ => read().and_then(|input| credentials::own::answer(verb, &input)),
    };
    // Failures go to standard output, too: that is where who asks looks for them.
    let (printed, status) = answer.map_or_else(|printed| (printed, 1), |printed| (printed, 0));
    say!("{printed}");
    status
}

fn understand(arguments: &[String]) -> Result<Asked, Exit> {
    let program = program(arguments);
    let global = parse_global(program, arguments.get(1..).unwrap_or_default())?;
    let Some(global) = global else { return Ok(Asked::Print(help::of_program(program))) };
    if global.flag("version") {
        let version = env!("CARGO_PKG_VERSION");
        let name = if program == "docker" { "Docker" } else { "Longshore" };
        return Ok(Asked::Print(format!("{name} version {version}, build {}\n", commands::version::COMMIT)));
    }
    let words = global.positionals.clone();
    let Some((first, rest)) = words.split_first() else { return Ok(Asked::Nothing(help::of_program(program))) };
    if first == "help" {
        return Ok(Asked::Print(help_of(program, rest)?));
    }
    if let Some((later, path)) = later::find(&words) {
        let asks = words.iter().any(|word| matches!(&word[..], "--help" | "-h"));
        return if asks {
            Ok(Asked::Print(help::of_later(program, path, later)))
        } else {
            Err(not_yet(program, path, later))
        };
    }
    let (path, command, rest) = match tables::group(first) {
        None => (first.clone(), find(program, first)?, rest),
        Some(group) => {
            let Some((second, rest)) = rest.split_first() else {
                return Ok(Asked::Nothing(help::of_group(program, group)));
            };
            if matches!(&second[..], "--help" | "-h") {
                return Ok(Asked::Print(help::of_group(program, group)));
            }
            if second.starts_with('-') {
                return Err(Exit::new(125, format!("unknown flag: {second}{}", help::group_hint(program, first))));
            }
            let path = format!("{first} {second}");
            let command = tables::find(&path).ok_or_else(|| unknown_in_group(program, first, &path))?;
            (path, command, rest)
        }
    };
    understand_command(program, global, path, command, rest)
}

fn understand_command(
    program: &str,
    global: Parsed,
    path: String,
    command: &'static Command,
    rest: &[String],
) -> Result<Asked, Exit> {
    let flag = |long: &str| command.all_flags().find(|flag| flag.long == long);
    let letter = |letter: char| command.all_flags().find(|flag| flag.short == Some(letter));
    let parsed = match args::parse(&flag, &letter, command.interspersed, rest) {
        Ok(parsed) => parsed,
        Err(ArgsError::Help) => return Ok(Asked::Print(help::of_command(program, &path, command))),
        Err(err @ ArgsError::Later { .. }) => {
            // What docker refuses once it has read the line: 125 where 1 could be the container's.
            let status = if matches!(command.verb, Verb::Run | Verb::Create) { 125 } else { 1 };
            return Err(Exit::new(status, format!("{program}: {err}")));
        }
        Err(err @ ArgsError::Elsewhere(_)) => return Err(Exit::new(1, err.to_string())),
        Err(err) => return Err(Exit::new(125, format!("{err}{}", help::hint(program, &path, Some(command))))),
    };
    if let Some(complaint) = help::arity_complaint(program, &path, command, &parsed) {
        return Err(Exit::new(1, complaint));
    }
    Ok(Asked::Run { global, path, command, parsed })
}

/// The flags before the command; `None` for `--help`.
fn parse_global(program: &str, arguments: &[String]) -> Result<Option<Parsed>, Exit> {
    let flag = |long: &str| tables::GLOBAL.iter().find(|flag| flag.long == long);
    let letter = |letter: char| tables::GLOBAL.iter().find(|flag| flag.short == Some(letter));
    match args::parse(&flag, &letter, false, arguments) {
        Ok(global) => Ok(Some(global)),
        Err(ArgsError::Help) => Ok(None),
        Err(err) => Err(Exit::new(125, format!("{err}{}", help::hint(program, "", None)))),
    }
}

fn find(program: &str, name: &str) -> Result<&'static Command, Exit> {
    let unknown =
        format!("{program}: unknown command: {program} {name}\n\nRun '{program} --help' for more information");
    tables::find(name).ok_or_else(|| Exit::new(1, unknown))
}

fn unknown_in_group(program: &str, group: &str, path: &str) -> Exit {
    let hint = help::group_hint(program, group);
    Exit::new(1, format!("{program}: unknown command: {program} {path}{hint}"))
}

/// Of one of Docker's commands that we do not have.
fn not_yet(program: &str, path: &str, later: &later::Later) -> Exit {
    let wait = later.wait;
    if wait == later::Wait::Buildx {
        return Exit::new(1, format!("{program}: {program} has no {path}: use docker's, which works with this daemon"));
    }
    Exit::new(1, format!("{program}: command is not supported yet: {program} {path} (it waits for {wait})"))
}

/// `help` and these words. Docker's parser takes the command off them and complains of the rest.
fn help_of(program: &str, words: &[String]) -> Result<String, Exit> {
    let words = match args::parse(&|_| None, &|_| None, true, words) {
        Ok(parsed) => parsed.positionals,
        Err(ArgsError::Help) => return Ok(help::of_help(program)),
        Err(err) => return Err(Exit::new(125, format!("{err}{}", help::help_hint(program)))),
    };
    let unknown = |topic: &[String]| Err(Exit::new(1, format!("unknown help topic: {}", topic.join(" "))));
    let Some((first, rest)) = words.split_first() else { return Ok(help::of_program(program)) };
    if let Some((later, path)) = later::find(&words) {
        return Ok(help::of_later(program, path, later));
    }
    let (path, rest) = match (tables::group(first), rest.split_first()) {
        (Some(group), None) => return Ok(help::of_group(program, group)),
        (Some(_), Some((second, rest))) => (format!("{first} {second}"), rest),
        (None, _) => (first.clone(), rest),
    };
    match tables::find(&path) {
        Some(command) if rest.is_empty() => Ok(help::of_command(program, &path, command)),
        Some(_) => unknown(rest),
        None if path == "help" => Ok(help::of_help(program)),
        None if tables::group(first).is_some() => unknown(&words[1..]),
        None => unknown(&words),
    }
}

fn execute(
    program: &'static str,
    global: &Parsed,
    path: String,
    command: &'static Command,
    parsed: Parsed,
) -> Result<(), Exit> {
    let context = Context::new(program, path, global, command.verb)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|err| Exit::error(&err))?;
    let outcome = runtime.block_on(run_command(&context, command.verb, &parsed));
    // A thread may wait for standard input for ever; the end of the process ends it.
    runtime.shutdown_background();
    outcome
}

async fn run_command(context: &Context, verb: Verb, parsed: &Parsed) -> Result<(), Exit> {
    if !commands::ends_at_once(verb) {
        return commands::dispatch(context, verb, parsed).await;
    }
    let caught = signals::Caught::ending();
    tokio::select! {
        // A command that has its own answer to a signal comes first.
        biased;
        outcome = commands::dispatch(context, verb, parsed) => outcome,
        exit = signals::ended(caught) => Err(exit),
    }
}
