//! What is wrong with an overlay's options. The kernel says "invalid argument", and why to its own log alone.

use std::path::{Path, PathBuf};

use rustix::fs::stat;

use crate::field::FieldError;
use crate::mount_options::MountOptions;

/// Options that give an overlay its layers (overlayfs.rst).
const LAYERS: [&str; 3] = ["lowerdir", "lowerdir+", "datadir+"];

/// Refuses what no overlay can be made of. Pure.
pub(crate) fn check(options: &MountOptions) -> Result<(), FieldError> {
    let has_layers = LAYERS.iter().any(|key| value(options, key).is_some());
    if !has_layers {
        return Err(FieldError::Needs { with: "lowerdir=, the layers of the overlay" });
    }
    if value(options, "upperdir").is_some() && value(options, "workdir").is_none() {
        return Err(FieldError::Needs { with: "workdir=, an empty directory on the file system of upperdir=" });
    }
    Ok(())
}

/// Why the kernel has refused to make it, if that can be seen.
pub(crate) fn explain(options: &MountOptions) -> Option<String> {
    let (upper, work) = (value(options, "upperdir")?, value(options, "workdir")?);
    let real = |path: &str| Path::new(path).canonicalize().unwrap_or_else(|_| PathBuf::from(path));
    let (real_upper, real_work) = (real(&unquoted(upper)), real(&unquoted(work)));
    if real_upper.starts_with(&real_work) || real_work.starts_with(&real_upper) {
        return Some(format!("upperdir={upper} and workdir={work} are one directory, or one is within the other"));
    }
    let device = |path: &Path| stat(path).ok().map(|stat| stat.st_dev);
    let (upper_device, work_device) = (device(&real_upper)?, device(&real_work)?);
    (upper_device != work_device).then(|| format!("upperdir={upper} and workdir={work} are not on one file system"))
}

/// The layer of a list that is not there, for who has been told that one is not.
pub(crate) fn missing_layer(key: &str, value: Option<&str>) -> Option<String> {
    let layers = layers(value.filter(|_| key == "lowerdir")?);
    layers.into_iter().find(|layer| !layer.is_empty() && !Path::new(layer).exists())
}

/// The directories of a `lowerdir`. A backslash takes the next character's meaning away (ovl_split_lowerdirs() in
/// fs/overlayfs/params.c).
fn layers(list: &str) -> Vec<String> {
    let (mut layers, mut layer, mut letters) = (Vec::new(), String::new(), list.chars());
    while let Some(letter) = letters.next() {
        match letter {
            ':' => layers.push(std::mem::take(&mut layer)),
            '\\' => layer.extend(letters.next()),
            _ => layer.push(letter),
        }
    }
    layers.push(layer);
    layers
}

/// A path without the backslashes that take characters' meaning away.
fn unquoted(path: &str) -> String {
    let mut letters = path.chars();
    let mut unquoted = String::with_capacity(path.len());
    while let Some(letter) = letters.next() {
        unquoted.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    unquoted
}

fn value<'a>(options: &'a MountOptions, key: &str) -> Option<&'a str> {
    let (_, value) = options.data.iter().rev().find(|(known, _)| known == key)?;
    value.as_deref().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_and_a_directory_to_work_in_are_needed() {
        let said = |line: &str| {
            let words: Vec<_> = line.split(',').map(str::to_owned).collect();
            check(&crate::mount_options::parse(&words)).map_err(|err| err.to_string())
        };
        let layers = Err("needs lowerdir=, the layers of the overlay".to_owned());
        let work = Err("needs workdir=, an empty directory on the file system of upperdir=".to_owned());
        for (line, answer) in [
            ("ro", layers.clone()),
            ("lowerdir=", layers.clone()),
            ("lowerdir=/a,lowerdir=", layers),
            ("lowerdir=/a,upperdir=/u", work.clone()),
            ("lowerdir=/a,upperdir=/u,workdir=", work),
            ("lowerdir=/a", Ok(())),
            ("lowerdir+=/a,lowerdir+=/b,upperdir=/u,workdir=/w", Ok(())),
        ] {
            assert_eq!(said(line), answer, "{line}");
        }
    }

    #[test]
    fn the_layer_that_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("a:b");
        std::fs::create_dir(&there).unwrap();
        let quoted = there.display().to_string().replace(':', "\\:");
        for (key, value, missing) in [
            ("lowerdir", Some("/nowhere".to_owned()), Some("/nowhere")),
            ("lowerdir", Some(format!("{quoted}:/nowhere:/neither")), Some("/nowhere")),
            ("lowerdir", Some("/no\\:where".to_owned()), Some("/no:where")),
            ("lowerdir", Some(format!("{quoted}::/")), None),
            ("lowerdir", None, None),
            ("upperdir", Some("/nowhere".to_owned()), None),
        ] {
            assert_eq!(missing_layer(key, value.as_deref()).as_deref(), missing, "{key} {value:?}");
        }
        assert_eq!(unquoted(&quoted), there.display().to_string());
    }
}
