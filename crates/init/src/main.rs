//! PID 1 of a container that was started with `--init`: runs one command, forwards it every signal, reaps whatever its
//! descendants leave, and ends with the command's status (128 plus the signal that killed it).
//!
//! Behaves as tini, Docker's `docker-init`: the command gets its own process group and, where there is a terminal, the
//! foreground; a command that cannot be executed ends with 126 or 127. Called as `longshore-init [--] COMMAND [ARG...]`.
//!
//! Deliberately not here: options beyond `--` and `--version`, configuration, services.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use sys::fork::{Child, NewNamespaces, fork};
use sys::signal::{SIGNAL_MAX, SignalFd, SignalSet, set_mask};
use sys::wait::{Exit, try_wait_any};

/// Signals that stay ours, as tini has it: the first tells of ended children; the others are errors of this very program.
const OWN_SIGNALS: [i32; 6] = [SIGCHLD, SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGABRT];

// Numbers that are the same on every architecture we run on (signal(7)).
const SIGILL: i32 = 4;
const SIGABRT: i32 = 6;
const SIGBUS: i32 = 7;
const SIGFPE: i32 = 8;
const SIGSEGV: i32 = 11;
const SIGCHLD: i32 = 17;
const SIGTTIN: i32 = 21;
const SIGTTOU: i32 = 22;

/// Status when init itself fails.
const STATUS_FAILED: u8 = 1;

fn main() -> ExitCode {
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    // A command of that name comes behind `--`, which the engine always writes.
    if arguments == ["--version"] {
        println!("longshore-init version {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    if arguments.first().is_some_and(|first| first == "--") {
        arguments.remove(0);
    }
    let arguments = arguments.into_iter().map(|argument| CString::new(argument.into_vec()));
    match arguments.collect::<Result<Vec<_>, _>>() {
        Ok(argv) if !argv.is_empty() => match run(&argv) {
            Ok(exit) => ExitCode::from(exit.code()),
            Err(err) => {
                eprintln!("longshore-init: {err}");
                ExitCode::from(STATUS_FAILED)
            }
        },
        _ => {
            eprintln!("usage: longshore-init [--] COMMAND [ARG...]");
            ExitCode::from(STATUS_FAILED)
        }
    }
}

fn run(argv: &[CString]) -> io::Result<Exit> {
    let forwarded = OWN_SIGNALS[1..].iter().fold(SignalSet::all(), |set, signal| set.without(*signal));
    // Blocked before the child exists: its end, or a signal meanwhile, waits in the descriptor instead of being lost.
    set_mask(forwarded)?;
    let signals = SignalFd::open(forwarded)?;
    let child = fork(NewNamespaces::default(), None, || execute(argv))?;
    loop {
        wait_readable(&signals)?;
        while let Some(signal) = signals.read()? {
            forward(&child, signal);
        }
        if let Some(exit) = reap(&child)? {
            return Ok(exit);
        }
    }
}

fn wait_readable(signals: &SignalFd) -> io::Result<()> {
    let mut fds = [rustix::event::PollFd::new(signals, rustix::event::PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
    Ok(())
}

fn forward(child: &Child, signal: i32) {
    // SIGTTIN and SIGTTOU are answers to our own use of the terminal, none of the command's business.
    if OWN_SIGNALS.contains(&signal) || [SIGTTIN, SIGTTOU].contains(&signal) || signal > SIGNAL_MAX {
        return;
    }
    // A command that has ended a moment ago is reaped next.
    let _ = sys::signal::send(child.pidfd.as_fd(), signal);
}

/// Reaps everything that has ended; answers with the command's end.
fn reap(child: &Child) -> io::Result<Option<Exit>> {
    loop {
        match try_wait_any() {
            Ok(Some((pid, exit))) if pid == child.pid => return Ok(Some(exit)),
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            Err(err) => return Err(err),
        }
    }
}

/// The child: own process group, foreground of the terminal, default signals, then the command.
fn execute(argv: &[CString]) -> u8 {
    let pid = rustix::process::getpid();
    // Neither is worth failing for: without a terminal there is no foreground.
    let _ = rustix::process::setpgid(Some(pid), Some(pid));
    let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), pid);
    if let Err(err) = sys::signal::reset() {
        eprintln!("longshore-init: {err}");
        return STATUS_FAILED;
    }
    let envp: Vec<_> = std::env::vars_os()
        .filter_map(|(name, value)| {
            let mut entry = name.into_vec();
            entry.push(b'=');
            entry.extend(value.into_vec());
            CString::new(entry).ok()
        })
        .collect();
    let err = search(argv, &envp);
    eprintln!("[FATAL tini (7)] exec {} failed: {}", argv[0].to_string_lossy(), sentence(&err));
    if err.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
}

/// execvp(3): answers only with an error, "not found" only if no directory had a better one.
fn search(argv: &[CString], envp: &[CString]) -> io::Error {
    let name = &argv[0];
    if name.as_bytes().contains(&b'/') {
        return sys::exec::execve(name, argv, envp);
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/bin:/usr/bin".into());
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for directory in path.into_vec().split(|byte| *byte == b':') {
        let directory = if directory.is_empty() { b"." } else { directory };
        let candidate = CString::new([directory, b"/", name.as_bytes()].concat());
        let err = candidate.map_or_else(|err| err.into(), |candidate| sys::exec::execve(&candidate, argv, envp));
        if !matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
            failure = err;
        }
    }
    failure
}

/// The C library's sentence, as tini prints it.
fn sentence(err: &io::Error) -> String {
    match err.kind() {
        io::ErrorKind::NotFound => "No such file or directory".to_owned(),
        _ => err.to_string().split(" (os error").next().unwrap_or_default().to_owned(),
    }
}
