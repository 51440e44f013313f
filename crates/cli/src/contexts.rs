//! Contexts: named daemons, kept where Docker's client keeps them.
//!
//! ```text
//! <config directory>/contexts/
//!   meta/<sha256 of the name>/meta.json          {"Name", "Metadata": {"Description"}, "Endpoints": {"docker": {"Host", ...}}}
//!   tls/<the same>/docker/{ca,cert,key}.pem      what its daemon believes and is shown
//! ```
//!
//! Files are replaced whole. What others keep there (further endpoints, further metadata) is kept as it is.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use archive::{Entry, Kind, TarReader, TarWriter, Time};
use client::tls::Tls;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use stdx::fs::Durability;

use crate::report::{Exit, chain, go_error};

/// The context that the environment makes.
pub const DEFAULT: &str = "default";

/// The endpoint that is a container engine.
const ENDPOINT: &str = "docker";

/// What Docker's client takes for a name.
const NAME_PATTERN: &str = "^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$";

/// How much is imported at most, as by Docker's client.
const IMPORT_MAX_BYTES: u64 = 10 << 20;

/// A block of a tar archive.
const BLOCK_BYTES: usize = 512;

/// A context, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// `Description`, and what others keep there.
    pub metadata: Map<String, Value>,
    /// Endpoints by kind.
    pub endpoints: BTreeMap<String, Value>,
}

/// Files of TLS by endpoint and name.
pub type TlsFiles = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

/// All contexts of a user.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    /// What the command line says is the default context's host.
    pub given_host: Option<String>,
}

impl Metadata {
    /// A context for the daemon at `host`.
    pub fn new(name: &str, description: &str, host: &str, skip_verify: bool) -> Metadata {
        let mut metadata = Metadata { name: name.to_owned(), ..Metadata::default() };
        metadata.describe(description);
        metadata.aim(host, skip_verify);
        metadata
    }

    /// What its maker says of it.
    pub fn description(&self) -> &str {
        self.metadata.get("Description").and_then(Value::as_str).unwrap_or_default()
    }

    /// Says something of it; nothing said changes nothing.
    pub fn describe(&mut self, description: &str) {
        if !description.is_empty() {
            self.metadata.insert("Description".to_owned(), description.into());
        }
    }

    /// Where its daemon is, and whether that may be anyone.
    pub fn endpoint(&self) -> Result<(String, bool), Exit> {
        let missing = || Exit::new(1, "cannot find docker endpoint in context");
        let endpoint = self.endpoints.get(ENDPOINT).ok_or_else(missing)?;
        let host = endpoint["Host"].as_str().unwrap_or_default().to_owned();
        Ok((host, endpoint["SkipTLSVerify"].as_bool().unwrap_or(false)))
    }

    /// Moves it to another daemon.
    pub fn aim(&mut self, host: &str, skip_verify: bool) {
        self.endpoints.insert(ENDPOINT.to_owned(), json!({"Host": host, "SkipTLSVerify": skip_verify}));
    }
}

/// Refuses what can be no name of a context.
pub fn check_name(name: &str) -> Result<(), Exit> {
    let mut letters = name.chars();
    let known = |letter: char| letter.is_ascii_alphanumeric() || "_.+-".contains(letter);
    let valid =
        letters.next().is_some_and(|letter| letter.is_ascii_alphanumeric()) && name.len() > 1 && letters.all(known);
    match name {
        "" => Err(Exit::new(1, "context name cannot be empty")),
        DEFAULT => Err(Exit::new(1, "\"default\" is a reserved context name")),
        _ if valid => Ok(()),
        _ => {
            let rule = format!("names are validated against regexp {NAME_PATTERN:?}");
            Err(Exit::new(1, format!("context name {name:?} is invalid, {rule}")))
        }
    }
}

impl Store {
    /// The contexts below a directory of configuration.
    pub fn new(config_dir: &Path) -> Store {
        Store { root: config_dir.join("contexts"), given_host: None }
    }

    /// The same; the command line says which host the default context is.
    pub fn with_host(self, host: Option<&String>) -> Store {
        Store { given_host: host.cloned(), ..self }
    }

    /// Where a context's metadata is.
    pub fn meta_dir(&self, name: &str) -> PathBuf {
        self.root.join("meta").join(directory_of(name))
    }

    /// Where its files of TLS are.
    pub fn tls_dir(&self, name: &str) -> PathBuf {
        self.root.join("tls").join(directory_of(name))
    }

