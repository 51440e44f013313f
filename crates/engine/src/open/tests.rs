use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::pin::pin;
use std::sync::mpsc as sync;
use std::time::{Duration, Instant};

use engine_api::container::Config;
use engine_api::exec::ExecCreate;
use engine_api::host_config::{HostConfig, LogConfig, RestartPolicy};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shim_api::frame::{Decoder, encode};
use shim_api::{Answer, ExecState, ExitRecord, Message, Request, RunState};
use stdx::fs::Durability;
use tokio::time::timeout;

use super::*;
use crate::connection::Connection;
use crate::container::record::Definition;
use crate::container::state::{Input, Pending, State};
use crate::exec::{self, Exec};
use crate::ops;
use crate::ops::attach::AttachQuery;
use crate::ops::wait::Condition;

/// Many times what anything here takes.
const DEADLINE: Duration = Duration::from_secs(20);

/// The directories of an engine of the test's own. No shim can be started: the program is none.
struct Scratch {
    root: tempfile::TempDir,
    key: String,
}

impl Scratch {
    fn new() -> Scratch {
        Scratch { root: tempfile::tempdir().unwrap(), key: stdx::id::random_hex::<4>() }
    }

    fn config(&self) -> EngineConfig {
        EngineConfig {
            cdi_spec_dirs: Vec::new(),
            data_root: self.root.path().join("data"),
            exec_root: self.root.path().join("exec"),
            shim_path: "/bin/true".into(),
            init_path: "/bin/true".into(),
            instance_key: self.key.clone(),
            cgroup_parent: None,
            default_log: LogConfig { kind: "json-file".into(), config: None },
            default_ulimits: vec![],
            default_init: false,
            no_new_privileges: false,
            resolver: Default::default(),
            seccomp: None,
            experimental: false,
            api_warnings: vec![],
            changeable: Default::default(),
            runtimes: Default::default(),
            default_runtime: None,
            container_size_bytes: None,
            image_budget: None,
            build_cache: crate::config::BuildCacheConfig::default(),
            // It works for everybody.
            storage_driver: Some("vfs".into()),
            network: None,
        }
    }

    async fn open(&self) -> Engine {
        tokio::time::timeout(DEADLINE, Engine::open(self.config())).await.unwrap().unwrap()
    }

    fn record_path(&self, id: &ContainerId) -> PathBuf {
        self.dir(id).record()
    }

    fn dir(&self, id: &ContainerId) -> ContainerDir {
        ContainerDir::new(&self.config().data_root.join("containers"), id)
    }

    fn shim_dir(&self, id: &ContainerId) -> PathBuf {
        shim_api::paths::dir(&self.config().exec_root, id)
    }

    /// A container as a daemon before us has left it.
    fn container(&self, name: &str, state: State, change: impl FnOnce(&mut HostConfig)) -> ContainerId {
        let id: ContainerId = stdx::id::random_hex::<32>().parse().unwrap();
        let mut host_config = HostConfig { network_mode: "none".into(), ..HostConfig::default() };
        change(&mut host_config);
        let definition = Definition {
            networks: None,
            storage_driver: Some("vfs".into()),
            id: id.clone(),
            created_at_nanos: 5,
            image_id: "sha256:0".into(),
            path: "true".into(),
            args: vec![],
            config: Config { cmd: Some(vec!["true".into()]), ..Config::default() },
            host_config,
            mounts: vec![],
            flat_read_only: false,
            links: Vec::new(),
        };
        fs::create_dir_all(self.dir(&id).path()).unwrap();
        self.dir(&id).write(name, &definition, &state, Durability::ProcessDeath).unwrap();
        id
    }

    /// What the shim of a container has left behind.
    fn exit(&self, id: &ContainerId, exit_code: i32) {
        let dir = self.shim_dir(id);
        fs::create_dir_all(&dir).unwrap();
        let record = ExitRecord {
            exit_code,
            exited_at_nanos: 2_000_000_000,
            started_at_nanos: 9,
            oom_killed: false,
            unexecuted: None,
        };
        fs::write(shim_api::paths::exit(&dir), serde_json::to_vec(&record).unwrap()).unwrap();
    }
}

