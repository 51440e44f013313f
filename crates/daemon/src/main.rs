//! `longshored`: the engine's daemon. Parses, decides, takes what it needs, and wires the rest together.
//!
//! ```text
//! flags + daemon.json  ->  settings  ->  config     what is wanted; nothing is touched so far
//! detach               ->  roots     ->  listen     the session, the directories and their locks, the sockets
//! Engine::open         ->  Server    ->  accept     until a signal, or until there is nothing to do
//! ```
//!
//! - [`mod@settings`] is the one table of everything that can be set; [`mod@flags`] and [`mod@file`] read it.
//! - [`mod@config`] decides, purely. [`mod@roots`], [`mod@listen`], [`mod@detach`], [`mod@inherited`] do.
//! - [`mod@tls`] is what TCP clients speak, [`mod@reload`] the configuration read again.
//! - [`mod@accept`] is the life of the daemon, [`mod@rest`] what it gives back when nobody asks for anything, and [`mod@idle`] the
//!   end of one that was started on demand.
//! - [`mod@log`] is its log, [`mod@install`] writes units for systemd.
//!
//! Containers outlive the daemon however it ends: they are no children of its, and it holds nothing that they need. Its
//! children are the relay of published ports, which outlives it likewise, and with the storage driver fuse-overlayfs whoever
//! serves what it looks at.

mod accept;
mod config;
mod detach;
mod file;
mod flags;
mod idle;
mod inherited;
mod install;
mod listen;
mod log;
mod manual;
mod reload;
mod rest;
mod roots;
mod settings;
mod tls;
mod trust;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use engine::{Engine, EngineConfig, SeccompConfig};
use rustix::process::{Resource, Rlimit};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::accept::Daemon;
use crate::config::{Config, SeccompProfile};
use crate::flags::Invocation;
use crate::reload::Reload;
use crate::roots::Roots;
use crate::settings::Given;

/// Threads for blocking work: more would wait for the same disk. Stuck ones (a dead FUSE mount) must not use up all.
const BLOCKING_THREADS: usize = 64;

/// How long such a thread waits for more work. Short, because its stack is a good part of the idle daemon's memory.
const BLOCKING_KEEP_ALIVE: Duration = Duration::from_millis(500);

/// Descriptors for which there is room from the start: 32 KiB of the kernel's.
const DESCRIPTORS: i32 = 4096;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("longshored: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    match flags::parse(arguments) {
        Ok(Invocation::Run(flags)) => start(flags),
        Ok(Invocation::Install(dir)) => install(dir.as_deref().unwrap_or(install::UNIT_DIR)),
        Ok(Invocation::Help) => {
            print!("{}", flags::help());
            Ok(())
        }
        Ok(Invocation::Manual) => {
            print!("{}", manual::page());
            Ok(())
        }
        Ok(Invocation::Version) => {
            println!("Longshore version {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Err(err) => {
            eprintln!("See 'longshored --help'.");
            Err(err.into())
        }
    }
}

fn start(flags: Given) -> Result<()> {
    let (only_validate, file) = (config::only_validate(&flags), config::config_file(&flags));
    if !only_validate {
        roots::require_root()?;
    }
    let given = file::merge(&file.0, file.1, flags.clone())?;
    let mut config = config::plan(&given)?;
    config.add_environment(|name| std::env::var(name).ok());
    engine::check_storage_driver(config.storage_driver.as_deref())?;
    roots::refuse_nested(&config.data_root, &config.exec_root)?;
    trust::load(&mut config)?;
    let seccomp = config.seccomp.as_ref().map(read_profile).transpose()?;
    let tls = config.tls.as_ref().map(tls::load).transpose().context("invalid TLS configuration")?;
    if only_validate {
        trust::idle(&config).iter().for_each(|sentence| eprintln!("warning: trust policy: {sentence}"));
        println!("configuration OK");
        return Ok(());
    }
    let volume = log::start(config.level, config.log_form);
    for (key, why) in config::ignored(&given) {
        warn!("{key} is ignored: {why}");
    }
    for name in config.changeable.features.keys() {
        warn!("feature {name} changes nothing here");
    }
    config.api_warnings.iter().for_each(|warning| warn!("{warning}"));
    trust::idle(&config).iter().for_each(|sentence| warn!("trust policy: {sentence}"));
    if let Some(driver) = config.storage_driver.as_ref().filter(|_| std::env::var_os("DOCKER_DRIVER").is_some()) {
        info!("the storage driver is {driver}: the environment's DOCKER_DRIVER counts before the settings");
    }
    if config.on_demand {
        detach::detach().context("leave the caller's session")?;
    }
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(BLOCKING_KEEP_ALIVE)
        .build()
        .context("start the runtime")?;
    let mut reload = Reload::new(flags, file, given, &config, volume);
    let served = runtime.block_on(serve(config, tls, seccomp, &mut reload));
    // Blocking work that is stuck must not keep the daemon from ending.
    runtime.shutdown_background();
    // The locks go last, when nothing of ours touches the directories any more: only then may another daemon come.
    served.map(drop)
}

