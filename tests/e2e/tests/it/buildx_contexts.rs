//! `docker buildx build` of what is no directory of the client's, and of more contexts than one.

use testkit::images::plan::Entry;
use testkit::images::write;
use testkit::registry::{Answer, Request, Server};
use testkit::{Cli, Daemon};

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

/// How many bytes a client has sent of a context.
fn sent(told: &str) -> f64 {
    let of = |line: &str| {
        let (_, rest) = line.split_once(" transferring context: ")?;
        let size = rest.split(' ').next()?;
        let number = size.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let unit = match &size[number.len()..] {
            "B" => 1.0,
            "kB" => 1e3,
            "MB" => 1e6,
            other => panic!("{other} in {line}"),
        };
        Some(number.parse::<f64>().unwrap() * unit)
    };
    told.lines().filter_map(of).next_back().unwrap_or_else(|| panic!("{told}"))
}

#[test]
fn privileged_only_what_changed_of_a_context_is_sent_again() {
    on_ours(|plugged| {
        let (image, large) = (plugged.at.image("again"), "x".repeat(200_000));
        let text = "FROM busybox\nCOPY . /all\nRUN find /all -type f | sort | xargs md5sum > /x && ls -lR /all > /y\n";
        let directory =
            context(&[("Dockerfile", text), (".dockerignore", "ignored\n"), ("a", &large), ("d/b", &large)]);
        let at = |path: &str| directory.path().join(path);
        // What a daemon that has never seen the directory makes of it.
        let whole = |told: &str| {
            let fresh = Daemon::with_busybox().unwrap();
            let other = Plugged::of(&fresh);
            let first = other.build("whole", &directory, "");
            assert!(sent(&first) > 200_000.0 && sent(told) < 40_000.0, "{told} {first}");
            assert_eq!(plugged.at.run(&format!("{image} cat /x /y")), other.at.run("whole cat /x /y"));
        };
        assert!(sent(&plugged.build(&image, &directory, "")) > 400_000.0);
        let told = plugged.build(&image, &directory, "");
        assert!(sent(&told) < 1_000.0 && told.contains("CACHED"), "{told}");
        std::fs::write(at("d/c"), "y".repeat(20_000)).unwrap();
        let told = plugged.build(&image, &directory, "");
        assert!(sent(&told) > 20_000.0, "{told}");
        whole(&told);
        // Files that go, become another thing, or are left out by now.
        std::fs::remove_file(at("a")).unwrap();
        std::fs::create_dir(at("a")).unwrap();
        std::fs::hard_link(at("d/b"), at("d/hard")).unwrap();
        std::os::unix::fs::symlink("../d", at("a/link")).unwrap();
        std::fs::write(at(".dockerignore"), "d/c\n").unwrap();
        whole(&plugged.build(&image, &directory, ""));
        // What a build has had sent before it failed counts, too.
        std::fs::write(at("e"), "y".repeat(50_000)).unwrap();
        std::fs::write(at("Dockerfile"), format!("{text}RUN exit 3\n")).unwrap();
        assert!(sent(&plugged.fails(&directory, "")) > 50_000.0);
        std::fs::write(at("Dockerfile"), text).unwrap();
        whole(&plugged.build(&image, &directory, ""));
        // It is told of, and goes when that is wanted.
        let usage = plugged.at.ok("system df -v");
        assert!(usage.contains("source.local"), "{usage}");
        let pruned = plugged.at.ok("builder prune -f --filter type=source.local");
        assert!(!pruned.contains("space: 0B"), "{pruned}");
        assert!(sent(&plugged.build(&image, &directory, "")) > 200_000.0);
        // As much stays as limits say: nothing of a context that is more than that.
        let freed = |limits: &str| {
            let answer = plugged.at.daemon.post(&format!("/build/prune?{limits}"), "").unwrap();
            answer.json().unwrap()["SpaceReclaimed"].as_u64().unwrap()
        };
        for limits in ["keep-storage=1000000", "max-used-space=1&reserved-space=1000000", "min-free-space=1"] {
            assert_eq!(freed(limits), 0, "{limits}");
        }
        assert_eq!(freed("max-used-space=1&filters={%22until%22:[%221h%22]}"), 0);
        assert!(sent(&plugged.build(&image, &directory, "")) < 1_000.0);
        let told = plugged.line("buildx prune -f --max-used-space 100kB");
        assert!(told.code == 0 && told.stdout.contains("Total:\t250"), "{told:?}");
        assert!(sent(&plugged.build(&image, &directory, "")) > 200_000.0);
        assert!(freed("min-free-space=900000000000000000") > 200_000);
        plugged.at.ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_a_context_of_a_killed_daemon_is_right() {
    if testkit::skip::without_root() {
        return;
    }
    let mut daemon = Daemon::with_busybox().unwrap();
    if daemon.is_foreign() || !daemon.clis().contains(&Cli::Docker) {
        return testkit::skip::report("Docker's command line and a daemon of our own are wanted");
    }
    let text = "FROM busybox\nCOPY . /all\nRUN cat /all/* > /x\n";
    let directory = context(&[("Dockerfile", text), ("a", "one\n"), ("b", "two\n")]);
    Plugged::of(&daemon).build("killed", &directory, "");
    std::fs::write(directory.path().join("a"), "other\n").unwrap();
    std::fs::remove_file(directory.path().join("b")).unwrap();
    std::fs::write(directory.path().join("Dockerfile"), format!("{text}RUN echo begun && sleep 60\n")).unwrap();
    let first = Plugged::of(&daemon);
    let mut building = first.spawn(&format!("buildx build --progress plain {}", path(&directory)));
    building.read_until(" begun\n").unwrap();
    drop(first);
    daemon.kill9().unwrap();
    building.wait().unwrap();
    daemon.restart().unwrap();
    std::fs::write(directory.path().join("Dockerfile"), text).unwrap();
    let plugged = Plugged::of(&daemon);
    plugged.build("killed", &directory, "");
    let got = plugged.at.run("killed sh -c 'ls /all && cat /x'");
    assert_eq!(got, format!("Dockerfile\na\n{text}other"));
    plugged.at.ok("rmi killed");
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

#[test]
fn privileged_passwords_of_contexts_are_neither_told_nor_kept() {
    on_ours(|plugged| {
        let (repositories, image) = (Repositories::new(), plugged.at.image("hiddenpassword"));
        let server = Server::start(|_: &Request| Answer::new(200, "web\n"));
        let text = "FROM busybox\nCOPY --from=web context /x\nCOPY --from=git deep /deep\n";
        repositories.commit("x", &[("Dockerfile", text)]);
        repositories.serve("x");
        let url = repositories.url("x").replace("http://", "http://me:hushhush@");
        let web = format!("http://me:hushhush@{}/file", server.host());
        let flags = format!("--build-context web={web} --build-context git={url}#v1:sub");
        let told = build(plugged, &image, &flags, &format!("{url}#main"), b"");
        assert!(told.contains(&format!("[context web] http://xxxxx:xxxxx@{}/file", server.host())), "{told}");
        assert!(!told.contains("hushhush"), "{told}");
        let history = plugged.at.daemon.scratch().data_root().join("build-history");
        for directory in ["records", "blobs"] {
            for file in std::fs::read_dir(history.join(directory)).unwrap() {
                let text = std::fs::read(file.unwrap().path()).unwrap();
                let text = String::from_utf8_lossy(&text);
                assert!(!text.contains("hushhush"), "{directory}: {text}");
            }
        }
        plugged.at.ok(&format!("rmi {image}"));
    });
}

/// As BuildKit does it, some five times a second, of which there are some in any transfer that is worth it.
#[test]
fn privileged_how_much_of_a_context_has_come_is_told_while_it_comes() {
    plugged(|plugged| {
        const BYTES: u64 = 512 << 20;
        let directory = context(&[("Dockerfile", "FROM busybox\nCOPY large /\n")]);
        std::fs::File::create(directory.path().join("large")).unwrap().set_len(BYTES).unwrap();
        let output = plugged.line(&format!("buildx build --progress rawjson {}", path(&directory)));
        assert_eq!(output.code, 0, "{output:?}");
        let statuses = output.stderr.lines().flat_map(|line| {
            let told: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
            told["statuses"].as_array().cloned().unwrap_or_default()
        });
        let of_context = statuses.filter(|status| status["id"] == "transferring context:");
        let told: Vec<u64> = of_context.map(|status| status["current"].as_u64().unwrap_or(0)).collect();
        // Before it comes what is left out of it.
        let told = told.rsplit(|bytes| *bytes == 0).next().unwrap_or_default();
        assert!(told.is_sorted() && told.len() > 3, "{told:?}");
        assert!(told.last().is_some_and(|bytes| *bytes > BYTES), "{told:?}");
        assert!(told.iter().any(|bytes| (1..BYTES).contains(bytes)), "{told:?}");
    });
}

#[test]
fn privileged_bake_builds_targets_of_its_files() {
    plugged(|plugged| {
        let image = |name: &str| plugged.at.image(name);
        let (base, app, json, composed) =
            (image("bakebase"), image("bakeapp"), image("bakejson"), image("bakecompose"));
        let hcl = format!(
            "variable \"WORD\" {{ default = \"hcl\" }}\ngroup \"default\" {{ targets = [\"app\", \"base\"] }}\n\
             target \"base\" {{\n  dockerfile-inline = \"FROM busybox\\nARG WORD\\nRUN echo $WORD {base} > /x\\nENV MADE=base\\n\"\n  \
             args = {{ WORD = WORD }}\n  tags = [\"{base}\"]\n}}\n\
             target \"app\" {{\n  dockerfile = \"App\"\n  contexts = {{ baked = \"target:base\", other = \"other\" }}\n  \
             tags = [\"{app}\"]\n}}\n"
        );
        let bake_json = format!("{{\"target\":{{\"default\":{{\"dockerfile\":\"Json\",\"tags\":[\"{json}\"]}}}}}}");
        let compose = format!(
            "services:\n  one:\n    image: {composed}\n    build:\n      context: .\n      dockerfile: Compose\n      \
             additional_contexts:\n        other: ./other\n"
        );
        let directory = context(&[
            ("docker-bake.hcl", &hcl),
            ("own.json", &bake_json),
            ("compose.yaml", &compose),
            ("App", "FROM baked\nCOPY --from=other file /file\nRUN echo $MADE >> /x\n"),
            ("Json", "FROM busybox\nRUN echo json > /x\n"),
            ("Compose", "FROM busybox\nCOPY --from=other file /x\n"),
            ("other/file", "other\n"),
        ]);
        let bake = |line: &str| {
            let mut command = plugged.command(&format!("buildx bake --progress plain {line}"));
            let output = testkit::process::run(command.current_dir(directory.path()), b"").unwrap();
            assert_eq!(output.code, 0, "{output:?}");
        };
        let allow = format!("--allow fs.read={}", path(&directory));
        bake(&format!("{allow} -f docker-bake.hcl"));
        assert_eq!(built(plugged, &base), format!("hcl {base}"));
        assert_eq!(plugged.at.run(&format!("{app} cat /x /file")), format!("hcl {base}\nbase\nother"));
        bake(&format!("{allow} -f own.json"));
        assert_eq!(built(plugged, &json), "json");
        bake(&format!("{allow} -f compose.yaml"));
        assert_eq!(built(plugged, &composed), "other");
        plugged.at.ok(&format!("rmi {app} {base} {json} {composed}"));
    });
}

#[test]
fn privileged_buildx_takes_images_of_layouts() {
    plugged(|plugged| {
        let (image, saved) = (plugged.at.image("layoutx"), plugged.at.image("saved"));
        plugged.build(&saved, &context(&[("Dockerfile", "FROM busybox\nRUN echo saved > /x\nENV OF=layout\n")]), "");
        let layout = tempfile::tempdir().unwrap();
        let archive = layout.path().join("archive.tar");
        plugged.at.ok(&format!("save -o {} {saved}", archive.display()));
        let mut unpack = std::process::Command::new("tar");
        unpack.arg("-xf").arg(&archive).arg("-C").arg(layout.path());
        assert_eq!(testkit::process::run(&mut unpack, b"").unwrap().code, 0);
        plugged.at.ok(&format!("rmi {saved}"));
        let index = std::fs::read_to_string(layout.path().join("index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_str(&index).unwrap();
        let digest = index["manifests"][0]["digest"].as_str().unwrap();
        let text = "FROM packed\nRUN echo $OF >> /x\nCOPY --from=packed /x /copied\n";
        let directory = context(&[("Dockerfile", text)]);
        let place = format!("oci-layout://{}@{digest}", layout.path().display());
        plugged.build(&image, &directory, &format!("--build-context packed={place}"));
        assert_eq!(plugged.at.run(&format!("{image} cat /x /copied")), "saved\nlayout\nsaved");
        plugged.at.ok(&format!("rmi {image}"));
        // What is not what its digest says is no image.
        let blob = layout.path().join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
        let other = std::fs::read_to_string(&blob).unwrap().replacen('{', "{ ", 1);
        std::fs::write(&blob, other).unwrap();
        let other = directory.path().join("Dockerfile");
        std::fs::write(other, format!("{text}RUN true\n")).unwrap();
        plugged.fails(&directory, &format!("--no-cache --build-context packed={place}"));
    });
}
