//! What lies at an address of the web: fetched once, by nobody in particular, from anybody.
//!
//! A server is as hostile as a registry: the head, each piece of the body and the connection have their deadlines, a body
//! that trickles counts as stopped, redirects and what is told of a refusal are bounded. Certificates must be good,
//! whatever the administrator says of registries.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use errdefs::ErrorKind;
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, ETAG, HOST, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LOCATION,
    USER_AGENT,
};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::ext::ReasonPhrase;

use crate::auth::{self, escaped};
use crate::connection::{Body, Terms, Url};
use crate::error::{DialError, ExchangeError};
use crate::outgoing::Outgoing;
use crate::session::{AGENT, Registry, Timing};

/// How often a request may be sent on; Go's and so dockerd's bound.
const REDIRECTS_MAX: usize = 10;

/// Nobody's certificate is taken on trust, and nobody is shown any of ours: those are for registries.
const WEB: Terms<'static> = Terms { verify: true, identity: None };

/// How much of a server's words about a refusal is told on. dockerd tells all of it, however long.
const REFUSAL_MAX_BYTES: usize = 16 * 1024;

/// An address that somebody typed: `http://` or `https://`, perhaps with a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebAddress {
    url: Url,
    /// `name:password` in base64, behind `Basic`.
    authorization: Option<HeaderValue>,
    /// As it may be shown: without the password.
    shown: String,
}

/// Why nothing was fetched. The texts are Go's and dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// It is no address.
    #[error("parse {text:?}: invalid URL")]
    Address {
        /// The text.
        text: String,
    },
    /// A percent sign without two digits.
    #[error("parse {text:?}: invalid URL escape {escape:?}")]
    Escape {
        /// The text.
        text: String,
        /// The sign and what follows it.
        escape: String,
    },
    /// Something else than HTTP.
    #[error("Get {text:?}: unsupported protocol scheme {scheme:?}")]
    Scheme {
        /// The address.
        text: String,
        /// What it begins with.
        scheme: String,
    },
    /// It says how, but not where.
    #[error("Get {text:?}: http: no Host in request URL")]
    NoHost {
        /// The address.
        text: String,
    },
    /// There is no answer.
    #[error("Get {address:?}")]
    Request {
        /// The address.
        address: String,
        /// Why.
        source: ExchangeError,
    },
    /// The server refuses.
    #[error("failed to GET {address} with status {status}: {words}")]
    Refused {
        /// The address.
        address: String,
        /// The number and its words, as the server writes them.
        status: String,
        /// The number.
        code: StatusCode,
        /// What the server says, up to a bound.
        words: String,
    },
}

impl WebError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            WebError::Address { .. } | WebError::Escape { .. } => ErrorKind::InvalidArgument,
            WebError::Request { source: ExchangeError::Dial(DialError::Lookup { .. }), .. } => ErrorKind::NotFound,
            WebError::Refused { code, .. } => match code.as_u16() {
                400 => ErrorKind::InvalidArgument,
                401 => ErrorKind::Unauthorized,
                403 => ErrorKind::Forbidden,
                404 => ErrorKind::NotFound,
                _ => ErrorKind::Internal,
            },
            _ => ErrorKind::Internal,
        }
    }
}

