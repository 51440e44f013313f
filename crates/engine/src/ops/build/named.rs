//! Named contexts: what a Dockerfile takes by such a name is neither a stage nor an image of that name.
//!
//! ```text
//! FROM NAME, FROM x AS NAME      the image that the context is, else an image of one layer that its files make
//! COPY --from, RUN --mount       the same image, else the files themselves
//!
//! <data-root>/builds/<build>/named-<number>/tree   the files of one
//! ```
//! Which context a name is of is asked as BuildKit does (frontend/dockerui, namedcontext.go): `NAME::PLATFORM` comes
//! before `NAME`, and `:latest` is no part of a name.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex};

use bridge::Abandoned;
use builder::Plan;
use builder::cache::key;
use dockerfile::{Dockerfile, Files, GitAddress};
use engine_api::container::Config;
use image::ImageRecord;
use oci::image::Platform;
use oci::{Digest, Reference};
use registry_client::WebAddress;

use super::asks::Client;
use super::cache::Keyed;
use super::copy::Copying;
use super::explain::Ingredients;
use super::git::Repository;
use super::git_access::Access;
use super::graph::{self, Needed};
use super::input::SentFiles;
use super::kept_context::ContextFiles;
use super::lookup::Lookup;
use super::receive::{self, ContextError, Place};
use super::remote_context::{ALONE, RemoteContextError, shown_context};
use super::work::{ImageTree, NO_STUBS, Work};
use super::{BuildError, PartEvent, cache, history, remote, sources};
use crate::Engine;
use crate::ops::commit::StepFiles;
use crate::ops::{commit, images};
use crate::sync::lock;

/// The name of no image, which stages may begin with.
const SCRATCH: &str = "scratch";

/// What is taken by a name.
pub struct NamedContext {
    /// `NAME`, or `NAME::PLATFORM`.
    pub name: String,
    /// What it is.
    pub source: NamedSource,
}

/// What a named context is.
pub enum NamedSource {
    /// An image, by its name; `scratch` is nothing.
    Image(String),
    /// What another build came to: an image, by its id.
    Outcome(String),
    /// An image of a layout of OCI's, which comes as an archive of that image alone.
    Layout(LayoutSource),
    /// What lies at an address: a repository, else a file called [`ALONE`].
    Url(String),
    /// Files of the client's.
    Files(SentFiles),
}

/// Gives the archive of an image for a platform: operating system, architecture, variant.
pub type LayoutSource = Box<dyn FnOnce([String; 3]) -> Box<dyn Read + Send> + Send + Sync>;

/// The named contexts of a build.
#[derive(Default)]
pub(super) struct Named {
    all: Mutex<BTreeMap<String, Has>>,
}

/// How far one has come.
enum Has {
    Image(String),
    Outcome(String),
    /// Nobody has asked for it yet; nothing of one that is coming.
    Waits(Option<NamedSource>),
    Files {
        tree: Arc<ImageTree>,
        image: Option<Arc<ImageRecord>>,
    },
}

/// What a part of a build is called that a stage begins with.
pub(super) enum BaseWords {
    /// As always.
    Usual,
    /// So.
    Context(String),
    /// Its files have a part of their own.
    Own,
}

impl Named {
    pub(super) fn new(contexts: Vec<NamedContext>) -> Named {
        let has = |source| match source {
            NamedSource::Image(name) => Has::Image(name),
            NamedSource::Outcome(id) => Has::Outcome(id),
            source => Has::Waits(Some(source)),
        };
        let all = contexts.into_iter().map(|context| (context.name, has(context.source)));
        Named { all: Mutex::new(all.collect()) }
    }

    /// The whole name of the context that is meant by one.
    pub(super) fn find(&self, name: &str, platform: &str) -> Option<String> {
        let all = lock(&self.all);
        if all.is_empty() {
            return None;
        }
        let name = normalized(name)?;
        // One that is none is told by whoever looks for an image.
        let target = super::solve::platforms(platform).map(|platforms| platforms.target).unwrap_or_default();
        let [os, architecture, variant] = target;
        let exact = format!("{name}::{os}/{architecture}/{variant}");
        let usual = format!("{name}::{os}/{architecture}");
        [exact, usual, name].into_iter().find(|name| all.contains_key(name))
    }

    /// Whether a context is files that somebody has.
    pub(super) fn is_files(&self, name: &str, platform: &str) -> bool {
        let Some(found) = self.find(name, platform) else { return false };
        matches!(lock(&self.all).get(&found), Some(Has::Waits(_) | Has::Files { .. }))
    }

