//! An image made again with no time in it that is later than a given one, so that two builds of the same files are one image.
//!
//! Only what is later changes (BuildKit's `rewrite-timestamp` and `SOURCE_DATE_EPOCH`): a layer with nothing later in it keeps its digest
//! as long as those below it do. A layer is made again while it is read; in memory is one entry.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use layer::{Entry, TarError, TarReader, TarWriter, Time};
use oci::Digest;
use oci::image::ImageConfig;
use stdx::time::Rfc3339;

use crate::{Held, ImageRecord, Lasting, LayerTarError, LoadError, Loaded, Store, derive, hold};

/// How much of a layer is handed on at once.
const PIECE_BYTES: usize = 128 * 1024;

/// Why an image is not made again.
#[derive(Debug, thiserror::Error)]
pub enum ClampError {
    /// It is gone.
    #[error("No such image: {0}")]
    Gone(Digest),
    /// There is no such time: it is before 1970, or after the year 9999.
    #[error("the time {0} is out of range")]
    Time(i64),
    /// A layer cannot be had.
    #[error(transparent)]
    Layer(#[from] LayerTarError),
    /// A layer cannot be understood.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A layer cannot be handed on.
    #[error("hand a layer on")]
    Pipe(#[source] io::Error),
    /// The image cannot be made.
    #[error(transparent)]
    Make(#[from] LoadError),
}

/// The latest time that is written with four digits of the year (RFC 3339).
const LATEST_SECS: i64 = 253_402_300_799;

/// Makes an image without later times than `secs`, in seconds since 1970: in its configuration, of which the time of creation
/// becomes that one, and, with `layers`, in its files. Blocks until all is on disk.
pub fn clamp(store: &Store, id: &Digest, secs: i64, layers: bool) -> Result<Loaded, ClampError> {
    let since = u64::try_from(secs).ok().filter(|_| secs <= LATEST_SECS).ok_or(ClampError::Time(secs))?;
    let time = Rfc3339(UNIX_EPOCH + Duration::from_secs(since));
    let held = hold(store, id).ok_or_else(|| ClampError::Gone(id.clone()))?;
    let record = held.record().clone();
    let mut below = record.clone();
    if layers && let Some(first) = first_later(&held, secs)? {
        below = rewrite(store, &held, first, secs)?;
    }
    let config = record.config.clone();
    Ok(derive(store, Some(&below), (None, Lasting::Now), |image| {
        let diff_ids = image.rootfs.diff_ids.clone();
        *image = (*config).clone();
        image.rootfs.diff_ids = diff_ids;
        describe(image, &time);
    })?)
}

fn describe(image: &mut ImageConfig, time: &Rfc3339) {
    image.created = Some(time.to_string());
    for step in &mut image.history {
        let is_later = step.created.as_deref().and_then(Rfc3339::parse).is_none_or(|made| made.0 > time.0);
        if is_later {
            step.created = Some(time.to_string());
        }
    }
}

/// The first layer in which something is later.
fn first_later(held: &Held<'_>, secs: i64) -> Result<Option<usize>, ClampError> {
    for index in 0..held.diff_ids().count() {
        let is_later = with_tar(held, index, |tar| {
            while let Some(entry) = tar.next_entry()? {
                if later(&entry, secs) {
                    return Ok(true);
                }
            }
            Ok(false)
        })?;
        if is_later {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

fn later(entry: &Entry, secs: i64) -> bool {
    entry.mtime.secs > secs || (entry.mtime.secs == secs && entry.mtime.nanos > 0)
}

/// Makes the layers anew, from the `first` on.
fn rewrite(store: &Store, held: &Held<'_>, first: usize, secs: i64) -> Result<std::sync::Arc<ImageRecord>, ClampError> {
    let total = held.diff_ids().count();
    let (mut below, start) = match with_layers(store, held.record(), first) {
        Some(found) => (Some(found), first),
        // Nobody has these layers alone: all of them are made anew.
        None => (None, 0),
    };
    for index in start..total {
        let (reader, writer) = io::pipe().map_err(ClampError::Pipe)?;
        let parent = below.as_deref();
        let (built, written) = thread::scope(|scope| {
            let writing = scope.spawn(move || {
                with_tar(held, index, |tar| copy(tar, BufWriter::with_capacity(PIECE_BYTES, writer), secs))
            });
            let whole = Checked { reader, writing: Some(writing), failed: None };
            let mut whole = whole;
            let platform = held.record().config.platform.clone();
            let built = store.build(parent, &mut whole, None, |image| {
                if image.platform.os.is_empty() {
                    image.platform = platform;
                }
            });
            (built, whole.failed.take())
        });
        if let Some(err) = written {
            return Err(err);
        }
        below = Some(store.get(&built?.id).ok_or_else(|| ClampError::Gone(held.record().id.clone()))?);
    }
    below.ok_or_else(|| ClampError::Gone(held.record().id.clone()))
}

/// An image of the lowest so many layers of another one, if there is one that it was built on.
fn with_layers(store: &Store, record: &ImageRecord, count: usize) -> Option<std::sync::Arc<ImageRecord>> {
    let wanted = record.chain.get(..count).filter(|chain| !chain.is_empty())?;
    let mut parent = record.parent.clone();
    while let Some(found) = parent.as_ref().and_then(|id| store.get(id)) {
        if found.chain == wanted {
            return Some(found);
        }
        parent.clone_from(&found.parent);
    }
    None
}

/// A layer on its way: its end is one only if whoever writes it came to its own.
struct Checked<'scope> {
    reader: io::PipeReader,
    writing: Option<thread::ScopedJoinHandle<'scope, Result<(), ClampError>>>,
    failed: Option<ClampError>,
}

impl Read for Checked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if count > 0 || buffer.is_empty() {
            return Ok(count);
        }
        if let Some(writing) = self.writing.take() {
            let written = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            self.failed = written.err();
        }
        if self.failed.is_some() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(0) }
    }
}

/// Writes a tar again, with times no later than that.
fn copy(tar: &mut TarReader<impl io::BufRead>, out: impl Write, secs: i64) -> Result<(), ClampError> {
    let mut writer = TarWriter::new(out);
    while let Some(mut entry) = tar.next_entry()? {
        if later(&entry, secs) {
            entry.mtime = Time { secs, nanos: 0 };
        }
        writer.begin(&entry).map_err(ClampError::Pipe)?;
        loop {
            let piece = tar.chunk()?;
            if piece.is_empty() {
                break;
            }
            writer.data(piece).map_err(ClampError::Pipe)?;
            let count = piece.len();
            tar.consume(count);
        }
    }
    let mut out = writer.finish().map_err(ClampError::Pipe)?;
    out.flush().map_err(ClampError::Pipe)
}

/// Looks at a layer's tar while it is made.
fn with_tar<T>(
    held: &Held<'_>,
    index: usize,
    look: impl FnOnce(&mut TarReader<BufReader<io::PipeReader>>) -> Result<T, ClampError>,
) -> Result<T, ClampError> {
    let (reader, mut writer) = io::pipe().map_err(ClampError::Pipe)?;
    thread::scope(|scope| {
        let making = scope.spawn(move || held.layer_tar(index, &mut writer));
        let mut tar = TarReader::new(BufReader::with_capacity(PIECE_BYTES, reader));
        let looked = look(&mut tar);
        let seen_whole = looked.is_ok() && tar.drain().is_ok();
        drop(tar);
        let made = making.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match looked {
            // Nobody reads on when something is known: why the rest is not made is then no matter.
            Ok(value) if !seen_whole => Ok(value),
            Ok(value) => made.map(|()| value).map_err(ClampError::Layer),
            Err(err) => Err(made.err().map_or(err, ClampError::Layer)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::image::History;

    #[test]
    fn only_later_times_change() {
        let time = |secs| Rfc3339(UNIX_EPOCH + Duration::from_secs(secs));
        let step = |created: Option<String>| History { created, ..History::default() };
        let mut image = ImageConfig {
            created: Some(time(9).to_string()),
            history: vec![step(Some(time(3).to_string())), step(Some(time(7).to_string())), step(None)],
            ..ImageConfig::default()
        };
        describe(&mut image, &time(5));
        let times: Vec<_> = image.history.iter().map(|step| step.created.clone().unwrap()).collect();
        assert_eq!(times, [3, 5, 5].map(|secs| time(secs).to_string()));
        assert_eq!(image.created, Some(time(5).to_string()));
    }
}
