//! What can be refused before any step is done. Pure.
//!
//! BuildKit reads all instructions before it begins; we know variables only when their step comes. What has none is
//! looked at here: mounts of commands, and what downloads must be; for BuildKit's clients everything, and whether variables
//! are written as such.

use std::collections::{HashMap, HashSet};

use dockerfile::{Fault, Instruction, Kind};
use oci::image::ExecConfig;

use crate::args::Arguments;
use crate::plan::{Base, Plan, PlannedStage};
use crate::stage::{Stage, StepError};

/// Below which a relative path would be that climbs.
const DIRECTORY: &str = "/0/1/2/3/4/5/6/7/8/9";

/// How many bytes stages may have together that others begin with. What is above that is refused when its step comes.
const KNOWN_MAX: usize = 64 * 1024 * 1024;

/// The first instruction that will be refused: its line, from 1, and why.
pub fn refused(plan: &Plan, escape: char, buildkit: bool) -> Option<(usize, StepError)> {
    plan.stages.iter().find_map(|stage| {
        // What the user asked for beside the Dockerfile is taken as it is.
        let (own, _) = stage.instructions.split_at(stage.instructions.len() - stage.added);
        let read = own.iter().filter(|instruction| buildkit || is_read(instruction));
        read.filter_map(|instruction| Some((instruction.line, why(instruction, escape, buildkit)?))).next()
    })
}

/// The same with what variables stand for, as far as it is known what stages begin with: `base` answers what such an image
/// says. Only with BuildKit; dockerd's classic builder fails when the step comes.
pub fn refused_with(
    plan: &Plan,
    escape: char,
    arguments: &Arguments,
    base: &dyn Fn(&PlannedStage) -> Option<ExecConfig>,
) -> Option<(usize, StepError)> {
    let parents = plan.stages.iter().filter_map(|planned| match planned.base {
        Base::Stage(index) => Some(index),
        _ => None,
    });
    let parents: HashSet<usize> = parents.collect();
    let (mut known, mut bytes) = (HashMap::<usize, Stage>::new(), 0);
    for planned in &plan.stages {
        let begin = |config: &ExecConfig| Stage::begin(config, true, arguments.for_stage(), escape);
        let (mut stage, triggers) = match &planned.base {
            Base::Scratch => begin(&ExecConfig::default()),
            Base::Image(_) => match base(planned) {
                Some(config) => begin(&config),
                None => continue,
            },
            Base::Stage(index) => match known.get(index) {
                Some(stage) => (stage.child(), Vec::new()),
                None => continue,
            },
        };
        // What an image asks for that cannot be is told when its turn comes.
        let triggers = triggers.iter().map(|text| dockerfile::parse_trigger(text));
        let Ok(triggers) = triggers.collect::<Result<Vec<_>, _>>() else { continue };
        let mut asked = triggers.iter().chain(&planned.triggers);
        if asked.any(|instruction| stage.step(instruction, false).is_err()) {
            continue;
        }
        let (own, added) = planned.instructions.split_at(planned.instructions.len() - planned.added);
        for instruction in own {
            match stage.step(instruction, false) {
                // What is not allowed is refused where it is run.
                Ok(_) | Err(StepError::Option("security")) => {}
                Err(why) => return Some((instruction.line, why)),
            }
        }
        let is_whole = added.iter().all(|instruction| stage.step(instruction, true).is_ok());
        bytes += if parents.contains(&planned.index) { stage.bytes() } else { 0 };
        if is_whole && parents.contains(&planned.index) && bytes <= KNOWN_MAX {
            known.insert(planned.index, stage);
        }
    }
    None
}

fn why(instruction: &Instruction, escape: char, buildkit: bool) -> Option<StepError> {
    let has_variables = instruction.original.contains('$');
    let expanded = match instruction.expand(escape, &|_| None) {
        Err(why) => return (buildkit && is_written_wrongly(&why) || !has_variables).then(|| why.into()),
        Ok(_) if has_variables => return None,
        Ok(expanded) => expanded,
    };
    let mut stage = Stage::default();
    stage.buildkit = buildkit;
    stage.config.working_dir = DIRECTORY.to_owned();
    let why = stage.step(&expanded, true).err()?;
    let counts = match &why {
        StepError::Mount(_) | StepError::Checksum(_) | StepError::Fault(_) => true,
        // What is not allowed is refused where it is run.
        StepError::Option(option) => buildkit && *option != "security",
        _ => buildkit,
    };
    counts.then_some(why)
}

/// Whether dockerd's classic builder leaves it to us when it is refused.
fn is_read(instruction: &Instruction) -> bool {
    match &instruction.kind {
        Kind::Run(run) => !run.mounts.is_empty(),
        Kind::Add(files) => !files.checksum.is_empty(),
        _ => false,
    }
}

/// Whether it is wrong whatever the variables are.
fn is_written_wrongly(why: &Fault) -> bool {
    match why {
        Fault::Expand { why, .. } => is_written_wrongly(why),
        Fault::Unended(_) | Fault::MissingBrace | Fault::MissingSlash | Fault::BadSubstitution | Fault::Modifier(_) => {
            true
        }
        _ => false,
    }
}

