//! What every storage driver does: the same tests for all.
//!
//! Each runs on a directory of its own; btrfs on a file system in a file, and vfs there, too, where files are shared until
//! somebody writes to them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Child;

use oci::runtime::Mount;
use rustix::fs::{CWD, FileType, Mode, OFlags, XattrFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag};
use testkit::disk::SmallDisk;

use crate::fuse::Fuse;
use crate::store::open_with;
use crate::{ChainId, ChangeKind, Driver, SnapshotError, SnapshotKey, Snapshots, Stubs, view_part};

const NO_STUBS: Stubs<'static> = Stubs { files: &[], links: &[], directories: &[] };

struct Scene {
    store: Snapshots,
    root: PathBuf,
    /// The program.
    fuse: Option<PathBuf>,
}

/// Runs a test over every driver that this machine has; what it lacks is told.
fn each(test: impl Fn(&Scene)) {
    if testkit::skip::without_root() {
        return;
    }
    let here = tempfile::tempdir().unwrap();
    let disk = SmallDisk::btrfs().unwrap();
    let on_disk = disk.as_ref().map(SmallDisk::path);
    let here = Some(here.path().to_owned());
    let fuse = testkit::skip::unless_fuse_overlayfs();
    let by_program = fuse.as_ref().and(here.as_ref()).cloned();
    for (driver, place) in [
        (Driver::Overlay2, &here),
        (Driver::FuseOverlayfs, &by_program),
        (Driver::Vfs, &here),
        (Driver::Vfs, &on_disk),
        (Driver::Btrfs, &on_disk),
    ] {
        let Some(place) = place else { continue };
        println!("{driver} in {}", place.display());
        let root = place.join(driver.name());
        test(&Scene { store: open(&root, driver, fuse.as_ref()), root, fuse: fuse.clone() });
    }
}

/// Opens a store; fuse-overlayfs mostly is no program of `PATH`.
fn open(root: &Path, driver: Driver, fuse: Option<&PathBuf>) -> Snapshots {
    match (driver, fuse) {
        (Driver::FuseOverlayfs, Some(program)) => {
            open_with(root, driver, Box::new(Fuse { program: program.clone() })).unwrap()
        }
        _ => Snapshots::open(root, driver).unwrap(),
    }
}

fn key(text: &str) -> SnapshotKey {
    text.parse().unwrap()
}

fn chain(count: usize) -> Vec<ChainId> {
    let digest = |n: usize| format!("sha256:{n:064}").parse().unwrap();
    ChainId::chain(&(0..count).map(digest).collect::<Vec<_>>())
}

/// A mounted root, attached nowhere, and the program that serves it.
struct Root(OwnedFd, Option<Child>);

impl Drop for Root {
    fn drop(&mut self) {
        // It ends when the mount is gone.
        let place = rustix::fs::open("/", OFlags::PATH, Mode::empty()).unwrap();
        drop(std::mem::replace(&mut self.0, place));
        if let Some(server) = &mut self.1 {
            let ended = server.wait().unwrap();
            assert!(ended.success() || std::thread::panicking(), "{ended}");
        }
    }
}

impl Root {
    /// As the runtime mounts it.
    fn of(mounts: &[Mount]) -> Root {
        let [mount] = mounts else { panic!("{mounts:?}") };
        if mount.kind == "bind" {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            return Root(rustix::mount::open_tree(CWD, &mount.source, flags).unwrap(), None);
        }
        if mount.kind == sys::fuse::KIND {
            let option = |option: &String| match option.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (option.clone(), None),
            };
            let options: Vec<_> = mount.options.iter().map(option).collect();
            let served = sys::fuse::mount(&mount.source, &options).unwrap();
            return Root(served.mount, Some(served.server));
        }
        let context = rustix::mount::fsopen(&mount.kind[..], FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        for option in &mount.options {
            match option.split_once('=') {
                Some((key, value)) => rustix::mount::fsconfig_set_string(&context, key, value).expect(option),
                None => fsconfig_set_flag(&context, &option[..]).expect(option),
            }
        }
        fsconfig_create(&context).unwrap();
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        Root(rustix::mount::fsmount(&context, flags, MountAttrFlags::empty()).unwrap(), None)
    }

    fn at(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd())).join(path)
    }
}

impl Scene {
    fn layer(&self, chain_id: &ChainId, fill: impl FnOnce(&Path)) {
        let stage = self.store.stage().unwrap();
        fill(stage.path());
        self.store.commit(stage, chain_id).unwrap();
    }