    fn is_outcome(&self, found: &str) -> bool {
        matches!(lock(&self.all).get(found), Some(Has::Outcome(_)))
    }

    /// What has to be looked up, or to come, before it is taken.
    fn due(&self, found: &str) -> Option<NamedSource> {
        match lock(&self.all).get_mut(found)? {
            Has::Waits(source) => source.take(),
            Has::Image(image) => Some(NamedSource::Image(image.clone())),
            Has::Outcome(_) | Has::Files { .. } => None,
        }
    }

    /// Has the stages begin with contexts that have the name of one, and do nothing else.
    pub(super) fn replace(&self, dockerfile: &mut Dockerfile, platform: &str) {
        let is_scratch =
            |found: &String| matches!(lock(&self.all).get(found), Some(Has::Image(name)) if name == SCRATCH);
        for stage in &mut dockerfile.stages {
            let wanted = if stage.platform.is_empty() { platform } else { &stage.platform };
            if self.find(&stage.name, wanted).is_some() {
                stage.base.clone_from(&stage.name);
                stage.instructions.clear();
            }
            if self.find(&stage.base, wanted).as_ref().is_some_and(is_scratch) {
                SCRATCH.clone_into(&mut stage.base);
            }
        }
    }

    /// What the part is called that begins a stage with a name.
    pub(super) fn base_words(&self, name: &str, platform: &str) -> BaseWords {
        let Some(found) = self.find(name, platform) else { return BaseWords::Usual };
        match lock(&self.all).get(&found) {
            Some(Has::Image(image)) => BaseWords::Context(format!("[context {found}] {image}")),
            _ => BaseWords::Own,
        }
    }
}

/// A name as contexts have it.
fn normalized(name: &str) -> Option<String> {
    let familiar = name.parse::<Reference>().ok()?.familiar();
    Some(familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned())
}

impl Lookup {
    /// Whether a name is that of a context.
    pub(super) fn is_named(&self, name: &str, platform: &str) -> bool {
        self.named.find(name, platform).is_some()
    }

    /// The files of a context, where it is some.
    pub(super) fn named_files(&self, name: &str, platform: &str) -> Option<Arc<ImageTree>> {
        let found = self.named.find(name, platform)?;
        match lock(&self.named.all).get(&found)? {
            Has::Files { tree, .. } => Some(tree.clone()),
            _ => None,
        }
    }

    /// The image that a context is, if a name is that of one.
    pub(super) async fn named_image(&self, name: &str, platform: &str) -> Result<Option<Arc<ImageRecord>>, BuildError> {
        let Some(found) = self.named.find(name, platform) else { return Ok(None) };
        let image = match lock(&self.named.all).get(&found) {
            Some(Has::Image(image)) => image.clone(),
            Some(Has::Outcome(id)) => id.clone(),
            Some(Has::Files { image: Some(image), .. }) => return Ok(Some(image.clone())),
            _ => return Err(BuildError::NoNamedImage(found)),
        };
        if !self.named.is_outcome(&found) {
            return self.own_image(&image, platform).await.map(Some);
        }
        let image = self.engine.images.resolve(&image)?;
        // Who removes it now does so by a user's word.
        self.hold(&image.id).await;
        Ok(Some(image))
    }

    /// Has the contexts come that a plan takes.
    pub(super) async fn begin_named(
        &self,
        plan: &Plan,
        (place, client): (&Place, &Client),
        platform: &str,
    ) -> Result<(), BuildError> {
        for (number, used) in
            graph::named(plan, platform, |name, platform| self.named.find(name, platform)).into_iter().enumerate()
        {
            let graph::UsedContext { name, platform, needed, is_base } = used;
            let source = match self.named.due(&name) {
                None => continue,
                Some(NamedSource::Image(image)) => {
                    self.begin_image(&name, &image, (&platform, is_base)).await?;
                    continue;
                }
                Some(NamedSource::Layout(layout)) => {
                    let id = self.load(layout, &platform).await?;
                    lock(&self.named.all).insert(name, Has::Outcome(id));
                    continue;
                }
                Some(source) => source,
            };
            let own = place.join(&format!("named-{number}"));
            let tree = self.come(&name, (source, client), needed, (place, &own)).await?;
            let image = match is_base {
                true => Some(self.image_of(&name, tree.clone(), &platform).await?),
                false => None,
            };
            lock(&self.named.all).insert(name, Has::Files { tree, image });
        }
        Ok(())
    }

