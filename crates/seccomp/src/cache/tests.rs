//! Files of compiled filters: found again, made again, taken away.

use super::*;

fn filter(capabilities: &[&str]) -> Filter {
    let capabilities: Vec<String> = capabilities.iter().map(|name| name.to_string()).collect();
    resolve(&Profile::docker_default(), &capabilities, Arch::native(), (6, 1)).unwrap().unwrap()
}

#[test]
fn a_filter_is_compiled_once_and_another_one_has_another_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = cached(directory.path(), &filter(&[]), HashSet::new, |_| {}).unwrap();
    assert_eq!(sealed::open(&fs::read(&path).unwrap()), Some(&compile(&filter(&[])).unwrap()[..]));
    // What is there is taken as it is: nothing is compiled again.
    let other = sealed::seal(&[0; 16]);
    fs::write(&path, &other).unwrap();
    assert_eq!(cached(directory.path(), &filter(&[]), HashSet::new, |_| {}).unwrap(), path);
    assert_eq!(fs::read(&path).unwrap(), other);
    assert_ne!(cached(directory.path(), &filter(&["CAP_SYS_ADMIN"]), HashSet::new, |_| {}).unwrap(), path);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
}

#[test]
fn writers_wait_for_each_other_across_processes() {
    use std::os::unix::fs::MetadataExt;
    let directory = tempfile::tempdir().unwrap();
    let other = File::open(directory.path()).unwrap();
    other.lock().unwrap();
    let inode = format!(":{} ", other.metadata().unwrap().ino());
    let path = directory.path().to_owned();
    let writer = std::thread::spawn(move || cached(&path, &filter(&[]), HashSet::new, |_| {}).unwrap());
    // Lines with an arrow are of those who wait (proc_locks(5)).
    let waits = || {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|line| line.contains("->") && line.contains(&inode))
    };
    while !waits() {
        assert!(!writer.is_finished(), "it has written beside another writer");
        std::thread::yield_now();
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    other.unlock().unwrap();
    assert!(is_whole(&writer.join().unwrap()));
}

#[test]
fn the_default_profile_is_found_again_and_made_again_when_it_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let programs = Programs::new(directory.path().to_owned(), (6, 1));
    let path = programs.of_default(&[]).unwrap();
    assert_eq!(path, cached(directory.path(), &filter(&[]), HashSet::new, |_| {}).unwrap());
    fs::remove_file(&path).unwrap();
    assert_eq!(programs.of_default(&[]).unwrap(), path);
    assert!(path.exists());
    assert_ne!(programs.of_default(&["CAP_SYS_ADMIN".to_owned()]).unwrap(), path);
}

#[test]
fn a_profile_is_read_once_and_others_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let programs = Programs::new(directory.path().to_owned(), (6, 1));
    let text = |call: &str| {
        let rule = format!(r#"{{"names":["{call}"],"action":"SCMP_ACT_ERRNO"}}"#);
        format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rule}]}}"#)
    };
    let path = programs.of_profile(&text("chmod"), &[]).unwrap().unwrap();
    assert_ne!(programs.of_profile(&text("chown"), &[]).unwrap(), Some(path.clone()));
    // What is remembered is taken as it is: nothing is compiled again.
    let other = sealed::seal(&[0; 16]);
    fs::write(&path, &other).unwrap();
    assert_eq!(programs.of_profile(&text("chmod"), &[]).unwrap(), Some(path.clone()));
    assert_eq!(fs::read(&path).unwrap(), other);
    fs::remove_file(&path).unwrap();
    programs.of_profile(&text("chmod"), &[]).unwrap();
    assert!(is_whole(&path));
    assert!(matches!(programs.of_profile("{", &[]), Err(CacheError::Profile(_))));
    assert_eq!(programs.known.lock().unwrap().len(), 2);
}

#[test]
fn the_memory_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let programs = Programs::new(directory.path().to_owned(), (6, 1));
    for n in 0..=KNOWN_MAX {
        // Not a rule among them: nothing is compiled, and that is remembered, too.
        let text = format!("{{}}{}", " ".repeat(n));
        assert_eq!(programs.of_profile(&text, &[]).unwrap(), None);
    }
    assert_eq!(programs.known.lock().unwrap().len(), 1);
}

#[test]
fn a_damaged_file_is_made_again_and_never_handed_out() {
    let directory = tempfile::tempdir().unwrap();
    let programs = Programs::new(directory.path().to_owned(), (6, 1));
    let path = programs.of_default(&[]).unwrap();
    let good = fs::read(&path).unwrap();
    let mut other_bit = good.clone();
    other_bit[good.len() / 2] ^= 1;
    let longer = [&good[..], &[0; 8]].concat();
    // The last one is what older versions wrote.
    for damaged in [&good[..good.len() - 8], &good[..7], &[], &other_bit, &longer, &good[sealed::HEAD_BYTES..]] {
        fs::write(&path, damaged).unwrap();
        assert_eq!(programs.of_default(&[]).unwrap(), path);
        assert_eq!(fs::read(&path).unwrap(), good, "{} bytes", damaged.len());
        fs::write(&path, damaged).unwrap();
        cached(directory.path(), &filter(&[]), HashSet::new, |_| {}).unwrap();
        assert_eq!(fs::read(&path).unwrap(), good, "{} bytes", damaged.len());
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(programs.of_default(&[]), Err(CacheError::Write { .. })));
}

#[test]
fn the_oldest_files_go_when_there_are_too_many_but_none_that_is_needed() {
    let directory = tempfile::tempdir().unwrap();
    let old = |number: u64| {
        let path = directory.path().join(format!("{number}.bpf"));
        fs::write(&path, "x").unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(number);
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        path
    };
    let files: Vec<_> = (0..FILES_MAX as u64 + 9).map(old).collect();
    fs::write(directory.path().join("other"), "").unwrap();
    let needed = HashSet::from([files[0].clone(), files[3].clone()]);
    let new = cached(directory.path(), &filter(&[]), || needed, |_| {}).unwrap();
    let left: Vec<_> = files.iter().filter(|path| path.exists()).collect();
    assert_eq!((left.len(), left[0], left[1], left[2]), (FILES_MAX - 1, &files[0], &files[3], &files[12]));
    assert!(new.exists() && directory.path().join("other").exists());
    // A file that is asked for is no old one.
    File::options().write(true).open(&new).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    cached(directory.path(), &filter(&[]), HashSet::new, |_| {}).unwrap();
    assert!(fs::metadata(&new).unwrap().modified().unwrap().elapsed().unwrap() < MARK_AFTER);
}

#[test]
fn a_call_that_nobody_knows_is_told_when_it_is_compiled() {
    let directory = tempfile::tempdir().unwrap();
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["read", "raed", "s390_pci_mmio_read"], "action": "SCMP_ACT_ERRNO"}]}"#;
    let filter = crate::resolve(&Profile::parse(profile).unwrap(), &[], Arch::native(), (0, 0)).unwrap().unwrap();
    let mut told = Vec::new();
    cached(directory.path(), &filter, HashSet::new, |found| told.extend_from_slice(&found.unknown)).unwrap();
    assert_eq!(told, ["raed"]);
    cached(directory.path(), &filter, HashSet::new, |names| panic!("{names:?}")).unwrap();
}
