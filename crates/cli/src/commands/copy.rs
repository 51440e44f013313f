//! `cp`.

mod local;
mod progress;

use std::io::{self, IsTerminal, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use client::call::{Answer, Upload};
use client::container;
use engine_api::paths::clean;
use tokio::sync::{mpsc, oneshot};

use super::Context;
use super::load::upload;
use crate::args::Parsed;
use crate::plan::copy::{self, Place, Target};
use crate::report::Exit;
use local::Archive;
use progress::Progress;

/// `cp`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let [source, destination] = &parsed.positionals[..] else { return Ok(()) };
    if source.is_empty() {
        return Err(Exit::new(1, "source can not be empty"));
    }
    if destination.is_empty() {
        return Err(Exit::new(1, "destination can not be empty"));
    }
    let copy = Copy {
        context,
        follow: parsed.flag("follow-link"),
        to_user: parsed.flag("archive"),
        quiet: parsed.flag_or("quiet", !io::stdout().is_terminal()),
    };
    match (copy::split_argument(source), copy::split_argument(destination)) {
        (("", _), ("", _)) => Err(Exit::new(1, "must specify at least one container source")),
        ((from, source), ("", destination)) => copy.out(from, source, destination).await,
        (("", source), (to, destination)) => copy.bring(source, to, destination).await,
        _ => Err(Exit::new(1, "copying between containers is not supported")),
    }
}

struct Copy<'a> {
    context: &'a Context,
    follow: bool,
    to_user: bool,
    quiet: bool,
}

impl Copy<'_> {
    /// From a container.
    async fn out(&self, name: &str, source: &str, destination: &str) -> Result<(), Exit> {
        let client = &self.context.client;
        let destination = match destination {
            "-" => destination.to_owned(),
            path => {
                let path = local::absolute(path)?;
                local::check_output(&path)?;
                path
            }
        };
        let (mut source, mut asked_name) = (source.to_owned(), String::new());
        if self.follow
            && let Ok(stat) = container::path_stat(client, name, &source).await
            && stat.is_symlink()
        {
            (source, asked_name) = copy::followed(&source, &joined(&source, &stat.link_target));
        }
        let (mut answer, stat) = container::get_archive(client, name, &source).await?;
        if destination == "-" {
            while let Some(piece) = answer.next().await? {
                crate::console::write(&piece);
            }
            return Ok(());
        }
        let place = Place { path: source, exists: true, is_directory: stat.is_directory(), asked_name };
        let progress = Progress::begin(self.quiet, "Copying from container - ");
        let (pieces, receiver) = mpsc::channel(4);
        let (done, outcome) = oneshot::channel();
        let (path, counted) = (destination.clone(), progress.counter());
        std::thread::spawn(move || {
            let archive = Archive { pieces: receiver, current: Default::default(), copied: counted };
            // Nobody waits only when the process ends.
            let _ = done.send(local::unpack(archive, &place, &path));
        });
        while let Some(piece) = answer.next().await? {
            // Whoever unpacks has given up, and says why.
            if pieces.send(piece).await.is_err() {
                break;
            }
        }
        drop(pieces);
        let unpacked = outcome.await.map_err(|_| Exit::silent(1))?;
        progress.end(&destination).await;
        unpacked
    }

    /// Into a container.
    async fn bring(&self, source: &str, name: &str, destination: &str) -> Result<(), Exit> {
        let place = self.destination(name, destination).await?;
        let shown = format!("{name}:{destination}");
        if source == "-" {
            if !place.is_directory {
                return Err(Exit::new(1, format!("destination \"{shown}\" must be a directory")));
            }
            let progress = Progress::begin(self.quiet, HEADER_IN);
            let counted = Counted { source: io::stdin(), copied: progress.counter() };
            self.put(name, &place.path, upload(Box::new(counted))).await?;
            progress.end(&format!("{name}:{}", place.path)).await;
            return Ok(());
        }
        let source = local::source(&local::absolute(source)?, self.follow)?;
        let target = copy::target(&source, &place).map_err(|err| Exit::error(&err))?;
        let progress = Progress::begin(self.quiet, HEADER_IN);
        self.send(name, source, &target, progress.counter()).await?;
        progress.end(&format!("{name}:{}", place.path)).await;
        Ok(())
    }

    /// What is at the destination; nothing, if that cannot be told.
    async fn destination(&self, name: &str, path: &str) -> Result<Place, Exit> {
        let client = &self.context.client;
        let mut place = Place { path: path.to_owned(), ..Place::default() };
        let Ok(mut stat) = container::path_stat(client, name, path).await else { return Ok(place) };
        if stat.is_symlink() {
            place.path = joined(path, &stat.link_target);
            match container::path_stat(client, name, &place.path).await {
                Ok(followed) => stat = followed,
                Err(_) => return Ok(place),
            }
        }
        if stat.is_special() {
            let reason = if stat.is_device() { "got a device" } else { "got an irregular file" };
            let message = format!("destination \"{name}:{path}\" must be a directory or a regular file: {reason}");
            return Err(Exit::new(1, message));
        }
        (place.exists, place.is_directory) = (true, stat.is_directory());
        Ok(place)
    }

    async fn send(&self, name: &str, source: Place, target: &Target, copied: Arc<AtomicU64>) -> Result<(), Exit> {
        let (pieces, receiver) = mpsc::channel(4);
        let (top, (failed, failure)) = (copy::top_name(&source, target), oneshot::channel());
        std::thread::spawn(move || {
            if let Err(exit) = local::pack(&source, &top, pieces.clone(), copied) {
                // The request is aborted by this one.
                let _ = pieces.blocking_send(Err(io::Error::other("the source cannot be read")));
                let _ = failed.send(exit);
            }
        });
        let sent = self.put(name, &target.directory, Upload { pieces: receiver }).await;
        match failure.await {
            // Why there was nothing more to send, unless the daemon had enough first.
            Ok(exit) if exit.message.is_some() => Err(exit),
            _ => sent,
        }
    }

    async fn put(&self, name: &str, path: &str, archive: Upload) -> Result<(), Exit> {
        Ok(container::put_archive(&self.context.client, name, path, self.to_user, archive).await?)
    }
}

