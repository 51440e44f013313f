//! `docker buildx build` of what is no directory of the client's, and of more contexts than one.

use testkit::images::plan::Entry;
use testkit::images::write;
use testkit::registry::{Answer, Request, Server};

use crate::build::{context, path};
use crate::build_git::Repositories;
use crate::buildx::{Plugged, plugged};

/// Runs a test against our own daemon, which shares the network with the test.
fn on_ours(test: impl Fn(&Plugged<'_>)) {
    plugged(|plugged| match plugged.at.daemon.is_foreign() {
        true => testkit::skip::report("a foreign daemon may be in a network of its own"),
        false => test(plugged),
    });
}

/// An archive of two Dockerfiles and a file.
fn archive() -> Vec<u8> {
    let entries = [
        Entry::file("Dockerfile", "FROM busybox\nCOPY file /x\n"),
        Entry::file("file", "packed\n"),
        Entry::file("sub/D", "FROM busybox\nRUN echo other > /x\n"),
    ];
    write::layer_tar(&entries).unwrap()
}

/// Builds `place`; answers what was told of it.
fn build(plugged: &Plugged<'_>, image: &str, flags: &str, place: &str, input: &[u8]) -> String {
    let line = format!("buildx build --progress plain -t {image} {flags} {place}");
    println!("{line}");
    let output = testkit::process::run(&mut plugged.command(&line), input).unwrap();
    assert_eq!(output.code, 0, "{output:?}");
    output.stderr
}

/// What ends up in `/x` of an image.
fn built(plugged: &Plugged<'_>, image: &str) -> String {
    plugged.at.run(&format!("{image} cat /x"))
}

#[test]
fn privileged_buildx_builds_contexts_of_the_web() {
    on_ours(|plugged| {
        let tar = archive();
        let server = Server::start(move |request: &Request| match request.path.as_str() {
            "/x.tar" => Answer::new(200, tar.clone()),
            "/Dockerfile" => Answer::new(200, "FROM busybox\nCOPY context /got\nRUN echo text > /x\n"),
            _ => Answer::new(404, "gone"),
        });
        let (image, host) = (plugged.at.image("webx"), server.host());
        let own = "FROM busybox\nCOPY sub/D /x\n";
        for (flags, path, input, wanted) in [
            ("", "x.tar", "", "packed"),
            ("-f sub/D", "x.tar", "", "other"),
            ("-f -", "x.tar", own, "FROM busybox\nRUN echo other > /x"),
            ("", "Dockerfile", "", "text"),
        ] {
            let told = build(plugged, &image, flags, &format!("http://{host}/{path}"), input.as_bytes());
            assert!(told.contains("[internal] load remote build context"), "{told}");
            assert_eq!(built(plugged, &image), wanted, "{flags} {path}");
        }
        let local = context(&[("D", own)]);
        build(plugged, &image, &format!("-f {}/D", path(&local)), &format!("http://{host}/x.tar"), b"");
        assert_eq!(built(plugged, &image), "FROM busybox\nRUN echo other > /x");
        let output = plugged.line(&format!("buildx build --progress plain http://{host}/none"));
        assert!(output.code == 1 && output.stderr.contains("invalid response status 404"), "{output:?}");
        let output = plugged.line(&format!("buildx build --progress plain -f none http://{host}/x.tar"));
        let wanted = "failed to read dockerfile: open none: no such file or directory";
        assert!(output.code == 1 && output.stderr.trim_end().ends_with(wanted), "{output:?}");
        plugged.at.ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_buildx_builds_archives_of_its_input() {
    plugged(|plugged| {
        let image = plugged.at.image("inputx");
        for (flags, wanted) in [("", "packed"), ("-f sub/D", "other")] {
            build(plugged, &image, flags, "-", &archive());
            assert_eq!(built(plugged, &image), wanted, "{flags}");
        }
        build(plugged, &image, "", "-", b"FROM busybox\nRUN echo alone > /x\n");
        assert_eq!(built(plugged, &image), "alone");
        plugged.at.ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_buildx_builds_contexts_of_repositories() {
    on_ours(|plugged| {
        let (repositories, image) = (Repositories::new(), plugged.at.image("gitcontextx"));
        let url = repositories.url("x");
        for (fragment, wanted) in [("#main", "two"), ("#other", "one"), ("?tag=v1", "one")] {
            let told = build(plugged, &image, "", &format!("{url}{fragment}"), b"");
            assert!(told.contains(&format!("[internal] load git source {url}{fragment}")), "{told}");
            assert_eq!(plugged.at.run(&format!("{image} cat /from-context")), wanted);
        }
        let own = b"FROM busybox\nCOPY . /all\nRUN ls -A /all > /x\n";
        build(plugged, &image, "-f -", &format!("{url}#main:sub"), own);
        assert_eq!(built(plugged, &image), "deep");
        build(plugged, &image, "-f - --build-arg BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", &url, own);
        assert!(built(plugged, &image).starts_with(".git\n"));
        let output = plugged.line(&format!("buildx build --progress plain {url}#gone"));
        let wanted = "repository does not contain ref gone, output: \"\"";
        assert!(output.code == 1 && output.stderr.trim_end().ends_with(wanted), "{output:?}");
        plugged.at.ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_buildx_takes_contexts_by_name() {
    plugged(|plugged| {
        let image = plugged.at.image("named");
        let directory = context(&[(
            "Dockerfile",
            "FROM busybox AS made\nRUN echo stage > /a\nFROM base\nCOPY --from=files a sub/c /got/\n\
             COPY --from=image /bin/true /true\nCOPY --from=made /a /stage\n\
             RUN --mount=from=files,target=/m cat /m/a > /x && ! test -e /m/b && touch /writes\n\
             RUN --mount=from=files,source=sub,target=/m,rw touch /m/new\n",
        )]);
        let files = context(&[("a", "file\n"), ("b", "left out"), ("sub/c", "c\n"), (".dockerignore", "b\n")]);
        let made = context(&[("a", "context\n")]);
        let flags = format!(
            "--build-context base=docker-image://busybox --build-context image=docker-image://busybox:latest \
             --build-context files={} --build-context made={}",
            path(&files),
            path(&made)
        );
        let told = plugged.build(&image, &directory, &flags);
        for wanted in [
            "[context files] load .dockerignore",
            "[context files] load from client",
            "transferring files:",
            "[context made] load from client",
            "COPY --from=files a sub/c /got/",
        ] {
            assert!(told.contains(wanted), "{wanted:?} in {told}");
        }
        assert!(!told.contains("RUN echo stage"), "{told}");
        let files = plugged.at.run(&format!("{image} sh -c 'cat /got/a /got/c /x /stage; ls /got; test -e /true'"));
        assert_eq!(files, "file\nc\nfile\ncontext\na\nc");
        assert!(plugged.build(&image, &directory, &flags).contains("CACHED"));
        plugged.at.ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_buildx_begins_stages_with_contexts() {
    plugged(|plugged| {
        let image = plugged.at.image("basenamed");
        let files = tempfile::tempdir().unwrap();
        std::fs::create_dir(files.path().join("bin")).unwrap();
        std::fs::copy(testkit::paths::busybox().unwrap(), files.path().join("bin/sh")).unwrap();
        let directory = context(&[(
            "Dockerfile",
            "FROM root\nRUN echo ran > /x\nFROM none\nCOPY --from=0 /x /x\nCOPY --from=0 /bin/sh /bin/cat\n",
        )]);
        let flags =
            format!("--build-context root={} --build-context none=docker-image://scratch", files.path().display());
        plugged.build(&image, &directory, &flags);
        assert_eq!(built(plugged, &image), "ran");
        assert!(plugged.build(&image, &directory, &flags).contains("CACHED"));
        plugged.at.ok(&format!("rmi {image}"));
        for (flags, wanted) in [
            ("--build-context root=/nonexistent", "failed to get build context root"),
            ("--build-context root=docker-image://none.invalid/x", "none.invalid/x: failed to resolve source metadata"),
        ] {
            let told = plugged.fails(&directory, &format!("{flags} --build-context none=docker-image://scratch"));
            assert!(told.contains(wanted), "{wanted} in {told}");
        }
    });
}

#[test]
fn privileged_buildx_takes_named_contexts_of_the_web() {
    on_ours(|plugged| {
        let (repositories, image) = (Repositories::new(), plugged.at.image("namedweb"));
        let server = Server::start(move |request: &Request| match request.path.as_str() {
            "/file" => Answer::new(200, "web\n"),
            _ => Answer::new(404, "gone"),
        });
        let directory =
            context(&[("Dockerfile", "FROM busybox\nCOPY --from=git deep /x\nCOPY --from=web context /web\n")]);
        let (url, host) = (repositories.url("x"), server.host());
        let flags = format!("--build-context git={url}#v1:sub --build-context web=http://{host}/file");
        let told = plugged.build(&image, &directory, &flags);
        assert!(told.contains(&format!("[context web] http://{host}/file")), "{told}");
        assert_eq!(plugged.at.run(&format!("{image} cat /x /web")), "deep\nweb");
        let flags = format!("--build-context git={url}#gone --build-context web=http://{host}/file");
        let told = plugged.fails(&directory, &flags);
        assert!(told.contains("repository does not contain ref gone"), "{told}");
        plugged.at.ok(&format!("rmi {image}"));
    });
}
