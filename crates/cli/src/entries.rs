//! The entries of a log that is followed, so that a broken stream is taken up where it broke.
//!
//! The daemon is asked for the time of each entry, whether the user wants to see it or not. A stream that breaks is asked
//! for again since the last time; what was shown of that very moment is skipped. A frame is an entry: one that broke in
//! the middle was not shown.

use jiff::Timestamp;

/// `2026-01-01T00:00:00.000000000Z`, Docker's `RFC3339NanoFixed`; a blank follows.
const TIME_BYTES: usize = 30;

/// Before each entry: stream, three zeroes, length.
const HEADER_BYTES: usize = 8;

/// Takes the bytes of a multiplexed log with times.
#[derive(Debug, Default)]
pub struct Entries {
    /// The user wants to see the times.
    with_times: bool,
    partial: Vec<u8>,
    last: Option<Position>,
    /// How many entries of the last time are still to come again.
    repeated: usize,
}

#[derive(Debug)]
struct Position {
    time: Vec<u8>,
    /// How many entries of that time were shown.
    shown: usize,
}

impl Entries {
    /// Nothing was shown yet.
    pub fn new(with_times: bool) -> Entries {
        Entries { with_times, ..Entries::default() }
    }

    /// Takes bytes in pieces of any size; answers the frames of whole entries as they are to be shown.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut partial = std::mem::take(&mut self.partial);
        partial.extend_from_slice(bytes);
        let (mut rest, mut shown) = (partial.as_slice(), Vec::with_capacity(bytes.len()));
        while let Some((header, length)) = header(rest)
            && let Some(payload) = rest.get(HEADER_BYTES..HEADER_BYTES + length)
        {
            if let Some(text) = self.entry(payload) {
                shown.extend_from_slice(&header[..4]);
                shown.extend_from_slice(&(text.len() as u32).to_be_bytes());
                shown.extend_from_slice(text);
            }
            rest = &rest[HEADER_BYTES + length..];
        }
        self.partial = rest.to_vec();
        shown
    }

    /// The stream broke: answers since when it is to be asked for again, in seconds with a fraction; none if nothing was
    /// shown.
    pub fn resume(&mut self) -> Option<String> {
        self.partial.clear();
        let last = self.last.as_ref()?;
        let time: Timestamp = std::str::from_utf8(&last.time).ok()?.parse().ok()?;
        self.repeated = last.shown;
        Some(format!("{}.{:09}", time.as_second(), time.subsec_nanosecond()))
    }

    /// What is to be shown of an entry; none if it was.
    fn entry<'a>(&mut self, payload: &'a [u8]) -> Option<&'a [u8]> {
        // The daemon's own words have no time.
        let Some((time, text)) = split(payload) else { return Some(payload) };
        match &mut self.last {
            Some(last) if last.time == time && self.repeated > 0 => {
                self.repeated -= 1;
                return None;
            }
            Some(last) if last.time == time => last.shown += 1,
            _ => (self.last, self.repeated) = (Some(Position { time: time.to_vec(), shown: 1 }), 0),
        }
        Some(if self.with_times { payload } else { text })
    }
}

fn header(bytes: &[u8]) -> Option<([u8; HEADER_BYTES], usize)> {
    let header: [u8; HEADER_BYTES] = bytes.get(..HEADER_BYTES)?.try_into().ok()?;
    let [_, _, _, _, length @ ..] = header;
    Some((header, u32::from_be_bytes(length) as usize))
}

fn split(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let (time, rest) = payload.split_at_checked(TIME_BYTES)?;
    let text = rest.strip_prefix(b" ")?;
    (time[10] == b'T' && time[19] == b'.' && time[29] == b'Z').then_some((time, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str) -> Vec<u8> {
        [&[1, 0, 0, 0, 0, 0, 0, text.len() as u8], text.as_bytes()].concat()
    }

    fn at(nanos: u32, text: &str) -> Vec<u8> {
        frame(&format!("2026-01-01T00:00:00.{nanos:09}Z {text}\n"))
    }

    #[test]
    fn times_are_shown_when_wanted_and_pieces_may_have_any_size() {
        let wire = [at(5, "a"), at(6, "b")].concat();
        for size in [1, 7, 1000] {
            let mut entries = Entries::new(false);
            let shown: Vec<u8> = wire.chunks(size).flat_map(|piece| entries.feed(piece)).collect();
            assert_eq!(shown, [frame("a\n"), frame("b\n")].concat());
        }
        assert_eq!(Entries::new(true).feed(&wire), wire);
        assert_eq!(Entries::new(false).feed(&frame("no time")), frame("no time"));
    }

    #[test]
    fn a_broken_stream_is_taken_up_where_it_broke() {
        let mut entries = Entries::new(false);
        assert_eq!(entries.resume(), None);
        let (one, two, three) = (at(5, "one"), at(5, "two"), at(5, "three"));
        let broken = [at(4, "zero"), one.clone(), two.clone(), three[..20].to_vec()].concat();
        assert_eq!(entries.feed(&broken), [frame("zero\n"), frame("one\n"), frame("two\n")].concat());
        // It breaks again before anything new came.
        for _ in 0..2 {
            assert_eq!(entries.resume().unwrap(), "1767225600.000000005");
            assert!(entries.feed(&[one.clone(), two.clone()].concat()).is_empty());
        }
        assert_eq!(entries.feed(&[three, at(6, "four")].concat()), [frame("three\n"), frame("four\n")].concat());
        assert_eq!(entries.resume().unwrap(), "1767225600.000000006");
        assert_eq!(entries.feed(&[at(6, "four"), at(6, "five")].concat()), frame("five\n"));
    }
}
