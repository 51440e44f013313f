//! Whom lines are told, or the parts of a graph.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dockerfile::Instruction;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;

use super::caches::Wanted;
use super::flights::Flight;
use super::turns::Turns;
use super::{BuildLine, Explanation, FailedAt, PartEvent, Used};
use crate::sync::lock;

/// How long a reader may stop while others wait for what a command holds that prints. Who scrolls reads again within it.
const READER_WAITED: Duration = Duration::from_secs(30);

/// Where lines go: of the whole build, or of one of its stages. Only one task tells lines of one.
#[derive(Debug)]
pub(super) struct Lines {
    to: To,
    is_graph: bool,
    /// How many parts of the build have begun.
    parts: Arc<AtomicUsize>,
    /// The part that is going on; 0 for none.
    part: AtomicUsize,
    /// The line of the Dockerfile; 0 for none.
    line: AtomicUsize,
    /// The last one of the instruction; 0 if only where it begins is known.
    end: AtomicUsize,
    held: Mutex<Held>,
    /// Steps that the build does, for which others may wait, too.
    leads: Arc<Mutex<Vec<Arc<Flight>>>>,
    /// Where the build has failed, if it is none of a graph.
    failed_at: Arc<Mutex<FailedAt>>,
    /// How long a reader may stop while others wait for what is held.
    reader_waited: Duration,
}

/// What is held while something is told.
#[derive(Debug, Default)]
struct Held {
    /// The keys of caches, and who else waits for which.
    caches: Option<(Arc<Wanted>, Vec<String>)>,
    /// The step that is done, where others may hear what it prints.
    step: Option<Arc<Flight>>,
    /// How many bytes of what was printed were left out.
    left_out: usize,
}

impl Held {
    fn is_wanted(&self) -> bool {
        self.caches.as_ref().is_some_and(|(wanted, keys)| wanted.has_any(keys))
    }
}

#[derive(Clone, Debug)]
enum To {
    Client(mpsc::Sender<BuildLine>),
    /// A stage, by its place in the plan, whose turn has to come.
    Turn(Arc<Turns>, usize),
}

impl Lines {
    /// Those of a whole build.
    pub(super) fn new(sender: mpsc::Sender<BuildLine>, is_graph: bool) -> Lines {
        Lines {
            to: To::Client(sender),
            is_graph,
            parts: Arc::default(),
            part: 0.into(),
            line: 0.into(),
            end: 0.into(),
            held: Mutex::default(),
            leads: Arc::default(),
            failed_at: Arc::default(),
            reader_waited: READER_WAITED,
        }
    }

    /// Those of a stage, which goes on beside others: lines wait for their turn.
    pub(super) fn in_turn(&self, turns: &Arc<Turns>, stage: usize) -> Lines {
        match self.is_graph {
            true => self.beside(),
            false => Lines { to: To::Turn(turns.clone(), stage), ..self.beside() },
        }
    }

    /// Those of something of a graph that goes on beside others. Who reads it keeps them apart.
    pub(super) fn beside(&self) -> Lines {
        let (to, parts) = (self.to.clone(), self.parts.clone());
        Lines {
            to,
            is_graph: self.is_graph,
            parts,
            part: 0.into(),
            line: 0.into(),
            end: 0.into(),
            held: Mutex::default(),
            leads: self.leads.clone(),
            failed_at: self.failed_at.clone(),
            reader_waited: self.reader_waited,
        }
    }

    /// Notes the caches that are held from now on, by their keys, and who waits for which.
    pub(super) fn holds(&self, caches: Option<(Arc<Wanted>, Vec<String>)>) {
        lock(&self.held).caches = caches;
    }

    /// Notes a step that is done from now on, for which others may wait; what it prints they hear unless it `is_private`.
    pub(super) fn leads(&self, step: &Arc<Flight>, is_private: bool) {
        lock(&self.leads).push(step.clone());
        lock(&self.held).step = (!is_private).then(|| step.clone());
    }

    /// That step is at its end.
    pub(super) fn led(&self, step: &Arc<Flight>) {
        lock(&self.leads).retain(|other| !Arc::ptr_eq(other, step));
        lock(&self.held).step = None;
    }

    /// Whether others wait for what is held here, or for a step of the build, which may need what is held here to get on.
    fn is_wanted(&self) -> bool {
        let holds = lock(&self.held).is_wanted();
        holds || lock(&self.leads).iter().any(|step| step.is_followed())
    }

    /// Tells what a command prints, and those who wait for the same step.
    pub(super) async fn print(&self, is_error: bool, bytes: &[u8]) {
        if let Some(step) = &lock(&self.held).step {
            step.print(is_error, bytes);
        }
        self.part(PartEvent::Output { is_error, bytes: bytes.to_vec() }).await;
        let text = String::from_utf8_lossy(bytes);
        let text = if is_error { format!("\u{1b}[91m{text}\u{1b}[0m") } else { text.into_owned() };
        self.text(text).await;
    }

