//! `COPY` and `ADD`: files of a tree into another one.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;

use archive::UnpackError;
use archive::{Entry, Kind, Overwrite, Owner, Pack, PackError, Resolution, TarReader, TarWriter, Time, Unpack};
use bridge::Abandoned;
use builder::modes::Modes;
use dockerfile::{Files, InlineFile, PatternError, Patterns};
use rustix::fs::{AtFlags, Dir, FileType, Nsecs, OFlags, Timespec};
use stdx::pipe::{Writer, pipe};

use super::sources::Source;
use super::tree::{self, Found, Tree};
use super::work::{NewDirectories, Work, WorkError};
use crate::inflated::inflate;

/// How much is handed on at once. Nothing but speed depends on it: less makes more system calls, more only takes memory.
const PIECE_BYTES: usize = 128 * 1024;

/// How much of a file is looked at to see whether it is an archive: more than a header of tar.
const HEAD_BYTES: usize = 1024;

/// How much of the users' file is read: more than anybody has.
const DATABASE_MAX: u64 = 4 * 1024 * 1024;

/// Why files are not copied. The texts are dockerd's where it has one.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// It is not clear where to.
    #[error("When using {0} with more than one source file, the destination must be a directory and end with a /")]
    Destination(&'static str),
    /// The owner is none.
    #[error("unable to convert uid/gid chown string to host mapping: {0}")]
    Owner(OwnerError),
    /// It is nobody with BuildKit.
    #[error(transparent)]
    NoUsers(#[from] NoUsers),
    /// A pattern of what is left out is broken.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A tree to copy to is not there.
    #[error("failed to copy files")]
    Work(#[from] WorkError),
    /// A source has gone.
    #[error("failed to copy files: source path not found")]
    Source(#[source] io::Error),
    /// It cannot be read.
    #[error("failed to copy files")]
    Pack(#[from] PackError),
    /// It cannot be written.
    #[error("failed to copy files")]
    Unpack(#[from] UnpackError),
    /// What is between reading and writing fails.
    #[error("failed to copy files")]
    Pipe(#[source] io::Error),
}

/// Why an owner is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnerError {
    /// There are too many parts.
    #[error("invalid chown string format: {0}")]
    Format(String),
    /// There is no such user.
    #[error("can't find uid for user {0}: no such user: {0}")]
    User(String),
    /// There is no such group.
    #[error("can't find gid for group {0}: no such group: {0}")]
    Group(String),
}

/// Files of a stage that begins with nothing get no owner by name: nobody's users are there. BuildKit's sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid user index: -1")]
pub struct NoUsers;

/// How files are copied.
pub(super) struct Copying<'a> {
    pub(super) tree: &'a Tree,
    pub(super) work: &'a mut Work,
    /// What comes from the web.
    remote: Option<&'a Tree>,
    files: &'a Files,
    add: bool,
    buildkit: bool,
    owner: Option<(u32, u32)>,
    mode: Option<Modes>,
    exclude: Patterns,
    /// Whether nobody waits for it any more.
    abandoned: &'a Abandoned,
}

impl<'a> Copying<'a> {
    /// Checks what is wanted; `buildkit` is whether it is done as BuildKit does, where dockerd's classic builder does
    /// something else.
    pub(super) fn new(
        tree: &'a Tree,
        work: &'a mut Work,
        files: &'a Files,
        add: bool,
        buildkit: bool,
        abandoned: &'a Abandoned,
    ) -> Result<Copying<'a>, CopyError> {
        let owner = match files.chown.as_str() {
            // What comes from another image keeps its owners.
            "" if !files.from.is_empty() => None,
            "" => Some((0, 0)),
            chown if buildkit && !work.has_layers && has_names(chown) => return Err(NoUsers.into()),
            chown if buildkit => Some(owner_of_user(work, chown)),
            chown => Some(owner(work, chown).map_err(CopyError::Owner)?),
        };
        let mode = Modes::parse(&files.chmod).ok();
        let exclude = Patterns::new(&files.exclude)?;
        Ok(Copying { tree, work, remote: None, files, add, buildkit, owner, mode, exclude, abandoned })
    }

    /// The same with what comes from the web.
    pub(super) fn with_remote(self, remote: Option<&'a Tree>) -> Copying<'a> {
        Copying { remote, ..self }
    }

    /// Copies everything. Blocks.
    pub(super) fn run(mut self, sources: &[Source]) -> Result<(), CopyError> {
        let destination = self.files.destination.as_str();
        // With BuildKit each one goes where it went alone: into a directory that is there, else in the place of the last.
        if !self.buildkit && sources.len() + self.files.inline.len() > 1 && !destination.ends_with('/') {
            return Err(CopyError::Destination(if self.add { "ADD" } else { "COPY" }));
        }
        for source in sources {
            if self.files.parents && !source.is_remote {
                self.with_parents(source)?;
            } else {
                self.one(source, destination, "")?;
            }
        }
        self.files.inline.iter().try_for_each(|file| self.inline(file, destination))
    }

    /// Copies something with the directories above it, which are as they were where they are new.
    fn with_parents(&mut self, source: &Source) -> Result<(), CopyError> {
        let parts: Vec<&str> = source.path.split('/').filter(|part| !part.is_empty()).collect();
        let (name, above) = parts.split_last().map_or(("", &parts[..]), |(name, above)| (*name, above));
        let (mut whole, mut made) = (self.files.destination.trim_end_matches('/').to_owned(), Vec::new());
        self.work.make_directories(&format!("{whole}/"), self.new_directories())?;
        for (index, part) in above.iter().enumerate().skip(source.dropped) {
            whole = format!("{whole}/{part}");
            if tree::open(self.work.root(), &*whole, OFlags::PATH | OFlags::DIRECTORY).is_err() {
                let found = self.tree.find(&*above[..=index].join("/")).map_err(|err| CopyError::Source(err.into()))?;
                let (own, mode) = ((found.stat.st_uid, found.stat.st_gid), found.stat.st_mode & 0o7777);
                let mode = self.mode.as_ref().map_or(mode, |modes| modes.apply(mode, true));
                self.work.make_directories(&whole, NewDirectories { owner: self.owner.unwrap_or(own), mode })?;
                made.push((whole.clone(), time_of(&found)));
            }
        }
        // A directory may be nothing but those above what is left of it.
        let name = if parts.len() > source.dropped { name } else { "" };
        self.one(source, &format!("{whole}/"), name)?;
        // What comes into a directory is later than itself.
        made.iter().rev().try_for_each(|(path, time)| Ok(self.work.set_time(path, *time)?))
    }

    /// Copies something; of a directory what is in it, `below` the destination.
    fn one(&mut self, source: &Source, destination: &str, below: &str) -> Result<(), CopyError> {
        let tree = self.remote.filter(|_| source.is_remote).unwrap_or(self.tree);
        let found = tree.find(&source.bytes[..]).map_err(|err| CopyError::Source(err.into()))?;
        let name = source.bytes.split(|byte| *byte == b'/').rfind(|part| !part.is_empty()).unwrap_or_default();
        if found.is_directory() {
            let whole = format!("{destination}{below}");
            self.work.make_directories(&whole, self.new_directories())?;
            let time = if self.buildkit { time_of_directory(&found) } else { None };
            // What is left out of a directory is named from there, and from the top where parents are copied.
            let path = if self.files.parents && !source.is_remote { found.path } else { Vec::new() };
            self.contents(Found { path, ..found }, &whole)?;
            return time.map_or(Ok(()), |time| Ok(self.work.set_time(&whole, time)?));
        }
        // What comes from the web stays as it is unless somebody says otherwise.
        let unpacks = self.files.unpack.unwrap_or(self.add && !source.is_remote);
        if unpacks && self.unpack(&found, destination)? {
            return Ok(());
        }
        let (directory, name) = self.place(destination, name);
        self.work.make_directories(&directory, self.new_directories())?;
        self.pack(found, &name, &directory)
    }

    /// The directory and the name that a file gets.
    fn place(&self, destination: &str, name: &[u8]) -> (String, Vec<u8>) {
        let opened = tree::open(self.work.root(), destination, OFlags::PATH);
        let is_directory = opened
            .and_then(rustix::fs::fstat)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        if is_directory || destination.ends_with('/') {
            return (destination.to_owned(), name.to_owned());
        }
        // A link that is there already leads to what is replaced.
        let real = self.work.real(destination);
        let (directory, name) = real.rsplit_once('/').unwrap_or(("", &real));
        (format!("{directory}/"), name.into())
    }

    /// With BuildKit directories on the way have the mode of what is copied, if that is said as a number.
    fn new_directories(&self) -> NewDirectories {
        let new = NewDirectories::of(self.owner.unwrap_or((0, 0)));
        let mode = self.mode.as_ref().filter(|_| self.buildkit).and_then(Modes::number);
        NewDirectories { mode: mode.unwrap_or(new.mode), ..new }
    }

    /// Into a directory of the tree.
    fn in_tree<'b>(&'b self, directory: &'b str) -> Unpack<'b> {
        self.below(self.work.root().as_fd(), directory)
    }

    fn below<'b>(&self, root: BorrowedFd<'b>, directory: &'b str) -> Unpack<'b> {
        Unpack {
            root,
            directory: directory.as_bytes(),
            resolution: Resolution::InRoot,
            overwrite: Overwrite::Allow,
            owner: self.owner.map_or(Owner::Archive, |(uid, gid)| Owner::Fixed(uid, gid)),
            rename: None,
            top: false,
        }
    }

    /// Carries what is in a directory into one that is there.
    fn contents(&mut self, found: Found, directory: &str) -> Result<(), CopyError> {
        let Some(place) = self.work.take_beneath(directory)? else { return self.pack(found, b"", directory) };
        self.carry(found, b"", &self.below(place.as_fd(), ""))?;
        Ok(self.work.mount_again()?)
    }

    /// Carries a file, or what is in a directory, into a directory that is there.
    fn pack(&self, found: Found, name: &[u8], directory: &str) -> Result<(), CopyError> {
        self.carry(found, name, &self.in_tree(directory))
    }

    fn carry(&self, found: Found, name: &[u8], options: &Unpack<'_>) -> Result<(), CopyError> {
        let (reader, writer) = pipe(PIECE_BYTES);
        let (packed, unpacked) = thread::scope(|scope| {
            let packing = scope.spawn(move || self.send(found, name, writer));
            let mut tar = TarReader::new(While { reader, abandoned: self.abandoned });
            let unpacked = archive::unpack(&mut tar, options);
            drop(tar);
            (packing.join(), unpacked)
        });
        let packed = packed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // Who writes fails because the other one has.
        match packed {
            Err(PackError::Write(_)) => {}
            packed => packed?,
        }
        Ok(unpacked?)
    }

    fn send(&self, found: Found, name: &[u8], writer: Writer) -> Result<(), PackError> {
        let mut tar = TarWriter::new(writer);
        let prefix = String::from_utf8_lossy(&found.path).into_owned();
        let mut entry = |seen: &archive::Seen<'_>, entry: &mut Entry, _: &mut Vec<Entry>| {
            if !self.exclude.is_empty() && !seen.path.is_empty() {
                let inside = String::from_utf8_lossy(seen.path);
                let whole = if prefix.is_empty() { inside.into_owned() } else { format!("{prefix}/{inside}") };
                if self.exclude.exclude(&whole) && !self.exclude.may_hold_exceptions(&whole) {
                    return Ok(false);
                }
            }
            if let Some(modes) = self.mode.as_ref().filter(|_| entry.kind != Kind::Symlink) {
                entry.mode = modes.apply(entry.mode, entry.kind == Kind::Directory);
            }
            Ok(true)
        };
        let options = Pack { name, xattr: is_copied, holes: true, still: true, entry: &mut entry };
        archive::pack(&mut tar, found.place, options)?;
        tar.finish().map(drop).map_err(PackError::Write)
    }

    /// Unpacks what is an archive; answers whether it is one.
    fn unpack(&self, found: &Found, directory: &str) -> Result<bool, CopyError> {
        if FileType::from_raw_mode(found.stat.st_mode) != FileType::RegularFile {
            return Ok(false);
        }
        let open = || archive::reopen(&found.place, OFlags::RDONLY).map(File::from);
        let mut head = Vec::new();
        let file = open().map_err(|err| CopyError::Source(err.into()))?;
        // What cannot be inflated is no archive of ours, and is copied as it is.
        let Ok((_, plain)) = layer::decompress(file) else { return Ok(false) };
        if plain.take(HEAD_BYTES as u64).read_to_end(&mut head).is_err()
            || head.iter().all(|byte| *byte == 0)
            || !archive::looks_like_tar(&head)
        {
            return Ok(false);
        }
        // What is unpacked keeps its modes, and so a directory for it has none of what is copied.
        self.work.make_directories(directory, NewDirectories::of(self.owner.unwrap_or((0, 0))))?;
        let file = open().map_err(|err| CopyError::Source(err.into()))?;
        let bytes = u64::try_from(found.stat.st_size).unwrap_or_default();
        let plain = inflate(file, bytes, self.abandoned).map_err(CopyError::Source)?;
        let mut tar = TarReader::new(BufReader::with_capacity(PIECE_BYTES, plain));
        let owner = if self.files.chown.is_empty() { Owner::Archive } else { self.in_tree(directory).owner };
        // The directory stays as it is, whatever the archive says of itself.
        let options = Unpack { owner, ..self.in_tree(directory) };
        archive::unpack(&mut tar, &options)?;
        Ok(true)
    }

    fn inline(&self, file: &InlineFile, destination: &str) -> Result<(), CopyError> {
        let (directory, name) = self.place(destination, file.name.as_bytes());
        self.work.make_directories(&directory, self.new_directories())?;
        let entry = Entry {
            path: name,
            kind: Kind::File,
            link: Vec::new(),
            mode: self.mode.as_ref().map_or(0o644, |modes| modes.apply(0o644, false)),
            uid: 0,
            gid: 0,
            mtime: Time { secs: crate::clock::now_nanos() / 1_000_000_000, nanos: 0 },
            size: file.text.len() as u64,
            device: (0, 0),
            xattrs: Vec::new(),
            segments: None,
        };
        let mut tar = TarWriter::new(Vec::new());
        let written = tar.begin(&entry).and_then(|()| tar.data(file.text.as_bytes()));
        let bytes = written.and_then(|()| tar.finish()).map_err(CopyError::Pipe)?;
        Ok(archive::unpack(&mut TarReader::new(Cursor::new(bytes)), &self.in_tree(&directory))?)
    }
}

/// Reads as long as somebody waits for it.
struct While<'a, R> {
    reader: R,
    abandoned: &'a Abandoned,
}

impl<R> While<'_, R> {
    fn check(&self) -> io::Result<()> {
        match self.abandoned.is_so() {
            true => Err(io::Error::other("nobody waits for it any more")),
            false => Ok(()),
        }
    }
}

impl<R: Read> Read for While<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        self.reader.read(buffer)
    }
}

