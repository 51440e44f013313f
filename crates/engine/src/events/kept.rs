//! The last events, for whoever asks for the past: as text, side by side.
//!
//! As values each is some twenty pieces of memory, which lie between those of containers that come and go: half a megabyte
//! of them held on to three megabytes of pages.

use std::collections::VecDeque;

use engine_api::events::Event;

/// How many are kept for `since`: dockerd's number (moby daemon/events `eventsLimit`).
const KEPT_MAX: usize = 256;

/// Room that is kept though it is not used.
const SPARE_BYTES: usize = 256 * 1024;

/// The last events.
#[derive(Default)]
pub(super) struct Kept {
    /// One after the other, as JSON.
    text: VecDeque<u8>,
    /// Of each, in bytes.
    lengths: VecDeque<usize>,
}

impl Kept {
    /// Adds the newest; the oldest goes where there are too many.
    pub(super) fn push(&mut self, event: &Event) {
        if self.lengths.len() == KEPT_MAX
            && let Some(oldest) = self.lengths.pop_front()
        {
            self.text.drain(..oldest);
        }
        let before = self.text.len();
        serde_json::to_writer(&mut self.text, event).expect("texts and numbers can be written to memory");
        self.lengths.push_back(self.text.len() - before);
        if self.text.capacity() > 4 * self.text.len() + SPARE_BYTES {
            self.text.shrink_to_fit();
        }
    }

    /// All of them, the oldest first.
    pub(super) fn events(&mut self) -> Vec<Event> {
        let mut rest = &*self.text.make_contiguous();
        let mut events = Vec::with_capacity(self.lengths.len());
        for length in &self.lengths {
            let (event, later) = rest.split_at(*length);
            events.push(serde_json::from_slice(event).expect("we wrote it ourselves"));
            rest = later;
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use engine_api::events::Actor;

    use super::*;

    fn event(number: usize) -> Event {
        let attributes = [("name".to_owned(), "é\"\n".repeat(number % 7)), ("n".to_owned(), number.to_string())].into();
        Event {
            status: "start".to_owned(),
            kind: "container".to_owned(),
            action: "start".to_owned(),
            actor: Actor { id: format!("{number:064x}"), attributes },
            scope: "local".to_owned(),
            time: 1,
            time_nano: 1_000_000_000 + number as i64,
            ..Event::default()
        }
    }

    #[test]
    fn the_last_events_come_back_as_they_were() {
        let mut kept = Kept::default();
        assert_eq!(kept.events(), []);
        for number in 0..1000 {
            kept.push(&event(number));
            let oldest = (number + 1).saturating_sub(KEPT_MAX);
            assert_eq!(kept.events(), (oldest..=number).map(event).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_room_of_huge_events_is_given_back() {
        let mut kept = Kept::default();
        let huge = Event { action: "x".repeat(1 << 20), ..event(0) };
        (0..4).for_each(|_| kept.push(&huge));
        (0..KEPT_MAX).for_each(|number| kept.push(&event(number)));
        assert!(kept.text.capacity() < 1 << 20, "{} bytes", kept.text.capacity());
    }
}
