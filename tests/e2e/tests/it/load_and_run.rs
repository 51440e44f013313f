//! Loading an image, running a program in it, and how that ends.

use testkit::images::Archive;
use testkit::{Cli, Daemon, Output};

/// `run --rm --network none` and `rest`.
fn run(daemon: &Daemon, cli: Cli, rest: &[&str]) -> Output {
    let line = [&["run", "--rm", "--network", "none"], rest].concat();
    daemon.cli(cli, &line).expect("the command line runs")
}

fn skip() -> bool {
    testkit::skip::without_root()
}

#[test]
fn privileged_an_image_is_loaded_and_listed() {
    if skip() {
        return;
    }
    let daemon = Daemon::start().unwrap();
    for cli in daemon.clis() {
        // Twice: what is there already is no problem.
        for _ in 0..2 {
            check_load(&daemon, cli, Archive::Layers, "layers:latest");
        }
        let removed = daemon.cli(cli, &["rmi", "layers:latest"]).unwrap();
        assert!(removed.success().unwrap().starts_with("Untagged: layers:latest\nDeleted: sha256:"), "{cli:?}");
    }
}

#[test]
fn privileged_docker_archives_and_oci_layouts_with_any_compression_hold_the_same_image() {
    if skip() {
        return;
    }
    let daemon = Daemon::start().unwrap();
    if daemon.is_foreign() {
        testkit::skip::report("a shared daemon's busybox belongs to its other users");
        return;
    }
    for cli in daemon.clis() {
        for archive in [Archive::Busybox, Archive::BusyboxGzip, Archive::BusyboxZstd] {
            check_load(&daemon, cli, archive, "busybox:latest");
            assert_eq!(run(&daemon, cli, &["busybox", "echo", "hello"]).stdout, "hello\n", "{cli:?} {archive:?}");
        }
    }
}

fn check_load(daemon: &Daemon, cli: Cli, archive: Archive, name: &str) {
    let path = archive.path().expect("an archive");
    let output = daemon.cli(cli, &["load", "-i", &path.display().to_string()]).expect("load runs");
    assert_eq!(output.stdout, format!("Loaded image: {name}\n"), "{cli:?} {archive:?}: {}", output.stderr);
    let listed = daemon.cli(cli, &["images", "--format", "{{.Repository}}:{{.Tag}}", name]).expect("images runs");
    assert_eq!(listed.stdout, format!("{name}\n"), "{cli:?} {archive:?}: {}", listed.stderr);
}

#[test]
fn privileged_run_prints_what_the_program_prints_and_ends_as_it_ends() {
    if skip() {
        return;
    }
    let daemon = Daemon::with_busybox().unwrap();
    for cli in daemon.clis() {
        for (script, stdout, stderr, code) in [
            ("echo hello", "hello\n", "", 0),
            ("exit 3", "", "", 3),
            ("echo out; echo err >&2; exit 1", "out\n", "err\n", 1),
            ("sh -c 'kill -9 $$'; exit $?", "", "Killed\n", 137),
            ("printf no-newline", "no-newline", "", 0),
        ] {
            let output = run(&daemon, cli, &["busybox", "sh", "-c", script]);
            let expected = Output { stdout: stdout.into(), stderr: stderr.into(), code };
            assert_eq!(output, expected, "{cli:?} {script}");
        }
    }
}

#[test]
fn privileged_the_streams_stay_apart_and_whole() {
    if skip() {
        return;
    }
    let daemon = Daemon::with_busybox().unwrap();
    for cli in daemon.clis() {
        let script = "i=0; while [ $i -lt 2000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done";
        let output = run(&daemon, cli, &["busybox", "sh", "-c", script]);
        let lines = |word: &str| (0..2000).map(|number| format!("{word} {number}\n")).collect::<String>();
        assert!(output.stdout == lines("out"), "{cli:?}: {} bytes of stdout", output.stdout.len());
        assert!(output.stderr == lines("err"), "{cli:?}: {} bytes of stderr", output.stderr.len());
    }
}

#[test]
fn privileged_standard_input_reaches_the_program_only_with_i() {
    if skip() {
        return;
    }
    let daemon = Daemon::with_busybox().unwrap();
    // More than a pipe and a socket buffer hold.
    let text = "0123456789abcdef\n".repeat(100_000);
    for cli in daemon.clis() {
        let with = ["run", "-i", "--rm", "--network", "none", "busybox", "cat"];
        let output = daemon.cli_with_input(cli, &with, text.as_bytes()).unwrap();
        assert!(output.stdout == text && output.code == 0, "{cli:?}: {} bytes, {}", output.stdout.len(), output.stderr);
        let without = ["run", "--rm", "--network", "none", "busybox", "cat"];
        assert_eq!(daemon.cli_with_input(cli, &without, b"text").unwrap().stdout, "", "{cli:?}");
    }
}

