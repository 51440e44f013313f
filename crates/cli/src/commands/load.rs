//! `load`.

use std::fs::File;
use std::io::{self, IsTerminal, Read};

use client::call::Upload;
use client::image;
use tokio::sync::mpsc;

use super::{Context, progress};
use crate::args::Parsed;
use crate::report::{Exit, go_error};
use crate::say;

/// Bytes read at once: large, because each costs a hand-over between threads.
const PIECE_BYTES: usize = 256 << 10;

/// `load`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let input = parsed.text("input");
    let wanted = super::save::wanted_platform(parsed)?;
    let quiet = parsed.flag("quiet") || !io::stdout().is_terminal();
    let source: Box<dyn Read + Send> = match input {
        "" if io::stdin().is_terminal() => {
            return Err(Exit::new(1, "requested load from stdin, but stdin is empty"));
        }
        "" => Box::new(io::stdin()),
        path => {
            let file = File::open(path).map_err(|err| Exit::new(1, format!("open {path}: {}", go_error(&err))))?;
            // It can be opened and not read. Docker learns that while it sends, and says so; we say so without a request.
            if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
                let url = context.client.url(&image::load_path(quiet, &wanted));
                return Err(Exit::new(1, format!("error during connect: Post \"{url}\": read {path}: is a directory")));
            }
            Box::new(file)
        }
    };
    let mut answer = image::load(&context.client, upload(source), quiet, &wanted).await?;
    if answer.content_type().starts_with("application/json") {
        return progress::show(answer, progress::Target::Stdout, false).await;
    }
    say!("{}", String::from_utf8_lossy(&answer.rest().await?));
    Ok(())
}

/// Reads in a thread of its own, a few pieces ahead of the connection.
pub(super) fn upload(mut source: Box<dyn Read + Send>) -> Upload {
    let (sender, pieces) = mpsc::channel(4);
    std::thread::spawn(move || {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let outcome = match source.read(&mut piece) {
                Ok(0) => return,
                Ok(length) => {
                    piece.truncate(length);
                    Ok(piece.into())
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                Err(err) => Err(err),
            };
            let failed = outcome.is_err();
            // The daemon has answered before the end of the archive: it has refused it.
            if sender.blocking_send(outcome).is_err() || failed {
                return;
            }
        }
    });
    Upload { pieces }
}
