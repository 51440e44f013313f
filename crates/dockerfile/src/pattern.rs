//! Patterns within `${name#pattern}`: `*`, `?` and letters. One match takes at most
//! the product of both lengths, to replace all takes their squares: a budget bounds it.

use crate::budget::Budget;
use crate::fault::Fault;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Any,
    One,
    Letter(char),
}

/// A pattern.
#[derive(Debug)]
pub(crate) struct Pattern(Vec<Token>);

impl Pattern {
    pub(crate) fn parse(text: &str) -> Result<Pattern, Fault> {
        let (mut tokens, mut letters) = (Vec::new(), text.chars().peekable());
        while let Some(letter) = letters.next() {
            tokens.push(match letter {
                '*' => Token::Any,
                '?' => Token::One,
                '\\' => match letters.next() {
                    // What ends the expression has to be escaped, and the escape is no part of the pattern.
                    Some(letter @ ('}' | '/' | '*' | '?' | '\\')) => Token::Letter(letter),
                    other => {
                        let letter = other.map(String::from).unwrap_or_default();
                        return Err(Fault::PatternEscape { pattern: text.to_owned(), letter });
                    }
                },
                letter => Token::Letter(letter),
            });
        }
        Ok(Pattern(tokens))
    }

    /// Where what fits ends that begins with the first letter: the shortest or the longest.
    fn end(&self, letters: &[char], longest: bool, budget: &Budget) -> Result<Option<usize>, Fault> {
        let last = self.0.len();
        let mut reached = vec![false; last + 1];
        reached[0] = true;
        self.spread(&mut reached);
        let mut found = reached[last].then_some(0);
        for (at, letter) in letters.iter().enumerate() {
            if found.is_some() && !longest {
                break;
            }
            budget.steps(last + 1)?;
            let mut next = vec![false; last + 1];
            for (index, token) in self.0.iter().enumerate().filter(|(index, _)| reached[*index]) {
                // As with Go's regular expressions, the end of a line is no letter that `*` or `?` stand for.
                match token {
                    Token::Any if *letter != '\n' => next[index] = true,
                    Token::One if *letter != '\n' => next[index + 1] = true,
                    Token::Letter(own) if own == letter => next[index + 1] = true,
                    _ => {}
                }
            }
            self.spread(&mut next);
            if !next.contains(&true) {
                break;
            }
            if next[last] {
                found = Some(at + 1);
            }
            reached = next;
        }
        Ok(found)
    }

    fn spread(&self, reached: &mut [bool]) {
        for (index, token) in self.0.iter().enumerate() {
            if reached[index] && *token == Token::Any {
                reached[index + 1] = true;
            }
        }
    }

    /// Without what fits at the front.
    pub(crate) fn trim_start(&self, value: &str, longest: bool, budget: &Budget) -> Result<String, Fault> {
        let letters: Vec<char> = value.chars().collect();
        let end = self.end(&letters, longest, budget)?.unwrap_or(0);
        Ok(letters[end..].iter().collect())
    }

    /// Without what fits at the end.
    pub(crate) fn trim_end(&self, value: &str, longest: bool, budget: &Budget) -> Result<String, Fault> {
        let reversed = Pattern(self.0.iter().rev().copied().collect());
        let letters: Vec<char> = value.chars().rev().collect();
        let end = reversed.end(&letters, longest, budget)?.unwrap_or(0);
        Ok(letters[end..].iter().rev().collect())
    }

    /// With `other` instead of what fits first, or everywhere.
    pub(crate) fn replace(&self, value: &str, other: &str, all: bool, budget: &Budget) -> Result<String, Fault> {
        let letters: Vec<char> = value.chars().collect();
        let (mut text, mut at, mut after_match) = (String::new(), 0, false);
        while at <= letters.len() {
            match self.end(&letters[at..], true, budget)? {
                Some(length) if length > 0 || !after_match => {
                    budget.value(other.len())?;
                    text.push_str(other);
                    if !all {
                        return Ok(text + &letters[at + length..].iter().collect::<String>());
                    }
                    at += length;
                    after_match = length > 0;
                    if length > 0 {
                        continue;
                    }
                }
                _ => after_match = false,
            }
            text.extend(letters.get(at));
            at += 1;
        }
        Ok(text)
    }
}
