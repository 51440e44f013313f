//! What is measured, and what is promised of it.

use super::http::Way;

/// One line of the table.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    /// What `--only` takes.
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) scene: Scene,
    pub(super) work: Work,
    pub(super) bound: Bound,
}

/// What an engine holds while it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scene {
    /// No container.
    Empty,
    /// Running containers without a network: the first is called `{scene}0`.
    Running(usize),
    /// Running containers on the default bridge; ended like those without a network.
    Bridged(usize),
    /// A running container on the default bridge, and a network beside it, `{scene}net`.
    Networked,
    /// Running containers on a network of their own.
    Named(usize),
    /// Containers that were created, and one of them run.
    Stopped(usize),
    /// A container that wrote so many lines, and ended.
    Logged(usize),
    /// A web server with a published port, and a container beside it.
    Served,
    /// Images over one layer, called `{scene}image:0` and so on.
    Images(usize),
}

/// What is done for one sample. In command lines `{scene}` is the beginning of the scene's names, `{fresh}` a new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// A command line, typed with each engine's own client.
    Line { line: &'static [&'static str], cleanup: &'static [&'static str] },
    /// A command line typed `times`, `at_once` of them at a time, and one of cleanup for each.
    Burst { line: &'static [&'static str], cleanup: &'static [&'static str], times: usize, at_once: usize },
    /// A command line typed `times`, one after the other, in a single round: it takes minutes.
    Once { line: &'static [&'static str], cleanup: &'static [&'static str], times: usize },
    /// A command line of our client against us alone: nobody waits until a peer has set such a scene.
    /// Or no peer has such a command.
    OurLine { line: &'static [&'static str], cleanup: &'static [&'static str] },
    /// `rm -f` of the whole scene, which is set again for each sample.
    RemoveScene,
    /// A command line, typed with the client of the peer `docker` against that peer and against us.
    DockerLine(&'static [&'static str]),
    /// Pull of an image, of which nothing is there, from a registry on loopback.
    Pull(&'static str),
    /// Load of an archive with that image, of which nothing is there.
    Load(&'static str),
    /// Save of an image to a file.
    Save(&'static str),
    /// Push of an image of that archive to a registry that has nothing.
    Push(&'static str),
    /// Questions for the names of the scene, asked by its first containers.
    Names { askers: usize },
    /// A thousand requests to the scene's server, on so many connections at a time.
    Requests { way: Way, connections: usize },
    /// A build.
    Build { tree: Tree, cached: bool },
    /// The most that our daemon had in memory while all of these were built, cold and cached.
    BuildMemory,
    /// The most that our daemon ever had in memory (VmHWM).
    PeakMemory,
    /// PSS of our daemon.
    DaemonMemory,
    /// The same when nobody has asked it for anything for a while.
    RestMemory,
    /// PSS of our shims divided by their number.
    ShimMemory,
    /// From starting our daemon to its answer.
    Ready,
    /// A command line of ours when no daemon runs.
    FirstRun(&'static [&'static str]),
    /// Work of OCI runtimes.
    Oci(Oci),
}

/// What is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tree {
    /// Three stages, ten instructions, and 5,000 files.
    Stages,
    /// 20,000 files.
    Files,
    /// Two stages that do not need each other.
    Beside,
}

/// What an OCI runtime does. In command lines `{id}` is a new name, `{true}` and `{sleep}` the bundles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Oci {
    /// `run` of true, 30 ms after whatever was before.
    Run,
    /// So many of them without a pause: one of them.
    BackToBack(usize),
    /// A command of a container's life, after those before it.
    Verb { before: &'static [&'static [&'static str]], line: &'static [&'static str] },
    /// What `run` of sleep needs at most.
    Memory,
}

/// The promise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    /// Our medians are at most these parts of the peer docker's; where nothing is said of CPU, it counts for nothing.
    OfDocker { wall: f64, cpu: Option<f64> },
    /// Our median is at most these parts of the wall time of the peers docker and buildah, and at most so many ms.
    OfBuilders { wall: f64, ms: Option<f64> },
    /// At most this wall time in ms.
    WallMs(f64),
    /// At most this memory in KiB.
    Kib(f64),
    /// Our medians are at most these parts of the peer crun's.
    OfCrun { wall: f64, cpu: Option<f64> },
    /// At most what any peer takes, and at most these parts of a plain bridge's.
    OfVeth { wall: f64, cpu: f64 },
    /// At most as much memory as the peer crun.
    KibOfCrun,
    /// Nothing is promised: it is a part of the engine's other figures.
    Part,
}

/// The same part of wall and of CPU.
const fn of_docker(divisor: f64) -> Bound {
    Bound::OfDocker { wall: 1.0 / divisor, cpu: Some(1.0 / divisor) }
}

/// A part of the wall time alone.
const fn wall_of_docker(divisor: f64) -> Bound {
    Bound::OfDocker { wall: 1.0 / divisor, cpu: None }
}

/// A scene's containers end at once when they are told to. Docker's `rm -f` kills in any case; podman's sends the stop
/// signal first, and waits ten seconds for a sleep that ignores SIGTERM.
pub(super) const KILLED: [&str; 2] = ["--stop-signal", "KILL"];

const RUN_D: [&str; 9] = ["run", "-d", KILLED[0], KILLED[1], "--name", "{fresh}", "busybox", "sleep", "100000"];

/// Less than crun takes.
const LESS_THAN_CRUN: Bound = Bound::OfCrun { wall: 1.0, cpu: None };

const OCI_CREATE: &[&str] = &["create", "--bundle", "{sleep}", "{id}"];
const OCI_START: &[&str] = &["start", "{id}"];
const OCI_KILL: &[&str] = &["kill", "{id}", "KILL"];

const fn verb(before: &'static [&'static [&'static str]], line: &'static [&'static str]) -> Work {
    Work::Oci(Oci::Verb { before, line })
}

/// 0.9 of the throughput of a plain bridge, 5 % more CPU for each request, and no peer is faster.
const AS_PLAIN: Bound = Bound::OfVeth { wall: 1.0 / 0.9, cpu: 1.05 };

const fn requests(way: Way, connections: usize) -> Work {
    Work::Requests { way, connections }
}

/// Half of what BuildKit and buildah take.
const HALF_OF_BUILDERS: Bound = Bound::OfBuilders { wall: 0.5, ms: None };

/// 10 layers, 1 GB.
const BIG: &str = "big10:latest";

const TRUE: [&str; 6] = ["run", "--rm", "--network", "none", "busybox", "true"];

/// Every promise, in the order in which they were made.
pub(super) const ROWS: &[Row] = &[
    Row {
        name: "run-none",
        about: "run --rm --network none busybox true",
        scene: Scene::Empty,
        work: Work::Line { line: &TRUE, cleanup: &[] },
        bound: of_docker(12.0),
    },
    Row {
        name: "run-host",
        about: "run --rm --network host busybox true",
        scene: Scene::Empty,
        work: Work::Line { line: &["run", "--rm", "--network", "host", "busybox", "true"], cleanup: &[] },
        bound: of_docker(12.0),
    },
    Row {
        name: "cli-docker",
        about: "the real docker's run --rm --network none busybox true, against us and against dockerd",
        scene: Scene::Empty,
        work: Work::DockerLine(&TRUE),
        bound: of_docker(3.0),
    },
    Row {
        name: "exec",
        about: "exec C true",
        scene: Scene::Running(1),
        work: Work::Line { line: &["exec", "{scene}0", "true"], cleanup: &[] },
        bound: of_docker(10.0),
    },
    Row {
        name: "create",
        about: "create --network none busybox true",
        scene: Scene::Empty,
        work: Work::Line {
            line: &["create", "--network", "none", "--name", "{fresh}", "busybox", "true"],
            cleanup: &["rm", "-f", "{fresh}"],
        },
        bound: of_docker(6.0),
    },
    Row {
        name: "ps-200",
        about: "ps with 200 running containers",
        scene: Scene::Running(200),
        work: Work::Line { line: &["ps"], cleanup: &[] },
        bound: of_docker(8.0),
    },
    Row {
        name: "version",
        about: "--version, the client alone",
        scene: Scene::Empty,
        work: Work::Line { line: &["--version"], cleanup: &[] },
        bound: Bound::WallMs(3.0),
    },
    Row {
        name: "daemon-idle",
        about: "PSS of the daemon without containers",
        scene: Scene::Empty,
        work: Work::DaemonMemory,
        bound: Bound::Kib(12.0 * 1024.0),
    },
    Row {
        name: "daemon-rest",
        about: "the same two seconds after its last client",
        scene: Scene::Empty,
        work: Work::RestMemory,
        bound: Bound::Kib(4.0 * 1024.0),
    },
    Row {
        name: "ready-200",
        about: "from starting the daemon to its answer, with 200 stopped containers",
        scene: Scene::Stopped(200),
        work: Work::Ready,
        bound: Bound::WallMs(80.0),
    },
    Row {
        name: "first-run",
        about: "run --rm --network none busybox true with no daemon running",
        scene: Scene::Empty,
        work: Work::FirstRun(&TRUE),
        bound: Bound::WallMs(120.0),
    },
    Row {
        name: "shim-20",
        about: "PSS per shim with 20 idle containers",
        scene: Scene::Running(20),
        work: Work::ShimMemory,
        bound: Bound::Kib(256.0),
    },
    Row {
        name: "shim-1",
        about: "PSS of the shim of the only container",
        scene: Scene::Running(1),
        work: Work::ShimMemory,
        bound: Bound::Kib(768.0),
    },
    Row {
        name: "network-connect",
        about: "network connect N C, of a running container",
        scene: Scene::Networked,
        work: Work::Line {
            line: &["network", "connect", "{scene}net", "{scene}0"],
            cleanup: &["network", "disconnect", "{scene}net", "{scene}0"],
        },
        bound: of_docker(5.0),
    },
    Row {
        name: "run-bridge",
        about: "run --rm busybox true, on the default bridge",
        scene: Scene::Empty,
        work: Work::Line { line: &["run", "--rm", "busybox", "true"], cleanup: &[] },
        bound: Bound::OfDocker { wall: 1.0 / 15.0, cpu: Some(1.0 / 12.0) },
    },
    Row {
        name: "run-port",
        about: "run --rm -p 80 busybox true, with a published port",
        scene: Scene::Empty,
        work: Work::Line { line: &["run", "--rm", "-p", "80", "busybox", "true"], cleanup: &[] },
        bound: wall_of_docker(18.0),
    },
    Row {
        name: "publish-1000",
        about: "update --publish-add of a range of 1,000 ports on both families, of a running container",
        scene: Scene::Bridged(1),
        work: Work::OurLine {
            line: &["update", "--publish-add", "20000-20999:20000-20999", "{scene}0"],
            cleanup: &["update", "--publish-rm", "20000-20999:20000-20999", "{scene}0"],
        },
        bound: Bound::WallMs(10.0),
    },
    Row {
        name: "run-d",
        about: "run -d busybox sleep, on the default bridge",
        scene: Scene::Empty,
        work: Work::Line { line: &RUN_D, cleanup: &["rm", "-f", "{fresh}"] },
        bound: wall_of_docker(12.0),
    },
    Row {
        name: "burst-50",
        about: "50 times run -d busybox sleep, 8 at once",
        scene: Scene::Empty,
        work: Work::Burst { line: &RUN_D, cleanup: &["rm", "-f", "{fresh}"], times: 50, at_once: 8 },
        bound: wall_of_docker(8.0),
    },
    Row {
        name: "rm-200",
        about: "rm -f of 200 running containers",
        scene: Scene::Bridged(200),
        work: Work::RemoveScene,
        bound: wall_of_docker(8.0),
    },
    Row {
        name: "run-1000",
        about: "1,000 times run -d busybox sleep, on the default bridge, all of them",
        scene: Scene::Empty,
        work: Work::Once { line: &RUN_D, cleanup: &["rm", "-f", "{fresh}"], times: 1000 },
        bound: wall_of_docker(8.0),
    },
    Row {
        name: "ps-1000",
        about: "ps with 1,000 running containers",
        scene: Scene::Bridged(1000),
        work: Work::OurLine { line: &["ps"], cleanup: &[] },
        bound: Bound::WallMs(15.0),
    },
    Row {
        name: "daemon-1000",
        about: "PSS of the daemon with 1,000 running containers",
        scene: Scene::Bridged(1000),
        work: Work::DaemonMemory,
        bound: Bound::Kib(40.0 * 1024.0),
    },
    Row {
        name: "pull",
        about: "pull of 10 layers, 1 GB, from a registry on loopback (needs --registry)",
        scene: Scene::Empty,
        work: Work::Pull(BIG),
        bound: Bound::OfDocker { wall: 0.35, cpu: None },
    },
    Row {
        name: "load",
        about: "load -q of 10 layers, 1 GB, from a docker-archive (needs --archive)",
        scene: Scene::Empty,
        work: Work::Load(BIG),
        bound: Bound::OfDocker { wall: 0.45, cpu: None },
    },
    Row {
        name: "save",
        about: "save -o of 10 layers, 1 GB (needs --archive)",
        scene: Scene::Empty,
        work: Work::Save(BIG),
        bound: Bound::OfDocker { wall: 0.35, cpu: None },
    },
    Row {
        name: "push",
        about: "push of 10 layers, 1 GB, to an empty registry on loopback, whose CPU counts (needs --archive)",
        scene: Scene::Empty,
        work: Work::Push(BIG),
        bound: Bound::OfDocker { wall: 0.6, cpu: None },
    },
    Row {
        name: "daemon-peak",
        about: "the most that the daemon had in memory, after the rows above that were measured (needs --archive)",
        scene: Scene::Empty,
        work: Work::PeakMemory,
        bound: Bound::Kib(100.0 * 1024.0),
    },
    Row {
        name: "build-cold",
        about: "build of 3 stages with a COPY of 5,000 files, nothing known (needs --contexts)",
        scene: Scene::Empty,
        work: Work::Build { tree: Tree::Stages, cached: false },
        bound: HALF_OF_BUILDERS,
    },
    Row {
        name: "build-cached",
        about: "the same, everything known (needs --contexts)",
        scene: Scene::Empty,
        work: Work::Build { tree: Tree::Stages, cached: true },
        bound: Bound::OfBuilders { wall: 0.5, ms: Some(60.0) },
    },
    Row {
        name: "build-files-cold",
        about: "build with a COPY of 20,000 files, nothing known (needs --contexts)",
        scene: Scene::Empty,
        work: Work::Build { tree: Tree::Files, cached: false },
        bound: HALF_OF_BUILDERS,
    },
    Row {
        name: "build-files-cached",
        about: "the same, everything known (needs --contexts)",
        scene: Scene::Empty,
        work: Work::Build { tree: Tree::Files, cached: true },
        bound: HALF_OF_BUILDERS,
    },
    Row {
        name: "build-beside",
        about: "build of two stages that do not need each other, nothing known (needs --contexts)",
        scene: Scene::Empty,
        work: Work::Build { tree: Tree::Beside, cached: false },
        bound: HALF_OF_BUILDERS,
    },
    Row {
        name: "build-memory",
        about: "the most that the daemon had in memory during all of these builds (needs --contexts)",
        scene: Scene::Empty,
        work: Work::BuildMemory,
        bound: Bound::Kib(100.0 * 1024.0),
    },
    Row {
        name: "images",
        about: "images with 1,000 images",
        scene: Scene::Images(1000),
        work: Work::Line { line: &["images"], cleanup: &[] },
        bound: Bound::WallMs(30.0),
    },
    Row {
        name: "images-q",
        about: "images -q with 1,000 images",
        scene: Scene::Images(1000),
        work: Work::Line { line: &["images", "-q"], cleanup: &[] },
        bound: Bound::WallMs(30.0),
    },
    Row {
        name: "log-write",
        about: "run --rm --network none busybox seq 1000000, every line of it logged",
        scene: Scene::Empty,
        work: Work::Line { line: &["run", "--rm", "--network", "none", "busybox", "seq", "1000000"], cleanup: &[] },
        bound: wall_of_docker(4.0),
    },
    Row {
        name: "log-read",
        about: "logs of a container that wrote 1,000,000 lines",
        scene: Scene::Logged(1_000_000),
        work: Work::Line { line: &["logs", "{scene}0"], cleanup: &[] },
        bound: wall_of_docker(8.0),
    },
    Row {
        name: "names-500",
        about: "99 of 100 answers to 5,000 questions a second for the names of 500 containers on one network",
        scene: Scene::Named(500),
        work: Work::Names { askers: 8 },
        bound: Bound::WallMs(2.0),
    },
    Row {
        name: "http-bridge",
        about: "1,000 requests from the host to a port published on the bridge's address, on 32 connections (needs --net-archive)",
        scene: Scene::Served,
        work: requests(Way::Bridge, 32),
        bound: AS_PLAIN,
    },
    Row {
        name: "http-bridge-1",
        about: "1,000 requests from the host to a port published on the bridge's address, on one connection (needs --net-archive)",
        scene: Scene::Served,
        work: requests(Way::Bridge, 1),
        bound: AS_PLAIN,
    },
    Row {
        name: "http-loopback",
        about: "1,000 requests from the host to a port published on 127.0.0.1, on 32 connections (needs --net-archive)",
        scene: Scene::Served,
        work: requests(Way::Loopback, 32),
        bound: AS_PLAIN,
    },
    Row {
        name: "http-loopback-1",
        about: "1,000 requests from the host to a port published on 127.0.0.1, on one connection (needs --net-archive)",
        scene: Scene::Served,
        work: requests(Way::Loopback, 1),
        bound: AS_PLAIN,
    },
    Row {
        name: "http-link",
        about: "1,000 requests from a container to another one, on 32 connections (needs --net-archive)",
        scene: Scene::Served,
        work: requests(Way::Link, 32),
        bound: AS_PLAIN,
    },
    Row {
        name: "http-link-1",
        about: "1,000 requests from a container to another one, on one connection (needs --net-archive)",
        scene: Scene::Served,
        work: requests(Way::Link, 1),
        bound: AS_PLAIN,
    },
    Row {
        name: "oci-run",
        about: "longshore-runtime run of true with Docker's configuration",
        scene: Scene::Empty,
        work: Work::Oci(Oci::Run),
        bound: Bound::OfCrun { wall: 0.35, cpu: Some(0.6) },
    },
    Row {
        name: "oci-run-many",
        about: "the same 30 times without a pause, one of them",
        scene: Scene::Empty,
        work: Work::Oci(Oci::BackToBack(30)),
        bound: Bound::OfCrun { wall: 0.6, cpu: Some(0.6) },
    },
    Row {
        name: "oci-create",
        about: "longshore-runtime create",
        scene: Scene::Empty,
        work: verb(&[], OCI_CREATE),
        bound: LESS_THAN_CRUN,
    },
    Row {
        name: "oci-start",
        about: "longshore-runtime start",
        scene: Scene::Empty,
        work: verb(&[OCI_CREATE], OCI_START),
        bound: LESS_THAN_CRUN,
    },
    Row {
        name: "oci-state",
        about: "longshore-runtime state",
        scene: Scene::Empty,
        work: verb(&[OCI_CREATE, OCI_START], &["state", "{id}"]),
        bound: LESS_THAN_CRUN,
    },
    Row {
        name: "oci-exec",
        about: "longshore-runtime exec of true",
        scene: Scene::Empty,
        work: verb(&[OCI_CREATE, OCI_START], &["exec", "{id}", "/bin/true"]),
        bound: LESS_THAN_CRUN,
    },
    Row {
        name: "oci-kill",
        about: "longshore-runtime kill",
        scene: Scene::Empty,
        work: verb(&[OCI_CREATE, OCI_START], OCI_KILL),
        bound: LESS_THAN_CRUN,
    },
    Row {
        name: "oci-delete",
        about: "longshore-runtime delete of a container that was not started",
        scene: Scene::Empty,
        work: verb(&[OCI_CREATE], &["delete", "{id}"]),
        bound: LESS_THAN_CRUN,
    },
    Row {
        name: "oci-memory",
        about: "peak resident memory of longshore-runtime run",
        scene: Scene::Empty,
        work: Work::Oci(Oci::Memory),
        bound: Bound::KibOfCrun,
    },
];
