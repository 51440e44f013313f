//! What the daemon does, made of what was set: a pure function.

mod api;
mod bridge;
mod builder;
mod containers;
mod pools;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::{
    AddressRange, BuildCacheConfig, Changeable, ImageBudgetConfig, MirrorError, Mirrors, Proxies, ProxyError,
    RegistriesConfig, ResolverConfig, RuntimeConfig,
};
use engine_api::host_config::{LogConfig, Ulimit};
use engine_api::size::SizeError;

use crate::listen::{Host, HostError};
use crate::log::{Form, FormError, Level, LevelError};
use crate::settings::{Given, SETTINGS, Support, Value};
use crate::tls::Tls;

pub(crate) use containers::SeccompProfile;

/// Where an instance keeps things if nothing else is said.
pub(crate) mod defaults {
    /// The API's socket.
    pub(crate) const SOCKET: &str = "/run/longshore.sock";
    /// Running state; a tmpfs on every distribution.
    pub(crate) const EXEC_ROOT: &str = "/run/longshore";
    /// Images and containers.
    pub(crate) const DATA_ROOT: &str = "/var/lib/longshore";
    /// The configuration file.
    pub(crate) const CONFIG_FILE: &str = "/etc/longshore/daemon.json";
    /// Seconds that requests get to end when the daemon ends; dockerd's 15 are for containers, which stay here.
    pub(crate) const SHUTDOWN_TIMEOUT: i64 = 5;
    /// Seconds without work before a daemon on demand ends: the next command of a shell script finds it running.
    pub(crate) const IDLE_TIMEOUT: i64 = 10;
    /// How much is logged.
    pub(crate) const LOG_LEVEL: &str = "info";
    /// Where the output of containers goes.
    pub(crate) const LOG_DRIVER: &str = "json-file";
}

/// What was set and is not looked at, and why.
pub(crate) fn ignored(given: &Given) -> impl Iterator<Item = (&'static str, &'static str)> {
    SETTINGS.iter().filter_map(|setting| match setting.support {
        Support::Ignored(why) if given.contains_key(setting.flag) => Some((setting.key, why)),
        _ => None,
    })
}

/// What is taken for a flag that is not given, as the help shows it.
pub(crate) fn shown_default(flag: &str) -> Option<String> {
    Some(match flag {
        "config-file" => defaults::CONFIG_FILE.to_owned(),
        "data-root" => defaults::DATA_ROOT.to_owned(),
        "exec-root" => defaults::EXEC_ROOT.to_owned(),
        "host" => format!("unix://{}", defaults::SOCKET),
        "idle-timeout" => defaults::IDLE_TIMEOUT.to_string(),
        "log-driver" => defaults::LOG_DRIVER.to_owned(),
        "log-level" => defaults::LOG_LEVEL.to_owned(),
        "shutdown-timeout" => defaults::SHUTDOWN_TIMEOUT.to_string(),
        _ => return None,
    })
}

/// Everything that was decided before anything was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) hosts: Vec<Host>,
    pub(crate) data_root: PathBuf,
    pub(crate) exec_root: PathBuf,
    pub(crate) pidfile: Option<PathBuf>,
    /// The group of unix sockets; by default one of those that exist.
    pub(crate) group: Option<String>,
    pub(crate) level: Level,
    pub(crate) log_form: Form,
    /// TLS on TCP; absent for none.
    pub(crate) tls: Option<Tls>,
    /// Where metrics are served.
    pub(crate) metrics: Option<String>,
    /// What `info` warns of.
    pub(crate) api_warnings: Vec<String>,
    /// What counts as soon as daemon.json is read again.
    pub(crate) changeable: Changeable,
    /// End after so long without work; never if absent.
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) on_demand: bool,
    pub(crate) ready_fd: Option<i32>,
    pub(crate) shim_path: Option<PathBuf>,
    pub(crate) init_path: Option<PathBuf>,
    pub(crate) cgroup_parent: Option<String>,
    /// Where devices by name are described; none for none.
    pub(crate) cdi_spec_dirs: Vec<PathBuf>,
    pub(crate) runtimes: BTreeMap<String, RuntimeConfig>,
    pub(crate) default_runtime: Option<String>,
    /// What puts layers together; absent for what is found or works.
    pub(crate) storage_driver: Option<String>,
    /// How much images may take; absent for no limit.
    pub(crate) image_budget: Option<ImageBudgetConfig>,
    pub(crate) build_cache: BuildCacheConfig,
    /// How much the own files of a container may take; absent for no limit.
    pub(crate) container_size_bytes: Option<u64>,
    pub(crate) log: LogConfig,
    pub(crate) ulimits: Vec<Ulimit>,
    pub(crate) init: bool,
    pub(crate) no_new_privileges: bool,
    pub(crate) experimental: bool,
    pub(crate) resolver: ResolverConfig,
    /// Absent for Docker's own.
    pub(crate) seccomp: Option<SeccompProfile>,
    /// The policy about images; absent for the default one, if it is there.
    pub(crate) trust_policy: Option<PathBuf>,
    /// The default bridge, without the instance's key and directory; absent for none.
    pub(crate) network: Option<network::Config>,
}

