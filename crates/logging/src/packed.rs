//! Rotated files, compressed: gzip (RFC 1952), with the identity of the file that was compressed in the header, so that a
//! reader which holds that one finds its place.
//!
//! ```text
//!   1f 8b 08 04, time 0, level, unix | 24: "LS" 20: device 8, inode 8, birth 4 | deflate | CRC-32, length
//! ```
//! The writing side allocates nothing after [`Packer::new`]: it works on the log's second thread.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

/// Bytes that are read, and written, at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// The fixed part of the header, and the name of our field.
const HEADER: [u8; 16] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 4, 3, 24, 0, b'L', b'S', 20, 0];

/// Which file it is, or was before it was compressed: numbers of inodes are used again, so its birth counts, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    born: u32,
}

impl Identity {
    /// Of an open file.
    pub(crate) fn of(file: impl AsFd) -> Result<Identity, Errno> {
        let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
        let device = u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor);
        // Nanoseconds and seconds folded: only to tell two files apart that had one number.
        let born = stat.stx_btime.tv_nsec ^ stat.stx_btime.tv_sec as u32;
        Ok(Identity { device, inode: stat.stx_ino, born })
    }

    /// Of the file that a compressed one was; `None` if it is not ours. Reads its header from where the file stands.
    pub(crate) fn packed(file: &mut impl Read) -> io::Result<Option<Identity>> {
        let mut header = [0; HEADER.len() + 20];
        match file.read_exact(&mut header) {
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let Some((device, rest)) = header[HEADER.len()..].split_first_chunk::<8>() else { return Ok(None) };
        let Some((inode, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
        let Some((born, _)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let identity = Identity {
            device: u64::from_le_bytes(*device),
            inode: u64::from_le_bytes(*inode),
            born: u32::from_le_bytes(*born),
        };
        Ok((header[..4] == HEADER[..4] && header[10..16] == HEADER[10..]).then_some(identity))
    }

    fn bytes(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&self.device.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.inode.to_le_bytes());
        bytes[16..].copy_from_slice(&self.born.to_le_bytes());
        bytes
    }
}

/// Compresses a file piece by piece.
pub(crate) struct Packer {
    deflate: Compress,
    crc: Crc,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// A file that is being compressed.
pub(crate) struct Packing {
    from: OwnedFd,
    to: OwnedFd,
}

/// How far a compression is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packed {
    More,
    Whole,
}

impl Packer {
    /// Takes all the memory that it ever needs.
    pub(crate) fn new() -> Packer {
        let (input, output) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
        Packer { deflate: Compress::new(Compression::fast(), false), crc: Crc::new(), input, output }
    }

    /// Opens `from`, and `to` for its compressed form.
    pub(crate) fn begin(&mut self, from: &CStr, to: &CStr, mode: Mode) -> Result<Packing, Errno> {
        let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let from = rustix::fs::openat(CWD, from, OFlags::RDONLY | flags, Mode::empty())?;
        let create = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let to = rustix::fs::openat(CWD, to, create | flags, mode)?;
        self.deflate.reset();
        self.crc.reset();
        write_all(&to, &HEADER)?;
        write_all(&to, &Identity::of(&from)?.bytes())?;
        Ok(Packing { from, to })
    }

    /// Goes on with the next piece.
    pub(crate) fn step(&mut self, packing: &Packing) -> Result<Packed, Errno> {
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&packing.from, &mut self.input[..]))?;
        let flush = if read == 0 { FlushCompress::Finish } else { FlushCompress::None };
        self.crc.update(&self.input[..read]);
        let mut rest = &self.input[..read];
        loop {
            let (before_in, before_out) = (self.deflate.total_in(), self.deflate.total_out());
            // Both are pieces of ours: it has nothing to complain of.
            let status = self.deflate.compress(rest, &mut self.output, flush).map_err(|_| Errno::INVAL)?;
            let made = (self.deflate.total_out() - before_out) as usize;
            write_all(&packing.to, &self.output[..made])?;
            rest = &rest[(self.deflate.total_in() - before_in) as usize..];
            match status {
                Status::StreamEnd => break,
                _ if read > 0 && rest.is_empty() && made < self.output.len() => return Ok(Packed::More),
                _ => {}
            }
        }
        write_all(&packing.to, &self.crc.sum().to_le_bytes())?;
        write_all(&packing.to, &self.crc.amount().to_le_bytes())?;
        Ok(Packed::Whole)
    }
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(file, bytes))?;
        bytes = &bytes[written..];
    }
    Ok(())
}

/// A compressed file from its beginning, with the identity of what it was.
pub(crate) fn open(mut file: File) -> io::Result<(Option<Identity>, flate2::read::GzDecoder<File>)> {
    use std::io::Seek;
    let identity = Identity::packed(&mut file)?;
    file.rewind()?;
    Ok((identity, flate2::read::GzDecoder::new(file)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn a_packed_file_knows_what_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("log.1"), dir.path().join("log.1.gz"));
        let names = [&from, &to].map(|path| CString::new(path.as_os_str().as_bytes()).unwrap());
        let mut packer = Packer::new();
        for lines in [0, 3, 200_000] {
            let text: String = (0..lines).map(|number| format!("line {number}\n")).collect();
            std::fs::write(&from, &text).unwrap();
            let packing = packer.begin(&names[0], &names[1], Mode::from_raw_mode(0o640)).unwrap();
            while packer.step(&packing).unwrap() == Packed::More {}
            let (identity, mut unpacked) = open(File::open(&to).unwrap()).unwrap();
            assert_eq!(identity, Some(Identity::of(File::open(&from).unwrap()).unwrap()));
            let mut back = String::new();
            unpacked.read_to_string(&mut back).unwrap();
            assert!(back == text, "{lines}");
        }
        assert!(to.metadata().unwrap().len() < 1_000_000);
        assert_eq!(Identity::packed(&mut &b"\x1f\x8b"[..]).unwrap(), None);
    }
}
