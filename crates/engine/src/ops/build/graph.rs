//! A build as a graph: which stage needs which, what its parts are called, and which files it needs. Pure.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use builder::{Base, Plan, PlannedStage};
use dockerfile::{Dockerfile, Files, Instruction, Kind, Mount, MountKind};

/// Which files of the context a build needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Needed {
    /// None.
    Nothing,
    /// These paths and patterns, from the top, in order.
    Paths(Vec<String>),
    /// All, or nobody knows yet.
    All,
}

/// The names of a stage's parts: `[build 2/3] RUN make`.
#[derive(Debug)]
pub(super) struct Names {
    label: String,
    at: usize,
    total: usize,
}

impl Names {
    /// Those of a stage, of a Dockerfile in which it is alone or not.
    pub(super) fn new(planned: &PlannedStage, is_alone: bool) -> Names {
        let label = match (is_alone, planned.name.as_str()) {
            (true, _) => String::new(),
            (_, "") => format!("stage-{} ", planned.index),
            (_, name) => format!("{name} "),
        };
        let base = usize::from(matches!(planned.base, Base::Image(_)));
        let total = base + planned.instructions.iter().filter(|instruction| is_part(instruction)).count();
        Names { label, at: 0, total }
    }

    /// What an image asks for comes to the stage, too.
    pub(super) fn add(&mut self, triggers: usize) {
        self.total += triggers;
    }

    /// The next part's.
    pub(super) fn next(&mut self, words: &str) -> String {
        self.at += 1;
        let width = self.total.checked_ilog10().unwrap_or(0) as usize + 1;
        let (name, rest) = words.split_at(words.find(char::is_whitespace).unwrap_or(words.len()));
        format!("[{}{:>width$}/{}] {}{rest}", self.label, self.at, self.total, name.to_uppercase())
    }
}

/// Whether a Dockerfile has one stage. What is copied from images, and each mount of a command, is another one to BuildKit,
/// nothing included (dockerfile2llb, toCommand and detectRunMount).
pub(super) fn is_alone(dockerfile: &Dockerfile) -> bool {
    let [stage] = &dockerfile.stages[..] else { return false };
    !stage.instructions.iter().any(|instruction| match &instruction.kind {
        Kind::Copy(files) => !files.from.is_empty(),
        Kind::Run(run) => !run.mounts.is_empty(),
        _ => false,
    })
}

/// An instruction with its variables as far as they are known: what people read, not what is done. As a shell reads
/// them, but with the quotes.
pub(super) fn shown(text: &str, value: &dyn Fn(&str) -> Option<String>) -> String {
    let (mut shown, mut rest, mut quoted) = (String::new(), text, false);
    while let Some(letter) = rest.chars().next() {
        let mut length = letter.len_utf8();
        match letter {
            '\\' if !quoted => length += rest[1..].chars().next().map_or(0, char::len_utf8),
            '\'' => quoted = !quoted,
            '$' if !quoted => {
                let braced = rest[1..].starts_with('{');
                let begin = 1 + usize::from(braced);
                let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
                let end = begin + rest[begin..].find(|letter| !is_name(letter)).unwrap_or(rest.len() - begin);
                let is_closed = !braced || rest[end..].starts_with('}');
                if let Some(value) = value(&rest[begin..end]).filter(|_| end > begin && is_closed) {
                    shown.push_str(&value);
                    rest = &rest[end + usize::from(braced)..];
                    continue;
                }
            }
            _ => {}
        }
        shown.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    shown
}

/// An instruction as the part is called that it is: with values of variables; what a shell reads in its quotes, and with the
/// beginning of what it is told in a heredoc; the rest without quotes.
pub(super) fn part_words(instruction: &Instruction, escape: char, value: &dyn Fn(&str) -> Option<String>) -> String {
    let words = &instruction.original;
    let Kind::Run(run) = &instruction.kind else {
        let expanded = dockerfile::expand(words, escape, &|name| Some(value(name).unwrap_or_default()));
        return expanded.unwrap_or_else(|_| words.clone());
    };
    let words = shown(words, value);
    match (&run.command.words[..], &run.command.files[..]) {
        ([word], [file]) if run.command.shell && is_heredoc_alone(word) => {
            let (text, more) = match file.text.trim().split_once('\n') {
                Some((first, _)) => (first.trim_end_matches('\r'), "..."),
                None => (file.text.trim(), ""),
            };
            format!("{words} ({text}{more})")
        }
        _ => words,
    }
}

/// Whether a command is what its heredoc says and nothing else.
fn is_heredoc_alone(command: &str) -> bool {
    command.trim().strip_prefix("<<").is_some_and(|rest| !rest.contains(char::is_whitespace))
}

/// Words without the passwords of the addresses in them: what is told is kept in logs.
pub(super) fn without_passwords(words: &str) -> String {
    let masked = |word: &str| {
        let (scheme, rest) = word.split_once("://")?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (user, host) = authority.rsplit_once('@')?;
        let (user, _) = user.split_once(':')?;
        Some(format!("{scheme}://{user}:***@{host}{path}"))
    };
    let words = words.split_inclusive(char::is_whitespace);
    words.map(|word| masked(word).unwrap_or_else(|| word.to_owned())).collect()
}

/// Whether something is done with files.
fn is_part(instruction: &Instruction) -> bool {
    matches!(instruction.kind, Kind::Run(_) | Kind::Copy(_) | Kind::Add(_) | Kind::Workdir(_))
}

/// An image that stages begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WantedBase {
    pub(super) name: String,
    pub(super) platform: String,
    /// The first stage that begins with it, by its place in the plan.
    pub(super) first: usize,
}

