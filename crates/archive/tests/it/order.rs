//! The same tree is the same archive, however it came to be.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use archive::{Pack, TarWriter, pack};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, openat, utimensat};

/// One thing of the tree that is made.
type Make = fn(&Path);

/// In an order in which each is possible.
const MAKES: [Make; 6] = [
    |root| fs::write(root.join("d/b"), "b").unwrap(),
    |root| fs::write(root.join("d/a"), "a").unwrap(),
    |root| fs::create_dir(root.join("d/e")).unwrap(),
    |root| symlink("a", root.join("d/link")).unwrap(),
    |root| fs::write(root.join("z"), "z").unwrap(),
    |root| fs::write(root.join("d/ä ö"), "").unwrap(),
];

fn packed(order: impl Iterator<Item = usize>, first: &str, second: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::set_permissions(root, PermissionsExt::from_mode(0o755)).unwrap();
    fs::create_dir(root.join("d")).unwrap();
    order.for_each(|index| MAKES[index](root));
    fs::write(root.join(first), "twice").unwrap();
    fs::hard_link(root.join(first), root.join(second)).unwrap();
    let time = Timespec { tv_sec: 1_000_000, tv_nsec: 5 };
    let times = Timestamps { last_access: time, last_modification: time };
    for name in ["d/b", "d/a", "d/e", "d/link", "z", "d/ä ö", first, "d", ""] {
        utimensat(CWD, root.join(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
    let top = openat(CWD, root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let mut tar = TarWriter::new(Vec::new());
    let options = Pack { name: b"top", xattr: |_| true, holes: true, still: false, entry: &mut |_, _, _| Ok(true) };
    pack(&mut tar, top, options).unwrap();
    tar.finish().unwrap()
}

#[test]
fn a_tree_is_the_same_archive_in_whatever_order_it_was_made() {
    let once = packed(0..MAKES.len(), "d/one", "h");
    assert!(once == packed((0..MAKES.len()).rev(), "h", "d/one"));
    assert!(once == packed([3, 1, 5, 0, 4, 2].into_iter(), "d/one", "h"));
}
