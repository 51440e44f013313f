//! What `.dockerignore` means, said as simply as it can be: slowly, and for patterns without `[...]`.
//!
//! `*` is anything but a slash, `?` one letter but a slash; `**`, with or without a slash behind it, is nothing or directories, at the
//! end anything, and in front of letters alone whatever ends with them (moby/patternmatcher, Pattern.compile); a backslash takes
//! the next letter's meaning away. The last pattern that fits a path, or a directory that it is in, decides.

/// Whether all of a path fits a pattern.
fn fits(pattern: &[char], path: &[char]) -> bool {
    match pattern {
        [] => path.is_empty(),
        ['*', '*'] | ['*', '*', '/'] => true,
        ['*', '*', '/', rest @ ..] | ['*', '*', rest @ ..] => {
            fits(rest, path) || (1..=path.len()).any(|at| path[at - 1] == '/' && fits(rest, &path[at..]))
        }
        ['*', rest @ ..] => {
            let end = path.iter().position(|letter| *letter == '/').unwrap_or(path.len());
            (0..=end).any(|at| fits(rest, &path[at..]))
        }
        ['?', rest @ ..] => path.first().is_some_and(|letter| *letter != '/') && fits(rest, &path[1..]),
        ['\\', letter, rest @ ..] | [letter, rest @ ..] => path.first() == Some(letter) && fits(rest, &path[1..]),
    }
}

/// Whether a path is left out.
pub(crate) fn excludes(patterns: &[&str], path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    let mut excluded = false;
    for pattern in patterns {
        let (exception, pattern) = pattern.strip_prefix('!').map_or((false, *pattern), |rest| (true, rest));
        let letters: Vec<char> = pattern.chars().collect();
        let end = pattern.strip_prefix("**").filter(|end| !end.contains(['*', '?', '\\']) && !end.starts_with('/'));
        let above = |count: usize| parts[..count].join("/").chars().collect::<Vec<char>>();
        let fits = |path: &[char]| match end {
            Some(end) => path.iter().collect::<String>().ends_with(end),
            None => fits(&letters, path),
        };
        if (1..=parts.len()).any(|count| fits(&above(count))) {
            excluded = !exception;
        }
    }
    excluded
}
