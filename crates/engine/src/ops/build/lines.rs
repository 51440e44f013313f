//! Whom lines are told, or the parts of a graph.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dockerfile::Instruction;
use tokio::sync::mpsc;

use super::turns::Turns;
use super::{BuildLine, Explanation, PartEvent, Used};

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
        Lines { to: To::Client(sender), is_graph, parts: Arc::default(), part: 0.into(), line: 0.into(), end: 0.into() }
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
        Lines { to, is_graph: self.is_graph, parts, part: 0.into(), line: 0.into(), end: 0.into() }
    }

    pub(super) async fn tell(&self, line: BuildLine) {
        match &self.to {
            // A client that has gone ends us soon.
            To::Client(sender) => drop(sender.send(line).await),
            To::Turn(turns, index) => turns.tell(*index, line).await,
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
            PartEvent::Ended => self.part.swap(0, Ordering::Relaxed),
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

    /// Tells what was used, of a graph.
    pub(super) async fn used(&self, used: Used) {
        if self.is_graph {
            self.tell(BuildLine::Used(Box::new(used))).await;
        }
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

    /// Tells where something has failed.
    pub(super) async fn failed(&self) {
        let (line, part) = (self.line.load(Ordering::Relaxed), self.part.load(Ordering::Relaxed));
        if self.is_graph {
            let end = self.end.load(Ordering::Relaxed);
            self.tell(BuildLine::Failed { line, end, part: Some(part).filter(|part| *part > 0) }).await;
        }
    }
}
