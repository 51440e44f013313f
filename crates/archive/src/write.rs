//! Writes tar: ustar, and PAX records for what does not fit into it.

use std::io::{self, Write};

use crate::sparse::Segment;
use crate::tar::{BLOCK, Entry, Kind, Time, padding};

/// The longest name and link of a ustar header.
const NAME_MAX: usize = 100;

/// What seven and eleven octal digits hold.
const OCTAL_7_MAX: u64 = 0o7_777_777;
const OCTAL_11_MAX: u64 = 0o77_777_777_777;

/// Writes one entry after the other.
#[derive(Debug)]
pub struct TarWriter<W> {
    out: W,
    /// Bytes of the present entry's data that did not come yet.
    remaining: u64,
    padding: usize,
}

impl<W: Write> TarWriter<W> {
    /// Writes to `out`, in pieces of any size: buffer it where that costs.
    pub fn new(out: W) -> TarWriter<W> {
        TarWriter { out, remaining: 0, padding: 0 }
    }

    /// Begins an entry. The one before must have got all its data: `size` bytes, or those of its segments.
    ///
    /// A directory's path ends in a slash, whether or not `entry` says so.
    pub fn begin(&mut self, entry: &Entry) -> io::Result<()> {
        self.end_data()?;
        let map = entry.segments.as_deref().filter(|_| entry.kind == Kind::File).map(sparse_map);
        let stored = match (&entry.segments, &map) {
            (Some(segments), Some(map)) => {
                map.len() as u64 + segments.iter().map(|segment| segment.length).sum::<u64>()
            }
            _ if entry.kind == Kind::File => entry.size,
            _ => 0,
        };
        let mut path = entry.path.clone();
        if entry.kind == Kind::Directory && !path.ends_with(b"/") {
            path.push(b'/');
        }
        let mut records = Records::default();
        if map.is_some() {
            records.add(b"GNU.sparse.major", b"1");
            records.add(b"GNU.sparse.minor", b"0");
            records.add(b"GNU.sparse.name", &path);
            records.add(b"GNU.sparse.realsize", entry.size.to_string().as_bytes());
            // What programs that know nothing of holes call it.
            path = [b"GNUSparseFile.0/", path.rsplit(|b| *b == b'/').next().unwrap_or_default()].concat();
        }
        let header = header(entry, &path, stored, &mut records);
        if !records.0.is_empty() {
            self.extended(&records.0)?;
        }
        self.out.write_all(&header)?;
        self.remaining = stored;
        self.padding = padding(stored) as usize;
        match map {
            Some(map) => self.data(&map),
            None => Ok(()),
        }
    }

    /// Data of the present entry.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        self.remaining = self.remaining.checked_sub(length).ok_or(io::ErrorKind::InvalidInput)?;
        self.out.write_all(bytes)
    }

    /// Writes zeros instead of the data that is missing: for a file that shrank while it was read.
    pub fn fill(&mut self) -> io::Result<()> {
        let zeros = [0; 16 * BLOCK];
        while self.remaining > 0 {
            let length = zeros.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
            self.data(&zeros[..length])?;
        }
        Ok(())
    }

    /// Ends the archive, and gives back what it was written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_data()?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn end_data(&mut self) -> io::Result<()> {
        if self.remaining > 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the last entry lacks data"));
        }
        self.out.write_all(&[0; BLOCK][..std::mem::take(&mut self.padding)])
    }

    fn extended(&mut self, records: &[u8]) -> io::Result<()> {
        let mut block = Header::new(b'x');
        // Nobody looks at the name; a fixed one keeps archives the same.
        block.text(0..100, b"PaxHeaders.0/entry");
        block.number(100..108, 0o644);
        block.number(124..136, records.len() as u64);
        self.out.write_all(&block.finish())?;
        self.out.write_all(records)?;
        self.out.write_all(&[0; BLOCK][..padding(records.len() as u64) as usize])
    }
}