fn running() -> State {
    State { phase: Phase::Running { pid: 1 << 21 }, started_at_nanos: 9, ..State::default() }
}

fn exited(exit_code: i32) -> State {
    State { exit_code, started_at_nanos: 9, finished_at_nanos: 10, ..State::default() }
}

/// Looks again, letting other tasks run in between, until it is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn privileged_a_torn_record_is_set_aside_and_the_others_load() {
    let scratch = Scratch::new();
    let (whole, torn) = (scratch.container("whole", exited(3), |_| {}), scratch.container("torn", exited(0), |_| {}));
    let bytes = fs::read(scratch.record_path(&torn)).unwrap();
    fs::write(scratch.record_path(&torn), &bytes[..bytes.len() / 2]).unwrap();
    let engine = scratch.open().await;
    assert_eq!(engine.containers.all().len(), 1);
    assert_eq!(engine.containers.find("whole").unwrap().id(), &whole);
    // Its files stay, for whoever repairs it.
    let aside = scratch.dir(&torn).path().join("config.json.corrupt-0");
    assert_eq!(fs::read(aside).unwrap(), &bytes[..bytes.len() / 2]);
    assert!(!scratch.record_path(&torn).exists());
}

#[tokio::test]
async fn privileged_an_end_that_nobody_saw_is_recorded() {
    let scratch = Scratch::new();
    let id = scratch.container("x", running(), |_| {});
    scratch.exit(&id, 7);
    let engine = scratch.open().await;
    let state = engine.containers.get(&id).unwrap().state();
    assert_eq!((state.name(), state.exit_code, state.finished_at_nanos), ("exited", 7, 2_000_000_000));
    engine.shutdown().await;
    assert_eq!(scratch.dir(&id).read(&id).unwrap().state, state);
    assert!(!scratch.shim_dir(&id).exists(), "what is on the disk is needed no more");
}

#[tokio::test]
async fn privileged_a_container_whose_shim_left_no_word_is_lost() {
    let scratch = Scratch::new();
    let id = scratch.container("x", running(), |_| {});
    fs::create_dir_all(scratch.shim_dir(&id)).unwrap();
    let state = scratch.open().await.containers.get(&id).unwrap().state();
    assert_eq!((state.name(), state.exit_code), ("exited", supervise::EXIT_CODE_LOST));
}

#[tokio::test]
async fn privileged_what_removes_itself_is_collected() {
    let scratch = Scratch::new();
    let ended = scratch.container("ended", running(), |host| host.auto_remove = true);
    scratch.exit(&ended, 7);
    let recorded = scratch.container("recorded", exited(4), |host| host.auto_remove = true);
    let created = scratch.container("created", State::default(), |host| host.auto_remove = true);
    let unstartable = State { exit_code: 127, error: "no such program".into(), ..State::default() };
    let failed = scratch.container("failed", unstartable, |host| host.auto_remove = true);
    let engine = scratch.open().await;
    for id in [&ended, &recorded, &failed] {
        until("it was not removed", || engine.containers.get(id).is_none() && !scratch.shim_dir(id).exists()).await;
        assert!(!scratch.dir(id).path().exists());
    }
    assert!(engine.containers.get(&created).is_some(), "it has not run yet");
    // Whose client lost its daemon asks the next one, by the whole id.
    for (id, exit_code) in [(&ended, 7), (&recorded, 4), (&failed, 127)] {
        for condition in [Condition::NotRunning, Condition::NextExit, Condition::Removed] {
            let answer = ops::wait::wait(&engine, id.as_str(), condition).await.unwrap().finish().await;
            assert_eq!((answer.status_code, answer.error), (exit_code, None));
        }
        assert!(ops::wait::wait(&engine, id.short(), Condition::NotRunning).await.is_err());
    }
}

