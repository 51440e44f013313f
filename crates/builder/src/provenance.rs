//! Where an image comes from, as BuildKit says it (buildkit solver/llbsolver/provenance, predicate.go and types.go): SLSA's
//! provenance v0.2 and v1, with BuildKit's fields. Pure.
//!
//! Of what BuildKit says with `mode=max` the graph of operations (`buildConfig`) and the layers of its steps are missing:
//! there is no such graph.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::attest::{Provenance, package_url};

/// What a build used that is not in its context.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Material {
    /// An image.
    Image {
        /// The familiar name without tag and digest.
        name: String,
        /// Its tag, which may be empty.
        tag: String,
        /// The digest by which it was named, which may be empty.
        named_digest: String,
        /// `linux/amd64`
        platform: String,
        /// What its registry knows it by, or else its id: in hexadecimal.
        sum: String,
        /// Whether it was the client's, in a layout.
        is_local: bool,
    },
    /// A commit of a repository.
    Git {
        /// Without a password.
        url: String,
        /// In hexadecimal.
        commit: String,
    },
    /// What lay at an address.
    Web {
        /// Without a password.
        url: String,
        /// Of its bytes, in hexadecimal.
        sum: String,
    },
}

/// A secret or an agent that commands ask for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Private {
    /// Its name.
    pub id: String,
    /// Whether commands do without.
    pub is_optional: bool,
}

/// What the build itself knows of what it used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// In order, each once.
    pub materials: Vec<Material>,
    /// Secrets of commands.
    pub secrets: Vec<Private>,
    /// Agents of commands.
    pub agents: Vec<Private>,
    /// Whether a command had a network.
    pub network: bool,
    /// Whether something of the client's files was used.
    pub context: bool,
}

/// All that is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Who read the definition: `dockerfile.v0`.
    pub frontend: String,
    /// What that was told.
    pub attributes: BTreeMap<String, String>,
    /// What the build used.
    pub used: Used,
    /// What it was built on: `linux/amd64`.
    pub platform: String,
    /// What the build is called.
    pub id: String,
    /// When it began, in RFC 3339.
    pub started: String,
    /// When it ended, likewise.
    pub finished: String,
    /// The Dockerfile's name and text.
    pub definition: (String, Vec<u8>),
}

/// Attributes that say something of this host, or of what is wanted beside the image.
const LEFT_OUT: [&str; 4] = ["cgroup-parent", "image-resolve-mode", "platform", "cache-imports"];

/// What is said, in JSON with indents, as BuildKit writes it. `base64` writes bytes as JSON of Go's has them; `redacted`
/// takes passwords out of an address.
pub fn predicate(
    facts: &Facts,
    wanted: &Provenance,
    base64: impl Fn(&[u8]) -> String,
    redacted: impl Fn(&str) -> String,
) -> String {
    let mut said = Said::of(facts, redacted);
    if wanted.is_whole {
        let (name, text) = &facts.definition;
        let source = json!({"infos": [{"filename": name, "language": "Dockerfile", "data": base64(text)}]});
        said.notes.insert("source".to_owned(), source);
    } else {
        said.reduce();
    }
    let value = if wanted.is_v1 { said.v1(facts, wanted) } else { said.v02(facts, wanted) };
    serde_json::to_string_pretty(&value).expect("texts are always JSON")
}

struct Said {
    config_source: Map<String, Value>,
    parameters: Map<String, Value>,
    has_all_parameters: bool,
    materials: Vec<Value>,
    has_all_materials: bool,
    is_hermetic: bool,
    notes: Map<String, Value>,
}

