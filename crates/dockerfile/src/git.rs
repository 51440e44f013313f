//! Addresses of Git repositories: `https://host/x.git#ref:directory`, as sources of `ADD` and as contexts.
//!
//! What is one, what its parts mean and what is said of a wrong one is BuildKit's (frontend/dockerfile/dfgitutil,
//! util/gitutil, util/sshutil).

/// A repository, and what of it is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitAddress {
    /// What `git` is told: the address without what stands behind `?` and `#`.
    pub remote: String,
    /// A branch, a tag or a commit; empty for what the repository's `HEAD` is.
    pub reference: String,
    /// The directory in it that counts; empty for all.
    pub directory: String,
    /// What the commit's name begins with, in hexadecimal; empty where that is open.
    pub checksum: String,
    /// Whether `.git` stays, where the address says so.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules come, where the address says so; they do by default.
    pub submodules: Option<bool>,
}

/// Why an address of a repository is wrong. The sentences are BuildKit's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GitAddressError {
    /// Behind the question mark.
    #[error("query {0:?} has no value")]
    NoValue(String),
    /// Behind the question mark, twice.
    #[error("query {0:?} has multiple values")]
    Twice(String),
    /// Behind the question mark, and unknown.
    #[error("unexpected query {0:?}")]
    Unknown(String),
    /// It is neither true nor false.
    #[error("invalid {name} value: {value:?}")]
    Bool {
        /// The word before `=`.
        name: &'static str,
        /// The one behind.
        value: String,
    },
    /// Two words say different things.
    #[error("{name} conflicts: {first:?} vs {second:?}")]
    Conflict {
        /// Of what.
        name: &'static str,
        /// The one.
        first: String,
        /// The other.
        second: String,
    },
    /// A tag and a branch at once.
    #[error("branch conflicts with tag")]
    BranchAndTag,
    /// It could be an option of `git`, or more than one reference.
    #[error("invalid git reference {0:?}")]
    Reference(String),
}

