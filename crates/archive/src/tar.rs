//! Reads tar: v7, ustar, PAX (POSIX.1-2001 pax, "Extended Header"), GNU and star, with their bounds.
//!
//! Our own, because entries are applied straight from the chunks of whoever inflates them, without another copy, and
//! because a hostile header must cost bounded memory.

use std::io::{self, BufRead};

use crate::sparse::{self, Segment};

/// The unit of tar.
pub(crate) const BLOCK: usize = 512;

/// The longest extended headers and names of one entry together. Go's archive/tar, and so dockerd, has this limit for each.
const EXTENDED_MAX: u64 = 1024 * 1024;

/// The longest path of an entry: PATH_MAX, beyond which no program could open it by name.
const PATH_MAX: usize = 4096;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of a file of this archive.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// A point in time, relative to 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Seconds, rounded down.
    pub secs: i64,
    /// Nanoseconds above that, less than a billion.
    pub nanos: u32,
}

/// The header of one entry, extended headers merged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As it stands in the archive; see [`clean_path`].
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// What a link points to.
    pub link: Vec<u8>,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change.
    pub mtime: Time,
    /// The file's length in bytes, holes included.
    pub size: u64,
    /// A device's numbers.
    pub device: (u32, u32),
    /// Extended attributes, names without `SCHILY.xattr.`.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// For a sparse file, where the data in the archive belongs.
    pub segments: Option<Vec<Segment>>,
}

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// Whoever gives the bytes failed, or they cannot be inflated.
    #[error("read archive")]
    Read {
        /// Why.
        source: io::Error,
    },
    /// It ends within an entry.
    #[error("unexpected EOF")]
    Truncated,
    /// A header is not what tar allows. The text is Docker's, which does not say why.
    #[error("archive/tar: invalid tar header")]
    Header {
        /// What about it, for the log.
        reason: &'static str,
    },
    /// A kind of entry that has no meaning here.
    #[error("unhandled tar header type {0}")]
    UnknownKind(u8),
}

impl TarError {
    /// Whether the archive is at fault, not who gives its bytes.
    pub fn is_invalid(&self) -> bool {
        !matches!(self, TarError::Read { .. })
    }
}

pub(crate) fn bad(reason: &'static str) -> TarError {
    TarError::Header { reason }
}

/// A name as components from the root, or `None` if it climbs out of it. The root itself is empty.
pub fn clean_path(path: &[u8]) -> Option<Vec<u8>> {
    let mut clean: Vec<&[u8]> = Vec::new();
    for component in path.split(|b| *b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(clean.pop()?),
            name => clean.push(name),
        }
    }
    Some(clean.join(&b'/'))
}

/// Reads one entry after the other from a stream.
#[derive(Debug)]
pub struct TarReader<R> {
    source: R,
    /// Bytes of the present entry's data that nobody took yet.
    remaining: u64,
    /// Bytes between that data and the next header.
    padding: u64,
    ended: bool,
}

/// What extended headers said about the entry that follows them.
#[derive(Default)]
pub(crate) struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Time>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) sparse: sparse::Pax,
}

impl<R: BufRead> TarReader<R> {
    /// Reads from `source`, which is not compressed.
    pub fn new(source: R) -> TarReader<R> {
        TarReader { source, remaining: 0, padding: 0, ended: false }
    }

    /// Where the bytes come from; who takes some of them breaks the archive.
    pub fn source(&mut self) -> &mut R {
        &mut self.source
    }

