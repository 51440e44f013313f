//! `checkpoint`, and what it has in common with `restore`.

use std::path::{Component, Path, PathBuf};

use oci_runtime::SystemError;
use oci_runtime::checkpoint::{CgroupMode, Checkpoint, CriuOptions, checkpoint as write, descriptors};
use rustix::fs::OFlags;
use rustix::process::Pid;

use super::{Context, cgroup, delete, hierarchies};
use crate::arguments::{Parsed, UsageError};
use crate::error::CommandError;
use crate::one;
use crate::state::{Record, Status};

/// Writes a running container to files. It is gone then, unless it is left running.
pub(crate) fn checkpoint(context: &Context<'_>, flags: &Parsed) -> Result<u8, CommandError> {
    let id = one(flags, "checkpoint")?;
    let options = options(context, flags)?;
    let parent = parent(flags, &options.images)?;
    let page_server = flags.value("page-server").filter(|text| !text.is_empty()).map(page_server).transpose()?;
    let status = status_fd(flags)?;
    let (leave_running, pre_dump) = (flags.is_on("leave-running"), flags.is_on("pre-dump"));
    let locked = context.store.lock(id)?;
    let record = locked.place.load()?;
    let hierarchies = hierarchies()?;
    match locked.status(&record, hierarchies)? {
        Status::Running | Status::Paused => {}
        other => return Err(CommandError::CheckpointState { status: other.word() }),
    }
    write(Checkpoint {
        spec: &record.spec,
        pid: record.process.and_then(|process| Pid::from_raw(process.pid)).ok_or(CommandError::NotRunning)?,
        cgroup: &cgroup(&record, hierarchies)?,
        hierarchies,
        descriptors: &streams(&record),
        options: &options,
        parent: parent.as_deref(),
        leave_running,
        pre_dump,
        tcp_skip_in_flight: flags.is_on("tcp-skip-in-flight"),
        link_remap: flags.is_on("link-remap"),
        page_server,
        status,
    })?;
    if !leave_running && !pre_dump {
        // What is written is complete: it is no failure of the checkpoint.
        if let Err(err) = delete::destroy(context, locked, &record) {
            context.log.warning(&errdefs::chain(&err));
        }
    }
    Ok(0)
}

/// What both commands take.
pub(super) fn options(context: &Context<'_>, flags: &Parsed) -> Result<CriuOptions, CommandError> {
    let path = |name| flags.value(name).filter(|path| !path.is_empty()).map(|path| context.directory.join(path));
    for namespace in flags.values("empty-ns") {
        // It always is.
        if namespace != "network" {
            return Err(UsageError::BadValue { name: "empty-ns", value: namespace.clone() }.into());
        }
    }
    Ok(CriuOptions {
        images: path("image-path").unwrap_or_else(|| context.directory.join("checkpoint")),
        work: path("work-path"),
        tcp_established: flags.is_on("tcp-established"),
        ext_unix_sockets: flags.is_on("ext-unix-sk"),
        shell_job: flags.is_on("shell-job"),
        file_locks: flags.is_on("file-locks"),
        auto_dedup: flags.is_on("auto-dedup"),
        lazy_pages: flags.is_on("lazy-pages"),
        cgroups: cgroup_mode(flags.value("manage-cgroups-mode").unwrap_or_default())?,
        search_path: None,
    })
}

fn cgroup_mode(text: &str) -> Result<CgroupMode, UsageError> {
    match text {
        "" => Ok(CgroupMode::Default),
        "soft" => Ok(CgroupMode::Soft),
        "full" => Ok(CgroupMode::Full),
        "strict" => Ok(CgroupMode::Strict),
        "ignore" => Ok(CgroupMode::Ignore),
        _ => Err(UsageError::BadValue { name: "manage-cgroups-mode", value: text.to_owned() }),
    }
}

/// What the first process's streams were at first; for a container whose record does not say so, what they are.
fn streams(record: &Record) -> Vec<String> {
    match record.process {
        Some(process) if record.descriptors.is_empty() => descriptors(process.pid),
        _ => record.descriptors.clone(),
    }
}

/// Images of an earlier dump: relative to the new ones, so that both can be moved.
fn parent(flags: &Parsed, images: &Path) -> Result<Option<PathBuf>, CommandError> {
    let Some(text) = flags.value("parent-path").filter(|path| !path.is_empty()) else { return Ok(None) };
    if Path::new(text).is_absolute() {
        return Err(CommandError::AbsoluteParent);
    }
    // By its words, as runc does it: the directory of the new images may not be there yet.
    let mut path = images.to_owned();
    for part in Path::new(text).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            part => path.push(part),
        }
    }
    match path.read_dir() {
        Ok(_) => Ok(Some(text.into())),
        Err(err) => Err(CommandError::File { action: "invalid --parent-path: open", path, source: SystemError(err) }),
    }
}

/// `ADDRESS:PORT`, an address with colons in brackets.
fn page_server(text: &str) -> Result<(String, u16), UsageError> {
    let bad = || UsageError::BadValue { name: "page-server", value: text.to_owned() };
    let (address, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = bare.or(Some(address).filter(|address| !address.contains(':'))).filter(|address| !address.is_empty());
    match (address, port.parse()) {
        (Some(address), Ok(port)) if port != 0 => Ok((address.to_owned(), port)),
        _ => Err(bad()),
    }
}

/// The caller's descriptor that is told when memory can be fetched.
fn status_fd(flags: &Parsed) -> Result<Option<std::os::fd::OwnedFd>, CommandError> {
    let Some(text) = flags.value("status-fd").filter(|text| *text != "-1") else { return Ok(None) };
    let bad = || UsageError::BadValue { name: "status-fd", value: text.to_owned() };
    let fd = text.parse().ok().and_then(sys::fd::inherited).ok_or_else(bad)?;
    let mode = rustix::fs::fcntl_getfl(&fd).map_err(CommandError::system("look at the descriptor of --status-fd"))?;
    let writable = mode.intersects(OFlags::WRONLY | OFlags::RDWR);
    if writable { Ok(Some(fd)) } else { Err(bad().into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_pages_have_an_address_and_a_port() {
        assert_eq!(page_server("10.0.0.1:27"), Ok(("10.0.0.1".into(), 27)));
        assert_eq!(page_server("[fe80::1]:27"), Ok(("fe80::1".into(), 27)));
        for text in ["10.0.0.1", ":27", "host:", "host:0", "host:70000", "fe80::1:27", "[]:1"] {
            assert!(page_server(text).is_err(), "{text}");
        }
    }

    #[test]
    fn modes_are_words() {
        assert_eq!(cgroup_mode("ignore"), Ok(CgroupMode::Ignore));
        assert_eq!(cgroup_mode(""), Ok(CgroupMode::Default));
        assert!(cgroup_mode("hard").is_err());
    }
}
