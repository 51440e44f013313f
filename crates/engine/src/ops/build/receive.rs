//! The context: a tar from the client, as files that only descriptors lead to from here on.

use std::fs::{DirBuilder, File};
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use archive::{Overwrite, Owner, Resolution, TarReader, Unpack, UnpackError};
use bridge::Abandoned;
use dockerfile::{Dockerfile, ParseError, PatternError, Patterns};
use rustix::fs::{CWD, Mode, OFlags, openat};
use tracing::debug;

use super::kept_context::{ContextFiles, ContextName};
use super::tree::Tree;
use crate::Engine;
use crate::inflated::{Inflated, inflate};

/// How much is read at once. Nothing but speed depends on it: less makes more system calls, more only takes memory.
const PIECE_BYTES: usize = 128 * 1024;

/// The longest Dockerfile and `.dockerignore`.
pub(super) const TEXT_MAX: u64 = 16 * 1024 * 1024;

/// What it is called if nobody says otherwise.
const DOCKERFILE: &str = "Dockerfile";

/// Why there is no context. The texts are dockerd's where it has one.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// There is no place for it.
    #[error("make a place for the build context")]
    Place(#[source] io::Error),
    /// It does not come, or is compressed in an unknown way.
    #[error("read the build context")]
    Decompress(#[source] io::Error),
    /// It cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// The Dockerfile is not in it.
    #[error("Cannot locate specified Dockerfile: {0}")]
    NoDockerfile(String),
    /// The Dockerfile cannot be read.
    #[error("unexpected error reading Dockerfile")]
    Read(#[source] io::Error),
    /// Nothing is in it.
    #[error("the Dockerfile ({0}) cannot be empty")]
    Empty(String),
    /// It falls into no instructions.
    #[error("failed to parse {name}: {why}")]
    Syntax {
        /// Which one.
        name: String,
        /// All of it.
        text: String,
        /// Why.
        why: Box<ParseError>,
    },
    /// An instruction is none.
    #[error("{why}")]
    Instruction {
        /// All of the Dockerfile.
        text: String,
        /// Why.
        why: Box<ParseError>,
    },
    /// Nobody knows what is to be left out.
    #[error(transparent)]
    Ignore(#[from] PatternError),
}

/// A build's own directory; gone when nobody has it any more.
#[derive(Clone)]
pub(super) struct Place(Arc<PlaceDirectory>);

/// The directory itself; dropped, it is set aside for the sweeper.
pub(super) struct PlaceDirectory {
    engine: Engine,
    path: PathBuf,
}

/// What builds need.
pub(super) struct Context {
    pub(super) tree: Tree,
    pub(super) dockerfile: Dockerfile,
    /// What was read of the Dockerfile.
    pub(super) text: Arc<str>,
    pub(super) place: Place,
    /// Its files, where the client's next build may begin with them.
    pub(super) files: Option<Arc<ContextFiles>>,
}

impl Place {
    /// Makes one. Blocks shortly.
    pub(super) fn new(engine: &Engine) -> io::Result<Place> {
        let all = engine.config.data_root.join("builds");
        DirBuilder::new().recursive(true).mode(0o700).create(&all)?;
        if let Err(err) = sys::spread::spread(&all) {
            debug!(%err, "builds are not spread over the disk");
        }
        let path = all.join(stdx::id::random_hex::<8>());
        DirBuilder::new().mode(0o700).create(&path)?;
        // Commands may see it, as whichever user.
        let context = path.join("context");
        DirBuilder::new().create(&context)?;
        std::fs::set_permissions(&context, PermissionsExt::from_mode(0o755))?;
        Ok(Place(Arc::new(PlaceDirectory { engine: engine.clone(), path })))
    }

    /// Where the context's files are.
    pub(super) fn root(&self) -> Result<OwnedFd, ContextError> {
        open(&self.join("context"))
    }

    /// A path in it.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.0.path.join(name)
    }

    /// The directory itself.
    pub(super) fn path(&self) -> PathBuf {
        self.0.path.clone()
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(super) fn directory(&self) -> Arc<PlaceDirectory> {
        self.0.clone()
    }
}

impl Drop for PlaceDirectory {
    fn drop(&mut self) {
        // One rename: what takes time is the sweeper's.
        let trash = self.engine.trash().join(stdx::id::random_hex::<8>());
        if let Err(err) = std::fs::rename(&self.path, trash) {
            debug!(%err, "the directory of a build stays behind");
        }
        self.engine.sweep_soon();
    }
}

/// Sets aside what builds of an earlier daemon left.
pub(crate) fn discard_left_over(data_root: &Path, trash: &Path) {
    match std::fs::rename(data_root.join("builds"), trash.join(stdx::id::random_hex::<8>())) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => debug!(%err, "what earlier builds left stays"),
        _ => {}
    }
}

/// Takes the context and reads its Dockerfile. Blocks.
pub(super) fn receive(engine: &Engine, archive: impl Read + Send, name: &str) -> Result<Context, ContextError> {
    let place = Place::new(engine).map_err(ContextError::Place)?;
    unpack(&place.root()?, archive)?;
    in_place(place, name)
}

/// Unpacks a context that is in a file into its place, as long as somebody waits for it. Blocks.
pub(super) fn unpack_file(place: &Place, archive: &File, abandoned: &Abandoned) -> Result<(), ContextError> {
    let bytes = archive.metadata().map_err(ContextError::Decompress)?.len();
    unpack_plain(&place.root()?, inflate(archive, bytes, abandoned))
}

/// A context whose files are in their place. Blocks.
pub(super) fn in_place(place: Place, name: &str) -> Result<Context, ContextError> {
    let tree = Tree::new(place.root()?).map_err(ContextError::Place)?;
    let name = if name.is_empty() { DOCKERFILE } else { name };
    let (name, text) = text(&tree, name)?;
    let (dockerfile, text) = parse(&name, &text)?;
    leave_out(&tree, &name);
    Ok(Context { tree, dockerfile, text, place, files: None })
}

/// A context of a Dockerfile alone, the files of which come later. Blocks.
pub(super) fn of_text(engine: &Engine, name: &str, text: &[u8]) -> Result<Context, ContextError> {
    of_text_in(Place::new(engine).map_err(ContextError::Place)?, name, text)
}

/// The same in a place that is there.
pub(super) fn of_text_in(place: Place, name: &str, text: &[u8]) -> Result<Context, ContextError> {
    let (dockerfile, text) = parse(name, text)?;
    let tree = Tree::new(place.root()?).map_err(ContextError::Place)?;
    Ok(Context { tree, dockerfile, text, place, files: None })
}

/// Has such a context, which is empty, begin with what the client has sent before. Blocks.
pub(super) fn begin_with_kept(context: &mut Context, name: &ContextName) -> Result<(), ContextError> {
    let files = ContextFiles::take(&context.place, name, &context.place.join("context"), &context.place.join("kept"));
    context.tree = Tree::new(context.place.root()?).map_err(ContextError::Place)?.of(files.clone());
    context.files = Some(files);
    Ok(())
}

/// Takes the files of such a context, or what of them is new. Blocks.
pub(super) fn fill(context: &Context, archive: impl Read + Send) -> Result<(), ContextError> {
    unpack(&context.place.root()?, archive)?;
    context.files.iter().for_each(|files| files.are_whole());
    Ok(())
}

/// All of an archive, as it is, below a directory.
pub(super) fn into(root: &OwnedFd) -> Unpack<'_> {
    Unpack {
        root: root.as_fd(),
        directory: b"/",
        resolution: Resolution::InRoot,
        overwrite: Overwrite::Allow,
        owner: Owner::Archive,
        rename: None,
        top: false,
    }
}

/// A directory in which files are, and which is no link. Blocks shortly.
pub(super) fn open(directory: &Path) -> Result<OwnedFd, ContextError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, directory, flags, Mode::empty()).map_err(|err| ContextError::Place(err.into()))
}

