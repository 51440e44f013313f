//! The first file system of the machine: busybox, the modules that reach the host's files, and the script that does.

/// A file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: String,
    /// With the bits of the type.
    pub(super) mode: u32,
    pub(super) content: Vec<u8>,
}

impl Entry {
    pub(super) fn directory(path: &str) -> Entry {
        Entry { path: path.to_owned(), mode: 0o040_755, content: Vec::new() }
    }

    pub(super) fn program(path: &str, content: Vec<u8>) -> Entry {
        Entry { path: path.to_owned(), mode: 0o100_755, content }
    }
}

/// The entries as an archive of cpio's format "newc" (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst).
pub(super) fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        append(&mut archive, index + 1, entry);
    }
    append(&mut archive, 0, &Entry { path: "TRAILER!!!".to_owned(), mode: 0, content: Vec::new() });
    archive
}

fn append(archive: &mut Vec<u8>, inode: usize, entry: &Entry) {
    let name_size = entry.path.len() + 1;
    let (mode, size) = (entry.mode as usize, entry.content.len());
    // Inode, mode, uid, gid, links, time, size, four device numbers, size of the name, checksum.
    let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
    archive.extend(b"070701");
    fields.iter().for_each(|field| archive.extend(format!("{field:08x}").bytes()));
    archive.extend(entry.path.bytes());
    archive.push(0);
    pad(archive);
    archive.extend(&entry.content);
    pad(archive);
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

/// The files of `modules` in an order in which they can be loaded, by the text of `modules.dep`; none twice.
pub(super) fn load_order(dependencies: &str, modules: &[&str]) -> Vec<String> {
    let mut order = Vec::new();
    for module in modules {
        let file = dependencies.lines().filter_map(|line| line.split_once(':')).map(|(file, _)| file);
        let named = |file: &&str| file.rsplit('/').next().is_some_and(|name| name == format!("{module}.ko"));
        file.filter(named).for_each(|file| visit(dependencies, file, &mut order));
    }
    order
}

fn visit(dependencies: &str, file: &str, order: &mut Vec<String>) {
    if order.iter().any(|known| known == file) {
        return;
    }
    let needs = dependencies.lines().find_map(|line| line.strip_prefix(file)?.strip_prefix(':'));
    needs.unwrap_or_default().split_whitespace().for_each(|need| visit(dependencies, need, order));
    order.push(file.to_owned());
}

/// The script that the kernel starts: mounts the host's files and goes on there, with `last`.
///
/// The host's root is read-only; what the guest writes is in its memory.
pub(super) fn init(modules: &[String], last: &str) -> String {
    let load: String = modules.iter().map(|file| format!("$B insmod /modules/{file}\n")).collect();
    format!(
        "#!/bin/busybox sh
B=/bin/busybox
$B mount -t devtmpfs dev /dev
{load}$B mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144,cache=loose host /host
$B mount -t tmpfs memory /memory
$B mkdir /memory/upper /memory/work
$B mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work root /root
$B mount --move /dev /root/dev
{last}"
    )
}

/// The end of the script where a shell is the first process: it starts `command`. When that ends the machine does, too, and
/// after `limit_seconds` in any case: nobody may be left to end it from outside.
pub(super) fn shell(command: &str, limit_seconds: u64) -> String {
    format!(
        "$B cp /bin/busybox /root/run/busybox
exec $B switch_root /root /run/busybox sh -c '
(/run/busybox sleep {limit_seconds}; /run/busybox poweroff -f) &
{command}
/run/busybox poweroff -f'
"
    )
}

/// The same where systemd is the first process, with [`unit`] as the entry [`UNIT`].
///
/// The host may be a container of Docker's, whose mark makes systemd believe that it is in one: then it does not read the
/// kernel's command line.
pub(super) fn systemd() -> String {
    format!(
        "$B rm -f /root/.dockerenv
$B cp /{UNIT} /root/etc/systemd/system/{UNIT}
exec $B switch_root /root /lib/systemd/systemd
"
    )
}

/// The unit that systemd is told to start, alone: what the host has installed stays away.
pub(super) const UNIT: &str = "longshore-tests.service";

/// The service that is all that the machine is for. Tests that use up their memory do not end it.
///
/// With every controller, so that no scope is the first or the last that has one: with version 1 systemd moves all processes
/// of the machine when the root gets a controller (its cg_migrate_v1_controllers), out of what it has not made itself.
pub(super) fn unit(command: &str, limit_seconds: u64) -> String {
    format!(
        "[Unit]
Description=The tests of Longshore
DefaultDependencies=no
SuccessAction=poweroff-immediate
FailureAction=poweroff-immediate
[Service]
ExecStart={command}
RuntimeMaxSec={limit_seconds}
TimeoutStopSec=5
Delegate=yes
OOMPolicy=continue
TasksMax=infinity
StandardOutput=file:/dev/ttyS0
StandardError=inherit
"
    )
}
