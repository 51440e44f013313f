//! `create` and `run`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use cgroup::{Cgroup, Hierarchies};
use oci_runtime::checkpoint::descriptors_given;
use oci_runtime::{CgroupNeed, Container, CreateOptions, Handover, Stdio, SystemError};
use rustix::process::Signal;
use seccomp::{Findings, PassedOver};
use stdx::time::Rfc3339;

use super::{Context, delete, hierarchies, hook_state, start, streams, warn_of_capabilities};
use crate::arguments::Parsed;
use crate::bundle::{self, BundleError, Plan};
use crate::error::CommandError;
use crate::foreground::Foreground;
use crate::given::{Given, Role};
use crate::scope::{self, Coming};
use crate::state::{FORMAT, FirstProcess, Locked, Record, StateError};
use crate::{one, seal};

/// Makes a container that waits for `start`.
pub(crate) fn create(context: &Context<'_>, flags: &Parsed) -> Result<u8, CommandError> {
    let id = one(flags, "create")?;
    make(context, flags, id, true)?;
    Ok(0)
}

/// Makes a container and starts it; waits for its end, unless it is to be left alone.
pub(crate) fn run(context: &Context<'_>, flags: &Parsed) -> Result<u8, CommandError> {
    let id = one(flags, "run")?;
    let detach = flags.is_on("detach");
    seal::ensure()?;
    let (made, mut container, foreground) = make(context, flags, id, detach)?;
    if let Err(err) = start::begin(&made.locked, &made.record) {
        // The first error is the one to tell.
        let _ = delete::destroy(context, made.locked, &made.record);
        return Err(err);
    }
    match foreground {
        Some(foreground) => {
            let console = container.console.take();
            made.follow(context, foreground, container.pidfd.as_fd(), console, flags.is_on("keep"))
        }
        None => Ok(0),
    }
}

/// A new container, still locked.
pub(super) struct Made {
    pub(super) locked: Locked,
    pub(super) record: Record,
}

impl Made {
    /// Waits for the container's end and takes it away, unless it is to be kept; its status.
    pub(super) fn follow(
        self,
        context: &Context<'_>,
        foreground: Foreground,
        process: BorrowedFd<'_>,
        console: Option<OwnedFd>,
        keep: bool,
    ) -> Result<u8, CommandError> {
        // Others may look, exec and kill meanwhile.
        self.locked.release()?;
        let exit = foreground.wait(process, console)?;
        if !keep {
            match self.locked.regain() {
                // Somebody was faster; what has its name now is somebody else's.
                Err(StateError::Missing) => {}
                locked => delete::destroy(context, locked?, &self.record)?,
            }
        }
        Ok(exit.code())
    }
}

/// What is waited for has a foreground.
type New = (Made, Container, Option<Foreground>);

fn make(context: &Context<'_>, flags: &Parsed, id: &str, detach: bool) -> Result<New, CommandError> {
    seal::ensure()?;
    let environment = |name: &str| std::env::var(name).ok();
    let given = Given::parse(flags, &context.directory, environment, std::process::id())?;
    let directory = enter_bundle(context, flags)?;
    let mut plan = load(flags, &directory, id)?;
    warn_of_capabilities(context, &plan.spec.process, &plan.spec.linux.namespaces);
    given.check(plan.spec.process.terminal, detach)?;
    given.announce(&mut plan.spec.process);
    let mut foreground = if detach { None } else { Some(Foreground::begin(&mut plan.spec.process)?) };
    let stdio = streams(foreground.as_mut(), &given, plan.spec.process.terminal)?;
    plan.warnings.iter().for_each(|text| context.log.warning(text));
    let hierarchies = hierarchies()?;
    let mut coming = scope::prepare(context, id, &mut plan)?;
    let locked = context.store.create(id)?;
    let need = context.rootless.cgroup(plan.asks_for_cgroup);
    let made = check_cgroup(&plan, hierarchies).and_then(|()| {
        let mut record = new_record(id, &directory, plan, context)?;
        record.descriptors = descriptors_given(&stdio);
        record.scope = coming.as_ref().map(|coming| coming.scope.clone());
        // Before anything is made: whoever comes after our death finds it from here.
        locked.save(&record)?;
        let _held = coming.as_mut().map(|coming| coming.start(&record)).transpose()?;
        let container = birth(&locked, &mut record, &given, stdio, hierarchies, need)?;
        Ok((record, container))
    });
    match made {
        Ok((record, container)) => Ok((Made { locked, record }, container, foreground)),
        Err(err) => {
            coming.into_iter().for_each(Coming::abandon);
            let err = if locked.place.is_deleted() { CommandError::Deleted } else { err };
            // The first error is the one to tell.
            if !is_left(&locked, hierarchies) {
                let _ = locked.remove();
            }
            Err(err)
        }
    }
}

