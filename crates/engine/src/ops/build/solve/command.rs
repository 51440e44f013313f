//! `RUN`: its mounts, its container, its image.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use bridge::Abandoned;
use builder::mounts::{From, Mounted, RunMount};
use builder::{RunStep, Step};
use dockerfile::RunNetwork;
use engine_api::host_config::HostConfig;
use tokio::sync::SemaphorePermit;

use super::common::Common;
use super::sharing::{self, Ours, Terms};
use super::stage::{Committing, Facts, StageSolver};
use crate::launch::LaunchError;
use crate::ops::build::caches::{Lease, Wish};
use crate::ops::build::carried::Carried;
use crate::ops::build::client_files::Secret;
use crate::ops::build::flights::Landed;
use crate::ops::build::leaks::Leak;
use crate::ops::build::mounts::{self, Made, PreparedMounts, Seen};
use crate::ops::build::run::{self, RunTarget, Running};
use crate::ops::build::work::tree_of;
use crate::ops::build::{BuildError, BuildLine, PartEvent, caches, client_files, leaks};
use crate::ops::commit::StepFiles;
use crate::ops::create::snapshot_key;
use crate::ops::start::StartError;

impl StageSolver {
    pub(super) async fn run(&mut self, step: Step, run: RunStep) -> Result<(), BuildError> {
        let common = self.common.clone();
        let mut host = common.options.host.clone();
        host.network_mode =
            run::network(&host.network_mode, run.network, common.options.allows_host_network)?.to_owned();
        let whose = self.whose(&run.mounts).await?;
        let begun = common.begin_step().await;
        let seen = see(&run.mounts, whose).await?;
        let wishes = mounts::caches(&run.mounts, &seen, &run.command);
        common.note_kept(&run.mounts, wishes.clone());
        let mut more = vec![format!("network={:?}", run.network), format!("script={:?}", run.script)];
        more.extend(run.mounts.iter().zip(&seen).map(|(mount, seen)| mounts::words(mount, seen)));
        let mut facts = facts(&step, &run, &seen);
        // What it writes to the places of volumes is lost with dockerd's classic builder alone.
        if common.buildkit && self.stage.config.volumes.as_ref().is_some_and(|volumes| !volumes.is_empty()) {
            more.push("volumes=written".to_owned());
            facts.is_told_whole = false;
        }
        // What may have a random name in it is nothing for who wants the same image each time.
        more.extend((common.same_name() && !common.buildkit).then(|| "name=same".to_owned()));
        let step = self.keyed(step.words, &more, facts);
        if self.known(&step).await {
            return Ok(());
        }
        let terms = terms(&run, &host);
        let Some(Ours { leading, slot }) = sharing::shared(self, &step, &terms, &common, begun).await? else {
            return Ok(());
        };
        let script = match &run.script {
            Some(file) => Some(script(&common, &file.text).await.map_err(BuildError::Script)?),
            None => None,
        };
        let carried = wishes.iter().map(|wish| common.imports.carried(wish.as_ref()?)).collect();
        let (leases, _slot) = self.leases(wishes, &common, slot).await;
        self.lines.holds(caches::held(&leases));
        let ready = self.ready(&run, seen, leases, carried).await?;
        let (made, secrets) = (self.made(&ready).await?, ready.secrets.clone());
        let same_name = common.same_name();
        let target = RunTarget { engine: &common.engine, lines: &self.lines, same_name };
        let ran = run::run(target, &self.stage, self.image.as_ref(), &run, host, script, ready).await;
        let (running, ended) = ran?;
        // What it was mounted is not there any more: nobody could start it again.
        let force = common.options.force_remove || !run.mounts.is_empty();
        if !matches!(ended, Ok(0)) {
            if let (Ok(code), false) = (&ended, terms.is_private) {
                leading.land(Landed::Failed(*code));
            }
            self.leave(running, force).await;
            return Err(failed(self, run.command.join(" "), ended).await);
        }
        if let Some(leak) = self.leak(&running, &made, secrets).await? {
            running.remove(&self.lines).await;
            return Err(BuildError::Leak { id: leak.id, path: leak.path });
        }
        let (container, is_removed) = (snapshot_key(running.id()), common.options.remove || force);
        let commit = move |commit: Committing, _: &Abandoned| {
            let image = made.with_all(|stubs| {
                // All its processes have ended. A container that stays keeps what is its.
                commit.image(Some(StepFiles { key: &container, stubs, are_given: is_removed }))
            });
            Ok(image?)
        };
        self.record_of(step, leading, commit).await?;
        match is_removed {
            true => running.remove(&self.lines).await,
            false => running.keep(),
        }
        self.lines.holds(None);
        Ok(())
    }

