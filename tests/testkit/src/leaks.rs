//! What an instance has on the machine, found from outside: by its scratch directory and its key.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};

use crate::process;

/// How long an instance may take to have nothing left: the promise of the specification.
pub const GONE_WITHIN: Duration = Duration::from_secs(1);

/// What is there that should not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaks {
    /// Mount points below the instance's directory.
    pub mounts: Vec<PathBuf>,
    /// Directories of cgroup file systems called `longshore-<key>`.
    pub cgroups: Vec<PathBuf>,
    /// Network links and packet filter tables that have the key in their name: `link NAME` or `table FAMILY NAME`.
    pub network: Vec<String>,
    /// Processes whose command line names the directory or whose cgroup has the key: pid and command line.
    pub processes: Vec<(i32, String)>,
}

impl Leaks {
    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.mounts.is_empty() && self.cgroups.is_empty() && self.network.is_empty() && self.processes.is_empty()
    }

    /// Removes everything, as well as it can: for the end of a failed test.
    pub fn clean(&self) {
        for (pid, _) in &self.processes {
            if let Some(pid) = Pid::from_raw(*pid) {
                // It may have ended by itself meanwhile.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        for mount in self.mounts.iter().rev() {
            // A mount below a lazily unmounted one is gone already.
            let _ = rustix::mount::unmount(mount, UnmountFlags::DETACH);
        }
        for name in &self.network {
            let program = if name.starts_with("link") { "ip" } else { "nft" };
            // A link goes with the namespace at its other end, which a process that was just killed may have held.
            let (kind, name) = name.split_once(' ').unwrap_or((name, ""));
            let words: Vec<&str> = match program {
                "ip" => vec![kind, "delete", name],
                _ => ["delete", kind].into_iter().chain(name.split(' ')).collect(),
            };
            let _ = Command::new(program).args(words).output();
        }
        for cgroup in &self.cgroups {
            let gone = process::until("cgroup without processes", GONE_WITHIN, || {
                remove_cgroup(cgroup);
                (!cgroup.exists()).then_some(())
            });
            if gone.is_err() {
                println!("cannot remove {}", cgroup.display());
            }
        }
    }
}

impl fmt::Display for Leaks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mount in &self.mounts {
            writeln!(f, "  mount   {}", mount.display())?;
        }
        for cgroup in &self.cgroups {
            writeln!(f, "  cgroup  {}", cgroup.display())?;
        }
        for name in &self.network {
            writeln!(f, "  network {name}")?;
        }
        for (pid, command) in &self.processes {
            writeln!(f, "  process {pid} {command}")?;
        }
        Ok(())
    }
}

/// What the instance with its files below `root` and this `key` has on the machine.
pub fn find(root: &Path, key: Option<&str>) -> Result<Leaks> {
    let name = key.map(|key| format!("longshore-{key}"));
    let mut cgroups = Vec::new();
    if let Some(name) = &name {
        find_directories(Path::new("/sys/fs/cgroup"), name, 5, &mut cgroups);
    }
    let mounts = mounts_below(&fs::read_to_string("/proc/self/mountinfo")?, root);
    let network = key.map_or_else(|| Ok(Vec::new()), network)?;
    Ok(Leaks { mounts, cgroups, network, processes: processes(root, name.as_deref())? })
}

/// Waits until the instance has nothing left; after [`GONE_WITHIN`], what is still there.
pub fn wait_until_gone(root: &Path, key: Option<&str>) -> Result<Leaks> {
    let mut last = Leaks::default();
    let gone = process::until("no leaks", GONE_WITHIN, || {
        last = find(root, key).ok()?;
        last.is_empty().then_some(())
    });
    Ok(match gone {
        Ok(()) => Leaks::default(),
        Err(_) => find(root, key)?,
    })
}

/// The links and tables of the instance with this key.
fn network(key: &str) -> Result<Vec<String>> {
    let links = fs::read_to_string("/proc/thread-self/net/dev")?;
    let links = links.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    let ours = links.filter(|name| [format!("ls{key}"), format!("v{key}")].iter().any(|start| name.starts_with(start)));
    let mut found: Vec<String> = ours.map(|name| format!("link {name}")).collect();
    // Without the program there are no tables that a test could have made.
    if let Ok(tables) = Command::new("nft").args(["list", "tables"]).output() {
        let tables = String::from_utf8_lossy(&tables.stdout).into_owned();
        let ours = tables.lines().filter(|line| line.ends_with(&format!(" longshore-{key}")));
        found.extend(ours.filter(|table| !is_guard(table)).map(str::to_owned));
    }
    Ok(found)
}

