//! Outputs that the daemon brings itself, because something is said or written of the image beside it.

use client::session::outputs::{Outputs, Piece};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::super::changes::Output as NewFile;
use super::super::copy;
use crate::args::Parsed;
use crate::plan;
use crate::plan::beside::{Beside, Brought};
use crate::plan::outputs::{Kind, Output};
use crate::report::Exit;

/// Why nothing comes of what was asked for.
pub(super) const NOT_OURS: &str = "the daemon makes no attestations and annotations: they need Longshore's";

/// What is wanted of outputs that the daemon brings.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    beside: Beside,
    brought: Vec<Brought>,
}

/// Outputs on their way; dropped, what has not come goes.
#[derive(Debug, Default)]
pub(super) struct Taking {
    /// For the session.
    pub(super) outputs: Outputs,
    tasks: Vec<JoinHandle<Result<(), Exit>>>,
}

impl Wanted {
    pub(super) fn of(parsed: &Parsed, outputs: &[Output]) -> Result<Wanted, Exit> {
        let failed = |err: plan::beside::BesideError| Exit::error(&err);
        let beside = plan::beside::beside(parsed, &|name| std::env::var(name).ok()).map_err(failed)?;
        let flags = (parsed.flag("push"), parsed.flag("load"));
        let brought = beside.brought(outputs, parsed.list("tag"), flags).map_err(failed)?;
        Ok(Wanted { beside, brought })
    }

    /// What the daemon is told.
    pub(super) fn tell(&self, options: &mut client::build::BuildOptions) {
        options.outputs = self.brought.iter().map(|brought| brought.output.clone()).collect();
        if !options.outputs.is_empty() {
            options.attest.clone_from(&self.beside.attest);
        }
    }

    /// Whether there is something of it that only our daemon does, and that somebody has asked for.
    pub(super) fn is_asked(&self) -> bool {
        self.beside.is_asked || !self.beside.annotations.is_empty()
    }

    /// Begins to take what comes.
    pub(super) fn take(&self) -> Taking {
        let mut taking = Taking::default();
        for (place, brought) in self.brought.iter().enumerate() {
            let Some((kind, to)) = brought.to.clone() else { continue };
            let pieces = taking.outputs.expect(place);
            taking.tasks.push(tokio::spawn(async move {
                match kind {
                    Kind::Directory => into_directory(pieces, &to).await,
                    _ => into_file(pieces, &to).await,
                }
            }));
        }
        taking
    }
}

impl Taking {
    /// Waits until all is written.
    pub(super) async fn end(&mut self) -> Result<(), Exit> {
        self.outputs.close();
        for task in self.tasks.drain(..) {
            task.await.unwrap_or_else(|_| Err(Exit::silent(1)))?;
        }
        Ok(())
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// An output that does not come whole.
fn broken_off() -> Exit {
    Exit::new(1, "the daemon breaks an output off")
}

async fn into_file(mut pieces: mpsc::Receiver<Piece>, to: &str) -> Result<(), Exit> {
    let mut file = match to {
        "-" => None,
        path => Some(NewFile::begin(path, "write the output")?),
    };
    while let Some(piece) = pieces.recv().await.ok_or_else(broken_off)? {
        match &mut file {
            Some(file) => file.write(&piece)?,
            None => crate::console::write(&piece),
        }
    }
    file.map_or(Ok(()), NewFile::end)
}

async fn into_directory(mut pieces: mpsc::Receiver<Piece>, to: &str) -> Result<(), Exit> {
    let unpacking = copy::Unpacking::begin(to);
    while let Some(piece) = pieces.recv().await.ok_or_else(broken_off)? {
        if !unpacking.add(piece).await {
            break;
        }
    }
    unpacking.end().await
}

/// What is written down of a build whose outputs the daemon has brought.
pub(super) fn metadata(exported: &Value) -> String {
    let mut fields = exported.as_object().cloned().unwrap_or_default();
    // In JSON, and in base64 on its way.
    if let Some(descriptor) = fields.get("containerimage.descriptor").and_then(Value::as_str).and_then(descriptor) {
        fields.insert("containerimage.descriptor".to_owned(), descriptor);
    }
    serde_json::to_string_pretty(&fields).expect("texts are always JSON")
}

fn descriptor(text: &str) -> Option<Value> {
    serde_json::from_slice(&engine_api::auth::decode(text)?).ok()
}
