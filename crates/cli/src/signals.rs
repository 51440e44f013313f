//! Signals: passed on to the container, or ending us with the terminal restored.

use std::future::poll_fn;
use std::task::Poll;

use client::{Client, container};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals with a name; what is missing cannot be caught, or must not be: CHLD and PIPE are about ourselves, and URG is
/// what Go's runtime sends itself, so that Docker's client passes it on to nobody.
const NAMES: [(i32, &str); 20] = [
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (5, "TRAP"),
    (6, "ABRT"),
    (10, "USR1"),
    (12, "USR2"),
    (14, "ALRM"),
    (15, "TERM"),
    (16, "STKFLT"),
    (18, "CONT"),
    (20, "TSTP"),
    (21, "TTIN"),
    (22, "TTOU"),
    (24, "XCPU"),
    (25, "XFSZ"),
    (26, "VTALRM"),
    (27, "PROF"),
    (28, "WINCH"),
    (29, "IO"),
];

/// Caught signals.
pub struct Caught {
    signals: Vec<(Signal, i32, &'static str)>,
}

impl Caught {
    /// Catches everything that can be passed on.
    pub fn all() -> Caught {
        Caught::of(&NAMES)
    }

    /// Catches what asks us to end.
    pub fn fatal() -> Caught {
        Caught::of(&[(1, "HUP"), (2, "INT"), (3, "QUIT"), (15, "TERM")])
    }

    /// Catches changes of the terminal's size.
    pub fn resize() -> Caught {
        Caught::of(&[(28, "WINCH")])
    }

    fn of(wanted: &[(i32, &'static str)]) -> Caught {
        // A signal that the system does not let us catch keeps its default action.
        let caught = wanted.iter().filter_map(|(number, name)| {
            signal(SignalKind::from_raw(*number)).ok().map(|signal| (signal, *number, *name))
        });
        Caught { signals: caught.collect() }
    }

    /// The next one: its number and its name.
    pub async fn next(&mut self) -> (i32, &'static str) {
        poll_fn(|cx| {
            for (signal, number, name) in &mut self.signals {
                if let Poll::Ready(Some(())) = signal.poll_recv(cx) {
                    return Poll::Ready((*number, *name));
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Passes every caught signal on to a container, for ever.
pub async fn forward(client: &Client, id: &str, mut caught: Caught) {
    loop {
        let (_, name) = caught.next().await;
        // It may not run yet, or no longer: then there is nobody to tell.
        let _ = container::kill(client, id, name).await;
    }
}
