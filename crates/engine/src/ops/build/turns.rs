//! Whose turn it is to be read: stages go on side by side, but people read one after the other.
//!
//! ```text
//! stage 0 --tell--> queue --tell_all--> client      its turn: it waits while the client reads slowly
//! stage 1 --tell--> queue                           held back, above a bound in files of the build's directory
//! ```
//! Only the stage whose turn it is ever waits for the reader. Another one that did, with a locked cache in its hands, might
//! wait for ever for one that waits for the cache. So what is held back is bounded ([`HELD_MAX`]): texts above that are left
//! out, and how many bytes they had is told in their place.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tracing::debug;

use super::BuildLine;
use crate::sync::lock;

/// How much text of a stage is kept in memory, in bytes. There may be many stages; the bound is of each.
const MEMORY_MAX: usize = 64 * 1024;

/// How much text of all stages together is held back, in bytes. A command may print for as long as the first stage goes on;
/// without a bound it fills the disk. No log that people read is larger.
const HELD_MAX: usize = 64 * 1024 * 1024;

/// What something to tell that is no text counts there, in bytes: about what it takes.
const LINE_BYTES: usize = 512;

/// What waits for its turn.
#[derive(Debug)]
pub(super) struct Turns {
    state: Mutex<State>,
    /// Something has come, or ended.
    news: Notify,
    /// Something has been told, or it is another stage's turn.
    room: Notify,
    /// Where files go.
    place: PathBuf,
}

#[derive(Debug)]
struct State {
    stages: Vec<Held>,
    /// Whose turn it is.
    turn: usize,
    /// The stage that has failed: its lines are the last.
    failed: Option<usize>,
    /// How many files there were.
    files: usize,
    /// How many bytes all pieces have.
    held: usize,
}

/// What a stage has told so far.
#[derive(Debug, Default)]
struct Held {
    pieces: VecDeque<Piece>,
    /// How many bytes of text were left out behind them.
    left_out: usize,
    ended: bool,
}

/// Lines in their order.
#[derive(Debug)]
enum Piece {
    /// What they take in memory, too.
    Texts(Vec<String>, usize),
    /// Texts in a file, and what they took in memory.
    File(PathBuf, usize),
    /// Something to tell that is no text.
    Line(Box<BuildLine>),
}

impl Turns {
    /// Those of so many stages, in a directory that goes with the build.
    pub(super) fn new(stages: usize, place: PathBuf) -> Turns {
        let stages = (0..stages).map(|_| Held::default()).collect();
        let state = State { stages, turn: 0, failed: None, files: 0, held: 0 };
        Turns { state: Mutex::new(state), news: Notify::new(), room: Notify::new(), place }
    }

    /// Tells something of a stage: to who reads, when it is its turn; waits for him so long at most, where there is a bound, and
    /// else answers what was not told.
    pub(super) async fn tell_within(
        &self,
        stage: usize,
        line: BuildLine,
        patience: Option<Duration>,
    ) -> Result<(), BuildLine> {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            // From here on no change is missed.
            room.as_mut().enable();
            let full = {
                let mut state = lock(&self.state);
                if state.leaves_out(stage, &line) {
                    return Ok(());
                }
                match (state.stages[stage].is_full(), state.turn == stage) {
                    (false, _) => {
                        state.push(stage, line);
                        self.news.notify_one();
                        return Ok(());
                    }
                    (true, true) => None,
                    (true, false) => state.take_texts(stage, &self.place),
                }
            };
            match full {
                Some((texts, bytes, path)) => self.put_away(stage, (texts, bytes), path).await,
                None => match patience {
                    None => room.await,
                    Some(patience) if tokio::time::timeout(patience, room).await.is_err() => return Err(line),
                    Some(_) => {}
                },
            }
        }
    }

    /// Puts texts into a file. Nobody else tells anything of this stage meanwhile.
    async fn put_away(&self, stage: usize, (texts, bytes): (Vec<String>, usize), path: PathBuf) {
        let piece = bridge::blocking(move || match write(&path, &texts) {
            Ok(()) => Piece::File(path, bytes),
            Err(err) => {
                debug!(%err, "lines of a build are left out");
                if let Err(err) = std::fs::remove_file(&path) {
                    // It goes with the build.
                    debug!(%err, "a part of the lines stays");
                }
                // A disk stays full for long; memory that is taken instead is everybody's.
                let note = left_out(&err);
                let bytes = bytes_of(&note);
                Piece::Texts(vec![note], bytes)
            }
        });
        let piece = piece.await;
        let mut state = lock(&self.state);
        state.held = state.held + piece.bytes() - bytes;
        state.stages[stage].pieces.extend([piece, Piece::Texts(Vec::new(), 0)]);
        drop(state);
        self.news.notify_one();
    }

    /// A stage tells nothing more.
    pub(super) fn end(&self, stage: usize) {
        lock(&self.state).stages[stage].ended = true;
        self.news.notify_one();
    }

    /// A stage has failed, and no other one goes on: behind what is being told only its lines are.
    pub(super) fn fail(&self, stage: usize) {
        let mut state = lock(&self.state);
        state.failed = Some(stage);
        state.stages.iter_mut().for_each(|held| held.ended = true);
        self.news.notify_one();
    }

    /// Tells everything, stage after stage, until the last one or the one that fails has ended, or the client has gone.
    pub(super) async fn tell_all(&self, client: &mpsc::Sender<BuildLine>) {
        loop {
            let next = lock(&self.state).next();
            self.room.notify_waiters();
            match next {
                Next::Piece(piece) => {
                    for line in lines(piece).await {
                        if client.send(line).await.is_err() {
                            return;
                        }
                    }
                }
                Next::Wait => self.news.notified().await,
                Next::End => return,
            }
        }
    }
}

