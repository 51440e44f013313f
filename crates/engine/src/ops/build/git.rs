//! Repositories, fetched by the program `git` into a build's own place.
//!
//! ```text
//! <data-root>/builds/<build>/web/<number>/tree   the files of one commit, and .git where that is wanted
//!                                       /out,err what git says
//! ```
//! A server is hostile, and so is what a repository says of itself: git reads no configuration but ours, runs no hook,
//! asks nobody, and speaks to servers alone, in submodules, too (CVE-2017-1000117, CVE-2022-39253 are of other ways). It
//! has its time and its bytes, and all of its processes end with the build, and the first of them with the daemon.

use std::fs::{self, File};
use std::io::{self, PipeReader, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use dockerfile::GitAddress;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tracing::debug;

use super::git_access::Access;

/// How long everything that is asked of one repository may take.
const TIME_MAX: Duration = Duration::from_secs(60 * 60);

/// The most that lies below a repository's place, in bytes: more than any history that people add to an image.
const BYTES_MAX: u64 = 16 << 30;

/// How often what lies there is counted, at least.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// How much is read of what git says.
const SAID_MAX: u64 = 64 * 1024;

/// The longest of git's own files of configuration that is looked into, in bytes.
const CONFIGURATION_MAX: u64 = 16 * 1024 * 1024;

/// Of all that git could read of a configuration only this is there; submodules are fetched with it, too.
const CONFIGURATION: [(&str, &str); 11] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("credential.helper", ""),
    ("init.defaultBranch", "master"),
    ("advice.detachedHead", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("transfer.bundleURI", "false"),
    // A server that says nothing for a minute has stopped.
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "60"),
    ("safe.directory", "*"),
];

/// As BuildKit has it, but with none of root's own keys and hosts.
const SSH: &str = "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
                   -o IdentityFile=none -o ConnectTimeout=30 -o ServerAliveInterval=20";

/// What is handed on of the daemon's environment, as BuildKit does.
const HANDED_ON: [&str; 9] = [
    "PATH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
];

/// Why nothing came of a repository. The sentences are BuildKit's where it has one.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no git.
    #[error("failed to find git binary: exec: \"git\": executable file not found in $PATH")]
    Missing,
    /// The server or the repository says no.
    #[error("failed to {what} {remote}: git stderr:\n{said}: {status}")]
    Failed {
        /// What was being done.
        what: &'static str,
        /// The repository, without a password.
        remote: String,
        /// What git says.
        said: String,
        /// How it ended.
        status: String,
    },
    /// It has no such reference.
    #[error("repository does not contain ref {reference}, output: {output:?}")]
    Reference {
        /// What was asked for.
        reference: String,
        /// What git says there is.
        output: String,
    },
    /// What it should be is no commit.
    #[error("invalid checksum {0} for Git source, expected hex commit hash")]
    BadChecksum(String),
    /// It is another commit.
    #[error("expected checksum to match {wanted}, got {found}")]
    Checksum {
        /// What it should be.
        wanted: String,
        /// What it is.
        found: String,
    },
    /// What is asked for is no directory of it.
    #[error("failed to open subdir {0}: not a directory of the repository")]
    Directory(String),
    /// It is too large.
    #[error("the repository {0} takes more than 16 GiB")]
    Bytes(String),
    /// It takes too long.
    #[error("the repository {0} did not come within an hour")]
    Time(String),
    /// The build has ended.
    #[error("the build has ended")]
    Ended,
    /// git cannot be run, or its files not be read.
    #[error("run git")]
    Run(#[source] io::Error),
}

/// A repository that is asked for, and where it goes.
pub(super) struct Repository {
    pub(super) address: GitAddress,
    pub(super) keep_git_dir: bool,
    /// What its server is shown.
    pub(super) access: Access,
    /// Its own directory, which need not be there.
    pub(super) place: PathBuf,
}

/// What has come.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    /// Its name.
    pub(super) name: String,
    /// The tag's own name, if it was named by an annotated one.
    tag: Option<String>,
}

impl Repository {
    /// Asks which commit it is, or where `fetches` has it come; ends when nobody waits any more.
    pub(super) async fn look(self, fetches: bool) -> Result<Commit, GitError> {
        // Dropped with us.
        let (ended, ends) = io::pipe().map_err(GitError::Run)?;
        // One thread starts git and waits for it: git ends with it.
        let looked = bridge::waiting(move || {
            let git = Git::new(&self, ended)?;
            let commit = if fetches { git.fetch()? } else { git.ask()? };
            git.check(&commit)?;
            Ok(commit)
        })
        .await;
        drop(ends);
        looked
    }
}