impl Said {
    fn of(facts: &Facts, redacted: impl Fn(&str) -> String) -> Said {
        let given = &facts.attributes;
        let key = given.get("contextkey").filter(|key| !key.is_empty()).map_or("context", String::as_str);
        let left_out = |name: &str| LEFT_OUT.contains(&name) || name.starts_with("attest:");
        let told = given.iter().filter(|(name, _)| !left_out(name));
        let mut args: BTreeMap<&str, String> = told.map(|(name, value)| (name.as_str(), value.clone())).collect();
        for (name, value) in &mut args {
            if *name == key || name.starts_with("context:") {
                *value = redacted(value);
            }
        }
        let mut config_source = Map::new();
        if let Some(url) = args.remove(key).filter(|url| !url.is_empty()) {
            if let Some(sum) = facts.used.materials.iter().find_map(|material| material.sum_of(&url)) {
                config_source.insert("digest".to_owned(), sum);
            }
            config_source.insert("uri".to_owned(), url.into());
        }
        if let Some(name) = args.remove("filename").filter(|name| !name.is_empty()) {
            config_source.insert("entryPoint".to_owned(), name.into());
        }
        let (mut parameters, mut notes) = (Map::new(), Map::new());
        let vcs: Map<String, Value> = args
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix("vcs:")?, value)))
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.to_owned(), redacted(value).into()))
            .collect();
        args.retain(|name, _| !name.starts_with("vcs:"));
        if !vcs.is_empty() {
            notes.insert("vcs".to_owned(), vcs.into());
        }
        parameters.insert("frontend".to_owned(), facts.frontend.as_str().into());
        let args: Map<String, Value> = args.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        if !args.is_empty() {
            parameters.insert("args".to_owned(), args.into());
        }
        for (name, all) in [("secrets", &facts.used.secrets), ("ssh", &facts.used.agents)] {
            if !all.is_empty() {
                parameters.insert(name.to_owned(), all.iter().map(Private::told).collect());
            }
        }
        let is_local = !config_source.contains_key("uri");
        let mut locals = Vec::new();
        if is_local {
            locals.extend(facts.used.context.then(|| json!({"name": "context"})));
            locals.push(json!({"name": "dockerfile"}));
            parameters.insert("locals".to_owned(), locals.into());
        }
        Said {
            config_source,
            parameters,
            has_all_parameters: !facts.frontend.is_empty(),
            materials: facts.used.materials.iter().map(Material::told).collect(),
            has_all_materials: !is_local,
            is_hermetic: !is_local && !facts.used.network,
            notes,
        }
    }

    /// Leaves out what may be somebody's own.
    fn reduce(&mut self) {
        if let Some(Value::Object(args)) = self.parameters.get_mut("args") {
            let all = args.len();
            args.retain(|name, _| !name.starts_with("build-arg:") && !name.starts_with("label:"));
            self.has_all_parameters &= args.len() == all;
            if args.is_empty() {
                self.parameters.remove("args");
            }
        }
        for name in ["secrets", "ssh"] {
            self.parameters.remove(name);
        }
    }

    fn v02(self, facts: &Facts, wanted: &Provenance) -> Value {
        const NOTES: &str = "https://mobyproject.org/buildkit@v1#metadata";
        const HERMETIC: &str = "https://mobyproject.org/buildkit@v1#hermetic";
        let mut metadata = json!({
            "buildInvocationID": facts.id,
            "buildStartedOn": facts.started,
            "buildFinishedOn": facts.finished,
            "completeness": {
                "parameters": self.has_all_parameters,
                "environment": true,
                "materials": self.has_all_materials,
            },
            "reproducible": wanted.is_reproducible,
        });
        metadata[NOTES] = self.notes.into();
        if self.is_hermetic {
            metadata[HERMETIC] = true.into();
        }
        let mut said = json!({
            "builder": {"id": wanted.builder_id},
            "buildType": "https://mobyproject.org/buildkit@v1",
            "invocation": {
                "configSource": self.config_source,
                "parameters": self.parameters,
                "environment": {"platform": facts.platform},
            },
            "metadata": metadata,
        });
        if !self.materials.is_empty() {
            said["materials"] = self.materials.into();
        }
        said
    }

    fn v1(mut self, facts: &Facts, wanted: &Provenance) -> Value {
        const KIND: &str = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
        if let Some(path) = self.config_source.remove("entryPoint") {
            self.config_source.insert("path".to_owned(), path);
        }
        let mut metadata = json!({
            "invocationId": facts.id,
            "startedOn": facts.started,
            "finishedOn": facts.finished,
            "buildkit_metadata": self.notes,
            "buildkit_completeness": {
                "request": self.has_all_parameters,
                "resolvedDependencies": self.has_all_materials,
            },
        });
        for (name, is_so) in
            [("buildkit_hermetic", self.is_hermetic), ("buildkit_reproducible", wanted.is_reproducible)]
        {
            if is_so {
                metadata[name] = true.into();
            }
        }
        let mut definition = json!({
            "buildType": KIND,
            "externalParameters": {"configSource": self.config_source, "request": self.parameters},
            "internalParameters": {"builderPlatform": facts.platform},
        });
        if !self.materials.is_empty() {
            definition["resolvedDependencies"] = self.materials.into();
        }
        json!({
            "buildDefinition": definition,
            "runDetails": {"builder": {"id": wanted.builder_id}, "metadata": metadata},
        })
    }
}

impl Private {
    fn told(&self) -> Value {
        match self.is_optional {
            true => json!({"id": self.id, "optional": true}),
            false => json!({"id": self.id}),
        }
    }
}

impl Material {
    fn told(&self) -> Value {
        match self {
            Material::Image { name, tag, named_digest, platform, sum, is_local } => {
                let kind = if *is_local { "oci" } else { "docker" };
                json!({"uri": package_url(kind, name, tag, named_digest, platform), "digest": {"sha256": sum}})
            }
            Material::Git { url, commit } => json!({"uri": url, "digest": of_commit(commit)}),
            Material::Web { url, sum } => json!({"uri": url, "digest": {"sha256": sum}}),
        }
    }

