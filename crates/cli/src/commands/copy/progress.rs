//! How far a copy is, on a terminal.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::console::warn;
use crate::format::units::human_size;
use crate::warn_line;

/// Docker's.
const REDRAW: Duration = Duration::from_millis(75);

/// A copy in progress, shown unless it is to be quiet.
pub(super) struct Progress {
    copied: Arc<AtomicU64>,
    quiet: bool,
    drawing: Option<JoinHandle<()>>,
}

impl Progress {
    pub(super) fn begin(quiet: bool, header: &'static str) -> Progress {
        let copied = Arc::new(AtomicU64::new(0));
        let on_terminal = !quiet && std::io::stderr().is_terminal();
        let drawing = on_terminal.then(|| {
            warn(format_args!("\x1b7Preparing to copy...\x1b[?25l\x1b8\x1b[2K{header}{}", human_size(0.0, 3)));
            tokio::spawn(draw(copied.clone(), header.len() + 1))
        });
        Progress { copied, quiet, drawing }
    }

    /// What counts the bytes.
    pub(super) fn counter(&self) -> Arc<AtomicU64> {
        self.copied.clone()
    }

    /// Says that it is done.
    pub(super) async fn end(mut self, destination: &str) {
        self.clear();
        if !self.quiet {
            let size = human_size(self.copied.load(Ordering::Relaxed) as f64, 3);
            warn_line!("Successfully copied {size} to {destination}");
        }
    }

    fn clear(&mut self) {
        if let Some(drawing) = self.drawing.take() {
            drawing.abort();
            warn(format_args!("\x1b[?25h\x1b8\x1b[2K"));
        }
    }
}

impl Drop for Progress {
    /// Also where it failed: the cursor comes back.
    fn drop(&mut self) {
        self.clear();
    }
}

async fn draw(copied: Arc<AtomicU64>, column: usize) {
    let (mut ticks, mut last) = (tokio::time::interval(REDRAW), 0);
    loop {
        ticks.tick().await;
        let now = copied.load(Ordering::Relaxed);
        if now != last {
            warn(format_args!("\x1b[{column}G\x1b[0K{}", human_size(now as f64, 3)));
            last = now;
        }
    }
}