/// What is told next.
enum Next {
    Piece(Piece),
    /// Nothing yet.
    Wait,
    /// Nothing any more.
    End,
}

impl State {
    fn next(&mut self) -> Next {
        loop {
            let Some(held) = self.stages.get_mut(self.turn) else { return Next::End };
            match held.pieces.pop_front() {
                Some(piece) => {
                    self.held -= piece.bytes();
                    return Next::Piece(piece);
                }
                None if !held.ended => return Next::Wait,
                None if held.left_out > 0 => return Next::Piece(Piece::Texts(vec![held.note()], 0)),
                None => {}
            }
            self.turn = match self.failed {
                Some(failed) if self.turn < failed => failed,
                Some(_) => return Next::End,
                None => self.turn + 1,
            };
        }
    }

    /// Leaves out what is only read if its stage has to wait and too much is held back.
    fn leaves_out(&mut self, stage: usize, line: &BuildLine) -> bool {
        let (bytes, told) = match line {
            BuildLine::Text(text) => (bytes_of(text), text.len()),
            BuildLine::Pull(_) => (LINE_BYTES, 0),
            // Programs read the others, of which there are a few for a step.
            _ => return false,
        };
        let leaves_out = self.turn != stage && self.held + bytes > HELD_MAX;
        if leaves_out {
            self.stages[stage].left_out += told;
        }
        leaves_out
    }

    fn push(&mut self, stage: usize, line: BuildLine) {
        let held = &mut self.stages[stage];
        if held.left_out > 0 {
            let note = BuildLine::Text(held.note());
            self.held += held.push(note);
        }
        self.held += held.push(line);
    }

    /// Takes the last texts of a stage, and what they take in memory, for a file of that name.
    fn take_texts(&mut self, stage: usize, place: &Path) -> Option<(Vec<String>, usize, PathBuf)> {
        let Some(Piece::Texts(texts, bytes)) = self.stages[stage].pieces.pop_back() else { return None };
        self.files += 1;
        Some((texts, bytes, place.join(format!("lines-{}", self.files))))
    }
}

impl Held {
    /// Whether the last texts are as many as there may be at once.
    fn is_full(&self) -> bool {
        matches!(self.pieces.back(), Some(Piece::Texts(_, bytes)) if *bytes >= MEMORY_MAX)
    }

    /// Answers by how many bytes the pieces are more.
    fn push(&mut self, line: BuildLine) -> usize {
        match (line, self.pieces.back_mut()) {
            (BuildLine::Text(text), Some(Piece::Texts(texts, bytes))) => {
                let more = bytes_of(&text);
                *bytes += more;
                texts.push(text);
                more
            }
            (BuildLine::Text(text), _) => {
                let bytes = bytes_of(&text);
                self.pieces.push_back(Piece::Texts(vec![text], bytes));
                bytes
            }
            (line, _) => {
                self.pieces.push_back(Piece::Line(Box::new(line)));
                LINE_BYTES
            }
        }
    }

    /// Says what was left out so far.
    fn note(&mut self) -> String {
        left_out(&format_args!("{} bytes", std::mem::take(&mut self.left_out)))
    }
}

impl Piece {
    /// What it takes in memory, or took.
    fn bytes(&self) -> usize {
        match self {
            Piece::Texts(_, bytes) | Piece::File(_, bytes) => *bytes,
            Piece::Line(_) => LINE_BYTES,
        }
    }
}

/// What a text takes in memory.
fn bytes_of(text: &str) -> usize {
    text.len() + size_of::<String>()
}

/// What is told in place of texts that are not.
fn left_out(what: &dyn std::fmt::Display) -> String {
    format!("[output left out: {what}]\n")
}

fn write(path: &Path, texts: &[String]) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(texts).expect("texts are always JSON");
    std::fs::write(path, bytes)
}

async fn lines(piece: Piece) -> Vec<BuildLine> {
    let texts = match piece {
        Piece::Line(line) => return vec![*line],
        Piece::Texts(texts, _) => texts,
        Piece::File(path, _) => bridge::blocking(move || read(&path)).await,
    };
    texts.into_iter().map(BuildLine::Text).collect()
}

fn read(path: &Path) -> Vec<String> {
    let read = std::fs::read(path).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
    if let Err(err) = std::fs::remove_file(path) {
        // It goes with the build.
        debug!(%err, "lines of a build that were told stay");
    }
    read.unwrap_or_else(|err| vec![left_out(&err)])
}

#[cfg(test)]
mod tests;
