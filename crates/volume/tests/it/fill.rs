//! Filling volumes from images.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use errdefs::{ErrorKind, chain};
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, mknodat};
use volume::{FillError, Filled, Volumes};

use crate::{container, wanted};

/// A store with one volume, used by one container, and the root of an image.
struct Scene {
    _dir: tempfile::TempDir,
    volumes: Volumes,
    image: PathBuf,
    data: PathBuf,
}

fn scene() -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(&dir.path().join("volumes")).unwrap();
    let data = volumes.create(&wanted("data"), Some(&container('1'))).unwrap().volume.mountpoint.clone();
    let image = dir.path().join("image");
    fs::create_dir(&image).unwrap();
    Scene { _dir: dir, volumes, image, data }
}

impl Scene {
    fn fill(&self, path: &str) -> Result<Filled, FillError> {
        let root = File::open(&self.image).unwrap();
        let filled = self.volumes.fill("data", root.as_fd(), Path::new(path));
        let left: Vec<_> = fs::read_dir(self.data.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        filled
    }
}

/// Everything of a tree that a copy must have, too.
fn describe(root: &Path) -> BTreeMap<PathBuf, String> {
    let (mut found, mut inodes) = (BTreeMap::new(), BTreeMap::new());
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let relative = path.strip_prefix(root).unwrap().to_owned();
        let kind = meta.file_type();
        let content = match () {
            () if kind.is_file() => fs::read(&path).unwrap().iter().fold(0, add).to_string(),
            () if kind.is_symlink() => format!("{:?}", fs::read_link(&path).unwrap()),
            () => String::new(),
        };
        let size = if kind.is_dir() { 0 } else { meta.size() };
        let (mode, uid, gid, rdev) = (meta.mode(), meta.uid(), meta.gid(), meta.rdev());
        let times = (meta.mtime(), meta.mtime_nsec());
        if !kind.is_dir() {
            inodes.entry(meta.ino()).or_insert_with(Vec::new).push(relative.clone());
        }
        found.insert(relative, format!("{mode:o} {uid}:{gid} {rdev} {size} {times:?} {:?} {content}", xattrs(&path)));
        if kind.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    let mut groups: Vec<Vec<PathBuf>> = inodes.into_values().collect();
    groups.iter_mut().for_each(|group| group.sort());
    groups.sort();
    found.insert("links".into(), format!("{groups:?}"));
    found
}

/// Into a sum that every byte and its place change; a listing with all bytes could not be read.
fn add(sum: u64, byte: &u8) -> u64 {
    sum.wrapping_mul(31).wrapping_add(u64::from(*byte) + 1)
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..length].split(|b| *b == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 4096];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value[..length].to_vec()
    };
    names.map(|name| (name.to_vec(), value(name))).collect()
}

