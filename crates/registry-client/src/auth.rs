//! Who we are: basic credentials, and tokens that a realm gives for them (distribution, docs/spec/auth/token.md).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode};
use serde::Deserialize;

use crate::connection::{Connector, Scheme, Terms, Url};
use crate::error::ExchangeError;
use crate::outgoing::Outgoing;
use crate::session::Timing;

/// The longest answer of a token server; real ones are a few KiB.
const TOKEN_MAX: u64 = 1024 * 1024;

/// How long a token is good if nobody says, which is also the least that is believed (docs/spec/auth/token.md, `expires_in`).
const TOKEN_LIFE: Duration = Duration::from_secs(60);

/// How much of its life a token is used: it must not end on the way.
const TOKEN_RESERVE: Duration = Duration::from_secs(10);

/// Tokens that are kept.
const TOKENS_MAX: usize = 256;

/// The program that tokens are given to.
const CLIENT_ID: &str = "longshore";

/// What a client gave us to show to a registry.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub enum Credentials {
    /// Nothing.
    #[default]
    Anonymous,
    /// Name and password.
    Basic {
        /// The name.
        username: String,
        /// The password, or an access token in its place.
        password: String,
    },
    /// What a token server gave instead of a password, to be exchanged for tokens.
    Identity {
        /// The refresh token.
        token: String,
    },
    /// A token for the registry itself.
    Bearer {
        /// The token.
        token: String,
    },
}

impl std::fmt::Debug for Credentials {
    // Never into a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Credentials::Anonymous => "Anonymous",
            Credentials::Basic { .. } => "Basic(...)",
            Credentials::Identity { .. } => "Identity(...)",
            Credentials::Bearer { .. } => "Bearer(...)",
        })
    }
}

impl Credentials {
    /// The header for a registry that wants name and password.
    pub(crate) fn basic(&self) -> Result<HeaderValue, ExchangeError> {
        let Credentials::Basic { username, password } = self else { return Err(ExchangeError::NoCredentials) };
        basic(username, password)
    }
}

fn basic(username: &str, password: &str) -> Result<HeaderValue, ExchangeError> {
    basic_of(format!("{username}:{password}").as_bytes())
}

/// Of `name:password` or `name` as they stand before the host of an address (RFC 3986, 3.2.1).
pub(crate) fn basic_of_user(user: &str) -> Result<HeaderValue, ExchangeError> {
    let colon = if user.contains(':') { "" } else { ":" };
    basic_of(&[unescape(user), colon.into()].concat())
}

fn basic_of(pair: &[u8]) -> Result<HeaderValue, ExchangeError> {
    header(&format!("Basic {}", base64(pair)))
}

/// The percent sign at `at` and two digits behind it, as a byte (RFC 3986, 2.1).
pub(crate) fn escaped(bytes: &[u8], at: usize) -> Option<u8> {
    let digits = bytes.get(at..at + 3).filter(|found| found[0] == b'%')?;
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(digits[1])? * 16 + digit(digits[2])?).ok()
}

fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let (mut plain, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let (byte, length) = escaped(bytes, at).map_or((bytes[at], 1), |byte| (byte, 3));
        plain.push(byte);
        at += length;
    }
    plain
}

fn header(text: &str) -> Result<HeaderValue, ExchangeError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| ExchangeError::Credentials)?;
    value.set_sensitive(true);
    Ok(value)
}

pub(crate) fn bearer(token: &str) -> Result<HeaderValue, ExchangeError> {
    header(&format!("Bearer {token}"))
}

/// What a token is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Grant {
    pub(crate) realm: String,
    pub(crate) service: Option<String>,
    pub(crate) scope: String,
    pub(crate) credentials: Credentials,
}

/// Tokens that are good for a while.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    cached: Mutex<HashMap<Grant, (Instant, String)>>,
}

/// What a token server answers.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Given {
    token: String,
    access_token: String,
    expires_in: u64,
    /// What is shown to it instead of a password, next time.
    pub(crate) refresh_token: String,
}

/// What a token server answers when it does not know us: Docker Hub's form, or that of registries.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Denial {
    details: String,
    message: String,
}

impl Given {
    /// The token; there is one.
    pub(crate) fn token(&self) -> &str {
        if self.token.is_empty() { &self.access_token } else { &self.token }
    }
}

impl Tokens {
    /// One that is good for this and for a while.
    pub(crate) fn cached(&self, grant: &Grant) -> Option<String> {
        let cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        cached.get(grant).filter(|(end, _)| *end > Instant::now()).map(|(_, token)| token.clone())
    }

    /// Keeps a token for as long as it is good; answers it.
    pub(crate) fn keep(&self, grant: &Grant, given: &Given) -> String {
        let life = Duration::from_secs(given.expires_in).clamp(TOKEN_LIFE, Duration::from_secs(24 * 60 * 60));
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.len() >= TOKENS_MAX {
            cached.clear();
        }
        let token = given.token().to_owned();
        cached.insert(grant.clone(), (Instant::now() + life - TOKEN_RESERVE, token.clone()));
        token
    }

