//! One table of everything that can be set, by flag and in daemon.json.
//!
//! Names, short names and kinds are dockerd's. What we cannot do yet is in the table, too, with the values at which it
//! changes nothing: any other value is refused by name, never ignored.

use std::collections::BTreeMap;

use engine::RuntimeConfig;
use engine_api::host_config::Ulimit;
use serde_json::Value as Json;

/// One thing that can be set.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The name behind `--`.
    pub(crate) flag: &'static str,
    /// The letter behind `-`.
    pub(crate) short: Option<char>,
    /// The name in daemon.json; empty where it cannot stand there.
    pub(crate) key: &'static str,
    pub(crate) kind: Kind,
    pub(crate) support: Support,
    /// Whether a change of it in daemon.json counts as soon as that is read again.
    pub(crate) reloadable: bool,
    pub(crate) help: &'static str,
}

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Switch,
    Text,
    Number,
    /// Given several times, or as a list.
    List,
    /// `name=value`, given several times, or as an object.
    Pairs,
    /// `name=path`, given several times, or as an object of objects.
    Runtimes,
    /// `nofile=1024:2048`, given several times, or as an object of objects.
    Ulimits,
    /// `base=10.0.0.0/8,size=24`, given several times, or as a list of objects.
    Pools,
    /// `host=address`, given several times, or as an object of lists.
    Mirrors,
    /// Anything: for keys that are not looked into.
    Any,
}

/// What we do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Support {
    /// What it says.
    Yes,
    /// Nothing: only these values, in text form, are accepted, and change nothing.
    OnlyAt(&'static [&'static str]),
    /// Nothing, at any value: it is about something that this engine does without. The log says so.
    Ignored(&'static str),
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Switch(bool),
    Text(String),
    Number(i64),
    List(Vec<String>),
    Pairs(BTreeMap<String, String>),
    Ulimits(Vec<Ulimit>),
    Runtimes(BTreeMap<String, RuntimeConfig>),
    Mirrors(BTreeMap<String, Vec<String>>),
}

/// What was set, by the flag's name.
pub(crate) type Given = BTreeMap<&'static str, Value>;

/// Why a text is no value. The words are Go's and dockerd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    #[error("strconv.ParseBool: parsing {0:?}: invalid syntax")]
    Switch(String),
    #[error("strconv.ParseInt: parsing {0:?}: invalid syntax")]
    Number(String),
    #[error("invalid ulimit argument: {0}")]
    Ulimit(String),
    #[error("invalid runtime argument: {0}")]
    Runtime(String),
    #[error("invalid mirror: {0:?} is no host=address")]
    Mirror(String),
    #[error("must be {0}")]
    Type(&'static str),
}

const fn set(flag: &'static str, key: &'static str, kind: Kind, help: &'static str) -> Setting {
    Setting { flag, short: None, key, kind, support: Support::Yes, reloadable: false, help }
}

const fn live(setting: Setting) -> Setting {
    Setting { reloadable: true, ..setting }
}

const fn short(letter: char, setting: Setting) -> Setting {
    Setting { short: Some(letter), ..setting }
}

const fn only(flag: &'static str, key: &'static str, kind: Kind, values: &'static [&'static str]) -> Setting {
    Setting { flag, short: None, key, kind, support: Support::OnlyAt(values), reloadable: false, help: "" }
}

const fn ignored(flag: &'static str, key: &'static str, kind: Kind, why: &'static str) -> Setting {
    Setting { flag, short: None, key, kind, support: Support::Ignored(why), reloadable: false, help: "" }
}

use Kind::{Any, List, Mirrors, Number, Pairs, Pools, Runtimes, Switch, Text, Ulimits};

