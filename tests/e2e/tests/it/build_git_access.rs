//! What servers of repositories are shown of the client's: logins and agents.

use std::fs;
use std::process::{Child, Command, Stdio};

use testkit::Cli;
use testkit::process::{DEADLINE, until};
use testkit::registry::{Answer, Request, Server};

use crate::build::{context, path};
use crate::build_git::Repositories;
use crate::build_remote::on_ours;
use crate::buildx::plugged;
use crate::support::At;

/// A server that gives everything to whoever shows this.
fn guarded(repositories: &Repositories, wanted: &'static str) -> Server {
    let served = repositories.served();
    Server::start(move |request: &Request| {
        let path = request.path.split('?').next().unwrap().trim_start_matches('/');
        match fs::read(served.join(path)) {
            _ if request.header("authorization") != Some(wanted) => Answer::new(403, "nobody"),
            Ok(bytes) if !path.contains("..") => Answer::new(200, bytes),
            _ => Answer::new(404, "gone"),
        }
    })
}

/// `x-access-token:tok`
const BASIC: &str = "basic eC1hY2Nlc3MtdG9rZW46dG9r";

#[test]
fn privileged_repositories_are_shown_the_clients_login() {
    plugged(|plugged| {
        if plugged.at.daemon.is_foreign() {
            return testkit::skip::report("a foreign daemon may be in a network of its own");
        }
        let (repositories, image) = (Repositories::new(), plugged.at.image("gitlogin"));
        let (token, header) = (guarded(&repositories, BASIC), guarded(&repositories, "Bearer own"));
        let other = guarded(&repositories, "never");
        let (token, header) = (token.host(), header.host());
        let directory = context(&[(
            "Dockerfile",
            &format!(
                "FROM busybox\nADD http://{token}/x.git /token\nADD --keep-git-dir http://{header}/x.git /header\n"
            ),
        )]);
        let build = |flags: &str, place: &str| {
            let mut command = plugged.command(&format!("buildx build --progress plain -t {image} {flags} {place}"));
            command.env("GIT_AUTH_TOKEN", "tok").env("OWN", "Bearer own\n");
            testkit::process::run(&mut command, b"").unwrap()
        };
        let flags = format!("--secret id=GIT_AUTH_TOKEN --secret id=GIT_AUTH_HEADER.{header},env=OWN");
        let output = build(&flags, &path(&directory));
        assert_eq!(output.code, 0, "{output:?}");
        assert_eq!(plugged.at.run(&format!("{image} cat /token/file /header/file")), "two\ntwo");
        let found = plugged.at.run(&format!("{image} sh -c 'grep -r -e Bearer -e x-access /header || true'"));
        assert_eq!(found, "");
        // A context, too.
        let output = build("--secret id=GIT_AUTH_TOKEN", &format!("http://{token}/x.git#other"));
        assert_eq!(output.code, 0, "{output:?}");
        let without = build("", &format!("http://{token}/x.git"));
        assert!(without.code == 1 && without.stderr.contains("failed to fetch remote"), "{without:?}");
        let host = other.host();
        let refused =
            build(&format!("--secret id=GIT_AUTH_TOKEN.{token},env=GIT_AUTH_TOKEN"), &format!("http://{host}/x.git"));
        assert_eq!(refused.code, 1, "{refused:?}");
        let shown = other.requests("/x.git").iter().any(|request| request.header("authorization").is_some());
        assert!(!shown, "the login of one host was shown to another");
        plugged.at.ok(&format!("rmi {image}"));
    });
}

