//! What is shown to registries: `auths`, `credsStore` and `credHelpers` of config.json.
//!
//! A helper is a program `docker-credential-NAME`: `get` reads the registry's address from standard input and prints
//! `{"ServerURL": ..., "Username": ..., "Secret": ...}`, or why not, and fails; `store` reads such an object, `erase` an address
//! (docker-credential-helpers). Where nobody has chosen one, [`own`] keeps what is not kept by a keychain, in a [`vault`].

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use engine_api::auth::AuthConfig;
use errdefs::ErrorKind;
use serde::Deserialize;

use crate::config::{self, ConfigFile, EditError};
use crate::report::go_error;

pub mod own;
mod vault;

/// The domain of Docker Hub's images.
const HUB_DOMAIN: &str = "docker.io";

/// Where logins to Docker Hub are kept: the address of a registry that speaks the first version of the protocol.
pub const HUB_KEY: &str = "https://index.docker.io/v1/";

/// The name under which a helper hands out an identity token.
const TOKEN_USER: &str = "<token>";

/// What a helper says of a registry that it knows nothing of.
const UNKNOWN: &str = "credentials not found in native keychain";

/// Why it is not known what to show to a registry. The texts are those of Docker's client.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A login in the file is no base64 of `name:password`.
    #[error("Invalid auth configuration file: login of {0}")]
    Login(String),
    /// A helper is not there, or fails.
    #[error("error getting credentials - err: {reason}, out: `{output}`")]
    Helper {
        /// How it ended.
        reason: String,
        /// What it printed.
        output: String,
    },
    /// A helper does not keep a login.
    #[error("error storing credentials - err: {reason}, out: `{output}`")]
    Keep {
        /// How it ended.
        reason: String,
        /// What it printed.
        output: String,
    },
    /// A helper does not forget a login.
    #[error("error erasing credentials - err: {reason}, out: `{output}`")]
    Forget {
        /// How it ended.
        reason: String,
        /// What it printed.
        output: String,
    },
    /// The file cannot be changed.
    #[error(transparent)]
    File(#[from] EditError),
    /// A helper prints something else than credentials.
    #[error("read what {program} prints")]
    Answer {
        /// The helper.
        program: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

impl CredentialsError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            CredentialsError::Login(_) => ErrorKind::InvalidArgument,
            CredentialsError::File(err) => err.kind(),
            CredentialsError::Helper { .. }
            | CredentialsError::Keep { .. }
            | CredentialsError::Forget { .. }
            | CredentialsError::Answer { .. } => ErrorKind::Internal,
        }
    }
}

/// What a helper prints.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Secret {
    username: String,
    secret: String,
}

impl std::fmt::Debug for Secret {
    // Never into what is printed, as with `AuthConfig`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(...)")
    }
}

/// What is shown to the registry of `domain`; nothing if nobody has logged in. Waits for a helper, if there is one.
pub fn look_up(config: &ConfigFile, domain: &str) -> Result<AuthConfig, CredentialsError> {
    of_server(config, if domain == HUB_DOMAIN { HUB_KEY } else { domain })
}

/// All logins, by their keys in the file. Waits for helpers, if there are any.
pub fn all(config: &ConfigFile) -> Result<BTreeMap<String, AuthConfig>, CredentialsError> {
    let mut keys: BTreeSet<String> = config.credential_helpers.keys().cloned().collect();
    match helper(config, "") {
        None => keys.extend(config.auths.keys().cloned()),
        Some(store) => keys.extend(listed(&store)?),
    }
    let mut all = BTreeMap::new();
    for key in keys {
        let login = of_server(config, &key)?;
        if login != AuthConfig::default() {
            all.insert(key, login);
        }
    }
    Ok(all)
}

/// The keys of all logins that a helper keeps.
fn listed(program: &str) -> Result<Vec<String>, CredentialsError> {
    let users: BTreeMap<String, String> = match said(program, "list", "")? {
        Said::Printed(output) => {
            let read = serde_json::from_slice(&output);
            read.map_err(|source| CredentialsError::Answer { program: program.to_owned(), source })?
        }
        Said::Unknown => BTreeMap::new(),
    };
    Ok(users.into_keys().collect())
}