#[tokio::test]
async fn privileged_the_end_of_a_container_whose_removal_a_crash_cut_is_told() {
    let scratch = Scratch::new();
    let id: ContainerId = stdx::id::random_hex::<32>().parse().unwrap();
    scratch.exit(&id, 9);
    let engine = scratch.open().await;
    assert!(!scratch.shim_dir(&id).exists());
    let answer = ops::wait::wait(&engine, id.as_str(), Condition::Removed).await.unwrap().finish().await;
    assert_eq!(answer.status_code, 9);
}

#[tokio::test]
async fn privileged_volumes_are_their_containers_or_go() {
    let scratch = Scratch::new();
    let [kept, torn] = ["kept", "torn"].map(|name| scratch.container(name, exited(0), |_| {}));
    let gone: ContainerId = stdx::id::random_hex::<32>().parse().unwrap();
    let names = {
        let volumes = volume::Volumes::open(&scratch.config().data_root.join("volumes")).unwrap();
        let make = |user: &ContainerId| {
            volumes.create(&volume::Wanted::default(), Some(user)).unwrap().volume.name.to_string()
        };
        let names = [&kept, &torn, &gone].map(make);
        let named = volume::Wanted { name: "named".to_owned(), ..Default::default() };
        volumes.create(&named, Some(&gone)).unwrap();
        names
    };
    let point = format!(r#"{{"Type":"volume","Name":"{}","Destination":"/v","Anonymous":true}}"#, names[0]);
    let record = fs::read_to_string(scratch.record_path(&kept)).unwrap();
    fs::write(scratch.record_path(&kept), record.replace("\"mounts\":[]", &format!("\"mounts\":[{point}]"))).unwrap();
    fs::write(scratch.record_path(&torn), "{").unwrap();
    let engine = scratch.open().await;
    let users = |name: &str| engine.volumes.get(name).map(|listed| listed.users);
    assert_eq!(users(&names[0]), Ok(vec![kept]));
    assert_eq!(users(&names[1]), Ok(vec![]), "its container may be repaired");
    users(&names[2]).unwrap_err();
    assert_eq!(users("named"), Ok(vec![]), "what somebody named stays");
}

#[tokio::test]
async fn privileged_a_record_without_its_snapshot_stops_nothing_but_its_start() {
    let scratch = Scratch::new();
    let id = scratch.container("x", State::default(), |_| {});
    let engine = scratch.open().await;
    assert_eq!(ops::inspect::inspect(&engine, "x", false).await.unwrap().id, id.as_str());
    let err = ops::start::start(&engine, "x", None).await.unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Internal, "{err}");
    assert_eq!(engine.containers.get(&id).unwrap().state().name(), "created");
    ops::remove::remove(&engine, "x", ops::remove::RemoveOptions::default()).await.unwrap();
    assert!(!scratch.dir(&id).path().exists());
}

#[tokio::test]
async fn privileged_restarts_are_counted_once_whenever_the_daemon_dies() {
    let always = |host: &mut HostConfig| {
        host.restart_policy = RestartPolicy { name: "always".into(), ..RestartPolicy::default() }
    };
    let scratch = Scratch::new();
    // Killed before it wrote the end, and after: the shim's word is there until the record has it.
    let before = scratch.container("before", State { restart_count: 1, ..running() }, always);
    let counted = State { phase: Phase::Restarting, restart_count: 2, finished_at_nanos: 2_000_000_000, ..exited(4) };
    let after = scratch.container("after", counted, always);
    scratch.exit(&before, 4);
    scratch.exit(&after, 4);
    let engine = scratch.open().await;
    for id in [&before, &after] {
        assert_eq!(engine.containers.get(id).unwrap().state().restart_count, 2);
        // The start fails here, for there is no snapshot: the count was on the disk before it was tried.
        until("it was not tried", || !engine.containers.get(id).unwrap().state().is_running()).await;
        assert_eq!(scratch.dir(id).read(id).unwrap().state.restart_count, 2);
    }
}

