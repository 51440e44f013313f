use super::*;
use oci::runtime::{CpuLimits, MemoryLimits, PidsLimit};
use std::process::{Child, Command, Stdio};

const TIMEOUT: Duration = Duration::from_secs(10);

/// A cgroup of a name that no other test has, gone at the end of the test.
struct Scratch(Cgroup);

impl Scratch {
    fn new(name: &str, resources: &Resources) -> Scratch {
        let path = PathBuf::from(format!("/longshore-test-{name}-{}", std::process::id()));
        Scratch(Cgroup::create(&Hierarchies::detect().unwrap(), &path, resources).unwrap())
    }

    /// A process inside, asleep until its end.
    fn sleeper(&self) -> Child {
        self.sleeper_below("")
    }

    /// The same in a new cgroup below.
    fn sleeper_below(&self, path: &str) -> Child {
        let child = Command::new("/bin/sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        for (_, directory) in &self.0.directories {
            let directory = directory.join(path);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        child
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = self.0.destroy(TIMEOUT);
    }
}

#[test]
fn privileged_limits_are_in_their_files_and_destroy_leaves_nothing() {
    let resources = Resources {
        memory: Some(MemoryLimits { limit: Some(64 << 20), ..Default::default() }),
        cpu: Some(CpuLimits { quota: Some(50_000), period: Some(100_000), cpus: "0".into(), ..Default::default() }),
        pids: Some(PidsLimit { limit: 17 }),
        ..Default::default()
    };
    let scratch = Scratch::new("limits", &resources);
    let read =
        |controller, file: &str| fs::read_to_string(scratch.0.directory(controller).unwrap().join(file)).unwrap();
    assert_eq!(read(Controller::Pids, "pids.max"), "17\n");
    assert_eq!(read(Controller::Cpuset, "cpuset.cpus"), "0\n");
    if scratch.0.version == Version::V1 {
        assert_eq!(read(Controller::Memory, "memory.limit_in_bytes"), "67108864\n");
        assert_eq!(read(Controller::Cpu, "cpu.cfs_quota_us"), "50000\n");
        assert_eq!(read(Controller::Cpuset, "cpuset.mems"), "0\n");
    } else {
        assert_eq!(read(Controller::Memory, "memory.max"), "67108864\n");
        assert_eq!(read(Controller::Cpu, "cpu.max"), "50000 100000\n");
    }
    let mut sleeper = scratch.sleeper();
    assert_eq!(scratch.0.procs().unwrap(), [sleeper.id() as i32]);
    assert!(scratch.0.usage().unwrap().tasks >= 1);
    scratch.0.destroy(TIMEOUT).unwrap();
    assert!(scratch.0.directories.iter().all(|(_, directory)| !directory.exists()));
    assert!(!sleeper.wait().unwrap().success());
    scratch.0.destroy(TIMEOUT).unwrap();
}

#[test]
fn privileged_a_raised_memory_limit_passes_the_old_sum() {
    let memory = |bytes| Resources {
        memory: Some(MemoryLimits { limit: Some(bytes), swap: Some(bytes), ..Default::default() }),
        ..Default::default()
    };
    let scratch = Scratch::new("update", &memory(32 << 20));
    scratch.0.update(&memory(64 << 20)).unwrap();
    let directory = scratch.0.directory(Controller::Memory).unwrap();
    let file = if scratch.0.version == Version::V1 { "memory.limit_in_bytes" } else { "memory.max" };
    assert_eq!(fs::read_to_string(directory.join(file)).unwrap(), "67108864\n");
}

#[test]
fn privileged_frozen_processes_stand_still_until_thawed() {
    let scratch = Scratch::new("freeze", &Resources::default());
    let mut sleeper = scratch.sleeper();
    scratch.0.freeze(TIMEOUT).unwrap();
    let state = || fs::read_to_string(format!("/proc/{}/status", sleeper.id())).unwrap();
    assert!(state().contains("State:\tD") || state().contains("State:\tS"), "{}", state());
    scratch.0.thaw(TIMEOUT).unwrap();
    scratch.0.kill().unwrap();
    assert!(!sleeper.wait().unwrap().success());
}

#[test]
fn privileged_frozen_processes_end_with_their_cgroup() {
    let scratch = Scratch::new("frozen", &Resources::default());
    let mut sleeper = scratch.sleeper();
    scratch.0.freeze(TIMEOUT).unwrap();
    scratch.0.destroy(TIMEOUT).unwrap();
    assert!(!sleeper.wait().unwrap().success());
}

#[test]
fn privileged_what_is_in_cgroups_below_ends_with_them() {
    let scratch = Scratch::new("below", &Resources::default());
    let mut sleepers: Vec<Child> = ["a", "b/c"].map(|below| scratch.sleeper_below(below)).into();
    scratch.0.destroy(TIMEOUT).unwrap();
    assert!(scratch.0.directories.iter().all(|(_, directory)| !directory.exists()));
    assert!(sleepers.iter_mut().all(|sleeper| !sleeper.wait().unwrap().success()));
}

#[test]
fn privileged_vm_a_process_comes_beside_one_that_has_moved_below() {
    let scratch = Scratch::new("beside", &Resources::default());
    assert_eq!(scratch.0.version, Version::V2, "with version 1 every cgroup takes processes: run `cargo xtask vm`");
    let mut sleeper = scratch.sleeper_below("init/deep");
    let (_, directory) = &scratch.0.directories[0];
    fs::write(directory.join("cgroup.subtree_control"), "+memory").unwrap();
    let enter = |entrance: Entrance| sys::fork::fork(Default::default(), entrance.directory(), || 0);
    let err = enter(scratch.0.entrance().unwrap()).unwrap_err();
    assert_eq!(err.raw_os_error(), Some(EBUSY));
    let child = enter(scratch.0.entrance_beside(Pid::from_child(&sleeper)).unwrap()).unwrap();
    assert_eq!(sys::wait::wait(child.pidfd.as_fd()).unwrap(), sys::wait::Exit::Code(0));
    scratch.0.destroy(TIMEOUT).unwrap();
    sleeper.wait().unwrap();
}

#[test]
fn privileged_a_forked_process_enters_by_itself() {
    let scratch = Scratch::new("enter", &Resources::default());
    let entrance = scratch.0.entrance().unwrap();
    let child = sys::fork::fork(Default::default(), entrance.directory(), || {
        let inside = || -> io::Result<bool> {
            entrance.enter()?;
            Ok(fs::read_to_string("/proc/self/cgroup")?
                .contains(&format!("-enter-{}\n", std::os::unix::process::parent_id())))
        };
        u8::from(inside().is_ok_and(|inside| inside))
    });
    assert_eq!(sys::wait::wait(child.unwrap().pidfd.as_fd()).unwrap(), sys::wait::Exit::Code(1));
}

#[test]
fn privileged_a_kill_for_memory_is_counted() {
    let memory = MemoryLimits { limit: Some(8 << 20), swap: Some(8 << 20), ..Default::default() };
    let scratch = Scratch::new("oom", &Resources { memory: Some(memory), ..Default::default() });
    let mut events = scratch.0.oom_events().unwrap();
    assert!(!events.take().unwrap());
    let entrance = scratch.0.entrance().unwrap();
    let child = sys::fork::fork(Default::default(), entrance.directory(), || {
        if entrance.enter().is_err() {
            return 1;
        }
        std::hint::black_box(vec![1_u8; 64 << 20]);
        0
    });
    assert_eq!(sys::wait::wait(child.unwrap().pidfd.as_fd()).unwrap(), sys::wait::Exit::Signal(9));
    let mut fds = [rustix::event::PollFd::new(&events, events.poll_flags())];
    let timeout = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut fds, Some(&timeout)).unwrap(), 1);
    assert!(events.take().unwrap());
    assert!(!events.take().unwrap());
    // Whoever comes later is told, too.
    assert!(scratch.0.oom_events().unwrap().take().unwrap());
}

#[test]
fn paths_that_could_leave_the_hierarchy_are_refused() {
    let hierarchies = Hierarchies::parse("30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    for path in ["relative", "/", "/a/../../b", ""] {
        let refused = directories(&hierarchies, Path::new(path), &[]);
        assert!(matches!(refused, Err(CgroupError::Path { .. })), "{path}");
    }
}

#[test]
fn a_missing_controller_is_an_error_only_for_who_asks() {
    let hierarchies = Hierarchies::parse("35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
    assert_eq!(wanted(&hierarchies, &[]).unwrap(), [Controller::Memory]);
    let writes = [Write { controller: Controller::Pids, file: "pids.max", value: "1".into() }];
    let err = wanted(&hierarchies, &writes).unwrap_err();
    assert_eq!(err.to_string(), "cgroup controller pids is not available, and a limit asks for it");
}
