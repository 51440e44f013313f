//! Daemons that are not on the default socket: over TLS, over ssh, and by contexts, which both clients share.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::daemon::HOST_VARIABLE;
use testkit::images::Archive;
use testkit::process::{DEADLINE, until};
use testkit::ssh::SshHost;
use testkit::{Certificates, Cli, Daemon, Output, Pty};

use crate::support::{ours, split};

/// Whether tests about daemons of our own cannot run; says so.
fn cannot_run() -> bool {
    let foreign = std::env::var_os(HOST_VARIABLE).is_some();
    if foreign {
        testkit::skip::report("this is about a daemon of the test's own");
    }
    foreign || testkit::skip::without_root()
}

/// A daemon with busybox, and where it serves TLS.
fn secured(certificates: &Certificates) -> (Daemon, String) {
    let flags = certificates.daemon_flags();
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    flags.extend(["-H", "tcp://127.0.0.1:0"]);
    let daemon = Daemon::start_from(&testkit::paths::dist(), &flags).unwrap();
    daemon.load(Archive::Busybox).unwrap();
    let log = daemon.scratch().log();
    let (_, port) = log.split_once("API listen on 127.0.0.1:").unwrap();
    let address = format!("127.0.0.1:{}", port.split('"').next().unwrap());
    (daemon, address)
}

/// A client that is told nothing of the daemon but what `line` says.
fn command(daemon: &Daemon, cli: Cli, line: &str) -> Command {
    println!("{cli:?}: {line}");
    let mut command = daemon.command(cli).unwrap();
    command.env_remove("DOCKER_HOST").args(split(line));
    command
}

fn typed(daemon: &Daemon, cli: Cli, line: &str, input: &[u8]) -> Output {
    testkit::process::run(&mut command(daemon, cli, line), input).unwrap()
}

fn ok(daemon: &Daemon, cli: Cli, line: &str) -> String {
    typed(daemon, cli, line, b"").success().unwrap_or_else(|err| panic!("{line}: {err:?}")).to_owned()
}

/// Streams in both directions, their ends, and exit codes, by a client that needs `flags` to find the daemon. `edit` adds
/// what its process needs.
fn check_streams(daemon: &Daemon, cli: Cli, flags: &str, edit: &dyn Fn(&mut Command)) {
    let run = |line: &str, input: &[u8]| {
        let mut command = command(daemon, cli, &format!("{flags} {line}"));
        edit(&mut command);
        testkit::process::run(&mut command, input).unwrap()
    };
    let big: Vec<u8> = (0..2_000_000_u32).map(|n| (n ^ (n >> 8)) as u8).map(|byte| byte % 64 + 32).collect();
    let both = run("run --rm -i --network none busybox sh -c 'cat; echo done >&2; exit 3'", &big);
    assert_eq!((both.code, both.stderr.as_str()), (3, "done\n"));
    assert!(both.stdout.as_bytes() == big, "{} bytes came back", both.stdout.len());
    assert_eq!(run("run -d --name held --network none busybox sleep 1000", b"").code, 0);
    let counted = run("exec -i held wc -c", &big);
    assert_eq!((counted.code, counted.stdout.trim()), (0, "2000000"), "{counted:?}");
    assert_eq!(run("exec held sh -c 'exit 7'", b"").code, 7);
    let mut shell = command(daemon, cli, &format!("{flags} exec -it held sh"));
    edit(&mut shell);
    let mut shell = Pty::spawn(&shell, 33, 99).unwrap();
    shell.send(b"stty size; exit 5\n").unwrap();
    shell.read_until("33 99").unwrap();
    assert_eq!(shell.wait().unwrap().1, 5);
    assert_eq!(run("rm -f held", b"").code, 0);
}

#[test]
fn privileged_a_context_of_either_client_leads_both_over_tls() {
    if cannot_run() {
        return;
    }
    let certificates = Certificates::make().unwrap();
    let (daemon, address) = secured(&certificates);
    let files = |dir: &Path| {
        let file = |name: &str| dir.join(name).display().to_string();
        format!("ca={},cert={},key={}", file("ca.pem"), file("cert.pem"), file("key.pem"))
    };
    for maker in daemon.clis() {
        let options = files(&certificates.client());
        let line = format!("context create made --description mine --docker host=tcp://{address},{options}");
        assert_eq!(ok(&daemon, maker, &line), "made");
        let stranger = files(&certificates.stranger());
        ok(&daemon, maker, &format!("context create strange --docker host=tcp://{address},{stranger}"));
        ok(&daemon, maker, &format!("context create plain --docker host=tcp://{address}"));
        for cli in daemon.clis() {
            assert_eq!(ok(&daemon, cli, "context inspect made -f '{{.Name}}'"), "made");
            check_streams(&daemon, cli, "--context made", &|_| {});
            let refused = typed(&daemon, cli, "--context strange ps", b"");
            assert_eq!(refused.code, 1, "{refused:?}");
            assert!(refused.stderr.contains("error during connect"), "{refused:?}");
            let refused = typed(&daemon, cli, "--context plain ps", b"");
            assert!(refused.stderr.contains("Client sent an HTTP request to an HTTPS server."), "{refused:?}");
            assert_eq!(ok(&daemon, cli, "context use made"), "made");
            assert_eq!(ok(&daemon, cli, "info -f '{{.ClientInfo.Context}}'"), "made");
            assert_eq!(ok(&daemon, cli, "context use default"), "default");
        }
        for name in ["made", "strange", "plain"] {
            assert_eq!(ok(&daemon, maker, &format!("context rm {name}")), name);
        }
    }
}

