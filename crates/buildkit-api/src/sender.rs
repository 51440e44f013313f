//! The other side of [`crate::files`]: a directory of ours, carried to whoever asks for it.
//!
//! Reading files blocks, so that all of it is done by a thread of its own.

use std::collections::BTreeSet;
use std::io::{self, Read};

use bytes::Bytes;
use http::HeaderMap;
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::files::KNOWN;
use crate::messages::{Packet, PacketKind, Stat};
use crate::modes;
use crate::server::Streaming;
use crate::status::{Code, Status, unescaped};

/// How much of a file goes at once, in bytes.
const PIECE_BYTES: usize = 128 << 10;

/// How many files may have been asked for and not begun: more than anybody asks for ahead.
const ASKED: usize = 1024;

/// A directory, as it is told. Its methods block.
pub trait Directory: Send + 'static {
    /// What is in it, each directory before what is in that: all that one of the paths and patterns of `follow` leads to, and
    /// more if that is easier; everything without any.
    fn entries(&mut self, follow: &[String]) -> io::Result<Vec<Stat>>;
    /// The bytes of one of them, by its place. Reads no more than a file has.
    fn open(&mut self, index: usize) -> io::Result<Box<dyn Read>>;
    /// So many bytes of files went on.
    fn has_sent(&mut self, _bytes: usize) {}
    /// Whoever asked has all.
    fn is_done(&mut self) {}
}

impl Directory for Box<dyn Directory> {
    fn entries(&mut self, follow: &[String]) -> io::Result<Vec<Stat>> {
        (**self).entries(follow)
    }

    fn open(&mut self, index: usize) -> io::Result<Box<dyn Read>> {
        (**self).open(index)
    }

    fn has_sent(&mut self, bytes: usize) {
        (**self).has_sent(bytes);
    }

    fn is_done(&mut self) {
        (**self).is_done();
    }
}

/// A list that stands beside a call; escaped as in addresses where `encoded` says so (session/filesync).
fn list(headers: &HeaderMap, name: &str, encoded: &str) -> Vec<String> {
    let is_escaped = headers.contains_key(encoded);
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.map(|value| if is_escaped { unescaped(value) } else { value.to_owned() }).collect()
}

/// Which of some entries paths lead to, with the directories above them; all where that is not plain to see: behind patterns,
/// symbolic links and other names of files.
pub fn followed(entries: &[Stat], follow: &[String]) -> Vec<bool> {
    let all = || vec![true; entries.len()];
    let Some(wanted) = follow.iter().map(|path| plain(path)).collect::<Option<BTreeSet<String>>>() else {
        return all();
    };
    let is_below = |path: &str| prefixes(path).any(|above| wanted.contains(above));
    let above: BTreeSet<&str> = wanted.iter().flat_map(|path| prefixes(path)).collect();
    let mut kept = Vec::with_capacity(entries.len());
    for stat in entries {
        let leads_on = above.contains(stat.path.as_str());
        let keep = leads_on || is_below(&stat.path);
        if keep && !stat.link.is_empty() && (leads_on || stat.mode & modes::SYMLINK == 0) {
            return all();
        }
        kept.push(keep);
    }
    if wanted.is_empty() { all() } else { kept }
}

/// A path from the top, without dots; nothing of a pattern, and of the top itself.
fn plain(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part if part.contains(['*', '?', '[', '\\']) => return None,
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// A path and all above it.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at]).chain([path])
}

/// What is asked for.
enum Asked {
    File(usize),
    /// Nothing more.
    End,
}

/// Answers a call for a directory, to its end.
pub async fn send(mut call: Streaming, directory: impl Directory) {
    let (asked, asking) = mpsc::channel(ASKED);
    let (outgoing, follow) = (call.outgoing, list(&call.headers, "followpaths", "followpaths-encoded"));
    let known = call.headers.get(KNOWN).map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned());
    std::thread::spawn(move || {
        let mut sending = Sending { directory, outgoing };
        if let Err(Failed::Here(err)) = sending.all(&follow, known.as_deref(), asking) {
            let told = Packet { kind: PacketKind::Failure as i32, data: err.to_string().into(), ..Packet::default() };
            // Whoever asked is told twice if there: by the packet, and by how the call ends.
            if sending.packet(&told).is_ok() {
                let _ = sending.outgoing.blocking_send(Err(Status::new(Code::Unknown, err.to_string())));
            }
        }
    });
    while let Ok(Some(packet)) = call.incoming.next::<Packet>().await {
        let next = match packet.kind {
            kind if kind == PacketKind::Request as i32 => Asked::File(packet.id as usize),
            kind if kind == PacketKind::End as i32 => Asked::End,
            _ => return,
        };
        if asked.send(next).await.is_err() {
            return;
        }
    }
}

/// Why it ends early.
enum Failed {
    /// The directory cannot be read.
    Here(io::Error),
    /// Nobody listens.
    There,
}

struct Sending<D> {
    directory: D,
    outgoing: mpsc::Sender<Result<Vec<u8>, Status>>,
}

impl<D: Directory> Sending<D> {
    fn all(&mut self, follow: &[String], known: Option<&str>, mut asking: mpsc::Receiver<Asked>) -> Result<(), Failed> {
        let entries = self.directory.entries(follow).map_err(Failed::Here)?;
        let count = entries.len();
        let told = entries.into_iter().map(|stat| Packet { stat: Some(stat), ..Packet::default() }.encode_to_vec());
        let told: Vec<Vec<u8>> = told.collect();
        // Whoever does not ask for a name would not know what it is.
        let name = if known.is_some() { name(&told) } else { String::new() };
        if known != Some(&name) || name.is_empty() {
            for packet in told {
                self.bytes(packet)?;
            }
        }
        self.packet(&Packet { data: name.into(), ..Packet::default() })?;
        while let Some(asked) = asking.blocking_recv() {
            match asked {
                Asked::File(index) if index < count => self.file(index)?,
                Asked::File(index) => {
                    let told = format!("invalid file id {index}");
                    return Err(Failed::Here(io::Error::new(io::ErrorKind::InvalidInput, told)));
                }
                Asked::End => {
                    self.directory.is_done();
                    return self.packet(&Packet { kind: PacketKind::End as i32, ..Packet::default() });
                }
            }
        }
        Err(Failed::There)
    }

    fn file(&mut self, index: usize) -> Result<(), Failed> {
        let id = u32::try_from(index).unwrap_or(u32::MAX);
        let packet = |data: Bytes| Packet { kind: PacketKind::Data as i32, id, data, stat: None };
        let mut file = self.directory.open(index).map_err(Failed::Here)?;
        loop {
            let mut data = Vec::with_capacity(4096);
            let count = file.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut data).map_err(Failed::Here)?;
            self.directory.has_sent(count);
            self.packet(&packet(data.into()))?;
            if count == 0 {
                return Ok(());
            }
        }
    }

    fn packet(&self, packet: &Packet) -> Result<(), Failed> {
        self.bytes(packet.encode_to_vec())
    }

    fn bytes(&self, packet: Vec<u8>) -> Result<(), Failed> {
        self.outgoing.blocking_send(Ok(packet)).map_err(|_| Failed::There)
    }
}

/// The name of a list: another list has another one.
fn name(told: &[Vec<u8>]) -> String {
    let mut hash = Sha256::new();
    for packet in told {
        hash.update((packet.len() as u64).to_le_bytes());
        hash.update(packet);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
