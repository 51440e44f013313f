//! Which daemon is meant: of the command line, the environment, or a context; and how to speak to it.

use std::path::{Path, PathBuf};

use client::on_demand::Instance;
use client::tls::Tls;
use client::{Endpoint, Options};

use crate::args::Parsed;
use crate::config::ConfigFile;
use crate::contexts::{DEFAULT, Metadata, Store};
use crate::report::{Exit, go_error};

/// Where a command goes.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The name of the context; [`DEFAULT`] for what command line and environment say.
    pub context: String,
    /// What is done about it; absent for a context that cannot be used, which only some commands need.
    pub target: Result<Target, String>,
}

/// A daemon.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it is.
    pub endpoint: Endpoint,
    /// How to speak to it.
    pub options: Options,
}

impl Target {
    /// For commands that do not connect.
    pub fn unused() -> Target {
        Target { endpoint: Endpoint::Unix(default_instance().socket), options: Options::default() }
    }
}

/// Finds out. Only what says nothing sensible at all is an error here.
pub fn resolve(global: &Parsed, file: &ConfigFile, store: &Store) -> Result<Connection, Exit> {
    let hosts = global.list("host");
    if !global.text("context").is_empty() && !hosts.is_empty() {
        return Err(Exit::new(1, "conflicting options: cannot specify both --host and --context"));
    }
    let context = name(global, file);
    let target = target(global, file, store, &context).map_err(|exit| exit.message.unwrap_or_default());
    Ok(Connection { context, target })
}

/// Docker's order: `--context`, `--host` and DOCKER_HOST (which stand for no context), DOCKER_CONTEXT, config.json.
fn name(global: &Parsed, file: &ConfigFile) -> String {
    let given = global.text("context");
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    if !given.is_empty() {
        return given.to_owned();
    }
    if !global.list("host").is_empty() || variable("DOCKER_HOST").is_some() {
        return DEFAULT.to_owned();
    }
    let configured = Some(file.current_context.clone()).filter(|name| !name.is_empty());
    variable("DOCKER_CONTEXT").or(configured).unwrap_or_else(|| DEFAULT.to_owned())
}

fn target(global: &Parsed, file: &ConfigFile, store: &Store, context: &str) -> Result<Target, Exit> {
    let headers = file.http_headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let version = match std::env::var("DOCKER_API_VERSION").ok().filter(|text| !text.is_empty()) {
        Some(text) => Some(text.parse().map_err(|_| Exit::new(1, format!("invalid DOCKER_API_VERSION: {text}")))?),
        None => None,
    };
    let options = Options { headers, version, ..Options::default() };
    if context == DEFAULT {
        return default_target(global, options);
    }
    let unresolved =
        |exit: Exit| Exit::new(1, format!("unable to resolve docker endpoint: {}", exit.message.unwrap_or_default()));
    let metadata = store.get(context).map_err(unresolved)?;
    let (host, skip_verify) = metadata.endpoint().map_err(unresolved)?;
    let endpoint: Endpoint = host.parse().map_err(|err| Exit::error(&err))?;
    let tls = match &endpoint {
        Endpoint::Tcp(_) => store.tls(context, skip_verify).map_err(unresolved)?,
        Endpoint::Unix(_) | Endpoint::Ssh(_) => None,
    };
    Ok(Target { endpoint, options: Options { tls, ..options } })
}

/// What command line and environment say.
fn default_target(global: &Parsed, options: Options) -> Result<Target, Exit> {
    let hosts = global.list("host");
    if hosts.len() > 1 {
        return Err(Exit::new(1, "specify only one -H"));
    }
    let host = hosts.first().cloned().or_else(|| std::env::var("DOCKER_HOST").ok()).filter(|host| !host.is_empty());
    let verify = wants_tls(global);
    let host = match (host, verify) {
        (Some(host), _) => host,
        // What Docker's client takes for the local daemon behind TLS.
        (None, Some(_)) => "tcp://localhost:2376".to_owned(),
        (None, None) => {
            let instance = default_instance();
            let endpoint = Endpoint::Unix(instance.socket.clone());
            return Ok(Target { endpoint, options: Options { on_demand: Some(instance), ..options } });
        }
    };
    let endpoint: Endpoint = host.parse().map_err(|err| Exit::error(&err))?;
    // Read for a socket of this machine, too, which has no use for them: what is missing is a mistake everywhere.
    let tls = verify.map(|verify| read_tls(global, verify)).transpose()?;
    let tls = tls.filter(|_| matches!(endpoint, Endpoint::Tcp(_)));
    Ok(Target { endpoint, options: Options { tls, ..options } })
}

/// Whether TLS is wanted, and if so, whether the daemon must prove who it is. Whoever names `tlsverify` wants TLS.
fn wants_tls(global: &Parsed) -> Option<bool> {
    let set = |name: &str| std::env::var_os(name).is_some_and(|text| !text.is_empty());
    let verify = if global.given("tlsverify") { global.flag("tlsverify") } else { set("DOCKER_TLS_VERIFY") };
    let tls = if global.given("tls") { global.flag("tls") } else { set("DOCKER_TLS") };
    (tls || verify || global.given("tlsverify")).then_some(verify)
}

/// Reads the user's files: those of flags, else those in DOCKER_CERT_PATH, else those beside config.json.
fn read_tls(global: &Parsed, verify: bool) -> Result<Tls, Exit> {
    let directory = std::env::var_os("DOCKER_CERT_PATH").filter(|path| !path.is_empty());
    let directory = directory.map_or_else(|| crate::config::directory(""), PathBuf::from);
    let read = |path: &Path| {
        let complain = |err| {
            let reason = format!("open {}: {}", path.display(), go_error(&err));
            Exit::new(1, format!("unable to resolve docker endpoint: {reason}"))
        };
        std::fs::read(path).map(Some).map_err(complain)
    };
    // The certificate and its key may be missing where nobody names them; then we show none.
    let file = |flag: &str, name: &str, optional: bool| match global.text(flag).trim_matches(['"', '\'']) {
        "" if optional && !directory.join(name).exists() => Ok(None),
        "" => read(&directory.join(name)),
        path => read(Path::new(path)),
    };
    Ok(Tls {
        ca: file("tlscacert", "ca.pem", false)?,
        certificate: file("tlscert", "cert.pem", true)?,
        key: file("tlskey", "key.pem", true)?,
        skip_verify: !verify,
    })
}

/// The machine's own instance. The variables move it as a whole, which is how tests get one of their own.
pub fn default_instance() -> Instance {
    let path = |name: &str, default: &str| {
        std::env::var_os(name).filter(|path| !path.is_empty()).map_or_else(|| PathBuf::from(default), PathBuf::from)
    };
    Instance {
        socket: path("LONGSHORE_SOCKET", "/run/longshore.sock"),
        data_root: path("LONGSHORE_DATA_ROOT", "/var/lib/longshore"),
        exec_root: path("LONGSHORE_EXEC_ROOT", "/run/longshore"),
    }
}

/// The context that nobody has made: what the command line says, or the environment.
pub fn default_context(store: &Store) -> Metadata {
    let host = store.given_host.clone().or_else(|| std::env::var("DOCKER_HOST").ok()).filter(|host| !host.is_empty());
    let host = host.unwrap_or_else(|| format!("unix://{}", default_instance().socket.display()));
    Metadata::new(DEFAULT, "", &host, false)
}
