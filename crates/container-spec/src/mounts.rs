//! What is mounted, in order.
//!
//! First the kernel's file systems, then the init program, then what the user asked for and the files of /etc, parents
//! before children. A mount of the user's replaces ours at the same place; one on /dev replaces everything below it.

use engine_api::host_config::{HostConfig, Mount as LongForm};
use engine_api::paths::clean;
use oci::runtime::Mount;

use crate::bind;
use crate::facts::HostFacts;
use crate::plan::Placement;
use crate::points::Point;
use crate::security;
use crate::validate::{InvalidRequest, MountFault};

/// Where the init program is seen in the container.
pub const INIT_PATH: &str = "/sbin/docker-init";

/// Destination, type, source and options of the kernel's file systems, as dockerd passes them to runc.
const KERNEL: [(&str, &str, &str, &[&str]); 7] = [
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
    ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777"]),
];

/// Stay writable under a read-only root.
const WRITABLE: [&str; 5] = ["/proc", "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev"];

/// All mounts of a container.
pub fn mounts(host: &HostConfig, facts: &HostFacts, placement: &Placement) -> Result<Vec<Mount>, InvalidRequest> {
    let own = user_mounts(host, facts, placement)?;
    let is_users = |destination: &str| own.iter().any(|mount| mount.destination.as_os_str() == destination);
    let mut mounts = kernel_mounts(host, &is_users);
    if let Some(init) = placement.init_path.filter(|_| has_init(host, facts)) {
        mounts.push(Mount {
            destination: INIT_PATH.into(),
            kind: "bind".to_owned(),
            source: init.to_owned(),
            options: words(&["bind", "ro"]),
            ..Mount::default()
        });
    }
    if host.readonly_rootfs {
        // The kernel's own file systems stay as usable as with a writable root.
        let others =
            mounts.iter_mut().filter(|mount| !WRITABLE.iter().any(|path| mount.destination.as_os_str() == *path));
        for mount in others.filter(|mount| !mount.options.iter().any(|option| option == "ro")) {
            mount.options.push("ro".to_owned());
        }
    }
    let writable_cgroups = security::parse(host, facts)?.writable_cgroups;
    for mount in &mut mounts {
        if mount.kind == "sysfs" && host.privileged || mount.kind == "cgroup" && writable_cgroups {
            mount.options.retain(|option| option != "ro");
        }
    }
    mounts.extend(own);
    Ok(mounts)
}

/// Whether an init program is process 1: only where the container has process ids of its own.
pub fn has_init(host: &HostConfig, facts: &HostFacts) -> bool {
    host.init.unwrap_or(facts.default_init) && host.pid_mode.is_empty()
}

fn kernel_mounts(host: &HostConfig, is_users: &dyn Fn(&str) -> bool) -> Vec<Mount> {
    let wanted = KERNEL.iter().filter(|(destination, ..)| {
        let shm = *destination == "/dev/shm";
        let hidden = is_users(destination) || destination.starts_with("/dev/") && is_users("/dev");
        // The host's is bound instead, another container's, or there is none.
        let other_shm =
            shm && (matches!(host.ipc_mode.as_str(), "host" | "none") || host.ipc_mode.starts_with("container:"));
        !hidden && !other_shm
    });
    let mount = |(destination, kind, source, options): &(&str, &str, &str, &[&str])| {
        let mut options = words(options);
        if *destination == "/dev/shm" {
            options.push(format!("size={}", host.shm_size));
        }
        Mount {
            destination: destination.into(),
            kind: kind.to_string(),
            source: source.into(),
            options,
            ..Mount::default()
        }
    };
    wanted.map(mount).collect()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

/// How mounts pass in and out of the root, so that they do for what is below it, as with dockerd.
pub(crate) fn root_propagation(points: &[Point]) -> &'static str {
    let has = |words: [&str; 2]| points.iter().any(|point| words.contains(&point.shown.propagation.as_str()));
    if has(["shared", "rshared"]) {
        "shared"
    } else if has(["slave", "rslave"]) {
        "rslave"
    } else {
        ""
    }
}

