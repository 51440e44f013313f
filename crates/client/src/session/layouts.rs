//! Directories of ours in which the daemon finds and leaves blobs: caches of builds, as layouts of OCI (image-spec v1.1
//! image-layout.md).
//!
//! ```text
//! oci-layout            that it is one
//! index.json            what is in it, by tags: ours to write
//! blobs/sha256/<hex>    the daemon's: whole, or not there
//! ingest/<name>         a blob that is not whole yet
//! ```
//! The daemon names digests and never paths, and writes only where it is told to leave something.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use buildkit_api::content::PIECE_BYTES;
use buildkit_api::messages::{
    ContentInfo, ContentInfoResponse, ReadContentRequest, ReadContentResponse, WriteAction, WriteContentRequest,
    WriteContentResponse,
};
use buildkit_api::server::Streaming;
use buildkit_api::status::{Code, Status};
use prost::Message;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

/// The tag of what is left in a layout, and looked for in one, where nobody says another.
pub const TAG: &str = "latest";

/// What of a layout's index says which tag something has (image-spec v1.1 annotations.md).
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The longest index that is read, in bytes.
const INDEX_MAX: u64 = 4 << 20;

/// A directory that the daemon may look into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Where it is.
    pub path: PathBuf,
    /// Whether the daemon leaves something there.
    pub writable: bool,
}

/// What names something in a layout; `None` where nothing is called so.
pub fn tagged(directory: &Path, tag: &str) -> io::Result<Option<String>> {
    let index = read_index(directory)?;
    let found = manifests(&index).iter().find(|manifest| tag_of(manifest) == Some(tag));
    Ok(found.and_then(|manifest| manifest.get("digest")?.as_str()).map(str::to_owned))
}

/// Makes a directory that something can be left in.
pub fn prepare(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory.join("blobs/sha256"))
}

/// Notes what was left in a layout, by a tag, which nothing else has from then on.
pub fn note(directory: &Path, tag: &str, manifest: &Value) -> io::Result<()> {
    if !manifest.is_object() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut index = match read_index(directory) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => json!({}),
        index => index?,
    };
    let mut all: Vec<Value> =
        manifests(&index).iter().filter(|manifest| tag_of(manifest) != Some(tag)).cloned().collect();
    let mut manifest = manifest.clone();
    manifest["annotations"] = json!({ REF_NAME: tag });
    all.push(manifest);
    index["schemaVersion"] = json!(2);
    index["mediaType"] = json!("application/vnd.oci.image.index.v1+json");
    index["manifests"] = Value::Array(all);
    write_whole(&directory.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    write_whole(&directory.join("index.json"), index.to_string().as_bytes())
}

fn read_index(directory: &Path) -> io::Result<Value> {
    let mut text = Vec::new();
    File::open(directory.join("index.json"))?.take(INDEX_MAX).read_to_end(&mut text)?;
    let index: Value = serde_json::from_slice(&text)?;
    // What is no object has no place for what is noted.
    if index.is_object() { Ok(index) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn manifests(index: &Value) -> &[Value] {
    index.get("manifests").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn tag_of(manifest: &Value) -> Option<&str> {
    manifest.get("annotations")?.get(REF_NAME)?.as_str()
}

/// Another one reads the old text or the new one.
fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

/// Where a blob is; only what is a digest names one.
fn blob_path(layout: &Layout, digest: &str) -> Result<PathBuf, Status> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    let is_good = hex.len() == 64 && hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    match is_good {
        true => Ok(layout.path.join("blobs/sha256").join(hex)),
        false => Err(Status::new(Code::InvalidArgument, format!("{digest:?} failed validation"))),
    }
}

fn status_of(err: &io::Error, digest: &str) -> Status {
    match err.kind() {
        io::ErrorKind::NotFound => Status::new(Code::NotFound, format!("content {digest}: not found")),
        _ => Status::new(Code::Unknown, format!("content {digest}: {err}")),
    }
}

/// The layout that a call is about.
pub(super) fn chosen<'a>(layouts: &'a BTreeMap<String, Layout>, store: &str) -> Result<&'a Layout, Status> {
    let name = store.strip_prefix("local:").unwrap_or_default();
    layouts.get(name).ok_or_else(|| Status::new(Code::NotFound, format!("unknown store {store}")))
}

