//! `image bootstrap`: mmdebstrap makes the files, here; the daemon loads them as it would load any archive.
//!
//! The same packages make the same image, to the digest, on any machine: times are cut at the date of the lists of packages,
//! or at `SOURCE_DATE_EPOCH`.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use archive::{Entry, Kind, TarWriter, Time};
use client::image;
use oci::Digest;
use sha2::{Digest as _, Sha256};

use super::load::upload;
use super::{Context, progress};
use crate::args::Parsed;
use crate::plan::bootstrap::{self, Bootstrap, Wish};
use crate::report::{Exit, chain, go_error};
use crate::say_line;

/// What fetches a file as apt would: with its proxies, from any of its kinds of places. mmdebstrap needs apt, too.
const APT_HELPER: &str = "/usr/lib/apt/apt-helper";

/// The most that is read of a list of packages to find its date, which stands at the top.
const RELEASE_BYTES_MAX: u64 = 64 << 10;

/// A file without a name as soon as the system allows that, and at the latest when it is dropped.
struct Scratch {
    path: PathBuf,
    file: File,
}

/// `image bootstrap`
pub async fn run(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let Some(name) = parsed.positionals.first() else { return Ok(()) };
    let packages = parsed.list("include").iter().flat_map(|list| list.split(',')).filter(|name| !name.is_empty());
    let include: Vec<String> = packages.map(|name| name.trim().to_owned()).collect();
    let wish = Wish {
        name,
        tags: parsed.list("tag"),
        variant: Some(parsed.text("variant")).filter(|text| !text.is_empty()).unwrap_or(bootstrap::VARIANT),
        include: &include,
        mirrors: parsed.list("mirror"),
        processor: std::env::consts::ARCH,
    };
    let plan = bootstrap::plan(&wish).map_err(|err| Exit::new(1, chain(&err)))?;
    let quiet = parsed.flag("quiet");
    let epoch = epoch(&plan)?;
    let mut files = make_files(&plan, epoch, quiet)?;
    let (layer, size) = digest_of(&mut files.file).map_err(|err| scratch_failed(&err))?;
    let config = serde_json::to_vec(&plan.config(&layer, epoch)).map_err(|err| Exit::error(&err))?;
    let id = Digest::from_sha256(&Sha256::digest(&config).into());
    let head = archive_head(&plan, &layer, size, &config, epoch)?;
    files.file.rewind().map_err(|err| scratch_failed(&err))?;
    let length = size.next_multiple_of(BLOCK) - size + 2 * BLOCK;
    let archive = io::Cursor::new(head).chain(FileOf(files)).chain(io::repeat(0).take(length));
    let mut answer = image::load(&context.client, upload(Box::new(archive)), quiet, "").await?;
    if answer.content_type().starts_with("application/json") {
        progress::show(answer, progress::Target::Stderr, quiet).await?;
    } else {
        answer.rest().await?;
    }
    say_line!("{id}");
    Ok(())
}

/// Everything in an archive begins at a multiple of this many bytes.
const BLOCK: u64 = 512;

/// Reads a scratch file, and keeps it until it has been read.
struct FileOf(Scratch);

impl Read for FileOf {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        self.0.file.read(piece)
    }
}

/// The second that nothing in the image is younger than: what the environment says, else when the packages were listed.
fn epoch(plan: &Bootstrap) -> Result<i64, Exit> {
    if let Ok(text) = std::env::var("SOURCE_DATE_EPOCH") {
        let bad = || Exit::new(1, format!("invalid SOURCE_DATE_EPOCH {text:?}: seconds since 1970"));
        return text.parse().ok().filter(|seconds| (0..=253_402_300_799).contains(seconds)).ok_or_else(bad);
    }
    let mut newest = None;
    for url in &plan.releases {
        newest = newest.max(Some(date_at(url)?));
    }
    newest.ok_or_else(|| Exit::new(1, "the mirrors say no date: set SOURCE_DATE_EPOCH"))
}

