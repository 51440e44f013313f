//! kill -9 in the middle of what users do, at random points: what was acknowledged is there, nothing half-made shows, what
//! ran runs on, and nothing is left.
//!
//! Each round types some lines at once, kills after a random part of the time that they usually take, and looks.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use testkit::images::plan::{Entry, Image, Kind};
use testkit::images::write::{Compression, docker_archive, oci_layout};
use testkit::mutate::Mutator;
use testkit::process::{DEADLINE, until};
use testkit::registry::{Debian, Served};
use testkit::{Cli, Daemon, Piped, leaks};

use crate::support::{At, ours};

/// How many rounds the long tests have.
const ROUNDS: usize = 200;

/// How many rounds the quick ones have.
const ROUNDS_QUICK: usize = 30;

/// How many lines are typed at once.
const CLIENTS: usize = 3;

/// The seed of the rounds, as a failed test has printed it. The kernel's scheduler has a say, too.
const SEED_VARIABLE: &str = "LONGSHORE_CRASH_SEED";

/// Something users do, which a kill may cut.
struct Operation {
    /// What is typed before; `NAME` is the name of a container.
    before: &'static str,
    /// What is cut.
    line: &'static str,
    /// How the thing is looked at.
    state: fn(&Daemon, &str) -> String,
    /// How the thing is when the line has succeeded.
    done: &'static str,
    /// How else it may be when the line was cut.
    cut: &'static [&'static str],
}

/// There is none of that name.
const ABSENT: &str = "absent";

/// A container that runs until it is killed.
const RUN: &str = "run -d --network none --name NAME busybox sleep 1000";

/// The same on the bridge with a published port, and with a named and an anonymous volume.
const PUBLISH: &str = "run -d -p 127.0.0.1::80 --name NAME busybox sleep 1000";
const WITH_VOLUMES: &str = "run -d --network none -v NAME:/named -v /anonymous --name NAME busybox sleep 1000";

const OPERATIONS: &[Operation] = &[
    on_image("load -q -i ARCHIVE", loaded_state),
    on_image("pull -q REGISTRY/pulled:1", pulled_state),
    on_image("create --network none --name NAME REGISTRY/pulled:1", pulled_state),
    on_container("", "create --network none --name NAME busybox sleep 1000", "created", &[ABSENT]),
    on_container("create --network none --name NAME busybox sleep 1000", "start NAME", "running", &["created"]),
    on_container("", RUN, "running", &[ABSENT, "created"]),
    on_container("", "run --rm --network none --name NAME busybox true", ABSENT, &["created"]),
    on_container(RUN, "exec NAME true", "running", &[]),
    on_container(RUN, "stop -s KILL NAME", "exited", &["running"]),
    on_container(RUN, "rm -f NAME", ABSENT, &["running", "exited"]),
    on_container("", PUBLISH, "running", &[ABSENT, "created"]),
    on_container(PUBLISH, "stop -s KILL NAME", "exited", &["running"]),
    on_container(PUBLISH, "rm -f NAME", ABSENT, &["running", "exited"]),
    on_container("", WITH_VOLUMES, "running", &[ABSENT, "created"]),
    on_container("", "run --rm --network none -v /anonymous --name NAME busybox true", ABSENT, &["created"]),
    on_container(WITH_VOLUMES, "rm -f -v NAME", ABSENT, &["running", "exited"]),
    on_volume("", "volume create NAME", "there", &[ABSENT]),
    on_volume("volume create NAME", "volume rm NAME", ABSENT, &["there"]),
];

const fn on_container(
    before: &'static str,
    line: &'static str,
    done: &'static str,
    cut: &'static [&'static str],
) -> Operation {
    Operation { before, line, state: container_state, done, cut }
}

const fn on_image(line: &'static str, state: fn(&Daemon, &str) -> String) -> Operation {
    Operation { before: "", line, state, done: "there", cut: &[ABSENT] }
}

const fn on_volume(
    before: &'static str,
    line: &'static str,
    done: &'static str,
    cut: &'static [&'static str],
) -> Operation {
    Operation { before, line, state: volume_state, done, cut }
}

fn container_state(daemon: &Daemon, name: &str) -> String {
    let answer = daemon.get(&format!("/containers/{name}/json")).unwrap();
    match answer.status {
        404 => ABSENT.to_owned(),
        _ => answer.json().unwrap()["State"]["Status"].as_str().expect("a state").to_owned(),
    }
}

fn loaded_state(daemon: &Daemon, _name: &str) -> String {
    there(daemon, "/images/crash/json")
}

fn pulled_state(daemon: &Daemon, _name: &str) -> String {
    pulled(daemon).map_or(ABSENT.to_owned(), |_| "there".to_owned())
}