/// How long a blob is that is there.
pub(super) fn info(layout: &Layout, digest: &str) -> Result<ContentInfoResponse, Status> {
    let found = fs::metadata(blob_path(layout, digest)?).map_err(|err| status_of(&err, digest))?;
    let size = i64::try_from(found.len()).unwrap_or(i64::MAX);
    Ok(ContentInfoResponse { info: Some(ContentInfo { digest: digest.to_owned(), size }) })
}

/// Sends a blob. Blocks.
pub(super) fn read(
    layout: &Layout,
    request: &ReadContentRequest,
    outgoing: &mpsc::Sender<Result<Vec<u8>, Status>>,
) -> Result<(), Status> {
    let digest = &request.digest;
    let failed = |err: io::Error| status_of(&err, digest);
    let mut file = File::open(blob_path(layout, digest)?).map_err(failed)?;
    let mut offset = request.offset.max(0);
    file.seek(SeekFrom::Start(offset.unsigned_abs())).map_err(failed)?;
    let mut left = if request.size > 0 { request.size.unsigned_abs() } else { u64::MAX };
    while left > 0 {
        let mut data = Vec::with_capacity(PIECE_BYTES);
        let wanted = left.min(PIECE_BYTES as u64);
        let count = (&file).take(wanted).read_to_end(&mut data).map_err(failed)?;
        let piece = ReadContentResponse { offset, data: data.into() };
        // A caller that has gone needs no more.
        if count == 0 || outgoing.blocking_send(Ok(piece.encode_to_vec())).is_err() {
            return Ok(());
        }
        left -= count as u64;
        offset += i64::try_from(count).unwrap_or_default();
    }
    Ok(())
}

/// A blob that comes. Dropped before it is whole, nothing is left of it.
struct Coming {
    path: PathBuf,
    file: File,
    hash: Sha256,
    size: i64,
}

impl Coming {
    fn begin(layout: &Layout, name: &str) -> io::Result<Coming> {
        let directory = layout.path.join("ingest");
        fs::create_dir_all(&directory)?;
        // Whatever it is called, it is a name of a file.
        let path = directory.join(hex_of(&Sha256::digest(name)));
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Coming { path, file, hash: Sha256::new(), size: 0 })
    }

    /// Another step; answers how far it is.
    fn step(&mut self, layout: &Layout, step: &WriteContentRequest) -> Result<WriteContentResponse, Status> {
        let failed = |err: io::Error| Status::new(Code::Unknown, format!("write a blob: {err}"));
        if step.offset != self.size {
            let told = format!("write @{} must occur at current offset {}", step.offset, self.size);
            return Err(Status::new(Code::OutOfRange, told));
        }
        self.file.write_all(&step.data).map_err(failed)?;
        self.hash.update(&step.data);
        self.size += i64::try_from(step.data.len()).unwrap_or_default();
        let digest = format!("sha256:{}", hex_of(&self.hash.clone().finalize()));
        if step.action == WriteAction::Commit as i32 {
            if step.expected != digest {
                let told = format!("unexpected commit digest {digest}, expected {}", step.expected);
                return Err(Status::new(Code::InvalidArgument, told));
            }
            // Whoever reads it after a power cut compares it.
            fs::rename(&self.path, blob_path(layout, &digest)?).map_err(failed)?;
        }
        Ok(WriteContentResponse { action: step.action, offset: self.size, total: step.total, digest })
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        // One that is whole has another name by now.
        let _ = fs::remove_file(&self.path);
        if let Some(directory) = self.path.parent() {
            // Another one may be coming.
            let _ = fs::remove_dir(directory);
        }
    }
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Takes a blob.
pub(super) async fn write(layout: &Layout, mut call: Streaming) {
    let taken = take(layout, &mut call).await;
    if let Err(status) = taken {
        // A caller that has gone needs no answer.
        let _ = call.outgoing.send(Err(status)).await;
    }
}

