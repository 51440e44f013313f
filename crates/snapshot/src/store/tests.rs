use std::os::unix::fs::{MetadataExt, symlink};

use super::*;
use crate::SweepError;

fn store() -> (tempfile::TempDir, Snapshots) {
    let dir = tempfile::tempdir().unwrap();
    let overlay = Snapshots::open(&dir.path().join("s"), Driver::Overlay2).unwrap();
    (dir, overlay)
}

fn chain(count: usize) -> Vec<ChainId> {
    let digest = |n: usize| format!("sha256:{n:064}").parse().unwrap();
    ChainId::chain(&(0..count).map(digest).collect::<Vec<_>>())
}

fn commit_all(overlay: &Snapshots, chain: &[ChainId]) {
    for (n, chain_id) in chain.iter().enumerate() {
        let stage = overlay.stage().unwrap();
        fs::write(stage.path().join(format!("file{n}")), "text").unwrap();
        overlay.commit(stage, chain_id).unwrap();
    }
}

fn trash(overlay: &Snapshots) -> usize {
    fs::read_dir(overlay.place.root.join("trash")).unwrap().count()
}

fn key(text: &str) -> SnapshotKey {
    text.parse().unwrap()
}

#[test]
fn mounts_name_the_lower_directories_uppermost_first() {
    let (_dir, overlay) = store();
    let chain = chain(2);
    commit_all(&overlay, &chain);
    let mounts = overlay.prepare(&key("c1"), &chain).unwrap();
    assert_eq!(mounts, overlay.mounts(&key("c1")).unwrap());
    let root = overlay.place.root.display();
    assert_eq!(
        mounts[0].options,
        [
            format!("lowerdir+={root}/l/{}", &chain[1].0.hex()[..32]),
            format!("lowerdir+={root}/l/{}", &chain[0].0.hex()[..32]),
            format!("upperdir={root}/c/c1/fs"),
            format!("workdir={root}/c/c1/work"),
            "index=off".into(),
            "metacopy=off".into(),
            "redirect_dir=off".into(),
            "xino=off".into(),
        ]
    );
    assert_eq!(overlay.view(&chain[..1]).unwrap()[0].source, overlay.layer(&chain[0]));
    assert_eq!(overlay.view(&[]).unwrap()[0].source, overlay.place.root.join("empty"));
    assert_eq!(overlay.view(&chain).unwrap()[0].options[2], "ro");
}

#[test]
fn a_snapshot_is_made_once_and_of_what_exists() {
    let (_dir, overlay) = store();
    let chain = chain(2);
    commit_all(&overlay, &chain[..1]);
    assert!(matches!(overlay.prepare(&key("a"), &chain), Err(SnapshotError::MissingLayer { .. })));
    assert!(matches!(overlay.mounts(&key("a")), Err(SnapshotError::NotFound { .. })));
    overlay.prepare(&key("a"), &chain[..1]).unwrap();
    assert!(matches!(overlay.prepare(&key("a"), &chain[..1]), Err(SnapshotError::Exists { .. })));
    assert_eq!(fs::read_dir(overlay.place.root.join("new")).unwrap().count(), 0);
    assert_eq!(overlay.containers().unwrap(), [key("a")]);
}

#[test]
fn the_root_of_a_container_is_like_its_image_s() {
    let (_dir, overlay) = store();
    let chain = chain(1);
    let stage = overlay.stage().unwrap();
    fs::set_permissions(stage.path(), PermissionsExt::from_mode(0o1711)).unwrap();
    overlay.commit(stage, &chain[0]).unwrap();
    overlay.prepare(&key("a"), &chain).unwrap();
    assert_eq!(fs::metadata(overlay.upper(&key("a"))).unwrap().mode() & 0o7777, 0o1711);
}

#[test]
fn a_removed_snapshot_is_gone_at_once_and_its_files_after_the_sweep() {
    let (_dir, overlay) = store();
    overlay.prepare(&key("a"), &[]).unwrap();
    fs::create_dir_all(overlay.upper(&key("a")).join("d/e")).unwrap();
    overlay.remove(&key("a")).unwrap();
    overlay.remove(&key("a")).unwrap();
    assert!(overlay.containers().unwrap().is_empty());
    assert_eq!(trash(&overlay), 1);
    assert_eq!(overlay.sweep().unwrap(), 1);
    assert_eq!(trash(&overlay), 0);
}

