//! What a Dockerfile is built from: the Dockerfile itself, its context, and logins.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use buildkit_api::messages::{CredentialsRequest, CredentialsResponse, Definition};
use buildkit_api::session::Session;
use buildkit_api::status::Status;
use engine::ops::build::{AskIgnore, AskLogin, Local, LocalFiles, NamedContext, NamedSource, RemoteFiles};
use engine_api::auth::AuthConfig;

use super::asks::in_words;
use super::attributes::{Attributes, NamedPlace};
use super::build::{Build, of_platform};
use super::failure::{not_yet, said};
use super::layout::Layout;
use super::local::{self, Context, Ignore};
use super::remote;
use super::service::BuildService;

/// The call for a login.
const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";

/// By which name Docker's hub asks for logins.
const HUB: &str = "registry-1.docker.io";

/// A login that is asked for.
type Asked = Pin<Box<dyn Future<Output = Option<AuthConfig>> + Send>>;

/// A Dockerfile, and the context where that had to come first.
pub(super) struct Loaded {
    pub(super) definition: local::Definition,
    pub(super) fetched: Option<RemoteFiles>,
}

impl BuildService {
    /// Has the Dockerfile come, from the client or with the context.
    pub(super) async fn load(&self, build: &Build, wanted: &Attributes) -> Result<Loaded, Status> {
        let (directory, other) = wanted.dockerfile_in.clone();
        let session = self.session(build, other).await?;
        let Some(address) = &wanted.remote else {
            let definition = local::definition(build, &session, &directory, &wanted.dockerfile).await?;
            return Ok(Loaded { definition, fetched: None });
        };
        let (files, part) = remote::fetch(&self.engine, build, &session, address).await?;
        let definition = match wanted.dockerfile_is_local {
            true => local::definition(build, &session, &directory, &wanted.dockerfile).await?,
            false => remote::definition(&files, &wanted.dockerfile, part).await?,
        };
        Ok(Loaded { definition, fetched: Some(files) })
    }

    /// All that is built from.
    pub(super) async fn local(
        &self,
        build: &Arc<Build>,
        (directory, other): (String, Option<String>),
        loaded: Loaded,
    ) -> Result<Local, Status> {
        let Loaded { definition, fetched } = loaded;
        let session = self.session(build, other).await?;
        let login: AskLogin = {
            let session = session.clone();
            Arc::new(move |domain| -> Asked { Box::pin(login(session.clone(), domain)) })
        };
        let (ignore, context): (AskIgnore, _) = match fetched {
            // As with BuildKit nothing is left out of what was fetched.
            Some(files) => (Box::new(|| Box::pin(async { Ok(Vec::new()) })), LocalFiles::Fetched(files)),
            None => {
                let (build, ignore) = (build.clone(), definition.ignore);
                let context = Context { build, session, directory, ignore, name: None };
                let asked = context.clone();
                let ask = async move { asked.ignored().await.map_err(in_words) };
                (Box::new(move || Box::pin(ask)), LocalFiles::Sent(context.sent()))
            }
        };
        Ok(Local { name: definition.name, text: definition.text, ignore, context, login })
    }

    /// What is taken by names; `inputs` is what other builds came to.
    pub(super) async fn named(
        &self,
        build: &Arc<Build>,
        places: &BTreeMap<String, NamedPlace>,
        inputs: &BTreeMap<String, Definition>,
        platform: &str,
    ) -> Result<Vec<NamedContext>, Status> {
        let mut named = Vec::new();
        for (name, place) in places {
            let (name, place) = (name.clone(), place.clone());
            let source = match place {
                NamedPlace::Image(image) => NamedSource::Image(image),
                NamedPlace::Url(url) => NamedSource::Url(url),
                NamedPlace::Input(input) => {
                    let outcome = inputs.get(&input).map(Definition::outcome);
                    let outcome = outcome.ok_or_else(|| said(format!("invalid input {input} for {name}")))?;
                    let outcome = outcome.ok_or_else(|| not_yet("an input that no other build came to"))?;
                    // Whoever may build may have every image that is here.
                    let image = of_platform(&outcome, platform);
                    NamedSource::Outcome(image.ok_or_else(|| said(format!("the input {input} has no {platform}")))?)
                }
                NamedPlace::Layout(store, digest) => {
                    let (build, session) = (build.clone(), self.session(build, None).await?);
                    let layout = Layout { build, session, name: name.clone(), store, digest };
                    NamedSource::Layout(Box::new(move |platform| layout.open(platform)))
                }
                NamedPlace::Directory(directory, other) => {
                    let (build, session) = (build.clone(), self.session(build, other).await?);
                    let context =
                        Context { build, session, directory, ignore: Ignore::default(), name: Some(name.clone()) };
                    NamedSource::Files(context.sent())
                }
            };
            named.push(NamedContext { name, source });
        }
        Ok(named)
    }
}

/// The client's login at a registry.
pub(super) async fn login(session: Arc<Session>, domain: String) -> Option<AuthConfig> {
    if !session.answers(CREDENTIALS) {
        return None;
    }
    let host = if domain == "docker.io" { HUB.to_owned() } else { domain };
    let asked = session.channel.call::<CredentialsResponse>(CREDENTIALS, &CredentialsRequest { host }).await;
    let CredentialsResponse { username, secret } = asked.ok().filter(|login| !login.secret.is_empty())?;
    Some(match username.is_empty() {
        true => AuthConfig { identity_token: secret, ..AuthConfig::default() },
        false => AuthConfig { username, password: secret, ..AuthConfig::default() },
    })
}