/// The images that stages begin with, each once.
pub(super) fn images(plan: &Plan) -> Vec<WantedBase> {
    let (mut images, mut known) = (Vec::new(), HashSet::new());
    for (first, stage) in plan.stages.iter().enumerate() {
        if let Base::Image(name) = &stage.base
            && known.insert((name, &stage.platform))
        {
            images.push(WantedBase { name: name.clone(), platform: stage.platform.clone(), first });
        }
    }
    images
}

/// The images that something is copied or shown of, each once, and the lines that say so: what no stage is. Their names are
/// known from the start, as no variable is replaced there.
pub(super) fn copied(plan: &Plan, graph: &StageGraph) -> Vec<(usize, String)> {
    let (mut images, mut known) = (Vec::new(), HashSet::new());
    for (place, stage) in plan.stages.iter().enumerate() {
        for instruction in instructions(stage) {
            let names = match &instruction.kind {
                Kind::Copy(files) => vec![&files.from],
                Kind::Run(run) => run.mounts.iter().map(|mount| &mount.from).collect(),
                _ => Vec::new(),
            };
            for name in names.into_iter().filter(|name| !matches!(name.as_str(), "" | "scratch")) {
                if !name.contains('$') && graph.named(place, name).is_none() && known.insert(name) {
                    images.push((instruction.line, name.clone()));
                }
            }
        }
    }
    images
}

/// How stages of a plan hang together; a stage is known by its place in the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StageGraph {
    nodes: Vec<Node>,
    /// By the places in the Dockerfile.
    places: HashMap<usize, usize>,
    /// All stages of a name, in their order.
    names: HashMap<String, Vec<usize>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    base: StageBase,
    /// Whether another one begins with it.
    is_base: bool,
    first_step: usize,
}

/// What a stage begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StageBase {
    /// Nothing.
    Scratch,
    /// An image, which it looks up: no stage before it begins with the same.
    Image,
    /// An image that this stage looks up.
    ImageOf(usize),
    /// What this stage comes to.
    Stage(usize),
}

