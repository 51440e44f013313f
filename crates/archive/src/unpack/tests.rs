use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::pack::{Pack, pack};
use crate::write::TarWriter;

fn top(path: &Path) -> OwnedFd {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn packed(path: &Path, name: &str) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    let options =
        Pack { name: name.as_bytes(), xattr: |_| true, holes: true, still: false, entry: &mut |_, _, _| Ok(true) };
    pack(&mut tar, top(path), options).unwrap();
    tar.finish().unwrap()
}

fn names(bytes: &[u8]) -> Vec<String> {
    let mut tar = TarReader::new(bytes);
    let mut names = Vec::new();
    while let Some(entry) = tar.next_entry().unwrap() {
        names.push(String::from_utf8(entry.path).unwrap());
    }
    names
}

fn unpacked(root: &Path, bytes: &[u8], change: impl FnOnce(&mut Unpack<'_>)) -> Result<(), String> {
    let root = top(root);
    let mut options = Unpack {
        root: root.as_fd(),
        directory: b"",
        resolution: Resolution::InRoot,
        overwrite: Overwrite::Refuse,
        owner: Owner::Mine,
        rename: None,
        top: false,
    };
    change(&mut options);
    unpack(&mut TarReader::new(bytes), &options).map_err(|err| err.to_string())
}

fn archive(entries: &[(&str, Kind, &str)]) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    for (path, kind, text) in entries {
        let is_file = *kind == Kind::File;
        let entry = Entry {
            path: path.as_bytes().to_vec(),
            kind: *kind,
            link: if is_file { Vec::new() } else { text.as_bytes().to_vec() },
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Time { secs: 5, nanos: 0 },
            size: if is_file { text.len() as u64 } else { 0 },
            device: (0, 0),
            xattrs: Vec::new(),
            segments: None,
        };
        tar.begin(&entry).unwrap();
        if is_file {
            tar.data(text.as_bytes()).unwrap();
        }
    }
    tar.finish().unwrap()
}

