//! Layers whose files are there: what applying them would find out, without making anything.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use archive::{Entry, Kind, TarReader, Time, clean_path};

use crate::apply::{ApplyError, OPAQUE_WHITEOUT, Unpacked, WHITEOUT, times};
use crate::pipeline::ChunkReader;
use crate::tree::join;

/// Reads the tar of a layer to its end.
pub(crate) fn read(mut tar: TarReader<ChunkReader<'_>>, root: &OwnedFd) -> Result<Unpacked, ApplyError> {
    let archive = |source| ApplyError::Archive { source };
    let mut reading = Reading::default();
    while let Some(entry) = tar.next_entry().map_err(archive)? {
        reading.entry(&entry, &mut tar)?;
    }
    tar.drain().map_err(archive)?;
    if let Some(recorder) = tar.source().recorder.take() {
        recorder.finish(None).map_err(|source| ApplyError::Record { source })?;
    }
    // Nothing describes the root, which the layers below give its time then, if there are any.
    let set = rustix::fs::futimens(root, &times(Time::default()));
    set.map_err(|err| ApplyError::Create { path: String::new(), source: err.into() })?;
    Ok(Unpacked {
        content_bytes: reading.content_bytes,
        directories: reading.directories.len() as u64 + 1,
        implied: vec![Vec::new()],
        whiteouts: reading.whiteouts,
    })
}

#[derive(Default)]
struct Reading {
    directories: BTreeSet<Vec<u8>>,
    /// Those that nothing of the layers below is in.
    opaque: BTreeSet<Vec<u8>>,
    whiteouts: Vec<Vec<u8>>,
    content_bytes: u64,
}

impl Reading {
    fn entry(&mut self, entry: &Entry, tar: &mut TarReader<ChunkReader<'_>>) -> Result<(), ApplyError> {
        let invalid = || ApplyError::Invalid { path: String::from_utf8_lossy(&entry.path).into_owned() };
        let path = clean_path(&entry.path).filter(|path| !path.is_empty()).ok_or_else(invalid)?;
        let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b""[..], &path[..]),
        };
        if !parent.is_empty() && !self.directories.contains(parent) {
            return Err(invalid());
        }
        if name == OPAQUE_WHITEOUT {
            self.opaque.insert(parent.to_vec());
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if !self.is_hidden(parent) {
                self.whiteouts.push(join(parent, hidden));
            }
            return Ok(());
        }
        match entry.kind {
            Kind::Directory => drop(self.directories.insert(path)),
            Kind::File => self.file(entry, &path, tar).map_err(|source| ApplyError::Archive { source })?,
            _ => {}
        }
        Ok(())
    }

    /// Whether nothing of the layers below is in a directory.
    fn is_hidden(&self, directory: &[u8]) -> bool {
        let above = directory.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &directory[..at]);
        above.chain([directory]).any(|path| self.opaque.contains(path))
    }

    fn file(
        &mut self,
        entry: &Entry,
        path: &[u8],
        tar: &mut TarReader<ChunkReader<'_>>,
    ) -> Result<(), archive::TarError> {
        // Of files with holes the data stays in the recipe, as when they are applied.
        if entry.segments.is_none()
            && entry.size > 0
            && let Some(recorder) = &mut tar.source().recorder
        {
            recorder.file(path, entry.size);
        }
        loop {
            let length = tar.chunk()?.len();
            if length == 0 {
                break;
            }
            tar.consume(length);
        }
        self.content_bytes = self.content_bytes.saturating_add(entry.size).min(i64::MAX as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use archive::{Pack, TarWriter};

    use crate::{apply_recorded, record};

    #[test]
    fn a_layer_that_is_there_is_known_as_one_that_is_applied() {
        let scratch = tempfile::tempdir().unwrap();
        let there = scratch.path().join("there");
        fs::create_dir_all(there.join("a/b")).unwrap();
        for (path, text) in [("a/x", "one"), ("a/b/empty", ""), ("z", "two")] {
            fs::write(there.join(path), text).unwrap();
        }
        symlink("../z", there.join("a/link")).unwrap();
        fs::hard_link(there.join("z"), there.join("again")).unwrap();
        let holes = fs::File::create(there.join("holes")).unwrap();
        holes.set_len(8 << 20).unwrap();
        let mut tar = TarWriter::new(Vec::new());
        let options = Pack { name: b"", xattr: |_| false, holes: true, still: true, entry: &mut |_, _, _| Ok(true) };
        archive::pack(&mut tar, fs::File::open(&there).unwrap().into(), options).unwrap();
        let tar = tar.finish().unwrap();
        let (mut made, mut known) = (Vec::new(), Vec::new());
        let applied = scratch.path().join("applied");
        fs::create_dir(&applied).unwrap();
        let of_applied = apply_recorded(&tar[..], &applied, u64::MAX, &mut made).unwrap();
        let inode = fs::metadata(there.join("z")).unwrap().ino();
        assert_eq!(record(&tar[..], &there, &mut known).unwrap(), of_applied);
        assert_eq!((known, fs::metadata(there.join("z")).unwrap().ino()), (made, inode));
        let time = |path| fs::metadata(path).map(|found: fs::Metadata| found.mtime()).unwrap();
        assert_eq!(time(&there), time(&applied));
    }
}