#[test]
fn what_nests_deeper_than_descriptors_allow_is_removed_too() {
    let (_dir, overlay) = store();
    overlay.prepare(&key("a"), &[]).unwrap();
    let mut at = fs::File::open(overlay.upper(&key("a"))).unwrap();
    for _ in 0..2000 {
        rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, "d", rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap().into();
    }
    assert!(matches!(overlay.usage(&key("a"), Stubs::default()), Err(SnapshotError::TooDeep { .. })));
    overlay.remove(&key("a")).unwrap();
    assert!(overlay.sweep().unwrap() > 1);
    assert_eq!(trash(&overlay), 0);
}

#[test]
fn what_a_dead_process_left_half_made_is_set_aside_at_open() -> Result<(), SweepError> {
    let (_dir, overlay) = store();
    let stage = overlay.stage().unwrap();
    fs::write(stage.path().join("half"), "").unwrap();
    std::mem::forget(stage);
    let again = Snapshots::open(&overlay.place.root, Driver::Overlay2).unwrap();
    assert_eq!(fs::read_dir(overlay.place.root.join("new")).unwrap().count(), 0);
    assert_eq!(again.sweep()?, 1);
    Ok(())
}

#[test]
fn a_layer_stays_while_an_image_or_a_container_needs_it() {
    let (_dir, overlay) = store();
    let chain = chain(3);
    commit_all(&overlay, &chain);
    overlay.prepare(&key("a"), &chain[..2]).unwrap();
    assert_eq!(overlay.retain_layers(chain[..1].iter().cloned()).unwrap(), 1);
    assert!(overlay.layer(&chain[1]).exists() && !overlay.layer(&chain[2]).exists());
    overlay.remove(&key("a")).unwrap();
    assert_eq!(overlay.retain_layers([]).unwrap(), 2);
}

#[test]
fn a_torn_record_of_layers_is_told_from_no_layers() {
    let (_dir, overlay) = store();
    overlay.prepare(&key("a"), &[]).unwrap();
    assert!(overlay.mounts(&key("a")).is_ok());
    fs::write(overlay.place.root.join("c/a/lower"), "").unwrap();
    assert!(matches!(overlay.mounts(&key("a")), Err(SnapshotError::Torn { .. })));
}

#[test]
fn usage_counts_hard_links_once() {
    let (_dir, overlay) = store();
    overlay.prepare(&key("a"), &[]).unwrap();
    let upper = overlay.upper(&key("a"));
    fs::create_dir(upper.join("d")).unwrap();
    fs::write(upper.join("d/x"), "12345").unwrap();
    fs::hard_link(upper.join("d/x"), upper.join("y")).unwrap();
    assert_eq!(overlay.usage(&key("a"), Stubs::default()).unwrap(), Usage { bytes: 5, inodes: 2 });
}

#[test]
fn links_that_a_start_makes_are_not_counted_and_nothing_else_is_read_for_them() {
    let stubs = Stubs { links: &[("etc/mtab", "/proc/mounts")], ..Stubs::default() };
    let (_dir, overlay) = store();
    overlay.prepare(&key("a"), &[]).unwrap();
    let (own, outside) = (overlay.upper(&key("a")), tempfile::tempdir().unwrap());
    let bytes = |stubs| overlay.usage(&key("a"), stubs).unwrap().bytes;
    symlink("/proc/mounts", outside.path().join("mtab")).unwrap();
    symlink(outside.path(), own.join("etc")).unwrap();
    assert_eq!(bytes(stubs), bytes(Stubs::default()), "a container's link leads out");
    fs::remove_file(own.join("etc")).unwrap();
    fs::create_dir(own.join("etc")).unwrap();
    symlink("/proc/mounts", own.join("etc/mtab")).unwrap();
    assert_eq!((bytes(stubs), bytes(Stubs::default())), (0, 12));
}

#[test]
fn committing_a_chain_twice_keeps_the_first() {
    let (_dir, overlay) = store();
    let chain = chain(1);
    commit_all(&overlay, &chain);
    overlay.commit(overlay.stage().unwrap(), &chain[0]).unwrap();
    assert!(overlay.layer(&chain[0]).join("file0").exists());
}

/// Mounts as the runtime does, option by option, attached nowhere: it goes with the descriptor.
fn mount(mount: &Mount) -> std::os::fd::OwnedFd {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag};
    let context = rustix::mount::fsopen(&mount.kind[..], FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for option in &mount.options {
        match option.split_once('=') {
            Some((key, value)) => rustix::mount::fsconfig_set_string(&context, key, value).expect(option),
            None => fsconfig_set_flag(&context, &option[..]).expect(option),
        }
    }
    fsconfig_create(&context).unwrap();
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap()
}

