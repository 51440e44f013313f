//! Options of the driver: which are taken, and the mount that they ask for. Pure.

use std::collections::BTreeMap;

use engine_api::size::{SizeError, Units, parse};
use rustix::mount::{MountFlags, MountPropagationFlags};

/// The driver's options that dockerd knows.
const KNOWN: [&str; 4] = ["device", "o", "size", "type"];

/// What each option needs beside it.
const NEEDED: [(&str, &[&str]); 3] = [("device", &["type"]), ("o", &["device", "type"]), ("type", &["device"])];

/// Why options are refused. The texts are dockerd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// There is no such option.
    #[error("invalid option: {0:?}")]
    Unknown(String),
    /// An option is no good without another one.
    #[error("missing required option: {0:?}")]
    Missing(&'static str),
    /// The size is none.
    #[error(transparent)]
    Size(SizeError),
    /// The file system below cannot limit a directory.
    #[error("quota size requested but no quota support")]
    NoQuota,
    /// A mount holds what its file system lets it, and somebody else's directory is not ours to limit. dockerd takes it, and
    /// fails when the volume is used, or limits that directory.
    #[error("size does not go with a device: it limits volumes that are directories of their own")]
    SizeOfMount,
    /// A share's port belongs to the options of its mount.
    #[error("port not allowed in CIFS device URL, include 'port' in 'o='")]
    CifsPort,
}

/// The mount that a volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// What is mounted.
    pub(crate) device: String,
    /// The file system.
    pub(crate) kind: String,
    /// As the user wrote them.
    pub(crate) options: String,
}

/// What mount(2) takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) flags: MountFlags,
    pub(crate) bind: bool,
    pub(crate) recursive: bool,
    pub(crate) propagation: Option<MountPropagationFlags>,
    /// What only the file system understands.
    pub(crate) data: String,
}

/// Refuses what dockerd refuses; sizes too where there are no `limits`.
pub(crate) fn check(options: &BTreeMap<String, String>, limits: bool) -> Result<(), OptionsError> {
    if let Some(unknown) = options.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        return Err(OptionsError::Unknown(unknown.clone()));
    }
    let text = |name: &str| options.get(name).map_or("", String::as_str);
    if text("type") == "cifs" && has_port(text("device")) {
        return Err(OptionsError::CifsPort);
    }
    let size = options.get("size").map_or(Ok(0), |size| parse(size, Units::Binary)).map_err(OptionsError::Size)?;
    if size > 0 && !limits {
        return Err(OptionsError::NoQuota);
    }
    for (option, needed) in NEEDED {
        let missing = needed.iter().find(|needed| !options.contains_key(**needed));
        if let Some(missing) = missing.filter(|_| options.contains_key(option)) {
            return Err(OptionsError::Missing(missing));
        }
    }
    match size {
        1.. if wish(Some(options)).is_some() => Err(OptionsError::SizeOfMount),
        _ => Ok(()),
    }
}

/// How many bytes a volume with these options may hold; none if it is not limited.
pub(crate) fn limit(options: Option<&BTreeMap<String, String>>) -> Option<u64> {
    let size = options?.get("size")?;
    parse(size, Units::Binary).ok().and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0)
}

/// `//host:445/share`
fn has_port(device: &str) -> bool {
    let rest = device.split_once("//").map_or("", |(_, rest)| rest);
    rest.split('/').next().is_some_and(|host| host.contains(':'))
}

/// The mount that these options ask for; none if they ask for a directory.
pub(crate) fn wish(options: Option<&BTreeMap<String, String>>) -> Option<Wish> {
    let options = options?;
    let text = |name: &str| options.get(name).cloned().unwrap_or_default();
    let (device, kind) = (text("device"), text("type"));
    (!device.is_empty() || !kind.is_empty()).then(|| Wish { device, kind, options: text("o") })
}