#[tokio::test]
async fn privileged_cgroups_that_nobody_owns_are_swept_and_the_last_daemon_leaves_none() {
    let scratch = Scratch::new();
    let id = scratch.container("x", exited(0), |_| {});
    let unknown: ContainerId = stdx::id::random_hex::<32>().parse().unwrap();
    let parent = PathBuf::from(format!("/longshore-{}", scratch.key));
    let hierarchies = cgroup::Hierarchies::detect().unwrap();
    for id in [&id, &unknown] {
        cgroup::Cgroup::create(&hierarchies, &parent.join(id.as_str()), &oci::runtime::Resources::default()).unwrap();
    }
    let engine = scratch.open().await;
    assert_eq!(hierarchies.children(&parent).len(), 0);
    engine.shutdown().await;
    let name = format!("longshore-{}", scratch.key);
    assert!(!hierarchies.children(Path::new("/")).contains(&name));
}

#[tokio::test]
async fn privileged_a_container_whose_creation_was_cut_is_removed() {
    let scratch = Scratch::new();
    let [half, torn] = ["half", "torn"].map(|name| scratch.container(name, State::default(), |_| {}));
    for (id, left) in [(&half, "config.json.tmp"), (&torn, "config.json.corrupt-0")] {
        fs::rename(scratch.record_path(id), scratch.dir(id).path().join(left)).unwrap();
    }
    let engine = scratch.open().await;
    assert!(engine.containers.all().is_empty());
    assert!(!scratch.dir(&half).path().exists());
    assert!(scratch.dir(&torn).path().exists(), "somebody may repair it");
}

#[tokio::test]
async fn privileged_a_container_whose_shim_does_not_answer_lives_on() {
    let scratch = Scratch::new();
    let id = scratch.container("x", State::default(), |_| {});
    let dir = scratch.shim_dir(&id);
    fs::create_dir_all(&dir).unwrap();
    let run = RunState { pid: 1 << 21, pid_start_ticks: 0, shim_pid: 0, started: true, started_at_nanos: 9 };
    fs::write(shim_api::paths::state(&dir), serde_json::to_vec(&run).unwrap()).unwrap();
    // It accepts nothing, as one that is stopped.
    let listener = UnixListener::bind(shim_api::paths::socket(&dir)).unwrap();
    let engine = scratch.open().await;
    let container = engine.containers.get(&id).unwrap();
    assert_eq!((container.state().name(), container.state().pid()), ("running", 1 << 21));
    drop(listener);
    until("it is not lost", || !container.state().is_running()).await;
}

#[tokio::test]
async fn privileged_two_hundred_containers_open_quickly() {
    let scratch = Scratch::new();
    for n in 0..200 {
        scratch.container(&format!("c{n}"), exited(0), |_| {});
    }
    let begin = Instant::now();
    let engine = scratch.open().await;
    let took = begin.elapsed();
    assert_eq!(engine.containers.all().len(), 200);
    // The promise is for a release build; unoptimized parsing takes several times as long.
    let promised = Duration::from_millis(if cfg!(debug_assertions) { 800 } else { 80 });
    assert!(took < promised, "{took:?}");
    println!("200 records opened in {took:?}");
}

/// A shim of few words: says hello, and closes the connection when told to.
fn fake_shim(listener: UnixListener, run: RunState, closes: sync::Receiver<()>, execs: Vec<Vec<ExecState>>) -> usize {
    let mut greeted = 0;
    while let Ok((mut socket, _)) = listener.accept() {
        let request = read_request(&socket);
        let execs = execs.get(greeted).cloned().unwrap_or_default();
        let hello = Answer::Hello { version: shim_api::VERSION, state: Some(run.clone()), execs };
        socket.write_all(&encode(&Message::Reply { seq: request.seq, result: Ok(hello) })).unwrap();
        greeted += 1;
        if closes.recv().is_err() {
            return greeted;
        }
    }
    greeted
}

