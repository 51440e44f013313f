//! What a client wants of a Dockerfile: attributes of the frontend (buildkit frontend/dockerui, config.go and attr.go).

use std::collections::BTreeMap;

use buildkit_api::status::Status;
use dockerfile_checks::{CheckOptions, Question};
use engine::ops::build::{BuildOptions, shown_repository};
use engine_api::host_config::{HostConfig, Ulimit};

use super::failure::{not_yet, said};
use super::layout::BlobDigest;
use super::outputs::{not_a_number, seconds, truth};

/// Attributes, understood.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes {
    /// The Dockerfile's name in its directory.
    pub(super) dockerfile: String,
    /// The client's name of the directory that has the Dockerfile, and its session if that is another one.
    pub(super) dockerfile_in: (String, Option<String>),
    /// Whether it is there even where the context has one of its own.
    pub(super) dockerfile_is_local: bool,
    /// The same of the context.
    pub(super) context_in: (String, Option<String>),
    /// Where the context is instead, if it is none of the client's directories.
    pub(super) remote: Option<Remote>,
    /// What is taken by names: names, as they are given with platforms, and what they stand for.
    pub(super) named: BTreeMap<String, NamedPlace>,
    pub(super) options: BuildOptions,
    /// What is built for, in order; nothing for what the options say.
    pub(super) platforms: Vec<String>,
    /// Whether there is an index of them, and be it of one.
    pub(super) several: bool,
    /// What is asked of the Dockerfile instead of building it.
    pub(super) question: Option<Question>,
    /// `SOURCE_DATE_EPOCH`, in seconds since 1970.
    pub(super) time: Option<i64>,
}

/// A context that is no directory of the client's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) url: String,
    /// Whether `.git` of a repository stays, whatever the address says.
    pub(super) keep_git_dir: bool,
}

/// Where a named context is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NamedPlace {
    /// An image.
    Image(String),
    /// An address.
    Url(String),
    /// An image of a layout of the client's: the layout's name, and the digest.
    Layout(String, BlobDigest),
    /// An input of the request.
    Input(String),
    /// A directory of the client's, and its session if that is another one.
    Directory(String, Option<String>),
}

/// The build argument that says whether `.git` of a context stays.
const KEEP_GIT_DIR: &str = "build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR";

/// The build argument that says which checks count.
const CHECK: &str = "build-arg:BUILDKIT_DOCKERFILE_CHECK";

/// The build argument that says what time it is, in seconds since 1970.
const TIME: &str = "build-arg:SOURCE_DATE_EPOCH";

/// Attributes by which the client asks for something that is not there, and what that is.
const REFUSED: &[(&str, &str)] = &[("device", "a device for a build")];

