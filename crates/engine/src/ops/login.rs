//! `POST /auth`

use engine_api::auth::{AuthConfig, AuthResponse};
use errdefs::ErrorKind;
use registry_client::{Credentials, RegistryError};

use crate::Engine;

/// Why a registry did not let anybody in. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// What is given for its address is none.
    #[error("unable to parse server address: parse \"{url}\": {reason}")]
    Address {
        /// With the scheme that is tried.
        url: String,
        /// In Go's words.
        reason: String,
    },
    /// It does not answer, or refuses.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl LoginError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            LoginError::Address { .. } => ErrorKind::InvalidArgument,
            LoginError::Registry(err) => err.kind(),
        }
    }
}

/// Shows a registry who we are.
pub async fn login(engine: &Engine, config: AuthConfig) -> Result<AuthResponse, LoginError> {
    let host = host(&config.server_address)?.map(str::to_owned);
    let identity = engine.current.registries().login(host.as_deref(), credentials(config)).await?;
    let identity_token = identity.unwrap_or_default();
    Ok(AuthResponse { identity_token, status: "Login Succeeded".to_owned() })
}

/// What a client gave us to show to a registry.
pub(crate) fn credentials(auth: AuthConfig) -> Credentials {
    let AuthConfig { username, password, identity_token, registry_token, .. } = auth;
    match () {
        () if !registry_token.is_empty() => Credentials::Bearer { token: registry_token },
        () if !identity_token.is_empty() => Credentials::Identity { token: identity_token },
        () if !username.is_empty() => Credentials::Basic { username, password },
        () => Credentials::Anonymous,
    }
}

/// `host[:port]` of an address with or without scheme and path; none for Docker Hub, which goes by three names.
fn host(address: &str) -> Result<Option<&str>, LoginError> {
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme @ ("https" | "http"), rest)) => (scheme, rest),
        _ => ("https", address),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    // What Go takes for no part of a host's name (net/url `validEncoded`, `shouldEscape`).
    let odd = |letter: &char| letter.is_ascii_control() || " \"<>\\^`{|}%".contains(*letter);
    let reason = match host.chars().find(odd) {
        Some(letter) => format!("invalid character {:?} in host name", letter.to_string()),
        // The password is for nobody whom the user has not named.
        None if host.is_empty() && !address.is_empty() => "no host".to_owned(),
        None => return Ok(Some(host).filter(|host| !matches!(*host, "" | "docker.io" | "index.docker.io"))),
    };
    // Without a name and password that may stand there.
    Err(LoginError::Address { url: format!("{scheme}://{host}"), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_in_what_users_and_clients_write() {
        for (address, expected) in [
            ("", None),
            ("https://index.docker.io/v1/", None),
            ("docker.io", None),
            ("registry:5000", Some("registry:5000")),
            ("http://127.0.0.1:7100/v1/", Some("127.0.0.1:7100")),
            ("https://user@[::1]:5000?x", Some("[::1]:5000")),
        ] {
            assert_eq!(host(address).unwrap(), expected, "{address}");
        }
        for address in ["https://", "https:///v2/", "user@"] {
            assert!(host(address).unwrap_err().to_string().ends_with(": no host"), "{address}");
        }
        let said = "unable to parse server address: parse \"https://a b\": invalid character \" \" in host name";
        assert_eq!(host("a b").unwrap_err().to_string(), said);
        assert_eq!(host("https://me:secret@a b/c").unwrap_err().to_string(), said);
    }
}