/// The header of an entry; what it cannot say goes into the records.
fn header(entry: &Entry, path: &[u8], stored: u64, records: &mut Records) -> [u8; BLOCK] {
    let flag = match entry.kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    };
    let mut block = Header::new(flag);
    let fits = |text: &[u8]| text.len() <= NAME_MAX && text.is_ascii();
    if !fits(path) && entry.segments.is_none() {
        records.add(b"path", path);
    }
    block.text(0..100, path);
    if matches!(entry.kind, Kind::HardLink | Kind::Symlink) {
        if !fits(&entry.link) {
            records.add(b"linkpath", &entry.link);
        }
        block.text(157..257, &entry.link);
    }
    let mut number = |at: std::ops::Range<usize>, key: &[u8], value: u64| {
        let max = if at.len() == 8 { OCTAL_7_MAX } else { OCTAL_11_MAX };
        if value > max {
            records.add(key, value.to_string().as_bytes());
        }
        block.number(at, if value > max { 0 } else { value });
    };
    number(108..116, b"uid", entry.uid.into());
    number(116..124, b"gid", entry.gid.into());
    number(124..136, b"size", stored);
    let seconds = u64::try_from(entry.mtime.secs).unwrap_or(u64::MAX);
    if entry.mtime.nanos != 0 || seconds > OCTAL_11_MAX {
        records.add(b"mtime", time(entry.mtime).as_bytes());
    }
    block.number(136..148, if seconds > OCTAL_11_MAX { 0 } else { seconds });
    block.number(100..108, entry.mode.into());
    let is_device = matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice);
    // Twelve and twenty bits of the kernel fit always.
    block.number(329..337, if is_device { entry.device.0.into() } else { 0 });
    block.number(337..345, if is_device { entry.device.1.into() } else { 0 });
    for (name, value) in &entry.xattrs {
        records.add(&[b"SCHILY.xattr.", &name[..]].concat(), value);
    }
    block.finish()
}

/// A header block in the making.
struct Header([u8; BLOCK]);

impl Header {
    fn new(flag: u8) -> Header {
        let mut block = [0; BLOCK];
        block[156] = flag;
        block[257..265].copy_from_slice(b"ustar\x0000");
        let mut header = Header(block);
        for field in [100..108, 108..116, 116..124, 124..136, 136..148, 329..337, 337..345] {
            header.number(field, 0);
        }
        header
    }

    /// What is too long is cut: a record has the whole.
    fn text(&mut self, at: std::ops::Range<usize>, text: &[u8]) {
        let length = text.len().min(at.len());
        self.0[at][..length].copy_from_slice(&text[..length]);
    }

    /// Octal digits and a NUL.
    fn number(&mut self, at: std::ops::Range<usize>, value: u64) {
        let digits = format!("{value:0width$o}", width = at.len() - 1);
        self.text(at, digits.as_bytes());
    }

    fn finish(mut self) -> [u8; BLOCK] {
        self.0[148..156].copy_from_slice(b"        ");
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        self.text(148..156, format!("{sum:06o}\0").as_bytes());
        self.0
    }
}

/// PAX records: `LENGTH KEY=VALUE\n`, where LENGTH counts itself.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.0.extend_from_slice(length.to_string().as_bytes());
        self.0.push(b' ');
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }
}

/// `[-]SECONDS[.FRACTION]`, without zeros at the end.
fn time(time: Time) -> String {
    // Rounded down, as the reader has it: -1.25 is -2 and 0.75.
    let (sign, secs, nanos) = match (time.secs < 0, time.nanos) {
        (true, 0) => ("-", time.secs.unsigned_abs(), 0),
        (true, nanos) => ("-", (time.secs + 1).unsigned_abs(), 1_000_000_000 - nanos),
        (false, nanos) => ("", time.secs.unsigned_abs(), nanos),
    };
    match nanos {
        0 => format!("{sign}{secs}"),
        nanos => format!("{sign}{secs}.{}", format!("{nanos:09}").trim_end_matches('0')),
    }
}