fn read_request(socket: &UnixStream) -> Request {
    let (mut decoder, mut buffer) = (Decoder::default(), [0; 1000]);
    loop {
        let count = sys::socket::receive(socket.as_fd(), &mut buffer, &mut Vec::new()).unwrap();
        assert_ne!(count, 0, "the daemon hung up");
        decoder.push(&buffer[..count]);
        if let Some(request) = decoder.next_message().unwrap() {
            return request;
        }
    }
}

#[tokio::test]
async fn privileged_a_lost_connection_is_made_again_before_the_container_is_lost() {
    let scratch = Scratch::new();
    let id = scratch.container("x", running(), |_| {});
    fs::create_dir_all(scratch.shim_dir(&id)).unwrap();
    let listener = UnixListener::bind(shim_api::paths::socket(&scratch.shim_dir(&id))).unwrap();
    let run = RunState { pid: 1 << 21, pid_start_ticks: 0, shim_pid: 0, started: true, started_at_nanos: 9 };
    let (close, closes) = sync::channel();
    let shim = std::thread::spawn(move || fake_shim(listener, run, closes, vec![]));

    let engine = scratch.open().await;
    let container = engine.containers.get(&id).unwrap();
    let first = container.shim().unwrap();
    close.send(()).unwrap();
    until("no second connection", || container.shim().is_some_and(|shim| !Arc::ptr_eq(&shim, &first))).await;
    assert_eq!(container.state().name(), "running");
    // With the listener gone, too, there is nobody left to ask.
    drop(close);
    until("it is not lost", || !container.state().is_running()).await;
    assert_eq!(container.state().exit_code, supervise::EXIT_CODE_LOST);
    assert_eq!(shim.join().unwrap(), 2);
}

#[tokio::test]
async fn privileged_a_container_is_not_lost_while_there_are_no_descriptors_for_its_shim() {
    let scratch = Scratch::new();
    let id = scratch.container("x", running(), |_| {});
    fs::create_dir_all(scratch.shim_dir(&id)).unwrap();
    let listener = UnixListener::bind(shim_api::paths::socket(&scratch.shim_dir(&id))).unwrap();
    let run = RunState { pid: 1 << 21, pid_start_ticks: 0, shim_pid: 0, started: true, started_at_nanos: 9 };
    // One connection each, so that it opens none while there are no descriptors.
    let serve = move |listener: UnixListener, run: RunState, ends: sync::Receiver<()>| {
        let (mut socket, _) = listener.accept().unwrap();
        let request = read_request(&socket);
        let hello = Answer::Hello { version: shim_api::VERSION, state: Some(run), execs: vec![] };
        socket.write_all(&encode(&Message::Reply { seq: request.seq, result: Ok(hello) })).unwrap();
        // An error says that the test is over.
        _ = ends.recv();
        listener
    };
    let (end, ends) = sync::channel();
    let first_run = run.clone();
    let shim = std::thread::spawn(move || serve(listener, first_run, ends));

    let engine = scratch.open().await;
    let container = engine.containers.get(&id).unwrap();
    let first = container.shim().unwrap();
    let usual = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..usual }).unwrap();
    end.send(()).unwrap();
    // The first try is made right after that.
    until("it is not missed", || first.is_wanted() || !container.state().is_running()).await;
    assert_eq!(container.state().name(), "running");
    setrlimit(Resource::Nofile, usual).unwrap();
    let listener = shim.join().unwrap();
    let (end, ends) = sync::channel();
    let shim = std::thread::spawn(move || serve(listener, run, ends));
    until("no second connection", || container.shim().is_some_and(|shim| !Arc::ptr_eq(&shim, &first))).await;
    assert_eq!(container.state().name(), "running");
    drop(end);
    drop(shim.join().unwrap());
    until("it is not lost", || !container.state().is_running()).await;
}

