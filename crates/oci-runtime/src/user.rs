//! Users and groups by name, from the container's own files.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use errdefs::ErrorKind;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat};
use sys::open::openat2;

/// Bytes of passwd or group at most. An image is not trusted, and the shim is small; a million bytes is 20,000 users.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The greatest id that Docker takes.
const ID_MAX: i64 = i32::MAX as i64;

/// Who a process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedUser {
    /// The ids.
    pub user: oci::runtime::User,
    /// The home directory, `/` if the user is in no file.
    pub home: String,
}

/// Why a user cannot be resolved. The texts are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// No such user.
    #[error("unable to find user {name}: no matching entries in passwd file")]
    NoUser {
        /// As it was asked for.
        name: String,
    },
    /// No such group.
    #[error("unable to find group {name}: no matching entries in group file")]
    NoGroup {
        /// As it was asked for.
        name: String,
    },
    /// A number that is no id.
    #[error("uids and gids must be in range 0-{ID_MAX}")]
    Range,
    /// The file exists and cannot be read.
    #[error("read {file} of the container")]
    Read {
        /// Which file.
        file: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl UserError {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            UserError::Read { .. } => ErrorKind::Internal,
            _ => ErrorKind::InvalidArgument,
        }
    }
}

/// Finds `spec` (`USER[:GROUP]`, names or numbers; empty for root) and `extra_groups` in /etc/passwd and /etc/group below
/// `root`, which is opened by descriptor and never left.
///
/// A number needs no entry; a name does. Without a group the user's own and those that list it are taken.
pub fn resolve(root: BorrowedFd<'_>, spec: &str, extra_groups: &[String]) -> Result<ResolvedUser, UserError> {
    let passwd = read(root, "etc/passwd")?;
    // Only names, or a user's own memberships, need the second file.
    let group = read(root, "etc/group")?;
    resolve_in(&passwd, &group, spec, extra_groups)
}

/// The home directory of a user id, `/` if the user is in no file.
pub fn home(root: BorrowedFd<'_>, uid: u32) -> Result<String, UserError> {
    let passwd = read(root, "etc/passwd")?;
    let found = users(&passwd).find(|user| user.uid == i64::from(uid));
    Ok(home_of(found.as_ref()))
}

/// [`resolve`] over the texts of the two files.
fn resolve_in(passwd: &str, group: &str, spec: &str, extra_groups: &[String]) -> Result<ResolvedUser, UserError> {
    let (user_spec, group_spec) = spec.split_once(':').unwrap_or((spec, ""));
    let (user_number, group_number) = (user_spec.parse::<i64>().ok(), group_spec.parse::<i64>().ok());
    let wanted = |user: &UserLine<'_>| match user_spec {
        "" => user.uid == 0,
        name => user.name == name || user_number == Some(user.uid),
    };
    let found = users(passwd).find(wanted);
    let uid = match (&found, user_spec, user_number) {
        (Some(user), ..) => user.uid,
        (None, "", _) => 0,
        (None, _, Some(number)) => number,
        (None, name, None) => return Err(UserError::NoUser { name: name.to_owned() }),
    };
    let mut gid = found.as_ref().map_or(0, |user| user.gid);
    let mut memberships = Vec::new();
    if !group_spec.is_empty() {
        gid = group_id(group, group_spec, group_number)?;
    } else if let Some(user) = &found {
        let member = |line: &GroupLine<'_>| line.members.split(',').any(|member| member == user.name);
        memberships.extend(groups(group).filter(member).map(|line| line.gid));
    }
    for name in extra_groups {
        memberships.push(group_id(group, name, name.parse().ok())?);
    }
    // The primary group belongs to the supplementary ones, or a file that denies the group is open to a process that
    // changed its own (CVE-2022-36109).
    let mut additional_gids = vec![id(gid)?];
    for gid in memberships {
        let gid = id(gid)?;
        if !additional_gids.contains(&gid) {
            additional_gids.push(gid);
        }
    }
    let user = oci::runtime::User { uid: id(uid)?, gid: id(gid)?, additional_gids, umask: None };
    Ok(ResolvedUser { user, home: home_of(found.as_ref()) })
}

fn group_id(group: &str, name: &str, number: Option<i64>) -> Result<i64, UserError> {
    let found = groups(group).find(|line| line.name == name || number == Some(line.gid));
    found.map(|line| line.gid).or(number).ok_or_else(|| UserError::NoGroup { name: name.to_owned() })
}

fn id(number: i64) -> Result<u32, UserError> {
    if (0..=ID_MAX).contains(&number) { Ok(number as u32) } else { Err(UserError::Range) }
}

