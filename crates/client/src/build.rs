//! Building images.

use std::collections::BTreeMap;

use engine_api::auth::AuthConfig;
use engine_api::host_config::Ulimit;
use http::Method;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::call::{Answer, Client, Payload, Upload};
use crate::error::ClientError;
use crate::query::Query;

/// The header of [`BuildOptions::logins`].
const LOGINS: &str = "X-Registry-Config";

/// What is built, and how.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// Where the daemon fetches the context; empty for the archive that is sent.
    pub remote: String,
    /// The names of the image.
    pub names: Vec<String>,
    /// Where the Dockerfile is in the context.
    pub dockerfile: String,
    /// Build arguments; without a value only their name was given.
    pub arguments: BTreeMap<String, Option<String>>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// The wanted stage; empty for the last one.
    pub target: String,
    /// The wanted platform; empty for the daemon's own.
    pub platform: String,
    /// Whether only the image's id is told.
    pub quiet: bool,
    /// Whether what is known is done again.
    pub no_cache: bool,
    /// Whether the container of a command that fails is left to us, who are told of it. Only our daemon knows that.
    pub keep_failed: bool,
    /// Whether of each step is told why it was done again. Only our daemon knows that.
    pub explain: bool,
    /// What the Dockerfile is called where its lines are shown. Only our daemon shows them.
    pub excerpt: String,
    /// Stages of which that is done again, by name. Only our daemon knows that.
    pub no_cache_stages: Vec<String>,
    /// Whether base images are looked for in registries even if they are there.
    pub pull: bool,
    /// Whether containers go that ended well.
    pub remove: bool,
    /// Whether those go that did not, too.
    pub force_remove: bool,
    /// Images to be cached from.
    pub cache_from: Vec<String>,
    /// Where it is left what steps came to.
    pub cache_to: Vec<String>,
    /// `NAME:ADDRESS`.
    pub extra_hosts: Vec<String>,
    /// Whether commands that ask for the host's network get it. Only our daemon knows that.
    pub allows_host_network: bool,
    /// Security options.
    pub security: Vec<String>,
    /// The network of commands.
    pub network: String,
    /// Windows only.
    pub isolation: String,
    /// The parent cgroup.
    pub cgroup_parent: String,
    /// `0-2,4`.
    pub cpuset_cpus: String,
    /// `0-2,4`.
    pub cpuset_mems: String,
    /// Numbers by their names in the request: `memory`, `memswap`, `cpushares`, `cpuperiod`, `cpuquota`, `shmsize`.
    pub numbers: Vec<(&'static str, i64)>,
    /// Resource limits.
    pub ulimits: Vec<Ulimit>,
    /// What is taken by names: `docker-image://IMAGE`, addresses, and `local:NAME`, which the session has.
    pub contexts: BTreeMap<String, String>,
    /// The session on which the daemon asks for secrets and agents; empty for none.
    pub session: String,
    /// Ours: the time that nothing in the image may be later than, in seconds since 1970.
    pub reproducible: Option<i64>,
    /// What is shown to registries.
    pub logins: BTreeMap<String, AuthConfig>,
    /// What is said of the image, by kind (`provenance`, `sbom`), and how. Only our daemon says it, of outputs.
    pub attest: BTreeMap<String, String>,
    /// Where the image goes with what is said and written of it, which the session takes. Only our daemon knows that.
    pub outputs: Vec<BuildOutput>,
}

/// An output of the daemon's (moby api/types, `ImageBuildOutput`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct BuildOutput {
    /// `image`, `oci`, `docker`, `tar`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// How: `name`, `push`, `annotation.NAME`.
    pub attrs: BTreeMap<String, String>,
}

impl BuildOptions {
    /// The request's path.
    pub fn path(&self) -> String {
        self.path_of("/build")
    }

