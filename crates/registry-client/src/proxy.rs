//! Proxies: between us and registries, and who needs none. Decided as Go's programs decide it (golang.org/x/net/http/httpproxy).

use std::net::IpAddr;

use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::AddressRange;
use crate::auth;
use crate::connection::{Scheme, Url};
use crate::error::ExchangeError;

/// The longest answer of a proxy to a wish for a tunnel.
const ANSWER_MAX: usize = 16 * 1024;

/// What an administrator says, in the words of the variables of the same names; empty for nothing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For addresses with `http`.
    pub http: String,
    /// For addresses with `https`.
    pub https: String,
    /// Hosts that are reached without any: names, `.domain`, `*.domain`, addresses and their ranges, each with a port or
    /// without, between commas; `*` for all.
    pub none: String,
}

impl std::fmt::Debug for Proxies {
    // A proxy's password into no log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (http, https) = (without_password(&self.http), without_password(&self.https));
        f.debug_struct("Proxies").field("http", &http).field("https", &https).field("none", &self.none).finish()
    }
}

/// A text that is no proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid proxy address {0:?}: it must be [http://][user:password@]host[:port]")]
pub struct ProxyError(String);

/// A proxy that speaks HTTP.
#[derive(Clone)]
pub(crate) struct Proxy {
    /// Where it is.
    pub(crate) url: Url,
    /// What it is shown.
    pub(crate) authorization: Option<HeaderValue>,
}

impl Proxies {
    /// Checks what an administrator wrote.
    pub fn check(&self) -> Result<(), ProxyError> {
        [&self.http, &self.https].into_iter().filter(|text| !text.is_empty()).try_for_each(|text| parse(text).map(drop))
    }

    /// The proxies as they may be shown: without users and passwords, as dockerd covers them.
    pub fn shown(&self) -> Proxies {
        let (http, https) = (without_password(&self.http), without_password(&self.https));
        Proxies { http, https, none: self.none.clone() }
    }

    /// The proxy for this address, if it is not reached without.
    pub(crate) fn of(&self, url: &Url) -> Result<Option<Proxy>, ExchangeError> {
        let text = match url.scheme {
            Scheme::Http => &self.http,
            Scheme::Https => &self.https,
        };
        match text.is_empty() || self.spares(url.host(), url.port()?) {
            true => Ok(None),
            false => Ok(Some(parse(text)?)),
        }
    }

    fn spares(&self, host: &str, port: u16) -> bool {
        let host = host.trim().to_lowercase();
        let address = host.parse::<IpAddr>().ok();
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        let rules = self.none.split(',').map(|rule| rule.trim().to_lowercase());
        rules.filter(|rule| !rule.is_empty()).any(|rule| spares(&rule, &host, address, port))
    }
}

/// Whether one rule is about this host.
fn spares(rule: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if rule == "*" {
        return true;
    }
    if let Ok(range) = rule.parse::<AddressRange>() {
        return address.is_some_and(|address| range.contains(address));
    }
    let (name, wanted) = match rule.rsplit_once(':') {
        // An IPv6 address has more of them, and brackets where there is a port.
        Some((name, wanted)) if !name.contains(':') || name.ends_with(']') => (name, Some(wanted)),
        _ => (rule, None),
    };
    if wanted.is_some_and(|wanted| wanted != port.to_string()) {
        return false;
    }
    let name = name.trim_start_matches('[').trim_end_matches(']');
    if let Ok(named) = name.parse::<IpAddr>() {
        return address == Some(named);
    }
    // `a.b` and what is below it; `.a.b` and `*.a.b` only what is below.
    let below = name.strip_prefix('*').filter(|end| end.starts_with('.')).unwrap_or(name);
    match below.starts_with('.') {
        true => host.ends_with(below),
        false => host == below || host.strip_suffix(below).is_some_and(|front| front.ends_with('.')),
    }
}

/// `[http://][user:password@]host[:port]`
fn parse(text: &str) -> Result<Proxy, ProxyError> {
    let refused = || ProxyError(without_password(text));
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let (authority, _) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if scheme != "http" {
        return Err(refused());
    }
    let url = Url::parse(&format!("http://{host}/")).map_err(|_| refused())?;
    url.port().map_err(|_| refused())?;
    let authorization = user.map(auth::basic_of_user).transpose().map_err(|_| refused())?;
    Ok(Proxy { url, authorization })
}

/// An address, with a scheme or without, with its user and password covered (moby daemon/config `MaskCredentials`).
pub fn without_password(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((_, host)) if scheme.is_empty() => format!("xxxxx:xxxxx@{host}{path}"),
        Some((_, host)) => format!("{scheme}://xxxxx:xxxxx@{host}{path}"),
        None => text.to_owned(),
    }
}