    /// Reads a context.
    pub fn get(&self, name: &str) -> Result<Metadata, Exit> {
        let path = self.meta_dir(name).join("meta.json");
        read_metadata(&path).map_err(|err| match err.kind() {
            io::ErrorKind::NotFound => Exit::new(
                1,
                format!("context {name:?}: context not found: open {}: {}", path.display(), go_error(&err)),
            ),
            _ => Exit::new(1, format!("context {name:?}: parsing {}: {}", path.display(), go_error(&err))),
        })
    }

    /// Whether there is a context of this name.
    pub fn exists(&self, name: &str) -> bool {
        self.meta_dir(name).join("meta.json").exists()
    }

    /// All contexts.
    pub fn list(&self) -> Result<Vec<Metadata>, Exit> {
        let entries = match fs::read_dir(self.root.join("meta")) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|err| Exit::error(&err))?,
        };
        let mut found = Vec::new();
        for entry in entries.flatten() {
            match read_metadata(&entry.path().join("meta.json")) {
                Ok(metadata) => found.push(metadata),
                Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(err) => return Err(Exit::new(1, format!("failed to read metadata: {}", go_error(&err)))),
            }
        }
        Ok(found)
    }

    /// Writes a context, and replaces its files of TLS.
    pub fn put(&self, metadata: &Metadata, tls: &TlsFiles) -> Result<(), Exit> {
        self.put_metadata(metadata)?;
        self.put_tls(&metadata.name, tls)
    }

    /// Writes a context and leaves its files of TLS alone.
    pub fn put_metadata(&self, metadata: &Metadata) -> Result<(), Exit> {
        let bytes = serde_json::to_vec(metadata).expect("metadata has string keys");
        let dir = self.meta_dir(&metadata.name);
        let written = fs::create_dir_all(&dir).and_then(|()| replace(&dir.join("meta.json"), &bytes));
        written.map_err(|err| Exit::error(&err))
    }

    /// Replaces a context's files of TLS.
    pub fn put_tls(&self, name: &str, tls: &TlsFiles) -> Result<(), Exit> {
        let write = || {
            let dir = self.tls_dir(name);
            stdx::fs::remove_if_exists(&dir)?;
            for (endpoint, files) in tls {
                for (file, bytes) in files {
                    stdx::fs::create_private_dir(&dir.join(endpoint))?;
                    let path = dir.join(endpoint).join(file);
                    stdx::fs::write_atomic(&path, bytes, Durability::ProcessDeath)?;
                }
            }
            Ok(())
        };
        write().map_err(|err: io::Error| Exit::error(&err))
    }

    /// Removes a context; one that is not there is removed already.
    pub fn remove(&self, name: &str) -> Result<(), Exit> {
        let dirs = [self.meta_dir(name), self.tls_dir(name)];
        let removed = dirs.iter().try_for_each(|dir| stdx::fs::remove_if_exists(dir));
        removed.map_err(|err| Exit::new(1, format!("failed to remove context {name}: {}", go_error(&err))))
    }

    /// A context's files of TLS.
    pub fn tls_files(&self, name: &str) -> Result<TlsFiles, Exit> {
        self.read_tls(name)
            .map_err(|err| Exit::new(1, format!("failed to list TLS files for context {name}: {}", go_error(&err))))
    }

    fn read_tls(&self, name: &str) -> io::Result<TlsFiles> {
        let mut found = TlsFiles::new();
        let endpoints = match fs::read_dir(self.tls_dir(name)) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(found),
            endpoints => endpoints?,
        };
        for endpoint in endpoints {
            let endpoint = endpoint?;
            if !endpoint.file_type()?.is_dir() {
                continue;
            }
            let files = found.entry(endpoint.file_name().to_string_lossy().into_owned()).or_default();
            for file in fs::read_dir(endpoint.path())? {
                let file = file?;
                files.insert(file.file_name().to_string_lossy().into_owned(), fs::read(file.path())?);
            }
        }
        Ok(found)
    }

    /// What a connection to a context's daemon needs; `None` for a daemon without TLS.
    pub fn tls(&self, name: &str, skip_verify: bool) -> Result<Option<Tls>, Exit> {
        let files = self.tls_files(name)?;
        let has_any = files.get(ENDPOINT).is_some_and(|files| !files.is_empty());
        Ok((has_any || skip_verify).then(|| tls_of(&files, skip_verify)))
    }
}

