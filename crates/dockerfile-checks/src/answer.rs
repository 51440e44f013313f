//! What is asked, and the answer (frontend/dockerui, requests.go).

use dockerfile::Stage;

use crate::documents::{
    self, BuildError, Bytes, Described, LintResults, Location, Named, Outline, SourceInfo, Target, Targets,
    WarningDocument,
};
use crate::outline::comment;
use crate::print;
use crate::report::Findings;
use crate::text::from_lines;

/// The version of all documents.
const VERSION: &str = "1.0.0";

/// Something that can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// What checks find.
    Lint,
    /// What a stage takes.
    Outline,
    /// Which stages there are.
    Targets,
    /// What can be asked.
    Describe,
}

/// Why there is no answer. The sentences are BuildKit's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// Nobody knows the question.
    #[error("unsupported request {0}")]
    Unknown(String),
}

/// Documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// For programs.
    pub json: String,
    /// For people.
    pub text: String,
    /// The code that a client ends with, if there is one.
    pub code: Option<u8>,
}

impl Answer {
    /// By the names under which clients know them.
    pub fn metadata(&self) -> Vec<(&'static str, String)> {
        let mut all = vec![("result.json", self.json.clone()), ("result.txt", self.text.clone())];
        all.extend(self.code.map(|code| ("result.statuscode", code.to_string())));
        all.push(("version", VERSION.to_owned()));
        all
    }
}

impl Question {
    /// The question of a name: `frontend.lint`.
    pub fn parse(name: &str) -> Result<Question, QuestionError> {
        match name {
            "frontend.lint" => Ok(Question::Lint),
            "frontend.outline" => Ok(Question::Outline),
            "frontend.targets" => Ok(Question::Targets),
            "frontend.subrequests.describe" => Ok(Question::Describe),
            other => Err(QuestionError::Unknown(other.to_owned())),
        }
    }
}

/// What checks found, of a Dockerfile of a name.
pub fn lint(name: &str, text: &str, findings: &Findings) -> Answer {
    let warning = |warning: &crate::Warning| WarningDocument {
        rule_name: warning.rule.name,
        description: warning.rule.description,
        url: warning.rule.url,
        detail: warning.detail.clone(),
        location: Location::of(warning.lines),
    };
    let warnings: Vec<_> = findings.warnings.iter().map(warning).collect();
    let build_error = findings.failure.as_ref().map(|failure| BuildError {
        message: failure.message.clone(),
        location: failure.lines.map(Location::of).unwrap_or_default(),
    });
    let code = u8::from(!warnings.is_empty() || build_error.is_some());
    let data = Bytes(text.as_bytes().to_vec());
    let results = LintResults {
        // Go's lists are none before something is put into them.
        warnings: Some(warnings).filter(|warnings| !warnings.is_empty()),
        sources: vec![SourceInfo { filename: name.to_owned(), data, language: "Dockerfile" }],
        build_error,
    };
    let text = print::print_warnings(name, text, findings);
    Answer { json: documents::json(&results), text, code: Some(code) }
}

/// What the target takes; `None` where it cannot be built.
pub fn outline(findings: &Findings) -> Option<Answer> {
    let outline = findings.outline.as_ref()?;
    Some(Answer { json: documents::json(outline), text: outline_text(outline), code: None })
}

/// Which stages there are.
pub fn targets(text: &str, stages: &[Stage]) -> Answer {
    let target = |(index, stage): (usize, &Stage)| Target {
        name: stage.name.clone(),
        default: index + 1 == stages.len(),
        description: comment(&stage.comments, &stage.name),
        base: stage.base.clone(),
        platform: stage.platform.clone(),
        location: Location::of(from_lines(stage)),
    };
    let targets: Vec<Target> = stages.iter().enumerate().map(target).collect();
    let mut rows = vec![["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
    for target in &targets {
        let name = match (target.name.as_str(), target.default) {
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        };
        rows.push([name, target.description.clone()]);
    }
    let rows: Vec<Vec<&str>> = rows.iter().map(|row| row.iter().map(String::as_str).collect()).collect();
    let list = Targets { targets, sources: vec![Bytes(text.as_bytes().to_vec())] };
    Answer { json: documents::json(&list), text: print::table(&rows, 1), code: None }
}

/// What can be asked. As BuildKit it says nothing of checks.
pub fn describe() -> Answer {
    let results = || ["result.json", "result.txt"].map(|name| Named { name, description: "" }).to_vec();
    let described = |name, description, opts| Described {
        name,
        version: VERSION,
        kind: "rpc",
        description,
        opts,
        inputs: None,
        metadata: results(),
        refs: None,
    };
    let target = vec![Named { name: "target", description: "Target build stage" }];
    let all = [
        described("frontend.outline", "List all parameters current build target supports", Some(target)),
        described("frontend.targets", "List all targets current build supports", Some(Vec::new())),
        described("frontend.subrequests.describe", "List available subrequest types", None),
    ];
    let mut rows = vec![vec!["NAME", "VERSION", "DESCRIPTION"]];
    rows.extend(all.iter().map(|own| vec![own.name.trim_start_matches("frontend."), own.version, own.description]));
    Answer { json: documents::json(&all), text: print::table(&rows, 1), code: None }
}

fn outline_text(outline: &Outline) -> String {
    let mut printed = String::new();
    if !outline.name.is_empty() || !outline.description.is_empty() {
        let name = if outline.name.is_empty() { "(default)" } else { &outline.name };
        let mut rows = vec![vec!["TARGET:", name]];
        if !outline.description.is_empty() {
            rows.push(vec!["DESCRIPTION:", &outline.description]);
        }
        printed += &print::table(&rows, 1);
        printed.push('\n');
    }
    if !outline.args.is_empty() {
        let mut rows = vec![vec!["BUILD ARG", "VALUE", "DESCRIPTION"]];
        rows.extend(outline.args.iter().map(|arg| vec![arg.name.as_str(), &arg.value, &arg.description]));
        printed += &print::table(&rows, 3);
        printed.push('\n');
    }
    for (title, all) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !all.is_empty() {
            let mut rows = vec![vec![title, "REQUIRED"]];
            rows.extend(all.iter().map(|own| vec![own.name.as_str(), if own.required { "true" } else { "" }]));
            printed += &print::table(&rows, 3);
            printed.push('\n');
        }
    }
    printed
}
