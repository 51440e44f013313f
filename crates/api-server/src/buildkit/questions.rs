//! What clients ask of a Dockerfile instead of building it.

use buildkit_api::status::Status;
use dockerfile_checks::{Answer, Findings, Question, answer};

use super::failure::{Place, said};

/// What the text alone answers.
pub(super) fn of_text(question: Question, place: &Place) -> Result<Answer, Status> {
    if question == Question::Describe {
        return Ok(answer::describe());
    }
    let text = String::from_utf8_lossy(&place.text);
    let dockerfile = dockerfile_checks::parse(&text).map_err(|err| said(err.to_string()))?;
    Ok(answer::targets(&text, &dockerfile.stages))
}

/// What its checks found answers.
pub(super) fn of_findings(question: Question, findings: &Findings, place: &Place) -> Result<Answer, Status> {
    if question == Question::Lint {
        return Ok(answer::lint(&place.name, &String::from_utf8_lossy(&place.text), findings));
    }
    answer::outline(findings).ok_or_else(|| {
        let why = findings.failure.as_ref().map(|failure| failure.message.clone());
        said(why.unwrap_or_else(|| "no outline was found".to_owned()))
    })
}
