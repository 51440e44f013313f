//! What becomes of an image beside the store: its names in their registries, and a note of what it is.

use std::fs;

use oci::{Reference, ReferenceError};

use super::super::progress::Target;
use super::super::{Context, push};
use crate::report::{Exit, go_error};

/// Pushes all names, one after the other; answers the digest that the image has there, if that was told.
pub(super) async fn push(context: &Context, names: &[String], target: Option<Target>) -> Result<Option<String>, Exit> {
    let mut digest = None;
    for name in names {
        let reference: Reference = name.parse().map_err(|err: ReferenceError| Exit::new(1, err.to_string()))?;
        let reference = reference.with_default_tag();
        let pushed = push::push(context, &reference, None, target).await;
        digest = pushed.map_err(|exit| match exit.message {
            Some(why) => Exit::new(exit.status, format!("failed to push {reference}: {why}")),
            None => exit,
        })?;
    }
    Ok(digest)
}

/// Writes down what was built, if that is wanted.
pub(super) fn write(file: &str, text: &str) -> Result<(), Exit> {
    if file.is_empty() {
        return Ok(());
    }
    fs::write(file, text).map_err(|err| Exit::new(1, format!("open {file}: {}", go_error(&err))))
}
