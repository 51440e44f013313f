use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use super::*;

fn listed(top: &Path, ignore: &str) -> Option<Vec<String>> {
    let patterns = Patterns::read(ignore).unwrap();
    let entries = list(top, &patterns).unwrap()?;
    Some(entries.into_iter().map(|stat| stat.path).collect())
}

#[test]
fn a_directory_is_told_as_it_would_be_packed() {
    let scratch = tempfile::tempdir().unwrap();
    let top = scratch.path();
    fs::create_dir_all(top.join("d/e")).unwrap();
    for path in ["d/e/f", "d/x.md", "d-", "z"] {
        fs::write(top.join(path), "text").unwrap();
    }
    symlink("../z", top.join("d/link")).unwrap();
    fs::hard_link(top.join("z"), top.join("zz")).unwrap();
    fs::set_permissions(top.join("d-"), PermissionsExt::from_mode(0o4750)).unwrap();
    let _socket = UnixListener::bind(top.join("socket")).unwrap();
    assert_eq!(listed(top, "").unwrap(), ["d", "d/e", "d/e/f", "d/link", "d/x.md", "d-", "z", "zz"]);
    assert_eq!(listed(top, "d\n!d/x.md\nzz").unwrap(), ["d/x.md", "d-", "z"]);
    let entries = list(top, &Patterns::default()).unwrap().unwrap();
    let find = |path: &str| entries.iter().find(|stat| stat.path == path).unwrap();
    assert_eq!((find("d-").mode, find("d-").size, find("d-").uid), (1 << 23 | 0o750, 4, 0));
    assert_eq!((find("d/link").mode & modes::SYMLINK, &*find("d/link").link), (modes::SYMLINK, "../z"));
    assert_eq!((find("zz").mode & modes::SYMLINK, &*find("zz").link, find("zz").size), (0, "z", 0));
    assert_eq!(find("d").mode & modes::DIRECTORY, modes::DIRECTORY);
    let written = fs::metadata(top.join("z")).unwrap().modified().unwrap();
    let nanos = written.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    assert_eq!(u128::try_from(find("z").modified_nanos), Ok(nanos));
}

#[test]
fn what_has_no_text_for_a_name_goes_as_an_archive() {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join(std::ffi::OsStr::from_bytes(b"\xff")), "x").unwrap();
    assert_eq!(listed(scratch.path(), ""), None);
}

#[test]
fn a_file_that_became_something_else_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let top = scratch.path();
    for name in ["a", "b", "c"] {
        fs::write(top.join(name), "text").unwrap();
    }
    let entries = list(top, &Patterns::default()).unwrap().unwrap();
    let mut files = Files::new(top.to_owned(), entries, false, false);
    assert_eq!(files.entries(&["b".into(), "c".into()]).unwrap().len(), 2);
    let mut text = String::new();
    files.open(0).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "text");
    fs::remove_file(top.join("b")).unwrap();
    symlink("c", top.join("b")).unwrap();
    assert!(files.open(0).is_err());
    // What has grown is as long as it was told.
    fs::write(top.join("c"), "longer text").unwrap();
    text.clear();
    files.open(1).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "long");
}

#[test]
fn directories_have_keys_of_their_own() {
    let (config, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let of = |config: &tempfile::TempDir, path: &str| key(config.path(), Path::new(path));
    let own = of(&config, "/src");
    assert!(own.starts_with("longshore:") && own == of(&config, "/src"));
    assert!(own != of(&config, "/src2") && own != of(&other, "/src"));
    assert_eq!(key(Path::new("/proc/none"), Path::new("/src")), "");
}
