//! Where what was built goes beside the image store: a directory, archives.

use client::image;

use super::super::changes::Output as NewFile;
use super::super::{Context, copy};
use crate::plan::outputs::{Kind, Output};
use crate::report::Exit;

/// Brings an image to where its files are wanted.
pub(super) async fn bring(context: &Context, image: &str, names: &[String], outputs: &[Output]) -> Result<(), Exit> {
    for output in outputs {
        let mut answer = match output.kind {
            Kind::Image => continue,
            Kind::Directory => {
                let answer = image::files(&context.client, image).await?;
                copy::into_directory(answer, &output.destination).await?;
                continue;
            }
            Kind::Files => image::files(&context.client, image).await?,
            // The daemon's archives are both at once.
            Kind::Oci | Kind::Docker => {
                let id = [image.to_owned()];
                image::save(&context.client, if names.is_empty() { &id } else { names }, "").await?
            }
        };
        let mut file = match output.destination.as_str() {
            "-" => None,
            path => Some(NewFile::begin(path, "write the output")?),
        };
        while let Some(piece) = answer.next().await? {
            match &mut file {
                Some(file) => file.write(&piece)?,
                None => crate::console::write(&piece),
            }
        }
        file.map_or(Ok(()), NewFile::end)?;
    }
    Ok(())
}
