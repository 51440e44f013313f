//! `POST /images/create?fromSrc=`: an image of a tar, which comes with the request or lies at an address of the web.

use std::io::{self, Cursor, Read};

use bridge::Abandoned;
use engine_api::container::Config;
use errdefs::ErrorKind;
use layer::Compression;
use oci::image::{History, ImageConfig, Platform};
use oci::{Reference, ReferenceError};
use registry_client::WebError;
pub use registry_client::{Fetched, WebAddress};

use crate::Engine;
use crate::clock::{now_nanos, rfc3339};
use crate::inflated::inflate;
use crate::instructions::{self, InstructionError};
use crate::ops::commit::{self, CommitError};
use crate::ops::images;

/// How much of a stream tells whether it is compressed.
const START_BYTES: u64 = 10;

/// What is made of the tar.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Where the tar is: `-` for the request's body, else an address of the web.
    pub source: String,
    /// The new image's name; empty for none.
    pub repository: String,
    /// Its tag.
    pub tag: String,
    /// Why it was made.
    pub message: String,
    /// Instructions of a Dockerfile.
    pub changes: Vec<String>,
    /// `os[/architecture[/variant]]`; empty for this machine's.
    pub platform: String,
}

/// Why an image was not imported. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The name is none.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The name is one that no image can be given.
    #[error("cannot import digest reference")]
    Digest,
    /// The instructions are wrong.
    #[error(transparent)]
    Instruction(#[from] InstructionError),
    /// The platform is none.
    #[error(transparent)]
    Platform(#[from] engine_api::platform::PlatformError),
    /// It is for another operating system.
    #[error("operating system is not supported")]
    OperatingSystem,
    /// It does not come from where it lies.
    #[error(transparent)]
    Web(#[from] WebError),
    /// The image cannot be made.
    #[error(transparent)]
    Build(#[from] image::LoadError),
}

impl ImportError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ImportError::Build(err) => err.kind(),
            ImportError::Platform(err) => err.kind(),
            ImportError::Web(err) => err.kind(),
            _ => ErrorKind::InvalidArgument,
        }
    }
}

/// An import that was checked.
#[derive(Debug)]
pub struct ImportPlan {
    reference: Option<Reference>,
    config: Config,
    platform: Platform,
    message: String,
    /// Where the tar lies, if it does not come with the request.
    pub address: Option<WebAddress>,
}

/// Checks what is wanted, before the first byte is read.
pub fn plan(options: &ImportOptions) -> Result<ImportPlan, ImportError> {
    let reference = commit::new_name(&options.repository, &options.tag).map_err(|err| match err {
        CommitError::Reference(err) => ImportError::Reference(err),
        _ => ImportError::Digest,
    })?;
    let platform = platform(&options.platform)?;
    if platform.os != "linux" {
        return Err(ImportError::OperatingSystem);
    }
    let mut config = Config::default();
    instructions::apply(&options.changes, &mut config)?;
    let address = (options.source != "-").then(|| WebAddress::parse(&options.source)).transpose()?;
    let message = match &options.message[..] {
        // What an image says of itself goes wherever it goes: no password in it.
        "" => format!("Imported from {}", address.as_ref().map_or("-".to_owned(), WebAddress::to_string)),
        given => given.to_owned(),
    };
    Ok(ImportPlan { reference, config, platform, message, address })
}

/// Asks for the tar that lies at an address.
pub async fn fetch(engine: &Engine, address: &WebAddress) -> Result<Fetched, ImportError> {
    Ok(engine.current.registries().fetch(address).await?)
}

fn platform(text: &str) -> Result<Platform, ImportError> {
    let mut platform = host_platform();
    if text.is_empty() {
        return Ok(platform);
    }
    let wanted = engine_api::platform::parse(text)?;
    let mut parts = wanted.split('/').map(str::to_owned);
    platform.os = parts.next().unwrap_or_default();
    platform.architecture = parts.next().filter(|part| !part.is_empty()).unwrap_or(platform.architecture);
    platform.variant = parts.next().unwrap_or_default();
    Ok(platform)
}

/// What this machine runs.
pub(crate) fn host_platform() -> Platform {
    Platform { architecture: image::host_architecture().to_owned(), os: "linux".to_owned(), ..Platform::default() }
}

