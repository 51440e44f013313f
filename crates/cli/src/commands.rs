//! The verbs, one file each: effects only; what can be decided beforehand is in [`crate::plan`].

use std::path::{Path, PathBuf};

use client::Client;

use crate::args::{Parsed, Verb};
use crate::config::{self, ConfigFile};
use crate::connection;
use crate::contexts::Store;
use crate::plan::filters;
use crate::report::{Exit, client_error};
use crate::say_line;

pub mod api_socket;
mod at_once;
pub mod attach;
pub mod bootstrap;
pub mod budget;
pub mod build;
mod buildx;
pub mod changes;
pub mod checkpoint;
pub mod context;
pub mod copy;
pub mod create;
pub mod dial_stdio;
pub mod disk_usage;
pub mod events;
pub mod exec;
pub mod follow;
pub mod generate;
pub mod history;
mod image_tree;
pub mod images;
pub mod info;
pub mod inspect;
pub mod lifecycle;
pub mod list;
pub mod load;
pub mod login;
pub mod logs;
pub mod manifest;
pub mod network;
pub mod port;
pub mod progress;
pub mod prune;
pub mod pull;
pub mod push;
pub mod run;
pub mod save;
pub mod search;
pub mod start;
pub mod stats;
pub mod successor;
pub mod top;
pub mod update;
pub mod version;
pub mod volume;
pub mod volume_copies;
pub mod why;

/// What every verb has at hand.
pub struct Context {
    /// `longshore` or `docker`.
    pub program: &'static str,
    /// The command as typed: `run`, `container run`.
    pub path: String,
    /// The daemon.
    pub client: Client,
    /// The user's configuration.
    pub config: ConfigFile,
    /// Whether the user wants to read more.
    pub debug: bool,
    /// The name of the context in use.
    name: String,
    contexts: Store,
    directory: PathBuf,
}

/// What `--log-level` may be.
const LOG_LEVELS: [&str; 9] = ["", "trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"];

impl Context {
    /// Reads the configuration; connects later.
    pub fn new(program: &'static str, path: String, global: &Parsed, verb: Verb) -> Result<Context, Exit> {
        let level = global.text("log-level");
        if !LOG_LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            return Err(Exit::new(1, format!("Unable to parse logging level: {level}")));
        }
        let config = ConfigFile::load(global.text("config"))?;
        let directory = config::directory(global.text("config"));
        let contexts = Store::new(&directory).with_host(global.list("host").first());
        let connection = connection::resolve(global, &config, &contexts)?;
        let target = match connection.target {
            Ok(target) => target,
            // Whoever repairs a context may use a broken one.
            Err(_) if matches!(verb, Verb::Context(_) | Verb::Completion | Verb::Man) => connection::Target::unused(),
            Err(reason) => return Err(Exit::new(1, format!("Failed to initialize: {reason}"))),
        };
        let client = Client::new(target.endpoint, target.options);
        let debug = global.flag("debug");
        Ok(Context { program, path, client, config, debug, name: connection.context, contexts, directory })
    }

    /// For a press of the tabulator: a daemon is never started for it, and what is wrong is no matter.
    pub fn for_completion(program: &'static str, global: &Parsed) -> Option<Context> {
        let config = ConfigFile::load_quietly(global.text("config"));
        let directory = config::directory(global.text("config"));
        let contexts = Store::new(&directory).with_host(global.list("host").first());
        let connection = connection::resolve(global, &config, &contexts).ok()?;
        // A context that cannot be used has a name, and others can be listed.
        let target = connection.target.unwrap_or_else(|_| connection::Target::unused());
        let options = client::Options { on_demand: None, ..target.options };
        let client = Client::new(target.endpoint, options);
        let (path, debug) = (String::new(), false);
        Some(Context { program, path, client, config, debug, name: connection.context, contexts, directory })
    }

    /// The name of the context in use.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All contexts.
    pub fn store(&self) -> &Store {
        &self.contexts
    }

    /// The directory of the user's configuration.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The keys that detach: of the command line, else of the configuration.
    pub fn detach_keys<'a>(&'a self, parsed: &'a Parsed) -> &'a str {
        let given = parsed.text("detach-keys");
        if given.is_empty() { &self.config.detach_keys } else { given }
    }

    /// The filters of a prune: of the command line and of the configuration.
    pub fn prune_filters(&self, parsed: &Parsed) -> Vec<String> {
        filters::with_configured(parsed.list("filter"), &self.config.prune_filters)
    }

    /// A sentence about `run` with the hint that Docker adds to it.
    pub fn with_help(&self, verb: &str, message: &str) -> String {
        let program = self.program;
        format!("{program}: {message}\n\nRun '{program} {verb} --help' for more information")
    }
}