impl WebAddress {
    /// Parses what a user types; without a scheme it is HTTP's.
    pub fn parse(text: &str) -> Result<WebAddress, WebError> {
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let invalid = || WebError::Address { text: whole.clone() };
        let (scheme, rest) = whole.split_once("://").ok_or_else(invalid)?;
        let scheme = scheme.to_ascii_lowercase();
        if scheme != "http" && scheme != "https" {
            return Err(WebError::Scheme { text: whole.clone(), scheme });
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        if host.is_empty() {
            return Err(WebError::NoHost { text: format!("{scheme}://{rest}") });
        }
        check_escapes(&whole, host)?;
        check_escapes(&whole, path.split(['?', '#']).next().unwrap_or_default())?;
        let path = escape(path.split('#').next().unwrap_or_default());
        let slash = if path.starts_with('/') { "" } else { "/" };
        let port = host.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
        if port.is_some_and(|port| !port.is_empty() && port.parse::<u16>().is_err()) {
            return Err(invalid());
        }
        let url = Url::parse(&format!("{scheme}://{host}{slash}{path}")).map_err(|_| invalid())?;
        let shown_user = user.map(|user| match user.split_once(':') {
            Some((name, _)) => format!("{name}:xxxxx@"),
            None => format!("{user}@"),
        });
        let shown = format!("{scheme}://{}{host}{path}", shown_user.unwrap_or_default());
        let authorization = user.map(auth::basic_of_user).transpose().map_err(|_| invalid())?;
        Ok(WebAddress { url, authorization, shown })
    }
}

impl std::fmt::Display for WebAddress {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

fn check_escapes(text: &str, part: &str) -> Result<(), WebError> {
    let wrong = part.char_indices().find(|(at, sign)| *sign == '%' && escaped(part.as_bytes(), *at).is_none());
    wrong.map_or(Ok(()), |(at, _)| {
        Err(WebError::Escape { text: text.to_owned(), escape: part[at..].chars().take(3).collect() })
    })
}

/// Writes what cannot stand in a request as Go does: percent signs and digits.
fn escape(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'!' | b'#'..=b';' | b'=' | b'?'..=b'[' | b']' | b'_' | b'a'..=b'z' | b'~' => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// What a server said of what it sent before: it need not send it again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Its `ETag`; empty for none.
    pub etag: String,
    /// Its `Last-Modified`; empty for none.
    pub last_modified: String,
}

impl Known {
    /// The header that asks for something else.
    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        let (name, value) = match (self.etag.as_str(), self.last_modified.as_str()) {
            ("", "") => return None,
            ("", date) => (IF_MODIFIED_SINCE, date),
            (etag, _) => (IF_NONE_MATCH, etag),
        };
        Some((name, HeaderValue::from_str(value).ok()?))
    }
}

/// What comes from there.
pub struct Fetched {
    body: Body,
    /// How long it will be, if the server says so.
    length: Option<u64>,
    known: Known,
    pace: Pace,
}

impl std::fmt::Debug for Fetched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetched").field("length", &self.length).finish_non_exhaustive()
    }
}

/// How fast a body comes, counted while it is waited for: a reader may take its time.
#[derive(Debug)]
struct Pace {
    window: Duration,
    least_bytes: u64,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Whether it comes fast enough to be waited for.
    fn count(&mut self, waited: Duration, bytes: u64) -> bool {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < self.window {
            return true;
        }
        let enough = self.bytes >= self.least_bytes;
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        enough
    }
}

impl Fetched {
    /// How long it will be, if the server says so.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// What the server says of it, by which it may be asked for again.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// The next bytes, or `None` at the end. Dropped, it ends the connection.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ExchangeError> {
        let begun = Instant::now();
        let chunk = self.body.chunk().await?;
        let length = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        match chunk.is_none() || self.pace.count(begun.elapsed(), length) {
            true => Ok(chunk),
            false => Err(ExchangeError::Stalled),
        }
    }
}

impl Registry {
    /// Asks for what lies there, and goes where the server sends us.
    pub async fn fetch(self: &Arc<Self>, address: &WebAddress) -> Result<Fetched, WebError> {
        let fetched = self.fetch_unless(address, &Known::default()).await?;
        Ok(fetched.expect("only what is known is not sent"))
    }

