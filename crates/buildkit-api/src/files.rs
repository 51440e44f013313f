//! The files of a directory of the client's (tonistiigi/fsutil, send.go and receive.go).
//!
//! ```text
//! daemon   DiffCopy, beside it which directory, what of it not, and which paths alone
//! client   STAT a   STAT b   STAT b/c ...   STAT without an entry: these are all
//! daemon   REQ 0    REQ 2                   the numbers of files, in the order in which they were told
//! client   DATA 0 bytes  DATA 2 bytes  DATA 0 (none: its end)  ...
//! daemon   FIN      client   FIN
//! ```
//! Whoever takes them may have some already, and is asked which ones are wanted when all are told (`REQ` of the others alone).
//! Our own client is told the name of the list that was told last, and where it still is the same it tells the name alone:
//!
//! ```text
//! daemon   DiffCopy, beside it `longshore-known: NAME`, or without a name where none is known
//! client   STAT without an entry, NAME      or STAT a ...  STAT without an entry, OTHER
//! ```
//! Files are asked for ahead, so that small ones do not cost a round trip each, and are given on in the order in which
//! they were told. What waits meanwhile is bounded; a large file is asked for alone and given on as it comes.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use prost::Message;
use tracing::debug;

use crate::channel::Outgoing;
use crate::frame::Incoming;
use crate::messages::{Packet, PacketKind, Stat};
use crate::session::Session;
use crate::status::Status;

/// The call.
const DIFF_COPY: &str = "/moby.filesync.v1.FileSync/DiffCopy";

/// What is told beside the call where lists have names: the name of the last one.
pub(crate) const KNOWN: &str = "longshore-known";

/// The longest name of a list, in bytes.
const NAME_MAX: usize = 128;

/// The most entries of a directory.
pub const ENTRIES_MAX: usize = 1 << 20;

/// What their names, links and attributes may come to, in bytes: some sixty for each.
const NAMES_MAX: usize = 64 << 20;

/// The longest path, the kernel's.
const PATH_MAX: usize = 4096;

/// Files up to so many bytes wait until they are whole.
const SMALL_BYTES: u64 = 1 << 20;

/// How many bytes are asked for ahead, and how many files.
const AHEAD_BYTES: u64 = 4 << 20;
const AHEAD_FILES: usize = 256;

/// Bits of Go's modes (io/fs, FileMode).
const GO_KINDS: u32 = 1 << 31 | 1 << 27 | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19;

/// Which files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The client's name of the directory: `context`.
    pub directory: String,
    /// Patterns of what is left out, as in a `.dockerignore`.
    pub exclude: Vec<String>,
    /// Paths and patterns of what is wanted alone, with what links in them lead to; all without any.
    pub follow: Vec<String>,
}

/// Where files go.
pub trait Sink {
    /// The name of the list that all here is by, empty if it has none; nothing where lists need no names.
    fn known(&self) -> Option<String> {
        None
    }
    /// The list has this name. If it is the known one nothing else is told of it, and nothing comes.
    fn is_called(&mut self, _name: &str) {}
    /// All entries, before the first of them: which ones are wanted, by their place. All of them, unless it says otherwise.
    fn begin(&mut self, entries: &[Stat]) -> impl Future<Output = io::Result<Vec<bool>>> + Send {
        std::future::ready(Ok(vec![true; entries.len()]))
    }
    /// An entry. Behind one that is a file its bytes come, `size` of them. Answers whether anybody wants more.
    fn entry(&mut self, stat: &Stat) -> impl Future<Output = bool> + Send;
    /// Bytes of the last file; answers likewise.
    fn data(&mut self, bytes: Bytes) -> impl Future<Output = bool> + Send;
}