/// The name of the image from the registry, whose port differs in every run.
fn pulled(daemon: &Daemon) -> Option<String> {
    let images = daemon.get("/images/json").unwrap().json().unwrap();
    let mut names = images.as_array().expect("a list").iter().filter_map(|image| image["RepoTags"][0].as_str());
    names.find(|name| name.ends_with("/pulled:1")).map(str::to_owned)
}

fn volume_state(daemon: &Daemon, name: &str) -> String {
    there(daemon, &format!("/volumes/{name}"))
}

fn there(daemon: &Daemon, path: &str) -> String {
    let status = daemon.get(path).unwrap().status;
    if status == 404 { ABSENT.to_owned() } else { "there".to_owned() }
}

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Daemon,
    Clients,
}

#[test]
fn privileged_quick_a_killed_daemon_leaves_nothing_half_made() {
    ours(|daemon| rounds(daemon, Victim::Daemon, ROUNDS_QUICK));
}

#[test]
fn privileged_quick_killed_clients_leave_nothing_half_made() {
    ours(|daemon| rounds(daemon, Victim::Clients, ROUNDS_QUICK));
}

#[test]
fn privileged_slow_a_killed_daemon_leaves_nothing_half_made() {
    ours(|daemon| rounds(daemon, Victim::Daemon, ROUNDS));
}

#[test]
fn privileged_slow_killed_clients_leave_nothing_half_made() {
    ours(|daemon| rounds(daemon, Victim::Clients, ROUNDS));
}

fn rounds(daemon: &mut Daemon, victim: Victim, rounds: usize) {
    let seed = std::env::var(SEED_VARIABLE).ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) << 32);
    println!("to do the same again: {SEED_VARIABLE}={seed}");
    let sources = Sources::new(daemon);
    let at = At { daemon, cli: Cli::Longshore };
    at.start("kept", "busybox sh -c 'i=0; while :; do echo $i; i=$((i+1)); usleep 5000; done'");
    let usual: Vec<Duration> = OPERATIONS.iter().map(|operation| usual_duration(&at, operation, &sources)).collect();
    let kept = daemon.get("/containers/kept/json").unwrap().json().unwrap()["State"]["Pid"].clone();
    let before = alone(daemon);
    let mut chance = Mutator::new(seed);
    for round in 0..rounds {
        let chosen: [usize; CLIENTS] = std::array::from_fn(|_| chance.below(OPERATIONS.len()));
        // Of one of them, that all are hit in all their parts.
        let usual = usual[*chance.pick(&chosen)];
        let delay = Duration::from_micros(chance.below(usual.as_micros() as usize * 5 / 4) as u64);
        println!("-- round {round}: {chosen:?}, killed after {delay:?} of {usual:?}");
        let codes = cut(daemon, victim, chosen, delay, &sources);
        check_states(daemon, victim, chosen, codes, &sources);
        let now = daemon.get("/containers/kept/json").unwrap().json().unwrap();
        assert_eq!((&now["State"]["Running"], &now["State"]["Pid"]), (&true.into(), &kept), "what ran runs on");
        clean(daemon, &before, &sources);
    }
    check_end(daemon);
}

/// Where images come from.
struct Sources {
    /// Of `crash`.
    archive: PathBuf,
    /// Which has `pulled:1`.
    registry: Debian,
}

impl Sources {
    fn new(daemon: &Daemon) -> Sources {
        let archive = daemon.scratch().path().join("crash.tar");
        fs::write(&archive, docker_archive(&image("crash:latest")).unwrap()).unwrap();
        let registry = Debian::start().unwrap();
        let layout = oci_layout(&image("pulled:latest"), Compression::Gzip).unwrap();
        registry.push(&Served::of_layout(&layout).unwrap(), "pulled").unwrap();
        Sources { archive, registry }
    }

    fn line(&self, text: &str, client: usize) -> String {
        let text = text.replace("NAME", &name(client)).replace("REGISTRY", self.registry.host());
        text.replace("ARCHIVE", &self.archive.display().to_string())
    }
}

/// An image with enough files for a kill between them; no other one has its layers.
fn image(tag: &str) -> Image {
    let layer = |number: usize| {
        let name = |file: usize| format!("{tag}-{number}-{file}");
        let file = |file: usize| Entry::new(&name(file), 0o644, Kind::File(vec![b'x'; 1000 * file]));
        (0..100).map(file).collect()
    };
    Image { tag: tag.into(), layers: (0..4).map(layer).collect(), command: vec!["/x".into()], volumes: vec![] }
}

/// The name of the container of one of the lines typed at once.
fn name(client: usize) -> String {
    format!("client{client}")
}