/// The table.
pub(crate) const SETTINGS: &[Setting] = &[
    set("add-runtime", "runtimes", Runtimes, "Another OCI runtime: name=path"),
    set(
        "builder",
        "builder",
        Any,
        "How much of the build cache stays by itself: {\"gc\": {\"defaultMaxUsedSpace\": \"20GB\"}}",
    ),
    set("bip", "bip", Text, "Address and network of the default bridge, 172.17.0.1/16"),
    set("bip6", "bip6", Text, "Likewise of IPv6, where ipv6 is on"),
    short('b', set("bridge", "bridge", Text, "A bridge that exists, to be the default one; none for no bridge")),
    set("cgroup-parent", "cgroup-parent", Text, "Parent cgroup of all containers"),
    set("config-file", "", Text, "Configuration file"),
    set("data-root", "data-root", Text, "Where images and containers are kept"),
    short('D', live(set("debug", "debug", Switch, "Log everything"))),
    set("default-address-pool", "default-address-pools", Pools, "Where networks come from: base=172.30.0.0/16,size=24"),
    live(set(
        "default-cgroupns-mode",
        "default-cgroupns-mode",
        Text,
        "Cgroup namespace of containers: host or private",
    )),
    live(set("default-ipc-mode", "default-ipc-mode", Text, "IPC namespace of containers: private or shareable")),
    set("default-runtime", "default-runtime", Text, "Runtime of containers that do not say"),
    live(set(
        "default-shm-size",
        "default-shm-size",
        Text,
        "Size of /dev/shm of containers that do not ask for another",
    )),
    set("default-ulimit", "default-ulimits", Ulimits, "Limits of containers that do not ask for others"),
    set("cdi-spec-dir", "cdi-spec-dirs", List, "Where files of vendors describe devices by name"),
    set(
        "default-gateway",
        "default-gateway",
        Text,
        "Gateway of the default bridge's containers that is not the bridge",
    ),
    set("default-gateway-v6", "default-gateway-v6", Text, "Likewise of IPv6"),
    set("dns", "dns", List, "Name servers of containers"),
    set("dns-opt", "dns-opts", List, "Options of the resolver of containers"),
    set("dns-search", "dns-search", List, "Domains in which containers look names up"),
    set("exec-opt", "exec-opts", List, "Options of the runtime: native.cgroupdriver=cgroupfs"),
    set("exec-root", "exec-root", Text, "Where running state is kept"),
    set("experimental", "experimental", Switch, "Tell clients that experimental features are on"),
    live(set("feature", "features", Pairs, "Features of the daemon by name")),
    set("fixed-cidr", "fixed-cidr", Text, "Part of the default bridge's network that containers get addresses from"),
    set("fixed-cidr-v6", "fixed-cidr-v6", Text, "Likewise of IPv6; without bip6 it is the bridge's network of IPv6"),
    short('G', set("group", "group", Text, "Group of the unix sockets")),
    short('H', set("host", "hosts", List, "Where to listen: unix:///path, tcp://address:port, fd://")),
    set(
        "host-firewall",
        "host-firewall",
        Switch,
        "Place no accept rule where the host's firewall drops what is forwarded",
    ),
    live(set("http-proxy", "http-proxy", Text, "Proxy between the daemon and registries without TLS; $HTTP_PROXY")),
    live(set("https-proxy", "https-proxy", Text, "Proxy between the daemon and registries with TLS; $HTTPS_PROXY")),
    set("icc", "icc", Switch, "Let containers on the default bridge reach each other; on if not said"),
    set("idle-timeout", "", Number, "Seconds without work before a daemon on demand ends"),
    set("image-budget-high", "image-budget-high", Text, "Size of all images above which unused ones are removed"),
    set("image-budget-low", "image-budget-low", Text, "Size of all images until which they are"),
    set("image-budget-min-age", "image-budget-min-age", Number, "Seconds for which an image stays after its last use"),
    set("image-pin", "image-pins", List, "Names of images that are not removed for the budget; * is any letters"),
    set("init", "init", Switch, "Give containers an init program"),
    set("init-path", "init-path", Text, "The init program"),
    live(set("insecure-registry", "insecure-registries", List, "Registries that need no TLS, nor a good certificate")),
    set("ip", "ip", Text, "Host address of published ports that name none"),
    set("ip-forward", "ip-forward", Switch, "Switch forwarding on if it is off; on if not said"),
    set("ip-masq", "ip-masq", Switch, "Let containers out with the host's address; on if not said"),
    set("ipv6", "ipv6", Switch, "Give the default bridge addresses of IPv6, too"),
    live(set("label", "labels", List, "Labels of the daemon, shown by info")),
    live(set("live-restore", "live-restore", Switch, "Containers outlive the daemon; always on")),
    set("log-driver", "log-driver", Text, "Where output of containers goes that do not say"),
    set("log-format", "log-format", Text, "text or json"),
    short('l', live(set("log-level", "log-level", Text, "debug, info, warn, error or fatal"))),
    set("log-opt", "log-opts", Pairs, "Options of the log driver"),
    live(set("max-concurrent-downloads", "max-concurrent-downloads", Number, "Layers in transfer at a time")),
    live(set("max-concurrent-uploads", "max-concurrent-uploads", Number, "Layers that are sent at a time")),
    live(set("max-download-attempts", "max-download-attempts", Number, "Tries of a transfer that does not get on")),
    set("metrics-addr", "metrics-addr", Text, "Where to serve metrics: address:port"),
    set("mtu", "mtu", Number, "Largest packet of the default bridge in bytes"),
    live(set("no-proxy", "no-proxy", Text, "Hosts that are reached without a proxy; $NO_PROXY")),
    set("no-new-privileges", "no-new-privileges", Switch, "Programs gain no privileges if the container does not say"),
    set("on-demand", "", Switch, "Leave the caller's session, and end when there is nothing to do"),
    short('p', set("pidfile", "pidfile", Text, "Where to write the process id")),
    set("ready-fd", "", Number, "Descriptor to write one byte to when listening"),
    set("shim-path", "", Text, "The program beside each container"),
    live(set("shutdown-timeout", "shutdown-timeout", Number, "Seconds for requests to end when the daemon ends")),
    live(set(
        "registry-mirror",
        "registry-mirrors",
        List,
        "Who is asked before Docker Hub: http(s)://host[:port][/path]",
    )),
    live(set(
        "registry-mirror-by-host",
        "registry-mirrors-by-host",
        Mirrors,
        "Who is asked before another registry: host=http(s)://host[:port][/path]",
    )),
    set("seccomp-profile", "seccomp-profile", Text, "Profile of system calls: a file, unconfined or builtin"),
    short(
        's',
        set(
            "storage-driver",
            "storage-driver",
            Text,
            "What puts layers together: overlay2, fuse-overlayfs, btrfs or vfs",
        ),
    ),
    set("storage-opt", "storage-opts", List, "overlay2.size=SIZE: how much containers may write that do not say"),
    set("tls", "tls", Switch, "Speak TLS on TCP; false, and said, for TCP without it"),
    set("tlscacert", "tlscacert", Text, "Certificate authority whose clients may connect"),
    set("tlscert", "tlscert", Text, "Certificate that clients are shown"),
    set("tlskey", "tlskey", Text, "Key of that certificate"),
    set("tlsverify", "tlsverify", Switch, "Speak TLS on TCP, and ask clients for certificates"),
    live(set(
        "trust-policy",
        "trust-policy",
        Text,
        "Policy file: whose images may come in, and who must have signed them",
    )),
    set(
        "userland-proxy",
        "userland-proxy",
        Switch,
        "Publish ports on [::] for containers without IPv6; on if not said",
    ),
    set("validate", "", Switch, "Check the configuration and end"),
    // Only at the values at which they change nothing.
    only("allow-direct-routing", "allow-direct-routing", Switch, &["false"]),
    only("authorization-plugin", "authorization-plugins", List, &[]),
    ignored("allow-nondistributable-artifacts", "allow-nondistributable-artifacts", Any, "it is gone from Docker, too"),
    ignored("containerd", "containerd", Text, "there is no containerd"),
    ignored("containerd-namespace", "containerd-namespace", Text, "there is no containerd"),
    ignored("containerd-plugins-namespace", "containerd-plugins-namespace", Text, "there is no containerd"),
    ignored("deprecated-key-path", "deprecated-key-path", Any, "it is gone from Docker, too"),
    only("cpu-rt-period", "cpu-rt-period", Number, &["0"]),
    only("cpu-rt-runtime", "cpu-rt-runtime", Number, &["0"]),
    only("cri-containerd", "cri-containerd", Switch, &["false"]),
    only("default-network-opt", "default-network-opts", Any, &["{}"]),
    only("host-gateway-ip", "host-gateway-ips", List, &[]),
    only("ip-forward-no-drop", "ip-forward-no-drop", Switch, &["true", "false"]),
    only("ip6tables", "ip6tables", Switch, &["true", "false"]),
    only("iptables", "iptables", Switch, &["true", "false"]),
    ignored(
        "network-control-plane-mtu",
        "network-control-plane-mtu",
        Number,
        "there are no networks across machines yet",
    ),
    only("network-diagnostic-port", "network-diagnostic-port", Number, &["0"]),
    only("node-generic-resource", "node-generic-resources", List, &[]),
    only("raw-logs", "raw-logs", Switch, &["true", "false"]),
    only("rootless", "rootless", Switch, &["false"]),
    only("selinux-enabled", "selinux-enabled", Switch, &["false"]),
    only("swarm-default-advertise-addr", "swarm-default-advertise-addr", Text, &[""]),
    only("userland-proxy-path", "userland-proxy-path", Text, &[""]),
    only("userns-remap", "userns-remap", Text, &[""]),
];