/// What a connection is made with by these files.
pub fn tls_of(files: &TlsFiles, skip_verify: bool) -> Tls {
    let take = |name: &str| files.get(ENDPOINT)?.get(name).cloned();
    Tls { ca: take("ca.pem"), certificate: take("cert.pem"), key: take("key.pem"), skip_verify }
}

/// Files for the endpoint of an engine; none for none.
pub fn tls_files_of(ca: Option<Vec<u8>>, certificate: Option<Vec<u8>>, key: Option<Vec<u8>>) -> TlsFiles {
    let files = [("ca.pem", ca), ("cert.pem", certificate), ("key.pem", key)];
    let files: BTreeMap<String, Vec<u8>> =
        files.into_iter().filter_map(|(name, bytes)| Some((name.to_owned(), bytes?))).collect();
    if files.is_empty() { TlsFiles::new() } else { TlsFiles::from([(ENDPOINT.to_owned(), files)]) }
}

/// The archive of a context, as Docker's client exports it.
pub fn export(metadata: &Metadata, tls: &TlsFiles) -> io::Result<Vec<u8>> {
    let mut tar = TarWriter::new(Vec::new());
    let bytes = serde_json::to_vec(metadata).expect("metadata has string keys");
    write_file(&mut tar, "meta.json", 0o644, &bytes)?;
    tar.begin(&entry("tls", Kind::Directory, 0o700, 0))?;
    for (endpoint, files) in tls {
        tar.begin(&entry(&format!("tls/{endpoint}"), Kind::Directory, 0o700, 0))?;
        for (file, bytes) in files {
            write_file(&mut tar, &format!("tls/{endpoint}/{file}"), 0o600, bytes)?;
        }
    }
    tar.finish()
}

fn write_file(tar: &mut TarWriter<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
    tar.begin(&entry(path, Kind::File, mode, bytes.len() as u64))?;
    tar.data(bytes)?;
    tar.fill()
}

fn entry(path: &str, kind: Kind, mode: u32, size: u64) -> Entry {
    Entry {
        path: path.as_bytes().to_vec(),
        kind,
        link: Vec::new(),
        mode,
        uid: 0,
        gid: 0,
        mtime: Time { secs: 0, nanos: 0 },
        size,
        device: (0, 0),
        xattrs: Vec::new(),
        segments: None,
    }
}

/// Reads an archive of a context, which gets this name.
pub fn import(name: &str, source: impl Read) -> Result<(Metadata, TlsFiles), Exit> {
    let mut bytes = Vec::new();
    source.take(IMPORT_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|err| Exit::error(&err))?;
    if bytes.len() as u64 > IMPORT_MAX_BYTES {
        return Err(Exit::new(1, "read exceeds the defined limit"));
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return Err(Exit::new(1, "importing zip files is not supported yet: export the context as a tar archive"));
    }
    // Docker's client leaves out what fills the last block, and the blocks at the end.
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES) + 2 * BLOCK_BYTES, 0);
    let (mut metadata, mut tls) = (None, TlsFiles::new());
    let mut tar = TarReader::new(bytes.as_slice());
    let refused = |err: archive::TarError| Exit::new(1, chain(&err));
    while let Some(entry) = tar.next_entry().map_err(refused)? {
        if entry.kind != Kind::File {
            continue;
        }
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        check_path(&path).map_err(|reason| Exit::new(1, format!("{path}: {reason}")))?;
        let mut content = Vec::new();
        loop {
            let chunk = tar.chunk().map_err(refused)?;
            if chunk.is_empty() {
                break;
            }
            content.extend_from_slice(chunk);
            let count = chunk.len();
            tar.consume(count);
        }
        match path.strip_prefix("tls/").map(|inner| inner.split_once('/')) {
            None => metadata = Some(parse_metadata(name, &content)?),
            Some(Some((endpoint, file))) => {
                tls.entry(endpoint.to_owned()).or_default().insert(file.to_owned(), content);
            }
            Some(None) => return Err(Exit::new(1, "archive format is invalid")),
        }
    }
    let metadata = metadata.ok_or_else(|| Exit::new(1, "invalid context: no metadata found"))?;
    Ok((metadata, tls))
}

