//! `delete`.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use cgroup::{CgroupError, is_frozen};
use oci_runtime::hooks;
use rustix::process::Signal;

use super::{Context, cgroup, hierarchies, hook_state};
use crate::error::CommandError;
use crate::scope;
use crate::state::{FirstProcess, Locked, Pause, Record, StateError, Status};

/// How long killed processes have to go.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Takes a stopped or created container away; with `force` any, and what is left of one.
pub(crate) fn delete(context: &Context<'_>, id: &str, force: bool) -> Result<u8, CommandError> {
    let locked = match if force { lock_by_force(context, id) } else { Ok(Some(context.store.lock(id)?)) } {
        Err(CommandError::State(StateError::Missing)) if force => return Ok(0),
        other => other?,
    };
    // Whoever waits for the hook that we are in does the rest.
    let Some(locked) = locked else { return Ok(0) };
    let record = match locked.place.load() {
        Ok(record) => record,
        // Its processes are known to whoever wrote it: forgotten here, they would run on.
        Err(err @ StateError::Format { .. }) => return Err(err.into()),
        // A runtime that was killed before it had made anything, or a record that nobody can read.
        Err(source) if force => {
            let running = locked.place.process().filter(|process| process.open_ending().is_some());
            if let Some(FirstProcess { pid, .. }) = running {
                return Err(CommandError::Unreadable { id: id.to_owned(), pid, source });
            }
            locked.remove()?;
            return Ok(0);
        }
        Err(err) => return Err(err.into()),
    };
    match locked.status(&record, hierarchies()?) {
        // By its cgroup everything is found.
        _ if force => {}
        Err(err) => return Err(err.into()),
        Ok(Status::Stopped | Status::Created) => {}
        Ok(other) => return Err(CommandError::DeleteState { id: id.to_owned(), status: other.word() }),
    }
    destroy(context, locked, &record)?;
    Ok(0)
}

/// Ends what holds the container first, if somebody does: a process that was being made when its maker was killed has the
/// maker's lock, and where its cgroup is frozen it would never give it back. `None` in a hook of whoever has the lock.
fn lock_by_force(context: &Context<'_>, id: &str) -> Result<Option<Locked>, CommandError> {
    if let Some(locked) = context.store.try_lock(id)? {
        return Ok(Some(locked));
    }
    if context.store.holder(id).is_some_and(|holder| holder.waits_for_us()) {
        context.store.open(id)?.mark_deleted()?;
    }
    // Without a record nothing was made yet: whoever is at work there will be done.
    if let Ok(record) = context.store.open(id).and_then(|place| place.load()) {
        let group = cgroup(&record, hierarchies()?)?;
        group.destroy(END_TIMEOUT).map_err(|err| match err {
            CgroupError::Timeout { .. } if is_frozen(&group) => {
                CommandError::Frozen { id: id.to_owned(), path: group.path }
            }
            err => err.into(),
        })?;
    }
    wrest(context, id)
}

/// Takes the lock from whoever has it: ends what waits for a hook, and at last what takes too long otherwise.
fn wrest(context: &Context<'_>, id: &str) -> Result<Option<Locked>, CommandError> {
    let patience = Instant::now() + END_TIMEOUT;
    let (mut pause, mut asked) = (Pause::default(), None);
    loop {
        if let Some(locked) = context.store.try_lock(id)? {
            return Ok(Some(locked));
        }
        let holder = context.store.holder(id);
        let is_late = Instant::now() >= patience;
        match &holder {
            Some(holder) if holder.waits_for_us() => return Ok(None),
            Some(holder) if is_late => holder.send(Signal::KILL),
            // It cleans up then, and may come to another hook.
            Some(holder) if holder.hook.is_some() && holder.hook != asked => {
                holder.send(Signal::TERM);
                asked.clone_from(&holder.hook);
            }
            None if is_late => return Err(StateError::Busy { holder: None }.into()),
            _ => {}
        }
        pause.wait(holder.as_ref());
    }
}

/// Ends what runs, and removes cgroup and record.
pub(crate) fn destroy(context: &Context<'_>, locked: Locked, record: &Record) -> Result<(), CommandError> {
    let group = cgroup(record, hierarchies()?)?;
    let first = record.process.and_then(FirstProcess::open_ending);
    if let Some(process) = &first {
        // It may end by itself meanwhile.
        let _ = sys::signal::send(process.as_fd(), Signal::KILL.as_raw());
    }
    group.destroy(END_TIMEOUT)?;
    if let Some(process) = &first {
        let ended = sys::wait::readable(process.as_fd(), Instant::now() + END_TIMEOUT);
        ended
            .and_then(|ended| if ended { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) })
            .map_err(CommandError::system("wait for the end of the container"))?;
    }
    if record.scope.is_some() {
        // What systemd has made again meanwhile, where it does not know of our directories, goes a second time.
        if let Err(err) = scope::stop(record).and_then(|()| Ok(group.destroy(END_TIMEOUT)?)) {
            // It ends by itself with its last process; what it was called may not be free at once.
            context.log.warning(&errdefs::chain(&err));
        }
    }
    for (index, hook) in record.spec.hooks.iter().flat_map(|hooks| &hooks.poststop).enumerate() {
        // They stop nothing (runtime-spec runtime.md, "Lifecycle", 13).
        if let Err(err) = hooks::run("poststop", index, hook, &hook_state(record, "stopped")) {
            context.log.warning(&errdefs::chain(&err));
        }
    }
    Ok(locked.remove()?)
}
