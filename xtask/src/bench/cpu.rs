//! CPU time from cgroup accounting: it counts every process, also those that ended in between.
//!
//! ```text
//! v1: /sys/fs/cgroup/cpuacct/longshore-bench-<pid>/{client,daemon,oci}    cpuacct.usage, ns
//! v2: /sys/fs/cgroup/longshore-bench-<pid>/{client,daemon,oci}            cpu.stat usage_usec
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

/// Our cgroups for the time of the measurement; removed when dropped.
#[derive(Debug)]
pub(super) struct Accounts {
    root: PathBuf,
    unified: bool,
}

impl Accounts {
    pub(super) fn new() -> Result<Accounts> {
        let v1 = Path::new("/sys/fs/cgroup/cpuacct");
        let unified = !v1.is_dir();
        let base = if unified { Path::new("/sys/fs/cgroup") } else { v1 };
        let root = base.join(format!("longshore-bench-{}", std::process::id()));
        for name in ["client", "daemon"] {
            fs::create_dir_all(root.join(name)).with_context(|| format!("create {}", root.display()))?;
        }
        Ok(Accounts { root, unified })
    }

    /// The cgroup of whoever is called client: everything that this thread starts from now on runs there.
    ///
    /// v1 moves only this thread, so that reading and printing elsewhere is not counted; v2 can only move us as a whole.
    pub(super) fn enter(&self, name: &str) -> Result<PathBuf> {
        let dir = self.root.join(name);
        let file = if self.unified { "cgroup.procs" } else { "tasks" };
        fs::write(dir.join(file), "0").with_context(|| format!("enter {}", dir.display()))?;
        Ok(dir)
    }

    /// Where this instance's containers are accounted: every cgroup called `longshore-<key>` with CPU accounting.
    pub(super) fn of_instance(&self, key: &str) -> Vec<PathBuf> {
        let base = self.root.parent().unwrap_or(Path::new("/"));
        let mut found = Vec::new();
        find(base, &format!("longshore-{key}"), 3, &mut found);
        // One below our own is counted with it.
        found.retain(|dir| !dir.starts_with(&self.root));
        found
    }

    /// Where containers of OCI runtimes are accounted: their cgroup for config.json, and the directory above it that stays.
    pub(super) fn containers(&self) -> Result<(String, PathBuf)> {
        let directory = self.root.join("oci");
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        Ok((format!("{}/container", self.own(&directory)), directory))
    }

    /// The path of a directory of ours below the hierarchy's root.
    fn own(&self, directory: &Path) -> String {
        let base = self.root.parent().unwrap_or(Path::new("/"));
        format!("/{}", directory.strip_prefix(base).unwrap_or(directory).display())
    }

    /// The directories that runtimes have made for us in other hierarchies, and left.
    fn remove_elsewhere(&self) {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        for hierarchy in hierarchies.filter(|_| !self.unified) {
            for directory in ["oci", ""] {
                let own = self.own(&self.root.join(directory));
                // Most have none; our own hierarchy's goes below, with a word if it does not.
                let _ = fs::remove_dir(hierarchy.path().join(own.trim_matches('/')));
            }
        }
    }

    /// An engine's cgroup from its name below the hierarchy's root.
    pub(super) fn named(&self, name: &str) -> PathBuf {
        self.root.parent().unwrap_or(Path::new("/")).join(name.trim_start_matches('/'))
    }
}

impl Drop for Accounts {
    fn drop(&mut self) {
        // Leave first: a cgroup with a process in it stays.
        let base = self.root.parent().unwrap_or(Path::new("/"));
        let file = if self.unified { "cgroup.procs" } else { "tasks" };
        let left = fs::write(base.join(file), "0");
        // Only rows of runtimes have it.
        let _ = fs::remove_dir(self.root.join("oci"));
        self.remove_elsewhere();
        let removed: Vec<_> =
            ["client", "daemon", ""].iter().map(|name| fs::remove_dir(self.root.join(name))).collect();
        if left.is_err() || removed.iter().any(Result::is_err) {
            eprintln!("{} is left behind: {left:?} {removed:?}", self.root.display());
        }
    }
}

/// What the cgroup and everything below it has used; zero when it does not exist (any more).
pub(super) fn used(cgroup: &Path) -> Duration {
    if let Ok(text) = fs::read_to_string(cgroup.join("cpuacct.usage")) {
        return Duration::from_nanos(text.trim().parse().unwrap_or_default());
    }
    let text = fs::read_to_string(cgroup.join("cpu.stat")).unwrap_or_default();
    let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
    Duration::from_micros(usage.and_then(|text| text.parse().ok()).unwrap_or_default())
}

fn find(dir: &Path, name: &str, depth: usize, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name() == *name {
            found.push(entry.path());
        } else if depth > 0 {
            find(&entry.path(), name, depth - 1, found);
        }
    }
}
