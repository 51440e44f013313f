//! `-v`: `[SOURCE:]TARGET[:OPTIONS]`.

/// Why a specification is wrong. The texts are docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// `-v ''`
    #[error("invalid empty volume spec")]
    Empty,
    /// Two colons in a row, or one at an end.
    #[error("invalid spec: {0}: empty section between colons")]
    EmptySection(String),
    /// More than three parts.
    #[error("invalid spec: {0}: too many colons")]
    TooMany(String),
}

/// What a specification asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volume<'a> {
    /// A volume without a name at this place.
    Anonymous(&'a str),
    /// A directory of the host, and what stands behind its colon.
    Bind(&'a str, &'a str),
    /// A volume by its name.
    Named,
}

/// Reads a specification.
pub fn parse(spec: &str) -> Result<Volume<'_>, VolumeError> {
    match spec.len() {
        0 => return Err(VolumeError::Empty),
        1 | 2 => return Ok(Volume::Anonymous(spec)),
        _ => {}
    }
    let sections = sections(spec);
    // Docker stops at the first mistake: an empty section, or a colon behind the options.
    if let Some(empty) = sections.iter().position(|section| section.is_empty())
        && empty < 3
    {
        return Err(VolumeError::EmptySection(spec.to_owned()));
    }
    match sections[..] {
        [target] => Ok(Volume::Anonymous(target)),
        [_, _, _, _, ..] => Err(VolumeError::TooMany(spec.to_owned())),
        [source, ..] if is_path(source) => {
            let (source, behind) = spec.split_once(':').unwrap_or((spec, ""));
            Ok(Volume::Bind(source, behind))
        }
        _ => Ok(Volume::Named),
    }
}

/// The parts between colons; the colon behind a single letter belongs to a drive of Windows.
fn sections(spec: &str) -> Vec<&str> {
    let (mut sections, mut start) = (Vec::new(), 0);
    for (at, _) in spec.match_indices(':') {
        let mut section = spec[start..at].chars();
        if section.next().is_some_and(char::is_alphabetic) && section.next().is_none() {
            continue;
        }
        sections.push(&spec[start..at]);
        start = at + 1;
    }
    sections.push(&spec[start..]);
    sections
}

fn is_path(source: &str) -> bool {
    let mut letters = source.chars();
    let is_drive = letters.next().is_some_and(char::is_alphabetic) && letters.next() == Some(':');
    source.starts_with(['.', '/', '~']) || source.starts_with("\\\\") || is_drive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications_are_read_as_docker_reads_them() {
        for (spec, volume) in [
            ("/x", Volume::Anonymous("/x")),
            (":", Volume::Anonymous(":")),
            ("a:", Volume::Anonymous("a:")),
            ("a:/x", Volume::Anonymous("a:/x")),
            ("/anon", Volume::Anonymous("/anon")),
            ("/a:/b", Volume::Bind("/a", "/b")),
            ("./a:/b:ro,z", Volume::Bind("./a", "/b:ro,z")),
            ("data:/b", Volume::Named),
        ] {
            assert_eq!(parse(spec), Ok(volume), "{spec}");
        }
    }

    #[test]
    fn sentences_are_dockers() {
        for (spec, sentence) in [
            ("", "invalid empty volume spec"),
            ("/tmp::/x", "invalid spec: /tmp::/x: empty section between colons"),
            ("/tmp:", "invalid spec: /tmp:: empty section between colons"),
            (":/x", "invalid spec: :/x: empty section between colons"),
            ("/tmp:/x:", "invalid spec: /tmp:/x:: empty section between colons"),
            ("/tmp:/x:ro:rw", "invalid spec: /tmp:/x:ro:rw: too many colons"),
            ("/tmp:/x:ro:", "invalid spec: /tmp:/x:ro:: too many colons"),
        ] {
            assert_eq!(parse(spec).unwrap_err().to_string(), sentence);
        }
    }
}