    /// The next entry; what was left of the present one's data is skipped. `None` at the end of the archive.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        self.skip_data()?;
        let (mut extended, mut extended_bytes) = (Extended::default(), 0);
        while let Some(block) = self.header()? {
            let flag = block[156];
            if !matches!(flag, b'x' | b'g' | b'L' | b'K') {
                return self.entry(&block, extended).map(Some);
            }
            let size = number(&block[124..136])?;
            // Repeated without end they would collect in memory, each of them small. Those for all that follows are dropped.
            extended_bytes = if flag == b'g' { extended_bytes } else { extended_bytes + BLOCK as u64 };
            let left = EXTENDED_MAX.checked_sub(extended_bytes);
            let size = u64::try_from(size).ok().filter(|size| left.is_some_and(|left| *size <= left));
            let size = size.ok_or(bad("extended headers too long"))?;
            let text = self.extended_text(size)?;
            extended_bytes = if flag == b'g' { extended_bytes } else { extended_bytes + size };
            match flag {
                b'x' => extended.parse(&text)?,
                b'L' => extended.path = Some(until_nul(&text).to_vec()),
                b'K' => extended.link = Some(until_nul(&text).to_vec()),
                // Defaults for all that follows; dockerd ignores them, too.
                _ => {}
            }
        }
        Ok(None)
    }

    /// What can be had of the entry's data at once; empty at its end. Give back how much was used to [`Self::consume`].
    pub fn chunk(&mut self) -> Result<&[u8], TarError> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let available = loop {
            match self.source.fill_buf() {
                Ok(bytes) => break bytes.len(),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(TarError::Read { source }),
            }
        };
        if available == 0 {
            return Err(TarError::Truncated);
        }
        let length = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(available);
        // Filled already: this only lends the same bytes again, which the borrow checker cannot see through the loop.
        let bytes = self.source.fill_buf().map_err(|source| TarError::Read { source })?;
        Ok(&bytes[..length])
    }

    /// Marks `count` bytes of the last [`Self::chunk`] as used.
    pub fn consume(&mut self, count: usize) {
        self.source.consume(count);
        self.remaining -= count as u64;
    }

    /// Bytes of the present entry's data in the archive that are not consumed.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Reads whatever follows the archive's end, so that all bytes are hashed.
    pub fn drain(&mut self) -> Result<(), TarError> {
        loop {
            let length = self.source.fill_buf().map_err(|source| TarError::Read { source })?.len();
            if length == 0 {
                return Ok(());
            }
            self.source.consume(length);
        }
    }

    fn skip_data(&mut self) -> Result<(), TarError> {
        self.skip_remaining()?;
        self.remaining = std::mem::take(&mut self.padding);
        match self.skip_remaining() {
            // Docker's client leaves out what follows the last byte where it adds a Dockerfile to a context, and Go's
            // reader takes that for the end.
            Err(TarError::Truncated) => {
                (self.remaining, self.ended) = (0, true);
                Ok(())
            }
            skipped => skipped,
        }
    }

    fn skip_remaining(&mut self) -> Result<(), TarError> {
        loop {
            let length = self.chunk()?.len();
            if length == 0 {
                return Ok(());
            }
            self.consume(length);
        }
    }

    fn extended_text(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        let mut text = Vec::new();
        self.remaining = size;
        self.padding = padding(size);
        while self.remaining > 0 {
            text.extend_from_slice(self.chunk()?);
            let length = text.len() - (size - self.remaining) as usize;
            self.consume(length);
        }
        self.skip_data()?;
        Ok(text)
    }

    /// The next header block; `None` at the end, which is a block of zeros or nothing at all.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        if self.ended || !self.block(&mut block)? || block == [0; BLOCK] {
            self.ended = true;
            return Ok(None);
        }
        match has_checksum(&block)? {
            true => Ok(Some(block)),
            false => Err(bad("wrong checksum")),
        }
    }

    /// Fills a block; `false` if the stream ends before its first byte.
    pub(crate) fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, TarError> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(TarError::Truncated),
                Ok(count) => filled += count,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(TarError::Read { source }),
            }
        }
        Ok(true)
    }

    fn entry(&mut self, block: &[u8; BLOCK], extended: Extended) -> Result<Entry, TarError> {
        let flag = block[156];
        let path = match &extended.path {
            Some(path) => path.clone(),
            None => header_path(block),
        };
        let link = extended.link.unwrap_or_else(|| until_nul(&block[157..257]).to_vec());
        if path.len() > PATH_MAX || link.len() > PATH_MAX {
            return Err(bad("name too long"));
        }
        if path.contains(&0) || link.contains(&0) {
            return Err(bad("NUL in a name"));
        }
        let kind = kind(flag, &path)?;
        let has_data = kind == Kind::File;
        let size = match extended.size {
            Some(size) => size,
            None => u64::try_from(number(&block[124..136])?).map_err(|_| bad("negative size"))?,
        };
        self.remaining = if has_data { size } else { 0 };
        self.padding = padding(self.remaining);
        let id = |given: Option<u64>, field: &[u8]| match given {
            Some(id) => u32::try_from(id).map_err(|_| bad("owner out of range")),
            None => u32::try_from(number(field)?).map_err(|_| bad("owner out of range")),
        };
        let device = |field: &[u8]| u32::try_from(number(field)?).map_err(|_| bad("device out of range"));
        let is_device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
        let mut entry = Entry {
            path,
            kind,
            link,
            mode: (number(&block[100..108])? & 0o7777) as u32,
            uid: id(extended.uid, &block[108..116])?,
            gid: id(extended.gid, &block[116..124])?,
            mtime: match extended.mtime {
                Some(mtime) => mtime,
                None => Time { secs: number(&block[136..148])?, nanos: 0 },
            },
            size: self.remaining,
            device: if is_device { (device(&block[329..337])?, device(&block[337..345])?) } else { (0, 0) },
            xattrs: extended.xattrs,
            segments: None,
        };
        if has_data {
            sparse::read(self, flag, block, extended.sparse, &mut entry)?;
        }
        Ok(entry)
    }
}

