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
