//! `--use-api-socket`: a container gets the socket of the API, and a config.json with all logins.
//!
//! The file is copied into the container when that exists, for what is mounted would stay on the host.

use std::collections::BTreeMap;
use std::io;

use archive::{Entry, Kind, TarWriter, Time};
use client::call::Upload;
use client::container;
use engine_api::auth::AuthConfig;
use engine_api::container::CreateRequest;
use engine_api::host_config::{BindOptions, Mount};
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use tokio::sync::mpsc;

use super::Context;
use super::create::Failure;
use crate::config::ConfigFile;
use crate::credentials;
use crate::report::chain;

/// Where the socket is in the container.
const SOCKET: &str = "/var/run/docker.sock";

/// Where the logins are, for programs that find them by `DOCKER_CONFIG`.
const DIRECTORY: &str = "/run/secrets/docker";

/// Logins that count more than those of config.json: a file of its form.
const VARIABLE: &str = "DOCKER_AUTH_CONFIG";

/// Adds the socket to a request, and tells where the logins will be. Answers them, if there are any.
pub fn add(context: &Context, request: &mut CreateRequest) -> Result<Option<Vec<u8>>, Failure> {
    let endpoint = context.client.endpoint().to_string();
    let Some(socket) = endpoint.strip_prefix("unix://") else {
        return Err(Failure::Local(format!(
            "flag --use-api-socket can only be used with unix sockets: docker endpoint {endpoint} incompatible"
        )));
    };
    let mount = Mount {
        kind: "bind".to_owned(),
        source: socket.to_owned(),
        target: SOCKET.to_owned(),
        bind_options: Some(BindOptions::default()),
        ..Mount::default()
    };
    request.host_config.get_or_insert_default().mounts.get_or_insert_default().push(mount);
    let env = request.config.env.get_or_insert_default();
    if env.iter().any(|entry| entry.starts_with("DOCKER_CONFIG=")) {
        // Whoever says where they are has brought them.
        return Ok(None);
    }
    let logins = logins(context)?;
    if logins.is_empty() {
        return Ok(None);
    }
    env.push(format!("DOCKER_CONFIG={DIRECTORY}"));
    Ok(Some(file(&logins)))
}

fn logins(context: &Context) -> Result<BTreeMap<String, AuthConfig>, Failure> {
    let failed = |reason: String| Failure::Local(format!("resolving credentials failed: {reason}"));
    if let Some(text) = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty()) {
        let config: Result<ConfigFile, _> = serde_json::from_str(&text);
        let config = config.map_err(|err| failed(format!("failed to read credentials from {VARIABLE}: {err}")))?;
        if !config.auths.is_empty() {
            return Ok(config.auths);
        }
    }
    credentials::all(&context.config).map_err(|err| failed(chain(&err)))
}

/// A config.json with nothing else, as Docker's client writes it.
fn file(logins: &BTreeMap<String, AuthConfig>) -> Vec<u8> {
    let auths: BTreeMap<String, AuthConfig> =
        logins.iter().map(|(key, login)| (key.clone(), credentials::packed(login))).collect();
    let mut text = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"\t"));
    let written = BTreeMap::from([("auths", auths)]).serialize(&mut serializer);
    written.expect("texts can be written as JSON");
    text
}

/// Puts the logins into a container that was just made.
pub async fn put(context: &Context, id: &str, logins: Vec<u8>) -> Result<(), Failure> {
    let failed =
        |reason: String| Failure::Local(format!("injecting docker config.json into container failed: {reason}"));
    let tar = archive_of(&logins).map_err(|err| failed(err.to_string()))?;
    let (sender, pieces) = mpsc::channel(1);
    // There is room for it, and the receiver is still here.
    let _ = sender.try_send(Ok(tar.into()));
    drop(sender);
    let put = container::put_archive(&context.client, id, "/", false, Upload { pieces }).await;
    put.map_err(|err| failed(format!("copying config.json into container failed: {}", chain(&err))))
}

fn archive_of(file: &[u8]) -> io::Result<Vec<u8>> {
    let mut tar = TarWriter::new(Vec::new());
    tar.begin(&Entry {
        path: format!("{DIRECTORY}/config.json").into_bytes(),
        kind: Kind::File,
        link: Vec::new(),
        mode: 0o600,
        uid: 0,
        gid: 0,
        mtime: Time { secs: 0, nanos: 0 },
        size: file.len() as u64,
        device: (0, 0),
        xattrs: Vec::new(),
        segments: None,
    })?;
    tar.data(file)?;
    tar.fill()?;
    tar.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_written_as_dockers_client_writes_them() {
        let login = |username: &str, password: &str| AuthConfig {
            username: username.to_owned(),
            password: password.to_owned(),
            server_address: "a.test".to_owned(),
            ..AuthConfig::default()
        };
        let token = AuthConfig { identity_token: "t".to_owned(), ..AuthConfig::default() };
        let logins = BTreeMap::from([("a.test".to_owned(), login("user", "pa:ss")), ("b.test".to_owned(), token)]);
        let text = "{\n\t\"auths\": {\n\t\t\"a.test\": {\n\t\t\t\"auth\": \"dXNlcjpwYTpzcw==\"\n\t\t},\n\t\t\"b.test\": \
                    {\n\t\t\t\"identitytoken\": \"t\"\n\t\t}\n\t}\n}";
        assert_eq!(String::from_utf8(file(&logins)).unwrap(), text);
    }
}