    /// Leaves the container of a command that has failed to the user, or to the client, or removes it.
    async fn leave(&self, running: Running, force: bool) {
        match (self.common.options.keep_failed, force) {
            (true, _) => {
                let id = running.id().to_string();
                running.keep();
                self.lines.tell(BuildLine::Kept(id)).await;
            }
            (false, true) => running.remove(&self.lines).await,
            (false, false) => running.keep(),
        }
    }

    /// Whose files a command's mounts show; waits for stages.
    async fn whose(&self, mounts: &[RunMount]) -> Result<Vec<mounts::Whose>, BuildError> {
        let mut whose = Vec::new();
        for mount in mounts {
            whose.push(match mounts::part(mount).map(|part| &part.from) {
                None | Some(From::Nothing) => mounts::Whose::Nothing,
                Some(From::Context) => mounts::Whose::Context(self.common.context.clone()),
                Some(From::Named(name)) => match self.tree(name).await {
                    Ok(Some(tree)) => mounts::Whose::Image(tree),
                    // A stage that came to nothing.
                    Ok(None) | Err(BuildError::Nothing) => mounts::Whose::Nothing,
                    Err(err) => return Err(BuildError::From { from: name.clone(), source: Box::new(err) }),
                },
            });
        }
        Ok(whose)
    }

    /// The caches that a command mounts. Those that are locked are waited for, without the turn that the command has.
    async fn leases<'a>(
        &self,
        wishes: Vec<Option<Wish>>,
        common: &'a Common,
        slot: SemaphorePermit<'a>,
    ) -> (Vec<Option<Lease>>, SemaphorePermit<'a>) {
        if wishes.iter().all(Option::is_none) {
            return (wishes.iter().map(|_| None).collect(), slot);
        }
        // Whoever waits for a cache holds up nobody, and whoever has one waits for no other.
        drop(slot);
        let renewed = self.renews.then_some(&common.renewed);
        let leases = caches::acquire(&common.engine, wishes, renewed).await;
        (leases, common.begin_step().await)
    }

    /// Makes ready what a command mounts.
    async fn ready(
        &self,
        run: &RunStep,
        seen: Vec<Seen>,
        leases: Vec<Option<Lease>>,
        carried: Vec<Option<Carried>>,
    ) -> Result<PreparedMounts, BuildError> {
        if run.mounts.is_empty() {
            return Ok(PreparedMounts::default());
        }
        let common = &self.common;
        let (engine, context) = (common.engine.clone(), common.context.clone());
        let (wanted, name) = (run.mounts.clone(), format!("mount-{}", common.number()));
        let waits = carried.iter().any(Option::is_some);
        let prepared = move || mounts::prepare(&engine, &context, &wanted, seen, leases, &carried, &name);
        // What comes from elsewhere comes from tasks that may themselves wait for a thread.
        let mut ready = if waits { bridge::waiting(prepared).await? } else { bridge::blocking(prepared).await? };
        for (told, is_good) in ready.told.drain(..) {
            let warning = if is_good { "" } else { "[Warning] " };
            let bytes = format!("{told}\n").into_bytes();
            self.lines.part(PartEvent::Output { is_error: !is_good, bytes }).await;
            self.lines.text(format!(" ---> {warning}{told}\n")).await;
        }
        client_files::add(&common.engine, &common.client, &run.mounts, &mut ready).await?;
        Ok(ready)
    }

    /// What is made in the command's root for its mounts.
    async fn made(&self, ready: &PreparedMounts) -> Result<Made, BuildError> {
        if ready.is_empty() {
            return Ok(Made::default());
        }
        let Some(parent) = self.parent()? else { return Ok(ready.stubs(None)) };
        let engine = self.common.engine.clone();
        let tree = Arc::new(bridge::blocking(move || tree_of(&engine, &parent)).await?);
        Ok(ready.stubs(Some(&tree.tree)))
    }

    /// Looks for secrets in what a command has written.
    async fn leak(&self, running: &Running, made: &Made, secrets: Vec<Secret>) -> Result<Option<Leak>, BuildError> {
        let (engine, key, made) = (self.common.engine.clone(), snapshot_key(running.id()), made.clone());
        let find =
            move |abandoned: &Abandoned| made.with_all(|stubs| leaks::find(&engine, &key, stubs, &secrets, abandoned));
        Ok(bridge::abandonable(find).await?)
    }
}