fn age(path: &Path, seconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: 123_456_789 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[test]
fn privileged_a_copy_has_everything() {
    let scene = scene();
    let source = scene.image.join("srv/data");
    fs::create_dir_all(source.join("sub/empty")).unwrap();
    fs::write(source.join("file"), "content").unwrap();
    fs::set_permissions(source.join("file"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(source.join("file"), source.join("sub/linked")).unwrap();
    fs::write(source.join("empty"), "").unwrap();
    fs::write(source.join(OsStr::from_bytes(b"not \xff UTF-8")), "x").unwrap();
    symlink("/etc/passwd", source.join("sub/absolute")).unwrap();
    symlink("nowhere", source.join("dangling")).unwrap();
    let irregular = [
        ("fifo", FileType::Fifo, 0),
        ("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
        ("disk", FileType::BlockDevice, rustix::fs::makedev(7, 200)),
        ("socket", FileType::Socket, 0),
    ];
    for (name, kind, device) in irregular {
        mknodat(CWD, source.join(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
    }
    let set = |path: &str, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(source.join(path), name, value, XattrFlags::empty()).unwrap();
    };
    set("file", "user.one", b"1");
    set("sub", "trusted.two", b"");
    set("dangling", "trusted.three", b"3");
    set("fifo", "trusted.four", b"4");
    // cap_net_raw=ep, revision 2: a change of owner takes it away.
    set("empty", "security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    for (index, entry) in ["file", "dangling", "fifo", "sub"].into_iter().enumerate() {
        let index = u32::try_from(index).unwrap();
        lchown(source.join(entry), Some(1000 + index), Some(2000 + index)).unwrap();
    }
    fs::set_permissions(source.join("file"), fs::Permissions::from_mode(0o4751)).unwrap();
    set("", "user.root", b"r");
    lchown(&source, Some(70), Some(71)).unwrap();
    fs::set_permissions(&source, fs::Permissions::from_mode(0o1770)).unwrap();
    for entry in ["sub/empty", "sub", "file", "dangling", "fifo", ""] {
        age(&source.join(entry), 1_000_000_000);
    }
    assert_eq!(scene.fill("/srv/data").unwrap(), Filled::Copied);
    assert_same(&describe(&source), &describe(&scene.data));
    assert!(fs::symlink_metadata(scene.data.join("socket")).unwrap().file_type().is_socket());
    // A full one stays as it is.
    fs::write(source.join("later"), "").unwrap();
    assert_eq!(scene.fill("/srv/data").unwrap(), Filled::NotEmpty);
    assert!(!scene.data.join("later").exists());
}

fn assert_same(expected: &BTreeMap<PathBuf, String>, found: &BTreeMap<PathBuf, String>) {
    for (path, line) in expected {
        assert_eq!(found.get(path), Some(line), "{}", path.display());
    }
    assert_eq!(expected.len(), found.len());
}

#[test]
fn privileged_holes_stay_holes() {
    let scene = scene();
    let size = 64 << 20;
    let file = File::create(scene.image.join("sparse")).unwrap();
    file.set_len(size).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", size / 2).unwrap();
    let hole = File::create(scene.image.join("hole")).unwrap();
    hole.set_len(size).unwrap();
    assert_eq!(scene.fill("/").unwrap(), Filled::Copied);
    for (name, blocks_max) in [("sparse", 1024), ("hole", 16)] {
        let meta = fs::metadata(scene.data.join(name)).unwrap();
        assert_eq!(meta.size(), size);
        assert!(meta.blocks() <= blocks_max, "{name}: {}", meta.blocks());
    }
    let copy = File::open(scene.data.join("sparse")).unwrap();
    let mut bytes = [0; 6];
    std::os::unix::fs::FileExt::read_exact_at(&copy, &mut bytes, size / 2).unwrap();
    assert_eq!(&bytes, b"middle");
}

#[test]
fn privileged_an_empty_directory_gives_its_looks() {
    let scene = scene();
    fs::create_dir(scene.image.join("data")).unwrap();
    lchown(scene.image.join("data"), Some(999), Some(998)).unwrap();
    fs::set_permissions(scene.image.join("data"), fs::Permissions::from_mode(0o2700)).unwrap();
    age(&scene.image.join("data"), 1_000_000_000);
    assert_eq!(scene.fill("data").unwrap(), Filled::Copied);
    assert_same(&describe(&scene.image.join("data")), &describe(&scene.data));
}

#[test]
fn hostile_paths_stay_in_the_image() {
    let scene = scene();
    let outside = scene.image.parent().unwrap().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "").unwrap();
    fs::write(scene.image.join("file"), "").unwrap();
    symlink(&outside, scene.image.join("absolute")).unwrap();
    symlink("../../../../../../..", scene.image.join("up")).unwrap();
    symlink("/proc/self/root", scene.image.join("magic")).unwrap();
    symlink("loop", scene.image.join("loop")).unwrap();
    let outside = outside.strip_prefix("/").unwrap().to_str().unwrap();
    for path in ["/absolute", "/magic", "/nothing", "/nothing/below", &format!("/up/{outside}"), "/../outside"] {
        assert_eq!(scene.fill(path).unwrap(), Filled::NothingThere, "{path}");
    }
    for path in ["/file", "/file/below"] {
        let err = scene.fill(path).unwrap_err();
        assert_eq!((chain(&err), err.kind()), (format!("source {path} is not directory"), ErrorKind::Internal));
    }
    assert!(chain(&scene.fill("/loop").unwrap_err()).starts_with("fill volume data: open /loop of the image: "));
    assert_eq!(fs::read_dir(&scene.data).unwrap().count(), 0);
    // Links within the image are followed, as the container's kernel would.
    fs::create_dir_all(scene.image.join("real/deep")).unwrap();
    fs::write(scene.image.join("real/deep/file"), "").unwrap();
    symlink("/real", scene.image.join("link")).unwrap();
    assert_eq!(scene.fill("/link/deep").unwrap(), Filled::Copied);
    assert!(scene.data.join("file").is_file());
    let root = File::open(&scene.image).unwrap();
    let err = scene.volumes.fill("other", root.as_fd(), Path::new("/")).unwrap_err();
    assert_eq!((err.to_string().as_str(), err.kind()), ("get other: no such volume", ErrorKind::NotFound));
}

#[test]
fn what_a_dead_process_left_is_finished_or_dropped() {
    let scene = scene();
    let volume = scene.data.parent().unwrap().to_owned();
    // Killed while it copied: nothing of it shows.
    fs::create_dir_all(volume.join("filling/half")).unwrap();
    let root = volume.parent().unwrap().to_owned();
    let volumes = Volumes::open(&root).unwrap();
    assert_eq!(fs::read_dir(&scene.data).unwrap().count(), 0);
    assert!(!volume.join("filling").exists() && volumes.faults().is_empty());
    // Killed while it moved: one is moved, one is not, and a container that has the volume made a third.
    fs::create_dir_all(volume.join("filled/dir/below")).unwrap();
    fs::write(volume.join("filled/file"), "image").unwrap();
    fs::write(volume.join("filled/twin"), "image").unwrap();
    fs::set_permissions(volume.join("filled"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::write(scene.data.join("moved"), "image").unwrap();
    fs::write(scene.data.join("twin"), "container").unwrap();
    let volumes = Volumes::open(&root).unwrap();
    assert!(!volume.join("filled").exists() && volumes.faults().is_empty());
    assert_eq!(fs::read_to_string(scene.data.join("file")).unwrap(), "image");
    assert_eq!(fs::read_to_string(scene.data.join("moved")).unwrap(), "image");
    assert_eq!(fs::read_to_string(scene.data.join("twin")).unwrap(), "container");
    assert!(scene.data.join("dir/below").is_dir());
    assert_eq!(fs::metadata(&scene.data).unwrap().permissions().mode() & 0o7777, 0o750);
    volumes.sweep().unwrap();
    assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
}

#[test]
fn privileged_a_failed_copy_leaves_an_empty_volume() {
    let scene = scene();
    fs::create_dir(scene.image.join("data")).unwrap();
    fs::write(scene.image.join("data/file"), "x").unwrap();
    let mut deep = rustix::fs::open(scene.image.join("data"), rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
    for _ in 0..320 {
        rustix::fs::mkdirat(&deep, "d", Mode::RWXU).unwrap();
        deep = rustix::fs::openat(&deep, "d", rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
    }
    let err = scene.fill("/data").unwrap_err();
    assert!(chain(&err).starts_with("fill volume data: directories nest too deep at d/d/d/"), "{}", chain(&err));
    assert_eq!(fs::read_dir(&scene.data).unwrap().count(), 0);
    // The failed copy is swept with what is removed.
    assert!(scene.volumes.sweep().unwrap() > 0);
    stdx::tree::sweep(&scene.image, "").unwrap();
}

#[test]
fn of_many_fills_one_copies() {
    let scene = scene();
    for index in 0..50 {
        fs::write(scene.image.join(index.to_string()), "x").unwrap();
    }
    let root = File::open(&scene.image).unwrap();
    let filled = std::thread::scope(|scope| {
        let fill = |_| scope.spawn(|| scene.volumes.fill("data", root.as_fd(), Path::new("/")).unwrap());
        let threads: Vec<_> = (0..6).map(fill).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(filled.iter().filter(|filled| **filled == Filled::Copied).count(), 1, "{filled:?}");
    assert_eq!(fs::read_dir(&scene.data).unwrap().count(), 50);
}

#[test]
fn privileged_what_an_overlay_shows_is_copied() {
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
    let scene = scene();
    let dir = scene.image.parent().unwrap().to_owned();
    for name in ["low/data/sub", "low/data/gone", "upper/data", "work"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    fs::write(dir.join("low/data/sub/file"), vec![7; 300_000]).unwrap();
    fs::hard_link(dir.join("low/data/sub/file"), dir.join("low/data/sub/link")).unwrap();
    fs::write(dir.join("upper/data/new"), "upper").unwrap();
    mknodat(CWD, dir.join("upper/data/gone"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    let at = |name: &str| dir.join(name).display().to_string();
    let options = format!("lowerdir={},upperdir={},workdir={}", at("low"), at("upper"), at("work"));
    let options = std::ffi::CString::new(options).unwrap();
    mount("overlay", &scene.image, "overlay", MountFlags::empty(), options.as_c_str()).unwrap();
    let filled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        assert_eq!(scene.fill("/data").unwrap(), Filled::Copied);
        (describe(&scene.image.join("data")), describe(&scene.data))
    }));
    unmount(&scene.image, UnmountFlags::DETACH).unwrap();
    let (expected, found) = filled.unwrap();
    assert_same(&expected, &found);
    assert_eq!(found.len(), 6, "{:?}", found.keys());
}

#[test]
fn privileged_a_full_disk_is_said_and_survived() {
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
    let dir = tempfile::tempdir().unwrap();
    let (disk, image) = (dir.path().join("disk"), dir.path().join("image"));
    fs::create_dir_all(image.join("data")).unwrap();
    fs::create_dir(&disk).unwrap();
    fs::write(image.join("data/large"), vec![1; 3 << 20]).unwrap();
    mount("tmpfs", &disk, "tmpfs", MountFlags::empty(), c"size=2m").unwrap();
    let tested = std::panic::catch_unwind(|| {
        let volumes = Volumes::open(&disk.join("volumes")).unwrap();
        let data = volumes.create(&wanted("data"), None).unwrap().volume.mountpoint.clone();
        let root = File::open(&image).unwrap();
        let fill = || volumes.fill("data", root.as_fd(), Path::new("/data"));
        let text = chain(&fill().unwrap_err());
        assert_eq!(text, "fill volume data: copy large: no space left on device");
        assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
        volumes.sweep().unwrap();
        fs::write(disk.join("hog"), "").unwrap();
        let filled = std::iter::repeat_with(|| fs::OpenOptions::new().append(true).open(disk.join("hog")).unwrap())
            .map(|mut hog| std::io::Write::write_all(&mut hog, &[0; 4096]))
            .find_map(Result::err);
        assert_eq!(filled.unwrap().kind(), std::io::ErrorKind::StorageFull);
        let err = volumes.create(&wanted("more"), None).unwrap_err();
        assert!(chain(&err).ends_with("no space left on device"), "{}", chain(&err));
        assert!(volumes.get("more").is_err());
        fs::remove_file(disk.join("hog")).unwrap();
        fs::write(image.join("data/large"), "small now").unwrap();
        assert_eq!(fill().unwrap(), Filled::Copied);
        assert!(volumes.create(&wanted("more"), None).unwrap().new);
        volumes.sweep().unwrap();
        assert_eq!(fs::read_dir(disk.join("volumes")).unwrap().count(), 2);
    });
    unmount(&disk, UnmountFlags::DETACH).unwrap();
    tested.unwrap();
}

/// Entries of a random tree: where, and what.
#[derive(Clone, Debug)]
enum Node {
    File { bytes: Vec<u8>, hole: u16 },
    Directory,
    Link(String),
    Fifo,
    Hard,
}

fn node() -> impl Strategy<Value = Node> {
    prop_oneof![
        (proptest::collection::vec(any::<u8>(), 0..200), any::<u16>())
            .prop_map(|(bytes, hole)| Node::File { bytes, hole }),
        Just(Node::Directory),
        "[a-z./]{1,20}".prop_map(Node::Link),
        Just(Node::Fifo),
        Just(Node::Hard),
    ]
}

fn plant(root: &Path, nodes: &[(String, u16, u32, Node)]) {
    let (mut dirs, mut files) = (vec![root.to_owned()], Vec::new());
    for (name, place, id, node) in nodes {
        let path = dirs[usize::from(*place) % dirs.len()].join(name);
        if fs::symlink_metadata(&path).is_ok() {
            continue;
        }
        match node {
            Node::File { bytes, hole } => {
                fs::write(&path, bytes).unwrap();
                File::options()
                    .write(true)
                    .open(&path)
                    .unwrap()
                    .set_len(bytes.len() as u64 + u64::from(*hole))
                    .unwrap();
                files.push(path.clone());
            }
            Node::Directory => {
                fs::create_dir(&path).unwrap();
                dirs.push(path.clone());
            }
            Node::Link(target) => symlink(target, &path).unwrap(),
            Node::Fifo => mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap(),
            Node::Hard => match files.get(usize::from(*place) % files.len().max(1)) {
                Some(first) => fs::hard_link(first, &path).unwrap(),
                None => continue,
            },
        }
        lchown(&path, Some(*id), Some(id / 2)).unwrap();
        if !matches!(node, Node::Link(_)) {
            fs::set_permissions(&path, fs::Permissions::from_mode(id & 0o7777)).unwrap();
        }
        age(&path, i64::from(*id));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn privileged_any_tree_is_copied(
        nodes in proptest::collection::vec(("[a-zA-Z0-9._ -]{1,12}", any::<u16>(), 0..100_000_u32, node()), 0..40)
    ) {
        let nodes: Vec<_> = nodes.into_iter().filter(|(name, ..)| name != "." && name != "..").collect();
        let scene = scene();
        plant(&scene.image, &nodes);
        prop_assert_eq!(scene.fill("/").unwrap(), Filled::Copied);
        assert_same(&describe(&scene.image), &describe(&scene.data));
    }
}