/// Reads attributes. `host_network` is whether the client allows that network.
pub(super) fn read(given: &BTreeMap<String, String>, host_network: bool) -> Result<Attributes, Status> {
    let text = |name: &str| given.get(name).map(String::as_str).unwrap_or_default();
    for (name, what) in REFUSED {
        if !text(name).is_empty() {
            return Err(not_yet(what));
        }
    }
    let (platforms, several) = platforms(&text)?;
    let named = |prefix: &str| -> BTreeMap<String, String> {
        let own = given.iter().filter_map(|(name, value)| Some((name.strip_prefix(prefix)?.to_owned(), value.clone())));
        own.collect()
    };
    let directory = |key: &str, usual: &str| {
        let name = given.get(key).map_or(usual, String::as_str).to_owned();
        let session = given.get(&format!("local-sessionid:{name}")).cloned();
        (name, session)
    };
    let question = match text("requestid") {
        "" => None,
        // BuildKit says it twice.
        name => Some(Question::parse(name).map_err(|err| said(format!("{err}: {err}")))?),
    };
    let check = given.get(CHECK).cloned();
    if let Err(err) = CheckOptions::parse(check.as_deref().unwrap_or_default()) {
        return Err(said(format!("failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK: {err}")));
    }
    let time = match text(TIME) {
        "" => None,
        value => Some(
            seconds(value)
                .ok_or_else(|| said(format!("invalid SOURCE_DATE_EPOCH: {value}: {}", not_a_number(value))))?,
        ),
    };
    let arguments = named("build-arg:").into_iter().filter(|(name, _)| !name.starts_with("BUILDKIT_"));
    Ok(Attributes {
        dockerfile: given.get("filename").map_or("Dockerfile", String::as_str).to_owned(),
        dockerfile_in: directory("dockerfilekey", "dockerfile"),
        dockerfile_is_local: given.contains_key("dockerfilekey"),
        remote: remote(&text),
        named: contexts(&named("context:"), &|directory| given.get(&format!("local-sessionid:{directory}")).cloned())?,
        context_in: ("context".to_owned(), given.get("local-sessionid:context").cloned()),
        options: BuildOptions {
            arguments: arguments.map(|(name, value)| (name, Some(value))).collect(),
            labels: named("label:"),
            target: text("target").to_owned(),
            platform: platforms.first().cloned().unwrap_or_default(),
            // Without names it means all stages.
            no_cache: given.get("no-cache").is_some_and(String::is_empty),
            no_cache_stages: fields(text("no-cache")).map(str::to_owned).collect(),
            pull: text("image-resolve-mode") == "pull",
            remove: true,
            force_remove: true,
            check,
            host: host(&text, host_network)?,
            allows_host_network: host_network,
            ..BuildOptions::default()
        },
        platforms,
        several,
        question,
        time,
    })
}

/// What is built for, each once; and whether there is an index of it.
fn platforms<'a>(text: &impl Fn(&str) -> &'a str) -> Result<(Vec<String>, bool), Status> {
    let mut platforms: Vec<String> = Vec::new();
    for platform in fields(text("platform")) {
        if !platforms.iter().any(|known| known == platform) {
            platforms.push(platform.to_owned());
        }
        if platforms.len() > PLATFORMS_MAX {
            return Err(said("too many platforms"));
        }
    }
    let wanted = [text("build-arg:BUILDKIT_MULTI_PLATFORM"), text("multi-platform")];
    let several = match wanted.into_iter().find(|value| !value.is_empty()) {
        None => platforms.len() > 1,
        Some(value) => truth("multi-platform", value)
            .map_err(|_| said(format!("invalid boolean value for multi-platform: {value}")))?,
    };
    if platforms.len() > 1 && !several {
        return Err(said("conflicting config: returning multiple target platforms is not allowed"));
    }
    Ok((platforms, several))
}

/// The most platforms of a build: Go knows some fifty.
const PLATFORMS_MAX: usize = 64;

/// Where the context is, if that is an address; what is none means the client's directory, as with BuildKit.
fn remote<'a>(text: &impl Fn(&str) -> &'a str) -> Option<Remote> {
    let key = Some(text("contextkey")).filter(|key| !key.is_empty()).unwrap_or("context");
    let url = text(key);
    let is_address = url.starts_with("http://") || url.starts_with("https://") || shown_repository(url).is_some();
    // As Go's ParseBool reads it.
    let keep_git_dir = matches!(text(KEEP_GIT_DIR), "1" | "t" | "T" | "true" | "TRUE" | "True");
    is_address.then(|| Remote { url: url.to_owned(), keep_git_dir })
}