    /// Tells something; waits for who reads. What a command prints that holds what others wait for is left out while its
    /// reader has stopped: how much that was is told when he goes on.
    pub(super) async fn tell(&self, mut line: BuildLine) {
        let bytes = printed_bytes(&line);
        loop {
            let is_wanted = self.is_wanted();
            let left_out = lock(&self.held).left_out;
            let patience = match (bytes, left_out, is_wanted) {
                // Programs read it, or there is something to wait for.
                (0, ..) | (_, 1.., false) => None,
                (_, 0, _) => Some(self.reader_waited),
                (_, _, true) => Some(Duration::ZERO),
            };
            if left_out > 0 {
                if self.send(self.note(left_out, &line), patience).await.is_err() {
                    lock(&self.held).left_out += bytes;
                    return;
                }
                lock(&self.held).left_out = 0;
            }
            line = match self.send(line, patience).await {
                Ok(()) => return,
                Err(line) => line,
            };
            if self.is_wanted() {
                lock(&self.held).left_out = bytes;
                return;
            }
        }
    }

    /// Tells something within a time, where there is one; else answers what was not told.
    async fn send(&self, line: BuildLine, patience: Option<Duration>) -> Result<(), BuildLine> {
        match (&self.to, patience) {
            (To::Turn(turns, index), patience) => turns.tell_within(*index, line, patience).await,
            (To::Client(sender), Some(patience)) => match sender.send_timeout(line, patience).await {
                Err(SendTimeoutError::Timeout(line)) => Err(line),
                // A client that has gone ends us soon.
                Ok(()) | Err(SendTimeoutError::Closed(_)) => Ok(()),
            },
            (To::Client(sender), None) => {
                drop(sender.send(line).await);
                Ok(())
            }
        }
    }

    /// What is told in place of what was left out before `next`.
    fn note(&self, left_out: usize, next: &BuildLine) -> BuildLine {
        let text = format!("[output left out: {left_out} bytes]\n");
        match next {
            BuildLine::Part { number, .. } => {
                let event = PartEvent::Output { is_error: true, bytes: text.into_bytes() };
                BuildLine::Part { number: *number, event }
            }
            _ => BuildLine::Text(text),
        }
    }

    /// Tells what waits for its turn, to the end; of a graph nothing does.
    pub(super) async fn tell_turns(&self, turns: &Turns) {
        if let To::Client(sender) = &self.to {
            turns.tell_all(sender).await;
        }
    }

    /// Tells something to read, but of a graph.
    pub(super) async fn text(&self, text: impl Into<String>) {
        if !self.is_graph {
            self.tell(BuildLine::Text(text.into())).await;
        }
    }

    /// Tells an image, but of a graph.
    pub(super) async fn image(&self, image: &str) {
        if !self.is_graph {
            self.tell(BuildLine::Image(image.to_owned())).await;
        }
    }

    /// Tells what became of a step, but of a graph.
    pub(super) async fn explain(&self, explanation: Explanation) {
        if self.is_graph {
            return;
        }
        if let Some(line) = explanation.line() {
            self.text(line).await;
        }
        self.tell(BuildLine::Explained(Box::new(explanation))).await;
    }

    /// Tells what the part of a graph does that is going on.
    pub(super) async fn part(&self, event: PartEvent) {
        let number = match event {
            PartEvent::Ended | PartEvent::Failed(_) => self.part.swap(0, Ordering::Relaxed),
            _ => self.part.load(Ordering::Relaxed),
        };
        if self.is_graph && number > 0 {
            self.tell(BuildLine::Part { number, event }).await;
        }
    }

    /// Begins a part; answers its number.
    pub(super) async fn begin(&self, name: String, after: Option<usize>) -> Option<usize> {
        let number = self.parts.fetch_add(1, Ordering::Relaxed) + 1;
        self.part.store(number, Ordering::Relaxed);
        self.part(PartEvent::Begun { name, after }).await;
        self.is_graph.then_some(number)
    }

    /// Waits until all that was told of a graph until now has been heard: what others tell by themselves comes behind it.
    pub(super) async fn heard(&self) {
        if self.is_graph {
            let (unheard, mut heard) = mpsc::channel(1);
            self.tell(BuildLine::Heard(unheard)).await;
            heard.recv().await;
        }
    }

    /// Tells of a part that has ended already that what it is was wanted and is here.
    pub(super) async fn is_here(&self, part: usize) {
        for event in [PartEvent::Cached, PartEvent::Ended] {
            self.tell(BuildLine::Part { number: part, event }).await;
        }
    }

    /// Tells what was used.
    pub(super) async fn used(&self, used: Used) {
        self.tell(BuildLine::Used(Box::new(used))).await;
    }

    /// Notes which line of the Dockerfile comes next.
    pub(super) fn at(&self, line: usize) {
        self.line.store(line, Ordering::Relaxed);
        self.end.store(0, Ordering::Relaxed);
    }

