//! Sparse files: GNU's old format and the three PAX formats (GNU tar manual, "Storing Sparse Files").

use std::io::BufRead;

use crate::tar::{BLOCK, Entry, TarError, TarReader, bad, decimal, number};

/// The most segments of one file: 4 MiB of memory. A file of 1 GiB with a hole behind every second page has half as many.
const SEGMENTS_MAX: usize = 256 * 1024;

/// A run of data within a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins in the file.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

/// What `GNU.sparse.*` records said.
#[derive(Default)]
pub(crate) struct Pax {
    major: Option<u64>,
    size: Option<u64>,
    numbers: Vec<u64>,
}

impl Pax {
    pub(crate) fn is_sparse(&self) -> bool {
        self.size.is_some() || self.major.is_some()
    }

    pub(crate) fn record(&mut self, name: &[u8], value: &[u8]) -> Result<(), TarError> {
        match name {
            b"major" => self.major = Some(decimal(value)?),
            // 1.0 says realsize, 0.x say size.
            b"realsize" | b"size" => self.size = Some(decimal(value)?),
            b"offset" | b"numbytes" => self.push(decimal(value)?)?,
            b"map" => {
                for number in value.split(|b| *b == b',') {
                    self.push(decimal(number)?)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn push(&mut self, number: u64) -> Result<(), TarError> {
        if self.numbers.len() >= 2 * SEGMENTS_MAX {
            return Err(bad("sparse map too long"));
        }
        self.numbers.push(number);
        Ok(())
    }
}

/// Gives `entry` its real size and its segments, if it is sparse. Reads a map that lies before the data.
pub(crate) fn read<R: BufRead>(
    tar: &mut TarReader<R>,
    flag: u8,
    header: &[u8; BLOCK],
    pax: Pax,
    entry: &mut Entry,
) -> Result<(), TarError> {
    let (size, segments) = if flag == b'S' {
        old_gnu(tar, header)?
    } else if let Some(size) = pax.size {
        let numbers = if pax.major == Some(1) { map_in_data(tar)? } else { pax.numbers };
        (size, pairs(&numbers)?)
    } else {
        return Ok(());
    };
    check(size, &segments, tar.remaining())?;
    (entry.size, entry.segments) = (size, Some(segments));
    Ok(())
}

fn check(size: u64, segments: &[Segment], stored: u64) -> Result<(), TarError> {
    let (mut end, mut total) = (0, 0u64);
    for segment in segments {
        if segment.offset < end {
            return Err(bad("sparse map out of order"));
        }
        end = segment.offset.checked_add(segment.length).ok_or(bad("sparse map out of range"))?;
        total = total.checked_add(segment.length).ok_or(bad("sparse map out of range"))?;
    }
    if end > size || total != stored || size > i64::MAX as u64 {
        return Err(bad("sparse map does not fit the file"));
    }
    Ok(())
}

fn pairs(numbers: &[u64]) -> Result<Vec<Segment>, TarError> {
    if !numbers.len().is_multiple_of(2) {
        return Err(bad("sparse map has an odd end"));
    }
    Ok(numbers.chunks_exact(2).map(|pair| Segment { offset: pair[0], length: pair[1] }).collect())
}

/// Four segments in the header, then blocks of 21 that lie before the data and are not counted in its size.
fn old_gnu<R: BufRead>(tar: &mut TarReader<R>, header: &[u8; BLOCK]) -> Result<(u64, Vec<Segment>), TarError> {
    let unsigned = |field: &[u8]| u64::try_from(number(field)?).map_err(|_| bad("negative number in sparse map"));
    let size = unsigned(&header[483..495])?;
    let mut segments = Vec::new();
    let mut collect = |fields: &[u8]| -> Result<(), TarError> {
        for field in fields.chunks_exact(24) {
            if field[0] == 0 {
                continue;
            }
            if segments.len() == SEGMENTS_MAX {
                return Err(bad("sparse map too long"));
            }
            segments.push(Segment { offset: unsigned(&field[..12])?, length: unsigned(&field[12..])? });
        }
        Ok(())
    };
    collect(&header[386..482])?;
    let mut more = header[482] != 0;
    while more {
        let mut block = [0; BLOCK];
        if !tar.block(&mut block)? {
            return Err(TarError::Truncated);
        }
        collect(&block[..504])?;
        more = block[504] != 0;
    }
    Ok((size, segments))
}

/// PAX 1.0: decimal lines before the data, a count first, padded to a block and counted in the data's size.
fn map_in_data<R: BufRead>(tar: &mut TarReader<R>) -> Result<Vec<u64>, TarError> {
    let (mut numbers, mut wanted, mut line, mut used) = (Vec::new(), None, Vec::new(), 0u64);
    while wanted.is_none_or(|wanted| numbers.len() < wanted) {
        let Some(byte) = tar.chunk()?.first().copied() else { return Err(bad("sparse map cut off")) };
        tar.consume(1);
        used += 1;
        if byte != b'\n' {
            if line.len() > 20 {
                return Err(bad("sparse map is not made of numbers"));
            }
            line.push(byte);
            continue;
        }
        let number = decimal(&line)?;
        line.clear();
        match wanted {
            Some(_) => numbers.push(number),
            None if number <= SEGMENTS_MAX as u64 => wanted = Some(2 * number as usize),
            None => return Err(bad("sparse map too long")),
        }
    }
    let mut padding = crate::tar::padding(used);
    while padding > 0 {
        let length = tar.chunk()?.len().min(padding as usize);
        if length == 0 {
            return Err(bad("sparse map cut off"));
        }
        tar.consume(length);
        padding -= length as u64;
    }
    Ok(numbers)
}
