//! What is limited, and what becomes of projects.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use quota::{Projects, Unlimited, obeying, share};
use sys::quota::FileSystem;
use testkit::disk::{Kind, SmallDisk};

const MEBIBYTE: u64 = 1 << 20;

/// On each kind of file system that keeps limits.
fn on_each(test: impl Fn(&SmallDisk)) {
    for kind in [Kind::Ext4, Kind::Xfs] {
        let disk = SmallDisk::with_projects(kind).expect("this kernel has no quotas: run `cargo xtask vm quota`");
        println!("{kind:?}");
        test(&disk);
    }
}

fn directory(disk: &SmallDisk, name: &str) -> PathBuf {
    let path = disk.path().join(name);
    fs::create_dir(&path).unwrap();
    path
}

/// Writes so many MiB, synced: some blocks are counted when they reach the disk.
fn write(path: &Path, mebibytes: usize) -> io::Result<()> {
    let mut file = File::create(path)?;
    obeying(|| {
        for _ in 0..mebibytes {
            file.write_all(&vec![7; MEBIBYTE as usize])?;
        }
        file.sync_all()
    })
}

fn is_full(result: io::Result<()>) -> bool {
    matches!(result.unwrap_err().kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

#[test]
fn privileged_vm_a_limited_directory_holds_so_much_and_no_more() {
    on_each(|disk| {
        let projects = Projects::open(&disk.path(), 3).unwrap();
        assert!(projects.covers(&disk.path()) && !projects.covers(Path::new("/proc")));
        let (one, two, free) = (directory(disk, "one"), directory(disk, "two"), directory(disk, "free"));
        projects.limit(&[&one, &two], 8 * MEBIBYTE).unwrap();
        // What is made in it belongs to it, however deep; and both count together.
        fs::create_dir_all(one.join("a/b")).unwrap();
        write(&one.join("a/b/file"), 5).unwrap();
        assert!(is_full(write(&two.join("file"), 5)));
        fs::remove_file(two.join("file")).unwrap();
        write(&two.join("file"), 1).unwrap();
        write(&free.join("file"), 12).unwrap();
        let account = projects.account(&one).unwrap().unwrap();
        assert_eq!(projects.account(&two).unwrap(), Some(account));
        assert_eq!((account.limit_bytes, projects.account(&free).unwrap()), (8 * MEBIBYTE, None));
        assert!((6 * MEBIBYTE..=8 * MEBIBYTE).contains(&account.used_bytes), "{account:?}");
        // What a directory shows of its file system is its limit.
        let shown = rustix::fs::statvfs(&one).unwrap();
        assert_eq!(shown.f_blocks * shown.f_frsize, 8 * MEBIBYTE);
    });
}

#[test]
fn privileged_vm_a_shared_limit_allows_renames_and_another_one_does_not() {
    on_each(|disk| {
        let projects = Projects::open(&disk.path(), 3).unwrap();
        let (data, beside, other) = (directory(disk, "data"), directory(disk, "beside"), directory(disk, "other"));
        projects.limit(&[&data], 8 * MEBIBYTE).unwrap();
        share(&data, &beside).unwrap();
        share(&other, &other).unwrap();
        write(&beside.join("file"), 1).unwrap();
        fs::rename(beside.join("file"), data.join("file")).unwrap();
        write(&other.join("file"), 1).unwrap();
        let refused = fs::rename(other.join("file"), data.join("other")).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::CrossesDevices);
        // Whole limited directories go anywhere.
        fs::rename(&data, disk.path().join("gone")).unwrap();
    });
}

#[test]
fn privileged_vm_projects_are_nobodys_and_come_back_only_when_the_last_file_has_gone() {
    on_each(|disk| {
        let projects = Projects::open(&disk.path(), 3).unwrap();
        let project = |projects: &Projects, path: &Path| projects.account(path).unwrap().unwrap().project;
        let first = directory(disk, "first");
        projects.limit(&[&first], MEBIBYTE).unwrap();
        let start = project(&projects, &first);
        // Somebody else's: one has files, the other a limit.
        let (foreign, handle) = (directory(disk, "foreign"), FileSystem::of(File::open(disk.path()).unwrap().into()));
        let file_system = handle.unwrap();
        sys::quota::join(File::open(&foreign).unwrap(), start + 1).unwrap();
        file_system.limit(start + 2, MEBIBYTE).unwrap();
        // The next daemon begins anew, and finds them all.
        let next = Projects::open(&disk.path(), 3).unwrap();
        let second = directory(disk, "second");
        next.limit(&[&second], MEBIBYTE).unwrap();
        assert_eq!(project(&next, &second), start + 3);
        // One that waits for its deletion still has its project.
        write(&first.join("file"), 0).unwrap();
        fs::rename(&first, disk.path().join("trash")).unwrap();
        // The limit without files is in our range, so it is taken for what a kill left.
        assert_eq!(next.reclaim().unwrap(), 1);
        fs::remove_dir_all(disk.path().join("trash")).unwrap();
        // XFS forgets inodes in the background; freezing waits for that.
        rustix::fs::syncfs(File::open(disk.path()).unwrap()).unwrap();
        testkit::process::until("the project has no files", testkit::process::DEADLINE, || {
            (file_system.account(start).unwrap().used_inodes == 0).then_some(())
        })
        .unwrap();
        assert_eq!((next.reclaim().unwrap(), next.reclaim().unwrap()), (1, 0));
        assert_eq!(next.account(&second).unwrap().unwrap().limit_bytes, MEBIBYTE);
        let third = directory(disk, "third");
        Projects::open(&disk.path(), 3).unwrap().limit(&[&third], MEBIBYTE).unwrap();
        assert_eq!(project(&next, &third), start);
    });
}

#[test]
fn privileged_vm_somebody_elses_project_is_left_alone() {
    on_each(|disk| {
        let root = directory(disk, "root");
        sys::quota::join(File::open(&root).unwrap(), 42).unwrap();
        assert!(matches!(Projects::open(&root, 1), Err(Unlimited::Project(42))));
    });
}

#[test]
fn privileged_vm_older_kernels_are_asked_by_the_device() {
    on_each(|disk| {
        let root = || File::open(disk.path()).unwrap();
        let (here, device) = (FileSystem::of(root().into()).unwrap(), FileSystem::by_device(root()).unwrap());
        assert!(here.keeps_limits() && device.keeps_limits());
        device.limit(77, 5 * MEBIBYTE).unwrap();
        assert_eq!(here.account(77).unwrap(), device.account(77).unwrap());
        assert_eq!(here.next_account(77).unwrap().unwrap().limit_bytes, 5 * MEBIBYTE);
        assert_eq!(here.next_account(78).unwrap(), None);
    });
}