/// Why settings were refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("builder: {0}")]
    Builder(String),
    #[error("{key} is not supported yet at {value:?}")]
    Unsupported { key: &'static str, value: String },
    #[error("live-restore cannot be switched off: containers always outlive the daemon")]
    LiveRestore,
    #[error(
        "{0} cannot be switched off: rules of a table of its own are what keeps containers apart and leads to them. Set host-firewall to \
         leave all other rules of this machine as they are, or bridge to none for no networks at all"
    )]
    OwnRules(&'static str),
    #[error(
        "{0}: whoever can connect to TCP without TLS is root on this machine. Set tlsverify, or say --tls=false if that is what you want"
    )]
    InsecureTcp(String),
    #[error("metrics-addr: {0:?} is no address:port")]
    MetricsAddress(String),
    #[error("IPC mode {0:?} is not supported as default value; use \"shareable\" or \"private\"")]
    IpcModeDefault(String),
    #[error("default IPC mode setting ({0}) is invalid; use \"shareable\" or \"private\"")]
    IpcMode(String),
    #[error("invalid default cgroup namespace ({0}): use \"host\" or \"private\"")]
    CgroupnsMode(String),
    #[error("invalid IP address: {0}")]
    IpAddress(String),
    #[error("{0} is not a valid domain")]
    Domain(String),
    #[error("features: {name}: {value:?} is neither true nor false")]
    Feature { name: String, value: String },
    #[error("invalid exec-opt ({option}): {reason}")]
    ExecOption { option: String, reason: String },
    #[error("conflict labels for {later} and {earlier}")]
    LabelConflict { later: String, earlier: String },
    #[error("invalid default MTU: {0}")]
    Mtu(i64),
    #[error("invalid max concurrent uploads: {0}")]
    ConcurrentUploads(i64),
    #[error("{key}: {value:?} is no size")]
    Size { key: &'static str, value: String },
    #[error("{key}: {value} is not in range")]
    Range { key: &'static str, value: i64 },
    #[error("bad attribute format: {0}")]
    Label(String),
    #[error("failed to set log opts: {0}")]
    Log(String),
    #[error("unable to parse storage-opt key/value: {0}")]
    StorageOption(String),
    #[error("overlay2: unknown option {0}")]
    StorageOptionName(String),
    #[error(transparent)]
    StorageSize(#[from] SizeError),
    #[error("image-budget-low: {low} is above image-budget-high: {high}")]
    Budget { low: u64, high: u64 },
    #[error("{0}: image-budget-high is not set")]
    NoBudget(&'static str),
    #[error("specified default runtime '{0}' does not exist")]
    DefaultRuntime(String),
    #[error("insecure-registries: {0} is no range of addresses")]
    RegistryRange(String),
    #[error("insecure registry {0} should not contain '://'")]
    RegistryScheme(String),
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error("invalid max concurrent downloads: {0}")]
    ConcurrentDownloads(i64),
    #[error("invalid max download attempts: {0}")]
    DownloadAttempts(i64),
    #[error("You specified -b & --{0}, mutually exclusive options. Please specify only one")]
    BridgeAnd(&'static str),
    #[error("ip: {0:?} is no IPv4 address")]
    Address(String),
    #[error("{key}: {value:?} is no range of IPv4 addresses")]
    Subnet { key: &'static str, value: String },
    #[error("bip: {0:?} is no address that a bridge with containers can have")]
    Bip(String),
    #[error("{key}: {value:?} is no range of IPv6 addresses")]
    SubnetOfIpv6 { key: &'static str, value: String },
    #[error("{key}: {value:?} is no address of its family")]
    DefaultGateway { key: &'static str, value: String },
    #[error("{key}: {value:?} is no absolute path")]
    Relative { key: &'static str, value: String },
    #[error(transparent)]
    Pool(#[from] pools::PoolError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Level(#[from] LevelError),
    #[error(transparent)]
    Form(#[from] FormError),
}

/// Decides.
pub(crate) fn plan(given: &Given) -> Result<Config, ConfigError> {
    refuse_unsupported(given)?;
    let debug = switch(given, "debug").unwrap_or(false);
    let level = Level::parse(text(given, "log-level").unwrap_or(defaults::LOG_LEVEL))?;
    let on_demand = switch(given, "on-demand").unwrap_or(false);
    containers::check_exec_options(given)?;
    let (hosts, tls) = (api::hosts(given)?, api::tls(given)?);
    Ok(Config {
        api_warnings: api::warnings(&hosts, tls.as_ref()),
        hosts,
        tls,
        metrics: api::metrics(given)?,
        data_root: path(given, "data-root")?.unwrap_or_else(|| defaults::DATA_ROOT.into()),
        exec_root: path(given, "exec-root")?.unwrap_or_else(|| defaults::EXEC_ROOT.into()),
        pidfile: path(given, "pidfile")?,
        group: text(given, "group").map(str::to_owned),
        level: if debug { Level::DEBUG } else { level },
        log_form: text(given, "log-format").map(Form::parse).transpose()?.unwrap_or_default(),
        changeable: changeable(given, debug)?,
        idle_timeout: on_demand.then(|| seconds(given, "idle-timeout", defaults::IDLE_TIMEOUT)).transpose()?,
        on_demand,
        ready_fd: number(given, "ready-fd").map(|fd| in_range("ready-fd", fd)).transpose()?,
        shim_path: path(given, "shim-path")?,
        init_path: path(given, "init-path")?,
        cgroup_parent: text(given, "cgroup-parent").map(str::to_owned),
        cdi_spec_dirs: containers::cdi_spec_dirs(given)?,
        default_runtime: default_runtime(given)?,
        storage_driver: text(given, "storage-driver").filter(|name| !name.is_empty()).map(str::to_owned),
        image_budget: containers::image_budget(given)?,
        build_cache: builder::build_cache(text(given, "builder"))?,
        container_size_bytes: containers::size_bytes(given)?,
        runtimes: runtimes(given),
        log: log(given)?,
        ulimits: ulimits(given),
        init: switch(given, "init").unwrap_or(false),
        no_new_privileges: switch(given, "no-new-privileges").unwrap_or(false),
        experimental: switch(given, "experimental").unwrap_or(false),
        resolver: containers::resolver(given)?,
        seccomp: containers::seccomp(given)?,
        trust_policy: trust_policy(given)?,
        network: bridge::plan(given)?,
    })
}

/// The configuration file, and whether it was asked for.
pub(crate) fn config_file(flags: &Given) -> (PathBuf, bool) {
    match text(flags, "config-file") {
        Some(path) => (path.into(), true),
        None => (defaults::CONFIG_FILE.into(), false),
    }
}

/// Whether the settings are only to be checked.
pub(crate) fn only_validate(flags: &Given) -> bool {
    switch(flags, "validate").unwrap_or(false)
}

fn refuse_unsupported(given: &Given) -> Result<(), ConfigError> {
    if switch(given, "live-restore") == Some(false) {
        return Err(ConfigError::LiveRestore);
    }
    // Without networks there are no rules.
    let has_rules = text(given, "bridge") != Some("none");
    if let Some(key) = ["iptables", "ip6tables"].into_iter().find(|key| has_rules && switch(given, key) == Some(false))
    {
        return Err(ConfigError::OwnRules(key));
    }
    for setting in SETTINGS {
        let (Support::OnlyAt(harmless), Some(value)) = (setting.support, given.get(setting.flag)) else { continue };
        if let Some(text) = value.texts().into_iter().find(|text| !harmless.contains(&text.as_str())) {
            return Err(ConfigError::Unsupported { key: setting.key, value: text });
        }
    }
    Ok(())
}

fn changeable(given: &Given, debug: bool) -> Result<Changeable, ConfigError> {
    Ok(Changeable {
        debug,
        labels: containers::labels(given)?,
        shm_size_bytes: text(given, "default-shm-size").map(shm_size).transpose()?,
        ipc_mode: containers::ipc_mode(given)?,
        cgroupns_mode: containers::cgroupns_mode(given)?,
        features: containers::features(given)?,
        registries: registries(given)?,
        trust: None,
        shutdown_timeout_seconds: seconds(given, "shutdown-timeout", defaults::SHUTDOWN_TIMEOUT)?.as_secs(),
    })
}

fn log(given: &Given) -> Result<LogConfig, ConfigError> {
    let kind = text(given, "log-driver").unwrap_or(defaults::LOG_DRIVER);
    let options = match given.get("log-opt") {
        Some(Value::Pairs(pairs)) => pairs.clone(),
        _ => Default::default(),
    };
    let log = LogConfig { kind: kind.to_owned(), config: Some(options) };
    engine::check_log(&log).map_err(|err| ConfigError::Log(err.to_string()))?;
    Ok(log)
}

fn registries(given: &Given) -> Result<RegistriesConfig, ConfigError> {
    let defaults = RegistriesConfig::default();
    let concurrent = number(given, "max-concurrent-downloads").unwrap_or(defaults.concurrent_downloads as i64);
    let uploads = number(given, "max-concurrent-uploads").unwrap_or(defaults.concurrent_uploads as i64);
    let attempts = number(given, "max-download-attempts").unwrap_or(defaults.download_attempts.into());
    let by_host = match given.get("registry-mirror-by-host") {
        Some(Value::Mirrors(mirrors)) => mirrors.clone(),
        _ => BTreeMap::new(),
    };
    let insecure = list(given, "insecure-registry").iter().map(|name| insecure_registry(name));
    Ok(RegistriesConfig {
        insecure: insecure.collect::<Result<_, _>>()?,
        certificates: certificates(given),
        proxies: proxies(given)?,
        mirrors: Mirrors::parse(list(given, "registry-mirror"), &by_host)?,
        concurrent_downloads: at_once(concurrent).ok_or(ConfigError::ConcurrentDownloads(concurrent))?,
        concurrent_uploads: at_once(uploads).ok_or(ConfigError::ConcurrentUploads(uploads))?,
        download_attempts: match u32::try_from(attempts) {
            Ok(attempts @ 1..) => attempts,
            _ => return Err(ConfigError::DownloadAttempts(attempts)),
        },
    })
}

/// What the settings say; the environment counts where they say nothing.
fn proxies(given: &Given) -> Result<Proxies, ConfigError> {
    let said = |flag| text(given, flag).unwrap_or_default().to_owned();
    let proxies = Proxies { http: said("http-proxy"), https: said("https-proxy"), none: said("no-proxy") };
    proxies.check()?;
    Ok(proxies)
}

impl Config {
    /// Takes from the daemon's environment what dockerd takes: proxies where the settings name none (what is wrong with them is
    /// told when a registry is asked), and the storage driver, whatever they name.
    pub(crate) fn add_environment(&mut self, variable: impl Fn(&str) -> Option<String>) {
        if let Some(name) = variable("DOCKER_DRIVER").filter(|name| !name.is_empty()) {
            self.storage_driver = Some(name);
        }
        let proxies = &mut self.changeable.registries.proxies;
        let fields =
            [("HTTP_PROXY", &mut proxies.http), ("HTTPS_PROXY", &mut proxies.https), ("NO_PROXY", &mut proxies.none)];
        for (name, field) in fields.into_iter().filter(|(_, field)| field.is_empty()) {
            let said = |name: &str| variable(name).filter(|value| !value.is_empty());
            *field = said(name).or_else(|| said(&name.to_lowercase())).unwrap_or_default();
        }
    }
}

/// Beside daemon.json, and where Docker's are.
fn certificates(given: &Given) -> Vec<PathBuf> {
    let own = config_file(given).0.with_file_name("certs.d");
    std::iter::once(own).chain(RegistriesConfig::default().certificates).collect()
}

/// How many transfers may go on; none if the number is negative.
fn at_once(number: i64) -> Option<usize> {
    match usize::try_from(number).ok()? {
        // dockerd's way to say "any number".
        0 => Some(CONCURRENT_DOWNLOADS_MAX),
        number => Some(number.min(CONCURRENT_DOWNLOADS_MAX)),
    }
}

/// `host[:port]`; a scheme that somebody copied is taken off, as dockerd does.
fn insecure_registry(text: &str) -> Result<String, ConfigError> {
    let lower = text.to_ascii_lowercase();
    let name = ["http://", "https://"].iter().find_map(|scheme| lower.strip_prefix(scheme)).unwrap_or(&lower);
    match () {
        () if name.contains("://") => Err(ConfigError::RegistryScheme(text.to_owned())),
        () if name.contains('/') => {
            let range: Result<AddressRange, _> = name.parse();
            range.map(|_| name.to_owned()).map_err(|_| ConfigError::RegistryRange(text.to_owned()))
        }
        () => Ok(name.to_owned()),
    }
}

/// More transfers at a time than any image has layers make no difference.
const CONCURRENT_DOWNLOADS_MAX: usize = 1000;

fn runtimes(given: &Given) -> BTreeMap<String, RuntimeConfig> {
    match given.get("add-runtime") {
        Some(Value::Runtimes(runtimes)) => runtimes.clone(),
        _ => BTreeMap::new(),
    }
}

/// Our own has the names of Docker's default, too.
fn default_runtime(given: &Given) -> Result<Option<String>, ConfigError> {
    let Some(name) = text(given, "default-runtime") else { return Ok(None) };
    match runtimes(given).contains_key(name) {
        true => Ok(Some(name.to_owned())),
        false if matches!(name, "longshore" | "runc" | "io.containerd.runc.v2") => Ok(None),
        false => Err(ConfigError::DefaultRuntime(name.to_owned())),
    }
}

fn ulimits(given: &Given) -> Vec<Ulimit> {
    match given.get("default-ulimit") {
        Some(Value::Ulimits(limits)) => limits.clone(),
        _ => Vec::new(),
    }
}

/// `64m`, `1g`, `1024`: Docker's units, powers of 1024.
fn shm_size(text: &str) -> Result<i64, ConfigError> {
    let refused = || ConfigError::Size { key: "default-shm-size", value: text.to_owned() };
    let lower = text.to_ascii_lowercase();
    let bare = lower.trim_end_matches('b').trim_end_matches('i');
    let digits = bare.trim_end_matches(['k', 'm', 'g', 't']);
    let exponent = match &bare[digits.len()..] {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(refused()),
    };
    let number: i64 = digits.trim_end().parse().map_err(|_| refused())?;
    number.checked_mul(1 << (10 * exponent)).filter(|&size| size > 0).ok_or_else(refused)
}

fn seconds(given: &Given, flag: &'static str, default: i64) -> Result<Duration, ConfigError> {
    let value = number(given, flag).unwrap_or(default);
    in_range::<u32>(flag, value).map(|seconds| Duration::from_secs(seconds.into()))
}

fn in_range<T: TryFrom<i64>>(key: &'static str, value: i64) -> Result<T, ConfigError> {
    T::try_from(value).map_err(|_| ConfigError::Range { key, value })
}

/// A path, which must be absolute: a daemon on demand changes its directory.
fn path(given: &Given, flag: &'static str) -> Result<Option<PathBuf>, ConfigError> {
    match text(given, flag) {
        Some(text) if !Path::new(text).is_absolute() => {
            Err(ConfigError::Relative { key: flag, value: text.to_owned() })
        }
        text => Ok(text.map(PathBuf::from)),
    }
}

/// Empty elsewhere means the default; here it is a variable that was not set, and would let everything in.
fn trust_policy(given: &Given) -> Result<Option<PathBuf>, ConfigError> {
    match given.get("trust-policy") {
        Some(Value::Text(text)) if text.is_empty() => {
            Err(ConfigError::Relative { key: "trust-policy", value: String::new() })
        }
        _ => path(given, "trust-policy"),
    }
}

fn switch(given: &Given, flag: &str) -> Option<bool> {
    match given.get(flag) {
        Some(Value::Switch(on)) => Some(*on),
        _ => None,
    }
}

/// A text, where empty means "not given".
fn text<'a>(given: &'a Given, flag: &str) -> Option<&'a str> {
    match given.get(flag) {
        Some(Value::Text(text)) if !text.is_empty() => Some(text),
        _ => None,
    }
}

fn number(given: &Given, flag: &str) -> Option<i64> {
    match given.get(flag) {
        Some(Value::Number(number)) => Some(*number),
        _ => None,
    }
}

fn list<'a>(given: &'a Given, flag: &str) -> &'a [String] {
    match given.get(flag) {
        Some(Value::List(elements)) => elements,
        _ => &[],
    }
}

#[cfg(test)]
mod tests;