#[tokio::test]
async fn privileged_execs_of_an_earlier_daemon_are_known() {
    let scratch = Scratch::new();
    let id = scratch.container("x", running(), |_| {});
    let dir = scratch.shim_dir(&id);
    fs::create_dir_all(&dir).unwrap();
    let request =
        |name: &str| ExecCreate { cmd: Some(vec![name.into(), "-c".into()]), tty: true, ..ExecCreate::default() };
    let [runs, ended, waits, half] = ["runs", "ended", "waits", "half"].map(|name| Exec::new(request(name)));
    // One was started just before the death, so that its file is still there.
    [&runs, &waits].iter().for_each(|exec| exec.keep(&dir));
    fs::write(dir.join(format!("exec-{}.json", half.id)), "{").unwrap();
    let told = |exec: &Exec, exit_code| ExecState { exec_id: exec.id.clone(), pid: 5, exit_code, note: exec.note() };
    let unnoted = ExecState { exec_id: "older".into(), pid: 6, exit_code: None, note: String::new() };
    let execs = vec![told(&runs, None), told(&ended, Some(9)), unnoted];
    let listener = UnixListener::bind(shim_api::paths::socket(&dir)).unwrap();
    let run = RunState { pid: 1 << 21, pid_start_ticks: 0, shim_pid: 0, started: true, started_at_nanos: 9 };
    let (close, closes) = sync::channel();
    let shim = std::thread::spawn(move || fake_shim(listener, run, closes, vec![execs]));

    let engine = scratch.open().await;
    let container = engine.containers.get(&id).unwrap();
    let known = container.live().execs.clone();
    let mut shown: Vec<_> = known
        .values()
        .map(|exec| {
            let progress = *exec.progress();
            let command = exec.request.cmd.as_deref().unwrap()[0].clone();
            (command, exec.request.tty, progress.running, progress.pid, progress.exit_code)
        })
        .collect();
    shown.sort();
    let expected = [("ended", false, 5, Some(9)), ("runs", true, 5, None), ("waits", false, 0, None)];
    assert_eq!(shown, expected.map(|(name, running, pid, code)| (name.to_owned(), true, running, pid, code)));
    let inspect = ops::exec::inspect(&engine, &ended.id).await.unwrap();
    assert_eq!((inspect.exit_code, inspect.process_config.entrypoint.as_str()), (Some(9), "ended"));
    assert_eq!(exec::kept(&dir).iter().map(|exec| exec.id.as_str()).collect::<Vec<_>>(), [waits.id.as_str()]);
    drop(close);
    until("it is not lost", || !container.state().is_running()).await;
    assert_eq!(shim.join().unwrap(), 1);
}

#[tokio::test]
async fn privileged_who_asks_during_a_start_hears_of_a_container_that_runs() {
    let scratch = Scratch::new();
    let id = scratch.container("x", State::default(), |_| {});
    let engine = scratch.open().await;
    let container = engine.containers.get(&id).unwrap();
    let operation = container.operation.lock().await;
    container.live().starting = true;
    let (mut client, theirs) = UnixStream::pair().unwrap();
    let query = AttachQuery { stream: true, stdout: true, ..AttachQuery::default() };
    let attachment = ops::attach::prepare(&engine, "x", query).await.unwrap();
    let connection = Connection { stream: theirs.into(), head: b"head".to_vec(), already_read: vec![], gate: None };
    let mut attached = pin!(attachment.connect(connection));
    let mut waited = pin!(ops::wait::wait(&engine, "x", Condition::NotRunning));
    let mut execed =
        pin!(ops::exec::create(&engine, "x", ExecCreate { cmd: Some(vec!["true".into()]), ..ExecCreate::default() }));
    assert!(timeout(Duration::ZERO, &mut attached).await.is_err());
    assert!(timeout(Duration::ZERO, &mut waited).await.is_err());
    assert!(timeout(Duration::ZERO, &mut execed).await.is_err());
    supervise::feed(&engine, &container, Input::Started { pid: 1 << 21, at_nanos: 9 });
    container.live().starting = false;
    drop(operation);
    // It asked first. Whoever starts the container because this answer is here finds the client held.
    timeout(DEADLINE, attached).await.unwrap().unwrap();
    let mut head = [0; 4];
    client.read_exact(&mut head).unwrap();
    assert_eq!((&head, container.live().held_clients.len()), (b"head", 1));
    let waiting = timeout(DEADLINE, waited).await.unwrap().unwrap();
    timeout(DEADLINE, execed).await.unwrap().unwrap();
    let end = Input::Exited { exit_code: 7, oom_killed: false, at_nanos: 10 };
    supervise::feed(&engine, &container, end);
    assert_eq!(timeout(DEADLINE, waiting.finish()).await.unwrap().status_code, 7);
}

