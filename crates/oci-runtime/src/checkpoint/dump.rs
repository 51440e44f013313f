//! From a running container to files.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cgroup::{Cgroup, Controller, Hierarchies, Version, is_frozen};
use oci::runtime::Spec;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::Pid;

use super::criu::{Criu, Start, null, require_installed};
use super::error::CriuError;
use super::mounts::{Outside, outside, real_place};
use super::request::{self, Feature, Kind, Settings};
use super::{CriuOptions, DESCRIPTORS, Directories, OUTSIDE, bytes, images};
use crate::container::require_one_thread;
use crate::plan::Plan;
use crate::process::is_null;
use crate::target::{self, Missing};

/// What [`checkpoint`] needs.
#[derive(Debug)]
pub struct Checkpoint<'a> {
    /// The whole contract.
    pub spec: &'a Spec,
    /// The first process.
    pub pid: Pid,
    /// Its cgroup.
    pub cgroup: &'a Cgroup,
    /// What [`Hierarchies::detect`] found.
    pub hierarchies: &'a Hierarchies,
    /// What its standard streams were at first ([`super::descriptors`]).
    pub descriptors: &'a [String],
    /// Where to, and what may be there.
    pub options: &'a CriuOptions,
    /// Images of an earlier [`Checkpoint::pre_dump`]; relative to the images' directory.
    pub parent: Option<&'a Path>,
    /// Whether the processes go on afterwards.
    pub leave_running: bool,
    /// Memory alone, in preparation; the processes go on.
    pub pre_dump: bool,
    /// Whether TCP connections that are just being made may be left out.
    pub tcp_skip_in_flight: bool,
    /// Whether files that have no name any more may get one.
    pub link_remap: bool,
    /// Address and port of a page server that takes the memory.
    pub page_server: Option<(String, u16)>,
    /// Gets a zero byte when memory can be fetched ([`CriuOptions::lazy_pages`]).
    pub status: Option<OwnedFd>,
}

const LOG_FILE: &str = "dump.log";

/// How long processes have to go on after a dump that has failed.
const THAW_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes the container to files. Unless it is left running, its processes have been killed then; what else there is of it
/// stays. On failure they go on.
///
/// Blocks for as long as it takes to write the memory. The calling process has one thread.
pub fn checkpoint(checkpoint: Checkpoint<'_>) -> Result<(), CriuError> {
    require_one_thread()?;
    let was_frozen = is_frozen(checkpoint.cgroup);
    let dumped = dump(&checkpoint);
    if dumped.is_err() && !was_frozen {
        // A CRIU that was killed has frozen them. The first error is the one to tell.
        let _ = checkpoint.cgroup.thaw(THAW_TIMEOUT);
    }
    dumped
}

fn dump(checkpoint: &Checkpoint<'_>) -> Result<(), CriuError> {
    let options = checkpoint.options;
    // Before anything is made.
    require_installed(&options.search_path())?;
    let root = open_root(checkpoint.pid)?;
    let plan = Plan::new(checkpoint.spec)?;
    let mounts = outside(&plan, checkpoint.cgroup, checkpoint.hierarchies, |path| real_place(root.as_fd(), path));
    let streams = streams(checkpoint.pid, checkpoint.descriptors)?;
    let directories = Directories::open(options, true)?;
    let mut settings = options.settings(checkpoint.spec, &directories, LOG_FILE);
    plan_settings(&mut settings, checkpoint, &mounts, &streams)?;
    if plan.user.is_some() {
        settings.mounts.extend(masks(root.as_fd(), &plan.masked));
    }
    if !checkpoint.pre_dump {
        let path = options.images.join(DESCRIPTORS);
        let keys: Vec<_> = streams.iter().map(Stream::key).collect();
        let text = serde_json::to_vec(&keys).expect("texts");
        fs::write(&path, text).map_err(images("write", &path))?;
    }
    let null = null()?;
    let stdio = [null.as_fd(); 3];
    let criu = Criu::start(Start {
        directories,
        stdio,
        inherited: &[],
        directory: None,
        prepare: &|| Ok(()),
        log: options.log(LOG_FILE),
        search_path: options.search_path(),
    })?;
    if checkpoint.pre_dump {
        criu.require(Feature::MemoryTracking, "pre-dump", "MemTrack")?;
    }
    if options.lazy_pages {
        criu.require(Feature::LazyPages, "lazy-pages", "LazyPages")?;
    }
    let kind = if checkpoint.pre_dump { Kind::PreDump } else { Kind::Dump };
    criu.send(&request::work(kind, &settings))?;
    loop {
        let (answer, _) = criu.hear_of(kind)?;
        if answer.kind == kind {
            // After a pre-dump it would wait for the dump.
            return if checkpoint.pre_dump { Ok(()) } else { criu.finish() };
        }
        if let (Some(status), "status-ready") = (&checkpoint.status, answer.script.as_str()) {
            rustix::io::write(status, &[0])
                .map_err(|err| CriuError::talk("write to the descriptor of --status-fd")(err.into()))?;
        }
        criu.send(&request::notified(true))?;
    }
}