#[test]
fn a_tree_comes_back_as_it_was_and_gives_the_same_bytes_again() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tree = from.path().join("tree");
    fs::create_dir_all(tree.join("b/deep")).unwrap();
    fs::write(tree.join("b/file"), "text").unwrap();
    fs::set_permissions(tree.join("b/file"), PermissionsExt::from_mode(0o4711)).unwrap();
    fs::hard_link(tree.join("b/file"), tree.join("z")).unwrap();
    symlink("/nowhere", tree.join("a")).unwrap();
    let sparse = File::create(tree.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    rustix::fs::mknodat(CWD, tree.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    let bytes = packed(&tree, "top");
    assert!(bytes.len() < 1 << 20, "holes are not packed");
    assert_eq!(
        names(&bytes),
        ["top/", "top/a", "top/b/", "top/b/deep/", "top/b/file", "top/fifo", "top/sparse", "top/z"]
    );
    unpacked(to.path(), &bytes, |_| {}).unwrap();
    let copy = to.path().join("top");
    assert_eq!(packed(&copy, "top"), bytes);
    assert_eq!(fs::metadata(copy.join("b/file")).unwrap().mode() & 0o7777, 0o4711);
    assert_eq!(fs::metadata(copy.join("z")).unwrap().ino(), fs::metadata(copy.join("b/file")).unwrap().ino());
    assert_eq!(fs::metadata(copy.join("sparse")).unwrap().blocks(), 0);
    assert!(fs::metadata(copy.join("fifo")).unwrap().file_type().is_fifo());
    assert_eq!(fs::read_link(copy.join("a")).unwrap(), Path::new("/nowhere"));
}

#[test]
fn names_of_the_top_are_what_is_asked_for() {
    let from = tempfile::tempdir().unwrap();
    fs::write(from.path().join("f"), "").unwrap();
    assert_eq!(names(&packed(from.path(), "/")), ["/", "/f"]);
    assert_eq!(names(&packed(from.path(), ".")), ["./", "./f"]);
    assert_eq!(names(&packed(from.path(), "")), ["f"]);
    assert_eq!(names(&packed(&from.path().join("f"), "g")), ["g"]);
}

#[test]
fn first_parts_of_names_are_replaced() {
    for (name, from, to, wanted) in [
        ("a/b", "a", "x", "x/b"),
        ("a/", "a", "x", "x/"),
        ("a", "a/", "x/", "x"),
        ("ab/c", "a", "x", "ab/c"),
        ("/b", "/", "x", "x/b"),
        ("b/c", "/", "", "b/c"),
        (".", ".", "x", "x"),
    ] {
        let mut text = name.as_bytes().to_vec();
        rebase(&mut text, from.as_bytes(), to.as_bytes());
        assert_eq!(String::from_utf8(text).unwrap(), wanted, "{name} {from} {to}");
    }
}

#[test]
fn links_of_the_tree_stay_below_the_root() {
    let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(root.path().join("real")).unwrap();
    symlink("/real", root.path().join("absolute")).unwrap();
    symlink(outside.path(), root.path().join("out")).unwrap();
    symlink("../../../../..", root.path().join("up")).unwrap();
    symlink(outside.path().join("victim"), root.path().join("file")).unwrap();
    fs::write(outside.path().join("victim"), "whole").unwrap();
    let put = |path| unpacked(root.path(), &archive(&[(path, Kind::File, "new")]), |_| {});
    put("absolute/x").unwrap();
    assert_eq!(fs::read_to_string(root.path().join("real/x")).unwrap(), "new");
    put("up/y").unwrap();
    assert_eq!(fs::read_to_string(root.path().join("y")).unwrap(), "new");
    // Where it leads does not exist below the root, and a file's own name is never followed.
    assert!(put("out/x").is_err());
    put("file").unwrap();
    assert_eq!(fs::read_to_string(outside.path().join("victim")).unwrap(), "whole");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert!(fs::symlink_metadata(root.path().join("file")).unwrap().is_file());
    // In a tree of the user's they are an error.
    let strict = |unpack: &mut Unpack<'_>| unpack.resolution = Resolution::Beneath;
    assert!(unpacked(root.path(), &archive(&[("absolute/z", Kind::File, "")]), strict).is_err());
    let climbing = archive(&[("l", Kind::Symlink, "../x")]);
    assert_eq!(unpacked(root.path(), &climbing, strict).unwrap_err(), "invalid symlink \"l\" -> \"../x\"");
    unpacked(root.path(), &climbing, |_| {}).unwrap();
    let out = unpacked(root.path(), &archive(&[("../x", Kind::File, "")]), |unpack| unpack.directory = b"/real");
    assert_eq!(out.unwrap_err(), "\"../x\" is outside of \"/real\"");
    let out = unpacked(root.path(), &archive(&[("h", Kind::HardLink, "../y")]), |unpack| unpack.directory = b"/real");
    assert_eq!(out.unwrap_err(), "invalid hardlink \"h\" -> \"../y\"");
}

#[test]
fn what_stands_in_the_way_goes_only_if_it_may() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("at/d/below")).unwrap();
    fs::write(root.path().join("at/f"), "old").unwrap();
    let file = archive(&[("d", Kind::File, "x")]);
    let directory = archive(&[("f", Kind::Directory, "")]);
    let at = |unpack: &mut Unpack<'_>| unpack.directory = b"/at";
    let refused = "cannot overwrite directory \"d\" with non-directory \"/at\"";
    assert_eq!(unpacked(root.path(), &file, at).unwrap_err(), refused);
    let refused = "cannot overwrite non-directory \"f\" with directory \"/at\"";
    assert_eq!(unpacked(root.path(), &directory, at).unwrap_err(), refused);
    let allow = |unpack: &mut Unpack<'_>| (unpack.directory, unpack.overwrite) = (b"at", Overwrite::Allow);
    unpacked(root.path(), &file, allow).unwrap();
    unpacked(root.path(), &directory, allow).unwrap();
    assert_eq!(fs::read_to_string(root.path().join("at/d")).unwrap(), "x");
    assert!(root.path().join("at/f").is_dir());
    // A directory that is there keeps what is in it.
    fs::write(root.path().join("at/f/kept"), "").unwrap();
    unpacked(root.path(), &directory, at).unwrap();
    assert!(root.path().join("at/f/kept").exists());
}

