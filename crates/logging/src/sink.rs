//! Where the writing thread puts encoded records: a file, or a server. Allocates nothing.

use rustix::io::Errno;

use crate::file::LogFile;
use crate::packed::Packer;
use crate::remote::{Remote, Sent};

/// See the page.
pub(crate) enum Sink {
    File(LogFile),
    Remote(Remote),
}

/// How far a write came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Bytes of the buffer that are done with.
    pub(crate) bytes: usize,
    /// Records among them that nobody takes.
    pub(crate) refused: u64,
}

impl Sink {
    /// Writes from the front of `records`, which begin with a record if `at_start`.
    pub(crate) fn write(
        &mut self,
        records: &[u8],
        at_start: bool,
        packer: Option<&mut Packer>,
    ) -> Result<Written, Errno> {
        match self {
            Sink::File(file) => file.write(records, at_start, packer).map(|bytes| Written { bytes, refused: 0 }),
            Sink::Remote(remote) => {
                let Some(message) = first(records) else {
                    return Ok(Written { bytes: records.len(), refused: 0 });
                };
                Ok(match remote.send(message)? {
                    Sent::Whole(bytes) => Written { bytes: 4 + bytes, refused: 0 },
                    Sent::Part => Written::default(),
                    Sent::Refused(bytes) => Written { bytes: 4 + bytes, refused: 1 },
                })
            }
        }
    }

    /// How many records are in `records`, of which the first may be the rest of one.
    pub(crate) fn count(&self, mut records: &[u8]) -> u64 {
        match self {
            Sink::File(_) => memchr::memchr_iter(b'\n', records).count() as u64,
            Sink::Remote(_) => {
                let mut count = 0;
                while let Some(message) = first(records) {
                    records = &records[4 + message.len()..];
                    count += 1;
                }
                count
            }
        }
    }

    /// Whether a file waits to be compressed.
    pub(crate) fn wants_packing(&self) -> bool {
        matches!(self, Sink::File(file) if file.wants_packing())
    }

    /// Goes on with that.
    pub(crate) fn pack(&mut self, packer: &mut Packer) {
        if let Sink::File(file) = self {
            file.pack(packer);
        }
    }
}

fn first(records: &[u8]) -> Option<&[u8]> {
    let (length, rest) = records.split_first_chunk::<4>()?;
    rest.get(..u32::from_le_bytes(*length) as usize)
}
