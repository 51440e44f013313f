//! What can be refused before any step is done. Pure.
//!
//! BuildKit reads all instructions before it begins; we know variables only when their step comes. What has none is
//! looked at here: mounts of commands, and what downloads must be; for BuildKit's clients everything, and whether variables
//! are written as such.

use dockerfile::{Fault, Instruction, Kind};

use crate::plan::Plan;
use crate::stage::{Stage, StepError};

/// Below which a relative path would be that climbs.
const DIRECTORY: &str = "/0/1/2/3/4/5/6/7/8/9";

/// The first instruction that will be refused: its line, from 1, and why.
pub fn refused(plan: &Plan, escape: char, buildkit: bool) -> Option<(usize, StepError)> {
    plan.stages.iter().find_map(|stage| {
        // What the user asked for beside the Dockerfile is taken as it is.
        let (own, _) = stage.instructions.split_at(stage.instructions.len() - stage.added);
        let read = own.iter().filter(|instruction| buildkit || is_read(instruction));
        read.filter_map(|instruction| Some((instruction.line, why(instruction, escape, buildkit)?))).next()
    })
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
    use crate::{Arguments, Wanted, plan};

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
            ("ADD --checksum=sha256:1 http://a/b /", "2 invalid checksum digest format"),
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