#[test]
fn directories_that_are_only_implied_are_made() {
    let root = tempfile::tempdir().unwrap();
    unpacked(root.path(), &archive(&[("a/b/c", Kind::File, "x"), ("a/b/d", Kind::File, "y")]), |_| {}).unwrap();
    assert_eq!(fs::read_to_string(root.path().join("a/b/d")).unwrap(), "y");
    assert_eq!(fs::metadata(root.path().join("a/b")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn privileged_owners_are_as_asked() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(from.path().join("f"), "").unwrap();
    std::os::unix::fs::chown(from.path().join("f"), Some(12), Some(13)).unwrap();
    symlink("f", from.path().join("l")).unwrap();
    let bytes = packed(from.path(), "");
    let owner = |name: &str| {
        let stat = fs::symlink_metadata(to.path().join(name)).unwrap();
        (stat.uid(), stat.gid())
    };
    for (as_asked, of_file, of_link) in
        [(Owner::Archive, (12, 13), (0, 0)), (Owner::Fixed(7, 8), (7, 8), (7, 8)), (Owner::Mine, (0, 0), (0, 0))]
    {
        unpacked(to.path(), &bytes, |unpack| unpack.owner = as_asked).unwrap();
        assert_eq!((owner("f"), owner("l")), (of_file, of_link), "{as_asked:?}");
    }
}

#[test]
fn privileged_files_have_their_modes_whatever_the_umask_takes() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let modes = [0o777, 0o666, 0o644, 0o444, 0o400, 0o000, 0o4755, 0o2711, 0o1666];
    for mode in modes {
        let path = from.path().join(mode.to_string());
        fs::write(&path, "x").unwrap();
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
    // Somebody who is not root reads no file of mode 0.
    let bytes = if rustix::process::geteuid().is_root() { packed(from.path(), "") } else { return };
    unpacked(to.path(), &bytes, |unpack| unpack.owner = Owner::Mine).unwrap();
    for mode in modes {
        let path = to.path().join(mode.to_string());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode, "{mode:o}");
        assert_eq!(fs::read_to_string(path).unwrap(), "x");
    }
}

#[test]
fn a_tree_keeps_its_xattrs_and_how_its_top_is() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(from.path().join("a"), "x").unwrap();
    match rustix::fs::setxattr(from.path().join("a"), "user.color", b"blue", XattrFlags::empty()) {
        // Such a file system keeps none.
        Err(Errno::OPNOTSUPP) => return,
        set => set.unwrap(),
    }
    fs::set_permissions(from.path(), PermissionsExt::from_mode(0o1750)).unwrap();
    unpacked(to.path(), &packed(from.path(), "."), |options| options.top = true).unwrap();
    let mut value = [0; 8];
    let length = rustix::fs::getxattr(to.path().join("a"), "user.color", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"blue");
    assert_eq!(fs::metadata(to.path()).unwrap().permissions().mode() & 0o7777, 0o1750);
}

#[test]
fn privileged_files_have_their_owners_whatever_their_directory_gives() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    for (name, mode, group) in [("plain", 0o755, 0), ("of", 0o755, 7), ("gives", 0o2755, 7)] {
        let root = scratch.path().join(name);
        fs::create_dir(&root).unwrap();
        std::os::unix::fs::chown(&root, None, Some(group)).unwrap();
        fs::set_permissions(&root, PermissionsExt::from_mode(mode)).unwrap();
        for (owner, wanted) in [(Owner::Archive, (0, 0)), (Owner::Fixed(8, 0), (8, 0)), (Owner::Fixed(0, 9), (0, 9))] {
            // Twice: into nothing, and in place of what is there.
            for text in ["one", "other"] {
                unpacked(&root, &archive(&[("f", Kind::File, text)]), |options| options.owner = owner).unwrap();
                let found = fs::metadata(root.join("f")).unwrap();
                assert_eq!(((found.uid(), found.gid()), found.mode() & 0o7777), (wanted, 0o755), "{name} {owner:?}");
                assert_eq!((fs::read_to_string(root.join("f")).unwrap(), found.mtime()), (text.to_owned(), 5));
            }
        }
    }
}
