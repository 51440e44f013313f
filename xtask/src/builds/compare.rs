//! Two builds of one case, aspect by aspect. Pure.

use std::fmt;
use std::sync::LazyLock;

use regex_lite::Regex;
use serde_json::Value;

use super::engine::Built;
use super::image::{Image, Node};

/// A way of building.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// `POST /build`.
    Classic,
    /// BuildKit's API.
    Buildx,
}

impl Way {
    pub(super) const ALL: [Way; 2] = [Way::Classic, Way::Buildx];
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::Classic => "classic",
            Way::Buildx => "buildx",
        })
    }
}

/// What may differ between two builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aspect {
    /// The exit code.
    Code,
    /// The error of a build that failed; of the classic way also what it told of its steps.
    Words,
    /// What the image says of containers, and of itself.
    Config,
    /// How it was made.
    History,
    /// Which paths are in which layer.
    Layers,
    /// The files of all layers together.
    Files,
    /// The times of files that are older than the build.
    Times,
}

impl Aspect {
    pub(super) const ALL: [Aspect; 7] =
        [Aspect::Code, Aspect::Words, Aspect::Config, Aspect::History, Aspect::Layers, Aspect::Files, Aspect::Times];
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", format!("{self:?}").to_lowercase())
    }
}

/// A difference: lines of the real daemon's begin with a minus, lines of ours with a plus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) aspect: Aspect,
    pub(super) lines: Vec<String>,
}

/// All differences of two builds, neither of which is older than `began`, in seconds since 1970.
pub(super) fn compare(right: &Built, mine: &Built, way: Way, began: u64) -> Vec<Found> {
    let mut pairs = vec![
        (Aspect::Code, vec![right.code.to_string()], vec![mine.code.to_string()]),
        (Aspect::Words, words(right, way), words(mine, way)),
    ];
    if let (Some(right), Some(mine)) = (&right.image, &mine.image) {
        pairs.extend([
            (Aspect::Config, config(right), config(mine)),
            (Aspect::History, history(right, way), history(mine, way)),
            (Aspect::Layers, layers(right, way), layers(mine, way)),
            (Aspect::Files, files(right), files(mine)),
            (Aspect::Times, times(right, mine, began), times(mine, right, began)),
        ]);
    }
    let found = pairs.into_iter().map(|(aspect, right, mine)| Found { aspect, lines: difference(&right, &mine) });
    found.filter(|found| !found.lines.is_empty()).collect()
}

/// Lines that only one side has; of two orders of the same lines, both.
fn difference(right: &[String], mine: &[String]) -> Vec<String> {
    let lacks = |lines: &[String], line: &String| !lines.contains(line);
    let gone = right.iter().filter(|line| lacks(mine, line)).map(|line| format!("- {line}"));
    let new = mine.iter().filter(|line| lacks(right, line)).map(|line| format!("+ {line}"));
    let lines: Vec<String> = gone.chain(new).collect();
    if lines.is_empty() && right != mine {
        return vec![format!("- in the order {right:?}"), format!("+ in the order {mine:?}")];
    }
    lines
}

/// What is another one each time, and the word for it.
const VARYING: [(&str, &str); 10] = [
    // Colors of standard error, and Docker's overlay.
    (r"\x1b\[\d+m", ""),
    (r"checksum of ref \S+:", "checksum of ref REF:"),
    (r"(/[\w.-]+)+/overlay2/\w+/(merged|diff)/", "/ROOT/"),
    (r"\bsha256:[0-9a-f]{64}\b", "DIGEST"),
    (r"\b(file|dir|multi):[0-9a-f]{64}\b", "$1:SUM"),
    (r"\b[0-9a-f]{64}\b", "ID"),
    (r"\b[0-9a-f]{12}\b", "SHORT-ID"),
    (r"\bcompared-\d+-", "compared-N-"),
    // Where a context was, and where its files are kept.
    (r"/[\w/.-]*/(\.tmp\w+|docker-builder\d+)", "/CONTEXT"),
    (r"[\r\x00]", ""),
];

static VARYING_PATTERNS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    VARYING.iter().map(|(pattern, word)| (Regex::new(pattern).expect("a pattern of ours"), *word)).collect()
});

fn masked(text: &str) -> String {
    VARYING_PATTERNS
        .iter()
        .fold(text.to_owned(), |text, (pattern, word)| pattern.replace_all(&text, *word).into_owned())
}

/// What dockerd's classic builder says of each step: it makes a container for those that only change the configuration, too.
const IN_CONTAINERS: [&str; 3] =
    ["Sending build context", " ---> Running in ", " ---> Removed intermediate container "];

/// What Docker's command line says of the classic builder.
const DEPRECATED: [&str; 5] = [
    "DEPRECATED: The legacy builder",
    "Install the buildx component",
    "https://docs.docker.com/go",
    "BuildKit is currently disabled",
    "environment-variable.",
];

