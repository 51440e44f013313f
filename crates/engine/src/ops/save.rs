//! `GET /images/get`: images as an archive.

use std::io;

use errdefs::ErrorKind;
use image::WantedPlatform;
use oci::image::Platform;
use tokio::sync::oneshot;
use tracing::debug;

use crate::Engine;
use crate::ops::archive::Finish;
use crate::ops::images;
use crate::platforms;

/// What is saved.
#[derive(Clone, Debug, Default)]
pub struct SaveOptions {
    /// Names, ids, or repositories of which all tags are meant.
    pub names: Vec<String>,
    /// Images of another platform are refused.
    pub platform: Option<Platform>,
}

/// Why images were not saved. The texts are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// They cannot be saved.
    #[error(transparent)]
    Images(#[from] image::SaveError),
    /// The daemon ends.
    #[error("the daemon is ending")]
    Ending,
}

impl SaveError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            SaveError::Images(err) => err.kind(),
            SaveError::Ending => ErrorKind::Unavailable,
        }
    }
}

/// Writes the archive to `out`, on a thread that may block; answers when it begins. What is removed then is saved all the
/// same.
pub async fn save(engine: &Engine, options: SaveOptions, out: impl Finish + Send + 'static) -> Result<(), SaveError> {
    let (task, (opened, told)) = (engine.clone(), oneshot::channel());
    tokio::spawn(bridge::blocking(move || {
        let saving = match plan(&task, &options) {
            Ok(saving) => saving,
            Err(err) => {
                // Who asked has gone.
                let _ = opened.send(Err(err));
                return;
            }
        };
        saving.ids().for_each(|id| images::tell_made(&task, id, "save", id.as_str()));
        // The head is sent then: the end of the connection is all that can be told.
        if opened.send(Ok(())).is_ok()
            && let Err(err) = write(&saving, out)
        {
            debug!("save: {}", errdefs::chain(&err));
        }
        let saved: Vec<_> = saving.ids().cloned().collect();
        drop(saving);
        task.let_go(&saved);
    }));
    told.await.unwrap_or(Err(SaveError::Ending))
}

fn plan<'a>(engine: &'a Engine, options: &SaveOptions) -> Result<image::Saving<'a>, SaveError> {
    let is_wanted =
        |found: &Platform| options.platform.as_ref().is_none_or(|wanted| platforms::is_exactly(wanted, found));
    let wanted = options.platform.as_ref();
    let wanted = wanted.map(|one| WantedPlatform { text: platforms::shown(one), is_wanted: &is_wanted });
    Ok(image::save(&engine.images, &options.names, wanted.as_ref())?)
}

fn write(saving: &image::Saving<'_>, mut out: impl Finish) -> Result<(), image::SaveError> {
    saving.write(&mut out)?;
    let finished: io::Result<()> = out.finish();
    finished.map_err(image::SaveError::Write)
}
