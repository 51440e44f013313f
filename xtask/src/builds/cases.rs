//! Cases: Dockerfiles with their contexts, written so that a screen shows ten of them.
//!
//! ```text
//! # a comment
//! known WAY ASPECT: REASON     before the first case: of all cases of the file where it differs; in `all.cases`, of all
//! case NAME                    the Dockerfile follows, each line behind `| `
//! flags WORDS                  more words for `build`
//! only WAY                     classic or buildx; both if not said
//! known WAY ASPECT: REASON     what differs here; `any` stands for both ways
//! known WAY ASPECT `REGEX`: REASON  the same of those lines alone that are so
//! file PATH [MODE]             `%20` is a blank of a name; its lines follow, each behind `| `
//! dir PATH [MODE]
//! link PATH TARGET             a symbolic link
//! hard PATH TARGET             a further name of a file
//! fifo PATH
//! archive PATH DIRECTORY       packs a directory of the context, of user 5 and group 6, which then goes; by the ending of
//!                              the name compressed
//! xattr PATH NAME VALUE
//! crlf PATH                    the lines of a file end as Windows ends them
//! ```

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use regex_lite::Regex;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use testkit::paths;

use super::compare::{Aspect, Way};
use crate::step::quiet;

/// The time of all files of contexts: so far back that what a build makes new is told from it, and with a fraction.
const TIME: Timespec = Timespec { tv_sec: 1_600_000_001, tv_nsec: 250_000_000 };

/// A Dockerfile with all that belongs to it.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) flags: Vec<String>,
    pub(super) only: Option<Way>,
    pub(super) known: Vec<Known>,
    items: Vec<Item>,
}

/// A difference that is meant, or not ours to mend.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Both if none.
    pub(super) way: Option<Way>,
    pub(super) aspect: Aspect,
    /// Of which lines; of all if none.
    lines: Option<Regex>,
    pub(super) reason: String,
    /// Whether it is said of a whole file of cases, in some of which it may not be seen.
    pub(super) everywhere: bool,
}

impl Known {
    /// Whether it is about this line of a difference.
    pub(super) fn covers(&self, way: Way, aspect: Aspect, line: &str) -> bool {
        let concerned = self.way.is_none_or(|one| one == way) && self.aspect == aspect;
        concerned && self.lines.as_ref().is_none_or(|lines| lines.is_match(line))
    }
}

/// Something in a context.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    File { path: String, mode: u32, text: String },
    Directory { path: String, mode: u32 },
    Link { path: String, target: String },
    Hard { path: String, target: String },
    Fifo { path: String },
    Archive { path: String, directory: String },
    Xattr { path: String, name: String, value: String },
    Crlf { path: String },
}

/// All cases of the work tree, in order of their files' names.
pub(super) fn load() -> Result<Vec<Case>> {
    let directory = paths::workspace().join("xtask/src/builds/cases");
    let mut files: Vec<_> = fs::read_dir(&directory)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    let all = fs::read_to_string(directory.join("all.cases"))?;
    let all = all.lines().filter_map(|line| line.strip_prefix("known "));
    let everywhere = all.map(|line| known(line, true).context("all.cases")).collect::<Result<Vec<_>>>()?;
    let mut cases: Vec<Case> = Vec::new();
    for file in files.iter().filter(|file| !file.ends_with("all.cases")) {
        let text = fs::read_to_string(file)?;
        cases.extend(parse(&text, everywhere.clone()).with_context(|| file.display().to_string())?);
    }
    let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    names.sort_unstable();
    let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
    ensure!(twice.is_none(), "two cases are called {twice:?}");
    Ok(cases)
}

/// The cases of a file.
pub(super) fn parse(text: &str, mut everywhere: Vec<Known>) -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let placed = || format!("line {}: {line:?}", number + 1);
        match (line.split_once(' ').unwrap_or((line, "")), cases.last_mut()) {
            (("" | "#", _), _) => {}
            ((word, _), _) if word.starts_with('#') => {}
            (("case", name), _) => cases.push(Case::new(name, &everywhere)),
            (("known", rest), None) => everywhere.push(known(rest, true).with_context(placed)?),
            ((word, rest), Some(case)) => case.take(word, rest).with_context(placed)?,
            (_, None) => bail!("{}: before the first case", placed()),
        }
    }
    Ok(cases)
}

impl Case {
    fn new(name: &str, everywhere: &[Known]) -> Case {
        let dockerfile = Item::File { path: "Dockerfile".to_owned(), mode: 0o644, text: String::new() };
        Case {
            name: name.to_owned(),
            flags: Vec::new(),
            only: None,
            known: everywhere.to_vec(),
            items: vec![dockerfile],
        }
    }

