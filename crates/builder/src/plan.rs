//! Which stages are solved, and in which order.

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
    #[error("base name ({0}) should not be blank")]
    BlankBase(String),
    /// The name of a base can be that of no image. BuildKit's sentence.
    #[error("failed to parse stage name {name:?}: {source}")]
    BaseName {
        /// As it is named.
        name: String,
        /// Why.
        source: ReferenceError,
    },
    /// A stage copies from itself.
    #[error("invalid from flag value {0}: refers to current build stage")]
    FromItself(String),
    /// A stage copies from one that does not exist.
    #[error("invalid from flag value {0}: index out of bounds")]
    FromNowhere(String),
    /// There are no stages.
    #[error("No image was generated. Is your Dockerfile empty?")]
    NoStage,
}

impl PlanError {
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
    for (index, stage) in dockerfile.stages[..=target].iter().enumerate() {
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
            None if base.is_empty() => return Err(PlanError::BlankBase(stage.base.clone())),
            None if base == "scratch" => Base::Scratch,
            None => Base::Image(base),
        };
        let mut needed: BTreeSet<usize> = sources(&stage.instructions, index, &names)?;
        if let Base::Stage(other) = base {
            needed.insert(other);
        }
        if !stage.name.is_empty() && names.insert(&stage.name, index).is_some() && !wanted.same_names {
            return Err(PlanError::NameTaken(stage.name.clone()));
        }
        needs.push(needed);
        stages.push(PlannedStage {
            index,
            name: stage.name.clone(),
            base,
            platform,
            original: stage.original.clone(),
            instructions: stage.instructions.clone(),
            added: 0,
        });
    }
    let reached = reached(target, &needs);
    stages.retain(|stage| reached.contains(&stage.index));
    if wanted.same_names {
        stages.iter().try_for_each(check_base)?;
    }
    if let Some(last) = stages.last_mut() {
        last.added = wanted.labels.len();
        last.instructions.extend(wanted.labels.iter().map(|(name, value)| label(name, value)));
    }
    let steps = stages.iter().map(|stage| 1 + stage.instructions.len()).sum::<usize>();
    Ok(Plan { steps: steps + dockerfile.arguments.len(), stages })
}

/// Refuses the name of an image that can be none.
fn check_base(stage: &PlannedStage) -> Result<(), PlanError> {
    let Base::Image(name) = &stage.base else { return Ok(()) };
    let checked = name.parse::<Reference>();
    checked.map(drop).map_err(|source| PlanError::BaseName { name: name.clone(), source })
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

/// The stages whose files are copied or mounted.
fn sources(
    instructions: &[Instruction],
    own: usize,
    names: &BTreeMap<&str, usize>,
) -> Result<BTreeSet<usize>, PlanError> {
    let mut needed = BTreeSet::new();
    for instruction in instructions {
        let from: Vec<&str> = match &instruction.kind {
            Kind::Copy(files) => vec![&files.from],
            Kind::Run(run) => run.mounts.iter().map(|mount| mount.from.as_str()).collect(),
            _ => continue,
        };
        for from in from.into_iter().filter(|from| !from.is_empty()) {
            let number = from.parse::<usize>().ok();
            match names.get(from.to_lowercase().as_str()).copied().or(number) {
                None => {}
                Some(index) if index < own => drop(needed.insert(index)),
                Some(index) if index == own => return Err(PlanError::FromItself(from.to_owned())),
                Some(_) => return Err(PlanError::FromNowhere(from.to_owned())),
            }
        }
    }
    Ok(needed)
}

fn reached(target: usize, needs: &[BTreeSet<usize>]) -> BTreeSet<usize> {
    let (mut reached, mut todo) = (BTreeSet::new(), vec![target]);
    while let Some(index) = todo.pop() {
        if reached.insert(index) {
            todo.extend(&needs[index]);
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
        assert_eq!(of(true).unwrap_err().to_string(), wanted);
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
