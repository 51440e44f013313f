//! Which files a `COPY` or an `ADD` means.

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;

use bridge::Abandoned;
use dockerfile::{Files, GitAddress, GitAddressError, glob_match};
use registry_client::WebError;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::client_files::ClientFileError;
use super::explain::FILES_MAX;
use super::failed_at::Missing;
use super::git::GitError;
use super::kept_context::KnownFile;
use super::tree::{Looked, Nearby, Tree, hex};
use crate::sync::lock;

/// Something that is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// From the root of its tree, as it was named; to read.
    pub(super) path: String,
    /// The same as it is: names in a directory need be no texts.
    pub(super) bytes: Vec<u8>,
    /// What is in it, as history says it.
    pub(super) sum: String,
    /// All that a copy of it depends on: dockerd's sum knows neither links nor the names that a copy has.
    pub(super) exact: String,
    /// Sums of some of its files, by their paths, to tell which have changed.
    pub(super) files: Vec<(String, String)>,
    /// Whether it is from the web, and not of the tree.
    pub(super) is_remote: bool,
    /// Whether it is a directory.
    pub(super) is_directory: bool,
    /// How many of the directories above it are not copied where parents are.
    pub(super) dropped: usize,
}

/// Why there are none. The sentences are dockerd's.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It is not in the context.
    #[error("file not found in build context or excluded by .dockerignore: stat {0}: file does not exist")]
    NotInContext(Missing),
    /// It is not in the image.
    #[error("stat {0}: file does not exist")]
    NotFound(Missing),
    /// It is outside.
    #[error("forbidden path outside the build context: {0} ()")]
    Forbidden(String),
    /// Nothing fits.
    #[error("no source files were specified")]
    None,
    /// Only `ADD` downloads.
    #[error("source can't be a URL for COPY")]
    Url,
    /// It does not come from the web.
    #[error(transparent)]
    Web(#[from] WebError),
    /// A server says that something is as it was, which nobody asked.
    #[error("invalid response status 304")]
    NotModified,
    /// Only `ADD` fetches repositories.
    #[error("source can't be a git ref for COPY")]
    GitReference,
    /// The address of a repository is wrong.
    #[error(transparent)]
    GitAddress(#[from] GitAddressError),
    /// The instruction and the address say different things.
    #[error("inconsistent keep-git-dir configuration")]
    KeepGitDir,
    /// The same of what the commit should be.
    #[error("checksum mismatch {0:?} != {1:?}")]
    Checksums(String, String),
    /// It does not come from a repository.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The client's agent cannot be had for one.
    #[error(transparent)]
    Agent(#[from] ClientFileError),
    /// What comes from the web is something else. BuildKit's sentence.
    #[error("digest mismatch {found}: {wanted}")]
    Checksum {
        /// What it is.
        found: String,
        /// What it should be.
        wanted: String,
    },
    /// It cannot be read.
    #[error("read {path}")]
    Read {
        /// From the root of its tree.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// What is copied, in order; `remote` is what comes from the web, and `buildkit` whether it is built as BuildKit
/// does: patterns may fit nothing, and nothing is above the context. Reads all of the rest, as long as somebody waits for it.
pub(super) fn select(
    tree: &Tree,
    files: &Files,
    remote: Vec<Source>,
    buildkit: bool,
    abandoned: &Abandoned,
) -> Result<Vec<Source>, SourceError> {
    let (mut found, mut remote) = (Vec::new(), remote.into_iter());
    for named in &files.sources {
        if is_git(named) {
            found.push(remote.next().ok_or(SourceError::GitReference)?);
            continue;
        }
        if is_url(named) {
            found.push(remote.next().ok_or(SourceError::Url)?);
            continue;
        }
        let dropped = if files.parents { dropped(named) } else { 0 };
        let path = named.strip_prefix('/').unwrap_or(named);
        let path = path.strip_prefix("./").unwrap_or(path);
        // With BuildKit there is nothing above the context: `..` of its top is the top.
        if climbs(path) && !buildkit {
            return Err(SourceError::Forbidden(path.to_owned()));
        }
        let cleaned = engine_api::paths::clean(&format!("/{path}"));
        // A client that is asked for single files has not sent the directories that a path only passes through.
        let passes = path.split('/').any(|part| matches!(part, "." | "..")) && cleaned != "/";
        let path = if passes { &cleaned[1..] } else { path };
        if !has_wildcards(path) {
            found.push(one(tree, path.as_bytes(), files.from.is_empty(), abandoned)?.below(dropped));
            continue;
        }
        let failed = |err: Errno| SourceError::Read { path: path.to_owned(), source: err.into() };
        let pattern = engine_api::paths::clean(&format!("/{path}"));
        let levels = pattern.split('/').count() - 1;
        for fit in tree.walk("", levels).map_err(failed)? {
            if glob_match(&pattern[1..], &String::from_utf8_lossy(&fit)) {
                found.push(one(tree, &fit, files.from.is_empty(), abandoned)?.below(dropped));
            }
        }
    }
    if found.is_empty() && files.inline.is_empty() && !buildkit { Err(SourceError::None) } else { Ok(found) }
}

/// What the words of the history say of the files.
pub(super) fn sum(sources: &[Source], files: &Files) -> String {
    let inline = files.inline.iter().map(|file| {
        let mut hash = Sha256::new();
        hash.update(format!("{}\0{}", file.name, file.text));
        format!("file:{}", hex(hash))
    });
    let sums: Vec<String> = sources.iter().map(|source| source.sum.clone()).chain(inline).collect();
    match &sums[..] {
        [sum] => sum.clone(),
        sums => all("multi", sums),
    }
}

fn all(kind: &str, sums: &[String]) -> String {
    let mut hash = Sha256::new();
    hash.update(sums.join(","));
    format!("{kind}:{}", hex(hash))
}

/// All that whoever sees a part of a tree depends on. Reads all of it, as long as somebody waits for it.
pub(super) fn exact(tree: &Tree, path: &str, context: bool, abandoned: &Abandoned) -> Result<String, SourceError> {
    one(tree, path.as_bytes(), context, abandoned).map(|source| source.exact)
}

/// How many sources of images are remembered: some hundred kilobytes each at most.
const SEEN_MAX: usize = 16;

/// What was read of images and of contexts that have not changed: by the topmost layer or the context's generation, the
/// last one last.
#[derive(Debug, Default)]
pub(crate) struct SeenSources(Mutex<VecDeque<(String, Source)>>);

impl SeenSources {
    fn find(&self, layer: &str, path: &[u8]) -> Option<Source> {
        let mut all = lock(&self.0);
        let at = all.iter().position(|(of, source)| of == layer && source.bytes == path)?;
        let found = all.remove(at)?;
        let source = found.1.clone();
        all.push_back(found);
        Some(source)
    }

    fn add(&self, layer: &str, source: &Source) {
        let mut all = lock(&self.0);
        if all.len() == SEEN_MAX {
            all.pop_front();
        }
        all.push_back((layer.to_owned(), source.clone()));
    }
}

fn one(tree: &Tree, path: &[u8], context: bool, abandoned: &Abandoned) -> Result<Source, SourceError> {
    let Some((seen, name)) = tree.seen() else { return read(tree, path, context, abandoned) };
    if let Some(known) = seen.find(&name, path) {
        return Ok(known);
    }
    let source = read(tree, path, context, abandoned)?;
    seen.add(&name, &source);
    Ok(source)
}

fn read(tree: &Tree, bytes: &[u8], context: bool, abandoned: &Abandoned) -> Result<Source, SourceError> {
    let path = &*String::from_utf8_lossy(bytes);
    let failed = |source: io::Error| SourceError::Read { path: path.to_owned(), source };
    let found = match tree.find(bytes) {
        Err(Errno::NOENT | Errno::NOTDIR) if context => return Err(SourceError::NotInContext(Missing::of(tree, path))),
        Err(Errno::NOENT | Errno::NOTDIR) => return Err(SourceError::NotFound(Missing::of(tree, path))),
        found => found.map_err(|err| failed(err.into()))?,
    };
    let (mut exact, mut files) = (Exact::new(bytes), Vec::new());
    let sum = if found.is_directory() {
        let paths = tree.walk(&found.path, usize::MAX).map_err(|err| failed(err.into()))?;
        let read = read_all(tree, &paths, abandoned).map_err(failed)?;
        let mut sums = Vec::with_capacity(read.len());
        for (path, read) in paths.iter().zip(read) {
            let sum = match read {
                Read::Regular(known) => {
                    exact.regular(path, &known);
                    known.sum
                }
                Read::Other(looked, sum) => {
                    exact.add(path, &looked, &sum);
                    sum
                }
            };
            if files.len() < FILES_MAX {
                files.push((String::from_utf8_lossy(path).into_owned(), sum.clone()));
            }
            sums.push(sum);
        }
        sums.sort();
        all("dir", &sums)
    } else {
        // A link that is named itself is what it leads to.
        let sum = tree.sum(bytes, abandoned).map_err(failed)?;
        exact.add(b"", &Looked { stat: found.stat, link: Vec::new() }, &sum);
        files.push((path.to_owned(), sum.clone()));
        format!("file:{sum}")
    };
    let (exact, is_directory) = (exact.finish(), found.is_directory());
    Ok(Source {
        path: path.to_owned(),
        bytes: bytes.to_owned(),
        sum,
        exact,
        files,
        is_remote: false,
        is_directory,
        dropped: 0,
    })
}

/// What is known of a path when it was read.
enum Read {
    /// Of a regular file.
    Regular(KnownFile),
    /// Of anything else, and its sum.
    Other(Looked, String),
}

/// How many paths are worth a thread.
const PATHS_EACH: usize = 256;

/// Reads these, in their order, on all processors where they are many.
fn read_all(tree: &Tree, paths: &[Vec<u8>], abandoned: &Abandoned) -> io::Result<Vec<Read>> {
    let some = |paths: &[Vec<u8>]| -> io::Result<Vec<Read>> {
        let mut nearby = Nearby::default();
        paths.iter().map(|path| read_one(tree, path, &mut nearby, abandoned)).collect()
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = processors.min(paths.len() / PATHS_EACH);
    if threads < 2 {
        return some(paths);
    }
    std::thread::scope(|scope| {
        let parts = paths.chunks(paths.len().div_ceil(threads));
        let reading: Vec<_> = parts.map(|part| scope.spawn(move || some(part))).collect();
        let mut read = Vec::with_capacity(paths.len());
        for one in reading {
            read.extend(one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(read)
    })
}

fn read_one(tree: &Tree, path: &[u8], nearby: &mut Nearby, abandoned: &Abandoned) -> io::Result<Read> {
    let known = match tree.known(path) {
        None => tree.regular(path, nearby, abandoned)?,
        known => known,
    };
    Ok(match known {
        Some(known) => Read::Regular(known),
        None => {
            let sum = tree.sum(path, abandoned)?;
            Read::Other(tree.look(path)?, sum)
        }
    })
}

impl Source {
    /// The same with fewer parents.
    fn below(self, dropped: usize) -> Source {
        match dropped {
            0 => self,
            dropped => Source { exact: format!("{} below {dropped}", self.exact), dropped, ..self },
        }
    }
}

/// How many directories stand before the `/./` behind which parents are copied (dockerfile reference, "COPY --parents").
fn dropped(named: &str) -> usize {
    let above = named.split_once("/./").map_or("", |(above, _)| above);
    engine_api::paths::clean(&format!("/{above}")).split('/').filter(|part| !part.is_empty()).count()
}

/// A hash of all that a copy depends on.
struct Exact(Sha256);

impl Exact {
    /// Of what was named so, as which a file is copied.
    fn new(path: &[u8]) -> Exact {
        let mut exact = Exact(Sha256::new());
        exact.part(path);
        exact
    }

    fn part(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    /// One file; its bytes are in its sum.
    fn add(&mut self, path: &[u8], looked: &Looked, sum: &str) {
        let stat = &looked.stat;
        self.all(path, [stat.st_mode, stat.st_uid, stat.st_gid], stat.st_rdev, (&looked.link, sum));
    }

    /// The same of a regular one that was not looked at.
    fn regular(&mut self, path: &[u8], known: &KnownFile) {
        self.all(path, [known.mode, known.owner.0, known.owner.1], 0, (&[], &known.sum));
    }

    fn all(&mut self, path: &[u8], numbers: [u32; 3], device: u64, (link, sum): (&[u8], &str)) {
        self.part(path);
        for number in numbers {
            self.part(&number.to_be_bytes());
        }
        self.part(&device.to_be_bytes());
        self.part(link);
        self.part(sum.as_bytes());
    }

    fn finish(self) -> String {
        hex(self.0)
    }
}

/// Whether an argument is a place on the network (moby builder/remotecontext/urlutil).
pub(super) fn is_url(path: &str) -> bool {
    path.starts_with("http://") || path.starts_with("https://")
}

/// Whether an argument is a Git repository, and be it one whose address is wrong.
pub(super) fn is_git(path: &str) -> bool {
    !matches!(GitAddress::parse(path), Ok(None))
}

/// Whether a path leads out of where it begins.
fn climbs(path: &str) -> bool {
    let mut depth = 0_i64;
    path.split('/').any(|part| {
        depth += match part {
            "" | "." => 0,
            ".." => -1,
            _ => 1,
        };
        depth < 0
    })
}

fn has_wildcards(path: &str) -> bool {
    let mut letters = path.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => drop(letters.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> (tempfile::TempDir, Tree) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir_all(root.join("sub/deep")).unwrap();
        fs::write(root.join("sub/a"), "hi\n").unwrap();
        fs::write(root.join("sub/deep/b"), "").unwrap();
        fs::write(root.join("file.txt"), "f\n").unwrap();
        symlink("sub/a", root.join("link")).unwrap();
        symlink("/etc/passwd", root.join("out")).unwrap();
        let opened: OwnedFd = fs::File::open(root).unwrap().into();
        (directory, Tree::new(opened).unwrap())
    }

    fn files(sources: &[&str]) -> Files {
        Files { sources: sources.iter().map(|path| (*path).to_owned()).collect(), ..Files::default() }
    }

    #[test]
    fn what_is_named_is_found() {
        let (_directory, tree) = tree();
        let paths = |sources: &[&str]| match select(&tree, &files(sources), Vec::new(), false, &Abandoned::default()) {
            Ok(found) => found.into_iter().map(|source| source.path).collect::<Vec<_>>().join(" "),
            Err(err) => err.to_string(),
        };
        for (sources, wanted) in [
            (&["file.txt", "/sub"][..], "file.txt sub"),
            (&["./link"], "link"),
            (&["././none/../sub/./a"], "sub/a"),
            (&["*.txt", "s?b"], "file.txt sub"),
            (&["*/a", "sub/*/b"], "sub/a sub/deep/b"),
            (&["*"], "file not found in build context or excluded by .dockerignore: stat out: file does not exist"),
            (&["x*"], "no source files were specified"),
            (&["../x"], "forbidden path outside the build context: ../x ()"),
            (&["a/../../x"], "forbidden path outside the build context: a/../../x ()"),
            (&["http://a/b"], "source can't be a URL for COPY"),
            (&["git@a:b"], "source can't be a git ref for COPY"),
        ] {
            assert_eq!(paths(sources), wanted, "{sources:?}");
        }
    }

    #[test]
    fn parents_begin_behind_a_dot() {
        for (named, wanted) in [
            ("a/b/c", 0),
            ("./a/b", 0),
            ("/a/b", 0),
            ("a/./b/c", 1),
            ("./a/*/./b", 2),
            ("/a//b/./c/./d", 2),
            ("a/../b/./c", 1),
            ("/./a", 0),
        ] {
            assert_eq!(dropped(named), wanted, "{named}");
        }
        let (_directory, tree) = tree();
        let of = |named: &str| {
            let files = Files { parents: true, ..files(&[named]) };
            select(&tree, &files, Vec::new(), false, &Abandoned::default()).unwrap().remove(0)
        };
        let (whole, below) = (of("sub/deep/b"), of("sub/./deep/b"));
        assert_eq!(
            (whole.path.as_str(), whole.dropped, below.path.as_str(), below.dropped),
            ("sub/deep/b", 0, "sub/deep/b", 1)
        );
        assert_ne!(whole.exact, below.exact);
    }

    #[test]
    fn sums_tell_what_is_in_a_file() {
        let (directory, tree) = tree();
        let sum = |path: &str| {
            select(&tree, &files(&[path]), Vec::new(), false, &Abandoned::default()).unwrap()[0].sum.clone()
        };
        let (file, link, all) = (sum("file.txt"), sum("link"), sum("sub"));
        assert!(file.starts_with("file:") && all.starts_with("dir:"));
        // A link is what it leads to.
        assert_eq!(link, sum("sub/a"));
        fs::write(directory.path().join("sub/deep/b"), "x").unwrap();
        assert_eq!((sum("file.txt"), sum("link")), (file, link));
        assert_ne!(sum("sub"), all);
    }

    /// What a tree of links and odd names comes to, before and behind a change of it.
    fn changed(change: impl Fn(&std::path::Path)) -> (Source, Source) {
        let (directory, tree) = tree();
        let root = directory.path().join("sub");
        symlink("nowhere", root.join("dangling")).unwrap();
        symlink("a", root.join("one")).unwrap();
        symlink("deep/b", root.join("two")).unwrap();
        fs::write(root.join(odd(1)), "odd").unwrap();
        let of = || select(&tree, &files(&["sub"]), Vec::new(), false, &Abandoned::default()).unwrap().remove(0);
        let before = of();
        assert_eq!(before, of());
        change(&root);
        (before, of())
    }

    /// A name that is no text.
    fn odd(letter: u8) -> std::ffi::OsString {
        std::os::unix::ffi::OsStringExt::from_vec(vec![b'o', 0xff, letter])
    }

    #[test]
    fn whatever_a_copy_depends_on_is_in_its_key() {
        type Change = fn(&std::path::Path);
        let changes: [(&str, Change); 7] = [
            ("a dangling link leads elsewhere", |root| {
                fs::remove_file(root.join("dangling")).unwrap();
                symlink("elsewhere", root.join("dangling")).unwrap();
            }),
            ("a link has another name", |root| fs::rename(root.join("one"), root.join("other")).unwrap()),
            ("links are exchanged", |root| {
                fs::rename(root.join("one"), root.join("three")).unwrap();
                fs::rename(root.join("two"), root.join("one")).unwrap();
                fs::rename(root.join("three"), root.join("two")).unwrap();
            }),
            ("a link leads to the same place another way", |root| {
                fs::remove_file(root.join("one")).unwrap();
                symlink("./a", root.join("one")).unwrap();
            }),
            ("a link is the file that it led to", |root| {
                fs::remove_file(root.join("one")).unwrap();
                fs::copy(root.join("a"), root.join("one")).unwrap();
            }),
            ("an odd name has other bytes in it", |root| fs::write(root.join(odd(1)), "other").unwrap()),
            ("an odd name is another one", |root| fs::rename(root.join(odd(1)), root.join(odd(2))).unwrap()),
        ];
        for (what, change) in changes {
            let (before, behind) = changed(change);
            assert_ne!(before.exact, behind.exact, "{what}");
        }
    }

    #[test]
    fn names_that_are_no_texts_are_found_by_patterns() {
        let (directory, tree) = tree();
        fs::create_dir(directory.path().join("odd")).unwrap();
        for (letter, text) in [(1, "one"), (2, "two")] {
            fs::write(directory.path().join("odd").join(odd(letter)), text).unwrap();
        }
        fs::create_dir_all(directory.path().join("more").join(odd(3)).join("below")).unwrap();
        let found = |named: &str| select(&tree, &files(&[named]), Vec::new(), false, &Abandoned::default()).unwrap();
        let both = found("odd/o*");
        assert_eq!([&both[0].bytes[..], &both[1].bytes[..]], [b"odd/o\xff\x01", b"odd/o\xff\x02"]);
        assert_ne!(both[0].exact, both[1].exact);
        let directory = found("more/o*");
        assert!(directory[0].is_directory && directory[0].files.len() == 2, "{directory:?}");
    }

    #[test]
    fn a_file_is_copied_as_it_is_named() {
        let (directory, tree) = tree();
        symlink("sub/a", directory.path().join("another")).unwrap();
        let exact = |path: &str| {
            select(&tree, &files(&[path]), Vec::new(), false, &Abandoned::default()).unwrap().remove(0).exact
        };
        assert_ne!(exact("link"), exact("another"));
        assert_eq!(exact("link"), exact("link"));
    }
}