#[test]
fn privileged_flags_and_variables_lead_over_tls() {
    if cannot_run() {
        return;
    }
    let certificates = Certificates::make().unwrap();
    let (daemon, address) = secured(&certificates);
    let client = certificates.client().display().to_string();
    for cli in daemon.clis() {
        let host = format!("-H tcp://{address}");
        let flags = format!("--tlscacert {client}/ca.pem --tlscert {client}/cert.pem --tlskey {client}/key.pem");
        let version = ok(&daemon, cli, &format!("{host} --tlsverify {flags} version -f '{{{{.Server.Version}}}}'"));
        assert_eq!(version, env!("CARGO_PKG_VERSION"));
        let mut variables = command(&daemon, cli, "run --rm --network none busybox echo here");
        variables.env("DOCKER_HOST", format!("tcp://{address}"));
        variables.env("DOCKER_TLS_VERIFY", "1").env("DOCKER_CERT_PATH", &client);
        assert_eq!(testkit::process::run(&mut variables, b"").unwrap().stdout, "here\n");
        // An authority that has not vouched for the daemon.
        let other = certificates.path().join("other/ca.pem").display().to_string();
        let flags = flags.replace(&format!("{client}/ca.pem"), &other);
        let refused = typed(&daemon, cli, &format!("{host} --tlsverify {flags} ps"), b"");
        assert!(refused.code == 1 && refused.stderr.contains("certificate"), "{refused:?}");
        assert_eq!(typed(&daemon, cli, &format!("{host} --tls {flags} ps -q"), b"").code, 0);
    }
}

/// Asks the daemon to read its configuration again.
fn hang_up(daemon: &Daemon) {
    let pid = rustix::process::Pid::from_raw(daemon.pid().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
}

#[test]
fn privileged_certificates_are_read_again_and_bad_ones_change_nothing() {
    if cannot_run() {
        return;
    }
    let certificates = Certificates::make().unwrap();
    let (daemon, address) = secured(&certificates);
    let (client, server) = (certificates.client().display().to_string(), certificates.server());
    let flags = format!("--tlscacert {client}/ca.pem --tlscert {client}/cert.pem --tlskey {client}/key.pem");
    let line = format!("-H tcp://{address} --tlsverify {flags} ps -q");
    let is_believed = || typed(&daemon, Cli::Longshore, &line, b"").code == 0;
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| fs::read(server.join(name)).unwrap());
    let put = |certificate: &[u8], key: &[u8]| {
        fs::write(server.join("cert.pem"), certificate).unwrap();
        fs::write(server.join("key.pem"), key).unwrap();
        hang_up(&daemon);
    };
    assert!(is_believed());
    put(&certificate, b"no key");
    until("the refusal of the key", DEADLINE, || {
        daemon.scratch().log().contains("the certificates stay as they were").then_some(())
    })
    .unwrap();
    assert!(is_believed());
    // Nobody has vouched for this one.
    let other = certificates.path().join("other");
    put(&fs::read(other.join("ca.pem")).unwrap(), &fs::read(other.join("ca-key.pem")).unwrap());
    until("another certificate", DEADLINE, || (!is_believed()).then_some(())).unwrap();
    put(&certificate, &key);
    until("the first certificate", DEADLINE, || is_believed().then_some(())).unwrap();
}

/// The programs that may be called `docker` at the other end.
fn remotes(daemon: &Daemon) -> Vec<PathBuf> {
    [Some(daemon.dist().join("longshore")), testkit::paths::program("docker")].into_iter().flatten().collect()
}

#[test]
fn privileged_streams_go_through_ssh() {
    ours(|daemon| {
        for remote in remotes(daemon) {
            let host = SshHost::new(&remote, daemon.socket()).unwrap();
            let path = format!("{}:{}", host.bin().display(), std::env::var("PATH").unwrap());
            for cli in daemon.clis() {
                println!("to {}", remote.display());
                check_streams(daemon, cli, "-H ssh://target", &|command| {
                    command.env("PATH", &path);
                });
                ok(daemon, cli, "context create far --docker host=ssh://target");
                let mut by_context = command(daemon, cli, "--context far run --rm --network none busybox echo far");
                by_context.env("PATH", &path);
                assert_eq!(testkit::process::run(&mut by_context, b"").unwrap().stdout, "far\n");
                ok(daemon, cli, "context rm far");
            }
        }
    });
}

