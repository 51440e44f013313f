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
        pids: Some(PidsLimit { limit: Some(17) }),
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
    let mut scratch = Scratch::new("update", &memory(32 << 20));
    scratch.0.update(&Hierarchies::detect().unwrap(), &memory(64 << 20)).unwrap();
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
    let found = || Cgroup::open(&Hierarchies::detect().unwrap(), &scratch.0.path).unwrap().exists();
    assert!(found());
    scratch.0.destroy(TIMEOUT).unwrap();
    assert!(!found(), "whoever opens it then is told so");
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

/// With version 1 what stands still does not even die; a container that may write its cgroups can have frozen some.
#[test]
fn privileged_what_a_container_has_frozen_below_ends_with_it() {
    let scratch = Scratch::new("frozen-below", &Resources::default());
    let mut sleepers = [scratch.sleeper_below("a"), scratch.sleeper_below("a/b")];
    let file = if scratch.0.version == Version::V1 { ("freezer.state", "FROZEN") } else { ("cgroup.freeze", "1") };
    let mut directories = scratch.0.directories.iter().map(|(_, directory)| directory);
    let directory = directories.find(|directory| directory.join("a").join(file.0).exists()).unwrap();
    for below in ["a", "a/b"] {
        fs::write(directory.join(below).join(file.0), file.1).unwrap();
    }
    scratch.0.destroy(TIMEOUT).unwrap();
    assert!(!directory.exists());
    for sleeper in &mut sleepers {
        assert!(!sleeper.wait().unwrap().success());
    }
}

#[test]
fn paths_that_could_leave_the_hierarchy_are_refused() {
    let hierarchies = Hierarchies::parse("30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    for (path, why) in [
        ("relative", "relative is not absolute: it has to begin with /"),
        ("/", "/ is the hierarchy's root, which is the host's: it has to name a cgroup below"),
        ("/.", "/. is the hierarchy's root, which is the host's: it has to name a cgroup below"),
        (
            "/a/../../b",
            "/a/../../b has \"..\" in it, which could lead out of the hierarchy: it has to be written without",
        ),
        ("", " is not absolute: it has to begin with /"),
    ] {
        let refused = directories::directories(&hierarchies, Path::new(path), &[]).unwrap_err();
        assert_eq!(refused.to_string(), format!("linux.cgroupsPath: {why}"), "{path}");
    }
}

