//! Starting a program from a process with many threads.
//!
//! The child shares the parent's memory until it executes (CLONE_VM and CLONE_VFORK): no page table is copied, however
//! large the daemon is. The child therefore does nothing but system calls on values prepared before.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Pid;

use crate::exec::pointers;
use crate::fork::Child;
use crate::signal::{SignalSet, set_mask};

/// What to start.
#[derive(Debug)]
pub struct Command<'a> {
    /// The program, open (see [`crate::binary::SealedProgram`]).
    pub program: BorrowedFd<'a>,
    /// Its arguments, the name first.
    pub argv: Vec<CString>,
    /// Its whole environment.
    pub envp: Vec<CString>,
    /// What it has open, at 0, 1, 2 and so on; nothing else.
    pub fds: Vec<BorrowedFd<'a>>,
    /// `tasks` files (cgroup v1) or `cgroup.procs` (v2) into which it writes itself, opened for writing.
    pub cgroups: Vec<BorrowedFd<'a>>,
}

/// Starts the program in a new session, with cwd /, umask 022, default signals and an empty mask.
///
/// Answers when the program runs, or with the error of the step that failed in the child. The caller reaps the child.
/// Blocks the calling thread for the time between fork and exec, about 0.2 ms.
pub fn spawn(command: &Command<'_>) -> io::Result<Child> {
    let (argv, envp) = (pointers(&command.argv), pointers(&command.envp));
    let fds: Vec<i32> = command.fds.iter().map(AsRawFd::as_raw_fd).collect();
    let cgroups: Vec<i32> = command.cgroups.iter().map(AsRawFd::as_raw_fd).collect();
    let mut moved = vec![-1; fds.len()];
    let mut birth = Birth {
        program: command.program.as_raw_fd(),
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        fds: &fds,
        moved: &mut moved,
        cgroups: &cgroups,
        errno: 0,
    };
    // The child must not run a signal handler of ours in our memory.
    let mask = set_mask(SignalSet::all())?;
    let cloned = clone_vfork(&mut birth);
    let restored = set_mask(mask);
    let child = cloned?;
    if birth.errno != 0 {
        // It has ended already; reaping it cannot block, and its status says nothing.
        let _ = crate::wait::wait(std::os::fd::AsFd::as_fd(&child.pidfd));
        return Err(io::Error::from_raw_os_error(birth.errno));
    }
    restored?;
    Ok(child)
}

/// What parent and child share: read by the child, but for `moved` and `errno`.
struct Birth<'a> {
    program: i32,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
    fds: &'a [i32],
    moved: &'a mut [i32],
    cgroups: &'a [i32],
    errno: i32,
}

/// Stack of the child: a few frames of system calls.
const STACK_BYTES: usize = 32 * 1024;