impl StageGraph {
    /// That of a plan whose first steps, so many, are of no stage.
    pub(super) fn new(plan: &Plan, steps: usize) -> StageGraph {
        let (mut nodes, mut next): (Vec<Node>, usize) = (Vec::new(), steps + 1);
        // There may be a hundred thousand stages.
        let (mut places, mut images): (HashMap<usize, usize>, HashMap<_, usize>) = Default::default();
        let mut names: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, stage) in plan.stages.iter().enumerate() {
            let base = match &stage.base {
                Base::Scratch => StageBase::Scratch,
                Base::Image(name) => match images.entry((name.as_str(), stage.platform.as_str())) {
                    Entry::Occupied(first) => StageBase::ImageOf(*first.get()),
                    Entry::Vacant(none) => {
                        none.insert(place);
                        StageBase::Image
                    }
                },
                Base::Stage(index) => match places.get(index) {
                    Some(base) => {
                        nodes[*base].is_base = true;
                        StageBase::Stage(*base)
                    }
                    None => StageBase::Scratch,
                },
            };
            places.insert(stage.index, place);
            if !stage.name.is_empty() {
                names.entry(stage.name.clone()).or_default().push(place);
            }
            nodes.push(Node { base, is_base: false, first_step: next });
            next += 1 + stage.instructions.len();
        }
        StageGraph { nodes, places, names }
    }

    /// What a stage begins with.
    pub(super) fn base(&self, stage: usize) -> StageBase {
        self.nodes[stage].base
    }

    /// Whether another stage begins with this one.
    pub(super) fn is_base(&self, stage: usize) -> bool {
        self.nodes[stage].is_base
    }

    /// The number of a stage's `FROM` among the steps, from 1.
    pub(super) fn first_step(&self, stage: usize) -> usize {
        self.nodes[stage].first_step
    }

    /// The stage that `--from` means in another one: one before it in the plan. `None` where that is an image.
    pub(super) fn named(&self, stage: usize, from: &str) -> Option<usize> {
        let earlier = |places: &Vec<usize>| {
            let count = places.partition_point(|place| *place < stage);
            places[..count].last().copied()
        };
        let named = self.names.get(&from.to_lowercase()).and_then(earlier);
        let number = || {
            let place = *self.places.get(&from.parse().ok()?)?;
            (place < stage).then_some(place)
        };
        named.or_else(number)
    }
}

/// What is copied from the context.
pub(super) fn needed(plan: &Plan) -> Needed {
    let mut paths = Vec::new();
    for instruction in plan.stages.iter().flat_map(instructions) {
        match &instruction.kind {
            Kind::Copy(files) | Kind::Add(files) if files.from.is_empty() => paths.extend(sources(files)),
            Kind::Run(run) => paths.extend(run.mounts.iter().filter(|mount| shows_context(mount)).map(shown_path)),
            // Nobody knows what an image asks for, until it is there.
            _ => {}
        }
    }
    of_paths(paths)
}

/// All that is done for a stage, as far as it is known.
fn instructions(stage: &PlannedStage) -> impl Iterator<Item = &Instruction> {
    stage.triggers.iter().chain(&stage.instructions)
}

fn of_paths(mut paths: Vec<String>) -> Needed {
    paths.sort();
    paths.dedup();
    match &paths[..] {
        [] => Needed::Nothing,
        paths if paths.iter().any(|path| path.is_empty() || path.contains('$')) => Needed::All,
        paths => Needed::Paths(paths.to_vec()),
    }
}

/// A named context that a plan takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UsedContext {
    /// Its whole name.
    pub(super) name: String,
    pub(super) platform: String,
    /// Which files of it are taken.
    pub(super) needed: Needed,
    /// Whether a stage begins with it.
    pub(super) is_base: bool,
}

