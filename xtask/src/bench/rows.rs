//! What is measured, and what is promised of it.

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
    /// Running containers: the first is called `{scene}0`.
    Running(usize),
    /// Containers that were created, and one of them run.
    Stopped(usize),
}

/// What is done for one sample. In command lines `{scene}` is the beginning of the scene's names, `{fresh}` a new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// A command line, typed with each engine's own client.
    Line { line: &'static [&'static str], cleanup: &'static [&'static str] },
    /// A command line, typed with the client of the peer `docker` against that peer and against us.
    DockerLine(&'static [&'static str]),
    /// PSS of our daemon.
    DaemonMemory,
    /// PSS of our shims divided by their number.
    ShimMemory,
    /// From starting our daemon to its answer.
    Ready,
    /// A command line of ours when no daemon runs.
    FirstRun(&'static [&'static str]),
}

/// The promise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    /// Our median of wall and of CPU is at most this part of the peer docker's.
    OfDocker(f64),
    /// At most this wall time in ms.
    WallMs(f64),
    /// At most this memory in KiB.
    Kib(f64),
}

const TRUE: [&str; 6] = ["run", "--rm", "--network", "none", "busybox", "true"];

/// Every row of issue 2, in its order.
pub(super) const ROWS: &[Row] = &[
    Row {
        name: "run-none",
        about: "run --rm --network none busybox true",
        scene: Scene::Empty,
        work: Work::Line { line: &TRUE, cleanup: &[] },
        bound: Bound::OfDocker(1.0 / 12.0),
    },
    Row {
        name: "run-host",
        about: "run --rm --network host busybox true",
        scene: Scene::Empty,
        work: Work::Line { line: &["run", "--rm", "--network", "host", "busybox", "true"], cleanup: &[] },
        bound: Bound::OfDocker(1.0 / 12.0),
    },
    Row {
        name: "cli-docker",
        about: "the real docker's run --rm --network none busybox true, against us and against dockerd",
        scene: Scene::Empty,
        work: Work::DockerLine(&TRUE),
        bound: Bound::OfDocker(1.0 / 3.0),
    },
    Row {
        name: "exec",
        about: "exec C true",
        scene: Scene::Running(1),
        work: Work::Line { line: &["exec", "{scene}0", "true"], cleanup: &[] },
        bound: Bound::OfDocker(1.0 / 10.0),
    },
    Row {
        name: "create",
        about: "create --network none busybox true",
        scene: Scene::Empty,
        work: Work::Line {
            line: &["create", "--network", "none", "--name", "{fresh}", "busybox", "true"],
            cleanup: &["rm", "-f", "{fresh}"],
        },
        bound: Bound::OfDocker(1.0 / 6.0),
    },
    Row {
        name: "ps-200",
        about: "ps with 200 running containers",
        scene: Scene::Running(200),
        work: Work::Line { line: &["ps"], cleanup: &[] },
        bound: Bound::OfDocker(1.0 / 8.0),
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
];

/// A scene's containers that run: they ignore nothing and end at once when killed.
pub(super) const IDLE: [&str; 4] = ["--stop-signal", "KILL", "--network", "none"];
