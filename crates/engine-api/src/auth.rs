//! What a client shows to a registry through the daemon: the header `X-Registry-Auth`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The header's name.
pub const HEADER: &str = "x-registry-auth";

/// What is in the header, as JSON in base64url (RFC 4648, 5), and in `auths` of a client's config.json.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthConfig {
    /// The name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// The password, or an access token in its place.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// `name:password` in base64; only in config.json.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth: String,
    /// Which registry it is for.
    #[serde(rename = "serveraddress", skip_serializing_if = "String::is_empty")]
    pub server_address: String,
    /// What a token server gave instead of a password.
    #[serde(rename = "identitytoken", skip_serializing_if = "String::is_empty")]
    pub identity_token: String,
    /// A token for the registry itself.
    #[serde(rename = "registrytoken", skip_serializing_if = "String::is_empty")]
    pub registry_token: String,
}

/// The answer of `POST /auth`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AuthResponse {
    /// What may be shown instead of the password from now on; empty if there is nothing.
    pub identity_token: String,
    /// A sentence.
    pub status: String,
}

impl std::fmt::Debug for AuthResponse {
    // Never into a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthResponse(...)")
    }
}

impl std::fmt::Debug for AuthConfig {
    // Never into a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthConfig(...)")
    }
}

impl AuthConfig {
    /// Reads a header; `None` if it is empty or cannot be read.
    pub fn from_header(text: &str) -> Option<AuthConfig> {
        let bytes = decode(text)?;
        // Go's decoder takes the first document, whatever follows.
        serde_json::Deserializer::from_slice(&bytes).into_iter().next()?.ok()
    }

    /// Reads a header that has one for each registry, `X-Registry-Config`; none if it cannot be read.
    pub fn all_from_header(text: &str) -> BTreeMap<String, AuthConfig> {
        decode(text).and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Writes such a header.
    pub fn all_to_header(all: &BTreeMap<String, AuthConfig>) -> String {
        encode(&serde_json::to_vec(all).expect("texts can be written as JSON"))
    }

    /// Writes a header.
    pub fn to_header(&self) -> String {
        encode(&serde_json::to_vec(self).expect("texts can be written as JSON"))
    }

    /// With name and password in their fields, if they stand in [`AuthConfig::auth`]; `None` if that cannot be read.
    pub fn unpacked(mut self) -> Option<AuthConfig> {
        if !self.auth.is_empty() {
            let text = String::from_utf8(decode(&std::mem::take(&mut self.auth))?).ok()?;
            let (username, password) = text.split_once(':')?;
            self.username = username.to_owned();
            self.password = password.trim_matches('\0').to_owned();
        }
        Some(self)
    }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// RFC 4648, 4, with padding: the alphabet of headers that are not part of a URL.
pub fn encode_standard(bytes: &[u8]) -> String {
    encode(bytes).replace('-', "+").replace('_', "/")
}

/// RFC 4648, 5, with padding.
fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            match digit <= group.len() {
                true => text.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63])),
                false => text.push('='),
            }
        }
    }
    text
}

/// Both alphabets of RFC 4648, with padding or without.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.trim().trim_end_matches('=');
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(text.len() * 3 / 4), 0u32, 0);
    for letter in text.bytes() {
        let letter = match letter {
            b'+' => b'-',
            b'/' => b'_',
            other => other,
        };
        let digit = DIGITS.iter().position(|&known| known == letter)?;
        bits = bits << 6 | digit as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    // A single digit is no byte.
    (text.len() % 4 != 1).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_written_and_read() {
        let auth = AuthConfig { username: "u".into(), password: "p\u{ff}??>".into(), ..AuthConfig::default() };
        assert_eq!(AuthConfig::from_header(&auth.to_header()), Some(auth.clone()));
        assert_eq!(AuthConfig::default().to_header(), "e30=");
        // Docker's client, and one that leaves out the padding.
        for text in ["eyJ1c2VybmFtZSI6InUifQ==", "eyJ1c2VybmFtZSI6InUifQ", "eyJ1c2VybmFtZSI6InUifQo="] {
            assert_eq!(AuthConfig::from_header(text).unwrap().username, "u", "{text}");
        }
        for text in ["", "notbase64!", "A", "bm90IGpzb24="] {
            assert_eq!(AuthConfig::from_header(text), None, "{text}");
        }
        assert_eq!(format!("{auth:?}"), "AuthConfig(...)");
        let all = BTreeMap::from([("a.test".to_owned(), auth)]);
        assert_eq!(AuthConfig::all_from_header(&AuthConfig::all_to_header(&all)), all);
        assert!(AuthConfig::all_from_header("!").is_empty());
    }

    #[test]
    fn logins_are_unpacked() {
        let login = AuthConfig { auth: "dXNlcjpwYTpzcw==".into(), ..AuthConfig::default() };
        let unpacked = login.unpacked().unwrap();
        assert_eq!((&unpacked.username[..], &unpacked.password[..], &unpacked.auth[..]), ("user", "pa:ss", ""));
        assert_eq!(AuthConfig { auth: "dXNlcg==".into(), ..AuthConfig::default() }.unpacked(), None);
        assert_eq!(AuthConfig { auth: "!".into(), ..AuthConfig::default() }.unpacked(), None);
    }
}
