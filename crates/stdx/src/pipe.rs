//! Bytes from one thread to another one of the same process.
//!
//! As a pipe(7), without its system calls, and without what the kernel thinks of it: it wakes who reads a pipe on the processor
//! of who writes, as if that were done, so that two threads which could work side by side take turns on one.

use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// How many pieces may wait to be read.
const PIECES_AHEAD: usize = 4;

/// The end that is written to. What is left of the last piece goes when it is flushed or dropped.
#[derive(Debug)]
pub struct Writer {
    piece: Vec<u8>,
    piece_bytes: usize,
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
}

/// The end that is read; it ends when the other one is dropped.
#[derive(Debug)]
pub struct Reader {
    piece: Vec<u8>,
    position: usize,
    full: Receiver<Vec<u8>>,
    empty: SyncSender<Vec<u8>>,
}

/// A pipe that hands on so many bytes at once.
pub fn pipe(piece_bytes: usize) -> (Reader, Writer) {
    let (to_reader, full) = sync_channel(PIECES_AHEAD);
    let (to_writer, empty) = sync_channel(PIECES_AHEAD + 1);
    let writer = Writer { piece: Vec::with_capacity(piece_bytes), piece_bytes, full: to_reader, empty };
    (Reader { piece: Vec::new(), position: 0, full, empty: to_writer }, writer)
}

impl Write for Writer {
    /// Fails with [`io::ErrorKind::BrokenPipe`] when nobody reads any more.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == self.piece_bytes {
            self.flush()?;
        }
        let count = bytes.len().min(self.piece_bytes - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let next = self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(self.piece_bytes));
        let piece = std::mem::replace(&mut self.piece, next);
        self.full.send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Nobody reads it any more, then.
        let _ = self.flush();
    }
}

impl BufRead for Reader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.piece.len()
            && let Ok(next) = self.full.recv()
        {
            let mut read = std::mem::replace(&mut self.piece, next);
            self.position = 0;
            read.clear();
            // The first one holds nothing, and who has gone needs none.
            if read.capacity() > 0 {
                let _ = self.empty.try_send(read);
            }
        }
        Ok(&self.piece[self.position..])
    }

    fn consume(&mut self, count: usize) {
        self.position = (self.position + count).min(self.piece.len());
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_in_order_to_the_end() {
        let bytes: Vec<u8> = (0..10_007_u32).map(|number| (number % 251) as u8).collect();
        let (mut reader, mut writer) = pipe(64);
        let read = std::thread::scope(|scope| {
            let bytes = &bytes;
            scope.spawn(move || bytes.chunks(7).try_for_each(|part| writer.write_all(part)).unwrap());
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            read
        });
        assert!(read == bytes);
        // Its end stays one.
        assert_eq!(reader.fill_buf().unwrap(), b"");
    }

    #[test]
    fn what_is_flushed_is_there_at_once() {
        let (mut reader, mut writer) = pipe(64);
        writer.write_all(b"a line").unwrap();
        writer.flush().unwrap();
        writer.flush().unwrap();
        assert_eq!(reader.fill_buf().unwrap(), b"a line");
        reader.consume(2);
        let mut rest = [0; 16];
        assert_eq!(reader.read(&mut rest).unwrap(), 4);
        assert_eq!(&rest[..4], b"line");
    }

    #[test]
    fn who_writes_for_nobody_is_told() {
        let (reader, mut writer) = pipe(4);
        drop(reader);
        assert_eq!(writer.write_all(b"more than a piece").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