/// git on its way.
struct Git<'a> {
    repository: &'a Repository,
    tree: PathBuf,
    /// At its end when nobody waits any more.
    ended: PipeReader,
    deadline: Instant,
}

impl Git<'_> {
    fn new(repository: &Repository, ended: PipeReader) -> Result<Git<'_>, GitError> {
        let tree = repository.place.join("tree");
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&tree).map_err(GitError::Run)?;
        Ok(Git { repository, tree, ended, deadline: Instant::now() + TIME_MAX })
    }

    /// The commit that a reference stands for now.
    fn ask(&self) -> Result<Commit, GitError> {
        let reference = self.reference();
        if is_commit(reference) {
            return Ok(Commit { name: reference.to_owned(), tag: None });
        }
        let peeled = format!("{reference}^{{}}");
        let output =
            self.must("fetch remote", &["ls-remote", "--", &self.repository.address.remote, reference, &peeled])?;
        commit(&output, reference)
            .ok_or_else(|| GitError::Reference { reference: reference.to_owned(), output: shortened(&output) })
    }

    fn reference(&self) -> &str {
        match self.repository.address.reference.as_str() {
            "" => "HEAD",
            reference => reference,
        }
    }

    /// Has the files come.
    fn fetch(&self) -> Result<Commit, GitError> {
        let asked = self.ask()?;
        self.must("init repo for", &["init", "--quiet", "--template="])?;
        self.must("add origin", &["remote", "add", "--", "origin", &self.repository.address.remote])?;
        self.fetch_commit(&asked)?;
        self.must("checkout remote", &["checkout", "--quiet", "--force", "--detach", &asked.name, "--"])?;
        if self.repository.address.submodules != Some(false) {
            let update = ["submodule", "--quiet", "update", "--init", "--recursive"];
            self.shallow("update submodules for", &update, &[])?;
        }
        if self.repository.keep_git_dir && self.directory().is_empty() {
            self.must("set remote origin to", &["remote", "set-url", "origin", &self.repository.address.shown()])?;
            self.must("expire reflog for", &["reflog", "expire", "--all", "--expire=now"])?;
            self.forget(".git/FETCH_HEAD")?;
            self.clean_configuration(&self.tree.join(".git")).map_err(GitError::Run)?;
        } else {
            remove_git(&self.tree).map_err(GitError::Run)?;
        }
        self.has_directory()?;
        Ok(asked)
    }

    /// Fetches a commit: by itself where the server gives it, else by its branch or tag, else with all there is.
    fn fetch_commit(&self, asked: &Commit) -> Result<(), GitError> {
        let reference = self.reference();
        let by = if is_commit(reference) || reference == "HEAD" { &asked.name } else { reference };
        let first = self.shallow("fetch remote", &["fetch", "--quiet", "--no-tags"], &["--", "origin", by]);
        if first.is_ok() && self.has(&asked.name)? {
            return Ok(());
        }
        if let Err(err @ (GitError::Ended | GitError::Time(_) | GitError::Bytes(_) | GitError::Run(_))) = first {
            return Err(err);
        }
        let all =
            ["fetch", "--quiet", "--tags", "--update-shallow", "--", "origin", "+refs/heads/*:refs/remotes/origin/*"];
        self.must("fetch remote", &all)?;
        match self.has(&asked.name)? {
            true => Ok(()),
            false => first.map(drop),
        }
    }

    fn has(&self, commit: &str) -> Result<bool, GitError> {
        Ok(self.run(&["cat-file", "-e", &format!("{commit}^{{commit}}")])?.0.success())
    }

    /// The same with the last commit alone; with all of them where the server cannot do that.
    fn shallow(&self, what: &'static str, command: &[&str], behind: &[&str]) -> Result<String, GitError> {
        let shallow = [command, &["--depth=1"], behind].concat();
        match self.must(what, &shallow) {
            Err(GitError::Failed { said, .. }) if said.contains("shallow") || said.contains("--depth") => {
                self.must(what, &[command, behind].concat())
            }
            outcome => outcome,
        }
    }

    fn check(&self, commit: &Commit) -> Result<(), GitError> {
        let wanted = &self.repository.address.checksum;
        if !wanted.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(GitError::BadChecksum(wanted.clone()));
        }
        let lower = wanted.to_ascii_lowercase();
        if commit.name.starts_with(&lower) || commit.tag.as_ref().is_some_and(|tag| tag.starts_with(&lower)) {
            return Ok(());
        }
        let found = match &commit.tag {
            Some(tag) => format!("{tag} or {}", commit.name),
            None => commit.name.clone(),
        };
        Err(GitError::Checksum { wanted: wanted.clone(), found })
    }

    fn directory(&self) -> &str {
        self.repository.address.directory()
    }

    /// Looks whether what counts is a directory, on the way to which nothing leads elsewhere.
    fn has_directory(&self) -> Result<(), GitError> {
        let mut place = self.tree.clone();
        for part in self.directory().split('/').filter(|part| !matches!(*part, "" | ".")) {
            place.push(part);
            let is_directory = fs::symlink_metadata(&place).is_ok_and(|found| found.is_dir());
            if part == ".." || !is_directory {
                return Err(GitError::Directory(self.repository.address.directory.clone()));
            }
        }
        Ok(())
    }

    fn forget(&self, name: &str) -> Result<(), GitError> {
        match fs::remove_file(self.tree.join(name)) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(GitError::Run(err)),
            _ => Ok(()),
        }
    }

    /// Takes passwords out of what git has written down of addresses: submodules have them from the one above.
    fn clean_configuration(&self, place: &Path) -> io::Result<()> {
        for entry in fs::read_dir(place)? {
            let (entry, kind) = entry.and_then(|entry| entry.file_type().map(|kind| (entry, kind)))?;
            if kind.is_dir() {
                self.clean_configuration(&entry.path())?;
            } else if kind.is_file() && matches!(entry.file_name().to_str(), Some("config" | "FETCH_HEAD")) {
                if entry.metadata()?.len() > CONFIGURATION_MAX {
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
                let text = String::from_utf8_lossy(&fs::read(entry.path())?).into_owned();
                let clean = self.repository.address.without_credentials(&text);
                if clean != text {
                    fs::write(entry.path(), clean)?;
                }
            }
        }
        Ok(())
    }

    fn must(&self, what: &'static str, arguments: &[&str]) -> Result<String, GitError> {
        let (status, output, said) = self.run(arguments)?;
        if status.success() {
            return Ok(output);
        }
        let remote = self.repository.address.shown();
        // git tells addresses as it was given them.
        let said = self.repository.address.without_credentials(&said);
        let status = status.to_string().replace("exit status: ", "exit status ");
        Err(GitError::Failed { what, remote, said, status })
    }

    /// Runs git in the tree; answers how it ended, and what it says.
    fn run(&self, arguments: &[&str]) -> Result<(ExitStatus, String, String), GitError> {
        let place = &self.repository.place;
        let (out, err) = (place.join("out"), place.join("err"));
        let mut command = Command::new("git");
        command.args(arguments).current_dir(&self.tree).env_clear().envs(environment(&self.repository.access));
        command.env("GIT_CEILING_DIRECTORIES", place).stdin(Stdio::null());
        command.stdout(File::create(&out).map_err(GitError::Run)?);
        command.stderr(File::create(&err).map_err(GitError::Run)?);
        sys::tied::tie(&mut command, BYTES_MAX);
        let child = command.spawn().map_err(|err| match err.kind() {
            io::ErrorKind::NotFound => GitError::Missing,
            _ => GitError::Run(err),
        })?;
        let status = self.wait(child)?;
        Ok((status, read(&out).map_err(GitError::Run)?, read(&err).map_err(GitError::Run)?))
    }

    /// Waits for git as long as it may take; all of its processes are gone behind this.
    fn wait(&self, mut child: Child) -> Result<ExitStatus, GitError> {
        let pid = Pid::from_child(&child);
        let waited = self.watch(pid);
        // Not reaped yet, it keeps the group's number from being anybody else's.
        if let Err(err) = kill_process_group(pid, Signal::KILL) {
            // Of a group there is nothing left to end.
            debug!(%err, "the processes of git are gone already");
        }
        let status = child.wait().map_err(GitError::Run)?;
        waited.map(|()| status)
    }

    fn watch(&self, pid: Pid) -> Result<(), GitError> {
        let failed = |err: rustix::io::Errno| GitError::Run(err.into());
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(failed)?;
        let mut pause = COUNT_EVERY;
        loop {
            let mut waits = [PollFd::new(&pidfd, PollFlags::IN), PollFd::new(&self.ended, PollFlags::IN)];
            let seconds = Timespec { tv_sec: pause.as_secs().cast_signed(), tv_nsec: pause.subsec_nanos().into() };
            match poll(&mut waits, Some(&seconds)) {
                Err(rustix::io::Errno::INTR) => continue,
                polled => polled.map_err(failed)?,
            };
            if !waits[1].revents().is_empty() {
                return Err(GitError::Ended);
            }
            let has_ended = !waits[0].revents().is_empty();
            let began = Instant::now();
            if bytes(&self.repository.place) > BYTES_MAX {
                return Err(GitError::Bytes(self.repository.address.shown()));
            }
            if has_ended {
                return Ok(());
            }
            if Instant::now() > self.deadline {
                return Err(GitError::Time(self.repository.address.shown()));
            }
            // Where there is much to count it is counted less often.
            pause = COUNT_EVERY.max(began.elapsed() * 10);
        }
    }
}