#[test]
fn a_missing_controller_is_an_error_only_for_who_asks() {
    let hierarchies = Hierarchies::parse("35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
    assert_eq!(directories::wanted(&hierarchies, &[]).unwrap(), [Controller::Memory]);
    let resources = Resources { pids: Some(PidsLimit { limit: Some(1) }), ..Default::default() };
    let err = directories::wanted(&hierarchies, &plan(&resources, &hierarchies).unwrap()).unwrap_err();
    assert_eq!(err.to_string(), "linux.resources.pids.limit: cgroup controller pids is not available");
}

/// The value of a limit's file; on version 2 of the second, if there is one.
fn limit(group: &Cgroup, controller: Controller, v1: &str, v2: &str) -> String {
    let file = if group.version == Version::V1 { v1 } else { v2 };
    fs::read_to_string(group.directory(controller).unwrap().join(file)).unwrap().trim().to_owned()
}

fn read(json: &str) -> Resources {
    serde_json::from_str(json).unwrap()
}

#[test]
fn privileged_every_limit_is_kept_and_changed() {
    let first = r#"{
        "cpu": {"shares": 512, "quota": 40000, "period": 80000, "burst": 10000, "idle": 0},
        "memory": {"limit": 67108864, "reservation": 33554432, "swap": 134217728},
        "pids": {"limit": 0}
    }"#;
    let hierarchies = Hierarchies::detect().unwrap();
    let mut scratch = Scratch::new("every", &read(first));
    let v1 = scratch.0.version == Version::V1;
    use Controller::*;
    let one = |group: &Cgroup, controller, v1, v2| limit(group, controller, v1, v2);
    assert_eq!(one(&scratch.0, Cpu, "cpu.shares", "cpu.weight"), if v1 { "512" } else { "59" });
    assert_eq!(one(&scratch.0, Cpu, "cpu.cfs_quota_us", "cpu.max"), if v1 { "40000" } else { "40000 80000" });
    assert_eq!(one(&scratch.0, Cpu, "cpu.cfs_burst_us", "cpu.max.burst"), "10000");
    assert_eq!(one(&scratch.0, Memory, "memory.soft_limit_in_bytes", "memory.low"), "33554432");
    let swap = one(&scratch.0, Memory, "memory.memsw.limit_in_bytes", "memory.swap.max");
    assert_eq!(swap, if v1 { "134217728" } else { "67108864" });
    assert_eq!(one(&scratch.0, Pids, "pids.max", "pids.max"), "1");
    // Each of these is refused as long as another one is what it was.
    for (changed, file, quota) in [
        (r#"{"cpu": {"quota": 5000, "period": 10000, "burst": 5000}}"#, "cpu.cfs_burst_us", "5000"),
        (r#"{"cpu": {"quota": 400000, "burst": 300000, "period": 10000}}"#, "cpu.cfs_burst_us", "300000"),
        (r#"{"cpu": {"quota": 1000, "burst": 0, "period": 1000}}"#, "cpu.cfs_quota_us", "1000"),
    ] {
        scratch.0.update(&hierarchies, &read(changed)).unwrap();
        let v2 = if file == "cpu.cfs_burst_us" { "cpu.max.burst" } else { "cpu.max" };
        let expected = if v1 || v2 == "cpu.max.burst" { quota.to_owned() } else { format!("{quota} 1000") };
        assert_eq!(one(&scratch.0, Cpu, file, v2), expected);
    }
    scratch.0.update(&hierarchies, &read(r#"{"cpu": {"idle": 1}, "memory": {"limit": -1}}"#)).unwrap();
    assert_eq!(one(&scratch.0, Cpu, "cpu.idle", "cpu.idle"), "1");
    scratch.0.update(&hierarchies, &read(r#"{"cpu": {"idle": 0, "shares": 2048}}"#)).unwrap();
    assert_eq!(one(&scratch.0, Cpu, "cpu.shares", "cpu.weight"), if v1 { "2048" } else { "174" });
    let unlimited = one(&scratch.0, Memory, "memory.limit_in_bytes", "memory.max");
    assert!(unlimited == "max" || unlimited.parse::<u64>().unwrap() > 1 << 62, "{unlimited}");
}

#[test]
fn privileged_block_devices_are_throttled() {
    // Any disk: nothing is read of it.
    let disk = fs::read_dir("/sys/block").unwrap().flatten().map(|entry| entry.path().join("dev")).next().unwrap();
    let disk = fs::read_to_string(disk).unwrap().trim().to_owned();
    let (major, minor) = disk.split_once(':').unwrap();
    let one = |rate| format!(r#"[{{"major": {major}, "minor": {minor}, "rate": {rate}}}]"#);
    let scratch = Scratch::new(
        "throttle",
        &read(&format!(
            r#"{{"blockIO": {{"throttleReadBpsDevice": {}, "throttleWriteIOPSDevice": {}}}}}"#,
            one(1 << 20),
            one(77)
        )),
    );
    let found = limit(&scratch.0, Controller::Blkio, "blkio.throttle.read_bps_device", "io.max");
    assert!(found.starts_with(&disk) && found.contains("1048576"), "{found}");
    let found = limit(&scratch.0, Controller::Blkio, "blkio.throttle.write_iops_device", "io.max");
    assert!(found.starts_with(&disk) && found.contains("77"), "{found}");
}

#[test]
fn privileged_huge_pages_are_limited_also_in_a_hybrid() {
    let hierarchies = Hierarchies::detect().unwrap();
    assert!(hierarchies.has(Controller::Hugetlb), "{hierarchies:?}");
    let scratch = Scratch::new("huge", &read(r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#));
    let (v1, v2) = ("hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max");
    let file = if hierarchies.version_of(Controller::Hugetlb) == Version::V1 { v1 } else { v2 };
    assert_eq!(limit(&scratch.0, Controller::Hugetlb, file, file), "4194304");
    let entrance = scratch.0.entrance().unwrap();
    let directory = scratch.0.directory(Controller::Hugetlb).unwrap().join("cgroup.procs");
    let child = sys::fork::fork(Default::default(), entrance.directory(), || {
        let inside = || -> io::Result<bool> {
            entrance.enter()?;
            let own = std::process::id().to_string();
            Ok(fs::read_to_string(&directory)?.lines().any(|line| line == own))
        };
        u8::from(inside().unwrap_or(false))
    });
    assert_eq!(sys::wait::wait(child.unwrap().pidfd.as_fd()).unwrap(), sys::wait::Exit::Code(1));
    // Found again by whoever comes later, and taken away with the rest.
    let opened = Cgroup::open(&hierarchies, &scratch.0.path).unwrap();
    assert!(opened.directory(Controller::Hugetlb).is_ok());
    opened.destroy(TIMEOUT).unwrap();
    assert!(scratch.0.directories.iter().all(|(_, directory)| !directory.exists()));
}

#[test]
fn privileged_a_limit_of_processors_moves_a_living_container() {
    let mut scratch = Scratch::new("move", &Resources::default());
    let mut sleepers = [scratch.sleeper(), scratch.sleeper()];
    scratch.0.update(&Hierarchies::detect().unwrap(), &read(r#"{"cpu": {"cpus": "0", "mems": "0"}}"#)).unwrap();
    assert_eq!(limit(&scratch.0, Controller::Cpuset, "cpuset.cpus", "cpuset.cpus"), "0");
    for sleeper in &sleepers {
        let status = fs::read_to_string(format!("/proc/{}/status", sleeper.id())).unwrap();
        assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    }
    let opened = Cgroup::open(&Hierarchies::detect().unwrap(), &scratch.0.path).unwrap();
    opened.destroy(TIMEOUT).unwrap();
    sleepers.iter_mut().for_each(|sleeper| assert!(!sleeper.wait().unwrap().success()));
}

#[test]
fn privileged_a_tree_deeper_than_paths_and_descriptors_go_is_killed_and_removed() {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    // Each step takes two bytes of a path, of which there are 4096 at most (PATH_MAX). The kernel's work grows by the square of
    // the depth: twice as deep takes minutes on the emulated processor of the virtual machine.
    const DEPTH: usize = 2500;
    let scratch = Scratch::new("deep", &Resources::default());
    let top = scratch.0.directory(Controller::Pids).unwrap();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut here = openat(CWD, top, flags, Mode::empty()).unwrap();
    for _ in 0..DEPTH {
        mkdirat(&here, "d", Mode::RWXU).unwrap();
        here = openat(&here, "d", flags, Mode::empty()).unwrap();
    }
    let mut sleeper = Command::new("/bin/sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    let procs = openat(&here, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    rustix::io::write(&procs, sleeper.id().to_string().as_bytes()).unwrap();
    drop((here, procs));
    setrlimit(Resource::Nofile, Rlimit { current: Some(32), ..getrlimit(Resource::Nofile) }).unwrap();
    assert!(scratch.0.procs_with_below().contains(&(sleeper.id() as i32)));
    scratch.0.destroy(6 * TIMEOUT).unwrap();
    assert!(!sleeper.wait().unwrap().success());
    assert!(scratch.0.directories.iter().all(|(_, directory)| !directory.exists()));
}

#[test]
fn privileged_memory_in_use_stands_against_a_lower_limit_and_is_told() {
    let hierarchies = Hierarchies::detect().unwrap();
    if hierarchies.version() == Version::V2 {
        // There the kernel takes back what it can, and kills for the rest.
        return;
    }
    let mut scratch = Scratch::new("busy", &Resources::default());
    // Locked, or it would be swapped out where there is swap.
    let entrance = scratch.0.entrance().unwrap();
    let (mut ready, tell) = io::pipe().unwrap();
    let child = sys::fork::fork(Default::default(), None, || {
        let _ = entrance.enter();
        let mut pages = vec![0_u8; 16 << 20];
        pages.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        let _ = rustix::mm::mlockall(rustix::mm::MlockAllFlags::CURRENT);
        let _ = rustix::io::write(&tell, &pages[..1]);
        std::thread::sleep(Duration::from_secs(1000));
        0
    });
    let child = child.unwrap();
    io::Read::read_exact(&mut ready, &mut [0]).unwrap();
    let err = scratch.0.update(&hierarchies, &read(r#"{"memory": {"limit": 4096}}"#)).unwrap_err();
    let text = errdefs::chain(&err);
    let words = "linux.resources.memory.limit: unable to set memory limit to 4096 (current usage: ";
    let told = text.strip_prefix(words).and_then(|rest| rest.strip_suffix(')')?.split_once(", peak usage: "));
    let (current, peak): (u64, u64) =
        told.map(|(current, peak)| (current.parse().unwrap(), peak.parse().unwrap())).unwrap();
    // With what else of the program is locked.
    assert!(16 << 20 <= current && current <= peak, "{text}");
    scratch.0.destroy(TIMEOUT).unwrap();
    sys::wait::wait(child.pidfd.as_fd()).unwrap();
}

#[test]
fn privileged_impossible_limits_are_named_and_leave_nothing() {
    let hierarchies = Hierarchies::detect().unwrap();
    let above = format!("longshore-test-impossible-{}", std::process::id());
    let path = PathBuf::from(format!("/{above}/deeper/x"));
    let mut impossible = vec![
        (r#"{"cpu": {"cpus": "4000-5000"}}"#, "linux.resources.cpu.cpus"),
        (r#"{"cpu": {"cpus": "x"}}"#, "linux.resources.cpu.cpus"),
        (r#"{"cpu": {"mems": "77"}}"#, "linux.resources.cpu.mems"),
        (r#"{"cpu": {"quota": 1}}"#, "linux.resources.cpu.quota"),
        (r#"{"cpu": {"idle": 7}}"#, "linux.resources.cpu.idle"),
        (r#"{"cpu": {"burst": 18446744073709551615}}"#, "linux.resources.cpu.burst"),
        (r#"{"pids": {"limit": -5}}"#, "linux.resources.pids.limit"),
        (r#"{"pids": {"limit": 9223372036854775807}}"#, "linux.resources.pids.limit"),
        (
            r#"{"blockIO": {"throttleReadBpsDevice": [{"major": 4000, "minor": 1, "rate": 1}]}}"#,
            "linux.resources.blockIO",
        ),
        (r#"{"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}"#, "linux.resources.hugepageLimits"),
        (r#"{"rdma": {"nosuch": {"hcaHandles": 1}}}"#, "linux.resources.rdma"),
    ];
    match hierarchies.version() {
        Version::V1 => impossible.push((r#"{"unified": {"memory.max": "1"}}"#, "linux.resources.unified")),
        Version::V2 => impossible.push((r#"{"unified": {"memory.max": "x"}}"#, "linux.resources.unified")),
    }
    for (json, field) in impossible {
        let text = errdefs::chain(&Cgroup::create(&hierarchies, &path, &read(json)).unwrap_err());
        assert!(text.contains(field), "{json}: {text}");
        assert!(!hierarchies.children(Path::new("/")).contains(&above), "{json}");
    }
}