impl Wish {
    /// The host name behind `addr=` that has to be resolved; none if it is an IPv4 address, or the file system is not of
    /// the network.
    pub(crate) fn host(&self) -> Option<&str> {
        let networked = matches!(self.kind.as_str(), "nfs" | "nfs4" | "cifs");
        let host = self.options.split(',').find_map(|option| option.strip_prefix("addr="))?;
        (networked && !host.is_empty() && host.parse::<std::net::Ipv4Addr>().is_err()).then_some(host)
    }

    /// The same with that host's address.
    pub(crate) fn resolved(&self, host: &str, address: &str) -> Wish {
        let options = self.options.replacen(&format!("addr={host}"), &format!("addr={address}"), 1);
        Wish { options, ..self.clone() }
    }

    /// The options without a password, for sentences.
    pub(crate) fn shown(&self, data: &str) -> String {
        let hidden = |option: &str| match option.split_once('=') {
            Some(("password", _)) => "password=********".to_owned(),
            _ => option.to_owned(),
        };
        data.split(',').map(hidden).collect::<Vec<_>>().join(",")
    }

    /// mount(8)'s words become flags; the rest is the file system's.
    pub(crate) fn plan(&self) -> Plan {
        let mut plan =
            Plan { flags: MountFlags::empty(), bind: false, recursive: false, propagation: None, data: String::new() };
        let mut data = Vec::new();
        for word in self.options.split(',').filter(|word| !word.is_empty()) {
            if !plan.take(word) {
                data.push(word);
            }
        }
        plan.data = data.join(",");
        plan
    }
}

