//! Words of an instruction: quotes, escapes, variables.

use super::InstructionError;

/// The variables that words may name: `NAME=VALUE`.
pub(super) struct Words<'a>(pub(super) &'a [String]);

impl Words<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|entry| entry.split_once('=').filter(|(own, _)| *own == name).map(|(_, value)| value))
    }
}

/// A list of texts in JSON; `None` for anything else.
pub(super) fn json_list(text: &str) -> Option<Vec<String>> {
    if !text.starts_with('[') {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// Splits at blanks that are neither quoted nor escaped; what made them so stays.
pub(super) fn split_words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, letter) if letter.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            (None, '"' | '\'') => quote = Some(letter),
            (Some(open), letter) if letter == open => quote = None,
            (None | Some('"'), '\\') => {
                word.push(letter);
                word.extend(letters.next());
                continue;
            }
            _ => {}
        }
        word.push(letter);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// What a word means: without quotes and escapes, with the values of its variables.
pub(super) fn expand(word: &str, variables: &Words<'_>) -> Result<String, InstructionError> {
    let letters: Vec<char> = word.chars().collect();
    let mut reading = Reading { letters: &letters, at: 0, variables };
    reading.text(None)
}

struct Reading<'a> {
    letters: &'a [char],
    at: usize,
    variables: &'a Words<'a>,
}

impl Reading<'_> {
    fn next(&mut self) -> Option<char> {
        let letter = self.letters.get(self.at).copied();
        self.at += 1;
        letter
    }

    fn peek(&self) -> Option<char> {
        self.letters.get(self.at).copied()
    }

    /// Up to `end`, or to the end of the word.
    fn text(&mut self, end: Option<char>) -> Result<String, InstructionError> {
        let mut text = String::new();
        while let Some(letter) = self.next() {
            match letter {
                letter if Some(letter) == end => return Ok(text),
                '\'' => text.push_str(&self.single_quoted()?),
                '"' => text.push_str(&self.double_quoted()?),
                '$' => text.push_str(&self.variable()?),
                // One at the end stands for itself.
                '\\' => text.push(self.next().unwrap_or('\\')),
                letter => text.push(letter),
            }
        }
        match end {
            Some(_) => Err(InstructionError::Unended("}")),
            None => Ok(text),
        }
    }

    fn single_quoted(&mut self) -> Result<String, InstructionError> {
        let mut text = String::new();
        loop {
            match self.next() {
                None => return Err(InstructionError::Unended("single-quote")),
                Some('\'') => return Ok(text),
                Some(letter) => text.push(letter),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<String, InstructionError> {
        let mut text = String::new();
        loop {
            match self.next() {
                None => return Err(InstructionError::Unended("double-quote")),
                Some('"') => return Ok(text),
                Some('$') => text.push_str(&self.variable()?),
                // As in a shell: it escapes these and stands for itself before others.
                Some('\\') => match self.peek() {
                    Some(letter @ ('"' | '$' | '\\')) => {
                        self.at += 1;
                        text.push(letter);
                    }
                    _ => text.push('\\'),
                },
                Some(letter) => text.push(letter),
            }
        }
    }

    /// Behind a `$`.
    fn variable(&mut self) -> Result<String, InstructionError> {
        if self.peek() != Some('{') {
            let name = self.name();
            // No name: the sign stands for itself.
            return Ok(if name.is_empty() { "$".to_owned() } else { self.value(&name) });
        }
        self.at += 1;
        let name = self.name();
        match self.next() {
            Some('}') => Ok(self.value(&name)),
            Some(':') => {
                let modifier = self.next();
                let other = self.text(Some('}'))?;
                let value = self.value(&name);
                match (modifier, value.is_empty()) {
                    (Some('-'), true) | (Some('+'), false) => Ok(other),
                    (Some('-'), false) => Ok(value),
                    (Some('+'), true) => Ok(String::new()),
                    _ => Err(InstructionError::Modifier),
                }
            }
            Some(modifier @ ('-' | '+')) => {
                let other = self.text(Some('}'))?;
                let value = self.variables.get(&name);
                Ok(match (modifier, value) {
                    ('-', Some(value)) => value.to_owned(),
                    ('-', None) | ('+', Some(_)) => other,
                    _ => String::new(),
                })
            }
            Some(_) => Err(InstructionError::Modifier),
            None => Err(InstructionError::Unended("}")),
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(letter) = self.peek().filter(|letter| letter.is_ascii_alphanumeric() || *letter == '_') {
            name.push(letter);
            self.at += 1;
        }
        name
    }

    fn value(&self, name: &str) -> String {
        self.variables.get(name).unwrap_or_default().to_owned()
    }
}
