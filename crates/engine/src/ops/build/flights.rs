//! Steps that are being done, each for everybody who wants the same one at that time.
//!
//! ```text
//! who comes first --Leading--> does the step, prints, and lands: its image, or the code of the command that failed
//! who comes later --Following-> hears what is printed, from its beginning, and takes what it lands with
//! ```
//! Who leads and is given up, because its client has gone, or fails for a reason that may be its own, leaves the step to one
//! of those that follow, who does it from its beginning. All of it is in memory alone: with the daemon it goes.
//!
//! Who follows must hold nothing that others wait for, a turn for a step of its build least of all: so that who leads always
//! gets on. The map's lock comes before a flight's.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use builder::cache::Key;
use oci::Digest;
use tokio::sync::watch;

use crate::sync::lock;

/// How many bytes of what a step prints are kept for who comes later or reads slowly; of more the last. As many steps print
/// at the same time as are done.
const LOG_MAX: usize = 256 * 1024;

/// All steps that are being done.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    running: Mutex<HashMap<FlightKey, Arc<Flight>>>,
    /// How many builds have got a number.
    builds: AtomicU64,
}

/// What a step that is being done is known by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlightKey {
    /// What it is remembered by.
    pub(super) step: Key,
    /// The build that does it again whatever is known: nobody else's is good enough for it, nor its for others.
    pub(super) build: Option<u64>,
    /// What else it may fail for.
    pub(super) terms: String,
}

/// What a step has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Landed {
    Image(Digest),
    /// The command ended with this code.
    Failed(i64),
}

/// A step that is being done.
#[derive(Debug, Default)]
pub(super) struct Flight {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    is_led: bool,
    followers: usize,
    landed: Option<Landed>,
    log: Log,
}

/// What was printed, from the first piece that is kept.
#[derive(Debug, Default)]
struct Log {
    pieces: VecDeque<(bool, Arc<[u8]>)>,
    /// The number of the first one that is kept, and how many bytes were before it.
    first: usize,
    first_offset: usize,
    bytes: usize,
}

impl Log {
    fn push(&mut self, is_error: bool, bytes: &[u8]) {
        self.pieces.push_back((is_error, bytes.into()));
        self.bytes += bytes.len();
        while self.bytes > LOG_MAX {
            let Some((_, gone)) = self.pieces.pop_front() else { return };
            self.bytes -= gone.len();
            self.first += 1;
            self.first_offset += gone.len();
        }
    }
}

impl Flight {
    /// Prints something for those who follow.
    pub(super) fn print(&self, is_error: bool, bytes: &[u8]) {
        lock(&self.state).log.push(is_error, bytes);
        self.changed.send_replace(());
    }

    /// Whether somebody waits for its end.
    pub(super) fn is_followed(&self) -> bool {
        let state = lock(&self.state);
        state.followers > 0 && state.landed.is_none()
    }
}

/// Who does a step, or waits for it.
pub(super) enum Role {
    Lead(Leading),
    Follow(Following),
}

impl Flights {
    /// A number that no other build gets.
    pub(super) fn number(&self) -> u64 {
        self.builds.fetch_add(1, Ordering::Relaxed)
    }

    /// Joins those who want a step: leads if nobody does.
    pub(super) fn join(self: &Arc<Self>, key: FlightKey) -> Role {
        let mut running = lock(&self.running);
        let flight = match running.entry(key.clone()) {
            Entry::Occupied(there) => there.get().clone(),
            Entry::Vacant(none) => none.insert(Arc::default()).clone(),
        };
        let mut state = lock(&flight.state);
        let leads = !std::mem::replace(&mut state.is_led, true);
        state.followers += usize::from(!leads);
        drop(state);
        let place = Place { flights: self.clone(), key, flight };
        match leads {
            true => Role::Lead(Leading(place)),
            false => Role::Follow(Following { changed: place.flight.changed.subscribe(), place, next: 0, offset: 0 }),
        }
    }
}

/// Which step it is.
#[derive(Clone)]
struct Place {
    flights: Arc<Flights>,
    key: FlightKey,
    flight: Arc<Flight>,
}

impl Place {
    /// Changes something, and forgets the step if nobody is left who would do it, or it is done.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut running = lock(&self.flights.running);
        let mut state = lock(&self.flight.state);
        change(&mut state);
        let is_over = state.landed.is_some() || (!state.is_led && state.followers == 0);
        drop(state);
        // Somebody may do the same one again by now.
        if is_over && running.get(&self.key).is_some_and(|running| Arc::ptr_eq(running, &self.flight)) {
            running.remove(&self.key);
        }
        drop(running);
        self.flight.changed.send_replace(());
    }
}

/// Held by who does a step. Dropped before it lands, it leaves the step to another one.
pub(super) struct Leading(Place);

impl Leading {
    pub(super) fn flight(&self) -> &Arc<Flight> {
        &self.0.flight
    }

    /// Ends the step for all.
    pub(super) fn land(self, landed: Landed) {
        self.0.change(|state| state.landed = Some(landed));
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.0.change(|state| state.is_led = false);
    }
}

/// Held by who waits for a step.
pub(super) struct Following {
    place: Place,
    changed: watch::Receiver<()>,
    /// The number of the piece that comes next, and how many bytes were before it.
    next: usize,
    offset: usize,
}