/// What the user asked for, and the files of /etc; parents first.
fn user_mounts(host: &HostConfig, facts: &HostFacts, placement: &Placement) -> Result<Vec<Mount>, InvalidRequest> {
    let mut mounts = short_tmpfs(host)?;
    let (tmpfs, others): (Vec<_>, Vec<_>) = placement.points.iter().partition(|point| point.shown.kind == "tmpfs");
    for point in tmpfs.into_iter().chain(others) {
        let destination = absolute(&point.shown.destination);
        if taken(&mounts, &destination) {
            // A tmpfs of the short form covers it.
            continue;
        }
        mounts.push(match point.shown.kind.as_str() {
            "tmpfs" => tmpfs_mount(&destination, &point.tmpfs)?,
            "image" => image_mount(destination, point),
            _ => bind_mount(destination, point, facts, placement.flat_read_only)?,
        });
    }
    if host.ipc_mode == "host" && !taken(&mounts, "/dev/shm") {
        mounts.push(etc_file("/dev/shm", std::path::Path::new("/dev/shm"), false, facts));
    }
    for (destination, source) in [
        ("/etc/resolv.conf", placement.resolv_conf_path),
        ("/etc/hostname", placement.hostname_path),
        ("/etc/hosts", placement.hosts_path),
    ] {
        if !taken(&mounts, destination) {
            mounts.push(etc_file(destination, source, host.readonly_rootfs, facts));
        }
    }
    // A stable sort: of two at the same depth the order above counts.
    mounts.sort_by_key(|mount| mount.destination.components().count());
    Ok(mounts)
}

fn etc_file(destination: &str, source: &std::path::Path, read_only: bool, facts: &HostFacts) -> Mount {
    let mut options = words(&["rbind"]);
    if read_only {
        options.push(if facts.recursive_read_only() { "rro" } else { "ro" }.to_owned());
    }
    options.push(bind::PROPAGATION_DEFAULT.to_owned());
    Mount {
        destination: destination.into(),
        kind: "bind".to_owned(),
        source: source.to_owned(),
        options,
        ..Mount::default()
    }
}

fn taken(mounts: &[Mount], destination: &str) -> bool {
    mounts.iter().any(|mount| mount.destination.as_os_str() == destination)
}

/// Volumes may be declared at relative paths, too: relative to the root.
fn absolute(destination: &str) -> String {
    if destination.starts_with('/') { destination.to_owned() } else { format!("/{destination}") }
}

/// The layers of an image.
fn image_mount(destination: String, point: &Point) -> Mount {
    let mut mount = point.stack.clone().expect("the engine says how layers are mounted before it plans a start");
    mount.destination = destination.into();
    mount.options.push(bind::PROPAGATION_DEFAULT.to_owned());
    mount
}

/// A bind or a volume.
fn bind_mount(destination: String, point: &Point, facts: &HostFacts, flat: bool) -> Result<Mount, InvalidRequest> {
    let (shown, how) = (&point.shown, &point.bind);
    let mut options = words(&[if how.non_recursive { "bind" } else { "rbind" }]);
    if !shown.rw {
        if how.read_only_force_recursive && !facts.recursive_read_only() {
            return Err(InvalidRequest::ReadOnlyRecursive);
        }
        let flat = how.read_only_non_recursive || flat && shown.kind == "bind";
        options.push(if facts.recursive_read_only() && !flat { "rro" } else { "ro" }.to_owned());
    }
    let propagation = if shown.propagation.is_empty() { bind::PROPAGATION_DEFAULT } else { &shown.propagation };
    options.push(propagation.to_owned());
    Ok(Mount {
        destination: destination.into(),
        kind: "bind".to_owned(),
        source: shown.source.clone().into(),
        options,
        subpath: Some(&point.subpath).filter(|subpath| !subpath.is_empty()).map(Into::into),
        ..Mount::default()
    })
}

/// Checks all tmpfs mounts.
pub(crate) fn check_tmpfs(host: &HostConfig) -> Result<(), InvalidRequest> {
    short_tmpfs(host)?;
    host.mounts.iter().flatten().filter(|mount| mount.kind == "tmpfs").try_for_each(|mount| {
        let data = long_tmpfs_data(mount);
        let data = data.map_err(|fault| InvalidRequest::Mount { kind: mount.kind.clone(), fault })?;
        tmpfs_mount(&mount.target, &data).map(drop)
    })
}

fn short_tmpfs(host: &HostConfig) -> Result<Vec<Mount>, InvalidRequest> {
    host.tmpfs.iter().flatten().map(|(destination, data)| tmpfs_mount(&clean(destination), data)).collect()
}

fn tmpfs_mount(destination: &str, data: &str) -> Result<Mount, InvalidRequest> {
    let (kind, options) = ("tmpfs".to_owned(), tmpfs_options(data)?);
    Ok(Mount { destination: destination.into(), kind, source: "tmpfs".into(), options, ..Mount::default() })
}

/// Whether a tmpfs may be mounted there.
pub(crate) fn check_destination(destination: &str) -> Result<(), MountFault> {
    bind::check_target(destination)
}

