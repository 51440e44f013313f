//! What can be refused before any step is done. Pure.
//!
//! BuildKit reads all instructions before it begins; we know variables only when their step comes. What has none is
//! looked at here: mounts of commands, and what downloads must be.

use dockerfile::{Instruction, Kind};

use crate::plan::Plan;
use crate::stage::{Stage, StepError};

/// Below which a relative path would be that climbs.
const DIRECTORY: &str = "/0/1/2/3/4/5/6/7/8/9";

/// The first instruction that will be refused: its line, from 1, and why.
pub fn refused(plan: &Plan, escape: char) -> Option<(usize, StepError)> {
    let instructions = plan.stages.iter().flat_map(|stage| &stage.instructions);
    instructions.filter(|instruction| is_known(instruction)).find_map(|instruction| {
        let mut stage = Stage::default();
        stage.config.working_dir = DIRECTORY.to_owned();
        let expanded = instruction.expand(escape, &|_| None).map_err(StepError::from);
        let why = expanded.and_then(|expanded| stage.step(&expanded, true)).err()?;
        let counts = matches!(why, StepError::Mount(_) | StepError::Checksum(_) | StepError::Fault(_));
        counts.then_some((instruction.line, why))
    })
}

/// Whether it is read here, and says all that it says.
fn is_known(instruction: &Instruction) -> bool {
    let is_read = match &instruction.kind {
        Kind::Run(run) => !run.mounts.is_empty(),
        Kind::Add(files) => !files.checksum.is_empty(),
        _ => false,
    };
    is_read && !instruction.original.contains('$')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Arguments, Wanted, plan};

    #[test]
    fn what_will_be_refused_is_known_before() {
        let told = |lines: &str| {
            let dockerfile = dockerfile::parse(&format!("FROM a\n{lines}\n")).unwrap();
            let plan = plan(&dockerfile, &Wanted::default(), &Arguments::default()).unwrap();
            refused(&plan, '\\').map(|(line, why)| format!("{line} {why}"))
        };
        for (lines, wanted) in [
            ("RUN true\nRUN --mount=type=bind,size=5,target=/x true", "3 unexpected key 'size' for mount type 'bind'"),
            ("RUN --mount=target=/ true", "2 invalid mount target \"/\""),
            ("ADD --checksum=sha256:1 http://a/b /", "2 invalid checksum digest format"),
            ("ADD --checksum=sha256:1 a /", "2 checksum requires HTTP(S) or Git sources"),
        ] {
            assert_eq!(told(lines).as_deref(), Some(wanted), "{lines}");
        }
        // Nobody knows yet what these will be.
        for lines in ["RUN --mount=type=bind,size=$S,target=/x true", "RUN --mount=target=../.. true", "STOPSIGNAL x"] {
            assert_eq!(told(lines), None, "{lines}");
        }
    }
}
