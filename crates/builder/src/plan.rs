//! Which stages are solved, and in which order.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use dockerfile::{Dockerfile, Instruction, Kind, Pair, expand};
use errdefs::ErrorKind;
use oci::{Reference, ReferenceError};

use crate::args::Arguments;

/// What the user wants of a Dockerfile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// A stage's name or number; empty for the last one.
    pub target: String,
    /// Labels of the outcome.
    pub labels: BTreeMap<String, String>,
    /// Whether names are BuildKit's. Several stages may have one, of which the last one counts: it only warns. A `FROM`
    /// means a stage in lower case alone, and what is no stage has to be the name of an image.
    pub same_names: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many steps there are, with the arguments and the `FROM`s.
    pub steps: usize,
    /// The stages, each behind those that it needs; the last one is the outcome.
    pub stages: Vec<PlannedStage>,
}

/// A stage that is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedStage {
    /// Its place in the Dockerfile, from 0: a number that `--from` may name.
    pub index: usize,
    /// Its name; empty for none.
    pub name: String,
    /// What it begins with.
    pub base: Base,
    /// The wanted platform; empty for any.
    pub platform: String,
    /// Its `FROM`, as written.
    pub original: String,
    /// Its instructions.
    pub instructions: Vec<Instruction>,
    /// What the stage that it begins with asks for (`ONBUILD`). What an image asks for is known when that is here.
    pub triggers: Vec<Instruction>,
    /// How many of the last ones the user asked for beside the Dockerfile: their variables are none.
    pub added: usize,
}

/// What a stage begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// An image of that name.
    Image(String),
    /// Another stage, by its place in the Dockerfile.
    Stage(usize),
}

/// Why nothing can be planned. The sentences are dockerd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The target is none.
    #[error("target stage {0:?} could not be found")]
    Target(String),
    /// Two stages have one name.
    #[error("{0} stage name already used")]
    NameTaken(String),
    /// A variable cannot be replaced.
    #[error(transparent)]
    Expand(#[from] dockerfile::Fault),
    /// Nothing is left of a base's name.
    #[error("base name ({name}) should not be blank")]
    BlankBase {
        /// As it is written.
        name: String,
        /// The line of its `FROM`.
        line: usize,
    },
    /// The name of a base can be that of no image. BuildKit's sentence.
    #[error("failed to parse stage name {name:?}")]
    BaseName {
        /// As it is named.
        name: String,
        /// The line of its `FROM`.
        line: usize,
        /// Why.
        source: ReferenceError,
    },
    /// A stage copies from itself.
    #[error("invalid from flag value {0}: refers to current build stage")]
    FromItself(String),
    /// A stage copies from one that does not exist.
    #[error("invalid from flag value {0}: index out of bounds")]
    FromNowhere(String),
    /// The same in BuildKit's words.
    #[error("invalid stage index {0}")]
    StageIndex(usize),
    /// A stage needs itself. BuildKit's sentence.
    #[error("circular dependency detected on stage: {0}")]
    Circular(String),
    /// A stage copies from one behind it. BuildKit's sentence.
    #[error("cannot copy from stage {from:?}, it needs to be defined before current stage {stage:?}")]
    CopyFromLater {
        /// As it is named.
        from: String,
        /// The stage that copies.
        stage: String,
    },
    /// A command mounts one behind it. BuildKit's sentence.
    #[error("cannot mount from stage {from:?} to {target:?}, stage needs to be defined before current command")]
    MountFromLater {
        /// As it is named.
        from: String,
        /// Where to.
        target: String,
    },
    /// There are no stages.
    #[error("No image was generated. Is your Dockerfile empty?")]
    NoStage,
}

impl PlanError {
    /// The line of the Dockerfile that is to blame, from 1; 0 if that is none.
    pub fn line(&self) -> usize {
        match self {
            PlanError::BlankBase { line, .. } | PlanError::BaseName { line, .. } => *line,
            _ => 0,
        }
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            PlanError::Target(_) | PlanError::Expand(_) => ErrorKind::InvalidArgument,
            _ => ErrorKind::Internal,
        }
    }
}

/// The longest name of a base.
const BASE_MAX: usize = 4096;

