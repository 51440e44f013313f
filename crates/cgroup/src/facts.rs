//! What is mounted where.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A version of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller.
    V1,
    /// One hierarchy for all.
    V2,
}

/// The controllers that containers use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Controller {
    /// Memory limits and counters.
    Memory,
    /// Shares and quotas of processor time.
    Cpu,
    /// Processor time used (v1 only; part of `cpu` in v2).
    Cpuacct,
    /// Which processors and memory nodes.
    Cpuset,
    /// Which device nodes (v1 only; eBPF in v2).
    Devices,
    /// Stopping all processes (v1 only; part of the core in v2).
    Freezer,
    /// Number of tasks.
    Pids,
    /// Disk bandwidth; `io` in v2.
    Blkio,
    /// Huge pages.
    Hugetlb,
    /// A mark on packets for traffic control (v1 only).
    NetCls,
    /// Priorities of packets (v1 only).
    NetPrio,
    /// Devices for remote memory access.
    Rdma,
    /// Resources that are no more than a number.
    Misc,
}

impl Controller {
    /// All of them, in the order of the kernel's list.
    pub const ALL: [Controller; 13] = [
        Controller::Memory,
        Controller::Cpu,
        Controller::Cpuacct,
        Controller::Cpuset,
        Controller::Devices,
        Controller::Freezer,
        Controller::Pids,
        Controller::Blkio,
        Controller::Hugetlb,
        Controller::NetCls,
        Controller::NetPrio,
        Controller::Rdma,
        Controller::Misc,
    ];

    /// What containers are limited, counted and stopped by. The others are in use where no container is, too: `net_cls`
    /// alone is mounted by some on a machine that is version 2 for everything else.
    const MAIN: usize = 8;

    /// Its name in mount options of v1.
    pub fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Cpu => "cpu",
            Controller::Cpuacct => "cpuacct",
            Controller::Cpuset => "cpuset",
            Controller::Devices => "devices",
            Controller::Freezer => "freezer",
            Controller::Pids => "pids",
            Controller::Blkio => "blkio",
            Controller::Hugetlb => "hugetlb",
            Controller::NetCls => "net_cls",
            Controller::NetPrio => "net_prio",
            Controller::Rdma => "rdma",
            Controller::Misc => "misc",
        }
    }

    /// Its name in `cgroup.controllers` of v2, where it is one.
    pub(crate) fn unified_name(self) -> Option<&'static str> {
        match self {
            Controller::Cpuacct
            | Controller::Devices
            | Controller::Freezer
            | Controller::NetCls
            | Controller::NetPrio => None,
            Controller::Blkio => Some("io"),
            other => Some(other.name()),
        }
    }

    /// The one of this name in v2.
    pub(crate) fn of_unified(name: &str) -> Option<Controller> {
        Controller::ALL.into_iter().find(|controller| controller.unified_name() == Some(name))
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A mounted hierarchy of v1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Those of our controllers that it has.
    pub controllers: Vec<Controller>,
    /// Where it is mounted.
    pub mount: PathBuf,
}

/// What this host has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// Hierarchies of v1 with a controller of ours, in the order of their mounts.
    pub v1: Vec<Hierarchy>,
    /// Where v2 is mounted.
    pub unified: Option<PathBuf>,
    /// Our controllers in v2.
    pub unified_controllers: Vec<Controller>,
    /// Where the hierarchy of v1 is mounted that has no controller and in which systemd follows its units' processes.
    pub systemd: Option<PathBuf>,
    /// Whether a systemd has started this machine, and follows processes there.
    pub is_followed: bool,
}

impl Hierarchies {
    /// Looks at what this process sees. Reads two files.
    pub fn detect() -> io::Result<Hierarchies> {
        let mut found = Hierarchies::parse(&fs::read_to_string("/proc/self/mountinfo")?);
        // sd_booted(3).
        found.is_followed = found.systemd.is_some() && Path::new("/run/systemd/system").is_dir();
        if let Some(unified) = &found.unified {
            let controllers = fs::read_to_string(unified.join("cgroup.controllers"))?;
            found.unified_controllers = parse_unified_controllers(&controllers);
        }
        Ok(found)
    }

