//! What an `ADD` has from an address of the web.
//!
//! ```text
//! <data-root>/build-cache/web/<sum of the address>   what a server said of what it sent: WebMemo
//! <data-root>/builds/<build>/web/<number>/<name>     what it sends, while the build goes on
//! ```
//! A server that says by its `ETag` or `Last-Modified` what it sends is asked only for something else: what steps depend
//! on is remembered, the bytes are not. They come again where a step is not known.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dockerfile::{Files, GitAddress};
use registry_client::{Fetched, Known, WebAddress, WebError};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use stdx::fs::Durability;
use tracing::debug;

use super::asks::Client;
use super::cache;
use super::git::Repository;
use super::git_access::Access;
use super::receive::Place;
use super::sources::{Source, SourceError};
use super::tree::{Tree, hex};
use crate::Engine;

/// The largest thing that is fetched, in bytes: larger than any image that people make.
pub(super) const BYTES_MAX: u64 = 64 << 30;

/// Where what is fetched lies in a build's place.
pub(super) const WEB: &str = "web";

/// What something is called whose address ends without a name (buildkit dockerfile2llb, convert.go).
const UNNAMED: &str = "__unnamed__";

/// What is remembered of an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WebMemo {
    etag: String,
    last_modified: String,
    /// Of the bytes, in hexadecimal.
    sum: String,
}

/// What lies at an address.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    number: usize,
    name: String,
    last_modified: String,
    sum: String,
    /// Of a repository what else a copy depends on; nothing of a file.
    repository: Option<String>,
    /// Whether it is here.
    pub(super) is_here: bool,
}

impl Remote {
    /// Looks what lies at an address; has it come unless it is known, in any case where `fetches`.
    pub(super) async fn look(
        engine: &Engine,
        url: &str,
        place: &Place,
        number: usize,
        fetches: bool,
    ) -> Result<Remote, SourceError> {
        let (address, directory) = (WebAddress::parse(url)?, place.join(WEB).join(number.to_string()));
        let memory = memory(engine, url);
        let (place, asks) = (memory.clone(), !fetches);
        let remembered = bridge::blocking(move || if asks { recall(&place) } else { None }).await;
        let known = remembered.as_ref().map_or_else(Known::default, |remembered| Known {
            etag: remembered.etag.clone(),
            last_modified: remembered.last_modified.clone(),
        });
        let name = name(url);
        let fetched = engine.current.registries().fetch_unless(&address, &known).await?;
        let Some(fetched) = fetched else {
            let WebMemo { last_modified, sum, .. } = remembered.ok_or(SourceError::NotModified)?;
            return Ok(Remote { number, name, last_modified, sum, repository: None, is_here: false });
        };
        let path = directory.join(&name);
        let Known { etag, last_modified } = fetched.known().clone();
        let sum = receive(fetched, &address, &directory, &path, &last_modified).await?;
        let remembered = WebMemo { etag, last_modified: last_modified.clone(), sum: sum.clone() };
        bridge::blocking(move || remember(&memory, &remembered)).await;
        Ok(Remote { number, name, last_modified, sum, repository: None, is_here: true })
    }

    /// Looks which commit of a repository is meant; has its files come where `fetches`.
    pub(super) async fn look_at_repository(
        (engine, client): (&Engine, &Client),
        mut address: GitAddress,
        files: &Files,
        place: &Place,
        number: usize,
        fetches: bool,
    ) -> Result<Remote, SourceError> {
        let keep = match (files.keep_git_dir, address.keep_git_dir) {
            (Some(own), Some(other)) if own != other => return Err(SourceError::KeepGitDir),
            (own, other) => other.or(own).unwrap_or(false),
        };
        match (files.checksum.as_str(), address.checksum.as_str()) {
            ("", _) => {}
            (own, "") => address.checksum = own.to_owned(),
            (own, other) if own == other => {}
            (own, other) => return Err(SourceError::Checksums(own.to_owned(), other.to_owned())),
        }
        let directory = address.directory().to_owned();
        // What is kept says where it came from.
        let origin = if keep { address.shown() } else { String::new() };
        let exact = format!("keep {keep} {origin} submodules {} {directory}", address.submodules.unwrap_or(true));
        let name = format!("tree/{directory}").trim_end_matches('/').to_owned();
        let place = place.join(WEB).join(number.to_string());
        let access = Access::obtain(engine, client, &address).await?;
        let commit = Repository { address, keep_git_dir: keep, access, place }.look(fetches).await?;
        let (sum, repository) = (commit.name, Some(exact));
        Ok(Remote { number, name, last_modified: String::new(), sum, repository, is_here: fetches })
    }

    /// What is known of what lies there: the sum of its bytes, or the name of the commit, in hexadecimal.
    pub(super) fn sum(&self) -> &str {
        &self.sum
    }

    /// Refuses other bytes than those of a sum.
    pub(super) fn check(&self, checksum: &str) -> Result<(), SourceError> {
        let found = format!("sha256:{}", self.sum);
        match checksum.is_empty() || checksum == found {
            true => Ok(()),
            false => Err(SourceError::Checksum { found, wanted: checksum.to_owned() }),
        }
    }