    /// Loads the image of a layout; answers its id.
    async fn load(&self, layout: LayoutSource, platform: &str) -> Result<String, BuildError> {
        let archive = layout(super::solve::platforms(platform)?.target);
        let loaded = images::load_images(&self.engine, None, archive, |_| {}).await.map_err(BuildError::Load)?;
        loaded.first().map(ToString::to_string).ok_or(BuildError::Nothing)
    }

    /// Looks up the image that a context is.
    async fn begin_image(&self, name: &str, image: &str, (platform, base): (&str, bool)) -> Result<(), BuildError> {
        self.lines.begin(format!("[context {name}] load metadata for {image}"), None).await;
        let found = self.own_image(image, platform).await;
        found.map_err(|err| BuildError::Metadata { name: image.to_owned(), source: Box::new(err) })?;
        self.lines.part(PartEvent::Ended).await;
        // The part of one that a stage begins with is that stage's.
        if !base {
            self.lines.begin(format!("[context {name}] {image}"), None).await;
            self.lines.part(PartEvent::Ended).await;
        }
        Ok(())
    }

    /// Has the files of a context come into a place that is not there yet.
    async fn come(
        &self,
        name: &str,
        (source, client): (NamedSource, &Client),
        needed: Needed,
        (build, place): (&Place, &Path),
    ) -> Result<Arc<ImageTree>, BuildError> {
        let tree = place.join("tree");
        let (above, made) = (place.to_owned(), tree.clone());
        bridge::blocking(move || make(&above, &made)).await.map_err(ContextError::Place)?;
        let (root, kept) = match source {
            NamedSource::Files(sent) => {
                let kept = come_files(sent, needed, (build, place), &tree).await?;
                (tree, kept)
            }
            NamedSource::Url(url) => match GitAddress::parse_context(&url).map_err(RemoteContextError::from)? {
                Some(address) => {
                    let shown = address.without_credentials(&url);
                    self.lines.begin(format!("[internal] load git source {shown}"), None).await;
                    let inside = tree.join(address.directory());
                    self.come_repository(address, client, place).await?;
                    self.lines.part(PartEvent::Ended).await;
                    (inside, None)
                }
                None => {
                    self.lines.begin(format!("[context {name}] {}", shown_context(&url)), None).await;
                    self.come_file(&url, &tree).await?;
                    self.lines.part(PartEvent::Ended).await;
                    (tree, None)
                }
            },
            // These are images.
            NamedSource::Image(_) | NamedSource::Outcome(_) | NamedSource::Layout(_) => (tree, None),
        };
        let opened =
            bridge::blocking(move || ImageTree::of_files(receive::open(&root)?, kept).map_err(ContextError::Place));
        Ok(Arc::new(opened.await?))
    }

    /// Has the files of a repository come.
    async fn come_repository(
        &self,
        address: GitAddress,
        client: &Client,
        place: &Path,
    ) -> Result<(), RemoteContextError> {
        let keep_git_dir = address.keep_git_dir.unwrap_or(false);
        let access = Access::obtain(&self.engine, client, &address).await?;
        Repository { address, keep_git_dir, access, place: place.to_owned() }.look(true).await?;
        Ok(())
    }

    /// Has what lies at an address of the web come, as a file called [`ALONE`].
    async fn come_file(&self, url: &str, tree: &Path) -> Result<(), RemoteContextError> {
        let address = WebAddress::parse(url)?;
        let failed = |source| RemoteContextError::Web { address: address.to_string(), source };
        let fetched = self.engine.current.registries().fetch(&address).await.map_err(|err| failed(err.into()))?;
        remote::receive(fetched, &address, tree, &tree.join(ALONE), "").await.map_err(failed)?;
        Ok(())
    }

    /// An image of the files of a context.
    async fn image_of(&self, name: &str, tree: Arc<ImageTree>, platform: &str) -> Result<Arc<ImageRecord>, BuildError> {
        let (engine, platform) = (self.engine.clone(), super::solve::platform(platform)?);
        let about = format!("[context {name}] load from client");
        let made = bridge::abandonable(move |abandoned| layer_of(&engine, &tree, platform, about, abandoned)).await?;
        let image = self.engine.images.resolve(made.as_str())?;
        self.hold(&image.id).await;
        Ok(image)
    }
}

