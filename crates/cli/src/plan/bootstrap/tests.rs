use super::*;

fn wish(name: &str) -> Wish<'_> {
    Wish { name, variant: "minbase", processor: "x86_64", ..Wish::default() }
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn debian_comes_from_its_suite_its_updates_and_its_security() {
    let include = strings(&["curl", "ca-certificates"]);
    let bootstrap = plan(&Wish { include: &include, ..wish("debian:bookworm") }).unwrap();
    assert_eq!(bootstrap.references, ["debian:bookworm"]);
    assert_eq!(
        bootstrap.words,
        [
            "--variant=minbase",
            "--format=tar",
            "--skip=output/dev",
            "--include=curl,ca-certificates",
            "--customize-hook=rm -f \"$1\"/etc/resolv.conf \"$1\"/etc/hostname",
            "bookworm",
            "-",
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main",
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm-updates main",
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian-security \
             bookworm-security main",
        ]
    );
    assert_eq!(
        bootstrap.releases,
        [
            "http://deb.debian.org/debian/dists/bookworm/InRelease",
            "http://deb.debian.org/debian/dists/bookworm-updates/InRelease",
            "http://deb.debian.org/debian-security/dists/bookworm-security/InRelease",
        ]
    );
}

#[test]
fn suites_have_versions_and_slim_forms() {
    let by_version = plan(&wish("debian:12")).unwrap();
    assert_eq!(by_version.references, ["debian:12"]);
    assert_eq!(by_version.words, plan(&wish("debian:bookworm")).unwrap().words);
    let slim = plan(&wish("debian:12-slim")).unwrap();
    assert!(slim.words.contains(&"--dpkgopt=path-exclude=/usr/share/man/*".to_owned()), "{:?}", slim.words);
    assert_eq!(slim.words[0], "--variant=minbase");
    assert_eq!(plan(&Wish { variant: "slim", ..wish("debian:12") }).unwrap().words, slim.words);
    assert_eq!(plan(&wish("debian:sid")).unwrap().releases.len(), 1);
    let arm = plan(&Wish { processor: "aarch64", ..wish("ubuntu:24.04") }).unwrap();
    assert_eq!(arm.releases[2], "http://ports.ubuntu.com/ubuntu-ports/dists/noble-security/InRelease");
}

#[test]
fn mirrors_stand_alone() {
    let mirrors = strings(&["https://mirror.example/debian/", "deb [trusted=yes] http://x/y ./"]);
    let tags = strings(&["base", "registry.example:5000/a/b:c"]);
    let bootstrap = plan(&Wish { mirrors: &mirrors, tags: &tags, ..wish("debian:sid") }).unwrap();
    assert_eq!(bootstrap.references, ["base:latest", "registry.example:5000/a/b:c"]);
    assert_eq!(
        bootstrap.words[bootstrap.words.len() - 2..],
        [
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] https://mirror.example/debian/ sid main",
            "deb [trusted=yes] http://x/y ./",
        ]
    );
    assert_eq!(
        bootstrap.releases,
        ["https://mirror.example/debian/dists/sid/InRelease", "http://x/y/./InRelease".replace("/./", "/").as_str()]
    );
}

#[test]
fn what_cannot_be_made_is_named() {
    let bad = |wish: Wish<'_>| plan(&wish).unwrap_err().to_string();
    for name in ["alpine:3.20", "fedora", "", ":x", "library/debian:sid"] {
        assert!(bad(wish(name)).starts_with(&format!("cannot bootstrap {name:?}: only debian and ubuntu")), "{name}");
    }
    assert!(bad(wish("ubuntu")).starts_with("which suite of ubuntu? ubuntu:NAME, where NAME is one of focal, "));
    assert!(bad(wish("debian:noble")).starts_with("debian has no suite \"noble\" that is known here: "));
    assert!(bad(wish("debian:--help")).starts_with("debian has no suite"));
    assert!(bad(Wish { variant: "x", ..wish("debian:sid") }).starts_with("invalid variant \"x\""));
    assert!(bad(Wish { variant: "apt", ..wish("debian:sid-slim") }).starts_with("the name says slim"));
    assert_eq!(bad(Wish { include: &strings(&["-o"]), ..wish("debian:sid") }), "invalid package name \"-o\"");
    for mirror in ["--x", "ftp://a/b", "http://a b", "deb http://a sid main\ndeb http://b sid main"] {
        let text = bad(Wish { mirrors: &strings(&[mirror]), ..wish("debian:sid") });
        assert!(text.starts_with("invalid mirror "), "{text}");
    }
    assert!(bad(Wish { tags: &strings(&["UPPER"]), ..wish("debian:sid") }).starts_with("invalid name \"UPPER\""));
    assert!(bad(Wish { processor: "mips", ..wish("debian:sid") }).contains("\"mips\""));
}

#[test]
fn the_date_is_that_of_the_packages() {
    let text =
        "-----BEGIN PGP SIGNED MESSAGE-----\nOrigin: Debian\nDate: Sat, 06 Sep 2025 09:55:41 UTC\nValid-Until: x\n";
    assert_eq!(date_of(text), Some(1_757_152_541));
    assert_eq!(date_of("Date: yesterday\n"), None);
    assert_eq!(date_of(""), None);
}

#[test]
fn the_configuration_has_nothing_of_here_and_now() {
    let layer: Digest = format!("sha256:{}", "1".repeat(64)).parse().unwrap();
    let config = plan(&wish("debian:12")).unwrap().config(&layer, 1_757_152_541);
    expect_test::expect![[r#"{"architecture":"amd64","os":"linux","created":"2025-09-06T09:55:41Z","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["bash"]},"rootfs":{"type":"layers","diff_ids":["sha256:1111111111111111111111111111111111111111111111111111111111111111"]},"history":[{"created":"2025-09-06T09:55:41Z","created_by":"image bootstrap --variant=minbase debian:bookworm"}]}"#]]
    .assert_eq(&serde_json::to_string(&config).unwrap());
}
