//! `longshore build --build-context`.

use testkit::{Cli, Output};

use crate::build::{context, path};
use crate::build_remote::on_ours;
use crate::support::At;

fn build(at: &At<'_>, image: &str, flags: &[&str], place: &str) -> Output {
    let mut command = at.daemon.command(Cli::Longshore).unwrap();
    testkit::process::run(command.args(["build", "-t", image]).args(flags).arg(place), b"").unwrap()
}

#[test]
fn privileged_our_own_build_takes_contexts_by_name() {
    on_ours(|at| {
        if at.cli != Cli::Longshore {
            return testkit::skip::report("docker's classic client knows no contexts by name");
        }
        let image = at.image("ownnamed");
        let directory = context(&[(
            "Dockerfile",
            "FROM busybox AS made\nRUN false\nFROM base\nCOPY --from=files a sub/c /got/\nCOPY --from=made /a /stage\n\
             RUN --mount=from=files,target=/m cat /m/a > /x && ! test -e /m/b\n",
        )]);
        let files = context(&[("a", "file\n"), ("b", "left out"), ("sub/c", "c\n"), (".dockerignore", "b\n")]);
        let made = context(&[("a", "context\n")]);
        let (files, made) = (format!("files={}", path(&files)), format!("made={}", path(&made)));
        let all =
            ["--build-context", &files, "--build-context", &made, "--build-context", "base=docker-image://busybox"];
        let output = build(at, &image, &all, &path(&directory));
        assert_eq!(output.code, 0, "{output:?}");
        assert_eq!(at.run(&format!("{image} cat /got/a /got/c /x /stage")), "file\nc\nfile\ncontext");
        assert!(build(at, &image, &all, &path(&directory)).stdout.contains("Using cache"));
        for (flag, wanted) in [
            ("files", "invalid context value: files, expected key=value"),
            ("No Name=x", "invalid context name No Name"),
            ("files=/nonexistent", "failed to get build context files: stat /nonexistent: no such file or directory"),
            ("files=/etc/passwd", "failed to get build context path /etc/passwd: not a directory"),
            ("files=oci-layout://x", "the context files of an OCI layout is not supported yet"),
        ] {
            let output = build(at, &image, &["--build-context", flag], &path(&directory));
            assert!(output.code == 1 && output.stderr.contains(wanted), "{wanted} in {output:?}");
        }
        at.ok(&format!("rmi {image}"));
    });
}

/// What was told of how much of a context was sent.
fn sent(output: &Output) -> String {
    assert_eq!(output.code, 0, "{output:?}");
    let last = output.stdout.lines().find(|line| line.starts_with("Sending build context")).expect("it is told");
    last.rsplit("daemon").next().unwrap_or_default().trim().to_owned()
}

#[test]
fn privileged_our_own_build_sends_of_a_context_what_is_needed_and_new() {
    on_ours(|at| {
        if at.cli != Cli::Longshore {
            return testkit::skip::report("docker's classic client sends contexts whole");
        }
        let (image, large) = (at.image("ownsent"), "x".repeat(200_000));
        let text =
            "FROM busybox\nCOPY a /\nCOPY d /d/\nRUN find /a /d -type f | sort | xargs md5sum > /x && ls -lR /d > /y\n";
        let ignore = "Dockerfile\n.dockerignore\nd/left\n";
        let files = [("Dockerfile", text), (".dockerignore", ignore), ("a", &*large), ("d/b", &large), ("d/left", "l")];
        let directory = context(&files);
        let at_path = |name: &str| directory.path().join(name);
        let other = at.image("whole");
        // What is made of an archive of everything.
        let check = || {
            let mut command = at.daemon.command(Cli::Docker).unwrap();
            let line = ["build", "-q", "--no-cache", "-t", &other, &path(&directory)];
            assert_eq!(testkit::process::run(command.args(line), b"").unwrap().code, 0);
            assert_eq!(at.run(&format!("{image} cat /x /y")), at.run(&format!("{other} cat /x /y")));
        };
        std::fs::write(at_path("unused"), &large).unwrap();
        assert_eq!(sent(&build(at, &image, &[], &path(&directory))), "400kB");
        check();
        let again = build(at, &image, &[], &path(&directory));
        assert_eq!((&*sent(&again), again.stdout.matches("Using cache").count()), ("0B", 3), "{again:?}");
        std::fs::write(at_path("d/c"), "y".repeat(20_000)).unwrap();
        assert_eq!(sent(&build(at, &image, &[], &path(&directory))), "20kB");
        check();
        // One of the same length, written within the same second.
        std::fs::write(at_path("d/c"), "z".repeat(20_000)).unwrap();
        std::fs::remove_file(at_path("d/b")).unwrap();
        std::os::unix::fs::symlink("c", at_path("d/b")).unwrap();
        assert_eq!(sent(&build(at, &image, &[], &path(&directory))), "20kB");
        check();
        // A name that is no text is sent within an archive.
        let odd = std::os::unix::ffi::OsStrExt::from_bytes(b"d/\xff");
        std::fs::write(directory.path().join::<&std::ffi::OsStr>(odd), "odd").unwrap();
        assert!(sent(&build(at, &image, &[], &path(&directory))).ends_with("kB"));
        check();
        at.ok(&format!("rmi {image} {other}"));
    });
}

#[test]
fn privileged_an_image_that_asks_for_files_gets_them() {
    on_ours(|at| {
        if at.cli != Cli::Longshore {
            return testkit::skip::report("docker's classic client sends contexts whole");
        }
        let (base, image) = (at.image("asking"), at.image("asked"));
        let asking = context(&[("Dockerfile", "FROM busybox\nONBUILD COPY file /got\n")]);
        let output = build(at, &base, &[], &path(&asking));
        assert!(output.code == 0 && !output.stdout.contains("Sending"), "nothing is needed: {output:?}");
        let text = format!("FROM {base}\nRUN cat /got\n");
        let directory = context(&[("Dockerfile", &text), ("file", "from the context\n")]);
        let output = build(at, &image, &[], &path(&directory));
        assert!(output.code == 0 && output.stdout.contains("\nfrom the context\n"), "{output:?}");
        at.ok(&format!("rmi {image} {base}"));
    });
}