#[test]
fn privileged_what_cannot_be_run_has_dockers_code_and_sentence() {
    if skip() {
        return;
    }
    let daemon = Daemon::with_busybox().unwrap();
    for cli in daemon.clis() {
        for (arguments, code, sentence) in [
            (
                &["busybox", "no-such-command"] as &[&str],
                127,
                "exec: \"no-such-command\": executable file not found in $PATH",
            ),
            (
                &["busybox", "/no/such/file"],
                127,
                "exec: \"/no/such/file\": stat /no/such/file: no such file or directory",
            ),
            (&["busybox", "/etc/passwd"], 126, "exec: \"/etc/passwd\": permission denied"),
            (&["busybox", "/etc"], 126, "exec: \"/etc\": is a directory"),
        ] {
            let output = run(&daemon, cli, arguments);
            assert_eq!(output.code, code, "{cli:?} {arguments:?}: {}", output.stderr);
            assert!(output.stderr.contains(sentence), "{cli:?} {arguments:?}: {}", output.stderr);
            let program = if cli == Cli::Docker { "docker" } else { "longshore" };
            let help = format!("Run '{program} run --help' for more information");
            assert!(output.stderr.ends_with(&format!("\n\n{help}\n")), "{cli:?} {arguments:?}: {}", output.stderr);
        }
    }
}

#[test]
fn privileged_an_unknown_image_is_125_with_dockers_sentence() {
    if skip() {
        return;
    }
    let daemon = Daemon::start().unwrap();
    for cli in daemon.clis() {
        let output = run(&daemon, cli, &["--pull", "never", "no-such-image:here", "true"]);
        assert_eq!(output.code, 125, "{cli:?}: {}", output.stderr);
        let sentence = "Error response from daemon: No such image: no-such-image:here\n";
        assert!(output.stderr.ends_with(sentence) || output.stderr.contains(sentence), "{cli:?}: {}", output.stderr);
    }
    let answer = daemon.post("/v1.50/containers/create", r#"{"Image":"no-such-image:here"}"#).unwrap();
    assert_eq!((answer.status, answer.message().as_str()), (404, "No such image: no-such-image:here"));
}

#[test]
fn privileged_rm_leaves_nothing_and_frees_the_name() {
    if skip() {
        return;
    }
    let daemon = Daemon::with_busybox().unwrap();
    for cli in daemon.clis() {
        let name = daemon.name("gone");
        // The second round fails if the first left its name.
        for round in 0..2 {
            let output = run(&daemon, cli, &["--name", &name, "busybox", "true"]);
            assert_eq!(output.code, 0, "{cli:?} {round}: {}", output.stderr);
        }
        let filter = format!("name={name}");
        let listed = daemon.cli(cli, &["ps", "-a", "-q", "--filter", &filter]).unwrap();
        assert_eq!(listed.success().unwrap(), "", "{cli:?}");
        // A container that could not start goes, too.
        assert_eq!(run(&daemon, cli, &["--name", &name, "busybox", "no-such-command"]).code, 127, "{cli:?}");
        let listed = daemon.cli(cli, &["ps", "-a", "-q", "--filter", &filter]).unwrap();
        assert_eq!(listed.success().unwrap(), "", "{cli:?}");
    }
    if !daemon.is_foreign() {
        // The daemon itself is still there and no leak.
        let mut left = String::new();
        let gone = testkit::process::until("nothing left", testkit::leaks::GONE_WITHIN, || {
            let found = testkit::leaks::find(daemon.scratch().path(), daemon.scratch().key().as_deref()).ok()?;
            left = found.to_string();
            let shims = found.processes.iter().filter(|(_, command)| command.contains("longshore-shim")).count();
            (found.mounts.is_empty() && shims == 0).then_some(())
        });
        assert!(gone.is_ok(), "{left}");
    }
}

#[test]
fn privileged_a_used_name_is_a_conflict_that_changes_nothing() {
    if skip() {
        return;
    }
    let daemon = Daemon::with_busybox().unwrap();
    let name = daemon.name("used");
    for cli in daemon.clis() {
        let made = daemon.cli(cli, &["create", "--name", &name, "--network", "none", "busybox", "true"]).unwrap();
        let id = made.success().unwrap().to_owned();
        assert_eq!(id.len(), 64, "{cli:?}: {id}");
        let output = run(&daemon, cli, &["--name", &name, "busybox", "true"]);
        let sentence = format!(
            "Error response from daemon: Conflict. The container name \"/{name}\" is already in use by container \
             \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
        );
        assert_eq!(output.code, 125, "{cli:?}: {}", output.stderr);
        assert!(output.stderr.contains(&sentence), "{cli:?}: {}", output.stderr);
        let removed = daemon.cli(cli, &["rm", &name]).unwrap();
        assert_eq!(removed.success().unwrap(), name, "{cli:?}");
    }
}
