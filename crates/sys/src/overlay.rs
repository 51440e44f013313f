//! Overlays of many layers, on kernels that take all of them in one option.
//!
//! Such a kernel (before 6.5) takes the option over fsconfig(2), whose strings end at 255 bytes, or over mount(2), whose
//! options are a page: with short relative names that is enough for more than a hundred layers. mount(2) needs a place, so
//! a thread mounts in a mount namespace of its own, which ends with it, and hands over a detached clone.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, OpenTreeFlags, mount, mount_change, open_tree};
use rustix::process::chdir;
use rustix::thread::UnshareFlags;

/// The option with one layer, of kernels that take them one by one.
pub const LAYER: &str = "lowerdir+";

/// The options of mount(2), with a final zero (mount(2), NOTES).
const PAGE_BYTES: usize = 4096;

/// Whether this kernel takes all layers in one option.
///
/// Not tried out: every refusal is a line in the kernel's log.
pub fn joins_layers() -> bool {
    is_before(&rustix::system::uname().release().to_string_lossy(), (6, 5))
}

/// Whether the kernel mounts overlays that leave out all syncs (`volatile`; Linux 5.10).
pub fn leaves_out_syncs() -> bool {
    !is_before(&rustix::system::uname().release().to_string_lossy(), (5, 10))
}

fn is_before(release: &str, version: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().ok());
    // One that cannot be read is tried as a new one.
    matches!((numbers.next().flatten(), numbers.next().flatten()), (Some(major), Some(minor)) if (major, minor) < version)
}

/// Mounts an overlay with these options, in which each layer is a [`LAYER`], on a kernel that [`joins_layers`]; detached.
///
/// Runs a thread meanwhile. More layers than a page has room for are ENAMETOOLONG.
pub fn mount_joined(data: &[(String, Option<String>)]) -> io::Result<OwnedFd> {
    let first = data.iter().find(|(key, _)| key == LAYER).and_then(|(_, path)| path.as_deref());
    let base = first.and_then(|path| Path::new(path).parent()).ok_or(Errno::INVAL)?;
    let options = options(data, base);
    if options.len() >= PAGE_BYTES {
        return Err(Errno::NAMETOOLONG.into());
    }
    let options = CString::new(options)?;
    let work = || mount_here(base, &options);
    std::thread::scope(|scope| scope.spawn(work).join().unwrap_or(Err(Errno::IO.into())))
}

/// The options as one text; layers below `base` by their names alone.
fn options(data: &[(String, Option<String>)], base: &Path) -> String {
    let short = |path: &String| {
        let relative = Path::new(path).strip_prefix(base).ok().and_then(Path::to_str);
        escape(relative.filter(|name| !name.is_empty()).unwrap_or(path), &['\\', ':', ','])
    };
    let layers: Vec<String> =
        data.iter().filter(|(key, _)| key == LAYER).filter_map(|(_, path)| path.as_ref().map(short)).collect();
    let others = data.iter().filter(|(key, _)| key != LAYER).map(|(key, value)| match value {
        Some(value) => format!(",{key}={}", escape(value, &['\\', ','])),
        None => format!(",{key}"),
    });
    format!("lowerdir={}", layers.join(":")) + &others.collect::<String>()
}

/// As overlayfs reads it: a backslash before what would end a path or an option (fs/overlayfs/super.c, `ovl_next_opt`).
fn escape(text: &str, special: &[char]) -> String {
    let escaped = |c: char| special.contains(&c).then_some('\\').into_iter().chain([c]);
    text.chars().flat_map(escaped).collect()
}

/// In a thread whose namespaces, root and working directory are its own from here on.
fn mount_here(base: &Path, options: &CStr) -> io::Result<OwnedFd> {
    crate::namespace::unshare(UnshareFlags::NEWNS)?;
    // Or the mount would appear outside.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    chdir(base)?;
    mount("overlay", ".", "overlay", MountFlags::empty(), Some(options))?;
    // By its whole name: the working directory is what lies below.
    Ok(open_tree(CWD, base, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileged_a_hundred_layers_are_mounted_for_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let layer = |number: usize| dir.path().join(format!("{number:032x}"));
        let data: Vec<_> = (0..100)
            .map(|number| {
                std::fs::create_dir(layer(number)).unwrap();
                std::fs::write(layer(number).join(format!("file{number}")), "").unwrap();
                (LAYER.to_owned(), layer(number).to_str().map(str::to_owned))
            })
            .collect();
        let here = || (std::fs::read_to_string("/proc/self/mountinfo").unwrap(), std::env::current_dir().unwrap());
        let before = here();
        let mount = mount_joined(&data).unwrap();
        assert_eq!(here(), before);
        for number in [0, 50, 99] {
            rustix::fs::statat(&mount, format!("file{number}"), rustix::fs::AtFlags::empty()).unwrap();
        }
        let many: Vec<_> = data.iter().cycle().take(150).cloned().collect();
        assert_eq!(mount_joined(&many).unwrap_err().raw_os_error(), Some(Errno::NAMETOOLONG.raw_os_error()));
    }

    #[test]
    fn kernels_are_told_apart() {
        for (release, old) in [
            ("5.15.0-91-generic", true),
            ("6.1.0-56-amd64", true),
            ("6.4.16", true),
            ("6.5.0", false),
            ("6.18.44-x", false),
            ("7.0-rc1", false),
            ("strange", false),
        ] {
            assert_eq!(is_before(release, (6, 5)), old, "{release}");
        }
    }

    #[test]
    fn layers_are_one_option_of_short_names() {
        let data =
            [("lowerdir+", "/r/l/a"), ("lowerdir+", "/r/l/b:c"), ("lowerdir+", "/other,x"), ("upperdir", "/r/u,p")];
        let data: Vec<_> = data.iter().map(|(key, value)| ((*key).to_owned(), Some((*value).to_owned()))).collect();
        assert_eq!(options(&data, Path::new("/r/l")), "lowerdir=a:b\\:c:/other\\,x,upperdir=/r/u\\,p");
    }
}