#[tokio::test]
async fn privileged_a_removed_container_gets_no_new_name() {
    let scratch = Scratch::new();
    scratch.container("x", exited(0), |_| {});
    let engine = scratch.open().await;
    let container = engine.containers.find("x").unwrap();
    let operation = container.operation.lock().await;
    let mut renamed = pin!(ops::rename::rename(&engine, "x", "other"));
    assert!(timeout(Duration::ZERO, &mut renamed).await.is_err());
    // What a removal does while it holds the lock.
    engine.containers.remove(container.id());
    container.tell_removed();
    drop(operation);
    let err = timeout(DEADLINE, renamed).await.unwrap().unwrap_err();
    assert_eq!(err.kind(), ErrorKind::NotFound);
    let other: ContainerId = stdx::id::random_hex::<32>().parse().unwrap();
    engine.containers.reserve("other", &other).unwrap();
}

#[tokio::test]
async fn a_task_that_panics_begins_anew() {
    let runs = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = runs.clone();
    outlive_panics("test", move || {
        let run = counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        async move { assert!(run == 2, "on purpose") }
    })
    .await;
    assert_eq!(runs.load(std::sync::atomic::Ordering::Relaxed), 3);
}

#[tokio::test]
async fn privileged_a_checkpoint_that_a_dead_daemon_had_begun_is_found() {
    let scratch = Scratch::new();
    let always = |host: &mut HostConfig| {
        host.restart_policy = RestartPolicy { name: "always".into(), ..RestartPolicy::default() }
    };
    // What the shim has left: the state of the record, files under the name, files under the other.
    let begin = |name: &str, state: State, kept: bool, files: &[&str]| {
        let place = scratch.root.path().join(name);
        let (path, begun) = (place.join("one"), place.join(".begun"));
        let written = if kept { &path } else { &begun };
        fs::create_dir_all(written).unwrap();
        files.iter().for_each(|file| fs::write(written.join(file), "").unwrap());
        let pending = Pending { name: "one".into(), path, begun: begun.clone(), exit: true };
        (scratch.container(name, State { pending: Some(Box::new(pending)), ..state }, always), begun)
    };
    let whole = ["pages-1.img", "inventory.img"];
    let (kept, _) = begin("kept", exited(137), true, &whole);
    let (seen, _) = begin("seen", running(), true, &whole);
    scratch.exit(&seen, 137);
    let (left, left_files) = begin("left", exited(137), false, &whole);
    let earlier = scratch.container("earlier", State { checkpoint: Some("one".into()), ..exited(137) }, always);
    let (cut, cut_files) = begin("cut", running(), false, &whole[..1]);
    let engine = scratch.open().await;
    let state = |id| engine.containers.get(id).unwrap().state();
    for id in [&kept, &seen, &left, &cut] {
        until("it is settled", || state(id).pending.is_none()).await;
    }
    for id in [&kept, &seen] {
        let state = state(id);
        assert_eq!((state.name(), state.checkpoint.as_deref(), state.restart_count), ("exited", Some("one"), 0));
    }
    assert_eq!((state(&left).checkpoint, state(&left).restart_count, left_files.exists()), (None, 0, true));
    assert_eq!((state(&cut).checkpoint, state(&cut).restart_count, cut_files.exists()), (None, 1, false));
    // What an earlier daemon has found is not started either.
    assert_eq!((state(&earlier).name(), state(&earlier).error.as_str()), ("exited", ""));
}