/// Why BuildKit takes no command whose bytes are no text: the graph of its steps holds none. (dockerd's classic builder has
/// the bytes replaced, and so do we for both wherever else they stand.)
pub fn is_no_text(plan: &Plan) -> Option<StepError> {
    let instructions = plan.stages.iter().flat_map(|stage| &stage.instructions);
    let replaced = |text: &String| text.contains(char::REPLACEMENT_CHARACTER);
    let mut runs = instructions.filter_map(|instruction| match &instruction.kind {
        Kind::Run(run) => Some(&run.command),
        _ => None,
    });
    let found = runs.any(|line| line.words.iter().any(replaced) || line.files.iter().any(|file| replaced(&file.text)));
    found.then_some(StepError::NoText)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Wanted, plan};

    #[test]
    fn what_variables_stand_for_is_refused_before() {
        let told = |text: &str| {
            let dockerfile = dockerfile::parse(text).unwrap();
            let plan = plan(&dockerfile, &Wanted::default(), &Arguments::default()).unwrap();
            let base = |planned: &PlannedStage| match &planned.base {
                Base::Image(name) if name == "here" => Some(ExecConfig {
                    env: Some(vec!["E=9".to_owned()]),
                    on_build: Some(vec!["ENV O=x".to_owned()]),
                    ..ExecConfig::default()
                }),
                _ => None,
            };
            refused_with(&plan, '\\', &Arguments::default(), &base).map(|(line, why)| format!("{line} {why}"))
        };
        for (text, wanted) in [
            ("FROM scratch\nARG S=x\nRUN a\nSTOPSIGNAL $S\n", Some("4 invalid signal: x")),
            ("FROM here\nSTOPSIGNAL $E\nSTOPSIGNAL $O\n", Some("3 invalid signal: x")),
            ("FROM scratch AS a\nENV P=80/foo\nFROM a\nEXPOSE $P\n", Some("4 invalid proto: foo")),
            ("FROM scratch\nWORKDIR ${X:?no}\n", Some("2 failed to process \"${X:?no}\": X: no")),
            ("FROM scratch\nARG S=9\nSTOPSIGNAL $S\nRUN --security=insecure a\n", None),
            // Nobody knows what these begin with.
            ("FROM other AS a\nSTOPSIGNAL $X\nFROM a\nSTOPSIGNAL ${X:?no}\n", None),
        ] {
            assert_eq!(told(text).as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn what_will_be_refused_is_known_before() {
        let told_to = |buildkit: bool, lines: &str| {
            let dockerfile = dockerfile::parse(&format!("FROM a\n{lines}\n")).unwrap();
            let plan = plan(&dockerfile, &Wanted::default(), &Arguments::default()).unwrap();
            refused(&plan, '\\', buildkit).map(|(line, why)| format!("{line} {why}"))
        };
        let told = |lines: &str| told_to(false, lines);
        for (lines, wanted) in [
            ("RUN true\nRUN --mount=type=bind,size=5,target=/x true", "3 unexpected key 'size' for mount type 'bind'"),
            ("RUN --mount=target=/ true", "2 invalid mount target \"/\""),
            ("ADD --checksum=sha256:1 http://a/b /", "2 invalid checksum digest length"),
            ("ADD --checksum=sha256: http://a/b /", "2 invalid checksum digest format"),
            ("ADD --checksum=sha256:1 a /", "2 checksum requires HTTP(S) or Git sources"),
        ] {
            assert_eq!(told(lines).as_deref(), Some(wanted), "{lines}");
            assert_eq!(told_to(true, lines).as_deref(), Some(wanted), "{lines}");
        }
        for (lines, wanted) in [
            ("RUN true\nSTOPSIGNAL x", "3 invalid signal: x"),
            ("ENV A=${A", "2 failed to process \"${A\": unsupported modifier (\u{fffd}) in substitution"),
            (
                "COPY [\"a\", \"b",
                "2 failed to process \"\\\"b\": unexpected end of statement while looking for matching double-quote",
            ),
            ("COPY --chmod=9 a /", "2 invalid chmod parameter: '9'. it should be octal string and between 0 and 07777"),
            ("RUN []", "2 failed to marshal LLB definition: arguments are required"),
        ] {
            assert_eq!(told_to(true, lines).as_deref(), Some(wanted), "{lines}");
            assert_eq!(told(lines), None, "{lines}");
        }
        for lines in ["STOPSIGNAL $X", "ENV A=${A?no}", "RUN --security=insecure true", "WORKDIR $X", "RUN echo ${A"] {
            assert_eq!(told_to(true, lines), None, "{lines}");
        }
        // Nobody knows yet what these will be.
        for lines in ["RUN --mount=type=bind,size=$S,target=/x true", "RUN --mount=target=../.. true", "STOPSIGNAL x"] {
            assert_eq!(told(lines), None, "{lines}");
        }
    }
}
