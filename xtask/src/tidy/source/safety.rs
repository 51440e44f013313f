//! Whether an `unsafe` has its reasons above it.

/// Looks for `// SAFETY:` above line `line` (from 1), beyond the beginning of the statement that the line belongs to.
pub(super) fn is_explained(text: &str, line: usize) -> bool {
    let above: Vec<&str> = text.lines().take(line.saturating_sub(1)).map(str::trim).collect();
    let mut rest = above.into_iter().rev();
    let is_comment = |line: &str| line.starts_with("//");
    let ends_something = |line: &str| line.is_empty() || line.ends_with([';', '{', '}', ',']);
    // Lines between are the beginning of the same statement, or attributes.
    let Some(first) = rest.by_ref().find(|line| is_comment(line) || ends_something(line)) else { return false };
    let mut comment = std::iter::once(first).chain(rest).take_while(|line| is_comment(line));
    comment.any(|line| line.contains("SAFETY:"))
}
