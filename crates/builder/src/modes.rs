//! `--chmod`: a number, or who gets and loses what, as chmod(1) has it.

/// What `--chmod` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Modes(Said);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Number(u32),
    Changes(Vec<Change>),
}

/// `u+x`, of `ug=rwX,o-w`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    who: Vec<Who>,
    verb: Verb,
    what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Add,
    Remove,
    Set,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    User,
    Group,
    Other,
}

impl Who {
    const ALL: [Who; 3] = [Who::User, Who::Group, Who::Other];

    /// Where its three bits begin.
    fn shift(self) -> u32 {
        match self {
            Who::User => 6,
            Who::Group => 3,
            Who::Other => 0,
        }
    }

    /// Its bit among set-user-id, set-group-id and sticky, and the letter for that.
    fn special(self) -> (u32, char) {
        match self {
            Who::User => (0o4000, 's'),
            Who::Group => (0o2000, 's'),
            Who::Other => (0o1000, 't'),
        }
    }

    fn of(letter: char) -> Option<Who> {
        match letter {
            'u' => Some(Who::User),
            'g' => Some(Who::Group),
            'o' => Some(Who::Other),
            _ => None,
        }
    }
}

/// The text says no modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no modes")]
pub struct NoModes;

impl Modes {
    /// Of `755`, `u=rwX,go=rX`.
    pub fn parse(text: &str) -> Result<Modes, NoModes> {
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            let number = u32::from_str_radix(text, 8).ok().filter(|number| *number <= 0o7777);
            return number.map(|number| Modes(Said::Number(number))).ok_or(NoModes);
        }
        let mut changes = Vec::new();
        for clause in text.split(',') {
            clause_of(clause, &mut changes)?;
        }
        Ok(Modes(Said::Changes(changes)))
    }

    /// The number, if it is one: with BuildKit directories that are only on the way have it, too.
    pub fn number(&self) -> Option<u32> {
        match self.0 {
            Said::Number(number) => Some(number),
            Said::Changes(_) => None,
        }
    }

    /// What becomes of the permissions that a file, or a directory, has.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match &self.0 {
            Said::Number(number) => *number,
            Said::Changes(changes) => changes.iter().fold(mode, |mode, change| change.apply(mode, is_directory)),
        }
    }
}

/// The changes of `u+x-w`.
fn clause_of(clause: &str, changes: &mut Vec<Change>) -> Result<(), NoModes> {
    let verb_of = |letter: char| match letter {
        '+' => Some(Verb::Add),
        '-' => Some(Verb::Remove),
        '=' => Some(Verb::Set),
        _ => None,
    };
    let begin = clause.find(|letter| verb_of(letter).is_some()).ok_or(NoModes)?;
    let mut who = Vec::new();
    for letter in clause[..begin].chars() {
        match letter {
            'a' => who.extend(Who::ALL),
            letter => who.push(Who::of(letter).ok_or(NoModes)?),
        }
    }
    if who.is_empty() {
        who.extend(Who::ALL);
    }
    for letter in clause[begin..].chars() {
        match (verb_of(letter), changes.last_mut()) {
            (Some(verb), _) => changes.push(Change { who: who.clone(), verb, what: String::new() }),
            (None, Some(change)) if "rwxXstugo".contains(letter) => change.what.push(letter),
            _ => return Err(NoModes),
        }
    }
    Ok(())
}

impl Change {
    fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        self.who.iter().fold(mode, |now, who| {
            let (special, letter) = who.special();
            let kept = if self.what.contains(letter) { special } else { 0 };
            let bits = self.what.chars().fold(0, |bits, letter| bits | bits_of(letter, mode, is_directory));
            let bits = (bits << who.shift()) | kept;
            match self.verb {
                Verb::Add => now | bits,
                Verb::Remove => now & !bits,
                Verb::Set => (now & !((7 << who.shift()) | special)) | bits,
            }
        })
    }
}

/// The three bits that a letter stands for.
fn bits_of(letter: char, mode: u32, is_directory: bool) -> u32 {
    match letter {
        'r' => 4,
        'w' => 2,
        'x' => 1,
        // For who may enter or run it anyhow.
        'X' if is_directory || mode & 0o111 != 0 => 1,
        letter => Who::of(letter).map_or(0, |who| (mode >> who.shift()) & 7),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_numbers_or_changes() {
        for (text, mode, is_directory, wanted) in [
            ("640", 0o755, false, 0o640),
            ("4755", 0, false, 0o4755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("+x", 0o644, false, 0o755),
            ("a-w", 0o666, true, 0o444),
            ("u+s,g+s,+t", 0o755, false, 0o7755),
            ("u=s", 0o755, false, 0o4055),
            ("o=", 0o777, false, 0o770),
            ("g=u", 0o740, false, 0o770),
            ("u+x-w", 0o600, false, 0o500),
            ("ug-x", 0o777, false, 0o667),
        ] {
            assert_eq!(Modes::parse(text).unwrap().apply(mode, is_directory), wanted, "{text}");
        }
        for text in ["", "999", "10000", "8", "u", "rwx", "z+x", "u+q", "u=rw,", "-", "07777777777777777"] {
            let parsed = Modes::parse(text);
            assert!(parsed.is_err() || text == "-", "{text}: {parsed:?}");
        }
    }
}