/// Why files do not come.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The client sends none. The sentence is BuildKit's.
    #[error("no local sources enabled")]
    NoFiles,
    /// The client refuses, or has gone.
    #[error(transparent)]
    Refused(#[from] Status),
    /// The client cannot read them.
    #[error("error from sender: {0}")]
    Sender(String),
    /// A path leads elsewhere.
    #[error("invalid path {0:?} in the client's files")]
    Path(String),
    /// There are too many.
    #[error("the client sends more than {ENTRIES_MAX} files")]
    TooMany,
    /// The client does not keep to the protocol.
    #[error("the client's files break off")]
    Protocol,
    /// A file is another one than was told.
    #[error("{0} changed while it was sent")]
    Changed(String),
    /// There is no place for them.
    #[error("make a place for the client's files")]
    Place(#[source] io::Error),
    /// Nobody wants them any more.
    #[error("nobody reads the client's files")]
    Unread,
}

/// Whether there are bytes of it.
pub fn is_file(stat: &Stat) -> bool {
    stat.mode & GO_KINDS == 0 && stat.link.is_empty()
}

/// Carries files over; answers how many bytes it took, as BuildKit counts them. `came` is how many it took so far, for whoever
/// looks meanwhile.
pub async fn receive(
    session: &Session,
    wanted: &Wanted,
    sink: &mut impl Sink,
    came: &AtomicU64,
) -> Result<u64, FilesError> {
    if !session.answers(DIFF_COPY) {
        return Err(FilesError::NoFiles);
    }
    let known = sink.known();
    let headers = headers(wanted, known.as_deref());
    let (outgoing, mut incoming) = session.channel.stream(DIFF_COPY, &headers).await?;
    let Told { entries, name } = entries(&mut incoming, came).await?;
    let is_known = !name.is_empty() && entries.is_empty() && known.as_ref() == Some(&name);
    let wanted = match is_known {
        true => Vec::new(),
        false => sink.begin(&entries).await.map_err(FilesError::Place)?,
    };
    if known.is_some() && !name.is_empty() {
        sink.is_called(&name);
    }
    let mut transfer =
        Transfer { outgoing, incoming, entries, wanted, asked: BTreeMap::new(), next: 0, ahead: 0, came };
    for index in 0..transfer.entries.len() {
        if !transfer.wanted[index] {
            continue;
        }
        transfer.ask(index).await?;
        transfer.one(index, sink).await?;
    }
    transfer.end().await
}

/// What is told beside the call. Lists of what is no plain text are escaped as in addresses (session/filesync,
/// encodeStringForHeader).
fn headers(wanted: &Wanted, known: Option<&str>) -> Vec<(HeaderName, HeaderValue)> {
    let known = known.and_then(|name| HeaderValue::from_str(name).ok());
    let mut headers: Vec<_> = known.map(|name| (HeaderName::from_static(KNOWN), name)).into_iter().collect();
    let directory = std::slice::from_ref(&wanted.directory);
    let lists = [
        ("dir-name", "dir-name-encoded", directory),
        ("exclude-patterns", "exclude-patterns-encoded", &wanted.exclude[..]),
        ("followpaths", "followpaths-encoded", &wanted.follow[..]),
    ];
    for (name, encoded, values) in lists {
        let plain = values.iter().all(|value| value.bytes().all(|byte| matches!(byte, b' '..=b'~')));
        for value in values {
            let value = if plain { value.clone() } else { escaped(value) };
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.push((HeaderName::from_static(name), value));
            }
        }
        if !plain {
            headers.push((HeaderName::from_static(encoded), HeaderValue::from_static("1")));
        }
    }
    headers
}

fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// A list of entries.
struct Told {
    entries: Vec<Stat>,
    /// What it is called; empty if it has no name.
    name: String,
}

/// All entries.
async fn entries(incoming: &mut Incoming, came: &AtomicU64) -> Result<Told, FilesError> {
    let (mut entries, mut names) = (Vec::new(), 0);
    loop {
        let packet: Packet = incoming.next().await?.ok_or(FilesError::Protocol)?;
        check(&packet)?;
        count(came, &packet);
        if packet.kind != PacketKind::Stat as i32 {
            return Err(FilesError::Protocol);
        }
        let Some(stat) = packet.stat else {
            let name = String::from_utf8(packet.data.into()).unwrap_or_default();
            let name = if name.len() <= NAME_MAX { name } else { String::new() };
            return Ok(Told { entries, name });
        };
        names += stat.path.len() + stat.link.len();
        names += stat.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if entries.len() == ENTRIES_MAX || names > NAMES_MAX {
            return Err(FilesError::TooMany);
        }
        let leads_down = stat.path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !leads_down || stat.path.len() > PATH_MAX || stat.path.contains('\0') || stat.size < 0 {
            return Err(FilesError::Path(stat.path));
        }
        entries.push(stat);
    }
}

/// Counts the bytes of a packet.
fn count(came: &AtomicU64, packet: &Packet) {
    came.fetch_add(packet.encoded_len() as u64, Ordering::Relaxed);
}

/// Refuses a packet that tells of a failure.
fn check(packet: &Packet) -> Result<(), FilesError> {
    if packet.kind == PacketKind::Failure as i32 {
        return Err(FilesError::Sender(String::from_utf8_lossy(&packet.data).into_owned()));
    }
    Ok(())
}

/// Files on their way.
struct Transfer<'a> {
    outgoing: Outgoing,
    incoming: Incoming,
    entries: Vec<Stat>,
    /// Which of them go on.
    wanted: Vec<bool>,
    /// What came of files that were asked for, by their place.
    asked: BTreeMap<usize, Asked>,
    /// The first entry that was not looked at for asking.
    next: usize,
    /// How many bytes were asked for that were not given on.
    ahead: u64,
    came: &'a AtomicU64,
}