/// What is shown to the registry that logins are kept of as `key`: `host[:port]`, or [`HUB_KEY`].
pub fn of_server(config: &ConfigFile, key: &str) -> Result<AuthConfig, CredentialsError> {
    let stored = stored(&config.auths, key);
    let Some(program) = helper(config, key) else {
        return stored.unpacked().ok_or_else(|| CredentialsError::Login(key.to_owned()));
    };
    Ok(ask(&program, key)?.map(|secret| auth_of(secret, key)).unwrap_or_default())
}

/// Keeps a login, for its `server_address`, with the helper, else in config.json in `directory`; answers that file if the
/// password is in it, for everybody to read who may read it.
pub fn keep(config: &ConfigFile, directory: &Path, auth: &AuthConfig) -> Result<Option<PathBuf>, CredentialsError> {
    let key = &auth.server_address;
    let (helper, chosen) = (helper(config, key), default_store(config, key));
    if let Some(program) = &helper {
        let (username, secret) = match &auth.identity_token[..] {
            "" => (&auth.username[..], &auth.password),
            token => (TOKEN_USER, &token.to_owned()),
        };
        let login = serde_json::json!({"ServerURL": key, "Username": username, "Secret": secret});
        told(program, "store", &login.to_string())
            .map_err(|(reason, output)| CredentialsError::Keep { reason, output })?;
    }
    // The file names the registries that a helper keeps the logins of.
    let entry = if helper.is_some() { AuthConfig::default() } else { packed(auth) };
    let entry = serde_json::to_value(&entry).expect("texts can be written as JSON");
    if config.auths.get(key).map(|known| serde_json::json!(known)) == Some(entry.clone()) {
        return Ok(None);
    }
    let edited = config::edit(directory, |members| {
        // What was chosen because it was there has to be found the next time, by others, too.
        if let Some(name) = chosen {
            members.insert("credsStore".to_owned(), name.into());
        }
        let auths = members.entry("auths").or_insert_with(|| serde_json::json!({}));
        if !auths.is_object() {
            *auths = serde_json::json!({});
        }
        auths[key.as_str()] = entry;
    });
    if let (Err(_), Some(program)) = (&edited, &helper) {
        // Else it would be shown to the registry all the same. The error that is told is the first one.
        _ = told(program, "erase", key);
    }
    edited?;
    let open = helper.is_none() && !auth.password.is_empty();
    Ok(open.then(|| directory.join("config.json")))
}

/// Forgets the login that is kept as `key`, if there is one.
pub fn forget(config: &ConfigFile, directory: &Path, key: &str) -> Result<(), CredentialsError> {
    match helper(config, key) {
        Some(program) => {
            told(&program, "erase", key).map_err(|(reason, output)| CredentialsError::Forget { reason, output })?;
        }
        // The file keeps it. What our own store has from a time before would come to light with the file's entry gone.
        None if config.is_the_users && is_on_path(own::PROGRAM) => _ = told(own::PROGRAM, "erase", key),
        None => {}
    }
    if !config.auths.contains_key(key) {
        return Ok(());
    }
    config::edit(directory, |members| {
        members.get_mut("auths").and_then(|auths| auths.as_object_mut()).map(|auths| auths.remove(key));
    })?;
    Ok(())
}

/// As it stands in config.json.
pub fn packed(auth: &AuthConfig) -> AuthConfig {
    let text = format!("{}:{}", auth.username, auth.password);
    AuthConfig {
        // A token needs no name.
        auth: if text == ":" { auth.auth.clone() } else { engine_api::auth::encode_standard(text.as_bytes()) },
        identity_token: auth.identity_token.clone(),
        registry_token: auth.registry_token.clone(),
        ..AuthConfig::default()
    }
}

/// Tells a helper something; how it failed, and what it printed.
fn told(program: &str, verb: &str, text: &str) -> Result<(), (String, String)> {
    let (ended, output) = run(program, verb, text).map_err(|err| (not_run(program, &err), String::new()))?;
    match ended {
        None => Ok(()),
        Some(reason) => Err((reason, String::from_utf8_lossy(&output).trim().to_owned())),
    }
}

fn auth_of(secret: Secret, key: &str) -> AuthConfig {
    let Secret { username, secret } = secret;
    let auth = AuthConfig { server_address: key.to_owned(), ..AuthConfig::default() };
    match &*username {
        TOKEN_USER => AuthConfig { identity_token: secret, ..auth },
        _ => AuthConfig { username, password: secret, ..auth },
    }
}