    fn take(&mut self, word: &str, rest: &str) -> Result<()> {
        let mut words = rest.splitn(3, ' ').map(|word| word.replace("%20", " "));
        let path = words.next().filter(|path| !path.is_empty() || word == "|").context("a word is missing")?;
        let second = words.next();
        let mode = |usual: u32| second.as_deref().map_or(Ok(usual), |text| u32::from_str_radix(text, 8));
        let target = || second.clone().context("a word is missing");
        let item = match word {
            "|" => return self.append(rest),
            "flags" => {
                self.flags = rest.split(' ').map(str::to_owned).collect();
                return Ok(());
            }
            "only" => {
                self.only = Some(way(rest)?);
                return Ok(());
            }
            "known" => {
                self.known.push(known(rest, false)?);
                return Ok(());
            }
            "file" => Item::File { path, mode: mode(0o644)?, text: String::new() },
            "dir" => Item::Directory { path, mode: mode(0o755)? },
            "link" => Item::Link { path, target: target()? },
            "hard" => Item::Hard { path, target: target()? },
            "fifo" => Item::Fifo { path },
            "archive" => Item::Archive { path, directory: target()? },
            "xattr" => Item::Xattr { path, name: target()?, value: words.next().unwrap_or_default() },
            "crlf" => Item::Crlf { path },
            _ => bail!("no such word"),
        };
        self.items.push(item);
        Ok(())
    }

    /// A further line of the last file.
    fn append(&mut self, line: &str) -> Result<()> {
        let Some(Item::File { text, .. }) = self.items.last_mut() else { bail!("no file before it") };
        text.push_str(line);
        text.push('\n');
        Ok(())
    }

    /// Makes the context in an empty directory.
    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        self.items.iter().try_for_each(|item| item.make(directory).with_context(|| format!("{item:?}")))?;
        settle(directory)
    }
}

fn way(word: &str) -> Result<Way> {
    Way::ALL.into_iter().find(|way| way.to_string() == word).with_context(|| format!("no way of building is {word:?}"))
}

/// ``WAY ASPECT [`REGEX`]: REASON``.
fn known(text: &str, everywhere: bool) -> Result<Known> {
    let (first, rest) = text.split_once(' ').context("an aspect is missing")?;
    let way = if first == "any" { None } else { Some(way(first)?) };
    let (place, lines, reason) = match rest.split_once(" `") {
        Some((place, rest)) => {
            let (lines, reason) = rest.split_once("`: ").context("a reason is missing")?;
            (place, Some(Regex::new(lines)?), reason)
        }
        None => {
            let (place, reason) = rest.split_once(": ").context("a reason is missing")?;
            (place, None, reason)
        }
    };
    let aspect = Aspect::ALL.into_iter().find(|one| one.to_string() == place).context("there is no such aspect")?;
    Ok(Known { way, aspect, lines, reason: reason.to_owned(), everywhere })
}

impl Item {
    fn make(&self, root: &Path) -> Result<()> {
        let place = |path: &str| -> Result<std::path::PathBuf> {
            let place = root.join(path);
            fs::create_dir_all(place.parent().context("a path in the context")?)?;
            Ok(place)
        };
        match self {
            Item::File { path, mode, text } => {
                let path = place(path)?;
                fs::write(&path, text)?;
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
            }
            Item::Directory { path, mode } => {
                let path = place(path)?;
                fs::create_dir_all(&path)?;
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
            }
            Item::Link { path, target } => symlink(target, place(path)?)?,
            Item::Hard { path, target } => fs::hard_link(root.join(target), place(path)?)?,
            Item::Fifo { path } => rustix::fs::mknodat(CWD, place(path)?, FileType::Fifo, Mode::from(0o644), 0)?,
            Item::Archive { path, directory } => pack(&place(path)?, &root.join(directory))?,
            Item::Xattr { path, name, value } => {
                rustix::fs::setxattr(root.join(path), name.as_str(), value.as_bytes(), XattrFlags::empty())?;
            }
            Item::Crlf { path } => {
                let path = root.join(path);
                let text = fs::read_to_string(&path)?;
                fs::write(&path, text.replace('\n', "\r\n"))?;
            }
        }
        Ok(())
    }
}

fn pack(archive: &Path, directory: &Path) -> Result<()> {
    settle(directory)?;
    let mut command = Command::new("tar");
    command.args(["--owner=5", "--group=6", "--numeric-owner", "--sort=name", "--auto-compress", "-cf"]);
    quiet(command.arg(archive).arg("-C").arg(directory).arg("."))?;
    Ok(fs::remove_dir_all(directory)?)
}

/// Gives all that is below a directory, and itself, the same time.
fn settle(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            settle(&entry.path())?;
        } else {
            set_time(&entry.path())?;
        }
    }
    set_time(directory)
}

fn set_time(path: &Path) -> Result<()> {
    let times = Timestamps { last_access: TIME, last_modification: TIME };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