    /// Asks for what lies there unless it is what is known; `None` if it is.
    pub async fn fetch_unless(
        self: &Arc<Self>,
        address: &WebAddress,
        known: &Known,
    ) -> Result<Option<Fetched>, WebError> {
        let failed = |source| WebError::Request { address: address.to_string(), source };
        let response = self.follow_web(address, known).await.map_err(failed)?;
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            return Err(self.refusal(address, response).await);
        }
        let is_known = status == StatusCode::NOT_MODIFIED && known.header().is_some();
        Ok((!is_known).then(|| fetched(response, &self.settings.timing)))
    }

    async fn follow_web(&self, address: &WebAddress, known: &Known) -> Result<Response<Body>, ExchangeError> {
        let (mut url, mut elsewhere) = (address.url.clone(), false);
        for _ in 0..=REDIRECTS_MAX {
            // A password is for the host that it was typed for alone, and a way back to it is the other host's idea.
            elsewhere |= (url.scheme, &url.authority) != (address.url.scheme, &address.url.authority);
            let authorization = address.authorization.as_ref().filter(|_| !elsewhere);
            let response = self.connector.send(&url, WEB, || request(&url, authorization, known)).await?;
            let moved = matches!(response.status().as_u16(), 301..=303 | 307 | 308);
            match response.headers().get(LOCATION) {
                Some(location) if moved => url = follow(&url, &String::from_utf8_lossy(location.as_bytes()))?,
                _ => return Ok(response),
            }
        }
        Err(ExchangeError::Redirects { limit: REDIRECTS_MAX })
    }

    async fn refusal(&self, address: &WebAddress, mut response: Response<Body>) -> WebError {
        let code = response.status();
        let status = match response.extensions().get::<ReasonPhrase>() {
            Some(words) => format!("{} {}", code.as_u16(), String::from_utf8_lossy(words.as_bytes())),
            None => code.to_string(),
        };
        let mut words = Vec::new();
        let whole = async {
            while words.len() < REFUSAL_MAX_BYTES {
                match response.body_mut().chunk().await {
                    Ok(Some(bytes)) => words.extend_from_slice(&bytes),
                    Ok(None) => return,
                    Err(_) => return words = b"error reading body".to_vec(),
                }
            }
        };
        // What came until then is what there is to tell.
        let _ = tokio::time::timeout(self.settings.timing.document, whole).await;
        words.truncate(REFUSAL_MAX_BYTES);
        let words = without_markup(String::from_utf8_lossy(&words).trim());
        WebError::Refused { address: address.to_string(), status, code, words }
    }
}

/// What a server says; of a page of HTML its title alone, as it is for browsers.
fn without_markup(words: &str) -> String {
    let lower = words.to_ascii_lowercase();
    if !lower.starts_with("<!doctype html") && !lower.starts_with("<html") {
        return words.to_owned();
    }
    let title = lower.find("<title>").map(|start| start + "<title>".len());
    let title = title.and_then(|start| Some(&words[start..start + lower[start..].find("</title>")?]));
    title.map(str::trim).filter(|title| !title.is_empty()).unwrap_or("a page of HTML").to_owned()
}

fn fetched(response: Response<Body>, timing: &Timing) -> Fetched {
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let length = text(CONTENT_LENGTH).parse().ok();
    let known = Known { etag: text(ETAG).to_owned(), last_modified: text(LAST_MODIFIED).to_owned() };
    let pace = Pace { window: timing.trickle, least_bytes: timing.trickle_bytes, waited: Duration::ZERO, bytes: 0 };
    Fetched { body: response.into_body(), length, known, pace }
}

/// Where `location` leads from `here` (RFC 3986, 5.2). A registry's locations are whole, the web's need not be.
fn follow(here: &Url, location: &str) -> Result<Url, ExchangeError> {
    if location.starts_with("//") {
        let scheme = here.to_string();
        return Url::parse(&format!("{}:{location}", scheme.split(':').next().unwrap_or_default()));
    }
    let before_query = location.split(['?', '#']).next().unwrap_or_default();
    if location.starts_with('/') || before_query.contains(':') {
        return here.join(location);
    }
    let path = here.path.split('?').next().unwrap_or_default();
    let keep = if before_query.is_empty() { path.len() } else { path.rfind('/').map_or(0, |slash| slash + 1) };
    here.join(&without_dots(&format!("/{}{location}", path[..keep].trim_start_matches('/'))))
}

/// A path without `.` and `..`; what follows a question mark is not looked at (RFC 3986, 5.2.4).
fn without_dots(text: &str) -> String {
    let (path, query) = text.split_at(text.find(['?', '#']).unwrap_or(text.len()));
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}{query}", kept.join("/"))
}

