//! Paths inside containers as clients write them: texts, looked up nowhere. Pure.

/// Without empty, `.` and `..` parts, as Go's `path.Clean` makes it: `.` for nothing, and never above the root.
///
/// What a link would have led to is not asked, so this decides what a path is called, not where it is.
pub fn clean(path: &str) -> String {
    let (mut parts, rooted): (Vec<&str>, bool) = (Vec::new(), path.starts_with('/'));
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.join("/")) {
        (true, joined) => format!("/{joined}"),
        (false, joined) if joined.is_empty() => ".".to_owned(),
        (false, joined) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_does_it() {
        for (path, cleaned) in [
            ("", "."),
            (".", "."),
            ("/", "/"),
            ("//", "/"),
            ("/a/./b//c/", "/a/b/c"),
            ("/a/../..", "/"),
            ("/../a", "/a"),
            ("a/..", "."),
            ("a/../..", ".."),
            ("../../a", "../../a"),
            ("./a", "a"),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }
}