/// The stages that the target needs.
pub fn plan(dockerfile: &Dockerfile, wanted: &Wanted, arguments: &Arguments) -> Result<Plan, PlanError> {
    let target = target(dockerfile, wanted)?;
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut stages, mut needs) = (Vec::new(), Vec::new());
    // BuildKit looks at all stages, and names the one behind that another would copy from.
    let considered = if wanted.same_names { &dockerfile.stages[..] } else { &dockerfile.stages[..=target] };
    for (index, stage) in considered.iter().enumerate() {
        let lookup = |name: &str| arguments.global(name);
        let base = expand(&stage.base, dockerfile.escape, &lookup)?;
        let platform = expand(&stage.platform, dockerfile.escape, &lookup)?;
        // No image has such a name, and there may be many stages.
        if base.len().max(platform.len()) > BASE_MAX {
            return Err(PlanError::Expand(dockerfile::Fault::TooLong));
        }
        let known = if wanted.same_names { base.clone() } else { base.to_lowercase() };
        let base = match names.get(known.as_str()) {
            Some(stage) => Base::Stage(*stage),
            None if base.is_empty() => {
                return Err(PlanError::BlankBase { name: stage.base.clone(), line: stage.line });
            }
            None if base == "scratch" => Base::Scratch,
            None => Base::Image(base),
        };
        let asked_for = match base {
            Base::Stage(other) => triggers(&dockerfile.stages[other].instructions),
            _ => Vec::new(),
        };
        let stage_of = PlannedStage {
            index,
            name: stage.name.clone(),
            base,
            platform,
            original: stage.original.clone(),
            instructions: stage.instructions.clone(),
            triggers: asked_for,
            added: 0,
        };
        if !wanted.same_names {
            needs.push(needed(&stage_of, &names, &earlier(index))?);
        }
        stages.push(stage_of);
        if !stage.name.is_empty() && names.insert(&stage.name, index).is_some() && !wanted.same_names {
            return Err(PlanError::NameTaken(stage.name.clone()));
        }
    }
    if wanted.same_names {
        let any = any(stages.len());
        needs = stages.iter().map(|stage| needed(stage, &names, &any)).collect::<Result<_, _>>()?;
    }
    let reached = reached(target, &needs);
    if let Some(stage) = circle(&needs) {
        return Err(PlanError::Circular(shown(&stages[stage])));
    }
    stages.retain(|stage| reached.contains(&stage.index));
    stages.iter().try_for_each(|stage| check_order(stage, &needs[stage.index]))?;
    if wanted.same_names {
        stages.iter().try_for_each(|stage| check_base(stage, dockerfile.stages[stage.index].line))?;
    }
    if let Some(last) = stages.last_mut() {
        last.added = wanted.labels.len();
        last.instructions.extend(wanted.labels.iter().map(|(name, value)| label(name, value)));
    }
    let steps = stages.iter().map(|stage| 1 + stage.instructions.len()).sum::<usize>();
    Ok(Plan { steps: steps + dockerfile.arguments.len(), stages })
}

/// Refuses the name of an image that can be none.
fn check_base(stage: &PlannedStage, line: usize) -> Result<(), PlanError> {
    let Base::Image(name) = &stage.base else { return Ok(()) };
    let checked = name.parse::<Reference>();
    checked.map(drop).map_err(|source| PlanError::BaseName { name: name.clone(), line, source })
}

fn target(dockerfile: &Dockerfile, wanted: &Wanted) -> Result<usize, PlanError> {
    let name = wanted.target.as_str();
    let last = dockerfile.stages.len().checked_sub(1);
    if name.is_empty() {
        return last.ok_or(PlanError::NoStage);
    }
    let is_named = |stage: &dockerfile::Stage| stage.name.eq_ignore_ascii_case(name);
    let named = match wanted.same_names {
        true => dockerfile.stages.iter().rposition(is_named),
        false => dockerfile.stages.iter().position(is_named),
    };
    named.ok_or_else(|| PlanError::Target(name.to_owned()))
}

/// What a stage asks of those that begin with it. What is no instruction is refused when its turn comes.
fn triggers(instructions: &[Instruction]) -> Vec<Instruction> {
    let asked_for = instructions.iter().filter_map(|instruction| match &instruction.kind {
        Kind::OnBuild(trigger) => dockerfile::parse_trigger(trigger).ok(),
        _ => None,
    });
    asked_for.collect()
}

/// A stage as it is named to people, who may not have named it.
fn shown(stage: &PlannedStage) -> String {
    if stage.name.is_empty() { format!("stage-{}", stage.index) } else { stage.name.clone() }
}

/// Which numbers of `--from` are a stage's in the stage of that number: those before it.
fn earlier(own: usize) -> impl Fn(&str, usize) -> Result<(), PlanError> {
    move |from, index| match index.cmp(&own) {
        Ordering::Less => Ok(()),
        Ordering::Equal => Err(PlanError::FromItself(from.to_owned())),
        Ordering::Greater => Err(PlanError::FromNowhere(from.to_owned())),
    }
}

/// The same with BuildKit: all that there are.
fn any(stages: usize) -> impl Fn(&str, usize) -> Result<(), PlanError> {
    move |_, index| if index < stages { Ok(()) } else { Err(PlanError::StageIndex(index)) }
}

/// What a stage takes of another one; nothing is said of the one that it begins with.
#[derive(Clone, Debug, Default)]
struct Taken {
    from: String,
    /// Where to that is mounted.
    target: Option<String>,
}

