//! What a build came to, pushed as it is wanted: several images under one name, what is said beside them, annotations, layers
//! in another form. What is none of this is pushed as every other image.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use content::Blob;
use engine_api::auth::AuthConfig;
use image::{Document, LayerForm, Layout, LayoutError, LayoutImage};
use oci::image::Descriptor;
use oci::{Digest, Reference};
use registry_client::{Session, Source, Upload};
use rustix::fs::{Mode, OFlags};

use super::{Document as Bytes, PushError, layers};
use crate::Engine;
use crate::ops::build::outputs::{Built, LaidOut, ManifestOf, OutputError, statements};
use crate::ops::image_budget;
use crate::ops::login::credentials;
use crate::ops::pull::tell_event;

/// Why an outcome did not go.
#[derive(Debug, thiserror::Error)]
pub enum OutcomeError {
    /// What is wanted does not fit together.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// It is not pushed.
    #[error(transparent)]
    Push(#[from] PushError),
    /// Its layers do not get their form.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// There is no place for them.
    #[error("keep a layer until it is sent")]
    Spool(#[source] io::Error),
}

/// Pushes what was built under a name.
pub async fn push(
    engine: &Engine,
    name: &str,
    login: Option<AuthConfig>,
    images: &[Built],
    wanted: &LaidOut,
) -> Result<ManifestOf, OutcomeError> {
    let is_index = wanted.is_index(images)?;
    let name = name.parse::<Reference>().map_err(PushError::from)?.with_default_tag();
    let laid = wanted.images(images)?;
    let ids: Vec<Digest> = laid.iter().map(|image| image.id.clone()).collect();
    let _held = image_budget::hold(engine, ids.clone()).await;
    let credentials = login.map(credentials).unwrap_or_default();
    let session = engine.current.registries().push_session(&name, credentials).await.map_err(PushError::from)?;
    let names = wanted.options()?.names;
    let (mut entries, mut said, mut last) = (Vec::new(), Vec::new(), None);
    for (built, image) in images.iter().zip(laid) {
        let (bare, bytes, entry) = one(engine, &session, &name, image, wanted).await?;
        entries.push(entry);
        let statements = statements(built, &names, &bare);
        if is_index {
            put(&session, bare.digest.as_str(), &(bare.clone(), bytes.clone())).await?;
        }
        if !statements.is_empty() {
            said.push(attest(&session, image::attestation(&bare, statements)).await?);
        }
        last = Some((bare, bytes));
    }
    let top = match (is_index, last) {
        (false, Some(image)) => image,
        _ => image::outcome_index([entries, said].concat(), wanted.annotations.index.clone()),
    };
    put(&session, name.tag().unwrap_or(oci::reference::DEFAULT_TAG), &top).await?;
    let digested = format!("{}/{}@{}", name.domain(), name.path(), top.0.digest);
    let digested: Reference = digested.parse().map_err(PushError::from)?;
    let task = engine.clone();
    let named = bridge::blocking(move || image::name_pushed(&task.images, &ids, &digested)).await;
    named.map_err(PushError::from)?;
    tell_event(engine, &name, "push");
    Ok(ManifestOf::new(&top.0))
}

/// Has the registry hold all of an image but its manifest; answers that, and its entry in an index.
async fn one(
    engine: &Engine,
    session: &Arc<Session>,
    name: &Reference,
    image: LayoutImage,
    wanted: &LaidOut,
) -> Result<(Descriptor, Vec<u8>, Descriptor), OutcomeError> {
    let is_usual = wanted.form == LayerForm::Gzip && !wanted.force && wanted.level.is_none();
    let sent = match is_usual {
        true => layers(engine, session, name, &image.id).await?,
        false => formed(engine, session, &image, wanted).await?,
    };
    let (task, id) = (engine.clone(), image.id.clone());
    let read = move || {
        let record = task.images.resolve(id.as_str()).map_err(PushError::from)?;
        let config = image::push_image(&task.images, &id).map_err(PushError::from)?.config;
        Ok::<_, PushError>((config, record.config.platform.clone()))
    };
    let (config, platform) = bridge::blocking(read).await?;
    let named = (&image.id, config.len() as u64);
    let (bare, bytes) = image::image_manifest(named, sent, image.annotations, wanted.docker);
    upload(session, image.id.clone(), config).await?;
    let entry = Descriptor { annotations: image.entry_annotations, platform: Some(platform), ..bare.clone() };
    Ok((bare, bytes, entry))
}

/// Sends the layers of an image in the form that is wanted; answers what they are, lowest first.
async fn formed(
    engine: &Engine,
    session: &Arc<Session>,
    image: &LayoutImage,
    wanted: &LaidOut,
) -> Result<Vec<Descriptor>, OutcomeError> {
    let (task, only, options) = (engine.clone(), [image.clone()], wanted.options()?);
    let made = move || {
        let layout = image::layout(&task.images, &only, &options, &|_, _| Vec::new())?;
        let place = task.config.data_root.clone();
        let spool = |layer: &Descriptor| {
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            let file: OwnedFd = rustix::fs::open(&place, flags, Mode::RUSR | Mode::WUSR)
                .map_err(|err| OutcomeError::Spool(err.into()))?;
            let mut file = File::from(file);
            Layout::write_layer(&layout, layer, &mut file)?;
            Ok::<_, OutcomeError>((layer.clone(), file))
        };
        layout.layers_of(0).iter().map(spool).collect::<Result<Vec<_>, _>>()
    };
    let mut sent = Vec::new();
    for (layer, file) in bridge::waiting(made).await? {
        let blob = Some(Blob { digest: layer.digest.clone(), size: layer.size });
        let source = Arc::new(Spooled(Arc::new(file), layer.size));
        let upload = Upload { blob, mounts: Vec::new(), source };
        session.upload(&upload, Arc::new(|_| {})).await.map_err(PushError::from)?;
        sent.push(layer);
    }
    Ok(sent)
}

/// Has the registry hold what is said beside an image; answers the entry of it in an index.
async fn attest(session: &Session, mut documents: Vec<Document>) -> Result<Descriptor, PushError> {
    let manifest = documents.pop().expect("what is said of an image has a manifest");
    for (named, bytes) in documents {
        upload(session, named.digest, bytes).await?;
    }
    put(session, manifest.0.digest.as_str(), &manifest).await?;
    Ok(manifest.0)
}

async fn upload(session: &Session, digest: Digest, bytes: Vec<u8>) -> Result<(), PushError> {
    let blob = Some(Blob { digest, size: bytes.len() as u64 });
    let upload = Upload { blob, mounts: Vec::new(), source: Arc::new(Bytes(bytes)) };
    session.upload(&upload, Arc::new(|_| {})).await?;
    Ok(())
}

async fn put(session: &Session, name: &str, (named, bytes): &Document) -> Result<(), PushError> {
    session.put_manifest(name, &named.media_type, bytes).await?;
    Ok(())
}

/// A layer that waits in a file without a name.
struct Spooled(Arc<File>, u64);

impl Source for Spooled {
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(SpooledReader { file: self.0.clone(), position: from }))
    }

    fn progress(&self, sent: u64) -> (u64, u64) {
        (sent, self.1)
    }
}

/// Reads at a position of its own: an attempt that was given up may still be reading.
struct SpooledReader {
    file: Arc<File>,
    position: u64,
}

impl Read for SpooledReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}
