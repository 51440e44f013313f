//! `image bootstrap`: what comes of a distribution's packages. A program in the place of mmdebstrap has no network.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use testkit::process::{Output, run};
use testkit::{Cli, paths};

use crate::support::{At, ours};

/// Writes an image's files as mmdebstrap would, and what it was told beside itself.
const MMDEBSTRAP: &str = r#"#!/bin/sh
set -eu
here=$(dirname "$0")
printf '%s\n' "$@" "epoch=$SOURCE_DATE_EPOCH" >>"$here/told"
echo "I: this goes to standard error" >&2
[ ! -e "$here/fail" ] || exit 25
mkdir -p "$here/root/bin" "$here/root/dev" "$here/root/tmp"
cp BUSYBOX "$here/root/bin/busybox"
ln -sf busybox "$here/root/bin/sh"
tar -C "$here/root" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf - .
"#;

fn with_program(at: &At<'_>, bin: &Path, words: &[&str], epoch: &str) -> Output {
    let mut command = at.command("image bootstrap");
    let path = format!("{}:/usr/bin:/bin", bin.display());
    command.args(words).env("PATH", path).env("SOURCE_DATE_EPOCH", epoch).env("TMPDIR", bin);
    run(&mut command, b"").unwrap()
}

fn put_program(bin: &Path) {
    let script = MMDEBSTRAP.replace("BUSYBOX", &paths::busybox().unwrap().display().to_string());
    let program = bin.join("mmdebstrap");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn privileged_the_same_packages_make_the_same_image() {
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        let bin = tempfile::tempdir().unwrap();
        put_program(bin.path());
        let mirror = ["--mirror", "deb [trusted=yes] http://nowhere.invalid/debian bookworm main"];
        let made = with_program(&at, bin.path(), &[&mirror[..], &["debian:bookworm"]].concat(), "1757152541");
        assert_eq!(made.code, 0, "{made:?}");
        let id = made.stdout.trim();
        assert!(made.stderr.contains("this goes to standard error"), "{made:?}");
        assert_eq!(at.ok("image inspect -f {{.Id}} debian:bookworm"), id);
        assert_eq!(at.ok("image inspect -f {{.Created}} debian:bookworm"), "2025-09-06T09:55:41Z");
        assert_eq!(at.run("debian:bookworm sh -c 'echo from a container'"), "from a container");
        let words = ["--include", "curl,make", "-t", "again:1", "-t", "again:2", "-q", "debian:12"];
        // Another name, and packages that the program does not look at: only the history differs.
        let again = with_program(&at, bin.path(), &[&mirror[..], &words].concat(), "1757152541");
        assert_eq!(again.code, 0, "{again:?}");
        assert_ne!(again.stdout, made.stdout);
        let layers = |name: &str| at.ok(&format!("image inspect -f {{{{.RootFS.Layers}}}} {name}"));
        assert_eq!((layers("again:1"), layers("again:2")), (layers("debian:bookworm"), layers("debian:bookworm")));
        at.ok("rmi debian:bookworm again:1 again:2");
        let same = with_program(&at, bin.path(), &[&mirror[..], &["debian:12"]].concat(), "1757152541");
        assert_eq!(same.stdout, made.stdout);
        let told = fs::read_to_string(bin.path().join("told")).unwrap();
        for word in
            ["--include=curl,make\n", "--quiet\n", "\nbookworm\n-\n", "epoch=1757152541\n", "--variant=minbase\n"]
        {
            assert!(told.contains(word), "{word}: {told}");
        }
        // Nothing of it stays on this machine.
        let mut left: Vec<_> = fs::read_dir(bin.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["mmdebstrap", "root", "told"]);
    });
}

#[test]
fn privileged_what_cannot_be_bootstrapped_says_why() {
    ours(|daemon| {
        let at = At { daemon, cli: Cli::Longshore };
        let bin = tempfile::tempdir().unwrap();
        let mirror = ["--mirror", "deb [trusted=yes] http://nowhere.invalid/debian bookworm main", "debian:bookworm"];
        let fails = |words: &[&str], epoch: &str, sentence: &str| {
            let failed = with_program(&at, bin.path(), words, epoch);
            assert!(failed.code == 1 && failed.stderr.contains(sentence), "{words:?}: {failed:?}");
            assert_eq!(failed.stdout, "");
        };
        fails(&["alpine:3"], "1", "only debian and ubuntu are known");
        fails(&["--variant", "huge", "debian:sid"], "1", "invalid variant \"huge\"");
        fails(&mirror, "x", "invalid SOURCE_DATE_EPOCH \"x\"");
        put_program(bin.path());
        fs::write(bin.path().join("fail"), "").unwrap();
        fails(&mirror, "1", "mmdebstrap failed with status 25: nothing was made");
        assert_eq!(at.ok("images -q debian"), "");
    });
}