/// What a stage needs, by number.
type Needs = BTreeMap<usize, Taken>;

/// Refuses what stands behind a stage that needs it.
fn check_order(stage: &PlannedStage, needs: &Needs) -> Result<(), PlanError> {
    match needs.range(stage.index + 1..).next() {
        None => Ok(()),
        Some((_, Taken { from, target: Some(target) })) => {
            Err(PlanError::MountFromLater { from: from.clone(), target: target.clone() })
        }
        Some((_, Taken { from, target: None })) => {
            Err(PlanError::CopyFromLater { from: from.clone(), stage: shown(stage) })
        }
    }
}

/// The stages that one begins with, and whose files are copied or mounted.
fn needed(
    stage: &PlannedStage,
    names: &BTreeMap<&str, usize>,
    check: &dyn Fn(&str, usize) -> Result<(), PlanError>,
) -> Result<Needs, PlanError> {
    let mut needed = Needs::new();
    if let Base::Stage(base) = stage.base {
        needed.insert(base, Taken::default());
    }
    for instruction in stage.triggers.iter().chain(&stage.instructions) {
        let from: Vec<(&str, Option<&str>)> = match &instruction.kind {
            Kind::Copy(files) => vec![(&files.from, None)],
            Kind::Run(run) => {
                run.mounts.iter().map(|mount| (mount.from.as_str(), Some(mount.target.as_str()))).collect()
            }
            _ => continue,
        };
        for (from, target) in from.into_iter().filter(|(from, _)| !from.is_empty()) {
            let number = from.parse::<usize>().ok();
            if let Some(index) = names.get(from.to_lowercase().as_str()).copied().or(number) {
                check(from, index)?;
                let taken = Taken { from: from.to_owned(), target: target.map(str::to_owned) };
                needed.entry(index).or_insert(taken);
            }
        }
    }
    Ok(needed)
}

/// The first stage that leads to one that needs itself. There may be a hundred thousand, each of which needs the next.
fn circle(needs: &[Needs]) -> Option<usize> {
    let (mut begun, mut ended) = (vec![false; needs.len()], vec![false; needs.len()]);
    for first in 0..needs.len() {
        let mut todo = vec![first];
        while let Some(&stage) = todo.last() {
            let open = || needs[stage].keys().filter(|needed| !ended[**needed]);
            match (begun[stage], open().next()) {
                (_, None) => {
                    ended[stage] = true;
                    todo.pop();
                }
                // All that it needs has had its turn, and one has not ended: that waits for this one.
                (true, Some(_)) => return Some(first),
                (false, _) => {
                    begun[stage] = true;
                    todo.extend(open());
                }
            }
        }
    }
    None
}

fn reached(target: usize, needs: &[Needs]) -> BTreeSet<usize> {
    let (mut reached, mut todo) = (BTreeSet::new(), vec![target]);
    while let Some(index) = todo.pop() {
        if reached.insert(index) {
            todo.extend(needs[index].keys());
        }
    }
    reached
}

