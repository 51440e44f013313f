//! Making, finding, using and removing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Barrier;

use errdefs::{ErrorKind, chain};
use proptest::prelude::*;
use volume::{ANONYMOUS_LABEL, Fault, RemoveError, Volumes, Wanted};

use crate::{container, wanted};

fn labels(pairs: &[(&str, &str)]) -> Option<BTreeMap<String, String>> {
    Some(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
}

fn names(volumes: &Volumes) -> Vec<String> {
    volumes.list().iter().map(|listed| listed.volume.name.to_string()).collect()
}

fn entries(root: &Path) -> BTreeSet<String> {
    fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_volume_is_the_same_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("data/volumes");
    let volumes = Volumes::open(&root).unwrap();
    let request = Wanted { labels: labels(&[("a", "b"), ("c", "")]), options: labels(&[]), ..wanted("data") };
    let made = volumes.create(&request, None).unwrap();
    assert!(made.new && !made.volume.anonymous);
    assert_eq!(made.volume.mountpoint, root.join("data/_data"));
    assert!(made.volume.created.len() == "2026-11-21T03:03:22Z".len(), "{}", made.volume.created);
    for (path, mode) in [(root.clone(), 0o701), (root.join("data"), 0o701), (root.join("data/_data"), 0o755)] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode, "{}", path.display());
    }
    let again = volumes.create(&Wanted { labels: labels(&[("other", "")]), ..wanted("data") }, None).unwrap();
    assert!(!again.new);
    assert_eq!(again.volume, made.volume);

    let volumes = Volumes::open(&root).unwrap();
    assert_eq!(volumes.get("data").unwrap().volume, made.volume);
    assert!(volumes.faults().is_empty());
}

#[test]
fn a_volume_without_a_name_is_anonymous() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(dir.path()).unwrap();
    let made = volumes.create(&Wanted { labels: labels(&[("a", "b")]), ..Wanted::default() }, None).unwrap().volume;
    assert_eq!(made.name.as_str().len(), 64);
    assert_eq!(made.labels, labels(&[("a", "b"), (ANONYMOUS_LABEL, "")]));
    let chosen = volume::VolumeName::random();
    let ahead = Wanted { anonymous: true, ..wanted(chosen.as_str()) };
    let made = volumes.create(&ahead, None).unwrap().volume;
    assert_eq!((made.name.as_str(), made.anonymous), (chosen.as_str(), true));
    assert!(Volumes::open(dir.path()).unwrap().list().iter().all(|listed| listed.volume.anonymous));
}

#[test]
fn what_cannot_be_made_is_refused_in_dockerds_words() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(dir.path()).unwrap();
    volumes.create(&wanted("there"), None).unwrap();
    let driver = |name: &str| Wanted { driver: "nope".to_owned(), ..wanted(name) };
    let options = |pairs| Wanted { options: labels(pairs), ..wanted("opt") };
    let invalid = "includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. \
                   If you intended to pass a host directory, use absolute path";
    for (request, kind, text) in [
        (
            driver("x1"),
            ErrorKind::NotFound,
            "create x1: error looking up volume plugin nope: plugin \"nope\" not found",
        ),
        (
            driver("there"),
            ErrorKind::NotFound,
            "create there: error looking up volume plugin nope: plugin \"nope\" not found",
        ),
        (
            wanted("x"),
            ErrorKind::InvalidArgument,
            "create x: volume name is too short, names should be at least two alphanumeric characters",
        ),
        (wanted("a/b"), ErrorKind::InvalidArgument, &format!("create a/b: \"a/b\" {invalid}")),
        (wanted(".."), ErrorKind::InvalidArgument, &format!("create ..: \"..\" {invalid}")),
        (wanted("\u{fc}ber"), ErrorKind::InvalidArgument, &format!("create \u{fc}ber: \"\u{fc}ber\" {invalid}")),
        (options(&[("a", "b"), ("type", "tmpfs")]), ErrorKind::InvalidArgument, "create opt: invalid option: \"a\""),
        (
            options(&[("device", "/dev/sda")]),
            ErrorKind::InvalidArgument,
            "create opt: missing required option: \"type\"",
        ),
    ] {
        let err = volumes.create(&request, None).unwrap_err();
        assert_eq!((chain(&err).as_str(), err.kind()), (text, kind));
    }
    // What is there is not asked for its options.
    assert!(!volumes.create(&Wanted { options: labels(&[("a", "b")]), ..wanted("there") }, None).unwrap().new);
    assert_eq!(entries(dir.path()), BTreeSet::from(["there".to_owned()]));
}