impl Kind {
    /// The value that a flag's text stands for.
    pub(crate) fn parse(self, text: &str) -> Result<Value, ValueError> {
        Ok(match self {
            Kind::Switch => Value::Switch(parse_switch(text)?),
            Kind::Text => Value::Text(text.to_owned()),
            Kind::Number => Value::Number(text.parse().map_err(|_| ValueError::Number(text.to_owned()))?),
            Kind::List => Value::List(vec![text.to_owned()]),
            Kind::Pairs => {
                let (name, value) = text.split_once('=').unwrap_or((text, ""));
                Value::Pairs(BTreeMap::from([(name.to_owned(), value.to_owned())]))
            }
            Kind::Ulimits => Value::Ulimits(vec![parse_ulimit(text)?]),
            Kind::Pools => Value::List(vec![text.to_owned()]),
            Kind::Any => Value::Text(text.to_owned()),
            Kind::Runtimes => Value::Runtimes(BTreeMap::from([parse_runtime(text)?])),
            Kind::Mirrors => match text.split_once('=') {
                Some((host, mirror)) if !mirror.is_empty() => {
                    Value::Mirrors(BTreeMap::from([(host.to_owned(), vec![mirror.to_owned()])]))
                }
                _ => return Err(ValueError::Mirror(text.to_owned())),
            },
        })
    }