/// What names stand for (frontend/dockerui, namedcontext.go, whose sentences these are).
pub(super) fn contexts(
    given: &BTreeMap<String, String>,
    session: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, NamedPlace>, Status> {
    let mut contexts = BTreeMap::new();
    for (name, value) in given {
        let split = value.split_once(':');
        let (kind, rest) = split.ok_or_else(|| said(format!("invalid context specifier {value} for {name}")))?;
        let place = match kind {
            "docker-image" => NamedPlace::Image(rest.strip_prefix("//").unwrap_or(rest).to_owned()),
            "local" => NamedPlace::Directory(rest.to_owned(), session(rest)),
            "input" => NamedPlace::Input(rest.to_owned()),
            "http" | "https" => NamedPlace::Url(value.clone()),
            kind if kind == "git" || kind.starts_with("git@") => match shown_repository(value) {
                Some(_) => NamedPlace::Url(value.clone()),
                None => return Err(said(format!("invalid git context {value}"))),
            },
            "oci-layout" => layout(rest.strip_prefix("//").unwrap_or(rest))?,
            kind => return Err(said(format!("unsupported context source {kind} for {name}"))),
        };
        contexts.insert(name.to_owned(), place);
    }
    Ok(contexts)
}

/// `STORE:TAG@DIGEST`.
fn layout(text: &str) -> Result<NamedPlace, Status> {
    let (name, digest) =
        text.split_once('@').ok_or_else(|| said(format!("oci-layout reference {text:?} has no digest")))?;
    let digest = BlobDigest::parse(digest);
    let digest = digest.ok_or_else(|| said(format!("could not parse oci-layout reference {text:?}")))?;
    let store = name.rsplit_once(':').map_or(name, |(store, _)| store);
    Ok(NamedPlace::Layout(store.to_owned(), digest))
}

/// How commands are run.
fn host<'a>(text: &impl Fn(&str) -> &'a str, host_network: bool) -> Result<HostConfig, Status> {
    let network_mode = match text("force-network-mode") {
        "" | "sandbox" | "default" => "default",
        "none" => "none",
        "host" if host_network => "host",
        "host" => return Err(said("granting entitlement network.host is not allowed by build daemon configuration")),
        other => return Err(said(format!("invalid netmode {other}"))),
    };
    let number = |name: &str| match text(name) {
        "" => Ok(0),
        value => value.parse::<i64>().map_err(|_| said(format!("invalid {name} value: {value}"))),
    };
    let hosts = fields(text("add-hosts")).map(|field| match field.split_once('=') {
        Some((name, address)) => Ok(format!("{name}:{address}")),
        None => Err(said(format!("failed to parse additional hosts: invalid key-value pair {field}"))),
    });
    let ulimits = fields(text("ulimit")).map(ulimit);
    Ok(HostConfig {
        extra_hosts: Some(hosts.collect::<Result<Vec<_>, _>>()?).filter(|hosts| !hosts.is_empty()),
        shm_size: number("shm-size")?,
        cpu_shares: number("cpushares")?,
        cpu_period: number("cpuperiod")?,
        cpu_quota: number("cpuquota")?,
        cpuset_cpus: text("cpusetcpus").to_owned(),
        cpuset_mems: text("cpusetmems").to_owned(),
        memory: number("memory")?,
        memory_swap: number("memswap")?,
        cgroup_parent: text("cgroup-parent").to_owned(),
        ulimits: Some(ulimits.collect::<Result<Vec<_>, _>>()?).filter(|ulimits| !ulimits.is_empty()),
        ..HostConfig::of_build(network_mode)
    })
}

/// Fields between commas; clients write no commas into any.
fn fields(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(|field| field.trim_matches('"')).filter(|field| !field.is_empty())
}

