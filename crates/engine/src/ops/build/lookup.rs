//! Images that a build begins with or copies from, by name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use engine_api::auth::AuthConfig;
use image::ImageRecord;
use oci::Reference;

use super::input::AskLogin;
use super::{BuildError, BuildLine, BuildOptions, Lines};
use crate::Engine;
use crate::ops::image_budget::{self, Holding};
use crate::ops::pull::{self, PullQuery};
use crate::platforms;

/// Looks up images, each once.
pub(super) struct Lookup {
    engine: Engine,
    /// Whether registries are asked even for what is here.
    pull: bool,
    logins: BTreeMap<String, AuthConfig>,
    /// Who knows logins that were not given.
    ask: Option<AskLogin>,
    lines: Arc<Lines>,
    /// Images that the budget leaves alone until the build has ended.
    held: Vec<Holding>,
    /// Images that were looked up already, by name and platform.
    pub(super) found: HashMap<(String, String), Arc<ImageRecord>>,
}

impl Lookup {
    pub(super) fn new(engine: &Engine, options: &BuildOptions, ask: Option<AskLogin>, lines: Arc<Lines>) -> Lookup {
        Lookup {
            engine: engine.clone(),
            pull: options.pull,
            logins: options.logins.clone(),
            ask,
            lines,
            held: Vec::new(),
            found: HashMap::new(),
        }
    }

    /// An image by name, from its registry if it is not here.
    pub(super) async fn image(&mut self, name: &str, platform: &str) -> Result<Arc<ImageRecord>, BuildError> {
        if let Some(image) = self.found.get(&(name.to_owned(), platform.to_owned())) {
            return Ok(image.clone());
        }
        let here = image::resolve_all(&self.engine.images, name);
        if let Ok(images) = here
            && !self.pull
            && let Ok(image) = platforms::choose(&images, name, Some(platform))
            && self.hold(&image).await
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
        // Who removes it now does so by a user's word.
        self.hold(&image).await;
        Ok(image)
    }

    /// Whether it is here still; then the budget leaves it here.
    async fn hold(&mut self, image: &ImageRecord) -> bool {
        let holding = image_budget::hold(&self.engine, vec![image.id.clone()]).await;
        let is_here = holding.is_some();
        self.held.extend(holding);
        is_here
    }

    /// The user's login at a registry; Docker's hub is known by its old address.
    pub(super) async fn login(&self, domain: &str) -> Option<AuthConfig> {
        if let Some(ask) = &self.ask {
            return ask(domain.to_owned()).await;
        }
        let own = self.logins.get(domain);
        let hub = (domain == "docker.io").then(|| self.logins.get("https://index.docker.io/v1/")).flatten();
        own.or(hub).cloned()
    }
}

fn default_tag(name: &str) -> String {
    let bare = name.parse::<Reference>().is_ok_and(|name| name.tag().is_none() && name.digest().is_none());
    if bare { "latest".to_owned() } else { String::new() }
}
