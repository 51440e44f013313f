//! `diff`, `export`, `commit`, `import` and `container prune`.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, IsTerminal, Write};
#[cfg(unix)]
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use client::container::{self, CommitOptions};
use client::image::{self, ImportOptions, ImportSource};
use oci::{Reference, ReferenceError};

use super::load::upload;
use super::{Context, progress};
use crate::args::Parsed;
use crate::format::units;
use crate::plan::filters;
use crate::report::{Exit, go_error};
use crate::{config, say_line};

/// `diff`
pub async fn diff(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let Some(name) = parsed.positionals.first() else { return Ok(()) };
    for change in container::changes(&context.client, name).await? {
        say_line!("{} {}", change.letter(), change.path);
    }
    Ok(())
}

/// `export`
pub async fn export(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let Some(name) = parsed.positionals.first() else { return Ok(()) };
    let path = parsed.text("output");
    if path.is_empty() && io::stdout().is_terminal() {
        return Err(Exit::new(1, "cowardly refusing to save to a terminal. Use the -o flag or redirect"));
    }
    let mut output = if path.is_empty() { None } else { Some(Output::begin(path, "export container")?) };
    let mut answer = container::export(&context.client, name).await?;
    while let Some(piece) = answer.next().await? {
        match &mut output {
            Some(output) => output.write(&piece)?,
            None => crate::console::write(&piece),
        }
    }
    output.map_or(Ok(()), Output::end)
}

/// What no file takes the place of, in the words of Docker's client.
fn never_replaced(kind: FileType) -> Option<&'static str> {
    if kind.is_dir() {
        return Some("directory");
    }
    if kind.is_symlink() {
        return Some("symbolic link directly");
    }
    #[cfg(unix)]
    {
        let special = [
            (kind.is_fifo(), "named pipe (FIFO)"),
            (kind.is_socket(), "socket"),
            (kind.is_char_device(), "character device file"),
            (kind.is_block_device(), "block device file"),
        ];
        if let Some((_, name)) = special.into_iter().find(|(is_it, _)| *is_it) {
            return Some(name);
        }
    }
    None
}

/// A file that appears when it is whole.
pub(super) struct Output {
    path: String,
    unfinished: String,
    file: Option<File>,
}

impl Output {
    pub(super) fn begin(path: &str, what: &str) -> Result<Output, Exit> {
        let failed = |err: &io::Error| Exit::new(1, format!("failed to {what}: {path}: {}", go_error(err)));
        // Not what a symlink leads to: the file takes the place of the name.
        if let Some(kind) = std::fs::symlink_metadata(path).ok().and_then(|found| never_replaced(found.file_type())) {
            return Err(Exit::new(1, format!("failed to {what}: cannot write to a {kind}")));
        }
        let directory = Path::new(path).parent().filter(|path| !path.as_os_str().is_empty());
        if let Some((directory, err)) = directory.and_then(|path| Some((path, std::fs::metadata(path).err()?))) {
            let sentence = format!("invalid output path: stat {}: {}", directory.display(), go_error(&err));
            return Err(Exit::new(1, format!("failed to {what}: {sentence}")));
        }
        let unfinished = format!("{path}.tmp-{}", std::process::id());
        // What is in a container may be secret: for nobody else's eyes, as Docker's client has it.
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        options.mode(0o600);
        let file = options.open(&unfinished).map_err(|err| failed(&err))?;
        Ok(Output { path: path.to_owned(), unfinished, file: Some(file) })
    }

    pub(super) fn write(&mut self, piece: &[u8]) -> Result<(), Exit> {
        let written = self.file.as_mut().map_or(Ok(()), |file| file.write_all(piece));
        written.map_err(|err| Exit::new(1, format!("write {}: {}", self.path, go_error(&err))))
    }

    pub(super) fn end(mut self) -> Result<(), Exit> {
        self.file = None;
        let renamed = std::fs::rename(&self.unfinished, &self.path);
        renamed.map_err(|err| Exit::new(1, format!("write {}: {}", self.path, go_error(&err))))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // What cannot be removed is at least not the file that was asked for.
            let _ = std::fs::remove_file(&self.unfinished);
        }
    }
}

/// `commit`
pub async fn commit(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let Some(name) = parsed.positionals.first() else { return Ok(()) };
    let (repository, tag) = new_name(parsed.positionals.get(1).map_or("", String::as_str))?;
    let options = CommitOptions {
        repository,
        tag,
        comment: parsed.text("message").to_owned(),
        author: parsed.text("author").to_owned(),
        changes: parsed.list("change").to_vec(),
        pause: parsed.flag_or("pause", true),
    };
    say_line!("{}", container::commit(&context.client, name, &options).await?);
    Ok(())
}

/// `REPOSITORY[:TAG]` as the API wants it.
fn new_name(text: &str) -> Result<(String, String), Exit> {
    if text.is_empty() {
        return Ok(Default::default());
    }
    let reference: Reference = text.parse().map_err(|err: ReferenceError| Exit::new(1, err.to_string()))?;
    if reference.digest().is_some() {
        return Err(Exit::new(1, "refusing to create a tag with a digest reference"));
    }
    let reference = reference.with_default_tag();
    Ok((reference.familiar_name().to_owned(), reference.tag().unwrap_or_default().to_owned()))
}

/// `import`
pub async fn import(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    let Some(source) = parsed.positionals.first() else { return Ok(()) };
    let name = parsed.positionals.get(1).map_or("", String::as_str);
    if !name.is_empty() {
        name.parse::<Reference>().map_err(|err: ReferenceError| Exit::new(1, err.to_string()))?;
    }
    let source = match source.as_str() {
        "-" => ImportSource::Archive(upload(Box::new(io::stdin()))),
        url if url.starts_with("http://") || url.starts_with("https://") => ImportSource::Address(url.to_owned()),
        path => {
            let file = File::open(path).map_err(|err| Exit::new(1, format!("open {path}: {}", go_error(&err))))?;
            ImportSource::Archive(upload(Box::new(file)))
        }
    };
    let options = ImportOptions {
        repository: name.to_owned(),
        message: parsed.text("message").to_owned(),
        changes: parsed.list("change").to_vec(),
        platform: config::platform(parsed),
    };
    let answer = image::import(&context.client, source, &options).await?;
    progress::show(answer, progress::Target::Stdout, false).await
}

/// `container prune`
pub async fn prune(context: &Context, parsed: &Parsed) -> Result<(), Exit> {
    if !parsed.flag("force") && !confirm().await? {
        return Ok(());
    }
    let given = context.prune_filters(parsed);
    let pruned = container::prune(&context.client, &filters::encode(given.iter().map(String::as_str))).await?;
    let deleted = pruned.containers_deleted.unwrap_or_default();
    let mut reclaimed_bytes = 0;
    if !deleted.is_empty() {
        say_line!("Deleted Containers:\n{}\n", deleted.join("\n"));
        reclaimed_bytes = pruned.space_reclaimed;
    }
    say_line!("Total reclaimed space: {}", units::human_size(reclaimed_bytes as f64, 4));
    Ok(())
}

async fn confirm() -> Result<bool, Exit> {
    super::prune::confirm("WARNING! This will remove all stopped containers.\nAre you sure you want to continue?").await
}