/// The options of a long-form tmpfs in the short form's language.
pub(crate) fn long_tmpfs_data(mount: &LongForm) -> Result<String, MountFault> {
    let mut data = Vec::new();
    if mount.read_only {
        data.push("ro".to_owned());
    }
    let options = mount.tmpfs_options.clone().unwrap_or_default();
    if options.mode != 0 {
        data.push(format!("mode={:o}", options.mode));
    }
    if options.size_bytes != 0 {
        let units = [(30, "g"), (20, "m"), (10, "k")];
        let unit = units.into_iter().find(|(shift, _)| options.size_bytes % (1 << shift) == 0);
        let (shift, suffix) = unit.unwrap_or((0, ""));
        data.push(format!("size={}{suffix}", options.size_bytes >> shift));
    }
    for option in options.options.iter().flatten() {
        match &option[..] {
            [name] | [name, _] if !matches!(name.as_str(), "exec" | "noexec") => {
                return Err(MountFault::Option(name.clone()));
            }
            [name] => data.push(name.clone()),
            [name, value] => data.push(format!("{name}={value}")),
            _ => return Err(MountFault::OptionLength),
        }
    }
    Ok(data.join(","))
}

/// Words that are flags, with the group in which the last one counts.
const FLAGS: [(&str, &str); 26] = [
    ("ro", "ro"),
    ("rw", "ro"),
    ("suid", "suid"),
    ("nosuid", "suid"),
    ("dev", "dev"),
    ("nodev", "dev"),
    ("exec", "exec"),
    ("noexec", "exec"),
    ("sync", "sync"),
    ("async", "sync"),
    ("dirsync", "dirsync"),
    ("mand", "mand"),
    ("nomand", "mand"),
    ("atime", "atime"),
    ("noatime", "atime"),
    ("diratime", "diratime"),
    ("nodiratime", "diratime"),
    ("relatime", "relatime"),
    ("norelatime", "relatime"),
    ("strictatime", "strictatime"),
    ("nostrictatime", "strictatime"),
    ("private", "propagation"),
    ("rprivate", "propagation"),
    ("slave", "propagation"),
    ("rslave", "propagation"),
    ("shared", "propagation"),
];

const TMPFS_DATA: [&str; 7] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];

/// Docker's defaults and the user's words; of each group the last one counts (moby/sys/mount, `MergeTmpfsOptions`).
fn tmpfs_options(data: &str) -> Result<Vec<String>, InvalidRequest> {
    let defaults = ["noexec", "nosuid", "nodev", bind::PROPAGATION_DEFAULT];
    let given = data.split(',').filter(|_| !data.is_empty());
    let mut merged: Vec<(&str, &str)> = Vec::new();
    for option in defaults.into_iter().chain(given).filter(|option| *option != "defaults") {
        let name = option.split_once('=').map(|(name, _)| name);
        let group = match FLAGS.iter().find(|(flag, _)| *flag == option) {
            Some((_, group)) => group,
            None => match name.filter(|name| TMPFS_DATA.contains(name)) {
                Some(name) => name,
                None => return Err(InvalidRequest::TmpfsOption { name: name.unwrap_or(option).to_owned() }),
            },
        };
        merged.retain(|(earlier, _)| *earlier != group);
        merged.push((group, option));
    }
    Ok(merged.into_iter().map(|(_, option)| option.to_owned()).collect())
}

/// Paths hidden from containers: the kernel's state that tells of the machine or of others.
pub fn masked_paths(facts: &HostFacts) -> Vec<String> {
    const MASKED: [&str; 12] = [
        "/proc/asound",
        "/proc/acpi",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ];
    // Its counters leak what other containers compute (GHSA-6fw5-f8r9-fgfm).
    let throttle = facts.thermal_throttle_cpus.iter();
    let throttle = throttle.map(|cpu| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle"));
    MASKED.iter().map(|path| path.to_string()).chain(throttle).collect()
}

/// Paths that containers may read and not write.
pub fn readonly_paths() -> Vec<String> {
    words(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_group_of_tmpfs_options_the_last_counts() {
        for (data, expected) in [
            ("", Ok("noexec nosuid nodev rprivate")),
            ("size=1m", Ok("noexec nosuid nodev rprivate size=1m")),
            ("exec,size=1m,size=2m", Ok("nosuid nodev rprivate exec size=2m")),
            ("rw,mode=1777,uid=5", Ok("noexec nosuid nodev rprivate rw mode=1777 uid=5")),
            ("defaults", Ok("noexec nosuid nodev rprivate")),
            ("q=1", Err("invalid tmpfs option \"q\"")),
            ("size", Err("invalid tmpfs option \"size\"")),
        ] {
            let merged = tmpfs_options(data).map(|options| options.join(" ")).map_err(|err| err.to_string());
            assert_eq!(merged.as_deref().map_err(String::as_str), expected, "{data}");
        }
    }
}