/// Whether processes of a failed container would not end: then its record stays, for `delete --force`.
pub(super) fn is_left(locked: &Locked, hierarchies: &Hierarchies) -> bool {
    // Without a record nothing was made: what is in the cgroup then is somebody else's.
    let Ok(record) = locked.place.load() else { return false };
    let group = Cgroup::open(hierarchies, Path::new(&record.spec.linux.cgroups_path));
    group.is_ok_and(|group| !group.procs_with_below().is_empty())
}

/// Hooks and relative sources of mounts begin in the bundle.
pub(super) fn enter_bundle(context: &Context<'_>, flags: &Parsed) -> Result<PathBuf, CommandError> {
    let given = flags.value("bundle").unwrap_or_default();
    // Component by component: joined with nothing a path ends in a slash.
    let directory: PathBuf = context.directory.join(given).components().collect();
    let chdir = rustix::process::chdir(&directory);
    let flag = if given.is_empty() { "" } else { "--bundle: " };
    chdir.map_err(|err| CommandError::Chdir { flag, path: given.into(), source: SystemError(err.into()) })?;
    Ok(directory)
}

/// Reads the bundle; what is no bundle at all was named by a flag, if one was given.
pub(super) fn load(flags: &Parsed, directory: &Path, id: &str) -> Result<Plan, CommandError> {
    bundle::load(directory, id).map_err(|err| match err {
        source @ (BundleError::Read { .. } | BundleError::NoFile { .. }) if flags.value("bundle").is_some() => {
            CommandError::NoBundle { source }
        }
        err => err.into(),
    })
}

/// A cgroup with processes is somebody else's: theirs would be limited, and killed with the container.
pub(super) fn check_cgroup(plan: &Plan, hierarchies: &Hierarchies) -> Result<(), CommandError> {
    let path = Path::new(&plan.spec.linux.cgroups_path);
    match Cgroup::open(hierarchies, path)?.procs_with_below().len() {
        0 => Ok(()),
        processes => Err(CommandError::CgroupInUse { processes }),
    }
}

pub(super) fn new_record(
    id: &str,
    directory: &Path,
    plan: Plan,
    context: &Context<'_>,
) -> Result<Record, CommandError> {
    let mut spec = plan.spec;
    if let Some(filter) = &plan.filter {
        // Once for each profile: profiles for many machines name what one of them does not know.
        let warn = |found: &Findings| {
            if !found.unknown.is_empty() {
                let names = found.unknown.join(", ");
                let text = format!("linux.seccomp.syscalls: calls that nobody knows are passed over: {names}");
                context.log.warning(&text);
            }
            for PassedOver { rule, counts, names, action, other } in &found.passed_over {
                let (field, names) = (format!("linux.seccomp.syscalls[{rule}].action"), names.join(", "));
                let text = format!("{field}: {action} for {names} is passed over: syscalls[{counts}] has {other}");
                context.log.warning(&text);
            }
        };
        let program = seccomp::cached(&context.store.filters()?, filter, || context.store.used_filters(), warn)?;
        spec.linux.seccomp_program = Some(program);
        if let Some(rules) = spec.linux.seccomp.as_mut().and_then(|profile| profile.get_mut("syscalls")?.as_array_mut())
        {
            // The others are in the program alone, and most of the record otherwise; from these `oci-runtime` knows how the
            // listener's descriptor may travel.
            rules.retain(|rule| rule["action"] == "SCMP_ACT_NOTIFY");
        }
    }
    Ok(Record {
        format: FORMAT,
        id: id.to_owned(),
        bundle: directory.to_owned(),
        created: Rfc3339::now().to_string(),
        process: None,
        descriptors: Vec::new(),
        scope: None,
        spec,
    })
}

fn birth(
    locked: &Locked,
    record: &mut Record,
    given: &Given,
    stdio: Stdio,
    hierarchies: &Hierarchies,
    cgroup: CgroupNeed,
) -> Result<Container, CommandError> {
    let gate = locked.make_gate()?;
    let state = hook_state(record, "creating");
    let mut container = oci_runtime::create(CreateOptions {
        id: &record.id,
        spec: &record.spec,
        user: None,
        stdio,
        hierarchies,
        kept: given.kept,
        handover: Some(Handover { gate: gate.as_fd(), state: &state, cgroup, no_pivot: given.no_pivot }),
    })?;
    record.process = FirstProcess::new(container.pid);
    let recorded = record.process.map_or(Ok(()), |process| locked.save_process(process)).map_err(CommandError::from);
    let wanted = recorded.and_then(|()| {
        let is_deleted = record.spec.hooks.is_some() && locked.place.is_deleted();
        if is_deleted { Err(CommandError::Deleted) } else { Ok(()) }
    });
    let handed = wanted.and_then(|()| {
        Ok(given.hand_out(Role::First, container.pid, container.pidfd.as_fd(), container.console.as_ref())?)
    });
    if let Err(err) = handed {
        // The first error is the one to tell. Without a cgroup nobody else would find the process, which waits at its gate.
        let _ = container.kill(Signal::KILL.as_raw());
        let _ = container.destroy();
        return Err(err);
    }
    Ok(container)
}