impl Plan {
    fn take(&mut self, word: &str) -> bool {
        let none = MountFlags::empty();
        let (set, clear) = match word {
            "defaults" | "mand" | "nomand" => (none, none),
            "ro" => (MountFlags::RDONLY, none),
            "rw" => (none, MountFlags::RDONLY),
            "nosuid" => (MountFlags::NOSUID, none),
            "suid" => (none, MountFlags::NOSUID),
            "nodev" => (MountFlags::NODEV, none),
            "dev" => (none, MountFlags::NODEV),
            "noexec" => (MountFlags::NOEXEC, none),
            "exec" => (none, MountFlags::NOEXEC),
            "sync" => (MountFlags::SYNCHRONOUS, none),
            "async" => (none, MountFlags::SYNCHRONOUS),
            "dirsync" => (MountFlags::DIRSYNC, none),
            "noatime" => (MountFlags::NOATIME, none),
            "atime" => (none, MountFlags::NOATIME),
            "nodiratime" => (MountFlags::NODIRATIME, none),
            "diratime" => (none, MountFlags::NODIRATIME),
            "relatime" => (MountFlags::RELATIME, none),
            "norelatime" => (none, MountFlags::RELATIME),
            "strictatime" => (MountFlags::STRICTATIME, none),
            "nostrictatime" => (none, MountFlags::STRICTATIME),
            "bind" | "rbind" => {
                self.bind = true;
                self.recursive |= word == "rbind";
                (none, none)
            }
            word => {
                let recursive = |flag: MountPropagationFlags, word: &str| match word.starts_with('r') {
                    true => flag | MountPropagationFlags::REC,
                    false => flag,
                };
                self.propagation = Some(match word {
                    "private" | "rprivate" => recursive(MountPropagationFlags::PRIVATE, word),
                    "shared" | "rshared" => recursive(MountPropagationFlags::SHARED, word),
                    "slave" | "rslave" => recursive(MountPropagationFlags::DOWNSTREAM, word),
                    "unbindable" | "runbindable" => recursive(MountPropagationFlags::UNBINDABLE, word),
                    _ => return false,
                });
                (none, none)
            }
        };
        self.flags = (self.flags | set) - clear;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn options_are_refused_in_dockerds_words() {
        for (pairs, text) in [
            (&[("zz", "none")][..], "invalid option: \"zz\""),
            (&[("type", "tmpfs")], "missing required option: \"device\""),
            (&[("o", "size=10m")], "missing required option: \"device\""),
            (&[("device", "/tmp")], "missing required option: \"type\""),
            (&[("size", "abc")], "invalid size: 'abc'"),
            (&[("size", "")], "invalid size: ''"),
            (&[("size", "5zz")], "invalid suffix: 'zz'"),
            (&[("size", "1bb")], "invalid suffix: 'bb'"),
            (&[("size", "1.2.3")], "strconv.ParseFloat: parsing \"1.2.3\": invalid syntax"),
            (&[("size", "-1")], "invalid size: '-1'"),
            (&[("size", "1 k")], "quota size requested but no quota support"),
            (&[("size", "10m")], "quota size requested but no quota support"),
            (&[("type", "cifs"), ("device", "//h:1/x")], "port not allowed in CIFS device URL, include 'port' in 'o='"),
        ] {
            assert_eq!(check(&map(pairs), false).unwrap_err().to_string(), text, "{pairs:?}");
        }
        for pairs in [
            &[][..],
            &[("size", "0")],
            &[("size", "0.5")],
            &[("size", "0"), ("type", "tmpfs"), ("device", "tmpfs")],
            &[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")],
            &[("type", ""), ("device", ""), ("o", "")],
        ] {
            assert_eq!(check(&map(pairs), false), Ok(()), "{pairs:?}");
        }
    }

    #[test]
    fn sizes_limit_directories_alone() {
        for (pairs, bytes) in [
            (&[][..], None),
            (&[("size", "0")], None),
            (&[("size", "10m")], Some(10 << 20)),
            (&[("size", "1.5 GiB"), ("type", ""), ("device", "")], Some(1_610_612_736)),
        ] {
            let options = map(pairs);
            assert_eq!((check(&options, true), limit(Some(&options))), (Ok(()), bytes), "{pairs:?}");
        }
        let mount = map(&[("size", "10m"), ("type", "tmpfs"), ("device", "tmpfs")]);
        assert_eq!(check(&mount, true), Err(OptionsError::SizeOfMount));
        assert_eq!(check(&map(&[("size", "10m"), ("type", "tmpfs")]), true), Err(OptionsError::Missing("device")));
        assert_eq!(limit(None), None);
    }

    #[test]
    fn words_become_flags_and_the_rest_is_the_file_systems() {
        let wish = |kind: &str, options: &str| Wish { device: "d".into(), kind: kind.into(), options: options.into() };
        let plan = wish("tmpfs", "size=10m,ro,nosuid,uid=1000,rw,rshared").plan();
        assert_eq!((plan.data.as_str(), plan.flags, plan.bind), ("size=10m,uid=1000", MountFlags::NOSUID, false));
        assert_eq!(plan.propagation, Some(MountPropagationFlags::SHARED | MountPropagationFlags::REC));
        let plan = wish("none", "rbind,ro").plan();
        assert_eq!((plan.flags, plan.bind, plan.recursive), (MountFlags::RDONLY, true, true));
        assert_eq!(wish("none", "").plan().data, "");
    }

    #[test]
    fn only_networks_have_hosts_and_passwords_are_not_shown() {
        let wish = |kind: &str, options: &str| Wish { device: "d".into(), kind: kind.into(), options: options.into() };
        assert_eq!(wish("nfs", "rw,addr=host.test").host(), Some("host.test"));
        assert_eq!(wish("nfs", "addr=10.0.0.1").host(), None);
        assert_eq!(wish("ext4", "addr=host.test").host(), None);
        assert_eq!(wish("nfs", "rw,addr=h,x").resolved("h", "10.0.0.1").options, "rw,addr=10.0.0.1,x");
        assert_eq!(wish("cifs", "").shown("user=a,password=b"), "user=a,password=********");
    }

    #[test]
    fn only_a_device_or_a_type_makes_a_mount() {
        assert_eq!(super::wish(None), None);
        assert_eq!(super::wish(Some(&map(&[("type", ""), ("device", ""), ("o", "")]))), None);
        assert!(super::wish(Some(&map(&[("type", "tmpfs"), ("device", "tmpfs")]))).is_some());
    }
}