fn home_of(user: Option<&UserLine<'_>>) -> String {
    user.map(|user| user.home).filter(|home| !home.is_empty()).unwrap_or("/").to_owned()
}

/// A line of passwd(5).
struct UserLine<'a> {
    name: &'a str,
    uid: i64,
    gid: i64,
    home: &'a str,
}

/// A line of group(5).
struct GroupLine<'a> {
    name: &'a str,
    gid: i64,
    members: &'a str,
}

fn users(passwd: &str) -> impl Iterator<Item = UserLine<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(UserLine { name, uid, gid, home: fields.nth(1).unwrap_or("") })
    })
}

fn groups(group: &str) -> impl Iterator<Item = GroupLine<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(GroupLine { name, gid, members: fields.next().unwrap_or("") })
    })
}

/// The text of a regular file below the root; empty if there is none.
fn read(root: BorrowedFd<'_>, file: &'static str) -> Result<String, UserError> {
    let read = || -> io::Result<String> {
        // Looked at before it is opened: opening a FIFO blocks, opening a device can do things to the host, and we are not
        // under the container's device rules.
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let found = openat2(root.as_fd(), file, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?;
        match FileType::from_raw_mode(fstat(&found)?.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(io::ErrorKind::IsADirectory.into()),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        let mut bytes = Vec::new();
        File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(String::new()),
        other => other.map_err(|source| UserError::Read { file, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n\nweb:x:1000:1001:Web,,,:/srv/web:/bin/sh\n+nis\nbad:x:y:1::/:\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,web\nweb:x:1001:\ndisk:x:6:web\n";

    fn check(spec: &str, extra: &[&str], expected: &str) {
        let extra: Vec<_> = extra.iter().map(|group| (*group).to_owned()).collect();
        let found = match resolve_in(PASSWD, GROUP, spec, &extra) {
            Ok(ResolvedUser { user, home }) => format!("{}:{} {:?} {home}", user.uid, user.gid, user.additional_gids),
            Err(err) => err.to_string(),
        };
        assert_eq!(found, expected, "{spec}");
    }

    #[test]
    fn names_and_numbers_are_found_as_docker_finds_them() {
        check("", &[], "0:0 [0, 10] /root");
        check("web", &[], "1000:1001 [1001, 10, 6] /srv/web");
        check("1000", &[], "1000:1001 [1001, 10, 6] /srv/web");
        check("web:disk", &[], "1000:6 [6] /srv/web");
        check("web:7", &["wheel", "77"], "1000:7 [7, 10, 77] /srv/web");
        check("4000", &[], "4000:0 [0] /");
        check("nope", &[], "unable to find user nope: no matching entries in passwd file");
        check("root:nope", &[], "unable to find group nope: no matching entries in group file");
        check("root", &["nope"], "unable to find group nope: no matching entries in group file");
        check("99999999999", &[], "uids and gids must be in range 0-2147483647");
        check("-1", &[], "uids and gids must be in range 0-2147483647");
    }

    #[test]
    fn a_link_out_of_the_root_stays_inside_and_a_fifo_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/group", dir.path().join("etc/passwd")).unwrap();
        let root = File::open(dir.path()).unwrap();
        let err = resolve(root.as_fd(), "daemon", &[]).unwrap_err();
        assert_eq!(err.to_string(), "unable to find user daemon: no matching entries in passwd file");
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(&root, "etc/group", fifo, Mode::RWXU, 0).unwrap();
        assert!(matches!(resolve(root.as_fd(), "0", &[]), Err(UserError::Read { .. })));
        std::fs::remove_file(dir.path().join("etc/group")).unwrap();
        std::fs::create_dir(dir.path().join("etc/group")).unwrap();
        let err = errdefs::chain(&resolve(root.as_fd(), "0", &[]).unwrap_err());
        // Through the link of the users' file.
        assert_eq!(err, "read etc/passwd of the container: is a directory");
    }

    #[test]
    fn what_is_no_regular_file_is_never_opened() {
        use rustix::fs::inotify;
        // Opening is enough to start a watchdog or to rewind a tape, and a container can make nodes of both.
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let root = File::open(dir.path()).unwrap();
        rustix::fs::mknodat(&root, "etc/passwd", rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        let events = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&events, dir.path().join("etc"), inotify::WatchFlags::OPEN).unwrap();
        assert!(matches!(resolve(root.as_fd(), "0", &[]), Err(UserError::Read { .. })));
        assert_eq!(rustix::io::read(&events, &mut [0; 512]), Err(rustix::io::Errno::AGAIN));
    }
}
