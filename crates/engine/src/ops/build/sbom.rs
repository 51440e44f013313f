//! What is in an image that was built, by its own records (`builder::sbom`). No program of the image is run for it.

use std::collections::BTreeSet;
use std::io::{self, Read};

use archive::Kind;
use builder::sbom::{self, Distribution, PACKAGES_MAX, Package, Record};
use stdx::time::Rfc3339;

use super::outputs::{ImageFiles, OutputError, with_files};
use crate::Engine;

/// The longest record, in bytes: dpkg's of a full Debian has some 100 MiB.
const RECORD_MAX: u64 = 128 << 20;

/// The longest of those that packages have of their own.
const OWN_RECORD_MAX: u64 = 1 << 20;

/// How many of these are read.
const RECORDS_MAX: usize = PACKAGES_MAX;

/// Where a distribution says what it is (os-release(5)).
const DISTRIBUTION: [&str; 2] = ["etc/os-release", "usr/lib/os-release"];

/// What a list of an image's packages is made of: a document of SPDX 2.3, in JSON. `time` is what it says of when it was made,
/// in seconds since 1970; now, where nothing is said.
pub async fn scan(engine: &Engine, image: &str, time: Option<i64>) -> Result<Vec<u8>, OutputError> {
    let id = image.rsplit(':').next().unwrap_or_default().to_owned();
    with_files(engine, image, None, move |files| {
        let (distribution, found) = packages(files)?;
        let document = sbom::document(&found, &distribution, &id, &created(time));
        Ok(serde_json::to_vec_pretty(&document).expect("texts are always JSON"))
    })
    .await
}

fn created(time: Option<i64>) -> String {
    let said = time.and_then(|secs| u64::try_from(secs).ok());
    let said = said.map(|secs| Rfc3339(std::time::UNIX_EPOCH + std::time::Duration::from_secs(secs)));
    let text = said.unwrap_or_else(Rfc3339::now).to_string();
    // SPDX has no fractions of a second ("Created field").
    match text.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => text,
    }
}

fn packages(files: &ImageFiles) -> Result<(Distribution, BTreeSet<Package>), OutputError> {
    let (mut records, mut about) = (Vec::<(Record, String)>::new(), Vec::new());
    files.list(&mut |entry| {
        // Only what is a file is opened: a pipe would never end.
        let Some(path) =
            matches!(entry.kind, Kind::File | Kind::HardLink).then(|| String::from_utf8(entry.path).ok()).flatten()
        else {
            return Ok(());
        };
        if DISTRIBUTION.contains(&path.as_str()) {
            about.push(path);
        } else if let Some(record) = sbom::record_at(&path).filter(|_| records.len() < RECORDS_MAX) {
            records.push((record, path));
        }
        Ok(())
    })?;
    let text = about.iter().find_map(|path| read(files, path.as_bytes(), OWN_RECORD_MAX).ok());
    let distribution = text.map(|text| sbom::distribution(&text)).unwrap_or_default();
    let mut found = BTreeSet::new();
    for (record, path) in records {
        let most = if matches!(record, Record::Dpkg | Record::Apk) { RECORD_MAX } else { OWN_RECORD_MAX };
        // What cannot be read, or is too long for a record, tells of nothing.
        if let Ok(text) = read(files, path.as_bytes(), most) {
            found.extend(sbom::packages(record, &path, &text, &distribution));
        }
        if found.len() >= PACKAGES_MAX {
            break;
        }
    }
    Ok((distribution, found))
}

/// A file as text, whatever its bytes are; longer ones are an error.
fn read(files: &ImageFiles, path: &[u8], most: u64) -> io::Result<String> {
    let file = files.read(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    // What is text already is not copied.
    Ok(String::from_utf8(bytes).unwrap_or_else(|err| String::from_utf8_lossy(err.as_bytes()).into_owned()))
}

/// Where generators write (buildkit docs/attestations/sbom-protocol.md; frontend/attestations/sbom, sbom.go).
const WRITTEN: &str = "run/out/";

/// How many documents a generator may write.
const WRITTEN_MAX: usize = 64;

/// How long they may be together, in bytes: the largest that are seen of large images are a tenth of it. Each is in memory,
/// and what it says several times.
const WRITTEN_BYTES_MAX: u64 = 64 << 20;

/// How a generator is run: its command, and the directory that it begins in.
pub fn command(engine: &Engine, image: &str) -> Result<(Vec<String>, String), OutputError> {
    let config = engine.images.resolve(image)?.config.config.clone();
    let words = config.entrypoint.into_iter().flatten().chain(config.cmd.into_iter().flatten()).collect();
    let directory = if config.working_dir.is_empty() { "/".to_owned() } else { config.working_dir };
    Ok((words, directory))
}

/// What `read` makes of what a generator has written, of names and bytes: one after the other, so that one alone is in
/// memory as it was written.
pub async fn written<T: Send + 'static>(
    engine: &Engine,
    image: &str,
    read: impl Fn(&str, &[u8]) -> T + Send + 'static,
) -> Result<Vec<T>, OutputError> {
    with_files(engine, image, None, move |files| {
        let mut names = Vec::new();
        files.list(&mut |entry| {
            let path = String::from_utf8(entry.path).unwrap_or_default();
            let name = path.strip_prefix(WRITTEN).filter(|name| name.ends_with(".json") && !name.contains('/'));
            if matches!(entry.kind, Kind::File | Kind::HardLink) && names.len() < WRITTEN_MAX {
                names.extend(name.map(str::to_owned));
            }
            Ok(())
        })?;
        let mut room = WRITTEN_BYTES_MAX;
        let one = |name: String| {
            let path = format!("{WRITTEN}{name}");
            let text = self::read(files, path.as_bytes(), room);
            let text = text.map_err(|source| archive::PackError::Read { path, source })?;
            room -= (text.len() as u64).min(room);
            Ok(read(&name, text.as_bytes()))
        };
        names.into_iter().map(one).collect()
    })
    .await
}