impl<R: BufRead> BufRead for While<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.check()?;
        self.reader.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.reader.consume(count);
    }
}

fn time_of(found: &Found) -> Timespec {
    let nanos = Nsecs::try_from(found.stat.st_mtime_nsec).unwrap_or_default();
    Timespec { tv_sec: found.stat.st_mtime, tv_nsec: nanos }
}

/// What time BuildKit gives to where a directory is copied. The top of a tree was made when that was sent or mounted: of it
/// the latest time of what is in it counts, so that two builds come to the same.
fn time_of_directory(found: &Found) -> Option<Timespec> {
    if !found.path.is_empty() {
        return Some(time_of(found));
    }
    let directory = archive::reopen(&found.place, OFlags::RDONLY | OFlags::DIRECTORY).ok()?;
    let names = Dir::read_from(&directory).ok()?.flatten().map(|entry| entry.file_name().to_owned());
    let own = names.filter(|name| !matches!(name.to_bytes(), b"." | b".."));
    let stats = own.filter_map(|name| rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW).ok());
    let times = stats.map(|stat| (stat.st_mtime, Nsecs::try_from(stat.st_mtime_nsec).unwrap_or_default()));
    times.max().map(|(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec })
}

/// What files keep that are copied (moby pkg/archive).
fn is_copied(xattr: &[u8]) -> bool {
    xattr == b"security.capability"
}

