//! What the lines show by themselves.

use std::collections::BTreeSet;

use dockerfile::{Dockerfile, Instruction, Kind, Stage, Wrong};

use crate::report::{Lines, Warner};
use crate::rules;

/// The lines of an instruction.
pub(crate) fn lines(instruction: &Instruction) -> Lines {
    (instruction.line, instruction.end)
}

/// The lines of a stage's `FROM`.
pub(crate) fn from_lines(stage: &Stage) -> Lines {
    (stage.line, stage.end)
}

/// What shows while a text is read, one line after the other.
pub(crate) fn while_read(dockerfile: &Dockerfile, warner: &mut Warner) {
    for empty in &dockerfile.empty_continuations {
        warner.warn(&rules::NO_EMPTY_CONTINUATION, (empty.line, empty.line), "Empty continuation line");
    }
    dockerfile.arguments.iter().for_each(|instruction| of_instruction(instruction, warner));
    for stage in &dockerfile.stages {
        of_from(stage, warner);
        stage.instructions.iter().for_each(|instruction| of_instruction(instruction, warner));
    }
}

/// What shows at the instruction that is none.
pub(crate) fn where_wrong(wrong: &Wrong, warner: &mut Warner) {
    wrong.stage.iter().for_each(|stage| of_from(stage, warner));
    wrong.instruction.iter().for_each(|instruction| of_instruction(instruction, warner));
}

/// What shows of a text that was read.
pub(crate) fn when_read(dockerfile: &Dockerfile, warner: &mut Warner) {
    stage_names(dockerfile, warner);
    instruction_casing(dockerfile, warner);
}

fn of_instruction(instruction: &Instruction, warner: &mut Warner) {
    match &instruction.kind {
        Kind::Maintainer(_) => warner.warn(
            &rules::MAINTAINER_DEPRECATED,
            lines(instruction),
            "Maintainer instruction is deprecated in favor of using label",
        ),
        Kind::Arg(args) => {
            let names: Vec<&str> = args.iter().map(|arg| arg.name.as_str()).collect();
            description("ARG", &names, &instruction.comments, lines(instruction), warner);
        }
        _ => {}
    }
}

fn of_from(stage: &Stage, warner: &mut Warner) {
    if let Some((word, name)) = &stage.alias {
        if *name != name.to_lowercase() {
            let detail = format!("Stage name '{name}' should be lowercase");
            warner.warn(&rules::STAGE_NAME_CASING, from_lines(stage), detail);
        }
        if !same_casing(&stage.keyword, word) {
            let detail = format!("'{word}' and '{}' keywords' casing do not match", stage.keyword);
            warner.warn(&rules::FROM_AS_CASING, from_lines(stage), detail);
        }
    }
    if !stage.name.is_empty() {
        description("FROM", &[&stage.name], &stage.comments, from_lines(stage), warner);
    }
}

/// Whether `AS` is written as `FROM` is, if that has one casing.
fn same_casing(from: &str, word: &str) -> bool {
    match from {
        from if from == from.to_lowercase() => word == word.to_lowercase(),
        from if from == from.to_uppercase() => word == word.to_uppercase(),
        _ => true,
    }
}

/// A comment above something that has a name begins with that name.
fn description(instruction: &str, names: &[&str], comments: &[String], lines: Lines, warner: &mut Warner) {
    let Some(last) = comments.last() else { return };
    let first = last.split(' ').next().unwrap_or_default();
    if names.contains(&first) {
        return;
    }
    let name = match names {
        [name] => name,
        _ => "<arg_key>",
    };
    let detail = format!("Comment for {instruction} should follow the format: `# {name} <description>`");
    warner.warn(&rules::INVALID_DEFINITION_DESCRIPTION, lines, detail);
}

fn stage_names(dockerfile: &Dockerfile, warner: &mut Warner) {
    let mut names = BTreeSet::new();
    for stage in dockerfile.stages.iter().filter(|stage| !stage.name.is_empty()) {
        let name = &stage.name;
        if matches!(name.as_str(), "context" | "scratch") {
            let detail = format!("Stage name should not use the same name as reserved stage {name:?}");
            warner.warn(&rules::RESERVED_STAGE_NAME, from_lines(stage), detail);
        }
        if !names.insert(name) {
            let detail = format!("Duplicate stage name {name:?}, stage names should be unique");
            warner.warn(&rules::DUPLICATE_STAGE_NAME, from_lines(stage), detail);
        }
    }
}

/// Every name of an instruction is written as most of them are.
fn instruction_casing(dockerfile: &Dockerfile, warner: &mut Warner) {
    let names = || {
        dockerfile.stages.iter().flat_map(|stage| {
            let from = [(stage.keyword.as_str(), from_lines(stage))];
            let own = stage.instructions.iter().map(|instruction| (instruction.name.as_str(), lines(instruction)));
            from.into_iter().chain(own)
        })
    };
    let lower = names().filter(|(name, _)| *name == name.to_lowercase()).count();
    let upper = names().filter(|(name, _)| *name == name.to_uppercase() && *name != name.to_lowercase()).count();
    let (is_right, wanted): (fn(&str) -> bool, _) = match lower > upper {
        true => (|name| name == name.to_lowercase(), "lowercase"),
        false => (|name| name == name.to_uppercase(), "uppercase"),
    };
    for (name, lines) in names().filter(|(name, _)| !is_right(name)) {
        warner.warn(&rules::CONSISTENT_INSTRUCTION_CASING, lines, rules::casing(name, wanted));
    }
}