    /// Forgets a token that the registry does not take.
    pub(crate) fn forget(&self, grant: &Grant) {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner).remove(grant);
    }
}

/// Asks the realm for a token. `protected` says whether the registry that named the realm speaks TLS.
pub(crate) async fn ask<'a>(
    connector: &Connector,
    timing: &Timing,
    grant: &Grant,
    protected: bool,
    terms: &(dyn Fn(&Url) -> Terms<'a> + Sync),
) -> Result<Given, ExchangeError> {
    let realm = Url::parse(&grant.realm)?;
    let secret = grant.credentials != Credentials::Anonymous;
    // A registry may name any realm it likes, but not one to which our password travels in the clear.
    if secret && protected && realm.scheme == Scheme::Http {
        return Err(ExchangeError::UnprotectedRealm { realm: realm.to_string() });
    }
    let (url, request) = request(&realm, grant)?;
    let response = connector.send(&url, terms(&url), request).await?;
    let status = response.status();
    let body = response.into_body().read(TOKEN_MAX, timing.document).await?;
    if !status.is_success() {
        return Err(denied(status, &body));
    }
    let given: Given = serde_json::from_slice(&body).map_err(|_| ExchangeError::NoToken)?;
    if given.token().is_empty() {
        return Err(ExchangeError::NoToken);
    }
    Ok(given)
}

/// GET with name and password, or POST of the refresh token (docs/spec/auth/oauth.md).
fn request(realm: &Url, grant: &Grant) -> Result<(Url, impl Fn() -> Request<Outgoing> + use<>), ExchangeError> {
    let mut fields: Vec<(&str, &str)> = Vec::new();
    fields.extend(grant.service.as_deref().map(|service| ("service", service)));
    match grant.credentials {
        // One field for all (RFC 6749, 3.3), or one for each (docs/spec/auth/token.md).
        Credentials::Identity { .. } if !grant.scope.is_empty() => fields.push(("scope", &grant.scope)),
        _ => fields.extend(grant.scope.split_whitespace().map(|scope| ("scope", scope))),
    }
    let (mut url, mut form, mut authorization) = (realm.clone(), None, None);
    match &grant.credentials {
        Credentials::Identity { token } => {
            fields.extend([("grant_type", "refresh_token"), ("client_id", CLIENT_ID), ("refresh_token", token)]);
            form = Some(Bytes::from(encode(&fields)));
        }
        Credentials::Basic { username, .. } => {
            fields.push(("account", username));
            authorization = Some(grant.credentials.basic()?);
        }
        Credentials::Anonymous | Credentials::Bearer { .. } => {}
    }
    if form.is_none() {
        if grant.scope.is_empty() {
            // Who we are is to be remembered.
            fields.extend([("client_id", CLIENT_ID), ("offline_token", "true")]);
        }
        let separator = if url.path.contains('?') { '&' } else { '?' };
        url.path = format!("{}{separator}{}", url.path, encode(&fields));
    }
    let target = url.clone();
    let build = move || {
        let method = if form.is_some() { Method::POST } else { Method::GET };
        let mut request = Request::new(Outgoing::Whole(form.clone().unwrap_or_default()));
        *request.method_mut() = method;
        *request.uri_mut() = target.path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.extend(HeaderValue::from_str(&target.authority).ok().map(|host| (HOST, host)));
        headers.insert(USER_AGENT, HeaderValue::from_static(crate::session::AGENT));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if form.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        }
        headers.extend(authorization.clone().map(|value| (AUTHORIZATION, value)));
        request
    };
    Ok((url, build))
}

fn denied(status: StatusCode, body: &[u8]) -> ExchangeError {
    if !status.is_client_error() {
        return ExchangeError::Status { status };
    }
    let denial: Denial = serde_json::from_slice(body).unwrap_or_default();
    let details = if denial.details.is_empty() { denial.message } else { denial.details };
    match &details[..] {
        "" => ExchangeError::Status { status },
        _ => ExchangeError::Unauthorized { details: details.chars().take(512).collect() },
    }
}

/// `a=b&c=d`, with everything escaped that is not plain (RFC 3986, 2.3).
pub(crate) fn encode(fields: &[(&str, &str)]) -> String {
    let escape = |text: &str| {
        text.bytes()
            .map(|b| match b {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
                _ => format!("%{b:02X}"),
            })
            .collect::<String>()
    };
    fields.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect::<Vec<_>>().join("&")
}

/// RFC 4648, 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_encoded() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob\u{ff}", "Zm9vYsO/")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(
            encode(&[("scope", "repository:a/b:pull"), ("a", "ä &")]),
            "scope=repository%3Aa%2Fb%3Apull&a=%C3%A4%20%26"
        );
    }

    #[test]
    fn credentials_are_not_printed() {
        let basic = Credentials::Basic { username: "u".into(), password: "secret".into() };
        assert_eq!(format!("{basic:?}"), "Basic(...)");
        assert!(basic.basic().unwrap().is_sensitive());
        assert!(Credentials::Anonymous.basic().is_err());
    }
}