/// How long the line takes when nobody is in its way; it works then, too.
fn usual_duration(at: &At<'_>, operation: &Operation, sources: &Sources) -> Duration {
    if !operation.before.is_empty() {
        at.ok(&sources.line(operation.before, 0));
    }
    let begin = Instant::now();
    at.ok(&sources.line(operation.line, 0));
    let duration = begin.elapsed();
    assert_eq!((operation.state)(at.daemon, &name(0)), operation.done, "{}", operation.line);
    remove_all(at.daemon);
    duration
}

/// Types the lines, kills, and answers the exit codes of the clients.
fn cut(
    daemon: &mut Daemon,
    victim: Victim,
    chosen: [usize; CLIENTS],
    delay: Duration,
    sources: &Sources,
) -> [i32; CLIENTS] {
    let clients: [Piped; CLIENTS] = {
        let at = At { daemon, cli: Cli::Longshore };
        let lines = |client| (client, &OPERATIONS[chosen[client]]);
        for (client, operation) in (0..CLIENTS).map(lines).filter(|(_, operation)| !operation.before.is_empty()) {
            at.ok(&sources.line(operation.before, client));
        }
        std::array::from_fn(|client| at.spawn(&sources.line(OPERATIONS[chosen[client]].line, client)))
    };
    // A wait for time, because the point of the kill is what is random.
    std::thread::sleep(delay);
    match victim {
        Victim::Daemon => {
            daemon.kill9().unwrap();
            daemon.restart().unwrap();
        }
        Victim::Clients => clients.iter().for_each(|client| client.signal(Signal::KILL).unwrap()),
    }
    clients.map(|client| {
        let output = client.wait().expect("the client ends");
        println!("   {} {}", output.code, output.stderr.trim());
        output.code
    })
}

/// What a client was told is so; what it was not told is done, or not begun.
fn check_states(daemon: &Daemon, victim: Victim, chosen: [usize; CLIENTS], codes: [i32; CLIENTS], sources: &Sources) {
    for (client, operation) in (0..CLIENTS).map(|client| (client, &OPERATIONS[chosen[client]])) {
        let mut last = String::new();
        let right = until("a state that may be", DEADLINE, || {
            last = (operation.state)(daemon, &name(client));
            let may_be_cut = codes[client] != 0 && operation.cut.contains(&&*last);
            (last == operation.done || may_be_cut).then_some(())
        });
        assert!(right.is_ok(), "{} ended with {}: {last}", operation.line, codes[client]);
        if victim == Victim::Daemon {
            check_whole(&At { daemon, cli: Cli::Longshore }, operation, client, &last, sources);
        }
    }
    let printed = daemon.scratch().log();
    assert!(!printed.contains("panicked"), "{printed}");
}

/// What is listed works.
fn check_whole(at: &At<'_>, operation: &Operation, client: usize, state: &str, sources: &Sources) {
    let name = name(client);
    match state {
        "created" | "exited" => drop(at.ok(&format!("start {name}"))),
        "running" => drop(at.ok(&format!("exec {name} true"))),
        "there" if operation.line.contains("volume") => {
            at.ok(&format!("run --rm --network none -v {name}:/v busybox touch /v/file"));
        }
        "there" => {
            let image = if operation.line.contains("REGISTRY") { "REGISTRY/pulled:1" } else { "crash" };
            at.ok(&sources.line(&format!("create --pull never --network none --name NAME-image {image} /x"), client));
        }
        _ => {}
    }
}

/// What an instance consists of, seen from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remains {
    files: BTreeSet<PathBuf>,
    cgroups: BTreeSet<PathBuf>,
    shims: usize,
    mounts: Vec<PathBuf>,
    /// The number only: some are made ahead, with names of their own.
    links: usize,
    tables: Vec<String>,
}

impl Remains {
    /// Those of two instances can be compared: of a table, which bears names and addresses, only how long it is.
    pub(crate) fn without_names(self) -> Remains {
        let tables = self.tables.iter().map(|table| format!("{} lines", table.lines().count())).collect();
        Remains { tables, ..self }
    }
}

pub(crate) fn remains(daemon: &Daemon) -> Remains {
    let scratch = daemon.scratch();
    let found = leaks::find(scratch.path(), scratch.key().as_deref()).unwrap();
    let mut remains = Remains { mounts: found.mounts, ..Remains::default() };
    for root in [scratch.data_root(), scratch.exec_root()] {
        list(scratch.path(), &root, &mut remains.files);
    }
    for cgroup in found.cgroups {
        let entries = fs::read_dir(&cgroup).into_iter().flatten().flatten();
        let children = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        remains.cgroups.extend(children.map(|child| child.path()));
    }
    remains.links = found.network.iter().filter(|found| found.starts_with("link")).count();
    for table in found.network.iter().filter_map(|found| found.strip_prefix("table ")) {
        let output = Command::new("nft").args(["list", "table"]).args(table.split(' ')).output().unwrap();
        remains.tables.push(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    remains.shims = found.processes.iter().filter(|(_, command)| command.contains("longshore-shim")).count();
    remains
}

/// All files below `dir`, but for what is in the trees of layers and containers.
fn list(root: &Path, dir: &Path, files: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let tree = dir.ends_with("snapshots/l") || path.ends_with("fs") || path.ends_with("work");
        if !tree && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list(root, &path, files);
        }
        files.insert(path.strip_prefix(root).expect("it lies below").to_owned());
    }
}

