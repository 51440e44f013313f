//! Variables, quotes and escapes of a word.

use crate::budget::Budget;
use crate::fault::Fault;
use crate::pattern::Pattern;

/// The letter that takes the next one's meaning away, `\` or a backtick.
pub type Escape = char;

/// The value of a variable; `None` if it is not set.
pub type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// How deep `${a:-${b:-...}}` may nest: nobody writes more than a few, and each level takes some of the stack.
const DEPTH_MAX: usize = 64;

/// What a word means: without quotes and escapes, with the values of its variables.
pub fn expand(word: &str, escape: Escape, lookup: &Lookup<'_>) -> Result<String, Fault> {
    expand_within(word, escape, lookup, &Budget::new())
}

/// The same, split at the blanks that are neither quoted nor escaped: also those that variables bring.
pub fn expand_words(word: &str, escape: Escape, lookup: &Lookup<'_>) -> Result<Vec<String>, Fault> {
    process(word, escape, lookup, &Budget::new()).map(|(_, words)| words)
}

/// [`expand`] as one of several words.
pub(crate) fn expand_within(word: &str, escape: Escape, lookup: &Lookup<'_>, budget: &Budget) -> Result<String, Fault> {
    process(word, escape, lookup, budget).map(|(text, _)| text)
}

fn process(word: &str, escape: Escape, lookup: &Lookup<'_>, budget: &Budget) -> Result<(String, Vec<String>), Fault> {
    let style = Style { raw_quotes: false, raw_escapes: false, skip_unset: false };
    budget.begin_word();
    let mut lex = Lex::new(word, escape, lookup, style, budget);
    lex.text(None).map_err(|why| Fault::Expand { word: word.to_owned(), why: Box::new(why) })
}

/// The words of a line as they stand there, with quotes and escapes: where heredocs are looked for.
pub(crate) fn raw_words(line: &str) -> Vec<String> {
    let style = Style { raw_quotes: true, raw_escapes: true, skip_unset: true };
    // What is wrong with quotes is the shell's business: then there are no heredocs.
    Lex::new(line, '\\', &|_| None, style, &Budget::new()).text(None).map(|(_, words)| words).unwrap_or_default()
}

/// The words of a heredoc's name, with or without their quotes.
pub(crate) fn name_words(text: &str, raw_quotes: bool) -> Result<Vec<String>, Fault> {
    let style = Style { raw_quotes, raw_escapes: false, skip_unset: true };
    let words = Lex::new(text, '\\', &|_| None, style, &Budget::new()).text(None).map(|(_, words)| words);
    words.map_err(|why| Fault::Expand { word: text.to_owned(), why: Box::new(why) })
}

#[derive(Clone, Copy)]
struct Style {
    raw_quotes: bool,
    raw_escapes: bool,
    /// What has no value stays as it is.
    skip_unset: bool,
}

struct Lex<'a> {
    letters: Vec<char>,
    at: usize,
    escape: char,
    lookup: &'a Lookup<'a>,
    style: Style,
    depth: usize,
    budget: &'a Budget,
}

/// Words that are being made.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    open: String,
}

