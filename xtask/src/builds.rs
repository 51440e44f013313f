//! What Dockerfiles come to, beside Docker: each case is built by us and by a real daemon, by the classic API and by BuildKit's,
//! and the images are compared down to the bytes.
//!
//! ```text
//! cases     cases/*.cases: a Dockerfile, its context, and what is known to differ, with reasons
//! engine    one daemon and one way of building -> an exit code, what was said, `docker save`
//! image     the archive -> configuration, history, the paths of each layer, the file tree
//! compare   two of these -> differences by aspect; a known one that no longer differs is a fault, too
//! ```
//!
//! [`dockerfiles`] compares what is said of Dockerfiles of well-known projects, without building them.
//!
//! Both daemons have the real one's busybox. Images go when their case is done; what BuildKit caches stays in the real daemon.

mod cases;
mod compare;
mod dockerfiles;
mod engine;
mod image;

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use testkit::images::Archive;
use testkit::{Daemon, paths};

use crate::step::step;
use crate::{debian, dist, tools};
use cases::{Case, Known};
use compare::{Found, Way};
use engine::Engine;

/// The image that cases begin with.
const BASE: &str = "busybox:latest";

/// How old a file may be that is taken for the build's: BuildKit remembers those of heredocs from one run to the next.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// What the command line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Options {
    /// `unix:///SOCKET` of the real daemon.
    docker: String,
    /// Where Dockerfiles of other projects are; the cases are not built then.
    dockerfiles: Option<PathBuf>,
    /// Words of which a case's name has one; all cases if there is none.
    words: Vec<String>,
}

/// `compare-builds --docker unix:///SOCKET [--dockerfiles DIRECTORY] [WORD]...`
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let options = parse(arguments)?;
    ensure!(rustix::process::geteuid().is_root(), "containers and mounts need root");
    tools::install()?;
    let programs = dist::build(dist::Kind::Dev)?;
    debian::for_tests()?;
    let cases = cases::load()?;
    let chosen: Vec<&Case> = cases.iter().filter(|case| options.chooses(&case.name)).collect();
    ensure!(!chosen.is_empty(), "no case has one of these words in its name");
    let docker = Engine::new(options.docker.clone())?;
    let daemon = step("start longshored in a scratch directory", || Daemon::start_from(&programs, &[]))?;
    let ours = Engine::new(format!("unix://{}", daemon.socket().display()))?;
    step("give both daemons the same busybox", || share_base(&docker, &ours))?;
    let compared = match &options.dockerfiles {
        Some(directory) => dockerfiles::compare(directory, &docker, &ours),
        None => compare_all(&chosen, &docker, &ours),
    };
    step("clean up", || daemon.finish())?;
    compared
}

impl Options {
    fn chooses(&self, name: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| name.contains(word.as_str()))
    }
}

fn parse(arguments: &[&str]) -> Result<Options> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match *argument {
            "--docker" => options.docker = rest.next().context("--docker needs unix:///SOCKET")?.to_string(),
            "--dockerfiles" => {
                options.dockerfiles = Some(rest.next().context("--dockerfiles needs a directory")?.into())
            }
            flag if flag.starts_with('-') => bail!("unknown flag {flag}"),
            word => options.words.push(word.to_owned()),
        }
    }
    ensure!(options.docker.starts_with("unix://"), "say which daemon is to be compared with: --docker unix:///SOCKET");
    Ok(options)
}

/// Gives our daemon the real one's base, so that layers and configurations are equal; one that has none gets ours.
fn share_base(docker: &Engine, ours: &Engine) -> Result<()> {
    if docker.docker(&["image", "inspect", BASE])?.code != 0 {
        let archive = Archive::Busybox.path()?;
        docker.docker(&["load", "-i", &archive.display().to_string()])?.success()?;
    }
    let archive = tempfile::NamedTempFile::new_in(paths::target())?;
    let path = archive.path().display().to_string();
    docker.docker(&["save", "-o", &path, BASE])?.success()?;
    ours.docker(&["load", "-i", &path])?.success().map(drop)
}

/// What became of all builds.
#[derive(Debug, Default)]
struct Totals {
    same: usize,
    known: Vec<String>,
    different: Vec<String>,
}

fn compare_all(chosen: &[&Case], docker: &Engine, ours: &Engine) -> Result<()> {
    let begin = Instant::now();
    let began = (SystemTime::now() - REMEMBERED).duration_since(UNIX_EPOCH)?.as_secs();
    let mut totals = Totals::default();
    for case in chosen {
        let context = tempfile::tempdir()?;
        case.write(context.path()).with_context(|| format!("write the context of {}", case.name))?;
        for way in Way::ALL.into_iter().filter(|way| case.only.is_none_or(|only| only == *way)) {
            let name = format!("compared-{}-{}", std::process::id(), case.name);
            let right = || docker.build(way, &name, context.path(), &case.flags);
            let mine = || ours.build(way, &name, context.path(), &case.flags);
            let (right, mine) = std::thread::scope(|scope| {
                let right = scope.spawn(right);
                let mine = mine();
                (right.join().expect("a build's thread does not panic"), mine)
            });
            totals.take(case, way, &compare::compare(&right?, &mine?, way, began));
        }
    }
    let Totals { same, known, different } = &totals;
    println!(
        "{} cases: {same} builds the same, {} differ as known, {} differ; {:.0} s",
        chosen.len(),
        known.len(),
        different.len(),
        begin.elapsed().as_secs_f64()
    );
    ensure!(different.is_empty(), "not as they should be: {}", different.join(", "));
    Ok(())
}

impl Totals {
    /// Tells of one build, and counts it.
    fn take(&mut self, case: &Case, way: Way, found: &[Found]) {
        let name = format!("{} {way}", case.name);
        // What is said of the case itself comes first: only that has to be needed.
        let mut known: Vec<&Known> = case.known.iter().collect();
        known.sort_by_key(|known| known.everywhere);
        let mut used = vec![false; known.len()];
        let mut fine = true;
        for Found { aspect, lines } in found {
            let mut is_known = |line: &&String| {
                let covering = known.iter().position(|known| known.covers(way, *aspect, line));
                covering.inspect(|index| used[*index] = true).is_some()
            };
            let left: Vec<&String> = lines.iter().filter(|line| !is_known(line)).collect();
            if !left.is_empty() {
                println!("{name}: {aspect} DIFFERS");
                left.iter().for_each(|line| println!("    {line}"));
                fine = false;
            }
        }
        // A reason for nothing would hide the next difference.
        let here = |known: &Known| !known.everywhere && known.way.is_none_or(|one| one == way);
        for (known, _) in known.iter().zip(&used).filter(|(known, used)| here(known) && !**used) {
            println!("{name}: {} differs no more, where {:?}", known.aspect, known.reason);
            fine = false;
        }
        let reason = known.iter().zip(&used).find(|(known, used)| **used && !known.everywhere);
        match (fine, reason) {
            (false, _) => self.different.push(name),
            (true, Some((known, _))) => {
                println!("{name}: differs, as known: {}", known.reason);
                self.known.push(name);
            }
            (true, None) => {
                println!("{name}: same");
                self.same += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests;
