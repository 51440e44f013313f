use std::os::unix::fs::MetadataExt;

use archive::Time;

use super::*;

/// A daemon's directories.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Scene {
        let scene = Scene(tempfile::tempdir().unwrap());
        fs::create_dir(scene.join("trash")).unwrap();
        scene
    }

    fn join(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// A build of a client's directory.
    fn build(&self, name: &str) -> ContextFiles {
        let (files, key) = (self.join(name), "key".to_owned());
        fs::create_dir(&files).unwrap();
        let context = ContextName { key, about: "local source for context".to_owned() };
        let beside = self.join(&format!("{name}-kept"));
        ContextFiles::take_in((self.0.path(), self.join("trash")), &context, (&files, beside), None)
    }

    /// One that comes to its end; answers what had to come.
    fn whole(&self, name: &str, told: &[Entry]) -> String {
        let build = self.build(name);
        let came = comes(&build, told);
        unpack(&self.join(name), told, &came);
        build.are_whole();
        came
    }
}

fn told(path: &str, kind: Kind, text: &str) -> Entry {
    let size = if kind == Kind::File { text.len() as u64 } else { 0 };
    let link = if kind == Kind::File { "" } else { text };
    let (path, link) = (path.as_bytes().to_vec(), link.as_bytes().to_vec());
    let (device, mtime) = ((0, 0), Time { secs: 1, nanos: 2 });
    Entry { path, kind, link, mode: 0o644, uid: 0, gid: 0, mtime, size, device, xattrs: Vec::new(), segments: None }
}

fn file(path: &str, text: &str) -> Entry {
    told(path, Kind::File, text)
}

/// What has to come.
fn comes(build: &ContextFiles, all: &[Entry]) -> String {
    let told: Vec<Option<Entry>> = all.iter().cloned().map(Some).collect();
    let comes = build.update(&told).unwrap();
    let path = |(entry, _): (&Entry, &bool)| String::from_utf8_lossy(&entry.path).into_owned();
    all.iter().zip(&comes).filter(|(_, comes)| **comes).map(path).collect::<Vec<_>>().join(" ")
}

/// Unpacks what has to come, with other bytes than those that were told.
fn unpack(directory: &Path, all: &[Entry], came: &str) {
    let mut tar = archive::TarWriter::new(Vec::new());
    for entry in all.iter().filter(|entry| came.split(' ').any(|came| came.as_bytes() == entry.path)) {
        tar.begin(entry).unwrap();
        tar.data(&vec![b'x'; entry.size as usize]).unwrap();
    }
    let root: OwnedFd = fs::File::open(directory).unwrap().into();
    super::super::receive::unpack(&root, &*tar.finish().unwrap()).unwrap();
}