    /// Says which instruction is next.
    pub(super) fn at_instruction(&self, instruction: &Instruction) {
        self.line.store(instruction.line, Ordering::Relaxed);
        self.end.store(instruction.end, Ordering::Relaxed);
    }

    /// Notes the Dockerfile.
    pub(super) fn read(&self, text: Arc<str>) {
        lock(&self.failed_at).text = text;
    }

    /// Where it is noted that it has failed.
    pub(super) fn failed_at(&self) -> Arc<Mutex<FailedAt>> {
        self.failed_at.clone()
    }

    /// Tells or notes where something has failed.
    pub(super) async fn failed(&self) {
        let (line, part) = (self.line.load(Ordering::Relaxed), self.part.load(Ordering::Relaxed));
        let end = self.end.load(Ordering::Relaxed);
        if self.is_graph {
            self.tell(BuildLine::Failed { line, end, part: Some(part).filter(|part| *part > 0) }).await;
        } else {
            // What waits for its turn may wait for us: who has heard the error asks.
            let mut failed_at = lock(&self.failed_at);
            (failed_at.line, failed_at.end) = (line, end);
        }
    }
}

/// How many bytes people read of a line that need not come.
fn printed_bytes(line: &BuildLine) -> usize {
    match line {
        BuildLine::Text(text) => text.len(),
        BuildLine::Part { event: PartEvent::Output { bytes, .. }, .. } => bytes.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::flights::{FlightKey, Flights, Landed, News, Role};
    use super::*;

    fn text(text: &str) -> BuildLine {
        BuildLine::Text(text.to_owned())
    }

    #[tokio::test]
    async fn a_reader_who_stops_holds_up_nobody_who_waits_for_the_same_step() {
        let (sender, mut receiver) = mpsc::channel(1);
        let short = Duration::from_millis(20);
        let lines = Lines { reader_waited: short, ..Lines::new(sender, false) };
        let flights = Arc::<Flights>::default();
        let step = builder::cache::key(None, &Default::default(), &[], &[]);
        let key = FlightKey { step, build: None, terms: String::new() };
        let Role::Lead(leading) = flights.join(key.clone()) else { panic!("somebody leads") };
        let (own, other) = (lines.beside(), lines.beside());
        own.leads(leading.flight(), false);
        own.print(false, b"first").await;
        assert!(tokio::time::timeout(short * 10, own.print(false, b"waits")).await.is_err());
        let Role::Follow(mut following) = flights.join(key) else { panic!("nobody leads") };
        own.print(false, b"left out").await;
        // Another step of the build may be what this one waits for.
        other.print(false, b"left out").await;
        let mut heard = String::new();
        while let News::Printed { bytes, .. } = following.next().await {
            heard.push_str(&String::from_utf8_lossy(&bytes));
            if heard.ends_with("left out") {
                break;
            }
        }
        assert_eq!(heard, "firstwaitsleft out");
        leading.land(Landed::Failed(1));
        let rest = own.print(false, b"last");
        let reading = async {
            let mut told = Vec::new();
            while told.len() < 3 {
                told.push(format!("{:?}", receiver.recv().await.unwrap()));
            }
            told
        };
        let ((), told) = tokio::join!(rest, reading);
        assert_eq!(told, ["Text(\"first\")", "Text(\"[output left out: 8 bytes]\\n\")", "Text(\"last\")"]);
    }

    #[tokio::test]
    async fn a_reader_who_stops_holds_up_nobody_who_waits_for_a_cache() {
        let (sender, mut receiver) = mpsc::channel(1);
        let short = Duration::from_millis(20);
        let lines = Lines { reader_waited: short, ..Lines::new(sender, false) };
        let wanted = Arc::new(Wanted::default());
        lines.holds(Some((wanted.clone(), vec!["key".to_owned()])));
        lines.tell(text("first")).await;
        // Nobody else wants it: it waits, as everywhere.
        let waits = tokio::time::timeout(short * 10, lines.tell(text("second")));
        assert!(waits.await.is_err());
        let waiting = wanted.add("key");
        for _ in 0..1000 {
            lines.tell(text("left out")).await;
        }
        assert_eq!(receiver.try_recv().ok().map(|line| format!("{line:?}")), Some("Text(\"first\")".to_owned()));
        let rest = async {
            lines.tell(text("last")).await;
            lines.tell(BuildLine::Image("image".to_owned())).await;
        };
        let mut told = Vec::new();
        drop(waiting);
        let reading = async {
            while told.len() < 3 {
                told.push(format!("{:?}", receiver.recv().await.unwrap()));
            }
        };
        tokio::join!(rest, reading);
        assert_eq!(told, ["Text(\"[output left out: 8000 bytes]\\n\")", "Text(\"last\")", "Image(\"image\")"]);
    }
}
