//! `RUN`: its mounts, its container, its image.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use builder::mounts::{From, RunMount};
use builder::{RunStep, Step};
use dockerfile::RunNetwork;

use super::stage::{Facts, StageSolver, history};
use crate::ops::build::caches::Lease;
use crate::ops::build::client_files::Secret;
use crate::ops::build::leaks::Leak;
use crate::ops::build::mounts::{self, Made, Ready, Seen};
use crate::ops::build::run::{self, Running, Whose};
use crate::ops::build::work::tree_of;
use crate::ops::build::{BuildError, BuildLine, cache, caches, client_files, leaks};
use crate::ops::create::snapshot_key;
use crate::ops::start::StartError;
use crate::ops::{commit, image_budget};

impl StageSolver {
    pub(super) async fn run(&mut self, step: Step, run: RunStep) -> Result<(), BuildError> {
        let common = self.common.clone();
        let mut host = common.options.host.clone();
        host.network_mode =
            run::network(&host.network_mode, run.network, common.options.allows_host_network)?.to_owned();
        let whose = self.whose(&run.mounts).await?;
        let begun = common.begin_step().await;
        let seen = see(&run.mounts, whose).await?;
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
        let script = match &run.script {
            Some(file) => Some(self.script(&file.text).await.map_err(BuildError::Script)?),
            None => None,
        };
        // Whoever waits for a cache holds up nobody, and whoever has one waits for no other.
        drop(begun);
        let leases = self.leases(&run, &seen).await;
        let _begun = common.begin_step().await;
        let ready = self.ready(&run, seen, leases).await?;
        let (made, secrets) = (self.made(&ready).await?, ready.secrets.clone());
        let whose = Whose { engine: &common.engine, lines: &self.lines, same_name: common.same_name() };
        let ran = run::run(whose, &self.stage, self.image.as_ref(), &run, host, script, ready).await;
        let (running, ended) = ran?;
        // What it was mounted is not there any more: nobody could start it again.
        let force = common.options.force_remove || !run.mounts.is_empty();
        if !matches!(ended, Ok(0)) {
            self.leave(running, force).await;
            return Err(failed(run.command.join(" "), ended));
        }
        if let Some(leak) = self.leak(&running, &made, secrets).await? {
            running.remove(&self.lines).await;
            return Err(BuildError::Leak { id: leak.id, path: leak.path });
        }
        let (engine, config, parent) = (self.common.engine.clone(), self.stage.config.clone(), self.parent()?);
        let _expected = image_budget::expect(&self.common.engine, self.image.as_ref());
        let (container, history) = (snapshot_key(running.id()), history(&self.stage, &step.words));
        let platform = self.platform.clone();
        let key = step.key.clone();
        let recorded = bridge::blocking(move || {
            let image = made.with_all(|stubs| {
                let work = Some((&container, stubs));
                commit::build_step(&engine, work, parent.as_deref(), (&config, platform), history)
            })?;
            cache::remember(&engine, &image, step);
            Ok::<_, BuildError>(image)
        });
        let image = recorded.await?;
        common.lookup.hold(&image).await;
        self.came_to(key, image);
        match common.options.remove || force {
            true => running.remove(&self.lines).await,
            false => running.keep(),
        }
        Ok(())
    }

    /// Leaves the container of a command that has failed to the user, or to the client, or removes it.
    async fn leave(&self, running: Running, force: bool) {
        match (self.common.options.keep_failed, force) {
            (true, _) => {
                self.lines.tell(BuildLine::Kept(running.id().to_string())).await;
                running.keep();
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

    /// The caches that a command mounts. Those that are locked are waited for.
    async fn leases(&self, run: &RunStep, seen: &[Seen]) -> Vec<Option<Lease>> {
        let common = &self.common;
        let renewed = self.renews.then_some(&common.renewed);
        caches::acquire(&common.engine, mounts::caches(&run.mounts, seen, &run.command), renewed).await
    }

    /// Makes ready what a command mounts.
    async fn ready(&self, run: &RunStep, seen: Vec<Seen>, leases: Vec<Option<Lease>>) -> Result<Ready, BuildError> {
        if run.mounts.is_empty() {
            return Ok(Ready::default());
        }
        let common = &self.common;
        let (engine, context) = (common.engine.clone(), common.context.clone());
        let (wanted, name) = (run.mounts.clone(), format!("mount-{}", common.number()));
        let prepared = move || mounts::prepare(&engine, &context, &wanted, seen, leases, &name);
        let mut ready = bridge::blocking(prepared).await?;
        client_files::add(&common.engine, &common.client, &run.mounts, &mut ready).await?;
        Ok(ready)
    }

    /// What is made in the command's root for its mounts.
    async fn made(&self, ready: &Ready) -> Result<Made, BuildError> {
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
        let find = move || made.with_all(|stubs| leaks::find(&engine, &key, stubs, &secrets));
        Ok(bridge::blocking(find).await?)
    }

    /// Writes a command's own file.
    async fn script(&self, text: &str) -> std::io::Result<PathBuf> {
        let (path, text) =
            (self.common.context.place.join(&format!("script-{}", self.common.number())), text.to_owned());
        bridge::blocking(move || {
            std::fs::write(&path, text)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
            Ok(path)
        })
        .await
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
fn failed(command: String, ended: Result<i64, StartError>) -> BuildError {
    match ended {
        Ok(code) => BuildError::NonZero { command, code },
        Err(why) => BuildError::Start { command, why },
    }
}

/// Looks at what mounts show.
async fn see(mounts: &[RunMount], whose: Vec<mounts::Whose>) -> Result<Vec<Seen>, BuildError> {
    let mounts = mounts.to_vec();
    let seen = bridge::abandonable(move |abandoned| mounts::see(&mounts, whose, abandoned)).await;
    seen.map_err(|source| BuildError::Source { instruction: "RUN", source })
}