/// An archive is somebody else's: its files go where contexts' files go, and nowhere else.
fn check_path(path: &str) -> Result<(), &'static str> {
    if path != "meta.json" && !path.starts_with("tls/") {
        return Err("unexpected context file");
    }
    let odd = |part: &str| matches!(part, "" | "." | "..");
    if path.split('/').any(odd) || path.split('/').count() > 3 {
        return Err("unexpected path format");
    }
    if path.contains('\\') { Err("unexpected '\\' in path") } else { Ok(()) }
}

fn parse_metadata(name: &str, bytes: &[u8]) -> Result<Metadata, Exit> {
    let mut metadata: Metadata = serde_json::from_slice(bytes).map_err(|err| Exit::error(&err))?;
    metadata.name = name.to_owned();
    Ok(metadata)
}

fn read_metadata(path: &Path) -> io::Result<Metadata> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn directory_of(name: &str) -> String {
    Sha256::digest(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    fs::write(&temporary, bytes)?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dockers() {
        let refused = |name: &str| check_name(name).err().and_then(|exit| exit.message);
        for good in ["a1", "My.context_2+x-y"] {
            assert_eq!(refused(good), None, "{good}");
        }
        let rule = "names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\"";
        for bad in ["a b", "-a", "a", ".x", "ä1"] {
            assert_eq!(refused(bad), Some(format!("context name {bad:?} is invalid, {rule}")));
        }
        assert_eq!(refused("default").unwrap(), "\"default\" is a reserved context name");
        assert_eq!(refused("").unwrap(), "context name cannot be empty");
    }

    #[test]
    fn contexts_lie_where_dockers_do() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        let tls = tls_files_of(Some(b"ca".to_vec()), None, Some(b"key".to_vec()));
        store.put(&Metadata::new("a1", "my d", "tcp://x:1", true), &tls).unwrap();
        let id = "f55ff16f66f43360266b95db6f8fec01d76031054306ae4a4b380598f6cfd114";
        let text = fs::read_to_string(dir.path().join("contexts/meta").join(id).join("meta.json")).unwrap();
        let wanted = r#"{"Name":"a1","Metadata":{"Description":"my d"},"Endpoints":{"docker":{"Host":"tcp://x:1","SkipTLSVerify":true}}}"#;
        assert_eq!(text, wanted);
        let key = dir.path().join("contexts/tls").join(id).join("docker/key.pem");
        assert_eq!(fs::read(&key).unwrap(), b"key");
        assert_eq!(store.tls_files("a1").unwrap(), tls);
        let found = store.tls("a1", false).unwrap().unwrap();
        assert_eq!((found.ca.as_deref(), found.certificate), (Some(&b"ca"[..]), None));
        assert_eq!(store.list().unwrap().len(), 1);
        store.remove("a1").unwrap();
        assert!(!store.exists("a1") && !key.exists());
        assert!(store.get("a1").unwrap_err().message.unwrap().starts_with("context \"a1\": context not found: open "));
    }

    #[test]
    fn archives_go_out_and_come_in_again() {
        let metadata = Metadata::new("a1", "d", "unix:///x", false);
        let tls = tls_files_of(Some(b"ca".to_vec()), Some(vec![]), None);
        let bytes = export(&metadata, &tls).unwrap();
        let (imported, files) = import("b1", bytes.as_slice()).unwrap();
        assert_eq!((imported.name.as_str(), imported.description(), files), ("b1", "d", tls));
        // As Docker's client ends its own: within the last block.
        let padded = tls_files_of(Some(b"ca".to_vec()), None, None);
        let cut = export(&metadata, &padded).unwrap();
        let end = cut.windows(2).rposition(|two| two == b"ca").unwrap() + 2;
        assert_eq!(import("b1", &cut[..end]).unwrap().1, padded);
        let refused = |bytes: &[u8]| import("b1", bytes).unwrap_err().message.unwrap();
        assert_eq!(refused(&export_of("../meta.json")), "../meta.json: unexpected context file");
        assert_eq!(refused(&export_of("tls/../x")), "tls/../x: unexpected path format");
        assert_eq!(refused(&export_of("tls/docker/a/b")), "tls/docker/a/b: unexpected path format");
        assert_eq!(refused(&export_of("tls/x")), "archive format is invalid");
        assert!(refused(b"PK\x03\x04").contains("zip"));
        assert_eq!(refused(&[0; 1024]), "invalid context: no metadata found");
    }

    fn export_of(path: &str) -> Vec<u8> {
        let mut tar = TarWriter::new(Vec::new());
        write_file(&mut tar, path, 0o600, b"{}").unwrap();
        tar.finish().unwrap()
    }
}
