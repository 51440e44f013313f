//! Whose turn it is to be read: stages go on side by side, but people read one after the other.
//!
//! ```text
//! stage 0 --tell--> queue --tell_all--> client      its turn: it waits while the client reads slowly
//! stage 1 --tell--> queue                           held back, above a bound in files of the build's directory
//! ```
//! Only the stage whose turn it is ever waits for the reader. Another one that did, with a locked cache in its hands, might
//! wait for ever for one that waits for the cache.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tokio::sync::{Notify, mpsc};
use tracing::debug;

use super::BuildLine;
use crate::sync::lock;

/// How much text of a stage is kept in memory, in bytes. There may be many stages; the bound is of each.
const MEMORY_MAX: usize = 64 * 1024;

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
}

/// What a stage has told so far.
#[derive(Debug, Default)]
struct Held {
    pieces: VecDeque<Piece>,
    ended: bool,
}

/// Lines in their order.
#[derive(Debug)]
enum Piece {
    /// What they take in memory, too.
    Texts(Vec<String>, usize),
    /// Texts in a file.
    File(PathBuf),
    /// Something to tell that is no text.
    Line(Box<BuildLine>),
}

impl Turns {
    /// Those of so many stages, in a directory that goes with the build.
    pub(super) fn new(stages: usize, place: PathBuf) -> Turns {
        let stages = (0..stages).map(|_| Held::default()).collect();
        let state = State { stages, turn: 0, failed: None, files: 0 };
        Turns { state: Mutex::new(state), news: Notify::new(), room: Notify::new(), place }
    }

    /// Tells something of a stage: to who reads, when it is its turn.
    pub(super) async fn tell(&self, stage: usize, line: BuildLine) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            // From here on no change is missed.
            room.as_mut().enable();
            let full = {
                let mut state = lock(&self.state);
                match (state.stages[stage].is_full(), state.turn == stage) {
                    (false, _) => {
                        state.stages[stage].push(line);
                        self.news.notify_one();
                        return;
                    }
                    (true, true) => None,
                    (true, false) => state.take_texts(stage, &self.place),
                }
            };
            match full {
                Some((texts, path)) => self.put_away(stage, texts, path).await,
                None => room.await,
            }
        }
    }

    /// Puts texts into a file. Nobody else tells anything of this stage meanwhile.
    async fn put_away(&self, stage: usize, texts: Vec<String>, path: PathBuf) {
        let piece = bridge::blocking(move || match write(&path, &texts) {
            Ok(()) => Piece::File(path),
            Err(err) => {
                // Rather more memory than a line less.
                debug!(%err, "lines of a build stay in memory");
                Piece::Texts(texts, 0)
            }
        });
        let pieces = [piece.await, Piece::Texts(Vec::new(), 0)];
        lock(&self.state).stages[stage].pieces.extend(pieces);
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
                Some(piece) => return Next::Piece(piece),
                None if !held.ended => return Next::Wait,
                None => {}
            }
            self.turn = match self.failed {
                Some(failed) if self.turn < failed => failed,
                Some(_) => return Next::End,
                None => self.turn + 1,
            };
        }
    }

    /// Takes the last texts of a stage, for a file of that name.
    fn take_texts(&mut self, stage: usize, place: &Path) -> Option<(Vec<String>, PathBuf)> {
        let Some(Piece::Texts(texts, _)) = self.stages[stage].pieces.pop_back() else { return None };
        self.files += 1;
        Some((texts, place.join(format!("lines-{}", self.files))))
    }
}

impl Held {
    /// Whether the last texts are as many as there may be at once.
    fn is_full(&self) -> bool {
        matches!(self.pieces.back(), Some(Piece::Texts(_, bytes)) if *bytes >= MEMORY_MAX)
    }

    fn push(&mut self, line: BuildLine) {
        let bytes_of = |text: &String| text.len() + size_of::<String>();
        match (line, self.pieces.back_mut()) {
            (BuildLine::Text(text), Some(Piece::Texts(texts, bytes))) => {
                *bytes += bytes_of(&text);
                texts.push(text);
            }
            (BuildLine::Text(text), _) => {
                let bytes = bytes_of(&text);
                self.pieces.push_back(Piece::Texts(vec![text], bytes));
            }
            (line, _) => self.pieces.push_back(Piece::Line(Box::new(line))),
        }
    }
}

fn write(path: &Path, texts: &[String]) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(texts).expect("texts are always JSON");
    std::fs::write(path, bytes)
}

async fn lines(piece: Piece) -> Vec<BuildLine> {
    let texts = match piece {
        Piece::Line(line) => return vec![*line],
        Piece::Texts(texts, _) => texts,
        Piece::File(path) => bridge::blocking(move || read(&path)).await,
    };
    texts.into_iter().map(BuildLine::Text).collect()
}

fn read(path: &Path) -> Vec<String> {
    let read = std::fs::read(path).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
    if let Err(err) = std::fs::remove_file(path) {
        // It goes with the build.
        debug!(%err, "lines of a build that were told stay");
    }
    read.unwrap_or_else(|err| vec![format!("[output left out: {err}]\n")])
}

#[cfg(test)]
mod tests;
