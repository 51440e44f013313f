//! Images that a build begins with or copies from, by name.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use builder::provenance::Material;
use engine_api::auth::AuthConfig;
use image::ImageRecord;
use oci::{Digest, Reference};

use super::input::AskLogin;
use super::lines::Lines;
use super::named::Named;
use super::{BuildError, BuildLine, BuildOptions, used};
use crate::Engine;
use crate::ops::image_budget::{self, Holding};
use crate::ops::pull::{self, PullQuery};
use crate::platforms;
use crate::sync::lock;

/// Looks up images, each once.
#[derive(Clone)]
pub(super) struct Lookup {
    pub(super) engine: Engine,
    /// Whether registries are asked even for what is here.
    pull: bool,
    logins: BTreeMap<String, AuthConfig>,
    /// Who knows logins that were not given.
    logins_of: Option<AskLogin>,
    pub(super) lines: Arc<Lines>,
    /// What is taken by names that are no image's.
    pub(super) named: Arc<Named>,
    known: Arc<Known>,
    held: Held,
}

/// Images and steps that neither the budget nor a prune takes as long as somebody has this.
#[derive(Clone, Default)]
pub struct Held(Arc<Mutex<Vec<Holding>>>);

/// An image by name and platform.
type Name = (String, String);

/// What all who look up images for a build have in common.
#[derive(Default)]
struct Known {
    /// Images that were looked up already.
    found: Mutex<HashMap<Name, Arc<ImageRecord>>>,
    /// Held by who looks an image up: whoever wants the same finds it then.
    asking: Mutex<HashMap<Name, Arc<tokio::sync::Mutex<()>>>>,
    /// Those that were not here before.
    pulled: Mutex<HashSet<Digest>>,
    /// What the build is made of that is not in its context.
    materials: Mutex<BTreeSet<Material>>,
}

impl Lookup {
    pub(super) fn new(
        engine: &Engine,
        options: &BuildOptions,
        ask: Option<AskLogin>,
        named: Named,
        lines: Arc<Lines>,
    ) -> Lookup {
        Lookup {
            engine: engine.clone(),
            pull: options.pull,
            logins: options.logins.clone(),
            logins_of: ask,
            lines,
            named: Arc::new(named),
            known: Arc::default(),
            held: Held::default(),
        }
    }

    /// The same, that tells others of what it pulls.
    pub(super) fn telling(&self, lines: Arc<Lines>) -> Lookup {
        Lookup { lines, ..self.clone() }
    }

    /// Notes an image that was looked up.
    pub(super) fn note(&self, name: &str, platform: &str, image: Arc<ImageRecord>) {
        lock(&self.known.found).insert((name.to_owned(), platform.to_owned()), image);
    }

    /// An image that was looked up already: for a platform, else for any.
    pub(super) fn noted(&self, name: &str, platform: &str) -> Option<Arc<ImageRecord>> {
        let found = lock(&self.known.found);
        let exact = found.get(&(name.to_owned(), platform.to_owned()));
        exact.or_else(|| found.iter().find(|((own, _), _)| own == name).map(|(_, image)| image)).cloned()
    }

    /// What is taken by a name: a context, else an image, from its registry if it is not here.
    pub(super) async fn image(&self, name: &str, platform: &str) -> Result<Arc<ImageRecord>, BuildError> {
        match self.named_image(name, platform).await? {
            Some(image) => Ok(image),
            None => self.own_image(name, platform).await,
        }
    }

    /// Whether an image by that name may ask for files of the context (`ONBUILD`): each may that is not here yet.
    pub(super) fn may_ask_for_files(&self, name: &str, platform: &str) -> bool {
        if self.pull || self.is_named(name, platform) {
            return true;
        }
        let here = image::resolve_all(&self.engine.images, name).ok();
        let image = here.and_then(|images| platforms::choose(&images, name, Some(platform)).ok());
        image.is_none_or(|image| image.config.config.on_build.as_ref().is_some_and(|triggers| !triggers.is_empty()))
    }