/// What was said of a build, without what is another one each time.
fn words(built: &Built, way: Way) -> Vec<String> {
    let mut lines: Vec<String> = match way {
        Way::Classic => {
            // A color of what a command said may end where the next line begins.
            let told = built.stdout.lines().map(masked).filter(|line| !line.is_empty());
            told.filter(|line| !IN_CONTAINERS.iter().any(|begin| line.starts_with(begin))).collect()
        }
        Way::Buildx => Vec::new(),
    };
    if built.code != 0 {
        // BuildKit's client shows the steps and the failed line before that.
        let failure = built.stderr.lines().filter(|line| !line.trim().is_empty());
        let from = failure.clone().position(|line| line.starts_with("ERROR:")).unwrap_or_default();
        let deprecated = |line: &&str| !DEPRECATED.iter().any(|sentence| line.trim_start().starts_with(sentence));
        lines.extend(failure.skip(from).filter(deprecated).map(masked));
    }
    lines
}

/// What only differs because two daemons built it, at two times: dockerd's classic builder writes down the container of its
/// last step, and BuildKit says so of itself.
const NOT_COMPARED: [&str; 7] =
    ["container", "container_config", "created", "docker_version", "history", "rootfs", "moby.buildkit.buildinfo.v1"];

fn config(image: &Image) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, value) in image.config.as_object().into_iter().flatten() {
        match value {
            _ if NOT_COMPARED.contains(&name.as_str()) => {}
            Value::Object(fields) if name == "config" => {
                // The step before, which the classic builder writes down and nobody reads.
                let set = fields.iter().filter(|(name, value)| *name != "Image" && !is_nothing(value));
                lines.extend(set.map(|(field, value)| format!("config.{field} {}", masked(&value.to_string()))));
            }
            value if is_nothing(value) => {}
            value => lines.push(format!("{name} {}", masked(&value.to_string()))),
        }
    }
    lines
}

/// Whether a field says as much as one that is not there.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// Of BuildKit's way only which entries have layers: the words are those of the classic builder (docs/builds.md).
fn history(image: &Image, way: Way) -> Vec<String> {
    let entries = image.config["history"].as_array().into_iter().flatten();
    let compared = |name: &str| name != "created" && (way == Way::Classic || name == "empty_layer");
    let entry = |value: &Value| {
        let fields = value.as_object().into_iter().flatten();
        let fields = fields.filter(|(name, value)| compared(name) && !is_nothing(value));
        fields.map(|(name, value)| format!("{name} {}", masked(&value.to_string()))).collect::<Vec<_>>().join(", ")
    };
    entries.enumerate().map(|(number, value)| format!("{}: {}", number + 1, entry(value))).collect()
}

/// Those that have something in them: BuildKit makes layers of steps that change nothing, and its commands touch `/etc`.
fn layers(image: &Image, way: Way) -> Vec<String> {
    let counts = |path: &&String| way == Way::Classic || !matches!(path.as_str(), "" | "etc");
    let counted = image.layers.iter().map(|paths| paths.iter().filter(counts).cloned().collect::<Vec<_>>());
    let shown = |(number, paths): (usize, Vec<String>)| match paths.len() {
        // The base is the same, and long.
        0..=100 => format!("{}: {}", number + 1, paths.join(" ")),
        count => format!("{}: {count} paths", number + 1),
    };
    counted.filter(|paths| !paths.is_empty()).enumerate().map(shown).collect()
}

fn files(image: &Image) -> Vec<String> {
    image.tree.iter().map(|(path, node)| shown(path, node)).collect()
}

fn shown(path: &str, node: &Node) -> String {
    let Node { kind, mode, owner: (uid, gid), size, content, first_name, xattrs, time: _ } = node;
    let mut line = format!("/{path}: {kind} {mode:o} {uid}:{gid}");
    match *kind {
        "file" => line.push_str(&format!(" {size} bytes {}", &content[..12])),
        "link" => line.push_str(&format!(" -> {content}")),
        _ => line.push_str(content),
    }
    if let Some(first) = first_name {
        line.push_str(&format!(" also /{first}"));
    }
    xattrs.iter().for_each(|(name, value)| line.push_str(&format!(" {name}={value:?}")));
    line
}

/// The times of those files that are in both images, and are older than the builds in at least one of them.
fn times(image: &Image, other: &Image, began: u64) -> Vec<String> {
    let shown = |(path, node): (&String, &Node)| {
        let other = other.tree.get(path)?;
        let time = if node.time < began { node.time.to_string() } else { "of the build".to_owned() };
        (node.time.min(other.time) < began).then(|| format!("/{path}: {} {time}", node.kind))
    };
    image.tree.iter().filter_map(shown).collect()
}