    /// The value that a member of daemon.json stands for.
    pub(crate) fn load(self, json: &Json) -> Result<Value, ValueError> {
        match (self, json) {
            (Kind::Switch, Json::Bool(on)) => Ok(Value::Switch(*on)),
            (Kind::Text, Json::String(text)) => Ok(Value::Text(text.clone())),
            // Sizes may be numbers of bytes.
            (Kind::Text, Json::Number(number)) => Ok(Value::Text(number.to_string())),
            (Kind::Number, Json::Number(number)) => number.as_i64().map(Value::Number).ok_or(Kind::Number.wanted()),
            (Kind::List, Json::Array(elements)) => {
                elements.iter().map(load_text).collect::<Result<_, _>>().map(Value::List)
            }
            (Kind::Pairs, Json::Object(members)) => {
                let members = members.iter().map(|(name, value)| Ok((name.clone(), load_scalar(value)?)));
                members.collect::<Result<_, _>>().map(Value::Pairs)
            }
            (Kind::Ulimits, Json::Object(members)) => members
                .iter()
                .map(|(name, value)| load_ulimit(name, value))
                .collect::<Result<_, _>>()
                .map(Value::Ulimits),
            (Kind::Pools, Json::Array(pools)) => pools.iter().map(load_pool).collect::<Result<_, _>>().map(Value::List),
            (Kind::Any, any) => Ok(Value::Text(any.to_string())),
            (Kind::Runtimes, Json::Object(members)) => members
                .iter()
                .map(|(name, value)| load_runtime(name, value))
                .collect::<Result<_, _>>()
                .map(Value::Runtimes),
            (Kind::Mirrors, Json::Object(members)) => members
                .iter()
                .map(|(host, mirrors)| Ok((host.clone(), load_mirrors(mirrors)?)))
                .collect::<Result<_, _>>()
                .map(Value::Mirrors),
            _ => Err(self.wanted()),
        }
    }