/// The named contexts that a plan takes, each once; `find` answers the whole name of one by its name and platform.
pub(super) fn named(plan: &Plan, platform: &str, find: impl Fn(&str, &str) -> Option<String>) -> Vec<UsedContext> {
    let mut all: Vec<UsedContext> = Vec::new();
    let mut take = |name: &str, own: &str, paths: Option<Vec<String>>| {
        let platform = if own.is_empty() { platform } else { own };
        let Some(name) = find(name, platform) else { return };
        let used = match all.iter_mut().position(|used| used.name == name) {
            Some(place) => &mut all[place],
            None => {
                let (platform, needed) = (platform.to_owned(), Needed::Paths(Vec::new()));
                all.push(UsedContext { name, platform, needed, is_base: false });
                all.last_mut().expect("it has just been pushed")
            }
        };
        used.is_base |= paths.is_none();
        match (&mut used.needed, paths) {
            (Needed::Paths(known), Some(more)) => known.extend(more),
            (needed, _) => *needed = Needed::All,
        }
    };
    for stage in &plan.stages {
        if let Base::Image(name) = &stage.base {
            take(name, &stage.platform, None);
        }
        for instruction in instructions(stage) {
            match &instruction.kind {
                Kind::Copy(files) => take(&files.from, "", Some(sources(files).collect())),
                Kind::Run(run) => {
                    run.mounts.iter().for_each(|mount| take(&mount.from, "", Some(vec![shown_path(mount)])));
                }
                _ => {}
            }
        }
    }
    for used in &mut all {
        used.needed = match std::mem::replace(&mut used.needed, Needed::All) {
            Needed::Paths(paths) => of_paths(paths),
            needed => needed,
        };
    }
    all
}

/// Whether a mount, whose variables are not known yet, may show files of the context.
fn shows_context(mount: &Mount) -> bool {
    mount.kind == MountKind::Bind && mount.from.is_empty()
}

fn shown_path(mount: &Mount) -> String {
    engine_api::paths::clean(&format!("/{}", mount.source))[1..].to_owned()
}

fn sources(files: &Files) -> impl Iterator<Item = String> {
    let is_remote = |source: &&String| source.contains("://") || source.starts_with("git@");
    let paths = files.sources.iter().filter(move |source| !is_remote(source));
    paths.map(|source| engine_api::paths::clean(&format!("/{source}"))[1..].to_owned())
}

#[cfg(test)]
mod tests {
    use builder::{Arguments, Wanted};

    use super::*;

    fn plan(text: &str) -> Plan {
        let dockerfile = dockerfile::parse(text).unwrap();
        builder::plan(&dockerfile, &Wanted::default(), &Arguments::default()).unwrap()
    }

    #[test]
    fn only_files_that_are_copied_are_needed() {
        let paths = |paths: &[&str]| Needed::Paths(paths.iter().map(|path| (*path).to_owned()).collect());
        for (text, wanted) in [
            ("FROM a\nRUN b\n", Needed::Nothing),
            ("FROM a\nCOPY x ./y/../z /to/\nADD *.c /\n", paths(&["*.c", "x", "z"])),
            ("FROM a AS b\nFROM c\nCOPY --from=b x y\n", Needed::Nothing),
            ("FROM a\nCOPY . .\n", Needed::All),
            ("FROM a\nCOPY x /\nCOPY $X /\n", Needed::All),
            ("FROM a\nADD https://x/y /\n", Needed::Nothing),
            ("FROM a AS unused\nCOPY . .\nFROM b\nCOPY x /\n", paths(&["x"])),
            ("FROM a\nRUN --mount=target=/x b\n", Needed::All),
            ("FROM a\nRUN --mount=target=/x,source=y/./z b\n", paths(&["y/z"])),
            ("FROM a\nRUN --mount=target=/x,src=$Y b\n", Needed::All),
            ("FROM a\nRUN --mount=type=$Y,target=/x,src=z b\n", paths(&["z"])),
            ("FROM a\nRUN --mount=type=cache,target=/x --mount=type=secret,id=y --mount=type=ssh b\n", Needed::Nothing),
            ("FROM a AS c\nFROM a\nRUN --mount=from=c,target=/x b\n", Needed::Nothing),
            ("FROM a AS c\nONBUILD COPY x /\nFROM c\n", paths(&["x"])),
            ("FROM a\nONBUILD COPY x /\n", Needed::Nothing),
        ] {
            assert_eq!(needed(&plan(text)), wanted, "{text}");
        }
    }