/// `nofile=1024:2048`
fn ulimit(field: &str) -> Result<Ulimit, Status> {
    let wrong = || said(format!("failed to parse ulimit: invalid ulimit argument: {field}"));
    let (name, limits) = field.split_once('=').ok_or_else(wrong)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| text.parse().map_err(|_| wrong());
    Ok(Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: &[(&str, &str)]) -> Result<Attributes, Status> {
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        read(&given, false)
    }

    #[test]
    fn attributes_are_options_of_a_build() {
        let all = of(&[
            ("filename", "Other"),
            ("build-arg:A", "b"),
            ("build-arg:BUILDKIT_SYNTAX", "x"),
            ("label:l", "m"),
            ("target", "t"),
            ("no-cache", ""),
            ("image-resolve-mode", "pull"),
            ("add-hosts", "h=1.2.3.4,i=::1"),
            ("ulimit", "nofile=1:2"),
            ("shm-size", "65536"),
            ("local-sessionid:context", "s"),
        ])
        .unwrap();
        assert_eq!((all.dockerfile.as_str(), all.options.target.as_str()), ("Other", "t"));
        assert_eq!(all.options.arguments, BTreeMap::from([("A".to_owned(), Some("b".to_owned()))]));
        assert_eq!(all.options.labels, BTreeMap::from([("l".to_owned(), "m".to_owned())]));
        assert!(all.options.no_cache && all.options.pull);
        assert_eq!(all.options.host.extra_hosts, Some(vec!["h:1.2.3.4".to_owned(), "i:::1".to_owned()]));
        assert_eq!((all.options.host.shm_size, all.options.host.network_mode.as_str()), (65536, "default"));
        assert_eq!(all.context_in, ("context".to_owned(), Some("s".to_owned())));
        let some = of(&[("no-cache", "one,Two")]).unwrap().options;
        assert_eq!((some.no_cache, some.no_cache_stages.join(" ")), (false, "one Two".to_owned()));
        let plain = of(&[]).unwrap();
        assert_eq!((plain.remote, plain.dockerfile_is_local), (None, false));
        let remote = |given: &[(&str, &str)]| {
            of(given).unwrap().remote.map(|remote| format!("{} {}", remote.url, remote.keep_git_dir))
        };
        assert_eq!(remote(&[("context", "http://h/x.tar")]).as_deref(), Some("http://h/x.tar false"));
        assert_eq!(remote(&[("context", "git@h:x"), (KEEP_GIT_DIR, "1")]).as_deref(), Some("git@h:x true"));
        assert_eq!(
            remote(&[("contextkey", "c"), ("c", "https://h/x.git#a:b")]).as_deref(),
            Some("https://h/x.git#a:b false")
        );
        assert_eq!(remote(&[("context", "file:///etc")]), None);
        let plain = of(&[]).unwrap();
        assert_eq!((plain.dockerfile.as_str(), plain.options.no_cache), ("Dockerfile", false));
    }

    #[test]
    fn names_stand_for_contexts() {
        let place = |value: &str| of(&[("context:n", value), ("local-sessionid:d", "s")]).unwrap().named.remove("n");
        assert_eq!(place("docker-image://x:1"), Some(NamedPlace::Image("x:1".to_owned())));
        assert_eq!(place("local:d"), Some(NamedPlace::Directory("d".to_owned(), Some("s".to_owned()))));
        assert_eq!(place("input:t"), Some(NamedPlace::Input("t".to_owned())));
        for url in ["http://h/x.tar", "https://h/x.git#a:b", "git@h:x", "git://h/x"] {
            assert_eq!(place(url), Some(NamedPlace::Url(url.to_owned())));
        }
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        for (name, value, wanted) in [
            ("context:base", "oci-layout://x", "oci-layout reference \"x\" has no digest"),
            ("context:base", "oci-layout://x@y", "could not parse oci-layout reference \"x@y\""),
            ("context:base", "x", "invalid context specifier x for base"),
            ("context:base", "file:///etc", "unsupported context source file for base"),
            ("context:base", "git:x", "invalid git context git:x"),
            ("multi-platform", "x", "invalid boolean value for multi-platform: x"),
            ("requestid", "frontend.other", "unsupported request frontend.other: unsupported request frontend.other"),
            (CHECK, "no", "failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK: invalid check option \"no\""),
            ("force-network-mode", "own", "invalid netmode own"),
            ("ulimit", "nofile", "failed to parse ulimit: invalid ulimit argument: nofile"),
            ("add-hosts", "h", "failed to parse additional hosts: invalid key-value pair h"),
            ("shm-size", "x", "invalid shm-size value: x"),
            (TIME, "x", "invalid SOURCE_DATE_EPOCH: x: strconv.ParseInt: parsing \"x\": invalid syntax"),
        ] {
            assert_eq!(of(&[(name, value)]).unwrap_err().message, wanted, "{name}");
        }
    }
}
