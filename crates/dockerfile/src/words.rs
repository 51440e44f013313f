//! How the rest of a line falls into words; what makes them so stays in them, for the expansion.

use crate::fault::Fault;

/// Blanks between words of the simple kind.
const BLANKS: [char; 5] = ['\t', '\u{b}', '\u{c}', '\r', ' '];

/// Cuts at the first blanks.
pub(crate) fn cut(text: &str) -> (&str, Option<&str>) {
    match text.find(BLANKS) {
        None => (text, None),
        Some(at) => (&text[..at], Some(text[at..].trim_start_matches(BLANKS))),
    }
}

/// Words between blanks, whatever is in them. Blanks at an end stand for an empty word, as in Go's `Regexp.Split`.
pub(crate) fn simple(text: &str) -> Vec<String> {
    let (mut words, mut rest) = (Vec::new(), Some(text).filter(|text| !text.is_empty()));
    while let Some(text) = rest {
        let (word, behind) = cut(text);
        words.push(word.to_owned());
        rest = behind;
    }
    words
}

/// Words between blanks that are neither quoted nor escaped.
pub(crate) fn quoted(text: &str, escape: char) -> Vec<String> {
    let (mut words, mut word, mut quote, mut blank_counts) = (Vec::new(), String::new(), None, false);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if quote.is_none() && letter.is_whitespace() {
            if blank_counts || !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            blank_counts = false;
            continue;
        }
        match quote {
            None if matches!(letter, '\'' | '"') => (quote, blank_counts) = (Some(letter), true),
            Some(open) if letter == open => quote = None,
            _ => {}
        }
        if letter == escape && quote != Some('\'') {
            // One at the end is left out.
            let Some(next) = letters.next() else { continue };
            word.push(letter);
            word.push(next);
            continue;
        }
        word.push(letter);
    }
    if blank_counts || !word.is_empty() {
        words.push(word);
    }
    words
}

/// A list of texts in JSON; `None` for what is no list.
pub(crate) fn json_list(text: &str) -> Result<Option<Vec<String>>, Fault> {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(list) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
    let texts = list.into_iter().map(|value| match value {
        serde_json::Value::String(text) => Ok(text),
        _ => Err(Fault::NotStrings),
    });
    texts.collect::<Result<_, _>>().map(Some)
}

/// Takes the flags off the front of a line; answers them and what is behind.
pub(crate) fn take_flags(line: &str, escape: char) -> (Vec<String>, &str) {
    let (mut flags, mut rest) = (Vec::new(), line);
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            return (flags, rest);
        }
        let (word, behind) = flag(rest, escape);
        rest = behind;
        if word == "--" {
            return (flags, rest);
        }
        flags.push(word);
    }
}

/// One flag without its quotes and escapes.
fn flag(text: &str, escape: char) -> (String, &str) {
    let (mut word, mut quote) = (String::new(), None);
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match quote {
            None if letter.is_whitespace() => return (word, &text[at..]),
            None if matches!(letter, '\'' | '"') => quote = Some(letter),
            Some(open) if letter == open => quote = None,
            _ if letter == escape => word.extend(letters.next().map(|(_, next)| next)),
            _ => word.push(letter),
        }
    }
    (word, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_what_makes_them() {
        for (text, wanted) in [
            ("a b  c", vec!["a", "b", "c"]),
            (r#"a="b c" d='e f'"#, vec![r#"a="b c""#, "d='e f'"]),
            (r"a\ b c\", vec![r"a\ b", "c"]),
            (r#""" x"#, vec![r#""""#, "x"]),
            ("", vec![]),
        ] {
            assert_eq!(quoted(text, '\\'), wanted, "{text}");
        }
    }

    #[test]
    fn flags_stand_in_front() {
        for (text, flags, rest) in [
            ("--a=b --c x --d", vec!["--a=b", "--c"], "x --d"),
            (r#"--a="b c" x"#, vec!["--a=b c"], "x"),
            ("-- --x", vec![], " --x"),
            ("-x", vec![], "-x"),
            ("--a", vec!["--a"], ""),
        ] {
            let (found, behind) = take_flags(text, '\\');
            assert_eq!((found, behind), (flags.into_iter().map(str::to_owned).collect(), rest), "{text}");
        }
    }
}