    /// The digest of what lies at an address, if this is that.
    fn sum_of(&self, wanted: &str) -> Option<Value> {
        match self {
            Material::Git { url, commit } if url == wanted => Some(of_commit(commit)),
            Material::Web { url, sum } if url == wanted => Some(json!({"sha256": sum})),
            _ => None,
        }
    }
}

fn of_commit(commit: &str) -> Value {
    match commit.len() {
        64 => json!({"sha256": commit}),
        _ => json!({"sha1": commit}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(attributes: &[(&str, &str)]) -> Facts {
        let image = Material::Image {
            name: "busybox".to_owned(),
            tag: "latest".to_owned(),
            named_digest: String::new(),
            platform: "linux/amd64".to_owned(),
            sum: "00".to_owned(),
            is_local: false,
        };
        let git = Material::Git { url: "https://h/x.git#main".to_owned(), commit: "c0ffee".to_owned() };
        Facts {
            frontend: "dockerfile.v0".to_owned(),
            attributes: attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            used: Used {
                materials: vec![image, git],
                secrets: vec![Private { id: "s".to_owned(), is_optional: true }],
                agents: vec![],
                network: false,
                context: true,
            },
            platform: "linux/amd64".to_owned(),
            id: "i".to_owned(),
            started: "then".to_owned(),
            finished: "now".to_owned(),
            definition: ("Dockerfile".to_owned(), b"FROM x".to_vec()),
        }
    }

    fn said(facts: &Facts, mode: &str) -> Value {
        let wanted = BTreeMap::from([("attest:provenance".to_owned(), mode.to_owned())]);
        let wanted = crate::attest::Wanted::parse(&wanted).unwrap().provenance.unwrap();
        let text = predicate(facts, &wanted, |bytes| String::from_utf8_lossy(bytes).into_owned(), str::to_owned);
        serde_json::from_str(&text).unwrap()
    }

    const GIVEN: [(&str, &str); 7] = [
        ("filename", "Dockerfile"),
        ("build-arg:A", "secret"),
        ("platform", "linux/amd64"),
        ("attest:provenance", "x"),
        ("target", "t"),
        ("vcs:revision", "abc"),
        ("vcs:source", ""),
    ];

    #[test]
    fn little_is_said_unless_all_is_wanted() {
        let all = said(&facts(&GIVEN), "mode=max,builder-id=b");
        assert_eq!(all["builder"]["id"], "b");
        assert_eq!(all["invocation"]["configSource"], json!({"entryPoint": "Dockerfile"}));
        let parameters = json!({
            "frontend": "dockerfile.v0",
            "args": {"build-arg:A": "secret", "target": "t"},
            "secrets": [{"id": "s", "optional": true}],
            "locals": [{"name": "context"}, {"name": "dockerfile"}],
        });
        assert_eq!(all["invocation"]["parameters"], parameters);
        let notes = json!({
            "vcs": {"revision": "abc"},
            "source": {"infos": [{"filename": "Dockerfile", "language": "Dockerfile", "data": "FROM x"}]},
        });
        assert_eq!(all["metadata"]["https://mobyproject.org/buildkit@v1#metadata"], notes);
        assert_eq!(all["metadata"]["completeness"]["parameters"], true);
        let materials = json!([
            {"uri": "pkg:docker/busybox@latest?platform=linux%2Famd64", "digest": {"sha256": "00"}},
            {"uri": "https://h/x.git#main", "digest": {"sha1": "c0ffee"}},
        ]);
        assert_eq!(all["materials"], materials);
        let few = said(&facts(&GIVEN), "mode=min");
        let parameters = &few["invocation"]["parameters"];
        assert_eq!(parameters["args"], json!({"target": "t"}));
        assert_eq!(
            (&parameters["secrets"], &few["metadata"]["completeness"]["parameters"]),
            (&Value::Null, &false.into())
        );
        assert!(!few.to_string().contains("secret"));
    }

    #[test]
    fn the_newer_form_says_the_same() {
        let url = [("context", "https://h/x.git#main"), ("filename", "D")];
        let said = said(&facts(&url), "version=v1,mode=min,reproducible=true");
        let definition = &said["buildDefinition"];
        let source = json!({"uri": "https://h/x.git#main", "digest": {"sha1": "c0ffee"}, "path": "D"});
        assert_eq!(definition["externalParameters"]["configSource"], source);
        assert_eq!(definition["resolvedDependencies"][1]["digest"]["sha1"], "c0ffee");
        let metadata = &said["runDetails"]["metadata"];
        assert_eq!((&metadata["buildkit_hermetic"], &metadata["buildkit_reproducible"]), (&true.into(), &true.into()));
        assert_eq!(metadata["buildkit_completeness"], json!({"request": true, "resolvedDependencies": true}));
    }
}