impl Words {
    fn letter(&mut self, letter: char) {
        if !letter.is_whitespace() {
            self.open.push(letter);
        } else if !self.open.is_empty() {
            self.done.push(std::mem::take(&mut self.open));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.open.is_empty() {
            self.done.push(self.open);
        }
        self.done
    }
}

impl<'a> Lex<'a> {
    fn new(word: &str, escape: char, lookup: &'a Lookup<'a>, style: Style, budget: &'a Budget) -> Lex<'a> {
        Lex { letters: word.chars().collect(), at: 0, escape, lookup, style, depth: 0, budget }
    }

    fn value(&self, name: &str) -> Result<Option<String>, Fault> {
        let value = (self.lookup)(name);
        self.budget.value(value.as_ref().map_or(0, String::len))?;
        Ok(value)
    }

    fn peek(&self) -> Option<char> {
        self.letters.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let letter = self.peek();
        self.at += usize::from(letter.is_some());
        letter
    }

    /// Up to `end`, or to the end of the word.
    fn text(&mut self, end: Option<char>) -> Result<(String, Vec<String>), Fault> {
        let (mut text, mut words) = (String::new(), Words::default());
        while let Some(letter) = self.next() {
            match letter {
                letter if Some(letter) == end => return Ok((text, words.finish())),
                '\'' | '"' => {
                    let quoted = if letter == '"' { self.double_quoted()? } else { self.single_quoted()? };
                    text.push_str(&quoted);
                    words.open.push_str(&quoted);
                }
                '$' => {
                    let value = self.variable()?;
                    text.push_str(&value);
                    value.chars().for_each(|letter| words.letter(letter));
                }
                '<' => {
                    let start = self.heredoc_start();
                    text.push_str(&start);
                    words.open.push_str(&start);
                }
                letter if letter == self.escape => {
                    if self.style.raw_escapes {
                        text.push(letter);
                        words.open.push(letter);
                    }
                    // One at the end is left out.
                    let Some(letter) = self.next() else { break };
                    text.push(letter);
                    words.open.push(letter);
                }
                letter => {
                    text.push(letter);
                    words.letter(letter);
                }
            }
        }
        match end {
            Some('/') => Err(Fault::Unended("/")),
            Some(_) => Err(Fault::Unended("}")),
            None => Ok((text, words.finish())),
        }
    }

    /// `<<` with the blanks behind it, which do not split.
    fn heredoc_start(&mut self) -> String {
        if self.peek() != Some('<') {
            return "<".to_owned();
        }
        self.at += 1;
        let mut text = "<<".to_owned();
        while let Some(blank) = self.peek().filter(|letter| matches!(letter, '\t' | '\r' | ' ')) {
            text.push(blank);
            self.at += 1;
        }
        text
    }

    fn single_quoted(&mut self) -> Result<String, Fault> {
        let mut text = self.quote('\'');
        loop {
            match self.next() {
                None => return Err(Fault::Unended("single-quote")),
                Some('\'') => return Ok(text + &self.quote('\'')),
                Some(letter) => text.push(letter),
            }
        }
    }

    fn quote(&self, quote: char) -> String {
        if self.style.raw_quotes { quote.to_string() } else { String::new() }
    }

    fn double_quoted(&mut self) -> Result<String, Fault> {
        let mut text = self.quote('"');
        loop {
            match self.next() {
                None => return Err(Fault::Unended("double-quote")),
                Some('"') => return Ok(text + &self.quote('"')),
                Some('$') => text.push_str(&self.variable()?),
                // As in a shell it escapes these, and stands for itself before others.
                Some(letter) if letter == self.escape => {
                    if self.style.raw_escapes {
                        text.push(letter);
                    }
                    match self.peek() {
                        None => {}
                        Some(next) if matches!(next, '"' | '$') || next == self.escape => {
                            self.at += 1;
                            text.push(next);
                        }
                        Some(_) => text.push(letter),
                    }
                }
                Some(letter) => text.push(letter),
            }
        }
    }

    /// Behind a `$`.
    fn variable(&mut self) -> Result<String, Fault> {
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.value(&name)? {
                None if self.style.skip_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.at += 1;
        match self.peek() {
            None => return Err(Fault::MissingBrace),
            Some('{' | '}' | ':') => return Err(Fault::BadSubstitution),
            Some(_) => {}
        }
        if self.depth >= DEPTH_MAX {
            return Err(Fault::TooDeep);
        }
        self.depth += 1;
        let value = self.braced();
        self.depth -= 1;
        let value = value?;
        // What it is made of may be longer than what was looked up.
        self.budget.value(value.len())?;
        Ok(value)
    }

    /// Behind a `${`.
    fn braced(&mut self) -> Result<String, Fault> {
        let name = self.name();
        let value = self.value(&name)?;
        let skipped = self.style.skip_unset && value.is_none();
        let first = self.next();
        let (colon, modifier) = match first {
            Some('}') if skipped => return Ok(format!("${{{name}}}")),
            Some('}') => return Ok(value.unwrap_or_default()),
            Some(':') => (true, self.next()),
            other => (false, other),
        };
        let told = format!("{}{}", if colon { ":" } else { "" }, modifier.unwrap_or('\u{fffd}'));
        match modifier {
            Some('/') if !colon => self.replaced(&name, value, skipped),
            Some('#' | '%') if colon => Err(Fault::Modifier(told)),
            Some(letter @ ('+' | '-' | '?' | '#' | '%')) => {
                let word = self.part('}', matches!(letter, '#' | '%'))?;
                if skipped {
                    return Ok(format!("${{{name}{told}{word}}}"));
                }
                choose(&name, value, letter, colon, word, self.budget)
            }
            // What follows a colon is read first.
            _ if colon => self.part('}', false).and(Err(Fault::Modifier(told))),
            _ => Err(Fault::Modifier(told)),
        }
    }

    /// Behind a `${name/`.
    fn replaced(&mut self, name: &str, value: Option<String>, skipped: bool) -> Result<String, Fault> {
        let all = self.peek() == Some('/');
        self.at += usize::from(all);
        let pattern = self.part('/', true)?;
        let other = self.part('}', true)?;
        if skipped {
            return Ok(format!("${{{name}/{pattern}/{other}}}"));
        }
        Pattern::parse(&pattern)?.replace(&value.unwrap_or_default(), &other, all, self.budget)
    }

    fn part(&mut self, end: char, raw_escapes: bool) -> Result<String, Fault> {
        let before = std::mem::replace(&mut self.style.raw_escapes, raw_escapes);
        let text = self.text(Some(end));
        self.style.raw_escapes = before;
        text.map(|(text, _)| text).map_err(|fault| match fault {
            _ if self.peek().is_some() => fault,
            Fault::TooDeep | Fault::TooLong => fault,
            _ if end == '/' => Fault::MissingSlash,
            _ => Fault::MissingBrace,
        })
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        let Some(first) = self.peek() else { return name };
        if first.is_ascii_digit() {
            while let Some(digit) = self.peek().filter(char::is_ascii_digit) {
                name.push(digit);
                self.at += 1;
            }
            return name;
        }
        if matches!(first, '@' | '*' | '#' | '?' | '-' | '$' | '!') {
            self.at += 1;
            return first.to_string();
        }
        while let Some(letter) = self.peek().filter(|letter| letter.is_alphanumeric() || *letter == '_') {
            name.push(letter);
            self.at += 1;
        }
        name
    }
}

fn choose(
    name: &str,
    value: Option<String>,
    modifier: char,
    colon: bool,
    word: String,
    budget: &Budget,
) -> Result<String, Fault> {
    let filled = value.as_ref().is_some_and(|value| !colon || !value.is_empty());
    match modifier {
        '-' if filled => Ok(value.unwrap_or_default()),
        '-' => Ok(word),
        '+' if filled => Ok(word),
        '+' => Ok(String::new()),
        '?' if filled => Ok(value.unwrap_or_default()),
        '?' => {
            let told = if value.is_none() { "is not allowed to be unset" } else { "is not allowed to be empty" };
            let message = if word.is_empty() { told.to_owned() } else { word };
            Err(Fault::Required { name: name.to_owned(), message })
        }
        _ => {
            let longest = word.starts_with(modifier);
            let pattern = Pattern::parse(if longest { &word[1..] } else { &word })?;
            let value = value.unwrap_or_default();
            match modifier {
                '#' => pattern.trim_start(&value, longest, budget),
                _ => pattern.trim_end(&value, longest, budget),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        let known = [("FOO", "bar"), ("E", ""), ("P", "/usr/local/lib"), ("PORTS", "80 443"), ("F", "a.tar.gz")];
        known.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned())
    }

    fn check(word: &str, wanted: Result<&str, &str>) {
        let found = expand(word, '\\', &lookup).map_err(|fault| fault.to_string());
        let wanted = wanted.map_err(|why| format!("failed to process {word:?}: {why}"));
        assert_eq!(found, wanted.map(str::to_owned), "{word}");
    }

    #[test]
    fn words_mean_what_buildkit_says() {
        for (word, wanted) in [
            ("hello", "hello"),
            ("he'll'o", "hello"),
            ("he'$FOO'o", "he$FOOo"),
            (r#""$FOO x""#, "bar x"),
            (r#""a\"b\x""#, r#"a"b\x"#),
            (r"\$FOO", "$FOO"),
            (r"a\", "a"),
            ("$FOO-${FOO}.$", "bar-bar.$"),
            ("$NONE|${NONE}", "|"),
            ("$1x", "x"),
            ("${FOO:-x}${NONE:-x}${E:-x}${E-x}${NONE-x}", "barxxx"),
            ("${FOO:+x}${NONE:+x}${E:+x}${E+x}", "xx"),
            ("${FOO:?x}${FOO?}${E?}", "barbar"),
            ("${NONE:-${FOO:-y}}", "bar"),
            ("${NONE:-'a b'}", "a b"),
            ("${P#/}${P#*/}${P##*/}", "usr/local/libusr/local/liblib"),
            ("${P%/*}|${P%%/*}", "/usr/local|"),
            ("${F%.*}|${F%%.*}|${F#*.}|${F##*.}", "a.tar|a|tar.gz|gz"),
            (r"${P/\//:}|${P//\//:}", ":usr/local/lib|:usr:local:lib"),
            ("${F/a?t/}|${FOO/x/y}|${FOO//b*/y}", "ar.gz|bar|y"),
            ("${FOO//a/}", "br"),
        ] {
            check(word, Ok(wanted));
        }
        for (word, why) in [
            ("'x", "unexpected end of statement while looking for matching single-quote"),
            ("\"x", "unexpected end of statement while looking for matching double-quote"),
            ("${", "syntax error: missing '}'"),
            ("${}", "syntax error: bad substitution"),
            ("${FOO:-x", "syntax error: missing '}'"),
            ("${FOO/x", "syntax error: missing '/' in ${}"),
            ("${NONE?}", "NONE: is not allowed to be unset"),
            ("${E:?}", "E: is not allowed to be empty"),
            ("${NONE:?no way}", "NONE: no way"),
            ("${FOO:#x}", "unsupported modifier (:#) in substitution"),
            ("${FOO=x}", "unsupported modifier (=) in substitution"),
            (r"${FOO#\a}", r"invalid pattern (\a) in substitution: invalid escape '\a'"),
        ] {
            check(word, Err(why));
        }
    }

    #[test]
    fn values_are_split_where_nothing_quotes_them() {
        let words = |word| expand_words(word, '\\', &lookup).unwrap();
        assert_eq!(words("$PORTS 8080"), ["80", "443", "8080"]);
        assert_eq!(words("\"$PORTS\""), ["80 443"]);
        assert_eq!(words(r"a\ b  c"), ["a b", "c"]);
    }

    #[test]
    fn nesting_is_bounded() {
        let word = format!("{}x{}", "${A:-".repeat(100_000), "}".repeat(100_000));
        let Err(Fault::Expand { why, .. }) = expand(&word, '\\', &lookup) else { panic!("it is refused") };
        assert_eq!(*why, Fault::TooDeep);
    }

    fn why(word: &str, lookup: &Lookup<'_>) -> Fault {
        let Err(Fault::Expand { why, .. }) = expand(word, '\\', lookup) else { panic!("it is refused: {word:.40}") };
        *why
    }

    #[test]
    fn what_variables_come_to_is_bounded() {
        let value = "x".repeat(200_000);
        let lookup = |name: &str| (name == "V").then(|| value.clone());
        assert_eq!(expand("$V$V$V$V", '\\', &lookup).unwrap().len(), 800_000);
        for word in [
            "$V".repeat(6),
            "${V}".repeat(6),
            "\"$V\"".repeat(6),
            "${N:-$V}".repeat(4),
            "${V:+}".repeat(6),
            "${V//x/xxxxxxxx}".to_owned(),
            "$N".repeat(100_000),
        ] {
            assert_eq!(why(&word, &lookup), Fault::TooLong, "{word:.40}");
        }
        // What stands there itself is as long as the file.
        let literal = "y".repeat(3_000_000);
        assert_eq!(expand(&literal, '\\', &lookup).unwrap(), literal);
    }

    #[test]
    fn words_of_an_instruction_share_a_bound() {
        let value = "x".repeat(900_000);
        let lookup = |name: &str| (name == "V").then(|| value.clone());
        let budget = Budget::new();
        let expanded: Vec<bool> = (0..6).map(|_| expand_within("$V", '\\', &lookup, &budget).is_ok()).collect();
        assert_eq!(expanded, [true, true, true, true, false, false]);
    }

    #[test]
    fn what_patterns_take_is_bounded() {
        let value = "y".repeat(100_000);
        let lookup = |name: &str| (name == "V").then(|| value.clone());
        let stars = "*".repeat(1000);
        for word in ["${V//*x/}".to_owned(), format!("${{V##{stars}x}}"), format!("${{V%%x{stars}}}")] {
            assert_eq!(why(&word, &lookup), Fault::TooLong, "{word:.40}");
        }
        // A line or a path of usual length is far from it.
        let path = "/usr/local/bin:".repeat(100);
        let usual = |name: &str| (name == "V").then(|| path.clone());
        assert_eq!(expand("${V//*x/}", '\\', &usual).unwrap(), path);
    }
}