#[test]
fn privileged_what_ssh_says_is_told() {
    ours(|daemon| {
        let host = SshHost::new(Path::new("/nonexistent"), daemon.socket()).unwrap();
        let path = format!("{}:{}", host.bin().display(), std::env::var("PATH").unwrap());
        let refused = |cli| {
            let mut command = command(daemon, cli, "-H ssh://target ps");
            let refused = testkit::process::run(command.env("PATH", &path), b"").unwrap();
            assert_eq!(refused.code, 1);
            refused.stderr
        };
        for cli in daemon.clis() {
            assert!(refused(cli).contains("has exited with exit status 127, make sure the URL is valid"), "{cli:?}");
        }
        host.forget_key().unwrap();
        for cli in daemon.clis() {
            let said = refused(cli);
            assert!(said.contains("exit status 255") && said.contains("Host key verification failed."), "{said}");
        }
    });
}

/// Everything below the directory, by path.
fn files(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(dir).into_iter().flatten().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), found);
        } else {
            found.push((entry.path(), fs::read_to_string(entry.path()).unwrap()));
        }
    }
    found.sort();
}

#[test]
fn privileged_contexts_are_kept_and_told_as_dockers() {
    ours(|daemon| {
        let clis = daemon.clis();
        if clis.len() < 2 {
            return;
        }
        let config = daemon.scratch().home().join(".docker");
        // One line after the other, by each client on the same files; both must say the same and leave the same.
        for line in [
            "context create a1 --docker host=tcp://x:1,skip-tls-verify=true --description mine",
            "context create a1",
            "context create 'a b'",
            "context create default",
            "context create z1 --docker foo=bar",
            "context create z1 --docker host",
            "context create z1 --docker host=foo://x",
            "context create z1 --docker host=tcp://x,skip-tls-verify=foo",
            "context create z1 --docker host=tcp://x,ca=/nope",
            "context create z1 --docker host=tcp://x,ca=/etc/passwd",
            "context create z1 --docker host=ssh://a:b@c",
            "context create b1 --from nope",
            "context create b1 --from a1 --docker host=x",
            "context create b1 --from a1 --description other",
            "context ls -q",
            "context ls --format '{{.Name}} {{.Current}} {{.Description}}'",
            "context inspect a1 b1",
            "context inspect nope a1 -f '{{.Name}} {{.Endpoints.docker.Host}}'",
            "context use nope",
            "context use a1",
            "context show",
            "context inspect",
            "context rm a1",
            "context update nope",
            "context update default",
            "context update b1 --docker host=tcp://y:2",
            "context update b1 --description new",
            "context export nope -",
            "context import a1 x",
            "context import i1 /nope",
            "--context nope ps",
            "--context a1 -H unix:///x ps",
            "context rm nope default",
            "context rm -f nope",
            "context rm -f a1",
            "context show",
            "context use default",
        ] {
            let mut before = Vec::new();
            files(&config, &mut before);
            let outcomes = clis.iter().map(|cli| {
                // The second client begins where the first one did.
                let _ = fs::remove_dir_all(&config);
                for (path, text) in &before {
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, text).unwrap();
                }
                let mut output = typed(daemon, *cli, line, b"");
                for text in [&mut output.stdout, &mut output.stderr] {
                    // What differs by name alone.
                    *text = text.replace("longshore", "docker").replace("/var/run/docker.sock", "/run/docker.sock");
                }
                let mut after = Vec::new();
                files(&config, &mut after);
                (output, after)
            });
            let [ours, dockers] = outcomes.collect::<Vec<_>>().try_into().unwrap();
            assert_eq!(ours, dockers, "{line}");
        }
    });
}

#[test]
fn privileged_archives_of_contexts_go_from_one_client_to_the_other() {
    ours(|daemon| {
        let certificates = Certificates::make().unwrap();
        let ca = certificates.path().join("ca.pem").display().to_string();
        for (number, maker) in daemon.clis().into_iter().enumerate() {
            let archive = daemon.scratch().path().join(format!("{number}.dockercontext")).display().to_string();
            ok(daemon, maker, &format!("context create out --description d --docker host=tcp://x:1,ca={ca}"));
            ok(daemon, maker, &format!("context export out {archive}"));
            for taker in daemon.clis() {
                ok(daemon, taker, &format!("context import in {archive}"));
                let told = ok(daemon, taker, "context inspect in -f '{{.Name}} {{.TLSMaterial}}'");
                assert_eq!(told, "in map[docker:[ca.pem]]");
                ok(daemon, taker, "context rm in");
            }
            ok(daemon, maker, "context rm out");
        }
    });
}