const HEADER_IN: &str = "Copying to container - ";

/// Where a link leads that was found at `path`.
fn joined(path: &str, link: &str) -> String {
    if link.starts_with('/') { link.to_owned() } else { clean(&format!("{}/{link}", copy::split(path).0)) }
}

/// Counts what goes through.
struct Counted<R> {
    source: R,
    copied: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.copied.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// An archive that is unpacked into a directory, which is made where it is missing.
pub(super) struct Unpacking {
    pieces: mpsc::Sender<Bytes>,
    outcome: oneshot::Receiver<Result<(), Exit>>,
}

impl Unpacking {
    pub(super) fn begin(directory: &str) -> Unpacking {
        let (pieces, receiver) = mpsc::channel(4);
        let (done, outcome) = oneshot::channel();
        let directory = directory.to_owned();
        std::thread::spawn(move || {
            let archive = Archive { pieces: receiver, current: Default::default(), copied: Default::default() };
            // Nobody waits only when the process ends.
            let _ = done.send(local::unpack_into(archive, &directory));
        });
        Unpacking { pieces, outcome }
    }

    /// Adds a piece; answers whether more is wanted. Whoever unpacks may have given up, and says why at the end.
    pub(super) async fn add(&self, piece: Bytes) -> bool {
        self.pieces.send(piece).await.is_ok()
    }

    /// Waits until all is there.
    pub(super) async fn end(self) -> Result<(), Exit> {
        drop(self.pieces);
        self.outcome.await.map_err(|_| Exit::silent(1))?
    }
}

/// Unpacks an archive into a directory.
pub(super) async fn into_directory(mut answer: Answer, directory: &str) -> Result<(), Exit> {
    let unpacking = Unpacking::begin(directory);
    while let Some(piece) = answer.next().await? {
        if !unpacking.add(piece).await {
            break;
        }
    }
    unpacking.end().await
}
