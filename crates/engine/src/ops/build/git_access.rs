//! What the server of a repository is shown of the client's: a login for HTTP, an agent for ssh.
//!
//! Which secret is a login is BuildKit's choice (source/git, authSecretNames): that of the host before that of all, a whole
//! header before a token.

use std::path::{Path, PathBuf};

use builder::mounts::Owner;
use dockerfile::GitAddress;
use tracing::debug;

use super::asks::Client;
use super::client_files::{ClientFileError, ClientFiles};
use crate::Engine;

/// Secrets that are a whole value of `Authorization`, and those that are a token.
const HEADER: &str = "GIT_AUTH_HEADER";
const TOKEN: &str = "GIT_AUTH_TOKEN";

/// The agent of the client's that ssh is given.
const AGENT: &str = "default";

/// All who have one account: their token is for the submodules of a repository, too.
const SHARED: [&str; 2] = ["https://github.com/", "https://www.github.com/"];

/// What is shown; the agent's socket goes with it.
#[derive(Default)]
pub(super) struct Access {
    /// A configuration of git's.
    pub(super) header: Option<(String, String)>,
    agent: Option<(ClientFiles, PathBuf)>,
}

impl Access {
    /// Asks the client for what it has for a repository. Nothing is a server's business who wants it.
    pub(super) async fn obtain(
        engine: &Engine,
        client: &Client,
        address: &GitAddress,
    ) -> Result<Access, ClientFileError> {
        let Some(asks) = client else { return Ok(Access::default()) };
        if is_ssh(&address.remote) {
            return match asks.has_agent(AGENT.to_owned()).await {
                Ok(true) => {
                    let mut kept = ClientFiles::new(&engine.config)?;
                    let path = kept.agent(asks, AGENT, "agent", Owner { uid: 0, gid: 0, mode: 0o600 })?;
                    Ok(Access { header: None, agent: Some((kept, path)) })
                }
                Ok(false) | Err(_) => Ok(Access::default()),
            };
        }
        let Some(host) = host(&address.remote) else { return Ok(Access::default()) };
        for (name, is_token) in [
            (format!("{HEADER}.{host}"), false),
            (format!("{TOKEN}.{host}"), true),
            (HEADER.into(), false),
            (TOKEN.into(), true),
        ] {
            match asks.secret(name).await {
                Ok(Some(secret)) => {
                    let header = Some(configuration(&address.remote, &secret, is_token));
                    return Ok(Access { header, agent: None });
                }
                Ok(None) => {}
                // As with BuildKit: whether it was wanted is the server's to say.
                Err(err) => debug!(%err, "a login for a repository is not to be had"),
            }
        }
        Ok(Access::default())
    }

    /// Where the agent listens.
    pub(super) fn agent(&self) -> Option<&Path> {
        self.agent.as_ref().map(|(_, path)| path.as_path())
    }
}

fn is_ssh(remote: &str) -> bool {
    remote.starts_with("ssh://") || !remote.contains("://")
}

/// The host and port of an address of the web.
fn host(remote: &str) -> Option<&str> {
    let rest = remote.strip_prefix("https://").or_else(|| remote.strip_prefix("http://"))?;
    let authority = rest.split('/').next().unwrap_or_default();
    Some(authority.rsplit_once('@').map_or(authority, |(_, host)| host))
}

/// What git is configured so that it shows a login to one repository's server, and to no other one.
fn configuration(remote: &str, secret: &[u8], is_token: bool) -> (String, String) {
    let scope = SHARED.iter().find(|prefix| remote.starts_with(**prefix)).copied().unwrap_or(remote);
    let value = match is_token {
        true => format!("basic {}", engine_api::auth::encode_standard(&[b"x-access-token:", secret].concat())),
        // A line's end is no part of a header.
        false => String::from_utf8_lossy(secret).trim_end().to_owned(),
    };
    (format!("http.{scope}.extraheader"), format!("Authorization: {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_shown_to_one_server() {
        assert_eq!(
            configuration("https://h:1/x.git", b"tok", true),
            (
                "http.https://h:1/x.git.extraheader".to_owned(),
                "Authorization: basic eC1hY2Nlc3MtdG9rZW46dG9r".to_owned()
            )
        );
        assert_eq!(
            configuration("https://github.com/a/b.git", b"Bearer x\n", false),
            ("http.https://github.com/.extraheader".to_owned(), "Authorization: Bearer x".to_owned())
        );
        for (remote, wanted) in
            [("https://me@h:1/x.git", Some("h:1")), ("http://h/x.git", Some("h")), ("git://h/x", None)]
        {
            assert_eq!(host(remote), wanted, "{remote}");
        }
        assert!(is_ssh("ssh://h/x") && is_ssh("git@h:x") && !is_ssh("https://git@h/x.git"));
    }
}