/// What who waits for a step hears of it.
pub(super) enum News {
    Printed {
        is_error: bool,
        bytes: Arc<[u8]>,
    },
    /// So many bytes of what it printed are not kept any more.
    LeftOut(usize),
    Landed(Landed),
    /// Whoever did it does not any more: it is his who hears this.
    Lead(Leading),
}

impl Following {
    /// What comes next; after [`News::Landed`] and [`News::Lead`] nothing does.
    pub(super) async fn next(&mut self) -> News {
        loop {
            self.changed.borrow_and_update();
            if let Some(news) = self.news() {
                return news;
            }
            // We hold the flight, and so the sender.
            if self.changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn news(&mut self) -> Option<News> {
        let mut state = lock(&self.place.flight.state);
        let log = &state.log;
        if self.next < log.first {
            let left_out = log.first_offset - self.offset;
            (self.next, self.offset) = (log.first, log.first_offset);
            return Some(News::LeftOut(left_out));
        }
        if let Some((is_error, bytes)) = log.pieces.get(self.next - log.first) {
            self.next += 1;
            self.offset += bytes.len();
            return Some(News::Printed { is_error: *is_error, bytes: bytes.clone() });
        }
        if let Some(landed) = &state.landed {
            return Some(News::Landed(landed.clone()));
        }
        let leads = !std::mem::replace(&mut state.is_led, true);
        drop(state);
        leads.then(|| News::Lead(Leading(self.place.clone())))
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.place.change(|state| state.followers -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine_api::container::Config;

    fn key(build: Option<u64>) -> FlightKey {
        let step = builder::cache::key(None, &Config::default(), &["RUN".to_owned()], &[]);
        FlightKey { step, build, terms: String::new() }
    }

    fn image() -> Landed {
        Landed::Image(Digest::from_sha256(&[1; 32]))
    }

    fn lead(flights: &Arc<Flights>, key: FlightKey) -> Leading {
        match flights.join(key) {
            Role::Lead(leading) => leading,
            Role::Follow(_) => panic!("somebody leads"),
        }
    }

    fn follow(flights: &Arc<Flights>, key: FlightKey) -> Following {
        match flights.join(key) {
            Role::Lead(_) => panic!("nobody leads"),
            Role::Follow(following) => following,
        }
    }

    async fn heard(following: &mut Following) -> String {
        match following.next().await {
            News::Printed { is_error, bytes } => format!("{is_error} {}", String::from_utf8_lossy(&bytes)),
            News::LeftOut(bytes) => format!("left out {bytes}"),
            News::Landed(landed) => format!("{landed:?}"),
            News::Lead(_) => "lead".to_owned(),
        }
    }

    fn is_empty(flights: &Flights) -> bool {
        lock(&flights.running).is_empty()
    }

    #[tokio::test]
    async fn who_comes_later_hears_all_and_takes_the_outcome() {
        let flights = Arc::<Flights>::default();
        let leading = lead(&flights, key(None));
        assert!(!leading.flight().is_followed());
        leading.flight().print(false, b"one");
        let mut following = follow(&flights, key(None));
        assert!(leading.flight().is_followed());
        // Who does all again waits for nobody but itself.
        let own = lead(&flights, key(Some(1)));
        drop(follow(&flights, key(Some(1))));
        drop(own);
        leading.flight().print(true, b"two");
        assert_eq!(heard(&mut following).await, "false one");
        let flight = leading.flight().clone();
        leading.land(image());
        assert!(!flight.is_followed() && is_empty(&flights));
        assert_eq!(heard(&mut following).await, "true two");
        assert_eq!(heard(&mut following).await, format!("{:?}", image()));
        // It is over: who comes now does it.
        drop(lead(&flights, key(None)));
        assert!(is_empty(&flights));
    }

    #[tokio::test]
    async fn who_is_given_up_leaves_the_step_to_one_of_the_others() {
        let flights = Arc::<Flights>::default();
        let leading = lead(&flights, key(None));
        let (mut one, mut two) = (follow(&flights, key(None)), follow(&flights, key(None)));
        let waits = tokio::spawn(async move {
            let news = one.next().await;
            drop(one);
            news
        });
        drop(leading);
        let News::Lead(leading) = waits.await.unwrap() else { panic!("nobody leads") };
        leading.land(Landed::Failed(7));
        assert_eq!(heard(&mut two).await, "Failed(7)");
        drop(two);
        assert!(is_empty(&flights));
        // The last one who waits goes, too.
        let leading = lead(&flights, key(None));
        let following = follow(&flights, key(None));
        drop(leading);
        assert!(!is_empty(&flights));
        drop(following);
        assert!(is_empty(&flights));
    }

    #[tokio::test]
    async fn of_much_that_is_printed_the_last_is_kept() {
        let flights = Arc::<Flights>::default();
        let leading = lead(&flights, key(None));
        let mut following = follow(&flights, key(None));
        leading.flight().print(false, b"first");
        assert_eq!(heard(&mut following).await, "false first");
        for _ in 0..5 {
            leading.flight().print(false, &[b'x'; LOG_MAX / 4]);
        }
        assert_eq!(heard(&mut following).await, format!("left out {}", LOG_MAX / 4));
        for _ in 0..4 {
            assert!(heard(&mut following).await.starts_with("false x"));
        }
        drop(leading);
        assert_eq!(heard(&mut following).await, "lead");
    }
}