/// Unpacks an archive below a directory, while a client sends it: reading ends when that has gone. Blocks.
pub(super) fn unpack(root: &OwnedFd, mut archive: impl Read + Send) -> Result<(), ContextError> {
    unpack_plain(root, inflate(&mut archive, 0, &Abandoned::default()))?;
    // What stands behind the end is nobody's, but while it is not read nobody hears the client go.
    io::copy(&mut archive, &mut io::sink()).map(drop).map_err(ContextError::Decompress)
}

fn unpack_plain(root: &OwnedFd, plain: io::Result<Inflated<'_>>) -> Result<(), ContextError> {
    let plain = plain.map_err(ContextError::Decompress)?;
    let mut tar = TarReader::new(BufReader::with_capacity(PIECE_BYTES, plain));
    Ok(archive::unpack(&mut tar, &into(root))?)
}

fn text(tree: &Tree, name: &str) -> Result<(String, Vec<u8>), ContextError> {
    if let Some(bytes) = tree.read(name, TEXT_MAX).map_err(ContextError::Read)? {
        return Ok((name.to_owned(), bytes));
    }
    let lower = name.to_lowercase();
    if name == DOCKERFILE
        && let Some(bytes) = tree.read(&lower, TEXT_MAX).map_err(ContextError::Read)?
    {
        return Ok((lower, bytes));
    }
    Err(ContextError::NoDockerfile(name.to_owned()))
}

/// A Dockerfile, and its text.
pub(super) fn parse(name: &str, text: &[u8]) -> Result<(Dockerfile, Arc<str>), ContextError> {
    if text.is_empty() {
        return Err(ContextError::Empty(name.to_owned()));
    }
    let text = String::from_utf8_lossy(text);
    match dockerfile::parse(&text) {
        Ok(dockerfile) => Ok((dockerfile, text.into())),
        Err(why @ ParseError::Syntax { .. }) => {
            Err(ContextError::Syntax { name: name.to_owned(), text: text.into_owned(), why: Box::new(why) })
        }
        Err(why) => Err(ContextError::Instruction { text: text.into_owned(), why: Box::new(why) }),
    }
}

/// Removes the files that were sent for the build alone and that `.dockerignore` does not want copied.
fn leave_out(tree: &Tree, name: &str) {
    let Ok(Some(text)) = tree.read(".dockerignore", TEXT_MAX) else { return };
    // One that is broken was the client's business, which has sent what it wanted.
    let Ok(patterns) = Patterns::read(&String::from_utf8_lossy(&text)) else { return };
    for file in [".dockerignore", name] {
        if patterns.exclude(file) {
            tree.remove(file);
        }
    }
}
