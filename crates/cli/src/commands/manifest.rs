//! `manifest`: lists of images, put together here and given to a registry.
//!
//! Docker's client asks registries itself; ours has the daemon ask them, with the user's login (docs/adr/0007). The lists
//! that are put together are files, the same as Docker's.

mod document;
mod store;

use client::registry::{self, RegistryName};
use client::{Client, ClientError};
use engine_api::manifest::{ManifestPlatform, ManifestStored, RegistryManifest};
use oci::{Digest, Reference, ReferenceError};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use self::document::{ListError, indented, list, list_to_push, name_of};
use self::store::{Entry, Store, StoreError};
use super::{Context, pull};
use crate::args::{ManifestVerb, Parsed};
use crate::format::json::escaped;
use crate::plan::ipam::strings;
use crate::report::Exit;
use crate::{say, say_line, warn_line};

/// Runs a verb of lists.
pub async fn run(context: &Context, verb: ManifestVerb, parsed: &Parsed) -> Result<(), Exit> {
    let lists = Lists { context, store: Store::of(context.directory()), insecure: parsed.flag("insecure") };
    match verb {
        ManifestVerb::Annotate => lists.annotate(parsed),
        ManifestVerb::Create => lists.create(parsed).await,
        ManifestVerb::Inspect => lists.inspect(parsed).await,
        ManifestVerb::Push => lists.push(parsed).await,
        ManifestVerb::Remove => lists.remove(parsed),
    }
}

/// With `latest`, unless it is said.
fn reference(text: &str) -> Result<Reference, Exit> {
    let parsed: Result<Reference, ReferenceError> = text.parse();
    Ok(parsed.map_err(|err| Exit::error(&err))?.with_default_tag())
}

impl From<StoreError> for Exit {
    fn from(err: StoreError) -> Exit {
        Exit::error(&err)
    }
}

impl From<ListError> for Exit {
    fn from(err: ListError) -> Exit {
        Exit::error(&err)
    }
}

/// What the registry has, and did not do with it.
fn warn_of(stored: &ManifestStored) {
    if !stored.warning.is_empty() {
        warn_line!("WARNING: {}", stored.warning);
    }
}

/// What Docker's client would have found out itself is told without the daemon.
fn told(err: ClientError) -> Exit {
    match err {
        ClientError::Api { message, .. } => Exit::new(1, message),
        err => Exit::from(err),
    }
}

struct Lists<'a> {
    context: &'a Context,
    store: Store,
    insecure: bool,
}