fn plan_settings(
    settings: &mut Settings,
    checkpoint: &Checkpoint<'_>,
    mounts: &[Outside],
    streams: &[Stream],
) -> Result<(), CriuError> {
    settings.pid = Some(checkpoint.pid.as_raw_nonzero().get());
    settings.root = bytes(&checkpoint.spec.root.path);
    settings.parent = checkpoint.parent.map(bytes);
    settings.leave_running = checkpoint.leave_running;
    settings.tcp_skip_in_flight = checkpoint.tcp_skip_in_flight;
    settings.link_remap = checkpoint.link_remap;
    settings.page_server = checkpoint.page_server.clone();
    settings.freeze_cgroup = freezer(checkpoint.cgroup).map(bytes);
    settings.mounts = mounts.iter().map(Outside::named).collect();
    settings.external = streams.iter().filter(|stream| stream.is_file()).map(Stream::key).collect();
    for (kind, word, name) in OUTSIDE {
        if let Some(path) = super::outside(checkpoint.spec, kind) {
            let inode = fs::metadata(path).map_err(images("look at", path))?.ino();
            settings.external.push(format!("{word}[{inode}]:{name}"));
        }
    }
    Ok(())
}

/// The files that are covered with the host's null device, by whose name they are restored: with a user namespace the
/// container has none of its own.
fn masks(root: BorrowedFd<'_>, masked: &[PathBuf]) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let covered = move |path: &&PathBuf| {
        let found = target::open(root, path, Missing::Refuse).and_then(|fd| Ok(rustix::fs::fstat(&fd)?));
        found.is_ok_and(|stat| is_null(&stat))
    };
    masked.iter().filter(covered).map(move |path| (bytes(&real_place(root, path)), b"/dev/null".to_vec()))
}

/// The directory with which all processes are stopped at once.
fn freezer(cgroup: &Cgroup) -> Option<&Path> {
    let freezes =
        |controllers: &[Controller]| cgroup.version == Version::V2 || controllers.contains(&Controller::Freezer);
    let found = cgroup.directories.iter().find(|(controllers, _)| freezes(controllers));
    found.map(|(_, directory)| directory.as_path())
}

fn open_root(pid: Pid) -> Result<OwnedFd, CriuError> {
    let path = PathBuf::from(format!("/proc/{}/root", pid.as_raw_nonzero()));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(CWD, &path, flags, Mode::empty());
    opened.map_err(|err| images("open", &path)(err.into()))
}

/// What a standard stream was when the container began.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stream {
    /// `pipe:[NUMBER]`, or a path in the container: CRIU finds it again by itself, or by its name.
    Known(String),
    /// A file outside of the container, by its mount and its inode.
    File(u64, u64),
}

impl Stream {
    fn is_file(&self) -> bool {
        matches!(self, Stream::File(..))
    }

    /// What it is called between checkpoint and restore.
    fn key(&self) -> String {
        match self {
            Stream::Known(key) => key.clone(),
            Stream::File(mount, inode) => format!("file[{mount:x}:{inode:x}]"),
        }
    }
}

/// Finds out which of the streams are files that the container cannot see: CRIU could not open them again.
fn streams(pid: Pid, descriptors: &[String]) -> Result<Vec<Stream>, CriuError> {
    let process = format!("/proc/{}", pid.as_raw_nonzero());
    let path = PathBuf::from(format!("{process}/mountinfo"));
    let mountinfo = fs::read_to_string(&path).map_err(images("read", &path))?;
    let visible: BTreeSet<u64> = mountinfo.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect();
    let stream = |(number, key): (usize, &String)| {
        let file = || -> io::Result<Option<(Stream, bool)>> {
            let link = fs::read_link(format!("{process}/fd/{number}"))?;
            if !link.is_absolute() || link.as_path() != Path::new(key) {
                return Ok(None);
            }
            let info = fs::read_to_string(format!("{process}/fdinfo/{number}"))?;
            let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
            let meta = fs::metadata(format!("{process}/fd/{number}"))?;
            let flags = info.lines().find_map(|line| u32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
            let flags = flags.unwrap_or_default();
            let rewritten = meta.is_file() && meta.len() > 0 && is_rewritten(flags);
            let outside = mount.filter(|mount| !visible.contains(mount));
            Ok(outside.map(|mount| (Stream::File(mount, meta.ino()), rewritten)))
        };
        match file() {
            Ok(Some((_, true))) => {
                let name = ["standard input", "standard output", "standard error"].get(number).unwrap_or(&"a stream");
                Err(CriuError::Stream { name, path: key.into() })
            }
            Ok(Some((file, _))) => Ok(file),
            // One that the process has closed meanwhile is no stream any more.
            Ok(None) | Err(_) => Ok(Stream::Known(key.clone())),
        }
    };
    descriptors.iter().enumerate().map(stream).collect()
}

/// Whether a file that is open with these flags is written at a place of its own. CRIU takes such a file only while it is as
/// long as it was: who restores into it as he began, with `>`, has cut it by then, and the container is gone.
fn is_rewritten(flags: u32) -> bool {
    let flags = OFlags::from_bits_retain(flags);
    flags.intersects(OFlags::WRONLY | OFlags::RDWR) && !flags.contains(OFlags::APPEND)
}