/// Writes a command's own file.
async fn script(common: &Common, text: &str) -> std::io::Result<PathBuf> {
    let (path, text) = (common.context.place.join(&format!("script-{}", common.number())), text.to_owned());
    bridge::blocking(move || {
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        Ok(path)
    })
    .await
}

/// How a command is shared. Networks, limits and the like are no part of what it is known by, but it may fail for them; whose
/// secret it is given may be the only one with a good one.
fn terms(run: &RunStep, host: &HostConfig) -> Terms {
    let is_given = |mount: &RunMount| matches!(mount.what, Mounted::Secret { .. } | Mounted::Ssh { .. });
    Terms {
        conditions: format!("{host:?}"),
        is_private: run.mounts.iter().any(is_given),
        command: run.command.join(" "),
    }
}

/// What a command depends on.
fn facts(step: &Step, run: &RunStep, seen: &[Seen]) -> Facts {
    let does = format!("{} {:?}", run.command.join(" "), run.script);
    let arguments = step.words[..step.words.len().saturating_sub(run.command.len())].to_vec();
    let shown = run.mounts.iter().zip(seen).filter(|(_, seen)| !seen.exact.is_empty());
    let files: Vec<_> =
        shown.map(|(mount, seen)| (format!("mounted at {}", mount.target), seen.exact.clone())).collect();
    let options = [format!("{:?}", run.network)].into_iter().chain(run.mounts.iter().map(mounts::wanted)).collect();
    let is_told_whole = run.mounts.is_empty() && run.script.is_none() && run.network == RunNetwork::Default;
    Facts { does, arguments, exact: format!("{files:?}"), files, options, is_told_whole }
}

/// Why a command that did not end well failed the build.
async fn failed(solver: &StageSolver, command: String, ended: Result<i64, StartError>) -> BuildError {
    match ended {
        Ok(code) => BuildError::NonZero { command, code },
        // BuildKit's runtime is a program whose output is the command's, and which ends with 1.
        Err(StartError::Launch(LaunchError::Runtime(why))) if solver.common.buildkit => {
            let words = "runc run failed: unable to start container process: error during container init";
            let bytes = format!("{words}: {why}\n").into_bytes();
            solver.lines.part(PartEvent::Output { is_error: true, bytes }).await;
            BuildError::NonZero { command, code: 1 }
        }
        Err(why) => BuildError::Start { command, why: Box::new(why) },
    }
}

/// Looks at what mounts show.
async fn see(mounts: &[RunMount], whose: Vec<mounts::Whose>) -> Result<Vec<Seen>, BuildError> {
    let mounts = mounts.to_vec();
    let seen = bridge::abandonable(move |abandoned| mounts::see(&mounts, whose, abandoned)).await;
    seen.map_err(|source| BuildError::Source { instruction: "RUN", source })
}
