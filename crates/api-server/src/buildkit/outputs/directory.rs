//! The files of an image as a client's directory gets them.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};

use archive::{Entry, Kind};
use buildkit_api::messages::{Packet, PacketKind, Stat};
use engine::ops::build::outputs::{ImageFiles, OWN_FILE_MODE, OutputError, OwnFile};
use tokio::sync::mpsc;

use super::super::modes;
use super::super::progress::now_nanos;

/// How many packets may wait for the client.
pub(super) const DEPTH: usize = 16;

/// How many bytes of a file go at once; fsutil takes as many.
const PIECE_BYTES: usize = 32 << 10;

/// The longest path, the kernel's.
const PATH_MAX: usize = 4096;

/// Files on their way.
pub(super) struct Sending {
    packets: mpsc::Sender<Packet>,
    /// A directory above all.
    top: Option<String>,
    time: Option<i64>,
    /// The paths of files, one behind the other, and where the one of each entry ends: a client may ask for any of them.
    paths: Vec<u8>,
    ends: Vec<u64>,
    /// Files beside those of the image that were not told yet, by name.
    waiting: VecDeque<OwnFile>,
    /// Those that were, by their numbers.
    own: BTreeMap<u32, Vec<u8>>,
    /// The names of all of them.
    names: Vec<String>,
}

impl Sending {
    pub(super) fn new(packets: mpsc::Sender<Packet>, top: Option<String>, time: Option<i64>) -> Sending {
        let (paths, ends, waiting, own, names) = Default::default();
        Sending { packets, top, time, paths, ends, waiting, own, names }
    }

