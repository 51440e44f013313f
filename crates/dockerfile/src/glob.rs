//! Patterns of names. Time is bounded by the product of both lengths.

/// One part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// Letters of one name.
    Star,
    /// A letter of one name.
    One,
    /// Itself.
    Letter(char),
    /// One of some letters, or none of them.
    Class { negated: bool, ranges: Vec<(char, char)> },
    /// Letters, slashes among them.
    Any,
    /// Nothing, or directories up to a slash: always before its [`Token::Path`].
    Directories,
    /// What is in those directories.
    Path,
}

/// A pattern that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob(Vec<Token>);

/// Whether a name fits a pattern of Go's `filepath.Match`: `*`, `?`, `[a-z]`, `\`; a broken one fits nothing.
pub fn glob_match(pattern: &str, name: &str) -> bool {
    Glob::of_match(pattern).is_some_and(|glob| glob.fits(name))
}

impl Glob {
    /// As `filepath.Match` reads it; `None` if it is broken.
    pub(crate) fn of_match(pattern: &str) -> Option<Glob> {
        let mut letters = pattern.chars().peekable();
        let mut tokens = Vec::new();
        while let Some(letter) = letters.next() {
            tokens.push(match letter {
                '*' => Token::Star,
                '?' => Token::One,
                '\\' => Token::Letter(letters.next()?),
                '[' => class(&mut letters)?,
                letter => Token::Letter(letter),
            });
        }
        Some(Glob(tokens))
    }

    /// As `.dockerignore` has it: `**` stands for any directories. `None` if it is broken.
    pub(crate) fn of_ignore(pattern: &str) -> Option<Glob> {
        // One that stands in front of plain letters only asks how a path ends.
        let plain = |text: &str| !text.contains(['*', '?', '[', ']', '\\']);
        if let Some(end) = pattern.strip_prefix("**").filter(|end| plain(end) && !end.starts_with('/')) {
            let letters = end.chars().map(Token::Letter);
            return Some(Glob([Token::Any].into_iter().chain(letters).collect()));
        }
        let mut letters = pattern.chars().peekable();
        let mut tokens = Vec::new();
        while let Some(letter) = letters.next() {
            match letter {
                '*' if letters.next_if_eq(&'*').is_some() => {
                    letters.next_if_eq(&'/');
                    match letters.peek() {
                        None => tokens.push(Token::Any),
                        Some(_) => tokens.extend([Token::Directories, Token::Path]),
                    }
                }
                '*' => tokens.push(Token::Star),
                '?' => tokens.push(Token::One),
                '\\' => tokens.push(Token::Letter(letters.next()?)),
                '[' => tokens.push(class(&mut letters)?),
                letter => tokens.push(Token::Letter(letter)),
            }
        }
        Some(Glob(tokens))
    }

    /// Whether all of a name fits.
    pub(crate) fn fits(&self, name: &str) -> bool {
        let last = self.0.len();
        let mut reached = vec![false; last + 1];
        reached[0] = true;
        self.skip(&mut reached);
        for letter in name.chars() {
            let mut next = vec![false; last + 1];
            for (index, token) in self.0.iter().enumerate().filter(|(index, _)| reached[*index]) {
                match token {
                    Token::Star => next[index] |= letter != '/',
                    Token::Any => next[index] = true,
                    Token::Directories => {}
                    Token::Path => {
                        next[index] = true;
                        next[index + 1] |= letter == '/';
                    }
                    token => next[index + 1] |= token.is(letter),
                }
            }
            self.skip(&mut next);
            reached = next;
        }
        reached[last]
    }

    /// Goes on over what may stand for nothing.
    fn skip(&self, reached: &mut [bool]) {
        for (index, token) in self.0.iter().enumerate() {
            if !reached[index] {
                continue;
            }
            match token {
                Token::Star | Token::Any => reached[index + 1] = true,
                Token::Directories => {
                    reached[index + 1] = true;
                    reached[index + 2] = true;
                }
                _ => {}
            }
        }
    }
}

impl Token {
    fn is(&self, letter: char) -> bool {
        match self {
            Token::One => letter != '/',
            Token::Letter(own) => *own == letter,
            Token::Class { negated, ranges } => {
                let within = ranges.iter().any(|(low, high)| (*low..=*high).contains(&letter));
                within != *negated && letter != '/'
            }
            _ => false,
        }
    }
}

/// Behind a `[`.
fn class(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = letters.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && letters.next_if_eq(&']').is_some() {
            return Some(Token::Class { negated, ranges });
        }
        let low = class_letter(letters)?;
        let high = match letters.next_if_eq(&'-') {
            Some(_) => class_letter(letters)?,
            None => low,
        };
        ranges.push((low, high));
    }
}

fn class_letter(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match letters.next()? {
        '-' | ']' => None,
        '\\' => letters.next(),
        letter => Some(letter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_gos() {
        for (pattern, name, wanted) in [
            ("*.rs", "a.rs", true),
            ("*.rs", "a/b.rs", false),
            ("a?c", "abc", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("a[", "a[", false),
            (r"\*", "*", true),
            ("a*b*c", "aXbYc", true),
            ("", "", true),
        ] {
            assert_eq!(glob_match(pattern, name), wanted, "{pattern} {name}");
        }
    }
}
