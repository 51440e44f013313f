//! mount(8)'s words. Pure, but for the last step of applying them.

use std::io;
use std::os::fd::BorrowedFd;

use sys::mount::{Attributes, set_attributes};

/// What the words of one mount mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountOptions {
    /// A bind mount (`bind`, `rbind`).
    pub(crate) bind: bool,
    /// With everything mounted below (`rbind`).
    pub(crate) bind_recursive: bool,
    /// Flags of the mount itself.
    pub(crate) attributes: Attributes,
    /// Flags of the mount and everything below (`rro` ...).
    pub(crate) attributes_recursive: Attributes,
    /// Whether the propagation is for everything below, too (`rprivate` ...).
    pub(crate) propagation_recursive: bool,
    /// MS_PRIVATE and so on; 0 if nothing was said.
    pub(crate) propagation: u64,
    /// What is mounted already is changed (`remount`).
    pub(crate) remount: bool,
    /// A tmpfs begins with what it covers (`tmpcopyup`).
    pub(crate) copy_up: bool,
    /// Owners of files are mapped (`idmap`); true for everything below, too (`ridmap`).
    pub(crate) id_map: Option<bool>,
    /// Flags of the file system that are none of the mount; nothing to a bind mount, as for mount(2).
    pub(crate) superblock: Vec<String>,
    /// The file system's own options.
    pub(crate) data: Vec<(String, Option<String>)>,
}

impl MountOptions {
    /// Whether the file system is given an option of this name.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.data.iter().any(|(known, _)| known == key)
    }

    /// Everything of a mount but its own flags: those of all below, and propagation.
    pub(crate) fn apply_rest(&self, mount: BorrowedFd<'_>) -> io::Result<()> {
        if !self.attributes_recursive.is_empty() {
            set_attributes(mount, self.attributes_recursive, true)?;
        }
        if self.propagation != 0 {
            let attributes = Attributes { propagation: self.propagation, ..Attributes::default() };
            set_attributes(mount, attributes, self.propagation_recursive)?;
        }
        Ok(())
    }

    /// Sets or takes back a flag of the file system.
    fn set_superblock(&mut self, word: &str, on: bool) {
        self.superblock.retain(|known| known != word);
        if on {
            self.superblock.push(word.to_owned());
        }
    }
}

/// Reads the words. What nobody knows is the file system's.
pub(crate) fn parse(words: &[String]) -> MountOptions {
    let mut options = MountOptions::default();
    for word in words {
        match word.as_str() {
            "bind" => options.bind = true,
            "rbind" => (options.bind, options.bind_recursive) = (true, true),
            "remount" => options.remount = true,
            "idmap" => options.id_map = Some(false),
            "ridmap" => options.id_map = Some(true),
            "tmpcopyup" => options.copy_up = true,
            word @ ("sync" | "dirsync" | "lazytime" | "mand" | "iversion") => options.set_superblock(word, true),
            "async" => options.set_superblock("sync", false),
            "nolazytime" => options.set_superblock("lazytime", false),
            "nomand" => options.set_superblock("mand", false),
            "noiversion" => options.set_superblock("iversion", false),
            // What mount(2) would say to the kernel's log; and what nobody asks for.
            "silent" | "loud" | "defaults" | "" => {}
            _ => parse_word(&mut options, word),
        }
    }
    options
}

fn parse_word(options: &mut MountOptions, word: &str) {
    let recursive = word.strip_prefix('r');
    if let Some(propagation) = propagation(word) {
        (options.propagation, options.propagation_recursive) = propagation;
    } else if let Some(change) = attribute(word) {
        apply(&mut options.attributes, change);
    } else if let Some(change) = recursive.and_then(attribute) {
        apply(&mut options.attributes_recursive, change);
    } else {
        let (key, value) = word.split_once('=').map_or((word, None), |(key, value)| (key, Some(value.to_owned())));
        options.data.push((key.to_owned(), value));
    }
}

/// All words of [`propagation`].
pub(crate) const PROPAGATIONS: [&str; 8] =
    ["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"];

/// The kernel's bit, and whether it is for everything below, too (`rprivate`).
pub(crate) fn propagation(word: &str) -> Option<(u64, bool)> {
    Some(match word {
        "private" => (Attributes::PRIVATE, false),
        "rprivate" => (Attributes::PRIVATE, true),
        "slave" => (Attributes::SLAVE, false),
        "rslave" => (Attributes::SLAVE, true),
        "shared" => (Attributes::SHARED, false),
        "rshared" => (Attributes::SHARED, true),
        "unbindable" => (Attributes::UNBINDABLE, false),
        "runbindable" => (Attributes::UNBINDABLE, true),
        _ => return None,
    })
}

/// Bits to set, bits to clear.
fn attribute(word: &str) -> Option<(u64, u64)> {
    let set = |bit| Some((bit, 0));
    let clear = |bit| Some((0, bit));
    match word {
        "ro" => set(Attributes::READ_ONLY),
        "rw" => clear(Attributes::READ_ONLY),
        "nosuid" => set(Attributes::NO_SUID),
        "suid" => clear(Attributes::NO_SUID),
        "nodev" => set(Attributes::NO_DEV),
        "dev" => clear(Attributes::NO_DEV),
        "noexec" => set(Attributes::NO_EXEC),
        "exec" => clear(Attributes::NO_EXEC),
        "nosymfollow" => set(Attributes::NO_SYMLINKS),
        "symfollow" => clear(Attributes::NO_SYMLINKS),
        "nodiratime" => set(Attributes::NO_DIR_ATIME),
        "diratime" => clear(Attributes::NO_DIR_ATIME),
        "noatime" => Some((Attributes::NO_ATIME, Attributes::ATIME_MASK)),
        "strictatime" => Some((Attributes::STRICT_ATIME, Attributes::ATIME_MASK)),
        "relatime" | "atime" | "norelatime" | "nostrictatime" => clear(Attributes::ATIME_MASK),
        _ => None,
    }
}

/// The last word wins: what it sets is no longer cleared, and the other way round.
fn apply(attributes: &mut Attributes, (set, clear): (u64, u64)) {
    attributes.set = attributes.set & !clear | set;
    // The kernel wants every access-time bit cleared whenever one of them changes, even the one that is set.
    attributes.clear = attributes.clear & !(set & !Attributes::ATIME_MASK) | clear;
}

#[cfg(test)]
mod tests;