    /// Tells all entries, then sends what is asked for until nothing more is. Blocks.
    ///
    /// A client that gives up is no failure of ours.
    pub(super) fn run(
        mut self,
        files: &ImageFiles,
        own: Result<Vec<OwnFile>, OutputError>,
        mut requests: mpsc::UnboundedReceiver<u32>,
    ) -> Result<(), OutputError> {
        if let Some(top) = self.top.clone() {
            let mode = buildkit_api::modes::DIRECTORY | 0o755;
            let modified_nanos = self.time.unwrap_or_default().saturating_mul(1_000_000_000);
            if self.tell(Stat { path: top, mode, modified_nanos, ..Stat::default() }, b"").is_err() {
                return Ok(());
            }
        }
        let listed = own.and_then(|own| {
            self.names = own.iter().map(|file| file.name.clone()).collect();
            self.waiting = own.into();
            files.list(&mut |entry| self.entry(&entry))
        });
        let asked = listed.and_then(|()| {
            self.own_before(None).map_err(archive::PackError::Write)?;
            self.send(Packet::default()).map_err(archive::PackError::Write)?;
            while let Some(id) = requests.blocking_recv() {
                match self.own.remove(&id) {
                    Some(bytes) => self.own_file(id, &bytes).map_err(archive::PackError::Write)?,
                    None => self.file(files, id)?,
                }
            }
            self.send(Packet { kind: PacketKind::End as i32, ..Packet::default() })
                .map_err(archive::PackError::Write)?;
            Ok(())
        });
        match asked {
            // Why is known to who sends.
            Err(OutputError::Pack(archive::PackError::Write(_))) => Ok(()),
            Err(err) => {
                let data = errdefs::chain(&err).into_bytes().into();
                // The client need not hear it.
                let _ = self.send(Packet { kind: PacketKind::Failure as i32, data, ..Packet::default() });
                Err(err)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Whether a file of ours is in the place of one of the image's.
    fn is_covered(&self, name: &[u8]) -> bool {
        self.names.iter().any(|own| own.as_bytes() == name)
    }

    /// Tells the files beside the image's that come before a path at the top, or all: clients want them in order.
    fn own_before(&mut self, path: Option<&[u8]>) -> io::Result<()> {
        while let Some(file) = self.waiting.front() {
            if path.is_some_and(|path| path < file.name.as_bytes()) {
                break;
            }
            let Some(OwnFile { name, bytes }) = self.waiting.pop_front() else { break };
            let top = self.top.as_ref().map(|top| format!("{top}/")).unwrap_or_default();
            let number = u32::try_from(self.ends.len()).unwrap_or(u32::MAX);
            let stat = Stat {
                path: format!("{top}{name}"),
                mode: OWN_FILE_MODE,
                size: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
                modified_nanos: self.time.map_or_else(now_nanos, |secs| secs.saturating_mul(1_000_000_000)),
                ..Stat::default()
            };
            self.tell(stat, b"")?;
            self.own.insert(number, bytes);
        }
        Ok(())
    }

    fn own_file(&self, id: u32, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(PIECE_BYTES).chain([&[][..]]) {
            let data = piece.to_vec().into();
            self.send(Packet { kind: PacketKind::Data as i32, id, data, stat: None })?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let first = entry.path.split(|byte| *byte == b'/').next().unwrap_or_default();
        if self.is_covered(first) {
            return Ok(());
        }
        self.own_before(Some(first))?;
        let mut stat = stat(entry);
        if let Some(top) = &self.top {
            stat.path = format!("{top}/{}", stat.path);
            if entry.kind == Kind::HardLink {
                stat.link = format!("{top}/{}", stat.link);
            }
        }
        let path: &[u8] = if entry.kind == Kind::File { &entry.path } else { b"" };
        self.tell(stat, path)
    }

    fn tell(&mut self, stat: Stat, path: &[u8]) -> io::Result<()> {
        self.paths.extend_from_slice(path);
        self.ends.push(self.paths.len() as u64);
        self.send(Packet { stat: Some(stat), ..Packet::default() })
    }

    /// The path of a file that was told and not asked for yet.
    fn take(&mut self, id: u32) -> Option<Vec<u8>> {
        let index = usize::try_from(id).ok()?;
        let end = usize::try_from(*self.ends.get(index)?).ok()?;
        let start = match index.checked_sub(1) {
            Some(before) => usize::try_from(self.ends[before]).ok()?,
            None => 0,
        };
        let path = self.paths[start..end].to_vec();
        // No path begins with it: what is asked for twice is not there any more.
        let first = self.paths[start..end].first_mut()?;
        *first = 0;
        (path[0] != 0 && path.len() <= PATH_MAX).then_some(path)
    }

    fn file(&mut self, files: &ImageFiles, id: u32) -> Result<(), OutputError> {
        let Some(path) = self.take(id) else {
            let source = io::Error::other(format!("invalid file id {id}"));
            return Err(archive::PackError::Read { path: String::new(), source }.into());
        };
        let failed = |source| archive::PackError::Read { path: String::from_utf8_lossy(&path).into_owned(), source };
        let mut file = files.read(&path).map_err(failed)?;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let count = match file.read(&mut piece) {
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(failed)?,
            };
            // Without bytes it is the file's end.
            let data = piece[..count].to_vec().into();
            let packet = Packet { kind: PacketKind::Data as i32, id, data, stat: None };
            self.send(packet).map_err(archive::PackError::Write)?;
            if count == 0 {
                return Ok(());
            }
        }
    }

    fn send(&self, packet: Packet) -> io::Result<()> {
        self.packets.blocking_send(packet).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// An entry as fsutil tells it (fsutil, stat.go).
fn stat(entry: &Entry) -> Stat {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Stat {
        path: text(&entry.path),
        mode: modes::of_entry(entry),
        uid: entry.uid,
        gid: entry.gid,
        size: i64::try_from(entry.size).unwrap_or(i64::MAX),
        modified_nanos: entry.mtime.secs.saturating_mul(1_000_000_000).saturating_add(entry.mtime.nanos.into()),
        link: text(&entry.link),
        major: entry.device.0.into(),
        minor: entry.device.1.into(),
        xattrs: entry.xattrs.iter().map(|(name, value)| (text(name), value.clone())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_asked_for_once() {
        let (packets, _receiver) = mpsc::channel(DEPTH);
        let mut sending = Sending::new(packets, None, None);
        for path in ["", "a", "", "b/c"] {
            sending.tell(Stat::default(), path.as_bytes()).unwrap();
        }
        assert_eq!(sending.take(3), Some(b"b/c".to_vec()));
        assert_eq!([sending.take(3), sending.take(0), sending.take(2), sending.take(4)], [const { None }; 4]);
        assert_eq!(sending.take(1), Some(b"a".to_vec()));
    }
}