#[test]
fn privileged_the_kernel_takes_the_mounts_as_they_are() {
    use rustix::fs::{Mode, OFlags, openat};
    let (_dir, overlay) = store();
    let chain = chain(3);
    commit_all(&overlay, &chain);
    let root = mount(&overlay.prepare(&key("a"), &chain).unwrap()[0]);
    for n in 0..3 {
        openat(&root, format!("file{n}"), OFlags::RDONLY, Mode::empty()).unwrap();
    }
    openat(&root, "new", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
    rustix::fs::unlinkat(&root, "file0", rustix::fs::AtFlags::empty()).unwrap();
    assert_eq!(fs::read_dir(overlay.upper(&key("a"))).unwrap().count(), 2);
    drop(root);
    // Without layers, and read-only.
    let root = mount(&overlay.prepare(&key("b"), &[]).unwrap()[0]);
    openat(&root, "new", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
    let root = mount(&overlay.view(&chain).unwrap()[0]);
    let refused = openat(&root, "new", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR);
    assert_eq!(refused.unwrap_err(), rustix::io::Errno::ROFS);
}

#[test]
fn what_a_container_keeps_stays_with_it() {
    let (_dir, overlay) = store();
    let (own, other) = (chain(1), chain(2)[1..].to_vec());
    commit_all(&overlay, &own);
    assert!(matches!(overlay.prepare_limited(&key("a"), &own, &other, None), Err(SnapshotError::MissingLayer { .. })));
    commit_all(&overlay, &other);
    overlay.prepare_limited(&key("a"), &own, &other, None).unwrap();
    assert_eq!(overlay.chain(&key("a")).unwrap(), own);
    assert_eq!(overlay.retain_layers([]).unwrap(), 0);
    overlay.remove(&key("a")).unwrap();
    assert_eq!(overlay.retain_layers([]).unwrap(), 2);
}

#[test]
fn only_the_containers_own_empty_directories_are_limited_and_a_refusal_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let overlay = Snapshots::open(dir.path(), Driver::Overlay2).unwrap();
    let limited = std::cell::RefCell::new(Vec::new());
    let limit = |directories: &[&Path]| {
        for directory in directories {
            assert_eq!(std::fs::read_dir(directory)?.count(), 0);
            limited.borrow_mut().push(directory.file_name().unwrap().to_owned());
        }
        Ok(())
    };
    overlay.prepare_limited(&key("a"), &[], &[], Some(&limit)).unwrap();
    assert_eq!(*limited.borrow(), ["fs", "work"]);
    let refuse = |_: &[&Path]| Err(io::ErrorKind::QuotaExceeded.into());
    let refused = overlay.prepare_limited(&key("b"), &[], &[], Some(&refuse)).unwrap_err();
    assert!(matches!(refused, SnapshotError::Io { what: "limit", .. }), "{refused:?}");
    assert_eq!(overlay.containers().unwrap(), [key("a")]);
}

#[test]
fn what_is_taken_is_a_layer_without_stubs_and_sockets() {
    let (_dir, overlay) = store();
    let chain = chain(1);
    commit_all(&overlay, &chain);
    overlay.prepare(&key("c1"), &chain).unwrap();
    let upper = overlay.upper(&key("c1"));
    fs::create_dir_all(upper.join("etc/deep")).unwrap();
    fs::create_dir_all(upper.join("mounted/at")).unwrap();
    for file in ["etc/hosts", "etc/own", "etc/deep/own"] {
        fs::write(upper.join(file), "").unwrap();
    }
    fs::write(upper.join("etc/own"), "text").unwrap();
    let _listens = std::os::unix::net::UnixListener::bind(upper.join("etc/deep/socket")).unwrap();
    for directory in ["etc/deep", "etc"] {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        fs::File::open(upper.join(directory)).unwrap().set_modified(time).unwrap();
    }
    let stubs = Stubs { files: &["etc/hosts"], directories: &["mounted", "mounted/at"], ..Stubs::default() };
    let changes = overlay.changes(&key("c1"), stubs).unwrap();
    assert_eq!(Vec::from_iter(&changes.sockets), [b"etc/deep/socket"]);
    assert!(changes.paths.contains_key(&b"etc/deep/socket"[..]), "a change all the same");
    let own = overlay.own_files(&key("c1"), &changes).unwrap();
    let taken = own.take(&overlay, &changes).unwrap().unwrap();
    let mut left: Vec<_> = fs::read_dir(taken.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["etc"]);
    for (path, is_there) in
        [("etc/own", true), ("etc/deep/own", true), ("etc/hosts", false), ("etc/deep/socket", false)]
    {
        assert_eq!(taken.path().join(path).exists(), is_there, "{path}");
    }
    for directory in ["etc/deep", "etc"] {
        assert_eq!(fs::metadata(taken.path().join(directory)).unwrap().mtime(), 1_000_000_000, "{directory}");
    }
    assert!(!upper.exists());
}