impl Extended {
    /// `LENGTH KEY=VALUE\n` after one another; LENGTH counts the whole record.
    fn parse(&mut self, mut text: &[u8]) -> Result<(), TarError> {
        while !text.is_empty() {
            let space = text.iter().position(|b| *b == b' ').ok_or(bad("PAX record without length"))?;
            let length = decimal(&text[..space])?;
            let length = usize::try_from(length).ok().filter(|length| (space + 3..=text.len()).contains(length));
            let (record, rest) = text.split_at(length.ok_or(bad("PAX record of wrong length"))?);
            let record = record[space + 1..].strip_suffix(b"\n").ok_or(bad("PAX record without end"))?;
            let equals = record.iter().position(|b| *b == b'=').ok_or(bad("PAX record without value"))?;
            self.record(&record[..equals], &record[equals + 1..])?;
            text = rest;
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
            if name == b"name" {
                self.path = Some(value.to_vec());
            }
            return self.sparse.record(name, value);
        }
        // An empty value takes an earlier one back.
        let given = (!value.is_empty()).then_some(value);
        match key {
            b"path" if self.sparse.is_sparse() && self.path.is_some() => {}
            b"path" => self.path = given.map(<[u8]>::to_vec),
            b"linkpath" => self.link = given.map(<[u8]>::to_vec),
            b"size" => self.size = given.map(decimal).transpose()?,
            b"uid" => self.uid = given.map(decimal).transpose()?,
            b"gid" => self.gid = given.map(decimal).transpose()?,
            b"mtime" => self.mtime = given.map(time).transpose()?,
            _ => {}
        }
        Ok(())
    }
}

fn has_checksum(block: &[u8; BLOCK]) -> Result<bool, TarError> {
    let stored = number(&block[148..156])?;
    let sum = |byte: fn(u8) -> i64| -> i64 {
        block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { byte(*b) }).sum()
    };
    // Old programs summed signed bytes.
    Ok(stored == sum(i64::from) || stored == sum(|b| i64::from(b as i8)))
}

/// Whether a stream that begins so is a tar, or an empty one.
pub fn looks_like_tar(start: &[u8]) -> bool {
    let Some(block) = start.first_chunk::<BLOCK>() else { return false };
    *block == [0; BLOCK] || matches!(has_checksum(block), Ok(true))
}

fn kind(flag: u8, path: &[u8]) -> Result<Kind, TarError> {
    Ok(match flag {
        // Before ustar a directory was a file whose name ends in a slash.
        0 | b'0' if path.ends_with(b"/") => Kind::Directory,
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => return Err(TarError::UnknownKind(other)),
    })
}

fn header_path(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&block[..100]);
    // GNU's magic is `ustar  `, and it has other fields where ustar has the prefix; star's prefix is shorter.
    let prefix = match (&block[257..263], &block[508..512]) {
        (b"ustar\0", b"tar\0") => until_nul(&block[345..476]),
        (b"ustar\0", _) => until_nul(&block[345..500]),
        _ => b"",
    };
    match prefix {
        b"" => name.to_vec(),
        prefix => [prefix, name].join(&b'/'),
    }
}

pub(crate) fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or(field)
}

/// An octal number, or a big-endian one if the first bit says so (GNU tar, "base-256").
pub(crate) fn number(field: &[u8]) -> Result<i64, TarError> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (i, byte) in field.iter().enumerate() {
            let byte = if i == 0 && !negative { byte & 0x7f } else { *byte };
            value = (value << 8) | i128::from(byte);
        }
        return i64::try_from(value).map_err(|_| bad("number out of range"));
    }
    let digits = field.iter().skip_while(|b| matches!(b, b' ' | 0)).take_while(|b| !matches!(b, b' ' | 0));
    let mut value: i64 = 0;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return Err(bad("not an octal number"));
        }
        value = value.checked_mul(8).ok_or(bad("number out of range"))? + i64::from(digit - b'0');
    }
    Ok(value)
}

pub(crate) fn decimal(text: &[u8]) -> Result<u64, TarError> {
    let text = std::str::from_utf8(text).map_err(|_| bad("not a decimal number"))?;
    match text.starts_with('+') {
        true => Err(bad("not a decimal number")),
        false => text.parse().map_err(|_| bad("not a decimal number")),
    }
}

/// `[-]SECONDS[.FRACTION]`, of any precision.
fn time(text: &[u8]) -> Result<Time, TarError> {
    let text = std::str::from_utf8(text).map_err(|_| bad("not a time"))?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let secs = i64::try_from(decimal(whole.as_bytes())?).map_err(|_| bad("not a time"))?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad("not a time"));
    }
    let nanos = fraction.bytes().chain(std::iter::repeat(b'0')).take(9).fold(0, |n, b| n * 10 + u32::from(b - b'0'));
    Ok(match (negative, nanos) {
        (false, _) => Time { secs, nanos },
        (true, 0) => Time { secs: -secs, nanos: 0 },
        (true, _) => Time { secs: -secs - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests;