/// The numbers of `USER[:GROUP]`, as the tree's own files have them, with dockerd's classic builder: the group of a user alone is
/// the one of his name.
fn owner(work: &Work, chown: &str) -> Result<(u32, u32), OwnerError> {
    let parts: Vec<&str> = chown.split(':').collect();
    let (user, group) = match parts[..] {
        [user] => (user, user),
        [user, group] => (user, group),
        _ => return Err(OwnerError::Format(chown.to_owned())),
    };
    let uid = number(work, "etc/passwd", user).ok_or_else(|| OwnerError::User(user.to_owned()))?;
    let gid = number(work, "etc/group", group).ok_or_else(|| OwnerError::Group(group.to_owned()))?;
    Ok((uid, gid))
}

/// The numbers of a user, or of `--chown`, with BuildKit: the group of a user alone is his own, who is unknown is root, and an
/// unknown group is not asked for (solver/llbsolver/file/user_linux.go); a name of nothing is root (client/llb/fileop.go).
pub(super) fn owner_of_user(work: &Work, user: &str) -> (u32, u32) {
    let (user, group) = user.split_once(':').map_or((user, None), |(user, group)| (user, Some(group)));
    let (uid, own) =
        if is_name(user) { own_numbers(work, user).unwrap_or_default() } else { (by_number(user), by_number(user)) };
    let group =
        group.map(|group| if is_name(group) { number(work, "etc/group", group) } else { Some(by_number(group)) });
    (uid, group.flatten().unwrap_or(own))
}

