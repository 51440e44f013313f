//! `RUN`: its mounts, its container, its image.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use builder::mounts::{From, RunMount};
use builder::{RunStep, Step};
use dockerfile::RunNetwork;

use super::{Solver, Solving, history};
use crate::ops::build::client_files::Secret;
use crate::ops::build::leaks::Leak;
use crate::ops::build::mounts::{self, Made, Ready, Seen};
use crate::ops::build::run::{self, Running, Whose};
use crate::ops::build::work::tree_of;
use crate::ops::build::{BuildError, cache, caches, client_files, leaks};
use crate::ops::commit;
use crate::ops::create::snapshot_key;

impl Solver {
    pub(super) async fn run(&mut self, solving: &mut Solving, step: Step, run: RunStep) -> Result<(), BuildError> {
        let mut host = self.options.host.clone();
        host.network_mode = run::network(&host.network_mode, run.network)?.to_owned();
        let seen = self.see(&run.mounts).await?;
        let mut more = vec![format!("network={:?}", run.network), format!("script={:?}", run.script)];
        more.extend(run.mounts.iter().zip(&seen).map(|(mount, seen)| mounts::words(mount, seen)));
        let key = solving.key(&step.words, &more);
        let is_told_whole = run.mounts.is_empty() && run.script.is_none() && run.network == RunNetwork::Default;
        if self.known(solving, &key, &step.words, is_told_whole).await {
            return Ok(());
        }
        let script = match &run.script {
            Some(file) => Some(self.script(&file.text).await.map_err(BuildError::Script)?),
            None => None,
        };
        let ready = self.ready(&run, seen).await?;
        let (made, secrets) = (self.made(solving, &ready).await?, ready.secrets.clone());
        let whose = Whose { engine: &self.engine, lines: &self.lines, place: &self.context.place };
        let ran = run::run(whose, &solving.stage, solving.image.as_ref(), &run, host, script, ready).await;
        let (running, ended) = ran?;
        // What it was mounted is not there any more: nobody could start it again.
        let force = self.options.force_remove || !run.mounts.is_empty();
        if !matches!(ended, Ok(0)) {
            match force {
                true => running.remove(&self.lines).await,
                false => running.keep(),
            }
            let code = ended.map_err(BuildError::Start)?;
            return Err(BuildError::NonZero { command: run.command.join(" "), code });
        }
        if let Some(leak) = self.leak(&running, &made, secrets).await? {
            running.remove(&self.lines).await;
            return Err(BuildError::Leak { id: leak.id, path: leak.path });
        }
        let (engine, config, parent) = (self.engine.clone(), solving.stage.config.clone(), self.parent(solving)?);
        let (container, history) = (snapshot_key(running.id()), history(&solving.stage, &step.words));
        let platform = solving.platform.clone();
        let recorded = bridge::blocking(move || {
            let image = made.with_all(|stubs| {
                let work = Some((&container, stubs));
                commit::build_step(&engine, work, parent.as_deref(), (&config, platform), history)
            })?;
            cache::remember(&engine, &key, &image, &step.words);
            Ok::<_, BuildError>((key, image))
        });
        let (key, image) = recorded.await?;
        solving.came_to(&key, image);
        match self.options.remove || force {
            true => running.remove(&self.lines).await,
            false => running.keep(),
        }
        Ok(())
    }

    /// Looks at what a command's mounts show.
    async fn see(&mut self, mounts: &[RunMount]) -> Result<Vec<Seen>, BuildError> {
        let mut whose = Vec::new();
        for mount in mounts {
            whose.push(match mounts::part(mount).map(|part| &part.from) {
                None | Some(From::Nothing) => mounts::Whose::Nothing,
                Some(From::Context) => mounts::Whose::Context(self.context.clone()),
                Some(From::Named(name)) => match self.tree(name).await {
                    Ok(Some(tree)) => mounts::Whose::Image(tree),
                    // A stage that came to nothing.
                    Ok(None) | Err(BuildError::Nothing) => mounts::Whose::Nothing,
                    Err(err) => return Err(BuildError::From { from: name.clone(), source: Box::new(err) }),
                },
            });
        }
        let mounts = mounts.to_vec();
        let seen = bridge::blocking(move || mounts::see(&mounts, whose)).await;
        seen.map_err(|source| BuildError::Source { instruction: "RUN", source })
    }

    /// Makes ready what a command mounts.
    async fn ready(&mut self, run: &RunStep, seen: Vec<Seen>) -> Result<Ready, BuildError> {
        if run.mounts.is_empty() {
            return Ok(Ready::default());
        }
        let renewed = if self.options.no_cache { Some(&mut self.renewed) } else { None };
        let leases = caches::acquire(&self.engine, mounts::caches(&run.mounts, &seen, &run.command), renewed).await;
        let (engine, context) = (self.engine.clone(), self.context.clone());
        let (wanted, name) = (run.mounts.clone(), format!("mount-{}", self.at));
        let prepared = move || mounts::prepare(&engine, &context, &wanted, seen, leases, &name);
        let mut ready = bridge::blocking(prepared).await?;
        client_files::add(&self.engine, &self.client, &run.mounts, &mut ready).await?;
        Ok(ready)
    }

    /// What is made in the command's root for its mounts.
    async fn made(&self, solving: &Solving, ready: &Ready) -> Result<Made, BuildError> {
        if ready.is_empty() {
            return Ok(Made::default());
        }
        let Some(parent) = self.parent(solving)? else { return Ok(ready.stubs(None)) };
        let engine = self.engine.clone();
        let tree = Arc::new(bridge::blocking(move || tree_of(&engine, &parent)).await?);
        Ok(ready.stubs(Some(&tree.tree)))
    }

    /// Looks for secrets in what a command has written.
    async fn leak(&self, running: &Running, made: &Made, secrets: Vec<Secret>) -> Result<Option<Leak>, BuildError> {
        let (engine, key, made) = (self.engine.clone(), snapshot_key(running.id()), made.clone());
        let find = move || made.with_all(|stubs| leaks::find(&engine, &key, stubs, &secrets));
        Ok(bridge::blocking(find).await?)
    }

    /// Writes a command's own file.
    async fn script(&self, text: &str) -> std::io::Result<PathBuf> {
        let (path, text) = (self.context.place.join(&format!("script-{}", self.at)), text.to_owned());
        bridge::blocking(move || {
            std::fs::write(&path, text)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
            Ok(path)
        })
        .await
    }
}