async fn take(layout: &Layout, call: &mut Streaming) -> Result<(), Status> {
    if !layout.writable {
        return Err(Status::new(Code::InvalidArgument, "nothing is to be left there"));
    }
    let mut coming: Option<Coming> = None;
    while let Some(step) = call.incoming.next::<WriteContentRequest>().await? {
        let (own, at) = (layout.clone(), coming.take());
        let is_last = step.action == WriteAction::Commit as i32;
        let stepped = tokio::task::spawn_blocking(move || {
            let failed = |err: io::Error| Status::new(Code::Unknown, format!("write a blob: {err}"));
            let mut coming = match at {
                Some(coming) => coming,
                None => Coming::begin(&own, &step.name).map_err(failed)?,
            };
            let answer = coming.step(&own, &step)?;
            Ok::<_, Status>((coming, answer))
        });
        let stepped = stepped.await.map_err(|_| Status::new(Code::Internal, "a step of writing broke off"))?;
        let (at, answer) = stepped?;
        coming = Some(at);
        if call.outgoing.send(Ok(answer.encode_to_vec())).await.is_err() || is_last {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> (tempfile::TempDir, Layout) {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout { path: directory.path().to_owned(), writable: true };
        prepare(&layout.path).unwrap();
        (directory, layout)
    }

    #[test]
    fn a_blob_is_there_when_it_is_what_it_is_called() {
        let (_directory, layout) = layout();
        let digest = format!("sha256:{}", hex_of(&Sha256::digest(b"ab")));
        let step = |action: WriteAction, offset: i64, data: &'static [u8], expected: &str| WriteContentRequest {
            action: action as i32,
            offset,
            data: data.into(),
            expected: expected.to_owned(),
            ..WriteContentRequest::default()
        };
        let mut coming = Coming::begin(&layout, "../../x").unwrap();
        assert_eq!(coming.step(&layout, &step(WriteAction::Write, 0, b"a", "")).unwrap().offset, 1);
        assert!(coming.step(&layout, &step(WriteAction::Write, 0, b"b", "")).is_err());
        assert!(coming.step(&layout, &step(WriteAction::Commit, 1, b"c", &digest)).is_err());
        drop(coming);
        assert!(info(&layout, &digest).is_err() && !layout.path.join("ingest").exists());
        let mut coming = Coming::begin(&layout, "x").unwrap();
        coming.step(&layout, &step(WriteAction::Write, 0, b"a", "")).unwrap();
        coming.step(&layout, &step(WriteAction::Commit, 1, b"b", &digest)).unwrap();
        drop(coming);
        assert_eq!(info(&layout, &digest).unwrap().info.unwrap().size, 2);
        for bad in ["sha256:../../../etc/passwd", "sha256:", "md5:a", "/etc/passwd"] {
            assert_eq!(info(&layout, bad).unwrap_err().code, Code::InvalidArgument as i32, "{bad}");
        }
    }

    #[test]
    fn a_tag_names_what_was_noted_last() {
        let (_directory, layout) = layout();
        let manifest = |digest: &str| json!({"mediaType": "m", "digest": digest, "size": 1});
        let found = |tag: &str| tagged(&layout.path, tag).unwrap();
        assert_eq!(tagged(&layout.path, "a").unwrap_err().kind(), io::ErrorKind::NotFound);
        note(&layout.path, "a", &manifest("one")).unwrap();
        note(&layout.path, "b", &manifest("two")).unwrap();
        note(&layout.path, "a", &manifest("three")).unwrap();
        assert_eq!((found("a").as_deref(), found("b").as_deref(), found("c")), (Some("three"), Some("two"), None));
        let index = read_index(&layout.path).unwrap();
        assert_eq!(manifests(&index).len(), 2);
        fs::write(layout.path.join("index.json"), "[]").unwrap();
        assert!(tagged(&layout.path, "a").is_err() && note(&layout.path, "a", &manifest("x")).is_err());
    }
}