#[test]
fn a_used_volume_stays() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(dir.path()).unwrap();
    let (one, two) = (container('1'), container('2'));
    volumes.create(&wanted("data"), Some(&one)).unwrap();
    volumes.acquire("data", &two).unwrap();
    volumes.acquire("data", &two).unwrap();
    let err = volumes.remove("data").unwrap_err();
    assert_eq!((err.to_string(), err.kind()), (in_use("data", &[one.as_str(), two.as_str()]), ErrorKind::Conflict));
    volumes.release("data", &one);
    assert_eq!(volumes.remove("data").unwrap_err().to_string(), in_use("data", &[two.as_str()]));
    assert!(volumes.prune(|_| true).removed.is_empty());
    volumes.release("data", &two);
    volumes.release("data", &two);
    fs::write(dir.path().join("data/_data/file"), "x").unwrap();
    volumes.remove("data").unwrap();
    for err in [volumes.remove("data").unwrap_err().to_string(), volumes.get("data").unwrap_err().to_string()] {
        assert_eq!(err, "get data: no such volume");
    }
    assert_eq!(volumes.acquire("data", &one).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(volumes.sweep().unwrap(), 1);
    assert!(entries(dir.path()).is_empty());
}

fn in_use(name: &str, users: &[&str]) -> String {
    format!("remove {name}: volume is in use - [{}]", users.join(", "))
}

#[test]
fn prune_takes_what_is_selected_and_counts_it() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(dir.path()).unwrap();
    let anonymous = volumes.create(&Wanted::default(), None).unwrap().volume;
    volumes.create(&wanted("named"), None).unwrap();
    volumes.create(&wanted("used"), Some(&container('1'))).unwrap();
    fs::write(anonymous.mountpoint.join("one"), vec![0; 5000]).unwrap();
    fs::hard_link(anonymous.mountpoint.join("one"), anonymous.mountpoint.join("two")).unwrap();
    assert_eq!(volumes.usage(anonymous.name.as_str()).unwrap().bytes, 5000);
    let pruned = volumes.prune(|volume| volume.anonymous);
    assert_eq!(pruned.removed, [anonymous]);
    assert_eq!((pruned.reclaimed_bytes, pruned.failed.len()), (5000, 0));
    assert_eq!(names(&volumes), ["named", "used"]);
    assert_eq!(volumes.prune(|_| true).removed.len(), 1);
    assert_eq!(names(&volumes), ["used"]);
}

#[test]
fn what_a_container_that_is_not_there_owned_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (here, gone) = (container('1'), container('2'));
    let volumes = Volumes::open(dir.path()).unwrap();
    let make = |request: &Wanted, user| volumes.create(request, user).unwrap().volume.name.to_string();
    let kept = [
        make(&wanted("named"), Some(&gone)),
        make(&Wanted::default(), None),
        make(&Wanted::default(), Some(&here)),
        make(&Wanted::default(), Some(&gone)),
        make(&Wanted::default(), Some(&gone)),
    ];
    let lost = make(&Wanted::default(), Some(&gone));
    assert!(volumes.remove_orphans(|_| false).removed.is_empty(), "what is used stays");
    volumes.disown(&kept[3]).unwrap();
    volumes.disown("named").unwrap();
    assert_eq!(volumes.get(&kept[3]).unwrap().volume.owner, None);
    assert_eq!(volumes.disown("no").unwrap_err().to_string(), "get no: no such volume");

    let volumes = Volumes::open(dir.path()).unwrap();
    volumes.acquire(&kept[2], &here).unwrap();
    // Another container has what the one that is gone owned.
    volumes.acquire(&kept[4], &here).unwrap();
    let removed = volumes.remove_orphans(|id| *id == here).removed;
    assert_eq!(removed.iter().map(|volume| volume.name.as_str()).collect::<Vec<_>>(), [lost]);
    assert_eq!(names(&volumes).into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(kept));
}