impl Lists<'_> {
    fn client(&self) -> &Client {
        &self.context.client
    }

    fn name(&self, reference: &Reference) -> Result<RegistryName, Exit> {
        let auth = pull::login(self.context, reference).map_err(|err| Exit::error(&err))?;
        Ok(RegistryName { name: reference.to_string(), insecure: self.insecure, auth })
    }

    async fn fetch(&self, reference: &Reference) -> Result<RegistryManifest, Exit> {
        registry::manifest(self.client(), &self.name(reference)?).await.map_err(told)
    }

    async fn create(&self, parsed: &Parsed) -> Result<(), Exit> {
        let Some((target, images)) = parsed.positionals.split_first() else { return Ok(()) };
        let failed = |exit: Exit| {
            Exit::new(1, format!("error parsing name for manifest list {target}: {}", exit.message.unwrap_or_default()))
        };
        let target = reference(target).map_err(failed)?;
        match self.store.list(&target) {
            Err(StoreError::Absent(_)) => {}
            Err(err) => return Err(err.into()),
            Ok(_) if parsed.flag("amend") => {}
            Ok(_) => return Err(Exit::new(1, "refusing to amend an existing manifest list with no --amend flag")),
        }
        for image in images {
            let image = reference(image)?;
            let entry = match self.store.get(&target, &image) {
                Ok(entry) if !entry.raw.is_empty() => entry,
                Ok(_) | Err(StoreError::Absent(_)) => self.entry(&image).await?,
                Err(err) => return Err(err.into()),
            };
            self.store.save(&target, &image, &entry)?;
        }
        say_line!("Created manifest list {target}");
        Ok(())
    }

    /// An image as its registry has it.
    async fn entry(&self, image: &Reference) -> Result<Entry, Exit> {
        let found = self.fetch(image).await?;
        if found.platform.is_none() {
            return Err(Exit::new(1, format!("{image} is a manifest list")));
        }
        Entry::new(image, &found).map_err(|err| Exit::error(&err))
    }

    fn annotate(&self, parsed: &Parsed) -> Result<(), Exit> {
        let [target, image] = &parsed.positionals[..] else { return Ok(()) };
        let parse = |what: &str, text: &String| {
            let failed = |exit: Exit| {
                let reason = exit.message.unwrap_or_default();
                Exit::new(1, format!("annotate: error parsing name for {what} {text}: {reason}"))
            };
            reference(text).map_err(failed)
        };
        let (list, name) = (parse("manifest list", target)?, parse("manifest", image)?);
        let mut entry = self.store.get(&list, &name).map_err(|err| match err {
            StoreError::Absent(_) => Exit::new(1, format!("manifest for image {image} does not exist in {target}")),
            err => err.into(),
        })?;
        let platform = entry.descriptor.platform.get_or_insert_default();
        change(platform, parsed);
        if !document::is_known(&platform.os, &platform.architecture) {
            let (os, architecture) = (parsed.text("os"), parsed.text("arch"));
            let sentence = format!("manifest entry for image has unsupported os/arch combination: {os}/{architecture}");
            return Err(Exit::new(1, sentence));
        }
        Ok(self.store.save(&list, &name, &entry)?)
    }

    async fn inspect(&self, parsed: &Parsed) -> Result<(), Exit> {
        let verbose = parsed.flag("verbose");
        let (list, name) = match &parsed.positionals[..] {
            [name] => (None, name),
            [list, name] => (Some(list), name),
            _ => return Ok(()),
        };
        let name = reference(name)?;
        if let Some(list) = list {
            return show_image(&self.store.get(&reference(list)?, &name)?, false, verbose);
        }
        // One that cannot be read is none, as to Docker's client.
        if let Ok(entries) = self.store.list(&name) {
            return show_list(&name, &entries, verbose);
        }
        let found = self.fetch(&name).await?;
        if found.platform.is_some() {
            let entry = Entry::new(&name, &found).map_err(|err| Exit::error(&err))?;
            return show_image(&entry, true, verbose);
        }
        show_list(&name, &self.entries(&name, &found).await?, verbose)
    }

    /// The images of a registry's list.
    async fn entries(&self, name: &Reference, found: &RegistryManifest) -> Result<Vec<Entry>, Exit> {
        let index: Index = serde_json::from_str(&found.raw).map_err(|err| Exit::error(&err))?;
        let mut entries = Vec::new();
        for image in index.manifests {
            let tag = name.tag().map(|tag| format!(":{tag}")).unwrap_or_default();
            let image_name = reference(&format!("{}/{}{tag}@{}", name.domain(), name.path(), image.digest))?;
            let mut entry = self.entry(&image_name).await?;
            entry.descriptor.platform = Some(image.platform.unwrap_or_default());
            entries.push(entry);
        }
        Ok(entries)
    }

    async fn push(&self, parsed: &Parsed) -> Result<(), Exit> {
        let Some(target) = parsed.positionals.first() else { return Ok(()) };
        let target = reference(target)?;
        let entries = self.store.list(&target)?;
        if entries.is_empty() {
            return Err(Exit::new(1, format!("{target} not found")));
        }
        let list = list_to_push(&target, &entries)?;
        // Images of other repositories have to be in this one.
        let mut elsewhere = Vec::new();
        for entry in &entries {
            let name = name_of(entry)?;
            if name.path() != target.path() {
                elsewhere.push((entry, name, document(entry)?));
            }
        }
        let to = self.name(&target)?;
        for (entry, from, _) in &elsewhere {
            self.mount(&to, entry, from).await?;
        }
        for (entry, _, document) in elsewhere {
            let name = format!("{}/{}@{}", target.domain(), target.path(), entry.descriptor.digest);
            let to = RegistryName { name: name.clone(), ..to.clone() };
            let stored = registry::put_manifest(self.client(), &to, &entry.descriptor.media_type, document).await;
            let stored = stored.map_err(told)?;
            warn_of(&stored);
            say_line!("Pushed ref {name} with digest: {}", stored.digest);
        }
        let document = escaped(&indented(&list, "   ")).into_bytes();
        let stored = registry::put_manifest(self.client(), &to, list.media_type, document).await.map_err(told)?;
        warn_of(&stored);
        say_line!("{}", stored.digest);
        if parsed.flag("purge") {
            self.store.remove(&target)?;
        }
        Ok(())
    }

    /// Has the registry take what an image is made of from the repository that has it.
    async fn mount(&self, to: &RegistryName, entry: &Entry, from: &Reference) -> Result<(), Exit> {
        // Layers of Windows may be nowhere but at Microsoft's.
        let may_fail = entry.descriptor.platform.as_ref().is_some_and(|platform| platform.os == "windows");
        for blob in entry.blobs() {
            let mounted = registry::mount(self.client(), to, from.path(), blob.as_str()).await.map_err(told)?;
            if !mounted.mounted && !may_fail {
                return Err(Exit::new(1, format!("error mounting {}@{blob} to {}", from.path(), to.name)));
            }
        }
        Ok(())
    }

    fn remove(&self, parsed: &Parsed) -> Result<(), Exit> {
        let mut failures = Vec::new();
        for target in &parsed.positionals {
            let removed = reference(target).and_then(|target| {
                self.store.list(&target)?;
                Ok(self.store.remove(&target)?)
            });
            failures.extend(removed.err().and_then(|exit| exit.message));
        }
        if failures.is_empty() { Ok(()) } else { Err(Exit::new(1, failures.join("\n"))) }
    }
}

