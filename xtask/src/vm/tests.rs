use super::*;
use event::{Case, Outcome};
use list::Binary;
use std::path::PathBuf;

fn binary(package: &str, tests: &[&str]) -> Binary {
    Binary {
        package: package.into(),
        program: format!("/deps/{package}").into(),
        directory: format!("/crates/{package}").into(),
        tests: tests.iter().map(|&test| test.to_owned()).collect(),
    }
}

fn titles(cases: &[Case]) -> Vec<String> {
    cases.iter().map(Case::title).collect()
}

#[test]
fn groups_choose_by_the_beginnings_of_names() {
    let binaries = [binary("one", &["a::x", "a::y", "b::x"]), binary("one", &["c::x"]), binary("two", &["a::x"])];
    let group = Group { package: "one", tests: &["a::", "c::"], except: &["a::y"] };
    assert_eq!(titles(&list::select(&[group], &binaries).unwrap()), ["one::a::x", "one::c::x"]);
    for group in [
        Group { tests: &["a::", "d::"], ..group },
        Group { except: &["a::z"], ..group },
        Group { package: "three", ..group },
    ] {
        list::select(&[group], &binaries).unwrap_err();
    }
    assert_eq!(titles(&list::matching(&["b::", "two::"], &binaries).unwrap()), ["one::b::x", "two::a::x"]);
    list::matching(&["nothing"], &binaries).unwrap_err();
}

#[test]
fn modules_are_loaded_after_what_they_need_and_once() {
    let dependencies = "k/a.ko: k/b.ko\nk/b.ko: k/c.ko\nk/c.ko:\nk/d.ko: k/c.ko k/b.ko\n";
    assert_eq!(initramfs::load_order(dependencies, &["a", "d"]), ["k/c.ko", "k/b.ko", "k/a.ko", "k/d.ko"]);
    assert!(initramfs::load_order(dependencies, &["e"]).is_empty());
}

#[test]
fn the_first_file_system_is_an_archive_that_busybox_reads() {
    let dir = tempfile::tempdir().unwrap();
    let entries = [
        Entry::directory("bin"),
        Entry::program("bin/four", b"1234".to_vec()),
        Entry::program("five", b"12345".to_vec()),
    ];
    fs::write(dir.path().join("archive"), initramfs::archive(&entries)).unwrap();
    let busybox = paths::busybox().unwrap();
    let mut unpack = std::process::Command::new(busybox);
    unpack.args(["cpio", "-i", "-F", "archive"]).current_dir(dir.path());
    crate::step::quiet(&mut unpack).unwrap();
    assert_eq!(fs::read(dir.path().join("bin/four")).unwrap(), b"1234");
    assert_eq!(fs::read(dir.path().join("five")).unwrap(), b"12345");
}

fn ended(case: usize, outcome: Outcome) -> Event {
    Event::Ended { case, outcome, seconds: 0.1, output: String::new() }
}

/// Whether a run in which this happened is a good one.
fn good(events: &[Event]) -> bool {
    let case = |name: &str| Case { program: PathBuf::new(), directory: "/crates/x".into(), name: name.into() };
    let mut account = Account::new(Boot::Bare, &[case("a"), case("b")]);
    events.iter().for_each(|event| account.take(&serde_json::to_string(event).unwrap()));
    account.verdict().is_ok()
}

#[test]
fn only_a_run_of_everything_in_the_right_machine_is_good() {
    let ready = |cgroups: &[&str]| Event::Ready {
        kernel: "6.1".into(),
        cgroups: cgroups.iter().map(|&mount| mount.to_owned()).collect(),
    };
    let right = ready(&["cgroup2 /sys/fs/cgroup"]);
    let (first, second) = (ended(0, Outcome::Passed), ended(1, Outcome::Passed));
    assert!(good(&[right.clone(), second.clone(), first.clone(), Event::Done]));
    for bad in [
        vec![],
        vec![right.clone(), Event::Done],
        vec![right.clone(), first.clone(), Event::Done],
        vec![right.clone(), first.clone(), second.clone()],
        vec![right.clone(), first.clone(), ended(1, Outcome::Failed), Event::Done],
        vec![right.clone(), first.clone(), ended(1, Outcome::Skipped { why: "no root".into() }), Event::Done],
        vec![right.clone(), first.clone(), second.clone(), Event::Failed { why: "no disk".into() }],
        vec![ready(&[]), first.clone(), second.clone(), Event::Done],
        vec![ready(&["cgroup2 /sys/fs/cgroup", "cgroup /mnt"]), first.clone(), second.clone(), Event::Done],
        vec![first, second, Event::Done],
    ] {
        assert!(!good(&bad), "{bad:?}");
    }
}

#[test]
fn every_boot_has_the_cgroups_that_it_is_for() {
    let mounts = |text: &str| -> Vec<String> { text.split(", ").map(str::to_owned).collect() };
    let unified = mounts("cgroup2 /sys/fs/cgroup");
    let hybrid = mounts(
        "cgroup2 /sys/fs/cgroup/unified, cgroup /sys/fs/cgroup/systemd, cgroup /sys/fs/cgroup/pids, cgroup /sys/fs/cgroup/memory",
    );
    let legacy = boot::HIERARCHIES.map(|controllers| format!("cgroup /sys/fs/cgroup/{controllers}"));
    for boot in Boot::ALL {
        let expected = [&unified[..], &hybrid, &legacy].map(|mounts| boot.expects(mounts));
        assert_eq!(expected, [boot == Boot::Bare || boot == Boot::Systemd, boot == Boot::Hybrid, boot == Boot::Legacy]);
        assert!(!boot.expects(&hybrid[..3]) && !boot.expects(&legacy[1..]) && !boot.expects(&[]));
        assert_eq!(Boot::parse(&boot.to_string()), Some(boot));
    }
}

#[test]
fn more_tests_than_one_machine_has_time_for_are_shared_out() {
    let cases = |count: usize| -> Vec<Case> {
        let case = |n| Case { program: PathBuf::new(), directory: "/crates/x".into(), name: format!("{n}") };
        (0..count).map(case).collect()
    };
    let sizes = |count| -> Vec<(String, usize)> {
        parts(Boot::Bare, &cases(count)).into_iter().map(|(_, name, part)| (name, part.len())).collect()
    };
    assert_eq!(sizes(CASES_MAX), [("bare".to_owned(), CASES_MAX)]);
    assert_eq!(sizes(CASES_MAX + 1), [("bare-1".to_owned(), 81), ("bare-2".to_owned(), 80)]);
    let whole: Vec<Case> = parts(Boot::Bare, &cases(400)).into_iter().flat_map(|(_, _, part)| part).collect();
    assert_eq!(titles(&whole), titles(&cases(400)));
}

#[test]
fn a_wish_is_all_boots_or_one() {
    let parse = |words| Wish::parse(words).unwrap();
    assert_eq!(parse(&[]).boots, Boot::ALL);
    assert_eq!(parse(&["a", "b"]), Wish { boots: vec![Boot::Bare], words: &["a", "b"] });
    assert_eq!(parse(&["--boot", "hybrid"]), Wish { boots: vec![Boot::Hybrid], words: &[] });
    assert_eq!(parse(&["--boot", "systemd", "a"]), Wish { boots: vec![Boot::Systemd], words: &["a"] });
    Wish::parse(&["--boot", "nosuch"]).unwrap_err();
}
