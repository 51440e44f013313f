//! `POST /images/create?fromSrc=`: an image of a tar, which comes with the request or lies at an address of the web.

use std::io::Read;

use engine_api::container::Config;
use errdefs::ErrorKind;
use oci::image::{History, ImageConfig, Platform};
use oci::{Reference, ReferenceError};
use registry_client::WebError;
pub use registry_client::{Fetched, WebAddress};

use crate::Engine;
use crate::clock::{now_nanos, rfc3339};
use crate::instructions::{self, InstructionError};
use crate::ops::commit::{self, CommitError};
use crate::ops::images;

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
    let ImportPlan { reference, config, platform, message, .. } = plan;
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
        task.images.build(None, tar, named, configure)
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
    Ok(id)
}