#[test]
fn a_part_of_a_volume_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(dir.path()).unwrap();
    let volume = volumes.create(&wanted("data"), None).unwrap().volume;
    let data = &volume.mountpoint;
    fs::create_dir_all(data.join("d/e")).unwrap();
    fs::write(data.join("d/f"), "in it").unwrap();
    for (link, target) in
        [("abs", "/etc"), ("rel", "d"), ("out", "../../.."), ("round", "../_data/d"), ("loop", "loop")]
    {
        std::os::unix::fs::symlink(target, data.join(link)).unwrap();
    }
    for (subpath, found) in [("d", "d"), ("d/f", "d/f"), ("rel/e", "d/e"), ("rel/../d/f", "d/f"), (".", "")] {
        let opened = volume::open_subpath(&volume, Path::new(subpath)).unwrap();
        let (opened, expected) = (rustix::fs::fstat(&opened).unwrap(), rustix::fs::stat(data.join(found)).unwrap());
        assert_eq!((opened.st_dev, opened.st_ino), (expected.st_dev, expected.st_ino), "{subpath}");
    }
    let base = data.display();
    for (subpath, kind, text) in [
        (
            "abs",
            ErrorKind::InvalidArgument,
            format!("path concatenation escapes the base directory, base: {base}, subpath: abs"),
        ),
        (
            "out",
            ErrorKind::InvalidArgument,
            format!("path concatenation escapes the base directory, base: {base}, subpath: out"),
        ),
        (
            "round",
            ErrorKind::InvalidArgument,
            format!("path concatenation escapes the base directory, base: {base}, subpath: round"),
        ),
        (
            "d/../../x",
            ErrorKind::InvalidArgument,
            format!("path concatenation escapes the base directory, base: {base}, subpath: d/../../x"),
        ),
        (
            "nope",
            ErrorKind::NotFound,
            format!("cannot access path {base}/nope: lstat {base}/nope: no such file or directory"),
        ),
        ("d/f/x", ErrorKind::Internal, format!("cannot access path {base}/d/f/x: not a directory")),
        ("loop", ErrorKind::Internal, format!("cannot access path {base}/loop: too many levels of symbolic links")),
    ] {
        let err = volume::open_subpath(&volume, Path::new(subpath)).unwrap_err();
        assert_eq!((chain(&err), err.kind()), (text, kind));
    }
}

#[test]
fn a_part_is_found_while_everything_moves() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let dir = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(dir.path()).unwrap();
    let volume = volumes.create(&wanted("data"), None).unwrap().volume;
    let data = &volume.mountpoint;
    fs::create_dir_all(data.join("d/e")).unwrap();
    fs::create_dir(data.join("moving")).unwrap();
    std::os::unix::fs::symlink("d/e/../../d/e/../../d/e", data.join("link")).unwrap();
    let (done, outside, begun) = (AtomicBool::new(false), dir.path().join("outside"), Barrier::new(2));
    let hostile = || {
        begun.wait();
        while !done.load(Ordering::Relaxed) {
            fs::rename(data.join("moving"), &outside).unwrap();
            fs::rename(&outside, data.join("moving")).unwrap();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(hostile);
        begun.wait();
        let opened = (0..20_000).try_for_each(|_| volume::open_subpath(&volume, Path::new("link")).map(drop));
        done.store(true, Ordering::Relaxed);
        opened.unwrap();
    });
}

