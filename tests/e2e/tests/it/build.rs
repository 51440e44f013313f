//! `build`: Dockerfiles, with both command lines.

use std::fs;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::{At, on_both, ours};

/// A context of these files.
pub(crate) fn context(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

pub(crate) fn path(directory: &TempDir) -> String {
    directory.path().display().to_string()
}

/// Builds `image`; answers what was printed.
fn build(at: &At<'_>, image: &str, directory: &TempDir, flags: &str) -> String {
    at.ok(&format!("build -t {image} {flags} {}", path(directory)))
}

#[test]
fn privileged_an_image_is_what_its_dockerfile_says() {
    on_both(|at| {
        let image = at.image("whole");
        let directory = context(&[
            (
                "Dockerfile",
                "ARG BASE=busybox\nFROM $BASE\nARG FOO=1\nENV A=b C=\"d e\"\nLABEL x=y\n\
                 RUN echo out; echo err >&2; echo $FOO $C > /f\nWORKDIR /w\nCOPY sub dst\nCOPY --chown=1:2 file /own/\n\
                 ADD file /deep/er/f2\nUSER 1:1\nEXPOSE 80 81/udp\nVOLUME /v\nCMD [\"cat\",\"/f\"]\n\
                 HEALTHCHECK --interval=5s CMD true\nSTOPSIGNAL 9\nSHELL [\"/bin/sh\",\"-ec\"]\nONBUILD RUN true\n",
            ),
            ("sub/a", "hi\n"),
            ("file", "f\n"),
        ]);
        let printed = build(at, &image, &directory, "--no-cache --build-arg FOO=2 --label k=v");
        for wanted in ["Step 1/19 : ARG BASE=busybox\n", "out\n", "Step 19/19 : LABEL k=v\n", "Successfully built "] {
            assert!(printed.contains(wanted), "{wanted:?} in {printed}");
        }
        assert!(printed.ends_with(&format!("Successfully tagged {image}:latest")), "{printed}");
        assert_eq!(at.run(&image), "2 d e");
        let shown =
            at.run(&format!("-u 0 {image} stat -c '%n %a %u:%g' /w /w/dst /w/dst/a /own /own/file /deep/er/f2"));
        let wanted =
            "/w 755 0:0\n/w/dst 755 0:0\n/w/dst/a 644 0:0\n/own 755 1:2\n/own/file 644 1:2\n/deep/er/f2 644 0:0";
        assert_eq!(shown, wanted);
        let config = at.inspect(&image, "{{json .Config}}");
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        for (name, wanted) in [
            ("User", serde_json::json!("1:1")),
            ("Cmd", serde_json::json!(["cat", "/f"])),
            ("WorkingDir", serde_json::json!("/w")),
            ("ExposedPorts", serde_json::json!({"80/tcp": {}, "81/udp": {}})),
            ("Volumes", serde_json::json!({"/v": {}})),
            ("Labels", serde_json::json!({"k": "v", "x": "y"})),
            ("StopSignal", serde_json::json!("9")),
            ("OnBuild", serde_json::json!(["RUN true"])),
            ("Healthcheck", serde_json::json!({"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000_i64})),
        ] {
            assert_eq!(config[name], wanted, "{name}");
        }
        let history = at.ok(&format!("history --no-trunc --format '{{{{.CreatedBy}}}}' {image}"));
        let mut lines = history.lines();
        assert_eq!(lines.next(), Some("/bin/sh -ec #(nop)  LABEL k=v"));
        assert!(history.contains("\n/bin/sh -c #(nop)  CMD [\"cat\" \"/f\"]\n"), "{history}");
        assert!(history.contains("\n|1 FOO=2 /bin/sh -c echo out; echo err >&2; echo $FOO $C > /f\n"), "{history}");
        assert!(history.contains(" in /deep/er/f2 \n"), "{history}");
        // On top of it the trigger is run.
        let next = context(&[("Dockerfile", &format!("FROM {image}\nUSER 0\n"))]);
        let child = at.image("child");
        assert!(build(at, &child, &next, "").contains("# Executing 1 build trigger\n"));
        at.ok(&format!("rmi {child} {image}"));
    });
}

#[test]
fn privileged_what_did_not_change_is_not_done_again() {
    on_both(|at| {
        let image = at.image("cached");
        let text = "FROM busybox\nRUN echo one > /one\nCOPY a /a\nRUN cat /a > /two\n";
        let directory = context(&[("Dockerfile", text), ("a", "1"), ("other", "1")]);
        build(at, &image, &directory, "--no-cache");
        let id = at.inspect(&image, "{{.Id}}");
        let again = build(at, &image, &directory, "");
        assert_eq!(again.matches(" ---> Using cache\n").count(), 3, "{again}");
        assert_eq!(at.inspect(&image, "{{.Id}}"), id);
        // What nobody copies changes nothing; what is copied, only what comes after it.
        fs::write(directory.path().join("other"), "2").unwrap();
        assert_eq!(build(at, &image, &directory, "").matches(" ---> Using cache\n").count(), 3);
        fs::write(directory.path().join("a"), "2").unwrap();
        assert_eq!(build(at, &image, &directory, "").matches(" ---> Using cache\n").count(), 1);
        assert_eq!(at.run(&format!("{image} cat /one /two")), "one\n2");
        assert_eq!(build(at, &image, &directory, "--no-cache").matches(" ---> Using cache\n").count(), 0);
        at.ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_stages_give_files_to_each_other() {
    on_both(|at| {
        let image = at.image("stages");
        let directory = context(&[(
            "Dockerfile",
            "FROM busybox AS made\nRUN mkdir /out && echo x > /out/x && chown 3:4 /out/x && ln -s x /out/y\n\
             FROM busybox AS base\nRUN echo base > /base\n\
             FROM base\nCOPY --from=made /out /got/\nCOPY --from=0 /out/x /single\nCOPY --from=busybox /bin/true /t\n",
        )]);
        build(at, &image, &directory, "");
        let shown = at.run(&format!("{image} stat -c '%n %u:%g %F' /got/x /got/y /single /base"));
        assert_eq!(
            shown,
            "/got/x 3:4 regular file\n/got/y 0:0 symbolic link\n/single 3:4 regular file\n/base 0:0 regular file"
        );
        let target = at.image("target");
        assert!(build(at, &target, &directory, "--target made").contains("Step 2/2 : RUN mkdir"));
        assert_eq!(at.run(&format!("{target} cat /out/x")), "x");
        at.ok(&format!("rmi {image} {target}"));
    });
}

#[test]
fn privileged_what_begins_with_nothing_is_for_the_wanted_platform() {
    on_both(|at| {
        let (other, own) = (at.image("arm"), at.image("own"));
        let directory = context(&[("Dockerfile", "FROM scratch\nCOPY a /a\n"), ("a", "x")]);
        let platform = |image: &str| at.ok(&format!("inspect --format '{{{{.Os}}}}/{{{{.Architecture}}}}' {image}"));
        build(at, &own, &directory, "");
        // What was built for one platform is not known for another.
        build(at, &other, &directory, "--platform linux/s390x");
        assert_eq!(platform(&other), "linux/s390x");
        assert_ne!(platform(&own), "linux/s390x");
        at.ok(&format!("rmi {own} {other}"));
    });
}

#[test]
fn privileged_a_link_that_leads_elsewhere_is_copied_anew() {
    on_both(|at| {
        let image = at.image("links");
        let directory = context(&[("Dockerfile", "FROM busybox\nCOPY d /d\n"), ("d/a", "x")]);
        let link = directory.path().join("d/current");
        for target in ["/app/v1", "/app/v2"] {
            // Dangling here, as links into an image are; dockerd's sum of it is the same for both.
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(target, &link).unwrap();
            build(at, &image, &directory, "");
            if !at.daemon.is_foreign() {
                assert_eq!(at.run(&format!("{image} readlink /d/current")), target);
            }
        }
        at.ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_what_fails_is_told_with_its_code() {
    on_both(|at| {
        let fails = |text: &str, code: i32, sentence: &str| {
            let directory = context(&[("Dockerfile", text), ("a", "")]);
            at.fails(&format!("build --force-rm {}", path(&directory)), code, sentence);
        };
        let command = "The command '/bin/sh -c exit 3' returned a non-zero code: 3";
        fails("FROM busybox\nRUN exit 3\n", 3, command);
        for (text, sentence) in [
            (
                "FROM busybox\nFRO x\n",
                "dockerfile parse error on line 2: unknown instruction: FRO (did you mean FROM?)",
            ),
            ("FROM busybox\nENV a\n", "failed to parse Dockerfile: ENV must have two arguments"),
            (
                "FROM busybox\nCOPY nope /x\n",
                "COPY failed: file not found in build context or excluded by .dockerignore: stat nope: file does not exist",
            ),
            (
                "FROM busybox\nCOPY ../../etc/passwd /x\n",
                "COPY failed: forbidden path outside the build context: ../../etc/passwd ()",
            ),
            (
                "FROM busybox\nADD a a /x\n",
                "When using ADD with more than one source file, the destination must be a directory and end with a /",
            ),
            (
                "FROM busybox\nCOPY --chown=nouser a /x\n",
                "unable to convert uid/gid chown string to host mapping: can't find uid for user nouser: no such user: nouser",
            ),
            ("FROM busybox\nWORKDIR ${X:?no}\n", "failed to process \"${X:?no}\": X: no"),
            ("FROM scratch\n", "No image was generated. Is your Dockerfile empty?"),
        ] {
            fails(text, 1, sentence);
        }
        let directory = context(&[("Dockerfile", "FROM busybox\n")]);
        let at_directory = path(&directory);
        let target = format!("build --target x {at_directory}");
        at.fails(&target, 1, "target stage \"x\" could not be found");
    });
}

#[test]
fn privileged_ids_are_printed_and_kept() {
    on_both(|at| {
        let directory = context(&[
            ("Dockerfile", "FROM busybox\nCOPY . /all/\n"),
            (".dockerignore", "*.md\nDockerfile\n.dockerignore\n!keep.md\n"),
            ("a.md", ""),
            ("keep.md", ""),
            ("sub/b", ""),
        ]);
        let file = directory.path().join("id");
        let id = at.ok(&format!("build -q {}", path(&directory)));
        assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
        let found = at.run(&format!("{id} sh -c 'find /all -type f | sort'"));
        assert_eq!(found, "/all/keep.md\n/all/sub/b");
        at.ok(&format!("build --iidfile {} {}", file.display(), path(&directory)));
        assert_eq!(fs::read_to_string(&file).unwrap(), id);
        at.ok(&format!("rmi {id}"));
    });
}

#[test]
fn privileged_a_dockerfile_comes_from_anywhere() {
    on_both(|at| {
        let image = at.image("anywhere");
        let printed = at.with_input(&format!("build -t {image} -"), b"FROM busybox\nCMD [\"echo\",\"stdin\"]\n");
        assert!(printed.success().unwrap().contains("Successfully built"));
        assert_eq!(at.run(&image), "stdin");
        let directory = context(&[("deep/My", "FROM busybox\nCOPY x /x\nCMD [\"cat\",\"/x\"]\n"), ("x", "own")]);
        at.ok(&format!("build -t {image} -f {0}/deep/My {0}", path(&directory)));
        assert_eq!(at.run(&image), "own");
        let text = b"FROM busybox\nCOPY x /x\nCMD [\"cat\",\"/x\"]\n";
        let printed = at.with_input(&format!("build -t {image} -f - {}", path(&directory)), text);
        assert!(printed.success().is_ok(), "{printed:?}");
        assert_eq!(at.run(&image), "own");
        at.ok(&format!("rmi {image}"));
    });
}

/// What BuildKit has and dockerd's own builder leaves to it.
#[test]
fn privileged_heredocs_and_modes_need_nobody_else() {
    ours(|daemon| {
        for cli in daemon.clis() {
            let at = At { daemon, cli };
            let image = at.image("more");
            let directory = context(&[
                (
                    "Dockerfile",
                    "FROM busybox AS unused\nRUN exit 1\nFROM busybox\nARG TARGETARCH\nRUN <<E\necho $TARGETARCH > /arch\n\
                     echo two >> /arch\nE\nCOPY --chmod=751 a b /m/\nCOPY <<X /in/\nfrom $TARGETARCH\nX\n\
                     COPY --parents deep/er/c /p/\nCOPY --parents deep/./e?/c deep/er/./c /q/\nCOPY --exclude=*.md . /e/\n\
                     COPY --exclude=er/c --exclude=*.md deep /x/\nCOPY --chmod=u=rwX,go= a deep /s/\nRUN --network=none ! ip route | grep .\n",
                ),
                ("a", ""),
                ("b", ""),
                ("c.md", ""),
                ("deep/er/c", ""),
                ("deep/d.md", ""),
            ]);
            let printed = build(&at, &image, &directory, "");
            assert!(printed.contains("Step 1/11 : FROM busybox\n"), "{printed}");
            let shown = at.run(&format!("{image} cat /arch /in/X"));
            let machine = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
            assert_eq!(shown, format!("{machine}\ntwo\nfrom {machine}"));
            let shown = at.run(&format!("{image} sh -c 'stat -c %a /m/a; ls /p/deep/er /e'"));
            assert_eq!(shown, "751\n/e:\nDockerfile\na\nb\ndeep\n\n/p/deep/er:\nc");
            let shown = at.run(&format!("{image} sh -c 'cd /q; find . | sort'"));
            assert_eq!(shown, ".\n./c\n./er\n./er/c");
            let shown = at.run(&format!("{image} sh -c 'find /x /s | sort; stat -c %a /s/a /s/er'"));
            assert_eq!(shown, "/s\n/s/a\n/s/d.md\n/s/er\n/s/er/c\n/x\n/x/er\n600\n700");
            at.ok(&format!("rmi {image}"));
        }
    });
}

/// Nothing of a build stays that is no image, and what is remembered can be forgotten.
#[test]
fn privileged_builds_leave_nothing() {
    ours(|daemon| {
        let cli = daemon.clis()[0];
        let at = At { daemon, cli };
        let text = "FROM busybox\nRUN echo 1 > /x\nCOPY Dockerfile /\n";
        let directory = context(&[("Dockerfile", text)]);
        let image = at.image("left");
        build(&at, &image, &directory, "");
        assert_eq!(at.ok("ps -aq"), "");
        let left = |name: &str| {
            let path = daemon.scratch().data_root().join(name);
            fs::read_dir(&path).map(|entries| entries.count()).unwrap_or(0)
        };
        assert_eq!((left("builds"), left("build-cache")), (0, 2));
        let listed = at.ok("system df -v --format '{{range .BuildCache}}{{.Description}}|{{.CreatedSince}}|{{end}}'");
        assert!(listed.starts_with("/bin/sh -c echo 1 > /x|") && listed.contains(" ago|"), "{listed}");
        // Steps take nothing of their own; what our own client has sent of its directory is kept.
        let kept = if cli == testkit::Cli::Longshore { text.len() } else { 0 };
        let told = at.ok("builder prune -af");
        assert!(told.ends_with(&format!("Total reclaimed space: {kept}B")), "{told}");
        assert_eq!((left("build-cache"), left("build-contexts")), (0, 0));
        assert!(!build(&at, &image, &directory, "").contains("Using cache"));
        at.ok(&format!("rmi {image}"));
        assert!(Path::new(daemon.socket()).exists());
    });
}

/// Debian's packages, which most builds begin with.
const PACKAGES: &str = "deb.debian.org";

/// Through the host's network and through the default one; reported as skipped where nobody answers.
#[test]
fn privileged_commands_reach_the_package_registry() {
    on_both(|at| {
        let answers = |address| TcpStream::connect_timeout(&address, Duration::from_secs(5)).is_ok();
        if !(PACKAGES, 80).to_socket_addrs().is_ok_and(|mut addresses| addresses.any(answers)) {
            testkit::skip::report("the package registry does not answer");
            return;
        }
        let text = format!(
            "FROM busybox\nRUN wget -q -O /Release http://{PACKAGES}/debian/dists/bookworm/Release && grep ^Codename /Release\n"
        );
        let directory = context(&[("Dockerfile", &text)]);
        let image = at.image("packages");
        for network in ["--network host", ""] {
            let printed = build(at, &image, &directory, &format!("--no-cache {network}"));
            assert!(printed.contains("Codename: bookworm"), "{printed}");
        }
        at.ok(&format!("rmi {image}"));
    });
}