#[test]
fn only_what_changed_comes_and_what_is_gone_goes() {
    let scene = Scene::new();
    let (directory, link) = (told("d", Kind::Directory, ""), told("l", Kind::Symlink, "a"));
    let first = [file("a", "1"), directory.clone(), file("d/b", "2"), file("d/c", "3"), link.clone()];
    assert_eq!(scene.whole("one", &first), "a d d/b d/c l");
    assert!(!scene.join("one").exists());
    // A directory may have become another one by what is in it.
    assert_eq!(scene.whole("two", &first), "d");
    let mut mode = file("d/b", "2");
    mode.mode = 0o755;
    assert_eq!(scene.whole("three", &[file("a", "10"), directory.clone(), mode.clone()]), "a d d/b");
    let names = |path: PathBuf| {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let kept = all(scene.0.path());
    let files = root(scene.0.path()).join(&kept[0].name).join("files");
    assert_eq!((names(files.clone()), names(files.join("d"))), (vec!["a".into(), "d".into()], vec!["b".into()]));
    assert_eq!((kept.len(), kept[0].bytes, kept[0].usage_count), (1, 3, 3));
    assert_eq!(scene.whole("four", &[file("d", "a file")]), "d");
}

#[test]
fn files_that_had_to_go_are_not_remembered() {
    let scene = Scene::new();
    scene.whole("one", &[told("d", Kind::Directory, ""), file("d/a", "1")]);
    // What is there cannot become what is told: a file that nobody told of stands in the way.
    let build = scene.build("two");
    fs::write(scene.join("two/d/other"), "").unwrap();
    assert_eq!(comes(&build, &[]), "");
    build.are_whole();
    drop(build);
    assert_eq!(scene.whole("three", &[file("d/a", "1")]), "d/a");
}

#[tokio::test]
async fn what_is_new_is_not_written_where_others_wait() {
    let scene = Scene::new();
    let build = scene.build("one");
    let first = [file("a", "1")];
    unpack(&scene.join("one"), &first, &comes(&build, &first));
    build.are_whole();
    drop(build);
    // This thread is the runtime's only one, and whoever writes has not had it yet.
    assert!(all(scene.0.path()).is_empty());
    let data_root = scene.0.path().to_owned();
    let kept = bridge::blocking(move || {
        while all(&data_root).is_empty() {
            std::thread::yield_now();
        }
        all(&data_root).len()
    });
    assert_eq!(kept.await, 1);
    // At the end of a build they are back before anybody else can ask.
    let build = scene.build("two");
    let second = [file("a", "10")];
    unpack(&scene.join("two"), &second, &comes(&build, &second));
    build.are_whole();
    drop_here(build);
    assert_eq!(all(scene.0.path()).len(), 1);
    assert_eq!(scene.whole("three", &second), "");
}

#[test]
fn what_is_too_much_is_not_kept() {
    let scene = Scene::new();
    let large = Entry { size: BYTES_MAX + 1, ..file("a", "1") };
    let many: Vec<Entry> = (0..=ENTRIES_MAX).map(|number| told(&number.to_string(), Kind::Symlink, "x")).collect();
    for (name, first, is_kept) in [
        ("large", &[Entry { size: BYTES_MAX, ..large.clone() }][..], true),
        ("larger", &[large], false),
        ("many", &many[1..], true),
        ("more", &many, false),
    ] {
        let build = scene.build(name);
        comes(&build, first);
        build.are_whole();
        drop(build);
        assert_eq!(all(scene.0.path()).len(), usize::from(is_kept), "{name}");
    }
}

#[test]
fn what_breaks_off_is_not_believed() {
    let scene = Scene::new();
    let first = [file("a", "1"), file("b", "2")];
    scene.whole("one", &first);
    // Killed or failed before all has come.
    let build = scene.build("two");
    comes(&build, &[file("a", "10"), file("b", "2")]);
    drop(build);
    assert!(all(scene.0.path()).is_empty());
    assert_eq!(scene.whole("three", &first), "a b");
    // One build has it, another one nothing.
    let (one, other) = (scene.build("four"), scene.build("five"));
    assert_eq!((comes(&other, &first), comes(&one, &first)), ("a b".to_owned(), String::new()));
    drop((one, other));
    // What another boot has written may have lost its bytes.
    scene.whole("six", &first);
    let record = root(scene.0.path()).join(&all(scene.0.path())[0].name).join("record");
    let other = fs::read_to_string(&record).unwrap().replace(&stdx::boot::id().unwrap(), "other");
    fs::write(&record, other).unwrap();
    assert_eq!(scene.whole("seven", &first), "a b");
    fs::write(root(scene.0.path()).join(&all(scene.0.path())[0].name).join("entries"), "{").unwrap();
    assert_eq!(scene.whole("eight", &first), "a b");
}

#[test]
fn nothing_outside_is_removed_whatever_was_told() {
    let scene = Scene::new();
    fs::create_dir(scene.join("outside")).unwrap();
    fs::write(scene.join("outside/victim"), "alive").unwrap();
    let link = told("l", Kind::Symlink, &scene.join("outside").display().to_string());
    let build = scene.build("one");
    comes(&build, &[told("l", Kind::Directory, ""), file("l/victim", "x")]);
    unpack(&scene.join("one"), std::slice::from_ref(&link), "l");
    build.are_whole();
    drop(build);
    // It is not where it was told, so that all is sent again.
    assert_eq!(scene.whole("two", &[link]), "l");
    assert_eq!(fs::read_to_string(scene.join("outside/victim")).unwrap(), "alive");
}

#[test]
fn nothing_is_told_to_be_in_a_link() {
    let scene = Scene::new();
    let build = scene.build("one");
    // The second would be written into the first, whose sum would be another file's.
    let told = [file("d/x", "1"), told("l", Kind::Symlink, "d"), file("l/x", "2")];
    let told: Vec<Option<Entry>> = told.into_iter().map(Some).collect();
    assert_eq!(build.update(&told).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    build.note("d/x".to_owned(), "sum".to_owned());
    assert!(build.update(&told[..1]).is_ok());
    build.are_whole();
    // What was noted before is not what came.
    assert!(build.known(b"d/x").is_none());
}

#[test]
fn what_is_in_files_is_known_until_they_change() {
    let scene = Scene::new();
    let build = scene.build("one");
    let known = |build: &ContextFiles, path: &str| build.known(path.as_bytes()).map(|known| (known.mode, known.sum));
    let first = [file("a", "1"), file("b", "2"), told("l", Kind::Symlink, "a")];
    unpack(&scene.join("one"), &first, &comes(&build, &first));
    // Before all has come nothing is.
    build.learn(b"a", "early");
    build.are_whole();
    assert_eq!(known(&build, "a"), None);
    ["a", "b", "l"].iter().for_each(|path| build.learn(path.as_bytes(), &format!("sum of {path}")));
    drop(build);
    let build = scene.build("two");
    let second = [file("a", "1"), file("b", "20"), told("l", Kind::Symlink, "b")];
    unpack(&scene.join("two"), &second, &comes(&build, &second));
    build.are_whole();
    let mode = fs::metadata(scene.join("two/a")).unwrap().mode();
    assert_eq!(known(&build, "a"), Some((mode, "sum of a".to_owned())));
    assert_eq!((known(&build, "b"), known(&build, "l")), (None, None));
}

#[test]
fn kept_contexts_are_bounded() {
    let scene = Scene::new();
    let above = root(scene.0.path());
    for number in 0..CONTEXTS_MAX as i64 + 3 {
        let whole = above.join(format!("{number:03}"));
        fs::create_dir_all(&whole).unwrap();
        let boot = stdx::boot::id().unwrap();
        let record = Record { boot, bytes: 1, used_at_nanos: number + 1, usage_count: 1, ..Record::default() };
        write(&whole, &record).unwrap();
    }
    bound(scene.0.path(), &scene.join("trash"));
    let left = all(scene.0.path());
    assert_eq!((left.len(), left[0].name.as_str()), (CONTEXTS_MAX, "003"));
    let mut large = read(&above.join("050")).unwrap();
    large.bytes = BYTES_MAX;
    write(&above.join("050"), &large).unwrap();
    bound(scene.0.path(), &scene.join("trash"));
    // The oldest go, that one with them: with it, what is younger would still be too much.
    assert_eq!(all(scene.0.path())[0].name, "051");
}

#[test]
fn a_list_that_has_a_name_need_not_be_told_again() {
    let scene = Scene::new();
    let all = [told("d", Kind::Directory, ""), file("d/a", "one")];
    let name_of = |build: &ContextFiles| build.seen().map(|(_, name)| name);
    let build = scene.build("first");
    assert_eq!((build.list_name().as_str(), name_of(&build)), ("", None));
    unpack(&scene.join("first"), &all, &comes(&build, &all));
    build.list_is_called("L1");
    assert_eq!((build.list_name().as_str(), name_of(&build)), ("", None), "all of it has not come");
    build.are_whole();
    let name = name_of(&build);
    assert!(name.is_some());
    drop(build);
    // The name alone: nobody reads what was told, and it is kept all the same.
    let build = scene.build("second");
    assert_eq!((build.list_name().as_str(), name_of(&build)), ("L1", name.clone()));
    drop(build);
    // The same, told again by who gives lists no names: these are the same files, and the list has none from now on.
    let build = scene.build("third");
    assert_eq!(comes(&build, &all), "d");
    build.are_whole();
    assert_eq!((build.list_name().as_str(), name_of(&build)), ("", name.clone()));
    drop(build);
    scene.whole("fourth", &[all[0].clone(), file("d/a", "three")]);
    let build = scene.build("fifth");
    assert_ne!(name_of(&build), name);
    // What cannot be read is nothing that could be kept.
    fs::write(scene.join("fifth-kept/entries"), "{").unwrap();
    assert!(build.known(b"d/a").is_none());
    assert_eq!(name_of(&build), None);
    drop(build);
    assert!(all_names(&scene).is_empty());
}

fn all_names(scene: &Scene) -> Vec<String> {
    all(scene.0.path()).into_iter().map(|context| context.name).collect()
}

#[test]
fn what_was_told_and_cannot_be_read_comes_again() {
    let scene = Scene::new();
    let all = [file("a", "one"), file("b", "two")];
    assert_eq!(scene.whole("first", &all), "a b");
    let [name] = &all_names(&scene)[..] else { panic!() };
    fs::write(scene.join(&format!("build-contexts/{name}/entries")), "{").unwrap();
    assert_eq!(scene.whole("second", &all), "a b");
    assert_eq!(scene.whole("third", &all), "");
}