/// Removes everything but the container that is kept and its image.
fn remove_all(daemon: &Daemon) {
    let listed = daemon.get("/containers/json?all=1").unwrap().json().unwrap();
    for container in listed.as_array().expect("a list").iter().filter(|one| one["Names"][0] != "/kept") {
        let path = format!("/containers/{}?force=1&v=1", container["Id"].as_str().expect("an id"));
        let answer = testkit::http::request(daemon.socket(), "DELETE", &path, None).unwrap();
        // Whose client was killed may be on its way out.
        assert!(matches!(answer.status, 204 | 404 | 409), "{container}: {}", answer.text());
    }
    let images = ["crash".to_owned()].into_iter().chain(pulled(daemon)).map(|name| format!("/images/{name}?force=1"));
    // The anonymous volumes go with their containers.
    for path in images.chain((0..CLIENTS).map(|client| format!("/volumes/{}", name(client)))) {
        let answer = testkit::http::request(daemon.socket(), "DELETE", &path, None).unwrap();
        assert!(matches!(answer.status, 200 | 204 | 404 | 409), "{path}: {}", answer.text());
    }
}

/// What there is with one container, before anything was cut.
fn alone(daemon: &Daemon) -> Remains {
    until("one container, and empty trash", DEADLINE, || {
        let remains = remains(daemon);
        let removed = |parent: &Path| parent.ends_with("trash") || parent.ends_with("volumes");
        let trash = remains.files.iter().any(|path| path.parent().is_some_and(removed));
        let shims = remains.files.iter().filter(|path| path.starts_with("exec/containers")).count();
        // The directory, one in it, and the socket and the state in that.
        (!trash && remains.shims == 1 && shims == 4).then_some(remains)
    })
    .unwrap()
}

/// After everything is removed the machine is as it was `before`.
fn clean(daemon: &Daemon, before: &Remains, sources: &Sources) {
    let mut last = Remains::default();
    let gone = until("only what was there", DEADLINE, || {
        // A client that was killed may have been heard last: what it asked for appears after its death.
        remove_all(daemon);
        // Links are made again ahead whenever one was used: those that pile up show in the end.
        last = Remains { links: before.links, ..remains(daemon) };
        if last.files.iter().any(|path| path.parent().is_some_and(|parent| parent.ends_with("content/partial"))) {
            // What a cut pull has brought is kept on purpose: the next one takes it up.
            At { daemon, cli: Cli::Longshore }.ok(&sources.line("pull -q REGISTRY/pulled:1", 0));
        }
        (last == *before).then_some(())
    });
    assert!(gone.is_ok(), "{}", difference(&last, before));
}

/// What there is more, and what there is no more.
pub(crate) fn difference(now: &Remains, then: &Remains) -> String {
    let files =
        |one: &Remains, other: &Remains| format!("{:#?}", one.files.difference(&other.files).collect::<Vec<_>>());
    let rest = |remains: &Remains| Remains { files: BTreeSet::new(), ..remains.clone() };
    let (more, less) = (files(now, then), files(then, now));
    format!("left behind: {more}, missing: {less}, {:#?} instead of {:#?}", rest(now), rest(then))
}

/// The log of what ran is whole, and without it and its image the instance is as one that never did anything.
fn check_end(daemon: &Daemon) {
    let at = At { daemon, cli: Cli::Longshore };
    at.ok("stop -t 0 kept");
    let log = at.ok("logs kept");
    assert!(log.lines().enumerate().all(|(number, line)| line == number.to_string()), "every line once");
    at.ok("rm kept");
    at.ok("rmi busybox");
    let fresh = Daemon::with_busybox().unwrap();
    // Its bridge is made when somebody needs it.
    At { daemon: &fresh, cli: Cli::Longshore }.ok("run --rm busybox true");
    At { daemon: &fresh, cli: Cli::Longshore }.ok("rmi busybox");
    let (mut here, mut there) = (Remains::default(), Remains::default());
    let equal = until("equal", DEADLINE, || {
        (here, there) = (remains(daemon), remains(&fresh));
        // They bear the names of their instances.
        (here.tables, there.tables) = (vec![], vec![]);
        (here == there).then_some(())
    });
    assert!(equal.is_ok(), "{}", difference(&here, &there));
}