/// The entry of the file; old files have addresses where new ones have hosts.
fn stored(auths: &BTreeMap<String, AuthConfig>, key: &str) -> AuthConfig {
    let entry = auths.get_key_value(key).or_else(|| auths.iter().find(|(address, _)| hosted(address) == key));
    match entry {
        Some((address, auth)) => AuthConfig { server_address: address.clone(), ..auth.clone() },
        None => AuthConfig::default(),
    }
}

/// The host, and the port, of an address: `https://host:1/v1/`, `host:1/v1/`.
pub fn hosted<'a>(address: &'a str) -> &'a str {
    let until = |text: &'a str, ends: &[char]| text.split(ends).next().unwrap_or("");
    let Some((_, rest)) = address.split_once("://") else { return until(address, &['/']) };
    let authority = until(rest, &['/', '?', '#']);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    // An IPv6 address sheds its brackets where no port follows.
    host.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(host)
}

/// The program that keeps the login of `key`; none if the file itself does.
fn helper(config: &ConfigFile, key: &str) -> Option<String> {
    let name = match config.credential_helpers.get(key) {
        Some(name) => name.clone(),
        None => default_store(config, key).map_or_else(|| config.credentials_store.clone(), str::to_owned),
    };
    (!name.is_empty()).then(|| program(&name))
}

/// What keeps the login of `key` where nobody has chosen yet: the system's keychain, if its helper is installed, else our
/// own, if it is where other programs find it, too. There is one for each user: a directory that is to be thrown away, as
/// those of CI jobs, keeps what is in it to itself.
fn default_store(config: &ConfigFile, key: &str) -> Option<&'static str> {
    if config.names_credentials() || config.credential_helpers.contains_key(key) {
        return None;
    }
    let keychain = if is_on_path("pass") { "pass" } else { "secretservice" };
    let own = config.is_the_users.then_some(own::NAME);
    [Some(keychain), own].into_iter().flatten().find(|name| is_on_path(&program(name)))
}

fn program(name: &str) -> String {
    format!("docker-credential-{name}")
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Asks a helper for the login of `key`; none if it has none.
fn ask(program: &str, key: &str) -> Result<Option<Secret>, CredentialsError> {
    match said(program, "get", key)? {
        Said::Unknown => Ok(None),
        Said::Printed(output) => match serde_json::from_slice(&output) {
            Ok(secret) => Ok(Some(secret)),
            Err(source) => Err(CredentialsError::Answer { program: program.to_owned(), source }),
        },
    }
}

/// What a helper answers.
enum Said {
    Printed(Vec<u8>),
    /// It knows nothing of the registry.
    Unknown,
}

fn said(program: &str, verb: &str, key: &str) -> Result<Said, CredentialsError> {
    let (ended, output) = run(program, verb, key).map_err(|err| {
        let reason = not_run(program, &err);
        CredentialsError::Helper { reason, output: String::new() }
    })?;
    let printed = String::from_utf8_lossy(&output);
    match ended {
        None => Ok(Said::Printed(output)),
        Some(_) if printed.trim() == UNKNOWN => Ok(Said::Unknown),
        Some(reason) => Err(CredentialsError::Helper { reason, output: printed.trim().to_owned() }),
    }
}

/// Why a helper did not run, in Go's words.
fn not_run(program: &str, err: &io::Error) -> String {
    match err.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
            format!("exec: \"{program}\": executable file not found in $PATH")
        }
        _ => format!("exec: \"{program}\": {}", go_error(err)),
    }
}

/// Runs a helper; answers how it failed, if it did, and what it printed. Its standard error is ours.
fn run(program: &str, verb: &str, text: &str) -> io::Result<(Option<String>, Vec<u8>)> {
    if program == own::PROGRAM {
        return Ok(match own::answer(verb, text) {
            Ok(printed) => (None, printed.into_bytes()),
            Err(printed) => (Some("exit status 1".to_owned()), printed.into_bytes()),
        });
    }
    let mut child = Command::new(program).arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(text.as_bytes()) {
            // It may know without asking.
            Err(err) if err.kind() != io::ErrorKind::BrokenPipe => return Err(err),
            _ => {}
        }
    }
    let output = child.wait_with_output()?;
    let reason = match output.status.code() {
        Some(0) => None,
        Some(code) => Some(format!("exit status {code}")),
        None => Some(output.status.to_string()),
    };
    Ok((reason, output.stdout))
}

#[cfg(test)]
mod tests;
