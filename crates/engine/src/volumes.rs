//! The directories of an image's volumes, as long as there are no volumes: made in the container's own layer at its
//! creation, where the image lacks them.
//!
//! Which of them the image has, and through which of its links, only its layers on top of each other tell. So they are
//! mounted for a moment, detached: the mount is in no table and goes with its descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use oci::runtime::Mount;
use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};
use sys::open::openat2;

/// dockerd's mode of a volume's directory that the image does not have.
const MODE: u32 = 0o755;

/// The option of overlayfs that names one lower directory more; kernels before 6.5 do not know it.
const ONE_LOWER: &str = "lowerdir+=";

/// Makes the directories `paths` beneath the root that `mounts` describe, unless they are there. Blocks.
pub(crate) fn make(mounts: &[Mount], paths: &[&str]) -> io::Result<()> {
    // One mount is what `snapshot` answers.
    let [mount] = mounts else { return Err(io::ErrorKind::InvalidInput.into()) };
    let root = mount_detached(mount)?;
    paths.iter().try_for_each(|path| make_directory(root.as_fd(), &clean(path)))
}

/// Without `.`, `..` and what they take away, relative to the root.
fn clean(path: &str) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    clean
}

fn make_directory(root: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let (mut parent, mut reached) = (root.try_clone_to_owned()?, PathBuf::new());
    for name in path {
        reached.push(name);
        // What the image links to is looked for in the image, never on the host.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open =
            || openat2(root, &reached, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS);
        parent = match open() {
            Err(Errno::NOENT) => {
                mkdirat(&parent, name, Mode::from_raw_mode(MODE))?;
                open()?
            }
            opened => opened?,
        };
    }
    Ok(())
}

fn mount_detached(mount: &Mount) -> io::Result<OwnedFd> {
    let options: Vec<&str> = mount.options.iter().map(String::as_str).collect();
    match configure(mount, &options) {
        Err(Errno::INVAL) if options.iter().any(|option| option.starts_with(ONE_LOWER)) => {
            let (lower, mut rest): (Vec<&str>, Vec<&str>) =
                options.iter().partition(|option| option.starts_with(ONE_LOWER));
            let paths: Vec<&str> = lower.iter().filter_map(|option| option.strip_prefix(ONE_LOWER)).collect();
            let joined = format!("lowerdir={}", paths.join(":"));
            rest.push(&joined);
            Ok(configure(mount, &rest)?)
        }
        mounted => Ok(mounted?),
    }
}

fn configure(mount: &Mount, options: &[&str]) -> Result<OwnedFd, Errno> {
    let context = fsopen(mount.kind.as_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", mount.source.as_path())?;
    for option in options {
        match option.split_once('=') {
            Some((name, value)) => fsconfig_set_string(context.as_fd(), name, value)?,
            None => fsconfig_set_flag(context.as_fd(), *option)?,
        }
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn paths_stay_beneath_the_root() {
        for (path, wanted) in [("/a/b", "a/b"), ("a//./b/", "a/b"), ("/../../etc", "etc"), ("/a/../b", "b"), ("/", "")]
        {
            assert_eq!(clean(path), Path::new(wanted), "{path}");
        }
    }

    #[test]
    fn privileged_what_the_image_lacks_is_made_in_the_containers_layer() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["low/run", "low/there", "low/var", "high", "upper", "work"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        fs::set_permissions(path("low/there"), fs::Permissions::from_mode(0o1777)).unwrap();
        symlink("/run", path("low/var/run")).unwrap();
        symlink("/../../../../nowhere", path("high/out")).unwrap();
        fs::write(path("high/file"), "").unwrap();
        let option = |name: &str, directory: &str| format!("{name}={}", path(directory).display());
        let options = ["lowerdir+=high", "lowerdir+=low", "upperdir=upper", "workdir=work"];
        let options = options.map(|text| text.split_once('=').map(|(name, value)| option(name, value)).unwrap());
        let mount =
            Mount { kind: "overlay".into(), source: "overlay".into(), options: options.into(), ..Mount::default() };
        let made = |path: &str| make(std::slice::from_ref(&mount), &[path]);

        made("/data/deep").unwrap();
        made("/there").unwrap();
        made("/var/run/service").unwrap();
        assert_eq!(fs::metadata(path("upper/data/deep")).unwrap().permissions().mode() & 0o7777, MODE);
        assert!(path("upper/run/service").is_dir());
        // The image's own is left as it is: a copy above it would hide its mode.
        assert!(!path("upper/there").exists());
        assert_eq!(made("/file/x").unwrap_err().raw_os_error(), Some(Errno::NOTDIR.raw_os_error()));
        made("/out/x").unwrap_err();
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains(dir.path().to_str().unwrap()), "a mount stayed");
    }
}
