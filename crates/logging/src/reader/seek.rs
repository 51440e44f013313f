//! Where reading begins: the last so many lines, and the first line of a point in time, which is found by halving.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use super::ReadOptions;
use super::entry::Entry;
use super::segment::{Segment, Source, reopen};
use crate::encoder::Format;

/// Bytes that are looked through from the end, and below which halving stops: to read on is as fast.
const BLOCK_BYTES: u64 = 64 * 1024;

/// Bytes that are read to find one line.
const PROBE_BYTES: usize = 4 * 1024;

/// A line begins within so many bytes, or the place is as good as the end: the longest line has about 100 KiB.
const PROBE_MAX_BYTES: usize = 256 * 1024;

/// Drops and positions `files`, the oldest of which is in front, so that what is left begins where reading does; answers
/// how many bytes were read for that.
pub(super) fn position(files: &mut VecDeque<Segment>, options: &ReadOptions) -> io::Result<u64> {
    let mut read_bytes = 0;
    if let Some(lines) = options.tail {
        keep_tail(files, lines, &mut read_bytes)?;
    }
    if let Some(since) = options.since_nanos.filter(|since| *since > 0) {
        keep_since(files, since, options.format, &mut read_bytes)?;
    }
    Ok(read_bytes)
}

/// Positions `files` so that `lines` lines remain.
fn keep_tail(files: &mut VecDeque<Segment>, lines: usize, read_bytes: &mut u64) -> io::Result<()> {
    let mut wanted = lines as u64;
    let mut keep_from = files.len().saturating_sub(1);
    for at in (0..files.len()).rev() {
        let found = tail_of(&mut files[at], wanted, read_bytes)?;
        keep_from = at;
        wanted -= found.min(wanted);
        if wanted == 0 {
            break;
        }
    }
    files.drain(..keep_from);
    Ok(())
}

/// Positions a file so that at most `wanted` lines remain; answers how many do.
fn tail_of(segment: &mut Segment, wanted: u64, read_bytes: &mut u64) -> io::Result<u64> {
    let (file, position, end) = match &mut segment.source {
        Source::Plain { file, position, end } => (file, position, end),
        Source::Packed { unpacked, skip_lines } => {
            let lines = if wanted == 0 { u64::MAX } else { count_lines(&mut reopen(unpacked)?, read_bytes)? };
            *skip_lines = lines.saturating_sub(wanted);
            return Ok(lines.min(wanted));
        }
    };
    let end = match end {
        Some(end) => *end,
        None => file.metadata()?.len(),
    };
    *position = end;
    let (mut block_end, mut found) = (end, 0);
    let mut block = vec![0; BLOCK_BYTES as usize];
    while wanted > 0 && block_end > 0 {
        let block_start = block_end.saturating_sub(BLOCK_BYTES);
        let block = &mut block[..(block_end - block_start) as usize];
        file.read_exact_at(block, block_start)?;
        *read_bytes += block.len() as u64;
        for at in memchr::memrchr_iter(b'\n', block) {
            // The newline that ends the last wanted line is not counted by itself: the one before its first line is.
            if found == wanted {
                *position = block_start + at as u64 + 1;
                return Ok(found);
            }
            found += 1;
        }
        block_end = block_start;
        *position = block_start;
    }
    Ok(found)
}

fn count_lines(from: &mut impl Read, read_bytes: &mut u64) -> io::Result<u64> {
    let (mut lines, mut block) = (0, vec![0; BLOCK_BYTES as usize]);
    loop {
        match from.read(&mut block)? {
            0 => return Ok(lines),
            read => {
                *read_bytes += read as u64;
                lines += memchr::memchr_iter(b'\n', &block[..read]).count() as u64;
            }
        }
    }
}

/// Drops files that are older as a whole, and goes near the first line of that time in the one where it is.
fn keep_since(files: &mut VecDeque<Segment>, since: u64, format: Format, read_bytes: &mut u64) -> io::Result<()> {
    // All of a file is older if the next one begins before that time.
    for at in (1..files.len()).rev() {
        if first_time(&files[at], format, read_bytes)?.is_some_and(|time| time < since) {
            files.drain(..at);
            break;
        }
    }
    if let Some(Segment { source: Source::Plain { file, position, end }, .. }) = files.front_mut() {
        let end = match end {
            Some(end) => *end,
            None => file.metadata()?.len(),
        };
        *position = halve(file, *position, end, |line| older(line, format, since), read_bytes)?;
    }
    Ok(())
}

/// Whether a line is older; `None` if it is no entry.
fn older(line: &[u8], format: Format, since: u64) -> Option<bool> {
    Entry::parse(format, line).map(|entry| entry.nanos() < since)
}

/// The time of a file's first line.
fn first_time(segment: &Segment, format: Format, read_bytes: &mut u64) -> io::Result<Option<u64>> {
    let mut bytes = vec![0; PROBE_BYTES];
    let mut filled = 0;
    let (plain, mut unpacked) = match &segment.source {
        Source::Packed { unpacked, .. } => (None, Some(reopen(unpacked)?)),
        Source::Plain { file, .. } => (Some(file), None),
    };
    while filled < PROBE_MAX_BYTES {
        bytes.resize(filled + PROBE_BYTES, 0);
        let read = match (&mut unpacked, plain) {
            (Some(unpacked), _) => unpacked.read(&mut bytes[filled..])?,
            (None, Some(file)) => file.read_at(&mut bytes[filled..], filled as u64)?,
            (None, None) => 0,
        };
        *read_bytes += read as u64;
        filled += read;
        let found = bytes[..filled]
            .split_inclusive(|byte| *byte == b'\n')
            .find_map(|line| Entry::parse(format, line.strip_suffix(b"\n")?).map(|entry| entry.nanos()));
        if found.is_some() || read == 0 {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The beginning of a line between `low`, where one begins, and `high`, before which all are older, and not far before the
/// first that is not.
fn halve(
    file: &File,
    mut low: u64,
    mut high: u64,
    older: impl Fn(&[u8]) -> Option<bool>,
    read_bytes: &mut u64,
) -> io::Result<u64> {
    while high.saturating_sub(low) > BLOCK_BYTES {
        let middle = low + (high - low) / 2;
        match probe(file, middle, high, &older, read_bytes)? {
            Some((line, true)) => low = line,
            Some((_, false)) | None => high = middle,
        }
    }
    Ok(low)
}

/// The first line that begins behind `from`, and whether it is older; `None` if there is none before `to`.
fn probe(
    file: &File,
    from: u64,
    to: u64,
    older: impl Fn(&[u8]) -> Option<bool>,
    read_bytes: &mut u64,
) -> io::Result<Option<(u64, bool)>> {
    let (mut bytes, mut filled) = (Vec::new(), 0);
    while filled < PROBE_MAX_BYTES {
        bytes.resize(filled + PROBE_BYTES, 0);
        let read = file.read_at(&mut bytes[filled..], from + filled as u64)?;
        *read_bytes += read as u64;
        filled += read;
        let mut begin = memchr::memchr(b'\n', &bytes[..filled]).map(|at| at + 1);
        while let Some(at) = begin.filter(|at| from + (*at as u64) < to)
            && let Some(length) = memchr::memchr(b'\n', &bytes[at..filled])
        {
            if let Some(older) = older(&bytes[at..at + length]) {
                return Ok(Some((from + at as u64, older)));
            }
            begin = Some(at + length + 1);
        }
        if read == 0 || begin.is_some_and(|at| from + at as u64 >= to) {
            return Ok(None);
        }
    }
    Ok(None)
}
