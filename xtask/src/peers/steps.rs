//! What is done: names in brackets, and shell below each.

use anyhow::{Result, bail, ensure};

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Unique in its file: lower case, digits and dashes.
    pub(super) name: String,
    /// Shell.
    pub(super) script: String,
}

/// The steps of a peer.
pub(super) fn load(peer: &str) -> Result<Vec<Step>> {
    let file = format!("{peer}.steps");
    parse(&super::read(&file)?).map_err(|err| err.context(file))
}

/// Reads a file of steps.
pub(super) fn parse(text: &str) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if let Some(name) = name(line) {
            ensure!(!steps.iter().any(|step| step.name == name), "line {}: {name} is there twice", number + 1);
            steps.push(Step { name: name.to_owned(), script: String::new() });
            continue;
        }
        match steps.last_mut() {
            Some(step) => step.script.extend([line, "\n"]),
            None if line.is_empty() || line.starts_with('#') => {}
            None => bail!("line {}: a name in brackets comes first", number + 1),
        }
    }
    if let Some(step) = steps.iter().find(|step| step.script.trim().is_empty()) {
        bail!("{} does nothing", step.name);
    }
    Ok(steps)
}

/// `[name]`, which in shell would be a command without a space behind its bracket.
fn name(line: &str) -> Option<&str> {
    let name = line.strip_prefix('[')?.strip_suffix(']')?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (!name.is_empty() && name.chars().all(plain)).then_some(name)
}

/// The file in a lab, whose names sort as the steps are done.
pub(super) fn file_name(index: usize, step: &Step) -> String {
    format!("{:03}-{}", index + 1, step.name)
}

/// The name in a file's name.
pub(super) fn bare(file_name: &str) -> &str {
    let numbered = |prefix: &str| prefix.len() == 3 && prefix.bytes().all(|byte| byte.is_ascii_digit());
    match file_name.split_once('-') {
        Some((prefix, name)) if numbered(prefix) => name,
        _ => file_name,
    }
}
