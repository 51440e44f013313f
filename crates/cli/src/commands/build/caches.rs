//! Caches in directories of ours: what the daemon may read and write there, and what is noted of what it left.

use std::collections::BTreeMap;
use std::path::Path;

use client::build::BuildOptions;
use client::session::Offers;
use client::session::layouts::{self, Layout};
use serde_json::Value;

use crate::plan::caches::{self, LocalCache};
use crate::report::{Exit, go_error};
use crate::warn_line;

/// The tags of what is left, by directory.
pub(super) type Tags = BTreeMap<String, String>;

/// Lets the daemon look into directories that have caches, and write where one is wanted.
pub(super) fn offer(options: &mut BuildOptions, offers: &mut Offers) -> Result<Tags, Exit> {
    let mut found = Vec::new();
    for text in std::mem::take(&mut options.cache_from) {
        match caches::from(&text).map_err(|err| Exit::error(&err))? {
            None => found.push(text),
            Some(cache) => {
                if let Some(digest) = digest(&cache) {
                    offers
                        .layouts
                        .insert(cache.directory.clone(), Layout { path: cache.directory.into(), writable: false });
                    // The last one of a key counts.
                    found.push(format!("{text},digest={digest}"));
                }
            }
        }
    }
    options.cache_from = found;
    let mut tags = Tags::new();
    for text in &options.cache_to {
        let Some(LocalCache { directory, tag, .. }) = caches::to(text).map_err(|err| Exit::error(&err))? else {
            continue;
        };
        let made = layouts::prepare(Path::new(&directory));
        made.map_err(|err| Exit::new(1, format!("mkdir {directory}: {}", go_error(&err))))?;
        offers.layouts.insert(directory.clone(), Layout { path: (&directory).into(), writable: true });
        tags.insert(directory, tag);
    }
    Ok(tags)
}

/// What names a cache. One that is not there is told, and is none: so is the first build of a new machine.
fn digest(cache: &LocalCache) -> Option<String> {
    let LocalCache { directory, tag, digest } = cache;
    if digest.is_some() {
        return digest.clone();
    }
    match layouts::tagged(Path::new(directory), tag) {
        Ok(Some(digest)) => return Some(digest),
        Ok(None) => warn_line!("local cache import at {directory} skipped: no digest found for tag {tag}"),
        Err(err) => {
            let why = go_error(&err);
            warn_line!(
                "local cache import at {directory} skipped due to err: could not read {directory}/index.json: {why}"
            );
        }
    }
    None
}

/// Notes what the daemon has left; `left` are directories, and what it says of them.
pub(super) fn note(tags: &Tags, left: &[(String, Value)]) -> Result<(), Exit> {
    for (directory, manifest) in left {
        // It leaves something where it was told to alone.
        let Some(tag) = tags.get(directory) else { continue };
        let noted = layouts::note(Path::new(directory), tag, manifest);
        noted.map_err(|err| Exit::new(1, format!("could not write {directory}/index.json: {}", go_error(&err))))?;
    }
    Ok(())
}