    /// Three layers: files of all kinds, then what replaces and hides them, then one more.
    fn image(&self) -> Vec<ChainId> {
        let chain = chain(3);
        self.layer(&chain[0], |root| {
            for dir in ["etc", "etc/d", "gone", "emptied", "mixed", "deep/er"] {
                fs::create_dir_all(root.join(dir)).unwrap();
            }
            for file in ["etc/one", "etc/d/two", "gone/x", "emptied/old", "mixed/low", "deep/er/x", "was-file", "bye"] {
                fs::write(root.join(file), file).unwrap();
            }
            fs::hard_link(root.join("etc/one"), root.join("etc/same")).unwrap();
            symlink("etc/one", root.join("link")).unwrap();
            rustix::fs::mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
            fs::set_permissions(root.join("etc/d"), PermissionsExt::from_mode(0o2751)).unwrap();
            std::os::unix::fs::chown(root.join("etc/one"), Some(7), Some(8)).unwrap();
            fs::set_permissions(root.join("etc/one"), PermissionsExt::from_mode(0o4755)).unwrap();
            rustix::fs::setxattr(root.join("etc/one"), "trusted.kept", b"v", XattrFlags::empty()).unwrap();
            let sparse = fs::File::create(root.join("sparse")).unwrap();
            rustix::fs::ftruncate(&sparse, 1 << 30).unwrap();
        });
        self.layer(&chain[1], |root| {
            for dir in ["emptied", "mixed", "was-file"] {
                fs::create_dir(root.join(dir)).unwrap();
            }
            rustix::fs::setxattr(root.join("emptied"), "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
            for file in ["emptied/new", "mixed/high", "was-file/in"] {
                fs::write(root.join(file), file).unwrap();
            }
            for gone in ["gone", "bye"] {
                rustix::fs::mknodat(CWD, root.join(gone), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
            }
        });
        self.layer(&chain[2], |root| {
            fs::create_dir(root.join("mixed")).unwrap();
            fs::write(root.join("mixed/low"), "changed").unwrap();
            fs::set_permissions(root, PermissionsExt::from_mode(0o751)).unwrap();
        });
        chain
    }

    fn changes(&self, key: &SnapshotKey) -> Vec<String> {
        let letter = |kind: &ChangeKind| match kind {
            ChangeKind::Modified => "C",
            ChangeKind::Added => "A",
            ChangeKind::Deleted => "D",
        };
        let changes = self.store.changes(key, NO_STUBS).unwrap();
        let told = changes.paths.iter().map(|(path, kind)| (letter(kind), String::from_utf8_lossy(path)));
        told.map(|(kind, path)| format!("{kind} {path}")).collect()
    }

    fn entries(&self, name: &str) -> usize {
        fs::read_dir(self.root.join(name)).map_or(0, Iterator::count)
    }
}

/// Everything in a tree that somebody can see, by path.
fn seen(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    look(root, root, &mut found);
    found
}

fn look(root: &Path, at: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let what = match () {
            () if kind.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
            () if kind.is_file() && meta.len() < 4096 => fs::read_to_string(&path).unwrap(),
            () if kind.is_fifo() => "fifo".to_owned(),
            () => meta.len().to_string().repeat(usize::from(kind.is_file())),
        };
        let mut value = [0; 8];
        let kept = rustix::fs::lgetxattr(&path, "trusted.kept", &mut value).unwrap_or(0);
        let said = format!("{:o} {}:{} {} {kept} {what}", meta.mode(), meta.uid(), meta.gid(), meta.mtime());
        let name = path.strip_prefix(root).unwrap().display().to_string();
        found.insert(name, said);
        if kind.is_dir() {
            look(root, &path, found);
        }
    }
}

#[test]
fn privileged_a_root_shows_what_the_layers_say() {
    each(|scene| {
        let chain = scene.image();
        let prepared = scene.store.prepare(&key("a"), &chain).unwrap();
        assert_eq!(prepared, scene.store.mounts(&key("a")).unwrap());
        let (own, view) = (Root::of(&prepared), Root::of(&scene.store.view(&chain).unwrap()));
        assert_eq!(seen(&own.at("")), seen(&view.at("")));
        assert_eq!(fs::metadata(own.at("")).unwrap().mode() & 0o7777, 0o751);
        let names: Vec<String> = seen(&own.at("")).into_keys().collect();
        let expected = "deep deep/er deep/er/x emptied emptied/new etc etc/d etc/d/two etc/one etc/same link mixed mixed/high \
                        mixed/low pipe sparse was-file was-file/in";
        assert_eq!(names.join(" "), expected);
        let text = |path| fs::read_to_string(own.at(path)).unwrap();
        assert_eq!([text("link"), text("mixed/low"), text("was-file/in")], ["etc/one", "changed", "was-file/in"]);
        let one = fs::metadata(own.at("etc/one")).unwrap();
        assert_eq!((one.mode() & 0o7777, one.uid(), one.gid()), (0o4755, 7, 8));
        assert_eq!(one.ino(), fs::metadata(own.at("etc/same")).unwrap().ino());
        assert_eq!(rustix::fs::getxattr(own.at("etc/one"), "trusted.kept", &mut [0; 8]).unwrap(), 1);
        assert_eq!(fs::metadata(own.at("etc/d")).unwrap().mode() & 0o7777, 0o2751);
        assert!(fs::metadata(own.at("sparse")).unwrap().blocks() < 64);
        // Overlayfs' own marks are nobody's business.
        let marked = rustix::fs::lgetxattr(own.at("emptied"), "trusted.overlay.opaque", &mut [0; 8]);
        assert!(marked.is_err(), "{marked:?}");
    });
}

#[test]
fn privileged_containers_write_for_themselves_alone() {
    each(|scene| {
        let chain = scene.image();
        let (a, b) = (scene.store.prepare(&key("a"), &chain).unwrap(), scene.store.prepare(&key("b"), &chain).unwrap());
        let (a, b) = (Root::of(&a), Root::of(&b));
        let before = seen(&b.at(""));
        fs::write(a.at("etc/one"), "mine").unwrap();
        fs::remove_dir_all(a.at("mixed")).unwrap();
        fs::set_permissions(a.at("etc/d"), PermissionsExt::from_mode(0o700)).unwrap();
        assert_eq!(seen(&b.at("")), before);
        assert_eq!(seen(&Root::of(&scene.store.view(&chain).unwrap()).at("")), before);
        // Both names of one file.
        assert_eq!(scene.store.driver() == Driver::Overlay2, fs::read(a.at("etc/same")).unwrap() != b"mine");
        let other = Root::of(&scene.store.prepare(&key("c"), &chain).unwrap());
        assert_eq!(seen(&other.at("")), before);
    });
}

#[test]
fn privileged_changes_are_told_alike_and_make_a_layer_that_shows_them() {
    each(|scene| {
        let chain = [scene.image(), chain(4)[3..].to_vec()].concat();
        let root = Root::of(&scene.store.prepare(&key("a"), &chain[..3]).unwrap());
        assert_eq!(scene.changes(&key("a")), Vec::<String>::new());
        assert_eq!(scene.store.usage(&key("a"), NO_STUBS).unwrap().bytes, 0);
        fs::write(root.at("mixed/high"), "twelve bytes").unwrap();
        fs::create_dir_all(root.at("new/dir")).unwrap();
        fs::write(root.at("new/dir/x"), "new").unwrap();
        fs::hard_link(root.at("new/dir/x"), root.at("new/y")).unwrap();
        symlink("y", root.at("new/to-y")).unwrap();
        fs::remove_file(root.at("deep/er/x")).unwrap();
        fs::remove_dir_all(root.at("emptied")).unwrap();
        fs::remove_file(root.at("link")).unwrap();
        symlink("etc/d", root.at("link")).unwrap();
        fs::set_permissions(root.at("etc/d/two"), PermissionsExt::from_mode(0o600)).unwrap();
        fs::remove_dir_all(root.at("was-file")).unwrap();
        fs::write(root.at("was-file"), "again").unwrap();
        // A file for a program alone, whose times stay. fuse-overlayfs copies files of several names by any of them.
        let by_program = scene.store.driver() == Driver::FuseOverlayfs;
        let capable = if by_program { "mixed/low" } else { "etc/one" };
        rustix::fs::setxattr(root.at(capable), "security.capability", &CAPABILITY, XattrFlags::empty()).unwrap();
        let mut expected = vec![
            "C deep/er",
            "D deep/er/x",
            "D emptied",
            "C etc/d/two",
            "C etc/one",
            "C link",
            "C mixed/high",
            "A new",
            "A new/dir",
            "A new/dir/x",
            "A new/to-y",
            "A new/y",
            "C was-file",
        ];
        if by_program {
            // What it copies for what is in it has the time of the copy: as dockerd, who tells of all directories above.
            expected.retain(|told| !matches!(*told, "C etc/one"));
            expected.extend(["C deep", "C etc", "C etc/d", "C mixed", "C mixed/low"]);
            expected.sort_by_key(|told| told[2..].to_owned());
        } else if scene.store.driver() != Driver::Overlay2 {
            // There it is still one file of two names.
            expected.insert(5, "C etc/same");
        }
        assert_eq!(scene.changes(&key("a")), expected);
        let changes = scene.store.changes(&key("a"), NO_STUBS).unwrap();
        let own = scene.store.own_files(&key("a"), &changes).unwrap();
        // As `commit` packs it: of the files that changed, what overlayfs would have.
        scene.layer(&chain[3], |stage| copy(own.path(), stage));
        drop(own);
        let view = Root::of(&scene.store.view(&chain).unwrap());
        assert_eq!(seen(&view.at("")), seen(&root.at("")));
        let usage = scene.store.usage(&key("a"), NO_STUBS).unwrap().bytes;
        let capable = if by_program { "changed" } else { "etc/one" };
        let least = ["twelve bytes", "new", "y", "etc/d", "etc/d/two", "again", capable].concat().len() as u64;
        assert_eq!(usage, least);
    });
}

#[test]
fn privileged_a_directory_made_anew_has_nothing_of_the_old_one() {
    each(|scene| {
        let chain = [scene.image(), chain(4)[3..].to_vec()].concat();
        let root = Root::of(&scene.store.prepare(&key("a"), &chain[..3]).unwrap());
        fs::remove_dir_all(root.at("mixed")).unwrap();
        fs::create_dir(root.at("mixed")).unwrap();
        fs::write(root.at("mixed/own"), "own").unwrap();
        // What came and went leaves no word.
        fs::create_dir(root.at("passing")).unwrap();
        fs::remove_dir(root.at("passing")).unwrap();
        let mut told = scene.changes(&key("a"));
        told.retain(|change| !change.starts_with("D mixed/"));
        assert_eq!(told, ["C mixed", "A mixed/own"]);
        let changes = scene.store.changes(&key("a"), NO_STUBS).unwrap();
        let own = scene.store.own_files(&key("a"), &changes).unwrap();
        scene.layer(&chain[3], |stage| copy(own.path(), stage));
        drop(own);
        let names = |root: &Root| seen(&root.at("")).into_keys().collect::<Vec<_>>();
        let view = Root::of(&scene.store.view(&chain).unwrap());
        assert_eq!((names(&view), seen(&view.at(""))), (names(&root), seen(&root.at(""))));
        assert_eq!(fs::read_dir(view.at("mixed")).unwrap().count(), 1);
    });
}

/// `cap_net_raw+ep`, as a file has it (linux/capability.h, `struct vfs_cap_data` of revision 2).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn copy(from: &Path, to: &Path) {
    let mut from = from.as_os_str().to_owned();
    from.push("/.");
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

#[test]
fn privileged_what_stands_in_a_root_before_the_start_is_no_change() {
    each(|scene| {
        let chain = scene.image();
        let root = Root::of(&scene.store.prepare(&key("a"), &chain).unwrap());
        fs::write(root.at(".mark"), "").unwrap();
        fs::create_dir(root.at("dev")).unwrap();
        fs::write(root.at("dev/console"), "").unwrap();
        let stubs = Stubs { files: &[".mark", "dev/console"], links: &[], directories: &["dev"] };
        assert!(scene.store.changes(&key("a"), stubs).unwrap().paths.is_empty());
        fs::write(root.at("dev/file"), "").unwrap();
        let told = scene.store.changes(&key("a"), stubs).unwrap().paths;
        let told: Vec<_> = told.into_keys().map(|path| String::from_utf8(path).unwrap()).collect();
        assert_eq!(told, ["dev", "dev/file"]);
    });
}

#[test]
fn privileged_an_image_without_layers_is_an_empty_root() {
    each(|scene| {
        let root = Root::of(&scene.store.prepare(&key("a"), &[]).unwrap());
        assert_eq!(fs::read_dir(root.at("")).unwrap().count(), 0);
        assert_eq!(fs::metadata(root.at("")).unwrap().mode() & 0o7777, 0o755);
        fs::write(root.at("x"), "").unwrap();
        assert_eq!(scene.changes(&key("a")), ["A x"]);
        let view = Root::of(&scene.store.view(&[]).unwrap());
        assert_eq!(fs::read_dir(view.at("")).unwrap().count(), 0);
    });
}

#[test]
fn privileged_parts_of_an_image_are_found_through_its_links() {
    each(|scene| {
        let chain = scene.image();
        let part = |path: &str| view_part(&scene.store, &chain, Path::new(path));
        let mixed = Root::of(&part("mixed").unwrap());
        assert_eq!(seen(&mixed.at("")).into_keys().collect::<Vec<_>>(), ["high", "low"]);
        assert_eq!(fs::read(&part("link").unwrap()[0].source).unwrap(), b"etc/one");
        assert!(matches!(part("gone/x"), Err(SnapshotError::NoSuchPart { .. })));
    });
}

#[test]
fn privileged_what_is_removed_goes_with_all_that_was_made_for_it() {
    each(|scene| {
        let chain = scene.image();
        let store = &scene.store;
        assert!(matches!(store.mounts(&key("a")), Err(SnapshotError::NotFound { .. })));
        store.prepare(&key("a"), &chain).unwrap();
        assert!(matches!(store.prepare(&key("a"), &chain), Err(SnapshotError::Exists { .. })));
        assert_eq!((store.containers().unwrap(), scene.entries("new")), (vec![key("a")], 0));
        // Its layers stay as long as it is there, and what was put together of them.
        assert_eq!(store.retain_layers([]).unwrap(), 0);
        let root = Root::of(&store.mounts(&key("a")).unwrap());
        fs::write(root.at("x"), "").unwrap();
        drop(root);
        store.remove(&key("a")).unwrap();
        store.remove(&key("a")).unwrap();
        assert_eq!(store.retain_layers([]).unwrap(), 3);
        store.sweep().unwrap();
        let left = ["l", "c", "new", "trash", "m"].map(|name| scene.entries(name));
        assert_eq!(left, [0; 5]);
        let missing = store.prepare(&key("a"), &chain);
        assert!(matches!(missing, Err(SnapshotError::MissingLayer { .. })), "{missing:?}");
        assert_eq!(scene.entries("new"), 0);
    });
}

#[test]
fn privileged_what_a_death_leaves_is_set_aside_by_the_next_start() {
    each(|scene| {
        let chain = scene.image();
        let stage = scene.store.stage().unwrap();
        fs::write(stage.path().join("half"), "").unwrap();
        std::mem::forget(stage);
        scene.store.prepare(&key("half"), &chain).unwrap();
        // As if it had come to the last step, but one.
        fs::rename(scene.root.join("c/half"), scene.root.join("new/half")).unwrap();
        let again = open(&scene.root, scene.store.driver(), scene.fuse.as_ref());
        assert!(again.containers().unwrap().is_empty());
        again.sweep().unwrap();
        assert_eq!(["new", "trash"].map(|name| scene.entries(name)), [0; 2]);
        Root::of(&again.prepare(&key("a"), &chain).unwrap());
    });
}

#[test]
fn privileged_long_chains_are_one_root() {
    each(|scene| {
        let chain = chain(60);
        for (n, chain_id) in chain.iter().enumerate() {
            scene.layer(chain_id, |root| fs::write(root.join(format!("f{n}")), "x").unwrap());
            if n % 20 == 0 {
                // Steps of a build, each above the one before.
                scene.store.view(&chain[..=n]).unwrap();
            }
        }
        let root = Root::of(&scene.store.prepare(&key("a"), &chain).unwrap());
        assert_eq!(fs::read_dir(root.at("")).unwrap().count(), 60);
    });
}

#[test]
fn privileged_a_refused_limit_leaves_nothing() {
    each(|scene| {
        let chain = scene.image();
        let refuse = |_: &[&Path]| Err(io::ErrorKind::QuotaExceeded.into());
        let refused = scene.store.prepare_limited(&key("a"), &chain, &[], Some(&refuse)).unwrap_err();
        assert!(matches!(refused, SnapshotError::Io { what: "limit", .. }), "{refused:?}");
        assert_eq!((scene.store.containers().unwrap(), scene.entries("new")), (vec![], 0));
    });
}

#[test]
fn privileged_subvolumes_that_a_container_made_go_with_it() {
    each(|scene| {
        let mounts = scene.store.prepare(&key("a"), &[]).unwrap();
        let root = Root::of(&mounts);
        if scene.store.driver() == Driver::Btrfs {
            sys::btrfs::create(fs::File::open(root.at("")).unwrap(), c"inner").unwrap();
            fs::write(root.at("inner/file"), "").unwrap();
        }
        drop(root);
        scene.store.remove(&key("a")).unwrap();
        scene.store.sweep().unwrap();
        assert_eq!(scene.entries("trash"), 0);
    });
}