/// PAX 1.0: a count and pairs of offset and length, a line each, padded to a block.
fn sparse_map(segments: &[Segment]) -> Vec<u8> {
    let mut text = format!("{}\n", segments.len());
    for segment in segments {
        text.push_str(&format!("{}\n{}\n", segment.offset, segment.length));
    }
    let mut map = text.into_bytes();
    map.resize(map.len() + padding(map.len() as u64) as usize, 0);
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::TarReader;

    fn entry(path: &str, kind: Kind) -> Entry {
        Entry {
            path: path.into(),
            kind,
            link: Vec::new(),
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Time { secs: 12, nanos: 0 },
            size: 0,
            device: (0, 0),
            xattrs: Vec::new(),
            segments: None,
        }
    }

    fn entries() -> Vec<Entry> {
        let long = "d/".repeat(80);
        vec![
            entry("a/", Kind::Directory),
            Entry { size: 700, mode: 0o4755, uid: 1000, gid: 5, ..entry("a/file", Kind::File) },
            Entry { link: b"a/file".to_vec(), ..entry("a/link", Kind::HardLink) },
            Entry { link: "ü".repeat(90).into_bytes(), ..entry("sym", Kind::Symlink) },
            Entry { device: (300, 70_000), ..entry("dev", Kind::BlockDevice) },
            entry("fifo", Kind::Fifo),
            Entry { uid: u32::MAX, gid: 3_000_000, ..entry(&format!("{long}x"), Kind::File) },
            Entry { mtime: Time { secs: -2, nanos: 750_000_000 }, ..entry("old", Kind::File) },
            Entry { mtime: Time { secs: 1 << 40, nanos: 5 }, ..entry("late", Kind::File) },
            Entry { xattrs: vec![(b"user.a=b".to_vec(), b"\0\n".to_vec())], ..entry("x", Kind::File) },
            Entry {
                size: 1 << 40,
                segments: Some(vec![Segment { offset: 0, length: 5 }, Segment { offset: 1 << 30, length: 600 }]),
                ..entry(&format!("{long}holes"), Kind::File)
            },
            Entry { size: 3, segments: Some(Vec::new()), ..entry("hole", Kind::File) },
        ]
    }

    /// What the value of a xattr's name may not hold: the reader takes the first `=`.
    fn readable(mut entry: Entry) -> Entry {
        entry.xattrs.iter_mut().for_each(|(name, _)| name.retain(|b| *b != b'='));
        entry
    }

    #[test]
    fn what_is_written_is_read() {
        let entries: Vec<Entry> = entries().into_iter().map(readable).collect();
        let mut tar = TarWriter::new(Vec::new());
        for entry in &entries {
            tar.begin(entry).unwrap();
            tar.fill().unwrap();
        }
        let bytes = tar.finish().unwrap();
        assert_eq!(bytes.len() % BLOCK, 0);
        let mut reader = TarReader::new(&bytes[..]);
        for entry in &entries {
            assert_eq!(reader.next_entry().unwrap().as_ref(), Some(entry));
        }
        assert_eq!(reader.next_entry().unwrap(), None);
    }

    #[test]
    fn others_read_it_too() {
        let mut tar = TarWriter::new(Vec::new());
        let plain = entries().into_iter().filter(|entry| entry.segments.is_none() && entry.xattrs.is_empty());
        for entry in plain {
            tar.begin(&entry).unwrap();
            tar.fill().unwrap();
        }
        let bytes = tar.finish().unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let paths: Vec<Vec<u8>> =
            archive.entries().unwrap().map(|entry| entry.unwrap().path_bytes().into_owned()).collect();
        assert_eq!(paths.len(), 9);
        assert!(paths[6].ends_with(b"d/x"));
    }

    #[test]
    fn too_much_and_too_little_data_are_refused() {
        let mut tar = TarWriter::new(Vec::new());
        tar.begin(&Entry { size: 2, ..entry("f", Kind::File) }).unwrap();
        assert!(tar.data(b"abc").is_err());
        tar.data(b"a").unwrap();
        assert!(tar.begin(&entry("g", Kind::File)).is_err());
        tar.fill().unwrap();
        tar.begin(&entry("g", Kind::File)).unwrap();
    }
}