    fn path_of(&self, call: &str) -> String {
        let json = |value: Result<String, serde_json::Error>| value.expect("texts and numbers are always JSON");
        // Ours alone: dockerd's own builder knows no such thing.
        let cache_to = match self.cache_to.is_empty() {
            true => String::new(),
            false => json(serde_json::to_string(&self.cache_to)),
        };
        let mut query = Query::new(call)
            .with("buildargs", &json(serde_json::to_string(&self.arguments)))
            .with("cachefrom", &json(serde_json::to_string(&self.cache_from)))
            .with_text("cacheto", &cache_to)
            .with("labels", &json(serde_json::to_string(&self.labels)))
            .with("ulimits", &json(serde_json::to_string(&self.ulimits)))
            .with_text("dockerfile", &self.dockerfile)
            .with_text("remote", &self.remote)
            .with_text("target", &self.target)
            .with_text("platform", &self.platform.to_lowercase())
            .with_text("networkmode", &self.network)
            .with_text("isolation", &self.isolation)
            .with_text("cgroupparent", &self.cgroup_parent)
            .with_text("cpusetcpus", &self.cpuset_cpus)
            .with_text("cpusetmems", &self.cpuset_mems)
            .with_text("session", &self.session)
            .with_text("excerpt", &self.excerpt)
            .with_flag("q", self.quiet)
            .with_flag("nocache", self.no_cache)
            .with_flag("explain", self.explain)
            .with_flag("keepfailed", self.keep_failed)
            .with_flag("pull", self.pull)
            .with("rm", if self.remove { "1" } else { "0" })
            .with_flag("forcerm", self.force_remove)
            .with("version", "1");
        if !self.contexts.is_empty() {
            query = query.with("buildcontexts", &json(serde_json::to_string(&self.contexts)));
        }
        if self.allows_host_network {
            query = query.with("allow", "network.host");
        }
        if !self.no_cache_stages.is_empty() {
            query = query.with("nocachefilter", &json(serde_json::to_string(&self.no_cache_stages)));
        }
        if !self.outputs.is_empty() {
            query = query
                .with("attest", &json(serde_json::to_string(&self.attest)))
                .with("outputs", &json(serde_json::to_string(&self.outputs)));
        }
        if let Some(secs) = self.reproducible {
            query = query.with("source-date-epoch", &secs.to_string()).with("rewrite-timestamp", "1");
        }
        for (name, number) in &self.numbers {
            query = query.with(name, &number.to_string());
        }
        for (name, values) in [("t", &self.names), ("extrahosts", &self.extra_hosts), ("securityopt", &self.security)] {
            query = values.iter().fold(query, |query, value| query.with(name, value));
        }
        query.build()
    }
}

/// Builds an image. The answer is a stream of progress.
pub async fn build(client: &Client, context: Upload, options: &BuildOptions) -> Result<Answer, ClientError> {
    let logins = AuthConfig::all_to_header(&options.logins);
    client.stream_with(Method::POST, &options.path(), &[(LOGINS, &logins)], Payload::Archive(context)).await
}

/// Builds an image of the directory that our session tells, and of a Dockerfile of that name and text. Only our daemon can:
/// [`ClientError::NotOurs`] of others.
pub async fn build_directory(client: &Client, text: Vec<u8>, options: &BuildOptions) -> Result<Answer, ClientError> {
    let logins = AuthConfig::all_to_header(&options.logins);
    let path = options.path_of("/longshore/build");
    let (sender, pieces) = mpsc::channel(1);
    // There is place for one.
    let _ = sender.try_send(Ok(text.into()));
    drop(sender);
    let payload = Payload::Archive(Upload { pieces });
    let answer = client.stream_with(Method::POST, &path, &[(LOGINS, &logins)], payload).await;
    answer.map_err(ClientError::of_own_call)
}

/// A Dockerfile that the daemon has found.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Looked {
    /// All of it.
    pub text: String,
}

/// The Dockerfile of a context that the daemon fetches, or of the archive that is sent. Only our daemon can:
/// [`ClientError::NotOurs`] of others.
pub async fn dockerfile(client: &Client, context: Upload, options: &BuildOptions) -> Result<Looked, ClientError> {
    let path = Query::new("/longshore/dockerfile")
        .with_text("remote", &options.remote)
        .with_text("dockerfile", &options.dockerfile)
        .with_text("session", &options.session)
        .build();
    let answer = client.stream(Method::POST, &path, Payload::Archive(context)).await;
    answer.map_err(ClientError::of_own_call)?.json().await
}