fn date_at(url: &str) -> Result<i64, Exit> {
    let place = std::env::temp_dir().join(format!("longshore-release-{}", stdx::id::random_hex::<8>()));
    let fetched = Command::new(APT_HELPER).args(["-qq", "download-file", url]).arg(&place).output();
    let read = || -> io::Result<String> {
        let mut bytes = Vec::new();
        File::open(&place)?.take(RELEASE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read();
    // There is none if it was not fetched.
    let _ = fs::remove_file(&place);
    match (fetched, text) {
        (Err(err), _) => Err(missing("apt", APT_HELPER, &err)),
        (Ok(output), _) if !output.status.success() => {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().rfind(|line| line.starts_with("E:")).unwrap_or("E: it cannot be fetched");
            Err(Exit::new(1, format!("get {url}: {}", last.trim_start_matches("E:").trim())))
        }
        (Ok(_), Err(err)) => Err(Exit::new(1, format!("read what came of {url}: {}", go_error(&err)))),
        (Ok(_), Ok(text)) => bootstrap::date_of(&text).ok_or_else(|| Exit::new(1, format!("{url} says no date"))),
    }
}

/// Lets mmdebstrap write the image's files as a tar.
fn make_files(plan: &Bootstrap, epoch: i64, quiet: bool) -> Result<Scratch, Exit> {
    if !Path::new(plan.keyring).exists() && plan.words.iter().any(|word| word.contains(plan.keyring)) {
        let (keyring, package) = (plan.keyring, plan.keyring_package);
        let cure = format!("install {package} on this machine, which has the keys that the packages are signed with");
        return Err(Exit::new(1, format!("there is no {keyring}: {cure}")));
    }
    let scratch = Scratch::make().map_err(|err| scratch_failed(&err))?;
    let output = scratch.file.try_clone().map_err(|err| scratch_failed(&err))?;
    let mut command = Command::new("mmdebstrap");
    if quiet {
        command.arg("--quiet");
    }
    command.args(&plan.words).env("SOURCE_DATE_EPOCH", epoch.to_string()).stdin(Stdio::null()).stdout(output);
    let ended = command.status().map_err(|err| missing("mmdebstrap", "mmdebstrap", &err))?;
    match ended.code() {
        Some(0) => Ok(scratch),
        Some(code) => Err(Exit::new(1, format!("mmdebstrap failed with status {code}: nothing was made"))),
        None => Err(Exit::new(1, "mmdebstrap was killed: nothing was made")),
    }
}

fn missing(package: &str, program: &str, err: &io::Error) -> Exit {
    if err.kind() != io::ErrorKind::NotFound {
        return Exit::new(1, format!("start {program}: {}", go_error(err)));
    }
    Exit::new(
        1,
        format!(
            "{program} is not on this machine, where the command line runs: `apt-get install {package}` on Debian and \
             Ubuntu, the package {package} of other distributions"
        ),
    )
}

fn scratch_failed(err: &io::Error) -> Exit {
    Exit::new(1, format!("keep the image's files in {}: {}", std::env::temp_dir().display(), go_error(err)))
}

impl Scratch {
    fn make() -> io::Result<Scratch> {
        let path = std::env::temp_dir().join(format!("longshore-bootstrap-{}", stdx::id::random_hex::<8>()));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        // Where a name cannot go before its file does, it goes later.
        let _ = fs::remove_file(&path);
        Ok(Scratch { path, file })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Mostly it is gone already.
        let _ = fs::remove_file(&self.path);
    }
}

fn digest_of(file: &mut File) -> io::Result<(Digest, u64)> {
    file.rewind()?;
    let (mut hash, mut size, mut piece) = (Sha256::new(), 0, vec![0; 256 << 10]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok((Digest::from_sha256(&hash.finalize().into()), size)),
            length => {
                hash.update(&piece[..length]);
                size += length as u64;
            }
        }
    }
}

/// The archive that `load` takes, up to where the layer's bytes begin.
fn archive_head(plan: &Bootstrap, layer: &Digest, size: u64, config: &[u8], epoch: i64) -> Result<Vec<u8>, Exit> {
    let id = Digest::from_sha256(&Sha256::digest(config).into());
    let manifest = serde_json::to_vec(&[plan.manifest(&id, layer)]).map_err(|err| Exit::error(&err))?;
    let mut head = Vec::new();
    let write = |tar: &mut TarWriter<&mut Vec<u8>>| {
        for (path, bytes) in [(bootstrap::config_path(&id), config), ("manifest.json".to_owned(), &manifest)] {
            tar.begin(&entry(path, bytes.len() as u64, epoch))?;
            tar.data(bytes)?;
        }
        tar.begin(&entry(bootstrap::layer_path(layer), size, epoch))
    };
    write(&mut TarWriter::new(&mut head)).map_err(|err: io::Error| Exit::error(&err))?;
    Ok(head)
}

fn entry(path: String, size: u64, epoch: i64) -> Entry {
    Entry {
        path: path.into_bytes(),
        kind: Kind::File,
        link: Vec::new(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Time { secs: epoch, nanos: 0 },
        size,
        device: (0, 0),
        xattrs: Vec::new(),
        segments: None,
    }
}