/// Runs a verb.
pub async fn dispatch(context: &Context, verb: Verb, parsed: &Parsed) -> Result<(), Exit> {
    match verb {
        Verb::Run => run::run(context, parsed).await,
        Verb::Create => create::run(context, parsed).await,
        Verb::Build => build::run(context, parsed).await,
        Verb::Start => start::run(context, parsed).await,
        Verb::Stop | Verb::Restart => lifecycle::stop(context, verb, parsed).await,
        Verb::Kill => lifecycle::kill(context, parsed).await,
        Verb::Pause | Verb::Unpause => lifecycle::pause(context, verb, parsed).await,
        Verb::Update => update::run(context, parsed).await,
        Verb::Top => top::run(context, parsed).await,
        Verb::Stats => stats::run(context, parsed).await,
        Verb::Wait => lifecycle::wait(context, parsed).await,
        Verb::Remove => lifecycle::remove(context, parsed).await,
        Verb::Rename => lifecycle::rename(context, parsed).await,
        Verb::List => list::run(context, parsed).await,
        Verb::Copy => copy::run(context, parsed).await,
        Verb::Diff => changes::diff(context, parsed).await,
        Verb::Export => changes::export(context, parsed).await,
        Verb::Commit => changes::commit(context, parsed).await,
        Verb::Import => changes::import(context, parsed).await,
        Verb::PruneContainers => changes::prune(context, parsed).await,
        Verb::Port => port::run(context, parsed).await,
        Verb::Logs => logs::run(context, parsed).await,
        Verb::Exec => exec::run(context, parsed).await,
        Verb::Attach => attach::run(context, parsed).await,
        Verb::Inspect | Verb::InspectContainer | Verb::InspectImage | Verb::InspectVolume | Verb::InspectNetwork => {
            inspect::run(context, verb, parsed).await
        }
        Verb::Images => images::list(context, parsed).await,
        Verb::Tag => images::tag(context, parsed).await,
        Verb::RemoveImage => images::remove(context, parsed).await,
        Verb::History => history::run(context, parsed).await,
        Verb::Search => search::run(context, parsed).await,
        Verb::Pull => pull::run(context, parsed).await,
        Verb::Push => push::run(context, parsed).await,
        Verb::Login => login::run(context, parsed).await,
        Verb::Logout => login::out(context, parsed),
        Verb::Load => load::run(context, parsed).await,
        Verb::Save => save::run(context, parsed).await,
        Verb::CreateVolume => volume::create(context, parsed).await,
        Verb::ListVolumes => volume::list(context, parsed).await,
        Verb::PruneVolumes => volume::prune(context, parsed).await,
        Verb::RemoveVolume => volume::remove(context, parsed).await,
        Verb::ExportVolume => volume_copies::export(context, parsed).await,
        Verb::ImportVolume => volume_copies::import(context, parsed).await,
        Verb::CloneVolume => volume_copies::clone(context, parsed).await,
        Verb::SnapshotVolume => volume_copies::snapshot(context, parsed).await,
        Verb::UpdateVolume => volume::update(context, parsed).await,
        Verb::DiskUsage => disk_usage::run(context, parsed).await,
        Verb::Manifest(verb) => manifest::run(context, verb, parsed).await,
        Verb::Bootstrap => bootstrap::run(context, parsed).await,
        Verb::ExplainBudget => budget::run(context, parsed).await,
        Verb::PruneImages => prune::images(context, parsed).await,
        Verb::PruneNetworks => prune::networks(context, parsed).await,
        Verb::PruneCaches => prune::caches(context, parsed).await,
        Verb::BuildDiskUsage | Verb::ListBuilders => buildx::run(context, verb).await,
        Verb::PruneAll => prune::everything(context, parsed).await,
        Verb::Network(verb) => network::run(context, verb, parsed).await,
        Verb::Version => version::run(context, parsed).await,
        Verb::Info => info::run(context, parsed).await,
        Verb::Events => events::run(context, parsed).await,
        Verb::Why => why::run(context, parsed).await,
        Verb::Checkpoint(verb) => checkpoint::run(context, verb, parsed).await,
        Verb::Context(verb) => context::run(context, verb, parsed),
        Verb::DialStdio => dial_stdio::run(context).await,
        Verb::Completion => generate::completion(context, parsed),
        Verb::Man => generate::man(context, parsed),
    }
}

/// Whether a command only waits for a daemon or for somebody who types, so that an interruption ends it wherever it is. The
/// others pass signals on, or read what is typed on the one thread we have: a signal that is caught would be lost on it.
pub fn ends_at_once(verb: Verb) -> bool {
    matches!(
        verb,
        Verb::Stop
            | Verb::Restart
            | Verb::Kill
            | Verb::Pause
            | Verb::Unpause
            | Verb::Update
            | Verb::Top
            | Verb::Stats
            | Verb::Wait
            | Verb::Remove
            | Verb::List
            | Verb::Diff
            | Verb::Export
            | Verb::Commit
            | Verb::Copy
            | Verb::Import
            | Verb::Load
            | Verb::Login
            | Verb::PruneCaches
            | Verb::BuildDiskUsage
            | Verb::ListBuilders
            | Verb::PruneContainers
            | Verb::PruneAll
            | Verb::PruneImages
            | Verb::PruneNetworks
            | Verb::PruneVolumes
            | Verb::Pull
            | Verb::Push
            | Verb::Logs
            | Verb::Inspect
            | Verb::InspectContainer
            | Verb::InspectImage
            | Verb::InspectVolume
            | Verb::InspectNetwork
            | Verb::Images
            | Verb::RemoveImage
            | Verb::Search
            | Verb::Save
            | Verb::RemoveVolume
            | Verb::DiskUsage
            | Verb::Version
            | Verb::Info
            | Verb::Events
            | Verb::Why
    )
}

/// Prints what comes of each name, goes on after a failure, and fails at the end with all sentences.
#[derive(Debug, Default)]
pub struct Outcomes {
    failures: Vec<String>,
}

impl Outcomes {
    /// Notes one outcome.
    pub fn note(&mut self, outcome: Result<String, client::ClientError>) {
        match outcome {
            Ok(line) if line.is_empty() => {}
            Ok(line) => say_line!("{line}"),
            Err(err) => self.failures.push(client_error(&err)),
        }
    }

    /// Whether there was a failure.
    pub fn has_failed(&self) -> bool {
        !self.failures.is_empty()
    }

    /// Notes a failure that no daemon told.
    pub fn fail(&mut self, sentence: &str) {
        self.failures.push(sentence.to_owned());
    }

    /// The failures, one a line.
    pub fn finish(self) -> Result<(), Exit> {
        if self.failures.is_empty() { Ok(()) } else { Err(Exit::new(1, self.failures.join("\n"))) }
    }
}
