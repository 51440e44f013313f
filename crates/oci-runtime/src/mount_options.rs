//! mount(8)'s words. Pure.

use sys::mount::Attributes;

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
    /// The file system's own options.
    pub(crate) data: Vec<(String, Option<String>)>,
}

/// Reads the words; the error is the first one that is not supported.
pub(crate) fn parse(words: &[String]) -> Result<MountOptions, &str> {
    let mut options = MountOptions::default();
    for word in words {
        match word.as_str() {
            "bind" => options.bind = true,
            "rbind" => (options.bind, options.bind_recursive) = (true, true),
            "remount" | "idmap" | "ridmap" | "tmpcopyup" => return Err(word),
            "defaults" | "async" | "nomand" | "" => {}
            _ => parse_word(&mut options, word),
        }
    }
    Ok(options)
}

fn parse_word(options: &mut MountOptions, word: &str) {
    let recursive = word.strip_prefix('r');
    if let Some(propagation) = propagation(word) {
        (options.propagation, options.propagation_recursive) = (propagation, false);
    } else if let Some(propagation) = recursive.and_then(propagation) {
        (options.propagation, options.propagation_recursive) = (propagation, true);
    } else if let Some(change) = attribute(word) {
        apply(&mut options.attributes, change);
    } else if let Some(change) = recursive.and_then(attribute) {
        apply(&mut options.attributes_recursive, change);
    } else {
        let (key, value) = word.split_once('=').map_or((word, None), |(key, value)| (key, Some(value.to_owned())));
        options.data.push((key.to_owned(), value));
    }
}

fn propagation(word: &str) -> Option<u64> {
    Some(match word {
        "private" => Attributes::PRIVATE,
        "slave" => Attributes::SLAVE,
        "shared" => Attributes::SHARED,
        "unbindable" => Attributes::UNBINDABLE,
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
mod tests {
    use super::*;

    fn parsed(words: &str) -> MountOptions {
        let words: Vec<_> = words.split(',').map(str::to_owned).collect();
        parse(&words).unwrap()
    }

    #[test]
    fn words_become_flags_and_the_rest_is_the_file_systems() {
        let options = parsed("rbind,ro,nosuid,rw,rprivate,rro,size=65536k,noswap");
        assert!(options.bind && options.bind_recursive && options.propagation_recursive);
        let attributes = Attributes { set: Attributes::NO_SUID, clear: Attributes::READ_ONLY, propagation: 0 };
        assert_eq!(options.attributes, attributes);
        assert_eq!(options.attributes_recursive.set, Attributes::READ_ONLY);
        assert_eq!(options.propagation, Attributes::PRIVATE);
        assert_eq!(options.data, [("size".into(), Some("65536k".into())), ("noswap".into(), None)]);
    }

    #[test]
    fn access_times_exclude_each_other() {
        let options = parsed("noatime,relatime");
        assert_eq!((options.attributes.set, options.attributes.clear), (0, Attributes::ATIME_MASK));
        let options = parsed("relatime,noatime");
        assert_eq!(options.attributes.set, Attributes::NO_ATIME);
        assert_eq!(options.attributes.clear, Attributes::ATIME_MASK);
    }

    #[test]
    fn what_is_not_supported_is_named() {
        assert_eq!(parse(&["ro".into(), "idmap".into()]), Err("idmap"));
    }
}