#[test]
fn what_is_no_whole_volume_does_not_keep_the_store_from_opening() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let volumes = Volumes::open(root).unwrap();
    for name in ["torn", "swapped", "whole"] {
        volumes.create(&Wanted { labels: labels(&[("a", "b")]), ..wanted(name) }, None).unwrap();
        fs::write(root.join(name).join("_data/kept"), name).unwrap();
    }
    fs::write(root.join("torn/volume.json"), r#"{"name":"to"#).unwrap();
    fs::copy(root.join("whole/volume.json"), root.join("swapped/volume.json")).unwrap();
    fs::create_dir_all(root.join("dockers/_data")).unwrap();
    fs::create_dir_all(root.join("nodata/deep")).unwrap();
    fs::create_dir_all(root.join(".new-0123/_data")).unwrap();
    fs::create_dir_all(root.join(".gone-0123/_data/deep")).unwrap();
    fs::create_dir_all(root.join("lost+found")).unwrap();
    fs::write(root.join("metadata.db"), "").unwrap();
    std::os::unix::fs::symlink("/etc", root.join("link")).unwrap();

    let volumes = Volumes::open(root).unwrap();
    assert_eq!(names(&volumes), ["dockers", "swapped", "torn", "whole"]);
    assert_eq!(volumes.get("whole").unwrap().volume.labels, labels(&[("a", "b")]));
    let torn = volumes.get("torn").unwrap().volume;
    assert_eq!((torn.labels.as_ref(), torn.anonymous), (None, false));
    assert_eq!(fs::read_to_string(torn.mountpoint.join("kept")).unwrap(), "torn");
    let mut found: Vec<&str> = volumes.faults().iter().map(kind_of).collect();
    found.sort_unstable();
    assert_eq!(found, ["no data", "no record dockers", "torn swapped", "torn torn"]);
    let aside = entries(root).into_iter().find(|name| name.starts_with(".torn-")).unwrap();
    assert!(root.join(aside).join("deep").is_dir());
    assert_eq!(volumes.sweep().unwrap(), 2);
    // The second time all is well.
    let volumes = Volumes::open(root).unwrap();
    assert!(volumes.faults().is_empty(), "{:?}", volumes.faults());
    assert_eq!(names(&volumes), ["dockers", "swapped", "torn", "whole"]);
    // A file in the way is not a volume, and stays.
    assert_eq!(volumes.create(&wanted("metadata.db"), None).unwrap_err().kind(), ErrorKind::Internal);
    assert!(root.join("metadata.db").is_file());
    assert!(volumes.get("metadata.db").is_err());
    assert!(!entries(root).iter().any(|name| name.starts_with(".new-")));
}

fn kind_of(fault: &Fault) -> &'static str {
    match fault {
        Fault::TornRecord { name, .. } if name.as_str() == "torn" => "torn torn",
        Fault::TornRecord { name, .. } if name.as_str() == "swapped" => "torn swapped",
        Fault::NoRecord { name } if name.as_str() == "dockers" => "no record dockers",
        Fault::NoData { name, .. } if name.as_str() == "nodata" => "no data",
        _ => "unexpected",
    }
}

#[test]
fn of_many_makers_of_one_name_one_makes_it() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = Volumes::open(dir.path()).unwrap();
    let barrier = Barrier::new(8);
    for _ in 0..10 {
        let new = std::thread::scope(|scope| {
            let make = |digit| {
                let (volumes, barrier) = (&volumes, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let made = volumes.create(&wanted("data"), Some(&container(digit))).unwrap();
                    assert!(made.volume.mountpoint.is_dir());
                    assert!(matches!(volumes.remove("data"), Err(RemoveError::InUse { .. })));
                    barrier.wait();
                    volumes.release("data", &container(digit));
                    barrier.wait();
                    (made.new, volumes.remove("data").is_ok())
                })
            };
            let threads: Vec<_> = ('0'..'8').map(make).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(new.iter().filter(|(new, _)| *new).count(), 1);
        assert_eq!(new.iter().filter(|(_, removed)| *removed).count(), 1);
    }
    volumes.sweep().unwrap();
    assert!(entries(dir.path()).is_empty());
}

