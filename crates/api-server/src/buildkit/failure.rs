//! What a client reads where a build fails: BuildKit's sentences, and the lines of the Dockerfile.

use buildkit_api::messages::{SourceError, VertexError};
use buildkit_api::status::{Code, Status};
use engine::ops::build::{
    self, BuildError, ContextError, PortError, RemoteContextError, SourceError as BuildSource, StepError, WebError,
};

/// What stands in front where files that are copied are not there.
const CACHE_KEY: &str = "failed to compute cache key: ";

/// What stands in front where something does not come from elsewhere.
const LOAD: &str = "failed to load cache key: ";

/// The Dockerfile, and where in it a build is.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) text: Vec<u8>,
    /// The line from 1; 0 for none.
    pub(super) line: usize,
    /// The last line of the instruction there; 0 if that is not known.
    pub(super) end: usize,
}

impl Place {
    /// The lines of the instruction that begins at a line, as a detail of a failure.
    fn source(&self, line: usize) -> Option<SourceError> {
        if line == self.line && line > 0 && self.end >= line {
            return Some(SourceError { name: self.name.clone(), text: self.text.clone(), lines: (line, self.end) });
        }
        let text = String::from_utf8_lossy(&self.text);
        let behind = text.lines().skip(line.checked_sub(1)?);
        // A line that goes on ends in a continuation; what else it may end in is not ours to find out again.
        let more = behind.take_while(|line| line.trim_end().ends_with('\\')).count();
        Some(SourceError { name: self.name.clone(), text: self.text.clone(), lines: (line, line + more) })
    }
}

/// A sentence that clients print as it is.
pub(super) fn said(sentence: impl Into<String>) -> Status {
    Status::new(Code::Unknown, sentence)
}

/// Something that is not there.
pub(super) fn not_yet(what: &str) -> Status {
    Status::new(Code::Unimplemented, format!("{what} is not supported yet"))
}

/// Why a build failed, at a place, and in which part of it.
pub(super) fn of_build(err: &BuildError, place: &Place, part: Option<&str>) -> Status {
    let mut status = said(sentence(err));
    if let Some(digest) = part {
        status.details.push(VertexError { digest: digest.to_owned() }.to_detail());
    }
    let line = match err {
        BuildError::Context(ContextError::Syntax { why, .. }) => why.line(),
        BuildError::Context(ContextError::Instruction { why, .. }) => why.line(),
        BuildError::Plan(err) => err.line(),
        // It says itself where.
        BuildError::Checks(_) => 0,
        _ => place.line,
    };
    status.details.extend(place.source(line).map(|source| source.to_detail()));
    status
}

/// The same of the part itself: without what the solver puts in front.
pub(super) fn sentence_of_part(err: &BuildError) -> String {
    match err {
        BuildError::Metadata { source, .. } => sentence(source),
        err => sentence(err).trim_start_matches(CACHE_KEY).trim_start_matches(LOAD).to_owned(),
    }
}

/// BuildKit's sentence where it has another one than dockerd's own builder.
pub(super) fn sentence(err: &BuildError) -> String {
    match err {
        BuildError::NonZero { command, code } => {
            format!("process {} did not complete successfully: exit code: {code}", build::quoted(command))
        }
        BuildError::Start { command, why } => {
            format!("process {} did not complete successfully: {}", build::quoted(command), errdefs::chain(&**why))
        }
        BuildError::Context(ContextError::Syntax { why, .. }) => errdefs::chain(why),
        BuildError::Context(ContextError::Empty(_)) => "the Dockerfile cannot be empty".to_owned(),
        BuildError::Source { source: BuildSource::NotInContext(missing), .. } => {
            let path = build::quoted(&format!("/{}", missing.path.trim_start_matches('/')));
            format!("{CACHE_KEY}failed to calculate checksum of ref context: {path}: not found")
        }
        BuildError::Source { source: BuildSource::NotFound(missing), .. } => {
            let path = build::quoted(&format!("/{}", missing.path.trim_start_matches('/')));
            format!("{CACHE_KEY}failed to calculate checksum of ref image: {path}: not found")
        }
        BuildError::Source { source: BuildSource::Web(WebError::Refused { code, .. }), .. } => {
            format!("{LOAD}invalid response status {}", code.as_u16())
        }
        BuildError::Source { source: BuildSource::Web(err), .. } => format!("{LOAD}{}", errdefs::chain(err)),
        BuildError::RemoteContext(RemoteContextError::Web { source, .. }) => {
            let why = match source {
                BuildSource::Web(WebError::Refused { code, .. }) => {
                    format!("invalid response status {}", code.as_u16())
                }
                source => errdefs::chain(source),
            };
            format!("failed to read downloaded context: {LOAD}{why}")
        }
        BuildError::Source { source: err @ BuildSource::Checksum { .. }, .. } => err.to_string(),
        BuildError::Source { source: BuildSource::Git(err), .. }
        | BuildError::RemoteContext(RemoteContextError::Git(err)) => {
            format!("{LOAD}{}", errdefs::chain(err))
        }
        BuildError::Step(StepError::Port { word, why: why @ PortError::Protocol(_) }) => {
            format!("invalid port: {}: {why}", build::quoted(word))
        }
        // Whoever asks already uses BuildKit, as which dockerd's sentence tells them to. Nobody is let have either.
        BuildError::Step(StepError::Option("security")) => "security.insecure is not allowed".to_owned(),
        BuildError::Step(StepError::Option("device")) => {
            "device feature is only supported in Dockerfile frontend 1.14.0-labs or later".to_owned()
        }
        err => errdefs::chain(err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_an_instruction_are_told() {
        let place = Place { name: "D".to_owned(), text: b"FROM a\nRUN b \\\n  c\nRUN d\n".to_vec(), line: 0, end: 0 };
        let lines = |line| place.source(line).map(|source| source.lines);
        assert_eq!([lines(0), lines(1), lines(2), lines(4)], [None, Some((1, 1)), Some((2, 3)), Some((4, 4))]);
        let heredoc = Place { line: 2, end: 5, ..place.clone() };
        assert_eq!(heredoc.source(2).map(|source| source.lines), Some((2, 5)));
    }

    #[test]
    fn sentences_are_buildkits() {
        let failed = BuildError::NonZero { command: "/bin/sh -c echo \"a\"".to_owned(), code: 7 };
        assert_eq!(
            sentence(&failed),
            "process \"/bin/sh -c echo \\\"a\\\"\" did not complete successfully: exit code: 7"
        );
    }
}
