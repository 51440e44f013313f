//! Pseudo-terminals.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

/// Both ends of a pseudo-terminal, close-on-exec.
#[derive(Debug)]
pub struct Pair {
    /// The end of whoever shows the terminal.
    pub master: OwnedFd,
    /// The end of the processes on the terminal.
    pub slave: OwnedFd,
}

/// Makes a pair from a master that was opened from some devpts instance's `ptmx`.
///
/// The slave is opened through the master (TIOCGPTPEER), so no path is walked that somebody else may have changed.
pub fn pair(master: OwnedFd) -> io::Result<Pair> {
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    Ok(Pair { master, slave })
}

/// Sets a terminal's size in characters; its foreground processes get SIGWINCH if that is a change.
pub fn resize(terminal: impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_slave_writes_the_master_reads() {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        let pair = pair(master).unwrap();
        resize(&pair.master, 24, 80).unwrap();
        assert_eq!(rustix::termios::tcgetwinsize(&pair.slave).unwrap().ws_col, 80);
        rustix::io::write(&pair.slave, b"hello").unwrap();
        let mut buffer = [0; 16];
        let read = rustix::io::read(&pair.master, &mut buffer).unwrap();
        assert_eq!(&buffer[..read], b"hello");
    }
}
