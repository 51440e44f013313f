//! Opening files beneath a directory.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::path::Arg;

/// More than any storm of renames takes: each try is lost only to a rename that falls into its own microsecond.
const ATTEMPTS: u32 = 128;

/// openat2(2), again where the kernel gives up: while it resolves `..` with `RESOLVE_IN_ROOT` or `RESOLVE_BENEATH`, any
/// rename or mount on the whole machine may have been an escape for all it knows, and it answers EAGAIN.
pub fn openat2<P: Arg + Copy>(
    directory: impl AsFd,
    path: P,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let open = || rustix::fs::openat2(&directory, path, flags, mode, resolve);
    let mut opened = open();
    for _ in 1..ATTEMPTS {
        match opened {
            Err(Errno::AGAIN) => opened = open(),
            opened => return opened,
        }
    }
    opened
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn renames_elsewhere_fail_no_open_through_a_link_with_dots() {
        let (root, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir_all(root.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("../../a/../a/b/../b", root.path().join("a/link")).unwrap();
        let directory = std::fs::File::open(root.path()).unwrap();
        let (from, to) = (elsewhere.path().join("from"), elsewhere.path().join("to"));
        let end = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::fs::write(&from, "").unwrap();
                while !end.load(Ordering::Relaxed) {
                    std::fs::rename(&from, &to).unwrap();
                    std::fs::rename(&to, &from).unwrap();
                }
            });
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let failed = (0..20_000)
                .find_map(|_| openat2(&directory, "a/link", flags, Mode::empty(), ResolveFlags::IN_ROOT).err());
            end.store(true, Ordering::Relaxed);
            assert_eq!(failed, None);
        });
    }
}