    /// As something that is copied, from the path that it has in the tree of all of them.
    pub(super) fn source(&self) -> Source {
        let path = format!("{}/{}", self.number, self.name);
        let is_directory = self.repository.is_some();
        if let Some(more) = &self.repository {
            let (sum, exact) = (format!("git:{}", self.sum), format!("git {} {more}", self.sum));
            let files = vec![(self.name.clone(), exact.clone())];
            return Source {
                bytes: path.clone().into(),
                path,
                sum,
                exact,
                files,
                is_remote: true,
                is_directory,
                dropped: 0,
            };
        }
        let mut hash = Sha256::new();
        for part in [&self.name, &self.sum, &self.last_modified] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let files = vec![(self.name.clone(), self.sum.clone())];
        Source {
            bytes: path.clone().into(),
            path,
            sum: format!("file:{}", self.sum),
            exact: format!("web {}", hex(hash)),
            files,
            is_remote: true,
            is_directory,
            dropped: 0,
        }
    }
}

/// What was fetched in a build, if there is anything.
pub(super) fn tree(place: &Place) -> io::Result<Option<Tree>> {
    match File::open(place.join(WEB)) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => Tree::new(opened?.into()).map(Some),
    }
}

/// The last part of an address's path.
fn name(url: &str) -> String {
    let behind = url.split_once("://").map_or(url, |(_, behind)| behind);
    let path = behind.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once('/').map_or("", |(_, path)| path);
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    match unescaped(last) {
        name if matches!(name.as_str(), "" | "." | "..") || name.contains(['/', '\0']) => UNNAMED.to_owned(),
        name => name,
    }
}

/// A text without its percent signs, where they stand for letters.
fn unescaped(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, behind)) = rest.split_first() {
        let digits = rest.get(1..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &rest[3..];
            }
            _ => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn memory(engine: &Engine, url: &str) -> PathBuf {
    let mut hash = Sha256::new();
    hash.update(url);
    cache::of_web(engine, &hex(hash))
}

/// What is remembered; what is lost or torn is fetched again. Blocks shortly.
fn recall(memory: &Path) -> Option<WebMemo> {
    serde_json::from_slice(&fs::read(memory).ok()?).ok()
}

/// Remembers what a server said, if it can be asked about it. Blocks shortly.
fn remember(memory: &Path, remembered: &WebMemo) {
    if remembered.etag.is_empty() && remembered.last_modified.is_empty() {
        return;
    }
    let bytes = serde_json::to_vec(remembered).expect("texts are always JSON");
    let above = memory.parent().unwrap_or(memory);
    let written =
        fs::create_dir_all(above).and_then(|()| stdx::fs::write_atomic(memory, &bytes, Durability::ProcessDeath));
    if let Err(err) = written {
        // It will be fetched again.
        debug!(%err, "what lies at an address is not remembered");
    }
}

/// Writes what comes into a file that only root may read; answers its sum.
pub(super) async fn receive(
    mut fetched: Fetched,
    address: &WebAddress,
    directory: &Path,
    path: &Path,
    last_modified: &str,
) -> Result<String, SourceError> {
    let failed = |source| SourceError::Read { path: address.to_string(), source };
    let (above, place) = (directory.to_owned(), path.to_owned());
    let open = bridge::blocking(move || {
        fs::create_dir_all(above)?;
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(place)
    });
    let mut file = open.await.map_err(failed)?;
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let broken = |source| WebError::Request { address: address.to_string(), source };
    while let Some(chunk) = fetched.chunk().await.map_err(broken)? {
        bytes += chunk.len() as u64;
        if bytes > BYTES_MAX {
            return Err(failed(io::ErrorKind::FileTooLarge.into()));
        }
        hash.update(&chunk);
        let written = bridge::blocking(move || file.write_all(&chunk).map(|()| file)).await;
        file = written.map_err(failed)?;
    }
    let modified = UNIX_EPOCH + Duration::from_secs(seconds(last_modified).unwrap_or(0));
    bridge::blocking(move || set_time(&file, modified)).await.map_err(failed)?;
    Ok(hex(hash))
}

fn set_time(file: &File, time: SystemTime) -> io::Result<()> {
    file.set_times(FileTimes::new().set_modified(time).set_accessed(time))
}

/// Seconds since 1970 of a date as HTTP has it: `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7).
fn seconds(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = text.split_once(", ")?;
    let parts: Vec<&str> = date.split(' ').collect();
    let [day, month, year, time, "GMT"] = parts[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let text = format!("{year:0>4}-{month:02}-{day:0>2}T{time}Z");
    u64::try_from(crate::clock::parse_rfc3339_seconds(&text)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_paths() {
        for (url, wanted) in [
            ("http://h/a/b.tar", "b.tar"),
            ("http://h/a/b.tar?x=/y#z", "b.tar"),
            ("http://h/a%20b/", "a b"),
            ("http://h", UNNAMED),
            ("http://h/", UNNAMED),
            ("http://h/..", UNNAMED),
            ("http://h/a%2Fb", UNNAMED),
            ("http://h/%zz", "%zz"),
        ] {
            assert_eq!(name(url), wanted, "{url}");
        }
    }

    #[test]
    fn dates_of_http_are_seconds() {
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        for text in [
            "",
            "yesterday",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Non 1994 08:49:37 GMT",
            "Thu, 01 Jan 1969 00:00:00 GMT",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