    #[test]
    fn of_named_contexts_what_is_taken_is_needed() {
        let text = "FROM a AS one\nCOPY --from=n x y /\nRUN --mount=from=n,source=z,target=/m b\nFROM m\n\
                    COPY --from=one x /\nCOPY --from=k . /\nCOPY w /\nCOPY --from=m w /\n";
        let used = named(&plan(text), "p", |name, _| ["n", "m", "k"].contains(&name).then(|| name.to_owned()));
        let told =
            used.iter().map(|used| format!("{} {} {:?} {}", used.name, used.platform, used.needed, used.is_base));
        let wanted = ["n p Paths([\"x\", \"y\", \"z\"]) false", "m p All true", "k p All false"];
        assert_eq!(told.collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn parts_are_named_as_buildkit_does() {
        let names = |text: &str| {
            let (plan, dockerfile) = (plan(text), dockerfile::parse(text).unwrap());
            let mut all = Vec::new();
            for stage in &plan.stages {
                let mut names = Names::new(stage, is_alone(&dockerfile));
                if let Base::Image(image) = &stage.base {
                    all.push(names.next(&format!("from {image}")));
                }
                let parts = stage.instructions.iter().filter(|instruction| is_part(instruction));
                all.extend(parts.map(|instruction| names.next(&instruction.original)));
            }
            all.join("\n")
        };
        assert_eq!(names("FROM a\nENV x=y\nrun b\nWORKDIR /c\n"), "[1/3] FROM a\n[2/3] RUN b\n[3/3] WORKDIR /c");
        let text = "FROM a AS one\nRUN b\nFROM one\nCOPY --from=one x y\nFROM scratch\nCOPY --from=1 x y\n";
        let wanted =
            "[one 1/2] FROM a\n[one 2/2] RUN b\n[stage-1 1/1] COPY --from=one x y\n[stage-2 1/1] COPY --from=1 x y";
        assert_eq!(names(text), wanted);
        assert_eq!(names("FROM a\nRUN --mount=type=cache,target=/c b\n").lines().next(), Some("[stage-0 1/2] FROM a"));
        assert_eq!(names("FROM a\nCOPY --from=b c d\n").lines().next(), Some("[stage-0 1/2] FROM a"));
        let long = format!("FROM a\n{}", "RUN b\n".repeat(10));
        assert!(names(&long).starts_with("[ 1/11] FROM a\n[ 2/11] RUN b\n") && names(&long).ends_with("[11/11] RUN b"));
    }

    #[test]
    fn variables_that_are_known_are_shown() {
        let value = |name: &str| (name == "A").then(|| "x".to_owned());
        for (text, wanted) in [
            ("RUN echo $A ${A}b \"$A\" $Ab", "RUN echo x xb \"x\" $Ab"),
            ("RUN '$A' \\$A $B ${B} ${A:-c} $", "RUN '$A' \\$A $B ${B} ${A:-c} $"),
            ("RUN ä$A\\ä", "RUN äx\\ä"),
        ] {
            assert_eq!(shown(text, &value), wanted);
        }
    }

    #[test]
    fn parts_are_called_as_buildkit_calls_them() {
        let value = |name: &str| (name == "A").then(|| "x".to_owned());
        for (text, wanted) in [
            ("RUN <<EOF\nset -e\nfalse\nEOF\n", "RUN <<EOF (set -e...)"),
            ("RUN <<EOF\n\n $A\nEOF\n", "RUN <<EOF ($A)"),
            ("RUN cat <<EOF\na\nEOF\n", "RUN cat <<EOF"),
            ("RUN echo \"$A\"\n", "RUN echo \"x\""),
            ("COPY <<A <<\"B\" /d/\na\nA\nb\nB\n", "COPY <<A <<B /d/"),
            ("COPY [\"a\", \"/with space/$A\"]\n", "COPY [a, /with space/x]"),
            ("WORKDIR \"/a b\"\n", "WORKDIR /a b"),
            ("COPY a$B /b\n", "COPY a /b"),
        ] {
            let plan = plan(&format!("FROM a\n{text}"));
            assert_eq!(part_words(&plan.stages[0].instructions[0], '\\', &value), wanted, "{text}");
        }
    }

    #[test]
    fn passwords_are_not_told() {
        for (text, wanted) in [
            ("ADD http://a:b@h/x\thttps://c:d:e@f@h?y /z", "ADD http://a:***@h/x\thttps://c:***@h?y /z"),
            ("ADD [\"ssh://:b@h#x\", \"/\"]\n", "ADD [\"ssh://:***@h#x\", \"/\"]\n"),
            ("ADD http://a@h/x git@h:p http://h/a:b@c a:b@c /", "ADD http://a@h/x git@h:p http://h/a:b@c a:b@c /"),
        ] {
            assert_eq!(without_passwords(text), wanted);
        }
    }

    #[test]
    fn stages_know_each_other() {
        let text = "ARG A\nFROM a AS x\nRUN 1\nFROM scratch\nFROM a\nFROM x AS y\nCOPY --from=0 / /\nFROM a AS unused\n\
                    FROM b\nCOPY --from=1 / /\nCOPY --from=2 / /\nCOPY --from=y / /\n";
        let plan = plan(text);
        let graph = StageGraph::new(&plan, 1);
        let bases: Vec<StageBase> = (0..plan.stages.len()).map(|stage| graph.base(stage)).collect();
        let (image, other) = (StageBase::Image, StageBase::ImageOf(0));
        assert_eq!(bases, [image, StageBase::Scratch, other, StageBase::Stage(0), image]);
        assert_eq!([graph.is_base(0), graph.is_base(3)], [true, false]);
        let steps: Vec<usize> = (0..plan.stages.len()).map(|stage| graph.first_step(stage)).collect();
        assert_eq!(steps, [2, 4, 5, 6, 8]);
        assert_eq!([graph.named(4, "Y"), graph.named(4, "3"), graph.named(4, "4")], [Some(3), Some(3), None]);
        // A stage is known only to those behind it.
        assert_eq!([graph.named(3, "y"), graph.named(3, "x"), graph.named(3, "z")], [None, Some(0), None]);
    }

    #[test]
    fn images_of_copies_and_mounts_are_known() {
        let text = "FROM a AS b\nCOPY --from=c x y\nFROM d\nCOPY --from=b x y\nCOPY --from=c x y\nCOPY --from=0 x y\n\
                    RUN --mount=from=e,target=/x --mount=target=/y f\nCOPY --from=scratch x y\n";
        let plan = plan(text);
        let wanted = [(2, "c".to_owned()), (7, "e".to_owned())];
        assert_eq!(copied(&plan, &StageGraph::new(&plan, 0)), wanted);
    }

    #[test]
    fn images_are_looked_up_once() {
        let images =
            images(&plan("FROM a AS b\nFROM a AS d\nCOPY --from=b x y\nFROM --platform=p c\nCOPY --from=d x y\n"));
        let image = |name: &str, platform: &str, first| WantedBase {
            name: name.to_owned(),
            platform: platform.to_owned(),
            first,
        };
        assert_eq!(images, [image("a", "", 0), image("c", "p", 2)]);
    }

    /// As many as a Dockerfile has room for with short names, a fifth of that: a look at all of them for each is minutes.
    #[test]
    fn many_stages_are_put_together_in_bounded_time() {
        const STAGES: usize = 80_000;
        let stage = |number: usize| match number {
            0 => "FROM a0 AS s0\n".to_owned(),
            _ => format!("FROM a{number} AS s{number}\nCOPY --from={} / /\n", number - 1),
        };
        let plan = plan(&(0..STAGES).map(stage).collect::<String>());
        let begun = std::time::Instant::now();
        assert_eq!(images(&plan).len(), STAGES);
        let graph = StageGraph::new(&plan, 0);
        for stage in 1..STAGES {
            assert_eq!(graph.named(stage, &(stage - 1).to_string()), Some(stage - 1));
            assert_eq!(graph.named(stage, &format!("s{}", stage - 1)), Some(stage - 1));
            assert_eq!(graph.named(stage, &format!("s{stage}")), None);
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
    }
}