/// Asks a proxy for a tunnel to `target` (RFC 9110, 9.3.6). What it says instead is only its status's.
pub(crate) async fn tunnel<T: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut T,
    proxy: &Proxy,
    target: &Url,
) -> Result<(), ExchangeError> {
    let broken = |source| ExchangeError::Tunnel { source };
    let host = if target.host().contains(':') { format!("[{}]", target.host()) } else { target.host().to_owned() };
    let place = format!("{host}:{}", target.port()?);
    let mut request = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\nUser-Agent: {}\r\n", crate::session::AGENT);
    if let Some(value) = proxy.authorization.as_ref().and_then(|value| value.to_str().ok()) {
        request.push_str(&format!("Proxy-Authorization: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= ANSWER_MAX {
            return Err(ExchangeError::TooLong { limit_bytes: ANSWER_MAX as u64 });
        }
        // One by one: what follows is TLS's.
        head.push(stream.read_u8().await.map_err(broken)?);
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let status = line.split(' ').nth(1).and_then(|code| http::StatusCode::from_bytes(code.as_bytes()).ok());
    match status.filter(|_| line.starts_with("HTTP/1.")) {
        Some(status) if status.is_success() => Ok(()),
        Some(status) => {
            Err(ExchangeError::NoTunnel { reason: status.canonical_reason().unwrap_or(status.as_str()).to_owned() })
        }
        None => Err(ExchangeError::NoTunnel { reason: "malformed HTTP response".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_needs_no_proxy_is_who_needs_none_of_gos_programs() {
        let none = "10.0.0.0/8, a.b ,.below.c,*.star.d,port.e:5000,192.168.1.1,192.168.1.2:80,[fd00::1]:443,fd00::2";
        let proxies = Proxies { https: "p:3128".into(), none: none.into(), ..Proxies::default() };
        let asked = |authority: &str| {
            let url = Url { scheme: Scheme::Https, authority: authority.to_owned(), path: "/".to_owned() };
            proxies.of(&url).unwrap().is_some()
        };
        for spared in [
            "localhost:5000",
            "127.0.0.9",
            "[::1]:5000",
            "10.1.2.3:5000",
            "a.b",
            "A.B:5000",
            "x.a.b",
            "x.below.c",
            "x.star.d",
            "port.e:5000",
            "x.port.e:5000",
            "192.168.1.1:5000",
            "192.168.1.2:80",
            "[fd00::1]",
            "[fd00::2]:5000",
        ] {
            assert!(!asked(spared), "{spared}");
        }
        for sent in [
            "xa.b",
            "b",
            "below.c",
            "star.d",
            "port.e",
            "192.168.1.2",
            "[fd00::1]:5000",
            "11.0.0.1",
            "registry-1.docker.io",
        ] {
            assert!(asked(sent), "{sent}");
        }
        let all = Proxies { none: "x,*".into(), ..proxies.clone() };
        assert!(all.of(&Url::parse("https://far.away/").unwrap()).unwrap().is_none());
        assert!(proxies.of(&Url::parse("http://far.away/").unwrap()).unwrap().is_none());
    }

    #[test]
    fn a_proxy_is_an_address_whose_password_nobody_reads() {
        for (text, url, authorization) in [
            ("p", "http://p/", None),
            ("p:3128", "http://p:3128/", None),
            ("http://u:p@h:1/x", "http://h:1/", Some("Basic dTpw")),
            ("http://u%40v:p%3a@h", "http://h/", Some("Basic dUB2OnA6")),
            ("u@h", "http://h/", Some("Basic dTo=")),
            // Two digits are two digits, whatever a number may begin with.
            ("%+f@h", "http://h/", Some("Basic JStmOg==")),
        ] {
            let proxy = parse(text).unwrap();
            let shown = proxy.authorization.as_ref().map(|value| value.to_str().unwrap());
            assert_eq!((proxy.url.to_string().as_str(), shown), (url, authorization));
        }
        for text in
            ["socks5://u:secret@h", "https://h", "http://", "http://a b", "http://u:secret@", "u:secret@h:99999"]
        {
            let refused = parse(text).err().unwrap().to_string();
            assert!(refused.starts_with("invalid proxy address") && !refused.contains("secret"), "{refused}");
        }
        let proxies = Proxies { http: "http://u:secret@h/".into(), https: "u:secret@h".into(), none: "x".into() };
        assert!(!format!("{proxies:?}").contains("secret"));
        assert_eq!(proxies.shown().http, "http://xxxxx:xxxxx@h/");
        assert_eq!(proxies.shown().https, "xxxxx:xxxxx@h");
        assert!(proxies.check().is_ok() && Proxies { http: "ftp://x".into(), ..proxies }.check().is_err());
    }
}