/// All that git sees of variables.
fn environment(access: &Access) -> Vec<(String, String)> {
    let handed_on = HANDED_ON.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    let fixed = [
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_ATTR_NOSYSTEM", "1"),
        ("GIT_ALLOW_PROTOCOL", "http:https:git:ssh"),
        ("GIT_SSH_COMMAND", SSH),
        ("HOME", "/dev/null"),
        ("LC_ALL", "C"),
    ];
    let fixed = fixed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let login = access.header.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let all: Vec<(&str, &str)> = CONFIGURATION.iter().copied().chain(login).collect();
    let count = ("GIT_CONFIG_COUNT".to_owned(), all.len().to_string());
    let configured = all.into_iter().enumerate().flat_map(|(number, (name, value))| {
        [
            (format!("GIT_CONFIG_KEY_{number}"), name.to_owned()),
            (format!("GIT_CONFIG_VALUE_{number}"), value.to_owned()),
        ]
    });
    let agent = access.agent().map(|path| ("SSH_AUTH_SOCK".to_owned(), path.display().to_string()));
    handed_on.chain(fixed).chain(configured).chain([count]).chain(agent).collect()
}

/// Whether a text is a commit's whole name.
fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// What a reference stands for in what `ls-remote` says: tags before branches, as gitrevisions(7) has it; what an
/// annotated tag is of stands behind `^{}`.
fn commit(output: &str, reference: &str) -> Option<Commit> {
    let find = |wanted: &str| {
        let mut lines = output.lines().filter_map(|line| line.split_once('\t'));
        lines.find(|(name, path)| *path == wanted && is_commit(name)).map(|(name, _)| name.to_owned())
    };
    ["", "refs/", "refs/tags/", "refs/heads/", "refs/remotes/"].iter().find_map(|above| {
        let path = format!("{above}{reference}");
        let name = find(&path)?;
        Some(match find(&format!("{path}^{{}}")) {
            Some(peeled) => Commit { name: peeled, tag: Some(name) },
            None => Commit { name, tag: None },
        })
    })
}