/// A process that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // One that has ended already is no loss.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn privileged_repositories_are_reached_by_the_clients_agent() {
    on_ours(|at: &At<'_>| {
        if at.cli != Cli::Longshore {
            return testkit::skip::report("docker's classic client forwards no agents");
        }
        let (repositories, image) = (Repositories::new(), at.image("gitssh"));
        let host = testkit::ssh::GitHost::start(&repositories.served()).unwrap();
        let socket = host.path("agent");
        let agent = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        let _agent = Ends(agent);
        until("the agent listens", DEADLINE, || socket.exists().then_some(())).unwrap();
        let mut add = Command::new("ssh-add");
        add.arg("-q").arg(host.path("key")).env("SSH_AUTH_SOCK", &socket);
        assert_eq!(testkit::process::run(&mut add, b"").unwrap().code, 0);
        let url = format!("ssh://root@127.0.0.1:{}{}/x.git", host.port(), repositories.served().display());
        let directory = context(&[("Dockerfile", &format!("FROM busybox\nADD {url} /x\n"))]);
        let mut command = at.daemon.command(at.cli).unwrap();
        command.args(["build", "-t", &image, "--ssh"]).arg(format!("default={}", socket.display()));
        let output = testkit::process::run(command.arg(directory.path()), b"").unwrap();
        assert_eq!(output.code, 0, "{output:?}");
        assert_eq!(at.run(&format!("{image} cat /x/file")), "two");
        let mut command = at.daemon.command(at.cli).unwrap();
        let output = testkit::process::run(command.args(["build", "--no-cache"]).arg(directory.path()), b"").unwrap();
        assert!(output.code == 1 && output.stderr.contains("Permission denied"), "{output:?}");
        at.ok(&format!("rmi {image}"));
    });
}

/// What git's own program of servers answers.
fn smart(served: &std::path::Path, request: &Request) -> Answer {
    let (place, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let mut command = Command::new("git");
    command.arg("http-backend").env("GIT_PROJECT_ROOT", served).env("GIT_HTTP_EXPORT_ALL", "1");
    command.env("PATH_INFO", place).env("QUERY_STRING", query).env("REQUEST_METHOD", &request.method);
    command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "safe.directory").env("GIT_CONFIG_VALUE_0", "*");
    for (header, name) in [
        ("content-type", "CONTENT_TYPE"),
        ("git-protocol", "GIT_PROTOCOL"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
    ] {
        command.env(name, request.header(header).unwrap_or_default());
    }
    command.env("CONTENT_LENGTH", request.body.len().to_string());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &request.body).unwrap();
    let output = child.wait_with_output().unwrap().stdout;
    let end = output.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let headers: Vec<(&str, &str)> = head.lines().filter_map(|line| line.split_once(": ")).collect();
    let status = headers.iter().find(|(name, _)| *name == "Status").and_then(|(_, value)| value.get(..3)?.parse().ok());
    let answer = Answer::new(status.unwrap_or(200), &output[end + 4..]);
    headers.iter().filter(|(name, _)| *name != "Status").fold(answer, |answer, (name, value)| answer.with(name, *value))
}

#[test]
fn privileged_repositories_come_by_gits_own_protocols() {
    on_ours(|at| {
        let (repositories, image) = (Repositories::new(), at.image("gitsmart"));
        let served = repositories.served();
        let root = served.clone();
        let server = Server::start(move |request: &Request| smart(&root, request));
        // Bound and let go: nobody else is given it soon.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut daemon = Command::new("git");
        daemon.args(["daemon", "--export-all", "--listen=127.0.0.1", &format!("--port={port}")]);
        daemon.arg(format!("--base-path={}", served.display())).env("GIT_CONFIG_COUNT", "1");
        daemon.env("GIT_CONFIG_KEY_0", "safe.directory").env("GIT_CONFIG_VALUE_0", "*");
        let _daemon = Ends(daemon.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(());
        until("git's daemon listens", DEADLINE, listens).unwrap();
        let lines = format!(
            "FROM busybox\nADD http://{}/x.git#other /smart\nADD git://127.0.0.1:{port}/x.git?tag=v1 /own\n",
            server.host()
        );
        let directory = context(&[("Dockerfile", &lines)]);
        let mut command = at.daemon.command(at.cli).unwrap();
        command.env("DOCKER_BUILDKIT", "0").args(["build", "-t", &image]).arg(directory.path());
        let output = testkit::process::run(&mut command, b"").unwrap();
        assert_eq!(output.code, 0, "{output:?}");
        assert_eq!(at.run(&format!("{image} cat /smart/file /own/file")), "one\none");
        // One commit alone is asked for where the server can do that.
        assert!(!server.requests("git-upload-pack").is_empty());
        at.ok(&format!("rmi {image}"));
    });
}
