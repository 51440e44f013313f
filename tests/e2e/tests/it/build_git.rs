//! `ADD` of Git repositories, which a server of plain files in the test gives.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use testkit::Output;
use testkit::process::{DEADLINE, until};
use testkit::registry::{Answer, Request, Server};

use crate::build::context;
use crate::build_remote::on_ours;
use crate::buildx::plugged;
use crate::support::At;

/// Repositories: what is worked on, and the bare ones that are served.
pub(crate) struct Repositories {
    root: TempDir,
    pub(crate) server: Server,
}

impl Repositories {
    /// `x.git`: branches `main` and `other`, an annotated tag `v1`.
    pub(crate) fn new() -> Repositories {
        let root = tempfile::tempdir().unwrap();
        let served = root.path().join("served");
        let server = Server::start(move |request: &Request| {
            let path = request.path.split('?').next().unwrap().trim_start_matches('/');
            match fs::read(served.join(path)) {
                Ok(bytes) if !path.contains("..") => Answer::new(200, bytes),
                _ => Answer::new(404, "gone"),
            }
        });
        let repositories = Repositories { root, server };
        repositories.commit("x", &[("file", "one\n"), ("sub/deep", "deep\n"), ("Dockerfile", DOCKERFILE)]);
        repositories.git("x", &["tag", "-a", "-m", "first", "v1"]);
        repositories.git("x", &["branch", "other"]);
        repositories.commit("x", &[("file", "two\n")]);
        repositories.serve("x");
        repositories
    }

    /// Where the bare ones are.
    pub(crate) fn served(&self) -> std::path::PathBuf {
        self.root.path().join("served")
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://{}/{name}.git", self.server.host())
    }

    /// Runs git in what is worked on; answers what it says.
    pub(crate) fn git(&self, name: &str, arguments: &[&str]) -> String {
        let place = self.root.path().join(name);
        fs::create_dir_all(&place).unwrap();
        git(&place, arguments)
    }

    /// Makes a commit of files.
    pub(crate) fn commit(&self, name: &str, files: &[(&str, &str)]) {
        let place = self.root.path().join(name);
        self.git(name, &["init", "-q", "-b", "main"]);
        for (file, text) in files {
            fs::create_dir_all(place.join(file).parent().unwrap()).unwrap();
            fs::write(place.join(file), text).unwrap();
        }
        self.git(name, &["add", "."]);
        self.git(name, &["commit", "-q", "-m", "more"]);
    }

    /// Gives a server of files what there is.
    pub(crate) fn serve(&self, name: &str) {
        let bare = self.root.path().join("served").join(format!("{name}.git"));
        let place = self.root.path().join(name);
        let _ = fs::remove_dir_all(&bare);
        fs::create_dir_all(&bare).unwrap();
        git(&bare, &["clone", "-q", "--bare", &place.display().to_string(), "."]);
        git(&bare, &["update-server-info"]);
    }
}

const DOCKERFILE: &str = "FROM busybox\nCOPY file /from-context\n";

fn git(place: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(place).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "t").env(format!("GIT_{who}_EMAIL"), "t@t");
    }
    let output = testkit::process::run(&mut command, b"").unwrap();
    assert_eq!(output.code, 0, "{arguments:?}: {output:?}");
    output.stdout.trim().to_owned()
}

fn build(at: &At<'_>, image: &str, lines: &str) -> Output {
    let directory = context(&[("Dockerfile", &format!("FROM busybox\n{lines}\n"))]);
    let mut command = at.daemon.command(at.cli).unwrap();
    command.env("DOCKER_BUILDKIT", "0").args(["build", "-t", image]).arg(directory.path());
    testkit::process::run(&mut command, b"").unwrap()
}