#[derive(Default)]
struct Asked {
    bytes: Vec<u8>,
    ended: bool,
}

impl Transfer<'_> {
    fn size(&self, index: usize) -> u64 {
        self.entries[index].size.unsigned_abs()
    }

    /// Asks for the file whose turn it is, and for small ones behind it.
    async fn ask(&mut self, index: usize) -> Result<(), FilesError> {
        while self.next < self.entries.len() {
            let (next, size) = (self.next, self.size(self.next));
            if self.wanted[next] && is_file(&self.entries[next]) {
                let has_place = self.ahead + size <= AHEAD_BYTES && self.asked.len() < AHEAD_FILES;
                if next > index && (size > SMALL_BYTES || !has_place || self.is_large(index)) {
                    return Ok(());
                }
                let id = u32::try_from(next).map_err(|_| FilesError::TooMany)?;
                let request = Packet { kind: PacketKind::Request as i32, id, ..Packet::default() };
                self.outgoing.send(&request).await?;
                self.asked.insert(next, Asked::default());
                self.ahead += size;
            }
            self.next += 1;
        }
        Ok(())
    }

    fn is_large(&self, index: usize) -> bool {
        is_file(&self.entries[index]) && self.size(index) > SMALL_BYTES
    }

    /// Gives an entry on.
    async fn one(&mut self, index: usize, sink: &mut impl Sink) -> Result<(), FilesError> {
        let mut stat = self.entries[index].clone();
        if !is_file(&stat) {
            return wanted(sink.entry(&stat).await);
        }
        if self.is_large(index) {
            return self.large(index, &stat, sink).await;
        }
        while !self.asked.get(&index).is_some_and(|asked| asked.ended) {
            let packet = self.packet().await?;
            self.keep(packet)?;
        }
        let asked = self.asked.remove(&index).unwrap_or_default();
        self.ahead -= self.size(index);
        // One that shrank is as long as it is.
        stat.size = asked.bytes.len() as i64;
        wanted(sink.entry(&stat).await)?;
        wanted(asked.bytes.is_empty() || sink.data(asked.bytes.into()).await)
    }

    /// Gives a file on while it comes; it is the only one that was asked for.
    async fn large(&mut self, index: usize, stat: &Stat, sink: &mut impl Sink) -> Result<(), FilesError> {
        wanted(sink.entry(stat).await)?;
        let mut left = self.size(index);
        loop {
            let mut packet = self.packet().await?;
            if packet.id as usize != index {
                return Err(FilesError::Protocol);
            }
            if packet.data.is_empty() {
                break;
            }
            // What it grew by meanwhile is none of it.
            packet.data.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            left -= packet.data.len() as u64;
            if !packet.data.is_empty() {
                wanted(sink.data(packet.data).await)?;
            }
        }
        self.asked.remove(&index);
        self.ahead -= self.size(index);
        if left == 0 { Ok(()) } else { Err(FilesError::Changed(stat.path.clone())) }
    }

    /// The next bytes of any file.
    async fn packet(&mut self) -> Result<Packet, FilesError> {
        let packet: Packet = self.incoming.next().await?.ok_or(FilesError::Protocol)?;
        check(&packet)?;
        count(self.came, &packet);
        if packet.kind == PacketKind::Data as i32 { Ok(packet) } else { Err(FilesError::Protocol) }
    }

    /// Keeps bytes of a file until its turn.
    fn keep(&mut self, packet: Packet) -> Result<(), FilesError> {
        let index = packet.id as usize;
        let asked = self.asked.get_mut(&index).filter(|asked| !asked.ended).ok_or(FilesError::Protocol)?;
        asked.ended = packet.data.is_empty();
        let place = self.entries[index].size.unsigned_abs().saturating_sub(asked.bytes.len() as u64);
        let count = packet.data.len().min(usize::try_from(place).unwrap_or(usize::MAX));
        asked.bytes.extend_from_slice(&packet.data[..count]);
        Ok(())
    }

    /// Says that all is there, and waits until the client has heard it.
    async fn end(mut self) -> Result<u64, FilesError> {
        self.outgoing.send(&Packet { kind: PacketKind::End as i32, ..Packet::default() }).await?;
        let packet: Packet = self.incoming.next().await?.ok_or(FilesError::Protocol)?;
        check(&packet)?;
        count(self.came, &packet);
        if let Err(err) = self.outgoing.end() {
            // A client that has ended the call already needs no word of that.
            debug!(message = err.message, "a client that has sent its files has gone");
        }
        while self.incoming.next::<Packet>().await?.is_some() {}
        Ok(self.came.load(Ordering::Relaxed))
    }
}

fn wanted(more: bool) -> Result<(), FilesError> {
    if more { Ok(()) } else { Err(FilesError::Unread) }
}

#[cfg(test)]
mod tests;