fn clone_vfork(birth: &mut Birth<'_>) -> io::Result<Child> {
    let mut stack = vec![0_u128; STACK_BYTES / 16];
    let mut pidfd: libc::c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: the stack is 16-byte aligned and, like birth, outlives the child's use of our memory: CLONE_VFORK suspends
    // this thread until the child has executed or ended. The child touches nothing else of ours but errno (its thread
    // pointer is this thread's, which sleeps). All signals are blocked, so no handler runs in the child.
    let pid = crate::check(
        unsafe {
            libc::clone(
                be_born,
                stack.as_mut_ptr_range().end.cast(),
                flags,
                std::ptr::from_mut(birth).cast(),
                &raw mut pidfd,
            )
        }
        .into(),
    )?;
    let pid = Pid::from_raw(pid as i32).expect("clone answers a positive number");
    // SAFETY: CLONE_PIDFD stored a new descriptor that nothing else owns.
    Ok(Child { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

extern "C" fn be_born(birth: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the pointer is the `&mut Birth` of clone_vfork, whose thread is suspended.
    let birth = unsafe { &mut *birth.cast::<Birth<'_>>() };
    birth.errno = match prepare(birth) {
        Ok(()) => execute(birth),
        Err(errno) => errno,
    };
    127
}

/// Every step between clone and exec. Only system calls: no allocation, no lock.
fn prepare(birth: &mut Birth<'_>) -> Result<(), i32> {
    for cgroup in birth.cgroups {
        // SAFETY: two bytes of static memory.
        step(unsafe { libc::write(*cgroup, c"0\n".as_ptr().cast(), 2) })?;
    }
    // Above the targets first, or a later source could be overwritten before it is copied.
    let targets = birth.fds.len() as i32;
    for (moved, fd) in birth.moved.iter_mut().zip(birth.fds) {
        // SAFETY: no memory is passed; the child has its own table of descriptors.
        *moved = step(unsafe { libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, targets) } as isize)? as i32;
    }
    // SAFETY: no memory is passed.
    birth.program = step(unsafe { libc::fcntl(birth.program, libc::F_DUPFD_CLOEXEC, targets) } as isize)? as i32;
    for (target, moved) in (0..).zip(&*birth.moved) {
        // SAFETY: as above; the descriptors below `targets` of this process are nobody's from here on.
        step(unsafe { libc::dup2(*moved, target) } as isize)?;
    }
    // SAFETY: no memory but a static string is passed; CLOEXEC closes nothing now.
    unsafe {
        libc::syscall(libc::SYS_close_range, targets, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        libc::umask(0o022);
        step(libc::setsid() as isize)?;
        step(libc::chdir(c"/".as_ptr()) as isize)?;
    }
    crate::signal::reset().map_err(|err| err.raw_os_error().unwrap_or(libc::EIO))
}

fn execute(birth: &Birth<'_>) -> i32 {
    // SAFETY: the arrays are NUL-terminated and live in the suspended parent.
    unsafe {
        libc::syscall(libc::SYS_execveat, birth.program, c"".as_ptr(), birth.argv, birth.envp, libc::AT_EMPTY_PATH);
    }
    errno()
}

fn step(result: isize) -> Result<isize, i32> {
    if result < 0 { Err(errno()) } else { Ok(result) }
}

fn errno() -> i32 {
    // last_os_error allocates nothing.
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;

    fn command<'a>(program: BorrowedFd<'a>, script: &str, fds: Vec<BorrowedFd<'a>>) -> Command<'a> {
        let argv = ["sh", "-c", script].map(|arg| CString::new(arg).unwrap()).to_vec();
        Command { program, argv, envp: vec![c"ONLY=this".into()], fds, cgroups: vec![] }
    }

    #[test]
    fn privileged_a_spawned_program_has_exactly_what_was_given() {
        let program = crate::binary::SealedProgram::open("/bin/busybox".as_ref()).unwrap();
        let null = std::fs::File::options().read(true).write(true).open("/dev/null").unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let _open_elsewhere = std::fs::File::open("/etc").unwrap();
        let script = "busybox pwd; busybox env | busybox grep ONLY; busybox ls /proc/self/fd; \
                      (: > /proc/$$/exe) || echo sealed; busybox grep -E 'Sig(Blk|Ign)' /proc/self/status; :";
        let mut fds = vec![null.as_fd(), writer.as_fd(), null.as_fd(), writer.as_fd()];
        let child = spawn(&command(program.as_fd(), script, std::mem::take(&mut fds))).unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        crate::wait::wait(child.pidfd.as_fd()).unwrap();
        // Descriptor 4 is the directory that ls itself reads.
        let expected = "/\nONLY=this\n0\n1\n2\n3\n4\nsealed\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_program_that_cannot_run_is_an_error_of_the_spawn() {
        let directory = std::fs::File::open("/etc").unwrap();
        let err = spawn(&command(directory.as_fd(), "true", vec![])).unwrap_err();
        assert_eq!(err.raw_os_error(), Some(libc::EACCES));
    }
}