/// Makes an image of a tar, compressed or not, which is read on a thread that may block; answers its id.
pub async fn import(engine: &Engine, plan: ImportPlan, tar: impl Read + Send + 'static) -> Result<String, ImportError> {
    let task = engine.clone();
    // Whoever asked may leave at any moment: what is half there then is swept all the same.
    engine.detached(async move { import_all(&task, plan, tar).await }).await
}

async fn import_all(engine: &Engine, plan: ImportPlan, tar: impl Read + Send + 'static) -> Result<String, ImportError> {
    let ImportPlan { reference, config, platform, message, address } = plan;
    let (task, named) = (engine.clone(), reference.clone());
    let created = Some(rfc3339(now_nanos()));
    let step = History { created, comment: message, ..History::default() };
    let built = bridge::blocking(move || {
        let configure = |image: &mut ImageConfig| {
            image.platform = platform;
            image.created.clone_from(&step.created);
            image.config = commit::exec_config(&config);
            image.history = vec![step];
        };
        match address {
            // Whoever sends it with the request may fill the disk in other ways, too.
            None => task.images.build(None, tar, named, configure),
            Some(_) => task.images.build(None, Foreign::Whole(tar), named, configure),
        }
    });
    let built = built.await;
    if built.is_err() {
        engine.sweep_soon();
    }
    let made = built?.id;
    let id = made.to_string();
    if let Some(reference) = reference {
        images::tell_made(engine, &made, "tag", &reference.familiar());
    }
    images::tell_made(engine, &made, "import", &id);
    super::image_budget::look_soon(engine, [made]);
    Ok(id)
}

/// A tar of a stranger, inflated while it comes, at most to what any layer of its length can be.
enum Foreign<R> {
    /// Nobody has read of it.
    Whole(R),
    Inflating(Inflating),
    /// It is not even compressed as it says.
    Broken,
}

struct Inflating(Box<dyn Read + Send>);

impl Inflating {
    fn begin(source: impl Read + Send + 'static) -> io::Result<Inflating> {
        // Who sends it goes when nobody waits for it.
        let mut inflated = inflate(source, 0, &Abandoned::default())?;
        let mut start = Vec::new();
        inflated.by_ref().take(START_BYTES).read_to_end(&mut start)?;
        // Whoever unpacks a tar inflates it where it is compressed; once is enough, and more has no bound here.
        if Compression::detect(&start) != Compression::Plain {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "archive/tar: invalid tar header"));
        }
        Ok(Inflating(Box::new(Cursor::new(start).chain(inflated))))
    }
}

impl<R: Read + Send + 'static> Read for Foreign<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self {
                Foreign::Inflating(inflating) => return inflating.0.read(buffer),
                Foreign::Broken => return Err(io::ErrorKind::UnexpectedEof.into()),
                Foreign::Whole(_) => {
                    if let Foreign::Whole(source) = std::mem::replace(self, Foreign::Broken) {
                        *self = Foreign::Inflating(Inflating::begin(source)?);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inflated::tests::{BLOCK_BYTES, REPEATED, zstd};

    #[test]
    fn what_a_stranger_sends_is_bounded_while_it_is_inflated() {
        let read = |bytes: Vec<u8>| {
            let mut foreign = Foreign::Whole(io::Cursor::new(bytes));
            io::copy(&mut foreign, &mut io::sink()).map_err(|err| err.kind())
        };
        assert_eq!(read(vec![b'x'; 100_000]), Ok(100_000));
        assert_eq!(read(Vec::new()), Ok(0));
        // Four bytes each, of which the disk would be full.
        let zeros = (REPEATED, BLOCK_BYTES, &b"\0"[..]);
        assert_eq!(read(zstd(&[zeros; 500])), Ok(500 * u64::from(BLOCK_BYTES)));
        let bomb = zstd(&[zeros; 1000]);
        assert_eq!(read(bomb.clone()), Err(io::ErrorKind::FileTooLarge));
        let wrapped = zstd(&[(0, u32::try_from(bomb.len()).unwrap(), &bomb)]);
        assert_eq!(read(wrapped), Err(io::ErrorKind::InvalidData));
    }
}