fn request(url: &Url, authorization: Option<&HeaderValue>, known: &Known) -> Request<Outgoing> {
    let mut request = Request::new(Outgoing::Whole(Bytes::new()));
    *request.uri_mut() = url.path.parse().unwrap_or_default();
    let headers = request.headers_mut();
    headers.extend(HeaderValue::from_str(&url.authority).ok().map(|host| (HOST, host)));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.extend(authorization.map(|value| (AUTHORIZATION, value.clone())));
    headers.extend(known.header());
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_told_by_their_titles() {
        for (words, wanted) in [
            ("no such file", "no such file"),
            ("<a>", "<a>"),
            ("<!DOCTYPE html><head><Title> 404 Not Found </title></head><body>...", "404 Not Found"),
            ("<html><body>a", "a page of HTML"),
            ("<html><title>cut", "a page of HTML"),
        ] {
            assert_eq!(without_markup(words), wanted);
        }
    }

    #[test]
    fn addresses_are_read_as_go_reads_them() {
        for (text, wanted) in [
            ("http://h/a.tar", "h /a.tar http://h/a.tar"),
            ("h:81/a.tar", "h:81 /a.tar http://h:81/a.tar"),
            ("HTTPS://h", "h / https://h"),
            ("http://h?q=%zz#part", "h /?q=%zz http://h?q=%zz"),
            ("http://h/a b\u{e9}", "h /a%20b%C3%A9 http://h/a%20b%C3%A9"),
            ("http://me:secret@h/x", "h /x http://me:xxxxx@h/x"),
            ("http://me@h/x", "h /x http://me@h/x"),
            ("http://[::1]:5/x", "[::1]:5 /x http://[::1]:5/x"),
        ] {
            let read = WebAddress::parse(text).unwrap();
            assert_eq!(format!("{} {} {read}", read.url.authority, read.url.path), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_told() {
        for (text, sentence) in [
            ("ftp://h/x", "Get \"ftp://h/x\": unsupported protocol scheme \"ftp\""),
            ("http:///x", "Get \"http:///x\": http: no Host in request URL"),
            ("", "Get \"http://\": http: no Host in request URL"),
            ("http://%zz", "parse \"http://%zz\": invalid URL escape \"%zz\""),
            ("http://h/%a", "parse \"http://h/%a\": invalid URL escape \"%a\""),
            ("http://h:x/", "parse \"http://h:x/\": invalid URL"),
        ] {
            assert_eq!(WebAddress::parse(text).unwrap_err().to_string(), sentence);
        }
    }

    #[test]
    fn locations_are_read_from_where_they_were_told() {
        let here = Url::parse("https://h:1/a/b/c?q=1").unwrap();
        for (location, wanted) in [
            ("/x", "https://h:1/x"),
            ("x?y=/../z", "https://h:1/a/b/x?y=/../z"),
            ("../x", "https://h:1/a/x"),
            ("./../../../x/.", "https://h:1/x/"),
            ("?z", "https://h:1/a/b/c?z"),
            ("//other/x", "https://other/x"),
            ("http://other/x", "http://other/x"),
        ] {
            assert_eq!(follow(&here, location).unwrap().to_string(), wanted, "{location}");
        }
        assert!(follow(&here, "file:///x").is_err());
    }

    #[test]
    fn a_user_is_shown_to_the_server_alone() {
        let address = WebAddress::parse("http://me:a%3Ab@h/x").unwrap();
        assert_eq!(address.authorization.unwrap(), "Basic bWU6YTpi");
        assert_eq!(WebAddress::parse("http://h/x").unwrap().authorization, None);
    }

    #[test]
    fn only_a_body_that_gets_on_is_waited_for() {
        let mut pace = Pace { window: Duration::from_secs(60), least_bytes: 100, waited: Duration::ZERO, bytes: 0 };
        assert!(pace.count(Duration::from_secs(59), 1));
        assert!(pace.count(Duration::from_secs(1), 99));
        assert!(pace.count(Duration::from_secs(30), 50));
        assert!(!pace.count(Duration::from_secs(30), 49));
    }
}
