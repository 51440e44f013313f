use std::fs;

use rustix::fs::XattrFlags;

use super::*;

const STUBS: Stubs<'static> = Stubs {
    files: &[".mark", "etc/hosts"],
    links: &[("etc/mtab", "/mounts")],
    directories: &["etc", "dev", "m", "m/stub"],
};

/// `lower`, `lower2` (below it) and `upper`, each with these files; a name that ends in a slash is a directory, one that
/// begins with `-` a whiteout, and `!` stands behind an opaque directory.
fn changes(upper: &[&str], lower: &[&str], lower2: &[&str]) -> Vec<String> {
    let root = tempfile::tempdir().unwrap();
    for (layer, names) in [("upper", upper), ("lower", lower), ("lower2", lower2)] {
        let layer = root.path().join(layer);
        fs::create_dir(&layer).unwrap();
        for name in names {
            make(&layer, name);
        }
    }
    let lowers = vec![root.path().join("lower"), root.path().join("lower2")];
    let how = Comparison { own: Own::Overlay, stop: &AtomicBool::new(false) };
    let (changes, _) = compare(&root.path().join("upper"), &lowers, STUBS, how).unwrap();
    let letter = |kind: &ChangeKind| match kind {
        ChangeKind::Modified => "C",
        ChangeKind::Added => "A",
        ChangeKind::Deleted => "D",
    };
    let text = |path: &Vec<u8>| String::from_utf8(path.clone()).unwrap();
    let told = changes.paths.iter().map(|(path, kind)| format!("{} {}", letter(kind), text(path)));
    told.chain(changes.hidden.iter().map(|path| format!("- {}", text(path)))).collect()
}

/// Directories get one time; those of the upper layer that are changed have to say so by `+`.
fn make(layer: &Path, name: &str) {
    let time = rustix::fs::Timespec { tv_sec: 5, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    if let Some(directory) = name.strip_suffix(['/', '!', '+']) {
        let path = layer.join(directory);
        fs::create_dir_all(&path).unwrap();
        let fd = fs::File::open(&path).unwrap();
        if name.ends_with('!') {
            rustix::fs::fsetxattr(&fd, "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
        }
        if !name.ends_with('+') {
            rustix::fs::futimens(&fd, &times).unwrap();
        }
        return;
    }
    match name.strip_prefix('-') {
        Some(gone) => {
            rustix::fs::mknodat(CWD, layer.join(gone), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        }
        None if name.contains("->") => {
            let (name, target) = name.split_once("->").unwrap();
            std::os::unix::fs::symlink(target, layer.join(name)).unwrap();
        }
        None => fs::write(layer.join(name), if name == "etc/full" { "x" } else { "" }).unwrap(),
    }
}

#[test]
fn privileged_paths_are_compared_with_what_the_layers_show() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // Files are made before their directory gets its time: names with a slash come last.
    for (upper, lower, lower2, wanted) in [
        (&["new", "d+", "d/f"][..], &[][..], &[][..], &["A d", "A d/f", "A new"][..]),
        (&["f"], &[], &["f"], &["C f"]),
        (&["-f"], &[], &["f"], &["D f"]),
        // A copy for what is in it is no change, a new time is; what appears changes its directory.
        (&["d+", "d/f", "d/"], &["d+", "d/f", "d/"], &[], &["C d/f"]),
        (&["d+", "d/f", "d/"], &["d/"], &[], &["C d", "A d/f"]),
        (&["d+", "-d/f", "d/"], &["d+", "d/f", "d/"], &[], &["C d", "D d/f"]),
        (&["d+"], &["d/"], &[], &["C d"]),
        // Whiteouts and opaque directories of layers hide what is below them.
        (&["f"], &["-f"], &["f"], &["A f"]),
        (&["d+", "d/f", "d/"], &["d!"], &["d+", "d/f"], &["C d", "A d/f"]),
        (&["d!", "d/f"], &[], &["d+", "d/f"], &["C d", "A d/f"]),
        (&["d+", "d/f", "d/"], &["d"], &["d+", "d/f"], &["A d", "A d/f"]),
    ] {
        assert_eq!(changes(upper, lower, lower2), wanted, "{upper:?} {lower:?} {lower2:?}");
    }
}

#[test]
fn privileged_what_a_start_makes_is_hidden() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for (upper, lower, wanted) in [
        (&[".mark", "dev+"][..], &[][..], &["- .mark", "- dev"][..]),
        (&["etc+", "etc/hosts"], &["etc/"], &["- etc", "- etc/hosts"]),
        (&["etc+", "etc/hosts"], &[], &["- etc", "- etc/hosts"]),
        (&["etc+", "etc/hosts", "etc/full"], &["etc/"], &["C etc", "A etc/full", "- etc/hosts"]),
        (&["dev+", "dev/x"], &[], &["A dev", "A dev/x"]),
        (&["etc+", "etc/mtab->/mounts"], &["etc/"], &["- etc", "- etc/mtab"]),
        (&["etc+", "etc/mtab->/other"], &["etc/"], &["C etc", "A etc/mtab"]),
        // A directory in which another one was made, and nothing else; and one that was changed at another time.
        (&["m/stub+"], &["m/"], &["- m", "- m/stub"]),
        (&["m/stub+"], &[], &["- m", "- m/stub"]),
        (&["m/stub+", "m/f"], &["m/"], &["C m", "A m/f", "- m/stub"]),
        (&["m+", "m/stub/"], &["m/"], &["C m", "- m/stub"]),
    ] {
        assert_eq!(changes(upper, lower, &[]), wanted, "{upper:?} {lower:?}");
    }
}
