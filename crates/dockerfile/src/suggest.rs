//! What somebody may have meant.

/// Words that differ in so many letters mean something else (BuildKit's number).
const DISTANCE: usize = 3;

/// Longer words are like none of ours, and comparing them costs time.
const LONGEST: usize = 64;

/// Of so few letters every name is like every other.
const SHORTEST: usize = 3;

/// The word that is most like `word`, unless it is one of them itself. Case counts only where `exact`; else the answer is
/// written as the word is.
pub fn meant(word: &str, options: &[&str], exact: bool) -> Option<String> {
    if word.len() > LONGEST {
        return None;
    }
    let normal = |text: &str| if exact { text.to_owned() } else { text.to_lowercase() };
    let wanted = normal(word);
    let (mut best, mut nearest) = (None, DISTANCE);
    for option in options {
        let option = normal(option);
        if option == wanted {
            return None;
        }
        let distance = distance(&wanted, &option);
        if distance < nearest {
            (best, nearest) = (Some(option), distance);
        }
    }
    best.map(|found| match word {
        word if !exact && word == word.to_uppercase() && word != word.to_lowercase() => found.to_uppercase(),
        _ => found,
    })
}

/// The name that is most like one that is none of them, and be it in another case.
pub fn name_like<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let names: Vec<&str> = names.collect();
    if let Some(same) = names.iter().find(|other| **other != name && other.to_lowercase() == name.to_lowercase()) {
        return Some((*same).to_owned());
    }
    if name.chars().count() < SHORTEST { None } else { meant(name, &names, true) }
}

/// Letters to add, leave out or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_alike_are_meant() {
        let names = ["package.json", "README.md", "src", "a"];
        for (name, wanted) in [
            ("pakage.json", Some("package.json")),
            ("readme.md", Some("README.md")),
            ("srcs", Some("src")),
            ("b", None),
            ("other", None),
        ] {
            assert_eq!(name_like(name, names.into_iter()).as_deref(), wanted, "{name}");
        }
    }

    #[test]
    fn what_is_like_a_word_is_meant() {
        let options = ["FROM", "RUN", "COPY"];
        for (word, wanted) in [
            ("FRO", Some("FROM")),
            ("fro", Some("from")),
            ("FROM", None),
            ("EXPLODE", None),
            ("CPOY", Some("COPY")),
            ("1", None),
        ] {
            assert_eq!(meant(word, &options, false).as_deref(), wanted, "{word}");
        }
    }
}