/// Whether `USER[:GROUP]` has a part that is looked for among an image's users.
fn has_names(chown: &str) -> bool {
    chown.splitn(2, ':').any(is_name)
}

fn is_name(part: &str) -> bool {
    !matches!(part, "" | "root") && part.parse::<u32>().is_err()
}

/// The number of what is no name.
fn by_number(part: &str) -> u32 {
    part.parse().unwrap_or_default()
}

/// A user's number, and that of the group that he has; a number stands for both.
fn own_numbers(work: &Work, user: &str) -> Option<(u32, u32)> {
    match user.parse() {
        Ok(number) => Some((number, number)),
        Err(_) => fields(work, "etc/passwd", user, |fields| Some((fields[2].parse().ok()?, fields[3].parse().ok()?))),
    }
}

fn number(work: &Work, database: &str, name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    fields(work, database, name, |fields| fields[2].parse().ok())
}

/// What the first fields of the line of a name say, of which there are four at least in `etc/passwd`, three in `etc/group`.
fn fields<T>(work: &Work, database: &str, name: &str, read: impl Fn(&[&str; 4]) -> Option<T>) -> Option<T> {
    let tree = Tree::new(work.root().try_clone().ok()?).ok()?;
    let bytes = tree.read(database, DATABASE_MAX).ok()??;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines().map(|line| {
        let mut fields = line.split(':');
        std::array::from_fn::<&str, 4, _>(|_| fields.next().unwrap_or_default())
    });
    lines.find_map(|fields| (fields[0] == name).then(|| read(&fields))?)
}