/// Whether a table (`table ip longshore-<key>`) is but the guard, which stays where the instance has switched forwarding on.
fn is_guard(table: &str) -> bool {
    let args = ["list"].into_iter().chain(table.split(' '));
    let Ok(rules) = Command::new("nft").args(args).output() else { return false };
    let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
    let parts = rules.lines().filter_map(|line| line.trim().strip_suffix(" {")).skip(1);
    let mut parts: Vec<_> = parts.collect();
    parts.sort_unstable();
    parts == ["chain arrive", "chain guard", "chain unmark"]
}

/// The mount points of a mountinfo text that lie below `root`, in the order of mounting.
fn mounts_below(mountinfo: &str, root: &Path) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    points.map(|text| PathBuf::from(text.replace("\\040", " "))).filter(|path| path.starts_with(root)).collect()
}

fn processes(root: &Path, cgroup: Option<&str>) -> Result<Vec<(i32, String)>> {
    let root = root.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // A process that ends between readdir and read has nothing to say.
        let Ok(command) = fs::read(entry.path().join("cmdline")) else { continue };
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let in_cgroup = cgroup
            .is_some_and(|name| fs::read_to_string(entry.path().join("cgroup")).is_ok_and(|text| text.contains(name)));
        if (command.contains(&root) || in_cgroup) && !is_zombie(&entry.path()) && pid != own_pid() {
            found.push((pid, command));
        }
    }
    Ok(found)
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Zombies wait for a parent outside of the instance and hold nothing.
fn is_zombie(process: &Path) -> bool {
    let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

fn find_directories(dir: &Path, name: &str, depth: usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_str().is_some_and(|text| text == name || text == format!("{name}.slice")) {
            found.push(entry.path());
        } else if depth > 0 {
            find_directories(&entry.path(), name, depth - 1, found);
        }
    }
}

/// Removes a cgroup and those below it; cgroupfs has no files to remove first.
fn remove_cgroup(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    // Busy as long as a killed process is on its way out: the caller asks again.
    let _ = fs::remove_dir(dir);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_path_not_by_prefix_of_a_name() {
        let info = "22 1 0:21 / /tmp/x/m\\040n rw - tmpfs tmpfs rw\n23 1 0:22 / /tmp/xy rw - tmpfs tmpfs rw\n";
        assert_eq!(mounts_below(info, Path::new("/tmp/x")), [PathBuf::from("/tmp/x/m n")]);
    }

    #[test]
    fn a_process_that_names_the_root_is_found_and_cleaned() {
        let root = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "read _", root.path().to_str().unwrap()]);
        let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
        // The spawn returns in the middle of execve(2): for a moment there is no command line.
        let found = process::until("one process", process::DEADLINE, || {
            find(root.path(), None).ok().filter(|leaks| leaks.processes.len() == 1)
        });
        let leaks = found.unwrap();
        leaks.clean();
        assert!(!child.wait().unwrap().success());
        assert!(find(root.path(), None).unwrap().is_empty());
    }

    #[test]
    fn privileged_a_mount_and_a_cgroup_are_found_and_cleaned() {
        if crate::skip::without_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let key = format!("{:08x}", std::process::id());
        let (cgroup, point) = (own_cgroup().join(format!("longshore-{key}/inner")), root.path().join("point"));
        fs::create_dir_all(&point).unwrap();
        fs::create_dir_all(&cgroup).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("none", &point, "tmpfs", flags, None::<&std::ffi::CStr>).unwrap();
        let leaks = find(root.path(), Some(&key)).unwrap();
        leaks.clean();
        assert_eq!((leaks.mounts, leaks.cgroups.len()), (vec![point], 1));
        assert!(find(root.path(), Some(&key)).unwrap().is_empty());
    }

    #[test]
    fn privileged_a_link_and_a_table_are_found_and_cleaned() {
        if crate::skip::without_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let key = format!("{:08x}", std::process::id() | 1 << 31);
        for command in [format!("ip link add ls{key} type bridge"), format!("nft add table inet longshore-{key}")] {
            let words: Vec<&str> = command.split(' ').collect();
            assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success(), "{command}");
        }
        let leaks = find(root.path(), Some(&key)).unwrap();
        leaks.clean();
        assert_eq!(leaks.network, [format!("link ls{key}"), format!("table inet longshore-{key}")]);
        assert!(find(root.path(), Some(&key)).unwrap().is_empty());
    }

    /// Some cgroup file system of this machine: v1's cpuacct, else the unified one.
    fn own_cgroup() -> PathBuf {
        let v1 = PathBuf::from("/sys/fs/cgroup/cpuacct");
        if v1.is_dir() { v1 } else { PathBuf::from("/sys/fs/cgroup") }
    }
}