    /// Reads the text of /proc/PID/mountinfo (proc_pid_mountinfo(5)); lines that it does not understand are other mounts'.
    pub fn parse(mountinfo: &str) -> Hierarchies {
        let mut found = Hierarchies::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(mount) = left.split(' ').nth(4).map(unescape) else { continue };
            let mut right = right.split(' ');
            match (right.next(), right.nth(1)) {
                (Some("cgroup2"), _) if found.unified.is_none() => found.unified = Some(mount),
                (Some("cgroup"), Some(options)) => found.add_v1(mount, options),
                _ => {}
            }
        }
        found
    }

    /// The names of the cgroups directly below `path`, in any of the hierarchies; none if there is no such cgroup.
    pub fn children(&self, path: &Path) -> BTreeSet<String> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let mounts = self.v1.iter().map(|hierarchy| &hierarchy.mount).chain(&self.systemd).chain(&self.unified);
        // One that cannot be read is one that is not there: cgroups come and go.
        let entries = mounts.filter_map(|mount| fs::read_dir(mount.join(relative)).ok()).flatten().flatten();
        let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        directories.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Removes the cgroup `path` from every hierarchy in which nothing uses it any more.
    ///
    /// Still used, or never made, is no error.
    pub fn remove_unused(&self, path: &Path) -> io::Result<()> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        for mount in self.v1.iter().map(|hierarchy| &hierarchy.mount).chain(&self.systemd).chain(&self.unified) {
            match fs::remove_dir(mount.join(relative)) {
                // rmdir(2) leaves a cgroup that has processes or other cgroups in it.
                Err(err) if !matches!(err.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::NotFound) => {
                    return Err(err);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn add_v1(&mut self, mount: PathBuf, options: &str) {
        if self.systemd.is_none() && options.split(',').any(|option| option == "name=systemd") {
            self.systemd = Some(mount);
            return;
        }
        let has = |controller: &Controller| options.split(',').any(|option| option == controller.name());
        let new = |controller: &Controller| self.v1_mount(*controller).is_none();
        let controllers: Vec<_> = Controller::ALL.into_iter().filter(|c| has(c) && new(c)).collect();
        if !controllers.is_empty() {
            self.v1.push(Hierarchy { controllers, mount });
        }
    }

    /// The version that containers are put under: v1 as soon as a single main controller is there.
    ///
    /// In a hybrid the v2 hierarchy has what is left over: hugetlb perhaps, or nothing.
    pub fn version(&self) -> Version {
        let main = |hierarchy: &Hierarchy| {
            Controller::ALL[..Controller::MAIN].iter().any(|main| hierarchy.controllers.contains(main))
        };
        let v2 = self.unified.is_some() && !self.v1.iter().any(main);
        if v2 { Version::V2 } else { Version::V1 }
    }

    /// The version of this controller's files, which in a hybrid may be v2 although containers are under v1.
    pub fn version_of(&self, controller: Controller) -> Version {
        let is_left_over = self.unified_controllers.contains(&controller) && self.v1_mount(controller).is_none();
        if is_left_over { Version::V2 } else { self.version() }
    }

    /// Whether there is this controller, of the version that [`Hierarchies::version_of`] says.
    pub fn has(&self, controller: Controller) -> bool {
        match self.version_of(controller) {
            Version::V1 => self.v1_mount(controller).is_some(),
            Version::V2 => self.unified_controllers.contains(&controller),
        }
    }

    /// Where the v1 hierarchy with this controller is mounted.
    pub fn v1_mount(&self, controller: Controller) -> Option<&Path> {
        let hierarchy = self.v1.iter().find(|hierarchy| hierarchy.controllers.contains(&controller));
        hierarchy.map(|hierarchy| hierarchy.mount.as_path())
    }
}

fn parse_unified_controllers(text: &str) -> Vec<Controller> {
    text.split_whitespace().filter_map(Controller::of_unified).collect()
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let octal = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    octal.iter().fold(text.to_owned(), |text, (code, character)| text.replace(code, character)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:39 / /sys/fs/cgroup/hugetlb rw,relatime - cgroup cgroup rw,hugetlb
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 27 0:32 / /a\\040second\\040place rw,relatime - cgroup cgroup rw,memory
";

    #[test]
    fn a_hybrid_is_version_1_with_what_it_has() {
        let found = Hierarchies::parse(HYBRID);
        assert_eq!(found.version(), Version::V1);
        assert_eq!(found.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(found.v1.len(), 3);
        assert_eq!(found.systemd.as_deref(), Some(Path::new("/sys/fs/cgroup/systemd")));
        assert_eq!(found.v1_mount(Controller::Cpuacct), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!(found.v1_mount(Controller::Memory), Some(Path::new("/sys/fs/cgroup/memory")));
        assert_eq!(found.v1_mount(Controller::Pids), None);
    }

    #[test]
    fn a_unified_host_is_version_2() {
        let found = Hierarchies::parse("30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n");
        assert_eq!((found.version(), found.unified), (Version::V2, Some("/sys/fs/cgroup".into())));
        let controllers = parse_unified_controllers("cpuset cpu io memory hugetlb pids\n");
        use Controller::*;
        assert_eq!(controllers, [Cpuset, Cpu, Blkio, Memory, Hugetlb, Pids]);
    }

    #[test]
    fn a_controller_that_is_left_over_is_version_2_in_a_hybrid() {
        let without = HYBRID.lines().filter(|line| !line.contains("hugetlb")).collect::<Vec<_>>().join("\n");
        for (mounts, version, has) in [(HYBRID, Version::V1, true), (&without, Version::V2, true)] {
            let mut found = Hierarchies::parse(mounts);
            found.unified_controllers = vec![Controller::Hugetlb];
            assert_eq!((found.version(), found.version_of(Controller::Memory)), (Version::V1, Version::V1));
            assert_eq!((found.version_of(Controller::Hugetlb), found.has(Controller::Hugetlb)), (version, has));
            assert!(!found.has(Controller::Rdma) && found.has(Controller::Memory));
        }
    }

    #[test]
    fn a_mark_for_packets_makes_no_hybrid() {
        let mounts =
            "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n31 24 0:27 / /x rw - cgroup cgroup rw,net_cls\n";
        let found = Hierarchies::parse(mounts);
        assert_eq!((found.version(), found.v1.len()), (Version::V2, 1));
    }

    #[test]
    fn an_escaped_mount_point_is_read_whole() {
        let found = Hierarchies::parse(HYBRID.lines().last().unwrap());
        assert_eq!(found.v1_mount(Controller::Memory), Some(Path::new("/a second place")));
    }
}