/// Serves until the end; answers what must be held until the process ends.
async fn serve(
    config: Config,
    tls: Option<TlsAcceptor>,
    seccomp: Option<SeccompConfig>,
    reload: &mut Reload,
) -> Result<(Roots, Daemon)> {
    let roots = roots::take(&config.data_root, &config.exec_root)?;
    if let Some(pidfile) = &config.pidfile {
        roots::write_pidfile(pidfile)?;
    }
    // Listening comes before opening: whoever connects meanwhile waits, and is not refused.
    let listeners = listen::listen(&config.hosts, config.metrics.as_deref(), config.group.as_deref())?;
    let engine =
        Engine::open(engine_config(&config, seccomp, &roots.instance_key)?).await.context("open the engine")?;
    let mut daemon = Daemon::new(engine, listeners, tls, &config).context("watch the sockets")?;
    info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "API listens");
    if let Some(fd) = config.ready_fd {
        inherited::signal_ready(fd).context("tell that we listen")?;
    }
    daemon.warm_up();
    daemon.run(reload).await;
    daemon.end(reload.shutdown_timeout()).await;
    if let Some(pidfile) = &config.pidfile
        && let Err(err) = stdx::fs::remove_if_exists(pidfile)
    {
        warn!("remove {}: {err}", pidfile.display());
    }
    Ok((roots, daemon))
}

fn engine_config(config: &Config, seccomp: Option<SeccompConfig>, instance_key: &str) -> Result<EngineConfig> {
    let beside = beside_us()?;
    Ok(EngineConfig {
        data_root: config.data_root.clone(),
        exec_root: config.exec_root.clone(),
        shim_path: config.shim_path.clone().unwrap_or_else(|| beside.join("longshore-shim")),
        init_path: config.init_path.clone().unwrap_or_else(|| beside.join("longshore-init")),
        instance_key: instance_key.to_owned(),
        cgroup_parent: config.cgroup_parent.clone(),
        cdi_spec_dirs: config.cdi_spec_dirs.clone(),
        runtimes: config.runtimes.clone(),
        default_runtime: config.default_runtime.clone(),
        storage_driver: config.storage_driver.clone(),
        image_budget: config.image_budget.clone(),
        build_cache: config.build_cache,
        container_size_bytes: config.container_size_bytes,
        default_log: config.log.clone(),
        default_ulimits: config.ulimits.clone(),
        default_init: config.init,
        no_new_privileges: config.no_new_privileges,
        resolver: config.resolver.clone(),
        seccomp,
        // Docker's client offers checkpoints to those who say so alone.
        experimental: config.experimental || engine::ops::checkpoint::is_possible(),
        api_warnings: config.api_warnings.clone(),
        changeable: config.changeable.clone(),
        network: config.network.clone().map(|network| network::Config {
            instance_key: instance_key.to_owned(),
            state_dir: config.exec_root.join("network"),
            data_dir: config.data_root.clone(),
            system_bus: Some(network::system_bus(|name| std::env::var(name).ok())),
            ..network
        }),
    })
}

/// Reads the profile of system calls that the administrator has chosen.
fn read_profile(profile: &SeccompProfile) -> Result<SeccompConfig> {
    match profile {
        SeccompProfile::Unconfined => {
            Ok(SeccompConfig { name: "unconfined".to_owned(), profile: "unconfined".to_owned() })
        }
        SeccompProfile::File(path) => {
            let name = path.display().to_string();
            let read = std::fs::read_to_string(path);
            let profile = read.with_context(|| format!("opening seccomp profile ({name}) failed"))?;
            Ok(SeccompConfig { name, profile })
        }
    }
}

/// Where our programs are: beside this one.
fn beside_us() -> Result<PathBuf> {
    let program = std::env::current_exe().context("find this program")?;
    Ok(program.parent().unwrap_or(Path::new("/")).to_owned())
}

/// Each container costs the daemon a descriptor: takes as many as it may have. Containers get the same limit, as they do
/// from dockerd.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(err) = rustix::process::setrlimit(Resource::Nofile, raised) {
        warn!("raise the limit of descriptors: {err}");
    }
    make_room_for_descriptors();
}

/// Has the kernel make the table of descriptors as long as a range of 1,000 published ports needs it, while there is one thread.
/// Later it doubles with each power of two, and waits for all processors each time (fs/file.c, `expand_fdtable`): some
/// milliseconds for every one of the first ranges.
fn make_room_for_descriptors() {
    // It never gets shorter. Where so many may not be had it gets longer later.
    _ = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), DESCRIPTORS - 1);
}

fn install(dir: &str) -> Result<()> {
    let program = std::env::current_exe().context("find this program")?;
    let written = install::install(Path::new(dir), &program, listen::unit_group())?;
    for path in written {
        println!("wrote {}", path.display());
    }
    println!("Start it with: systemctl daemon-reload && systemctl enable --now longshored.socket longshored.service");
    Ok(())
}