fn shortened(text: &str) -> String {
    text.chars().take(1024).collect()
}

/// What git says, up to a bound.
fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(SAID_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// How much lies below a directory. What goes meanwhile does not count.
fn bytes(place: &Path) -> u64 {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let of = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    of.fold(0, u64::saturating_add)
}

/// Removes what git has left in a tree: of submodules only where their history lies, which says where this was.
fn remove_git(tree: &Path) -> io::Result<()> {
    for entry in fs::read_dir(tree)? {
        let entry = entry?;
        let (kind, is_git) = (entry.file_type()?, entry.file_name() == ".git");
        match (kind.is_dir(), is_git) {
            (true, true) => fs::remove_dir_all(entry.path())?,
            (false, true) => fs::remove_file(entry.path())?,
            (true, false) => remove_git(&entry.path())?,
            (false, false) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_found_as_git_finds_them() {
        let (a, b, c) = ("a".repeat(40), "b".repeat(40), "c".repeat(40));
        let output = format!(
            "{a}\trefs/heads/x/v1\n{b}\trefs/heads/v1\n{c}\trefs/tags/v2\n{a}\trefs/tags/v2^{{}}\nno\trefs/heads/v3\n"
        );
        let found = |reference: &str| {
            commit(&output, reference).map(|commit| format!("{} {}", &commit.name[..1], commit.tag.is_some()))
        };
        assert_eq!(found("v1").as_deref(), Some("b false"));
        assert_eq!(found("x/v1").as_deref(), Some("a false"));
        assert_eq!(found("v2").as_deref(), Some("a true"));
        assert_eq!(found("refs/heads/v1").as_deref(), Some("b false"));
        assert_eq!((found("v3"), found("v4")), (None, None));
    }
}
