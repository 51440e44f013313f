//! `.dockerignore`: which paths of a context do not count (moby/patternmatcher).

use crate::glob::Glob;

/// Why patterns are refused. The sentences are Docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing stands behind the `!`.
    #[error("illegal exclusion pattern: \"!\"")]
    Nothing,
    /// A pattern is broken.
    #[error("syntax error in pattern")]
    Syntax,
}

/// Patterns, of which the last one that fits decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns(Vec<Pattern>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    text: String,
    /// What fits counts after all.
    exception: bool,
    glob: Glob,
}

impl Patterns {
    /// Reads a `.dockerignore`: a pattern a line, `#` in front of comments.
    pub fn read(text: &str) -> Result<Patterns, PatternError> {
        Patterns::new(ignored(text))
    }

    /// Takes patterns as they are.
    pub fn new<T: AsRef<str>>(patterns: impl IntoIterator<Item = T>) -> Result<Patterns, PatternError> {
        let mut all = Patterns::default();
        for pattern in patterns {
            all.add(pattern.as_ref())?;
        }
        Ok(all)
    }

    /// Adds one, which decides where it fits.
    pub fn add(&mut self, pattern: &str) -> Result<(), PatternError> {
        let pattern = pattern.trim();
        if pattern.is_empty() {
            return Ok(());
        }
        let (exception, text) = match pattern.strip_prefix('!') {
            Some("") => return Err(PatternError::Nothing),
            Some(rest) => (true, clean(rest)),
            None => (false, clean(pattern)),
        };
        Glob::of_match(&text).ok_or(PatternError::Syntax)?;
        let glob = Glob::of_ignore(&text).ok_or(PatternError::Syntax)?;
        self.0.push(Pattern { text, exception, glob });
        Ok(())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a path is left out: it fits, or a directory that it is in.
    pub fn exclude(&self, path: &str) -> bool {
        let ends = path.match_indices('/').map(|(at, _)| at);
        let whole: Vec<&str> = ends.map(|at| &path[..at]).chain([path]).collect();
        let mut excluded = false;
        for pattern in &self.0 {
            if pattern.exception == excluded && whole.iter().any(|path| pattern.glob.fits(path)) {
                excluded = !pattern.exception;
            }
        }
        excluded
    }

    /// Whether something in a directory that is left out may count: an exception names it.
    pub fn may_hold_exceptions(&self, directory: &str) -> bool {
        let inside = format!("{directory}/");
        self.0.iter().any(|pattern| pattern.exception && format!("{}/", pattern.text).starts_with(&inside))
    }
}

/// The patterns of a `.dockerignore` as texts, from the root of the context, an exception with its `!`.
pub fn ignored(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().filter(|line| !line.starts_with('#')).map(str::trim).filter(|line| !line.is_empty());
    let pattern = |line: &str| match line.strip_prefix('!') {
        Some(rest) => format!("!{}", from_root(rest.trim())),
        None => from_root(line),
    };
    lines.map(pattern).collect()
}

fn from_root(pattern: &str) -> String {
    let clean = if pattern.is_empty() { String::new() } else { clean(pattern) };
    match clean.strip_prefix('/') {
        Some(rest) if !rest.is_empty() => rest.to_owned(),
        _ => clean,
    }
}

/// Go's `filepath.Clean`.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_left_out_as_docker_does() {
        for (pattern, path, wanted) in [
            ("**", "file", true),
            ("**", "dir/file", true),
            ("**/", "file", true),
            ("**/**", "dir/file", true),
            ("dir/**", "dir/file", true),
            ("dir/**", "dir/dir2/file", true),
            ("dir/**", "file", false),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/dir2/**", "dir/dir2/dir2/file", true),
            ("**file", "dir/dir/file", true),
            ("**/file", "dir/dir/file", true),
            ("**/file", "file", true),
            ("**/file*", "dir/dir/file.txt", true),
            ("**/file*txt", "dir/dir/file.txt", true),
            ("**/file*.txt*", "dir/dir/file.txt", true),
            ("**/**/*.txt", "dir/dir/file.txt", true),
            ("**/*.txt2", "dir/dir/file.txt", false),
            ("a**/*.txt", "a/dir/file.txt", true),
            ("a/*.txt", "a/dir/file.txt", false),
            ("a/*.txt", "a/file.txt", true),
            ("a/*.txt**", "a/file.txt", true),
            ("a[b-d]e", "ae", false),
            ("a[b-d]e", "ace", true),
            ("a[^b-d]e", "aze", true),
            (".*", ".foo", true),
            (".*", "foo", false),
            ("abc.def", "abcZdef", false),
            ("**/foo/bar", "dir/foo/bar", true),
            ("abc/**", "abc/def/ghi", true),
            ("**/.foo", "bar.foo", false),
            ("a(b)c/def", "a(b)c/def/xyz", true),
            ("foo", "foo/bar/baz", true),
        ] {
            assert_eq!(Patterns::new([pattern]).unwrap().exclude(path), wanted, "{pattern} {path}");
        }
    }

    #[test]
    fn the_last_word_counts() {
        let patterns = Patterns::read("# no\n/target\n*.md\n!README.md\n!target/keep\n\ndocs/../x\n").unwrap();
        for (path, wanted) in [
            ("target", true),
            ("target/a", true),
            ("target/keep", false),
            ("a.md", true),
            ("README.md", false),
            ("x", true),
            ("src", false),
        ] {
            assert_eq!(patterns.exclude(path), wanted, "{path}");
        }
        assert_eq!(ignored("#no\n /a/../b \n!/c\n\n"), ["b", "!c"]);
        assert!(patterns.may_hold_exceptions("target") && !patterns.may_hold_exceptions("tar"));
        assert_eq!(Patterns::new(["!"]), Err(PatternError::Nothing));
        assert_eq!(Patterns::new(["a["]), Err(PatternError::Syntax));
    }
}
