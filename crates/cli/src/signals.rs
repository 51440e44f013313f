//! Signals: passed on to the container, or ending us with the terminal restored.

use std::convert::Infallible;
use std::future::poll_fn;
use std::task::Poll;

use client::{Client, container};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::report::Exit;

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

    /// Catches what a user ends a command with.
    pub fn ending() -> Caught {
        Caught::of(&[(2, "INT"), (15, "TERM")])
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

/// How many times INT and TERM, counted together, are passed on before they end us; Docker's number.
const INTERRUPTIONS_MAX: u32 = 3;

/// Passes every caught signal on to a container, for ever, or until the user insists on getting out: that is what is
/// returned.
///
/// Counting waits for nobody: a daemon that does not answer must not swallow Ctrl-C.
pub async fn forward(client: &Client, id: &str, caught: Caught) -> Exit {
    let (sender, names) = mpsc::unbounded_channel();
    tokio::select! {
        exit = count(caught, sender) => exit,
        never = pass_on(client, id, names) => match never {},
    }
}

/// Nobody passes signals on: waits until the user insists on getting out.
pub async fn insist() -> Exit {
    let (sender, _nobody) = mpsc::unbounded_channel();
    count(Caught::ending(), sender).await
}

/// Waits until the user has enough: the status that says by which signal.
///
/// Ended by the signal itself, we would take the rest of the shell's line with us, where Docker's client does not.
pub async fn ended(mut caught: Caught) -> Exit {
    let (number, _) = caught.next().await;
    Exit::silent(128 + number as u8)
}

async fn count(mut caught: Caught, sender: mpsc::UnboundedSender<&'static str>) -> Exit {
    let mut interruptions = 0;
    loop {
        let (_, name) = caught.next().await;
        interruptions += u32::from(matches!(name, "INT" | "TERM"));
        if interruptions == INTERRUPTIONS_MAX {
            return Exit::new(1, "\ngot 3 SIGTERM/SIGINTs, forcefully exiting");
        }
        // Whoever receives ends with us.
        let _ = sender.send(name);
    }
}

/// One after the other: the container gets them in the order in which we did.
async fn pass_on(client: &Client, id: &str, mut names: mpsc::UnboundedReceiver<&'static str>) -> Infallible {
    loop {
        match names.recv().await {
            // It may not run yet, or no longer: then there is nobody to tell.
            Some(name) => _ = container::kill(client, id, name).await,
            // The one who counts is about to say how this ends.
            None => std::future::pending().await,
        }
    }
}