/// What can happen to one of three names.
#[derive(Clone, Debug)]
enum Step {
    Create(usize, Option<char>),
    Remove(usize),
    Acquire(usize, char),
    Release(usize, char),
    Prune,
    Sweep,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let (name, user) = (0..3_usize, prop_oneof![Just('1'), Just('2')]);
    prop_oneof![
        (name.clone(), proptest::option::of(user.clone())).prop_map(|(name, user)| Step::Create(name, user)),
        name.clone().prop_map(Step::Remove),
        (name.clone(), user.clone()).prop_map(|(name, user)| Step::Acquire(name, user)),
        (name, user).prop_map(|(name, user)| Step::Release(name, user)),
        Just(Step::Prune),
        Just(Step::Sweep),
        Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_store_is_a_map_from_names_to_users(steps in proptest::collection::vec(step(), 1..30)) {
        const NAMES: [&str; 3] = ["aa", "bb.b", "c-c"];
        let dir = tempfile::tempdir().unwrap();
        let mut volumes = Volumes::open(dir.path()).unwrap();
        let mut model: BTreeMap<&str, BTreeSet<char>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Create(name, user) => {
                    let user = user.map(|digit| (digit, container(digit)));
                    let made = volumes.create(&wanted(NAMES[name]), user.as_ref().map(|(_, id)| id)).unwrap();
                    prop_assert_eq!(made.new, !model.contains_key(NAMES[name]));
                    model.entry(NAMES[name]).or_default().extend(user.map(|(digit, _)| digit));
                }
                Step::Remove(name) => {
                    let removed = volumes.remove(NAMES[name]).is_ok();
                    let unused = model.get(NAMES[name]).is_some_and(BTreeSet::is_empty);
                    prop_assert_eq!(removed, unused);
                    if unused { model.remove(NAMES[name]); }
                }
                Step::Acquire(name, digit) => {
                    let there = volumes.acquire(NAMES[name], &container(digit)).is_ok();
                    prop_assert_eq!(there, model.contains_key(NAMES[name]));
                    if let Some(users) = model.get_mut(NAMES[name]) { users.insert(digit); }
                }
                Step::Release(name, digit) => {
                    volumes.release(NAMES[name], &container(digit));
                    if let Some(users) = model.get_mut(NAMES[name]) { users.remove(&digit); }
                }
                Step::Prune => {
                    volumes.prune(|volume| volume.name.as_str() != "aa");
                    model.retain(|name, users| *name == "aa" || !users.is_empty());
                }
                Step::Sweep => drop(volumes.sweep().unwrap()),
                Step::Reopen => {
                    volumes = Volumes::open(dir.path()).unwrap();
                    prop_assert!(volumes.faults().is_empty());
                    model.values_mut().for_each(BTreeSet::clear);
                }
            }
            let listed: Vec<_> = volumes.list().iter().map(|l| (l.volume.name.to_string(), l.users.len())).collect();
            let expected: Vec<_> = model.iter().map(|(name, users)| ((*name).to_owned(), users.len())).collect();
            prop_assert_eq!(listed, expected);
        }
        volumes.sweep().unwrap();
        prop_assert_eq!(entries(dir.path()), model.keys().map(|name| (*name).to_owned()).collect());
    }
}

#[test]
fn a_limit_that_nobody_keeps_any_more_is_told_at_the_next_use() {
    let dir = tempfile::tempdir().unwrap();
    let options = |size: &str| Some(BTreeMap::from([("size".to_owned(), size.to_owned())]));
    let volumes = Volumes::open(dir.path()).unwrap();
    let wanted = Wanted { name: "limited".into(), options: options("0"), ..Wanted::default() };
    let volume = volumes.create(&wanted, None).unwrap().volume;
    let user = container('1');
    volume::mount(&volumes, "limited", &user).unwrap();
    let record = dir.path().join("limited/volume.json");
    let text = fs::read_to_string(&record).unwrap().replace(r#""size":"0""#, r#""size":"10m""#);
    fs::write(&record, text).unwrap();
    let volumes = Volumes::open(dir.path()).unwrap();
    assert_eq!(volumes.get("limited").unwrap().volume.limit(), Some(10 << 20));
    let refused = volume::mount(&volumes, "limited", &user).unwrap_err().to_string();
    let place = volume.mountpoint.display();
    assert_eq!(
        refused,
        format!("error while mounting volume '{place}': size quota requested for volume but no quota support")
    );
}