/// As much as is looked at of a registry's list.
#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    digest: Digest,
    platform: Option<ManifestPlatform>,
}

fn change(platform: &mut ManifestPlatform, parsed: &Parsed) {
    let texts = [
        ("os", &mut platform.os),
        ("arch", &mut platform.architecture),
        ("variant", &mut platform.variant),
        ("os-version", &mut platform.os_version),
    ];
    for (flag, field) in texts {
        if !parsed.text(flag).is_empty() {
            *field = parsed.text(flag).to_owned();
        }
    }
    for feature in strings(parsed, "os-features") {
        if !platform.os_features.contains(&feature) {
            platform.os_features.push(feature);
        }
    }
}

/// The bytes of an image's manifest, which have the digest that the list names.
fn document(entry: &Entry) -> Result<Vec<u8>, Exit> {
    // Clients of long ago kept the manifest alone: these are the two ways in which registries had written it.
    let indent = if entry.schema_v2_manifest.is_some() { "   " } else { "  " };
    let again = || entry.manifest().map(|manifest| escaped(&indented(manifest, indent)).into_bytes());
    let bytes = entry.raw().or_else(again).unwrap_or_default();
    let (expected, digest) = (&entry.descriptor.digest, Digest::from_sha256(&Sha256::digest(&bytes).into()));
    if digest.as_str() != expected {
        let sentence = format!("internal digest mismatch for {}: expected {expected}, got {digest}", entry.name);
        return Err(Exit::new(1, sentence));
    }
    Ok(bytes)
}

/// One that is kept has Go's escapes; one that has just come has its own.
fn show_image(entry: &Entry, has_come: bool, verbose: bool) -> Result<(), Exit> {
    if verbose {
        say!("{}\n", escaped(&indented(entry, "\t")));
        return Ok(());
    }
    let manifest = entry.manifest().ok_or_else(|| Exit::new(1, format!("{} has no payload", entry.name)))?;
    let shown = indented(manifest, "\t");
    say_line!("{}", if has_come { shown } else { escaped(&shown) });
    Ok(())
}

fn show_list(name: &Reference, entries: &[Entry], verbose: bool) -> Result<(), Exit> {
    if verbose {
        say!("{}\n", escaped(&indented(&entries, "\t")));
        return Ok(());
    }
    let made =
        list(name, entries).map_err(|err| Exit::new(1, format!("failed to assemble ManifestDescriptor: {err}")))?;
    say_line!("{}", escaped(&indented(&made, "   ")));
    Ok(())
}