#[test]
fn privileged_repositories_are_added_by_branch_tag_commit_and_directory() {
    on_ours(|at| {
        let (repositories, image) = (Repositories::new(), at.image("git"));
        let url = repositories.url("x");
        let first = repositories.git("x", &["rev-parse", "other"]);
        let lines = format!(
            "ADD {url} /head\nADD {url}#other /other\nADD {url}#v1:sub /tag\nADD {url}#{first} /commit/\n\
             ADD --keep-git-dir=true --checksum={first} {url}?tag=v1 /kept\nADD --chown=3:4 --exclude=sub {url}#main /own"
        );
        let output = build(at, &image, &lines);
        assert_eq!(output.code, 0, "{output:?}");
        let run = |line: &str| at.run(&format!("{image} {line}"));
        assert_eq!(run("cat /head/file /other/file /tag/deep /commit/file"), "two\none\ndeep\none");
        assert_eq!(run("ls -A /head"), "Dockerfile\nfile\nsub");
        assert_eq!(run("cat /kept/.git/HEAD"), first);
        assert!(!run("cat /kept/.git/config").contains("hook"));
        assert_eq!(run("stat -c %a-%u-%g /own/file /head/file"), "644-3-4\n644-0-0");
        assert_eq!(run("ls -A /own"), "Dockerfile\nfile");
        at.ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_a_branch_that_has_not_moved_is_known() {
    on_ours(|at| {
        let (repositories, image) = (Repositories::new(), at.image("gitknown"));
        let lines = format!("ADD {}#main /x", repositories.url("x"));
        assert_eq!(build(at, &image, &lines).code, 0);
        let asked = || repositories.server.requests("/objects/").len();
        let before = asked();
        let again = build(at, &image, &lines);
        assert!(again.stdout.contains("Using cache"), "{again:?}");
        assert_eq!(asked(), before, "only references are asked for");
        repositories.commit("x", &[("file", "three\n")]);
        repositories.serve("x");
        let moved = build(at, &image, &lines);
        assert!(moved.code == 0 && !moved.stdout.contains("Using cache"), "{moved:?}");
        assert_eq!(at.run(&format!("{image} cat /x/file")), "three");
        at.ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_a_kept_repository_says_where_it_came_from() {
    on_ours(|at| {
        let (repositories, image) = (Repositories::new(), at.image("gitfork"));
        std::os::unix::fs::symlink("x.git", repositories.served().join("fork.git")).unwrap();
        for name in ["x", "fork"] {
            let url = repositories.url(name);
            let output = build(at, &image, &format!("ADD --keep-git-dir=true {url}#main /x"));
            assert_eq!(output.code, 0, "{output:?}");
            let configuration = at.run(&format!("{image} cat /x/.git/config"));
            assert!(configuration.contains(&format!("url = {url}\n")), "{url}: {configuration}");
        }
        at.ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_submodules_come_from_servers_alone() {
    on_ours(|at| {
        let (repositories, image) = (Repositories::new(), at.image("gitsub"));
        let of = |name: &str, path: &str, url: &str| {
            let modules = format!("[submodule \"x\"]\n\tpath = {path}\n\turl = {url}\n");
            repositories.commit(name, &[(".gitmodules", &modules)]);
            let commit = repositories.git("x", &["rev-parse", "HEAD"]);
            repositories.git(name, &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{path}")]);
            repositories.git(name, &["commit", "-q", "-m", "submodule"]);
            repositories.serve(name);
        };
        of("above", "inner", "../x.git");
        of("local", "inner", &format!("file://{}", repositories.root.path().join("served/x.git").display()));
        let (above, local) = (repositories.url("above"), repositories.url("local"));
        let output = build(at, &image, &format!("ADD {above} /with\nADD {above}?submodules=false /without"));
        assert_eq!(output.code, 0, "{output:?}");
        assert_eq!(at.run(&format!("{image} cat /with/inner/file")), "two");
        assert_eq!(
            at.run(&format!("{image} ls -A /with/inner /without/inner")),
            "/with/inner:\nDockerfile\nfile\nsub\n\n/without/inner:"
        );
        // What a submodule's address has from the one above is nobody's who gets the image.
        let secret = above.replace("http://", "http://me:secret@");
        let output = build(at, &image, &format!("ADD {secret}?keep-git-dir /kept"));
        assert_eq!(output.code, 0, "{output:?}");
        let found = at.run(&format!("{image} sh -c 'cat /kept/inner/file; grep -r secret /kept || true'"));
        assert_eq!(found, "two");
        let refused = build(at, &image, &format!("ADD {local} /x"));
        assert!(refused.code == 1 && refused.stderr.contains("transport 'file' not allowed"), "{refused:?}");
        at.ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_what_repositories_do_not_have_is_told() {
    on_ours(|at| {
        let (repositories, image) = (Repositories::new(), at.image("gitwrong"));
        let (url, none) = (repositories.url("x"), repositories.url("none"));
        for (line, wanted) in [
            (format!("ADD {url}#gone /"), "ADD failed: repository does not contain ref gone, output: \"\"".to_owned()),
            (format!("ADD {none} /"), format!("ADD failed: failed to fetch remote {none}: git stderr:\n")),
            (format!("ADD {url}#main:none /"), "ADD failed: failed to open subdir none".to_owned()),
            (format!("ADD --checksum=00 {url} /"), "ADD failed: expected checksum to match 00, got ".to_owned()),
            (format!("ADD --checksum=xy {url} /"), "invalid checksum xy for Git source, expected hex".to_owned()),
            (format!("ADD {url}#--upload-pack=x /"), "invalid git reference \"--upload-pack=x\"".to_owned()),
            (format!("COPY {url} /"), "COPY failed: source can't be a git ref for COPY".to_owned()),
        ] {
            let output = build(at, &image, &line);
            assert!(output.code == 1 && output.stderr.contains(&wanted), "{wanted} in {output:?}");
        }
    });
}

#[test]
fn privileged_buildx_adds_repositories() {
    plugged(|plugged| {
        if plugged.at.daemon.is_foreign() {
            return testkit::skip::report("a foreign daemon may be in a network of its own");
        }
        let (repositories, image) = (Repositories::new(), plugged.at.image("gitx"));
        let url = repositories.url("x");
        let directory = context(&[("Dockerfile", &format!("FROM busybox\nADD {url}#v1 /x\n"))]);
        plugged.build(&image, &directory, "");
        assert_eq!(plugged.at.run(&format!("{image} cat /x/file")), "one");
        assert!(plugged.build(&image, &directory, "").contains("CACHED"));
        plugged.at.ok(&format!("rmi {image}"));
        let directory = context(&[("Dockerfile", &format!("FROM busybox\nADD {url}#gone /x\n"))]);
        let told = plugged.fails(&directory, "");
        let wanted = "failed to load cache key: repository does not contain ref gone, output: \"\"\n";
        assert!(told.ends_with(wanted), "{told}");
    });
}

/// Builds of an address: `longshore` has the daemon fetch it, docker's own client does so itself.
fn build_of(at: &At<'_>, image: &str, flags: &[&str], url: &str) -> Output {
    let mut command = at.daemon.command(at.cli).unwrap();
    command.env("DOCKER_BUILDKIT", "0").args(["build", "-t", image]).args(flags).arg(url);
    testkit::process::run(&mut command, b"").unwrap()
}

#[test]
fn privileged_contexts_are_fetched_from_repositories() {
    on_ours(|at| {
        let (repositories, image) = (Repositories::new(), at.image("gitcontext"));
        let url = repositories.url("x");
        for (fragment, wanted) in [("#main", "two"), ("#other", "one"), ("#v1", "one")] {
            let output = build_of(at, &image, &[], &format!("{url}{fragment}"));
            assert_eq!(output.code, 0, "{output:?}");
            assert_eq!(at.run(&format!("{image} cat /from-context")), wanted);
        }
        let output = build_of(at, &image, &[], &format!("{url}#main:sub"));
        assert_eq!(output.code, 1, "{output:?}");
        if at.cli == testkit::Cli::Longshore {
            assert!(output.stderr.contains("Cannot locate specified Dockerfile: Dockerfile"), "{output:?}");
            let gone = build_of(at, &image, &[], &format!("{url}#gone"));
            assert!(gone.stderr.contains("repository does not contain ref gone"), "{gone:?}");
        }
        at.ok(&format!("rmi {image}"));
    });
}

#[test]
fn privileged_contexts_are_fetched_from_the_web() {
    on_ours(|at| {
        let entries = [
            testkit::images::plan::Entry::file("Dockerfile", "FROM busybox\nCOPY file /x\n"),
            testkit::images::plan::Entry::file("file", "packed\n"),
            testkit::images::plan::Entry::file("D", "FROM busybox\nRUN echo other > /x\n"),
        ];
        let tar = testkit::images::write::layer_tar(&entries).unwrap();
        let server = Server::start(move |request: &Request| match request.path.as_str() {
            "/x.tar" => Answer::new(200, tar.clone()).with("Content-Type", "application/x-tar"),
            "/Dockerfile" => Answer::new(200, "FROM busybox\nRUN echo text > /x\n").with("Content-Type", "text/plain"),
            _ => Answer::new(404, "gone"),
        });
        let (image, host) = (at.image("webcontext"), server.host());
        for (flags, path, wanted) in
            [(&[][..], "x.tar", "packed"), (&["-f", "D"], "x.tar", "other"), (&[], "Dockerfile", "text")]
        {
            let output = build_of(at, &image, flags, &format!("http://{host}/{path}"));
            assert_eq!(output.code, 0, "{path}: {output:?}");
            assert_eq!(at.run(&format!("{image} cat /x")), wanted);
        }
        let output = build_of(at, &image, &[], &format!("http://{host}/none"));
        assert_eq!(output.code, 1, "{output:?}");
        if at.cli == testkit::Cli::Longshore {
            let wanted =
                format!("error downloading remote context http://{host}/none: failed to GET http://{host}/none");
            assert!(output.stderr.contains(&wanted), "{output:?}");
        }
        at.ok(&format!("rmi {image}"));
    });
}

/// Whether a process of git's goes on that was told this address.
fn is_asked_for(host: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).into_owned()).any(|line| {
        let program = line.split('\0').next().unwrap_or_default();
        program.contains("git") && line.contains(host)
    })
}

#[test]
fn privileged_git_ends_with_its_build() {
    on_ours(|at| {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        let server = Server::start(move |_: &Request| {
            // Never released but by its end.
            let _ = held.lock().unwrap().recv();
            Answer::new(404, "gone")
        });
        let (host, image) = (server.host(), at.image("gitends"));
        let text = format!("FROM busybox\nADD http://{host}/x.git /x\n");
        let directory = context(&[("Dockerfile", &text)]);
        let mut command = at.daemon.command(at.cli).unwrap();
        command.env("DOCKER_BUILDKIT", "0").args(["build", "-t", &image]).arg(directory.path());
        let mut client =
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        until("git asks the server", DEADLINE, || is_asked_for(&host).then_some(())).unwrap();
        client.kill().unwrap();
        client.wait().unwrap();
        until("git ends with the build", DEADLINE, || (!is_asked_for(&host)).then_some(())).unwrap();
        drop(release);
    });
}