/// Has files of the client's come into `tree`; what is kept of them if the next build may begin with that.
async fn come_files(
    SentFiles { name, source }: SentFiles,
    needed: Needed,
    (build, place): (&Place, &Path),
    tree: &Path,
) -> Result<Option<Arc<ContextFiles>>, BuildError> {
    let (build, root, beside) = (build.clone(), tree.to_owned(), place.with_extension("kept"));
    let take = move |name| ContextFiles::take(&build, &name, &root, &beside);
    let kept = match name {
        Some(name) => Some(bridge::blocking(move || take(name)).await),
        None => None,
    };
    let (archive, root) = (source(needed, kept.clone()), tree.to_owned());
    // Its bytes come from a task that may itself wait for a thread.
    bridge::waiting(move || receive::unpack(&receive::open(&root)?, archive)).await?;
    kept.iter().for_each(|files| files.are_whole());
    Ok(kept)
}

/// Makes a place for the files of a context. Commands may see them, as whichever user.
fn make(place: &Path, tree: &Path) -> io::Result<()> {
    for directory in [place, tree] {
        DirBuilder::new().mode(0o755).create(directory)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Makes an image of one layer, unless it is known. Blocks.
fn layer_of(
    engine: &Engine,
    tree: &ImageTree,
    platform: Platform,
    about: String,
    abandoned: &Abandoned,
) -> Result<Digest, BuildError> {
    let files = Files {
        sources: vec![".".to_owned()],
        destination: "/".to_owned(),
        // What is no file of the main context keeps its owners.
        from: SCRATCH.to_owned(),
        ..Files::default()
    };
    let failed = |source| BuildError::Source { instruction: "FROM", source };
    let found = sources::select(&tree.tree, &files, Vec::new(), false, abandoned).map_err(failed)?;
    let (config, words) = (Config::default(), vec![about]);
    let depends =
        [vec![format!("{platform:?}"), "context".to_owned()], found.iter().map(|one| one.exact.clone()).collect()];
    let key = key(None, &config, &[], &depends.concat());
    if let Some(known) = cache::look_up(engine, &key, None) {
        return Ok(known);
    }
    let mut work = Work::above(engine, None)?;
    Copying::new(&tree.tree, &mut work, &files, false, false, abandoned)?.run(&found)?;
    let history = history("", &words);
    let files = StepFiles { key: &work.key, stubs: NO_STUBS, are_given: true };
    let image = commit::build_step(engine, Some(files), None, (&config, platform), history)?;
    // It is no step of a Dockerfile, with which others could be compared.
    let keyed = Keyed { key, words, is_told_whole: false, made_of: Ingredients::default() };
    cache::remember(engine, &image, keyed);
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(all: &[(&str, &str)]) -> Named {
        let context = |(name, image): &(&str, &str)| NamedContext {
            name: (*name).to_owned(),
            source: NamedSource::Image((*image).to_owned()),
        };
        Named::new(all.iter().map(context).collect())
    }

    #[test]
    fn contexts_are_found_by_name_and_platform() {
        let named = named(&[("base", "a"), ("base::linux/arm64", "b"), ("h.example/x:1", "c")]);
        for (name, platform, wanted) in [
            ("base", "linux/amd64", Some("base")),
            ("base:latest", "linux/amd64", Some("base")),
            ("docker.io/library/base", "linux/amd64", Some("base")),
            ("base", "linux/arm64", Some("base::linux/arm64")),
            ("base", "linux/arm64/v8", Some("base::linux/arm64")),
            ("base:1", "", None),
            ("h.example/x:1", "", Some("h.example/x:1")),
            ("h.example/x", "", None),
            ("No Name", "", None),
            ("", "", None),
        ] {
            assert_eq!(named.find(name, platform).as_deref(), wanted, "{name} {platform}");
        }
    }

    #[test]
    fn stages_that_have_the_name_of_a_context_are_that_context() {
        let text = "FROM a AS one\nRUN x\nFROM empty\nCOPY --from=one x y\nFROM one\n";
        let mut dockerfile = dockerfile::parse(text).unwrap();
        named(&[("one", "b"), ("empty", "scratch")]).replace(&mut dockerfile, "");
        let told = dockerfile.stages.iter().map(|stage| format!("{} {}", stage.base, stage.instructions.len()));
        assert_eq!(told.collect::<Vec<_>>(), ["one 0", "scratch 1", "one 0"]);
    }
}