/// `--label`.
fn label(name: &str, value: &str) -> Instruction {
    let pair = Pair { name: name.to_owned(), value: value.to_owned(), is_legacy: false };
    let (original, name) = (format!("LABEL {name}={value}"), "LABEL".to_owned());
    Instruction { original, line: 0, end: 0, name, comments: Vec::new(), kind: Kind::Label(vec![pair]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(text: &str, target: &str) -> Result<(usize, Vec<(usize, Base)>), String> {
        let dockerfile = dockerfile::parse(text).unwrap();
        let mut arguments = Arguments::default();
        dockerfile.meta_args().for_each(|arg| arguments.add_global(arg));
        let wanted = Wanted { target: target.to_owned(), ..Wanted::default() };
        let plan = plan(&dockerfile, &wanted, &arguments).map_err(|err| err.to_string())?;
        Ok((plan.steps, plan.stages.into_iter().map(|stage| (stage.index, stage.base)).collect()))
    }

    #[test]
    fn only_what_is_needed_is_planned() {
        let text = "ARG V=1\nFROM a:$V AS one\nRUN x\nFROM b AS two\nRUN y\nFROM one AS three\nCOPY --from=two / /\n\
                    FROM scratch\nCOPY --from=0 /a /b\nRUN --mount=from=three,target=/x z\n";
        let image = |name: &str| Base::Image(name.to_owned());
        assert_eq!(planned(text, "one"), Ok((3, vec![(0, image("a:1"))])));
        let all = vec![(0, image("a:1")), (1, image("b")), (2, Base::Stage(0)), (3, Base::Scratch)];
        assert_eq!(planned(text, ""), Ok((10, all)));
        assert_eq!(planned(text, "TWO"), Ok((3, vec![(1, image("b"))])));
        assert_eq!(planned("FROM a AS x\nFROM b\n", ""), Ok((1, vec![(1, image("b"))])));
        // What a stage asks for is needed by those alone that begin with it.
        let text = "FROM a AS x\nFROM b AS y\nONBUILD COPY --from=x / /\nFROM y AS z\n";
        assert_eq!(planned(text, "y"), Ok((2, vec![(1, image("b"))])));
        let all = vec![(0, image("a")), (1, image("b")), (2, Base::Stage(1))];
        assert_eq!(planned(text, "z"), Ok((4, all)));
    }

    #[test]
    fn of_stages_with_one_name_the_last_one_counts_where_there_may_be_several() {
        let dockerfile = dockerfile::parse("FROM a AS x\nFROM x AS X\nFROM b\nCOPY --from=x / /\n").unwrap();
        let of = |target: &str| {
            let wanted = Wanted { target: target.to_owned(), same_names: true, ..Wanted::default() };
            let plan = plan(&dockerfile, &wanted, &Arguments::default()).unwrap();
            plan.stages.into_iter().map(|stage| stage.index).collect::<Vec<_>>()
        };
        assert_eq!((of("x"), of("")), (vec![0, 1], vec![0, 1, 2]));
    }

    #[test]
    fn capitals_mean_no_stage_where_names_are_buildkits() {
        let dockerfile = dockerfile::parse("FROM a AS Base\nFROM Base\n").unwrap();
        let of = |same_names| plan(&dockerfile, &Wanted { same_names, ..Wanted::default() }, &Arguments::default());
        assert_eq!(of(false).unwrap().stages[1].base, Base::Stage(0));
        let wanted = "failed to parse stage name \"Base\": invalid reference format: repository name (library/Base) must be lowercase";
        assert_eq!(errdefs::chain(&of(true).unwrap_err()), wanted);
    }

    #[test]
    fn with_buildkit_stages_that_need_what_stands_behind_are_refused_in_its_words() {
        let of = |text: &str| {
            let wanted = Wanted { same_names: true, ..Wanted::default() };
            let plan = plan(&dockerfile::parse(text).unwrap(), &wanted, &Arguments::default());
            plan.map(|plan| plan.stages.len()).map_err(|err| err.to_string())
        };
        let later = |from: &str, stage: &str| {
            format!("cannot copy from stage \"{from}\", it needs to be defined before current stage \"{stage}\"")
        };
        for (text, wanted) in [
            ("FROM a AS me\nCOPY --from=me / /\n", "circular dependency detected on stage: me".to_owned()),
            ("FROM a\nCOPY --from=0 / /\n", "circular dependency detected on stage: stage-0".to_owned()),
            (
                "FROM a AS x\nCOPY --from=y / /\nFROM x AS y\nFROM b\n",
                "circular dependency detected on stage: x".to_owned(),
            ),
            ("FROM a\nFROM b AS y\nCOPY --from=2 / /\n", "invalid stage index 2".to_owned()),
            ("FROM a AS x\nCOPY --from=y / /\nFROM b AS y\nFROM x\n", later("y", "x")),
            (
                "FROM a\nCOPY --from=1 / /\nFROM b AS y\nCOPY --from=0 / /\n",
                "circular dependency detected on stage: stage-0".to_owned(),
            ),
            (
                "FROM a AS x\nRUN --mount=from=y,target=/t z\nFROM b AS y\nFROM x\n",
                "cannot mount from stage \"y\" to \"/t\", stage needs to be defined before current command".to_owned(),
            ),
        ] {
            assert_eq!(of(text), Err(wanted), "{text}");
        }
        // Nobody needs the one that does.
        assert_eq!(of("FROM a AS x\nCOPY --from=y / /\nFROM b AS y\n"), Ok(1));
        let long: String = (0..20_000).map(|stage| format!("FROM a\nCOPY --from={} / /\n", stage + 1)).collect();
        assert_eq!(of(&(long + "FROM b\n")), Ok(1));
    }

    #[test]
    fn what_cannot_be_planned_is_told() {
        for (text, target, wanted) in [
            ("FROM a\n", "b", "target stage \"b\" could not be found"),
            // Docker's flag takes no numbers, other than `--from`.
            ("FROM a\n", "0", "target stage \"0\" could not be found"),
            ("FROM a AS b\nFROM c AS b\n", "", "b stage name already used"),
            ("FROM $NONE\n", "", "base name ($NONE) should not be blank"),
            ("FROM a\nCOPY --from=0 a b\n", "", "invalid from flag value 0: refers to current build stage"),
            ("FROM a\nCOPY --from=7 a b\n", "", "invalid from flag value 7: index out of bounds"),
            ("ARG A\n", "", "No image was generated. Is your Dockerfile empty?"),
        ] {
            assert_eq!(planned(text, target), Err(wanted.to_owned()), "{text}");
        }
    }
}
