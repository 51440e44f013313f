//! Overlays by the program fuse-overlayfs, in no mount table.
//!
//! ```text
//! caller: open /dev/fuse --- fsopen("fuse"), fsmount --- the mount, attached nowhere
//!              |
//!              +-- standard input of fuse-overlayfs, which answers what is asked of the mount
//! ```
//! libfuse takes `/dev/fd/N` for a mount that somebody else has made (fuse_lowlevel.c, `fuse_session_mount`). So nothing has
//! to be unmounted after a death: the kernel ends the connection when the last descriptor or namespace with the mount goes,
//! and the program ends with its connection. It does not end with whoever started it: a root may be looked at for longer
//! than its container runs. It runs in the mount namespace of the process, whatever that of the thread is: in one in which
//! the mount is attached, program and namespace would keep each other.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::{AtFlags, Mode, OFlags, statat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::overlay::LAYER;

/// The type of such a mount, as the mount table of a container has it. Its source is the program.
pub const KIND: &str = "fuse.fuse-overlayfs";

/// What the kernel asks requests from.
pub const DEVICE: &str = "/dev/fuse";

/// How much of what the program says is read: as much as a pipe holds.
const WORDS_MAX: u64 = 64 << 10;

/// A mount, attached nowhere, and the program that serves it: to be reaped by the caller.
#[derive(Debug)]
pub struct Served {
    /// The mount.
    pub mount: OwnedFd,
    /// Ends soon after the last of the mount is gone.
    pub server: Child,
}

/// What the program said when it ended too soon.
#[derive(Debug)]
struct Said(String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fuse-overlayfs: {}", self.0)
    }
}

impl std::error::Error for Said {}

/// Mounts an overlay with these options, in which each layer is a [`LAYER`]. Blocks until the program answers.
///
/// The thread must see the process' own /proc, and the program by its path; the process is in no mount namespace in which
/// the mount will be attached.
pub fn mount(program: &Path, options: &[(String, Option<String>)]) -> io::Result<Served> {
    let text = text(options)?;
    let device = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let mount = connect(&device)?;
    let (said, errors) = io::pipe()?;
    let mut command = Command::new(program);
    // In the foreground: what it is to serve is its standard input, which a daemon would close.
    command.args(["-f", "-o", &text, "/dev/fd/0"]).env_clear().current_dir("/").process_group(0);
    command.stdin(device).stdout(Stdio::null()).stderr(errors);
    let home = rustix::fs::open("/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // SAFETY: between fork and exec of a process with threads only what is async-signal-safe is allowed: this is one system
    // call on integers, and neither it nor its error takes memory or a lock.
    unsafe {
        command.pre_exec(move || Ok(move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Mount))?));
    }
    let mut server = command.spawn()?;
    // Its ends of device and pipe are the server's alone from here on.
    drop(command);
    match statat(&mount, "", AtFlags::EMPTY_PATH) {
        Ok(_) => Ok(Served { mount, server }),
        Err(err) => {
            server.kill()?;
            server.wait()?;
            let mut words = Vec::new();
            said.take(WORDS_MAX).read_to_end(&mut words)?;
            // The last line is the error.
            let words = String::from_utf8_lossy(&words);
            let last = words.lines().last().map(|line| line.trim_start_matches("fuse-overlayfs: "));
            Err(last
                .map_or_else(|| err.into(), |last| io::Error::new(io::Error::from(err).kind(), Said(last.to_owned()))))
        }
    }
}

fn connect(device: &OwnedFd) -> io::Result<OwnedFd> {
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let context = context.as_fd();
    fsconfig_set_string(context, "source", "fuse-overlayfs")?;
    fsconfig_set_string(context, "subtype", "fuse-overlayfs")?;
    fsconfig_set_string(context, "fd", device.as_raw_fd().to_string().as_str())?;
    // A directory, in octal.
    for (key, value) in [("rootmode", "40000"), ("user_id", "0"), ("group_id", "0")] {
        fsconfig_set_string(context, key, value)?;
    }
    // The kernel judges by mode and owner; and it lets other users in at all.
    for flag in ["default_permissions", "allow_other"] {
        fsconfig_set_flag(context, flag)?;
    }
    fsconfig_create(context)?;
    Ok(fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// The options as one text.
fn text(options: &[(String, Option<String>)]) -> io::Result<String> {
    let value = |value: &String| match value.contains(':') {
        // It splits at every colon.
        true => Err(io::Error::new(io::ErrorKind::InvalidInput, Said(format!("no path with a colon: {value}")))),
        false => Ok(escape(value)),
    };
    let layers = options.iter().filter(|(key, _)| key == LAYER).filter_map(|(_, path)| path.as_ref().map(value));
    let mut text = format!("lowerdir={}", layers.collect::<io::Result<Vec<_>>>()?.join(":"));
    for (key, of) in options.iter().filter(|(key, _)| key != LAYER) {
        text.push(',');
        text.push_str(key);
        if let Some(of) = of {
            text.push('=');
            text.push_str(&value(of)?);
        }
    }
    Ok(text)
}

/// As libfuse reads it (fuse_opt.c, `process_real_option_group`).
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(key: &str, value: Option<&str>) -> (String, Option<String>) {
        (key.to_owned(), value.map(str::to_owned))
    }

    #[test]
    fn options_are_one_text_and_what_the_program_would_split_is_refused() {
        let options = [
            option(LAYER, Some("/r/l/b,1")),
            option(LAYER, Some("/r/l/a\\2")),
            option("upperdir", Some("/r/c/fs")),
            option("ro", None),
        ];
        assert_eq!(text(&options).unwrap(), "lowerdir=/r/l/b\\,1:/r/l/a\\\\2,upperdir=/r/c/fs,ro");
        let refused = text(&[option(LAYER, Some("/r:1/l"))]).unwrap_err();
        assert_eq!(refused.to_string(), "fuse-overlayfs: no path with a colon: /r:1/l");
    }

    #[test]
    fn privileged_a_program_that_ends_is_an_error_with_its_words() {
        if !Path::new(DEVICE).exists() {
            return testkit::skip::report("this machine has no /dev/fuse");
        }
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::write(&program, "#!/bin/sh\necho first >&2\necho fuse-overlayfs: cannot do it >&2\nexit 1\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, mode).unwrap();
        let failed = mount(&program, &[option(LAYER, Some("/"))]).unwrap_err();
        assert_eq!(failed.to_string(), "fuse-overlayfs: cannot do it");
    }
}
