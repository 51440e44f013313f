//! The part that runs in the machine: `xtask vm-guest PLAN`, started by the script of the first file system.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, mount};
use testkit::process;

use super::boot::{Boot, HIERARCHIES};
use super::event::{Case, Event, Outcome, Plan};

/// The second serial port: the first is the kernel's.
const PORT: &str = "/dev/ttyS1";

/// Where tests put their files: in memory. Not /tmp, below which the work tree may be, nor another usual directory, which
/// a test may have its own idea of.
const SCRATCH: &str = "/longshore-tests";

/// Modules whose devices tests use: a node that is not there makes the kernel ask for nothing. And the scheduler that weighs
/// what cgroups write to disks, and a file system that the kernel does not find when two mounts ask for it at once.
const MODULES: [&str; 5] = ["fuse", "loop", "tun", "bfq", "xfs"];

/// How long one test may take; without KVM everything takes ten times as long.
const CASE_LIMIT: Duration = Duration::from_secs(120);

/// How much of what a failed test printed is told: its end, which has the daemon's words.
const OUTPUT_MAX: u64 = 24 << 10;

/// Runs the tests of the plan, telling of each. Only in a machine of its own.
pub(crate) fn run(plan: &Path) -> Result<()> {
    let port = Mutex::new(OpenOptions::new().write(true).open(PORT).context("open the serial port")?);
    let last = match work(plan, &port) {
        Ok(()) => Event::Done,
        Err(err) => Event::Failed { why: format!("{err:#}") },
    };
    tell(&port, &last)
}

fn work(plan: &Path, port: &Mutex<File>) -> Result<()> {
    let plan: Plan = serde_json::from_slice(&fs::read(plan).context("read the plan")?)?;
    furnish(&plan)?;
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let cgroups = cgroup_mounts(&fs::read_to_string("/proc/self/mounts")?);
    tell(port, &Event::Ready { kernel, cgroups })?;
    let waiting = Mutex::new(plan.cases.iter().enumerate());
    let next = || waiting.lock().expect("nobody panics with it").next();
    std::thread::scope(|scope| {
        let worker = || -> Result<()> {
            while let Some((case, test)) = next() {
                let begin = Instant::now();
                let (outcome, output) = attempt(case, test, &plan.environment)?;
                tell(port, &Event::Ended { case, outcome, seconds: begin.elapsed().as_secs_f64(), output })?;
            }
            Ok(())
        };
        let workers: Vec<_> = (0..plan.jobs).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("workers do not panic"))
    })
}

fn tell(port: &Mutex<File>, event: &Event) -> Result<()> {
    let line = serde_json::to_string(event)? + "\n";
    Ok(port.lock().expect("nobody panics with it").write_all(line.as_bytes())?)
}

/// What systemd mounts, too, where it is the first process; it mounts cgroups besides.
const MOUNTS: [(&str, &str, &str); 5] = [
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("tmpfs", "/run", "mode=755"),
    ("devpts", "/dev/pts", "gid=5,mode=620,ptmxmode=666"),
    ("tmpfs", "/dev/shm", "mode=1777"),
];

/// Where cgroups are mounted, of either version.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Mounts what a started system has, and lets the kernel find its modules.
fn furnish(plan: &Plan) -> Result<()> {
    if !plan.boot.has_systemd() {
        MOUNTS.iter().try_for_each(|(kind, point, options)| mount_new(kind, point, options))?;
    }
    match plan.boot {
        Boot::Systemd | Boot::Hybrid => {}
        Boot::Bare => mount_new("cgroup2", CGROUPS, "")?,
        Boot::Legacy => {
            mount_new("tmpfs", CGROUPS, "mode=755")?;
            for controllers in HIERARCHIES {
                mount_new("cgroup", &format!("{CGROUPS}/{controllers}"), controllers)?;
            }
        }
    }
    mount_new("tmpfs", SCRATCH, "mode=1777")?;
    let release = plan.modules.file_name().context("modules have a release")?;
    let modules = Path::new("/lib/modules");
    fs::create_dir_all(modules)?;
    if !modules.join(release).exists() {
        symlink(&plan.modules, modules.join(release))?;
    }
    symlink(&plan.busybox, "/run/modprobe")?;
    fs::write("/proc/sys/kernel/modprobe", "/run/modprobe")?;
    let loaded = Command::new("/run/modprobe").arg("-a").args(MODULES).status()?;
    ensure!(loaded.success(), "load {}: {loaded}", MODULES.join(", "));
    let up = Command::new(&plan.busybox).args(["ip", "link", "set", "lo", "up"]).status()?;
    ensure!(up.success(), "the loopback device: {up}");
    Ok(())
}

fn mount_new(kind: &str, point: &str, options: &str) -> Result<()> {
    fs::create_dir_all(point).with_context(|| format!("make {point}"))?;
    let options = std::ffi::CString::new(options)?;
    mount(kind, point, kind, MountFlags::empty(), Some(options.as_c_str()))
        .with_context(|| format!("mount {kind} on {point}"))
}

/// Mounts of cgroups, of either version, as `type point`.
fn cgroup_mounts(mounts: &str) -> Vec<String> {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let cgroups = fields.filter(|fields| fields.get(2).is_some_and(|kind| kind.starts_with("cgroup")));
    cgroups.map(|fields| format!("{} {}", fields[2], fields[1])).collect()
}

/// Runs one test in a process of its own.
fn attempt(number: usize, case: &Case, environment: &[(String, String)]) -> Result<(Outcome, String)> {
    let skips = PathBuf::from(format!("/run/skips-{number}"));
    let path = format!("/run/output-{number}");
    // Appending, as whoever keeps a log: a checkpoint refuses files whose end it could not find again.
    let mut output = File::options().create_new(true).read(true).append(true).open(&path)?;
    let mut command = Command::new(&case.program);
    command.args(["--exact", &case.name, "--nocapture"]).current_dir(&case.directory);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command.env("TMPDIR", SCRATCH).env("LONGSHORE_SKIP_LOG", &skips);
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
    let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
    let status = process::wait(&mut child, CASE_LIMIT);
    let mut text = tail(&mut output)?;
    fs::remove_file(path)?;
    let passed = match status {
        // A name that the binary does not know is no failure of its own.
        Ok(status) => status.success() && text.contains("test result: ok. 1 passed"),
        Err(err) => {
            text.push_str(&format!("\n{err:#}\n"));
            false
        }
    };
    let outcome = match (passed, fs::read_to_string(&skips)) {
        (false, _) => Outcome::Failed,
        (true, Ok(why)) => Outcome::Skipped { why: why.trim().to_owned() },
        (true, Err(_)) => return Ok((Outcome::Passed, String::new())),
    };
    Ok((outcome, text))
}

fn tail(file: &mut File) -> Result<String> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(OUTPUT_MAX)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
