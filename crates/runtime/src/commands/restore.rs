//! `restore`.

use std::os::fd::AsFd;

use oci::runtime::{Namespace, NamespaceKind};
use oci_runtime::checkpoint::{Restore, Restored, Restoring, descriptors_given};
use stdx::time::Rfc3339;

use super::checkpoint::options;
use super::create::{Made, check_cgroup, enter_bundle, is_left, load, new_record};
use super::{Context, hierarchies, hook_state, streams};
use crate::arguments::Parsed;
use crate::error::CommandError;
use crate::foreground::Foreground;
use crate::given::{Given, Role};
use crate::one;
use crate::scope::{self, Coming};
use crate::state::{FirstProcess, Locked, Record};

/// Makes a container from a checkpoint's files; waits for its end, unless it is to be left alone.
pub(crate) fn restore(context: &Context<'_>, flags: &Parsed) -> Result<u8, CommandError> {
    let id = one(flags, "restore")?;
    let detach = flags.is_on("detach");
    let options = options(context, flags)?;
    let given = Given::parse(flags, &context.directory, |_| None, std::process::id())?;
    let directory = enter_bundle(context, flags)?;
    let mut plan = load(flags, &directory, id)?;
    given.check(plan.spec.process.terminal, detach)?;
    let hierarchies = hierarchies()?;
    let mut foreground = if detach { None } else { Some(Foreground::begin(&mut plan.spec.process)?) };
    let mut coming = scope::prepare(context, id, &mut plan)?;
    let locked = context.store.create(id)?;
    let made = check_cgroup(&plan, hierarchies).and_then(|()| {
        let mut record = new_record(id, &directory, plan, context)?;
        record.scope = coming.as_ref().map(|coming| coming.scope.clone());
        // Before anything is made: whoever comes after our death finds it from here.
        locked.save(&record)?;
        let _held = coming.as_mut().map(|coming| coming.start(&record)).transpose()?;
        let place = locked.make_criu_root()?;
        let stdio = streams(foreground.as_mut(), &given, record.spec.process.terminal)?;
        record.descriptors = descriptors_given(&stdio);
        let restoring = Restoring::begin(Restore {
            id,
            spec: &record.spec,
            hierarchies,
            stdio,
            state: &hook_state(&record, "creating"),
            options: &options,
            place: &place,
            lsm_profile: text(flags, "lsm-profile"),
            lsm_mount_context: text(flags, "lsm-mount-context"),
        })?;
        if locked.place.is_deleted() {
            return Err(CommandError::Deleted);
        }
        let restored = &restoring.restored;
        take_over(&locked, &mut record, restored)?;
        given.hand_out(Role::First, restored.pid, restored.pidfd.as_fd(), restored.console.as_ref())?;
        let restored = restoring.release()?;
        locked.remove_criu_root()?;
        Ok((record, restored))
    });
    match made {
        Ok((record, restored)) => {
            let made = Made { locked, record };
            let Some(foreground) = foreground else { return Ok(0) };
            made.follow(context, foreground, restored.pidfd.as_fd(), restored.console, false)
        }
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

/// Records the process before it goes on: whoever comes after our death finds it.
fn take_over(locked: &Locked, record: &mut Record, restored: &Restored) -> Result<(), CommandError> {
    record.process = FirstProcess::new(restored.pid);
    record.created = Rfc3339::now().to_string();
    let namespaces = &mut record.spec.linux.namespaces;
    if restored.own_time && !namespaces.iter().any(|namespace| namespace.kind == NamespaceKind::Time) {
        // Processes that are added have the same clocks.
        namespaces.push(Namespace { kind: NamespaceKind::Time, path: None });
    }
    Ok(locked.save(record)?)
}

fn text(flags: &Parsed, name: &str) -> Option<String> {
    flags.value(name).filter(|text| !text.is_empty()).map(str::to_owned)
}