impl GitAddress {
    /// Reads what an `ADD` may name; `None` for what is something else.
    pub fn parse(text: &str) -> Result<Option<GitAddress>, GitAddressError> {
        let (whole, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (remote, query) = whole.split_once('?').unwrap_or((whole, ""));
        let is_repository = match scheme(remote) {
            Some("http" | "https") => remote.ends_with(".git"),
            Some("ssh" | "git") => true,
            Some(_) => false,
            None => is_scp(remote),
        };
        if !is_repository || remote.contains(|letter: char| letter.is_control()) {
            return Ok(None);
        }
        let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
        let (reference, directory) = (reference.to_owned(), directory.to_owned());
        let mut address = GitAddress { remote: remote.to_owned(), reference, directory, ..GitAddress::default() };
        address.ask(query)?;
        let odd = |letter: char| letter.is_control() || letter.is_whitespace() || "*?[\\^~:".contains(letter);
        if address.reference.starts_with(['-', '+']) || address.reference.contains(odd) {
            return Err(GitAddressError::Reference(address.reference));
        }
        Ok(Some(address))
    }

    /// The same of a context, which may be `github.com/user/repository`, too.
    pub fn parse_context(text: &str) -> Result<Option<GitAddress>, GitAddressError> {
        match text.starts_with("github.com/") {
            false => GitAddress::parse(text),
            true => {
                let end = text.find(['?', '#']).unwrap_or(text.len());
                let suffix = if text[..end].ends_with(".git") { "" } else { ".git" };
                GitAddress::parse(&format!("https://{}{suffix}{}", &text[..end], &text[end..]))
            }
        }
    }

    /// The directory that counts, without slashes at its ends; empty for all.
    pub fn directory(&self) -> &str {
        match self.directory.trim_matches('/') {
            "." => "",
            directory => directory,
        }
    }

    /// The remote without passwords and tokens, as it may be told.
    pub fn shown(&self) -> String {
        self.without_credentials(&self.remote)
    }

    /// A text without them: addresses of submodules have them from the one above.
    pub fn without_credentials(&self, text: &str) -> String {
        let credentials = self.credentials();
        match credentials {
            "" => text.to_owned(),
            user if user.contains(':') => text.replace(&format!("{user}@"), "xxxxx:xxxxx@"),
            user => text.replace(&format!("{user}@"), "xxxxx@"),
        }
    }

    /// What stands before the host, if it is more than the name of a user of ssh.
    fn credentials(&self) -> &str {
        let Some((scheme, rest)) = self.remote.split_once("://") else { return "" };
        let authority = rest.split('/').next().unwrap_or_default();
        match authority.rsplit_once('@') {
            Some((user, _)) if matches!(scheme, "http" | "https") || user.contains(':') => user,
            _ => "",
        }
    }

    /// Takes what stands behind the question mark.
    fn ask(&mut self, query: &str) -> Result<(), GitAddressError> {
        let mut seen: Vec<String> = Vec::new();
        let (mut tag, mut branch) = (String::new(), String::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (unescaped(name), unescaped(value));
            if seen.contains(&name) {
                return Err(GitAddressError::Twice(name));
            }
            if value.is_empty() && !matches!(name.as_str(), "submodules" | "keep-git-dir") {
                return Err(GitAddressError::NoValue(name));
            }
            match name.as_str() {
                "ref" => settle("ref", &mut self.reference, value)?,
                "tag" => tag = value,
                "branch" => branch = value,
                "subdir" => settle("subdir", &mut self.directory, value)?,
                "checksum" | "commit" => self.checksum = value,
                "keep-git-dir" => self.keep_git_dir = Some(truth("keep-git-dir", value)?),
                "submodules" => self.submodules = Some(truth("submodules", value)?),
                _ => return Err(GitAddressError::Unknown(name)),
            }
            seen.push(name);
        }
        if !tag.is_empty() && !branch.is_empty() {
            return Err(GitAddressError::BranchAndTag);
        }
        for (prefix, name) in [("refs/tags/", tag), ("refs/heads/", branch)] {
            if !name.is_empty() {
                let whole = if name.starts_with(prefix) { name } else { format!("{prefix}{name}") };
                settle("ref", &mut self.reference, whole)?;
            }
        }
        if self.reference.is_empty() {
            self.reference = self.checksum.clone();
        }
        Ok(())
    }
}

fn settle(name: &'static str, place: &mut String, value: String) -> Result<(), GitAddressError> {
    if !place.is_empty() && *place != value {
        return Err(GitAddressError::Conflict { name, first: place.clone(), second: value });
    }
    *place = value;
    Ok(())
}

/// As Go's ParseBool reads it; nothing is yes.
fn truth(name: &'static str, value: String) -> Result<bool, GitAddressError> {
    match value.as_str() {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(GitAddressError::Bool { name, value }),
    }
}

fn scheme(remote: &str) -> Option<&str> {
    let (scheme, _) = remote.split_once("://")?;
    scheme.bytes().all(|letter| letter.is_ascii_alphanumeric()).then_some(scheme)
}

/// `user@host:path`.
fn is_scp(remote: &str) -> bool {
    let Some((user, rest)) = remote.split_once('@') else { return false };
    let Some((host, path)) = rest.split_once(':') else { return false };
    let word = |text: &str, more: &str| {
        let is_good = |letter: char| letter.is_ascii_alphanumeric() || more.contains(letter);
        !text.is_empty() && !text.starts_with('-') && text.chars().all(is_good)
    };
    word(user, "-_") && word(host, "-.") && !path.is_empty()
}

/// A word of a query: percent signs stand for letters, plus signs for blanks.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = rest.get(1..3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match (first, digits) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &rest[3..];
            }
            (first, _) => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        match GitAddress::parse_context(text) {
            Ok(None) => "no".to_owned(),
            Ok(Some(at)) => {
                let GitAddress { remote, reference, directory, checksum, keep_git_dir, submodules } = at;
                format!("{remote} {reference} {directory} {checksum} {keep_git_dir:?} {submodules:?}")
            }
            Err(err) => err.to_string(),
        }
    }

    #[test]
    fn addresses_of_repositories_are_read_as_buildkit_reads_them() {
        for (text, wanted) in [
            ("https://h/x.git", "https://h/x.git    None None"),
            ("http://h/x.git#v1:a/b", "http://h/x.git v1 a/b  None None"),
            ("https://h/x.git#:a", "https://h/x.git  a  None None"),
            ("git@h:me/x.git#main", "git@h:me/x.git main   None None"),
            ("git://h/x", "git://h/x    None None"),
            ("ssh://git@h:22/x", "ssh://git@h:22/x    None None"),
            ("https://h/x.git?tag=v1&keep-git-dir", "https://h/x.git refs/tags/v1   Some(true) None"),
            ("https://h/x.git?branch=a%2Fb&submodules=0", "https://h/x.git refs/heads/a/b   None Some(false)"),
            ("https://h/x.git?commit=abc", "https://h/x.git abc  abc None None"),
            ("github.com/a/b#c", "https://github.com/a/b.git c   None None"),
            ("https://h/x", "no"),
            ("https://h/x?y=.git", "no"),
            ("ftp://h/x.git", "no"),
            ("file:///x.git", "no"),
            ("./a@b:c", "no"),
            ("-o@h:x", "no"),
            ("a/b.git", "no"),
        ] {
            assert_eq!(told(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_an_address_is_told() {
        for (query, wanted) in [
            ("?ref=", "query \"ref\" has no value"),
            ("?ref=a&ref=b", "query \"ref\" has multiple values"),
            ("?x=y", "unexpected query \"x\""),
            ("?submodules=x", "invalid submodules value: \"x\""),
            ("?ref=a#b", "ref conflicts: \"b\" vs \"a\""),
            ("?tag=a&branch=b", "branch conflicts with tag"),
            ("#--upload-pack=x", "invalid git reference \"--upload-pack=x\""),
            ("?ref=a:b", "invalid git reference \"a:b\""),
        ] {
            assert_eq!(told(&format!("https://h/x.git{query}")), wanted, "{query}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        for (text, wanted) in [
            ("https://me:secret@h/x.git", "https://xxxxx:xxxxx@h/x.git"),
            ("https://token@h/x.git", "https://xxxxx@h/x.git"),
            ("ssh://git@h/x.git", "ssh://git@h/x.git"),
            ("git@h:x", "git@h:x"),
        ] {
            assert_eq!(GitAddress::parse(text).unwrap().unwrap().shown(), wanted);
        }
    }
}