    /// An image by name, whatever contexts there are.
    pub(super) async fn own_image(&self, name: &str, platform: &str) -> Result<Arc<ImageRecord>, BuildError> {
        let wanted = (name.to_owned(), platform.to_owned());
        let turn = lock(&self.known.asking).entry(wanted.clone()).or_default().clone();
        let _turn = turn.lock().await;
        let found = lock(&self.known.found).get(&wanted).cloned();
        if let Some(image) = found {
            return Ok(image);
        }
        let image = self.ask(name, platform).await?;
        self.note(name, platform, image.clone());
        lock(&self.known.materials).extend(used::image(name, &image));
        Ok(image)
    }

    /// Whether an image that was looked up was here before.
    pub(super) fn was_here(&self, image: &Digest) -> bool {
        !lock(&self.known.pulled).contains(image)
    }

    /// Notes something that came from elsewhere.
    pub(super) fn takes(&self, material: Material) {
        lock(&self.known.materials).insert(material);
    }

    /// All that came from elsewhere, in order.
    pub(super) fn materials(&self) -> Vec<Material> {
        lock(&self.known.materials).iter().cloned().collect()
    }

    async fn ask(&self, name: &str, platform: &str) -> Result<Arc<ImageRecord>, BuildError> {
        let here = image::resolve_all(&self.engine.images, name).unwrap_or_default();
        if !here.is_empty()
            && !self.pull
            && let Ok(image) = platforms::choose(&here, name, Some(platform))
            && self.hold(&image.id).await
        {
            return Ok(image);
        }
        let query = PullQuery {
            image: name.to_owned(),
            tag: default_tag(name),
            platform: platform.to_owned(),
            authorization: String::new(),
        };
        let login = match name.parse::<Reference>() {
            Ok(name) => self.login(name.domain()).await,
            Err(_) => None,
        };
        let mut pulling = pull::start(&self.engine, pull::plan_with(&query, login)?);
        while let Some(step) = pulling.next().await {
            self.lines.tell(BuildLine::Pull(step?)).await;
        }
        let images = image::resolve_all(&self.engine.images, name)?;
        let image = platforms::choose(&images, name, Some(platform)).map_err(|err| BuildError::Base(err.into()))?;
        if here.iter().all(|before| before.id != image.id) {
            lock(&self.known.pulled).insert(image.id.clone());
        }
        // Who removes it now does so by a user's word.
        self.hold(&image.id).await;
        Ok(image)
    }

    /// Whether it is here still; then it stays until the build has ended, unless a user removes it by its name.
    pub(super) async fn hold(&self, image: &Digest) -> bool {
        self.held.add(&self.engine, image).await
    }

    /// What keeps all that was looked up and built.
    pub(super) fn held(&self) -> Held {
        self.held.clone()
    }

    /// The user's login at a registry; Docker's hub is known by its old address.
    pub(super) async fn login(&self, domain: &str) -> Option<AuthConfig> {
        if let Some(ask) = &self.logins_of {
            return ask(domain.to_owned()).await;
        }
        let own = self.logins.get(domain);
        let hub = (domain == "docker.io").then(|| self.logins.get("https://index.docker.io/v1/")).flatten();
        own.or(hub).cloned()
    }
}

impl Held {
    /// Whether an image is here still, which is one of these then.
    pub(super) async fn add(&self, engine: &Engine, image: &Digest) -> bool {
        let holding = image_budget::hold(engine, vec![image.clone()]).await;
        let is_here = holding.is_some();
        lock(&self.0).extend(holding);
        is_here
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Held").field(&lock(&self.0).len()).finish()
    }
}

fn default_tag(name: &str) -> String {
    let bare = name.parse::<Reference>().is_ok_and(|name| name.tag().is_none() && name.digest().is_none());
    if bare { "latest".to_owned() } else { String::new() }
}
