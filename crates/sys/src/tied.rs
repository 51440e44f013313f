//! Programs that end with the thread that started them.
//!
//! ```text
//! thread ── fork ──> a group of its own, limits ── exec ──> program ──> what it starts
//!    └ dies: SIGKILL to the program (prctl(2), PR_SET_PDEATHSIG); whoever talks to it by pipes ends at their end
//! ```

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, Signal, getpid, getppid, set_parent_process_death_signal, setrlimit};

/// Has a program lead a group of processes, with umask 022, write no file of more bytes than these, and be killed when
/// the thread that starts it ends: whoever starts it waits for it on that thread.
pub fn tie(command: &mut Command, file_bytes_max: u64) {
    let parent = getpid();
    command.process_group(0);
    // SAFETY: between fork and exec of a process with threads only what is async-signal-safe is allowed: these are system
    // calls on integers, and neither they nor their errors take memory or a lock.
    unsafe {
        command.pre_exec(move || prepare(parent, file_bytes_max));
    }
}

fn prepare(parent: Pid, file_bytes_max: u64) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // One that ended before has left nobody to be told of.
    if getppid() != Some(parent) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let limit = Rlimit { current: Some(file_bytes_max), maximum: Some(file_bytes_max) };
    Ok(setrlimit(Resource::Fsize, limit)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_program_ends_with_its_thread() {
        let starting = std::thread::spawn(|| {
            let mut command = Command::new("sleep");
            tie(command.arg("1000"), 1 << 20);
            command.spawn().unwrap()
        });
        let mut child = starting.join().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn files_have_their_bound() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; echo more than four >\"$0\"; umask"]).arg(file.path());
        tie(&mut command, 4);
        let output = command.output().unwrap();
        assert_eq!(file.path().metadata().unwrap().len(), 4);
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "0022");
    }
}
