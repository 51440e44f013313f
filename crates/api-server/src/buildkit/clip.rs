//! How much of what a command prints is told: as much as BuildKit tells (util/progress/logs), in its words.
//!
//! A stream may have come to 200 KiB for each second that has begun, and to 2 MiB. What is more is left out, which counts all
//! the same: a command that pauses is heard again, until it has come to 2 MiB. Where one fails, the last 256 KiB are told.

use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// How many bytes of the end of a stream are kept from when something was left out: BuildKit's.
const END_BYTES: usize = 256 << 10;

/// How much of a stream is told, in bytes; `None` is without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limits {
    size: Option<u64>,
    /// For each second.
    speed: Option<u64>,
}

/// Those of the daemon, which its environment may say.
static LIMITS: LazyLock<Limits> = LazyLock::new(|| {
    let read = |name| std::env::var(name).ok();
    Limits::of(read("BUILDKIT_STEP_LOG_MAX_SIZE").as_deref(), read("BUILDKIT_STEP_LOG_MAX_SPEED").as_deref())
});

/// What a command prints on its two streams.
#[derive(Debug)]
pub(super) struct Printed {
    begun: Instant,
    streams: [Stream; 2],
}

/// One of the streams.
#[derive(Debug, Default)]
struct Stream {
    /// How much it has come to, with what was left out.
    bytes: u64,
    is_clipped: bool,
    /// Its end, once something was left out.
    end: Option<VecDeque<u8>>,
}

impl Limits {
    /// Those of the values of two variables. What is no number is none; -1 is without end.
    fn of(size: Option<&str>, speed: Option<&str>) -> Limits {
        let read = |text: Option<&str>, usual: u64| match text.and_then(|text| text.parse::<i32>().ok()) {
            None => Some(usual),
            Some(number) => u64::try_from(number).ok(),
        };
        Limits { size: read(size, 2 << 20), speed: read(speed, 200 << 10) }
    }

    /// How much a stream may have come to after a time, and the limit as people read it.
    fn at(self, time: Duration) -> Option<(u64, String)> {
        // As with BuildKit a size without end is none for the speed either.
        let size = self.size?;
        let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        match self.speed.map(|speed| (speed, seconds.saturating_mul(speed))) {
            Some((speed, most)) if most <= size => Some((most, format!("{}/s", shown(speed)))),
            _ => Some((size, shown(size))),
        }
    }
}

/// A number of bytes, as BuildKit writes it: `2MiB`.
fn shown(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let unit = UNITS.len() - 1;
    let unit = unit.min((bytes.checked_ilog2().unwrap_or(0) / 10) as usize);
    format!("{}{}", bytes as f64 / f64::from(1_u32 << (10 * unit)), UNITS[unit])
}

impl Stream {
    /// What is told of more of it.
    fn add(&mut self, bytes: Vec<u8>, limit: Option<(u64, String)>) -> Vec<u8> {
        let (before, length) = (self.bytes, bytes.len() as u64);
        self.bytes += length;
        let most = limit.as_ref().map_or(length, |(most, _)| most.saturating_sub(before).min(length));
        if most < length {
            self.end.get_or_insert_default();
        }
        if let Some(end) = &mut self.end {
            end.extend(&bytes);
            end.drain(..end.len().saturating_sub(END_BYTES));
        }
        let mut told = bytes;
        // It is no longer than what has come.
        told.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        let was_clipped = std::mem::replace(&mut self.is_clipped, most < length);
        if let (Some((_, limit)), true, false) = (limit, self.is_clipped, was_clipped) {
            told.extend(format!("\n[output clipped, log limit {limit} reached]\n").into_bytes());
        }
        told
    }
}

impl Printed {
    /// Nothing yet.
    pub(super) fn new() -> Printed {
        Printed { begun: Instant::now(), streams: Default::default() }
    }

    /// What is told of something that is printed now; may be nothing.
    pub(super) fn add(&mut self, is_error: bool, bytes: Vec<u8>) -> Vec<u8> {
        self.streams[usize::from(is_error)].add(bytes, LIMITS.at(self.begun.elapsed()))
    }

    /// What is told where the command has failed: the ends of streams of which something was left out.
    pub(super) fn ends(&mut self) -> impl Iterator<Item = (bool, Vec<u8>)> {
        let ends = self.streams.iter_mut().map(|stream| stream.end.take()).collect::<Vec<_>>();
        ends.into_iter().zip([false, true]).filter_map(|(end, is_error)| Some((is_error, end?.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Limits = Limits { size: Some(2 << 20), speed: Some(200 << 10) };

    #[test]
    fn limits_are_those_of_the_environment() {
        assert_eq!(Limits::of(None, Some("x")), USUAL);
        assert_eq!(Limits::of(Some("-1"), Some("7")), Limits { size: None, speed: Some(7) });
        let at = |limits: Limits, millis| limits.at(Duration::from_millis(millis));
        assert_eq!(at(USUAL, 1), Some((200 << 10, "200KiB/s".to_owned())));
        assert_eq!(at(USUAL, 1001), Some((400 << 10, "200KiB/s".to_owned())));
        assert_eq!(at(USUAL, 10_001), Some((2 << 20, "2MiB".to_owned())));
        assert_eq!(at(Limits { speed: None, ..USUAL }, 1), Some((2 << 20, "2MiB".to_owned())));
        assert_eq!(at(Limits { size: None, ..USUAL }, 1), None);
        assert_eq!([0, 7, 1000, 1536].map(shown), ["0B", "7B", "1000B", "1.5KiB"]);
    }

    #[test]
    fn what_is_too_much_is_left_out_and_the_end_is_kept() {
        let limit = |most| Some((most, "5B/s".to_owned()));
        let mut stream = Stream::default();
        let mut add = |text: &str, most| String::from_utf8(stream.add(text.into(), limit(most))).unwrap();
        let clipped = "\n[output clipped, log limit 5B/s reached]\n";
        assert_eq!(add("abcd", 5), "abcd");
        assert_eq!(add("efg", 5), format!("e{clipped}"));
        assert_eq!(add("hij", 5), "");
        // What was left out counts.
        assert_eq!(add("kl", 10), "");
        assert_eq!(add("m", 15), "m");
        assert_eq!(add("nop", 15), format!("no{clipped}"));
        assert_eq!(stream.end.take().map(Vec::from), Some(b"efghijklmnop".to_vec()));
        let mut long = Stream::default();
        long.add(vec![b'x'; END_BYTES], limit(0));
        long.add(b"end".to_vec(), limit(0));
        let end = Vec::from(long.end.unwrap());
        assert!(end.len() == END_BYTES && end.ends_with(b"xend"));
        // Nobody is told a second time what was told.
        let mut whole = Printed::new();
        assert_eq!(whole.add(true, b"a".to_vec()), b"a");
        assert_eq!(whole.ends().count(), 0);
    }
}