    fn wanted(self) -> ValueError {
        ValueError::Type(match self {
            Kind::Switch => "true or false",
            Kind::Text => "a string",
            Kind::Number => "a whole number",
            Kind::List => "a list of strings",
            Kind::Pairs => "an object of strings",
            Kind::Ulimits => "an object of objects with Name, Hard and Soft",
            Kind::Pools => "a list of objects with base and size",
            Kind::Any => "any value",
            Kind::Runtimes => "an object of objects with path and runtimeArgs",
            Kind::Mirrors => "an object of lists of strings",
        })
    }
}

impl Value {
    /// Adds what the same flag said before; of single values the last one counts.
    pub(crate) fn merge(self, earlier: Value) -> Value {
        match (earlier, self) {
            (Value::List(mut all), Value::List(more)) => {
                all.extend(more);
                Value::List(all)
            }
            (Value::Pairs(mut all), Value::Pairs(more)) => {
                all.extend(more);
                Value::Pairs(all)
            }
            (Value::Ulimits(mut all), Value::Ulimits(more)) => {
                all.retain(|old| more.iter().all(|new| new.name != old.name));
                all.extend(more);
                Value::Ulimits(all)
            }
            (Value::Runtimes(mut all), Value::Runtimes(more)) => {
                all.extend(more);
                Value::Runtimes(all)
            }
            (Value::Mirrors(mut all), Value::Mirrors(more)) => {
                more.into_iter().for_each(|(host, mirrors)| all.entry(host).or_default().extend(mirrors));
                Value::Mirrors(all)
            }
            (_, last) => last,
        }
    }

    /// The values in text form: what messages show, and what [`Support::OnlyAt`] is compared with.
    pub(crate) fn texts(&self) -> Vec<String> {
        match self {
            Value::Switch(on) => vec![on.to_string()],
            Value::Text(text) => vec![text.clone()],
            Value::Number(number) => vec![number.to_string()],
            Value::List(elements) => elements.clone(),
            Value::Pairs(pairs) => pairs.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            Value::Ulimits(limits) => {
                limits.iter().map(|limit| format!("{}={}:{}", limit.name, limit.soft, limit.hard)).collect()
            }
            Value::Runtimes(runtimes) => {
                runtimes.iter().map(|(name, runtime)| format!("{name}={}", runtime.path.display())).collect()
            }
            Value::Mirrors(mirrors) => {
                mirrors.iter().map(|(host, mirrors)| format!("{host}={}", mirrors.join(","))).collect()
            }
        }
    }

    /// As Go prints it in messages: `[a b]` for lists, `map[a:b]` for maps.
    pub(crate) fn shown(&self) -> String {
        let texts = self.texts().join(" ");
        match self {
            Value::Text(text) => engine::without_password(text),
            Value::Switch(_) | Value::Number(_) => texts,
            Value::List(_) | Value::Ulimits(_) | Value::Runtimes(_) | Value::Mirrors(_) => format!("[{texts}]"),
            Value::Pairs(pairs) => {
                let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}:{value}")).collect();
                format!("map[{}]", pairs.join(" "))
            }
        }
    }
}

/// The words that Go's `strconv.ParseBool` takes.
fn parse_switch(text: &str) -> Result<bool, ValueError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ValueError::Switch(text.to_owned())),
    }
}

/// `name=soft[:hard]`; -1 is no limit.
fn parse_ulimit(text: &str) -> Result<Ulimit, ValueError> {
    let malformed = || ValueError::Ulimit(text.to_owned());
    let (name, limits) = text.split_once('=').ok_or_else(malformed)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| text.parse::<i64>().map_err(|_| malformed());
    Ok(Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? })
}

fn load_ulimit(name: &str, json: &Json) -> Result<Ulimit, ValueError> {
    let number = |key: &str| json.get(key).and_then(Json::as_i64).ok_or(Kind::Ulimits.wanted());
    Ok(Ulimit { name: name.to_owned(), soft: number("Soft")?, hard: number("Hard")? })
}

/// `name=path`.
fn parse_runtime(text: &str) -> Result<(String, RuntimeConfig), ValueError> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok((name.trim().to_lowercase(), RuntimeConfig { path: path.trim().into(), args: Vec::new() }))
        }
        _ => Err(ValueError::Runtime(text.to_owned())),
    }
}

/// `{"path": ..., "runtimeArgs": [...]}`; runtimes that are no command lines are none of ours.
fn load_runtime(name: &str, json: &Json) -> Result<(String, RuntimeConfig), ValueError> {
    let wanted = || Kind::Runtimes.wanted();
    let members = json.as_object().ok_or_else(wanted)?;
    if members.keys().any(|key| !matches!(key.as_str(), "path" | "runtimeArgs")) {
        return Err(wanted());
    }
    let path = members.get("path").and_then(Json::as_str).filter(|path| !path.is_empty()).ok_or_else(wanted)?;
    let args = match members.get("runtimeArgs") {
        None | Some(Json::Null) => Vec::new(),
        Some(Json::Array(args)) => args.iter().map(load_text).collect::<Result<_, _>>()?,
        Some(_) => return Err(wanted()),
    };
    Ok((name.to_owned(), RuntimeConfig { path: path.into(), args }))
}

/// `{"base": "10.0.0.0/8", "size": 24}`, as the flag says it. What is left out is left out there, too.
fn load_pool(json: &Json) -> Result<String, ValueError> {
    let wanted = || Kind::Pools.wanted();
    let members = json.as_object().ok_or_else(wanted)?;
    let mut fields = Vec::new();
    if let Some(base) = members.get("base") {
        fields.push(format!("base={}", base.as_str().ok_or_else(wanted)?));
    }
    let size = members.get("size").map_or(Some(0), Json::as_i64).ok_or_else(wanted)?;
    fields.push(format!("size={size}"));
    Ok(fields.join(","))
}

fn load_mirrors(json: &Json) -> Result<Vec<String>, ValueError> {
    let list = json.as_array().ok_or(Kind::Mirrors.wanted())?;
    list.iter().map(|text| text.as_str().map(str::to_owned).ok_or(Kind::Mirrors.wanted())).collect()
}

fn load_text(json: &Json) -> Result<String, ValueError> {
    json.as_str().map(str::to_owned).ok_or(Kind::List.wanted())
}

fn load_scalar(json: &Json) -> Result<String, ValueError> {
    match json {
        Json::String(text) => Ok(text.clone()),
        Json::Bool(_) | Json::Number(_) => Ok(json.to_string()),
        _ => Err(Kind::Pairs.wanted()),
    }
}
